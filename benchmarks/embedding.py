"""Speed of `embed()` compared with the forward pass alone, and peak memory of `hf-molrep embed` at two sizes.

    python -m benchmarks.embedding [--rows 200000] [--small-rows 20000] [--model mm-deacon-mini] [--threads 1 2]

1. For each number of threads, in one process, in turns of twelve windows: the forward pass alone on prepared batches,
   and `embed()` from the SMILES of the same molecules. The table has the ratio of the two rates. `embed()` uses one
   more core for RDKit if there is one; with as many threads as cores the ratio cannot exceed
   forward / (forward + RDKit) of the CPU seconds per molecule, which is given for comparison.
2. In one new process per size: `hf-molrep embed` on a CSV file of that many rows; seconds without start and loading,
   and peak resident memory.

The molecules are the first rows of `pretrain/zinc250k.parquet`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.data import smiles_of
from benchmarks.harness.profiling import megabytes
from benchmarks.harness.report import RESULTS, ROOT, markdown_table, write_report
from benchmarks.harness.timing import timed

TURN = 12  # windows; nothing overlaps with the first one


def prepared_batches(
    processor, smiles: list[str], window: int, batch_tokens: int, device: str
) -> tuple[list, int, int]:
    """Make the batches of `embed()`, on the device. Returns them and their tokens without and with padding."""
    from hf_molrep.inference.engine import token_batches

    batches, tokens, padded = [], 0, 0
    for first in range(0, len(smiles), window):
        features = processor.featurize({"smiles": smiles[first : first + window]})
        lengths = np.array([len(feature["input_ids"]) for feature in features])
        for part in token_batches(lengths, batch_tokens):
            batch = processor.pad([features[index] for index in part])
            batches.append({name: value.to(device) for name, value in batch.items()})
            tokens, padded = tokens + int(lengths[part].sum()), padded + batch["input_ids"].numel()
    return batches, tokens, padded


def rates(args: argparse.Namespace, smiles: list[str], threads: int) -> dict:
    """Measure rates (part 1)."""
    from transformers import AutoModel

    from hf_molrep.inference.checkpoints import load_checkpoint
    from hf_molrep.inference.embedding import embed
    from hf_molrep.inference.engine import BATCH_TOKENS, WINDOW

    torch.set_num_threads(threads)
    model, processor = load_checkpoint(AutoModel, args.model, args.device)
    device = next(model.parameters()).device
    dtype = getattr(torch, args.dtype)
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def forward(batches: list) -> None:
        with torch.no_grad(), autocast:
            for batch in batches:
                model(**batch).pooler_output.float()

    def embedding(molecules: list[str]) -> None:
        for _ in embed(model, processor, molecules, dtype=dtype, num_workers=args.workers):
            pass

    warm = smiles[:512]
    forward(prepared_batches(processor, warm, WINDOW, BATCH_TOKENS, device)[0])
    embedding(warm)
    bare, whole, rdkit, tokens = np.zeros(2), np.zeros(2), 0.0, np.zeros(2)
    for first in range(0, len(smiles), TURN * WINDOW):
        turn = smiles[first : first + TURN * WINDOW]
        rdkit += timed(partial(processor.featurize, {"smiles": turn}))[1].cpu
        batches, *count = prepared_batches(processor, turn, WINDOW, BATCH_TOKENS, device)
        bare += timed(partial(forward, batches), device.type)[1]
        whole += timed(partial(embedding, turn), device.type)[1]
        tokens += count
    found = {
        "threads": threads,
        "molecules": len(smiles),
        "forward_per_second": len(smiles) / bare[0],
        "embed_per_second": len(smiles) / whole[0],
        "ratio": bare[0] / whole[0],
        "forward_cpu_microseconds": bare[1] / len(smiles) * 1e6,
        "featurize_cpu_microseconds": rdkit / len(smiles) * 1e6,
        "embed_cpu_microseconds": whole[1] / len(smiles) * 1e6,
        "ratio_of_cpu_seconds": bare[1] / (bare[1] + rdkit),
        "padding": 1 - tokens[0] / tokens[1],
    }
    print({key: round(float(value), 3) for key, value in found.items()}, flush=True)
    return found


def measured_run(source: str, output: str, model: str, device: str | None) -> None:
    """Run the command in a new process, and report its seconds and peak memory."""
    from hf_molrep.cli import embed as command
    from hf_molrep.cli import main

    begin, embedded = [], command._embedded

    def timed(*given):
        begin.append(time.perf_counter())
        return embedded(*given)

    command._embedded = timed
    status = main(["embed", source, output, "--model", model, "--quiet", *(["--device", device] if device else [])])
    seconds = time.perf_counter() - begin[0]
    print(json.dumps({"status": status, "seconds": seconds, "peak_mb": megabytes("VmHWM")}))


def memory(args: argparse.Namespace, smiles: list[str]) -> list[dict]:
    """Measure memory (part 2)."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in (args.small_rows, args.rows):
            source, output = Path(folder) / f"{rows}.csv", Path(folder) / f"{rows}.parquet"
            source.write_text("id,smiles\n" + "".join(f"Z{row},{text}\n" for row, text in enumerate(smiles[:rows])))
            call = f"measured_run({str(source)!r}, {str(output)!r}, {args.model!r}, {args.device!r})"
            program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from benchmarks.embedding import *; {call}"
            run = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
            found.append({"rows": rows, **json.loads(run.stdout.splitlines()[-1])})
            print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--small-rows", type=int, default=20_000)
    parser.add_argument("--model", default="mm-deacon-mini")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count()}), help="threads of torch")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the .md and .json written")
    args = parser.parse_args()
    from hf_molrep.inference.checkpoints import resolve_checkpoint

    smiles = smiles_of("pretrain/zinc250k.parquet", args.rows)
    speed, peaks = [rates(args, smiles, threads) for threads in args.threads], memory(args, smiles)
    table = [
        (
            row["threads"],
            f"{row['forward_per_second']:,.0f}",
            f"{row['embed_per_second']:,.0f}",
            row["ratio"],
            f"{row['forward_cpu_microseconds']:.0f} + {row['featurize_cpu_microseconds']:.0f}",
            row["ratio_of_cpu_seconds"],
            f"{row['padding']:.1%}",
        )
        for row in speed
    ]
    header = (
        "threads",
        "forward / s",
        "embed() / s",
        "ratio",
        "CPU µs: forward + RDKit",
        "their share",
        "padding",
    )
    text = [
        f"# Embedding {len(smiles):,} molecules of ZINC, {args.dtype}\n",
        markdown_table(header, table),
        "\n`hf-molrep embed` on a CSV file, in a process of its own:\n",
        markdown_table(
            ("rows", "molecules / s", "peak memory, MB"),
            [(f"{row['rows']:,}", f"{row['rows'] / row['seconds']:,.0f}", f"{row['peak_mb']:,.0f}") for row in peaks],
        ),
        f"\nMemory grows by {peaks[1]['peak_mb'] - peaks[0]['peak_mb']:+.0f} MB (bar: 50 MB).",
    ]
    model = resolve_checkpoint(args.model)
    write_report("embedding", "\n".join(text), {"speed": speed, "memory": peaks}, args, model)


if __name__ == "__main__":
    main()
