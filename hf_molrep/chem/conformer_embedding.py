"""
Compute the coordinates of all atoms of one molecule, given as canonical SMILES, with RDKit.

[`hf_molrep.chem.conformers`] describes the steps and their fallbacks, and runs this in worker processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .conformer_cache import Record
from .smiles import parse, rdkit_log_off

if TYPE_CHECKING:
    from rdkit.Chem import Mol

UNENFORCED_ATTEMPTS = 10  # for each conformer


def compute_layout(smiles: str) -> Record:
    """Compute RDKit's 2D layout with all hydrogens; bonds are 1.5 angstrom long."""
    from rdkit import Chem
    from rdkit.Chem.rdDepictor import Compute2DCoords

    with rdkit_log_off:
        mol = Chem.AddHs(parse(smiles))
        Compute2DCoords(mol, canonOrient=True)
    pos = mol.GetConformer().GetPositions().astype(np.float32)
    return Record(_atomic_numbers(mol), pos[None], np.zeros(0), ("layout",))


def _atomic_numbers(mol: Mol) -> np.ndarray:
    return np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.uint8)


def compute_conformers(smiles: str, num_conformers: int, seed: int, force_field: str, max_iterations: int) -> Record:
    """
    Embed and minimise conformers; the arguments are those of [`~hf_molrep.chem.conformers.ConformerSettings`]. Where
    none is found, the record gives the reason.
    """
    from rdkit import Chem

    with rdkit_log_off:
        mol = parse(smiles)
        flags = []
        if any(info.specified == Chem.StereoSpecified.Unspecified for info in Chem.FindPotentialStereo(mol)):
            flags.append("stereo_unspecified")
        mol = Chem.AddHs(mol)
        z = _atomic_numbers(mol)
        if len(z) == 1:
            return Record(z, np.zeros((num_conformers, 1, 3), dtype=np.float32), np.zeros(0), tuple(flags))
        ids, problem = _embed(mol, num_conformers, seed)
        if not ids:
            ids, problem = _embed(mol, num_conformers, seed, useRandomCoords=True)
            flags.append("random_coordinates")
        if not ids:
            attempts, _ = _embed(mol, UNENFORCED_ATTEMPTS * num_conformers, seed, enforceChirality=False)
            valid = _valid(mol, attempts) if attempts else []
            ids = [k for k, kept in zip(attempts, valid, strict=True) if kept][:num_conformers]
            for k in set(attempts) - set(ids):
                mol.RemoveConformer(k)
            flags[-1] = "chirality_unenforced"
        if not ids:
            empty = np.zeros((0, len(z), 3), dtype=np.float32)
            return Record(z, empty, np.zeros(0), (), f"no 3D coordinates found{problem}")
        embedded, valid = _coordinates(mol, ids), _valid(mol, ids)
        energies, missing, converged = _minimize(mol, force_field, max_iterations)
        pos = embedded
        if energies is not None:
            kept = _valid(mol, ids)
            pos = np.where(kept[:, None, None], _coordinates(mol, ids), embedded)
            energies[~kept] = np.nan
            if (valid & ~kept).any():
                flags.append("force_field_undone")
            valid |= kept
    if missing:
        flags.append("force_field_missing")
    if not converged:
        flags.append("not_converged")
    if not valid.any():
        reason = "the 3D coordinates found do not have the stereo that is written"
        return Record(z, pos[:0], np.zeros(0), (), reason)
    if valid.sum() < num_conformers:
        flags.append("fewer_conformers")
    return Record(z, pos[valid], np.zeros(0) if energies is None else energies[valid], tuple(flags))


def _coordinates(mol: Mol, ids: Sequence[int]) -> np.ndarray:
    return np.stack([mol.GetConformer(k).GetPositions() for k in ids]).astype(np.float32)


def _valid(mol: Mol, ids: Sequence[int]) -> np.ndarray:
    """Check for each conformer that its coordinates are finite and have the stereo that is written."""
    return np.isfinite(_coordinates(mol, ids)).all(axis=(1, 2)) & [keeps_stereo(mol, k) for k in ids]


def _embed(mol: Mol, count: int, seed: int, **changes: bool) -> tuple[list[int], str]:
    """Embed conformers with ETKDG, parameters changed by `changes`; return their ids, and why there are none."""
    from rdkit.Chem import rdDistGeom

    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed
    parameters.enableSequentialRandomSeeds = True  # conformer k: seed + k (else (k + 1) * seed: 0 gives all the same)
    parameters.numThreads = 1
    parameters.trackFailures = True
    for name, value in changes.items():
        setattr(parameters, name, value)
    try:
        ids = list(rdDistGeom.EmbedMultipleConfs(mol, count, parameters))
    except (RuntimeError, ValueError) as error:
        return [], f" ({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__})"
    if ids:
        return ids, ""
    counts = list(parameters.GetFailureCounts())
    causes = {int(cause): name for name, cause in rdDistGeom.EmbedFailureCauses.names.items()}
    if not any(counts):
        return [], ""
    most = max(range(len(counts)), key=counts.__getitem__)
    return [], f" (ETKDG's attempts ended mostly at {causes.get(most, most).lower().replace('_', ' ')})"


def _minimize(mol: Mol, force_field: str, max_iterations: int) -> tuple[np.ndarray | None, bool, bool]:
    """
    Minimise all conformers in place.

    Returns:
        energies float64 `[conformers]` or None; whether parameters are missing; whether all converged.
    """
    from rdkit.Chem import rdForceFieldHelpers

    if force_field == "none":
        return None, False, True
    if force_field == "uff":
        if not rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
            return None, True, True
        outcome = rdForceFieldHelpers.UFFOptimizeMoleculeConfs(mol, numThreads=1, maxIters=max_iterations)
    else:
        if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            return None, True, True
        outcome = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(
            mol, numThreads=1, maxIters=max_iterations, mmffVariant=force_field.upper().replace("94S", "94s")
        )
    states = [state for state, _ in outcome]
    if any(state < 0 for state in states):  # the force field could not be set up after all
        return None, True, True
    return np.array([energy for _, energy in outcome]), False, not any(states)


def keeps_stereo(mol: Mol, conformer: int) -> bool:
    """Check that the coordinates have the stereo of `mol`: every marked tetrahedral centre and double bond."""
    from rdkit import Chem

    tetrahedral = (Chem.ChiralType.CHI_TETRAHEDRAL_CW, Chem.ChiralType.CHI_TETRAHEDRAL_CCW)
    double = (Chem.BondStereo.STEREOE, Chem.BondStereo.STEREOZ)
    centers = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetChiralTag() in tetrahedral]
    bonds = [bond.GetIdx() for bond in mol.GetBonds() if bond.GetStereo() in double]
    if not centers and not bonds:
        return True
    perceived = Chem.Mol(mol, False, conformer)
    Chem.AssignStereochemistryFrom3D(perceived, conformer, True)
    return all(
        perceived.GetAtomWithIdx(k).GetChiralTag() == mol.GetAtomWithIdx(k).GetChiralTag() for k in centers
    ) and all(perceived.GetBondWithIdx(k).GetStereo() == mol.GetBondWithIdx(k).GetStereo() for k in bonds)
