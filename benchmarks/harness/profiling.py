"""Profile the time of a run by operator, and the memory of a process."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from benchmarks.harness.timing import Run


def shares(run: Run, kinds: Mapping[str, Sequence[str]], rest: str = "everything else") -> dict[str, float]:
    """
    Measure the share of each kind of operator in the CPU time of a run; the sum is 1.

    Args:
        kinds: names of torch's operators by kind, without `aten::`, as patterns (`*softmax*`). An operator belongs to
            the first kind that fits, else to `rest`, which comes last.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    spent = dict.fromkeys([*kinds, rest], 0.0)
    for event in profile.key_averages():
        name = event.key.removeprefix("aten::")
        fitting = (kind for kind, patterns in kinds.items() if any(fnmatchcase(name, each) for each in patterns))
        spent[next(fitting, rest)] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: value / total for kind, value in spent.items()}


def megabytes(field: str) -> float:
    """
    Return the memory of this process as counted by Linux: "VmRSS" (now) or "VmHWM" (peak). Unlike the peak of
    `resource.getrusage` it is not inherited from the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def forget_peak() -> None:
    """Reset the peak memory of this process."""
    Path("/proc/self/clear_refs").write_text("5")
