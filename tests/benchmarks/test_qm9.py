"""The QM9 benchmark: parts that share no molecule, nested draws, a run that continues."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import qm9
from hf_molrep import UniMolFeatureExtractor
from hf_molrep.chem.conformers import generate_conformers
from hf_molrep.models.uni_mol import UniMolForPreTraining
from tests.models.uni_mol.tiny import tiny_config

TAILS = ["O", "N", "C#N", "C=O", "C(C)=O", "OC", "C#C", "C1CC1", "NC=O", "C(C)O"]
SMILES = [f"{'C' * n}{tail}" for n in range(1, 6) for tail in TAILS]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder in the form of QM9's: geometries, targets, some without lumo and gap."""
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_MOLREP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(qm9, "PRETRAINING", 12)
    monkeypatch.setattr(qm9, "VALID", 0.2)
    monkeypatch.setattr(qm9, "TEST", 0.3)
    found = generate_conformers(SMILES, force_field="none", progress=False)
    table = pd.DataFrame({"mol_id": [f"gdb_{n + 1}" for n in range(len(SMILES))], "smiles": SMILES})
    table["atomic_numbers"] = [result.z for result in found]
    table["coordinates"] = [result.pos.ravel() for result in found]
    sizes = np.array([len(result.z) for result in found], dtype=np.float64)
    table["homo"], table["lumo"], table["gap"] = -0.01 * sizes, 0.001 * sizes, 0.011 * sizes
    table["g4mp2_atomization_energy"] = -0.2 * sizes
    table.loc[::5, ["lumo", "gap"]] = np.nan
    folder = tmp_path / "data" / "qm9_3d"
    folder.mkdir(parents=True)
    table.to_parquet(folder / "qm9_3d.parquet")
    return table


def test_parts_share_no_molecule(monkeypatch):
    monkeypatch.setattr(qm9, "PRETRAINING", 100)
    blocks = [f"block{n // 2}" for n in range(400)]
    labelled = np.arange(400) % 8 != 0
    parts = np.array(qm9.divide(blocks, labelled))
    for part in ("test", "valid", "train"):
        assert labelled[parts == part].all()
        assert (parts == part).any()
    held_out = {block for block, part in zip(blocks, parts, strict=True) if part in ("test", "valid")}
    learned = {block for block, part in zip(blocks, parts, strict=True) if part in ("pretrain", "train")}
    assert not held_out & learned


def test_pretraining_takes_the_unlabelled_first(monkeypatch):
    monkeypatch.setattr(qm9, "PRETRAINING", 60)
    blocks = [f"block{n}" for n in range(400)]
    labelled = np.arange(400) % 8 != 0
    parts = np.array(qm9.divide(blocks, labelled))
    assert (parts == "pretrain").sum() == 60
    assert set(parts[~labelled]) <= {"pretrain", ""}


def test_what_is_written_for_pretraining(tmp_path, data):
    arguments = ["--write-pretraining", str(tmp_path / "part"), "--splits", str(tmp_path / "splits")]
    assert qm9.main(arguments) == 0
    written = pd.read_parquet(tmp_path / "part" / "molecules.parquet")
    held_out = set(pd.read_parquet(tmp_path / "part" / "held_out.parquet").inchikey_block)
    assert len(written) == 12
    assert held_out
    assert not held_out & set(written.inchikey_block)


def test_it_runs_and_continues(tmp_path, data, monkeypatch):
    UniMolForPreTraining(tiny_config()).save_pretrained(tmp_path / "tiny")
    UniMolFeatureExtractor().save_pretrained(tmp_path / "tiny")
    arguments = ["--model", str(tmp_path / "tiny"), "--splits", str(tmp_path / "splits"), "--results", str(tmp_path)]
    arguments += ["--sizes", "12", "--seeds", "0", "1", "--trials", "1", "--epochs", "1", "--updates", "2"]
    arguments += ["--trees", "5", "--resamples", "50", "--cache", str(tmp_path / "cache.jsonl"), "--threads", "1"]
    assert qm9.main(arguments) == 0
    report = (tmp_path / "qm9.md").read_text()
    assert "random weights" in report
    assert "descriptors + GB" in report
    assert "Improvement" in report
    results = json.loads((tmp_path / "qm9.json").read_text())["results"]
    assert {(entry["column"], entry.get("source")) for entry in results} == {
        ("pre-trained", "rdkit"),
        ("random weights", "rdkit"),
        ("pre-trained", "dft"),
        ("random weights", "dft"),
        ("Morgan + RF", None),
        ("descriptors + GB", None),
    }
    assert all(np.array(entry["mae_mev"]).shape == (2, 3) and np.min(entry["mae_mev"]) > 0 for entry in results)
    monkeypatch.setattr(qm9, "errors", None)  # everything is known
    assert qm9.main(arguments) == 0


def test_improvement_of_known_errors():
    own, other = np.full((2, 50), 0.5), np.full((2, 50), 1.0)
    assert qm9.improvement(own, other, 20) == pytest.approx((50.0, 50.0, 50.0))
    rng = np.random.default_rng(0)
    same = rng.random((2, 200))
    _, low, high = qm9.improvement(same, rng.permuted(same, axis=1), 200)
    assert low < 0 < high
