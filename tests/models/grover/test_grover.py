"""GROVER: the laws, and what is its own."""

import argparse
import csv
import itertools
import json
import math
import zlib
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassClassValidationError

from hf_molrep import (
    GroverConfig,
    GroverDataCollator,
    GroverFeatureExtractor,
    GroverForPreTraining,
    GroverForPropertyPrediction,
    GroverModel,
)
from hf_molrep.chem import MoleculeError
from hf_molrep.chem.context_labels import context_vocabulary, molecule_contexts
from hf_molrep.chem.descriptors import normalized_descriptors
from hf_molrep.cli import main
from hf_molrep.inference.checkpoints import load_finetuned
from hf_molrep.models.grover.conversion_grover import convert_model, read_saved
from hf_molrep.models.grover.modeling_grover import BRANCHES, draw_hops, make_graph
from hf_molrep.training.finetuning import finetune
from hf_molrep.training.labelled_molecules import LabelledMolecules
from hf_molrep.training.settings import FinetuningSettings
from tests.models.common import MethodLaws, draw_weights
from tests.models.grover.tiny import MOLECULES, save_tiny_checkpoint, tiny_config, tiny_processor
from tests.models.laws.hooks import GOLDENS
from tests.models.laws.two_processes import REPOSITORY

SALTS = {"pretraining": "pretraining ", "finetuning": "finetuning "}


@cache
def golden() -> dict[str, np.ndarray]:
    """
    What the original code gave for nine molecules: hidden 16, 2 heads, 2 blocks, depth 5, biases, no dropout; states of
    the four branches (padding row first), loss terms, fingerprints, property heads, contexts, vocabularies, motifs.
    """
    with np.load(GOLDENS / "grover.npz") as arrays:
        return dict(arrays)


def original(kind: str, **scalers) -> dict:
    """
    A file of the original, with weights drawn by name: matrices from N(0, 1 / last dimension), norms around 1, slopes
    of PReLU around 0.25, the rest around 0.
    """
    state = {}
    for key, shape in json.loads(str(golden()["shapes"]))[SALTS[kind]].items():
        generator = torch.Generator().manual_seed(zlib.crc32((SALTS[kind] + key).encode()))
        drawn = torch.randn(shape, generator=generator)
        if key.endswith("cached_zero_vector"):
            drawn = torch.zeros(shape)
        elif drawn.dim() > 1:
            drawn = drawn / math.sqrt(shape[-1])
        elif key.endswith("norm.weight"):
            drawn = 1 + 0.1 * drawn
        elif "act_func" in key or key.endswith(("_ffn.2.weight", "_ffn.5.weight")):
            drawn = 0.25 + 0.1 * drawn
        else:
            drawn = 0.05 * drawn
        state[key] = drawn
    args = argparse.Namespace(**json.loads(str(golden()["args"])))
    return {"args": args, "state_dict": state, "data_scaler": None, "features_scaler": None, **scalers}


@cache
def golden_batch() -> dict:
    extractor = GroverFeatureExtractor(canonical=False, standardize="none")
    return dict(extractor(golden()["smiles"].tolist(), return_tensors="pt"))


def golden_labels() -> dict[str, torch.Tensor]:
    return {
        "atom_labels": torch.from_numpy(golden()["labels/atom"].astype(np.int64)),
        "bond_labels": torch.from_numpy(golden()["labels/bond"].astype(np.int64)),
        "motif_labels": torch.from_numpy(golden()["motifs"]).float(),
    }


def graph_and_states(model: GroverModel, batch: dict) -> tuple:
    graph = make_graph(*(batch[key] for key in ("x", "edge_index", "edge_attr", "batch", "num_graphs")), model)
    return graph, model.encode(graph)


