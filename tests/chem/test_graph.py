"""Feature schemes: against plain loops over atoms and bonds, against arrays of the original codes, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from hf_molrep.chem.graph import SCHEMES, mol_to_graph, mols_to_graphs
from hf_molrep.chem.smiles import MoleculeError, parse

SMILES = [
    "CCO",
    "C",
    "[Na+].[Cl-]",
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@H](N)C(=O)O",
    "N[C@@H](C)C(=O)O",
    "F/C=C/F",
    "F/C=C\\F",
    "C/C=C/C=C\\C",
    "O=C([O-])c1ccccc1.[Na+]",
    "c1ccc2[nH]ccc2c1",
    "CN1CCC[C@H]1c1cccnc1",
    "C[N+](C)(C)C",
    "[2H]C([2H])([2H])O",
    "[13CH4]",
    "[CH3]",
    "[O]",
    "[H][H]",
    "C#N",
    "CS(C)(=O)=O",
    "OP(O)(O)=O",
    "FS(F)(F)(F)(F)F",
    "C1CC1C2CCC2C3CCCC3C4CCCCC4C5CCCCCC5C6CCCCCCC6",
    "C12C3C4C1C5C2C3C45",
    "[Fe+3]",
    "[U]",
    "CC(N)=N",
    "NCCS",
    "C[Si](C)(C)C",
    "[O-][n+]1ccccc1",
    "N#[N+][O-]",
    "CN(=O)=O",
    "CN=N#N",
    "OCl(=O)(=O)=O",
    "CN[Cu]",
    "C[Mg]Br",
    "[se]1cccc1",
    "[#16]1C=CC=C1",
]

OTHER_BONDS = ["N(C)(C)(C)[Fe]", "CN->[Cu]", "C$C"]


def index(values: list, value, other: int | None) -> int:
    if value in values:
        return values.index(value)
    assert other is not None, value
    return other


def reference_atom(atom: Chem.Atom, scheme: str, matches: dict) -> list:
    """As the originals' tables say it, one atom at a time."""
    if scheme == "pretrain_gnns":
        return [index(list(range(1, 119)), atom.GetAtomicNum(), None), int(atom.GetChiralTag())]
    hybridization = ["SP", "SP2", "SP3", "SP3D", "SP3D2"]
    if scheme in ("ogb", "dmp"):
        tags = ["CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER"]
        return [
            index(list(range(1, 119)), atom.GetAtomicNum(), {"ogb": 118, "dmp": 119}[scheme]),
            index(tags, str(atom.GetChiralTag()), {"ogb": 4, "dmp": 3}[scheme]),
            index(list(range(11)), atom.GetTotalDegree(), 11),
            index(list(range(-5, 6)), atom.GetFormalCharge(), 11),
            index(list(range(9)), atom.GetTotalNumHs(), 9),
            index(list(range(5)), atom.GetNumRadicalElectrons(), 5),
            index(hybridization, str(atom.GetHybridization()), 5),
            int(atom.GetIsAromatic()),
            int(atom.IsInRing()),
        ]

    def one_hot(size: int, place: int) -> list:
        row = [0] * size
        row[place] = 1
        return row

    rings = atom.GetOwningMol().GetRingInfo()
    return [
        *one_hot(101, index(list(range(100)), atom.GetAtomicNum() - 1, 100)),
        *one_hot(7, index(list(range(6)), atom.GetTotalDegree(), 6)),
        *one_hot(6, atom.GetFormalCharge()),  # the quirk
        *one_hot(5, index(list(range(4)), int(atom.GetChiralTag()), 4)),
        *one_hot(6, index(list(range(5)), atom.GetTotalNumHs(), 5)),
        *one_hot(6, index(hybridization, str(atom.GetHybridization()), 5)),
        int(atom.GetIsAromatic()),
        atom.GetMass() * 0.01,
        *one_hot(8, index(list(range(7)), atom.GetValence(Chem.ValenceType.IMPLICIT), 7)),
        *(int(atom.GetIdx() in matches[kind]) for kind in ("acceptor", "donor", "acidic", "basic")),
        *(int(rings.IsAtomInRingOfSize(atom.GetIdx(), size)) for size in range(3, 9)),
    ]


