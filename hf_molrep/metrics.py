"""Metrics of predictions, of retrieval and of generated molecules, on NumPy arrays; scikit-learn is imported on use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

METRICS = {
    "regression": ("rmse", "mae", "r2"),
    "multi_label_classification": ("roc_auc", "pr_auc"),
}
GREATER_IS_BETTER = frozenset({"roc_auc", "pr_auc", "r2", "macro_f1", "accuracy", "mrr"})


class TaskScores(NamedTuple):
    """
    A metric over several tasks.

    Attributes:
        mean: over the tasks where it is defined; NaN if there is none.
        per_task: `[tasks]`, NaN where it is not defined.
        skipped: number of tasks where it is not defined (one class only, too few labels).
    """

    mean: float
    per_task: np.ndarray
    skipped: int


# --- properties: labels and predictions [molecules, tasks] or [molecules], NaN labels are missing ---------------------


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> TaskScores:
    """
    Area under the ROC curve of each task; tasks whose labels are all of one class are skipped. Computed from ranks
    (Mann-Whitney): same result as scikit-learn's, many times faster, as a bootstrap over many tasks needs.
    """
    return _by_task(labels, scores, _area_by_ranks, _two_classes)


def pr_auc(labels: np.ndarray, scores: np.ndarray) -> TaskScores:
    """Average precision of each task; tasks whose labels are all of one class are skipped."""
    from sklearn.metrics import average_precision_score

    return _by_task(labels, scores, lambda y, p: average_precision_score(y, p), _two_classes)


def rmse(labels: np.ndarray, predictions: np.ndarray) -> TaskScores:
    """Root mean squared error of each task, in the units of the labels."""
    from sklearn.metrics import mean_squared_error

    return _by_task(labels, predictions, lambda y, p: float(np.sqrt(mean_squared_error(y, p))), lambda y: len(y) > 0)


def mae(labels: np.ndarray, predictions: np.ndarray) -> TaskScores:
    """Mean absolute error of each task, in the units of the labels."""
    from sklearn.metrics import mean_absolute_error

    return _by_task(labels, predictions, lambda y, p: mean_absolute_error(y, p), lambda y: len(y) > 0)


def r2(labels: np.ndarray, predictions: np.ndarray) -> TaskScores:
    """Coefficient of determination of each task; tasks with fewer than two different labels are skipped."""
    from sklearn.metrics import r2_score

    return _by_task(labels, predictions, lambda y, p: r2_score(y, p), lambda y: len(y) > 1 and np.ptp(y) > 0)


_PROPERTY_METRICS = {"roc_auc": roc_auc, "pr_auc": pr_auc, "rmse": rmse, "mae": mae, "r2": r2}


def property_metrics(
    predictions: np.ndarray, labels: np.ndarray, problem_type: str, task_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """
    Compute the metrics of a property model.

    Args:
        predictions: `[molecules, tasks]`, probabilities or values in their units.
        labels: `[molecules, tasks]`, NaN = missing.
        problem_type: "regression" or "multi_label_classification".
    Returns:
        each of `METRICS[problem_type]` -> mean over the tasks where it is defined (NaN if nowhere); for classification
        "skipped_tasks" -> number of tasks with one class only; with `task_names`, "per_task" -> task -> its metrics.
    """
    if problem_type not in METRICS:
        raise ValueError(f"problem_type is {' or '.join(METRICS)}, not {problem_type!r}")
    scores = {name: _PROPERTY_METRICS[name](labels, predictions) for name in METRICS[problem_type]}
    result: dict[str, Any] = {name: score.mean for name, score in scores.items()}
    if problem_type == "multi_label_classification":
        result["skipped_tasks"] = scores["roc_auc"].skipped
    if task_names is not None:
        tasks = len(scores[METRICS[problem_type][0]].per_task)
        if len(task_names) != tasks:
            raise ValueError(f"{len(task_names)} task names for {tasks} tasks")
        result["per_task"] = {
            task: {name: float(score.per_task[index]) for name, score in scores.items()}
            for index, task in enumerate(task_names)
        }
    return result


def property_compute_metrics(config: Any) -> Callable[[Any], dict[str, float]]:
    """
    Make `compute_metrics` of `Trainer` for a property model with this config (its `problem_type` and `id2label`).

    The function takes an `EvalPrediction` with the model's outputs (logits, predictions) and uses the last. It has the
    keys of `property_metrics`, and with several tasks `<metric>_<task>`; undefined metrics are left out.
    """
    names = [config.id2label[index] for index in range(len(config.id2label))]

    def compute_metrics(result: Any) -> dict[str, float]:
        predictions = result.predictions[-1] if isinstance(result.predictions, tuple) else result.predictions
        metrics = property_metrics(predictions, result.label_ids, config.problem_type, names)
        per_task = metrics.pop("per_task")
        if len(names) > 1:
            metrics |= {f"{key}_{task}": value for task, scores in per_task.items() for key, value in scores.items()}
        return {key: value for key, value in metrics.items() if not np.isnan(value)}

    return compute_metrics


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes that occur in `labels` or `predictions` (integers `[molecules]`)."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


# --- retrieval: scores [queries, candidates], higher is closer -------------------------------------------------------


def retrieval_ranks(scores: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
    """
    Rank (1 = first) of each query's correct candidate, int64 `[queries]`. Candidates with the same score rank before
    it, so that a constant model ranks last; so do candidates with the score NaN, and a target with NaN is last.

    Args:
        targets: `[queries]`, index of the correct candidate; by default the query's index.
    """
    scores = np.asarray(scores)
    if targets is None:
        if scores.shape[0] > scores.shape[1]:
            raise ValueError(f"{scores.shape[0]} queries but {scores.shape[1]} candidates: pass targets")
        targets = np.arange(len(scores))
    target_scores = np.take_along_axis(scores, np.asarray(targets)[:, None], axis=1)
    return scores.shape[1] - (scores < target_scores).sum(axis=1)


def retrieval_metrics(
    scores: np.ndarray, targets: np.ndarray | None = None, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Compute "recall@<k>" and "mrr" of a score matrix."""
    ranks = retrieval_ranks(scores, targets)
    return {**{f"recall@{k}": float((ranks <= k).mean()) for k in ks}, "mrr": float((1 / ranks).mean())}


