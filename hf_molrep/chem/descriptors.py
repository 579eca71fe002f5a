"""
Descriptors of RDKit: 200 normalised ones for the heads of fine-tuning, some four hundred as targets of pre-training.

The former are `rdkit_2d_normalized`, each descriptor as its quantile among drug-like molecules, after
`descriptors/rdNormalizedDescriptors.py` of descriptastorus 2.8.0 (github.com/bp-kelley/descriptastorus, Brian Kelley,
Novartis Institutes for BioMedical Research; BSD-3-Clause), the features that GROVER is fine-tuned with. The code is
ours. The fitted distributions are the author's, under that licence: `descriptor_distributions.json` has one of SciPy's
continuous distributions for each descriptor.
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

_DATA = json.loads(resources.files(__package__).joinpath("descriptor_distributions.json").read_text("utf-8"))
_DISTRIBUTIONS: dict[str, dict] = _DATA["distributions"]
DESCRIPTOR_NAMES = tuple(_DISTRIBUTIONS)  # RDKit's names in the order of the original (alphabetical)

# Since 2024.03 RDKit counts chains of carbon only; the distribution was fitted to chains of any atoms.
_CHAIN = "[R0;D2][R0;D2][R0;D2][R0;D2]"

# Prefixes of descriptors that are no targets: slow ones (together slower than all others), means over fingerprints, and
# information contents, whose range is too large for any scaling.
_NO_TARGETS = ("qed", "SPS", "BertzCT", "BalabanJ", "Ipc", "AvgIpc", "FpDensityMorgan", "BCUT2D")
# the extremes of the EState indices, computed from one array of indices
_ESTATE: dict[str, Callable[[list[float]], float]] = {
    "MaxAbsEStateIndex": lambda indices: max(map(abs, indices)),
    "MaxEStateIndex": max,
    "MinAbsEStateIndex": lambda indices: min(map(abs, indices)),
    "MinEStateIndex": min,
}
_MQN, _AUTOCORRELATIONS = 42, 192


@cache
def _functions() -> tuple[Callable[[Mol], float], ...]:
    """RDKit's function of each descriptor."""
    from rdkit import Chem
    from rdkit.Chem import Descriptors

    chain = Chem.MolFromSmarts(_CHAIN)
    known = {**dict(Descriptors.descList), "fr_unbrch_alkane": lambda mol: len(mol.GetSubstructMatches(chain))}
    missing = [name for name in DESCRIPTOR_NAMES if name not in known]
    if missing:
        raise RuntimeError(f"this version of RDKit has no descriptor {', '.join(missing)}")
    return tuple(known[name] for name in DESCRIPTOR_NAMES)


@cache
def _cdfs() -> tuple[tuple[Callable[[np.ndarray], np.ndarray], float, float], ...]:
    """Fitted cumulative distribution function of each descriptor, and the range of values it was fitted to."""
    from scipy import stats

    def frozen(fit: dict[str, Any]) -> tuple:
        return getattr(stats, fit["distribution"])(*fit["parameters"]).cdf, fit["minimum"], fit["maximum"]

    return tuple(frozen(_DISTRIBUTIONS[name]) for name in DESCRIPTOR_NAMES)


