"""`hf-molrep finetune`: anyone's molecules and labels to a model that predicts them, with a report."""

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..chem.smiles import MoleculeError
from .split import KINDS, readable, report_failures, sizes

if TYPE_CHECKING:
    from datasets import Dataset

    from ..data.splits import Split
    from ..training.finetuning import FinetuneResult

PROBLEM_TYPES = {"regression": "regression", "classification": "multi_label_classification"}
PART_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `finetune`."""
    from ..data.files import COORDINATE_COLUMNS

    parser.epilog = (
        "DIR then holds the model and its processor, ready for `hf-molrep predict --model DIR` and from_pretrained, "
        "and DIR/report: metrics.json, learning_curve.png, roc.png or parity.png, split.json, predictions.csv (of the "
        "test part), skipped.csv. Molecules that cannot be read are skipped and reported; a label that is no number, "
        "or no class, is an error. 3D methods take the coordinates in columns "
        f"{' and '.join(COORDINATE_COLUMNS)} of Parquet data, instead of computing conformers."
    )
    parser.add_argument("data", metavar="DATA", help=".csv, .tsv (also .gz) or .parquet, a folder, or a Hub dataset")
    parser.add_argument("--labels", nargs="+", required=True, metavar="COLUMN", help="to be predicted; empty = missing")
    parser.add_argument("--output", required=True, metavar="DIR", help="where model and report go")
    parser.add_argument(
        "--model", default="mm-deacon-mini", help="folder, Hub repository or shipped name (%(default)s)"
    )
    parser.add_argument("--smiles-column", default="smiles", help="(%(default)s)")
    parser.add_argument("--task", choices=("auto", *PROBLEM_TYPES), default="auto", help="auto: by the labels")
    parser.add_argument("--units", nargs="+", metavar="UNIT", help="of a regression, one per label column")
    split = parser.add_argument_group("split")
    split.add_argument(
        "--split",
        default="scaffold",
        metavar="SPLIT",
        help=f"{', '.join(KINDS)}, column:NAME (with train, valid, test) or a file of `hf-molrep split` (%(default)s)",
    )
    split.add_argument("--split-seed", type=int, default=0, help="of balanced_scaffold and random (%(default)s)")
    split.add_argument("--chirality", action="store_true", help="stereoisomers of a scaffold are different scaffolds")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=int, default=30, help="(%(default)s)")
    training.add_argument("--learning-rate", type=float, default=1e-4, help="(%(default)s)")
    training.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    training.add_argument("--weight-decay", type=float, default=0.01, help="(%(default)s)")
    training.add_argument("--warmup", type=float, default=0.1, help="share of the updates (%(default)s)")
    training.add_argument("--patience", type=int, help="stop after so many epochs without improvement (default: never)")
    training.add_argument(
        "--metric", help="chooses the epoch: roc_auc, pr_auc, rmse, mae, r2 or loss (default: roc_auc, rmse)"
    )
    training.add_argument("--seed", type=int, default=0, help="of head, order and dropout (%(default)s)")
    training.add_argument("--from-scratch", action="store_true", help="random weights of the same architecture")
    training.add_argument("--truncation", action="store_true", help="shorten SMILES longer than the model takes")
    training.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="autocast (default: where the hardware has it)"
    )
    training.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="changes, as smiles_config.hidden_dropout=0.1"
    )
    training.add_argument(
        "--processor", nargs="+", default=[], metavar="KEY=VALUE", help="of the features, as descriptors=true (GROVER)"
    )
    training.add_argument(
        "--collator", nargs="+", default=[], metavar="KEY=VALUE", help="of training batches, as smiles_augmentation=0.5"
    )
    parser.add_argument("--keep-checkpoints", action="store_true", help="keep DIR/training when done")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    again.add_argument("--overwrite", action="store_true", help="forget the run that is in DIR")


class _Data(NamedTuple):
    """
    What is to be learned. `rows` are those of `dataset` that hold a molecule; `smiles` and `canonical` (one per usable
    row) and `labels` `[usable rows, tasks]` belong to them, `failures` to the others, by row.
    """

    dataset: "Dataset"
    problem_type: str
    rows: list[int]
    smiles: list[str]
    canonical: list[str]
    labels: np.ndarray
    failures: dict[int, MoleculeError]

    def geometry(self) -> dict[str, list]:
        """`z` and `pos` of the usable rows, where the data have them."""
        from ..data.datasets import coordinate_columns

        usable = self.dataset.select(self.rows)
        return {name: usable[column][:] for column, name in coordinate_columns(self.dataset).items()}


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    output = Path(args.output)
    if not _may_start(args, output):
        print(f"{output} holds a finished run: nothing to resume.")
        return 0
    config_overrides, collator_options = _nested(args.config), _nested(args.collator)
    processor_options = _nested(args.processor)
    data = _read(args)
    report_failures(data.failures)
    split = _split(args, data)
    print(
        f"{data.problem_type}, {len(data.rows):,} molecules, {len(data.failures):,} skipped; {sizes(split.parts)}",
        file=sys.stderr,
    )
    from transformers import AutoProcessor

    from ..hub import save_checkpoint
    from ..inference.checkpoints import resolve_checkpoint
    from ..training.finetuning import finetune
    from ..training.property_models import quiet

    checkpoint = resolve_checkpoint(args.model)
    geometry = (
        data.geometry() if frozenset({"smiles", "z", "pos"}) in AutoProcessor.from_pretrained(checkpoint).inputs else {}
    )

    same = ("from_scratch", "epochs", "learning_rate", "batch_size", "weight_decay", "warmup", "seed", "metric")
    started = time.monotonic()
    result = finetune(
        checkpoint,
        data.smiles,
        data.labels,
        args.labels,
        data.problem_type,
        split.parts,
        **{name: getattr(args, name) for name in (*same, "patience", "truncation", "bf16", "resume")},
        **geometry,
        label_units=args.units,
        config_overrides=config_overrides,
        processor_options=processor_options,
        collator_options=collator_options,
        output_dir=output / "training",
        progress=not args.quiet,
    )
    seconds = time.monotonic() - started
    if result.failures:
        more = {data.rows[index]: error for index, error in result.failures.items()}
        print(f"skipped too, because this model cannot read them: {len(more)}", file=sys.stderr)
        report_failures(more)
        data.failures.update(more)
    with quiet():
        save_checkpoint(result.model, result.processor, output, weights_dtype=None)
    content = _write_report(args, output / "report", data, split, result, seconds)
    if not args.keep_checkpoints:
        shutil.rmtree(output / "training")
    return _tell(content, output)


def _read(args: argparse.Namespace) -> _Data:
    """
    Raises:
        ValueError: no such column, labels that are no numbers or no classes (says where), units that do not fit.
    """
    from ..data.datasets import infer_problem_type, label_matrix, load_molecules

    given = PROBLEM_TYPES.get(args.task)
    dataset = load_molecules(args.data, smiles_column=args.smiles_column, label_columns=args.labels, problem_type=given)
    problem_type = given or infer_problem_type(label_matrix(dataset, args.labels))
    if args.units and (problem_type != "regression" or len(args.units) != len(args.labels)):
        raise ValueError(f"{len(args.units)} units for {len(args.labels)} label columns ({problem_type})")
    smiles = dataset["smiles"][:]
    rows, failures, canonical = readable(smiles)
    labels = label_matrix(dataset, args.labels)[rows]
    return _Data(dataset, problem_type, rows, [smiles[row] for row in rows], canonical, labels, failures)


def _may_start(args: argparse.Namespace, output: Path) -> bool:
    """Whether there is anything to do; ValueError where it would have to be said what."""
    finished, training = (output / "report" / "metrics.json").is_file(), output / "training"
    if args.overwrite:
        shutil.rmtree(training, ignore_errors=True)
        shutil.rmtree(output / "report", ignore_errors=True)
    elif args.resume:
        return not finished
    elif finished:
        raise ValueError(f"{output} holds a finished run: choose another --output, or --overwrite")
    elif training.is_dir():
        raise ValueError(f"a run in {output} was stopped: --resume continues it, --overwrite forgets it")
    return True


def _nested(settings: list[str]) -> dict[str, Any]:
    """`["a.b=1", "c=x"]` to `{"a": {"b": 1}, "c": "x"}`; values are JSON where they can be read as such."""
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ValueError(f"{setting!r} is not KEY=VALUE")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        *path, last = key.split(".")
        place = result
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return result


def _split(args: argparse.Namespace, data: _Data) -> "Split":
    """
    Raises:
        ValueError: no such kind, column or file; a column or a file that does not fit the molecules.
    """
    from ..data.splits import Split, make_split, read_split

    if args.split in KINDS:
        return make_split(args.split, data.smiles, seed=args.split_seed, include_chirality=args.chirality)
    if not args.split.startswith("column:"):
        if not Path(args.split).is_file():
            raise ValueError(f"--split is {', '.join(KINDS)}, column:NAME or a file that exists, not {args.split!r}")
        return read_split(args.split, data.smiles)
    column, columns = args.split.removeprefix("column:"), data.dataset.column_names
    if column not in columns:
        raise ValueError(f"{args.data} has no column {column!r} for the split; it has {', '.join(columns)}")
    values = data.dataset[column][:]
    parts: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    for index, row in enumerate(data.rows):
        part = PART_NAMES.get(str(values[row]).strip().lower())
        if part is None:
            names = ", ".join(PART_NAMES)
            raise ValueError(f"{args.data}, row {row + 1}: {column} is {values[row]!r}, not one of {names}")
        parts[part].append(index)
    return Split(
        name=args.split,
        seed=None,
        include_chirality=None,
        fractions=tuple(len(members) / len(data.rows) for members in parts.values()),
        parts={part: np.array(members, dtype=np.int64) for part, members in parts.items()},
    )


def _write_report(
    args: argparse.Namespace, report: Path, data: _Data, split: "Split", result: "FinetuneResult", seconds: float
) -> dict[str, Any]:
    """All files of the report; what stands in `metrics.json`, which is written last: it marks the run as finished."""
    import torch
    import transformers

    from .. import __version__
    from ..data.splits import write_split
    from ..training.reports import write_report

    report.mkdir(parents=True, exist_ok=True)
    write_split(report / "split.json", split, data.smiles)
    _write_predictions(report / "predictions.csv", data, split, result)
    _write_skipped(report / "skipped.csv", data)
    train = {data.canonical[index] for index in split.parts["train"]}
    leaked = sum(data.canonical[index] in train for index in split.parts["test"])
    if leaked:
        print(f"warning: {leaked} test molecules are in the training part too", file=sys.stderr)
    on_gpu = torch.cuda.is_available()
    more = {
        "data": str(args.data),
        "split": {
            "name": split.name,
            "seed": split.seed,
            "include_chirality": split.include_chirality,
            **{part: len(members) for part, members in split.parts.items()},
        },
        "rows": {
            "read": len(data.dataset),
            "skipped": len(data.failures),
            "skipped_reasons": dict(Counter(error.reason for error in data.failures.values()).most_common(20)),
            "truncated": len(result.truncated),
            **result.reports,
            "without_any_label": int(np.isnan(data.labels).all(axis=1).sum()),
            "repeating_a_molecule": len(data.canonical) - len(set(data.canonical)),
            "test_also_in_train": leaked,
        },
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "versions": {"hf_molrep": __version__, "transformers": transformers.__version__, "torch": torch.__version__},
    }
    return write_report(report, result, data.labels, split.parts, args.units, more)


def _write_predictions(path: Path, data: _Data, split: "Split", result: "FinetuneResult") -> None:
    """The test part: number of the row, its own columns, predictions."""
    import pyarrow as pa

    from ..data.table_writer import TableWriter

    rows = [data.rows[index] for index in split.parts["test"]]
    table = data.dataset.select(rows).with_format("arrow")[:]

    def free(name: str) -> str:
        return name if name not in table.column_names else free(f"{name}_")

    table = table.add_column(0, free("row"), pa.array([row + 1 for row in rows], pa.int64()))
    for name, values in zip(result.task_names, result.test_predictions.T, strict=True):
        column = pa.array(values, pa.float32(), mask=np.isnan(values))
        table = table.append_column(free(f"predicted_{name}"), column)
    with TableWriter(path, table.schema) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write(batch)


def _write_skipped(path: Path, data: _Data) -> None:
    import pyarrow as pa

    from ..data.table_writer import TableWriter

    rows = sorted(data.failures)
    schema = pa.schema([("row", pa.int64()), ("smiles", pa.string()), ("error", pa.string())])
    smiles = data.dataset.select(rows)["smiles"][:]
    columns = [[row + 1 for row in rows], smiles, [data.failures[row].reason for row in rows]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    with TableWriter(path, schema) as writer:
        writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _tell(content: dict[str, Any], output: Path) -> int:
    for part in ("valid", "test"):
        values = {key: value for key, value in content[part].items() if key not in ("per_task", "skipped_tasks")}
        if values:
            print(f"{part:6}" + "  ".join(f"{key} {value:.4g}" for key, value in values.items()))
    if "baseline" in content:
        print("       (the mean of the training labels: " + f"rmse {content['baseline']['test']['rmse']:.4g})")
    kept = f"epoch {content['best_epoch']} of {content['epochs']}, chosen by {content['selected_by']}"
    print(f"Model ({kept}): {output}; report: {output / 'report'}; use it: hf-molrep predict IN OUT --model {output}")
    return 0
