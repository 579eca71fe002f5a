"""
Labels of GROVER's pre-training: the context of every atom and bond, and the functional groups of a molecule.

After `grover/data/task_labels.py` and `grover/data/torchvocab.py` of github.com/tencent-ailab/grover (MIT).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .smiles import standard_mol

if TYPE_CHECKING:
    from rdkit.Chem import Bond, Mol

PAD, OTHER = "<pad>", "<other>"

_GROUPS = """
Al_COO Al_OH Al_OH_noTert ArN Ar_COO Ar_N Ar_NH Ar_OH COO COO2 C_O C_O_noCOO C_S HOCCN Imine NH0 NH1 NH2 N_O
Ndealkylation1 Ndealkylation2 Nhpyrrole SH aldehyde alkyl_carbamate alkyl_halide allylic_oxid amide amidine aniline
aryl_methyl azide azo barbitur benzene benzodiazepine bicyclic diazo dihydropyridine epoxide ester ether furan
guanido halogen hdrzine hdrzone imidazole imide isocyan isothiocyan ketone ketone_Topliss lactam lactone methoxy
morpholine nitrile nitro nitro_arom nitro_arom_nonortho nitroso oxazole oxime para_hydroxylation phenol
phenol_noOrthoHbond phos_acid phos_ester piperdine piperzine priamide prisulfonamd pyridine quatN sulfide sulfonamd
sulfone term_acetylene tetrazole thiazole thiocyan thiophene unbrch_alkane urea
"""
FUNCTIONAL_GROUPS = tuple(_GROUPS.split())  # RDKit's `fr_` descriptors, in the order of the original's labels


class Contexts(NamedTuple):
    """
    Labels of one molecule.

    Attributes:
        atoms: a string per atom, in RDKit's order.
        bonds: a string per bond, sorted by lower, then higher atom index (the order of the scheme `grover`).
        motifs: uint8 `[85]`, or None.
    """

    atoms: list[str]
    bonds: list[str]
    motifs: np.ndarray | None


def _label(name: str, neighbours: Counter) -> str:
    return name + "".join(f"_{key}{count}" for key, count in sorted(neighbours.items()))


def atom_contexts(mol: Mol) -> list[str]:
    """
    Label each atom: its symbol, then its neighbours by symbol and bond type with their count, in alphabetical order.
    The carbonyl carbon of acetic acid is `C_C-SINGLE1_O-DOUBLE1_O-SINGLE1`.
    """
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    neighbours: list[Counter] = [Counter() for _ in symbols]
    for bond in mol.GetBonds():
        begin, end, kind = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), str(bond.GetBondType())
        neighbours[begin][f"{symbols[end]}-{kind}"] += 1
        neighbours[end][f"{symbols[begin]}-{kind}"] += 1
    return [_label(symbol, around) for symbol, around in zip(symbols, neighbours, strict=True)]


def _bond_name(bond: Bond) -> str:
    return f"({bond.GetBondType()}-{bond.GetStereo()}-{bond.GetBondDir()})"


def bond_contexts(mol: Mol) -> list[str]:
    """
    Label each bond: its type, stereo and direction, then the other bonds of both its atoms, each with the symbol of the
    shared atom. The C-C bond of acetic acid is `(SINGLE-STEREONONE-NONE)_C-(DOUBLE-STEREONONE-NONE)1_
    C-(SINGLE-STEREONONE-NONE)1` (in one line). The direction depends on how the SMILES was written, as in the original.
    """
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    bonds = {tuple(sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))): bond for bond in mol.GetBonds()}
    ends = sorted(bonds)
    names = [_bond_name(bonds[pair]) for pair in ends]
    at: list[list[int]] = [[] for _ in symbols]
    for number, pair in enumerate(ends):
        for atom in pair:
            at[atom].append(number)
    return [
        _label(
            names[number],
            Counter(f"{symbols[atom]}-{names[other]}" for atom in pair for other in at[atom] if other != number),
        )
        for number, pair in enumerate(ends)
    ]


def functional_groups(mol: Mol) -> np.ndarray:
    """Mark which `FUNCTIONAL_GROUPS` occur, by RDKit's `fr_` descriptors, uint8 `[85]`."""
    from rdkit.Chem import Fragments

    return np.array([getattr(Fragments, f"fr_{name}")(mol) > 0 for name in FUNCTIONAL_GROUPS], dtype=np.uint8)


def molecule_contexts(
    smiles: str,
    standardize: str = "clean",
    canonical: bool = False,
    explicit_hydrogens: bool = False,
    motifs: bool = True,
) -> Contexts:
    """
    Compute the labels of one molecule, atoms and bonds as in its graph (see [`hf_molrep.chem.graph`]).

    Raises:
        MoleculeError: the SMILES cannot be read.
    """
    from rdkit import Chem

    mol, _ = standard_mol(smiles, standardize, canonical)
    groups = functional_groups(mol) if motifs else None
    if explicit_hydrogens:
        mol = Chem.AddHs(mol)
    return Contexts(atom_contexts(mol), bond_contexts(mol), groups)


def context_vocabulary(counts: Counter, min_frequency: int = 1, max_size: int | None = None) -> list[str]:
    """
    List contexts in the order of their ids: `<pad>`, `<other>`, then by frequency, ties in alphabetical order.

    Args:
        min_frequency: rarer contexts are left out.
        max_size: limit, not counting the first two.
    """
    kept = sorted((item for item in counts.items() if item[1] >= min_frequency), key=lambda item: (-item[1], item[0]))
    return [PAD, OTHER, *[context for context, _ in kept[:max_size]]]