class TestGrover(MethodLaws):
    model_type = "grover"
    does_not_apply = {"law_05_motion": "the graphs have no coordinates"}
    hidden_states = 2
    attentions = 1
    initial_values = {
        r"slopes$": ("constant", 0.25),
        r"norm\.weight$": ("constant", 1.0),
        r"norm\.bias$": ("constant", 0.0),
        r"node_blocks\.0\.input_proj\.": ("uniform", 151**-0.5),
        r"edge_blocks\.0\.input_proj\.": ("uniform", 165**-0.5),
        r"heads_proj\.": ("uniform", 32**-0.5),
        r"atom_from_(atom|bond)\.up_proj\.": ("uniform", 167**-0.5),
        r"bond_from_(atom|bond)\.up_proj\.": ("uniform", 181**-0.5),
        r"down_proj\.": ("uniform", 64**-0.5),
        r"head\.from_(atom|bond)\.layers\.1\.": ("uniform", 12**-0.5),
        r"": ("uniform", 16**-0.5),
    }
    overfit = (80, 1e-2, 0.2)
    molecules = MOLECULES

    def config(self, dropout: float = 0.0, **options):
        return tiny_config(dropout=dropout, **options)

    def processor(self):
        return tiny_processor()

    def collator(self, seed: int = 0):
        return GroverDataCollator(tiny_processor(), seed=seed)

    def rows(self):
        labels = tiny_processor().label(self.molecules)
        return [{**row, **label} for row, label in zip(super().rows(), labels, strict=True)]

    def agreement(self):
        """
        The original's classes, run on nine molecules with weights drawn by name; see `golden`. The highest number of
        neighbours there is 4, to which a converted model pads by itself.
        """
        found, arrays = {}, golden()
        for padding, options in (("converted", {}), ("legacy", {"legacy_padding": True})):
            model = convert_model(original("pretraining"), **options)
            with torch.no_grad():
                graph, states = graph_and_states(model.grover, golden_batch())
                output = model(**golden_batch(), **golden_labels())
                for branch in BRANCHES:
                    found[f"{padding} {branch}"] = (states[branch], arrays[f"states/{branch}"], 1e-5)
                fingerprint = torch.cat(list(model.grover.read_out(graph, states).values()), dim=1)
                found[f"{padding} fingerprint"] = (fingerprint, arrays["fingerprint"], 1e-5)
                found[f"{padding} loss"] = (output.loss, arrays["losses"][0], 1e-5)
                for place, names in enumerate(
                    (
                        ("atom_context_from_atom", "atom_context_from_bond"),
                        ("bond_context_from_atom", "bond_context_from_bond"),
                        tuple(f"motif_{branch}" for branch in BRANCHES),
                        ("atom_disagreement",),
                        ("bond_disagreement",),
                        ("motif_disagreement",),
                    )
                ):
                    ours = sum(output.losses[name] for name in names)
                    found[f"{padding} {' + '.join(names)}"] = (ours, arrays["losses"][place + 1], 1e-5)
                for problem, kind in (("regression", "regression"), ("multi_label_classification", "classification")):
                    model = convert_model(original("finetuning"), problem_type=problem, **options)
                    labels = torch.from_numpy(arrays["labels/property"])
                    if kind == "classification":
                        labels = torch.where(labels.isnan(), labels, (labels > 0).float())
                    given = {**golden_batch(), "features": torch.from_numpy(arrays["features"]), "labels": labels}
                    predictions = model(**given).predictions
                    found[f"{padding} {kind} in evaluation"] = (predictions, arrays[f"finetuning/{kind}"], 1e-5)
                    model.config.dynamic_depth = "none"
                    loss = model.train()(**given).loss
                    found[f"{padding} {kind} in training"] = (loss, arrays[f"finetuning_loss/{kind}"], 1e-5)
        return found


class TestGroverPadded(TestGrover):
    """With padding to a fixed number of neighbours. What does not depend on it is not run again."""

    does_not_apply = {
        **TestGrover.does_not_apply,
        "law_01_processor": "the extractor does not know of it",
        "law_07_workers_and_resuming": "the collator does not know of it",
        "law_10_bad_smiles": "the extractor does not know of it",
        "law_13_resuming": "resuming does not depend on it",
        "law_14_two_processes": "each process would have a padding row among its atoms, as in the original",
    }

    overfit = (150, 1e-2, 0.2)

    def config(self, dropout: float = 0.0, **options):
        return super().config(dropout, padded_neighbors=3, **options)


class TestGroverAttentiveReadout(TestGrover):
    """Self-attentive readout, further functions, biases, one more layer; the bond outputs as fingerprint."""

    does_not_apply = {**TestGroverPadded.does_not_apply}
    hidden_states = 3
    attentions = 2
    initial_values = {
        r"readout\.hidden_weight": ("normal", (2 / (16 + 3)) ** 0.5),
        r"readout\.head_weight": ("normal", (2 / (3 + 4)) ** 0.5),
        r"head\.from_(atom|bond)\.layers\.0\.": ("uniform", 64**-0.5),
        r"head\.from_(atom|bond)\.layers\.[12]\.": ("uniform", 12**-0.5),
        **TestGrover.initial_values,
    }

    def config(self, dropout: float = 0.0, **options):
        given = {"readout": "self_attention", "readout_hidden": 3, "readout_heads": 4, "ffn_layers": 3, "bias": True}
        return super().config(dropout, **given, num_blocks=2, fingerprint_source="bond", **options)


