"""`hf-molrep pretrain METHOD ...`: pre-train any method, see `hf_molrep.training.pretraining`."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `pretrain`; for those after METHOD see `hf-molrep pretrain METHOD --help`."""
    from ..models.auto import METHODS

    methods = sorted(METHODS)
    parser.add_argument("method", metavar="METHOD", choices=methods, help=f"one of {', '.join(methods)}")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="options, see hf-molrep pretrain METHOD --help")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..chem.smiles import MoleculeError
    from ..training.pretraining import main

    try:
        main(args.method, args.arguments)
    except MoleculeError:
        raise
    except (ValueError, OSError) as error:
        # messages of transformers and huggingface_hub have several lines; commands print one
        raise ValueError(" ".join(str(error).split())) from error
    return 0
