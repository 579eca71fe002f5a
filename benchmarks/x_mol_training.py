"""Speed of a pre-training step of X-MOL at the paper's size, as a share of the peak rate of matrix products.

    python -m benchmarks.x_mol_training x-mol-mini-data/train.parquet

In one process, for float32 and for bf16 autocast: (1) the rate of a large matrix product of that type; (2) steps
(forward, backward, clipping, AdamW) on batches of molecules of similar length, as in `hf-molrep pretrain x_mol`; (3) a
profile of such steps. The work of a step is the matrix products of real tokens: padding is no work. `--config` takes
the configuration of another size.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.harness.ceilings import products
from benchmarks.harness.checkpoints import load_processor
from benchmarks.harness.profiling import shares
from benchmarks.harness.report import RESULTS, markdown_table, write_report
from benchmarks.harness.steps import stepping
from benchmarks.harness.timing import timed
from benchmarks.training import KINDS
from hf_molrep.data.batching import grouped_order
from hf_molrep.models.x_mol import XMolDataCollator, XMolForPreTraining

MATRIX = 4096  # width of the matrices whose product is the peak


def peak_rate(dtype: torch.dtype) -> float:
    """Measure the FLOP per CPU second of the product of two large matrices; the fastest of five."""
    run = products([(MATRIX, MATRIX, MATRIX)], dtype)
    run()
    return 2 * MATRIX**3 / min(timed(run)[1].cpu for _ in range(5))


def step_flops(model: XMolForPreTraining, batch: dict[str, torch.Tensor]) -> float:
    """Count the FLOP of a step (forward, twice as much backward) without padding: linear layers, attention, head."""
    config = model.config
    lengths = batch["attention_mask"].sum(dim=1).double()
    starts = (batch["input_ids"] == config.bos_token_id).cumsum(dim=1)
    predicted = float(((starts > 1) & batch["attention_mask"].bool()).sum()) - len(lengths)
    layers = sum(
        module.weight.numel() for module in model.x_mol.layers.modules() if isinstance(module, torch.nn.Linear)
    )
    attention = 4 * config.hidden_size * config.num_hidden_layers * float((lengths**2).sum())
    head = 2 * predicted * config.hidden_size * (config.hidden_size + config.vocab_size)
    return 3 * (2 * layers * float(lengths.sum()) + attention + head)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("molecules", type=Path, help="Parquet with smiles")
    parser.add_argument("--config", type=Path, help="configuration (default: the paper's)")
    parser.add_argument("--processor", default="tokenizers/x_mol")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--attention", default="eager")
    parser.add_argument("--max-length", type=int, default=128, help="of source and of target")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the .md and .json written")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    from hf_molrep.training.pretraining import make_config

    processor = load_processor(options.processor)
    table = pd.read_parquet(options.molecules, columns=["smiles"])
    table = table.sample(min(len(table), 20_000), random_state=options.seed)
    rows = [{"smiles": smiles, "row_id": number} for number, smiles in enumerate(table.smiles)]
    lengths = table.smiles.str.len().to_numpy()
    order = grouped_order(lengths, options.batch_size, np.random.default_rng(options.seed))
    collator = XMolDataCollator(processor, max_length=options.max_length)
    starts = range(0, options.batch_size * (options.steps + 1), options.batch_size)
    batches = [collator([rows[index] for index in order[start : start + options.batch_size]]) for start in starts]
    warm_up, timed_batches = batches[:1], batches[1:]

    config = make_config("x_mol", processor, None if options.config is None else str(options.config))
    model = XMolForPreTraining(config).train()
    model.set_attn_implementation(options.attention)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def steps(batches: list[dict[str, torch.Tensor]], bf16: bool) -> None:
        for batch in batches:
            stepping(lambda batch=batch: model(**batch).loss, optimizer, bf16=bf16, clip=1.0)()

    flops = sum(step_flops(model, batch) for batch in timed_batches)
    tokens = float(sum(batch["attention_mask"].sum() for batch in timed_batches))
    padded = sum(batch["attention_mask"].numel() for batch in timed_batches)
    results, rows_of_table = {}, []
    for bf16, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        peak = peak_rate(dtype)
        steps(warm_up, bf16)
        cpu = timed(partial(steps, timed_batches, bf16))[1].cpu
        peak = max(peak, peak_rate(dtype))
        spent = shares(partial(steps, timed_batches[:1], bf16), KINDS, rest="other elementwise and reductions")
        result = {
            "molecules_per_cpu_second": options.steps * options.batch_size / cpu,
            "tokens_per_cpu_second": tokens / cpu,
            "peak_gflops": peak / 1e9,
            "share_of_peak": flops / cpu / peak,
            "profile": dict(sorted(spent.items(), key=lambda item: -item[1])),
        }
        name = "bf16 autocast" if bf16 else "float32"
        results[name] = result
        profile = ", ".join(f"{kind} {share:.0%}" for kind, share in result["profile"].items() if share >= 0.02)
        rows_of_table.append(
            (
                name,
                f"{result['molecules_per_cpu_second']:.2f}",
                f"{result['tokens_per_cpu_second']:.0f}",
                f"{result['peak_gflops']:.0f}",
                f"{result['share_of_peak']:.0%}",
                profile,
            )
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    results |= {
        "parameters": parameters,
        "padding": 1 - tokens / padded,
        "tokens_per_molecule": tokens / (options.steps * options.batch_size),
    }
    header = (
        "type",
        "molecules per CPU second",
        "tokens per CPU second",
        "peak, GFLOP per CPU second",
        "share of peak",
        "profile",
    )
    text = [
        f"# Training step of X-MOL with {parameters:,} parameters\n",
        markdown_table(header, rows_of_table),
        f"\n- Batches of {options.batch_size} pairs of similar length, {tokens / padded:.1%} real tokens; "
        f"{options.threads} threads, attention {options.attention}, dropout {config.hidden_dropout}.",
        f"- Peak: product of two {MATRIX} x {MATRIX} matrices of the type. Work: products of real tokens only.",
    ]
    write_report("x_mol_training", "\n".join(text), results, options)


if __name__ == "__main__":
    main()
