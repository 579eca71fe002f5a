"""MolCLR: the laws, and what is its own."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors import safe_open

from hf_molrep.losses import context_prediction, nt_xent
from hf_molrep.models.molclr import (
    MolCLRConfig,
    MolCLRDataCollator,
    MolCLRFeatureExtractor,
    MolCLRForPreTraining,
    MolCLRForPropertyPrediction,
    MolCLRModel,
)
from hf_molrep.models.molclr.conversion_molclr import convert, convert_model, read_state
from hf_molrep.models.molclr.pretraining_molclr import objective_options
from tests.models.common import MethodLaws, draw_weights
from tests.models.laws.hooks import GOLDENS, MOLECULES, descriptor_scaling
from tests.models.molclr.tiny import finetuned_shapes, original_shapes, original_weights, tiny_config

NO_COORDINATES = "a molecular graph has no coordinates"


def glorot(rows: int, columns: int) -> tuple[str, float]:
    return ("uniform", (6 / (rows + columns)) ** 0.5)


class TestMolCLR(MethodLaws):
    model_type = "molclr"
    does_not_apply = {
        "law_05_motion": NO_COORDINATES,
        "law_12_sdpa": "there is no attention over a sequence",
    }
    refuses = {"wildcard": "the scheme has no atom of number 0"}
    hidden_states = 4
    gnn_type = "gin"
    augmentation = "node"
    initial_values = {
        r"atom_embeddings\.weight$": glorot(119, 16),
        r"chirality_embeddings\.weight$": glorot(3, 16),
        r"bond_embeddings\.weight$": glorot(5, 16),
        r"direction_embeddings\.weight$": glorot(3, 16),
        r"norms\.\d+\.weight$": ("constant", 1.0),
        r"norms\.\d+\.bias$": ("constant", 0.0),
        # torch's own for a linear layer: 1 / sqrt(inputs), weight and bias
        r"down_proj\.": ("uniform", 32**-0.5),
        r"(up_proj|feature)\.": ("uniform", 16**-0.5),
        r"contrast_": ("uniform", 12**-0.5),
        r"head\.dense\.0\.": ("uniform", 12**-0.5),
        r"head\.": ("uniform", 6**-0.5),
    }

    def config(self, dropout: float = 0.0, **options):
        return tiny_config(gnn_type=self.gnn_type, dropout=dropout, finetuning_dropout=dropout, **options)

    def processor(self):
        return MolCLRFeatureExtractor()

    def build(self, kind, attention=None, **options):
        """Running statistics of batch norm as after training: drawn ones let the states grow a hundredfold."""
        model = super().build(kind, attention, **options)
        encoder = model if kind == "model" else model.molclr
        for norm in encoder.norms:
            norm.momentum = 1.0
        with torch.no_grad():
            encoder.train()(**self.inputs())
        return model.eval()

    def renumbered(self, rng: np.random.Generator):
        """The same graphs, their atoms permuted: another SMILES may give other chirality tags and directions."""
        processor, features = self.processor(), []
        for feature in self.processor().featurize({"smiles": self.molecules}):
            order = rng.permutation(feature["num_nodes"])
            x = feature["x"].reshape(len(order), -1)
            changed = {"x": x[np.argsort(order)].ravel(), "edge_index": order[feature["edge_index"]]}
            features.append({**feature, **changed})
        return dict(processor.pad(features))

    def collator(self, seed: int = 0):
        return MolCLRDataCollator(self.processor(), augmentation=self.augmentation, seed=seed)

    def agreement(self):
        """The original's GINet and GCN at full size, run on eight molecules with weights drawn by name."""
        golden = np.load(GOLDENS / "molclr.npz")
        graph = [torch.from_numpy(golden[key]).long() for key in ("x", "edge_index", "edge_attr", "batch")]
        found = {}
        for gnn_type in ("gin", "gcn"):
            model = convert_model(original_weights(original_shapes(gnn_type)))
            with torch.no_grad():
                embedding = model.molclr(*graph).pooler_output
                projection = model.project(embedding)
            for name, ours in (("h", embedding), ("z", projection)):
                original = torch.from_numpy(golden[f"{gnn_type}_{name}"])
                found[f"{gnn_type} {name}"] = (ours, original, 1e-5 * original.abs().max().item())
        return found


class TestMolCLRGCN(TestMolCLR):
    """The other encoder of the paper, on graphs with hydrogens and with the `mix` augmentation."""

    gnn_type = "gcn"
    augmentation = "mix"
    initial_values = {
        r"bond_embeddings\.weight$": glorot(5, 1),
        r"direction_embeddings\.weight$": glorot(3, 1),
        r"layers\.\d+\.dense\.weight$": glorot(16, 16),
        r"layers\.\d+\.bias$": ("constant", 0.0),
        **{
            pattern: rule
            for pattern, rule in TestMolCLR.initial_values.items()
            if not pattern.startswith(("bond", "direction"))
        },
    }

    def processor(self):
        return MolCLRFeatureExtractor(explicit_hydrogens=True)


