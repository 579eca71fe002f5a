"""`hf-molrep predict`: predict properties of the molecules of a file, in constant memory and resumable."""

import argparse
from typing import TYPE_CHECKING, Any

from .file_arguments import add_file_arguments, file_options, report, report_interruption

if TYPE_CHECKING:
    import pyarrow as pa

    from ..inference.files import FileTask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    from ..data.files import COORDINATES_HELP

    parser.epilog = (
        "OUT has all columns of IN, then smiles_used (the SMILES that the model saw), error (why a molecule failed, "
        "else empty) and one column per task (values in the units of the labels, or probabilities; empty where a "
        f"molecule failed). {COORDINATES_HELP} A killed run continues with --resume and gives the same rows. "
        "The status is 0 unless every molecule failed."
    )
    add_file_arguments(parser)
    parser.add_argument(
        "--smiles-column",
        nargs="+",
        metavar="COLUMN",
        help="columns of the molecules of a row, for a model of several (default: those that it was fine-tuned on)",
    )
    parser.add_argument("--model", required=True, help="folder or Hub repository of a fine-tuned checkpoint")
    parser.add_argument("--prefix", default="predicted_", help="prefix of the new columns (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..inference.files import FileRun

    args.column = columns_of(args)
    with FileRun(args.input, args.output, file_options(args)) as file_run:
        if file_run.is_complete:
            print(f"{args.output} is there and no unfinished run beside it: nothing to resume.")
            return 0
        from ..inference.checkpoints import load_finetuned
        from ..inference.prediction import task_units

        model, processor = load_finetuned(args.model, args.device)
        units = task_units(model.config)
        try:
            summary = file_run.process(model, processor, prediction_task(units, args.model, args.prefix))
        except KeyboardInterrupt:
            return report_interruption(file_run.parts)
    what = ", ".join(f"{task} ({unit})" if unit else task for task, unit in units.items())
    return report(summary, args.output, f"predicted: {what}")


def columns_of(args: argparse.Namespace) -> str | list[str] | None:
    """
    Return the columns with the molecules: those that were named, else those of a checkpoint that reads several.

    Raises:
        ValueError: both options are given, or the number of columns is not that of the checkpoint.
    """
    if args.smiles_column and args.column:
        raise ValueError("--column and --smiles-column: choose one")
    from transformers import AutoConfig

    from ..inference.checkpoints import resolve_checkpoint

    given = args.smiles_column or ([args.column] if args.column else [])
    trained = getattr(AutoConfig.from_pretrained(resolve_checkpoint(args.model)), "molecule_columns", None) or []
    if given and len(given) != max(len(trained), 1):
        wanted = f"{len(trained)} molecules ({', '.join(trained)})" if trained else "one molecule"
        raise ValueError(f"{args.model} predicts from {wanted} per row: name as many columns, not {len(given)}")
    columns = given or trained
    return columns if len(columns) > 1 else columns[0] if columns else None


def prediction_task(units: dict[str, str | None], name: str, prefix: str) -> "FileTask":
    """Make the task that adds one column per property, with its unit in the metadata of the field."""
    import pyarrow as pa

    from ..inference.files import FileTask, stack_results
    from ..inference.prediction import prediction_step

    def arrays(results: list[Any]) -> "list[pa.Array]":
        values, failed = stack_results(results, len(units))
        return [pa.array(column, pa.float32(), mask=failed) for column in values.T]

    return FileTask(
        step=prediction_step,
        fields=[
            pa.field(prefix + task, pa.float32(), metadata={"unit": unit} if unit else None)
            for task, unit in units.items()
        ],
        arrays=arrays,
        metadata={"model": name},
        settings={"model": name},
    )
