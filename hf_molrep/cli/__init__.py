"""The command `hf-molrep`. Each subcommand is a module of this folder, which is imported only if it is used."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "embed": "embed the molecules of a file",
    "search": "find the molecules of a file that are nearest to a query",
    "predict": "predict properties of the molecules of a file with a fine-tuned checkpoint",
    "generate": "write new molecules, or relatives of those in a file",
    "optimize": "improve a property of the molecules of a file",
    "split": "split a data set into training, validation and test parts",
    "pretrain": "pre-train a model",
    "finetune": "fine-tune a checkpoint on a file of molecules and labels",
    "convert": "turn released weights of a method into a checkpoint",
    "push": "upload a checkpoint to the Hugging Face Hub",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    Returns:
        Exit status. 0: done (failures of single molecules are reported in the output); 1: every molecule failed, or one
        failed under `--on-error raise`; 2: the arguments or a file are wrong; 130: interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="hf-molrep", description="Molecule representation learning.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    module = None
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == named:
            module = import_module(f"{__name__}.{name}")
            module.add_arguments(command)
    args = parser.parse_args(arguments)

    from ..chem.smiles import MoleculeError

    try:
        return module.run(args)
    except BrokenPipeError:  # the reader of the output, for example `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"hf-molrep {args.command}: {error}", file=sys.stderr)
        return 1 if isinstance(error, MoleculeError) else 2
    except KeyboardInterrupt:
        print(f"hf-molrep {args.command}: interrupted", file=sys.stderr)
        return 130
