"""`hf-molrep finetune`: fine-tune a checkpoint on a file of molecules and labels, and write a report."""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from ..inference import DEFAULT_CHECKPOINT, DEFAULT_FOR_CONFORMERS, DEFAULT_FOR_PROPERTIES
from ..training.finetuning_files import (
    CONFORMERS,
    KINDS,
    PROBLEM_TYPES,
    labelled_molecules,
    read_table,
    reference_conformers,
    split_table,
    write_run,
)
from ..training.settings import ConformerSettings, FinetuningSettings
from .split import add_molecule_arguments, report_failures, sizes

KEY_VALUE = "KEY=VALUE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `finetune`."""
    parser.epilog = (
        "DIR then holds the model and its processor, ready for from_pretrained and (properties) `hf-molrep predict "
        "--model DIR`, and DIR/report: metrics.json, learning_curve.png, roc.png or parity.png, split.json, "
        "predictions.csv (of the test part), skipped.csv. Molecules that cannot be read are skipped and reported; a "
        "label that is neither a number nor a class is an error. Two SMILES columns: interaction of two molecules, "
        "for methods that have this task (MM-Deacon, X-MOL). More of them, or two with --task regression: a property "
        "of all together, as the yield of a reaction, in the order of the columns, for methods that read several "
        "molecules at once (X-MOL), for instance: hf-molrep finetune reactions.csv --smiles-column aryl_halide "
        "additive base ligand --labels yield --split random --model x-mol-mini --collator smiles_augmentation=0.5 "
        "--output DIR. 3D methods use the columns atomic_numbers and coordinates of "
        "Parquet data, if present, instead of computing conformers. With --task conformer-generation (Uni-Mol) these "
        "are the targets: one conformer per row, and the column name identifies the molecule."
    )
    add_molecule_arguments(parser)
    parser.add_argument("--labels", nargs="+", default=[], metavar="COLUMN", help="to predict; empty = missing")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for model and report")
    parser.add_argument(
        "--model",
        help=f"folder, Hub repository or shipped name ({DEFAULT_FOR_PROPERTIES}; pairs: {DEFAULT_CHECKPOINT}; "
        f"{CONFORMERS}: {DEFAULT_FOR_CONFORMERS})",
    )
    parser.add_argument(
        "--task",
        choices=("auto", *PROBLEM_TYPES, CONFORMERS),
        default="auto",
        help="auto: chosen by the labels; multiclass: one of several classes (pairs)",
    )
    parser.add_argument("--units", nargs="+", metavar="UNIT", help="units of a regression, one per label column")
    split = parser.add_argument_group("split")
    split.add_argument(
        "--split",
        default="scaffold",
        metavar="SPLIT",
        help=f"{', '.join(KINDS)}, column:NAME (with train, valid, test) or a file of `hf-molrep split` (%(default)s)",
    )
    split.add_argument("--split-seed", type=int, default=0, help="seed of balanced_scaffold and random (%(default)s)")
    split.add_argument("--chirality", action="store_true", help="stereoisomers of a scaffold are different scaffolds")
    add_settings(parser.add_argument_group("training"))
    conformers = parser.add_argument_group("computing conformers (conformer-generation)")
    conformers.add_argument("--cache", default="default", metavar="FILE", help="SQLite file of computed conformers")
    conformers.add_argument("--processes", type=int, default=1, help="processes that compute conformers (%(default)s)")
    parser.add_argument("--keep-checkpoints", action="store_true", help="keep DIR/training when done")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue a stopped run")
    existing.add_argument("--overwrite", action="store_true", help="delete the run in DIR")


def add_settings(group: Any) -> None:
    """Add an option for each field of [`ConformerSettings`]; options that are not given are absent from the result."""
    general = {field.name: field for field in dataclasses.fields(FinetuningSettings)}
    for field in dataclasses.fields(ConformerSettings):
        kind, optional = field.type, False
        if isinstance(kind, UnionType):  # "... | None"
            kind, optional = get_args(kind)[0], True
        option = f"--{field.metadata.get('option', field.name).replace('_', '-')}"
        options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": _help_of(field, general)}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction if optional else "store_true"
        elif get_origin(kind) is dict:
            options |= {"nargs": "+", "metavar": KEY_VALUE}
        else:
            options |= {"type": kind, "metavar": {int: "N", float: "X", str: "NAME"}[kind]}
        group.add_argument(option, **options)


def _help_of(field: dataclasses.Field, general: dict[str, dataclasses.Field]) -> str:
    text = field.metadata["help"]
    if field.name not in general:
        return f"{text} ({CONFORMERS}; {field.default})"
    default = general[field.name].default
    if default is None or default is False or default is dataclasses.MISSING:
        return text
    return f"{text} ({default}{'' if field.default == default else f'; {CONFORMERS}: {field.default}'})"


