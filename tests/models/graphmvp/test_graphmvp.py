"""GraphMVP: the laws, and what is its own."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor

from hf_molrep.chem.conformers import ConformerGenerator, ConformerSettings
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.cli import main
from hf_molrep.data.augmentation import grown_subgraph
from hf_molrep.losses import ebm_nce
from hf_molrep.models.graphmvp import (
    GraphMVPConfig,
    GraphMVPDataCollator,
    GraphMVPFeatureExtractor,
    GraphMVPForPreTraining,
    GraphMVPForPropertyPrediction,
    GraphMVPModel,
)
from hf_molrep.models.graphmvp.conversion_graphmvp import convert_model, read_parts
from hf_molrep.models.graphmvp.modeling_graphmvp import GraphMVPReconstruction, mean_of_molecules
from hf_molrep.models.graphmvp.pretraining_graphmvp import objective_options
from tests.models.common import MethodLaws, draw_weights
from tests.models.graphmvp.tiny import original_parts, tiny_config, with_conformers
from tests.models.laws.checks import require, require_same, rotation
from tests.models.laws.hooks import GOLDENS, MethodHooks, descriptor_scaling
from tests.models.laws.saving import SavingLaws
from tests.models.laws.training import TrainingLaws
from tests.models.laws.two_processes import two_process_gradients

SMALL = {"width": 16, "layers": 2, "interactions": 2, "filters": 12, "gaussians": 9}


def glorot(rows: int, columns: int) -> tuple[str, float]:
    return ("uniform", (6 / (rows + columns)) ** 0.5)


class Hooks(MethodHooks):
    model_type = "graphmvp"
    does_not_apply = {"law_12_sdpa": "there is no attention"}
    refuses = {"wildcard": "the scheme has no atom of number 0"}
    hidden_states = 4
    overfit = (60, 2e-2, 0.1)
    options: dict = {}
    initial_values = {
        r"atom_embeddings\.tables\.0\.weight$": glorot(120, 16),
        r"bond_embeddings\.tables\.0\.weight$": glorot(6, 16),
        r"tables\.1\.weight$": glorot(3, 16),
        r"norms?\.(\d+\.)?weight$": ("constant", 1.0),
        r"norms?\.(\d+\.)?bias$": ("constant", 0.0),
        r"element_embeddings\.weight$": ("normal", 1.0),
        r"filter_in\.weight$": glorot(12, 8),
        r"filter_out\.weight$": glorot(12, 12),
        r"filter_out\.bias$": ("uniform", 12**-0.5),
        r"in_proj\.weight$": glorot(12, 16),
        r"interactions\.\d+\.out_proj\.weight$": glorot(16, 12),
        r"schnet\..*(dense|out_proj)\.weight$": glorot(16, 16),
        r"schnet\..*bias$": ("constant", 0.0),
        # torch's own for a linear layer: 1 / sqrt(inputs), weight and bias
        r"down_proj\.": ("uniform", 32**-0.5),
        r"(up_proj|mean_proj|log_variance_proj|dense|out_proj|atom_head)\.": ("uniform", 16**-0.5),
    }

    def config(self, dropout: float = 0.0, **options):
        return tiny_config(**{"dropout": dropout, "finetuning_dropout": dropout, **self.options, **options})

    def processor(self):
        return GraphMVPFeatureExtractor(scheme=self.config().graph_scheme)

    def collator(self, seed: int = 0):
        return GraphMVPDataCollator(self.processor(), seed=seed, **objective_options(self.config(), None, True))

    def rows(self):
        features = with_conformers(self.processor(), self.molecules, conformers=2)
        return [
            {**feature, "smiles": smiles, "row_id": row_id}
            for row_id, (feature, smiles) in enumerate(zip(features, self.molecules, strict=True))
        ]

    def build(self, kind, attention=None, **options):
        """Running statistics of batch norm as after training: drawn ones let the states grow a hundredfold."""
        model = super().build(kind, attention, **options)
        graph = self.inputs()
        for encoder in [part for part in model.modules() if isinstance(part, GraphMVPModel)]:
            for norm in [part for part in encoder.modules() if isinstance(part, torch.nn.BatchNorm1d)]:
                norm.momentum = 1.0
            with torch.no_grad():
                encoder.train()(**graph)
        return model.eval()

    def renumbered(self, rng: np.random.Generator):
        """The same graphs, their atoms permuted: another SMILES may give other chirality tags and directions."""
        features = [permuted(each, rng) for each in self.processor().featurize({"smiles": self.molecules})]
        return dict(self.processor().pad(features))


def permuted(feature: dict, rng: np.random.Generator) -> dict:
    """A feature with its atoms in another order, in both views."""
    order = rng.permutation(feature["num_nodes"])  # new place of each atom
    back = np.argsort(order)
    changed = {name: feature[name].reshape(len(order), -1)[back].ravel() for name in ("x", "z")}
    changed["edge_index"] = order[feature["edge_index"]]
    if "pos" in feature:
        pos = feature["pos"].reshape(-1, len(order), 3)
        changed["pos"] = pos[:, back].ravel()
    return {**feature, **changed}


class TestGraphMVP(Hooks, MethodLaws):
    def agreement(self):
        """
        The original's encoders and variational heads at full size, in evaluation mode, on six molecules with weights
        drawn by name (GraphMVP 80c42af, `models/molecule_gnn_model.py`, `schnet.py`, `auto_encoder.py`). The decoders
        were given the means.
        """
        golden = {key: torch.from_numpy(value) for key, value in np.load(GOLDENS / "graphmvp.npz").items()}
        model, batch = convert_model(original_parts("a/")), golden_batch(golden)
        with torch.no_grad():
            conformer = model.get_conformer_features(batch["z"], batch["pos"], batch["batch"], 6)
            graphs = {key: value for key, value in batch.items() if key not in ("z", "pos")}
            graph = model.get_graph_features(**graphs)
            found = {"atom_repr": model.graphmvp(**graphs).last_hidden_state, "mol_2d": graph, "mol_3d": conformer}
            for name, head, embedding in (
                ("vae_2d_3d", model.graph_to_conformer, graph),
                ("vae_3d_2d", model.conformer_to_graph, conformer),
            ):
                mean, log_variance = head.encode(embedding)
                found |= {f"{name}_mu": mean, f"{name}_logvar": log_variance}
                found[f"{name}_decoded_mu"] = head.decode(mean)
        assert set(found) | set(batch) - {"num_graphs"} == set(golden)
        return {name: (ours, golden[name], 2e-6) for name, ours in found.items()}

    @torch.no_grad()
    def test_law_03_renumbering_in_pre_training(self):
        """The same permutation of the atoms in both views leaves every loss; in one view alone it does not matter to
        that view's embedding either."""
        model, features = self.build("pre-training"), with_conformers(self.processor(), self.molecules)
        expected = model(**self.processor().pad(features))
        rng = np.random.default_rng(0)
        for _ in range(3):
            batch = self.processor().pad([permuted(feature, rng) for feature in features])
            output = model(**batch)
            require_same(3, "losses of renumbered molecules", output.losses, expected.losses, self.tolerance)
            require_same(3, "embeddings", output.embeddings, expected.embeddings, self.tolerance)

    @torch.no_grad()
    def test_law_05_motion(self):
        """Coordinates turned, mirrored and moved, molecule by molecule, leave every loss of pre-training."""
        model, features = self.build("pre-training"), with_conformers(self.processor(), self.molecules)
        expected = model(**self.processor().pad(features))
        rng = np.random.default_rng(0)
        for reflect in (False, False, True):
            moved = []
            for feature in features:
                pos = feature["pos"].reshape(-1, 3).astype(np.float64) @ rotation(rng, reflect).numpy()
                moved.append({**feature, "pos": (pos + 5 * rng.standard_normal(3)).astype(np.float32).ravel()})
            output = model(**self.processor().pad(moved))
            require_same(5, "losses of turned molecules", output.losses, expected.losses, self.tolerance)
        stretched = [{**feature, "pos": feature["pos"] * np.float32(1.3)} for feature in features]
        changed = model(**self.processor().pad(stretched)).embeddings["conformer"] - expected.embeddings["conformer"]
        require(5, bool(changed.abs().max() > 100 * self.tolerance), "distances do not matter")

    def test_law_14_two_processes(self, tmp_path):
        """All objectives under one torchrun."""
        classes = {f"{each.__module__}:{each.__qualname__}": each for each in OBJECTIVES}
        for name, actual in two_process_gradients(list(classes), tmp_path).items():
            classes[name]().require_joined(actual)


