"""The MoleculeNet benchmark: splits written once, selection on validation, a run that continues."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import moleculenet, moleculenet_recipes, moleculenet_table
from benchmarks.harness.selection import Cache
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
    return [
        *(str(part) for pair in paths.items() for part in pair),
        "--threads",
        "1",
        "--updates",
        "1",
        "--resamples",
        "50",
        *more,
    ]


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


def test_selection_looks_at_validation_only(tmp_path, data, monkeypatch):
    """The setting that is better on validation is taken, though it is worse on test."""

    def train(column, setting, data, split, seed, checkpoint, args):
        good, bad = data.labels, 1 - data.labels
        first = setting == moleculenet.SETTINGS[column][0]
        return (bad if first else good)[split["valid"]], (good if first else bad)[split["test"]]

    monkeypatch.setattr(moleculenet, "train", train)
    task = moleculenet.Data("bbbp", "raw", ["balanced-0"], tmp_path / "splits", data)
    args = type("Args", (), {"seeds": [0, 1], "trials": 2, "trees": 20})
    records = moleculenet.evaluate(task, "balanced-0", "Morgan + RF", "", Cache(tmp_path / "c"), args)
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
    text = (tmp_path / "moleculenet.md").read_text()
    pretraining, beside = [line for line in text.splitlines() if line.startswith("| bbbp")]
    assert [row.count("not run") for row in (pretraining, beside)] == [0, 2]
    header = next(line for line in text.splitlines() if line.startswith("| task"))
    assert [cell.strip() for cell in header.strip("|").split("|")][4:] == [
        *("pre-trained", "random weights", "against random weights"),
    ]
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
    assert lipophilicity[2:] == ["5.000", "not run", "not run", "not run"]
    assert esol[2:] == ["1.500 ± 0.707", "2.500 ± 0.707", "4.000", "not run"]  # no other columns


def test_each_by_its_own_recipe(tmp_path, data, monkeypatch):
    page = tmp_path / "moleculenet_recipes.md"
    paths = [*arguments(tmp_path, data)[:-4], "--tasks", "freesolv", "--split-names", "balanced-0"]
    with pytest.raises(SystemExit):
        moleculenet_recipes.main([*paths, "--run", "chemprop"])  # where is it?
    ran = ["--run", "Morgan + RF", "descriptors + ridge", "--trees", "20"]
    assert moleculenet_recipes.main([*paths, *ran]) == 0

    def cells() -> dict[str, str]:
        lines = [line for line in page.read_text().splitlines() if line.startswith(("| task", "| freesolv"))]
        header, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        return dict(zip(header, row, strict=True))

    found = cells()
    assert {column for column, cell in found.items() if cell == "not run"} == {
        *("chemprop", "descriptors + GB"),
        *moleculenet_recipes.CHECKPOINTS,
    }
    assert float(found["descriptors + ridge"]) < 1  # chain lengths are easy for it
    recipes = page.read_text().split("## Settings")[0]
    assert "- Morgan + RF: trees 20, max_features sqrt, min_samples_leaf 1." in recipes
    assert "epochs 30, learning_rate 0.0001, batch_size 32, best epoch on validation" in recipes

    # chemprop's fit of another day is in the cache; a cell that lacks a split is not a result
    key = {"task": "freesolv", "variant": "cleaned", "split": "balanced-0", "column": "chemprop"}
    key |= {"recipe": "command-line defaults of 2.3.1", "seed": 0}
    value = {"test": 1.25, "predictions": [[0.0]], "epochs": 50, "batch_size": 64}
    Cache(tmp_path / "cache.jsonl").get(key, lambda: value)
    monkeypatch.setattr(moleculenet_recipes, "fit", pytest.fail)
    assert moleculenet_recipes.main([*paths, *ran]) == 0
    assert cells()["chemprop"] == "1.250"
    assert "- chemprop: command-line defaults of 2.3.1, 50 epochs, batches of 64." in page.read_text()
    more = [*paths, "--split-names", "balanced-0", "scaffold", "--run"]
    assert moleculenet_recipes.main([*more, "--trees", "20"]) == 0
    assert cells()["chemprop"] == cells()["Morgan + RF"] == "not run"


def test_a_column_that_is_gone_is_not_joined(tmp_path, data):
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    options = ["--model", checkpoint, "--variants", "cleaned", "--split-names", "balanced-0", "--trials", "1"]
    options += ["--epochs", "1", "--tasks", "bbbp", "--columns", "pre-trained", "random weights"]
    assert moleculenet.main(arguments(tmp_path, data, *options, "--name", "first", "--seeds", "0")) == 0
    file = tmp_path / "first.json"
    report = json.loads(file.read_text())
    report["results"].append({**report["results"][0], "column": "chemprop"})
    report["verdicts"][0]["against"]["chemprop"] = {"win": 1, "tie": 0, "loss": 0, "undefined": 0}
    report["settings"]["arguments"]["columns"].append("chemprop")
    file.write_text(json.dumps(report))
    joining = ["--name", "second", "--seeds", "1", "--join", "first"]
    assert moleculenet.main(arguments(tmp_path, data, *options, *joining)) == 0
    assert "chemprop" not in (tmp_path / "second.md").read_text()
    assert "chemprop" not in (tmp_path / "second.json").read_text()
