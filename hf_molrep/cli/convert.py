"""`hf-molrep convert`: convert released weights of a method to a checkpoint of this package."""

import argparse
import inspect
import json
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from ..models.auto import METHODS

JSON = {"True": "true", "False": "false", "None": "null"}
WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", NoneType: "null"}


def convertible() -> list[str]:
    """Return the methods with a file `conversion_<m>.py`, without importing it."""
    return [method for method in METHODS if find_spec(_module(method))]


def conversion(method: str) -> Callable[..., Any]:
    """
    Return the function `convert(source, out, ...)` of a method of [`convertible`]. It returns a sentence for each
    choice that it made because the file does not determine it.
    """
    return import_module(_module(method)).convert


def _module(method: str) -> str:
    return f"hf_molrep.models.{method}.conversion_{method}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `convert`; those after METHOD are parsed with the code of the method."""
    parser.usage = "hf-molrep convert METHOD SOURCE OUT [options of the method]"
    parser.epilog = "hf-molrep convert METHOD --help lists the options of a method."
    parser.add_argument("method", choices=convertible(), help="method of the weights")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="file or folder, folder to write, options")


def _parser(method: str) -> argparse.ArgumentParser:
    """Make the parser of `hf-molrep convert METHOD` from the parameters of the method's `convert`."""
    convert = conversion(method)
    texts = {name: text for names, text in _arguments(convert).items() for name in names}
    about = _plain(inspect.getdoc(convert).partition("\nArgs:\n")[0])
    width = {"width": shutil.get_terminal_size().columns - 2}  # as argparse
    parser = argparse.ArgumentParser(
        prog=f"hf-molrep convert {method}",
        description="\n\n".join(textwrap.fill(paragraph, **width) for paragraph in about.split("\n\n")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help=_help(texts["source"]))
    parser.add_argument("out", type=Path, help=_help(texts["out"]))
    for option in list(signature(convert).parameters.values())[2:]:
        if option.kind is Parameter.VAR_KEYWORD:
            parser.add_argument(
                "--option",
                action="append",
                default=[],
                metavar="NAME=VALUE",
                help="one of the fields below; can be given several times",
            )
            parser.epilog = (
                "fields for --option (text needs no quotes, other values are JSON), with the defaults for what the "
                "file does not determine:\n"
            )
            parser.epilog += "\n".join(
                textwrap.fill(line, initial_indent="  ", subsequent_indent="      ", **width)
                for line in _fields(METHODS[method].config)
            )
        else:
            parser.add_argument(
                f"--{option.name.replace('_', '-')}",
                type=_value,
                default=option.default,
                choices=_choices(option),
                metavar=None if _choices(option) else "VALUE",
                help=_help(texts[option.name]),
            )
    return parser


def _choices(option: Parameter) -> tuple | None:
    """Return the values of a `Literal` in an annotation `Literal[...] | None`."""
    return next((get_args(kind) for kind in get_args(option.annotation) if get_origin(kind) is Literal), None)


def _arguments(documented) -> dict[tuple[str, ...], str]:
    """Read the section `Args:` of a docstring: the names that share an entry -> its text."""
    section = re.search(r"^Args:\n((?: .*\n?|\n)+)", inspect.getdoc(documented), re.MULTILINE)
    entries = re.split(r"\n {4}(?=\S)", "\n" + section[1].rstrip())[1:] if section else []
    pairs = (re.sub(r"\s+", " ", entry).partition(": ") for entry in entries)
    return {tuple(names.split(", ")): _plain(text) for names, _, text in pairs}


def _plain(text: str) -> str:
    """Remove the marks of code and links, and write True, False and None as in JSON."""
    text = re.sub(r"\[?`~?([^`]*)`\]?", r"\1", text)
    return re.sub(r"\b(True|False|None)\b", lambda match: JSON[match[0]], text)


def _help(text: str) -> str:
    return text.replace("%", "%%")


def _fields(config_class: type) -> list[str]:
    """Describe the fields that a configuration adds to those of transformers: types, defaults and help texts."""
    from transformers import PreTrainedConfig

    from ..configuration import MoleculeConfig

    # nested configurations have fields of their own, whose sizes are read off the weights
    common = {field.name for field in fields(PreTrainedConfig)} | config_class.sub_configs.keys()
    left = {field.name: field for field in fields(config_class) if field.name not in common}
    lines = []
    for names, text in {**_arguments(config_class), **_arguments(MoleculeConfig)}.items():
        taken = [left.pop(name) for name in names if name in left]
        if taken:
            lines.append(f"{', '.join(map(_field, taken))}: {text}")
    return lines + [_field(field) for field in left.values()]


def _field(field) -> str:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return f"{field.name} ({_allowed(field.type)}; {_text(default)})"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _allowed(kind: Any) -> str:
    """Describe a type annotation in words."""
    if get_origin(kind) is Literal:
        return " or ".join(map(_text, get_args(kind)))
    if get_origin(kind) is list:
        (entry,) = get_args(kind)
        return f"list of {_allowed(entry)}" if get_origin(entry) else f"list with a {_allowed(entry)} for each task"
    parts = [part for part in get_args(kind) if not (part is int and float in get_args(kind))]
    return " or ".join(map(_allowed, parts)) if parts else WORDS[kind]


def _value(text: str) -> Any:
    """Parse JSON (a number, a list, true); other text is returned as it is."""
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
    """Run the command."""
    convert = conversion(args.method)
    args = _parser(args.method).parse_args(args.arguments)
    options: dict[str, Any] = {}
    for option in list(signature(convert).parameters.values())[2:]:
        if option.kind is Parameter.VAR_KEYWORD:
            options |= _pairs(args.option)
        else:
            options[option.name] = getattr(args, option.name)
    if args.out.is_file():
        raise ValueError(f"{args.out} is a file: give a folder for the checkpoint")
    choices = convert(args.source, args.out, **options)
    print(f"Converted {args.source}: {args.out}/, for AutoModel.from_pretrained and hf-molrep finetune")
    for choice in choices:
        print(choice)
    return 0
