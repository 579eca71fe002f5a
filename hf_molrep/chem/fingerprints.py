"""Morgan fingerprints and their Tanimoto similarity: the baseline of every search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from .smiles import parse

_BLOCK = 4096  # rows and columns of a similarity matrix that are computed at a time


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


def nearest_similarity(fingerprints: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """
    Compute the Tanimoto similarity of each molecule to the nearest one of the reference, float32 `[molecules]`.

    The mean over generated molecules is SNN of MOSES (Polykovskiy et al., Front. Pharmacol. 11, 565644 (2020)).

    Args:
        fingerprints: uint8 `[molecules, bits]`.
        reference: uint8 `[references, bits]`; None: the other molecules of `fingerprints`.
    Raises:
        ValueError: there is nothing to compare with.
    """
    among_themselves = reference is None
    reference = fingerprints if reference is None else reference
    if len(reference) < 1 + among_themselves:
        raise ValueError("there is no other molecule to compare with")
    nearest = np.zeros(len(fingerprints), dtype=np.float32)
    for first, start, similarity in _tanimoto_blocks(fingerprints, reference):
        if among_themselves and first == start:
            np.fill_diagonal(similarity, 0.0)
        rows = nearest[first : first + len(similarity)]
        np.maximum(rows, similarity.max(axis=1), out=rows)
    return nearest


def internal_diversity(fingerprints: np.ndarray, powers: Sequence[int] = (1, 2)) -> tuple[float, ...]:
    """
    Compute IntDiv_p of MOSES for each p of `powers`: one minus the mean over the molecules of
    `(mean of T^p over all molecules, itself included)^(1/p)`, T the Tanimoto similarity. (In the paper's equation the
    root is taken of the mean over all pairs; this is what the authors' code computes, and so all published numbers.)

    Args:
        fingerprints: uint8 `[molecules, bits]`.
    Raises:
        ValueError: no molecules.
    """
    if not len(fingerprints):
        raise ValueError("no molecules")
    sums = np.zeros((len(powers), len(fingerprints)))
    for first, _, similarity in _tanimoto_blocks(fingerprints, fingerprints):
        for place, power in enumerate(powers):
            raised = similarity if power == 1 else similarity**power
            sums[place, first : first + len(similarity)] += raised.sum(axis=1, dtype=np.float64)
    means = sums / len(fingerprints)
    return tuple(float(1 - (row ** (1 / power)).mean()) for power, row in zip(powers, means, strict=True))


def _tanimoto_blocks(queries: np.ndarray, candidates: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Compute [`tanimoto`] in blocks: the first row, the first column, and the similarities."""
    for start in range(0, len(candidates), _BLOCK):
        for first in range(0, len(queries), _BLOCK):
            yield first, start, tanimoto(queries[first : first + _BLOCK], candidates[start : start + _BLOCK])
