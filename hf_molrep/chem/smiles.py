"""
Parse, standardise, canonicalise and randomise SMILES.

Every failure is a `MoleculeError` with the string and the reason; RDKit's log is kept off the terminal. rdkit is
imported inside the functions, so importing this module is fast.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from .diagnosis import chemistry_problem, syntax_problem

if TYPE_CHECKING:
    import numpy as np
    from rdkit.Chem import Mol

Standardize = Literal["none", "clean", "parent"]
OnError = Literal["raise", "skip"]
T = TypeVar("T")

STANDARDIZE_MODES = ("none", "clean", "parent")
MAX_SMILES_LENGTH = 20_000  # characters
MAX_ATOMS = 5_000  # RDKit writes SMILES recursively: chains of about 15,000 atoms overflow the usual 8 MB stack


class MoleculeError(ValueError):
    """
    A molecule that cannot be used.

    Attributes:
        smiles: the string as it was given (a name, where a name was given).
        reason: what is wrong with it, e.g. "ring 1 not closed".
        notation: what the string is, "SMILES" or "name".
    """

    def __init__(self, smiles: str, reason: str, notation: str = "SMILES") -> None:
        super().__init__(smiles, reason, notation)  # in `args`: the error can be pickled, for example by workers
        self.smiles = smiles
        self.reason = reason
        self.notation = notation

    def __str__(self) -> str:
        text = self.smiles if isinstance(self.smiles, str) else repr(self.smiles)
        if len(text) > 80:
            text = f"{text[:50]}...{text[-27:]}"
        return f"{self.notation} {text!r}: {self.reason}"


def collect(results: Iterable[T | MoleculeError], on_error: OnError) -> list[T | MoleculeError]:
    """
    Collect the results of a batch function; raise or keep failures as `on_error` says.

    Args:
        results: one per molecule, a `MoleculeError` for one that failed; may be a generator.
        on_error: "raise": raise the first failure, and compute nothing after it; "skip": keep failures in place.
    Raises:
        ValueError: another `on_error`; before anything is computed.
    """
    check_on_error(on_error)
    collected = []
    for result in results:
        if on_error == "raise" and isinstance(result, MoleculeError):
            raise result
        collected.append(result)
    return collected


def check_on_error(on_error: str) -> None:
    """Raise ValueError unless `on_error` is "raise" or "skip"."""
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")


class _RDKitLogOff:
    """
    Turn RDKit's log off while any thread is inside the `with`.

    `rdBase.BlockLogs` alone is not enough: it acts on the whole process, and when two of them overlap, the first to end
    turns the log on again for both. Here they are counted.
    """

    def __init__(self) -> None:
        self._block_logs = None
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # no thread but the forking one survives in the child

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._block = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._depth:
                if self._block_logs is None:
                    from rdkit.rdBase import BlockLogs

                    self._block_logs = BlockLogs
                self._block = self._block_logs()
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth = max(self._depth - 1, 0)
            if not self._depth:
                self._block = None


rdkit_log_off = _RDKitLogOff()


@functools.cache
def _parser():
    """RDKit's default parameters. Passing them explicitly makes parsing 15 % faster."""
    from rdkit import Chem

    return Chem.SmilesParserParams()


def parse(smiles: str) -> Mol:
    """
    Parse a SMILES into a sanitised RDKit molecule, as drawn (nothing standardised). Surrounding white space is ignored.

    Raises:
        MoleculeError: not a string, empty, longer than `MAX_SMILES_LENGTH` characters or `MAX_ATOMS` atoms (hydrogens
            not counted), not SMILES, or impossible chemistry.
    """
    from rdkit import Chem

    if not isinstance(smiles, str):
        raise MoleculeError(smiles, f"not a string but {type(smiles).__name__}")
    if len(smiles) > MAX_SMILES_LENGTH:
        raise MoleculeError(smiles, f"{len(smiles):,} characters long, more than the limit of {MAX_SMILES_LENGTH:,}")
    text = smiles.strip()
    if not text:
        raise MoleculeError(smiles, "empty" if not smiles else "only white space")
    # RDKit silently takes text after white space as a name, and stops reading at the first non-ASCII character
    readable = text.isascii() and len(text.split(None, 1)) == 1
    with rdkit_log_off:
        mol = Chem.MolFromSmiles(text, _parser()) if readable else None
        if mol is None:
            reason = syntax_problem(text) or (readable and chemistry_problem(text)) or "not a valid SMILES"
            raise MoleculeError(smiles, reason)
    if mol.GetNumAtoms() > MAX_ATOMS:
        raise MoleculeError(smiles, f"{mol.GetNumAtoms():,} atoms, more than the limit of {MAX_ATOMS:,}")
    return mol


