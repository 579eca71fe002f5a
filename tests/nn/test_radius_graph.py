"""Neighbours in space against a double loop over atoms; distances as vectors against the formulas."""

import math

import pytest
import torch

from hf_molrep.nn.radial_basis import cosine_cutoff, gaussian_basis
from hf_molrep.nn.radius_graph import radius_graph


def by_hand(pos: torch.Tensor, batch: torch.Tensor, cutoff: float, most: int | None) -> list[tuple[int, int]]:
    """Pairs (source, target), target by target: every atom looks at every other."""
    points, molecules, pairs = pos.double().tolist(), batch.tolist(), []
    for target, there in enumerate(points):
        near = []
        for source, here in enumerate(points):
            distance = math.dist(there, here)
            if source != target and molecules[source] == molecules[target] and distance <= cutoff:
                near.append((distance, source))
        nearest = sorted(near)[: len(near) if most is None else most]
        pairs += sorted((source, target) for _, source in nearest)
    return pairs


@pytest.mark.parametrize("most", [None, 1, 3, 100])
@pytest.mark.parametrize("cutoff", [0.1, 1.5, 3.0, 100.0])
@pytest.mark.parametrize("sorted_batch", [True, False])
def test_against_a_double_loop(cutoff, most, sorted_batch):
    generator = torch.Generator().manual_seed(0)
    batch = torch.tensor([0] * 9 + [1] + [3] * 17 + [4] * 2)  # molecule 2 has no atoms
    if not sorted_batch:
        batch = batch[torch.randperm(len(batch), generator=generator)]
    pos = 1.5 * torch.randn(len(batch), 3, generator=generator)
    expected = by_hand(pos, batch, cutoff, most)
    found = radius_graph(pos, batch, cutoff, most)
    assert found.dtype == torch.int64
    assert found.T.tolist() == [list(pair) for pair in expected]


def test_edges_of_the_question():
    """The cutoff is included; atoms at one place are neighbours; of equally near ones the first count; no atoms."""
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [3, 0, 0]])
    one = torch.zeros(5, dtype=torch.long)
    assert radius_graph(line, one, 1.0).T.tolist() == [[1, 0], [2, 0], [3, 0], [0, 1], [0, 2], [0, 3]]
    assert radius_graph(line, one, 1.0, 2).T.tolist() == [[1, 0], [2, 0], [0, 1], [0, 2], [0, 3]]
    assert radius_graph(torch.zeros(2, 3), one[:2], 1.0).T.tolist() == [[1, 0], [0, 1]]
    assert radius_graph(torch.zeros(0, 3), one[:0], 1.0).shape == (2, 0)
    with pytest.raises(ValueError, match=r"pos \(4, 3\) is not one point for each of 5 atoms"):
        radius_graph(line[:4], one, 1.0)


def test_radial_functions():
    distance = torch.tensor([[0.0, 0.3], [1.7, 2.0]])
    found = gaussian_basis(distance, 2.0, 5)
    assert found.shape == (2, 2, 5)
    for (row, column), value in zip(((0, 0), (0, 1), (1, 0), (1, 1)), distance.flatten().tolist(), strict=True):
        expected = [math.exp(-((value - 0.5 * k) ** 2) / (2 * 0.5**2)) for k in range(5)]
        assert found[row, column].tolist() == pytest.approx(expected, rel=1e-5)
    assert cosine_cutoff(distance, 2.0)[1, 0].item() == pytest.approx((math.cos(math.pi * 1.7 / 2) + 1) / 2, rel=1e-5)
    assert cosine_cutoff(torch.tensor([0.0, 2.0]), 2.0).tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    for wrong in ({"stop": 2.0, "count": 1}, {"stop": 0.0, "count": 5}):
        with pytest.raises(ValueError, match="at least two"):
            gaussian_basis(distance, **wrong)