class TestMolCLRGAT(TestMolCLR):
    """The attention layer of pretrain-gnns, without the linear map to `h`, with `subgraph` augmentation."""

    does_not_apply = {
        **TestMolCLR.does_not_apply,
        "law_01_processor": "the processor does not know the layer",
        "law_10_bad_smiles": "the processor does not know the layer",
        "law_13_resuming": "resuming does not depend on the layer",
        "law_14_two_processes": "gathering does not depend on the layer",
    }
    gnn_type = "gat"
    augmentation = "subgraph"
    initial_values = {
        r"bond_embeddings\.weight$": glorot(5, 32),
        r"direction_embeddings\.weight$": glorot(3, 32),
        r"layers\.\d+\.dense\.": ("uniform", 16**-0.5),
        r"attention$": ("uniform", (6 / 34) ** 0.5),
        r"layers\.\d+\.bias$": ("constant", 0.0),
        r"contrast_": ("uniform", 16**-0.5),
        r"head\.dense\.0\.": ("uniform", 16**-0.5),
        r"head\.": ("uniform", 8**-0.5),
        **{
            pattern: rule
            for pattern, rule in TestMolCLR.initial_values.items()
            if pattern.startswith(("atom", "chirality", "norms"))
        },
    }

    def config(self, dropout: float = 0.0, **options):
        return super().config(dropout, feature_dim=None, **options)


class TestMolCLRAttributeMasking(TestMolCLR):
    """pretrain-gnns' attribute masking, bonds too, on its GraphSAGE, states of all layers side by side."""

    does_not_apply = {
        **TestMolCLR.does_not_apply,
        "law_01_processor": "the processor does not know the objective",
        "law_10_bad_smiles": "the processor does not know the objective",
    }
    gnn_type = "graphsage"
    overfit = (60, 1e-2, 0.1)
    objective = {"objective": "attribute_masking", "feature_dim": None, "jumping_knowledge": "concat"}
    objective |= {"num_atom_types": 120, "mask_atom_type": 119, "num_bond_types": 6, "mask_bond_type": 5}
    initial_values = {
        r"atom_embeddings\.weight$": glorot(120, 16),
        r"bond_embeddings\.weight$": glorot(6, 16),
        r"layers\.\d+\.dense\.": ("uniform", 16**-0.5),
        r"(atom|bond)_head\.": ("uniform", 64**-0.5),
        r"head\.dense\.0\.": ("uniform", 64**-0.5),
        r"head\.": ("uniform", 32**-0.5),
        **{
            pattern: rule
            for pattern, rule in TestMolCLR.initial_values.items()
            if pattern.startswith(("chirality", "direction", "norms"))
        },
    }

    def config(self, dropout: float = 0.0, **options):
        return super().config(dropout, **{**self.objective, **options})

    def collator(self, seed: int = 0):
        return MolCLRDataCollator(self.processor(), seed=seed, **objective_options(self.config(), None, True))


class TestMolCLRContextPrediction(TestMolCLRAttributeMasking):
    """pretrain-gnns' context prediction on its GCN."""

    gnn_type = "gcn_normalized"
    objective = {"objective": "context_prediction", "feature_dim": None, "context_inner_hops": 1, "context_size": 2}
    initial_values = {
        r"layers\.\d+\.dense\.": ("uniform", 16**-0.5),
        r"head\.dense\.0\.": ("uniform", 16**-0.5),
        r"head\.": ("uniform", 8**-0.5),
        **{
            pattern: rule
            for pattern, rule in TestMolCLR.initial_values.items()
            if pattern.startswith(("atom", "chirality", "bond", "direction", "norms"))
        },
    }


class TestMolCLRDescriptors(TestMolCLR):
    """CheMeleon's objective on the GIN, with mean and sum of the atom states as the embedding."""

    does_not_apply = {
        **TestMolCLR.does_not_apply,
        "law_10_bad_smiles": "the processor reads SMILES as it does for every objective",
    }
    initial_values = {
        r"descriptor_head\.": ("uniform", 32**-0.5),
        r"head\.dense\.0\.": ("uniform", 32**-0.5),
        r"head\.": ("uniform", 16**-0.5),
        **{
            pattern: rule
            for pattern, rule in TestMolCLR.initial_values.items()
            if not pattern.startswith(("contrast", "head"))
        },
    }

    def processor(self):
        return MolCLRFeatureExtractor(descriptor_scaling=descriptor_scaling())

    def config(self, dropout: float = 0.0, **options):
        own = {"objective": "descriptors", "feature_dim": None, "readout": "mean_sum"}
        return super().config(dropout, **{**own, **self.processor().config_fields(), **options})

    def collator(self, seed: int = 0):
        return MolCLRDataCollator(self.processor(), seed=seed, **objective_options(self.config(), None, True))