def paired_view_metrics(
    views: Mapping[str, np.ndarray], ks: Sequence[int] = (1, 5, 10), pool: int = 1000
) -> dict[str, float]:
    """
    Compute retrieval between two views of the same molecules by cosine similarity, among `pool` molecules.

    Args:
        views: name -> embeddings `[molecules, hidden]`, two of them, row for row.
        pool: molecules are taken in order, `pool` at a time, so that evaluation sets of different sizes are comparable.
            An incomplete last pool is left out, unless it is the only one.
    Returns:
        "<a>_to_<b>_recall@<k>", "<a>_to_<b>_mrr", and in the other direction; means over the pools.
    """
    (first, a), (second, b) = views.items()
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    pool = min(pool, len(a))
    results: dict[str, list[float]] = {}
    for start in range(0, len(a) - pool + 1, pool):
        scores = a[start : start + pool] @ b[start : start + pool].T
        for direction, matrix in ((f"{first}_to_{second}", scores), (f"{second}_to_{first}", scores.T)):
            for key, value in retrieval_metrics(matrix, ks=ks).items():
                results.setdefault(f"{direction}_{key}", []).append(value)
    return {key: float(np.mean(values)) for key, values in results.items()}


def retrieval_compute_metrics(
    names: Sequence[str], ks: Sequence[int] = (1, 5, 10), pool: int = 1000
) -> Callable[[Any], dict[str, float]]:
    """
    Make `compute_metrics` of `Trainer` for contrastive pre-training: `paired_view_metrics` of the model's `embeddings`
    (`MoleculePreTrainingOutput`); `names` of the two views.
    """

    def compute_metrics(result: Any) -> dict[str, float]:
        embeddings = result.predictions
        while isinstance(embeddings, tuple) and len(embeddings) == 1:
            embeddings = embeddings[0]
        if not isinstance(embeddings, Mapping):
            embeddings = dict(zip(names, embeddings, strict=True))
        return paired_view_metrics({name: embeddings[name] for name in names}, ks, pool)

    return compute_metrics


