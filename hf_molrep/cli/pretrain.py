"""`hf-molrep pretrain METHOD ...`: hands over to the method's pre-training in `hf_molrep.training.pretraining`."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `pretrain`; those after METHOD are the method's own (`hf-molrep pretrain METHOD --help`)."""
    from ..models.auto import METHODS

    parser.add_argument("method", choices=tuple(METHODS), help="which method")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the method: hf-molrep pretrain METHOD --help")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..training.pretraining import main

    main(args.method, args.arguments)
    return 0
