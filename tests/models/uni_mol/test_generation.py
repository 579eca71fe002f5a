"""SMILES to conformers: whose atoms they are, and that each is what the model makes of one conformer."""

import numpy as np
import pytest
import torch

from hf_molrep.chem.conformer_clustering import clustered_conformers
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.models.uni_mol import UniMolFeatureExtractor, generate_conformers, move_conformers
from tests.models.uni_mol.test_conformer_generation import build

SMILES = ["OCCCC", "CCO.Cl", "c1ccccc1O"]


def test_generated(tmp_path):
    model, processor = build().train(), UniMolFeatureExtractor(hydrogens="none")
    options = {"pool": 4, "seed": 1, "cache": tmp_path / "cache", "on_error": "skip"}
    mols = generate_conformers(model, processor, SMILES, 2, batch_size=3, **options)
    assert model.training, "left as it was"
    assert "fragment" in mols[1].reason
    starts = clustered_conformers(SMILES, 2, **options)
    for text, mol, start in ((SMILES[k], mols[k], starts[k]) for k in (0, 2)):
        assert mol.GetNumConformers() == len(start.pos) <= 2
        assert [atom.GetSymbol() for atom in mol.GetAtoms()] == [letter.upper() for letter in text if letter.isalpha()]
        for conformer, pos in zip(mol.GetConformers(), start.pos, strict=True):
            inputs = dict(processor(z=[start.z], pos=[pos], return_tensors="pt"))
            with torch.no_grad():
                expected = model.eval()(**inputs).coordinates[0, 1:-1].numpy()
            np.testing.assert_allclose(conformer.GetPositions(), expected, atol=1e-5)
            assert np.abs(expected - inputs["pos"][0, 1:-1].numpy()).max() > 0.01
    with pytest.raises(MoleculeError, match="fragment"):
        generate_conformers(model, processor, SMILES, 2, **options | {"on_error": "raise"})
    with_hydrogens = clustered_conformers(SMILES[:1], 1, 1, cache=tmp_path / "cache", hydrogens="all")
    with pytest.raises(ValueError, match="leaves atoms out"):
        move_conformers(model, processor, with_hydrogens)
    with pytest.raises(ValueError, match="with all hydrogens or without"):
        generate_conformers(model, UniMolFeatureExtractor(hydrogens="polar"), SMILES, 2)


def test_with_hydrogens(tmp_path):
    (mol,) = generate_conformers(
        build(), UniMolFeatureExtractor(hydrogens="all"), ["CO"], 1, pool=1, cache=tmp_path / "cache"
    )
    assert mol.GetNumAtoms() == 6
    assert mol.GetNumConformers() == 1
