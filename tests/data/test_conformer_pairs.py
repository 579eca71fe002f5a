"""Reference conformers from a table, their atoms in any order, and what is paired with them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_molrep.chem.conformer_clustering import rmsd_in_order
from hf_molrep.chem.conformers import generate_conformers
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.data.conformer_pairs import conformer_pairs, read_ensembles, read_molecules
from hf_molrep.models.uni_mol import UniMolFeatureExtractor

SMILES = {"a": "CC(C)CO", "b": "c1ccccc1O"}


def write_table(path, smiles: dict[str, str] = SMILES, conformers: int = 2):
    """RDKit's conformers, hydrogens included, each with its atoms shuffled; gives the heavy ones back in order."""
    rng, rows, truth = np.random.default_rng(0), [], {}
    for name, text in smiles.items():
        (found,) = generate_conformers([text], cache=None, num_conformers=conformers)
        truth[name] = found.pos[:, found.z > 1]
        for pos in found.pos:
            order = rng.permutation(len(found.z))
            z, pos = found.z[order].tolist(), pos[order].ravel().tolist()
            rows.append({"name": name, "smiles": text, "atomic_numbers": z, "coordinates": pos})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return truth


def test_table_to_rows(tmp_path):
    path = tmp_path / "table.parquet"
    truth = write_table(path)
    assert read_molecules(path) == SMILES
    (phenol,), refused = read_ensembles(path, ["b", "not there"])
    assert (phenol.name, phenol.smiles, refused.total()) == ("b", SMILES["b"], 0)
    ensembles, _ = read_ensembles(path)
    assert [ensemble.name for ensemble in ensembles] == ["a", "b"]

    starts = generate_conformers(list(SMILES.values()), cache=None, num_conformers=2, hydrogens="none")
    rows = conformer_pairs(ensembles, starts, UniMolFeatureExtractor(hydrogens="none"))
    for row, name in zip(rows, SMILES, strict=True):
        target, start = row["target_pos"].reshape(2, -1, 3), row["pos"].reshape(2, -1, 3)
        assert row["smiles"] == SMILES[name]
        # the table holds the same conformers: each lies on its own, atom by atom, whatever the table's order was
        np.testing.assert_allclose(rmsd_in_order(target, truth[name]).min(axis=1), 0, atol=1e-3)
        np.testing.assert_allclose(row["rmsd"].reshape(2, 2), rmsd_in_order(target, start), atol=1e-3)
        assert row["rmsd"].reshape(2, 2).min(axis=1).max() < 1e-3
    failed = [MoleculeError(SMILES["a"], "no"), starts[1]]
    (row,) = conformer_pairs(ensembles, failed, UniMolFeatureExtractor(hydrogens="none"))
    assert row["row_id"] == 1


def test_refused(tmp_path):
    path = tmp_path / "table.parquet"
    write_table(path)
    rows = pq.read_table(path).to_pylist()
    rows[0]["coordinates"] = [0.0] * len(rows[0]["coordinates"])
    rows[2]["smiles"] = rows[3]["smiles"] = "c1ccccc1S"
    pq.write_table(pa.Table.from_pylist(rows), path)
    (ensemble,), refused = read_ensembles(path)
    assert ensemble.conformers.pos.shape == (1, 5, 3)
    assert refused.total() == 3
    starts = generate_conformers(["CCO"], cache=None, hydrogens="none")
    with pytest.raises(ValueError, match="different atoms"):
        conformer_pairs([ensemble], starts, UniMolFeatureExtractor(hydrogens="none"))
    rows[3]["smiles"] = SMILES["b"]
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(ValueError, match="b has two SMILES, c1ccccc1S and c1ccccc1O"):
        read_molecules(path)
