"""3D Infomax: the laws for each objective, and what is its own."""

import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import nn

from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.losses import mean_absolute_error, one_sided_nt_xent
from hf_molrep.models.infomax_3d import (
    Infomax3DConfig,
    Infomax3DDataCollator,
    Infomax3DFeatureExtractor,
    Infomax3DForPreTraining,
    Infomax3DForPropertyPrediction,
    Infomax3DModel,
)
from hf_molrep.models.infomax_3d.configuration_infomax_3d import AUGMENTATIONS
from hf_molrep.models.infomax_3d.conversion_infomax_3d import convert, convert_model, read_states
from hf_molrep.models.infomax_3d.modeling_infomax_3d import (
    Infomax3DLayer,
    check_graph,
    make_edges,
)
from hf_molrep.models.infomax_3d.pretraining_infomax_3d import joao_step
from hf_molrep.nn.atom_pairs import pairs_within_molecules
from tests.models.common import MethodLaws, draw_weights
from tests.models.infomax_3d.tiny import original_shapes, original_shapes_3d, original_weights, tiny_config
from tests.models.laws.checks import require, require_same, rotation
from tests.models.laws.hooks import GOLDENS, descriptor_scaling
from tests.models.laws.two_processes import two_process_gradients

OTHER_OBJECTIVE = {
    "law_01_processor": "the processor does not know the objective",
    "law_10_bad_smiles": "the processor does not know the objective",
    "law_10_contract": "the processor does not know the objective",
    "law_10_odd_molecules": "the embedding does not know the objective",
    "law_04_alone_and_in_a_batch": "the embedding does not know the objective",
    "law_03_renumbering": "the embedding does not know the objective",
    "law_14_two_processes": "all objectives run in one torchrun",
}


def glorot(inputs: int, outputs: int, gain: float = 1.0) -> tuple[str, float]:
    return ("uniform", gain * (6 / (inputs + outputs)) ** 0.5)


def of_block(inputs: int, outputs: int) -> tuple[str, float]:
    return glorot(inputs, outputs, 1 / inputs)


def positions(feature: dict, conformers: int, seed: int) -> np.ndarray:
    """Random coordinates, atoms some angstrom apart, `[conformers * atoms * 3]`."""
    rng = np.random.default_rng(seed)
    return rng.normal(scale=2, size=conformers * int(feature["num_nodes"]) * 3).astype(np.float32)


def permuted(feature: dict, order: np.ndarray) -> dict:
    """The same graph with its conformers; atom k becomes atom `order[k]`."""
    back = np.argsort(order)
    changed = {**feature, "x": feature["x"].reshape(len(order), -1)[back].ravel(), "z": feature["z"][back]}
    changed["edge_index"] = order[feature["edge_index"]]
    if "pos" in feature:
        changed["pos"] = feature["pos"].reshape(-1, len(order), 3)[:, back].ravel()
    return changed