def test_descriptor_batch():
    """Of each molecule 15 % of its targets, others of the next molecule and epoch; the graphs are as they were."""
    processor = TestMolCLRDescriptors().processor()
    rows = [{"smiles": text, "row_id": place} for place, text in enumerate(MOLECULES)]
    targets = processor.descriptors(MOLECULES)
    batch = MolCLRDataCollator(processor, objective="descriptors")(rows)
    found, places = batch.pop("descriptor_targets").numpy(), batch.pop("descriptor_places").numpy()
    for key, value in processor(MOLECULES, return_tensors="pt").items():
        assert np.array_equal(batch[key], value), key
    assert found.shape == places.shape == (len(MOLECULES), math.ceil(0.15 * targets.shape[1]))
    assert all(len(set(row)) == len(row) for row in places.tolist())
    np.testing.assert_array_equal(found, np.take_along_axis(targets, places, axis=1))
    assert not np.array_equal(places[0], places[1])
    later = MolCLRDataCollator(processor, objective="descriptors", epoch=1)(rows)["descriptor_places"].numpy()
    assert not np.array_equal(later[0], places[0])
    whole = MolCLRDataCollator(processor, **objective_options(TestMolCLRDescriptors().config(), None, False))(rows)
    assert whole["descriptor_targets"].shape == targets.shape
    # cached with the features, the same
    features = processor.with_descriptors().featurize({"smiles": MOLECULES})
    cached = [{**feature, "row_id": place} for place, feature in enumerate(features)]
    again = MolCLRDataCollator(processor, objective="descriptors")(cached)["descriptor_targets"].numpy()
    np.testing.assert_array_equal(again, found)
    # the loss is that of the descriptors that are asked for
    model = MolCLRForPreTraining(TestMolCLRDescriptors().config()).eval()
    with torch.no_grad():
        asked = model(**MolCLRDataCollator(processor, objective="descriptors")(rows)).loss.item()
        predicted = model.descriptor_head(model.molclr(**processor(MOLECULES, return_tensors="pt")).pooler_output)
        everything = model(**processor(MOLECULES, return_tensors="pt"), descriptor_targets=torch.from_numpy(targets))
    squared = (predicted.numpy() - targets) ** 2
    assert asked == pytest.approx(np.take_along_axis(squared, places, axis=1).mean(), rel=1e-4)
    assert everything.loss.item() == pytest.approx(squared.mean(), rel=1e-4)
    with pytest.raises(ValueError, match="has no descriptor_scaling"):
        MolCLRDataCollator(MolCLRFeatureExtractor(), objective="descriptors")(rows)
    with pytest.raises(ValueError, match="descriptor_share is above 0"):
        MolCLRDataCollator(processor, descriptor_share=0.0)


def test_attribute_masking_batch():
    """What is masked is what was there, at its place; its bonds in both directions."""
    processor = MolCLRFeatureExtractor()
    smiles = ["CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]", "C", "C#N"]
    rows = [{"smiles": text, "row_id": place} for place, text in enumerate(smiles)]
    options = {"objective": "attribute_masking", "mask_atom_type": 119}
    plain = processor(smiles, return_tensors="pt")
    batch = MolCLRDataCollator(processor, mask_bond_type=5, **options)(rows)
    places = batch["masked_atoms"]
    assert torch.bincount(plain["batch"][places]).tolist() == [2, 1, 1, 1]  # floor(0.15 N + 1)
    assert torch.equal(batch["masked_atom_types"], plain["x"][places, 0])
    assert torch.equal((batch["x"] == torch.tensor([119, 0])).all(dim=1).nonzero().flatten(), places)
    bonds = batch["masked_bonds"]
    assert torch.equal(batch["masked_bond_types"], plain["edge_attr"][bonds, 0])
    hit = torch.isin(plain["edge_index"], places).any(dim=0)
    assert torch.equal(hit.nonzero().flatten()[::2], bonds)
    assert torch.equal(batch["edge_attr"][:, 0] == 5, hit)
    assert torch.equal(batch["edge_attr"][~hit], plain["edge_attr"][~hit])
    without = MolCLRDataCollator(processor, **options)(rows)
    assert torch.equal(without["edge_attr"], plain["edge_attr"])
    assert "masked_bonds" not in without


