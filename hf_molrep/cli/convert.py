"""`hf-molrep convert`: released weights of a method to a checkpoint of this package."""

import argparse
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path

from ..models.auto import METHODS


def conversion(method: str):
    """The function `convert(source, out, *, ...)` of a method, or None where nothing was ever released."""
    name = f"{METHODS[method].config.__module__.rpartition('.')[0]}.conversion_{method}"
    return import_module(name).convert if find_spec(name) else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    convertible = {method: found for method in METHODS if (found := conversion(method))}
    methods = parser.add_subparsers(dest="method", metavar="METHOD", required=True)
    for method, convert in convertible.items():
        command = methods.add_parser(method, description=convert.__doc__, help=f"weights of {method}")
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.add_argument("source", type=Path, help="file of the released weights")
        command.add_argument("out", type=Path, help="folder of the checkpoint")
        for option in signature(convert).parameters.values():
            if option.kind is Parameter.KEYWORD_ONLY:
                command.add_argument(f"--{option.name.replace('_', '-')}", default=option.default, help="see above")


def run(args: argparse.Namespace) -> int:
    convert = conversion(args.method)
    names = [p.name for p in signature(convert).parameters.values() if p.kind is Parameter.KEYWORD_ONLY]
    folder = convert(args.source, args.out, **{name: getattr(args, name) for name in names})
    print(f"Converted {args.source}: {folder}/, for AutoModel.from_pretrained and hf-molrep finetune")
    return 0
