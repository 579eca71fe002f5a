"""CPU seconds of start-up: what ``import hf_molrep`` adds to transformers, and the help of every command.

Every line is measured in new interpreters by the CPU clock of the process, and the median is compared with the limit.

- ``import transformers`` and ``import hf_molrep`` load their parts, torch included, when a name is first used. If
  ``import hf_molrep`` comes before a statement that loads them, the result is the difference between processes with and
  without it; if it comes after, its own time.
- The help of a command is measured as a whole process, with the start of Python.

The exit status is 1 above the limit.

    python benchmarks/import_time.py [--repeats 7] [--bar 0.5]
"""

import argparse
import statistics
import subprocess
import sys

from hf_molrep.cli import COMMANDS

STATEMENTS = (
    "import transformers",
    "from transformers import AutoModel",
    "from transformers import AutoModel, AutoProcessor, pipeline",
)
OURS = "import hf_molrep"
HELP = "import sys; from hf_molrep.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
CLOCK = "import time\nprint(time.process_time() - globals().get('start', 0.0))"
AFTER = "{statement}\nimport time\nstart = time.process_time()\nimport hf_molrep"


def cpu_seconds(program: str) -> float:
    """Measure the CPU seconds of a new process that runs `program`, from its start or from the `start` that it sets."""
    output = subprocess.run(
        [sys.executable, "-c", f"{program}\n{CLOCK}"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return float(output.split()[-1])


def interleaved(programs: list[str], repeats: int) -> list[float]:
    """Measure the median of each program; each runs once per round, so that a busy moment affects all."""
    rounds = [[cpu_seconds(program) for program in programs] for _ in range(repeats)]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="processes per line (default: %(default)s)")
    parser.add_argument("--bar", type=float, default=0.5, help="largest allowed median, CPU seconds (%(default)s)")
    args = parser.parse_args()

    for statement in STATEMENTS:  # compiles the .pyc files and warms the file cache
        cpu_seconds(f"{OURS}\n{statement}")
    judged = []
    for statement in STATEMENTS:
        alone, before, after = interleaved(
            [statement, f"{OURS}\n{statement}", AFTER.format(statement=statement)], args.repeats
        )
        judged += [before - alone, after]
        print(
            f"{statement:60} {alone:6.3f} CPU-s; import hf_molrep adds {judged[-2]:6.3f} before it, "
            f"{judged[-1]:6.3f} after it",
            flush=True,
        )
    commands = [[], *([command] for command in COMMANDS)]
    programs = [HELP.format(arguments=[*command, "--help"]) for command in commands]
    for command, seconds in zip(commands, interleaved(programs, args.repeats), strict=True):
        judged.append(seconds)
        print(f"{' '.join(['hf-molrep', *command, '--help']):60} {seconds:6.3f} CPU-s")
    met = max(judged) < args.bar
    print(f"bar: {args.bar} CPU-s, {'met' if met else 'MISSED'} (medians of {args.repeats} processes)")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