ELSEWHERE = {
    "law_13_resuming": "the first class resumes; what the objective adds is drawn by row and epoch (law 7)",
    "law_14_two_processes": "runs with the first class, under one torchrun",
}


class TestGraphMVPAttributeMasking(Hooks, TrainingLaws):
    """GraphMVP-G."""

    options = {"objective": "graphmvp_g", "temperature": 0.2}
    does_not_apply = ELSEWHERE


class TestGraphMVPContextPrediction(Hooks, TrainingLaws):
    """GraphMVP-C, with the graphs of its regression and InfoNCE."""

    options = {"objective": "graphmvp_c", "context_inner_hops": 1, "context_size": 2, "contrastive_loss": "info_nce"}
    options |= {"graph_scheme": "ogb", "hybrid_weight": 1.0}
    does_not_apply = ELSEWHERE


class TestGraphMVPDescriptors(Hooks, SavingLaws, TrainingLaws):
    """CheMeleon's objective: no conformers; mean and sum of the atom states as the embedding."""

    options = {"objective": "descriptors", "readout": "mean_sum", "num_descriptors": len(descriptor_scaling()["names"])}
    does_not_apply = ELSEWHERE
    initial_values = {
        **{name: rule for name, rule in Hooks.initial_values.items() if "mean_proj" not in name},
        r"up_proj\.": ("uniform", 16**-0.5),
        r"(descriptor_head|head\.out_proj)\.": ("uniform", 32**-0.5),
    }

    def processor(self):
        return GraphMVPFeatureExtractor(descriptor_scaling=descriptor_scaling())

    def rows(self):
        return MethodHooks.rows(self)

    @torch.no_grad()
    def test_embedding_is_mean_and_sum(self):
        """And the loss is that of the descriptors that are asked for."""
        model, graphs = self.build("pre-training"), self.inputs()
        output = model.graphmvp(**graphs)
        for molecule, embedding in enumerate(output.pooler_output):
            states = output.last_hidden_state[graphs["batch"] == molecule]
            expected = torch.cat([states.mean(dim=0), states.sum(dim=0) / 16])
            torch.testing.assert_close(embedding, expected)
        batch = self.collator()(self.rows())
        asked = model.descriptor_head(output.pooler_output).gather(1, batch["descriptor_places"])
        error = (asked - batch["descriptor_targets"]).square().mean()
        torch.testing.assert_close(model(**batch).loss, error)
        with pytest.raises(ValueError, match="not made for objective 'descriptors'"):
            model(**graphs)
        with pytest.raises(ValueError, match="no encoder of conformers"):
            model.get_conformer_features(graphs["x"][:, 0], torch.zeros(len(graphs["x"]), 3))


