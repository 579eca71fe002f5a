"""Scaffolds, Morgan fingerprints, drawings."""

import struct

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import AllChem

from hf_molrep.chem import fingerprints
from hf_molrep.chem.drawing import draw_grid
from hf_molrep.chem.fingerprints import morgan_fingerprints, tanimoto
from hf_molrep.chem.scaffold import scaffold
from hf_molrep.chem.smiles import MoleculeError

SMILES = ["CCO", "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O", "c1ccccc1", "*", "[Na+].[Cl-]"]


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CC(C)CCO", ""),
        ("", None),
        ("Cc1ccccc1CCC2CCNC2", "c1ccc(CCC2CCNC2)cc1"),
        ("O=C1CCCCC1C", "O=C1CCCCC1"),
        ("CC1CC1.CCC", "C1CC1"),
    ],
)
def test_scaffold(smiles, expected):
    if expected is None:
        with pytest.raises(MoleculeError, match="empty"):
            scaffold(smiles)
    else:
        assert scaffold(smiles) == expected


def test_scaffold_with_chirality():
    pair = ["C1CC[C@@H]2CCCC[C@H]2C1", "C1CC[C@@H]2CCCC[C@@H]2C1"]
    assert len({scaffold(smiles) for smiles in pair}) == 1
    assert len({scaffold(smiles, include_chirality=True) for smiles in pair}) == 2


def test_fingerprints_and_tanimoto_are_rdkits():
    fingerprints = morgan_fingerprints(SMILES)
    assert fingerprints.dtype == np.uint8
    assert fingerprints.shape == (5, 2048)
    generator = AllChem.GetMorganGenerator(radius=2, fpSize=2048)
    vectors = [generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in SMILES]
    for row, vector in zip(fingerprints, vectors, strict=True):
        assert np.flatnonzero(row).tolist() == list(vector.GetOnBits())
    expected = [DataStructs.BulkTanimotoSimilarity(vector, vectors) for vector in vectors]
    np.testing.assert_allclose(tanimoto(fingerprints, fingerprints), expected, rtol=1e-6)
    assert tanimoto(np.zeros((1, 8), np.uint8), np.zeros((2, 8), np.uint8)).tolist() == [[0, 0]]
    assert morgan_fingerprints([], size=64).shape == (0, 64)
    with pytest.raises(MoleculeError, match="ring 1 not closed"):
        morgan_fingerprints(["CCO", "C1CC"])


def test_draw_grid(tmp_path):
    path = tmp_path / "grid.png"
    draw_grid(SMILES, [str(number) for number in range(5)], path, columns=3, size=(200, 150))
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (600, 300)
    with pytest.raises(ValueError, match="1 molecules with 0 legends"):
        draw_grid(["C"], [], path)
    with pytest.raises(MoleculeError):
        draw_grid(["C1"], ["bad"], path)


def test_similarity_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    first, second = (rng.random((rows, 40)) < 0.3 for rows in (9, 7))
    first, second = first.astype(np.uint8), second.astype(np.uint8)

    def pair(a, b):
        return (a & b).sum() / (a | b).sum()

    expected = np.array([[pair(a, b) for b in second] for a in first])
    own = np.array([[pair(a, b) for b in first] for a in first])
    others = own - np.eye(len(own)) * own.diagonal()
    for block in (3, 100):
        monkeypatch.setattr(fingerprints, "_BLOCK", block)
        np.testing.assert_allclose(fingerprints.nearest_similarity(first, second), expected.max(axis=1), rtol=1e-6)
        np.testing.assert_allclose(fingerprints.nearest_similarity(first), others.max(axis=1), rtol=1e-6)
        one, two = fingerprints.internal_diversity(first)
        assert one == pytest.approx(1 - own.mean(), rel=1e-6)
        assert two == pytest.approx(1 - np.sqrt((own**2).mean(axis=1)).mean(), rel=1e-6)
    with pytest.raises(ValueError, match="no other molecule"):
        fingerprints.nearest_similarity(first[:1])