PADDINGS = [{}, {"padded_neighbors": 4}, {"legacy_padding": True}]


@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_batches_and_padding(padding):
    """Beside a quaternary carbon ethanol changes, with the original's padding only; equal degrees change nothing."""
    model = draw_weights(GroverModel(tiny_config(**padding))).eval()
    processor = tiny_processor()

    def first(*smiles):
        return model(**processor(list(smiles), return_tensors="pt")).pooler_output[0]

    alone, wide, same = first("CCO"), first("CCO", "CC(C)(C)C"), first("CCO", "CCN")
    assert (alone - same).abs().max() < 1e-5
    difference = (alone - wide).abs().max()
    assert difference > 0.1 if "legacy_padding" in padding else difference < 1e-5


@torch.no_grad()
def test_padding_to_a_fixed_number():
    """
    Each molecule as the original computes it in a batch whose highest number of neighbours is 4, or the molecule's own
    where that is higher, whatever else is in the batch.
    """
    quaternary, phosphorane, sulfur = "CC(C)(C)C", "CP(F)(F)(F)F", "FS(F)(F)(F)(F)c1ccccc1"
    padded = draw_weights(GroverModel(tiny_config(padded_neighbors=4))).eval()
    legacy, clean = GroverModel(tiny_config(legacy_padding=True)).eval(), GroverModel(tiny_config()).eval()
    for model in (legacy, clean):
        model.load_state_dict(padded.state_dict())
    processor = tiny_processor(standardize="none")

    def embed(model, *smiles):
        return model(**processor(list(smiles), return_tensors="pt")).pooler_output

    smiles = [sulfur, "CCO", quaternary, "C", phosphorane, "c1ccccc1O"]
    found = embed(padded, *smiles)
    for row, text in zip(found, smiles, strict=True):
        beside = [] if text in (sulfur, phosphorane) else [quaternary]
        torch.testing.assert_close(row, embed(legacy, text, *beside)[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(row, embed(padded, text)[0], atol=1e-5, rtol=0)
        assert (row - embed(clean, text)[0]).abs().max() > 0.1
    assert (found - embed(legacy, *smiles))[1:].abs().amax(dim=1).min() > 0.1, "the original's depend on the batch"


def test_several_paddings_can_be_trained():
    """Molecules padded to 4 and to 6 in one batch: every loss, and a gradient that is that of the sums written out."""
    rows = [{"smiles": text, "row_id": place} for place, text in enumerate(("CCO", "FS(F)(F)(F)(F)c1ccccc1", "C"))]
    model = draw_weights(GroverForPreTraining(tiny_config(padded_neighbors=4)))
    batch = GroverDataCollator(tiny_processor())(rows)
    output = model.train()(**batch)
    output.loss.backward()
    assert all(value.isfinite() for value in output.losses.values())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())

    graph, _ = graph_and_states(model.grover, batch)
    assert graph.padding == 2
    for add in (graph.to_atoms_from_atoms, graph.to_edges_from_edges):
        dense = torch.zeros(add.sums, add.rows).index_put((add.target, add.source), torch.ones(()), accumulate=True)
        dense[:, :2] += add.fill
        # every list of neighbours has the length of its molecule's padding (of an edge, one less: not its reverse)
        lengths = dense.sum(dim=1)
        assert lengths[:2].tolist() == ([4, 6] if add is graph.to_atoms_from_atoms else [3, 5])
        assert set(lengths[2:].tolist()) == set(lengths[:2].tolist())
        for shape in ((add.rows, 16), (3, add.rows, 16)):
            states = torch.randn(shape, requires_grad=True)
            weight = torch.randn(*shape[:-2], add.sums, 16)
            torch.testing.assert_close(add(states), dense @ states, atol=1e-4, rtol=1e-4)
            (gradient,) = torch.autograd.grad((add(states) * weight).sum(), states)
            torch.testing.assert_close(gradient, dense.T @ weight, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_clean_equals_original_where_nothing_is_padded():
    """A ring of carbons: every atom has the highest degree, so the original pads nothing."""
    batch = tiny_processor()(["C1CCCCC1", "C1CCC1", "C1CC1"], return_tensors="pt")
    results = []
    for legacy in (False, True):
        model = convert_model(original("pretraining"), legacy_padding=legacy, padded_neighbors=None)
        results.append(model.grover(**batch).pooler_output)
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)


def test_parameter_counts():
    """
    The original's encoder (GTransEncoder: both stacks and the four branches, without any task head) has 48,388,832 and
    107,143,232 parameters, two of which are slopes of activations that nothing uses; ours lacks these two.
    """
    with torch.device("meta"):
        for width, count in ((800, 48_388_832), (1200, 107_143_232)):
            model = GroverModel(GroverConfig(embedding_dim=width))
            assert sum(parameter.numel() for parameter in model.parameters()) == count - 2


def test_hops_are_drawn_as_the_original_draws_them():
    """floor of a normal distribution around 6, cut off at +-3."""
    torch.manual_seed(0)
    counts = Counter(draw_hops(6, 20_000))
    cdf = [0.5 * (1 + math.erf(z / math.sqrt(2))) for z in range(-3, 4)]
    assert sorted(counts) == [3, 4, 5, 6, 7, 8]
    for hops, (low, high) in zip(range(3, 9), itertools.pairwise(cdf), strict=True):
        expected = (high - low) / (cdf[-1] - cdf[0])
        assert counts[hops] / 20_000 == pytest.approx(expected, abs=0.015)


def test_training_passes_messages_as_often_as_drawn(monkeypatch):
    """Each channel alone, with its own hops, in a plain loop over neighbour matrices."""
    model = draw_weights(GroverModel(tiny_config())).train()
    batch = tiny_processor()(MOLECULES, return_tensors="pt")
    hops = [1, 4, 2, 5, 2, 7]
    monkeypatch.setattr("hf_molrep.models.grover.modeling_grover.draw_hops", lambda depth, channels: hops)
    block = model.node_blocks[0]
    source, target = batch["edge_index"]
    adjacency = torch.zeros(len(batch["x"]), len(batch["x"]))
    adjacency[target, source] = 1
    graph, _ = graph_and_states(model, batch)
    first = torch.randn(len(batch["x"]), 16)
    found = block.pass_messages(first, graph.to_atoms_from_atoms)
    for channel, count in enumerate(hops):
        states = first
        for _ in range(count - 1):
            states = first + adjacency @ states @ block.message_weight[channel].T
            states = torch.where(states > 0, states, block.message_activation.slopes[channel] * states)
        torch.testing.assert_close(found[channel], states, atol=1e-4, rtol=1e-4)


def test_labels_are_the_originals():
    """Contexts, vocabularies and functional groups of the original's task_labels.py and torchvocab.py."""
    arrays = golden()
    contexts = [molecule_contexts(smiles, "none") for smiles in arrays["smiles"].tolist()]
    assert [name for found in contexts for name in found.atoms] == arrays["atom_contexts"].tolist()
    bonds = arrays["bond_contexts"][arrays["bond_order"]]  # the original makes them in RDKit's order
    assert [name for found in contexts for name in found.bonds] == bonds.tolist()
    np.testing.assert_array_equal([found.motifs for found in contexts], arrays["motifs"])
    for kind in ("atom", "bond"):
        counts = Counter(arrays[f"{kind}_contexts"].tolist())
        assert context_vocabulary(counts) == arrays[f"{kind}_vocabulary"].tolist()
    extractor = GroverFeatureExtractor(standardize="none").learn([*arrays["smiles"].tolist(), "not a molecule"])
    assert extractor.atom_vocabulary == arrays["atom_vocabulary"].tolist()
    assert extractor.bond_vocabulary == arrays["bond_vocabulary"].tolist()
    assert context_vocabulary(Counter(a=3, b=1, c=3), min_frequency=2, max_size=1) == ["<pad>", "<other>", "a"]


def test_labels_chosen():
    """ceil(0.15 N) atoms and ceil(0.15 M) bonds of each molecule; unknown contexts are <other>."""
    smiles = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "C"]
    rows = [{"smiles": text, "row_id": place} for place, text in enumerate(smiles)]
    batch = GroverDataCollator(tiny_processor())(rows)
    atoms = [int((part != 0).sum()) for part in batch["atom_labels"].split([3, 13, 1])]
    bonds = [int((part != 0).sum()) for part in batch["bond_labels"].split([2, 13, 0])]
    assert (atoms, bonds) == ([1, 2, 1], [1, 2, 0])
    assert batch["atom_labels"][-1] == 1, "methane's carbon is in no molecule of the vocabulary"
    assert batch["motif_labels"].shape == (3, 85)
    with pytest.raises(ValueError, match="no vocabularies"):
        GroverDataCollator(GroverFeatureExtractor())(rows)
    with pytest.raises(ValueError, match="row_id"):
        GroverDataCollator(tiny_processor())([{"smiles": "CCO"}])
    labelled = GroverDataCollator(tiny_processor())([{"smiles": "CCO", "labels": [1.0], "features": [0.5, 2.0]}])
    assert labelled["labels"].tolist() == [[1.0]]
    assert labelled["features"].tolist() == [[0.5, 2.0]]


