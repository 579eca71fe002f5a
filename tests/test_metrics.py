"""Metrics against scikit-learn and hand-made cases."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import f1_score, roc_auc_score

from hf_molrep import metrics

NAN = np.nan


def test_classification_skips_missing_labels_and_one_class_tasks():
    labels = np.array([[1, 1, NAN], [0, 1, NAN], [NAN, 1, 1], [1, NAN, 0], [0, 1, 1]])
    scores = np.random.default_rng(0).random((5, 3))
    present = [0, 1, 3, 4]
    result = metrics.roc_auc(labels, scores)
    assert result.skipped == 1
    assert np.isnan(result.per_task[1])
    assert result.per_task[0] == roc_auc_score(labels[present, 0], scores[present, 0])
    assert result.mean == np.nanmean(result.per_task)
    assert metrics.pr_auc(labels, scores).skipped == 1
    assert metrics.pr_auc(np.array([0.0, 1, 1]), np.array([0.1, 0.2, 0.3])).mean == 1
    nothing = metrics.roc_auc(np.full((3, 2), NAN), np.zeros((3, 2)))
    assert np.isnan(nothing.mean)
    assert nothing.skipped == 2


def test_regression_with_missing_labels():
    labels = np.array([[1.0, NAN], [2.0, 5.0], [NAN, NAN], [4.0, NAN]])
    predictions = np.array([[1.0, NAN], [4.0, 2.0], [NAN, NAN], [4.0, 0.0]])
    assert metrics.rmse(labels, predictions).per_task == pytest.approx([np.sqrt(4 / 3), 3])
    assert metrics.mae(labels, predictions).mean == pytest.approx((2 / 3 + 3) / 2)
    r2 = metrics.r2(labels, predictions)
    assert r2.skipped == 1
    assert r2.per_task[0] == pytest.approx(1 - 4 / (14 / 3))
    with pytest.raises(ValueError, match="3 predictions of task 0 are NaN where there is a label"):
        metrics.rmse(labels, np.full_like(labels, NAN))
    with pytest.raises(ValueError, match=r"labels \(4, 2\) and predictions \(4,\)"):
        metrics.rmse(labels, predictions[:, 0])


def test_property_metrics():
    labels = np.array([[1.0, 1], [0, 1], [1, NAN]])
    scores = np.array([[0.9, 0.5], [0.1, 0.5], [0.8, 0.5]])
    result = metrics.property_metrics(scores, labels, "multi_label_classification", ["a", "b"])
    assert result["roc_auc"] == 1
    assert result["skipped_tasks"] == 1
    assert result["per_task"]["a"] == {"roc_auc": 1, "pr_auc": 1}
    assert np.isnan(result["per_task"]["b"]["roc_auc"])
    assert set(metrics.property_metrics(scores, labels, "regression")) == {"rmse", "mae", "r2"}
    with pytest.raises(ValueError, match="regression or multi_label_classification"):
        metrics.property_metrics(scores, labels, "single_label_classification")
    with pytest.raises(ValueError, match="1 task names for 2 tasks"):
        metrics.property_metrics(scores, labels, "regression", ["a"])


def test_property_compute_metrics_takes_what_trainer_gives():
    config = SimpleNamespace(problem_type="multi_label_classification", id2label={0: "a", 1: "b"})
    labels = np.array([[1.0, 1], [0, 1]], dtype=np.float32)
    scores = np.array([[0.9, 0.5], [0.1, 0.5]], dtype=np.float32)
    for predictions in (scores, (-scores, scores)):
        result = metrics.property_compute_metrics(config)(SimpleNamespace(predictions=predictions, label_ids=labels))
        assert result == {"roc_auc": 1, "pr_auc": 1, "skipped_tasks": 1, "roc_auc_a": 1, "pr_auc_a": 1}
    config = SimpleNamespace(problem_type="regression", id2label={0: "a"})
    given = SimpleNamespace(predictions=scores[:, :1] + 1, label_ids=scores[:, :1])
    assert metrics.property_compute_metrics(config)(given).keys() == {"rmse", "mae", "r2"}


def test_ranks_count_ties_against_the_target():
    scores = np.array([[3, 1, 2], [5, 5, 1], [1, 1, 1], [NAN, 0, 0]])
    targets = np.array([0, 1, 2, 0])
    assert metrics.retrieval_ranks(scores, targets).tolist() == [1, 2, 3, 3]
    assert metrics.retrieval_ranks(np.array([[1.0, NAN, 0.0]]), np.array([0])).tolist() == [2]
    found = metrics.retrieval_metrics(scores, targets, ks=(2,))
    assert found == {"recall@2": 0.5, "mrr": pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 3) / 4)}
    assert metrics.retrieval_metrics(np.zeros((4, 4)))["recall@1"] == 0  # one answer to everything
    assert metrics.retrieval_metrics(np.eye(4)) == {"recall@1": 1, "recall@5": 1, "recall@10": 1, "mrr": 1}
    with pytest.raises(ValueError, match="4 queries but 3 candidates"):
        metrics.retrieval_ranks(scores)


def test_paired_views():
    rng = np.random.default_rng(0)
    smiles = rng.normal(size=(25, 8))
    views = {"smiles": smiles * rng.random((25, 1)), "iupac": smiles}  # cosine: length does not matter
    result = metrics.paired_view_metrics(views, pool=10)
    assert result["smiles_to_iupac_recall@1"] == result["iupac_to_smiles_mrr"] == 1
    views["iupac"] = smiles.copy()
    views["iupac"][20:] = 0  # beyond the last whole pool
    assert metrics.paired_view_metrics(views, pool=10)["smiles_to_iupac_recall@1"] == 1
    assert metrics.paired_view_metrics(views, pool=1000)["smiles_to_iupac_recall@1"] == pytest.approx(20 / 25)
    compute = metrics.retrieval_compute_metrics(("smiles", "iupac"), pool=10)
    for predictions in (views, (views,), tuple(views.values())):
        assert compute(SimpleNamespace(predictions=predictions)) == metrics.paired_view_metrics(views, pool=10)


def test_roc_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=(60, 4)).astype(float)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    scores = rng.integers(8, size=(60, 4)) / 8  # with ties
    known = ~np.isnan(labels)
    expected = [roc_auc_score(labels[known[:, task], task], scores[known[:, task], task]) for task in range(4)]
    assert metrics.roc_auc(labels, scores).mean == pytest.approx(np.mean(expected), abs=1e-12)


def test_macro_f1():
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 3])
    assert metrics.macro_f1(labels, predictions) == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)
    assert metrics.macro_f1(labels, labels) == f1_score(labels, labels, average="macro") == 1


def test_counts_and_divergences():
    assert metrics.count_cosine({"a": 3, "b": 4}, {"b": 2, "c": 1}) == pytest.approx(8 / (5 * np.sqrt(5)))
    assert np.isnan(metrics.count_cosine({}, {"a": 1}))
    # bins of width 0.9 from 0 to 9; a value outside of them is not counted
    reference, values = np.array([0, 0, 0, 9]), np.array([0, 9, 100])
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert metrics.kl_divergence(reference, values, True) == pytest.approx(expected, rel=1e-6)
    # two normal distributions: log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2
    quantiles = norm.ppf((np.arange(4000) + 0.5) / 4000)
    assert metrics.kl_divergence(quantiles, 1 + 2 * quantiles, False) == pytest.approx(np.log(2) - 0.25, rel=0.1)
    with pytest.raises(ValueError, match="all the same"):
        metrics.kl_divergence(reference, np.ones(3), False)
    with pytest.raises(ValueError, match="two molecules"):
        metrics.kl_divergence(reference[:1], values, True)