def test_context_prediction_batch():
    """A chain of twelve from one end: five bonds around it; the context is 5 to 7 away, its anchor the fifth."""
    processor = MolCLRFeatureExtractor()
    collator = MolCLRDataCollator(processor, objective="context_prediction")
    chain = processor.featurize({"smiles": ["CCCCCCCCCCCO"]})[0]
    for row_id in range(200):
        batch = collator([{**chain, "row_id": row_id}])
        if len(batch["x"]) == 6:  # an end was drawn
            break
    assert len(batch["context_x"]) == 3
    assert batch["context_edge_index"].shape == (2, 4)
    assert len(batch["anchors"]) == 1
    small = collator([{"smiles": smiles, "row_id": 0} for smiles in ("C", "[Na+].[Cl-]", "CCO")])
    assert len(small["context_x"]) == 0
    assert len(small["anchors"]) == 0
    assert torch.bincount(small["batch"]).tolist() == [1, 1, 3]
    config = tiny_config(feature_dim=None, objective="context_prediction")
    model = MolCLRForPreTraining(config).train()
    loss = model(**small).loss
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None for parameter in model.context_model.layers.parameters())
    methane = processor.featurize({"smiles": ["C"]})[0]
    mixed = collator([{**methane, "row_id": 0}, {**chain, "row_id": row_id}, {**chain, "row_id": row_id + 1}])
    assert model(**mixed).loss > 0


@pytest.mark.parametrize("objective", ["contrastive", "attribute_masking", "context_prediction"])
@pytest.mark.parametrize("augmentation", ["node", "subgraph", "mix"])
def test_rows_as_a_dataset_gives_them(objective, augmentation):
    """Lists instead of arrays, empty ones where there are no bonds."""
    processor = MolCLRFeatureExtractor()
    options = {"mask_bond_type": 5} if objective == "attribute_masking" else {}
    collator = MolCLRDataCollator(processor, objective=objective, augmentation=augmentation, **options)
    for smiles in (["[Na+].[Cl-]", "CC(=O)O", "C"], ["[Na+].[Cl-]", "C"]):
        rows = [{**feature, "row_id": place} for place, feature in enumerate(processor.featurize({"smiles": smiles}))]
        listed = [
            {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in row.items()}
            for row in rows
        ]
        expected, actual = collator(rows), collator(listed)
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == actual[key].dtype == torch.int64
                assert torch.equal(actual[key], value), key


def test_loss_of_context_prediction():
    """Written out: the negative of a molecule is the next one that has a context."""
    centers, contexts = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([True, False, True, True, False])
    expected = 0.0
    for place, following in ((0, 2), (2, 3), (3, 0)):
        expected += math.log1p(math.exp(-(centers[place] @ contexts[place]).item())) / 3
        expected += math.log1p(math.exp((centers[place] @ contexts[following]).item())) / 3
    assert context_prediction(centers, contexts, present).item() == pytest.approx(expected, rel=1e-5)


def test_objective_and_batch_must_agree():
    model = MolCLRForPreTraining(tiny_config(feature_dim=None, objective="attribute_masking"))
    batch = MolCLRDataCollator(MolCLRFeatureExtractor())([{"smiles": "CCO", "row_id": 0}])
    with pytest.raises(ValueError, match="was not made for objective 'attribute_masking'"):
        model(**batch)
    for wrong in (
        {"objective": "attribute_masking"},
        {"mask_atom_type": 119},
        {"mask_bond_type": 5},
        {"feature_dim": None, "objective": "context_prediction", "context_inner_hops": 5},
        {"feature_dim": None, "objective": "context_prediction", "readout": "mean_sum"},
        {"objective": "descriptors"},
    ):
        with pytest.raises(StrictDataclassClassValidationError, match=next(reversed(wrong))):
            MolCLRConfig(**wrong)


@torch.no_grad()
@pytest.mark.parametrize("readout", ["mean", "sum", "max"])
@pytest.mark.parametrize("jumping_knowledge", ["last", "sum", "max", "concat"])
def test_readout_and_jumping_knowledge(readout, jumping_knowledge):
    config = tiny_config(feature_dim=None, readout=readout, jumping_knowledge=jumping_knowledge)
    model = draw_weights(MolCLRModel(config)).eval()
    batch = dict(MolCLRFeatureExtractor()(["CC(=O)O", "C", "C/C=C/C.[Na+]"], return_tensors="pt"))
    output = model(**batch)
    states = output.last_hidden_state
    assert states.shape[1] == config.atom_dim == config.hidden_size
    for place in range(3):
        own = states[batch["batch"] == place]
        expected = own.amax(0) if readout == "max" else getattr(own, readout)(0)
        torch.testing.assert_close(output.pooler_output[place], expected, atol=1e-5, rtol=1e-5)
    last = MolCLRModel(tiny_config(feature_dim=None)).eval()
    last.load_state_dict(model.state_dict())  # how layers are joined has no weights
    if jumping_knowledge in ("last", "concat"):
        assert torch.equal(states[:, -16:], last(**batch).last_hidden_state)