# --- generated molecules: counts of parts, descriptors [molecules]; of SMILES: chem/distribution_metrics.py -----------


def count_cosine(counts: Mapping[str, int], reference: Mapping[str, int]) -> float:
    """
    Compute the cosine of two tables of counts: Frag of MOSES for BRICS fragments, Scaf for scaffolds. NaN if one is
    empty.
    """
    if not counts or not reference:
        return float("nan")
    common = sum(count * reference[part] for part, count in counts.items() if part in reference)
    lengths = [sum(count * count for count in table.values()) for table in (counts, reference)]
    return float(common / np.sqrt(float(lengths[0]) * float(lengths[1])))


def kl_divergence(reference: np.ndarray, values: np.ndarray, discrete: bool) -> float:
    """
    Compute the Kullback-Leibler divergence of a descriptor's distributions, of the reference from the values, as
    GuacaMol does (Brown et al., J. Chem. Inf. Model. 59, 1096 (2019); `utils/chemistry.py` of its code).

    Args:
        reference, values: `[molecules]`.
        discrete: compare histograms of ten bins over the range of the reference (values outside of it are not counted);
            otherwise Gaussian kernel densities at 1,000 points over the range of both.
    Raises:
        ValueError: fewer than two molecules; or, not discrete, a descriptor that is the same for all.
    """
    from scipy.stats import entropy, gaussian_kde

    reference, values = np.asarray(reference, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if min(len(reference), len(values)) < 2:
        raise ValueError("a distribution needs two molecules")
    if discrete:
        counts, edges = np.histogram(reference, bins=10)
        found, width = np.histogram(values, bins=edges)[0], edges[1] - edges[0]
        first, second = (each / (max(each.sum(), 1) * width) for each in (counts, found))
    else:
        if not np.ptp(reference) or not np.ptp(values):
            raise ValueError("the values are all the same: they have no density")
        both = np.concatenate([reference, values])
        points = np.linspace(both.min(), both.max(), 1000)
        first, second = gaussian_kde(reference)(points), gaussian_kde(values)(points)
    return float(entropy(first + 1e-10, second + 1e-10))


# --- internals --------------------------------------------------------------------------------------------------------


def _area_by_ranks(labels: np.ndarray, scores: np.ndarray) -> float:
    from scipy.stats import rankdata

    active = labels == 1
    positives = int(active.sum())
    above = rankdata(scores)[active].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(labels) - positives)))


def _two_classes(labels: np.ndarray) -> bool:
    return len(np.unique(labels)) == 2


def _by_task(
    labels: np.ndarray,
    predictions: np.ndarray,
    score: Callable[[np.ndarray, np.ndarray], float],
    defined: Callable[[np.ndarray], bool],
) -> TaskScores:
    labels, predictions = (np.asarray(x, dtype=np.float64) for x in (labels, predictions))
    if labels.shape != predictions.shape or labels.ndim not in (1, 2):
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape}: both must be [molecules, tasks]")
    if labels.ndim == 1:
        labels, predictions = labels[:, None], predictions[:, None]
    per_task = np.full(labels.shape[1], np.nan)
    for task in range(labels.shape[1]):
        present = ~np.isnan(labels[:, task])
        truth, guess = labels[present, task], predictions[present, task]
        if np.isnan(guess).any():
            raise ValueError(f"{np.isnan(guess).sum()} predictions of task {task} are NaN where there is a label")
        if defined(truth):
            per_task[task] = score(truth, guess)
    known = per_task[~np.isnan(per_task)]
    return TaskScores(float(known.mean()) if len(known) else float("nan"), per_task, len(per_task) - len(known))