class TestInfomax3D(MethodLaws):
    model_type = "infomax_3d"
    objective = "contrastive"
    conformers = 2
    random_batches = False
    does_not_apply = {"law_12_sdpa": "the encoder has no attention"}
    hidden_states = 3
    initial_values = {
        **{
            rf"atom_embeddings\.{place}\.": glorot(size, 8)
            for place, size in enumerate((119, 5, 12, 12, 10, 6, 6, 2, 2))
        },
        **{rf"bond_embeddings\.{place}\.": glorot(size, 8) for place, size in enumerate((5, 6, 2))},
        r"norm\.weight$": ("constant", 1.0),
        r"norm\.bias$": ("constant", 0.0),
        r"gate\.": ("uniform", 6**-0.5),
        r"(up_proj|down_proj)\.": ("uniform", 8**-0.5),
        r"attention_out\.weight$": ("uniform", 8**-0.5),
        r"pair\.(weight|bias)$": ("uniform", 16**-0.5),
        r"descriptor_head\.": ("uniform", 24**-0.5),
        r"bias$": ("constant", 0.0),
        r"atom_embedding$": ("normal", 1.0),
        r"qkv\.weight$": glorot(8, 24),
        r"conformer_encoder\.pair_in\.": of_block(9, 6),
        r"conformer_encoder\.layers\.0\.message\.": of_block(18, 6),
        r"conformer_encoder\.layers\.0\.update\.": of_block(6, 6),
        r"conformer_encoder\.out_proj\.": of_block(18, 6),
        r"graph_readout\.out_proj\.": of_block(8, 6),
        r"\.out_proj\.": of_block(8, 2),
        r"head\.network\.blocks\.0": of_block(32, 8),
        r"(graph|property)_readout\..*blocks\.0": of_block(24, 8),
        r"message_in\.": of_block(24, 8),
        r"message_out\.": of_block(8, 8),
        r"update\.": of_block(104, 8),
    }

    def config(self, dropout: float = 0.0, **options):
        return tiny_config(dropout=dropout, objective=self.objective, **options)

    def processor(self):
        return Infomax3DFeatureExtractor()

    def rows(self):
        rows = super().rows()
        if self.objective in ("contrastive", "distance_prediction"):
            rows = [{**row, "pos": positions(row, self.conformers, row["row_id"])} for row in rows]
        if self.objective == "property_prediction":
            rows = [{**row, "labels": [math.sin(row["row_id"]), row["row_id"] % 3]} for row in rows]
        return rows

    def collator(self, seed: int = 0):
        return Infomax3DDataCollator(self.processor(), objective=self.objective, seed=seed)

    def build(self, kind, attention=None, **options):
        """Running statistics of batch norm as after training."""
        model = super().build(kind, attention, **options)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm1d):
                norm.momentum = 1.0
        with torch.no_grad():
            model.train()(**(self.collator()(self.rows()) if kind == "pre-training" else self.inputs()))
        return model.eval()

    def renumbered(self, rng: np.random.Generator):
        """The same graphs, their atoms permuted: another SMILES may give other chirality tags."""
        features = self.processor().featurize({"smiles": self.molecules})
        return dict(
            self.processor().pad([permuted(feature, rng.permutation(feature["num_nodes"])) for feature in features])
        )

    def _require_initial(self, what: str, name: str, value: torch.Tensor) -> None:
        if value.numel() > 1 or not name.endswith(("gate.bias", "pair.bias")):
            super()._require_initial(what, name, value)
            return
        # one number has no width
        bound = 6**-0.5 if "gate" in name else 16**-0.5
        require(2, 0 < abs(value.item()) <= bound, f"{what}: {value.item()} is not drawn from +-{bound}")

    @torch.no_grad()
    def test_law_03_both_views_renumbered(self):
        """Atoms in another order, in both views, and conformers in another order leave the loss."""
        model, rng = self.build("pre-training"), np.random.default_rng(0)
        rows = self.rows()
        expected = model(**self.collator()(rows)).loss
        if self.objective == "graph_contrast":
            pytest.skip("the changed atoms are drawn by their numbers")
        changed = [permuted(row, rng.permutation(row["num_nodes"])) for row in rows]
        if self.objective == "contrastive":
            changed = [{**row, "pos": row["pos"].reshape(self.conformers, -1)[::-1].ravel()} for row in changed]
        require_same(3, "loss of renumbered molecules", model(**self.collator()(changed)).loss, expected, 1e-5)

    @torch.no_grad()
    def test_law_05_motion(self):
        """Conformers turned, moved and mirrored leave everything that is made of them."""
        model = self.build("pre-training")
        batch = self.collator()(self.rows())
        if "pos" not in batch:
            pytest.skip("no conformers")
        rng = np.random.default_rng(0)
        expected = model(**batch)
        for reflect in (False, False, True):
            matrix, shift = rotation(rng, reflect), torch.from_numpy(5 * rng.standard_normal(3))
            moved = (batch["pos"].double() @ matrix.T + shift).float()
            actual = model(**{**batch, "pos": moved})
            require_same(5, "loss", actual.loss, expected.loss, 1e-5)
            if self.objective == "contrastive":
                require_same(5, "conformers", actual.embeddings, expected.embeddings, 1e-5)
        stretched = model(**{**batch, "pos": 1.1 * batch["pos"]}).loss
        require(5, abs(stretched - expected.loss).item() > 1e-3, "the distances do not matter")

    def test_law_14_two_processes(self, tmp_path):
        """All objectives that gather, in one torchrun."""
        classes = [TestInfomax3D, TestInfomax3DDistances, TestInfomax3DGraphContrast]
        classes += [TestInfomax3DJoao, TestInfomax3DDescriptors]
        names = [f"{__name__}:{each.__qualname__}" for each in classes]
        found = two_process_gradients(names, tmp_path)
        for each, name in zip(classes, names, strict=True):
            each().require_joined(found[name])

    def agreement(self):
        """The original's networks with random weights on six molecules, and both losses."""
        golden = np.load(GOLDENS / "infomax_3d.npz")
        state, state_3d = (
            {
                name.removeprefix(prefix): torch.from_numpy(golden[name])
                for name in golden.files
                if name.startswith(prefix)
            }
            for prefix in ("pna_state/", "net3d_state/")
        )
        for weights in (state, state_3d):
            for name in [name for name in weights if name.endswith("batch_norm.weight")]:
                weights[name.replace("norm.weight", "norm.num_batches_tracked")] = torch.tensor(0)
        model = convert_model(state, state_3d)
        batch = {key: torch.from_numpy(golden[key]).long() for key in ("x", "edge_index", "edge_attr", "batch")}
        pos, originals = torch.from_numpy(golden["pos"]), {}
        with torch.no_grad():
            graphs = model.get_graph_features(**batch)
            conformers = model.get_conformer_features(None, pos, batch["batch"], 6)
            loss = model(**batch, pos=pos).losses["contrastive"]
        for name, ours in (("z2d", graphs), ("z3d", conformers)):
            original = torch.from_numpy(golden[name])
            originals[name] = (ours, original, 1e-5)
        several = conformers.repeat_interleave(2, dim=0) + 0.01 * torch.arange(12)[:, None]
        several = one_sided_nt_xent(graphs, several.view(6, 2, -1), 0.1, eps=0.0)
        for name, ours in (("nt_xent", loss), ("nt_xent_conformers", several)):
            originals[name] = (ours, torch.tensor(golden[name]).float(), 1e-5)
        return originals


