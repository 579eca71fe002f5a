"""Reports of the benchmarks: a Markdown table with all settings, and the raw numbers as JSON."""

import argparse
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hf_molrep.inference import DEFAULT_CHECKPOINT

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SPLITS = ROOT / "benchmarks" / "splits"
PACKAGES = ("torch", "transformers", "rdkit", "scikit-learn", "numpy")
STARTED = time.perf_counter()


def argument_parser(description: str, name: str | None = None, model: bool = True) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes: the checkpoint (where it has one, `model`), the folder of the results
    and the threads; `--name` of the files written, where a benchmark has a default `name` and is run for several
    checkpoints."""
    parser = argparse.ArgumentParser(
        description=description.strip().splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    if model:
        parser.add_argument("--model", default=DEFAULT_CHECKPOINT, help="shipped checkpoint, folder or Hub repository")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the .md and .json written")
    if name is not None:
        parser.add_argument("--name", default=name, help="name of the written files")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    return parser


def fingerprint(model: str, weights: bool = True) -> str:
    """
    Return the first 12 hexadecimal digits of the SHA-256 over weights and configuration of a folder (over the
    configuration alone for models with random weights); a Hub name is returned unchanged.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for file in sorted([*(folder.glob("*.safetensors") if weights else ()), folder / "config.json"]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def public_path(path: str | os.PathLike) -> str:
    """Shorten a path to one without folders of this machine: relative to the repository, or its last part."""
    path = Path(path)
    if not path.is_absolute():
        return str(path)
    for base, prefix in ((ROOT, ""), (ROOT.parent / "shared", "../shared/")):
        if path.is_relative_to(base):
            return prefix + str(path.relative_to(base))
    return path.name


def markdown_table(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Format a Markdown table with padded columns; floats have three digits."""
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def mean_sd(values: Sequence[float]) -> str:
    """Format mean and sample standard deviation of values, as `0.912 ± 0.004`; one value has no deviation."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return "n/a"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)):.3f}"


def _public(key: str, value):
    if isinstance(value, list | tuple):
        return [_public(key, entry) for entry in value]
    return public_path(value) if isinstance(value, Path) or (key == "model" and value is not None) else value


def settings_of(args: argparse.Namespace, model: str | None) -> dict:
    """Collect what is needed to repeat a run: arguments, fingerprint of the checkpoint, versions, processor, time."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # not every benchmark needs every package
            versions[package] = "not installed"
    arguments = {key: _public(key, value) for key, value in vars(args).items() if key != "results"}
    return {
        "arguments": arguments,
        "checkpoint": None if model is None else fingerprint(model),
        "versions": {"python": platform.python_version(), **versions},
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(time.perf_counter() - STARTED),
    }


def write_report(name: str, text: str, raw: dict, args: argparse.Namespace, model: str | None = None) -> Path:
    """Print `text`, write it with all settings to `<results>/<name>.md` and `raw` to `<results>/<name>.json`."""
    settings = settings_of(args, model)
    args.results.mkdir(parents=True, exist_ok=True)
    page = args.results / f"{name}.md"
    page.write_text(f"{text.rstrip()}\n\n## Settings\n\n```json\n{json.dumps(settings, indent=1, default=str)}\n```\n")
    (args.results / f"{name}.json").write_text(json.dumps({"settings": settings, **raw}, indent=1, default=str) + "\n")
    print(text.rstrip())
    print(f"\n{settings['seconds']} s; table: {page}, numbers: {page.with_suffix('.json')}")
    return page