def test_descriptors(tmp_path):
    """Computed with the graph, saved as an option, stacked by pad; pre-training and embedding pass them over."""
    processor = tiny_processor(descriptors=True)
    assert processor.config_fields()["features_dim"] == 200
    assert "features_dim" not in tiny_processor().config_fields()
    smiles = ["OCC", "C1CC", "[Na+].[Cl-]", "C"]
    rows = processor.featurize({"smiles": smiles}, on_error="skip")
    assert isinstance(rows[1], MoleculeError)
    rows = [row for row in rows if isinstance(row, dict)]
    expected = normalized_descriptors(["CCO", "[Na+].[Cl-]", "C"])
    for kind in ("np", "pt"):
        features = processor.pad(rows, return_tensors=kind)["features"]
        np.testing.assert_array_equal(np.asarray(features), expected)
    plain = tiny_processor().featurize({"smiles": ["CCO"]})
    assert "features" not in plain[0]
    for mixed in (plain, [*plain, *rows]):
        with pytest.raises(ValueError, match="molecules have descriptors"):
            processor.pad(mixed)

    processor.save_pretrained(tmp_path)
    assert GroverFeatureExtractor.from_pretrained(tmp_path).descriptors
    path = tmp_path / "preprocessor_config.json"  # as it was written before there were descriptors
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "descriptors"}))
    assert not GroverFeatureExtractor.from_pretrained(tmp_path).descriptors
    assert GroverFeatureExtractor.from_pretrained(tmp_path, descriptors=True).descriptors

    batch = processor(["CCO", "CCN"], return_tensors="pt")
    model = draw_weights(GroverModel(tiny_config())).eval()
    without = tiny_processor()(["CCO", "CCN"], return_tensors="pt")
    assert torch.equal(model(**batch).pooler_output, model(**without).pooler_output)
    pretraining = draw_weights(GroverForPreTraining(tiny_config())).eval()
    given = [{"smiles": text, "row_id": place} for place, text in enumerate(MOLECULES)]
    losses = [pretraining(**GroverDataCollator(used)(given)).loss for used in (processor, tiny_processor())]
    assert torch.equal(*losses)
    with pytest.raises(ValueError, match="200 features per molecule are given, features_dim of this model is 0"):
        GroverForPropertyPrediction(tiny_config())(**batch)
    with pytest.raises(ValueError, match="0 features per molecule are given, features_dim of this model is 200"):
        GroverForPropertyPrediction(tiny_config(features_dim=200))(**without)


