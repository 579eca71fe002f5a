"""Augmentation of graphs: counts, what is kept, salts, single atoms, no bonds."""

import numpy as np
import pytest

from hf_molrep import MolCLRDataCollator, MolCLRFeatureExtractor
from hf_molrep.data.augmentation import delete_bonds, hops_from, mask_atoms, mask_bonds_of, part_of, remove_subgraph

MASK = (118, 0)
EXTRACTOR = MolCLRFeatureExtractor(canonical=False)  # atoms in the order of the SMILES


def feature(smiles: str) -> dict:
    return EXTRACTOR.featurize({"smiles": [smiles]})[0]


def bonds(changed: dict) -> set[tuple[int, int]]:
    """The bonds, after looking that each stands twice, in pairs, with the same attributes."""
    ends = np.asarray(changed["edge_index"]).reshape(2, -1)
    assert (ends[:, ::2] == ends[::-1, 1::2]).all()
    attributes = np.asarray(changed["edge_attr"]).reshape(-1, 2)
    assert len(attributes) == ends.shape[1]
    assert (attributes[::2] == attributes[1::2]).all()
    return {tuple(pair) for pair in ends[:, ::2].T.tolist()}


def masked(changed: dict) -> set[int]:
    x = np.asarray(changed["x"]).reshape(-1, 2)
    return set(np.flatnonzero((x == MASK).all(axis=1)).tolist())


def test_masking_and_deleting():
    given = feature("CC(=O)Oc1ccccc1C(=O)O")
    before = {key: np.array(value) for key, value in given.items() if isinstance(value, np.ndarray)}
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        hidden, places = mask_atoms(given, rng, 3, MASK)
        assert masked(hidden) == set(places.tolist())
        assert len(masked(hidden)) == 3
        assert bonds(hidden) == bonds(given)
        cut = delete_bonds(given, rng, 4)
        assert len(bonds(cut)) == 9
        assert bonds(cut) < bonds(given)
        assert not masked(cut)
        seen |= masked(hidden)
    assert seen == set(range(13))
    assert masked(mask_atoms(given, rng, 2, MASK, among=np.array([4, 7]))[0]) == {4, 7}
    for key, value in before.items():  # the row itself is not touched
        np.testing.assert_array_equal(given[key], value)
    with pytest.raises(ValueError, match="larger sample"):
        mask_atoms(given, rng, 14, MASK)
    with pytest.raises(ValueError, match="larger sample"):
        delete_bonds(given, rng, 14)


def test_subgraph():
    """Atoms go shell by shell from the center, with their bonds."""
    chain = feature("CCCCCCCC")
    changed, gone = remove_subgraph(chain, np.random.default_rng(0), 3, MASK, center=3)
    assert gone.tolist()[0] == 3
    assert set(gone.tolist()) == masked(changed) == {2, 3, 4}
    assert bonds(changed) == {(0, 1), (5, 6), (6, 7)}
    _, two = remove_subgraph(chain, np.random.default_rng(0), 2, MASK, center=0)
    assert two.tolist() == [0, 1]
    last = {tuple(remove_subgraph(chain, np.random.default_rng(seed), 2, MASK, 3)[1].tolist()) for seed in range(9)}
    assert last == {(3, 2), (3, 4)}


def test_subgraph_of_a_salt_ends():
    """The original looks for more atoms forever where the fragment of the center is too small."""
    salt = feature("[Na+].CCCCCCCCCCCC(=O)[O-]")
    changed, gone = remove_subgraph(salt, np.random.default_rng(0), 4, MASK, center=0)
    assert gone.tolist() == [0]
    assert masked(changed) == {0}
    assert bonds(changed) == bonds(salt)
    assert remove_subgraph(feature("C"), np.random.default_rng(0), 1, MASK)[1].tolist() == [0]
    assert remove_subgraph(salt, np.random.default_rng(0), 0, MASK)[1].tolist() == []


@pytest.mark.parametrize("augmentation", ["node", "subgraph", "mix"])
@pytest.mark.parametrize("smiles", ["C", "CC", "[Na+].[Cl-]", "CCO", "CC(=O)Oc1ccccc1C(=O)O", "[Na+].CC(=O)[O-]"])
def test_views(augmentation, smiles):
    """Two views of every molecule, with as many atoms as it has, and the numbers that the original asks for."""
    given = feature(smiles)
    atoms, count = given["num_nodes"], len(bonds(given))
    collator = MolCLRDataCollator(EXTRACTOR, augmentation=augmentation)
    for epoch in range(20):
        collator.epoch = epoch
        first, second = collator.views(given, collator.generator({"row_id": 7}))
        again = collator.views(given, collator.generator({"row_id": 7}))
        for view, same in zip((first, second), again, strict=True):
            assert all(np.array_equal(view[key], same[key]) for key in view)
            assert len(view["x"]) == 2 * atoms
            assert bonds(view) <= bonds(given)
            if augmentation == "node":
                assert len(masked(view)) == max(1, atoms // 4)
                assert len(bonds(view)) == count - count // 4
            elif augmentation == "subgraph":
                assert len(masked(view)) <= atoms // 4
                assert not any(end in masked(view) for bond in bonds(view) for end in bond)
            else:
                assert len(masked(view)) == atoms // 4
                assert len(bonds(view)) <= max(count - count // 4, 0)
    if atoms > 4:
        assert any(
            not np.array_equal(*(view["x"] for view in collator.views(given, collator.generator({"row_id": row_id}))))
            for row_id in range(5)
        ), "the two views are the same"


def test_unknown_augmentation():
    with pytest.raises(ValueError, match="augmentation is"):
        MolCLRDataCollator(EXTRACTOR, augmentation="edge")
    with pytest.raises(ValueError, match="'row_id'"):
        MolCLRDataCollator(EXTRACTOR)([{"smiles": "CC"}])


MOLECULES = {
    "drug": "CC(=O)Oc1ccccc1C(=O)O",
    "salt": "CCCCCCCCCCCCCC(=O)[O-].[Na+]",
    "ions": "[Na+].[Cl-]",
    "one atom": "C",
    "no bonds": "[Na+].[Na+].[O-2]",
}


@pytest.fixture(params=MOLECULES, ids=list(MOLECULES))
def molecule(request) -> dict:
    return feature(MOLECULES[request.param])


def unchanged(before: dict, kept: dict) -> bool:
    return all(np.array_equal(before[key], kept[key]) for key in kept)


def columns(molecule: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms `[atoms, 2]`, ends of the edges `[2, edges]`, edges `[edges, 2]`."""
    edges = np.asarray(molecule["edge_index"]).reshape(2, -1)
    x = np.asarray(molecule["x"]).reshape(-1, 2)
    return x, edges, np.asarray(molecule["edge_attr"]).reshape(-1, 2)


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
