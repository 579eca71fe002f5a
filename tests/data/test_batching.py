"""Padding and the order in which molecules are put into batches."""

import numpy as np
import pytest

from hf_molrep.data.batching import grouped_order, pad_tokens


def test_pad_tokens():
    ids, mask = pad_tokens([np.array([5, 6, 7], dtype=np.int32), [8], np.array([9, 1], dtype=np.int16)], 1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1], [9, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]  # a token that looks like padding is none
    assert ids.dtype == mask.dtype == np.int64


@pytest.mark.parametrize("sequences", [[], [[]], [[1, 2], []]])
def test_nothing_to_pad(sequences):
    with pytest.raises(ValueError, match="at least one"):
        pad_tokens(sequences, 0)


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    return np.random.default_rng(0).integers(5, 120, 2003)


def waste(order: np.ndarray, lengths: np.ndarray, batch_size: int) -> float:
    """Share of padding among the tokens of all batches."""
    batches = [lengths[order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)


def test_order_is_a_seeded_permutation(lengths):
    order = grouped_order(lengths, 32, np.random.default_rng(1))
    assert np.array_equal(np.sort(order), np.arange(len(lengths)))
    assert np.array_equal(order, grouped_order(lengths, 32, np.random.default_rng(1)))
    assert not np.array_equal(order, grouped_order(lengths, 32, np.random.default_rng(2)))


def test_order_saves_padding(lengths):
    order = grouped_order(lengths, 32, np.random.default_rng(1))
    assert waste(np.random.default_rng(1).permutation(len(lengths)), lengths, 32) > 0.3
    assert waste(order, lengths, 32) < 0.05


def test_batches_are_shuffled(lengths):
    """Short and long batches are mixed, and the incomplete one comes last."""
    order = grouped_order(lengths, 32, np.random.default_rng(1))
    means = lengths[order[: 62 * 32]].reshape(62, 32).mean(axis=1)
    assert abs(np.corrcoef(np.arange(62), means)[0, 1]) < 0.5
    sizes = [len(order[start : start + 32]) for start in range(0, len(order), 32)]
    assert sizes == [32] * 62 + [19]


def test_windows_keep_batches_different(lengths):
    """Sorting happens within windows: the batches of two epochs do not hold the same molecules."""
    batches = [
        {frozenset(order[start : start + 32]) for start in range(0, 2003, 32)}
        for order in (grouped_order(lengths, 32, np.random.default_rng(seed), batches_per_window=8) for seed in (1, 2))
    ]
    assert not batches[0] & batches[1]


@pytest.mark.parametrize("batches_per_window", [1, 4, 64])
def test_groups_travel_together(lengths, batches_per_window):
    """Members of a group meet in a batch far more often than by chance, up to `group_size` at a time."""
    groups = np.random.default_rng(3).integers(0, 300, len(lengths))
    order = grouped_order(lengths, 32, np.random.default_rng(1), groups, 4, batches_per_window)
    assert np.array_equal(np.sort(order), np.arange(len(lengths)))

    def company(order: np.ndarray) -> float:
        """Others of its group that a molecule meets in its batch, on average."""
        batches = [groups[order[start : start + 32]] for start in range(0, len(order), 32)]
        return np.mean(np.concatenate([np.bincount(batch)[batch] - 1 for batch in batches]))

    assert company(np.random.default_rng(1).permutation(len(lengths))) < 0.2
    assert 1.5 < company(order) < 4
    runs = np.diff(np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0, True]))
    assert np.mean(runs) > 2  # side by side


def test_any_names_of_groups_and_small_sets():
    for count in (1, 2, 31):
        order = grouped_order(np.arange(count) + 3, 32, np.random.default_rng(0), np.full(count, 7))
        assert np.array_equal(np.sort(order), np.arange(count))