def test_finetuning_with_descriptors(tmp_path):
    """One option of the command; the encoder's weights are loaded, and what is saved predicts by itself."""
    rings = [f"C1{'C' * size}{atom}1" for size in range(2, 6) for atom in "CN"]
    smiles = [f"{chain}{ring}" for ring in rings for chain in ("O", "CO", "CCN")]
    lines = ["smiles,carbons", *(f"{text},{text.count('C')}" for text in smiles)]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    checkpoint = save_tiny_checkpoint(tmp_path / "pretrained", pre_training=True)
    given = [
        "finetune",
        tmp_path / "data.csv",
        "--labels",
        "carbons",
        "--model",
        checkpoint,
        "--output",
        tmp_path / "out",
    ]
    quick = ["--split", "random", "--epochs", "1", "--batch-size", "8", "--learning-rate", "0", "--quiet"]
    assert main([*map(str, given), *quick, "--processor", "descriptors=true"]) == 0
    with open(tmp_path / "out" / "report" / "metrics.json") as file:
        assert json.load(file)["settings"]["processor_options"] == {"descriptors": True}

    model, processor = load_finetuned(str(tmp_path / "out"), "cpu")
    assert processor.descriptors
    assert model.config.features_dim == 200
    assert model.head.from_atom.layers[0].in_features == 16 + 200
    encoder = GroverForPreTraining.from_pretrained(checkpoint).grover.state_dict()
    for name, value in model.grover.state_dict().items():  # trained with a learning rate of 0
        assert torch.equal(value, encoder[name])

    command = ["predict", tmp_path / "data.csv", tmp_path / "predicted.csv", "--model", tmp_path / "out"]
    assert main([*map(str, command)]) == 0
    with open(tmp_path / "predicted.csv", newline="") as file:
        predicted = [float(row["predicted_carbons"]) for row in csv.DictReader(file)]
    with torch.no_grad():
        batch = processor(smiles, return_tensors="pt")
        expected = model(**batch).predictions[:, 0]
        changed = model(**{**batch, "features": 1 - batch["features"]}).predictions[:, 0]
    np.testing.assert_allclose(predicted, expected.numpy(), atol=1e-4)
    assert (changed - expected).abs().min() > 1e-3

    with pytest.raises(ValueError, match="does not take descriptorz=True"):
        finetune(
            checkpoint,
            LabelledMolecules(smiles, np.zeros((24, 1)), ["x"], "regression", {"train": range(24)}),
            FinetuningSettings(processor_options={"descriptorz": True}),
        )


