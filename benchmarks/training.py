"""Speed of a pre-training step of the mini, beside the peak of the matrix products, and what the rest goes to.

    python -m benchmarks.training iupac_pairs/train.parquet

In one process, under bf16 autocast: (1) the rate of a large bf16 matrix product; (2) steps (forward, backward,
clipping, AdamW) on grouped batches of real pairs, as `hf-molrep pretrain mm_deacon` takes them; (3) a profile of such
steps.
Padding waste is the share of padded positions among those that the towers really compute.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import hf_molrep
from benchmarks.report import RESULTS, markdown_table, write_report
from hf_molrep.data.batching import grouped_order

ROOT = Path(__file__).resolve().parent.parent
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "mkldnn"),
    "copies and casts": ("copy_", "cat", "_to_copy", "clone", "contiguous", "index", "stack"),
    "softmax": ("softmax",),
    "norms": ("layer_norm", "norm"),
    "activation": ("gelu",),
    "optimizer": ("adam",),
    "memory": ("fill_", "zero_", "empty", "resize"),
}


def matrix_rate(size: int, seconds: float) -> float:
    """FLOP/s of a bf16 product of two square matrices."""
    a, b = torch.randn(2, size, size).bfloat16()
    for _ in range(2):
        a @ b
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        count += 1
    return count * 2 * size**3 / (time.perf_counter() - start)


def step_flops(model, lengths: dict[str, np.ndarray], pairs: int) -> float:
    """Products of one training step (forward and twice as much backward), without padding: linear layers, attention."""
    total = 0.0
    for view, tokens in lengths.items():
        tower = getattr(model.mm_deacon, f"{view}_model")
        weights = sum(m.weight.numel() for m in tower.modules() if isinstance(m, torch.nn.Linear))
        attention = 4 * tower.config.hidden_size * tower.config.num_hidden_layers * float((tokens**2).sum())
        total += 2 * weights * float(tokens.sum()) + attention
    total += 2 * pairs * 2 * model.config.projection_dim * (model.config.smiles_config.hidden_size + pairs)
    return 3 * total


def padding_waste(lengths: np.ndarray, chunk: int) -> tuple[int, int]:
    """Padded and real positions of one view of a batch that passes the tower `chunk` rows at a time, sorted."""
    ordered = np.sort(lengths)[::-1]
    chunk = chunk or len(ordered)
    chunks = [ordered[start : start + chunk] for start in range(0, len(ordered), chunk)]
    return sum(int(part[0]) * len(part) for part in chunks), int(lengths.sum())


def kind_of(operator: str) -> str:
    name = operator.removeprefix("aten::")
    for kind, parts in KINDS.items():
        if name in parts or any(part in name for part in parts if len(part) > 4):
            return kind
    return "other elementwise and reductions"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="Parquet with smiles, iupac_name, formula")
    parser.add_argument("--config", type=Path, default=ROOT / "examples" / "recipes" / "mm-deacon-mini" / "config.json")
    parser.add_argument("--processor", default="tokenizers/mm_deacon")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--chunk", type=int, default=32, help="encoder_chunk_size")
    parser.add_argument("--attention", default="eager")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the .md and .json written")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    from transformers import AutoProcessor

    from hf_molrep.training.pretraining import make_config

    processor = AutoProcessor.from_pretrained(options.processor)
    table = pd.read_parquet(options.pairs, columns=["smiles", "iupac_name", "formula"])
    table = table.sample(min(len(table), 20_000), random_state=options.seed)
    rows = processor.featurize(
        table.smiles.tolist(), table.iupac_name.tolist(), truncation=True, max_length=options.max_length
    )
    smiles_length = np.array([len(row["input_ids"]) for row in rows])
    name_length = np.array([len(row["iupac_input_ids"]) for row in rows])
    order = grouped_order(
        smiles_length + name_length,
        options.batch_size,
        np.random.default_rng(options.seed),
        pd.factorize(table.formula)[0],
    )
    starts = range(0, len(order) - options.batch_size + 1, options.batch_size)
    batches = [order[start : start + options.batch_size] for start in starts]

    padded = real = 0
    for batch in batches:
        for lengths in (smiles_length, name_length):
            more_padded, more_real = padding_waste(lengths[batch], options.chunk)
            padded, real = padded + more_padded, real + more_real

    config = make_config("mm_deacon", processor, str(options.config))
    config.encoder_chunk_size = options.chunk
    model = hf_molrep.MMDeaconForPreTraining(config).train()
    model.set_attn_implementation(options.attention)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(batch) -> None:
        inputs = processor.pad([rows[index] for index in batch], return_tensors="pt")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    peak = matrix_rate(4096, 3.0)
    for batch in batches[:3]:
        step(batch)
    timed = batches[3 : 3 + options.steps]
    start, cpu = time.perf_counter(), time.process_time()
    for batch in timed:
        step(batch)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = max(peak, matrix_rate(4096, 3.0))
    flops = sum(
        step_flops(model, {"smiles": smiles_length[batch], "iupac": name_length[batch]}, len(batch)) for batch in timed
    )

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for batch in timed[:4]:
            step(batch)
    spent: dict[str, float] = {}
    for event in profile.key_averages():
        spent[kind_of(event.key)] = spent.get(kind_of(event.key), 0.0) + event.self_cpu_time_total
    shares = {kind: value / sum(spent.values()) for kind, value in sorted(spent.items(), key=lambda item: -item[1])}

    pairs = len(timed) * options.batch_size
    result = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pairs_per_second": pairs / seconds,
        "pairs_per_cpu_second": pairs / cpu,
        "tokens_per_pair": float((smiles_length + name_length)[np.concatenate(timed)].mean()),
        "matrix_product_peak_gflops": peak / 1e9,
        "share_of_peak": flops / seconds / peak,
        "padding_waste": 1 - real / padded,
        "profile": shares,
    }
    rows_of_table = [
        ("parameters", f"{result['parameters']:,}"),
        (f"pairs per second, {options.threads} threads", f"{result['pairs_per_second']:.0f}"),
        ("pairs per CPU second", f"{result['pairs_per_cpu_second']:.0f}"),
        ("tokens per pair", f"{result['tokens_per_pair']:.1f}"),
        ("peak of a 4096 x 4096 bf16 product", f"{result['matrix_product_peak_gflops']:.0f} GFLOP/s"),
        ("step, share of that peak (products of real tokens only)", f"{result['share_of_peak']:.1%}"),
        (f"padding waste over {len(batches)} batches", f"{result['padding_waste']:.1%}"),
        *((f"profile: {kind}", f"{share:.1%}") for kind, share in shares.items()),
    ]
    text = "# Training step of mm-deacon-mini\n\n" + markdown_table(("measure", "value"), rows_of_table)
    write_report("training", text, result, options)


if __name__ == "__main__":
    main()
