"""A tiny Uni-Mol, and molecules with coordinates that need no force field."""

import zlib

import numpy as np

from hf_molrep.chem.smiles import canonical_smiles, parse
from hf_molrep.models.uni_mol import UniMolConfig


def tiny_config(dropout: float = 0.0, **options) -> UniMolConfig:
    """Two layers, hidden 32, four heads."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    dropouts = {"embedding_dropout": dropout, "hidden_dropout": dropout, "attention_dropout": dropout}
    return UniMolConfig(**{**sizes, "num_kernels": 16, **dropouts, **options})


def atoms_and_coordinates(smiles: str) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers of the heavy atoms, and coordinates (angstrom) drawn by the molecule: no real geometry, but no
    atoms upon each other."""
    z = np.array([atom.GetAtomicNum() for atom in parse(smiles).GetAtoms()])
    rng = np.random.default_rng(zlib.crc32(canonical_smiles(smiles).encode()))
    while True:
        pos = 2.0 * rng.standard_normal((len(z), 3))
        distances = np.linalg.norm(pos[:, None] - pos, axis=-1)[~np.eye(len(z), dtype=bool)]
        if (distances > 1.2).all():
            return z, pos