def test_files_of_the_original_with_descriptors(tmp_path):
    """200 features, as its README has them, are the normalised descriptors; scaled or other ones are not."""
    saved = original("finetuning")
    generator = torch.Generator().manual_seed(0)
    for source in ("atom", "bond"):
        key = f"mol_atom_from_{source}_ffn.1.weight"
        kept = saved["state_dict"][key][:, :-2]
        saved["state_dict"][key] = torch.cat([kept, torch.randn(len(kept), 200, generator=generator) / 20], dim=1)
    for generators, computed in ((None, True), (["rdkit_2d_normalized"], True), (["rdkit_2d"], False)):
        args = argparse.Namespace(**{**vars(saved["args"]), "features_dim": 200, "features_generator": generators})
        torch.save({**saved, "args": args}, tmp_path / "model.pt")
        assert main(["convert", "grover", str(tmp_path / "model.pt"), str(tmp_path / "out")]) == 0
        assert GroverFeatureExtractor.from_pretrained(tmp_path / "out").descriptors == computed
        if computed:
            model, processor = load_finetuned(str(tmp_path / "out"), "cpu")
            assert model(**processor(["CCO", "C"], return_tensors="pt")).predictions.shape == (2, 2)
    scaler = {"means": np.zeros(200), "stds": np.ones(200)}
    with pytest.raises(ValueError, match="features_scaler"):
        convert_model({**saved, "features_scaler": scaler})