def test_takes_the_tensors_of_a_pyg_batch():
    from torch_geometric.data import Batch

    from hf_molrep.chem.graph import mol_to_graph
    from hf_molrep.chem.smiles import parse
    from hf_molrep.data.batching import to_pyg

    smiles = ["CC(=O)O", "C", "c1ccccc1O"]
    model = MolCLRModel(tiny_config()).eval()
    pyg = Batch.from_data_list([to_pyg(mol_to_graph(parse(text), "pretrain_gnns")) for text in smiles])
    with torch.no_grad():
        theirs = model(pyg.x, pyg.edge_index, pyg.edge_attr, pyg.batch).pooler_output
        ours = model(**MolCLRFeatureExtractor()(smiles, return_tensors="pt")).pooler_output
    torch.testing.assert_close(theirs, ours)


def test_sizes_are_the_originals():
    """Parameters counted on the original's classes, and the property head's shapes."""
    for gnn_type, whole, encoder in (("gin", 2_404_196, 2_010_212), ("gcn", 1_039_236, 645_252)):
        model = MolCLRForPreTraining(MolCLRConfig(gnn_type=gnn_type))
        assert sum(parameter.numel() for parameter in model.parameters()) == whole
        assert sum(parameter.numel() for parameter in model.molclr.parameters()) == encoder
        assert model.config.hidden_size == 512
    head = MolCLRForPropertyPrediction(MolCLRConfig()).head
    assert [tuple(layer.weight.shape) for layer in (*head.dense, head.out_proj)] == [(256, 512), (256, 256), (2, 256)]
    # the original's fine-tuning GIN has 2,207,846 parameters with two classes
    model = MolCLRForPropertyPrediction(MolCLRConfig(num_labels=2))
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_207_846


def test_finetuning_has_its_own_dropout():
    model = MolCLRForPropertyPrediction(MolCLRConfig())
    assert (model.molclr.dropout, MolCLRForPreTraining(MolCLRConfig()).molclr.dropout) == (0.3, 0.0)