def parse_mol_block(block: str) -> Mol:
    """
    Parse an MDL mol block (one record of an SDF up to `M  END`) into a sanitised RDKit molecule, hydrogens implicit.

    Raises:
        MoleculeError: not a mol block, no atoms, or impossible chemistry; `smiles` holds the title line.
    """
    from rdkit import Chem

    title = block.split("\n", 1)[0].strip()
    with rdkit_log_off:
        try:
            mol = Chem.MolFromMolBlock(block, sanitize=False)
        except RuntimeError:  # malformed counts line and the like
            mol = None
        if mol is None:
            raise MoleculeError(title, "not a readable mol block")
        if not mol.GetNumAtoms():
            raise MoleculeError(title, "mol block without atoms")
        problems = chemistry_problem(mol)
        if problems:
            raise MoleculeError(title, problems)
        mol = Chem.MolFromMolBlock(block)
    if mol is None:
        raise MoleculeError(title, "not a readable mol block")
    if mol.GetNumAtoms() > MAX_ATOMS:
        raise MoleculeError(title, f"{mol.GetNumAtoms():,} atoms, more than the limit of {MAX_ATOMS:,}")
    return mol


# --------------------------------------------------------------------------------------------------------------------
# Standardisation
#
# Running RDKit's Normalizer on every molecule would nearly double the time, so it runs only where one of the queries
# below matches. They are necessary conditions of the left-hand sides of its reactions (RDKit's file GraphMol/
# MolStandardize/TransformCatalog/normalizations.in) for a sanitised molecule, in which there is no five-valent neutral
# nitrogen (N(=O)=O, N=N#N, n=O). tests/chem/test_smiles.py compares with and without.

# What the canonical SMILES must contain for a match, and the query:
_NORMALIZABLE = (
    (re.compile("S"), "[S;X3;+0](=O)([!O])[!O]"),
    (re.compile("P|As|Sb"), "[P,As,Sb;X3](=[O,S,Se,Te])=[O,S,Se,Te]"),
    (re.compile("(?:F|Cl|Br|I|At)-"), "[F,Cl,Br,I,At;-]=O"),
)
# All other reactions need such a cation; ammonium is not one.
_CATION = "[+,+2,+3;C,N&!X4,n,O,o,S,s,P,p,As,Sb,Se,se,Te,te]"
_NORMALIZABLE_CATION = (
    "[S;+2]",
    "[P;+;X4]",
    "[C,S;+;X3]N",
    "[N;+;X2]#[N;X1]",
    "[C;+]=[N,P,As,Sb;-]",
    # an anion two or four bonds from a cation that could take its charge
    "[N,P,As,Sb,O,S,Se,Te;-1][A;+0]=[N,P,As,Sb,O,S,Se,Te;+1]",
    "[N,P,As,Sb,O,S,Se,Te;-1][A;+0]=AA=[N,P,As,Sb,O,S,Se,Te;+1]",
    "[n,o,p,s;-1]:a=[N,O,P,S;+1]",
    "[n,o,p,s;-1]:a:a:c=[N,O,P,S;+1]",
    "[N,O,P,S;-1]-[a;+0]:[n,o,p,s;+1]",
    "[N,O,P,S;-1]-c:a:a:[n,o,p,s;+1]",
    # a cation without hydrogen conjugated with a neutral atom that has one
    "[N,O,n;+0;!H0]~*=[N,O;+1;H0]",
    "[N,O,n;+0;!H0]~*~*~*=[N,O;+1;H0]",
)
# Alkali and alkaline earth metals drawn with a bond to an atom that takes the electrons.
_METALS = "Li,Na,K,Rb,Cs,Fr,Be,Mg,Ca,Sr,Ba,Ra"
_METAL_BOND = f"[{_METALS}]~[#7,#8,#9,#15,#16,#17,#33,#34,#35,#52,#53]"
_METAL_TO_CARBON = f"[{_METALS}]~[#5,#6,#14]"
# What a SMILES must contain to have a metal, or an atom map.
_WITH_METAL = re.compile(rf"\[\d*(?:{_METALS.replace(',', '|')})")
_WITH_ATOM_MAP = re.compile(r":\d+\]")


