"""Morgan fingerprints and their Tanimoto similarity: the baseline of every search."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .smiles import parse


def morgan_fingerprints(
    smiles: Iterable[str], radius: int = 2, size: int = 2048, include_chirality: bool = False
) -> np.ndarray:
    """
    Compute folded Morgan fingerprints (Rogers and Hahn, J. Chem. Inf. Model. 50, 742 (2010); radius 2 is ECFP4's) of
    molecules as drawn, uint8 `[molecules, size]` of 0 and 1.

    Raises:
        MoleculeError: a SMILES cannot be read.
    """
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=radius, fpSize=size, includeChirality=include_chirality)
    rows = [generator.GetFingerprintAsNumPy(parse(text)) for text in smiles]
    return np.stack(rows).astype(np.uint8, copy=False) if rows else np.zeros((0, size), dtype=np.uint8)


def tanimoto(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Compute Tanimoto similarities of 0/1 fingerprints, float32 `[queries, candidates]`; 0 between two empty ones."""
    queries, candidates = queries.astype(np.float32), candidates.astype(np.float32)
    common = queries @ candidates.T
    either = queries.sum(1)[:, None] + candidates.sum(1) - common
    return np.divide(common, either, out=np.zeros_like(common), where=either > 0)
