"""Pairs of similar molecules with a gain: what is found, against a loop over all pairs."""

import numpy as np
import pytest

from hf_molrep.chem.fingerprints import morgan_fingerprints, tanimoto
from hf_molrep.chem.properties import properties
from hf_molrep.data.similar_pairs import similar_pairs

MOLECULES = [f"{'C' * left}{middle}{'C' * right}" for left in range(1, 8) for right in range(1, 8) for middle in "ONS"]
MOLECULES = [text + end for text in MOLECULES for end in ("", "O", "Cl", "c1ccccc1")]


@pytest.fixture(scope="module")
def values():
    return properties(MOLECULES, "qed")


def test_pairs_are_those_of_all_pairs(values):
    """With all cells searched nothing is missed."""
    prints = morgan_fingerprints(MOLECULES)
    alike = tanimoto(prints, prints)
    np.fill_diagonal(alike, 0)
    pairs = {
        pair.source: pair
        for pair in similar_pairs(MOLECULES, values, (0.5, 0.95), 0.02, candidates=len(MOLECULES), probes=10_000)
    }
    assert len(pairs) > 50
    for source in range(len(MOLECULES)):
        near = np.flatnonzero((alike[source] >= 0.5) & (alike[source] <= 0.95))
        tenth = np.sort(alike[source][near])[::-1][:10].min(initial=1.0)
        best = values[near[alike[source][near] > tenth]].max(initial=0.0) - values[source]
        widest = values[near[alike[source][near] >= tenth]].max(initial=0.0) - values[source]
        if source in pairs:
            pair = pairs[source]
            assert pair.similarity == pytest.approx(alike[source, pair.target])
            assert pair.gain == pytest.approx(values[pair.target] - values[source])
            assert best - 1e-9 <= pair.gain <= widest + 1e-9  # equally similar ones are as good
            assert pair.gain >= 0.02
        else:
            assert best < 0.02


def test_few_cells_find_most(values):
    everything = similar_pairs(MOLECULES, values, (0.5, 0.95), 0.02, candidates=len(MOLECULES), probes=10_000)
    quick = similar_pairs(MOLECULES, values, (0.5, 0.95), 0.02, probes=4)
    assert len({pair.source for pair in quick} & {pair.source for pair in everything}) > 0.7 * len(everything)


def test_targets_reach_a_value(values):
    """Only molecules that reach the value are targets, up to so many for each; the nearest of them are considered."""
    limit = float(np.quantile(values, 0.8))
    options = {"target_value": limit, "candidates": len(MOLECULES), "probes": 10_000}
    pairs = similar_pairs(MOLECULES, values, (0.3, 0.95), 0.02, targets=3, neighbours=3, **options)
    assert all(values[pair.target] >= limit for pair in pairs)
    prints = morgan_fingerprints(MOLECULES)
    alike = tanimoto(prints, prints)
    by_source: dict[int, list] = {}
    for pair in pairs:
        by_source.setdefault(pair.source, []).append(pair)
    assert max(map(len, by_source.values())) == 3
    for source, found in by_source.items():
        possible = (values >= limit) & (alike[source] >= 0.3) & (alike[source] <= 0.95)
        possible[source] = False
        assert min(pair.similarity for pair in found) >= np.sort(alike[source][possible])[::-1][:3].min() - 1e-6
        assert [pair.gain for pair in found] == sorted((pair.gain for pair in found), reverse=True)
    paper = similar_pairs(MOLECULES, values, (0.3, 0.95), 0.02, candidates=len(MOLECULES), probes=10_000)
    assert any(values[pair.target] < limit for pair in paper)
    assert similar_pairs(MOLECULES, values, target_value=2.0) == []


def test_few_molecules_and_wrong_arguments():
    assert similar_pairs([], np.array([])) == []
    assert similar_pairs(["C"], np.array([1.0])) == []
    (pair,) = similar_pairs(["CCCCCO", "CCCCCCO"], np.array([0.0, 1.0]), (0.1, 1.0))
    assert (pair.source, pair.target, pair.gain) == (0, 1, 1.0)
    with pytest.raises(ValueError, match="2 molecules with 1 values"):
        similar_pairs(["C", "CC"], np.array([1.0]))
    with pytest.raises(ValueError, match="the value of CC is not a number"):
        similar_pairs(["C", "CC"], np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="targets is at least 1"):
        similar_pairs(["C", "CC"], np.array([1.0, 2.0]), targets=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        similar_pairs(["C", "CC"], np.array([1.0, 2.0]), (0.9, 0.4))
    with pytest.raises(ValueError, match="the property is qed or logp, not 'mass'"):
        properties(["C"], "mass")
