"""Per-molecule arrays to batched arrays. Knows no method; keys are those of transformers and PyG."""

from collections.abc import Sequence

import numpy as np


def pad_tokens(sequences: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Token ids of several molecules to `input_ids` and `attention_mask`, both int64 `[molecules, longest]`, padded right.

    Raises:
        ValueError: no sequence, or an empty one.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    if not len(lengths) or lengths.min() == 0:
        raise ValueError("a batch needs at least one molecule, and every molecule at least one token")
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(sequences)
    return ids, mask.astype(np.int64)


def grouped_order(
    lengths: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
    group_size: int = 8,
    batches_per_window: int = 64,
) -> np.ndarray:
    """
    A random order of the molecules in which every `batch_size` consecutive ones have similar lengths.

    Molecules are shuffled, cut into windows of `batches_per_window` batches, sorted by length within each window, cut
    into batches, and the batches shuffled. With `groups`, up to `group_size` molecules of one group travel together:
    given molecular formulas, the other molecules of a contrastive batch include isomers.

    Args:
        lengths: `[molecules]`, tokens or atoms of each molecule.
        groups: `[molecules]`, any integers.
    Returns:
        a permutation of `range(molecules)`.
    """
    lengths = np.asarray(lengths)
    order = rng.permutation(len(lengths))
    if groups is None:
        unit = np.arange(len(lengths))
    else:
        # molecules of one group side by side in random order, then chunks of group_size; a chunk is one unit
        order = order[np.argsort(np.asarray(groups)[order], kind="stable")]
        sorted_groups = np.asarray(groups)[order]
        starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        unit = np.cumsum(rank % group_size == 0) - 1
    unit_length = np.bincount(unit, weights=lengths[order]) / np.bincount(unit)
    unit_order = rng.permutation(len(unit_length))
    place = np.empty_like(unit_order)
    place[unit_order] = np.arange(len(unit_order))
    order = order[np.argsort(place[unit], kind="stable")]
    unit = unit[np.argsort(place[unit], kind="stable")]

    window = batch_size * batches_per_window
    batches = []
    for start in range(0, len(order), window):
        inside, its_units = order[start : start + window], unit[start : start + window]
        # by the length of the unit, then by unit, so that a group is not torn apart
        inside = inside[np.lexsort((its_units, -unit_length[its_units]))]
        batches += [inside[first : first + batch_size] for first in range(0, len(inside), batch_size)]
    full = [batch for batch in batches if len(batch) == batch_size]
    rest = [batch for batch in batches if len(batch) < batch_size]
    shuffled = [full[index] for index in rng.permutation(len(full))]
    return np.concatenate(shuffled + rest) if batches else order