def test_loss_is_the_originals():
    """NT-Xent in NumPy: both directions, the positive in the denominator, cosine, temperature 0.1."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 5, 7))
    views = np.concatenate([first, second])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    exponent = np.exp(views @ views.T / 0.1)
    np.fill_diagonal(exponent, 0)
    positive = exponent[np.arange(10), np.roll(np.arange(10), 5)]
    expected = -np.log(positive / exponent.sum(axis=1)).mean()
    actual = nt_xent(torch.from_numpy(first).float(), torch.from_numpy(second).float(), 0.1)
    assert actual.item() == pytest.approx(expected, rel=1e-5)
    # the original's class on two matrices drawn from seed 1
    torch.manual_seed(1)
    first, second = torch.randn(8, 256), torch.randn(8, 256)
    assert nt_xent(first, second, 0.1).item() == pytest.approx(3.1266942, rel=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("gnn_type", ["gin", "gcn", "gcn_normalized", "graphsage", "gat"])
def test_planned_sums_are_sums_over_edges(gnn_type):
    """Edges in any order, and a molecule without bonds, give what a loop over the edges gives."""
    torch.manual_seed(0)
    model = draw_weights(MolCLRModel(tiny_config(gnn_type=gnn_type))).eval()
    batch = dict(MolCLRFeatureExtractor()(["CC(=O)O", "C", "C/C=C/C.[Na+]"], return_tensors="pt"))
    expected = model(**batch).pooler_output
    order = torch.randperm(batch["edge_index"].shape[1])
    shuffled = {**batch, "edge_index": batch["edge_index"][:, order], "edge_attr": batch["edge_attr"][order]}
    torch.testing.assert_close(model(**shuffled).pooler_output, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(**{**batch, "num_graphs": None}).pooler_output, expected)
    if gnn_type == "gin":
        layer = model.layers[0]
        states = torch.randn(len(batch["x"]), 16)
        sums = states + layer.bond_embeddings.weight[4] + layer.direction_embeddings.weight[0]
        for (source, target), (bond, direction) in zip(
            batch["edge_index"].T.tolist(), batch["edge_attr"].tolist(), strict=True
        ):
            sums[target] += states[source] + layer.bond_embeddings.weight[bond]
            sums[target] += layer.direction_embeddings.weight[direction]
        from hf_molrep.models.molclr.modeling_molclr import make_edges

        edges = make_edges(batch["edge_index"], batch["edge_attr"], len(states), states.dtype, model.config)
        torch.testing.assert_close(layer.add_messages(states, edges), sums, atol=1e-5, rtol=1e-5)


def test_a_cut_batch_is_refused():
    """What nn.DataParallel makes of a joined graph: its tensors cut along their first dimension."""
    batch = dict(MolCLRFeatureExtractor()(["CCO", "CC"], return_tensors="pt"))
    model = MolCLRModel(tiny_config())
    halves = {key: value[: len(value) // 2] for key, value in batch.items() if isinstance(value, torch.Tensor)}
    for cut in ({"edge_index": batch["edge_index"][:1]}, {"edge_attr": batch["edge_attr"][:3]}, halves):
        with pytest.raises(ValueError, match="use torchrun"):
            model(**{**batch, **cut})


@torch.no_grad()
def test_foreign_graphs_are_refused():
    """Columns of other schemes, and bonds that this model has no rows for, in pre-training too, eager and compiled."""
    from torch_geometric.utils import from_smiles

    from hf_molrep.processing.graphs import MolGraphFeatureExtractor

    model, trained = MolCLRModel(tiny_config()).eval(), MolCLRForPreTraining(tiny_config())
    pyg = from_smiles("CCO")
    own = dict(MolCLRFeatureExtractor()(["CCO", "C"], return_tensors="pt"))
    foreign = [{"x": pyg.x, "edge_index": pyg.edge_index, "edge_attr": pyg.edge_attr}]
    foreign += [dict(MolGraphFeatureExtractor(name)(["CCO", "C"], return_tensors="pt")) for name in ("ogb", "grover")]
    foreign += [{**own, "x": foreign[1]["x"]}, {**own, "edge_attr": foreign[1]["edge_attr"]}]
    for graph in foreign:
        with pytest.raises(ValueError, match="not of the scheme 'pretrain_gnns', which MolCLR takes: two columns"):
            model(**graph)
        with pytest.raises(ValueError, match="'pretrain_gnns'"):
            trained(**own, **{f"second_{key}": value for key, value in graph.items()})

    compiled = torch.compile(model, backend="aot_eager", dynamic=True)
    torch.testing.assert_close(compiled(**own).pooler_output, model(**own).pooler_output)
    holds = r"holds bond types 0 ... 4 and directions 0 ... 2 of this model"
    for place, value in (((1, 0), 5), ((0, 0), -1), ((2, 1), 3), ((3, 1), -1)):
        edge_attr = own["edge_attr"].clone()
        edge_attr[place] = value
        with pytest.raises(ValueError, match=f"{holds}; here .*{value}"):
            model(**{**own, "edge_attr": edge_attr})
        with pytest.raises(RuntimeError, match=holds):
            compiled(**{**own, "edge_attr": edge_attr})
    masked = own["edge_attr"].clone()
    masked[:2, 0] = 5  # what attribute masking puts there
    of_six = MolCLRModel(tiny_config(num_bond_types=6)).eval()
    assert not torch.allclose(of_six(**{**own, "edge_attr": masked}).pooler_output, of_six(**own).pooler_output)


def test_original_file_becomes_a_checkpoint(tmp_path):
    """Every layout: MolCLR's two, pretrain-gnns' without `h`; what is ambiguous or foreign is refused by name."""
    torch.save(original_weights(original_shapes("gin")), tmp_path / "model.pth")
    model = convert_model(read_state(tmp_path / "model.pth"))
    assert type(model) is MolCLRForPreTraining
    assert model.config.gnn_type == "gin"
    shapes = {
        name: shape for name, shape in original_shapes("gin").items() if not name.startswith(("feat_lin", "out_lin"))
    }
    bare = convert_model(original_weights({**shapes, "x_embedding1.weight": (120, 300)}))
    assert type(bare) is MolCLRModel
    assert (bare.config.hidden_size, bare.config.num_atom_types) == (300, 120)
    linear = {name.replace(".mlp.0.", ".linear."): shape for name, shape in shapes.items() if ".mlp.2." not in name}
    linear = {name: (300, *shape[1:]) if ".linear." in name else shape for name, shape in linear.items()}
    with pytest.raises(ValueError, match="say which"):
        convert_model(original_weights(linear))
    assert convert_model(original_weights(linear), "graphsage").config.gnn_type == "graphsage"
    with pytest.raises(ValueError, match="not gcn"):
        convert_model(original_weights(shapes), "gcn")
    with pytest.raises(ValueError, match=r"do not fit MolCLRModel: they lack 'layers.1.down_proj.bias'"):
        convert_model({name: value for name, value in original_weights(shapes).items() if name != "gnns.1.mlp.2.bias"})
    torch.save({"model": Path("code")}, tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match=r"other things than weights .*pathlib"):
        read_state(tmp_path / "foreign.pth")


@pytest.mark.parametrize(
    ("gnn_type", "outputs", "hidden_layers"),
    [("gin", 2, 2), ("gin", 1, 2), ("gin", 2, 3), ("gcn", 2, 1), ("gcn", 1, 1)],
)
@torch.no_grad()
def test_fine_tuned_files(gnn_type, outputs, hidden_layers, tmp_path, capsys):
    """The layout of `ginet_finetune.py` and `gcn_finetune.py`: the numbers of its head, written out, on its encoder."""
    from hf_molrep import AutoModelForMoleculePropertyPrediction
    from hf_molrep.cli import main

    state = original_weights(finetuned_shapes(gnn_type, outputs, hidden_layers))
    torch.save(state, tmp_path / "model.pth")
    command = ["convert", "molclr", str(tmp_path / "model.pth"), str(tmp_path / "out"), "--task-names", "measured"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "SMILES are taken as written" in told
    assert ("one logit" in told, "labels that were scaled" in told) == (outputs == 2, outputs == 1)

    model, info = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert type(model) is MolCLRForPropertyPrediction
    assert model.config.id2label == {0: "measured"}
    processor = MolCLRFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (processor.explicit_hydrogens, processor.canonical, processor.standardize) == (True, False, "none")
    batch = processor(["CCO", "c1ccccc1[C@H](N)C", "C"], return_tensors="pt")
    encoder = {name: value for name, value in state.items() if not name.startswith("pred_head")}
    hidden = convert_model(encoder)(**batch).pooler_output
    for place in range(hidden_layers + 1):
        weight, bias = (state[f"pred_head.{2 * place}.{part}"] for part in ("weight", "bias"))
        hidden = torch.nn.functional.linear(hidden, weight, bias)
        hidden = hidden if place == hidden_layers else torch.nn.functional.softplus(hidden)
    expected = hidden.softmax(dim=1)[:, 1:] if outputs == 2 else hidden
    assert (expected[0] - expected[1]).abs() > 1e-4
    torch.testing.assert_close(model(**batch).predictions, expected, atol=1e-6, rtol=1e-6)

    scaled = [*command, "--label-mean", "-1.5", "--label-std", "2"]
    if outputs == 1:
        assert main(scaled) == 0
        model = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path / "out")
        torch.testing.assert_close(model(**batch).predictions, 2 * expected - 1.5, atol=1e-6, rtol=1e-6)
    else:
        assert main(scaled) == 2
        assert "the file has two classes, and label_mean, label_std are of a regression" in capsys.readouterr().err


def test_other_heads_are_refused(tmp_path):
    shapes = finetuned_shapes("gin", 2, 2)
    # pred_act "relu" of the original makes the last layer twice
    for wrong, complaint in (
        ({"pred_head.5.weight": (2, 4), "pred_head.5.bias": (2,)}, "layers 0, 2, 4, 5 of pred_head"),
        ({"pred_head.4.weight": (3, 4), "pred_head.4.bias": (3,)}, "one output .a regression. or two"),
        ({"pred_head.2.weight": (5, 4)}, r"of another shape are 'head.dense.1.weight'"),
        ({"pred_head.0.other": (2,)}, "'pred_head.0.other' is not a name"),
    ):
        with pytest.raises(ValueError, match=complaint):
            convert_model(original_weights({**shapes, **wrong}))
    torch.save(original_weights(original_shapes("gin", 12, 2, 8)), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="no property head that label_std, task_names could be of"):
        convert(tmp_path / "model.pth", tmp_path / "out", label_std=2.0, task_names="x")
    torch.save(original_weights(shapes), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="2 task_names for one task"):
        convert(tmp_path / "model.pth", tmp_path / "out", task_names=["x", "y"])
    for scale in (0, float("nan"), "x", [None]):
        with pytest.raises(ValueError, match="label_std"):
            convert(tmp_path / "model.pth", tmp_path / "out", label_std=scale)


def fixture(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Arrays and metadata of a file."""
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no mapping


