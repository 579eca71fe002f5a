"""Time single runs, or several contenders in turns."""

import resource
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")
Run = Callable[[], object]


class Spent(NamedTuple):
    """Seconds of a run: wall time, and CPU time (this process and its children that ended during the run)."""

    wall: float
    cpu: float


def _now() -> Spent:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)


def timed(run: Callable[[], Result], device: str = "cpu") -> tuple[Result, Spent]:
    """
    Run once. Returns the result and the time.

    Args:
        device: with "cuda" the time includes the work of the GPU.
    """
    start = _now()
    result = run()
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    end = _now()
    return result, Spent(end.wall - start.wall, end.cpu - start.cpu)


def measure(contenders: Mapping[Hashable, Run], rounds: int) -> dict[Hashable, list[float]]:
    """Measure CPU seconds of each contender in each round, after a warm-up run. In a round each runs once."""
    for run in contenders.values():
        run()
    seconds: dict[Hashable, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            seconds[name].append(timed(run)[1].cpu)
    return seconds


def ratio(seconds: Mapping[Hashable, Sequence[float]], one: Hashable, other: Hashable) -> float:
    """Return how many times as fast as `one` is `other`: the median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))
