"""`hf-molrep split`, `finetune` and `predict` on files, good ones and bad ones."""

import argparse
import csv
import json

import numpy as np
import pytest
from transformers import AutoConfig, AutoProcessor

import hf_molrep
from hf_molrep import AutoModelForMoleculePropertyPrediction
from hf_molrep.cli import main
from hf_molrep.cli.finetune import add_arguments, checkpoint_of
from hf_molrep.inference.prediction import predict
from tests.models.mm_deacon.tiny import save_tiny_checkpoint

# 48 molecules in 12 scaffolds: rings of 3 to 8 atoms, with and without nitrogen, each with four side chains.
RINGS = [f"C1{'C' * (size - 2)}{atom}1" for size in range(3, 9) for atom in "CN"]
CHAINS = ["O", "CO", "CCN", "CCCO"]
SMILES = [f"{chain}{ring}" for ring in RINGS for chain in CHAINS]
QUICK = ["--epochs", "2", "--learning-rate", "3e-3", "--batch-size", "16", "--quiet"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), pre_training=True)


def write_csv(path, rows: list[dict]):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def table(**changes) -> list[dict]:
    """Rows with an id that is text, a SMILES, a value and two classes, one of them with gaps."""
    return [
        {
            "id": f"{row:03d}",
            "smiles": smiles,
            "value": 300 + 10 * smiles.count("C"),
            "alcohol": int("O" in smiles),
            "nitrogen": "" if row % 5 == 0 else int("N" in smiles),
        }
        | {name: values[row] for name, values in changes.items() if row in values}
        for row, smiles in enumerate(SMILES)
    ]


@pytest.fixture(scope="module")
def regression(checkpoint, tmp_path_factory):
    """A run on a file with a bad molecule, a missing label and a repeated molecule."""
    folder = tmp_path_factory.mktemp("regression")
    rows = table(smiles={5: "C1CC", 7: SMILES[6], 11: ""}, value={9: "", 20: "NaN"})
    data = write_csv(folder / "data.csv", rows)
    arguments = [
        "finetune",
        data,
        "--labels",
        "value",
        "--units",
        "K",
        "--model",
        checkpoint,
        "--output",
        folder / "out",
    ]
    assert main([*map(str, arguments), "--split", "balanced_scaffold", "--split-seed", "3", *QUICK]) == 0
    return folder


def test_the_folder_is_a_checkpoint(regression):
    model = AutoModelForMoleculePropertyPrediction.from_pretrained(regression / "out")
    processor = AutoProcessor.from_pretrained(regression / "out")
    assert model.config.id2label == {0: "value"}
    assert model.config.label_units == ["K"]
    (value,) = next(predict(model, processor, ["CCO"]))
    assert np.isfinite(value)
    names = {path.name for path in (regression / "out").iterdir()}
    assert {"config.json", "model.safetensors", "report"} <= names
    assert "training" not in names


def test_report(regression):
    report = regression / "out" / "report"
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["problem_type"] == "regression"
    assert metrics["label_units"] == ["K"]
    assert metrics["split"] == {"name": "balanced_scaffold", "seed": 3, "include_chirality": False} | {
        part: len(rows) for part, rows in _parts(report).items()
    }
    assert metrics["rows"]["read"] == 48
    assert metrics["rows"]["skipped"] == 2
    assert sum(metrics["rows"]["skipped_reasons"].values()) == 2
    assert metrics["rows"]["without_any_label"] == 2
    assert metrics["rows"]["repeating_a_molecule"] == 1
    assert metrics["rows"]["test_also_in_train"] == 0
    assert set(metrics["test"]["per_task"]) == {"value"}
    assert metrics["updates"] > 0
    assert metrics["settings"]["seed"] == 0
    for name in ("learning_curve.png", "parity.png"):
        assert (report / name).read_bytes().startswith(b"\x89PNG")

    skipped = read_csv(report / "skipped.csv")
    assert [row["row"] for row in skipped] == ["6", "12"]
    assert skipped[0]["smiles"] == "C1CC"
    assert "ring" in skipped[0]["error"]


def _parts(report) -> dict:
    split = json.loads((report / "split.json").read_text())
    return {part: split[part] for part in ("train", "valid", "test")}


