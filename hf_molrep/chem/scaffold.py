"""Parts of molecules: Bemis-Murcko scaffolds."""

from __future__ import annotations

from .smiles import parse


def scaffold(smiles: str, include_chirality: bool = False) -> str:
    """
    Canonical SMILES of the Bemis-Murcko scaffold (J. Med. Chem. 39, 2887 (1996)): ring systems and what links them,
    with RDKit's convention that atoms double-bonded to them stay. "" for a molecule without rings.

    Args:
        smiles: the molecule as drawn; every fragment of a salt counts.
        include_chirality: keep the stereo marks, which makes different scaffolds of stereoisomers.
    Raises:
        MoleculeError: the SMILES cannot be read.
    """
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    return MurckoScaffoldSmiles(mol=parse(smiles), includeChirality=include_chirality)
