"""MoleculeNet by scaffold split: does pre-training help? A checkpoint against its architecture from random weights.

    python -m benchmarks.moleculenet --tasks bbbp bace sider tox21 clintox esol freesolv lipophilicity

The protocol:

- **Splits** 8:1:1, saved in `benchmarks/splits/` and used by every column: the deterministic scaffold split and two
  balanced scaffold splits (seeds 0 and 1), scaffolds without chirality. Every column is trained with each of `--seeds`
  on each split.
- **Columns**: `pre-trained` (the checkpoint, fine-tuned) and `random weights` (the same, from scratch); in a separate
  table `Morgan + RF` (radius 2, 2,048 bits) and `descriptors + GB` (RDKit's 2D descriptors, histogram gradient
  boosting). `benchmarks.moleculenet_recipes` compares methods by their own recipes.
- **Selection** on the validation part only. Every column tries `--trials` settings with the first seed on each split;
  the best one is used for all seeds. Both neural columns have the same number of epochs: `--epochs`, or more if these
  are fewer than `--updates` updates. The epoch is chosen on validation too.
- **Raw** as in the papers, and **cleaned**: parent molecules, neutralised, one row per InChIKey, contradicting labels
  dropped or averaged.
- Mean ± standard deviation over splits and seeds, and win / tie / loss of the checkpoint against each column: paired
  bootstrap of the test molecules (95 % interval of the difference, 1,000 resamples) for each split and seed. ClinTox is
  shown and not counted.

Each result is appended to `--cache` (JSON lines) as soon as it is computed; an interrupted run continues from there.
Results of the baselines do not depend on the checkpoint, and are taken from the cache of another checkpoint's run.
`--join` adds earlier reports of the checkpoint, of other tasks or seeds, to the table. `python -m
benchmarks.moleculenet_table` joins the tables of several checkpoints.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.checkpoints import load_processor, truncating
from benchmarks.harness.columns import NEURAL, SETTINGS, epochs, fit, fixed_features
from benchmarks.harness.comparison import paired_bootstrap
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import (
    RESULTS,
    SPLITS,
    argument_parser,
    fingerprint,
    markdown_table,
    mean_sd,
    write_report,
)
from benchmarks.harness.selection import Cache, choose_then_seed
from hf_molrep.data.datasets import MOLECULENET, label_matrix, load_moleculenet
from hf_molrep.data.splits import make_split, read_split, write_split
from hf_molrep.inference.checkpoints import resolve_checkpoint
from hf_molrep.metrics import GREATER_IS_BETTER, mae, pr_auc, property_metrics, rmse, roc_auc

TASKS = ("bbbp", "bace", "sider", "tox21", "clintox", "esol", "freesolv", "lipophilicity")
SPLIT_NAMES = {  # name of the split, seed
    "scaffold": ("scaffold", 0),
    "balanced-0": ("balanced_scaffold", 0),
    "balanced-1": ("balanced_scaffold", 1),
}
NOT_COUNTED = {"clintox": "one-atom rules predict it"}
METRIC_OF = {"roc_auc": roc_auc, "pr_auc": pr_auc, "rmse": rmse, "mae": mae}
COLUMNS = [column for column in SETTINGS if column != "descriptors + ridge"]  # it has no settings to choose


class Data:
    """Data of a task: SMILES, labels `[molecules, tasks]`, splits, and features, which are computed on demand."""

    def __init__(self, name: str, variant: str, splits: Sequence[str], folder: Path, root: Path | None = None):
        dataset = load_moleculenet(name, variant, root or data_folder() / "moleculenet")
        self.name, self.variant, self.task = name, variant, MOLECULENET[name]
        self.note = dataset.info.description
        self.smiles, self.labels = list(dataset["smiles"]), label_matrix(dataset, self.task.labels)
        self.splits = {}
        for split in splits:
            file = folder / f"{name}.{variant}.{split}.json"
            if not file.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                method, seed = SPLIT_NAMES[split]
                write_split(file, make_split(method, self.smiles, seed=seed), self.smiles)
            self.splits[split] = read_split(file, self.smiles).parts
        self._features: dict = {}

    def features(self, column: str, checkpoint: str):
        """Return the features of all molecules: those of the processor (neural columns), or a matrix."""
        key = ("neural", checkpoint) if column in NEURAL else column
        if key not in self._features:
            if column in NEURAL:
                processor = truncating(load_processor(checkpoint))
                self._features[key] = processor.featurize({"smiles": self.smiles}, "skip")
            else:
                self._features[key] = fixed_features(column, self.smiles)
        return self._features[key]


def train(column: str, setting: dict, data: Data, split: dict, seed: int, checkpoint: str, args):
    """Fit a column, and predict validation and test part, `[molecules, tasks]` each."""
    features, options = data.features(column, checkpoint), {}
    if column in NEURAL:
        options = {"epochs": epochs(split, args), "metric": data.task.metric, "bf16": False if args.float32 else None}
        whole = split
        split = {part: [row for row in rows if isinstance(features[row], dict)] for part, rows in whole.items()}
        if len(split["valid"]) + len(split["test"]) < len(whole["valid"]) + len(whole["test"]):
            raise ValueError(f"{data.name}: the checkpoint cannot take some molecules of the validation or test part")
    names, problem_type = data.task.labels, data.task.problem_type
    return fit(
        column, setting, features, data.smiles, data.labels, names, problem_type, split, seed, checkpoint, args,
        **options,
    )  # fmt: skip


def score(metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    """Average the metric over the tasks for which it is defined."""
    return float(METRIC_OF[metric](labels, predictions).mean)


def evaluate(data: Data, split_name: str, column: str, checkpoint: str, cache: Cache, args) -> list[dict]:
    """Return a record per seed: `valid`, `test` (scores), `predictions` of the test part, the chosen `setting`."""
    split, metric = data.splits[split_name], data.task.metric
    settings = SETTINGS[column][: args.trials]
    identity = {"task": data.name, "variant": data.variant, "split": split_name, "column": column}
    if column == "Morgan + RF":
        identity |= {"trees": args.trees}
    if column in NEURAL:
        weights = column != "random weights"
        identity |= {
            "checkpoint": fingerprint(checkpoint, weights),
            "epochs": epochs(split, args),
            "batch_size": args.batch_size,
        }
        if args.float32:
            identity |= {"dtype": "float32"}

    def result(setting: dict, seed: int) -> dict:
        def compute() -> dict:
            valid, test = train(column, setting, data, split, seed, checkpoint, args)
            known = data.labels[split["valid"]]
            return {
                "valid": property_metrics(valid, known, data.task.problem_type)[metric],
                "test": score(metric, data.labels[split["test"]], test),
                "predictions": [[float(f"{value:.6g}") for value in row] for row in test],
            }

        key = identity | {"setting": setting, "seed": seed}
        value = cache.get(key, compute)
        print(f"{', '.join(map(str, key.values()))}: valid {value['valid']:.4f} test {value['test']:.4f}", flush=True)
        return value

    return choose_then_seed(settings, args.seeds, result, metric in GREATER_IS_BETTER)


def compare(data: Data, found: dict, resamples: int) -> dict[str, dict]:
    """Wins, ties and losses of `pre-trained` against every other column, one verdict per split and seed; "undefined"
    where the test part cannot measure the metric."""
    verdicts = {}
    for column in found:
        if column == "pre-trained":
            continue
        counts = {"win": 0, "tie": 0, "loss": 0, "undefined": 0}
        for split, records in found[column].items():
            labels = data.labels[data.splits[split]["test"]]
            for own, other in zip(found["pre-trained"][split], records, strict=True):
                pair = [np.array(record["predictions"]) for record in (own, other)]
                if any(math.isnan(score(data.task.metric, labels, predictions)) for predictions in pair):
                    counts["undefined"] += 1
                    continue
                comparison = paired_bootstrap(
                    METRIC_OF[data.task.metric],
                    labels,
                    *pair,
                    greater_is_better=data.task.metric in GREATER_IS_BETTER,
                    resamples=resamples,
                )
                counts[comparison.verdict] += 1
        verdicts[column] = counts
    return verdicts


def join(report: dict, args, checkpoint: str, raw: list[dict], judged: list[dict]) -> None:
    """
    Add the results of an earlier report, of other tasks or seeds, to the results and verdicts of this run.

    Raises:
        ValueError: the report is of another checkpoint or protocol, settings were chosen, or it repeats a run.
    """
    earlier = report["settings"]
    if earlier["checkpoint"] != fingerprint(checkpoint):
        raise ValueError(f"the report is of checkpoint {earlier['checkpoint']}, this run of {fingerprint(checkpoint)}")
    if args.trials != 1:
        raise ValueError("--join needs --trials 1: settings are chosen with the first of all seeds")
    asked = {"float32": False, **earlier["arguments"]}  # older than the option
    for name in ("split_names", "trials", "epochs", "updates", "batch_size", "float32", "trees", "resamples"):
        if asked[name] != getattr(args, name):
            raise ValueError(f"the report has {name} {asked[name]}, this run {getattr(args, name)}")
    fields = ("task", "variant", "column", "split", "seed")
    here = {tuple(entry[field] for field in fields) for entry in raw}
    for entry in report["results"]:
        if entry["column"] not in SETTINGS:  # of a column that no longer exists
            continue
        run = tuple(entry[field] for field in fields)
        if run in here:
            raise ValueError(f"the report has {', '.join(map(str, run))}, which is here already")
        raw.append(entry)
    for verdict in report["verdicts"]:
        against = {column: counts for column, counts in verdict["against"].items() if column in SETTINGS}
        verdict = {**verdict, "against": against}
        same = [own for own in judged if all(own[field] == verdict[field] for field in ("task", "variant"))]
        if not same:
            judged.append(verdict)
            continue
        for column, counts in verdict["against"].items():
            known = same[0]["against"].get(column, {})
            same[0]["against"][column] = {name: count + known.get(name, 0) for name, count in counts.items()}


def table(raw: list[dict], judged: list[dict], columns: Sequence[str], sizes: dict[tuple[str, str], int]) -> str:
    """Make a row for each task and variant of `sizes` (numbers of molecules) from results and verdicts of runs."""
    rows = []
    for (name, variant), molecules in sizes.items():
        own = [entry for entry in raw if (entry["task"], entry["variant"]) == (name, variant)]
        scores = {column: [entry["test"] for entry in own if entry["column"] == column] for column in columns}
        (verdicts,) = [each["against"] for each in judged if (each["task"], each["variant"]) == (name, variant)]
        row = [name, variant, MOLECULENET[name].metric, molecules]
        row += [mean_sd(scores[column]) if scores[column] else "not run" for column in columns]
        for column in columns:
            if column != "pre-trained":
                counts = verdicts.get(column, {})
                counts = " / ".join(str(counts[verdict]) for verdict in ("win", "tie", "loss")) if counts else "n/a"
                row.append("not counted" if name in NOT_COUNTED else counts if scores[column] else "not run")
        rows.append(row)
    versus = [f"against {column}" for column in columns if column != "pre-trained"]
    return markdown_table(["task", "variant", "metric", "molecules", *columns, *versus], rows)


def tables(raw: list[dict], judged: list[dict], columns: Sequence[str], sizes: dict[tuple[str, str], int]) -> list[str]:
    """Make two tables: the neural columns, and the pre-trained one compared with the baselines."""
    neural = [column for column in columns if column in NEURAL]
    others = [column for column in columns if column not in NEURAL]
    text = ["## Does pre-training help?\n", table(raw, judged, neural, sizes)] if neural else []
    if others:
        beside = [column for column in neural if column == "pre-trained"] + others
        text += ["\n## Beside fixed features\n" if neural else "", table(raw, judged, beside, sizes)]
    return text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, "moleculenet")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(MOLECULENET))
    parser.add_argument("--variants", nargs="+", default=["raw", "cleaned"], choices=["raw", "cleaned"])
    parser.add_argument("--split-names", nargs="+", default=list(SPLIT_NAMES), choices=list(SPLIT_NAMES))
    parser.add_argument("--columns", nargs="+", default=COLUMNS, choices=list(SETTINGS))
    parser.add_argument(
        "--leave-out",
        nargs=2,
        action="append",
        default=[],
        metavar=("TASK", "COLUMN"),
        help="not run, and said so: a forest of 500 trees for each of Tox21's tasks takes hours",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=2, choices=[1, 2, 3, 4], help="settings to try, per column")
    parser.add_argument("--epochs", type=int, default=10, help="of the neural columns")
    parser.add_argument("--updates", type=int, default=400, help="least number of updates")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--float32", action="store_true", help="neural columns without bf16: faster for narrow models")
    parser.add_argument("--trees", type=int, default=500, help="of the random forest")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--data", type=Path, help="folder of the MoleculeNet files (default: that of the data folder)")
    parser.add_argument("--splits", type=Path, default=SPLITS, help="folder of the split files")
    parser.add_argument("--cache", type=Path, default=RESULTS / "moleculenet.cache.jsonl", help="finished results")
    parser.add_argument("--join", nargs="+", default=[], metavar="NAME", help="earlier reports, in --results")
    args = parser.parse_args(argv)
    for name, column in args.leave_out:
        if name not in args.tasks or column not in args.columns:
            parser.error(f"--leave-out {name} {column!r}: no such task or column here")
    import torch

    torch.set_num_threads(args.threads)
    checkpoint = resolve_checkpoint(args.model)
    cache = Cache(args.cache)
    raw, judged, loaded = [], [], {}
    for name in args.tasks:
        for variant in args.variants:
            data = loaded[name, variant] = Data(name, variant, args.split_names, args.splits, args.data)
            found = {
                column: {split: evaluate(data, split, column, checkpoint, cache, args) for split in args.split_names}
                for column in args.columns
                if [name, column] not in args.leave_out
            }
            verdicts = compare(data, found, args.resamples) if "pre-trained" in found else {}
            judged.append({"task": name, "variant": variant, "against": verdicts})
            for column, splits in found.items():
                for split, records in splits.items():
                    for record in records:
                        kept = {key: value for key, value in record.items() if key != "predictions"}
                        raw.append({"task": name, "variant": variant, "column": column, "split": split, **kept})
    for earlier in args.join:
        report = json.loads((args.results / f"{earlier}.json").read_text(encoding="utf-8"))
        join(report, args, checkpoint, raw, judged)
        for name in ("tasks", "columns", "seeds", "leave_out"):  # of the whole table
            more = [value for value in report["settings"]["arguments"][name] if value not in getattr(args, name)]
            more = [value for value in more if name != "columns" or value in SETTINGS]
            setattr(args, name, [*getattr(args, name), *more])
    args.seeds = sorted(args.seeds)
    seeds: dict[str, dict[str, set[int]]] = {}
    for entry in raw:
        key = entry["task"], entry["variant"]
        if key not in loaded:
            loaded[key] = Data(*key, args.split_names, args.splits, args.data)
        seeds.setdefault(entry["task"], {}).setdefault(entry["column"], set()).add(entry["seed"])
    fewer = [
        f"- {task}, {', '.join(columns)}: seeds {sorted(run)}."
        for task, of_columns in seeds.items()
        for run in sorted({tuple(sorted(each)) for each in of_columns.values()} - {tuple(args.seeds)})
        if (columns := [column for column, each in of_columns.items() if tuple(sorted(each)) == run])
    ]
    text = [
        "# MoleculeNet, scaffold splits\n",
        *tables(raw, judged, args.columns, {key: len(data.smiles) for key, data in loaded.items()}),
        f"\n- Mean ± standard deviation over the splits {', '.join(args.split_names)} (scaffolds without chirality) "
        f"and seeds {args.seeds}; ROC-AUC and PR-AUC: higher is better, RMSE and MAE: lower.",
        "- against: wins / ties / losses of the pre-trained column, one paired bootstrap for each split and seed.",
        f"- Settings per column: {args.trials}, chosen on validation; {args.epochs} epochs and at least {args.updates} "
        "updates for both neural columns.",
        *(f"- {task}: not counted, {reason}." for task, reason in NOT_COUNTED.items() if task in args.tasks),
        *fewer,
        *(f"- {column} on {task}: left out (--leave-out)." for task, column in args.leave_out),
        *(f"- {data.note}." for data in loaded.values()),
    ]
    write_report(args.name, "\n".join(text), {"results": raw, "verdicts": judged}, args, checkpoint)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
