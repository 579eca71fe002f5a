"""`hf-molrep finetune` and `predict` on rows of several molecules, and pairs, which X-MOL reads together."""

import json

import numpy as np
import pytest
from transformers import AutoConfig

from hf_molrep import AutoModelForMoleculeInteractionPrediction
from hf_molrep.cli import main
from hf_molrep.training.finetuning_files import read_table, split_table
from tests.cli.test_finetune import _parts, read_csv, write_csv
from tests.models.mm_deacon.tiny import save_tiny_checkpoint as save_tiny_mm_deacon
from tests.models.x_mol.tiny import save_tiny_checkpoint

PARTS = ["halide", "base", "ligand"]
COLUMNS = ["--smiles-column", *PARTS]
QUICK = ["--epochs", "30", "--batch-size", "16", "--learning-rate", "3e-3", "--no-bf16", "--quiet"]
BAD = 5  # row without a molecule


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def reactions(tmp_path_factory):
    """A yield that depends on which molecule stands in which column; a repeated row, a bad one."""
    alkanes = ["C" * carbons for carbons in range(1, 5)]
    rows = [
        {"halide": f"{a}Cl", "base": f"{b}N", "ligand": f"{c}P", "yield": 10 * len(a) + 3 * len(b) - 5 * len(c)}
        for a in alkanes
        for b in alkanes
        for c in alkanes
    ]
    rows[BAD]["base"] = "C1CC"
    rows.append(dict(rows[9]))
    rows.append(rows[9] | {"halide": rows[9]["base"], "base": rows[9]["halide"]})  # another row: the order counts
    for place, row in enumerate(rows):
        row["part"] = {3: "valid", 4: "test"}.get(place % 5, "train")
    return write_csv(tmp_path_factory.mktemp("reactions") / "reactions.csv", rows), rows


@pytest.fixture(scope="module")
def run(checkpoint, reactions, tmp_path_factory):
    """A model of the yield."""
    output = tmp_path_factory.mktemp("run") / "out"
    arguments = ["finetune", str(reactions[0]), *COLUMNS, "--labels", "yield", "--split", "random", *QUICK]
    assert main([*arguments, "--units", "%", "--model", checkpoint, "--output", str(output)]) == 0
    return output


def test_a_property_of_several_molecules(run, reactions):
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    assert metrics["task"] == "property-prediction"
    assert metrics["settings"]["problem_type"] == "regression"
    assert metrics["test"]["rmse"] < 0.6 * metrics["baseline"]["test"]["rmse"]
    assert metrics["rows"]["skipped"] == 1
    assert metrics["rows"]["repeating_a_molecule"] == 1  # not the one with two molecules exchanged
    assert metrics["rows"]["test_also_in_train"] == 0
    (skipped,) = read_csv(run / "report" / "skipped.csv")
    assert (skipped["row"], skipped["smiles"]) == (str(BAD + 1), "C1CC")
    usable = [row for row in range(len(reactions[1])) if row != BAD]
    test = _parts(run / "report")["test"]
    assert [int(row["row"]) - 1 for row in read_csv(run / "report" / "predictions.csv")] == [usable[i] for i in test]
    assert AutoConfig.from_pretrained(run).molecule_columns == PARTS


def test_predict_reads_the_columns_of_the_checkpoint(run, reactions, tmp_path, capsys):
    data, rows = reactions
    arguments = ["predict", str(data), "--model", str(run), "--device", "cpu", "--quiet"]
    assert main([*arguments[:2], str(tmp_path / "out.csv"), *arguments[2:]]) == 0
    assert f"{len(rows) - 1} of {len(rows)} molecules predicted: yield (%), 1 failed" in capsys.readouterr().out
    predicted = read_csv(tmp_path / "out.csv")
    assert [row["error"] != "" for row in predicted] == [place == BAD for place in range(len(rows))]
    assert (predicted[BAD]["predicted_yield"], predicted[BAD]["smiles_used"]) == ("", "")
    assert predicted[0]["smiles_used"] == "CCl.CN.CP"
    by_row = {int(row["row"]) - 1: float(row["predicted_yield"]) for row in read_csv(run / "report/predictions.csv")}
    for row, value in by_row.items():
        assert float(predicted[row]["predicted_yield"]) == pytest.approx(value, rel=1e-4, abs=1e-4)
    values = np.array([float(row["predicted_yield"]) for row in predicted[-2:]])
    assert abs(values[0] - values[1]) > 1e-3  # two molecules exchanged

    # other names, in the same order
    renamed = [dict(zip(["a", "b", "c"], list(row.values())[:3], strict=True)) for row in rows]
    write_csv(tmp_path / "renamed.csv", renamed)
    arguments = ["predict", str(tmp_path / "renamed.csv"), str(tmp_path / "again.csv"), *arguments[2:]]
    assert main(arguments) == 2
    assert "no column 'halide'" in capsys.readouterr().err
    assert main([*arguments, "--smiles-column", "a", "b"]) == 2
    assert "predicts from 3 molecules (halide, base, ligand) per row: name as many columns, not 2" in (
        capsys.readouterr().err
    )
    assert main([*arguments, "--column", "a"]) == 2
    assert "name as many columns, not 1" in capsys.readouterr().err
    assert main([*arguments, "--smiles-column", "a", "b", "c"]) == 0
    again = [row["predicted_yield"] for row in read_csv(tmp_path / "again.csv")]
    assert again == [row["predicted_yield"] for row in predicted]