class TestInfomax3DDistances(TestInfomax3D):
    """Distance prediction, of the first conformer."""

    objective = "distance_prediction"
    conformers = 1
    does_not_apply = {
        **TestInfomax3D.does_not_apply,
        **OTHER_OBJECTIVE,
        "law_13_resuming": "batches without random numbers are resumed with the contrast",
    }
    overfit = (100, 2e-2, 0.5)  # coordinates are random: symmetric atoms cannot be told apart


class TestInfomax3DProperties(TestInfomax3D):
    """Property prediction, with missing labels."""

    objective = "property_prediction"
    does_not_apply = {
        **TestInfomax3D.does_not_apply,
        **OTHER_OBJECTIVE,
        "law_12_compile": "the encoder is compiled with the other objectives",
        "law_13_resuming": "batches without random numbers are resumed with the contrast",
    }


class TestInfomax3DGraphContrast(TestInfomax3D):
    """GraphCL."""

    objective = "graph_contrast"
    random_batches = True
    does_not_apply = {
        **TestInfomax3D.does_not_apply,
        **OTHER_OBJECTIVE,
        "law_12_compile": "the encoder is compiled with the other objectives",
    }

    def collator(self, seed: int = 0):
        return Infomax3DDataCollator(self.processor(), objective=self.objective, augmentation="random", seed=seed)


class TestInfomax3DJoao(TestInfomax3DGraphContrast):
    """JOAO's drawn pairs of changes, and version 2's readout network for each."""

    initial_values = {
        r"augmentation_probabilities$": ("constant", 0.04),
        r"graph_readouts\.\d\.out_proj\.weight$": of_block(8, 6),
        r"graph_readouts\.\d\.blocks\.0\.dense\.weight$": of_block(24, 8),
        **TestInfomax3D.initial_values,
    }

    def config(self, dropout: float = 0.0, **options):
        return super().config(dropout, augmentation_choice="joao_v2", **options)

    def collator(self, seed: int = 0):
        return Infomax3DDataCollator(
            self.processor(), objective=self.objective, seed=seed, probabilities=np.full(25, 0.04)
        )


class TestInfomax3DDescriptors(TestInfomax3D):
    """CheMeleon's objective, without conformers."""

    objective = "descriptors"
    random_batches = True
    does_not_apply = {
        **TestInfomax3D.does_not_apply,
        **OTHER_OBJECTIVE,
        "law_12_compile": "the encoder is compiled with the other objectives",
    }
    del does_not_apply["law_01_processor"]

    def config(self, dropout: float = 0.0, **options):
        return super().config(dropout, **{**self.processor().config_fields(), **options})

    def processor(self):
        return Infomax3DFeatureExtractor(descriptor_scaling=descriptor_scaling())

    @torch.no_grad()
    def test_loss_is_of_what_is_asked_for(self):
        model, batch = self.build("pre-training"), self.collator()(self.rows())
        asked = model.descriptor_head(model.infomax_3d(**self.inputs()).pooler_output)
        error = (asked.gather(1, batch["descriptor_places"]) - batch["descriptor_targets"]).square().mean()
        torch.testing.assert_close(model(**batch).loss, error)
        with pytest.raises(ValueError, match="has no descriptors"):
            model(**self.inputs())
        with pytest.raises(StrictDataclassClassValidationError, match="needs num_descriptors"):
            Infomax3DConfig(objective="descriptors")


# ---- losses


