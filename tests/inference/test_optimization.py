"""Improving molecules: what counts as an improvement; the command, the pairs and the example."""

import json
import runpy
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from hf_molrep.chem.properties import properties
from hf_molrep.chem.smiles import inchikey_block
from hf_molrep.cli import main
from hf_molrep.inference import generation
from hf_molrep.inference.optimization import Goal, improvements
from tests.models.x_mol.tiny import save_tiny_checkpoint

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("writer"))


def test_improvements_are_better_and_similar():
    source, relatives = "CCCCCCCC", ["CCCCCCCCO", "CCCCCCC", "c1ccncc1", "CCCCCCCCCCCC"]
    own, found = improvements(source, relatives, Goal("qed", min_similarity=0.4))
    values = dict(zip([source, *relatives], properties([source, *relatives], "qed"), strict=True))
    assert own == pytest.approx(values[source])
    assert [each.smiles for each in found] == [
        text for text in sorted(relatives, key=values.get, reverse=True) if values[text] > own and text != "c1ccncc1"
    ]
    assert all(each.similarity >= 0.4 for each in found)
    _, smaller = improvements(source, relatives, Goal("logp", minimize=True))
    assert [each.value for each in smaller] == sorted(each.value for each in smaller)
    assert improvements(source, [], Goal()) == (own, [])
    with pytest.raises(ValueError, match="the property is qed or logp"):
        Goal("mass")
    with pytest.raises(ValueError, match="min_similarity is between 0 and 1"):
        Goal(min_similarity=2)


def test_the_command_writes_improvements(checkpoint, tmp_path, monkeypatch, capsys):
    """A model that always writes the same relatives; one of them is better and similar."""
    texts = [("CCCCCCCCO", -1.0), ("OCCCCCCCC", -1.5), ("c1ccncc1", -2.0), ("C1CC", -3.0)]
    monkeypatch.setattr(generation, "write_texts", lambda model, processor, prompts, *_: [texts for _ in prompts])
    source, output = tmp_path / "in.csv", tmp_path / "out.parquet"
    source.write_text("name,smiles\na,CCCCCCCC\nb,C1CC\nc,CCO\n")
    given = [source, output, "--model", checkpoint, "--device", "cpu", "--quiet"]
    assert main(["optimize", *map(str, given)]) == 0
    assert "2 of 3 molecules read, 1 of them improved" in capsys.readouterr().out
    rows = pq.read_table(output).to_pylist()
    assert list(rows[0]) == [
        *("name", "smiles", "smiles_used", "error", "qed", "improved", "improved_qed", "similarity"),
    ]
    assert rows[0]["improved"] == ["CCCCCCCCO"]
    assert rows[0]["improved_qed"][0] > rows[0]["qed"]
    assert rows[1]["improved"] is None
    assert rows[2]["improved"] == []
    assert (tmp_path / "out.parquet.png").stat().st_size > 1000


def test_pairs_of_a_given_column(tmp_path, monkeypatch):
    """A column with the name of the property is used as it is; targets reach a value; no InChI is no reason to stop."""
    monkeypatch.chdir(tmp_path)
    smiles = [*("C" * length + "O" for length in range(3, 33)), "CCCCCCCCCCO*"]
    table = pd.DataFrame({"smiles": smiles, "score": [float(len(text)) for text in smiles]})
    table.to_parquet("molecules.parquet")
    prepare = runpy.run_path(str(EXAMPLES / "recipes" / "prepare_similar_pairs.py"))["main"]
    given = ["molecules.parquet", "--property", "score", "--min-gain", "2", "--validation-fraction", "0"]
    prepare([*given, "--minimize", "--target-value", "8", "--targets", "2", "--min-similarity", "0.3"])
    pairs = pd.read_parquet("pairs/train.parquet")
    assert len(pairs) > 5
    assert pairs.groupby("smiles").size().max() == 2
    assert (pairs.target_smiles.str.len() <= 8).all()
    assert (pairs.smiles.str.len() - pairs.target_smiles.str.len() == pairs.gain).all()
    assert json.loads(Path("pairs/exclusions.json").read_text())["left out: has no InChI"] == 1
    with pytest.raises(SystemExit):
        prepare(["molecules.parquet", "--property", "mass"])


def test_pairs_are_made_and_learned(checkpoint, tmp_path, monkeypatch, capsys):
    """From molecules to pairs, through `pretrain` to a model that has read them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    smiles = [f"{'C' * left}{middle}{'C' * right}" for left in range(1, 7) for right in range(1, 7) for middle in "ONS"]
    pd.DataFrame({"smiles": [*smiles, "C1CC"]}).to_parquet("molecules.parquet")
    pd.DataFrame({"smiles": ["COC"]}).to_parquet("evaluated.parquet")
    prepare = runpy.run_path(str(EXAMPLES / "recipes" / "prepare_similar_pairs.py"))["main"]
    prepare(
        ["molecules.parquet", "--exclude", "evaluated.parquet", "--min-gain", "0.02", "--validation-fraction", "0.1"]
    )
    pairs = pd.concat([pd.read_parquet(f"pairs/{part}.parquet") for part in ("train", "validation")])
    assert len(pairs) > 8
    assert "COC" not in {*pairs.smiles, *pairs.target_smiles}
    gains = properties(pairs.target_smiles, "qed") - properties(pairs.smiles, "qed")
    assert (gains >= 0.02).all()
    assert json.loads(Path("pairs/exclusions.json").read_text())["train"] > 4
    assert not set(map(inchikey_block, pd.read_parquet("pairs/train.parquet").smiles)) & set(
        map(inchikey_block, pd.read_parquet("pairs/validation.parquet").smiles)
    )

    given = ["--model", checkpoint, "--train_data", "pairs/train.parquet", "--output_dir", "optimizer", "--use_cpu"]
    given += ["--max_steps", "2", "--per_device_train_batch_size", "4", "--bf16", "False", "--report_to", "none"]
    read = []
    from hf_molrep.models.x_mol.collation_x_mol import XMolDataCollator

    texts = XMolDataCollator._texts
    monkeypatch.setattr(XMolDataCollator, "_texts", lambda self, row: read.append(texts(self, row)) or read[-1])
    assert main(["pretrain", "x_mol", *given]) == 0
    assert len(read) >= 8  # batches may be made ahead
    assert set(read) <= set(zip(pairs.smiles, pairs.target_smiles, strict=True))

    capsys.readouterr()
    example = runpy.run_path(str(EXAMPLES / "optimize_molecule.py"))["main"]
    example(["CCOCC", "--model", "optimizer", "--number", "3"])
    assert "CCOCC  QED 0." in capsys.readouterr().out
    assert Path("improved.png").stat().st_size > 1000
