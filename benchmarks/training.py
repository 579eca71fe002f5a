"""Speed of a pre-training step of the mini, compared with the peak rate of matrix products, and a profile.

    python -m benchmarks.training iupac_pairs/train.parquet

In one process, under bf16 autocast: (1) the rate of a large bf16 matrix product; (2) steps (forward, backward,
clipping, AdamW) on grouped batches of real pairs, as in `hf-molrep pretrain mm_deacon`; (3) a profile of such steps.
Padding waste is the share of padded positions among those that the towers compute.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import hf_molrep
from benchmarks.harness.ceilings import matrix_rate
from benchmarks.harness.checkpoints import load_processor
from benchmarks.harness.profiling import shares
from benchmarks.harness.report import RESULTS, ROOT, markdown_table, write_report
from benchmarks.harness.steps import stepping
from benchmarks.harness.timing import timed
from hf_molrep.data.batching import grouped_order

KINDS = {  # of torch's operators
    "matrix products": ("mm", "*addmm*", "bmm", "*baddbmm*", "*mkldnn*"),
    "copies and casts": ("*copy_*", "cat", "_to_copy", "*clone*", "*contiguous*", "*index*", "*stack*"),
    "softmax": ("*softmax*",),
    "norms": ("*layer_norm*", "norm"),
    "activation": ("*gelu*",),
    "optimizer": ("*adam*",),
    "memory": ("*fill_*", "*zero_*", "*empty*", "*resize*"),
}


def step_flops(model, lengths: dict[str, np.ndarray], pairs: int) -> float:
    """Count the FLOP of a training step (forward, twice as much backward) without padding: linear layers, attention."""
    total = 0.0
    for view, tokens in lengths.items():
        tower = getattr(model.mm_deacon, f"{view}_model")
        weights = sum(m.weight.numel() for m in tower.modules() if isinstance(m, torch.nn.Linear))
        attention = 4 * tower.config.hidden_size * tower.config.num_hidden_layers * float((tokens**2).sum())
        total += 2 * weights * float(tokens.sum()) + attention
    total += 2 * pairs * 2 * model.config.projection_dim * (model.config.smiles_config.hidden_size + pairs)
    return 3 * total


def padding_waste(lengths: np.ndarray, chunk: int) -> tuple[int, int]:
    """Count padded and real positions of one view of a batch that passes the tower in sorted chunks of rows."""
    ordered = np.sort(lengths)[::-1]
    chunk = chunk or len(ordered)
    chunks = [ordered[start : start + chunk] for start in range(0, len(ordered), chunk)]
    return sum(int(part[0]) * len(part) for part in chunks), int(lengths.sum())


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

    from hf_molrep.training.pretraining import make_config

    processor = load_processor(options.processor)
    table = pd.read_parquet(options.pairs, columns=["smiles", "iupac_name", "formula"])
    table = table.sample(min(len(table), 20_000), random_state=options.seed)
    columns = {"smiles": table.smiles.tolist(), "iupac_name": table.iupac_name.tolist()}
    rows = processor.featurize(columns, truncation=True, max_length=options.max_length)
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

        def loss() -> torch.Tensor:
            return model(**inputs).loss

        stepping(loss, optimizer, bf16=True, clip=1.0)()

    def steps(batches) -> None:
        for batch in batches:
            step(batch)

    peak = matrix_rate(4096, 3.0)
    steps(batches[:3])
    timed_batches = batches[3 : 3 + options.steps]
    _, (seconds, cpu) = timed(partial(steps, timed_batches))
    peak = max(peak, matrix_rate(4096, 3.0))
    flops = sum(
        step_flops(model, {"smiles": smiles_length[batch], "iupac": name_length[batch]}, len(batch))
        for batch in timed_batches
    )

    spent = shares(partial(steps, timed_batches[:4]), KINDS, rest="other elementwise and reductions")
    spent = dict(sorted(spent.items(), key=lambda item: -item[1]))

    pairs = len(timed_batches) * options.batch_size
    result = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pairs_per_second": pairs / seconds,
        "pairs_per_cpu_second": pairs / cpu,
        "tokens_per_pair": float((smiles_length + name_length)[np.concatenate(timed_batches)].mean()),
        "matrix_product_peak_gflops": peak / 1e9,
        "share_of_peak": flops / seconds / peak,
        "padding_waste": 1 - real / padded,
        "profile": spent,
    }
    rows_of_table = [
        ("parameters", f"{result['parameters']:,}"),
        (f"pairs per second, {options.threads} threads", f"{result['pairs_per_second']:.0f}"),
        ("pairs per CPU second", f"{result['pairs_per_cpu_second']:.0f}"),
        ("tokens per pair", f"{result['tokens_per_pair']:.1f}"),
        ("peak of a 4096 x 4096 bf16 product", f"{result['matrix_product_peak_gflops']:.0f} GFLOP/s"),
        ("step, share of that peak (products of real tokens only)", f"{result['share_of_peak']:.1%}"),
        (f"padding waste over {len(batches)} batches", f"{result['padding_waste']:.1%}"),
        *((f"profile: {kind}", f"{share:.1%}") for kind, share in spent.items()),
    ]
    text = "# Training step of mm-deacon-mini\n\n" + markdown_table(("measure", "value"), rows_of_table)
    write_report("training", text, result, options)


if __name__ == "__main__":
    main()