def test_descriptors_need_their_number():
    with pytest.raises(StrictDataclassClassValidationError, match="needs num_descriptors"):
        GraphMVPConfig(objective="descriptors")
    with pytest.raises(StrictDataclassClassValidationError, match="compares graphs with conformers"):
        GraphMVPConfig(readout="mean_sum")


OBJECTIVES = (TestGraphMVP, TestGraphMVPAttributeMasking, TestGraphMVPContextPrediction, TestGraphMVPDescriptors)


def golden_batch(golden: dict[str, torch.Tensor]) -> dict:
    names = ("x", "edge_index", "edge_attr", "batch", "z")
    return {name: golden[name].long() for name in names} | {"pos": golden["pos"], "num_graphs": 6}


# ---- losses


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def log1pexp(value: float) -> float:
    return math.log1p(math.exp(value))


def contrast_by_hand(first: np.ndarray, second: np.ndarray, loss: str, temperature: float, negatives: int) -> float:
    """Written out, molecule by molecule, in float64, both directions."""
    total, count = 0.0, len(first)
    for one, other in ((unit(first), unit(second)), (unit(second), unit(first))):
        for i in range(count):
            scores = [float(one[i] @ other[j]) / temperature for j in range(count)]
            if loss == "info_nce":
                total += math.log(sum(map(math.exp, scores))) - scores[i]
            else:
                total += log1pexp(-scores[i])
                total += sum(log1pexp(scores[(i + k) % count]) for k in range(1, negatives + 1))
    return total / count / 2


@pytest.mark.parametrize(
    ("loss", "temperature", "negatives"),
    [("ebm_nce", 0.2, 1), ("ebm_nce", 0.05, 1), ("ebm_nce", 0.1, 3), ("info_nce", 0.1, 1)],
)
@torch.no_grad()
def test_losses_by_hand(loss, temperature, negatives):
    """Every term, from the arrays of the original; the weights of the sum."""
    stored = dict(np.load(GOLDENS / "graphmvp.npz"))
    options = {"contrastive_loss": loss, "temperature": temperature, "num_negatives": negatives}
    options |= {"contrastive_weight": 0.7, "reconstruction_weight": 1.3, "kl_weight": 2.5}
    model = convert_model(original_parts("a/"), **options)
    output = model(**golden_batch({key: torch.from_numpy(value) for key, value in stored.items()}))
    wide = {key: value.astype(np.float64) for key, value in stored.items()}
    graph, conformer = wide["mol_2d"], wide["mol_3d"]
    errors, divergences = [], []
    for name, target in (("vae_2d_3d", conformer), ("vae_3d_2d", graph)):
        errors.append(((wide[f"{name}_decoded_mu"] - target) ** 2).mean())
        pairs = zip(wide[f"{name}_mu"], wide[f"{name}_logvar"], strict=True)
        divergences.append(np.mean([-0.5 * np.sum(1 + v - m * m - np.exp(v)) for m, v in pairs]))
    expected = {
        "contrastive": contrast_by_hand(graph, conformer, loss, temperature, negatives),
        "reconstruction": sum(errors) / 2,
        "divergence": sum(divergences) / 2,
    }
    assert set(output.losses) == set(expected)
    for name, value in expected.items():
        assert output.losses[name].item() == pytest.approx(value, rel=1e-5), name
    total = 0.7 * expected["contrastive"] + 1.3 * (expected["reconstruction"] + 2.5 * expected["divergence"])
    assert output.loss.item() == pytest.approx(total, rel=1e-5)
    assert torch.equal(output.embeddings["graph"], model.get_graph_features(**graphs_of(stored)))


