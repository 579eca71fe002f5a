"""Bemis-Murcko scaffolds."""

from __future__ import annotations

from .smiles import parse


def scaffold(smiles: str, include_chirality: bool = False) -> str:
    """
    Write the canonical SMILES of the Bemis-Murcko scaffold (J. Med. Chem. 39, 2887 (1996)): ring systems and their
    linkers, with RDKit's convention that atoms double-bonded to them stay. "" for a molecule without rings.

    Args:
        smiles: the molecule as drawn; every fragment of a salt counts.
        include_chirality: keep the stereo marks, so that stereoisomers have different scaffolds.
    Raises:
        MoleculeError: the SMILES cannot be read.
    """
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    return MurckoScaffoldSmiles(mol=parse(smiles), includeChirality=include_chirality)
