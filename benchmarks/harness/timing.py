"""Timers: one run, and contenders that take turns."""

import resource
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")
Run = Callable[[], object]


class Spent(NamedTuple):
    """Seconds of a run: on the clock, and of the CPU (this process and those of its children that ended in the run)."""

    wall: float
    cpu: float


def _now() -> Spent:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)


def timed(run: Callable[[], Result], device: str = "cpu") -> tuple[Result, Spent]:
    """
    Run once: the result, and what it took.

    Args:
        device: with "cuda" the clock stops when the GPU has finished.
    """
    start = _now()
    result = run()
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    end = _now()
    return result, Spent(end.wall - start.wall, end.cpu - start.cpu)


def measure(contenders: Mapping[Hashable, Run], rounds: int) -> dict[Hashable, list[float]]:
    """CPU seconds of each contender in each round, after one run that does not count. In a round each runs once."""
    for run in contenders.values():
        run()
    seconds: dict[Hashable, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            seconds[name].append(timed(run)[1].cpu)
    return seconds


def ratio(seconds: Mapping[Hashable, Sequence[float]], one: Hashable, other: Hashable) -> float:
    """How many times as fast as `one` is `other`: the median over the rounds, each within itself."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))