@functools.cache
def _query(smarts: str) -> Mol:
    from rdkit import Chem

    return Chem.MolFromSmarts(smarts)


@functools.cache
def _standardizers() -> tuple:
    """RDKit's Normalizer, LargestFragmentChooser and Uncharger; built once, they hold their parsed reactions."""
    from rdkit.Chem.MolStandardize import rdMolStandardize

    parameters = rdMolStandardize.CleanupParameters()
    parameters.preferOrganic = True
    chooser = rdMolStandardize.LargestFragmentChooser(parameters)
    return rdMolStandardize.Normalizer(), chooser, rdMolStandardize.Uncharger()


def _may_normalize(mol: Mol, text: str | None = None, canonical: bool = True) -> bool:
    """Return False only if RDKit's Normalizer would not change the molecule. `text`: its SMILES, if available."""
    has = mol.HasSubstructMatch
    for required, smarts in _NORMALIZABLE:
        if (text is None or required.search(text)) and has(_query(smarts)):
            return True
    if text is not None and canonical and "+" not in text:  # as written, CN(=O)=O shows no charges
        return False
    return has(_query(_CATION)) and any(has(_query(smarts)) for smarts in _NORMALIZABLE_CATION)


def _cut_metal_bonds(mol: Mol) -> Mol:
    """
    Replace bonds between group 1 or 2 metals and N, O, S, P, halogens and their heavier analogues by ions.

    A metal atom with a bond to carbon, silicon or boron (butyllithium, Grignard reagents) is left as drawn: such bonds
    are covalent, and cutting only the metal-halogen bond would invent a species.
    """
    from rdkit import Chem

    organometallic = {match[0] for match in mol.GetSubstructMatches(_query(_METAL_TO_CARBON), uniquify=False)}
    cuts = [pair for pair in mol.GetSubstructMatches(_query(_METAL_BOND)) if pair[0] not in organometallic]
    if not cuts:
        return mol
    electrons = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3}
    edited = Chem.RWMol(mol)
    for first, second in cuts:
        moved = electrons.get(mol.GetBondBetweenAtoms(first, second).GetBondType(), 0)  # a dative bond moves none
        edited.RemoveBond(first, second)
        for index, charge in ((first, moved), (second, -moved)):
            atom = edited.GetAtomWithIdx(index)
            atom.SetFormalCharge(atom.GetFormalCharge() + charge)
            if index == first:
                atom.SetNoImplicit(True)
    Chem.SanitizeMol(edited)
    return edited.GetMol()


