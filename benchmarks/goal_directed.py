"""Goal-directed generation: new molecules with a wished QED, which scales the embedding of the first token.

    python -m benchmarks.goal_directed --model x-mol-mini --work runs/goal_directed

`--draw` molecules of ZINC250k with their QED as the column `condition` (`examples/recipes/prepare_molecules.py
--condition qed`), `hf-molrep pretrain x_mol --empty_source 1` with `--steps` updates, then `--number` molecules for
each wished QED, and without one: from the checkpoint as it is, and from the fine-tuned one. Mean and standard deviation
are those of all valid molecules, duplicates included; the correlation is Pearson's between the wished and the reached
QED of all valid molecules. What is computed is kept in `--work`, so an interrupted run continues.
"""

import runpy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.data import data_folder
from benchmarks.harness.report import ROOT, argument_parser, fingerprint, markdown_table, write_report
from benchmarks.harness.selection import Cache
from benchmarks.optimization import finetuned
from hf_molrep.chem.properties import properties
from hf_molrep.inference.checkpoints import load_checkpoint, resolve_checkpoint
from hf_molrep.inference.generation import GenerationOptions, NewMolecules

AS_IT_IS, WITHOUT = "checkpoint as it is", "without a wish"


def conditions_folder(work: Path, draw: int) -> Path:
    """Make the molecules with conditions in `<work>/molecules`, if they are not there."""
    folder = work / "molecules"
    if not (folder / "exclusions.json").is_file():  # written last
        prepare = runpy.run_path(str(ROOT / "examples" / "recipes" / "prepare_molecules.py"))["main"]
        data = data_folder()
        excluded = [data / "moleculenet" / "benchmark_blocks.parquet"]
        command = [data / "pretrain" / "zinc250k.parquet", "--exclude", *excluded, "--draw", draw, "--out", folder]
        prepare([*map(str, command), "--condition", "qed"])
    return folder


def written(cache: Cache, folder: str, condition: float | None, args) -> dict:
    """Write new molecules; their QED (of the valid ones), and how many there are and differ. Kept on disk."""

    def write() -> dict:
        from transformers import AutoModelForCausalLM

        options = GenerationOptions(args.number, seed=args.seed, condition=condition, keep_all=True)
        molecules = list(NewMolecules(*load_checkpoint(AutoModelForCausalLM, folder, args.device), options))
        valid = [molecule.smiles for molecule in molecules if molecule.valid]
        return {
            "qed": properties(valid, "qed").tolist(),
            "valid": len(valid) / len(molecules),
            "unique": len(set(valid)) / max(len(valid), 1),
        }

    key = {"checkpoint": fingerprint(folder), "condition": condition, "number": args.number, "seed": args.seed}
    return cache.get(key, write)


def main(argv: Sequence[str] | None = None) -> int:
    import pandas as pd

    parser = argument_parser(__doc__, name="goal_directed")
    parser.set_defaults(model="x-mol-mini")
    parser.add_argument("--work", type=Path, default=Path("runs/goal_directed"), help="folder of what is computed")
    parser.add_argument("--draw", type=int, default=40_000, help="molecules to fine-tune on")
    parser.add_argument("--steps", type=int, default=500, help="updates")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--wishes", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8, 0.9])
    parser.add_argument("--number", type=int, default=1000, help="molecules for each wish")
    parser.add_argument("--prepare-only", action="store_true", help="compute the conditions, and stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="default: the first accelerator, else the CPU")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    data = conditions_folder(args.work, args.draw)
    if args.prepare_only:
        return 0
    model = resolve_checkpoint(args.model)

    source = ["--model", model]
    tuned = args.work / f"model-{args.rate:g}-{args.steps}"
    finetuned(tuned, source, data, args.rate, args, ["--empty_source", "1"])
    cache = Cache(args.work / "written.cache.jsonl")
    results = {f"{wish:g}": written(cache, str(tuned), wish, args) for wish in args.wishes}
    wished = np.concatenate([np.full(len(results[f"{wish:g}"]["qed"]), wish) for wish in args.wishes])
    reached = np.concatenate([results[f"{wish:g}"]["qed"] for wish in args.wishes])
    correlation = float(np.corrcoef(wished, reached)[0, 1])
    error = float(np.abs(wished - reached).mean())
    results[WITHOUT] = written(cache, str(tuned), None, args)
    results[AS_IT_IS] = written(cache, model, None, args)
    trained = pd.read_parquet(data / "train.parquet").condition
    rows = [
        [name, float(np.mean(found["qed"])), float(np.std(found["qed"])), found["valid"], found["unique"]]
        for name, found in results.items()
    ]
    rows.append(["training molecules", float(trained.mean()), float(trained.std(ddof=0)), "", ""])
    text = [
        "# Goal-directed generation: a wished QED\n",
        markdown_table(["wished QED", "mean QED", "sd", "valid", "unique"], rows),
        "",
        f"- {args.number} molecules written for each; {args.steps} updates of {args.batch_size} of {len(trained):,} "
        "molecules of ZINC250k; one seed.",
        f"- Correlation of wished and reached QED {correlation:.3f}; mean absolute difference {error:.3f}.",
        "- *Without a wish* is the wish 1: the embedding of the first token is not scaled.",
    ]
    for found in results.values():
        found["qed"] = {"mean": float(np.mean(found["qed"])), "sd": float(np.std(found["qed"])), "n": len(found["qed"])}
    raw = {"results": results, "correlation": correlation, "mean_absolute_difference": error}
    write_report(args.name, "\n".join(text), raw, args, model)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
