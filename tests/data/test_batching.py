"""Padding and the order in which molecules are put into batches."""

import numpy as np
import pytest

from hf_molrep.chem.graph import SCHEMES, mol_to_graph
from hf_molrep.chem.smiles import parse
from hf_molrep.data.batching import graph_from_pyg, grouped_order, pad_tokens, to_pyg


def test_pad_tokens():
    ids, mask = pad_tokens([np.array([5, 6, 7], dtype=np.int32), [8], np.array([9, 1], dtype=np.int16)], 1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1], [9, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]  # a token that looks like padding is none
    assert ids.dtype == mask.dtype == np.int64


@pytest.mark.parametrize("sequences", [[], [[]], [[1, 2], []]])
def test_nothing_to_pad(sequences):
    with pytest.raises(ValueError, match="at least one"):
        pad_tokens(sequences, 0)


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    return np.random.default_rng(0).integers(5, 120, 2003)


def waste(order: np.ndarray, lengths: np.ndarray, batch_size: int) -> float:
    """Share of padding among the tokens of all batches."""
    batches = [lengths[order[start : start + batch_size]] for start in range(0, len(order), batch_size)]
    return 1 - lengths.sum() / sum(len(batch) * batch.max() for batch in batches)


def test_order_is_a_seeded_permutation(lengths):
    order = grouped_order(lengths, 32, np.random.default_rng(1))
    assert np.array_equal(np.sort(order), np.arange(len(lengths)))
    assert np.array_equal(order, grouped_order(lengths, 32, np.random.default_rng(1)))
    assert not np.array_equal(order, grouped_order(lengths, 32, np.random.default_rng(2)))


def test_order_saves_padding(lengths):
    order = grouped_order(lengths, 32, np.random.default_rng(1))
    assert waste(np.random.default_rng(1).permutation(len(lengths)), lengths, 32) > 0.3
    assert waste(order, lengths, 32) < 0.05


def test_batches_are_shuffled(lengths):
    """Short and long batches are mixed, and the incomplete one comes last."""
    order = grouped_order(lengths, 32, np.random.default_rng(1))
    means = lengths[order[: 62 * 32]].reshape(62, 32).mean(axis=1)
    assert abs(np.corrcoef(np.arange(62), means)[0, 1]) < 0.5
    sizes = [len(order[start : start + 32]) for start in range(0, len(order), 32)]
    assert sizes == [32] * 62 + [19]


def test_windows_keep_batches_different(lengths):
    """Sorting happens within windows: the batches of two epochs do not hold the same molecules."""
    batches = [
        {frozenset(order[start : start + 32]) for start in range(0, 2003, 32)}
        for order in (grouped_order(lengths, 32, np.random.default_rng(seed), batches_per_window=8) for seed in (1, 2))
    ]
    assert not batches[0] & batches[1]


@pytest.mark.parametrize("batches_per_window", [1, 4, 64])
def test_groups_travel_together(lengths, batches_per_window):
    """Members of a group meet in a batch far more often than by chance, up to `group_size` at a time."""
    groups = np.random.default_rng(3).integers(0, 300, len(lengths))
    order = grouped_order(lengths, 32, np.random.default_rng(1), groups, 4, batches_per_window)
    assert np.array_equal(np.sort(order), np.arange(len(lengths)))

    def company(order: np.ndarray) -> float:
        """Others of its group that a molecule meets in its batch, on average."""
        batches = [groups[order[start : start + 32]] for start in range(0, len(order), 32)]
        return np.mean(np.concatenate([np.bincount(batch)[batch] - 1 for batch in batches]))

    assert company(np.random.default_rng(1).permutation(len(lengths))) < 0.2
    assert 1.5 < company(order) < 4
    runs = np.diff(np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0, True]))
    assert np.mean(runs) > 2  # side by side


def test_any_names_of_groups_and_small_sets():
    for count in (1, 2, 31):
        order = grouped_order(np.arange(count) + 3, 32, np.random.default_rng(0), np.full(count, 7))
        assert np.array_equal(np.sort(order), np.arange(count))