def graphs_of(stored: dict) -> dict:
    names = ("x", "edge_index", "edge_attr", "batch")
    return {name: torch.from_numpy(stored[name]).long() for name in names} | {"num_graphs": 6}


def test_reconstruction():
    """Noise in training, of the width that the variance says; no gradient into the target, some into the source."""
    head = draw_weights(GraphMVPReconstruction(tiny_config())).train()
    torch.manual_seed(0)
    source, target = (part.clone().requires_grad_() for part in torch.randn(2, 6, 16))
    torch.manual_seed(3)
    found = head(source, target)
    torch.manual_seed(3)
    noise = torch.randn(6, 16)
    mean, log_variance = head.encode(source)
    by_hand = ((head.decode(mean + noise * (log_variance / 2).exp()) - target) ** 2).mean()
    torch.testing.assert_close(found[0], by_hand)
    for part in found:
        source.grad = None
        part.backward(retain_graph=True)
        assert source.grad.any()
        assert target.grad is None
    mean_decoded = ((head.eval().decode(mean) - target) ** 2).mean()
    torch.testing.assert_close(head(source, target)[0], mean_decoded)


def test_negatives_are_the_next_molecules():
    """One molecule is its own negative, as in the original; two swap; the order beyond matters."""
    first, second = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    alone = ebm_nce(first[:1], first[:1], 0.5).item()
    assert alone == pytest.approx(log1pexp(-2.0) + log1pexp(2.0), rel=1e-5)
    swapped = ebm_nce(first[:2].flip(0), second[:2].flip(0), 0.5)
    torch.testing.assert_close(swapped, ebm_nce(first[:2], second[:2], 0.5))
    order = torch.tensor([0, 2, 1, 3])
    assert not torch.isclose(ebm_nce(first[order], second[order], 0.5), ebm_nce(first, second, 0.5))


@torch.no_grad()
def test_hybrid_terms_by_hand():
    """Cross-entropy of the masked atoms; context prediction from the states of its two models."""
    for laws in (TestGraphMVPAttributeMasking(), TestGraphMVPContextPrediction()):
        model, batch = laws.build("pre-training"), laws.collator()(laws.rows())
        output, encoder = model(**batch), model.graphmvp
        if model.config.objective == "graphmvp_g":
            name = "atoms"
            states = encoder(batch["masked_x"], batch["edge_index"], batch["edge_attr"]).last_hidden_state
            chances = model.atom_head(states[batch["masked_atoms"]]).double().log_softmax(dim=-1)
            terms = [-row[kind].item() for row, kind in zip(chances, batch["masked_atom_types"], strict=True)]
            expected = sum(terms) / len(terms)
        else:
            name, keys = "context", ("x", "edge_index", "edge_attr")
            near = encoder(*(batch[f"substructure_{key}"] for key in keys)).last_hidden_state[batch["centers"]]
            far = model.context_model(*(batch[f"context_{key}"] for key in keys)).last_hidden_state[batch["anchors"]]
            present = sorted(set(batch["anchor_batch"].tolist()))
            assert 2 < len(present) < 8
            contexts = {place: far[batch["anchor_batch"] == place].mean(dim=0) for place in present}
            expected = 0.0
            for place, following in zip(present, present[1:] + present[:1], strict=True):
                expected += log1pexp(-(near[place] @ contexts[place]).item()) / len(present)
                expected += log1pexp((near[place] @ contexts[following]).item()) / len(present)
        assert output.losses[name].item() == pytest.approx(expected, rel=1e-4)
        others = output.losses["contrastive"] + output.losses["reconstruction"] + 2 * output.losses["divergence"]
        weighted = others.item() + model.config.hybrid_weight * expected
        assert output.loss.item() == pytest.approx(weighted, rel=1e-4)


def test_paper_settings():
    """What depends on the objective and the problem where nothing is said."""
    found = {
        name: (config.temperature, config.hybrid_weight)
        for name in ("graphmvp", "graphmvp_g", "graphmvp_c")
        if (config := GraphMVPConfig(objective=name))
    }
    assert found == {"graphmvp": (0.2, 0.0), "graphmvp_g": (0.05, 1.0), "graphmvp_c": (0.2, 0.1)}
    for problem, dropout in (("regression", 0.2), ("multi_label_classification", 0.5)):
        config = tiny_config(finetuning_dropout=None, problem_type=problem)
        assert GraphMVPForPropertyPrediction(config).graphmvp.dropout == dropout
    assert sum(each.numel() for each in GraphMVPModel(GraphMVPConfig()).parameters()) == 1_857_900
    ogb = GraphMVPConfig(graph_scheme="ogb")
    assert sum(each.numel() for each in GraphMVPModel(ogb).parameters()) == 1_885_205
    assert sum(each.numel() for each in GraphMVPForPreTraining(ogb).schnet.parameters()) == 1_359_708
    for wrong in (
        {"atom_feature_dims": [120]},
        {"bond_feature_dims": [4, 3]},
        {"num_gaussians": 1},
        {"temperature": 0.0},
        {"objective": "graphmvp_g", "mask_atom_type": 120},
        {"graph_scheme": "ogb", "objective": "graphmvp_g"},
        {"objective": "graphmvp_c", "context_inner_hops": 5},
    ):
        with pytest.raises(StrictDataclassClassValidationError, match=next(reversed(wrong))):
            GraphMVPConfig(**wrong)


