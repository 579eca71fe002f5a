"""
Coordinates given by the user, in an SDF or in columns, checked and converted to `Conformers`.

The checks: they are finite; no two atoms overlap; bonded atoms are near each other (are the columns in the order of the
SMILES?); the stereo is that of the molecule. Atoms in another order than the molecule's are matched by connectivity,
which is reported (`reordered`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .canonical_form import POLAR_NEIGHBORS, Hydrogens
from .conformer_embedding import keeps_stereo
from .conformers import Conformers
from .diagnosis import chemistry_problem
from .elements import formula
from .smiles import MoleculeError, parse, rdkit_log_off

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MIN_DISTANCE = 0.4  # angstrom; the shortest bond, of H2, has 0.74
MAX_BOND = (1.3, 0.3)  # times the sum of the covalent radii, plus angstrom
BOND_PERCEIVED = 1.25  # times the sum of the covalent radii
_MAX_MATCHES = 1_000


def given_conformers(
    z: np.ndarray | Sequence,
    pos: np.ndarray | Sequence,
    molecule: str | Mol | None = None,
    hydrogens: Hydrogens = "all",
) -> Conformers:
    """
    Convert coordinates from columns.

    Args:
        z: `[atoms]`, atomic numbers.
        pos: `[atoms, 3]`, `[conformers, atoms, 3]`, or either flat, angstrom.
        molecule: SMILES or RDKit molecule that they belong to, with all of its fragments. Implied hydrogens may all be
            missing from the coordinates; they are added where `hydrogens` keeps them (`hydrogens_added`). Without a
            molecule only the numbers are checked; rows stay in their order, `smiles` is empty and `index` counts.
        hydrogens: which to keep, as in [`~hf_molrep.chem.conformers.ConformerSettings`]; without a molecule "polar" is
            refused, as bonds are not known.
    Raises:
        MoleculeError: the SMILES cannot be read, or the coordinates cannot be this molecule's; says why.
        ValueError: arrays of the wrong shape; an unknown `hydrogens`.
    """
    if hydrogens not in ("all", "none", "polar"):
        raise ValueError(f'hydrogens must be one of "all", "none", "polar", not {hydrogens!r}')
    z, pos = _arrays(z, pos)
    if molecule is None:
        if hydrogens == "polar":
            raise ValueError("polar hydrogens cannot be identified without the molecule")
        check_coordinates(pos, f"{len(z)} atoms")
        keep = np.ones(len(z), bool) if hydrogens == "all" or not (z > 1).any() else z > 1
        return Conformers(z[keep], pos[:, keep], np.flatnonzero(keep).astype(np.int32), "", "3d", ("given",))
    return _fit_to_molecule(z, pos, molecule, hydrogens)


def conformers_of_mol(mol: Mol, hydrogens: Hydrogens = "all") -> Conformers:
    """
    Convert the conformers of an RDKit molecule, for example of an SDF read with `removeHs=False`. A two-dimensional
    record gets the status "2d".

    Raises:
        MoleculeError: it has none, or they are not this molecule's; says why.
    """
    from rdkit import Chem

    text = Chem.MolToSmiles(mol)
    if not mol.GetNumConformers():
        raise MoleculeError(text, "no coordinates")
    z = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.uint8)
    conformers = list(mol.GetConformers())
    pos = np.stack([conformer.GetPositions() for conformer in conformers]).astype(np.float32)
    flat = not any(conformer.Is3D() for conformer in conformers)
    return _fit_to_molecule(z, pos, mol, hydrogens, flat=flat)


def conformers_of_mol_block(block: str, hydrogens: Hydrogens = "all") -> Conformers:
    """
    Read the coordinates of an MDL mol block (one record of an SDF), with its hydrogens.

    Raises:
        MoleculeError: not a mol block, impossible chemistry, or impossible coordinates; `smiles` holds the title line
            where there is no molecule.
    """
    from rdkit import Chem

    title = block.split("\n", 1)[0].strip()
    with rdkit_log_off:
        try:
            mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
        except RuntimeError:
            mol = None
        if mol is None:
            raise MoleculeError(title, "not a readable mol block")
        if not mol.GetNumAtoms():
            raise MoleculeError(title, "mol block without atoms")
        problem = chemistry_problem(mol)
        if problem:
            raise MoleculeError(title, problem)
        mol = Chem.MolFromMolBlock(block, removeHs=False)
        if mol is None:
            raise MoleculeError(title, "not a readable mol block")
        return conformers_of_mol(mol, hydrogens)


def stereo_from_coordinates(smiles: str, z: np.ndarray | Sequence, pos: np.ndarray | Sequence) -> str:
    """
    Write the canonical SMILES of a molecule with the stereo of its coordinates, for data whose SMILES leave it
    unspecified (QM9 for example).

    Args:
        smiles, z, pos: as in [`~hf_molrep.chem.coordinates.given_conformers`]; the first conformer decides.
    Raises:
        MoleculeError, ValueError: as there.
    """
    from rdkit import Chem

    given = given_conformers(z, pos, smiles)  # in the order of the molecule, hydrogens too
    with rdkit_log_off:
        mol = with_conformers(Chem.AddHs(parse(smiles)), given.pos[:1])
        Chem.AssignStereochemistryFrom3D(mol)
        return Chem.MolToSmiles(Chem.RemoveHs(mol))


def check_coordinates(pos: np.ndarray, text: str, notation: str = "SMILES") -> None:
    """
    Check that `pos` `[conformers, atoms, 3]`, angstrom, can be coordinates.

    Raises:
        MoleculeError: of the molecule `text`: not finite, or two atoms nearer than any bond length.
    """
    if not np.isfinite(pos).all():
        raise MoleculeError(text, "coordinates that are not numbers", notation)
    for conformer in pos:
        distances = _distances(conformer)
        np.fill_diagonal(distances, np.inf)
        nearest = np.unravel_index(distances.argmin(), distances.shape)
        if distances[nearest] < MIN_DISTANCE:
            first, second = sorted(map(int, nearest))
            if np.ptp(conformer, axis=0).max() == 0:
                raise MoleculeError(text, "all atoms at one point: these are no coordinates", notation)
            reason = f"atoms {first} and {second} of the coordinates are {distances[nearest]:.2f} angstrom apart"
            raise MoleculeError(text, reason, notation)


def _arrays(z, pos) -> tuple[np.ndarray, np.ndarray]:
    z, pos = np.asarray(z), np.asarray(pos, dtype=np.float64)
    if z.ndim != 1 or not len(z):
        raise ValueError(f"z must be one-dimensional and not empty, but has the shape {z.shape}")
    if not np.issubdtype(z.dtype, np.integer) or z.min() < 1 or z.max() > 118:
        raise ValueError("z must hold atomic numbers, 1 to 118")
    per_conformer = 3 * len(z)
    fits = pos.ndim == 1 or (pos.ndim in (2, 3) and pos.shape[-2:] == (len(z), 3))
    if not fits or not pos.size or pos.size % per_conformer:
        raise ValueError(f"pos of the shape {pos.shape} does not fit {len(z)} atoms")
    return z.astype(np.uint8), pos.reshape(-1, len(z), 3).astype(np.float32)


def _distances(conformer: np.ndarray) -> np.ndarray:
    difference = conformer[:, None].astype(np.float64) - conformer[None].astype(np.float64)
    return np.sqrt((difference**2).sum(-1))


def _radii(z: np.ndarray) -> np.ndarray:
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    return np.array([table.GetRcovalent(int(number)) for number in z])


def _fit_to_molecule(
    z: np.ndarray, pos: np.ndarray, molecule: str | Mol, hydrogens: str, flat: bool = False
) -> Conformers:
    from rdkit import Chem

    if isinstance(molecule, str):
        mol, text = parse(molecule), molecule
    else:
        mol, text = molecule, Chem.MolToSmiles(molecule)
    check_coordinates(pos, text)
    with rdkit_log_off:
        bare = Chem.Mol(mol)
        bare.RemoveAllConformers()
        full = Chem.AddHs(bare)
    flags = ["given"]
    full_z = np.array([atom.GetAtomicNum() for atom in full.GetAtoms()], dtype=np.uint8)
    explicit_atoms = mol.GetNumAtoms()
    if len(z) == len(full_z):
        reference = full
    elif len(z) == explicit_atoms or Counter(z.tolist()) == Counter(full_z[:explicit_atoms].tolist()):
        reference = bare
    else:
        raise MoleculeError(text, f"coordinates of {formula(z)}, but the molecule is {formula(full_z)}")
    reference_z = full_z[: reference.GetNumAtoms()]
    if Counter(z.tolist()) != Counter(reference_z.tolist()):
        raise MoleculeError(text, f"coordinates of {formula(z)}, but the molecule is {formula(reference_z)}")

    problem = "the elements are in another order, and this is a drawing"
    if np.array_equal(z, reference_z):
        problem = _problem(reference, reference_z, pos, flat)
    if problem:
        order = None if flat else _match(reference, reference_z, z, pos)
        if order is None or isinstance(order, str):
            raise MoleculeError(text, f"coordinates that are not this molecule's: {order or problem}")
        pos = pos[:, order]
        flags.append("reordered")
    if reference is bare and len(full_z) > explicit_atoms and hydrogens != "none":
        pos = _add_hydrogens(bare, pos, flat)
        flags.append("hydrogens_added")
        reference = full
    if flat:
        flags.append("layout")

    count = reference.GetNumAtoms()
    keep = np.ones(count, dtype=bool)
    if hydrogens != "all":
        for atom in reference.GetAtoms():
            neighbors = [neighbor.GetAtomicNum() for neighbor in atom.GetNeighbors()]
            if atom.GetAtomicNum() == 1 and neighbors and neighbors[0] > 1:
                keep[atom.GetIdx()] = hydrogens == "polar" and neighbors[0] in POLAR_NEIGHBORS
    index = np.where(np.arange(count) < explicit_atoms, np.arange(count), -1).astype(np.int32)
    with rdkit_log_off:
        smiles = Chem.MolToSmiles(Chem.RemoveHs(bare))
    return Conformers(
        full_z[:count][keep], pos[:, keep], index[keep], smiles, "2d" if flat else "3d", tuple(flags), None
    )


def with_conformers(mol: Mol, pos: np.ndarray) -> Mol:
    """Copy an RDKit molecule with these conformers only: `[conformers, atoms, 3]`, angstrom, 3D."""
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    mol = Chem.Mol(mol)
    mol.RemoveAllConformers()
    for points in np.asarray(pos, dtype=np.float64).tolist():
        conformer = Chem.Conformer(len(points))
        for atom, point in enumerate(points):
            conformer.SetAtomPosition(atom, Point3D(*point))
        conformer.Set3D(True)
        mol.AddConformer(conformer, assignId=True)
    return mol


def _problem(mol: Mol, z: np.ndarray, pos: np.ndarray, flat: bool) -> str:
    """Explain why coordinates in the order of `mol` are not its own, or "". Drawings have any scale and no stereo."""
    if flat:
        return ""
    bonds = np.array([(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]).reshape(-1, 2)
    if len(bonds):
        radii = _radii(z)
        longest = MAX_BOND[0] * radii[bonds].sum(-1) + MAX_BOND[1]
        for conformer in pos:
            lengths = np.sqrt(((conformer[bonds[:, 0]] - conformer[bonds[:, 1]]) ** 2).sum(-1))
            worst = int((lengths - longest).argmax())
            if lengths[worst] > longest[worst]:
                first, second = bonds[worst].tolist()
                return f"atoms {first} and {second} are bonded, but {lengths[worst]:.2f} angstrom apart"
    with rdkit_log_off:
        if not all(keeps_stereo(with_conformers(mol, conformer[None]), 0) for conformer in pos):
            return "their stereo is different"
    return ""


def _match(mol: Mol, mol_z: np.ndarray, z: np.ndarray, pos: np.ndarray) -> np.ndarray | str:
    """
    Find the row of the coordinates for each atom of `mol`, by bonds perceived in the first conformer; or explain why no
    order fits. Heavy atoms are matched as a graph without bond orders, each with its number of hydrogens.
    """
    from rdkit import Chem

    def skeleton(numbers: Sequence[int], hydrogen_counts: Sequence[int], bonds: Sequence[tuple[int, int]]) -> Mol:
        graph = Chem.RWMol()
        for number, count in zip(numbers, hydrogen_counts, strict=True):
            atom = Chem.Atom(int(number))
            atom.SetIsotope(int(count) + 1)  # a substructure search compares isotopes
            graph.AddAtom(atom)
        for first, second in bonds:
            graph.AddBond(int(first), int(second), Chem.BondType.SINGLE)
        return graph.GetMol()

    heavy, hydrogen = np.flatnonzero(z > 1), np.flatnonzero(z == 1)
    no_match = "no order of the atoms shows its bonds"
    if not len(heavy):
        return no_match
    distances, radii = _distances(pos[0]), _radii(z)
    nearest = heavy[distances[np.ix_(hydrogen, heavy)].argmin(1)] if len(hydrogen) else hydrogen
    hydrogens_of_row = {int(row): hydrogen[nearest == row].tolist() for row in heavy}
    bonded = distances < BOND_PERCEIVED * (radii[:, None] + radii[None])
    perceived = [(i, j) for i in range(len(heavy)) for j in range(i) if bonded[heavy[i], heavy[j]]]
    target = skeleton(z[heavy], [len(hydrogens_of_row[int(row)]) for row in heavy], perceived)

    mol_heavy = [k for k, number in enumerate(mol_z) if number > 1]
    place = {k: n for n, k in enumerate(mol_heavy)}
    hydrogens_of_atom: dict[int, list[int]] = {k: [] for k in mol_heavy}
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() == 1:
            parents = [neighbor.GetIdx() for neighbor in atom.GetNeighbors() if neighbor.GetAtomicNum() > 1]
            if not parents:
                return no_match
            hydrogens_of_atom[parents[0]].append(atom.GetIdx())
    written = [
        (place[bond.GetBeginAtomIdx()], place[bond.GetEndAtomIdx()])
        for bond in mol.GetBonds()
        if bond.GetBeginAtomIdx() in place and bond.GetEndAtomIdx() in place
    ]
    query = skeleton(mol_z[mol_heavy], [len(hydrogens_of_atom[k]) for k in mol_heavy], written)
    problem = no_match
    for match in target.GetSubstructMatches(query, uniquify=False, maxMatches=_MAX_MATCHES):
        order = np.empty(len(mol_z), dtype=np.int64)
        for k, n in zip(mol_heavy, match, strict=True):
            row = int(heavy[n])
            order[k] = row
            order[hydrogens_of_atom[k]] = hydrogens_of_row[row]
        problem = _problem(mol, mol_z, pos[:, order], flat=False)
        if not problem:
            return order
    return problem


def _add_hydrogens(mol: Mol, pos: np.ndarray, flat: bool) -> np.ndarray:
    from rdkit import Chem

    placed = []
    with rdkit_log_off:
        for conformer in pos:
            positioned = with_conformers(mol, conformer[None])
            positioned.GetConformer().Set3D(not flat)
            placed.append(Chem.AddHs(positioned, addCoords=True).GetConformer().GetPositions())
    return np.stack(placed).astype(np.float32)
