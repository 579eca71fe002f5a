"""Reports of fine-tuning: metrics as JSON, learning curve, ROC or parity plot."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics import property_metrics

if TYPE_CHECKING:
    from .finetuning import FinetuneResult

MAX_PANELS = 16  # tasks in one parity plot
MAX_LEGEND = 8  # ROC curves with their own colour and a legend


def write_json(path: str | Path, value: Any) -> None:
    """Write standard JSON: NaN and infinity become null, NumPy numbers plain numbers."""

    def plain(item):
        if isinstance(item, Mapping):
            return {str(key): plain(entry) for key, entry in item.items()}
        if isinstance(item, (list, tuple, np.ndarray)):
            return [plain(entry) for entry in item]
        if isinstance(item, np.generic):
            item = item.item()
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return item

    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def roc_curve(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute false and true positive rates for falling thresholds, from 0 to 1; equal scores are one step.

    Args:
        labels: `[molecules]`, 0 or 1, both present.
        scores: `[molecules]`.
    """
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    last_of_tie = np.r_[scores[1:] != scores[:-1], True]
    hits, alarms = np.cumsum(labels)[last_of_tie], np.cumsum(1 - labels)[last_of_tie]
    return np.r_[0.0, alarms / alarms[-1]], np.r_[0.0, hits / hits[-1]]


