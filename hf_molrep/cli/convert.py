"""`hf-molrep convert`: released weights of a method to a checkpoint of this package."""

import argparse
import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from ..models.auto import METHODS


def conversion(method: str):
    """The function `convert(source, out, ...)` of a method, or None where nothing was ever released."""
    name = f"{METHODS[method].config.__module__.rpartition('.')[0]}.conversion_{method}"
    return import_module(name).convert if find_spec(name) else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    convertible = {method: found for method in METHODS if (found := conversion(method))}
    methods = parser.add_subparsers(dest="method", metavar="METHOD", required=True)
    for method, convert in convertible.items():
        command = methods.add_parser(
            method,
            description=convert.__doc__,
            help=f"weights of {method}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("source", type=Path, help="file of the released weights")
        command.add_argument("out", type=Path, help="folder of the checkpoint")
        for option in list(signature(convert).parameters.values())[2:]:
            if option.kind is Parameter.VAR_KEYWORD:
                command.add_argument(
                    "--option",
                    action="append",
                    default=[],
                    metavar="NAME=VALUE",
                    help="see above; VALUE is JSON or text",
                )
            else:
                command.add_argument(
                    f"--{option.name.replace('_', '-')}", type=_value, default=option.default, help="see above"
                )


def _value(text: str) -> Any:
    """JSON (a number, a list, true), or else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _pairs(given: Sequence[str]) -> dict[str, Any]:
    wrong = next((pair for pair in given if "=" not in pair), None)
    if wrong is not None:
        raise ValueError(f"--option takes NAME=VALUE, not {wrong!r}")
    return {name: _value(value) for name, _, value in (pair.partition("=") for pair in given)}


def run(args: argparse.Namespace) -> int:
    convert = conversion(args.method)
    options: dict[str, Any] = {}
    for option in list(signature(convert).parameters.values())[2:]:
        if option.kind is Parameter.VAR_KEYWORD:
            options |= _pairs(args.option)
        else:
            options[option.name] = getattr(args, option.name)
    convert(args.source, args.out, **options)
    print(f"Converted {args.source}: {args.out}/, for AutoModel.from_pretrained and hf-molrep finetune")
    return 0
