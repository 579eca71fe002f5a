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
    target_value: float | None = None,
    targets: int = 1,
    candidates: int = 64,
    probes: int = 16,
) -> list[SimilarPair]:
    """
    Find for each molecule, among its most similar ones, those with the largest gain (X-MOL's rule for its pairs: the
    best of the ten most similar).

    The nearest fingerprints by Hamming distance are found with FAISS in the `probes` nearest of sqrt(molecules) cells
    (fewer for few molecules), so the effort does not grow with the square of their number; their Tanimoto similarities
    are exact. Neighbours in other cells are missed.

    Args:
        smiles: the molecules, all different.
        values: the property of each, `[molecules]`; larger is better.
        similarity: smallest and largest Tanimoto similarity of a pair (Morgan, radius 2, 2,048 bits).
        min_gain: smallest gain of a pair.
        neighbours: how many of the most similar molecules in that range are considered.
        target_value: smallest value of the better molecule. It is then looked for among such molecules only, so that
            "the most similar" are the most similar ones of them.
        targets: largest number of pairs for each molecule to be improved.
        candidates: how many are looked for by Hamming distance.
        probes: number of cells searched for each molecule.
    Returns:
        The pairs in the order of the molecules to be improved; those of one molecule by falling gain.
    Raises:
        MoleculeError: a SMILES cannot be read.
        ValueError: not one value for each molecule, or one is not a number; the range of similarities is empty; or a
            number is below 1.
    """
    import faiss

    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(smiles):
        raise ValueError(f"{len(smiles)} molecules with {len(values)} values")
    low, high = similarity
    if not 0 <= low <= high <= 1:
        raise ValueError(f"similarities lie between 0 and 1, the smaller one first, not {similarity}")
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"the value of {smiles[place]} is not a number: {values[place]}")
    for name, number in {"neighbours": neighbours, "targets": targets}.items():
        if number < 1:
            raise ValueError(f"{name} is at least 1, not {number}")
    possible = np.arange(len(smiles)) if target_value is None else np.flatnonzero(values >= target_value)
    if len(smiles) < 2 or not len(possible):
        return []
    packed = np.concatenate(
        [
            np.packbits(morgan_fingerprints(smiles[first : first + _ROWS], size=_BITS), axis=1)
            for first in range(0, len(smiles), _ROWS)
        ]
    )
    cells = max(1, min(int(np.sqrt(len(possible))), len(possible) // 39))  # 39 molecules a cell: FAISS asks for them
    quantizer = faiss.IndexBinaryFlat(_BITS)
    index = faiss.IndexBinaryIVF(quantizer, _BITS, cells)
    index.train(packed[possible])
    index.add(packed[possible])
    index.nprobe = min(probes, cells)
    sources = np.flatnonzero(values[possible].max() - values >= min_gain)  # others cannot be improved so much
    pairs = []
    for first in range(0, len(sources), _ROWS):
        block = sources[first : first + _ROWS]
        _, found = index.search(packed[block], min(candidates + 1, len(possible)))
        for source, places in zip(block.tolist(), found, strict=True):
            near = possible[places[places >= 0]]
            near = near[near != source]
            bits = np.unpackbits(packed[[source, *near]], axis=1)
            alike = tanimoto(bits[:1], bits[1:])[0]
            inside = np.flatnonzero((alike >= low) & (alike <= high))
            inside = inside[np.argsort(-alike[inside], kind="stable")][:neighbours]
            gains = values[near[inside]] - values[source]
            for place in np.argsort(-gains, kind="stable")[:targets]:
                if gains[place] >= min_gain:
                    chosen = inside[place]
                    pairs.append(SimilarPair(source, int(near[chosen]), float(alike[chosen]), float(gains[place])))
    return pairs


__all__ = ["SimilarPair", "similar_pairs"]
