"""The frozen probe: the same draws for every column, a run that continues, what is not run said so."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import frozen_probe
from benchmarks.frozen_probe import beaten, subset
from hf_molrep.hub import save_checkpoint
from hf_molrep.models.molclr import MolCLRFeatureExtractor, MolCLRModel
from tests.models.molclr.tiny import tiny_config

SPLIT = {"train": np.arange(50), "valid": np.arange(50, 60), "test": np.arange(60, 75)}


def test_draws_are_of_the_training_part_and_the_same_for_all():
    few = subset(SPLIT, 20, 3)
    assert len(set(few["train"].tolist())) == 20
    assert set(few["train"].tolist()) <= set(range(50))
    np.testing.assert_array_equal(few["train"], subset(SPLIT, 20, 3)["train"])
    assert not np.array_equal(few["train"], subset(SPLIT, 20, 4)["train"])
    for part in ("valid", "test"):
        np.testing.assert_array_equal(few[part], SPLIT[part])
    np.testing.assert_array_equal(subset(SPLIT, None, 0)["train"], SPLIT["train"])
    np.testing.assert_array_equal(subset(SPLIT, 100, 0)["train"], SPLIT["train"])


@pytest.fixture
def options(tmp_path) -> list[str]:
    """Chains with or without oxygen at a ring, in the form of FreeSolv, and a tiny checkpoint."""
    rings = ["c1ccccc1", "c1ccncc1", "C1CCCCC1", "C1CCNCC1", "c1ccsc1", "c1ccoc1", "C1CCOC1", "C1CC1"]
    rings += ["C1CCCC1", "c1ccnnc1"]
    smiles = [f"{'C' * n}{link}{ring}" for ring in rings for n in range(1, 5) for link in ("", "N", "O")]
    pq.write_table(pa.table({"smiles": smiles, "expt": [float(len(text)) for text in smiles]}), tmp_path / "f.parquet")
    (tmp_path / "data").mkdir()
    (tmp_path / "f.parquet").rename(tmp_path / "data" / "freesolv.parquet")
    save_checkpoint(MolCLRModel(tiny_config()), MolCLRFeatureExtractor(), tmp_path / "tiny")
    paths = {"--models": "tiny", "--data": "data", "--splits": "splits", "--cache": "cache", "--results": "."}
    given = [part for option, path in paths.items() for part in (option, str(tmp_path / path))]
    given += ["--tasks", "freesolv", "--split-names", "balanced-0", "balanced-1", "--labels", "20", "all"]
    return [*given, "--draws", "2", "--trees", "5", "--threads", "1"]


def test_it_runs_and_continues(tmp_path, options, monkeypatch, capsys):
    leave_out = ["--leave-out", "freesolv", "all", "Morgan + RF"]
    assert frozen_probe.main([*options, *leave_out]) == 0
    page = (tmp_path / "frozen_probe.md").read_text()
    (row,) = [line for line in page.partition("## All labels")[2].splitlines() if line.startswith("| freesolv")]
    assert row.count("not run") == 1
    assert "- Morgan + RF on freesolv, all labels: left out (--leave-out)." in page
    results = json.loads((tmp_path / "frozen_probe.json").read_text())["results"]
    counts = {labels: sum(entry["labels"] == labels for entry in results) for labels in ("20", "all")}
    assert counts == {"20": 4 * 2 * 2, "all": 3 * 2}
    assert all(np.isfinite(entry["test"]) for entry in results)
    # all of it is known now
    monkeypatch.setattr(frozen_probe, "probe", None)
    assert frozen_probe.main([*options, *leave_out]) == 0
    assert json.loads((tmp_path / "frozen_probe.json").read_text())["results"] == results
    assert "better mean on" in capsys.readouterr().out
    assert frozen_probe.main([*options, *leave_out, "--part", "valid"]) == 0
    chosen = [entry["valid"] for entry in results if (entry["column"], entry["labels"]) == ("tiny", "all")]
    (row,) = [
        line for line in capsys.readouterr().out.partition("## All labels")[2].splitlines() if "freesolv" in line
    ][:1]
    assert f"{np.mean(chosen):.3f}" in row
    assert np.mean(chosen) != np.mean([entry["test"] for entry in results if entry["column"] == "tiny"])


def test_better_means_by_the_metric():
    class Task:
        def __init__(self, metric: str):
            self.task = type("Task", (), {"metric": metric})

    tasks = {"esol": Task("rmse"), "bbbp": Task("roc_auc"), "bace": Task("roc_auc"), "clintox": Task("roc_auc")}
    found = {("esol", "all", "a"): [1.0, 2.0], ("esol", "all", "b"): [1.9, 1.9]}
    found |= {("bbbp", "all", "a"): [0.5], ("bbbp", "all", "b"): [0.6], ("bace", "all", "a"): [0.9]}
    found |= {("clintox", "all", name): [value] for name, value in (("a", 0.9), ("b", 0.1))}
    assert beaten(found, "all", "a", "b", tasks) == (["esol"], 2)
