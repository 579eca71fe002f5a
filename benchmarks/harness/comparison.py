"""Compare two models on the same molecules."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hf_molrep.metrics import TaskScores


class Comparison(NamedTuple):
    """
    Result of a paired bootstrap of metric(a) - metric(b).

    Attributes:
        difference: difference on the original data.
        low, high: interval that holds `confidence` of the resampled differences.
        verdict: "win" or "loss" of `a` if the interval excludes zero, else "tie".
    """

    difference: float
    low: float
    high: float
    verdict: str


def paired_bootstrap(
    metric: Callable[[np.ndarray, np.ndarray], float | TaskScores],
    labels: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    *,
    greater_is_better: bool,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """
    Compare two models on the same molecules, by resampling the molecules with replacement.

    Args:
        metric: function of (labels, predictions), for example `roc_auc` or `rmse`.
        labels, a, b: labels and predictions; the first dimension is molecules.
    Raises:
        ValueError: numbers of molecules differ, or the metric is undefined on more than half of the resamples.
    """
    labels, a, b = np.asarray(labels), np.asarray(a), np.asarray(b)
    if not len(labels) == len(a) == len(b) > 0:
        raise ValueError(f"{len(labels)} labels, {len(a)} and {len(b)} predictions: must be as many, and not none")

    def difference(rows: np.ndarray) -> float:
        values = [metric(labels[rows], predictions[rows]) for predictions in (a, b)]
        first, second = (value.mean if isinstance(value, TaskScores) else value for value in values)
        return float(first - second)

    rng = np.random.default_rng(seed)
    rows = np.arange(len(labels))
    resampled = np.array([difference(rng.choice(rows, len(rows))) for _ in range(resamples)])
    defined = resampled[~np.isnan(resampled)]
    if 2 * len(defined) < resamples:
        raise ValueError("the metric is not defined on most resamples: too few labels")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    sign = 1 if greater_is_better else -1
    better, worse = (low > 0, high < 0) if sign > 0 else (high < 0, low > 0)
    return Comparison(difference(rows), float(low), float(high), "win" if better else "loss" if worse else "tie")
