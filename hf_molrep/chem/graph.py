"""
Molecular graphs: RDKit molecules to small integer arrays, by named and versioned feature schemes.

| scheme | columns of `x` | columns of `edge_attr` | used by |
|---|---|---|---|
| `pretrain_gnns` | 2 indices | 2 indices | pretrain-gnns (Hu et al. 2020), MolCLR, GraphMVP |
| `ogb` | 9 indices | 3 indices | Open Graph Benchmark 1.3.6 (`ogb/utils/features.py`), 3D Infomax |
| `dmp` | 9 indices | 3 indices | DMP / DVMP (`molecule/features.py`) |
| `grover` | 151 numbers | 14 numbers | GROVER (`grover/data/molgraph.py`) |

An index counts from 0 within its column and is meant for an embedding table. Unforeseen values are treated as in the
originals: `ogb` and (except for charge and bond type) `grover` have a last index for "anything else"; `pretrain_gnns`
fails, so such a molecule is refused here, with the reason; `dmp` has such an index for some columns and fails for
others, where CHI_OTHER and STEREOANY are used here.

In all of these schemes two features depend on how the SMILES was written: the chirality tag (clockwise in the order of
neighbours) and, in `pretrain_gnns`, the direction of a bond beside a double bond. Canonical SMILES make them unique.

Peculiarities of GROVER, kept because its weights were trained with them: the formal charge is used as a Python list
index (negative ones count from the end), so +4 and -2 are the same, and +5 and -1, and -6 and 0; charges beyond
-6 ... +5 fail; an atom `*` is an unknown element; a bond that is not single, double, triple or aromatic (a dative one)
has no type, all five flags are 0; each bond runs from the lower to the higher atom index first.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .smiles import MoleculeError, _query

if TYPE_CHECKING:
    from rdkit.Chem import Mol

REFUSED = 255  # in a lookup table: the scheme has no index for this value
LOWEST = -128  # lowest raw value, the first entry of a lookup table


class MolGraph(NamedTuple):
    """
    Graph of one molecule. Each bond is stored twice: edge 2k from the lower to the higher atom index, 2k + 1 back.

    Attributes:
        x: `[atoms, features]`, uint8 indices; float32 for the scheme `grover`, except in its compact form.
        edge_index: int16 `[2, edges]`, source above target.
        edge_attr: `[edges, features]` like `x`.
        z: uint8 `[atoms]`, atomic numbers.
        pos: float32 `[atoms, 3]` in angstrom, or None.
        mass: float32 `[atoms]`, a hundredth of the atomic mass; only in the compact form of the scheme `grover` (see
            [`Scheme.expand_atoms`]).
    """

    x: np.ndarray
    edge_index: np.ndarray
    edge_attr: np.ndarray
    z: np.ndarray
    pos: np.ndarray | None = None
    mass: np.ndarray | None = None


class Column(NamedTuple):
    """
    One property of atoms or bonds.

    Attributes:
        size: number of indices, including those reserved for masking.
        table: uint8, index of each raw value: `table[raw - LOWEST]`.
    """

    name: str
    size: int
    table: np.ndarray


class Scheme(NamedTuple):
    """
    The atom and bond features of a method.

    Attributes:
        version: increased when any array changes.
        atoms, bonds: the columns. With `one_hot` each becomes `size` columns of 0 and 1, except those of size 1, which
            stay as they are.
    """

    name: str
    version: int
    atoms: tuple[Column, ...]
    bonds: tuple[Column, ...]
    one_hot: bool = False

    @property
    def atom_features(self) -> int:
        """Number of columns of `x`."""
        return sum(column.size for column in self.atoms) if self.one_hot else len(self.atoms)

    @property
    def bond_features(self) -> int:
        """Number of columns of `edge_attr`."""
        return sum(column.size for column in self.bonds) if self.one_hot else len(self.bonds)

    def expand_atoms(self, x: np.ndarray, mass: np.ndarray | None = None) -> np.ndarray:
        """
        Convert stored indices `[atoms, columns]` to the model's input: int64 indices, or with `one_hot` float32
        `[atoms, atom_features]`, for which `grover` also needs `mass`.
        """
        return _expand(self.atoms, x, mass) if self.one_hot else x.astype(np.int64)

    def expand_bonds(self, edge_attr: np.ndarray) -> np.ndarray:
        """Convert stored bond indices as `expand_atoms` does."""
        return _expand(self.bonds, edge_attr, None) if self.one_hot else edge_attr.astype(np.int64)


def _expand(columns: Sequence[Column], indices: np.ndarray, mass: np.ndarray | None) -> np.ndarray:
    dense = np.zeros((len(indices), sum(column.size for column in columns)), dtype=np.float32)
    rows, start = np.arange(len(indices)), 0
    for place, column in enumerate(columns):
        if column.name == "mass":
            dense[:, start] = mass
        elif column.size == 1:
            dense[:, start] = indices[:, place]
        else:
            dense[rows, start + indices[:, place].astype(np.intp)] = 1
        start += column.size
    return dense


def _column(name: str, size: int, values: Iterable[int], other: int = REFUSED) -> Column:
    """Build a column in which the raw value `values[i]` has index i, and any other value the index `other`."""
    table = np.full(256 - LOWEST, other, dtype=np.uint8)
    for index, value in enumerate(values):
        table[value - LOWEST] = index
    return Column(name, size, table)


def _grover_charge() -> Column:
    table = np.full(256 - LOWEST, REFUSED, dtype=np.uint8)
    for charge in range(-6, 6):
        table[charge - LOWEST] = charge % 6
    return Column("formal_charge", 6, table)


# values of RDKit's enumerations (tests/chem/test_graph.py compares them with RDKit)
_CW_CCW = (0, 1, 2)  # CHI_UNSPECIFIED, CHI_TETRAHEDRAL_CW, CHI_TETRAHEDRAL_CCW
_CHI_OTHER = 3
_SINGLE, _DOUBLE, _TRIPLE, _AROMATIC = 1, 2, 3, 12
_BOND_TYPES = (_SINGLE, _DOUBLE, _TRIPLE, _AROMATIC)
_BOND_TYPE_OF_ORDER = {1.0: _SINGLE, 2.0: _DOUBLE, 3.0: _TRIPLE, 1.5: _AROMATIC}
_BOND_TYPE_FLAGS = {  # GROVER's columns; its first, for no bond at all, is 0 everywhere
    "is_no_bond": -1,
    "is_single": _SINGLE,
    "is_double": _DOUBLE,
    "is_triple": _TRIPLE,
    "is_aromatic_bond": _AROMATIC,
}
_DIRECTIONS = (0, 4, 3)  # NONE, ENDUPRIGHT, ENDDOWNRIGHT
_HYBRIDIZATIONS = (2, 3, 4, 6, 7)  # SP, SP2, SP3, SP3D, SP3D2
_STEREO = (0, 2, 3, 4, 5, 1)  # STEREONONE, Z, E, CIS, TRANS, ANY
_STEREO_ANY = 5  # its index in `_STEREO`


def _ogb_like(atom_types: int, other_element: int, chirality: Column, bond_type: Column) -> dict:
    return {
        "atoms": (
            _column("atomic_num", atom_types, range(1, 119), other_element),
            chirality,
            _column("degree", 12, range(11), 11),
            _column("formal_charge", 12, range(-5, 6), 11),
            _column("num_hs", 10, range(9), 9),
            _column("radical_electrons", 6, range(5), 5),
            _column("hybridization", 6, _HYBRIDIZATIONS, 5),
            _column("is_aromatic", 2, range(2)),
            _column("is_in_ring", 2, range(2)),
        ),
        "bonds": (
            bond_type,
            _column("stereo", 6, _STEREO, _STEREO_ANY),  # STEREOATROPCW, CCW: the originals fail
            _column("is_conjugated", 2, range(2)),
        ),
    }


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "pretrain_gnns",
            1,
            # 119 elements and the mask; three of the four chirality tags that the original lists have an embedding
            (_column("atomic_num", 120, range(1, 119)), _column("chirality", 3, _CW_CCW)),
            # four bond types, the self-loop (4) and the mask (5), which the models add
            (_column("bond_type", 6, _BOND_TYPES), _column("direction", 3, _DIRECTIONS)),
        ),
        Scheme(
            "ogb",
            1,
            **_ogb_like(
                119,
                118,
                _column("chirality", 5, (*_CW_CCW, _CHI_OTHER), 4),
                _column("bond_type", 5, _BOND_TYPES, 4),
            ),
        ),
        Scheme(
            "dmp",
            1,
            **_ogb_like(
                120,  # 118 is the mask
                119,
                _column("chirality", 4, _CW_CCW, _CHI_OTHER),  # allenes and the like: the original fails
                _column("bond_type", 7, _BOND_TYPES, 6),  # 4 and 5 are the mask and the self-loop
            ),
        ),
        Scheme(
            "grover",
            1,
            (
                _column("atomic_num", 101, range(1, 101), 100),
                _column("degree", 7, range(6), 6),
                _grover_charge(),
                _column("chirality", 5, range(4), 4),
                _column("num_hs", 6, range(5), 5),
                _column("hybridization", 6, _HYBRIDIZATIONS, 5),
                _column("is_aromatic", 1, range(2)),
                _column("mass", 1, ()),  # a hundredth of the atomic mass, without a lookup table
                _column("implicit_valence", 8, range(7), 7),
                _column("is_acceptor", 1, range(2)),
                _column("is_donor", 1, range(2)),
                _column("is_acidic", 1, range(2)),
                _column("is_basic", 1, range(2)),
                *(_column(f"in_ring_of_{size}", 1, range(2)) for size in range(3, 9)),
            ),
            (
                *(_column(name, 1, range(2)) for name in _BOND_TYPE_FLAGS),
                _column("is_conjugated", 1, range(2)),
                _column("is_in_ring", 1, range(2)),
                _column("stereo", 7, range(6), 6),
            ),
            one_hot=True,
        ),
    )
}

# GROVER's definitions of hydrogen-bond acceptors and donors, acids and bases
# (grover/data/molgraph.py, after Gobbi and Poppinger, Biotechnol. Bioeng. 61, 47 (1998))
_SMARTS = {
    "is_acceptor": "[$([O,S;H1;v2;!$(*-*=[O,N,P,S])]),$([O,S;H0;v2]),$([O,S;-]),$([N;v3;!$(N-*=[O,N,P,S])]),"
    "n&H0&+0,$([o,s;+0;!$([o,s]:n);!$([o,s]:c:n)])]",
    "is_donor": "[$([N;!H0;v3,v4&+1]),$([O,S;H1;+0]),n&H1&+0]",
    "is_acidic": "[$([C,S](=[O,S,P])-[O;H1,-1])]",
    "is_basic": "[#7;+,$([N;H2&+0][$([C,a]);!$([C,a](=O))]),$([N;H1&+0]([$([C,a]);!$([C,a](=O))])"
    "[$([C,a]);!$([C,a](=O))]),$([N;H0&+0]([C;!$(C(=O))])([C;!$(C(=O))])[C;!$(C(=O))])]",
}
# Characters without which a value is always 0, so that RDKit need not be called.
# (Charges are not listed: RDKit reads CN(=O)=O as C[N+](=O)[O-].)
_REQUIRED_CHARACTERS = {"chirality": "@", "direction": "/\\", "stereo": "/\\"}


@functools.cache
def _getters() -> tuple[dict, dict]:
    """RDKit's methods by property, of atoms and of bonds."""
    from rdkit.Chem import Atom, Bond

    atoms = {
        "atomic_num": Atom.GetAtomicNum,
        "chirality": Atom.GetChiralTag,
        "degree": Atom.GetTotalDegree,
        "formal_charge": Atom.GetFormalCharge,
        "num_hs": Atom.GetTotalNumHs,
        "radical_electrons": Atom.GetNumRadicalElectrons,
        "hybridization": Atom.GetHybridization,
        "is_aromatic": Atom.GetIsAromatic,
        "is_in_ring": Atom.IsInRing,
        "implicit_valence": Atom.GetNumImplicitHs,
        "mass": Atom.GetMass,
    }
    bonds = {
        "begin": Bond.GetBeginAtomIdx,
        "end": Bond.GetEndAtomIdx,
        "bond_type": Bond.GetBondType,
        "order": Bond.GetBondTypeAsDouble,
        "direction": Bond.GetBondDir,
        "stereo": Bond.GetStereo,
        "is_conjugated": Bond.GetIsConjugated,
        "is_in_ring": Bond.IsInRing,
    }
    return atoms, bonds