def _drop_atom_maps(mol: Mol) -> Mol:
    from rdkit import Chem

    mol = Chem.Mol(mol)
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    # two neighbours may have differed by these numbers alone
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def standardize(mol: Mol, mode: Standardize = "clean") -> Mol:
    """
    Standardise a molecule. `mol` is not changed; it is returned where nothing is to be done.

    Modes:
        "none": as drawn.
        "clean": sanitised; covalently drawn bonds of group 1 and 2 metals to N, O, P, S and halogens (and As, Se, Te)
            cut into ions, unless the metal is also bound to carbon, silicon or boron; functional groups normalised
            by RDKit's default `Normalizer` (nitro `[N+](=O)[O-]`, sulfoxide `[S+][O-]`, adjacent opposite charges
            recombined, conjugated cations); atom map numbers dropped. Salts, other charges, isotopes, stereo marks and
            tautomers stay.
        "parent": "clean", then the largest fragment (organic ones, with a carbon, before all others; by number of atoms
            with hydrogens, then by mass), then neutralised by RDKit's `Uncharger` (protons added or taken away; charges
            that cannot be removed so, as in quaternary ammonium or nitro groups, stay together with as many of their
            counter-charges as needed), then "clean" once more. Isotopes and stereo marks stay.
    Raises:
        ValueError: an unknown mode.
        MoleculeError: an unsanitised molecule with impossible chemistry.
    """
    from rdkit import Chem

    _check_mode(mode)
    if mode == "none":
        return mol
    with rdkit_log_off:
        if mol.NeedsUpdatePropertyCache():
            mol = Chem.Mol(mol)
            problem = chemistry_problem(mol)
            if problem:
                raise MoleculeError(Chem.MolToSmiles(mol), problem)
            Chem.SanitizeMol(mol)
            Chem.AssignStereochemistry(mol, cleanIt=True)
    return _parent(mol) if mode == "parent" else _clean(mol)


@functools.cache
def _atom_map_query():
    from rdkit.Chem.rdqueries import HasPropQueryAtom

    return HasPropQueryAtom("molAtomMapNumber")


def _clean(mol: Mol, text: str | None = None, canonical: bool = True) -> Mol:
    """Apply the mode "clean". `text`: the molecule's SMILES, canonical or as read; it rules out some searches."""
    if (text is None or _WITH_METAL.search(text)) and mol.HasSubstructMatch(_query(_METAL_BOND)):
        mol, text = _cut_metal_bonds(mol), None
    if _may_normalize(mol, text, canonical):
        with rdkit_log_off:
            mol, text = _standardizers()[0].normalize(mol), None
    if (text is None or _WITH_ATOM_MAP.search(text)) and mol.GetAtomsMatchingQuery(_atom_map_query()):
        mol = _drop_atom_maps(mol)
    return mol


def _parent(mol: Mol) -> Mol:
    mol = _clean(mol)
    with rdkit_log_off:
        mol = _neutralize(_standardizers()[1].choose(mol))
    return _clean(mol)


def _neutralize(mol: Mol) -> Mol:
    """
    Apply the Uncharger if its result can be parsed again. Protonated aromatic carbon (cyclopentadienide) cannot, unless
    the molecule is kekulized first; where that does not help either (`[SbH6+3]`), the charges stay.
    """
    from rdkit import Chem

    if not mol.HasSubstructMatch(_query("[!+0]")):
        return mol
    uncharger = _standardizers()[2]
    neutral = uncharger.uncharge(mol)
    if Chem.MolFromSmiles(Chem.MolToSmiles(neutral)):
        return neutral
    kekulized = Chem.Mol(mol)
    Chem.Kekulize(kekulized, clearAromaticFlags=True)
    return Chem.MolFromSmiles(Chem.MolToSmiles(uncharger.uncharge(kekulized))) or mol


def canonical_smiles(smiles: str, standardize: Standardize = "clean") -> str:
    """
    Write RDKit's canonical isomeric SMILES of the standardised molecule (modes as in `standardize`).

    `canonical_smiles(canonical_smiles(s, mode), mode) == canonical_smiles(s, mode)`.

    Raises:
        MoleculeError: the SMILES cannot be read.
        ValueError: an unknown mode.
    """
    from rdkit import Chem

    _check_mode(standardize)
    mol = parse(smiles)
    text = Chem.MolToSmiles(mol)
    if standardize == "none":
        return text
    standard = _parent(mol) if standardize == "parent" else _clean(mol, text)
    return text if standard is mol else _stable_smiles(standard, standardize)


