"""Embedding a file: molecules per second beside the bare forward pass, and peak memory at two sizes.

    python benchmarks/embedding.py [--rows 200000] [--small-rows 20000] [--model mm-deacon-mini] [--data ../shared/data]

1. In one process, in turns of four windows each: the forward pass alone on batches prepared beforehand, and `embed()`
   from the SMILES of the same molecules. The ratio of the two rates is the share of the forward rate that remains.
2. In one fresh process per size: `hf-molrep embed` on a CSV file of that many rows; seconds without start and loading,
   and the largest resident memory.

The molecules are the first rows of `pretrain/zinc250k.parquet`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

TURN = 4  # windows


def zinc(data: Path, rows: int) -> list[str]:
    """The first SMILES of ZINC-250k."""
    import pyarrow.parquet as pq

    smiles = pq.read_table(data / "pretrain" / "zinc250k.parquet", columns=["smiles"])["smiles"].to_pylist()
    if len(smiles) < rows:
        raise SystemExit(f"{rows} rows wanted, the file has {len(smiles)}")
    return smiles[:rows]


def prepared_batches(processor, smiles: list[str], window: int, batch_tokens: int, device: str) -> tuple[list, float]:
    """The batches that `embed()` makes, on the device, and the share of their tokens that is padding."""
    batches, tokens, padded = [], 0, 0
    for first in range(0, len(smiles), window):
        features = processor.featurize(smiles[first : first + window])
        lengths = np.array([len(feature["input_ids"]) for feature in features])
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            stop = start + max(1, batch_tokens // int(lengths[order[start]]))
            batch = processor.pad([features[index] for index in order[start:stop]])
            batches.append({name: value.to(device) for name, value in batch.items()})
            tokens, padded = tokens + int(lengths[order[start:stop]].sum()), padded + batch["input_ids"].numel()
            start = stop
    return batches, 1 - tokens / padded


def rates(args: argparse.Namespace, smiles: list[str]) -> None:
    """Part 1."""
    from transformers import AutoModel

    from hf_molrep.embedding import embed
    from hf_molrep.inference import BATCH_TOKENS, WINDOW, load_checkpoint

    model, processor = load_checkpoint(AutoModel, args.model, args.device)
    device = next(model.parameters()).device
    dtype = getattr(torch, args.dtype)
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def forward(batches: list) -> float:
        start = time.perf_counter()
        with torch.inference_mode(), autocast:
            for batch in batches:
                model(**batch).pooler_output.float()
        wait()
        return time.perf_counter() - start

    def embedding(molecules: list[str]) -> float:
        start = time.perf_counter()
        for _ in embed(model, processor, molecules, dtype=dtype, num_workers=args.workers):
            pass
        wait()
        return time.perf_counter() - start

    warm = smiles[:512]
    forward(prepared_batches(processor, warm, WINDOW, BATCH_TOKENS, device)[0])
    embedding(warm)
    bare, whole, waste = 0.0, 0.0, []
    for first in range(0, len(smiles), TURN * WINDOW):
        turn = smiles[first : first + TURN * WINDOW]
        batches, padding = prepared_batches(processor, turn, WINDOW, BATCH_TOKENS, device)
        bare += forward(batches)
        whole += embedding(turn)
        waste.append(padding)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    where = f"{device.type}, {torch.get_num_threads()} threads, {args.dtype}"
    print(f"{args.model}, {parameters / 1e6:.1f}M parameters, {where}")
    print(f"bare forward  {len(smiles) / bare:10,.0f} molecules/s   (padding {np.mean(waste):.1%} of the tokens)")
    print(f"embed()       {len(smiles) / whole:10,.0f} molecules/s   ratio {bare / whole:.3f}, bar 0.8", flush=True)


def measured_run(source: str, output: str, model: str, device: str | None) -> None:
    """In a fresh process: run the command, tell its seconds and the peak of its memory."""
    from hf_molrep.cli import embed as command
    from hf_molrep.cli import main

    begin, embedded = [], command._embedded

    def timed(*given):
        begin.append(time.perf_counter())
        return embedded(*given)

    command._embedded = timed
    status = main(["embed", source, output, "--model", model, "--quiet", *(["--device", device] if device else [])])
    seconds = time.perf_counter() - begin[0]
    # not ru_maxrss, which a process inherits from the one that started it
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"status": status, "seconds": seconds, "peak_mb": int(peak.split()[1]) / 1024}))


def memory(args: argparse.Namespace, smiles: list[str]) -> None:
    """Part 2."""
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in (args.small_rows, args.rows):
            source, output = Path(folder) / f"{rows}.csv", Path(folder) / f"{rows}.parquet"
            source.write_text("id,smiles\n" + "".join(f"Z{row},{text}\n" for row, text in enumerate(smiles[:rows])))
            call = f"measured_run({str(source)!r}, {str(output)!r}, {args.model!r}, {args.device!r})"
            program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from embedding import *; {call}"
            run = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
            told = json.loads(run.stdout.splitlines()[-1])
            peaks.append(told["peak_mb"])
            print(
                f"hf-molrep embed, {rows:>7,} rows: {rows / told['seconds']:8,.0f} molecules/s, "
                f"peak memory {told['peak_mb']:,.0f} MB",
                flush=True,
            )
    print(f"growth {peaks[1] - peaks[0]:+.0f} MB, bar 50 MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--small-rows", type=int, default=20_000)
    parser.add_argument("--model", default="mm-deacon-mini")
    parser.add_argument("--data", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "data")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of torch")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    smiles = zinc(args.data, args.rows)
    rates(args, smiles)
    memory(args, smiles)


if __name__ == "__main__":
    main()