def require_agreement(model: MolCLRForPreTraining, graph: dict, expected: dict) -> None:
    with torch.no_grad():
        embedding = model.molclr(**graph).pooler_output
        projection = model.project(embedding)
    for ours, original in ((embedding, expected["h"]), (projection, expected["z"])):
        assert (ours - original).abs().max() <= 1e-5 * original.abs().max()


def test_gin_fixture(original_outputs):
    arrays, _ = fixture(original_outputs / "molclr_gin_random.safetensors")
    state = {
        name.removeprefix("state_dict/"): value for name, value in arrays.items() if name.startswith("state_dict/")
    }
    require_agreement(
        convert_model(state), {key: arrays[key] for key in ("x", "edge_index", "edge_attr", "batch")}, arrays
    )


def test_released_gcn_from_smiles_onward(original_outputs):
    """The released weights: our featuriser and our model give the original's `h` and `z`."""
    arrays, metadata = fixture(original_outputs / "molclr_gcn_released.safetensors")
    model = convert_model(read_state(original_outputs / "weights" / "molclr_gcn_model.pth"))
    require_agreement(model, {key: arrays[key] for key in ("x", "edge_index", "edge_attr", "batch")}, arrays)
    smiles = json.loads(metadata["smiles"])
    processor = MolCLRFeatureExtractor(explicit_hydrogens=True, standardize="none")
    require_agreement(model, dict(processor(smiles, return_tensors="pt")), arrays)


