"""MoleculeNet by scaffold split: which method to use? Each method is run by its own usual recipe.

    python -m benchmarks.moleculenet_recipes --chemprop ENVIRONMENT/bin/chemprop

The molecules (cleaned), splits and scores are those of `benchmarks.moleculenet`, which asks whether pre-training helps;
here nothing is made equal, and no setting is chosen: every column is run with its usual settings.

- `chemprop`: `chemprop train` with the defaults of its command line (see `chemprop_baseline.py`);
- `Morgan + RF`, `descriptors + GB`, `descriptors + ridge`: the first setting of `harness/columns.py`;
- the checkpoints: `hf-molrep finetune` with its defaults.

`--run` names the columns to run; others are shown from `--cache`. A cell that lacks a split or a seed says "not run".
Each fit is appended to `--cache` (JSON lines) as soon as it is done; an interrupted run continues from there.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.chemprop_baseline import chemprop_version, fit_chemprop
from benchmarks.harness.columns import NEURAL, SETTINGS, fit_baseline
from benchmarks.harness.report import (
    RESULTS,
    SPLITS,
    argument_parser,
    fingerprint,
    markdown_table,
    mean_sd,
    write_report,
)
from benchmarks.harness.selection import Cache
from benchmarks.moleculenet import NOT_COUNTED, SPLIT_NAMES, TASKS, Data, score
from hf_molrep.data.datasets import MOLECULENET
from hf_molrep.inference.checkpoints import resolve_checkpoint

BASELINES = [column for column in SETTINGS if column not in NEURAL]
CHECKPOINTS = ["mm-deacon-mini", "molclr-gin-mini", "grover-mini", "uni-mol-mini"]
COLUMNS = ["chemprop", *BASELINES, *CHECKPOINTS]


def finetuning_defaults() -> dict:
    """Return epochs, learning rate and batch size of `hf-molrep finetune`."""
    from hf_molrep.training.settings import FinetuningSettings

    defaults = FinetuningSettings()
    return {name: getattr(defaults, name) for name in ("epochs", "learning_rate", "batch_size")}


def recipe_of(column: str, args) -> str:
    """Describe the recipe; part of the cache's key."""
    if column == "chemprop":
        return f"command-line defaults of {args.chemprop_version}"
    if column in BASELINES:
        setting = {"trees": args.trees} if column == "Morgan + RF" else {}
        setting |= SETTINGS[column][0]
        return ", ".join(f"{name} {value}" for name, value in setting.items()) or "penalty by leaving one out"
    defaults = ", ".join(f"{name} {value}" for name, value in finetuning_defaults().items())
    return f"{fingerprint(resolve_checkpoint(column))}, {defaults}, best epoch on validation"


