"""`hf-molrep optimize`: improve the molecules of a file; seeded and resumable."""

import argparse
from typing import TYPE_CHECKING, Any

from .file_arguments import add_file_arguments, file_options, report, report_interruption
from .generate import DRAWN, draw, load_writer

if TYPE_CHECKING:
    from ..inference.files import FileTask
    from ..inference.generation import GenerationOptions
    from ..inference.optimization import Goal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `optimize`."""
    from ..chem.properties import PROPERTIES

    listed = "; ".join(f"{name}: {what}" for name, what in PROPERTIES.items())
    parser.epilog = (
        "OUT has all columns of IN, then smiles_used, error, the property of the molecule, and as lists, the best "
        "first, improved (similar molecules with a better property), improved_<property> and similarity. The best "
        "improvement of the first molecules is drawn to OUT.png. MODEL is a model that writes SMILES, fine-tuned on "
        "pairs of similar molecules (examples/recipes/prepare_similar_pairs.py makes them). A killed run continues "
        "with --resume."
    )
    add_file_arguments(parser)
    parser.add_argument("--model", required=True, help="folder or Hub repository of a model that writes")
    parser.add_argument("--property", choices=tuple(PROPERTIES), default="qed", help=f"{listed} (%(default)s)")
    parser.add_argument("--minimize", action="store_true", help="smaller is better")
    parser.add_argument("--min-similarity", type=float, default=0.4, help="Tanimoto, Morgan (%(default)s)")
    parser.add_argument("--number", "-n", type=int, default=20, help="relatives written for each (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="(%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=128, help="longest SMILES (%(default)s)")
    parser.add_argument("--no-picture", action="store_true", help="do not draw OUT.png")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..inference.files import FileRun
    from ..inference.generation import GenerationOptions
    from ..inference.optimization import Goal

    goal = Goal(args.property, args.minimize, args.min_similarity)
    options = GenerationOptions(
        num_return_sequences=args.number,
        seed=args.seed,
        temperature=args.temperature,
        max_new_tokens=args.max_tokens,
    )
    with FileRun(args.input, args.output, file_options(args)) as file_run:
        if file_run.is_complete:
            print(f"{args.output} is there and no unfinished run beside it: nothing to resume.")
            return 0
        model, processor = load_writer(args.model, args.device)
        drawn: list[tuple[str, str]] = []
        improved = [0]
        try:
            task = optimization_task(processor, goal, options, args.model, drawn, improved)
            summary = file_run.process(model, processor, task)
        except KeyboardInterrupt:
            return report_interruption(file_run.parts)
    draw(args, drawn)
    return report(summary, args.output, f"read, {improved[0]} of them improved")


def optimization_task(
    processor: Any,
    goal: "Goal",
    options: "GenerationOptions",
    name: str,
    drawn: list[tuple[str, str]],
    improved: list[int],
) -> "FileTask":
    """Make the task that adds the improvements of each molecule; `drawn` and `improved` are filled."""
    import pyarrow as pa

    from ..inference.files import FileTask
    from ..inference.optimization import optimization_step

    lists = {"improved": pa.list_(pa.string()), f"improved_{goal.property}": pa.list_(pa.float32())}
    columns = {goal.property: pa.float32(), **lists, "similarity": pa.list_(pa.float32())}
    keys = ("value", "improved", "values", "similarities")

    def arrays(results: list[Any]) -> "list[pa.Array]":
        for found in results:
            if found and found["improved"]:
                improved[0] += 1
                if len(drawn) < DRAWN:
                    legend = f"{goal.property} {found['value']:.2f} -> {found['values'][0]:.2f}"
                    drawn.append((found["improved"][0], legend))
        return [
            pa.array([found and found[key] for found in results], kind)
            for key, kind in zip(keys, columns.values(), strict=True)
        ]

    return FileTask(
        step=optimization_step(processor, goal, options),
        fields=[pa.field(column, kind) for column, kind in columns.items()],
        arrays=arrays,
        metadata={"model": name},
        settings={"model": name, "goal": vars(goal), "generation": vars(options)},
    )