def _figure(columns: int = 1, rows: int = 1, width: float = 5.0, height: float = 4.4):
    """Make a figure without pyplot: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_learning_curve(
    path: str | Path, history: Sequence[Mapping], metric: str, best_epoch: float | None = None
) -> None:
    """
    Draw training and validation loss over epochs, and the metric that chose the epoch if it is not the loss.

    Args:
        path: image file.
        history: `trainer.state.log_history`.
        metric: name of the metric without `eval_`.
        best_epoch: epoch to mark.
    """
    with_metric = any(f"eval_{metric}" in record for record in history) and metric != "loss"
    figure, axes = _figure(2 if with_metric else 1)

    def curve(axis, key: str, label: str, colour: str):
        points = [(record["epoch"], record[key]) for record in history if key in record]
        if points:
            axis.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=label)

    curve(axes[0, 0], "loss", "training", "tab:blue")
    curve(axes[0, 0], "eval_loss", "validation", "tab:orange")
    axes[0, 0].set(xlabel="epoch", ylabel="loss")
    if with_metric:
        curve(axes[0, 1], f"eval_{metric}", "validation", "tab:orange")
        axes[0, 1].set(xlabel="epoch", ylabel=metric)
    for axis in axes.flat:
        axis.xaxis.get_major_locator().set_params(integer=True)
        if best_epoch is not None:
            axis.axvline(best_epoch, color="0.6", linestyle="--", linewidth=1, label="weights kept")
        axis.legend(frameon=False)
    figure.savefig(path)


def draw_roc(path: str | Path, labels: np.ndarray, predictions: np.ndarray, task_names: Sequence[str]) -> None:
    """Draw the ROC curve of every task with both classes. Arrays are `[molecules, tasks]`, NaN = missing."""
    figure, axes = _figure()
    axis = axes[0, 0]
    curves = {}
    for task, name in enumerate(task_names):
        present = ~np.isnan(labels[:, task]) & ~np.isnan(predictions[:, task])
        truth = labels[present, task]
        if 0 < truth.sum() < len(truth):
            false_rate, true_rate = roc_curve(truth, predictions[present, task])
            area = float(np.sum(np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2))
            curves[name] = (false_rate, true_rate, area)
    few = len(curves) <= MAX_LEGEND
    for name, (false_rate, true_rate, area) in curves.items():
        style = {"label": f"{name}: {area:.3f}"} if few else {"color": "tab:blue", "alpha": 0.35, "linewidth": 1}
        axis.plot(false_rate, true_rate, **style)
    axis.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
    title = f"{len(curves)} of {len(task_names)} tasks can be measured"
    if curves:
        title = f"mean area {np.mean([area for *_, area in curves.values()]):.3f}" + (
            f", {title}" if len(curves) < len(task_names) or not few else ""
        )
        if few:
            axis.legend(frameon=False, loc="lower right", fontsize="small")
    axis.set(xlabel="false positive rate", ylabel="true positive rate", title=title, aspect="equal")
    figure.savefig(path)


def draw_parity(
    path: str | Path,
    labels: np.ndarray,
    predictions: np.ndarray,
    task_names: Sequence[str],
    units: Sequence[str] | None = None,
) -> None:
    """Plot predicted over measured values, one panel per task. Arrays are `[molecules, tasks]`, NaN = missing."""
    shown = min(len(task_names), MAX_PANELS)
    columns = min(shown, 4)
    figure, axes = _figure(columns, math.ceil(shown / columns))
    for task, axis in enumerate(axes.flat):
        if task >= shown:
            axis.set_visible(False)
            continue
        unit = units[task] if units else ""
        present = ~np.isnan(labels[:, task]) & ~np.isnan(predictions[:, task])
        truth, guess = labels[present, task], predictions[present, task]
        title, in_unit = task_names[task], f" ({unit})" if unit else ""
        if len(truth):
            axis.scatter(truth, guess, s=10, alpha=0.6, linewidths=0)
            ends = [min(truth.min(), guess.min()), max(truth.max(), guess.max())]
            axis.plot(ends, ends, color="0.6", linestyle="--", linewidth=1)
            title += f"\nRMSE {np.sqrt(np.mean((truth - guess) ** 2)):.3g} {unit}, n = {len(truth)}"
        axis.set(xlabel=f"measured{in_unit}", ylabel=f"predicted{in_unit}", title=title)
    if shown < len(task_names):
        figure.suptitle(f"first {shown} of {len(task_names)} tasks")
    figure.savefig(path)


def write_report(
    folder: str | Path,
    result: "FinetuneResult",
    labels: np.ndarray | None,
    parts: Mapping[str, np.ndarray],
    label_units: Sequence[str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Write `metrics.json`, `learning_curve.png` and, with a test part that has labels, `roc.png` (labels of 0 and 1) or
    `parity.png` (regression).

    Args:
        labels: `[molecules, tasks]`, indexed by `parts`; None without labels.
        more: further entries of `metrics.json`, before the settings.
    Returns:
        The content of `metrics.json`. For a regression `baseline` measures the mean of the training labels as the
        prediction for every test molecule.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    regression = result.problem_type == "regression"
    drawn = regression or result.problem_type == "multi_label_classification"
    if drawn:  # what was not predicted is not measured
        test = np.where(np.isnan(result.test_predictions), np.nan, labels[parts["test"]])
    content = {
        "task": result.task,
        "task_names": result.task_names,
        "problem_type": result.problem_type,
        "label_units": label_units,
        "valid": result.valid_metrics,
        "test": result.test_metrics,
    }
    if regression and result.test_metrics:
        constant = np.broadcast_to(np.array(result.label_mean), test.shape)
        content["baseline"] = {"test": property_metrics(constant, test, "regression", result.task_names)}
    content |= {
        "selected_by": result.selected_by,
        **{key: getattr(result, key) for key in ("best_epoch", "best_update", "epochs", "updates")},
        **{key: getattr(result, key) for key in ("label_mean", "label_std") if regression},
        **(more or {}),
        "settings": result.settings,
    }
    write_json(folder / "metrics.json", content)
    draw_learning_curve(folder / "learning_curve.png", result.history, result.selected_by, result.best_epoch)
    if drawn and not np.isnan(test).all():
        if regression:
            draw_parity(folder / "parity.png", test, result.test_predictions, result.task_names, label_units)
        else:
            draw_roc(folder / "roc.png", test, result.test_predictions, result.task_names)
    return content