@functools.cache
def _atomic_weights() -> np.ndarray:
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    return np.array([table.GetAtomicWeight(z) for z in range(119)])


class _Collector:
    """Collects raw values of many molecules, one list per property, to convert them to NumPy arrays at once."""

    def __init__(self, scheme: Scheme):
        atoms = [column.name for column in scheme.atoms]
        bonds = {column.name for column in scheme.bonds}
        self.scheme = scheme
        self.has_rings = "in_ring_of_3" in atoms
        self.atoms: dict[str, list] = {name: [] for name in atoms if not name.startswith("in_ring_of_")}
        self.bonds: dict[str, list] = {
            name: []
            for name in ("begin", "end", "bond_type", "direction", "stereo", "is_conjugated", "is_in_ring")
            if name in bonds or name in ("begin", "end", "bond_type")
        }
        self.rings: list[tuple[int, ...]] = []  # size, then the atoms, counted over all molecules
        self.total = 0
        self.atom_counts: list[int] = []
        self.bond_counts: list[int] = []

    def add(self, mol: Mol, text: str | None) -> None:
        """Add a molecule. `text`: the SMILES it was read from, if it is unchanged since."""
        atom_getters, bond_getters = _getters()
        count = mol.GetNumAtoms()
        atoms = list(map(mol.GetAtomWithIdx, range(count)))
        bonds = list(map(mol.GetBondWithIdx, range(mol.GetNumBonds())))
        no_isotopes = text is not None and "[" not in text

        def absent(name: str) -> bool:
            return (
                text is not None
                and name in _REQUIRED_CHARACTERS
                and not any(c in text for c in _REQUIRED_CHARACTERS[name])
            )

        for name, values in self.atoms.items():
            if name in _SMARTS:
                flags = [0] * count
                for (atom,) in mol.GetSubstructMatches(_query(_SMARTS[name]), maxMatches=count):
                    flags[atom] = 1
                values += flags
            elif absent(name):
                values.extend(repeat(0, count))
            elif no_isotopes and name == "mass":
                values.extend(repeat(0.0, count))  # filled in from the table of the elements
            else:
                values.extend(map(atom_getters[name], atoms))
        if self.has_rings:
            for ring in mol.GetRingInfo().AtomRings():
                if len(ring) < 9:
                    self.rings.append((len(ring), *(self.total + atom for atom in ring)))

        types = _bond_types(bonds, text)
        for name, values in self.bonds.items():
            if name == "bond_type":
                values += types
            elif absent(name):
                values.extend(repeat(0, len(bonds)))
            else:
                values.extend(map(bond_getters[name], bonds))
        self.total += count
        self.atom_counts.append(count)
        self.bond_counts.append(len(bonds))

    def graphs(self) -> list[MolGraph | str]:
        """Build the graphs, in order; see [`assemble`]."""
        atoms = {name: np.array(values, dtype=np.int16) for name, values in self.atoms.items() if name != "mass"}
        if "mass" in self.atoms:
            mass = np.array(self.atoms["mass"])
            mass = np.where(mass == 0, _atomic_weights()[atoms["atomic_num"]], mass)
            atoms["mass"] = (mass * 0.01).astype(np.float32)
        for size in range(3, 9) if self.has_rings else ():
            flags = atoms[f"in_ring_of_{size}"] = np.zeros(self.total, dtype=np.int16)
            flags[[atom for ring in self.rings if ring[0] == size for atom in ring[1:]]] = 1
        bonds = {name: np.array(values, dtype=np.int16) for name, values in self.bonds.items()}
        return assemble(self.scheme, atoms, bonds, np.array(self.atom_counts), np.array(self.bond_counts))