# ---- batches


def test_both_views_lose_the_same_atoms():
    """floor(0.85 N) + 1 atoms are left, the same in graph and conformer, in one order; a conformer is drawn."""
    smiles = ["CC(=O)Oc1ccccc1C(=O)O", "C", "CCO", "C[C@H](N)C(=O)O"]
    extractor = GraphMVPFeatureExtractor()
    features = with_conformers(extractor, smiles, conformers=3)
    rows = [{**feature, "row_id": place} for place, feature in enumerate(features)]
    batch = GraphMVPDataCollator(extractor)(rows)
    assert torch.bincount(batch["batch"]).tolist() == [12, 1, 3, 6]  # of 13, 1, 3, 6
    assert torch.equal(batch["z"], batch["x"][:, 0] + 1)
    drawn = set()
    for epoch in range(20):
        batch = GraphMVPDataCollator(extractor, epoch=epoch)(rows)
        start = 0
        for place, (feature, count) in enumerate(zip(features, torch.bincount(batch["batch"]).tolist(), strict=True)):
            conformers = torch.from_numpy(feature["pos"]).view(3, -1, 3)
            here = batch["pos"][start : start + count]
            hits = (conformers[:, :, None] == here).all(dim=-1)  # conformer, atom, place in the batch
            (number,) = hits.any(dim=1).all(dim=1).nonzero().flatten().tolist()
            kept = hits[number].nonzero()[:, 0]
            assert torch.equal(kept, kept.sort().values)
            x = torch.from_numpy(feature["x"]).view(-1, 2).long()
            assert torch.equal(batch["x"][start : start + count], x[kept])
            inside = (batch["edge_index"] >= start).all(dim=0) & (batch["edge_index"] < start + count).all(dim=0)
            bonds = (batch["edge_index"][:, inside] - start).T
            original = torch.from_numpy(feature["edge_index"]).view(2, -1).T
            expected = [pair for pair in original.tolist() if set(pair) <= set(kept.tolist())]
            assert kept[bonds].tolist() == expected
            drawn.add((place, number))
            start += count
    assert len(drawn) == 12
    whole = GraphMVPDataCollator(extractor, masked_share=0.0, conformers="first")(rows)
    first = np.concatenate([feature["pos"].reshape(3, -1)[0] for feature in features])
    assert torch.equal(whole["pos"].flatten(), torch.from_numpy(first))


def test_grown_subgraphs_hang_together():
    feature = GraphMVPFeatureExtractor().featurize({"smiles": ["CCCCCCCCCC"]})[0]
    ends = set()
    for seed in range(50):
        chosen = np.flatnonzero(grown_subgraph(feature, np.random.default_rng(seed), 4))
        assert len(chosen) == 4
        assert chosen[-1] - chosen[0] == 3  # a chain: neighbours
        ends.add(int(chosen[0]))
    assert ends == set(range(7))
    salt = GraphMVPFeatureExtractor().featurize({"smiles": ["CC.CCC"]})[0]
    assert grown_subgraph(salt, np.random.default_rng(0), 5).all()
    with pytest.raises(ValueError, match="6 of 5 atoms"):
        grown_subgraph(salt, np.random.default_rng(0), 6)


@pytest.mark.parametrize("objective", ["graphmvp", "graphmvp_g", "graphmvp_c"])
def test_rows_as_a_dataset_gives_them(objective):
    """Lists instead of arrays, empty ones where there are no bonds; the batch trains, down to methane alone."""
    extractor = GraphMVPFeatureExtractor()
    collator = GraphMVPDataCollator(extractor, objective=objective)
    model = GraphMVPForPreTraining(tiny_config(objective=objective)).train()
    for smiles in (["CC(=O)O", "C"], ["C"]):
        rows = [{**each, "row_id": place} for place, each in enumerate(with_conformers(extractor, smiles))]
        listed = [
            {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in row.items()}
            for row in rows
        ]
        expected, actual = collator(rows), collator(listed)
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == actual[key].dtype
                assert torch.equal(actual[key], value), key
        assert model(**actual).loss.isfinite()