@pytest.mark.parametrize("conformers", [1, 3])
def test_loss_written_out(conformers):
    """One direction, the positive not in the denominator, exponents summed over conformers."""
    rng = np.random.default_rng(0)
    queries, keys = rng.standard_normal((5, 7)), rng.standard_normal((5, conformers, 7))
    expected = 0.0
    for i in range(5):
        exponents = [
            [math.exp(queries[i] @ key / np.linalg.norm(queries[i]) / np.linalg.norm(key) / 0.1) for key in of_molecule]
            for of_molecule in keys
        ]
        expected -= math.log(sum(exponents[i]) / sum(sum(exponents[j]) for j in range(5) if j != i)) / 5
    given = torch.from_numpy(keys if conformers > 1 else keys[:, 0])
    assert one_sided_nt_xent(torch.from_numpy(queries), given, 0.1, eps=0.0).item() == pytest.approx(expected, rel=1e-5)
    twin = torch.from_numpy(queries)
    assert one_sided_nt_xent(twin, twin, 0.1).item() < 0


def test_loss_of_a_single_molecule_is_nothing():
    queries = torch.randn(1, 4, requires_grad=True)
    loss = one_sided_nt_xent(queries, torch.randn(1, 2, 4), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert not queries.grad.any()


def test_absolute_error():
    predicted = torch.tensor([[1.0, 2.0], [3.0, -4.0]], requires_grad=True)
    loss = mean_absolute_error(predicted, torch.tensor([[2.0, math.nan], [0.0, -4.5]]))
    assert loss.item() == pytest.approx(4.5 / 3)
    loss.backward()
    assert predicted.grad[0, 1] == 0
    with pytest.raises(ValueError, match="have shape"):
        mean_absolute_error(predicted, torch.zeros(2))
    labels, options = torch.tensor([[5.0], [1.0]]), {"label_mean": [1.0], "label_std": [2.0], "id2label": {0: "a"}}
    batch = dict(Infomax3DFeatureExtractor()(["CCO", "CC"], return_tensors="pt"))
    model = Infomax3DForPropertyPrediction(tiny_config(regression_loss="l1", **options)).eval()
    output = model(**batch, labels=labels)
    assert output.loss.item() == pytest.approx((output.logits - (labels - 1) / 2).abs().mean().item())


# ---- layers


def test_sizes_are_the_originals():
    """Parameters counted on the original's classes."""

    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    model = Infomax3DForPreTraining(Infomax3DConfig())
    assert count(model.infomax_3d) == 4_810_000
    assert count(model.infomax_3d) + count(model.graph_readout) == 4_982_056
    assert count(model.conformer_encoder) == 17_617
    assert count(Infomax3DForPropertyPrediction(Infomax3DConfig(num_labels=1))) == 4_970_801
    assert count(Infomax3DForPreTraining(Infomax3DConfig(objective="distance_prediction"))) == 5_052_401


def test_pairs_are_those_of_a_double_loop():
    batch = torch.tensor([0, 0, 0, 1, 2, 2])
    expected = {(i, j) for i in range(6) for j in range(6) if i != j and batch[i] == batch[j]}
    source, target = pairs_within_molecules(batch, 3)
    assert len(source) == len(expected) == 8
    assert set(zip(source.tolist(), target.tolist(), strict=True)) == expected


@torch.no_grad()
def test_a_layer_written_out():
    """Messages, aggregators, scalers atom by atom; an atom without bonds gets nothing."""
    layer = draw_weights(Infomax3DLayer(tiny_config())).eval()
    batch = dict(Infomax3DFeatureExtractor()(["CC(=O)O", "C"], return_tensors="pt"))
    states, bonds = torch.randn(5, 8), torch.randn(60, 8)
    edges = make_edges(batch["edge_index"], batch["edge_attr"], 5, torch.float32, (5, 6, 2))
    expected = []
    for atom in range(5):
        arriving = []
        for (source, target), (kind, stereo, conjugated) in zip(
            batch["edge_index"].T.tolist(), batch["edge_attr"].tolist(), strict=True
        ):
            if target == atom:
                ends = torch.cat([states[source], states[target], bonds[kind * 12 + stereo * 2 + conjugated]])
                arriving.append(layer.message_out(layer.message_in(ends[None]))[0])
        around, degree = torch.zeros(32), len(arriving)
        if arriving:
            stacked = torch.stack(arriving)
            variance = stacked.square().mean(0) - stacked.mean(0).square()
            parts = [stacked.mean(0), stacked.amax(0), stacked.amin(0), (variance.relu() + 1e-5).sqrt()]
            around = torch.cat(parts)
        scale = math.log(degree + 1)
        scaled = [states[atom], around, around * scale, around / scale if scale else around]
        expected.append(states[atom] + layer.update(torch.cat(scaled)[None])[0])
    torch.testing.assert_close(layer(states, bonds, edges), torch.stack(expected), atol=1e-5, rtol=1e-5)
    # a matrix for each degree, as on a CPU, or one for all of them: the same numbers and gradients
    found = {}
    with torch.enable_grad():
        edges = make_edges(batch["edge_index"], batch["edge_attr"], 5, torch.float32, (5, 6, 2))
        for name, plan in (("by degree", edges), ("at once", edges._replace(by_degree=None, sizes=None))):
            output = layer(states, bonds, plan)
            found[name] = (output, *torch.autograd.grad(output.square().sum(), tuple(layer.parameters())))
    torch.testing.assert_close(found["by degree"], found["at once"], atol=1e-4, rtol=1e-4)


def test_adapters_see_the_same_messages():
    """With another module in place of the first linear map, it is applied to the edges."""
    layer = draw_weights(Infomax3DLayer(tiny_config())).eval()
    batch = dict(Infomax3DFeatureExtractor()(["CC(=O)O"], return_tensors="pt"))
    states, bonds = torch.randn(4, 8), torch.randn(60, 8)
    edges = make_edges(batch["edge_index"], batch["edge_attr"], 4, torch.float32, (5, 6, 2))
    expected = layer(states, bonds, edges)
    layer.message_in.dense = nn.Sequential(layer.message_in.dense)
    torch.testing.assert_close(layer(states, bonds, edges), expected, atol=1e-5, rtol=1e-5)


def test_checkpointing_counts_a_batch_once():
    batch = dict(Infomax3DFeatureExtractor()(["CC(=O)O", "CCO", "c1ccccc1"], return_tensors="pt"))
    statistics = []
    for checkpointing in (False, True):
        model = draw_weights(Infomax3DModel(tiny_config(batch_norm_momentum=0.3))).train()
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        model(**batch).pooler_output.sum().backward()
        statistics.append({name: value for name, value in model.named_buffers() if "running" in name})
    for name, value in statistics[0].items():
        torch.testing.assert_close(statistics[1][name], value, atol=1e-6, rtol=1e-5)


def test_nothing_to_normalise_over():
    """Molecules without bonds, and a single one, in training."""
    model = Infomax3DForPropertyPrediction(tiny_config(num_labels=1)).train()
    for smiles in (["C"], ["C", "N"]):
        batch = dict(Infomax3DFeatureExtractor()(smiles, return_tensors="pt"))
        loss = model(**batch, labels=torch.ones(len(smiles), 1)).loss
        loss.backward()
        assert loss.isfinite()
    assert all(buffer.isfinite().all() for buffer in model.buffers() if buffer.is_floating_point())


@torch.no_grad()
def test_foreign_graphs_are_refused():
    batch = dict(Infomax3DFeatureExtractor()(["CCO", "CC"], return_tensors="pt"))
    model = Infomax3DModel(tiny_config(num_chiralities=4))
    with pytest.raises(ValueError, match="use torchrun"):
        model(**{**batch, "edge_attr": batch["edge_attr"][:2]})
    with pytest.raises(ValueError, match="not of the scheme 'ogb'"):
        model(**{**batch, "x": batch["x"][:, :2]})
    changed = batch["x"].clone()
    changed[0, 1] = 4
    with pytest.raises(ValueError, match="no row: its columns hold 119, 4, 12"):
        model(**{**batch, "x": changed})
    check_graph(changed, batch["edge_index"], batch["edge_attr"], tiny_config())
    with pytest.raises(ValueError, match="scheme 'ogb'"):
        Infomax3DFeatureExtractor("dmp")


def test_objective_and_batch_must_agree():
    batch = dict(Infomax3DFeatureExtractor()(["CCO", "CC"], return_tensors="pt"))
    for objective, what in (
        ("contrastive", "conformers"),
        ("distance_prediction", "conformers"),
        ("property_prediction", "labels"),
        ("graph_contrast", "second views"),
    ):
        model = Infomax3DForPreTraining(tiny_config(objective=objective))
        with pytest.raises(ValueError, match=f"has no {what}.*objective '{objective}'"):
            model(**batch)
        if objective != "contrastive":
            with pytest.raises(ValueError, match="no network of conformers"):
                model.get_conformer_features(None, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="no readout network"):
        Infomax3DForPreTraining(tiny_config(objective="distance_prediction")).get_graph_features(**batch)
    for wrong in ({"unfreezing_steps": [1, 2]}, {"readout": []}, {"num_conformers": 0}, {"transformer_heads": 3}):
        with pytest.raises(StrictDataclassClassValidationError, match=next(iter(wrong))):
            tiny_config(**wrong)


# ---- conformers


def test_one_atom_order_in_both_views():
    """Graph and conformers of given coordinates, with and without hydrogens; another molecule's are refused."""
    water = {"smiles": ["O"], "z": [[1, 8, 1]], "pos": [[[0.76, 0.59, 0], [0, 0, 0], [-0.76, 0.59, 0]]]}
    extractor = Infomax3DFeatureExtractor(explicit_hydrogens=True, num_conformers=1)
    (feature,) = extractor.featurize(water)
    assert feature["z"].tolist() == [8, 1, 1]
    np.testing.assert_allclose(feature["pos"].reshape(3, 3)[0], 0)
    (heavy,) = Infomax3DFeatureExtractor(num_conformers=1).featurize(water)
    assert heavy["z"].tolist() == [8]
    with pytest.raises(MoleculeError):
        extractor.featurize({**water, "smiles": ["CO"]})
    with pytest.raises(MoleculeError):
        extractor.featurize({"smiles": ["[Na+].[Cl-]"]})


def test_missing_conformers_are_noisy_copies():
    water = {"smiles": ["O"], "z": [[8, 1, 1]], "pos": [[[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]]}
    three = Infomax3DFeatureExtractor(explicit_hydrogens=True, num_conformers=3)
    (feature,) = three.featurize(water)
    pos = feature["pos"].reshape(3, 3, 3)
    np.testing.assert_allclose(pos[0, 1], [0.76, 0.59, 0])
    for copied in pos[1:]:
        assert 0.01 < np.abs(copied - pos[0]).mean() < 0.1
    assert not np.array_equal(pos[1], pos[2])
    assert feature["num_conformers"] == 1
    assert "fewer_conformers" in feature["conformer_flags"].split()
    np.testing.assert_array_equal(three.featurize(water)[0]["pos"], feature["pos"])  # drawn once
    (first,) = Infomax3DFeatureExtractor(explicit_hydrogens=True, num_conformers=1).featurize(
        {**water, "pos": [np.concatenate([water["pos"], np.eye(3)[None]])]}
    )
    np.testing.assert_allclose(first["pos"].reshape(3, 3), water["pos"][0])
    assert "fewer_conformers" not in first["conformer_flags"]


# ---- augmentation


def test_augmentations():
    processor = Infomax3DFeatureExtractor()
    (aspirin,) = processor.featurize({"smiles": ["CC(=O)Oc1ccccc1C(=O)O"]})
    atoms, bonds = 13, 13

    def view(name, feature=aspirin, seed=0):
        collator = Infomax3DDataCollator(processor, objective="graph_contrast", augmentation=name)
        changed = collator.view(feature, np.random.default_rng(seed))
        batch = processor.pad([changed], return_tensors="np")
        assert batch["x"].shape[0] == changed["num_nodes"]
        return batch

    assert len(view("node_dropping")["x"]) == atoms - 2
    grown = view("subgraph")
    assert len(grown["x"]) == 11
    assert grown["edge_index"].shape[1] // 2 >= 10  # connected
    masked = view("attribute_masking")
    plain = processor.pad([aspirin], return_tensors="np")
    changed = (masked["x"] != plain["x"]).any(axis=1)
    assert 0 < changed.sum() <= 2
    assert (masked["x"][changed] == plain["x"].mean(axis=0).astype(int)).all()
    moved = view("bond_perturbation")
    ends = moved["edge_index"]
    assert ends.shape[1] == 2 * bonds
    assert (ends[:, ::2] == ends[::-1, 1::2]).all()
    assert (ends[0] != ends[1]).all()
    assert (moved["edge_attr"][::2] == moved["edge_attr"][1::2]).all()
    kept = {tuple(edge) for edge in plain["edge_index"].T} & {tuple(edge) for edge in ends.T}
    assert 2 * (bonds - 2) <= len(kept) < 2 * bonds
    (methane,) = processor.featurize({"smiles": ["C"]})
    for name in ("node_dropping", "subgraph", "attribute_masking", "bond_perturbation"):
        assert len(view(name, methane)["x"]) == 1
    (salt,) = processor.featurize({"smiles": ["[Na+].[Cl-].O"]})
    assert len(view("subgraph", salt)["x"]) == 3
    with pytest.raises(ValueError, match="augmentation is 'node_dropping'"):
        Infomax3DDataCollator(processor, augmentation="node")
    with pytest.raises(ValueError, match="changed_share"):
        Infomax3DDataCollator(processor, changed_share=1.0)
    with pytest.raises(ValueError, match="not both"):
        Infomax3DDataCollator(processor, augmentation="random", probabilities=np.full(25, 0.04))


def test_drawn_pairs_of_augmentations():
    """Each molecule draws a pair by the probabilities; the batch says which, and holds what they make."""
    processor = Infomax3DFeatureExtractor()
    features = processor.featurize({"smiles": ["CC(=O)Oc1ccccc1C(=O)O"] * 400})
    rows = [{**feature, "row_id": place} for place, feature in enumerate(features)]
    probabilities = np.zeros((5, 5))
    none, dropping = AUGMENTATIONS.index("none"), AUGMENTATIONS.index("node_dropping")
    probabilities[none, dropping], probabilities[none, none] = 0.75, 0.25
    collator = Infomax3DDataCollator(processor, objective="graph_contrast", probabilities=probabilities.ravel())
    batch = collator(rows)
    assert set(batch["augmentation"].tolist()) == {none}
    dropped = batch["second_augmentation"] == dropping
    assert 260 < int(dropped.sum()) < 340
    assert torch.equal(batch["second_augmentation"] == none, ~dropped)
    assert (batch["batch"].bincount() == 13).all()
    assert torch.equal(batch["second_batch"].bincount() == 11, dropped)
    for wrong in ([0.5, 0.5], np.full(25, 0.05), [-1.0, 2.0] + [0.0] * 23):
        with pytest.raises(ValueError, match="25 numbers whose sum is 1"):
            Infomax3DDataCollator(processor, probabilities=wrong)


def test_a_readout_network_for_each_augmentation():
    """Molecules go through the network of their own change, and back to their places."""
    torch.manual_seed(0)
    model = Infomax3DForPreTraining(tiny_config(objective="graph_contrast", augmentation_choice="joao_v2")).eval()
    for parameter in model.graph_readouts.parameters():
        nn.init.normal_(parameter)
    processor = Infomax3DFeatureExtractor()
    graphs = processor(["CCO", "c1ccccc1", "CN", "CC(=O)O"], return_tensors="pt")
    places = torch.tensor([3, 0, 4, 3])
    with torch.no_grad():
        found = model.get_graph_features(**graphs, augmentation=places)
        pooled = model.infomax_3d(**graphs).pooler_output
        for row, place in enumerate(places.tolist()):
            torch.testing.assert_close(found[row : row + 1], model.graph_readouts[place](pooled[row : row + 1]))
        unchanged = model.get_graph_features(**graphs)
        torch.testing.assert_close(unchanged[2], found[2])
        assert (unchanged[0] - found[0]).abs().max() > 1e-3
        with pytest.raises(ValueError, match="no second views"):
            model(**graphs, second_x=graphs["x"])
    with pytest.raises(StrictDataclassClassValidationError, match="is for the objective 'graph_contrast'"):
        tiny_config(augmentation_choice="joao")


def test_step_of_joao():
    """By hand; and the projection finds what bisection finds."""
    uniform = torch.full((5, 5), 0.04, dtype=torch.float64)
    losses = torch.zeros(5, 5, dtype=torch.float64)
    losses[1, 2] = 0.24
    expected = uniform.clone()
    expected[1, 2] = 0.04 + 0.24
    expected = expected + (1 - expected.sum()) / 25
    torch.testing.assert_close(joao_step(uniform, losses, step=1.0, gamma=0.1), expected)
    gamma_alone = joao_step(expected, torch.zeros(5, 5, dtype=torch.float64), step=1.0, gamma=0.1)
    torch.testing.assert_close(gamma_alone, expected - 0.1 * (expected - 0.04))
    values = uniform + torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, high = values.min() - 1, values.max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (values - middle).clamp(min=0).sum() > 1 else (low, middle)
    torch.testing.assert_close(joao_step(uniform, values - uniform, 1.0, 0.0), (values - low).clamp(min=0))


def test_rows_as_a_dataset_gives_them():
    """Lists instead of arrays, empty ones where there are no bonds."""
    processor = Infomax3DFeatureExtractor()
    features = processor.featurize({"smiles": ["[Na+].[Cl-]", "CC(=O)O", "C"]})
    rows = [{**feature, "row_id": place} for place, feature in enumerate(features)]
    listed = [
        {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in row.items()} for row in rows
    ]
    for name in ("node_dropping", "subgraph", "attribute_masking", "bond_perturbation", "random"):
        collator = Infomax3DDataCollator(processor, objective="graph_contrast", augmentation=name)
        expected, actual = collator(rows), collator(listed)
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(actual[key], value), key


# ---- fine-tuning


def test_what_fine_tuning_takes_over():
    """Batch norms start anew unless told not to; the rest stays; loading alone changes nothing."""
    for restart in (True, False):
        model = draw_weights(Infomax3DForPropertyPrediction(tiny_config(restart_batch_norm=restart, num_labels=1)))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        model.begin_transfer()
        for name, value in model.state_dict().items():
            anew = restart and ".norm." in name and name.startswith("infomax_3d.")
            if anew and value.is_floating_point():
                assert (value == (1.0 if name.endswith(("weight", "running_var")) else 0.0)).all(), name
            else:
                assert torch.equal(value, before[name]), name
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
        assert {norm.momentum for norm in norms} == {0.1}
        stages = model.warmup_stages
        assert [steps for _, steps in stages] == ([700, 700, 390] if restart else [700, 390])
        assert sorted(name for names, _ in stages for name in names) == sorted(dict(model.named_parameters()))
        assert all(name.startswith("head.") for name in stages[-2][0])
        assert (".norm." in "".join(stages[-1][0])) != restart
    free = Infomax3DForPropertyPrediction(tiny_config(unfreezing_steps=[]))
    free.begin_transfer()
    assert free.warmup_stages == []


# ---- conversion


def saved(path, state, state_3d=None, **more):
    states = {"model_state_dict": state} | ({"model3d_state_dict": state_3d} if state_3d else {})
    torch.save({"epoch": 35, "best_val_score": np.float64(0.5), "optim_steps": 7, **states, **more}, path)


@pytest.mark.parametrize("chiralities", [4, 5])
@pytest.mark.parametrize("prefix", ["node_gnn", "gnn", "gnn2"])
def test_original_file_becomes_a_checkpoint(tmp_path, chiralities, prefix):
    from transformers import AutoModelForPreTraining

    from hf_molrep.cli import main

    state = original_weights(original_shapes(8, 2, 6, chiralities, prefix=prefix))
    saved(tmp_path / "best.pt", state, original_weights(original_shapes_3d(6, 6)))
    command = [
        "convert",
        "infomax_3d",
        str(tmp_path / "best.pt"),
        str(tmp_path / "out"),
        "--explicit-hydrogens",
        "true",
    ]
    assert main(command) == 0
    model, info = AutoModelForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    config = model.config
    assert (config.num_chiralities, config.embedding_dim, config.num_layers) == (chiralities, 8, 2)
    assert (config.projection_dim, config.net_3d_dim, config.num_fourier, config.net_3d_layers) == (6, 6, 4, 1)
    processor = Infomax3DFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (processor.explicit_hydrogens, processor.canonical, processor.num_conformers) == (True, False, 0)
    batch = processor(["CCO", "c1ccccc1"], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(
            model.get_graph_features(**batch),
            convert_model(*read_states(tmp_path / "best.pt")).get_graph_features(**batch),
        )


@torch.no_grad()
def test_fine_tuned_and_foreign_files(tmp_path):
    state = original_weights(original_shapes(8, 2, 1, readouts=4))
    saved(tmp_path / "tuned.pt", state)
    told = convert(tmp_path / "tuned.pt", tmp_path / "out", label_mean=-6.5, label_std=0.5, task_names="homo")
    assert not any("z-scored" in sentence for sentence in told)
    model = Infomax3DForPropertyPrediction.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "homo"}
    assert model.config.finetuning_readout == ["min", "max", "mean", "sum"]
    batch = Infomax3DFeatureExtractor.from_pretrained(tmp_path / "out")(["CCO", "CC"], return_tensors="pt")
    output = model(**batch)
    torch.testing.assert_close(output.predictions, output.logits * 0.5 - 6.5)
    assert any("z-scored" in sentence for sentence in convert(tmp_path / "tuned.pt", tmp_path / "out"))

    bare = {name: value for name, value in state.items() if not name.startswith("output")}
    assert type(convert_model(bare)) is Infomax3DModel
    saved(tmp_path / "bare.pt", bare)
    with pytest.raises(ValueError, match="was not fine-tuned"):
        convert(tmp_path / "bare.pt", tmp_path / "out", task_names="homo")
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no state dict as 'model_state_dict'"):
        read_states(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="'unknown' is not a name"):
        convert_model({**state, "unknown": torch.zeros(2)})
    missing = "node_gnn.mp_layers.1.posttrans.fully_connected.0.linear.bias"
    with pytest.raises(ValueError, match=r"they lack 'infomax_3d.layers.1.update.dense.bias'"):
        convert_model({name: value for name, value in state.items() if name != missing})
    with pytest.raises(ValueError, match="not three or four times 8"):
        convert_model(original_weights(original_shapes(8, 2, 1, readouts=2)))


def test_graphs_are_the_originals():
    """From SMILES onward: our featuriser gives the graphs of the fixture."""
    golden = np.load(GOLDENS / "infomax_3d.npz")
    processor = Infomax3DFeatureExtractor(explicit_hydrogens=True, standardize="none", canonical=False)
    batch = processor(golden["smiles"].tolist(), return_tensors="np")
    for key in ("x", "batch"):
        np.testing.assert_array_equal(batch[key], golden[key], err_msg=key)
    ours, theirs = (np.vstack([arrays["edge_index"], arrays["edge_attr"].T]) for arrays in (batch, golden))
    np.testing.assert_array_equal(ours[:, np.lexsort(ours[:2])], theirs[:, np.lexsort(theirs[:2])])
