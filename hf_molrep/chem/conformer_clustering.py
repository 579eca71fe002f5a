"""
Select a few diverse conformers from many of RDKit's, and put coordinates into RDKit molecules.

The recipe is that of Zhou et al., "Do Deep Learning Methods Really Perform Better in Molecular Conformation
Generation?" (arXiv 2302.07061), as `unimol/utils/conf_gen_cal_metrics.py` has it: a pool of conformers as embedded and
of conformers minimised by MMFF94, all rotated onto the first one, and k-means of their coordinates. Not here: its third
kind of conformers, with torsions turned at random, which can turn stereo over.

The conformer nearest to the centre represents its cluster; in the original it is the first one of the pool.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .canonical_form import Hydrogens
from .conformers import ConformerGenerator, Conformers, ConformerSettings
from .coordinates import with_conformers
from .smiles import MoleculeError, OnError, parse, rdkit_log_off

if TYPE_CHECKING:
    from rdkit.Chem import Mol

POOL_PER_CONFORMER, LARGEST_POOL = 10, 2_000  # minimised conformers in the pool; a quarter as many are not minimised


def rotations_onto(moving: np.ndarray, onto: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the proper rotations (Kabsch, Acta Cryst. A32, 922 (1976)) `[..., 3, 3]` that superpose centred coordinates
    `moving` `[..., atoms, 3]` on `onto` (`moving @ rotation`), and the remaining sums of squared differences `[...]`.
    """
    covariance = np.swapaxes(moving, -1, -2) @ onto
    left, values, right = np.linalg.svd(covariance)
    sign = np.where(np.linalg.det(left) * np.linalg.det(right) < 0, -1.0, 1.0)
    left[..., 2] *= sign[..., None]
    values[..., 2] *= sign
    squares = (moving**2).sum(axis=(-1, -2)) + (onto**2).sum(axis=(-1, -2)) - 2 * values.sum(axis=-1)
    return left @ right, np.maximum(squares, 0.0)


def centred(pos: np.ndarray) -> np.ndarray:
    """Move each conformer's centroid to the origin; coordinates `[..., atoms, 3]`, returned in float64."""
    pos = np.asarray(pos, dtype=np.float64)
    return pos - pos.mean(axis=-2, keepdims=True)


def rmsd_in_order(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Root mean square distance after the best rotation between conformers `[n, atoms, 3]` and `[m, atoms, 3]`, `[n, m]`,
    angstrom. Atom i is compared with atom i: equivalent atoms are not exchanged, see
    [`hf_molrep.chem.conformer_metrics.best_rmsd`].
    """
    _, squares = rotations_onto(centred(first)[:, None], centred(second)[None])
    return np.sqrt(squares / first.shape[-2])


def cluster_conformers(pos: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """
    Select representative conformers: k-means of the coordinates after rotation onto the first conformer, and the member
    nearest to each centre.

    Args:
        pos: `[conformers, atoms, 3]`.
    Returns:
        indices, ascending; at most `count`, fewer where fewer conformers differ.
    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, not {count}")
    if len(pos) <= count:
        return np.arange(len(pos))
    try:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise ImportError("clusters of conformers need scikit-learn: pip install scikit-learn") from error
    aligned = centred(pos)
    aligned = (aligned @ rotations_onto(aligned, aligned[:1])[0]).reshape(len(pos), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different conformers than clusters
        means = KMeans(count, n_init=1, random_state=seed).fit(aligned)
    squares = ((aligned - means.cluster_centers_[means.labels_]) ** 2).sum(axis=1)
    order = np.argsort(squares, kind="stable")
    _, first = np.unique(means.labels_[order], return_index=True)
    return np.sort(order[first])


def conformer_pools(
    smiles: Sequence[str],
    optimised: int,
    plain: int | None = None,
    *,
    seed: int = 42,
    hydrogens: Hydrogens = "none",
    cache: str | os.PathLike | None = "default",
    processes: int = 1,
    time_limit: float = 60.0,
    on_error: OnError = "raise",
) -> list[Conformers | MoleculeError]:
    """
    Compute, for each molecule, embedded conformers and then conformers minimised by MMFF94, as one ensemble without
    energies. Molecules of several fragments are refused.

    Args:
        optimised: number of minimised conformers.
        plain: number of embedded ones; None: a quarter of `optimised`, rounded up.
        seed: of the first plain one; each conformer has its own seed.
        hydrogens: which of them are in the result; all are computed.
        cache, processes, time_limit, on_error: see [`~hf_molrep.chem.conformers.ConformerGenerator`].
    """
    plain = -(-optimised // 4) if plain is None else plain
    kinds = [("none", plain, seed), ("mmff94", optimised, seed + plain)]
    found = []
    for force_field, number, first_seed in kinds:
        if number:
            settings = ConformerSettings(number, first_seed, hydrogens, force_field=force_field, fragments="refuse")
            with ConformerGenerator(settings, cache, processes, time_limit) as generate:
                found.append(generate(smiles, on_error=on_error))
    if not found:
        raise ValueError("optimised and plain are both 0: the pool has no conformers")
    return [_concatenate(parts) for parts in zip(*found, strict=True)]


def _concatenate(parts: Sequence[Conformers | MoleculeError]) -> Conformers | MoleculeError:
    for part in parts:
        if isinstance(part, MoleculeError):
            return part
    flags = tuple(dict.fromkeys(flag for part in parts for flag in part.flags))
    return parts[0]._replace(pos=np.concatenate([part.pos for part in parts]), flags=flags, energies=None)


def clustered_conformers(
    smiles: Sequence[str], num_conformers: int, pool: int | None = None, *, seed: int = 42, **options
) -> list[Conformers | MoleculeError]:
    """
    Cluster the pool of [`conformer_pools`] to at most `num_conformers` conformers of each molecule.

    Args:
        pool: number of minimised conformers in it; None: ten per conformer, at most 2,000, as in the original.
        options: of [`conformer_pools`].
    """
    pool = min(POOL_PER_CONFORMER * num_conformers, LARGEST_POOL) if pool is None else pool
    pools = conformer_pools(smiles, pool, seed=seed, **options)
    return [
        each if isinstance(each, MoleculeError) else each._replace(pos=each.pos[chosen])
        for each in pools
        for chosen in [None if isinstance(each, MoleculeError) else cluster_conformers(each.pos, num_conformers, seed)]
    ]


def mol_with_conformers(smiles: str, conformers: Conformers, pos: np.ndarray | None = None) -> Mol:
    """
    Build the RDKit molecule of a SMILES, atoms in the order written, with the coordinates of `conformers`, or `pos`
    `[conformers, atoms, 3]` instead; with all hydrogens where they have coordinates.

    Raises:
        MoleculeError: not every atom has coordinates (polar hydrogens alone, or hydrogens written as atoms left out).
    """
    from rdkit import Chem

    mol = parse(smiles)
    if (conformers.index < 0).any():
        with rdkit_log_off:
            mol = Chem.AddHs(mol)
    if [atom.GetAtomicNum() for atom in mol.GetAtoms()] != conformers.z.tolist():
        raise MoleculeError(smiles, "not every atom has coordinates")
    return with_conformers(mol, conformers.pos if pos is None else pos)