def assemble(
    scheme: Scheme,
    atoms: dict[str, np.ndarray],
    bonds: dict[str, np.ndarray],
    atom_counts: np.ndarray,
    bond_counts: np.ndarray,
) -> list[MolGraph | str]:
    """
    Build compact graphs from raw values (RDKit's numbers) of the atoms and bonds of several molecules.

    Args:
        atoms, bonds: column -> values, molecule after molecule. Bonds have `begin` and `end`, atom indices within their
            molecule, and `bond_type`; atoms have `mass`, a hundredth of the atomic mass, where the scheme has it.
    Returns:
        for each molecule its graph, or the reason why the scheme cannot express it.
    """
    z, mass = atoms["atomic_num"].astype(np.uint8), atoms.get("mass")
    x, invalid_atoms = _encode(scheme.atoms, atoms)

    atom_starts, bond_starts = np.cumsum(atom_counts) - atom_counts, np.cumsum(bond_counts) - bond_counts
    low, high = np.minimum(bonds["begin"], bonds["end"]), np.maximum(bonds["begin"], bonds["end"])
    order = np.lexsort((high, low, np.repeat(np.arange(len(bond_counts)), bond_counts)))
    low, high = low[order], high[order]
    sorted_bonds = {name: values[order] for name, values in bonds.items()}
    for name, code in _BOND_TYPE_FLAGS.items():
        sorted_bonds[name] = (sorted_bonds["bond_type"] == code).astype(np.int16)
    edge_attr, invalid_bonds = _encode(scheme.bonds, sorted_bonds)
    edge_attr = np.repeat(edge_attr, 2, axis=0)
    edge_index = np.stack([np.stack([low, high], axis=1).ravel(), np.stack([high, low], axis=1).ravel()])

    found: list[MolGraph | str] = []
    bounds = zip(*(part.tolist() for part in (atom_starts, atom_counts, bond_starts, bond_counts)), strict=True)
    for start, count, first, of_bonds in bounds:
        edges, of_atoms = slice(2 * first, 2 * (first + of_bonds)), slice(start, start + count)
        molecule_mass = None if mass is None else mass[of_atoms]
        found.append(MolGraph(x[of_atoms], edge_index[:, edges], edge_attr[edges], z[of_atoms], mass=molecule_mass))
    for what, invalid, starts in (("atom", invalid_atoms, atom_starts), ("bond", invalid_bonds, bond_starts)):
        for place, column, value in invalid:
            index = int(np.searchsorted(starts, place, side="right")) - 1
            graph = found[index]
            if isinstance(graph, str):
                continue
            number = place - int(starts[index])
            where = f"atom {number}"
            if what == "bond":
                where = "the bond of atoms {} and {}".format(*graph.edge_index[:, 2 * number].tolist())
            found[index] = f"the scheme {scheme.name!r} has no {column} {_value_name(column, value)} ({where})"
    return found


