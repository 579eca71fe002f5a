"""Edits that make pairs, distances, and the published pairs themselves."""

import json

import numpy as np
import pytest

from benchmarks import distinguish
from benchmarks.harness.report import SPLITS
from hf_molrep.chem import canonical_smiles, inchikey, molecular_formula
from tests.models.mm_deacon.tiny import save_tiny_checkpoint


@pytest.mark.parametrize(
    ("edit", "smiles", "expected"),
    [
        ("enantiomers", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
        ("enantiomers", "CCO", None),
        ("enantiomers", "C[C@H](O)[C@H](C)O", "C[C@@H](O)[C@@H](C)O"),
        ("E/Z", "C/C=C/C", "C/C=C\\C"),
        ("E/Z", "CC=CC", None),
        ("salts", "CC(=O)O", "CC(=O)[O-].[Na+]"),
        ("salts", "CCN", "CC[NH3+].[Cl-]"),
        ("salts", "CC(N)=O", None),
        ("charge states", "CC(=O)O", "CC(=O)[O-]"),
        ("charge states", "CN(C)C", "C[NH+](C)C"),
        ("isotopes", "CO", "[2H]C([2H])([2H])O"),
        ("isotopes", "OCO", None),
        ("tautomers", "Oc1ccccn1", "O=c1cccc[nH]1"),
    ],
)
def test_edits(edit, smiles, expected):
    found = distinguish.EDITS[edit](smiles)
    assert found == (None if expected is None else canonical_smiles(expected))


def test_a_meso_compound_has_no_enantiomer():
    assert distinguish.enantiomer("C[C@H](O)[C@@H](C)O") is None


def test_distances():
    first = np.array([[1.0, 0.0], [3.0, 0.0], [1.0, 0.0], [0.3, 0.4]], dtype=np.float32)
    second = np.array([[1.0, 0.0], [0.0, 2.0], [-5.0, 0.0], [0.3, 0.4]], dtype=np.float32)
    assert distinguish.distances(first, second) == pytest.approx([0, 1, 2, 0])
    assert distinguish.distances(first, first).tolist() == [0, 0, 0, 0]
    assert distinguish.tanimoto_distances(["C[C@H](N)O"], ["C[C@@H](N)O"], chirality=False).tolist() == [0.0]
    assert distinguish.tanimoto_distances(["C[C@H](N)O"], ["C[C@@H](N)O"], chirality=True)[0] > 0


def test_published_pairs_are_what_they_are_called():
    pairs = distinguish.read_pairs(SPLITS / "distinguish_pairs.csv")
    assert {kind: len(members) for kind, members in pairs.items()} == dict.fromkeys(
        [*distinguish.EDITS, "rewriting", "isomers", "other molecules"], 100
    )
    for first, second in pairs["rewriting"]:
        assert canonical_smiles(first) == canonical_smiles(second)
    for kind in ("enantiomers", "E/Z"):
        for first, second in pairs[kind]:
            one, two = inchikey(first), inchikey(second)
            assert one[:14] == two[:14]
            assert one != two or canonical_smiles(first) != canonical_smiles(second)
    for first, second in [*pairs["tautomers"], *pairs["isomers"]]:
        assert molecular_formula(first) == molecular_formula(second)
        assert canonical_smiles(first) != canonical_smiles(second)
    for first, second in pairs["salts"]:
        assert "." in second
        assert "." not in first
    for _, second in pairs["isotopes"]:
        assert second.count("[2H]") == 3


def test_the_command_sees_what_the_model_sees(tmp_path):
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    (tmp_path / "pairs.csv").write_text(
        "kind,smiles,partner\n"
        "enantiomers,C[C@H](N)C(=O)O,C[C@@H](N)C(=O)O\nenantiomers,C[C@H](O)CC,C[C@@H](O)CC\n"
        "rewriting,CCO,OCC\nrewriting,CCN,NCC\nother molecules,CCO,c1ccccc1\nother molecules,CC,CCCl\n"
    )
    arguments = ["--model", checkpoint, "--pairs", str(tmp_path / "pairs.csv"), "--results", str(tmp_path)]
    assert distinguish.main([*arguments, "--threads", "1"]) == 0
    raw = json.loads((tmp_path / "distinguish.json").read_text())
    assert raw["rewriting"]["embedding"] == [0.0, 0.0]  # the processor writes both alike
    assert min(raw["enantiomers"]["embedding"]) > distinguish.SEEN
