"""chemprop as a column: what it is called with, what is read back; the real command where CHEMPROP names it."""

import json
import os
import sys

import numpy as np
import pytest

from benchmarks.chemprop_baseline import fit_chemprop

SPLIT = {"train": np.array([0, 2, 4]), "valid": np.array([1]), "test": np.array([5, 3])}
SMILES = ["C", "CC", "CCC", "CCCC", "CCCCC", "CCCCCC"]
LABELS = np.array([[0, 1], [1, np.nan], [0, 0], [1, 1], [0, 1], [1, 0]], dtype=np.float32)

# Stands in for the command: predicts the number of the row it was given, and notes what that was.
PROGRAM = """#!{python}
import csv, json, os, pathlib, sys
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
rows = list(csv.DictReader(open(given["--data-path"])))
(split,) = json.load(open(given["--splits-file"]))
noted = {{"arguments": sys.argv[1:], "rows": rows, "split": split, "threads": os.environ["OMP_NUM_THREADS"]}}
pathlib.Path({noted!r}).write_text(json.dumps(noted))
if {fails}:
    sys.exit("no atoms")
out = pathlib.Path(given["--output-dir"])
(out / "model_0").mkdir(parents=True)
(out / "config.toml").write_text("data-path = [/some/data.csv]\\nepochs = 50\\nbatch-size = 64\\n")
tested = split["test"][:: {order}]
with (out / "model_0" / "test_predictions.csv").open("w") as file:
    file.write("smiles,task0,task1\\n" + "".join(f"{{rows[row]['smiles']}},{{row}},0.5\\n" for row in tested))
"""


@pytest.fixture
def command(tmp_path):
    def write(order: int = 1, fails: bool = False) -> str:
        file = tmp_path / "chemprop"
        file.write_text(PROGRAM.format(python=sys.executable, noted=str(tmp_path / "noted"), order=order, fails=fails))
        file.chmod(0o755)
        return str(file)

    return write


def test_it_gets_data_split_and_seed_and_nothing_else(tmp_path, command):
    fitted = fit_chemprop(command(), SMILES, LABELS, "multi_label_classification", SPLIT, seed=7)
    noted = json.loads((tmp_path / "noted").read_text())
    assert [row["smiles"] for row in noted["rows"]] == SMILES
    assert [row["task1"] for row in noted["rows"]] == ["1.0", "", "0.0", "1.0", "1.0", "0.0"]
    assert noted["split"] == {"train": [0, 2, 4], "val": [1], "test": [5, 3]}
    assert noted["threads"] == "1"
    options = noted["arguments"][1:]
    assert noted["arguments"][0] == "train"
    assert options[0::2][:-1] == ["--data-path", "--splits-file", "--output-dir", "--task-type", "--pytorch-seed"]
    assert options[-4:] == ["classification", "--pytorch-seed", "7", "--remove-checkpoints"]
    assert fitted["predictions"].tolist() == [[5, 0.5], [3, 0.5]]
    assert (fitted["epochs"], fitted["batch_size"]) == (50, 64)


def test_predictions_of_other_molecules_and_failures_are_refused(command):
    with pytest.raises(ValueError, match="not the molecules of the test part"):
        fit_chemprop(command(order=-1), SMILES, LABELS, "regression", SPLIT, seed=0)
    with pytest.raises(RuntimeError, match="no atoms"):
        fit_chemprop(command(fails=True), SMILES, LABELS, "regression", SPLIT, seed=0)


@pytest.mark.skipif("CHEMPROP" not in os.environ, reason="CHEMPROP names no chemprop command")
def test_the_real_command_learns_what_is_easy():
    smiles = [f"{'C' * n}{link}{'C' * m}" for n in range(1, 9) for m in range(1, 9) for link in ("", "N")]
    nitrogen = np.array([float("N" in text) for text in smiles])
    labels = np.stack([nitrogen, nitrogen], axis=1)
    labels[::3, 1] = np.nan
    rows = np.random.default_rng(0).permutation(len(smiles))
    split = {"train": rows[:96], "valid": rows[96:112], "test": rows[112:]}
    fitted = fit_chemprop(os.environ["CHEMPROP"], smiles, labels, "multi_label_classification", split, seed=0)
    has = nitrogen[split["test"]] == 1
    assert ((fitted["predictions"] > 0.5) == has[:, None]).mean() > 0.9
    assert fitted["epochs"] == 50