def fit(column: str, data: Data, split: dict, seed: int, args) -> dict:
    """Fit a column; return the predictions of the test part and facts about the fit."""
    problem_type = data.task.problem_type
    if column == "chemprop":
        return fit_chemprop(args.chemprop, data.smiles, data.labels, problem_type, split, seed, args.threads)
    if column in BASELINES:
        features = data.features(column, "")
        _, test = fit_baseline(
            column, SETTINGS[column][0], features, data.labels, split, problem_type, seed, args.trees
        )
        return {"predictions": test}
    from hf_molrep.training.finetuning import finetune
    from hf_molrep.training.labelled_molecules import LabelledMolecules
    from hf_molrep.training.settings import FinetuningSettings

    checkpoint = resolve_checkpoint(column)
    features = data.features(NEURAL[0], checkpoint)
    result = finetune(
        checkpoint,
        LabelledMolecules(data.smiles, data.labels, data.task.labels, problem_type, split, features=features),
        FinetuningSettings(seed=seed, metric=data.task.metric),
    )
    return {"predictions": result.test_predictions}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, "moleculenet_recipes", model=False)
    parser.add_argument("--chemprop", type=Path, help="the command, in an environment that has it")
    parser.add_argument("--chemprop-version", default="2.3.1", help="of the results to show, without --chemprop")
    parser.add_argument("--run", nargs="*", default=COLUMNS, choices=COLUMNS, help="columns to run")
    parser.add_argument(
        "--leave-out",
        nargs=2,
        action="append",
        default=[],
        metavar=("TASK", "COLUMN"),
        help="not run: a forest of 500 trees for each of Tox21's tasks takes hours",
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(MOLECULENET))
    parser.add_argument("--variant", default="cleaned", choices=["raw", "cleaned"])
    parser.add_argument("--split-names", nargs="+", default=list(SPLIT_NAMES), choices=list(SPLIT_NAMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trees", type=int, default=500, help="of the random forest")
    parser.add_argument("--data", type=Path, help="folder of the MoleculeNet files (default: that of the data folder)")
    parser.add_argument("--splits", type=Path, default=SPLITS, help="folder of the split files")
    parser.add_argument("--cache", type=Path, default=RESULTS / "moleculenet_recipes.cache.jsonl", help="finished fits")
    args = parser.parse_args(argv)
    if args.chemprop:
        args.chemprop_version = chemprop_version(args.chemprop)
    elif "chemprop" in args.run:
        parser.error("--run chemprop needs --chemprop")
    import torch

    torch.set_num_threads(args.threads)
    cache, results, rows = Cache(args.cache), [], []
    recipes = {column: recipe_of(column, args) for column in COLUMNS}
    for name in args.tasks:
        data = Data(name, args.variant, args.split_names, args.splits, args.data)
        row = [name, data.task.metric, len(data.smiles)]
        for column in COLUMNS:
            scores = []
            for split_name, split in data.splits.items():
                for seed in args.seeds:
                    key = {"task": name, "variant": args.variant, "split": split_name, "column": column}
                    key |= {"recipe": recipes[column], "seed": seed}

                    def compute(column=column, data=data, split=split, seed=seed) -> dict:
                        fitted = fit(column, data, split, seed, args)
                        values = fitted["predictions"]
                        test = score(data.task.metric, data.labels[split["test"]], values)
                        rounded = [[float(f"{value:.6g}") for value in each] for each in values]
                        return {"test": test, **fitted, "predictions": rounded}

                    run = column in args.run and [name, column] not in args.leave_out
                    value = cache.get(key, compute) if run else cache.known(key)
                    if value is None:
                        continue
                    print(f"{', '.join(map(str, key.values()))}: test {value['test']:.4f}", flush=True)
                    scores.append(value["test"])
                    kept = {field: entry for field, entry in value.items() if field != "predictions"}
                    results.append({**key, **kept})
            complete = len(scores) == len(args.split_names) * len(args.seeds)
            row.append(mean_sd(scores) if complete else "not run")
        rows.append(row)
    trained = {(entry["epochs"], entry["batch_size"]) for entry in results if entry["column"] == "chemprop"}
    recipes["chemprop"] += "".join(f", {rounds} epochs, batches of {size}" for rounds, size in sorted(trained))
    text = [
        "# MoleculeNet: what should I use?\n",
        "Each column by its own recipe; test scores. ROC-AUC: higher is better, RMSE: lower.\n",
        markdown_table(["task", "metric", "molecules", *COLUMNS], rows),
        f"\n- Mean ± standard deviation over the splits {', '.join(args.split_names)} (scaffolds without chirality) "
        f"and seeds {args.seeds}; molecules {args.variant}. Whether pre-training helps is another question: "
        "`moleculenet_all.md`.",
        "- not run: a split or a seed is missing; those that are there stand in the JSON file.",
        *(f"- {column}: {recipe}." for column, recipe in recipes.items()),
        *(f"- {task}: {reason}." for task, reason in NOT_COUNTED.items() if task in args.tasks),
    ]
    write_report(args.name, "\n".join(text), {"results": results}, args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