def test_a_model_of_several_becomes_one_of_single_molecules(run, reactions, tmp_path):
    """Fine-tuned again on one column, the checkpoint forgets the others."""
    arguments = ["finetune", str(reactions[0]), "--smiles-column", "base", "--labels", "yield", "--split"]
    arguments += ["column:part", "--model", str(run), "--output", str(tmp_path / "out"), *QUICK, "--epochs", "1"]
    assert main(arguments) == 0
    assert AutoConfig.from_pretrained(tmp_path / "out").molecule_columns is None


def test_augmentation_draws_random_smiles_of_every_part(checkpoint, reactions, tmp_path, monkeypatch):
    from hf_molrep.models.x_mol import XMolPropertyCollator

    drawn = []
    original = XMolPropertyCollator._drawn

    def record(self, row):
        drawn.append((self.smiles_augmentation, len(row["smiles"]), original(self, row) is not None))
        return original(self, row)

    monkeypatch.setattr(XMolPropertyCollator, "_drawn", record)
    arguments = ["finetune", str(reactions[0]), *COLUMNS, "--labels", "yield", "--split", "random", *QUICK]
    arguments += ["--epochs", "1", "--collator", "smiles_augmentation=0.5", "--model", checkpoint]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert {row[:2] for row in drawn} == {(0.5, 3)}
    assert {row[2] for row in drawn} == {True, False}


def test_splits_of_several_molecules(reactions, tmp_path, capsys):
    data, rows = reactions
    table = read_table(str(data), PARTS, ["yield"])
    assert table.kind == "parts"
    split = split_table(table, "random")
    part_of = {row: part for part, members in split.parts.items() for row in members}
    usable = [row for row in range(len(rows)) if row != BAD]
    assert part_of[usable.index(9)] == part_of[usable.index(len(rows) - 2)]  # equal rows
    for kind in ("scaffold", "balanced_scaffold"):
        with pytest.raises(ValueError, match=f"a {kind} split is for one molecule per row, or a pair; for 3, use"):
            split_table(table, kind)
    assert main(["split", str(data), str(tmp_path / "split.json"), *COLUMNS]) == 2
    assert "a scaffold split is for one molecule" in capsys.readouterr().err
    assert main(["split", str(data), str(tmp_path / "split.json"), *COLUMNS, "--kind", "random"]) == 0
    assert (split_table(table, str(tmp_path / "split.json")).parts["test"] == split.parts["test"]).all()


def test_two_columns_with_a_number(checkpoint, reactions, tmp_path):
    """`--task regression` makes two columns the parts of a row, not an interaction."""
    table = read_table(str(reactions[0]), ["halide", "base"], ["yield"], "regression")
    assert table.kind == "parts"
    arguments = ["finetune", str(reactions[0]), "--smiles-column", "halide", "base", "--labels", "yield"]
    arguments += ["--task", "regression", "--split", "random", "--model", checkpoint, *QUICK, "--epochs", "1"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert AutoConfig.from_pretrained(tmp_path / "out").molecule_columns == ["halide", "base"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*COLUMNS, "--split", "random"], "MMDeaconProcessor reads one molecule at a time"),
        ([*COLUMNS], "a scaffold split is for one molecule per row"),
        ([*COLUMNS, "base", "--split", "random"], "'base' is named twice"),
        ([*COLUMNS, "--split", "random", "--task", "multiclass"], "property-prediction is regression or"),
    ],
)
def test_what_cannot_be_is_said(reactions, tmp_path, capsys, options, message):
    checkpoint = save_tiny_mm_deacon(tmp_path / "tiny")
    arguments = ["finetune", str(reactions[0]), "--labels", "yield", "--model", checkpoint, *QUICK, *options]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_interaction_of_a_pair_read_together(checkpoint, tmp_path):
    molecules = [f"{'C' * carbons}{end}" for carbons in range(1, 5) for end in "ON"]
    alcohols = ["none", "one", "both"]  # what only the pair tells
    rows = [
        {"a": first, "b": second, "type": alcohols[(first[-1] == "O") + (second[-1] == "O")]}
        for first in molecules
        for second in molecules
    ]
    data = write_csv(tmp_path / "pairs.csv", rows)
    arguments = ["finetune", str(data), "--smiles-column", "a", "b", "--labels", "type", "--split", "random", *QUICK]
    assert main([*arguments, "--model", checkpoint, "--output", str(tmp_path / "out")]) == 0
    model = AutoModelForMoleculeInteractionPrediction.from_pretrained(tmp_path / "out")
    assert type(model).__name__ == "XMolForInteractionPrediction"
    assert model.config.id2label == {0: "both", 1: "none", 2: "one"}
    metrics = json.loads((tmp_path / "out" / "report" / "metrics.json").read_text())
    assert metrics["task"] == "interaction-prediction"
    assert metrics["test"]["accuracy"] > 0.8