def reference_bond(bond: Chem.Bond, scheme: str) -> list:
    types = ["SINGLE", "DOUBLE", "TRIPLE", "AROMATIC"]
    kind = str(bond.GetBondType())
    if scheme == "pretrain_gnns":
        directions = ["NONE", "ENDUPRIGHT", "ENDDOWNRIGHT"]
        return [index(types, kind, None), index(directions, str(bond.GetBondDir()), None)]
    if scheme in ("ogb", "dmp"):
        stereo = ["STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS", "STEREOANY"]
        return [
            index(types, kind, {"ogb": 4, "dmp": 6}[scheme]),
            index(stereo, str(bond.GetStereo()), None),
            int(bond.GetIsConjugated()),
        ]
    stereo = [0] * 7
    stereo[int(bond.GetStereo()) if int(bond.GetStereo()) < 6 else 6] = 1
    return [0, *(int(kind == each) for each in types), int(bond.GetIsConjugated()), int(bond.IsInRing()), *stereo]


# written once more from the paper's definitions, not imported
DEFINITIONS = {
    "donor": "[$([N;!H0;v3,v4&+1]),$([O,S;H1;+0]),n&H1&+0]",
    "acceptor": "[$([O,S;H1;v2;!$(*-*=[O,N,P,S])]),$([O,S;H0;v2]),$([O,S;-]),$([N;v3;!$(N-*=[O,N,P,S])]),"
    "n&H0&+0,$([o,s;+0;!$([o,s]:n);!$([o,s]:c:n)])]",
    "acidic": "[$([C,S](=[O,S,P])-[O;H1,-1])]",
    "basic": "[#7;+,$([N;H2&+0][$([C,a]);!$([C,a](=O))]),$([N;H1&+0]([$([C,a]);!$([C,a](=O))])"
    "[$([C,a]);!$([C,a](=O))]),$([N;H0&+0]([C;!$(C(=O))])([C;!$(C(=O))])[C;!$(C(=O))])]",
}


