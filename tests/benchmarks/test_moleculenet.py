"""The MoleculeNet benchmark: splits written once, selection on validation, a run that continues."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import moleculenet, moleculenet_table
from tests.models.mm_deacon.tiny import save_tiny_checkpoint


@pytest.fixture
def data(tmp_path):
    """Files in the form of BBBP and FreeSolv: rings with chains; the label is whether N or O links them."""
    rings = ["c1ccccc1", "c1ccncc1", "C1CCCCC1", "C1CCNCC1", "c1ccsc1", "c1ccoc1", "C1CCOC1", "C1CC1", "C1CCCC1"]
    rings.append("c1ccnnc1")
    smiles = [f"{'C' * n}{link}{ring}" for ring in rings for n in range(1, 5) for link in ("", "N", "O")]
    smiles.append("CNc1ccccc1.Cl")  # in the cleaned variant the same as the amine
    links = np.array([float(text.lstrip("C")[0] in "NO") for text in smiles])
    lengths = np.array([len(text) - len(text.lstrip("C")) for text in smiles])
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.table({"smiles": smiles, "p_np": links}), folder / "bbbp.parquet")
    pq.write_table(pa.table({"smiles": smiles, "expt": lengths + 0.5}), folder / "freesolv.parquet")
    return folder


def arguments(tmp_path, data, *more: str) -> list[str]:
    paths = {
        "--data": data,
        "--splits": tmp_path / "splits",
        "--cache": tmp_path / "cache.jsonl",
        "--results": tmp_path,
    }
    return [*(str(part) for pair in paths.items() for part in pair), "--threads", "1", "--resamples", "50", *more]


def test_better():
    assert moleculenet.better("roc_auc", 0.8, 0.7)
    assert not moleculenet.better("roc_auc", 0.7, 0.7)
    assert moleculenet.better("rmse", 0.7, 0.8)
    assert not moleculenet.better("rmse", 0.8, 0.7)
    assert moleculenet.better("rmse", 0.8, float("nan"))
    assert not moleculenet.better("roc_auc", float("nan"), float("nan"))
    assert not moleculenet.better("roc_auc", float("nan"), 0.1)


def test_cache_survives_an_interruption(tmp_path):
    file = tmp_path / "cache.jsonl"
    cache = moleculenet.Cache(file)
    assert cache.get({"task": "a"}, lambda: {"test": 1.0}) == {"test": 1.0}
    with file.open("a") as lines:
        lines.write('{"key": {"task": "b"}, "val')  # killed while writing
    again = moleculenet.Cache(file)
    assert again.get({"task": "a"}, pytest.fail) == {"test": 1.0}
    assert again.get({"task": "b"}, lambda: {"test": 2.0}) == {"test": 2.0}
    assert moleculenet.Cache(file).get({"task": "b"}, pytest.fail) == {"test": 2.0}


def test_splits_are_written_once_and_guard_their_molecules(tmp_path, data):
    first = moleculenet.Data("bbbp", "raw", ["scaffold", "balanced-0", "balanced-1"], tmp_path / "splits", data)
    files = {file.name: file.read_bytes() for file in (tmp_path / "splits").iterdir()}
    assert set(files) == {f"bbbp.raw.{name}.json" for name in ("scaffold", "balanced-0", "balanced-1")}
    moleculenet.Data("bbbp", "raw", ["scaffold"], tmp_path / "splits", data)
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "splits").iterdir()}
    for parts in first.splits.values():
        assert sorted(np.concatenate(list(parts.values()))) == list(range(121))
    (tmp_path / "splits" / "bbbp.cleaned.scaffold.json").write_bytes(files["bbbp.raw.scaffold.json"])
    with pytest.raises(ValueError, match="121 molecules, but there are 120"):
        moleculenet.Data("bbbp", "cleaned", ["scaffold"], tmp_path / "splits", data)


def test_a_task_with_one_class_and_missing_labels_is_predicted_too():
    features = np.random.default_rng(0).integers(0, 2, (40, 8))
    labels = np.stack([np.ones(40), features[:, 0]], axis=1).astype(float)
    labels[:5, 1] = np.nan
    split = {"train": np.arange(30), "valid": np.arange(30, 35), "test": np.arange(35, 40)}
    kind = "multi_label_classification"
    setting = {"max_features": None, "min_samples_leaf": 1}
    valid, test = moleculenet.fit_baseline("Morgan + RF", setting, features, labels, split, kind, 0, trees=20)
    assert (valid[:, 0] == 1).all()
    assert ((test[:, 1] > 0.5) == labels[35:, 1]).all()


def test_selection_looks_at_validation_only(tmp_path, data, monkeypatch):
    """The setting that is better on validation is taken, though it is worse on test."""

    def train(column, setting, data, split, seed, checkpoint, args):
        good, bad = data.labels, 1 - data.labels
        first = setting == moleculenet.SETTINGS[column][0]
        return (bad if first else good)[split["valid"]], (good if first else bad)[split["test"]]

    monkeypatch.setattr(moleculenet, "train", train)
    task = moleculenet.Data("bbbp", "raw", ["balanced-0"], tmp_path / "splits", data)
    args = type("Args", (), {"seeds": [0, 1], "trials": 2, "trees": 20})
    records = moleculenet.evaluate(task, "balanced-0", "Morgan + RF", "", moleculenet.Cache(tmp_path / "c"), args)
    assert [record["setting"] for record in records] == [moleculenet.SETTINGS["Morgan + RF"][1]] * 2
    assert [record["test"] for record in records] == [0.0, 0.0]


def test_verdicts(tmp_path, data):
    task = moleculenet.Data("freesolv", "raw", ["scaffold"], tmp_path / "splits", data)
    truth = task.labels[task.splits["scaffold"]["test"]].astype(float)
    noise = np.random.default_rng(0).normal(0, 1, truth.shape)
    records = {"good": truth + 0.05 * noise, "bad": truth + 3 * noise[::-1]}
    found = {name: {"scaffold": [{"predictions": values.tolist()}] * 2} for name, values in records.items()}
    verdicts = moleculenet.compare(task, {"pre-trained": found["good"], **found}, resamples=100)
    assert verdicts == {
        "good": {"win": 0, "tie": 2, "loss": 0, "undefined": 0},
        "bad": {"win": 2, "tie": 0, "loss": 0, "undefined": 0},
    }


def test_the_command_runs_all_columns_and_continues(tmp_path, data, monkeypatch):
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    options = ["--model", checkpoint, "--tasks", "bbbp", "--variants", "cleaned", "--split-names", "balanced-0"]
    options += ["--seeds", "0", "1", "--trials", "1", "--epochs", "1", "--trees", "20"]
    assert moleculenet.main(arguments(tmp_path, data, *options)) == 0
    results = json.loads((tmp_path / "moleculenet.json").read_text())["results"]
    assert len(results) == 4 * 2
    forest = [record["test"] for record in results if record["column"] == "Morgan + RF"]
    assert min(forest) > 0.7
    page = (tmp_path / "moleculenet.md").read_text()

    monkeypatch.setattr(moleculenet, "train", pytest.fail)  # everything is in the cache
    assert moleculenet.main(arguments(tmp_path, data, *options)) == 0
    assert (tmp_path / "moleculenet.md").read_text().split("## Settings")[0] == page.split("## Settings")[0]

    assert moleculenet.main(arguments(tmp_path, data, *options, "--leave-out", "bbbp", "Morgan + RF")) == 0
    (row,) = [line for line in (tmp_path / "moleculenet.md").read_text().splitlines() if line.startswith("| bbbp")]
    assert row.count("not run") == 2
    assert "Morgan + RF" not in {
        record["column"] for record in json.loads((tmp_path / "moleculenet.json").read_text())["results"]
    }
    with pytest.raises(SystemExit):
        moleculenet.main(arguments(tmp_path, data, *options, "--leave-out", "tox21", "Morgan + RF"))


def test_tasks_and_seeds_of_earlier_reports_stand_in_the_same_table(tmp_path, data):
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    options = ["--model", checkpoint, "--variants", "cleaned", "--split-names", "balanced-0", "--trials", "1"]
    options += ["--epochs", "1", "--trees", "20"]

    def run(name: str, tasks: str, seeds: str, *more: str) -> tuple[str, dict]:
        own = ["--name", name, "--tasks", *tasks.split(), "--seeds", *seeds.split(), *more]
        assert moleculenet.main(arguments(tmp_path, data, *options, *own)) == 0
        page = (tmp_path / f"{name}.md").read_text().split("## Settings")[0]
        return page, json.loads((tmp_path / f"{name}.json").read_text())

    neural = ["--columns", "pre-trained", "random weights"]
    together, numbers = run("together", "bbbp freesolv", "0 1", *neural)
    run("first", "bbbp", "0", *neural)
    run("other", "freesolv", "0 1", *neural)
    joined, parts = run("joined", "bbbp", "1", *neural, "--join", "first", "other")
    assert joined == together
    assert {json.dumps(entry) for entry in parts["results"]} == {json.dumps(entry) for entry in numbers["results"]}
    assert [parts["settings"]["arguments"][name] for name in ("tasks", "seeds")] == [["bbbp", "freesolv"], [0, 1]]

    run("forest", "bbbp", "0", "--columns", "pre-trained", "Morgan + RF")
    page, _ = run("fewer", "bbbp", "1", *neural, "--join", "forest")
    assert "- bbbp, Morgan + RF: seeds [0].\n- bbbp, random weights: seeds [1]." in page
    for message, own in {
        "pre-trained, balanced-0, 0, which is here already": [],
        "has epochs 1, this run 2": ["--epochs", "2"],
        "has split_names": ["--split-names", "scaffold"],
        "needs --trials 1": ["--trials", "2"],
    }.items():
        with pytest.raises(ValueError, match=message):
            run("refused", "bbbp", "0", *neural, "--join", "first", *own)


def test_tables_are_joined(tmp_path, capsys):
    def report(name: str, model: str, seeds: list[int], scores: dict[str, float], task: str = "esol") -> None:
        entries = [
            {
                "task": task,
                "variant": "cleaned",
                "column": column,
                "split": "scaffold",
                "seed": seed,
                "test": score + seed,
            }
            for column, score in scores.items()
            for seed in seeds
        ]
        asked = {"model": model, "seeds": seeds, "split_names": ["scaffold"], "trials": 2, "epochs": 1, "updates": 1}
        asked |= {"tasks": [task], "float32": True}
        settings = {"arguments": asked, "checkpoint": "0" * 12}
        (tmp_path / f"{name}.json").write_text(json.dumps({"settings": settings, "results": entries}))

    report("one", "a", [0, 1], {"pre-trained": 1.0, "random weights": 2.0, "Morgan + RF": 3.0})
    report("two", "b", [0], {"pre-trained": 4.0, "Morgan + RF": 3.0})
    report("three", "a", [0], {"pre-trained": 5.0}, task="lipophilicity")  # more of the first one
    assert moleculenet_table.main(["one", "two", "three", "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    esol, lipophilicity = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith(("| esol", "| lipophilicity"))
    )
    assert lipophilicity[2:5] == ["5.000", "not run", "not run"]
    assert esol == [
        "esol",
        "cleaned",
        "1.500 ± 0.707",
        "2.500 ± 0.707",
        "4.000",
        "not run",
        "3.500 ± 0.707",
        "not run",
    ]