def test_predictions_of_the_test_part(regression):
    report = regression / "out" / "report"
    rows = read_csv(report / "predictions.csv")
    used = [row for row in range(48) if row not in (5, 11)]
    assert [int(row["row"]) - 1 for row in rows] == [used[index] for index in _parts(report)["test"]]
    for row in rows:
        assert row["id"] == f"{int(row['row']) - 1:03d}"  # the row's own columns, "007" still "007"
    model = AutoModelForMoleculePropertyPrediction.from_pretrained(regression / "out")
    processor = AutoProcessor.from_pretrained(regression / "out")
    expected = np.concatenate(list(predict(model, processor, [row["smiles"] for row in rows])))
    np.testing.assert_allclose([float(row["predicted_value"]) for row in rows], expected, rtol=1e-4)

    metrics = json.loads((report / "metrics.json").read_text())
    errors = [float(row["predicted_value"]) - float(row["value"]) for row in rows if row["value"] not in ("", "nan")]
    assert metrics["test"]["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-4)


def test_the_same_split_again(regression, checkpoint, tmp_path):
    split = regression / "out" / "report" / "split.json"
    arguments = ["finetune", regression / "data.csv", "--labels", "value", "--model", checkpoint, "--split", split]
    assert main([*map(str, arguments), "--output", str(tmp_path / "again"), *QUICK]) == 0
    assert _parts(tmp_path / "again" / "report") == _parts(split.parent)
    first, second = (
        json.loads((folder / "metrics.json").read_text()) for folder in (split.parent, tmp_path / "again" / "report")
    )
    assert first["test"] == second["test"]


def test_predict(regression, capsys):
    rows = [
        {"name": "007", "SMILES": "OC1CC1", "value": "x"},
        {"name": "", "SMILES": "C1CC", "value": ""},
        {"name": "a,b", "SMILES": "NCC1CCC1", "value": "y"},
    ]
    source, target = write_csv(regression / "new.csv", rows), regression / "predicted.csv"
    assert main(["predict", str(source), str(target), "--model", str(regression / "out"), "--quiet"]) == 0
    predicted = read_csv(target)
    assert [{key: row[key] for key in rows[0]} for row in predicted] == rows
    assert list(predicted[0]) == ["name", "SMILES", "value", "smiles_used", "error", "predicted_value"]
    assert float(predicted[0]["predicted_value"]) > 200  # in kelvin, not scaled
    assert (predicted[1]["predicted_value"], predicted[1]["smiles_used"]) == ("", "")
    assert "ring" in predicted[1]["error"]
    assert not predicted[0]["error"]
    shown = capsys.readouterr()
    assert "2 of 3 molecules predicted: value (K), 1 failed" in shown.out
    assert "row 2" in shown.err

    assert main(["predict", str(source), str(target), "--model", str(regression / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (
        main(
            [
                "predict",
                str(target),
                str(regression / "b.csv"),
                "--model",
                str(regression / "out"),
                "--column",
                "SMILES",
            ]
        )
        == 2
    )
    assert "already has a column 'smiles_used'" in capsys.readouterr().err


def test_predict_to_parquet_keeps_units(regression, tmp_path):
    import pyarrow.parquet as pq

    source = regression / "data.csv"
    target = tmp_path / "out.parquet"
    assert main(["predict", str(source), str(target), "--model", str(regression / "out"), "--quiet"]) == 0
    written = pq.read_table(target)
    assert written.schema.field("predicted_value").metadata == {b"unit": b"K"}
    assert written.num_rows == 48
    assert written.column("predicted_value").null_count == 2
    assert written.column("id").to_pylist()[7] == "007"


def test_predict_refuses_a_checkpoint_without_a_trained_head(checkpoint, regression, tmp_path, capsys):
    arguments = ["predict", str(regression / "data.csv"), str(tmp_path / "o.csv"), "--model", checkpoint]
    assert main(arguments) == 2
    assert "predicts no properties: fine-tune it first" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


def test_predict_fails_if_every_molecule_fails(regression, tmp_path):
    source = write_csv(tmp_path / "bad.csv", [{"smiles": "C1CC"}, {"smiles": "  "}])
    target = tmp_path / "o.csv"
    assert main(["predict", str(source), str(target), "--model", str(regression / "out"), "--quiet"]) == 1
    assert [bool(row["error"]) for row in read_csv(target)] == [True, True]


def test_classification_with_several_tasks_and_a_column_split(checkpoint, tmp_path):
    rows = table()
    for number, row in enumerate(rows):
        row["set"] = ("train", "train", "train", "Validation", "test")[number % 5]
    data = write_csv(tmp_path / "data.csv", rows)
    output = tmp_path / "out"
    arguments = ["finetune", data, "--labels", "alcohol", "nitrogen", "--model", checkpoint, "--output", output]
    assert main([*map(str, arguments), "--split", "column:set", "--from-scratch", *QUICK]) == 0
    config = AutoConfig.from_pretrained(output)
    assert config.problem_type == "multi_label_classification"
    assert config.id2label == {0: "alcohol", 1: "nitrogen"}
    metrics = json.loads((output / "report" / "metrics.json").read_text())
    assert metrics["settings"]["from_scratch"] is True
    assert set(metrics["test"]["per_task"]) == {"alcohol", "nitrogen"}
    assert _parts(output / "report")["test"] == list(range(4, 48, 5))
    assert (output / "report" / "roc.png").read_bytes().startswith(b"\x89PNG")
    for row in read_csv(output / "report" / "predictions.csv"):
        assert 0 <= float(row["predicted_nitrogen"]) <= 1


def test_split_then_finetune(checkpoint, tmp_path, capsys):
    data = write_csv(tmp_path / "data.csv", table(smiles={3: "C1CC"}))
    split = tmp_path / "split.json"
    assert (
        main(["split", str(data), str(split), "--kind", "random", "--seed", "4", "--fractions", ".5", ".25", ".25"])
        == 0
    )
    shown = capsys.readouterr()
    assert "47 molecules, 1 left out" in shown.out
    assert "row 4, SMILES 'C1CC'" in shown.err
    content = json.loads(split.read_text())
    assert sorted(content["train"] + content["valid"] + content["test"]) == list(range(47))
    arguments = ["finetune", data, "--labels", "value", "--model", checkpoint, "--split", split]
    assert main([*map(str, arguments), "--output", str(tmp_path / "out"), *QUICK]) == 0
    assert json.loads((tmp_path / "out" / "report" / "metrics.json").read_text())["split"]["seed"] == 4

    other = write_csv(tmp_path / "other.csv", table()[::-1])
    arguments[1] = other
    assert main([*map(str, arguments), "--output", str(tmp_path / "other"), *QUICK]) == 2
    assert "splits" in capsys.readouterr().err


def test_a_stopped_run_is_continued(checkpoint, tmp_path, monkeypatch, capsys):
    from hf_molrep.training import finetuning

    data = write_csv(tmp_path / "data.csv", table())
    arguments = ["finetune", str(data), "--labels", "value", "--model", checkpoint, *QUICK, "--output"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0

    original = finetuning.MoleculeTrainer.training_step
    calls = []

    def stop_in_the_second_epoch(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning.MoleculeTrainer, "training_step", stop_in_the_second_epoch)
        assert main([*arguments, str(tmp_path / "out")]) == 130
    assert not (tmp_path / "out" / "report").exists()
    assert main([*arguments, str(tmp_path / "out")]) == 2
    assert "--resume continues it" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "out"), "--resume"]) == 0
    whole, continued = (read_csv(tmp_path / name / "report" / "predictions.csv") for name in ("whole", "out"))
    assert whole == continued

    assert main([*arguments, str(tmp_path / "out"), "--resume"]) == 0
    assert "nothing to resume" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "out")]) == 2
    assert "finished run" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "out"), "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"value": {4: "12a"}}, [], "row 5: label 'value' is '12a'"),
        ({"value": {4: "inf"}}, [], "row 5: label 'value'"),
        ({}, ["--task", "classification"], "row 1: label 'value' is '330'"),
        ({"value": dict.fromkeys(range(48), "")}, [], "'value' has no value"),
        ({"smiles": dict.fromkeys(range(48), "C1CC")}, [], "none of 48 rows holds a molecule"),
        ({}, ["--labels", "valu"], "no column 'valu'"),
        ({}, ["--smiles-column", "structure"], "no column 'structure'"),
        ({}, ["--split", "column:fold"], "no column 'fold'"),
        ({}, ["--split", "column:id"], "row 1: id is '000'"),
        ({}, ["--split", "nowhere.json"], "not 'nowhere.json'"),
        ({}, ["--units", "K", "kg"], "2 units for 1 label columns"),
        ({}, ["--metric", "roc_auc"], "metric of regression is rmse, mae, r2 or loss"),
        ({}, ["--config", "dropout"], "'dropout' is not KEY=VALUE"),
    ],
)
def test_bad_input_is_named(checkpoint, tmp_path, capsys, changes, options, message):
    data = write_csv(tmp_path / "data.csv", table(**changes))
    arguments = ["finetune", str(data), "--labels", "value", "--model", checkpoint, "--output", str(tmp_path / "out")]
    assert main([*arguments, *QUICK, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "report").exists()


@pytest.mark.parametrize("content", ["", "smiles,value\n"])
def test_an_empty_file_is_named(checkpoint, tmp_path, capsys, content):
    data = tmp_path / "empty.csv"
    data.write_text(content)
    arguments = ["finetune", str(data), "--labels", "value", "--model", checkpoint, "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "empty.csv" in capsys.readouterr().err


def test_overrides_reach_config_and_collator(checkpoint, tmp_path):
    data = write_csv(tmp_path / "data.csv", table())
    arguments = ["finetune", str(data), "--labels", "value", "--model", checkpoint, "--output", str(tmp_path / "out")]
    changes = ["--config", "classifier_dropout=0.3", "smiles_config.hidden_dropout=0.2"]
    assert main([*arguments, *QUICK, *changes, "--collator", "smiles_augmentation=0.5"]) == 0
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.classifier_dropout == 0.3
    assert config.smiles_config.hidden_dropout == 0.2
    settings = json.loads((tmp_path / "out" / "report" / "metrics.json").read_text())["settings"]
    assert settings["collator_options"] == {"smiles_augmentation": 0.5}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--labels", "y"], "infomax-3d-descriptors-mini"),
        (["--labels", "y", "--smiles-column", "a", "b"], "mm-deacon-mini"),
        (["--task", "conformer-generation"], "uni-mol-mini"),
        (["--labels", "y", "--model", "grover-mini"], "grover-mini"),
    ],
)
def test_the_default_checkpoint_is_that_of_the_task(options, expected):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert checkpoint_of(parser.parse_args(["data.csv", "--output", "out", *options])) == expected
    hf_molrep.checkpoint_path(expected)
