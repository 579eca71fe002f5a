"""Frozen probe on MoleculeNet: embedding + ridge, with all labels and with few, beside fixed features.

    python -m benchmarks.frozen_probe --models mm-deacon-mini molclr-gin-mini

The protocol: cleaned molecules, the split files of `benchmarks/splits/`. Ridge regression on standardised embeddings,
its penalty chosen among the training molecules by leaving each out; classes as -1 and +1, measured by ROC-AUC. With few
labels: so many training molecules drawn at random, `--draws` times, the same for every column; a task of several assays
keeps the labels that those molecules have, an assay with one class among them predicts nothing. `--part valid` shows
scores of the validation part, by which checkpoints are chosen.

Columns: each checkpoint; `random weights`, the architecture of the first one; `Morgan + RF` (radius 2, 2,048 bits);
`descriptors + ridge` (RDKit's 2D descriptors). Embeddings and results are kept in `--cache`, so an interrupted run
continues, and another checkpoint needs only its own column. What is not computed is printed as "not run".
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.fingerprints import descriptors
from benchmarks.harness.checkpoints import cached, embed, load
from benchmarks.harness.columns import fit_baseline
from benchmarks.harness.report import (
    RESULTS,
    SPLITS,
    argument_parser,
    fingerprint,
    markdown_table,
    mean_sd,
    write_report,
)
from benchmarks.harness.selection import Cache, better
from benchmarks.moleculenet import NOT_COUNTED, SPLIT_NAMES, TASKS, Data, score
from hf_molrep.chem.fingerprints import morgan_fingerprints
from hf_molrep.inference.checkpoints import resolve_checkpoint
from hf_molrep.metrics import GREATER_IS_BETTER

FIXED = ("Morgan + RF", "descriptors + ridge")
FOREST = {"max_features": "sqrt", "min_samples_leaf": 1}
RANDOM = "random weights"


def subset(split: dict, labels: int | None, draw: int) -> dict:
    """The split with so many of its training molecules (None: all of them), drawn with the seed `draw`."""
    train = np.asarray(split["train"])
    if labels is not None and labels < len(train):
        train = np.sort(np.random.default_rng([draw, labels]).choice(train, labels, replace=False))
    return {"train": train, "valid": np.asarray(split["valid"]), "test": np.asarray(split["test"])}


def probe(data: Data, features: np.ndarray, column: str, split: dict, seed: int, trees: int) -> dict[str, float]:
    """Scores of a column on the validation and the test part."""
    recipe = column if column == "Morgan + RF" else "descriptors + ridge"
    setting = FOREST if recipe == "Morgan + RF" else {}
    problem_type = data.task.problem_type
    predictions = fit_baseline(recipe, setting, features, data.labels, split, problem_type, seed, trees)
    return {
        part: score(data.task.metric, data.labels[split[part]], values)
        for part, values in zip(("valid", "test"), predictions, strict=True)
    }


class Features:
    """The features of each column, kept on disk; a checkpoint is loaded when first asked for."""

    def __init__(self, models: dict[str, str], folder: Path):
        self.models, self.folder, self._loaded = models, folder, {}

    def identity(self, column: str) -> str:
        """What the features depend on beside the molecules."""
        if column in FIXED:
            return column
        weights = column != RANDOM
        return f"{'' if weights else RANDOM + ' '}{fingerprint(self._path(column), weights)}"

    def _path(self, column: str) -> str:
        return next(iter(self.models.values())) if column == RANDOM else self.models[column]

    def __call__(self, column: str, smiles: Sequence[str]) -> np.ndarray:
        def compute() -> np.ndarray:
            if column == "Morgan + RF":
                return morgan_fingerprints(smiles)
            if column == "descriptors + ridge":
                return descriptors(smiles)
            if column not in self._loaded:
                self._loaded[column] = load(self._path(column), 0 if column == RANDOM else None)
            return embed(*self._loaded[column], smiles, truncation=True)[0]

        return cached(self.folder, self.identity(column), smiles, compute)


def table(found: dict[tuple, list[float]], labels: str, columns: Sequence[str], tasks: dict[str, Data]) -> str:
    """A row for each task: mean and standard deviation of the scores over splits and draws."""
    rows = []
    for name, data in tasks.items():
        scores = [found.get((name, labels, column), []) for column in columns]
        rows.append([name, data.task.metric, *(mean_sd(each) if each else "not run" for each in scores)])
    return markdown_table(["task", "metric", *columns], rows)


def beaten(
    found: dict[tuple, list[float]], labels: str, column: str, baseline: str, tasks: dict[str, Data]
) -> tuple[list[str], int]:
    """Tasks on which the mean of `column` is better than that of `baseline`, and how many were compared."""
    won, compared = [], 0
    for name, data in tasks.items():
        own, other = (found.get((name, labels, each), []) for each in (column, baseline))
        if own and other and name not in NOT_COUNTED:
            compared += 1
            if better(float(np.mean(own)), float(np.mean(other)), data.task.metric in GREATER_IS_BETTER):
                won.append(name)
    return won, compared


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, "frozen_probe")
    parser.add_argument("--models", nargs="+", help="shipped checkpoints or folders, instead of --model")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--split-names", nargs="+", default=list(SPLIT_NAMES), choices=list(SPLIT_NAMES))
    parser.add_argument("--labels", nargs="+", default=["100", "all"], help="numbers of training molecules, or all")
    parser.add_argument("--part", default="test", choices=["test", "valid"], help="molecules that are predicted")
    parser.add_argument("--draws", type=int, default=10, help="of few training molecules")
    parser.add_argument("--trees", type=int, default=500, help="of the random forest")
    parser.add_argument("--leave-out", nargs=3, action="append", default=[], metavar=("TASK", "LABELS", "COLUMN"))
    parser.add_argument("--data", type=Path, help="folder of the MoleculeNet files (default: that of the data folder)")
    parser.add_argument("--splits", type=Path, default=SPLITS, help="folder of the split files")
    parser.add_argument("--cache", type=Path, default=RESULTS / "frozen_probe.cache", help="folder of what is finished")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    models = {Path(name).name: resolve_checkpoint(name) for name in args.models or [args.model]}
    columns = [*models, RANDOM, *FIXED]
    features, cache = Features(models, args.cache), Cache(args.cache / "results.jsonl")
    tasks = {name: Data(name, "cleaned", args.split_names, args.splits, args.data) for name in args.tasks}
    raw, found = [], {}
    for labels in args.labels:
        draws = range(1 if labels == "all" else args.draws)
        for name, column, split, draw in itertools.product(tasks, columns, args.split_names, draws):
            if [name, labels, column] in args.leave_out:
                continue
            data = tasks[name]
            key = {"task": name, "split": split, "labels": labels, "draw": draw, "column": features.identity(column)}
            key |= {"trees": args.trees} if column == "Morgan + RF" else {}
            scores = cache.known(key)
            if scores is None:
                parts = subset(data.splits[split], None if labels == "all" else int(labels), draw)
                computed = probe(data, features(column, data.smiles), column, parts, draw, args.trees)
                scores = cache.get(key, lambda computed=computed: computed)
            raw.append({**key, "column": column, **scores})
            found.setdefault((name, labels, column), []).append(scores[args.part])
    part = "test" if args.part == "test" else "validation"
    text = [f"# Frozen probe on MoleculeNet, scaffold splits, {part} molecules\n"]
    for labels in args.labels:
        text += [f"## {'All labels' if labels == 'all' else f'{labels} labels'}\n"]
        text += [table(found, labels, columns, tasks), ""]
        for column in models:
            for baseline in (RANDOM, *FIXED):
                won, compared = beaten(found, labels, column, baseline, tasks)
                if compared:
                    named = f": {', '.join(won)}" if won else ""
                    text += [f"- {column} against {baseline}: better mean on {len(won)} of {compared}{named}."]
        text += [""]
    text += [
        f"- Mean ± standard deviation over the splits {', '.join(args.split_names)} and, with few labels, {args.draws} "
        "draws of the training molecules; ROC-AUC: higher is better, RMSE: lower.",
        f"- random weights: the architecture of {next(iter(models))}.",
        *(f"- {task}: not counted, {reason}." for task, reason in NOT_COUNTED.items() if task in args.tasks),
        *(f"- {column} on {task}, {labels} labels: left out (--leave-out)." for task, labels, column in args.leave_out),
        *(f"- {data.note}." for data in tasks.values()),
    ]
    write_report(args.name, "\n".join(text), {"results": raw}, args, next(iter(models.values())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
