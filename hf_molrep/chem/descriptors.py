"""
200 descriptors of RDKit, each as the share of drug-like molecules that lie below it: `rdkit_2d_normalized`.

After `descriptors/rdNormalizedDescriptors.py` of descriptastorus 2.8.0 (github.com/bp-kelley/descriptastorus, Brian
Kelley, Novartis Institutes for BioMedical Research; BSD-3-Clause), the features that GROVER is fine-tuned with. The
code is ours. The distributions that its author fitted are his figures: they stand, with that licence, in
`descriptor_distributions.json`, one of SciPy's continuous distributions for each descriptor.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from .smiles import parse

if TYPE_CHECKING:
    from rdkit.Chem import Mol

_FIGURES = json.loads(resources.files(__package__).joinpath("descriptor_distributions.json").read_text("utf-8"))
_DISTRIBUTIONS: dict[str, dict] = _FIGURES["distributions"]
DESCRIPTOR_NAMES = tuple(_DISTRIBUTIONS)  # RDKit's names in the order of the original (alphabetical)

# Since 2024.03 RDKit counts chains of carbon only; the distribution was fitted to any atoms, as descriptastorus counts.
_CHAIN = "[R0;D2][R0;D2][R0;D2][R0;D2]"


@cache
def _functions() -> tuple[Callable[[Mol], float], ...]:
    """RDKit's function for each of the 200."""
    from rdkit import Chem
    from rdkit.Chem import Descriptors

    chain = Chem.MolFromSmarts(_CHAIN)
    known = {**dict(Descriptors.descList), "fr_unbrch_alkane": lambda mol: len(mol.GetSubstructMatches(chain))}
    absent = [name for name in DESCRIPTOR_NAMES if name not in known]
    if absent:
        raise RuntimeError(f"this version of RDKit has no descriptor {', '.join(absent)}")
    return tuple(known[name] for name in DESCRIPTOR_NAMES)


@cache
def _cdfs() -> tuple[tuple[Callable[[np.ndarray], np.ndarray], float, float], ...]:
    """Of each descriptor the distribution function of the fit, the least and the highest value it was fitted to."""
    from scipy import stats

    def frozen(fit: dict[str, Any]) -> tuple:
        return getattr(stats, fit["distribution"])(*fit["parameters"]).cdf, fit["minimum"], fit["maximum"]

    return tuple(frozen(_DISTRIBUTIONS[name]) for name in DESCRIPTOR_NAMES)


def _values(mol: Mol) -> list[float]:
    """The 200 before normalisation; NaN where RDKit fails, which it tells by exceptions of any kind."""
    from rdkit import Chem

    mol, found = Chem.Mol(mol), []  # a copy: RDKit leaves intermediate results in the molecule
    for function in _functions():
        try:
            found.append(float(function(mol)))
        except Exception:
            found.append(math.nan)
    return found


def normalized_descriptors(molecules: Iterable[Mol | str]) -> np.ndarray:
    """
    The descriptors `DESCRIPTOR_NAMES` of each molecule (RDKit's, or SMILES, taken as drawn), from 0 to 1, float32
    `[molecules, 200]`.

    As in the original a value is first cut to the range that its distribution was fitted to, infinities too, and what
    the distribution function gives is cut to 0 ... 1. A descriptor that RDKit cannot compute, or of which either is
    not a number, is 0: descriptastorus gives 0 for the former, GROVER (`grover/data/moldataset.py`) sets 0 for NaN.
    `fr_unbrch_alkane` is that of RDKit before 2024.03. Each distribution function is evaluated once, on the different
    values of all molecules: give many at a time.

    Raises:
        MoleculeError: a SMILES that cannot be read.
    """
    rows = [_values(parse(molecule) if isinstance(molecule, str) else molecule) for molecule in molecules]
    values = np.array(rows, dtype=np.float64).reshape(-1, len(DESCRIPTOR_NAMES))
    found = np.zeros(values.shape, dtype=np.float32)
    # SciPy warns of what becomes 0 or 1 here: overflows far from the middle of a distribution.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        for column, (cdf, least, highest) in enumerate(_cdfs()):
            different, place = np.unique(np.clip(values[:, column], least, highest), return_inverse=True)
            found[:, column] = np.nan_to_num(np.clip(cdf(different), 0.0, 1.0), nan=0.0)[place]
    return found
