"""Numbers and pictures of the report."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from hf_molrep.metrics import roc_auc
from hf_molrep.training.reports import draw_learning_curve, draw_parity, draw_roc, roc_curve, write_json, write_report


def test_roc_curve_of_a_worked_example():
    labels, scores = np.array([1.0, 0, 1, 0, 0]), np.array([0.9, 0.8, 0.5, 0.5, 0.1])
    false_rate, true_rate = roc_curve(labels, scores)
    # thresholds 0.9: 1 hit; 0.8: 1 alarm; 0.5: a hit and an alarm in one step; 0.1: the last alarm
    np.testing.assert_allclose(true_rate, [0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(false_rate, [0, 0, 1 / 3, 2 / 3, 1])


def test_area_under_the_curve_is_the_metric():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 300).astype(float), rng.integers(0, 20, 300) / 20  # many ties
    false_rate, true_rate = roc_curve(labels, scores)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(roc_auc(labels, scores).mean)


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": [np.float32(0.5), np.nan, np.inf], 1: np.array([2, 3]), "b": None, "c": True})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [0.5, None, None], "1": [2, 3], "b": None, "c": True}


def _is_drawn(path) -> bool:
    from matplotlib.image import imread

    return path.read_bytes().startswith(b"\x89PNG") and bool((imread(path)[..., :3] < 0.9).any())


@pytest.mark.parametrize("tasks", [1, 3, 20])
def test_plots_of_several_tasks_with_gaps(tmp_path, tasks):
    rng = np.random.default_rng(0)
    names = [f"task {task}" for task in range(tasks)]
    labels = rng.integers(0, 2, (30, tasks)).astype(float)
    labels[::4, 0] = np.nan
    labels[:, -1] = 1.0  # one class only
    predictions = rng.random((30, tasks))
    predictions[3] = np.nan
    draw_roc(tmp_path / "roc.png", labels, predictions, names)
    draw_parity(tmp_path / "parity.png", labels, predictions, names, ["K"] * tasks)
    draw_parity(tmp_path / "no_units.png", np.full_like(labels, np.nan), predictions, names)
    assert all(_is_drawn(tmp_path / name) for name in ("roc.png", "parity.png", "no_units.png"))


def test_learning_curve_with_and_without_validation(tmp_path):
    history = [
        {"epoch": 1.0, "loss": 2.0},
        {"epoch": 1.0, "eval_loss": 2.5, "eval_rmse": 1.5},
        {"epoch": 2.0, "loss": 1.0},
        {"epoch": 2.0, "eval_loss": 2.0, "eval_rmse": 1.2},
        {"train_runtime": 3.0, "epoch": 2.0},
    ]
    draw_learning_curve(tmp_path / "two.png", history, "rmse", 2)
    draw_learning_curve(tmp_path / "one.png", history[::2], "last epoch")
    from matplotlib.image import imread

    two, one = imread(tmp_path / "two.png"), imread(tmp_path / "one.png")
    assert two.shape[1] > 1.5 * one.shape[1]  # a second panel for the metric
    assert _is_drawn(tmp_path / "two.png")
    assert _is_drawn(tmp_path / "one.png")


def test_baseline_is_measured_on_the_molecules_that_were_predicted(tmp_path):
    labels = np.array([[0.0], [2.0], [1.0], [3.0], [100.0]])
    result = SimpleNamespace(
        task="property-prediction",
        task_names=["y"],
        problem_type="regression",
        valid_metrics={},
        test_metrics={"rmse": 0.5, "per_task": {"y": {"rmse": 0.5}}},
        test_predictions=np.array([[1.5], [2.5], [np.nan]]),
        selected_by="last epoch",
        best_epoch=1,
        best_update=1,
        epochs=1,
        updates=1,
        label_mean=[1.0],
        label_std=[1.0],
        history=[{"epoch": 1.0, "loss": 1.0}],
        settings={"seed": 0},
    )
    parts = {"train": np.array([0, 1]), "valid": np.array([], dtype=int), "test": np.array([2, 3, 4])}
    written = write_report(tmp_path, result, labels, parts, ["K"], {"data": "here"})
    assert written["baseline"]["test"]["rmse"] == pytest.approx(np.sqrt((0.0 + 4.0) / 2))  # 1 and 3, not 100
    assert json.loads((tmp_path / "metrics.json").read_text())["data"] == "here"
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "learning_curve.png", "parity.png"}
