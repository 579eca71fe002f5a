"""Baselines of learned embeddings: Tanimoto similarity, simple properties, RDKit descriptors."""

from collections.abc import Sequence

import numpy as np

from hf_molrep.chem import parse
from hf_molrep.chem.fingerprints import tanimoto as tanimoto_of_all

PROPERTIES = (
    "HeavyAtomMolWt",
    "MolLogP",
    "TPSA",
    "NumHDonors",
    "NumHAcceptors",
    "NumRotatableBonds",
    "RingCount",
    "NumAromaticRings",
)


def tanimoto(queries: np.ndarray, candidates: np.ndarray, block: int = 8192) -> np.ndarray:
    """
    [`~hf_molrep.chem.fingerprints.tanimoto`], float32 `[queries, candidates]`, with so many candidates at a time: only
    these are held as floating-point numbers.
    """
    similarity = np.empty((len(queries), len(candidates)), dtype=np.float32)
    for start in range(0, len(candidates), block):
        similarity[:, start : start + block] = tanimoto_of_all(queries, candidates[start : start + block])
    return similarity


def properties(smiles: Sequence[str]) -> np.ndarray:
    """Compute eight simple properties (`PROPERTIES`), float64 `[molecules, 8]`."""
    from rdkit.Chem import Descriptors

    functions = [getattr(Descriptors, name) for name in PROPERTIES]
    values = np.empty((len(smiles), len(functions)))
    for row, text in enumerate(smiles):
        mol = parse(text)
        values[row] = [function(mol) for function in functions]
    return values


def descriptors(smiles: Sequence[str]) -> np.ndarray:
    """Compute all 2D descriptors of RDKit, float64 `[molecules, descriptors]`; NaN if RDKit fails."""
    from rdkit.Chem import Descriptors
    from rdkit.rdBase import BlockLogs

    rows = []
    block = BlockLogs()
    for text in smiles:
        rows.append(list(Descriptors.CalcMolDescriptors(parse(text), missingVal=np.nan).values()))
    del block
    values = np.array(rows, dtype=np.float64)
    # Ipc exceeds float32 for large molecules; histogram boosting only needs the order
    values[~np.isfinite(values)] = np.nan
    return np.clip(values, -1e30, 1e30)
