"""Augmentation of molecular graphs: what is changed, what is kept, and that nothing hangs."""

import numpy as np
import pytest

from hf_molrep.data.augmentation import (
    delete_bonds,
    hops_from,
    mask_atoms,
    mask_bonds_of,
    part_of,
    remove_subgraph,
)
from hf_molrep.feature_extraction import MolGraphFeatureExtractor

MASK = (118, 0)
SMILES = {
    "drug": "CC(=O)Oc1ccccc1C(=O)O",
    "salt": "CCCCCCCCCCCCCC(=O)[O-].[Na+]",
    "ions": "[Na+].[Cl-]",
    "one atom": "C",
    "no bonds": "[Na+].[Na+].[O-2]",
}


def feature(smiles: str) -> dict:
    return MolGraphFeatureExtractor("pretrain_gnns").featurize([smiles])[0]


def unchanged(before: dict, kept: dict) -> bool:
    return all(np.array_equal(before[key], kept[key]) for key in kept)


def columns(molecule: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms `[atoms, 2]`, ends of the edges `[2, edges]`, edges `[edges, 2]`."""
    edges = np.asarray(molecule["edge_index"]).reshape(2, -1)
    x = np.asarray(molecule["x"]).reshape(-1, 2)
    return x, edges, np.asarray(molecule["edge_attr"]).reshape(-1, 2)


@pytest.fixture(params=SMILES, ids=list(SMILES))
def molecule(request) -> dict:
    return feature(SMILES[request.param])


def test_masked_atoms(molecule):
    before = {key: np.array(value) for key, value in molecule.items()}
    count = max(1, molecule["num_nodes"] // 4)
    changed, places = mask_atoms(molecule, np.random.default_rng(0), count, MASK)
    x, x_before = columns(changed)[0], columns(molecule)[0]
    assert len(set(places.tolist())) == count
    assert (x[places] == MASK).all()
    rest = np.setdiff1d(np.arange(len(x)), places)
    assert np.array_equal(x[rest], x_before[rest])
    assert changed["x"].dtype == molecule["x"].dtype
    assert all(np.array_equal(before[key], molecule[key]) for key in before), "the molecule itself was changed"
    assert np.array_equal(changed["edge_index"], molecule["edge_index"])
    with pytest.raises(ValueError):  # noqa: PT011 - NumPy's words
        mask_atoms(molecule, np.random.default_rng(0), molecule["num_nodes"] + 1, MASK)


def test_masked_among(molecule):
    _, places = mask_atoms(molecule, np.random.default_rng(0), 1, MASK, among=np.array([molecule["num_nodes"] - 1]))
    assert places.tolist() == [molecule["num_nodes"] - 1]


def test_deleted_bonds(molecule):
    _, edges, attributes = columns(molecule)
    bonds = edges.shape[1] // 2
    changed = delete_bonds(molecule, np.random.default_rng(0), bonds // 4)
    _, kept, kept_attributes = columns(changed)
    assert kept.shape[1] == edges.shape[1] - 2 * (bonds // 4)
    assert np.array_equal(kept[:, ::2], kept[::-1, 1::2])  # still in pairs
    known = {(*ends, *attribute) for ends, attribute in zip(edges.T.tolist(), attributes.tolist(), strict=True)}
    found = {(*ends, *attribute) for ends, attribute in zip(kept.T.tolist(), kept_attributes.tolist(), strict=True)}
    assert found <= known
    assert columns(delete_bonds(molecule, np.random.default_rng(0), bonds))[1].shape == (2, 0)
    assert np.array_equal(changed["x"], molecule["x"])


def test_removed_subgraph(molecule):
    atoms = molecule["num_nodes"]
    for center in range(atoms):
        reachable = int((hops_from(molecule, center) >= 0).sum())
        changed, removed = remove_subgraph(molecule, np.random.default_rng(0), max(1, atoms // 4), MASK, center)
        x, kept, _ = columns(changed)
        assert removed[0] == center
        assert len(removed) == min(reachable, max(1, atoms // 4))  # a small fragment ends it
        assert (x[removed] == MASK).all()
        assert not np.isin(kept, removed).any()
        _, edges, _ = columns(molecule)
        assert kept.shape[1] == (~np.isin(edges, removed).any(axis=0)).sum()
        # nearest first
        assert (np.diff(hops_from(molecule, center)[removed]) >= 0).all()
    nothing, removed = remove_subgraph(molecule, np.random.default_rng(0), 0, MASK)
    assert len(removed) == 0
    assert unchanged(molecule, {key: nothing[key] for key in ("x", "edge_index", "edge_attr")})


def test_masked_bonds(molecule):
    _, edges, attributes = columns(molecule)
    changed, bonds = mask_bonds_of(molecule, np.array([0]), (5, 0))
    hit = (edges == 0).any(axis=0)
    assert np.array_equal(bonds, np.flatnonzero(hit)[::2])
    _, _, after = columns(changed)
    assert (after[hit] == (5, 0)).all()
    assert np.array_equal(after[~hit], attributes[~hit])


def test_hops():
    assert hops_from(feature("CCCO.C"), 0).tolist() == [0, 1, 2, 3, -1]
    assert hops_from(feature("C1CCCCC1"), 2).tolist() == [2, 1, 0, 1, 2, 3]


def test_part(molecule):
    whole = part_of(molecule, np.ones(molecule["num_nodes"], dtype=bool))
    assert unchanged(whole, {key: molecule[key] for key in ("x", "edge_index", "edge_attr", "z", "num_nodes")})
    nothing = part_of(molecule, np.zeros(molecule["num_nodes"], dtype=bool))
    assert nothing["num_nodes"] == len(nothing["x"]) == len(nothing["edge_index"]) == 0


def test_part_is_renumbered():
    ethanol, oxygen = feature("CCO"), np.array([False, True, True])
    part = part_of(ethanol, oxygen)
    assert np.asarray(part["edge_index"]).reshape(2, -1).tolist() == [[0, 1], [1, 0]]
    assert part["z"].tolist() == [6, 8]
    assert columns(part)[0].tolist() == [[5, 0], [7, 0]]


def test_same_seed_same_view(molecule):
    def view(seed: int) -> dict:
        rng = np.random.default_rng(seed)
        changed, _ = remove_subgraph(molecule, rng, molecule["num_nodes"] // 4, MASK)
        return delete_bonds(changed, rng, len(changed["edge_index"]) // 8)

    assert unchanged(view(1), {key: view(1)[key] for key in ("x", "edge_index", "edge_attr")})