# Atoms to which RDKit may make dative bonds are in brackets and none of these.
_MAY_BE_METAL = re.compile(r"\[\d*(?!(?:Br|Cl|Si|Se|se|[BCFHINOPSbcnops])(?![a-z]))")


def _bond_types(bonds: list, text: str | None) -> list[int]:
    """Return RDKit's bond types as numbers; from bond orders, which is faster, unless there may be dative bonds."""
    if text is not None and not _MAY_BE_METAL.search(text) and "->" not in text and "<-" not in text:
        try:
            return [_BOND_TYPE_OF_ORDER[order] for order in map(_getters()[1]["order"], bonds)]
        except KeyError:
            pass
    return list(map(int, map(_getters()[1]["bond_type"], bonds)))


def _encode(columns: Sequence[Column], raw: dict[str, np.ndarray]) -> tuple[np.ndarray, list]:
    """Encode raw values as uint8 indices `[rows, columns]`; list (row, column, value) of those without an index."""
    encoded = np.zeros((len(next(iter(raw.values()))), len(columns)), dtype=np.uint8)
    invalid = []
    for place, column in enumerate(columns):
        if column.name == "mass":  # not an index
            continue
        values = raw[column.name]
        encoded[:, place] = index = column.table[np.clip(values, LOWEST, 255) - LOWEST]
        invalid += [(int(row), column.name, int(values[row])) for row in np.flatnonzero(index == REFUSED)]
    return encoded, invalid