def require_equal(found, expected) -> None:
    """Two MolGraphs, data types included."""
    for key, value in expected._asdict().items():
        other = getattr(found, key)
        if value is None:
            assert other is None, key
        else:
            assert other.dtype == value.dtype, key
            np.testing.assert_array_equal(other, value, err_msg=key)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("smiles", ["CC(=O)[O-].[Na+]", "C", "C/C=C/c1ccccc1Br", "[13CH3][C@H](N)C(=O)O"])
def test_graph_to_pyg_and_back(smiles, scheme):
    """With coordinates and without; edges in any order; `z`, where it is not given, from the features."""
    graph = mol_to_graph(parse(smiles), scheme)
    pos = np.random.default_rng(0).normal(size=(len(graph.z), 3)).astype(np.float32)
    for given in (graph, graph._replace(pos=pos)):
        data = to_pyg(given)
        require_equal(graph_from_pyg(data, SCHEMES[scheme]), given)
        order = np.random.default_rng(1).permutation(data.num_edges)
        data.edge_index, data.edge_attr = data.edge_index[:, order], data.edge_attr[order]
        del data.z
        require_equal(graph_from_pyg(data, SCHEMES[scheme]), given)


@pytest.mark.parametrize(("scheme", "last"), [("pretrain_gnns", 118), ("ogb", 118), ("dmp", 118), ("grover", 100)])
def test_atomic_numbers_that_the_features_tell(scheme, last):
    elements = [z for z in range(1, 119) if z != 6]
    symbols = [f"[{parse(f'[#{z}]').GetAtomWithIdx(0).GetSymbol()}]" for z in elements]
    data = to_pyg(mol_to_graph(parse(".".join(symbols)), scheme))
    assert graph_from_pyg(data, SCHEMES[scheme]).z.tolist() == elements
    del data.z
    assert graph_from_pyg(data, SCHEMES[scheme]).z.tolist() == [z if z <= last else 0 for z in elements]
    if scheme == "pretrain_gnns":
        data.x[3, 0], data.x[5, 0] = 118, 119  # both masks
        assert graph_from_pyg(data, SCHEMES[scheme]).z[2:7].tolist() == [3, 0, 5, 0, 8]
    elif scheme != "grover":
        data = to_pyg(mol_to_graph(parse("*C"), scheme))
        del data.z
        assert graph_from_pyg(data, SCHEMES[scheme]).z.tolist() == [0, 6]


def test_what_is_no_graph_of_one_molecule():
    import torch
    from torch_geometric.data import Batch, Data

    form = SCHEMES["pretrain_gnns"]
    data = to_pyg(mol_to_graph(parse("CCO"), "pretrain_gnns"))
    with pytest.raises(ValueError, match="2 molecules are not a single graph"):
        graph_from_pyg(Batch.from_data_list([data, data]), form)
    for change, complaint in (
        ({"z": torch.tensor([6, 6])}, "z .2,. is not one atomic number"),
        ({"z": torch.tensor([6, 6, 264])}, "z .3,. is not one atomic number"),
        ({"pos": torch.zeros(3, 2)}, "pos .3, 2. is not one point"),
    ):
        with pytest.raises(ValueError, match=complaint):
            graph_from_pyg(Data(**{**data.to_dict(), **change}), form)
    many = 32768
    chain = torch.arange(many - 1).repeat(2, 1) + torch.tensor([[0], [1]])
    edge_index = torch.cat([chain, chain.flip(0)], dim=1)
    edge_attr = torch.zeros(edge_index.shape[1], 2, dtype=torch.int64)
    data = Data(x=torch.zeros(many, 2, dtype=torch.int64), edge_index=edge_index, edge_attr=edge_attr)
    with pytest.raises(ValueError, match="a molecule of 32768 atoms"):
        graph_from_pyg(data, form)
