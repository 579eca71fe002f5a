"""`hf-molrep finetune`: its options, pairs of molecules, reference conformers."""

import argparse
import dataclasses
import json

import numpy as np
import pytest
from transformers import AutoConfig

from hf_molrep import AutoModelForConformerGeneration, AutoModelForMoleculeInteractionPrediction
from hf_molrep.cli import finetune as command
from hf_molrep.cli import main
from hf_molrep.training.settings import ConformerSettings, FinetuningSettings
from tests.cli.test_finetune import QUICK, _parts, read_csv, write_csv
from tests.data.test_conformer_pairs import write_table
from tests.models.mm_deacon.tiny import save_tiny_checkpoint
from tests.training.test_reference_conformers import MOLECULES, save_start


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), pre_training=True)


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(["data.csv", "--output", "out", *options])


def test_options_are_the_settings():
    """Without options the defaults of the settings, of the task that is asked for; each field has one option."""
    assert command.settings_of(parsed()) == FinetuningSettings()
    assert command.settings_of(parsed("--task", "conformer-generation")) == ConformerSettings()
    given = ["--learning-rate", "0.5", "--no-bf16", "--patience", "3", "--from-scratch", "--pool", "7"]
    given += ["--config", "a.b=1", "c=x", "--task", "conformer-generation"]
    assert command.settings_of(parsed(*given)) == ConformerSettings(
        learning_rate=0.5,
        bf16=False,
        patience=3,
        from_scratch=True,
        pool=7,
        config_overrides={"a": {"b": 1}, "c": "x"},
    )
    with pytest.raises(ValueError, match="--pool is an option of --task conformer-generation"):
        command.settings_of(parsed("--pool", "7"))


