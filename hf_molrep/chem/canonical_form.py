"""The canonical form of a molecule, in which conformers are computed and cached, and the mapping back to its input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from .smiles import MoleculeError, _drop_atom_maps, rdkit_log_off

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MAX_EMBEDDED_ATOMS = 1_000  # hydrogens included; memory grows with the square, time with the cube
POLAR_NEIGHBORS = (7, 8, 9, 16, 17, 34, 35, 53)  # N, O, F, S, Cl, Se, Br, I

Hydrogens = Literal["all", "none", "polar"]


class CanonicalForm(NamedTuple):
    """
    A molecule in canonical atom order, and the mapping from its rows to the result.

    Attributes:
        smiles: canonical SMILES of the fragment.
        z: uint8 `[rows]`, of the canonical form with all hydrogens.
        take: int64 `[rows]`, rows of the canonical form in the order of the result.
        index, flags: as in `Conformers`.
    """

    smiles: str
    z: np.ndarray
    take: np.ndarray
    index: np.ndarray
    flags: tuple[str, ...]


def _atoms(mol: Mol) -> list:
    return list(map(mol.GetAtomWithIdx, range(mol.GetNumAtoms())))  # three times as fast as GetAtoms()


def _largest_fragment(mol: Mol) -> tuple[Mol, list[int]]:
    """
    Copy the largest fragment; also return the indices of its atoms in `mol`. Fragments are compared by: contains
    carbon; number of atoms, hydrogens included; mass; canonical SMILES.
    """
    from rdkit import Chem
    from rdkit.Chem.Descriptors import MolWt

    atom_indices: list[tuple[int, ...]] = []
    fragments = Chem.GetMolFrags(mol, asMols=True, fragsMolAtomMapping=atom_indices)

    def rank(number: int) -> tuple:
        fragment = fragments[number]
        atoms = list(fragment.GetAtoms())
        carbon = any(atom.GetAtomicNum() == 6 for atom in atoms)
        size = len(atoms) + sum(atom.GetTotalNumHs() for atom in atoms)
        return carbon, size, MolWt(fragment), Chem.MolToSmiles(fragment)

    best = max(range(len(fragments)), key=rank)
    return fragments[best], list(atom_indices[best])


def _without_plain_hydrogens(mol: Mol) -> tuple[Mol, list[int]]:
    """Copy without the hydrogens that a SMILES would not write as atoms; return the others' indices in `mol` too."""
    from rdkit import Chem

    marked = Chem.Mol(mol)
    for atom in marked.GetAtoms():
        atom.SetIntProp("_index", atom.GetIdx())
    with rdkit_log_off:
        bare = Chem.RemoveHs(marked)
    return bare, [atom.GetIntProp("_index") for atom in bare.GetAtoms()]


def canonical_form(mol: Mol, text: str, hydrogens: Hydrogens, fragments: str) -> CanonicalForm:
    """
    Compute the canonical form of a molecule, or of its largest fragment.

    Args:
        text: the molecule in error messages.
        hydrogens, fragments: as in `ConformerSettings`.
    Raises:
        MoleculeError: no atoms, an atom that is no element, more than `MAX_EMBEDDED_ATOMS`, or more than one fragment
            where that is refused.
    """
    from rdkit import Chem

    numbers = [atom.GetAtomicNum() for atom in _atoms(mol)]
    if not numbers:
        raise MoleculeError(text, "no atoms")
    if 0 in numbers:
        raise MoleculeError(text, f"atom {numbers.index(0)} is not an element: it cannot have coordinates")
    bare, input_index = mol, None
    explicit = 1 in numbers
    if explicit:
        bare, input_index = _without_plain_hydrogens(mol)
    flags: tuple[str, ...] = ()
    smiles = Chem.MolToSmiles(bare)
    if ":" in smiles and any(atom.GetAtomMapNum() for atom in _atoms(bare)):  # or an aromatic bond
        bare = _drop_atom_maps(bare)
        smiles = Chem.MolToSmiles(bare)
    if "." in smiles:
        if fragments == "refuse":
            raise MoleculeError(text, "more than one fragment")
        bare, atoms = _largest_fragment(bare)
        input_index = atoms if input_index is None else [input_index[atom] for atom in atoms]
        smiles, flags = Chem.MolToSmiles(bare), ("fragment",)
    # canonical atom k is atom order[k] of `bare`
    order = [int(number) for number in bare.GetProp("_smilesAtomOutputOrder").strip("[], ").split(",")]
    atoms = _atoms(bare)
    count = len(atoms)
    input_index = list(range(count)) if input_index is None else input_index
    numbers = [atom.GetAtomicNum() for atom in atoms]
    implied = [atom.GetTotalNumHs() for atom in atoms]
    total = count + sum(implied)
    if total > MAX_EMBEDDED_ATOMS:
        raise MoleculeError(text, f"{total:,} atoms with hydrogens, more than the limit of {MAX_EMBEDDED_ATOMS:,}")
    z = np.array([numbers[k] for k in order] + [1] * (total - count), dtype=np.uint8)
    canonical_row, first_hydrogen, row = [0] * count, [0] * count, count
    for position, k in enumerate(order):
        canonical_row[k], first_hydrogen[k] = position, row
        row += implied[k]

    def kept(parent: int) -> bool:
        return hydrogens == "all" or (hydrogens == "polar" and parent in POLAR_NEIGHBORS)

    rows: list[tuple[int, int]] = []  # index in the input, row of the canonical form
    added: list[int] = []
    remaining = set(input_index)
    for k, number in enumerate(numbers):
        if number == 1:
            parents = [neighbor.GetAtomicNum() for neighbor in atoms[k].GetNeighbors()]
            if parents and parents[0] > 1 and not kept(parents[0]):
                continue
        rows.append((input_index[k], canonical_row[k]))
        if not implied[k] or (number > 1 and not kept(number)):
            continue
        hydrogen_rows = range(first_hydrogen[k], first_hydrogen[k] + implied[k])
        taken = 0
        if explicit:
            neighbors = mol.GetAtomWithIdx(input_index[k]).GetNeighbors()
            written = sorted({atom.GetIdx() for atom in neighbors if atom.GetAtomicNum() == 1} - remaining)
            rows += zip(written, hydrogen_rows, strict=False)
            taken = len(written)
        added += hydrogen_rows[taken:]
    rows.sort()
    take = np.array([row for _, row in rows] + added, dtype=np.int64)
    index = np.array([number for number, _ in rows] + [-1] * len(added), dtype=np.int32)
    return CanonicalForm(smiles, z, take, index, flags)
