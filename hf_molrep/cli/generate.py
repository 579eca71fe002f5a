"""`hf-molrep generate`: write new molecules, or relatives of those in a file; seeded and resumable."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..inference import DEFAULT_FOR_WRITING
from .file_arguments import add_file_arguments, file_options, report, report_interruption

if TYPE_CHECKING:
    import pyarrow as pa

    from ..inference.files import FileTask
    from ..inference.generation import GenerationOptions

DRAWN = 12  # molecules of the picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `generate`."""
    parser.usage = "hf-molrep generate [IN] OUT [--model MODEL] [options]"
    parser.epilog = (
        "Without IN, OUT has a row for each new molecule: smiles, score (log-likelihood of the text that was written), "
        "valid. With IN it has all columns of IN, then smiles_used, error, generated (the relatives of the molecule, a "
        "list), generated_score, and how many were invalid, duplicates, and the same as the molecule; these are left "
        "out. The first molecules are drawn to OUT.png. A killed run continues with --resume and gives the same rows."
    )
    add_file_arguments(parser, optional_input=True)
    parser.add_argument(
        "--model",
        default=DEFAULT_FOR_WRITING,
        help="folder, Hub repository or shipped name of a model that writes (%(default)s)",
    )
    parser.add_argument("--number", "-n", type=int, default=10, help="molecules, for each one of IN (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="(%(default)s)")
    parser.add_argument("--top-k", type=int, default=0, help="only the k likeliest tokens (default: all)")
    parser.add_argument("--top-p", type=float, default=1.0, help="only tokens with this share of the chance")
    parser.add_argument("--beams", type=int, default=1, help="beam search instead of sampling, if above 1")
    parser.add_argument("--max-tokens", type=int, default=128, help="longest SMILES (%(default)s)")
    parser.add_argument("--condition", type=float, help="wished property, for a model fine-tuned with such a column")
    parser.add_argument("--unconstrained", action="store_true", help="allow tokens that cannot give a molecule")
    parser.add_argument(
        "--keep-all", action="store_true", help="also write invalid ones, duplicates, the molecule itself"
    )
    parser.add_argument("--no-picture", action="store_true", help="do not draw OUT.png")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..inference.generation import GenerationOptions

    options = GenerationOptions(
        num_return_sequences=args.number,
        seed=args.seed,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        num_beams=args.beams,
        max_new_tokens=args.max_tokens,
        condition=args.condition,
        constrained=not args.unconstrained,
        keep_all=args.keep_all,
    )
    return _new(args, options) if args.input is None else _relatives(args, options)


def load_writer(name: str, device: str | None) -> tuple[Any, Any]:
    """
    Load a model that writes molecules, and its processor.

    Raises:
        ValueError: the checkpoint is none of a model that writes.
    """
    from transformers import AutoModelForCausalLM

    from ..inference.checkpoints import load_checkpoint

    return load_checkpoint(AutoModelForCausalLM, name, device)


def draw(args: argparse.Namespace, molecules: list[tuple[str, str]]) -> None:
    """Draw molecules with their legends beside the table."""
    if args.no_picture or args.output == "-" or not molecules:
        return
    from ..chem.drawing import draw_grid

    smiles, legends = zip(*molecules[:DRAWN], strict=True)
    draw_grid(smiles, legends, f"{args.output}.png")


def _new(args: argparse.Namespace, options: "GenerationOptions") -> int:
    from ..inference.generation import NewMolecules

    new = NewMolecules(*load_writer(args.model, args.device), options)
    try:
        found = new.write(args.output, args.resume, args.overwrite, progress=not args.quiet)
    except KeyboardInterrupt:
        return report_interruption(Path(f"{args.output}.parts"))
    if not new.counts.written:
        print(f"{args.output} is there and no unfinished run beside it: nothing to resume.")
        return 0
    draw(args, [(each.smiles, f"{each.score:.1f}") for each in found if each.valid])
    print(f"{new.counts}: {args.output}", file=sys.stderr if args.output == "-" else sys.stdout)
    if not found:
        print("No new molecule was written: try more, or another temperature.", file=sys.stderr)
    return 0 if found else 1


def _relatives(args: argparse.Namespace, options: "GenerationOptions") -> int:
    from ..inference.files import FileRun
    from ..inference.generation import GenerationCounts

    with FileRun(args.input, args.output, file_options(args)) as file_run:
        if file_run.is_complete:
            print(f"{args.output} is there and no unfinished run beside it: nothing to resume.")
            return 0
        model, processor = load_writer(args.model, args.device)
        counts, drawn = GenerationCounts(), []
        try:
            summary = file_run.process(model, processor, generation_task(processor, options, args.model, counts, drawn))
        except KeyboardInterrupt:
            return report_interruption(file_run.parts)
    draw(args, drawn)
    return report(summary, args.output, f"read ({counts})")


def generation_task(
    processor: Any, options: "GenerationOptions", name: str, counts: Any, drawn: list[tuple[str, str]]
) -> "FileTask":
    """Make the task that adds the relatives of each molecule; `counts` and `drawn` are filled with what it writes."""
    import pyarrow as pa

    from ..inference.files import FileTask
    from ..inference.generation import GenerationCounts, generation_step

    fields = {"generated": pa.list_(pa.string()), "generated_score": pa.list_(pa.float32())}
    keys = {"invalid": "invalid", "duplicates": "duplicate", "same": "source"}

    def arrays(results: list[Any]) -> "list[pa.Array]":
        for found in filter(None, results):
            counts.add(GenerationCounts(**{key: found[key] for key in vars(counts)}))
            drawn.extend((smiles, "") for smiles in found["molecules"][: max(0, DRAWN - len(drawn))])
        columns = [("molecules", fields["generated"]), ("scores", fields["generated_score"])]
        columns += [(key, pa.int32()) for key in keys.values()]
        return [pa.array([found and found[key] for found in results], kind) for key, kind in columns]

    return FileTask(
        step=generation_step(processor, options),
        fields=[pa.field(key, kind) for key, kind in (*fields.items(), *((key, pa.int32()) for key in keys))],
        arrays=arrays,
        metadata={"model": name},
        settings={"model": name, **{key: value for key, value in vars(options).items() if key != "batch_rows"}},
    )
