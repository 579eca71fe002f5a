"""Where the time of a run goes, by torch's own profile, and what memory a process takes."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from benchmarks.harness.timing import Run


def shares(run: Run, kinds: Mapping[str, Sequence[str]], rest: str = "everything else") -> dict[str, float]:
    """
    Share of each kind of operator in the CPU time of a run; together 1.

    Args:
        kinds: names of torch's operators by kind, without `aten::`, as patterns (`*softmax*`). An operator counts for
            the first kind that it fits, else for `rest`, which comes last.
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
    Memory of this process as Linux counts it: "VmRSS" (now) or "VmHWM" (peak). Unlike the peak of `resource.getrusage`
    this one is not inherited from the process that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def forget_peak() -> None:
    """Count the peak of this process from here."""
    Path("/proc/self/clear_refs").write_text("5")
