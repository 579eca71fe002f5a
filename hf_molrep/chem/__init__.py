"""RDKit to NumPy. The only folder that imports rdkit (inside functions), and never torch."""

from .smiles import (
    MAX_ATOMS,
    MAX_SMILES_LENGTH,
    MoleculeError,
    canonical_smiles,
    canonical_smiles_batch,
    inchikey,
    inchikey_block,
    molecular_formula,
    parse,
    parse_mol_block,
    random_smiles,
    standardize,
)

__all__ = [
    "MAX_ATOMS",
    "MAX_SMILES_LENGTH",
    "MoleculeError",
    "canonical_smiles",
    "canonical_smiles_batch",
    "inchikey",
    "inchikey_block",
    "molecular_formula",
    "parse",
    "parse_mol_block",
    "random_smiles",
    "standardize",
]
