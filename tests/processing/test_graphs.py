"""SMILES to graphs and batches of them, PyG's data, good input and bad."""

import pickle

import numpy as np
import pytest
import torch

from hf_molrep import GroverFeatureExtractor, MolCLRFeatureExtractor, MolGraphFeatureExtractor
from hf_molrep.chem.graph import SCHEMES, mol_to_graph
from hf_molrep.chem.smiles import MoleculeError, parse
from hf_molrep.data.batching import from_pyg, to_pyg

SMILES = ["CCO", "[Na+].[Cl-]", "C", "F/C=C/F", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("hydrogens", [False, True])
def test_a_batch_is_the_molecules_side_by_side(scheme, hydrogens):
    extractor = MolGraphFeatureExtractor(scheme, explicit_hydrogens=hydrogens, canonical=False)
    batch = extractor(SMILES, return_tensors="pt")
    graphs = [mol_to_graph(parse(smiles), scheme, hydrogens) for smiles in SMILES]
    counts = [len(graph.z) for graph in graphs]
    starts = np.cumsum([0, *counts[:-1]])
    float_or_int = torch.float32 if scheme == "grover" else torch.int64
    expected = {
        "x": (np.concatenate([graph.x for graph in graphs]), float_or_int),
        "edge_index": (
            np.concatenate([g.edge_index + start for g, start in zip(graphs, starts, strict=True)], axis=1),
            torch.int64,
        ),
        "edge_attr": (np.concatenate([graph.edge_attr for graph in graphs]), float_or_int),
        "batch": (np.repeat(np.arange(len(SMILES)), counts), torch.int64),
    }
    assert set(batch) == {*expected, "num_graphs"}
    assert batch["num_graphs"] == len(SMILES)
    for key, (values, dtype) in expected.items():
        assert batch[key].dtype == dtype
        np.testing.assert_array_equal(batch[key].numpy(), values)
    # every edge 2k + 1 is edge 2k reversed
    assert torch.equal(batch["edge_index"][:, ::2], batch["edge_index"][:, 1::2].flip(0))


@pytest.mark.parametrize("scheme", ["pretrain_gnns", "grover"])
def test_cached_features_give_the_same_batch(scheme):
    """Through Arrow, where arrays come back as lists, and through pickle."""
    from datasets import Dataset

    extractor = MolGraphFeatureExtractor(scheme)
    features = extractor.featurize({"smiles": SMILES})
    direct = extractor.pad(features)
    table = Dataset.from_list(features)
    kinds = {"x": "uint8", "edge_index": "int16", "edge_attr": "uint8", "z": "uint8"}
    assert {key: table.features[key].feature.dtype for key in kinds} == kinds
    for rows in (list(table), pickle.loads(pickle.dumps(features)), list(table.with_format("numpy"))):
        again = extractor.pad(rows)
        assert all(torch.equal(again[key], direct[key]) for key in direct if key != "num_graphs")
    assert [extractor.size(feature) for feature in features] == [3, 2, 1, 4, 13, 6]
    assert sum(value.nbytes for value in features[0].values() if isinstance(value, np.ndarray)) < 200


@pytest.mark.parametrize("hydrogens", [False, True])
def test_saved_and_loaded(tmp_path, hydrogens):
    made = MolGraphFeatureExtractor("dmp", explicit_hydrogens=hydrogens, standardize="parent", canonical=True)
    made.save_pretrained(tmp_path)
    loaded = MolGraphFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == made.to_dict()
    assert (loaded.scheme, loaded.explicit_hydrogens, loaded.canonical) == ("dmp", hydrogens, True)
    assert loaded.featurize({"smiles": ["CC(=O)[O-].[Na+]"]})[0]["smiles_used"] == "CC(=O)O"


def test_standardisation_and_what_was_used():
    """The SMILES as it was given, unless something had to be changed; atoms in its order."""
    extractor = MolGraphFeatureExtractor(canonical=False)
    used = [
        feature["smiles_used"]
        for feature in extractor.featurize({"smiles": [" OCC ", "CS(C)=O", "[CH3:1]O", "[Na]OC"]})
    ]
    assert used == ["OCC", "C[S+](C)[O-]", "CO", "C[O-].[Na+]"]
    assert extractor.featurize({"smiles": ["OCC"]})[0]["z"].tolist() == [8, 6, 6]
    as_drawn = MolGraphFeatureExtractor(standardize="none", canonical=False)
    (feature,) = as_drawn.featurize({"smiles": ["[CH3:1]O[Na]"]})
    assert feature["smiles_used"] == "[CH3:1]O[Na]"
    assert len(feature["edge_index"]) == 8
    # sulfur hidden behind its number is standardised like any other
    assert extractor.featurize({"smiles": ["C[#16](=O)C"]})[0]["smiles_used"] == "C[S+](C)[O-]"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_molecule_is_one_graph_however_it_is_written(scheme):
    """By default; chirality tags, bond directions and bracket atoms are those of the SMILES with `canonical=False`."""
    written = ["C[C@H](N)C(=O)O", "N[C@@H](C)C(=O)O", "OC(=O)[C@@H](N)C", "[CH3][C@H]([NH2])[C](=[O])[OH]"]
    first, *others = MolGraphFeatureExtractor(scheme).featurize({"smiles": written})
    assert {each["smiles_used"] for each in (first, *others)} == {"C[C@H](N)C(=O)O"}
    for feature in others:
        for key in ("x", "edge_index", "edge_attr", "z"):
            np.testing.assert_array_equal(feature[key], first[key])
    as_written = MolGraphFeatureExtractor(scheme, canonical=False).featurize({"smiles": written[:3]})
    assert as_written[1]["z"].tolist() != as_written[0]["z"].tolist()
    if scheme == "pretrain_gnns":
        assert {feature["x"].reshape(-1, 2)[:, 1].max() for feature in as_written} == {1, 2}


@pytest.mark.parametrize("hydrogens", [False, True])
def test_conformers_have_the_atoms_of_the_graph_in_its_order(hydrogens, tmp_path):
    """Computed ones and those of columns, which may come in another order; a batch of graphs keeps its positions."""
    smiles = ["OCC", "C[C@H](N)C(=O)O", "c1ccccc1"]
    options = {"explicit_hydrogens": hydrogens, "num_conformers": 1}
    extractor = MolGraphFeatureExtractor(**options)
    extractor.conformers.cache = None
    features = extractor.featurize({"smiles": smiles})
    bonds = 0
    for feature in features:
        pos, (source, target) = feature["pos"].reshape(-1, 3), feature["edge_index"].reshape(2, -1)
        lengths = np.linalg.norm(pos[source] - pos[target], axis=1)
        assert ((lengths > 0.9) & (lengths < 1.65)).all()
        bonds += len(lengths)
        assert feature["conformer_status"] == "3d"
    batch = extractor.pad(features)
    assert batch["pos"].shape == (len(batch["batch"]), 3)
    assert batch["pos"].dtype == torch.float32
    assert batch["z"].tolist() == np.concatenate([feature["z"] for feature in features]).tolist()
    lengths = (batch["pos"][batch["edge_index"][0]] - batch["pos"][batch["edge_index"][1]]).norm(dim=1)
    assert len(lengths) == bonds
    assert bool((lengths < 1.65).all())

    alanine = features[1]
    order = np.random.default_rng(0).permutation(len(alanine["z"]))
    given = {"smiles": smiles[1:2], "z": [alanine["z"][order]], "pos": [alanine["pos"].reshape(-1, 3)[order]]}
    (again,) = extractor.featurize(given)
    np.testing.assert_array_equal(again["z"], alanine["z"])
    pos = again["pos"].reshape(-1, 3)
    source, target = again["edge_index"].reshape(2, -1)
    assert (np.linalg.norm(pos[source] - pos[target], axis=1) < 1.65).all()
    assert "given" in again["conformer_flags"].split()


def test_several_conformers_of_a_graph():
    extractor = MolGraphFeatureExtractor(num_conformers=3)
    extractor.conformers.cache = None
    features = extractor.featurize({"smiles": ["CCCCO", "CCN"]})
    assert [feature["num_conformers"] for feature in features] == [3, 3]
    batch = extractor.pad(features)
    assert batch["pos"].shape == (3, 8, 3)
    for conformer, own in zip(batch["pos"][:, :5], features[0]["pos"].reshape(3, 5, 3), strict=True):
        np.testing.assert_array_equal(conformer.numpy(), own)
    with pytest.raises(ValueError, match="numbers of conformers: 1, 3"):
        extractor.pad([features[0], {**features[1], "pos": features[1]["pos"][:9]}])


def test_what_has_no_conformer_of_all_its_atoms_is_refused(tmp_path):
    extractor = MolGraphFeatureExtractor(num_conformers=1)
    extractor.conformers.cache = None
    salt, ethanol, other = extractor.featurize({"smiles": ["[Na+].CC(=O)[O-]", "CCO", "C1CC"]}, on_error="skip")
    assert isinstance(salt, MoleculeError)
    assert salt.smiles == "[Na+].CC(=O)[O-]"
    assert "fragment" in salt.reason
    assert isinstance(ethanol, dict)
    assert isinstance(other, MoleculeError)
    ethanol["pos"][0] += 50.0
    moved = {"smiles": ["CCO"], "z": [ethanol["z"]], "pos": [ethanol["pos"]]}
    with pytest.raises(MoleculeError, match=r"angstrom apart|not this molecule"):
        extractor.featurize(moved)


@pytest.mark.parametrize("extractor_class", [MolCLRFeatureExtractor, GroverFeatureExtractor])
def test_a_checkpoint_of_graphs_alone_can_be_asked_for_conformers(extractor_class, tmp_path):
    extractor_class().save_pretrained(tmp_path)
    loaded = extractor_class.from_pretrained(tmp_path, num_conformers=1)
    assert loaded.num_conformers == 1
    loaded.conformers.cache = None
    assert loaded(["CCO"], return_tensors="pt")["pos"].shape == (3, 3)


def test_conformer_settings_are_saved(tmp_path):
    MolGraphFeatureExtractor("ogb", num_conformers=2, conformer_seed=7).save_pretrained(tmp_path)
    loaded = MolGraphFeatureExtractor.from_pretrained(tmp_path)
    assert (loaded.num_conformers, loaded.conformer_seed) == (2, 7)
    assert loaded.reports == ("conformer_status", "conformer_flags")
    assert frozenset({"smiles", "z", "pos"}) in loaded.inputs
    assert MolGraphFeatureExtractor().inputs == (frozenset({"smiles"}),)


def test_bad_molecules_keep_their_places():
    extractor = MolGraphFeatureExtractor()
    given = ["CCO", "C1CC", "", "CC*", None, "C" * 30_000, "[Na+].[Cl-]", "CN->[Cu]"]
    found = extractor.featurize({"smiles": given}, on_error="skip")
    assert [isinstance(each, dict) for each in found] == [True, False, False, False, False, False, True, False]
    for smiles, each in zip(given, found, strict=True):
        if isinstance(each, MoleculeError):
            assert each.smiles == smiles
            with pytest.raises(MoleculeError):
                extractor.featurize({"smiles": ["C", smiles]})
    assert "dummy atom" in found[3].reason
    assert MolGraphFeatureExtractor("ogb").featurize({"smiles": ["CC*"]})


def test_many_molecules_are_made_in_chunks():
    from hf_molrep.processing.graphs import CHUNK

    extractor = MolGraphFeatureExtractor()
    given = ["C" * (1 + place % 7) for place in range(CHUNK + 5)]
    given[CHUNK] = "C1CC"
    found = extractor.featurize({"smiles": given}, on_error="skip")
    assert isinstance(found[CHUNK], MoleculeError)
    assert all(len(found[i]["z"]) == 1 + i % 7 for i in range(len(given)) if i != CHUNK)


def test_wrong_calls(tmp_path):
    with pytest.raises(ValueError, match="scheme is one of"):
        MolGraphFeatureExtractor("chemprop")
    with pytest.raises(ValueError, match="version 7 of the feature scheme 'ogb'; here it is 1"):
        MolGraphFeatureExtractor("ogb", scheme_version=7)
    with pytest.raises(ValueError, match="standardize is one of"):
        MolGraphFeatureExtractor(standardize="wash")
    extractor = MolGraphFeatureExtractor()
    with pytest.raises(ValueError, match="on_error"):
        extractor.featurize({"smiles": ["C"]}, on_error="ignore")
    with pytest.raises(ValueError, match="at least one molecule"):
        extractor.pad([])
    with pytest.raises(ValueError, match="not made by the scheme 'pretrain_gnns'"):
        extractor.pad(MolGraphFeatureExtractor("ogb").featurize({"smiles": ["CCO"]}))
    with pytest.raises(ValueError, match="return_tensors"):
        extractor("CCO", return_tensors="tf")


# ---- PyTorch Geometric


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pyg_batch_and_back(scheme):
    """Data -> Batch -> ours is what the extractor makes, also with the edges shuffled."""
    from torch_geometric.data import Batch

    data = [to_pyg(mol_to_graph(parse(smiles), scheme)) for smiles in SMILES]
    expected = MolGraphFeatureExtractor(scheme, canonical=False)(SMILES, return_tensors="pt")
    batch = Batch.from_data_list(data)
    order = torch.randperm(batch.edge_index.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = Batch.from_data_list(data)
    shuffled.edge_index, shuffled.edge_attr = batch.edge_index[:, order], batch.edge_attr[order]
    for each in (batch, shuffled):
        ours = from_pyg(each, SCHEMES[scheme])
        assert ours.keys() == dict(expected).keys()
        assert ours["num_graphs"] == len(SMILES)
        for key in ("x", "edge_index", "edge_attr", "batch"):
            assert torch.equal(ours[key], expected[key]), key
    assert from_pyg(data[2], SCHEMES[scheme])["batch"].tolist() == [0]


def test_foreign_graphs_are_refused():
    from torch_geometric.utils import from_smiles

    form = SCHEMES["ogb"]
    with pytest.raises(ValueError, match="these features are of another scheme"):
        from_pyg(from_smiles("Oc1ccccc1"), form)  # PyG's featuriser has as many columns, with other meanings
    with pytest.raises(ValueError, match="has 2 columns"):
        from_pyg(from_smiles("CCO"), SCHEMES["pretrain_gnns"])
    data = to_pyg(mol_to_graph(parse("CCO"), "ogb"))
    for edges, complaint in (
        ([0, 1, 2], "once in each direction"),
        ([0, 0, 0, 1, 1, 1], "once in each direction"),
        ([0, 2], "once in each direction"),
    ):
        broken = data.clone()
        broken.edge_index, broken.edge_attr = data.edge_index[:, edges], data.edge_attr[edges]
        with pytest.raises(ValueError, match=complaint):
            from_pyg(broken, form)
    broken = data.clone()
    broken.edge_attr[0, 0] = 1
    with pytest.raises(ValueError, match="two directions of a bond"):
        from_pyg(broken, form)
    broken = data.clone()
    broken.x = data.x.float()
    with pytest.raises(ValueError, match="holds indices, not "):
        from_pyg(broken, form)
