"""The 200 normalised descriptors, against the numbers of descriptastorus."""

from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors, rdMolDescriptors

from hf_molrep.chem import MoleculeError
from hf_molrep.chem.descriptors import DESCRIPTOR_NAMES, normalized_descriptors, target_descriptors, target_names


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """
    `RDKit2DNormalized().process(smiles)[1:]` of descriptastorus for 15 molecules, among them salts, a betaine, single
    atoms, a radical, an azide, a metal complex and a long peptide, with `names`, and the `versions` that computed them.
    """
    with np.load(Path(__file__).parent / "goldens" / "descriptors.npz") as arrays:
        return dict(arrays)


def test_values_are_those_of_descriptastorus(golden):
    assert len(DESCRIPTOR_NAMES) == 200
    assert golden["names"].tolist() == list(DESCRIPTOR_NAMES) == sorted(DESCRIPTOR_NAMES)
    found = normalized_descriptors(golden["smiles"].tolist())
    assert (found.dtype, found.shape) == (np.float32, (len(golden["smiles"]), 200))
    expected = golden["values"]
    assert np.isnan(expected).any()  # partial charges of the platinum complex
    np.testing.assert_allclose(found, np.where(np.isnan(expected), 0.0, expected), atol=1e-5)  # as GROVER reads them


def test_unbranched_chains_are_counted_as_the_fit_counted_them(golden):
    """RDKit now counts chains of carbon only; `CCOCCOCCOCCOC` has none."""
    chain = golden["smiles"].tolist().index("CCOCCOCCOCCOC")
    column = DESCRIPTOR_NAMES.index("fr_unbrch_alkane")
    found = normalized_descriptors(["CCOCCOCCOCCOC", "CO"])[:, column]
    assert found[0] == pytest.approx(golden["values"][chain, column], abs=1e-5)
    assert found[0] > found[1] + 0.1


def test_each_molecule_by_itself(golden):
    """Molecules and SMILES, one by one and together, give the same; a molecule stays as it was."""
    smiles = golden["smiles"].tolist()
    together = normalized_descriptors(smiles)
    mols = [Chem.MolFromSmiles(text) for text in smiles]
    np.testing.assert_array_equal(np.concatenate([normalized_descriptors([mol]) for mol in mols]), together)
    assert not any(mol.HasProp("_GasteigerCharge") or vars(mol) for mol in mols)
    assert not any(atom.HasProp("_GasteigerCharge") for mol in mols for atom in mol.GetAtoms())
    assert normalized_descriptors([]).shape == (0, 200)
    with pytest.raises(MoleculeError):
        normalized_descriptors(["CCO", "C1CC"])


def test_what_rdkit_cannot_compute_is_zero(monkeypatch):
    def fails(mol):
        raise ZeroDivisionError

    functions = [lambda mol: float("inf"), lambda mol: float("-inf"), fails, *[lambda mol: float("nan")] * 197]
    monkeypatch.setattr("hf_molrep.chem.descriptors._functions", lambda: functions)
    found = normalized_descriptors(["CCO"])[0]
    assert found[0] > 0.99  # the highest value that the distribution was fitted to
    assert 0 <= found[1] < 0.01
    assert not found[2:].any()


def test_targets_are_rdkits_own(golden):
    """Each from a molecule of its own, so that nothing left by another function counts; salts and metals too."""
    smiles, names = golden["smiles"].tolist(), target_names()
    assert len(set(names)) == len(names) > 400
    found = target_descriptors(smiles)
    assert (found.dtype, found.shape) == (np.float64, (len(smiles), len(names)))
    known = dict(Descriptors.descList)
    for column, name in enumerate(names):
        for row, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text)
            if name.startswith("MQN"):
                expected = rdMolDescriptors.MQNs_(mol)[int(name[3:]) - 1]
            elif name.startswith("AUTOCORR2D_"):
                expected = rdMolDescriptors.CalcAUTOCORR2D(mol)[int(name[11:]) - 1]
            else:
                expected = known[name](mol)
            if np.isfinite(expected):
                assert found[row, column] == pytest.approx(expected, rel=1e-9, abs=1e-9), (name, text)
            else:
                assert np.isnan(found[row, column]), (name, text)


def test_targets_that_rdkit_cannot_compute_are_missing(monkeypatch):
    def fails(mol):
        raise ZeroDivisionError

    functions = {"one": fails, "two": lambda mol: float("inf"), "three": lambda mol: 3}
    monkeypatch.setattr("hf_molrep.chem.descriptors._target_functions", lambda: functions)
    found = target_descriptors(["CCO"])[0]
    assert np.isnan(found[4:6]).all()
    assert found[6] == 3
    with pytest.raises(MoleculeError):
        target_descriptors(["C1CC"])
