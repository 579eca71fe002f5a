"""CPU seconds that ``import hf_molrep`` adds to ``import transformers``.

Both statements run in one fresh interpreter, one after the other, and each is timed by the process's own CPU clock;
this is repeated in several processes and the median is compared with the bar. ``import transformers`` alone loads next
to nothing, not even torch: it loads its parts when a name is first used. So does ``import hf_molrep``. The second line
shows what it costs where the names of the README's first lines are imported before, and the methods are registered at
once. The bar holds for both lines; exits with 1 above it.

    python benchmarks/import_time.py [--repeats 7] [--bar 0.3]
"""

import argparse
import statistics
import subprocess
import sys

BEFORE = ("import transformers", "from transformers import AutoModel, AutoProcessor, pipeline")
PROGRAM = """
import time
start = time.process_time()
{before}
middle = time.process_time()
import hf_molrep
print(middle - start, time.process_time() - middle)
"""


def measure(before: str) -> tuple[float, float]:
    """One fresh process: CPU seconds of the statement `before`, and of ``import hf_molrep`` after it."""
    program = PROGRAM.format(before=before)
    output = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    first, added = map(float, output.split())
    return first, added


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="fresh processes per line (default: %(default)s)")
    parser.add_argument("--bar", type=float, default=0.3, help="largest allowed median, CPU seconds (%(default)s)")
    args = parser.parse_args()

    measure(BEFORE[0])  # compiles the .pyc files and warms the file cache
    medians = []
    for before in BEFORE:
        first, added = zip(*(measure(before) for _ in range(args.repeats)), strict=True)
        medians.append(statistics.median(added))
        print(
            f"{before:60} {statistics.median(first):6.3f} CPU-s; import hf_molrep adds {medians[-1]:6.3f} "
            f"({min(added):.3f} to {max(added):.3f} in {args.repeats} processes)"
        )
    met = max(medians) < args.bar
    print(f"bar: {args.bar} CPU-s, {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