def _value_name(column: str, value: int) -> str:
    """Name a raw value for error messages."""
    from rdkit import Chem

    if column == "atomic_num":
        return f"{value} ({'dummy atom *' if value == 0 else Chem.GetPeriodicTable().GetElementSymbol(value)})"
    enums = {"chirality": Chem.ChiralType, "bond_type": Chem.BondType, "direction": Chem.BondDir}
    return enums[column].values[value].name if column in enums else f"{value:+d}"


def _check_scheme(scheme: str) -> Scheme:
    if scheme not in SCHEMES:
        raise ValueError(f"scheme is one of {', '.join(SCHEMES)}, not {scheme!r}")
    return SCHEMES[scheme]


def mols_to_graphs(
    mols: Sequence[Mol],
    scheme: str = "pretrain_gnns",
    explicit_hydrogens: bool = False,
    texts: Sequence[str | None] | None = None,
    compact: bool = False,
) -> list[MolGraph | MoleculeError]:
    """
    Build the graphs of many molecules; see [`mol_to_graph`]. A MoleculeError takes the place of a molecule that the
    scheme cannot express.

    Args:
        texts: the SMILES each molecule was read from, if it is unchanged since, else None. They save time: features
            that a SMILES rules out are not computed.
        compact: `x` and `edge_attr` of the scheme `grover` as uint8 indices too, 26 times smaller, with `mass`.
    Raises:
        ValueError: an unknown scheme; a molecule without atoms.
    """
    from rdkit import Chem

    collector = _Collector(_check_scheme(scheme))
    texts = [None] * len(mols) if texts is None else texts
    for mol, text in zip(mols, texts, strict=True):
        if not mol.GetNumAtoms():
            raise ValueError("a molecule without atoms has no graph")
        # `text` stays valid: added hydrogens have none of the features it is searched for
        collector.add(Chem.AddHs(mol) if explicit_hydrogens else mol, text)
    found: list[MolGraph | MoleculeError] = []
    form = SCHEMES[scheme]
    for mol, text, graph in zip(mols, texts, collector.graphs() if len(mols) else [], strict=True):
        if isinstance(graph, str):
            graph = MoleculeError(text if text is not None else Chem.MolToSmiles(mol), graph)
        elif form.one_hot and not compact:
            x, edge_attr = form.expand_atoms(graph.x, graph.mass), form.expand_bonds(graph.edge_attr)
            graph = graph._replace(x=x, edge_attr=edge_attr, mass=None)
        found.append(graph)
    return found


def mol_to_graph(mol: Mol, scheme: str = "pretrain_gnns", explicit_hydrogens: bool = False) -> MolGraph:
    """
    Build the graph of a sanitised molecule, atoms in RDKit's order; see the table above for `x` and `edge_attr`.

    Args:
        explicit_hydrogens: hydrogens become atoms (`Chem.AddHs`), after the others.
    Raises:
        MoleculeError: the scheme cannot express the molecule; says why.
        ValueError: an unknown scheme; a molecule without atoms.
    """
    (graph,) = mols_to_graphs([mol], scheme, explicit_hydrogens)
    if isinstance(graph, MoleculeError):
        raise graph
    return graph