def test_batches_that_cannot_be_used():
    extractor = GraphMVPFeatureExtractor()
    with pytest.raises(ValueError, match="a molecule without conformer cannot be pre-trained on"):
        GraphMVPDataCollator(extractor)([{"smiles": "CCO", "row_id": 0}])
    model, batch = GraphMVPForPreTraining(tiny_config()), extractor.pad(with_conformers(extractor, ["CCO", "C"]))
    for wrong, complaint in (
        ({"pos": None}, "z and pos are missing"),
        ({"z": batch["z"][:3], "pos": batch["pos"][:3]}, "graphs of 4 atoms and conformers of 3"),
        ({"pos": batch["pos"].expand(2, -1, -1)}, "SchNet takes one conformer of each molecule"),
        ({"z": batch["z"] * 0}, "z holds atomic numbers, 1 ... 119; here 0 ... 0"),
        ({"x": batch["x"][:, :1]}, "x .4, 1. is not of the scheme 'pretrain_gnns'"),
        ({"x": batch["x"] + 3}, r"holds values below \[120, 3\], column by column; here"),
        ({"edge_attr": batch["edge_attr"] + 5}, r"edge_attr .* holds values below \[6, 3\]"),
        ({"edge_attr": batch["edge_attr"][:2]}, "use torchrun"),
    ):
        with pytest.raises(ValueError, match=complaint):
            model(**{**batch, **wrong})
    for objective in ("graphmvp_g", "graphmvp_c"):
        with pytest.raises(ValueError, match=f"was not made for objective '{objective}'"):
            GraphMVPForPreTraining(tiny_config(objective=objective))(**batch)
    for wrong in ({"scheme": "grover"}, {"pretraining_conformers": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            GraphMVPFeatureExtractor(**wrong)


@torch.no_grad()
def test_layers_by_hand():
    """Both GIN layers, edge by edge; the mean over atoms; the order of the edges."""
    for scheme in ("pretrain_gnns", "ogb"):
        extractor, config = GraphMVPFeatureExtractor(scheme=scheme), tiny_config(graph_scheme=scheme, num_layers=1)
        model = draw_weights(GraphMVPModel(config)).eval()
        batch = dict(extractor(["CC(=O)O", "C", "C/C=C/Cl.[Na+]"], return_tensors="pt"))
        output = model(**batch)
        states = sum(table.weight[batch["x"][:, k]] for k, table in enumerate(model.atom_embeddings.tables))
        layer = model.layers[0]
        tables = (layer.messages if scheme == "ogb" else layer).bond_embeddings.tables
        if scheme == "ogb":
            sums = (1 + layer.messages.eps) * states
        else:
            sums = states + tables[0].weight[4] + tables[1].weight[0]
        for source, target, bond in zip(*batch["edge_index"].tolist(), batch["edge_attr"].tolist(), strict=True):
            message = states[source] + sum(table.weight[value] for table, value in zip(tables, bond, strict=True))
            sums[target] += message.relu() if scheme == "ogb" else message
        hidden = layer.up_proj(sums)
        hidden = layer.down_proj((layer.norm(hidden) if scheme == "ogb" else hidden).relu())
        expected = model.norms[0](hidden)
        torch.testing.assert_close(output.last_hidden_state, expected, atol=1e-5, rtol=1e-5)
        for place in range(3):
            own = expected[batch["batch"] == place].mean(dim=0)
            torch.testing.assert_close(output.pooler_output[place], own, atol=1e-5, rtol=1e-5)
        order = torch.randperm(len(batch["edge_attr"]), generator=torch.Generator().manual_seed(0))
        shuffled = {"edge_index": batch["edge_index"][:, order], "edge_attr": batch["edge_attr"][order]}
        again = model(**{**batch, **shuffled, "num_graphs": None}).pooler_output
        torch.testing.assert_close(again, output.pooler_output, atol=1e-5, rtol=1e-5)
    assert mean_of_molecules(torch.ones(2, 4), torch.tensor([0, 2]), 4)[:, 0].tolist() == [1, 0, 1, 0]


@torch.no_grad()
def test_interaction_by_hand():
    """SchNet with fewer neighbours than atoms, pair by pair: a message may go in one direction alone."""
    config = tiny_config(num_interactions=1, max_neighbors=2, cutoff=3.0)
    model = draw_weights(GraphMVPForPreTraining(config)).eval().schnet
    generator = torch.Generator().manual_seed(0)
    z, pos = torch.tensor([6, 6, 8, 1, 17, 7, 1]), torch.randn(7, 3, generator=generator)
    batch = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    block, states = model.interactions[0], model.element_embeddings(z - 1)
    log2 = math.log(2)
    messages = torch.zeros(7, 12)
    for target in range(7):
        distances = {
            source: (pos[source] - pos[target]).norm().item()
            for source in range(7)
            if source != target and batch[source] == batch[target]
        }
        for source in sorted(distances, key=distances.get)[:2]:
            d = distances[source]
            if d <= 3:
                basis = torch.tensor([math.exp(-((d - k * 3 / 7) ** 2) / (2 * (3 / 7) ** 2)) for k in range(8)])
                weight = block.filter_out(torch.nn.functional.softplus(block.filter_in(basis)) - log2)
                messages[target] += block.in_proj(states)[source] * weight * (math.cos(math.pi * d / 3) + 1) / 2
    states = states + block.dense(torch.nn.functional.softplus(block.out_proj(messages)) - log2)
    states = model.out_proj(torch.nn.functional.softplus(model.dense(states)) - log2)
    expected = torch.stack([states[:4].mean(dim=0), states[4:].mean(dim=0)])
    found = model(z, model.pairs(z, pos, batch), batch, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_one_atom_alone_in_training():
    """The last batch of an epoch may be methane."""
    for scheme in ("pretrain_gnns", "ogb"):
        model = GraphMVPForPropertyPrediction(tiny_config(graph_scheme=scheme)).train()
        batch = dict(GraphMVPFeatureExtractor(scheme=scheme)(["C"], return_tensors="pt"))
        output = model(**batch, labels=torch.zeros(1, 2))
        output.loss.backward()
        assert output.loss.isfinite()
        assert torch.equal(model.graphmvp.norms[0].running_mean, torch.zeros(16))


# ---- the original's files


@pytest.mark.parametrize("ogb", [False, True])
@torch.no_grad()
def test_original_files_become_checkpoints(ogb, tmp_path, capsys):
    """Both layouts and both kinds of file, small: sizes are read off the tensors, the numbers stay."""
    parts = original_parts(ogb=ogb, cutoff=6.0, **SMALL)
    if ogb:  # as an older ogb wrote it
        parts["model"]["atom_encoder.atom_embedding_list.1.weight"] = torch.randn(4, 16)
    torch.save(parts["model"], tmp_path / "x_model.pth")
    torch.save(parts, tmp_path / "x_model_complete.pth")
    assert main(["convert", "graphmvp", str(tmp_path / "x_model.pth"), str(tmp_path / "bare")]) == 0
    assert "Hydrogens are left out" in capsys.readouterr().out
    assert main(["convert", "graphmvp", str(tmp_path / "x_model_complete.pth"), str(tmp_path / "whole")]) == 0
    assert "does not tell its objective" in capsys.readouterr().out
    whole, info = AutoModelForPreTraining.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(info.values())
    config = whole.config
    assert config.graph_scheme == ("ogb" if ogb else "pretrain_gnns")
    assert config.atom_feature_dims[:2] == ([119, 4] if ogb else [120, 3])
    assert (config.embedding_dim, config.num_layers, config.num_interactions) == (16, 2, 2)
    assert (config.num_filters, config.num_gaussians, config.cutoff) == (12, 9, 6.0)
    processor = AutoProcessor.from_pretrained(tmp_path / "whole")
    assert (processor.scheme, processor.explicit_hydrogens, processor.num_conformers) == (config.graph_scheme, False, 0)
    assert (processor.canonical, processor.standardize) == (False, "none")
    batch = processor(["CCO", "c1ccccc1[C@H](N)C", "C"], return_tensors="pt")
    bare = AutoModel.from_pretrained(tmp_path / "bare")
    assert type(bare) is GraphMVPModel
    assert torch.equal(bare(**batch).pooler_output, whole.get_graph_features(**batch))
    assert torch.equal(
        AutoModel.from_pretrained(tmp_path / "whole")(**batch).pooler_output, bare(**batch).pooler_output
    )
    weight = parts["model_3D"]["interactions.1.conv.lin2.weight"]
    assert torch.equal(whole.schnet.interactions[1].out_proj.weight, weight)


def test_foreign_files_are_refused(tmp_path):
    parts = original_parts(**SMALL)

    def saved(found) -> str:
        torch.save(found, tmp_path / "file.pth")
        return str(tmp_path / "file.pth")

    with pytest.raises(ValueError, match=r"holds model, other; a complete file has the state dicts model, model_3D"):
        read_parts(saved({"model": parts["model"], "other": {}}))
    schnet = parts["model_3D"]
    for part, changed, complaint in (
        ("model", {"graph_pred_linear.weight": torch.ones(1, 16)}, "'graph_pred_linear.weight' is not a name of"),
        ("model", {"gnns.1.mlp.2.bias": None}, "they lack 'graphmvp.layers.1.down_proj.bias'"),
        ("model", {"gnns.0.mlp.0.weight": None}, r"it has no gnns.0.mlp.0 \(a GIN\)"),
        ("model_3D", {"interactions.0.conv.nn.0.weight": torch.ones(12, 9)}, "not the filter that stands under 'mlp'"),
        ("model_3D", {"lin1.weight": torch.ones(8, 16)}, "of another shape are 'schnet.dense.weight'"),
        ("model_3D", {"distance_expansion.offset": None}, "the state dict has no 'distance_expansion.offset'"),
        ("AE_2D_3D_model", {"decoder.4.weight": torch.ones(1)}, "'decoder.4.weight' is not a name of"),
    ):
        state = {name: value for name, value in {**parts[part], **changed}.items() if value is not None}
        with pytest.raises(ValueError, match=complaint):
            convert_model(read_parts(saved({**parts, part: state})))
    assert schnet is parts["model_3D"]


# ---- from files to a model and on


GOOD = ["CCO", "CC(=O)O", "c1ccccc1", "CCN", "C#CC", "CC=O", "COC", "CCCl"]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Eight molecules with coordinates, one with another one's, one that does not parse."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    with ConformerGenerator(ConformerSettings(num_conformers=2), None) as generator:
        found = generator(GOOD)
    rows = [(text, each.z.tolist(), each.pos.ravel().tolist()) for text, each in zip(GOOD, found, strict=True)]
    rows += [("CCS", *rows[0][1:]), ("C1CC", *rows[0][1:])]
    pd.DataFrame(rows, columns=["smiles", "atomic_numbers", "coordinates"]).to_parquet("conformers.parquet")
    labelled = ["C" * length + end for length in range(1, 11) for end in ("O", "N")]
    pd.DataFrame({"smiles": labelled, "value": np.arange(20.0)}).to_csv("labels.csv", index=False)
    sizes = {"embedding_dim": 16, "num_layers": 2, "num_interactions": 1, "num_filters": 8, "num_gaussians": 8}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    return tmp_path


def pretrain(output: str, *options: str) -> int:
    given = ["--train_data", "conformers.parquet", "--validation_data", "conformers.parquet", "--config", "config.json"]
    given += ["--output_dir", output, "--max_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu"]
    given += ["--logging_steps", "1", "--bf16", "False", "--report_to", "none", "--save_strategy", "no"]
    return main(["pretrain", "graphmvp", *given, *options])


def test_from_coordinates_to_embeddings(workplace, capsys):
    """Pre-trained on given coordinates with hydrogens; embedded and fine-tuned as graphs without."""
    assert pretrain("run") == 0
    told = capsys.readouterr().err
    assert "2 of 10 rows refused and left out" in told
    assert "coordinates of C2H6O, but the molecule is C2H6S (for instance row 8, 'CCS')" in told
    log = json.loads((workplace / "run" / "trainer_state.json").read_text())["log_history"]
    assert {"loss_contrastive", "loss_reconstruction", "loss_divergence"} <= set(log[0])
    assert math.isfinite(log[-1]["eval_loss"])
    processor = AutoProcessor.from_pretrained("run")
    assert (processor.num_conformers, processor.explicit_hydrogens) == (0, False)
    assert (processor.pretraining_conformers, processor.pretraining_hydrogens) == (1, True)

    assert main(["embed", "labels.csv", "embeddings.parquet", "--model", "run", "--quiet"]) == 0
    assert len(pd.read_parquet("embeddings.parquet")) == 20
    arguments = ["labels.csv", "--labels", "value", "--model", "run", "--split", "random", "--epochs", "1"]
    assert main(["finetune", *arguments, "--output", "tuned", "--quiet"]) == 0
    assert main(["predict", "labels.csv", "predictions.csv", "--model", "tuned", "--quiet"]) == 0
    assert len(pd.read_csv("predictions.csv")) == 20
    capsys.readouterr()
    assert pretrain("wrong", "--num_conformers", "0") == 2
    assert "num_conformers is 1 or more, not 0" in capsys.readouterr().err


def test_features_of_pre_training():
    """Graph and conformers of one molecule in one order, with hydrogens; another molecule's coordinates are refused."""
    extractor = GraphMVPFeatureExtractor(pretraining_conformers=2).for_pretraining()
    with ConformerGenerator(ConformerSettings(num_conformers=2), None) as generator:
        (found,) = generator(["OCC"])
    order = np.random.default_rng(0).permutation(len(found.z))
    columns = {"z": [found.z[order].tolist()], "pos": [found.pos[:, order].ravel().tolist()]}
    (feature,) = extractor.featurize({"smiles": ["OCC"], **columns})
    assert (feature["num_nodes"], feature["num_conformers"]) == (9, 2)
    assert np.array_equal(feature["x"].reshape(9, 2)[:, 0] + 1, feature["z"])
    pos = feature["pos"].reshape(2, 9, 3)
    source, target = feature["edge_index"].reshape(2, -1)
    assert np.linalg.norm(pos[:, source] - pos[:, target], axis=-1).max() < 1.6  # bonds are as long as bonds
    with pytest.raises(MoleculeError, match="coordinates of C2H6O, but the molecule is CH4"):
        extractor.featurize({"smiles": ["C"], **columns})
    rows = [{"smiles": "OCC", "z": columns["z"][0], "pos": columns["pos"][0], "row_id": 0}]
    assert len(GraphMVPDataCollator(extractor, masked_share=0.0)(rows)["pos"]) == 9