def test_molecules_without_bonds_can_be_trained():
    model = draw_weights(GroverForPreTraining(tiny_config())).train()
    batch = GroverDataCollator(tiny_processor())([{"smiles": "C", "row_id": 0}, {"smiles": "O", "row_id": 1}])
    loss = model(**batch).loss
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_wrong_graphs_are_refused():
    model = draw_weights(GroverModel(tiny_config())).eval()
    batch = dict(tiny_processor()(["CCO", "CCN"], return_tensors="pt"))
    order = torch.tensor([1, 0, 2, 3, 4, 6, 5, 7])
    with pytest.raises(ValueError, match="not in pairs"):
        model(**{**batch, "edge_index": batch["edge_index"][:, order[[0, 2, 1, 3, 4, 5, 6, 7]]]})
    with pytest.raises(ValueError, match="torchrun"):
        model(**{**batch, "x": batch["x"][:3], "batch": batch["batch"][:3]})
    with pytest.raises(ValueError, match="rows of edge_attr"):
        model(**{**batch, "edge_attr": batch["edge_attr"][:4]})
    halves = {key: value[: len(value) // 2] for key, value in batch.items() if isinstance(value, torch.Tensor)}
    for cut in ({"edge_index": batch["edge_index"][:1]}, halves):
        with pytest.raises(ValueError, match="use torchrun"):
            model(**{**batch, **cut})


def test_graphs_of_other_schemes_are_refused():
    """By every model, whether atoms or bonds or both are foreign; a molecule without bonds too."""
    from torch_geometric.utils import from_smiles

    from hf_molrep.processing.graphs import MolGraphFeatureExtractor

    pyg = from_smiles("CCO")
    own = dict(tiny_processor()(["CCO", "C"], return_tensors="pt"))
    foreign = [{"x": pyg.x, "edge_index": pyg.edge_index, "edge_attr": pyg.edge_attr}]
    foreign += [
        dict(MolGraphFeatureExtractor(name)(smiles, return_tensors="pt"))
        for name in ("ogb", "pretrain_gnns")
        for smiles in (["CCO", "C"], ["C"])
    ]
    foreign += [{**own, "x": foreign[1]["x"]}, {**own, "edge_attr": foreign[1]["edge_attr"]}]
    for kind in (GroverModel, GroverForPreTraining, GroverForPropertyPrediction):
        model = kind(tiny_config())
        for graph in foreign:
            with pytest.raises(ValueError, match="not of the scheme 'grover', which GROVER takes: 151 columns and 14"):
                model(**graph)


def test_a_dative_bond_has_no_type():
    """None of the five flags is set, not that of "no bond" either; the single bonds beside it have theirs."""
    batch = tiny_processor(canonical=False, standardize="none")(["[NH3]->[Pt](Cl)Cl"], return_tensors="pt")
    assert batch["edge_index"][:, ::2].T.tolist() == [[0, 1], [1, 2], [1, 3]]
    assert batch["edge_attr"][::2, :5].tolist() == [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]


@torch.no_grad()
@pytest.mark.parametrize("padding", PADDINGS)
def test_takes_the_tensors_of_a_pyg_batch(padding):
    """As they are, and with their edges in another order through from_pyg."""
    from torch_geometric.data import Batch

    from hf_molrep.chem.graph import SCHEMES, mol_to_graph
    from hf_molrep.chem.smiles import parse
    from hf_molrep.data.batching import from_pyg, to_pyg

    smiles = ["CC(=O)[O-].[Na+]", "C", "Oc1ccccc1", "CC(C)(C)C"]
    model = draw_weights(GroverModel(tiny_config(**padding))).eval()
    expected = model(**tiny_processor(canonical=False)(smiles, return_tensors="pt")).pooler_output
    pyg = Batch.from_data_list([to_pyg(mol_to_graph(parse(text), "grover")) for text in smiles])
    as_they_are = model(pyg.x, pyg.edge_index, pyg.edge_attr, pyg.batch).pooler_output
    order = torch.randperm(pyg.num_edges, generator=torch.Generator().manual_seed(0))
    pyg.edge_index, pyg.edge_attr = pyg.edge_index[:, order], pyg.edge_attr[order]
    with pytest.raises(ValueError, match="see from_pyg"):
        model(pyg.x, pyg.edge_index, pyg.edge_attr, pyg.batch)
    for found in (as_they_are, model(**from_pyg(pyg, SCHEMES["grover"])).pooler_output):
        assert torch.equal(found, expected)


def test_files_of_the_original(tmp_path, capsys):
    """The layout of the released files, scalers included, becomes a checkpoint; code in a file is refused."""
    scaler = {"means": np.array([1.0, 2.0]), "stds": np.array([0.5, 3.0])}
    saved = original("finetuning", data_scaler=scaler)
    torch.save(saved, tmp_path / "model.pt")
    command = ["convert", "grover", str(tmp_path / "model.pt"), str(tmp_path / "out"), "--option"]
    assert main([*command, "legacy_padding"]) == 2
    assert main([*command, "legacy_pading=true"]) == 2
    assert "no field 'legacy_pading'; did you mean 'legacy_padding'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "legacy_padding=true"]) == 0
    assert "padded to the highest number in the batch" in capsys.readouterr().out
    assert main([*command, "padded_neighbors=null"]) == 0
    assert "the numbers are not the original's" in capsys.readouterr().out
    assert GroverConfig.from_pretrained(tmp_path / "out").padded_neighbors is None
    assert main(command[:-1]) == 0
    told = capsys.readouterr().out
    assert "padded to 4 (padded_neighbors): the numbers are the original's in any batch whose highest number" in told
    assert "SMILES are taken as written" in told
    from hf_molrep import AutoModelForMoleculePropertyPrediction

    model = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path / "out")
    assert (model.config.label_mean, model.config.label_std) == ([1.0, 2.0], [0.5, 3.0])
    assert (model.config.padded_neighbors, model.config.legacy_padding) == (4, False)
    with torch.no_grad():
        given = model(**golden_batch(), features=torch.from_numpy(golden()["features"]))
    np.testing.assert_allclose(given.logits.numpy(), golden()["finetuning/regression"], atol=1e-5)
    extractor = GroverFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (extractor.scheme, extractor.canonical, extractor.standardize) == ("grover", False, "none")

    torch.save({**saved, "extra": print}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match=r"other things than weights .*print"):
        read_saved(tmp_path / "code.pt")
    torch.save(saved["state_dict"], tmp_path / "state.pt")
    with pytest.raises(ValueError, match="has no 'state_dict'"):
        read_saved(tmp_path / "state.pt")
    for change, complaint in (
        ({"grover.encoders.new": torch.zeros(1)}, "not a name of GROVER"),
        ({"readout.attn.w1": torch.zeros(2, 16)}, "do not fit"),
    ):
        state = {**saved["state_dict"], **change}
        if "readout.attn.w1" in change:
            state = {name: value for name, value in state.items() if not name.endswith("W_o.weight")}
        with pytest.raises(ValueError, match=complaint):
            convert_model({**saved, "state_dict": state})
    with pytest.raises(ValueError, match="--dense"):
        convert_model({**saved, "args": argparse.Namespace(**{**vars(saved["args"]), "dense": True})})


def test_fixture_of_the_original():
    """Hidden 32, 4 heads, depth 6, from other weights and molecules: encoder and task heads, quirks included."""
    folder = REPOSITORY.parent / "shared" / "fixtures"
    if not (folder / "grover_random.safetensors").exists():
        pytest.skip("no ../shared/fixtures")
    from safetensors import safe_open

    with safe_open(folder / "grover_random.safetensors", "pt") as file:
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata()
    args = {key[5:]: json.loads(value) for key, value in metadata.items() if key.startswith("args/")}
    state = {key[11:]: value for key, value in arrays.items() if key.startswith("state_dict/")}
    model = convert_model({"args": argparse.Namespace(**args), "state_dict": state})  # at most 4 neighbours there
    source, reverse = arrays["batch/b2a"], arrays["batch/b2revb"]
    sizes = arrays["batch/a_scope"][:, 1]
    batch = {
        "x": arrays["batch/f_atoms"][1:],
        "edge_index": torch.stack([source, source[reverse]])[:, 1:] - 1,
        "edge_attr": arrays["batch/f_bonds"][1:, 151:],
        "batch": torch.arange(len(sizes)).repeat_interleave(sizes),
        "num_graphs": len(sizes),
    }
    with torch.no_grad():
        graph, states = graph_and_states(model.grover, batch)
        predictions = model.predict(graph, states, model.grover.read_out(graph, states))
    for branch in BRANCHES:
        torch.testing.assert_close(states[branch], arrays[f"embeddings/{branch}"], atol=1e-5, rtol=0)
        expected = arrays[f"task_out/fg_task/{branch}"]
        torch.testing.assert_close(predictions["motif"][branch], expected, atol=1e-5, rtol=0)
    for place, name in enumerate(("atom", "bond")):
        for task, key in (("atom_context", "av_task"), ("bond_context", "bv_task")):
            expected = arrays[f"task_out/{key}/{place}"]
            torch.testing.assert_close(predictions[task][name], expected, atol=1e-5, rtol=0)
    extractor = GroverFeatureExtractor(canonical=False, standardize="none")
    from_smiles = extractor(json.loads(metadata["smiles"]), return_tensors="pt")
    assert torch.equal(from_smiles["x"], batch["x"])


@torch.no_grad()
def test_self_attentive_readout():
    """softmax(W2 tanh(W1 X^T)) X of each molecule alone."""
    from hf_molrep.models.grover.modeling_grover import GroverReadout

    readout = draw_weights(GroverReadout(tiny_config(readout_hidden=3, readout_heads=4)))
    states, sizes = torch.randn(9, 16), [4, 2, 3]
    batch = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    found = readout(states, batch, 3)
    for place, rows in enumerate(states.split(sizes)):
        chances = F.softmax(readout.head_weight @ torch.tanh(readout.hidden_weight @ rows.T), dim=-1)
        torch.testing.assert_close(found[place], (chances @ rows).flatten(), atol=1e-5, rtol=0)


def test_configuration_is_checked():
    for options, complaint in (
        ({"embedding_dim": 15}, "not a multiple of num_attention_heads"),
        ({"depth": 1}, "at least 2"),
        ({"padded_neighbors": 0}, "at least 1, or None"),
        ({"padded_neighbors": 4, "legacy_padding": True}, "exclude each other"),
        ({"label_mean": [1.0, 2.0, 3.0], "id2label": {0: "a", 1: "b"}}, "label_mean has 3 entries for 2 tasks"),
    ):
        with pytest.raises(StrictDataclassClassValidationError, match=complaint):
            tiny_config(**options)
    assert GroverConfig().hidden_size == 4 * 800
    assert GroverConfig(fingerprint_source="atom").hidden_size == 2 * 800