def test_help_says_every_default(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    told = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(ConformerSettings):
        words = field.metadata["help"].replace("-", "- ").split()[:3]  # lines are broken at hyphens too
        assert " ".join(words).replace("- ", "-") in told.replace("- ", "-"), field.name
    assert "passes over the training part (30; conformer- generation: 50)" in told
    assert "of head, order and dropout (0)" in told


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A table of pairs with a class that is a text, one molecule that is none, a gap, and a pair turned round."""
    folder = tmp_path_factory.mktemp("pairs")
    ends = {"O": "alcohol", "N": "amine", "Cl": "chloride"}
    molecules = [f"{'C' * carbons}{end}" for carbons in range(1, 5) for end in ends]
    rows = [
        {
            "id": f"{row:03d}",
            "drug": first,
            "partner": second,
            "kind": ends[next(end for end in ends if first.endswith(end))],
            "both": int(first.endswith("O") and second.endswith("O")),
        }
        for row, (first, second) in enumerate((a, b) for a in molecules for b in molecules[:6])
    ]
    rows[3]["partner"], rows[7]["kind"] = "C1CC", ""
    rows.append(rows[8] | {"drug": rows[8]["partner"], "partner": rows[8]["drug"]})
    return folder, write_csv(folder / "pairs.csv", rows), rows


def test_pairs_with_classes(checkpoint, pairs, capsys):
    folder, data, rows = pairs
    columns = ["--smiles-column", "drug", "partner"]
    split = folder / "split.json"
    assert main(["split", str(data), str(split), *columns, "--kind", "random"]) == 0
    output = folder / "out"
    arguments = ["finetune", data, *columns, "--labels", "kind", "--model", checkpoint, "--output", output]
    assert main([*map(str, arguments), "--split", str(split), *QUICK]) == 0
    told = capsys.readouterr()
    assert "single_label_classification, 72 pairs, 1 skipped" in told.err
    assert "hf-molrep predict" not in told.out  # which reads one molecule per row
    model = AutoModelForMoleculeInteractionPrediction.from_pretrained(output)
    assert model.config.id2label == {0: "alcohol", 1: "amine", 2: "chloride"}

    report = output / "report"
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["task"] == "interaction-prediction"
    assert metrics["selected_by"] == "macro_f1"
    assert set(metrics["test"]) == {"macro_f1", "accuracy"}
    assert metrics["settings"]["classes"] == ["alcohol", "amine", "chloride"]
    assert metrics["rows"]["without_any_label"] == 1
    parts = _parts(report)
    usable = [row for row in range(len(rows)) if row != 3]
    unordered = {frozenset((rows[row]["drug"], rows[row]["partner"])) for row in usable}
    assert metrics["rows"]["repeating_a_molecule"] == len(usable) - len(unordered)
    turned = [next(part for part in parts if usable.index(row) in parts[part]) for row in (8, len(rows) - 1)]
    assert turned[0] == turned[1]
    assert {path.name for path in report.iterdir()} >= {"learning_curve.png", "split.json"}
    assert not (report / "roc.png").exists()

    predicted = read_csv(report / "predictions.csv")
    assert [int(row["row"]) - 1 for row in predicted] == [usable[index] for index in parts["test"]]
    right = [row["predicted_kind"] == row["kind"] for row in predicted if row["kind"]]
    assert metrics["test"]["accuracy"] == pytest.approx(np.mean(right))
    assert all(1 / 3 <= float(row["probability_kind"]) <= 1 for row in predicted)
    (skipped,) = read_csv(report / "skipped.csv")
    assert (skipped["row"], skipped["smiles"]) == ("4", "C1CC")

    assert main(["push", str(output), "tester/pairs", "--dry-run"]) == 2
    assert "holds a model for interaction-prediction: write its card" in capsys.readouterr().err


def test_pairs_with_labels_of_0_and_1(checkpoint, pairs, tmp_path):
    _, data, _ = pairs
    columns = ["--smiles-column", "drug", "partner", "--labels", "both", "--split", "random"]
    arguments = ["finetune", str(data), "--model", checkpoint, "--output", str(tmp_path / "out"), *columns, *QUICK]
    assert main(arguments) == 0
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.problem_type, config.id2label) == ("multi_label_classification", {0: "both"})
    assert (tmp_path / "out" / "report" / "roc.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smiles-column", "drug", "partner", "--labels", "both", "--task", "regression"], "one molecule at a time"),
        (["--smiles-column", "drug", "--labels", "kind", "--task", "multiclass"], "property-prediction is regression"),
        (["--smiles-column", "drug", "other", "--labels", "both"], "no column 'other'"),
        (["--smiles-column", "drug", "drug", "--labels", "both"], "'drug' is named twice"),
        (["--smiles-column", "drug", "partner", "--labels", "kind", "both"], "row 1: label 'kind' is 'alcohol'"),
        (["--smiles-column", "drug"], "--labels names the columns"),
        (["--task", "conformer-generation", "--labels", "both"], "has no label columns"),
        (["--smiles-column", "drug", "--task", "conformer-generation"], "SMILES in the column 'smiles'"),
    ],
)
def test_bad_tables_are_named(checkpoint, pairs, tmp_path, capsys, options, message):
    arguments = ["finetune", str(pairs[1]), "--model", checkpoint, "--output", str(tmp_path / "out"), *QUICK]
    assert main([*arguments, "--split", "random", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "report").exists()


def test_a_method_without_the_task(checkpoint, tmp_path, capsys):
    write_table(tmp_path / "table.parquet", MOLECULES)
    arguments = ["finetune", str(tmp_path / "table.parquet"), "--task", "conformer-generation", "--model", checkpoint]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--quiet"]) == 2
    assert "mm_deacon has no model for conformer-generation" in capsys.readouterr().err


def test_conformers_and_a_stopped_run(tmp_path, monkeypatch, capsys):
    from hf_molrep.training import finetuning

    molecules = {f"molecule {size}": f"OCC1{'C' * (size - 2)}N1" for size in range(3, 13)}
    write_table(tmp_path / "table.parquet", molecules)
    start, cache = save_start(tmp_path / "start"), str(tmp_path / "cache")
    arguments = ["finetune", str(tmp_path / "table.parquet"), "--task", "conformer-generation", "--model", start]
    arguments += ["--pool", "3", "--epochs", "2", "--batch-size", "4", "--cache", cache, "--split", "random", "--quiet"]
    assert main([*arguments, "--output", str(tmp_path / "whole")]) == 0
    told = capsys.readouterr()
    assert "conformer-generation, 10 molecules, 0 skipped; train 8, valid 1, test 1" in told.err
    assert "rmsd_start" in told.out
    metrics = json.loads((tmp_path / "whole" / "report" / "metrics.json").read_text())
    assert metrics["rows"]["read"] == 20  # two conformers of each
    assert set(metrics["test"]) == {"loss", "coordinate", "distance", "rmsd_start", "rmsd"}
    assert metrics["settings"]["learning_rate"] == ConformerSettings().learning_rate
    assert AutoModelForConformerGeneration.from_pretrained(tmp_path / "whole").config.num_recycles == 2
    (row,) = read_csv(tmp_path / "whole" / "report" / "predictions.csv")
    assert row["name"] in molecules
    assert float(row["rmsd"]) == pytest.approx(metrics["test"]["rmsd"], rel=1e-5)

    original, calls = finetuning.MoleculeTrainer.training_step, []

    def stop_in_the_second_epoch(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning.MoleculeTrainer, "training_step", stop_in_the_second_epoch)
        assert main([*arguments, "--output", str(tmp_path / "out")]) == 130
    assert main([*arguments, "--output", str(tmp_path / "out"), "--resume", "--pool", "2"]) == 2
    assert "pool was 3 and is 2" in capsys.readouterr().err
    assert main([*arguments, "--output", str(tmp_path / "out"), "--resume"]) == 0
    whole, continued = (read_csv(tmp_path / name / "report" / "predictions.csv") for name in ("whole", "out"))
    assert whole == continued
