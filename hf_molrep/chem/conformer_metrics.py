"""Generated against reference conformers: RMSD of heavy atoms, coverage and matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .coordinates import with_conformers

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MAX_MATCHES = 1_000  # permutations of equivalent atoms that are tried


def best_rmsd(first: Mol, second: Mol) -> np.ndarray:
    """
    Compute the root mean square distances between the conformers of two copies of a molecule, `[conformers of first,
    conformers of second]`, angstrom: of the heavy atoms, after the best rotation and the best permutation of equivalent
    atoms (RDKit's `GetBestRMS`). The arguments are not changed.

    Raises:
        ValueError: a molecule without conformers, or two that are not the same.
    """
    from rdkit import Chem
    from rdkit.Chem.rdMolAlign import GetBestRMS

    if not first.GetNumConformers() or not second.GetNumConformers():
        raise ValueError("a molecule without conformers")
    moved, fixed = Chem.RemoveHs(first), Chem.RemoveHs(second)  # copies: aligning moves the first one
    if moved.GetNumAtoms() != fixed.GetNumAtoms() or not fixed.HasSubstructMatch(moved):
        raise ValueError(f"{Chem.MolToSmiles(moved)} and {Chem.MolToSmiles(fixed)} are different molecules")
    ids = [[conformer.GetId() for conformer in mol.GetConformers()] for mol in (moved, fixed)]
    return np.array([[GetBestRMS(moved, fixed, a, b, maxMatches=MAX_MATCHES) for b in ids[1]] for a in ids[0]])


def permute_equivalent_atoms(mol: Mol, pos: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """
    Permute equivalent atoms of each conformer so that it comes nearest to one of the starting conformers.

    Args:
        mol: the molecule, its atoms in the order of the coordinates.
        pos: `[conformers, atoms, 3]`.
        starts: `[starts, atoms, 3]`.
    Returns:
        `pos`, atoms reordered.
    """
    from rdkit.Chem.rdMolAlign import GetBestAlignmentTransform

    moving, fixed = with_conformers(mol, pos), with_conformers(mol, starts)
    ordered = np.empty_like(pos)
    for conformer in range(len(pos)):
        candidates = (
            GetBestAlignmentTransform(moving, fixed, conformer, start, maxMatches=MAX_MATCHES)
            for start in range(len(starts))
        )
        _, _, pairs = min(candidates, key=lambda found: found[0])
        for here, there in pairs:
            ordered[conformer, there] = pos[conformer, here]
    return ordered


def coverage_and_matching(rmsd: np.ndarray, thresholds: Sequence[float]) -> dict[str, float | list[float]]:
    """
    COV and MAT of one molecule (Xu et al., ICLR 2021, "Learning Neural Generative Dynamics for Molecular Conformation
    Generation"; precision as in Ganea et al., NeurIPS 2021, "GeoMol"), from the distances of generated and reference
    conformers.

    Args:
        rmsd: `[generated, references]`, angstrom, as [`best_rmsd`] gives them.
        thresholds: angstrom; a distance equal to one counts as covered.
    Returns:
        `mat_recall`: mean over the references of the distance to the nearest generated conformer; `cov_recall`: for
        each threshold the share of references with one within it; `mat_precision`, `cov_precision`: the same with
        references and generated conformers exchanged.
    Raises:
        ValueError: nothing generated, or no references.
    """
    rmsd = np.asarray(rmsd, dtype=np.float64)
    if rmsd.ndim != 2 or not rmsd.size:
        raise ValueError(f"distances of the shape {rmsd.shape}: there must be generated and reference conformers")
    scores: dict[str, float | list[float]] = {}
    for name, nearest in (("recall", rmsd.min(axis=0)), ("precision", rmsd.min(axis=1))):
        scores[f"mat_{name}"] = float(nearest.mean())
        scores[f"cov_{name}"] = [float((nearest <= threshold).mean()) for threshold in thresholds]
    return scores
