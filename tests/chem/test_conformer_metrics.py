"""Distances of conformers, coverage and matching, clusters: cases whose answer is known."""

import numpy as np
import pytest

from hf_molrep.chem.conformer_clustering import (
    cluster_conformers,
    clustered_conformers,
    conformer_pools,
    mol_with_conformers,
    rmsd_in_order,
    rotations_onto,
)
from hf_molrep.chem.conformer_metrics import best_rmsd, coverage_and_matching, permute_equivalent_atoms
from hf_molrep.chem.conformers import Conformers, generate_conformers
from hf_molrep.chem.smiles import MoleculeError, parse


def turned(pos: np.ndarray, seed: int = 0, reflect: bool = False) -> np.ndarray:
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    matrix[:, 0] *= np.sign(np.linalg.det(matrix)) * (-1 if reflect else 1)
    return pos @ matrix.T + 2.5


def as_mol(smiles: str, pos: np.ndarray):
    z = np.array([atom.GetAtomicNum() for atom in parse(smiles).GetAtoms()], dtype=np.uint8)
    pos = np.asarray(pos, dtype=float).reshape(-1, len(z), 3)
    return mol_with_conformers(smiles, Conformers(z, pos, np.arange(len(z), dtype=np.int32), smiles, "3d"))


# ---- distances


def test_two_atoms_by_hand():
    """A bond of 1 against one of 1.6 angstrom: each atom is 0.3 off."""
    short, long = np.array([[[0.0, 0, 0], [1.0, 0, 0]]]), np.array([[[5.0, 5, 5], [5.0, 6.6, 5]]])
    assert rmsd_in_order(short, long) == pytest.approx(np.array([[0.3]]))
    assert best_rmsd(as_mol("CO", short), as_mol("CO", long)) == pytest.approx(np.array([[0.3]]), abs=1e-6)


def test_only_proper_rotations():
    pos = np.random.default_rng(0).standard_normal((3, 7, 3))
    assert np.diag(rmsd_in_order(pos, turned(pos))) == pytest.approx(np.zeros(3), abs=1e-6)
    assert (np.diag(rmsd_in_order(pos, turned(pos, reflect=True))) > 0.1).all()
    matrices, _ = rotations_onto(pos, turned(pos, reflect=True) - 2.5)
    assert np.linalg.det(matrices) == pytest.approx(np.ones(3))


def test_equivalent_atoms_are_exchanged():
    """Two methyl groups of isobutane in the other order: the same conformer to one measure, another to the other."""
    pos = np.random.default_rng(1).standard_normal((1, 4, 3))
    other = turned(pos[:, [3, 1, 2, 0]])
    first, second = as_mol("CC(C)C", pos), as_mol("CC(C)C", other)
    before = first.GetConformer().GetPositions()
    assert best_rmsd(first, second) == pytest.approx(np.zeros((1, 1)), abs=1e-6)
    assert np.array_equal(first.GetConformer().GetPositions(), before), "what is given does not move"
    assert rmsd_in_order(pos, other)[0, 0] > 0.1
    again = permute_equivalent_atoms(first, other, np.concatenate([pos + 10.0, pos * 1.5]))
    assert rmsd_in_order(pos, again)[0, 0] == pytest.approx(0.0, abs=1e-6)


def test_distances_are_of_heavy_atoms():
    """Hydrogens anywhere: they do not count."""
    with_hydrogens = generate_conformers(["CCO"], cache=None)[0]
    mol = mol_with_conformers("CCO", with_hydrogens)
    assert mol.GetNumAtoms() == 9
    pos = with_hydrogens.pos.copy()
    pos[:, 3:] += np.random.default_rng(0).standard_normal(pos[:, 3:].shape)
    assert best_rmsd(mol, mol_with_conformers("CCO", with_hydrogens, pos)).max() < 1e-4
    assert best_rmsd(mol, as_mol("CCO", with_hydrogens.pos[:, :3])).max() < 1e-4


def test_refused():
    with pytest.raises(ValueError, match="different molecules"):
        best_rmsd(as_mol("CO", np.eye(3)[:2]), as_mol("CN", np.eye(3)[:2]))
    with pytest.raises(ValueError, match="without conformers"):
        best_rmsd(parse("CO"), as_mol("CO", np.eye(3)[:2]))
    carbon_alone = Conformers(np.array([6]), np.zeros((1, 1, 3)), np.array([0]), "C", "3d")
    with pytest.raises(MoleculeError, match="not every atom has coordinates"):
        mol_with_conformers("[2H]C", carbon_alone)


# ---- coverage and matching


def test_coverage_and_matching_by_hand():
    rmsd = np.array([[0.1, 0.9, 2.0], [0.5, 0.7, 1.5]])  # two generated, three references
    found = coverage_and_matching(rmsd, [0.1, 0.5, 1.0])
    assert found["mat_recall"] == pytest.approx((0.1 + 0.7 + 1.5) / 3)
    assert found["cov_recall"] == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert found["mat_precision"] == pytest.approx((0.1 + 0.5) / 2)
    assert found["cov_precision"] == pytest.approx([1 / 2, 1, 1])
    for nothing in (np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3)):
        with pytest.raises(ValueError, match="there must be generated and reference conformers"):
            coverage_and_matching(nothing, [1.0])


# ---- clusters


def test_clusters_are_found():
    """Three shapes, each many times, turned at random: one of each, the same again with the same seed."""
    rng = np.random.default_rng(0)
    shapes = 2.0 * rng.standard_normal((3, 8, 3))
    of = rng.integers(3, size=40)
    pos = np.stack([turned(shapes[k] + 0.01 * rng.standard_normal((8, 3)), seed) for seed, k in enumerate(of)])
    chosen = cluster_conformers(pos, 3, seed=1)
    assert sorted(of[chosen]) == [0, 1, 2]
    assert np.array_equal(chosen, cluster_conformers(pos, 3, seed=1))
    assert np.array_equal(cluster_conformers(pos[:2], 3), [0, 1])
    assert len(cluster_conformers(np.repeat(pos[:1], 10, axis=0), 3)) == 1, "fewer differ than are wanted"
    with pytest.raises(ValueError, match="count must be 1 or more"):
        cluster_conformers(pos, 0)


def test_pools(tmp_path):
    """Conformers as embedded, then minimised ones; a few of them; molecules that have none are named."""
    smiles = ["CCCCO", "CCO.Cl", "not a molecule"]
    pools = conformer_pools(smiles, 4, seed=1, cache=tmp_path / "cache", on_error="skip")
    assert pools[0].pos.shape == (5, 5, 3)
    assert pools[0].energies is None
    plain = generate_conformers(smiles[:1], cache=None, seed=1, hydrogens="none", force_field="none")[0]
    assert np.array_equal(pools[0].pos[:1], plain.pos)
    assert "fragment" in pools[1].reason
    assert isinstance(pools[2], MoleculeError)
    few = clustered_conformers(smiles, 2, 4, seed=1, cache=tmp_path / "cache", on_error="skip")
    assert few[0].pos.shape == (2, 5, 3)
    assert all((pools[0].pos == pos).all(axis=(1, 2)).any() for pos in few[0].pos)
    with pytest.raises(MoleculeError, match="fragment"):
        conformer_pools(smiles, 4, cache=tmp_path / "cache")
    assert mol_with_conformers("CCCCO", few[0]).GetNumConformers() == 2