def _stable_smiles(mol: Mol, mode: str) -> str:
    """
    Write the canonical SMILES of an edited molecule, parsed again until it no longer changes: editing leaves traces
    (atom order, explicit hydrogens, former stereo centres) that the text does not have.
    """
    from rdkit import Chem

    text = Chem.MolToSmiles(mol)
    for _ in range(4):
        mol = parse(text)
        again = Chem.MolToSmiles(_parent(mol) if mode == "parent" else _clean(mol))
        if again == text:
            break
        text = again
    return text


def canonical_smiles_batch(
    smiles: Sequence[str], standardize: Standardize = "clean", on_error: OnError = "raise"
) -> list[str | MoleculeError]:
    """Apply `canonical_smiles` to each; `on_error="skip"` returns the MoleculeError in the place of a failed one."""
    _check_mode(standardize)

    def canonical_or_error(text: str) -> str | MoleculeError:
        try:
            return canonical_smiles(text, standardize)
        except MoleculeError as error:
            return error

    return collect(map(canonical_or_error, smiles), on_error)


def random_smiles(smiles: str, rng: np.random.Generator) -> str:
    """
    Write a random SMILES of the same molecule: atoms are renumbered at random and written in that order ("restricted"
    randomisation of Arus-Pous et al., J. Cheminform. 11, 71 (2019)). Nothing is standardised.

    It depends on the SMILES and on `rng` alone: RDKit's own generator is not used.

    Raises:
        MoleculeError: the SMILES cannot be read.
    """
    from rdkit import Chem

    mol = parse(smiles)
    order = rng.permutation(mol.GetNumAtoms()).tolist()
    return Chem.MolToSmiles(Chem.RenumberAtoms(mol, order), canonical=False)


def inchikey(smiles: str) -> str:
    """
    Compute the full InChIKey (27 characters) of the molecule as drawn.

    Raises:
        MoleculeError: the SMILES cannot be read, or has no InChI (for example one with `*`).
    """
    from rdkit import Chem

    mol = parse(smiles)
    with rdkit_log_off:
        key = Chem.MolToInchiKey(mol)
    if not key:
        raise MoleculeError(smiles, "has no InChI")
    return key


def inchikey_block(smiles: str) -> str:
    """
    Compute the first block of the InChIKey (14 characters: connectivity without stereo, isotopes or protonation).

    Raises:
        MoleculeError: the SMILES cannot be read, or has no InChI.
    """
    return inchikey(smiles)[:14]


def molecular_formula(smiles: str) -> str:
    """
    Write the molecular formula in Hill order with the charge at the end, e.g. "C2H3O2-"; isotopes are not marked.

    Raises:
        MoleculeError: the SMILES cannot be read.
    """
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    return CalcMolFormula(parse(smiles))


def _check_mode(mode: str) -> None:
    if mode not in STANDARDIZE_MODES:
        raise ValueError(f"standardize must be one of {', '.join(STANDARDIZE_MODES)}, not {mode!r}")


def standard_mol(smiles: str, standardize: Standardize = "clean", canonical: bool = False) -> tuple[Mol, str]:
    """
    Parse and standardise a SMILES; also return a SMILES with the same atoms in the same order: the one given if the
    molecule was not changed, RDKit's canonical one if it was, and always with `canonical`.

    Raises:
        MoleculeError: the SMILES cannot be read.
        ValueError: an unknown mode.
    """
    from rdkit import Chem

    _check_mode(standardize)
    mol, text = parse(smiles), smiles.strip()
    if standardize != "none":
        # with an element written as its number, _clean must not rely on the text
        standard = (
            _parent(mol) if standardize == "parent" else _clean(mol, None if "[#" in text else text, canonical=False)
        )
        if standard is not mol:
            text = _stable_smiles(standard, standardize)
            return parse(text), text
    if canonical:
        written = Chem.MolToSmiles(mol)
        return (mol if written == text else parse(written)), written
    return mol, text
