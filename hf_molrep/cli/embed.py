"""`hf-molrep embed`: embed the molecules of a file, in constant memory and resumable."""

import argparse
from typing import TYPE_CHECKING, Any

from .file_arguments import add_file_arguments, file_options, report, report_interruption

if TYPE_CHECKING:
    import pyarrow as pa

    from ..inference.files import FileTask
    from ..processing.contract import MoleculeProcessor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `embed`."""
    from ..data.files import COORDINATES_HELP
    from ..inference import DEFAULT_CHECKPOINT

    parser.epilog = (
        "OUT has all columns of IN, then smiles_used (the SMILES that the model saw), error (why a molecule failed, "
        f"else empty) and embedding (Parquet: list of float32; CSV: JSON). {COORDINATES_HELP} A killed run "
        "continues with --resume and gives the same rows. The status is 0 unless every molecule failed."
    )
    add_file_arguments(parser)
    parser.add_argument(
        "--model", default=DEFAULT_CHECKPOINT, help="folder, Hub repository or shipped name (%(default)s)"
    )
    parser.add_argument(
        "--kind", choices=("smiles", "iupac"), default="smiles", help="what the column holds (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..inference.files import FileRun

    with FileRun(args.input, args.output, file_options(args, args.kind)) as file_run:
        if file_run.is_complete:
            print(f"{args.output} is there and no unfinished run beside it: nothing to resume.")
            return 0
        from transformers import AutoModel

        from ..inference.checkpoints import load_checkpoint

        model, processor = load_checkpoint(AutoModel, args.model, args.device)
        try:
            summary = file_run.process(model, processor, embedding_task(model, processor, args.model, args.kind))
        except KeyboardInterrupt:
            return report_interruption(file_run.parts)
    return report(summary, args.output, "embedded")


def embedding_task(model: Any, processor: "MoleculeProcessor", name: str, kind: str) -> "FileTask":
    """Make the task that adds the column `embedding`; `search` reads its metadata."""
    import pyarrow as pa

    from ..inference.embedding import embedding_step
    from ..inference.files import FileTask, stack_results

    type_ = pa.list_(pa.float32(), model.config.hidden_size)

    def arrays(results: list[Any]) -> "list[pa.Array]":
        values, failed = stack_results(results, type_.list_size)
        return [pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=type_, mask=pa.array(failed))]

    return FileTask(
        step=embedding_step,
        fields=[pa.field("embedding", type_)],
        arrays=arrays,
        metadata={"model": name, "kind": kind, "standardize": getattr(processor, "standardize", None)},
        settings={"model": name},
    )