@pytest.mark.parametrize(
    ("name", "gnn_type", "first", "total"),
    [
        ("gcn", "gcn_normalized", [-0.2320693, 0.0061486, -0.2142600, 0.0005787], -1.2418356),
        ("graphsage", "graphsage", [-0.0196825, 0.2680203, 0.2075908, -0.2660888], 13.4188194),
        ("gat", "gat", [0.2366437, 48.2390060, 0.0831500, 0.6277870], -709.489136),
    ],
)
@torch.no_grad()
def test_released_pretrain_gnns(original_outputs, name, gnn_type, first, total):
    """Context-prediction weights on ethanol by hand: the first atom's state and the sum of all."""
    path = original_outputs / "weights" / f"pretrain_gnns_chem_{name}_contextpred.pth"
    model = convert_model(read_state(path), gnn_type)
    graph = {
        "x": torch.tensor([[5, 0], [5, 0], [7, 0]]),
        "edge_index": torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
        "edge_attr": torch.zeros(4, 2, dtype=torch.long),
    }
    states = model(**graph).last_hidden_state
    torch.testing.assert_close(states[0, :4], torch.tensor(first), rtol=1e-5, atol=1e-5)
    # terms of both signs: in float64 the sum of the GCN moves by 3e-4
    assert states.sum().item() == pytest.approx(total, abs=1e-5 * states.abs().sum().item())


def test_convert_command(original_outputs, tmp_path, capsys):
    """From the released file to numbers of the original, through the Auto classes; what cannot be read is said."""
    from transformers import AutoModel, AutoProcessor

    from hf_molrep.cli import main

    weights = original_outputs / "weights"
    assert main(["convert", "molclr", str(weights / "molclr_gcn_model.pth"), str(tmp_path / "gcn")]) == 0
    assert "Converted" in capsys.readouterr().out
    arrays, metadata = fixture(original_outputs / "molclr_gcn_released.safetensors")
    model, processor = AutoModel.from_pretrained(tmp_path / "gcn"), AutoProcessor.from_pretrained(tmp_path / "gcn")
    with torch.no_grad():
        embedding = model(**processor(json.loads(metadata["smiles"]), return_tensors="pt")).pooler_output
    assert (embedding - arrays["h"]).abs().max() <= 1e-5 * arrays["h"].abs().max()
    gcn = str(weights / "pretrain_gnns_chem_gcn_contextpred.pth")
    assert main(["convert", "molclr", gcn, str(tmp_path / "bare")]) == 2
    assert "say which (--gnn-type)" in capsys.readouterr().err
    assert main(["convert", "molclr", gcn, str(tmp_path / "bare"), "--gnn-type", "gcn_normalized"]) == 0
    bare = AutoModel.from_pretrained(tmp_path / "bare")
    assert bare.dtype == torch.float32
    assert (bare.config.hidden_size, bare.config.mask_atom_type, bare.config.mask_bond_type) == (300, 119, 5)
    assert not AutoProcessor.from_pretrained(tmp_path / "bare").explicit_hydrogens
    assert main(["convert", "molclr", str(tmp_path / "nothing.pth"), str(tmp_path / "x")]) == 2
    assert "nothing.pth" in capsys.readouterr().err


def test_one_atom_alone_in_training():
    """The last batch of an epoch may be methane."""
    model = MolCLRForPropertyPrediction(tiny_config()).train()
    batch = dict(MolCLRFeatureExtractor()(["C"], return_tensors="pt"))
    output = model(**batch, labels=torch.zeros(1, 2))
    output.loss.backward()
    assert output.loss.isfinite()
    assert torch.equal(model.molclr.norms[0].running_mean, torch.zeros(16))


def test_batches_are_not_grouped_by_size(tmp_path):
    """Batch norm would take the size of the molecules out of every batch of one size."""
    import pandas as pd

    from hf_molrep.models.pretraining import PreTraining, PreTrainingOptions
    from hf_molrep.training.pretraining import prepare

    pd.DataFrame({"smiles": ["CCO", "C1CC", "C" * 9, "CC"]}).to_parquet(tmp_path / "m.parquet")
    file, processor = str(tmp_path / "m.parquet"), MolCLRFeatureExtractor()
    table = prepare(file, processor, PreTrainingOptions(file), "data", PreTraining())
    assert "length" not in table.column_names
    assert table["row_id"][:] == [0, 2, 3]
    grouped = PreTrainingOptions(file, group_by="smiles")
    with pytest.raises(ValueError, match="not padded"):
        prepare(file, processor, grouped, "data", PreTraining())