def _values(mol: Mol) -> list[float]:
    """Descriptors before normalisation; NaN where RDKit fails, with exceptions of any type."""
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
    Compute the descriptors `DESCRIPTOR_NAMES` of each molecule (RDKit's, or SMILES, taken as drawn), 0 to 1, float32
    `[molecules, 200]`.

    As in the original, values (infinities too) are clipped to the range that the distribution was fitted to, and the
    result to 0 ... 1. A descriptor that RDKit cannot compute is 0 (descriptastorus), and so is one that is NaN (GROVER,
    `grover/data/moldataset.py`). `fr_unbrch_alkane` is that of RDKit before 2024.03. Each distribution function is
    evaluated once, on the distinct values of all molecules: pass many at a time.

    Raises:
        MoleculeError: a SMILES that cannot be read.
    """
    rows = [_values(parse(molecule) if isinstance(molecule, str) else molecule) for molecule in molecules]
    values = np.array(rows, dtype=np.float64).reshape(-1, len(DESCRIPTOR_NAMES))
    normalized = np.zeros(values.shape, dtype=np.float32)
    # SciPy warns of overflows far from the middle of a distribution, which become 0 or 1 here
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        for column, (cdf, lowest, highest) in enumerate(_cdfs()):
            distinct, inverse = np.unique(np.clip(values[:, column], lowest, highest), return_inverse=True)
            normalized[:, column] = np.nan_to_num(np.clip(cdf(distinct), 0.0, 1.0), nan=0.0)[inverse]
    return normalized


@cache
def _target_functions() -> dict[str, Callable[[Mol], float]]:
    """RDKit's functions of the targets that are computed one by one."""
    from rdkit.Chem import Descriptors

    return {
        name: function
        for name, function in Descriptors.descList
        if not name.startswith(_NO_TARGETS) and name not in _ESTATE
    }


def _estate_indices(mol: Mol) -> np.ndarray:
    """`rdkit.Chem.EState.EStateIndices` (Hall, Mohney, Kier, J. Chem. Inf. Comput. Sci. 31, 76 (1991)), vectorised."""
    from rdkit.Chem import GetDistanceMatrix, GetPeriodicTable
    from rdkit.Chem.EState.EState import GetPrincipleQuantumNumber

    table, intrinsic = GetPeriodicTable(), np.zeros(mol.GetNumAtoms())
    for place, atom in enumerate(mol.GetAtoms()):
        number, degree = atom.GetAtomicNum(), atom.GetDegree()
        if degree:
            valence = table.GetNOuterElecs(number) - atom.GetTotalNumHs()
            intrinsic[place] = (4.0 / GetPrincipleQuantumNumber(number) ** 2 * valence + 1) / degree
    distance = GetDistanceMatrix(mol, useBO=False, useAtomWts=False) + 1
    weight = np.where(distance < 1e6, distance**-2.0, 0.0)
    return intrinsic * (1 + weight.sum(axis=1)) - weight @ intrinsic


def target_names() -> tuple[str, ...]:
    """
    Names of the columns of [`target_descriptors`]: RDKit's for its descriptors (counts, connectivity and shape indices,
    EState, surface areas by property, fragments), `MQN1` ... for the molecular quantum numbers, `AUTOCORR2D_1` ... for
    the autocorrelations. Which descriptors there are depends on RDKit's version.
    """
    return (
        *_ESTATE,
        *_target_functions(),
        *(f"MQN{number}" for number in range(1, _MQN + 1)),
        *(f"AUTOCORR2D_{number}" for number in range(1, _AUTOCORRELATIONS + 1)),
    )


def target_descriptors(molecules: Iterable[Mol | str]) -> np.ndarray:
    """
    Compute the cheap descriptors of each molecule (RDKit's, or SMILES, taken as drawn), float64
    `[molecules, descriptors]` in the order of [`target_names`]; NaN where RDKit cannot compute one or gives an
    infinity.

    Raises:
        MoleculeError: a SMILES that cannot be read.
    """
    from rdkit.Chem import Mol
    from rdkit.Chem.rdMolDescriptors import CalcAUTOCORR2D, MQNs_
    from rdkit.rdBase import BlockLogs

    def attempt(function: Callable, *arguments: Any, size: int = 1) -> list[float]:
        try:
            found = function(*arguments)
            return [float(found)] if size == 1 else list(map(float, found))
        except Exception:  # RDKit fails with exceptions of any type
            return [math.nan] * size

    functions, rows = _target_functions().values(), []
    with BlockLogs():
        for molecule in molecules:
            # a copy: RDKit leaves intermediate results in the molecule
            mol = parse(molecule) if isinstance(molecule, str) else Mol(molecule)
            # where RDKit's EState_VSA functions look for the indices, which they compute by a loop over pairs of atoms
            mol._eStateIndices = _estate_indices(mol)
            estate = mol._eStateIndices.tolist()
            row = [value for function in _ESTATE.values() for value in attempt(function, estate)]
            row += [value for function in functions for value in attempt(function, mol)]
            row += attempt(MQNs_, mol, size=_MQN) + attempt(CalcAUTOCORR2D, mol, size=_AUTOCORRELATIONS)
            rows.append(row)
    values = np.array(rows, dtype=np.float64).reshape(-1, len(target_names()))
    values[~np.isfinite(values)] = np.nan
    return values
