"""Scaled descriptors: clipped, standardised, cut, saved with the processor."""

import numpy as np
import pytest
from transformers import AutoFeatureExtractor

from hf_molrep.chem.descriptors import target_descriptors, target_names
from hf_molrep.models.molclr import MolCLRConfig, MolCLRFeatureExtractor
from hf_molrep.processing.descriptors import fit_scaling, scaled_descriptors

SMILES = ["CCO", "c1ccccc1O", "CC(=O)[O-].[Na+]", "C[C@H](N)C(=O)O", "CCCCCCCCCC", "C", "Clc1ccncc1", "NC(=O)c1ccccc1"]


def test_scaling_by_hand(monkeypatch):
    """A thousand and one values, an outlier and a gap; a constant and a column without values are no targets."""
    values = np.arange(1001.0)[:, None] * [1.0, 0.0, 2.0, np.nan]
    values[7, 2], values[1000, 0] = np.nan, 1e9
    monkeypatch.setattr("hf_molrep.processing.descriptors.target_names", lambda: ("a", "b", "c", "d"))
    monkeypatch.setattr("hf_molrep.processing.descriptors.target_descriptors", lambda mols: values[list(mols)])
    scaling = fit_scaling(range(1001))
    assert scaling["names"] == ["a", "c"]
    assert scaling["low"][0] == pytest.approx(1)
    assert scaling["high"][0] == pytest.approx(999)
    clipped = np.clip(np.arange(1001.0), 1, 999)
    assert scaling["mean"][0] == pytest.approx(clipped.mean())
    assert scaling["std"][0] == pytest.approx(clipped.std())
    found = scaled_descriptors([0, 7, 1000], scaling)
    assert found.dtype == np.float32
    assert found[:, 0] == pytest.approx((np.array([1, 7, 999]) - clipped.mean()) / clipped.std(), abs=1e-6)
    assert np.isnan(found[1, 1])
    scaling["std"] = [1.0, 1.0]
    assert scaled_descriptors([0, 500, 1000], scaling)[:, 0] == pytest.approx([-6, 0, 6], abs=1e-6)
    with pytest.raises(ValueError, match="no descriptor differs"):
        fit_scaling([3, 3])


def test_scaling_is_saved_and_loaded(tmp_path):
    learned = MolCLRFeatureExtractor().fit_descriptors([*SMILES, "C1CC"])
    learned.with_descriptors().save_pretrained(tmp_path)
    MolCLRConfig(**learned.config_fields()).save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.descriptor_scaling == learned.descriptor_scaling
    assert loaded.config_fields() == {"num_descriptors": len(learned.descriptor_scaling["names"])}
    np.testing.assert_array_equal(loaded.descriptors(SMILES), learned.descriptors(SMILES))
    assert "descriptors" not in loaded.featurize({"smiles": ["CCO"]})[0]
    assert "descriptor_scaling" not in MolCLRFeatureExtractor().to_dict()
    loaded.descriptor_scaling["names"][0] = "of another version"
    with pytest.raises(ValueError, match="this version of RDKit has no descriptor of another version"):
        loaded.descriptors(["CCO"])


def test_targets_of_the_standardised_molecule():
    """With the graph, a refused molecule in between; explicit hydrogens are of the graph alone."""
    extractor = MolCLRFeatureExtractor(explicit_hydrogens=True).fit_descriptors(SMILES)
    scaling = extractor.descriptor_scaling
    found = extractor.with_descriptors().featurize({"smiles": ["OCC", "C1CC", "c1ccccc1O"]}, "skip")
    expected = scaled_descriptors(["CCO", "Oc1ccccc1"], scaling)
    np.testing.assert_allclose(np.stack([found[0]["descriptors"], found[2]["descriptors"]]), expected, atol=1e-5)
    assert not isinstance(found[1], dict)
    place, name = target_names().index("HeavyAtomCount"), scaling["names"].index("HeavyAtomCount")
    atoms = target_descriptors(["CCO"])[0, place]
    assert atoms == 3
    z = (atoms - scaling["mean"][name]) / scaling["std"][name]
    assert found[0]["descriptors"][name] == pytest.approx(z, abs=1e-6)
