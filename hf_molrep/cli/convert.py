"""hf-molrep convert: released weights of an original code to a checkpoint of this package."""

import argparse
import json
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..models.auto import METHODS

    methods = [name for name in METHODS if find_spec(_module(name)) is not None]
    parser.add_argument("method", choices=methods, help="whose weights")
    parser.add_argument("source", type=Path, help="file of the original")
    parser.add_argument("out", type=Path, help="folder of the checkpoint")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the method's converter, for instance conv_type=sage; may be given several times",
    )


def run(args: argparse.Namespace) -> int:
    """
    `convert(source, out, **options)` of `hf_molrep/models/<method>/conversion_<method>.py`. Only tensors are read from
    the file; a pickle that would run code is refused.

    Raises:
        ValueError: not a file of the original; an option that the converter does not have.
    """
    convert = import_module(_module(args.method)).convert
    known = [name for name, each in signature(convert).parameters.items() if each.kind is Parameter.KEYWORD_ONLY]
    options = {}
    for text in args.option:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--option {text}: NAME=VALUE, and NAME is one of {', '.join(known) or 'none'}")
        options[name] = _value(value)
    folder = convert(args.source, args.out, **options)
    print(f"{args.source.name} -> {folder}: {', '.join(sorted(path.name for path in Path(folder).iterdir()))}")
    return 0


def _module(method: str) -> str:
    return f"hf_molrep.models.{method}.conversion_{method}"


def _value(text: str):
    """A number, true, false or null; anything else is a string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