def settings_of(args: argparse.Namespace) -> FinetuningSettings:
    """
    Make the settings from the arguments, with the defaults of the task.

    Raises:
        ValueError: an option belongs to another task, or is not KEY=VALUE.
    """
    settings_class = ConformerSettings if args.task == CONFORMERS else FinetuningSettings
    given = {
        field.name: getattr(args, field.name) for field in dataclasses.fields(ConformerSettings) if field.name in args
    }
    foreign = given.keys() - {field.name for field in dataclasses.fields(settings_class)}
    if foreign:
        raise ValueError(f"--{min(foreign)} is an option of --task {CONFORMERS}")
    return settings_class(
        **{name: _nested(value) if isinstance(value, list) else value for name, value in given.items()}
    )


def checkpoint_of(args: argparse.Namespace) -> str:
    """Return the checkpoint that was named, else the default of the task."""
    if args.model is not None:
        return args.model
    if args.task == CONFORMERS:
        return DEFAULT_FOR_CONFORMERS
    return DEFAULT_CHECKPOINT if len(args.smiles_column or []) == 2 else DEFAULT_FOR_PROPERTIES


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    output = Path(args.output)
    if not _may_start(args, output):
        print(f"{output} holds a finished run: nothing to resume.")
        return 0
    settings = settings_of(args)
    if not args.labels and args.task != CONFORMERS:
        raise ValueError("--labels names the columns to be predicted")

    table = read_table(args.data, args.smiles_column, args.labels, args.task)
    report_failures(table.failures)
    split = split_table(table, args.split, args.split_seed, args.chirality)
    what = {"molecule": "molecules", "pair": "pairs", "parts": f"rows of {len(table.molecules)} molecules"}[table.kind]
    print(
        f"{table.problem_type or args.task}, {len(table.rows):,} {what}, {len(table.failures):,} skipped; "
        f"{sizes(split.parts)}",
        file=sys.stderr,
    )
    from transformers import AutoProcessor

    from .. import __version__
    from ..inference.checkpoints import resolve_checkpoint
    from ..training.finetuning import finetune
    from ..training.rows import takes_coordinates

    checkpoint = resolve_checkpoint(checkpoint_of(args))
    if args.task == CONFORMERS:
        data = reference_conformers(table, split, cache=args.cache, processes=args.processes)
    else:
        coordinates = takes_coordinates(AutoProcessor.from_pretrained(checkpoint))
        data = labelled_molecules(table, split, args.units, coordinates)
    started = time.monotonic()
    result = finetune(
        checkpoint,
        data,
        settings,
        output_dir=output / "training",
        resume=args.resume,
        progress=not args.quiet,
    )
    seconds = time.monotonic() - started
    if result.failures:
        more = {table.rows[index]: error for index, error in result.failures.items()}
        print(f"also skipped, because this model cannot use them: {len(more)}", file=sys.stderr)
        report_failures(more)
        table.failures.update(more)
    content = write_run(output, table, split, result, args.units, seconds=seconds, version=__version__)
    if not args.keep_checkpoints:
        shutil.rmtree(output / "training")
    _print_summary(content, output)
    return 0


def _may_start(args: argparse.Namespace, output: Path) -> bool:
    """Return whether there is anything to do. Raises ValueError for an existing run without an option for it."""
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
    """Parse `["a.b=1", "c=x"]` to `{"a": {"b": 1}, "c": "x"}`; values are JSON if they can be parsed as such."""
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ValueError(f"{setting!r} is not {KEY_VALUE}")
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


def _print_summary(content: dict[str, Any], output: Path) -> None:
    leaked = content["rows"]["test_also_in_train"]
    if leaked:
        print(f"warning: {leaked} test molecules are in the training part too", file=sys.stderr)
    for part in ("valid", "test"):
        values = {key: value for key, value in content[part].items() if key not in ("per_task", "skipped_tasks")}
        if values:
            print(f"{part:6}" + "  ".join(f"{key} {value:.4g}" for key, value in values.items()))
    if "baseline" in content:
        print("       (the mean of the training labels: " + f"rmse {content['baseline']['test']['rmse']:.4g})")
    kept = f"epoch {content['best_epoch']} of {content['epochs']}, chosen by {content['selected_by']}"
    use = f"; use it: hf-molrep predict IN OUT --model {output}" if content["task"] == "property-prediction" else ""
    print(f"Model ({kept}): {output}; report: {output / 'report'}{use}")
