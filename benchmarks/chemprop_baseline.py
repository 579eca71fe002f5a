"""chemprop's D-MPNN by its own recipe: a column of `benchmarks.moleculenet_recipes`.

Each fit is one call of `chemprop train` with the defaults of its command line (chemprop 2: 50 epochs, batches of 64,
the epoch with the lowest validation loss); only the data, the split and the seed are given. chemprop pins RDKit, so it
needs an environment of its own (`pip install chemprop`) and is called as a command.
"""

import csv
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

TASK_TYPE = {"multi_label_classification": "classification", "regression": "regression"}


def write_inputs(folder: Path, smiles: Sequence[str], labels: np.ndarray, split: dict) -> tuple[Path, Path]:
    """Write the input of `chemprop train`: the table (missing labels are empty cells) and the file of the split."""
    table, splits = folder / "data.csv", folder / "splits.json"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["smiles", *(f"task{index}" for index in range(labels.shape[1]))])
        for text, row in zip(smiles, labels, strict=True):
            rows.writerow([text, *("" if np.isnan(value) else repr(float(value)) for value in row)])
    names = {"train": "train", "valid": "val", "test": "test"}
    splits.write_text(json.dumps([{names[part]: [int(row) for row in rows] for part, rows in split.items()}]))
    return table, splits


def read_predictions(file: Path, smiles: Sequence[str], tasks: int) -> np.ndarray:
    """
    Read the predictions of the test part, float64 `[molecules, tasks]`.

    Raises:
        ValueError: the file does not hold the molecules `smiles` in this order.
    """
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    if [row["smiles"] for row in rows] != list(smiles):
        raise ValueError(f"{file.name}: not the molecules of the test part")
    return np.array([[float(row[f"task{index}"]) for index in range(tasks)] for row in rows])


def fit_chemprop(
    command: str | Path,
    smiles: Sequence[str],
    labels: np.ndarray,
    problem_type: str,
    split: Mapping[str, Sequence[int]],
    seed: int,
    threads: int = 1,
) -> dict:
    """
    Train and test by chemprop's defaults; with one thread the same seed gives the same numbers.

    Args:
        command: the command `chemprop`.
        labels: `[molecules, tasks]`, NaN = missing.
        split: rows of "train", "valid" and "test".

    Returns:
        `predictions` of the test part, `[molecules, tasks]`, probabilities in classification; `epochs` and `batch_size`
        as chemprop reports them; `seconds`.

    Raises:
        RuntimeError: chemprop failed; the end of its output is in the message.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table, splits = write_inputs(folder, smiles, labels, split)
        arguments = ["--data-path", table, "--splits-file", splits, "--output-dir", folder / "out"]
        arguments += ["--task-type", TASK_TYPE[problem_type], "--pytorch-seed", seed, "--remove-checkpoints"]
        start = time.perf_counter()
        run = subprocess.run(
            [str(command), "train", *map(str, arguments)],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seconds = time.perf_counter() - start
        if run.returncode:
            raise RuntimeError(f"{command} train failed:\n{run.stdout[-2000:]}")
        # not quite TOML: lists hold bare paths
        lines = (folder / "out" / "config.toml").read_text().splitlines()
        used = dict(line.split(" = ", 1) for line in lines if " = " in line)
        file = folder / "out" / "model_0" / "test_predictions.csv"
        predictions = read_predictions(file, [smiles[row] for row in split["test"]], labels.shape[1])
    recipe = {"epochs": int(used["epochs"]), "batch_size": int(used["batch-size"])}
    return {"predictions": predictions, **recipe, "seconds": round(seconds)}


def chemprop_version(command: str | Path) -> str:
    """The version of chemprop in the environment of the command."""
    python = Path(command).parent / "python"
    code = "from importlib.metadata import version; print(version('chemprop'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
