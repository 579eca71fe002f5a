"""Descriptors as targets of pre-training: fit their scaling, which is saved with the processor, and apply it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..chem.descriptors import target_descriptors, target_names

TAIL = 0.1  # percentile at either end to which values are clipped before mean and standard deviation are computed
CUT = 6.0  # standard deviations at which scaled values are cut
FIELDS = ("low", "high", "mean", "std")


def fit_scaling(molecules: Iterable[Any]) -> dict[str, list]:
    """
    Fit the scaling of the descriptors to molecules (RDKit's, or SMILES).

    Returns:
        `names`: those of [`~hf_molrep.chem.descriptors.target_names`] that differ between the molecules; for each of
        them `low` and `high`, the percentiles `TAIL` and `100 - TAIL`, and `mean` and `std` of the values clipped to
        these.
    Raises:
        ValueError: no descriptor differs between the molecules.
    """
    values, kept = target_descriptors(molecules), {name: [] for name in ("names", *FIELDS)}
    for name, column in zip(target_names(), values.T, strict=True):
        known = column[~np.isnan(column)]
        if not len(known):
            continue
        low, high = np.percentile(known, [TAIL, 100 - TAIL])
        clipped = np.clip(known, low, high)
        if clipped.std() > 1e-9 * max(1.0, abs(clipped).max()):
            kept["names"].append(name)
            for field, value in zip(FIELDS, (low, high, clipped.mean(), clipped.std()), strict=True):
                kept[field].append(float(value))
    if not kept["names"]:
        raise ValueError(f"no descriptor differs between the {len(values)} molecules that the scaling is fitted to")
    return kept


def scaled_descriptors(molecules: Iterable[Any], scaling: Mapping[str, list]) -> np.ndarray:
    """
    Compute the targets of molecules (RDKit's, or SMILES), float32 `[molecules, len(scaling["names"])]`: descriptors
    clipped to `low` ... `high`, minus `mean`, divided by `std`, cut at +-`CUT`; NaN where RDKit cannot compute one.

    Raises:
        MoleculeError: a SMILES that cannot be read.
        ValueError: a descriptor that this version of RDKit does not have.
    """
    place = {name: number for number, name in enumerate(target_names())}
    if missing := [name for name in scaling["names"] if name not in place]:
        raise ValueError(f"this version of RDKit has no descriptor {', '.join(missing)}, which are targets here")
    values = target_descriptors(molecules)[:, [place[name] for name in scaling["names"]]]
    low, high, mean, std = (np.asarray(scaling[field]) for field in FIELDS)
    return np.clip((np.clip(values, low, high) - mean) / std, -CUT, CUT).astype(np.float32)


__all__ = ["fit_scaling", "scaled_descriptors"]
