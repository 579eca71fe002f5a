"""Read reference conformers from a table, and pair them with starting conformers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..chem.conformer_clustering import mol_with_conformers, rmsd_in_order
from ..chem.conformer_metrics import permute_equivalent_atoms
from ..chem.conformers import Conformers
from ..chem.coordinates import given_conformers
from ..chem.smiles import MoleculeError


class Ensemble(NamedTuple):
    """
    Reference conformers of one molecule, with its name and SMILES in the table; atoms in the order of the SMILES.
    """

    name: str
    smiles: str
    conformers: Conformers


def read_molecules(path: str | os.PathLike) -> dict[str, str]:
    """
    Read the names and SMILES of the molecules of a table of conformers, in its order.

    Raises:
        ValueError: a name with two SMILES.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["name", "smiles"]).to_pydict()
    found: dict[str, str] = {}
    for name, smiles in zip(table["name"], table["smiles"], strict=True):
        if found.setdefault(name, smiles) != smiles:
            raise ValueError(f"{name} has two SMILES, {found[name]} and {smiles}")
    return found


def read_ensembles(
    path: str | os.PathLike, names: Sequence[str] | None = None, hydrogens: str = "none"
) -> tuple[list[Ensemble], Counter]:
    """
    Read the conformers of a Parquet table, one per row: `name`, `smiles`, `atomic_numbers` and `coordinates` (flat,
    angstrom, in any order of the atoms).

    Args:
        names: of the molecules to read, by default all.
        hydrogens: which to keep, see [`~hf_molrep.chem.coordinates.given_conformers`].
    Returns:
        the molecules that have at least one conformer, in the order of `names`; and the number of conformers left out
        for each reason why coordinates do not fit their SMILES.
    """
    import pyarrow.parquet as pq

    filters = None if names is None else [("name", "in", list(names))]
    columns = ["name", "smiles", "atomic_numbers", "coordinates"]
    table = pq.read_table(path, columns=columns, filters=filters).to_pylist()
    parts: dict[str, list[tuple[str, Conformers]]] = {}
    refused: Counter = Counter()
    for row in table:
        try:
            given = given_conformers(row["atomic_numbers"], row["coordinates"], row["smiles"], hydrogens)
        except MoleculeError as error:
            refused[error.reason] += 1
        else:
            parts.setdefault(row["name"], []).append((row["smiles"], given))
    found = []
    for name in parts if names is None else names:
        if name not in parts:
            continue
        smiles, first = parts[name][0]
        pos = np.concatenate([given.pos for _, given in parts[name]])
        found.append(Ensemble(name, smiles, first._replace(pos=pos)))
    return found, refused


def conformer_pairs(
    ensembles: Sequence[Ensemble], starts: Sequence[Conformers | MoleculeError], processor
) -> list[dict]:
    """
    Make training rows: the features of the starting conformers, `target_pos` float32 `[references * atoms * 3]`, `rmsd`
    float32 `[references * starts]`, `smiles`, `row_id`.

    Equivalent atoms of each reference are permuted so that it comes nearest to one of the starting conformers (a loss
    compares atom i with atom i); `rmsd` is that of the permuted atoms.

    Args:
        starts: of each molecule, with the atoms of its references; molecules with a `MoleculeError` are left out.
        processor: a feature extractor with `featurize_one(z, pos)`.
    Raises:
        ValueError: other atoms than those of the references.
    """
    rows = []
    for row_id, (ensemble, start) in enumerate(zip(ensembles, starts, strict=True)):
        if isinstance(start, MoleculeError):
            continue
        reference = ensemble.conformers
        if not np.array_equal(reference.z, start.z):
            raise ValueError(f"{ensemble.name}: starting and reference conformers have different atoms")
        target = permute_equivalent_atoms(mol_with_conformers(ensemble.smiles, start), reference.pos, start.pos)
        feature = processor.featurize_one(start.z, start.pos)
        if len(feature["z"]) != len(start.z):
            raise ValueError(f"{ensemble.name}: the feature extractor leaves atoms out (hydrogens?)")
        rmsd = rmsd_in_order(target, start.pos)
        rows.append(
            feature
            | {
                "target_pos": target.astype(np.float32).ravel(),
                "rmsd": rmsd.astype(np.float32).ravel(),
                "smiles": ensemble.smiles,
                "row_id": row_id,
            }
        )
    return rows
