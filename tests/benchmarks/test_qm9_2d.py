"""The benchmark of QM9 from 2D graphs: every column pre-trained by its objective, a run that continues, honest gaps."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks import qm9, qm9_2d
from benchmarks.qm9_2d import Cell
from tests.benchmarks.test_qm9 import data  # noqa: F401

TINY = {
    "infomax_3d": {"embedding_dim": 8, "num_layers": 1, "readout_dim": 8, "projection_dim": 6, "net_3d_dim": 6},
    "graphmvp": {"graph_scheme": "ogb", "embedding_dim": 8, "num_layers": 1, "num_interactions": 1, "num_filters": 8},
}


@pytest.fixture
def arguments(tmp_path, data, monkeypatch):  # noqa: F811
    """A command of seconds on QM9's form, with the scarce properties."""
    scarce = data[["mol_id"]].copy()
    sizes = np.array([len(numbers) for numbers in data.atomic_numbers], dtype=np.float64)
    for place, name in enumerate(qm9_2d.SCARCE):
        scarce[name] = sizes + place
    scarce.to_parquet(tmp_path / "data" / "qm9_3d" / "qm9_properties.parquet")
    monkeypatch.setattr(qm9_2d, "NETWORKS", TINY)
    given = ["--checkpoints", tmp_path / "runs", "--splits", tmp_path / "splits", "--results", tmp_path]
    given += ["--curve", "6:1:2", "10:1:1", "--scarce", "8:1:1", "--learning-rates", "1e-3", "--batch-size", "4"]
    given += ["--pretraining-epochs", "1", "--pretraining-batch-size", "4", "--resamples", "20", "--threads", "1"]
    return [str(word) for word in [*given, "--cache", tmp_path / "cache.jsonl"]]


def test_every_column_is_pretrained_and_compared(tmp_path, arguments, monkeypatch):
    arguments = [*arguments, "--curve", "6:1:1"]
    assert qm9_2d.main(arguments) == 0
    results = json.loads((tmp_path / "qm9_2d.json").read_text())["results"]
    found = {(entry["column"], entry["table"], entry["labels"]) for entry in results}
    cells = [("frontier", 6), ("scarce", 8)]
    assert found == {(column, *cell) for column in qm9_2d.COLUMNS for cell in cells}
    for entry in results:
        shape = (1, len(qm9_2d.PROPERTIES[entry["table"]]))
        assert np.array(entry["mean_absolute_errors"]).shape == shape
        assert ("improvement" in entry) == ("random" not in entry["column"])
    objectives = {
        json.loads((folder / "config.json").read_text())["objective"]: json.loads((folder / "run.json").read_text())
        for folder in (tmp_path / "runs").iterdir()
        if (folder / "run.json").is_file()
    }
    wanted = {column.objective["objective"] for column in qm9_2d.COLUMNS.values() if column.objective}
    assert set(objectives) == wanted
    assert {run["train_rows"] for run in objectives.values()} == {12}  # the pre-training part
    assert imread(tmp_path / "qm9_2d.png").std() > 0
    report = (tmp_path / "qm9_2d.md").read_text()
    assert "not run" not in report

    monkeypatch.setattr(qm9_2d, "errors", None)  # everything is known
    assert qm9_2d.main(arguments) == 0


def test_what_was_not_run_is_told(tmp_path, arguments):
    columns = ["--columns", "random weights", "3D Infomax"]
    assert qm9_2d.main([*arguments, *columns]) == 0
    cache = tmp_path / "cache.jsonl"
    kept = [line for line in cache.read_text().splitlines() if json.loads(line)["key"]["labels"] == 6]
    cache.write_text("\n".join(kept) + "\n")
    assert qm9_2d.main([*arguments, *columns, "--report"]) == 0
    report = (tmp_path / "qm9_2d.md").read_text()
    assert report.count("not run") == 4  # two cells of two columns
    results = json.loads((tmp_path / "qm9_2d.json").read_text())["results"]
    assert [np.array(entry["mean_absolute_errors"]).shape for entry in results] == [(2, 3)] * 2


def test_one_seed_of_every_cell_comes_first():
    few, scarce = Cell("frontier", 6, 1, 2), Cell("scarce", 8, 1, 1)
    first = [("a", few, 0), ("b", few, 0), ("a", scarce, 0), ("b", scarce, 0)]
    assert list(qm9_2d.order([few, scarce], ["a", "b"])) == [*first, ("a", few, 1), ("b", few, 1)]


def test_the_learning_rate_is_chosen_on_validation(tmp_path, arguments, monkeypatch):
    def errors(name, cell, learning_rate, seed, molecules, args):
        _, split = molecules.drawn(cell)
        # on the test part the other learning rate is better
        wrong = np.full((len(split["test"]), len(qm9_2d.PROPERTIES[cell.table])), 1 / learning_rate)
        return {"valid": learning_rate, "best_epoch": 1, "updates": 1, "errors": wrong.tolist()}

    monkeypatch.setattr(qm9_2d, "errors", errors)
    given = [*arguments, "--columns", "random weights", "--learning-rates", "1e-3", "3e-3"]
    assert qm9_2d.main(given) == 0
    results = json.loads((tmp_path / "qm9_2d.json").read_text())["results"]
    assert {entry["learning_rate"] for entry in results} == {1e-3}


def test_training_sets_are_nested_and_known(tmp_path, arguments):
    args = qm9_2d.parser().parse_args(arguments)
    molecules = qm9_2d.Molecules(qm9_2d.load(args.splits), args)
    drawn = [molecules.drawn(Cell("frontier", labels, 1, 1)) for labels in (6, 10)]
    few, many = (set(rows.mol_id[split["train"]]) for rows, split in drawn)
    assert few < many
    assert drawn[0][0][qm9.TARGETS].notna().all(axis=None)
    with pytest.raises(ValueError, match="molecules to train on"):
        molecules.drawn(Cell("scarce", 1000, 1, 1))