def check(graph, mol: Chem.Mol, scheme: str) -> None:
    matches = {
        name: {atom for match in mol.GetSubstructMatches(Chem.MolFromSmarts(smarts)) for atom in match}
        for name, smarts in DEFINITIONS.items()
    }
    x = np.array([reference_atom(atom, scheme, matches) for atom in mol.GetAtoms()], dtype=np.float64)
    np.testing.assert_array_equal(graph.x, x.astype(graph.x.dtype))
    assert graph.z.tolist() == [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    bonds = sorted(mol.GetBonds(), key=lambda bond: sorted([bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]))
    edges, attributes = [], []
    for bond in bonds:
        low, high = sorted([bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()])
        edges += [(low, high), (high, low)]
        attributes += [reference_bond(bond, scheme)] * 2
    assert graph.edge_index.T.tolist() == [list(edge) for edge in edges]
    assert graph.edge_attr.shape == (len(edges), SCHEMES[scheme].bond_features)
    assert graph.edge_attr.tolist() == attributes


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("hydrogens", [False, True])
def test_plain_loops(scheme, hydrogens):
    """With the SMILES at hand, without, alone and among others: always what loops over atoms and bonds give."""
    texts = SMILES if scheme == "pretrain_gnns" else [*SMILES, *OTHER_BONDS]
    mols = [parse(smiles) for smiles in texts]
    together = mols_to_graphs(mols, scheme, hydrogens, texts)
    for mol, with_text in zip(mols, together, strict=True):
        expected = Chem.AddHs(mol) if hydrogens else mol
        check(with_text, expected, scheme)
        check(mol_to_graph(mol, scheme, hydrogens), expected, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_shapes_and_types(scheme):
    form = SCHEMES[scheme]
    dtype = np.float32 if scheme == "grover" else np.uint8
    for smiles, atoms, edges in (("C", 1, 0), ("CCO", 3, 4), ("[Na+].[Cl-]", 2, 0)):
        graph = mol_to_graph(parse(smiles), scheme)
        assert graph.x.shape == (atoms, form.atom_features)
        assert graph.edge_attr.shape == (edges, form.bond_features)
        assert graph.edge_index.shape == (2, edges)
        assert (graph.x.dtype, graph.edge_attr.dtype) == (dtype, dtype)
        assert (graph.edge_index.dtype, graph.z.dtype) == (np.int16, np.uint8)
    assert mols_to_graphs([], scheme) == []


def test_numbers_of_enumerations():
    """graph.py writes RDKit's enumerations as numbers."""
    names = {
        Chem.ChiralType: {"CHI_UNSPECIFIED": 0, "CHI_TETRAHEDRAL_CW": 1, "CHI_TETRAHEDRAL_CCW": 2, "CHI_OTHER": 3},
        Chem.BondType: {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "AROMATIC": 12},
        Chem.BondDir: {"NONE": 0, "ENDUPRIGHT": 4, "ENDDOWNRIGHT": 3},
        Chem.HybridizationType: {"SP": 2, "SP2": 3, "SP3": 4, "SP3D": 6, "SP3D2": 7},
        Chem.BondStereo: dict(
            zip(
                ("STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS", "STEREOANY"),
                (0, 2, 3, 4, 5, 1),
                strict=True,
            )
        ),
    }
    for enumeration, numbers in names.items():
        assert {name: int(enumeration.names[name]) for name in numbers} == numbers


@pytest.mark.parametrize(
    ("smiles", "scheme", "reason"),
    [
        ("CC*", "pretrain_gnns", r"no atomic_num 0 \(dummy atom \*\) \(atom 2\)"),
        ("CN->[Cu]", "pretrain_gnns", r"no bond_type DATIVE \(the bond of atoms 1 and 2\)"),
        ("N(C)(C)(C)[Fe]", "pretrain_gnns", "no bond_type DATIVE"),
        ("C$C", "pretrain_gnns", "no bond_type QUADRUPLE"),
        ("F[Pt@SP1](F)(Cl)Cl", "pretrain_gnns", "no chirality CHI_SQUAREPLANAR"),
        ("[W+6]", "grover", r"no formal_charge \+6"),
    ],
)
def test_refused_by_name(smiles, scheme, reason):
    """The molecule that cannot be expressed is named; its neighbours are not lost."""
    with pytest.raises(MoleculeError, match=reason) as error:
        mol_to_graph(parse(smiles), scheme)
    texts = ["[Na+].[Cl-]", smiles, "CC", "C"]
    assert Chem.CanonSmiles(error.value.smiles) == Chem.CanonSmiles(smiles)
    found = mols_to_graphs([parse(text) for text in texts], scheme, texts=texts)
    assert [isinstance(graph, MoleculeError) for graph in found] == [False, True, False, False]
    assert found[1].smiles == smiles
    check(found[2], parse("CC"), scheme)


@pytest.mark.parametrize("scheme", ["ogb", "dmp", "grover"])
def test_unforeseen_values(scheme):
    """Dummy atoms, dative bonds and rare chirality have a last index in these schemes."""
    last = {"ogb": (118, 4, 4), "dmp": (119, 3, 6)}
    graph = mol_to_graph(parse("CC*"), scheme)
    tag = mol_to_graph(parse("F[Pt@SP1](F)(Cl)Cl"), scheme).x[1]
    bond = mol_to_graph(parse("CN->[Cu]"), scheme).edge_attr[2]
    if scheme == "grover":
        assert graph.x[2, :101].argmax() == 100
        assert tag[114:119].argmax() == 4
        assert bond[:5].tolist() == [0] * 5
    else:
        assert (graph.x[2, 0], tag[1], bond[0]) == last[scheme]


@pytest.mark.parametrize(("charge", "place"), [(0, 0), (1, 1), (3, 3), (4, 4), (-2, 4), (5, 5), (-1, 5), (-6, 0)])
def test_formal_charge_of_grover(charge, place):
    """The charge is the place in a list of six, from its end if negative."""
    graph = mol_to_graph(parse(f"[W{charge:+d}]" if charge else "[W]"), "grover")
    assert graph.x[0, 108:114].tolist() == [float(each == place) for each in range(6)]


def test_compact_form_of_grover():
    mols = [parse(smiles) for smiles in SMILES]
    for dense, small in zip(mols_to_graphs(mols, "grover"), mols_to_graphs(mols, "grover", compact=True), strict=True):
        form = SCHEMES["grover"]
        assert (small.x.dtype, small.edge_attr.dtype, small.mass.dtype) == (np.uint8, np.uint8, np.float32)
        np.testing.assert_array_equal(form.expand_atoms(small.x, small.mass), dense.x)
        np.testing.assert_array_equal(form.expand_bonds(small.edge_attr), dense.edge_attr)


def test_wrong_calls():
    with pytest.raises(ValueError, match="scheme is one of pretrain_gnns, ogb, dmp, grover"):
        mol_to_graph(parse("C"), "chemprop")
    with pytest.raises(ValueError, match="without atoms"):
        mol_to_graph(Chem.Mol())


# ---- arrays that the original codes made


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata."""
    if path.suffix == ".npz":
        return dict(np.load(path)), {}
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 - no mapping


def same_as_original(graphs: list, x, edge_index, edge_attr) -> None:
    """The originals list the bonds as RDKit does; sorted by their atoms they are ours."""
    offsets = np.cumsum([0] + [len(graph.z) for graph in graphs])
    ours = np.concatenate([g.edge_index.astype(int) + start for g, start in zip(graphs, offsets, strict=False)], axis=1)
    np.testing.assert_array_equal(np.concatenate([graph.x for graph in graphs]), x)
    pairs, theirs = edge_index.reshape(2, -1, 2), edge_attr.reshape(-1, 2, edge_attr.shape[-1])
    np.testing.assert_array_equal(pairs[:, :, 0], pairs[::-1, :, 1])
    np.testing.assert_array_equal(theirs[:, 0], theirs[:, 1])
    low, high = pairs[:, :, 0].min(axis=0), pairs[:, :, 0].max(axis=0)
    order = np.lexsort((high, low))
    np.testing.assert_array_equal(ours[:, ::2], np.stack([low, high])[:, order])
    np.testing.assert_array_equal(np.concatenate([graph.edge_attr for graph in graphs])[::2], theirs[order, 0])


def test_molclr(original_outputs):
    arrays, metadata = load(original_outputs / "molclr_gcn_released.safetensors")
    graphs = [
        mol_to_graph(parse(text), "pretrain_gnns", explicit_hydrogens=True) for text in json.loads(metadata["smiles"])
    ]
    same_as_original(graphs, arrays["x"], arrays["edge_index"], arrays["edge_attr"])


def test_graphmvp(original_outputs):
    arrays, _ = load(original_outputs / "graphmvp_random.npz")
    graphs = [mol_to_graph(parse(str(text)), "pretrain_gnns", explicit_hydrogens=True) for text in arrays["smiles"]]
    same_as_original(graphs, arrays["x"], arrays["edge_index"], arrays["edge_attr"])


def test_infomax(original_outputs):
    arrays, metadata = load(original_outputs / "infomax_3d_random.safetensors")
    for number, text in enumerate(json.loads(metadata["smiles"])):
        graph = mol_to_graph(parse(text), "ogb", explicit_hydrogens=True)
        same_as_original([graph], *(arrays[f"raw/{number}/{key}"] for key in ("x", "edge_index", "edge_attr")))


def test_dmp(original_outputs):
    """The masked atoms of the fixture have lost their features."""
    arrays, _ = load(original_outputs / "dmp_gnn_random.npz")
    graphs = [mol_to_graph(parse(str(text)), "dmp") for text in arrays["smiles"]]
    x = np.concatenate([graph.x for graph in graphs])
    seen = ~arrays["masked_atoms"]
    np.testing.assert_array_equal(x[seen], arrays["x"][seen])
    x[~seen] = arrays["x"][~seen]
    same_as_original(
        [graphs[0]._replace(x=x), *(g._replace(x=x[:0]) for g in graphs[1:])],
        arrays["x"],
        arrays["edge_index"],
        arrays["edge_attr"],
    )


def test_grover(original_outputs):
    """Their arrays begin with a row of zeros; bonds hold the features of their source atom first."""
    arrays, metadata = load(original_outputs / "grover_random.safetensors")
    graphs = [mol_to_graph(parse(text), "grover") for text in json.loads(metadata["smiles"])]
    np.testing.assert_array_equal(np.concatenate([graph.x for graph in graphs]), arrays["batch/f_atoms"][1:])
    bonds = np.concatenate(
        [np.concatenate([graph.x[graph.edge_index[0]], graph.edge_attr], axis=1) for graph in graphs]
    )
    np.testing.assert_array_equal(bonds, arrays["batch/f_bonds"][1:])
    offsets = np.cumsum([0] + [len(graph.z) for graph in graphs])
    sources = np.concatenate([g.edge_index[0] + start for g, start in zip(graphs, offsets, strict=False)])
    np.testing.assert_array_equal(sources + 1, arrays["batch/b2a"][1:])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_real_molecules(shared_data, scheme):
    """What the SMILES is said not to show is not there: with and without its help, the same arrays."""
    import pyarrow.parquet as pq

    tables = [(shared_data / "moleculenet").glob("*.parquet"), (shared_data / "pretrain").glob("*.parquet")]
    texts = []
    for path in sorted(path for table in tables for path in table):
        columns = pq.read_schema(path).names
        if "smiles" in columns:
            column = pq.read_table(path, columns=["smiles"])["smiles"].to_pylist()
            texts += column[:: max(1, len(column) // 150)]
    pairs = []
    for text in texts:
        try:
            pairs.append((parse(text), text.strip()))
        except MoleculeError:
            continue
    assert len(pairs) > 1000
    mols, texts = zip(*pairs, strict=True)
    for with_text, without in zip(mols_to_graphs(mols, scheme, texts=texts), mols_to_graphs(mols, scheme), strict=True):
        assert isinstance(with_text, MoleculeError) == isinstance(without, MoleculeError)
        if not isinstance(without, MoleculeError):
            for ours, plain in zip(with_text[:4], without[:4], strict=True):
                np.testing.assert_array_equal(ours, plain)
