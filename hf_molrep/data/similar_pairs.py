"""Pairs of similar molecules of which one has the better property, from any list of molecules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..chem.fingerprints import morgan_fingerprints, tanimoto

_ROWS = 4096  # fingerprints made at a time
_BITS = 2048


class SimilarPair(NamedTuple):
    """Indices of the molecule to be improved and of the better one, their Tanimoto similarity, and the gain."""

    source: int
    target: int
    similarity: float
    gain: float


def similar_pairs(
    smiles: Sequence[str],
    values: np.ndarray,
    similarity: tuple[float, float] = (0.4, 0.999),
    min_gain: float = 0.1,
    neighbours: int = 10,
    candidates: int = 64,
    probes: int = 16,
) -> list[SimilarPair]:
    """
    Find for each molecule, among its most similar ones, that with the largest gain (X-MOL's rule for its pairs).

    The nearest fingerprints by Hamming distance are found with FAISS in the `probes` nearest of sqrt(molecules) cells
    (fewer for few molecules), so the effort does not grow with the square of their number; their Tanimoto similarities
    are exact. Neighbours in other cells are missed.

    Args:
        smiles: the molecules, all different.
        values: the property of each, `[molecules]`; larger is better.
        similarity: smallest and largest Tanimoto similarity of a pair (Morgan, radius 2, 2,048 bits).
        min_gain: smallest gain of a pair.
        neighbours: how many of the most similar molecules in that range are considered.
        candidates: how many are looked for by Hamming distance.
        probes: number of cells searched for each molecule.
    Raises:
        MoleculeError: a SMILES cannot be read.
        ValueError: not one value for each molecule; or the range of similarities is empty.
    """
    import faiss

    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(smiles):
        raise ValueError(f"{len(smiles)} molecules with {len(values)} values")
    low, high = similarity
    if not 0 <= low <= high <= 1:
        raise ValueError(f"similarities lie between 0 and 1, the smaller one first, not {similarity}")
    if len(smiles) < 2:
        return []
    packed = np.concatenate(
        [
            np.packbits(morgan_fingerprints(smiles[first : first + _ROWS], size=_BITS), axis=1)
            for first in range(0, len(smiles), _ROWS)
        ]
    )
    cells = max(1, min(int(np.sqrt(len(smiles))), len(smiles) // 39))  # 39 molecules a cell: FAISS asks for them
    quantizer = faiss.IndexBinaryFlat(_BITS)
    index = faiss.IndexBinaryIVF(quantizer, _BITS, cells)
    index.train(packed)
    index.add(packed)
    index.nprobe = min(probes, cells)
    _, found = index.search(packed, min(candidates + 1, len(smiles)))
    pairs = []
    for source, near in enumerate(found):
        near = near[(near >= 0) & (near != source)]
        if not len(near):
            continue
        bits = np.unpackbits(packed[[source, *near]], axis=1)
        alike = tanimoto(bits[:1], bits[1:])[0]
        inside = np.flatnonzero((alike >= low) & (alike <= high))
        inside = inside[np.argsort(-alike[inside], kind="stable")][:neighbours]
        if not len(inside):
            continue
        gains = values[near[inside]] - values[source]
        best = int(gains.argmax())
        if gains[best] >= min_gain:
            place = inside[best]
            pairs.append(SimilarPair(source, int(near[place]), float(alike[place]), float(gains[best])))
    return pairs


__all__ = ["SimilarPair", "similar_pairs"]
