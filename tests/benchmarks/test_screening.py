"""Screening metrics against RDKit's, and the protocol on targets whose answer is known."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import screening
from hf_molrep.metrics import roc_auc
from tests.models.mm_deacon.tiny import save_tiny_checkpoint


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_agree_with_rdkit(ties):
    from rdkit.ML.Scoring.Scoring import CalcBEDROC, CalcEnrichment

    rng = np.random.default_rng(0)
    actives, decoys = rng.normal(0.8, 1, 37), rng.normal(0, 1, 1213)
    if ties:
        actives, decoys = actives.round(1), decoys.round(1)
    found = screening.screening_metrics(actives, decoys)
    scores, active = np.r_[actives, decoys], np.r_[np.ones(37), np.zeros(1213)]
    assert found["auc"] == pytest.approx(roc_auc(active, scores).mean)
    order = np.lexsort((active, -scores))  # actives last among equals
    ranked = [[bool(active[place])] for place in order]
    assert found["bedroc"] == pytest.approx(CalcBEDROC(ranked, 0, 20.0))
    assert found["ef1"] == pytest.approx(CalcEnrichment(ranked, 0, [0.01])[0])


def test_best_and_worst_rankings():
    best = screening.screening_metrics(np.ones(5), np.zeros(495))
    assert best == pytest.approx({"auc": 1.0, "bedroc": 1.0, "ef1": 100.0}, abs=1e-6)
    worst = screening.screening_metrics(np.zeros(5), np.ones(495))
    assert worst == pytest.approx({"auc": 0.0, "bedroc": 0.0, "ef1": 0.0}, abs=1e-6)
    equal = screening.screening_metrics(np.zeros(5), np.zeros(495))  # a constant score finds nothing
    assert equal["auc"] == 0.5
    assert equal["ef1"] == 0.0
    with pytest.raises(ValueError, match="numbers"):
        screening.screening_metrics(np.array([np.nan]), np.zeros(3))


def test_queries_are_removed_fused_by_maximum_and_near_actives_left_out():
    # Eight actives; similarity 1 to themselves. Six actives are found by active 0 alone, at 0.5; decoys score 0.4.
    target = screening.Target("S", "t", list(range(8)), list(range(8, 108)))
    similarity = np.full((8, 108), 0.4)
    similarity[0, :8] = 0.5
    similarity[:8, :8] += np.eye(8)
    nearness = np.full((8, 108), 0.1)
    nearness[0, 7] = 0.39
    nearness[1, 6] = 0.4  # not below 0.4: near
    with_it = screening.screen(target, similarity, nearness, [np.array([0, 1, 2, 3, 4])])
    assert with_it["all"]["auc"] == 1.0  # 5, 6 and 7 by active 0; the queries do not take part
    without = screening.screen(target, similarity, nearness, [np.array([1, 2, 3, 4, 5])])
    assert without["all"]["auc"] == pytest.approx(0.5)  # 0, 6 and 7 score as the decoys do
    similarity[0, 6] = 0.0
    far = screening.screen(target, similarity, nearness, [np.array([0, 1, 2, 3, 4])])
    assert far["dissimilar"]["auc"] == 1.0  # 6 is near query 1 and does not count
    assert far["all"]["auc"] == pytest.approx((2 + 0.5) / 3)  # 6 is found at 0.4, as the decoys are
    nearness[:] = 0.9
    assert np.isnan(screening.screen(target, similarity, nearness, [np.array([0, 1, 2, 3, 4])])["dissimilar"]["auc"])


def test_draws_are_fixed_and_differ():
    draws = screening.draws_of(30, 50, seed=0)
    assert [draw.tolist() for draw in draws] == [draw.tolist() for draw in screening.draws_of(30, 50, seed=0)]
    assert len({tuple(sorted(draw)) for draw in draws}) == 50
    assert all(len(set(draw.tolist())) == 5 for draw in draws)


def test_clusters_and_neighbours():
    labels = np.repeat(np.arange(3), 20)
    separate = np.eye(3)[labels] + 0.01 * np.random.default_rng(0).standard_normal((60, 3))
    assert screening.neighbour_agreement(separate, labels) == 1.0
    assert screening.cluster_scores(separate, labels, [0, 1, 2])["purity"] == pytest.approx([1.0] * 3)
    noise = np.random.default_rng(1).standard_normal((60, 3))
    assert screening.neighbour_agreement(noise, labels) < 0.6
    assert abs(np.mean(screening.cluster_scores(noise, labels, [0, 1, 2])["ami"])) < 0.2
    assert screening.purity(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == 0.75


def test_the_command_screens_a_small_library(tmp_path):
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    acids = [f"{'C' * n}C(=O)O" for n in range(1, 13)]
    decoys = [f"{'C' * n}{end}" for n in range(2, 12) for end in ("N", "O", "Cl", "OC")]
    rows = [{"source": "ChEMBL", "target": "1", "smiles": text, "active": 1} for text in acids]
    rows += [
        {"source": "ChEMBL", "target": "zinc", "smiles": text, "active": 0} for text in [*decoys, "OC(=O)C", "C1CC"]
    ]
    rows += [{"source": "MUV", "target": "5", "smiles": text, "active": 1} for text in decoys[:8]]
    rows += [{"source": "MUV", "target": "5", "smiles": text, "active": 0} for text in acids]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    arguments = ["--model", checkpoint, "--data", tmp_path / "data.parquet", "--results", tmp_path, "--threads", "1"]
    arguments += ["--draws", "3", "--sources", "MUV", "ChEMBL", "--cluster-seeds", "0", "--cache", tmp_path / "cache"]
    for _ in range(2):  # the second time from the cache
        assert screening.main([str(argument) for argument in arguments]) == 0
        raw = json.loads((tmp_path / "screening.json").read_text())
        morgan = {r["source"]: r for r in raw["screening"] if r["column"] == "Morgan, Tanimoto"}
        # a decoy that is an active and an unreadable one are left out
        assert (morgan["ChEMBL"]["actives"], morgan["ChEMBL"]["decoys"]) == (12, 40)
        assert morgan["ChEMBL"]["all"]["auc"] > 0.9
        assert {r["column"] for r in raw["screening"]} >= {"random", "simple properties", "pre-trained, cosine"}
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4
    assert "headline: MUV" in (tmp_path / "screening.md").read_text()
