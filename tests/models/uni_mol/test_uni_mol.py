"""Uni-Mol: the laws, and what is its own."""

import argparse
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

from hf_molrep import (
    UniMolConfig,
    UniMolDataCollator,
    UniMolFeatureExtractor,
    UniMolForPreTraining,
    UniMolForPropertyPrediction,
    UniMolModel,
)
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.models.uni_mol.conversion_uni_mol import NAMES, convert, convert_model, convert_state, read_state
from hf_molrep.models.uni_mol.feature_extraction_uni_mol import ELEMENTS, MASK, SYMBOLS, TOKENS, UNKNOWN
from tests.models.common import MethodLaws
from tests.models.laws.checks import rotation
from tests.models.laws.hooks import GOLDENS
from tests.models.uni_mol.tiny import atoms_and_coordinates, tiny_config

FIXTURE = Path(__file__).resolve().parents[4] / "shared" / "fixtures" / "uni_mol_random.npz"


def original_shapes(
    layers: int, hidden: int, heads: int, intermediate: int, head: str = "pre-training"
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's `state_dict`."""
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (31, hidden)}

    def linear(name: str, out: int, inside: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, inside), (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    norm("encoder.emb_layer_norm", hidden)
    norm("encoder.final_layer_norm", hidden)
    for layer in range(layers):
        prefix = f"encoder.layers.{layer}"
        linear(f"{prefix}.self_attn.in_proj", 3 * hidden, hidden)
        linear(f"{prefix}.self_attn.out_proj", hidden, hidden)
        linear(f"{prefix}.fc1", intermediate, hidden)
        linear(f"{prefix}.fc2", hidden, intermediate)
        norm(f"{prefix}.self_attn_layer_norm", hidden)
        norm(f"{prefix}.final_layer_norm", hidden)
    shapes |= {"gbf.means.weight": (1, 128), "gbf.stds.weight": (1, 128)}
    shapes |= {"gbf.mul.weight": (961, 1), "gbf.bias.weight": (961, 1)}
    linear("gbf_proj.linear1", 128, 128)
    linear("gbf_proj.linear2", heads, 128)
    if head == "pre-training":
        norm("encoder.final_head_layer_norm", heads)
        linear("lm_head.dense", hidden, hidden)
        norm("lm_head.layer_norm", hidden)
        shapes |= {"lm_head.weight": (31, hidden), "lm_head.bias": (31,)}
        linear("pair2coord_proj.linear1", heads, heads)
        linear("pair2coord_proj.linear2", 1, heads)
        linear("dist_head.dense", heads, heads)
        norm("dist_head.layer_norm", heads)
        linear("dist_head.out_proj", 1, heads)
    else:
        if head == "tanh":
            linear("classification_head.dense", hidden, hidden)
        linear("classification_head.out_proj", 1, hidden)
    return shapes


def original_state(salt: str, scale: float | None = None, **sizes) -> dict[str, torch.Tensor]:
    """Weights by name; matrices of width `scale`, by default one over the root of their last dimension."""
    state = {}
    for key, shape in original_shapes(**sizes).items():
        r = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32((salt + key).encode())))
        if key.endswith("layer_norm.weight"):
            r = 1 + 0.1 * r
        elif key == "gbf.means.weight":
            r = 3 * r.abs()
        elif key == "gbf.stds.weight":
            r = 0.5 + r.abs()
        elif key == "gbf.mul.weight":
            r = 1 + 0.1 * r
        elif key == "gbf.bias.weight":
            r = 0.1 * r
        elif key.endswith("bias"):
            r = 0.05 * r
        else:
            r = r * (scale or shape[-1] ** -0.5)
        state[key] = r
    state["embed_tokens.weight"][0] = 0
    return state


SMALL = {"layers": 3, "hidden": 32, "heads": 8, "intermediate": 48}


@pytest.mark.filterwarnings("ignore:no token for:UserWarning")
class TestUniMol(MethodLaws):
    model_type = "uni_mol"
    does_not_apply = {
        "law_12_sdpa": "the attention logits are the model's pair representation, so there is one attention only",
    }
    refuses = {"wildcard": "an atom that is no element has no place in space"}
    initial_values = {
        r"norm\.weight$": ("constant", 1.0),
        r"pair_embedding\.(means|stds|mul|bias)$": ("normal", 0.02),
        r"bias$": ("constant", 0.0),
        r"token_head\.weight$": ("uniform", 32**-0.5),
        r"weight$": ("normal", 0.02),
    }
    hidden_states = 3
    attentions = 2
    overfit = (150, 5e-3, 0.1)

    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))

    def config(self, dropout: float = 0.0, **options):
        return tiny_config(dropout, **options)

    def processor(self):
        return UniMolFeatureExtractor()

    def collator(self, seed: int = 0):
        return UniMolDataCollator(self.processor(), seed=seed, mask_probability=0.4)

    def build(self, kind, attention=None, **options):
        """Gaussians as wide as trained ones: those of random width can be narrower than float32 is exact."""
        model = super().build(kind, attention, **options)
        pair_embedding = (model if kind == "model" else model.uni_mol).pair_embedding
        with torch.no_grad():
            pair_embedding.means.copy_(torch.linspace(0, 6, 16)[None])
            pair_embedding.stds.abs_().add_(0.5)
            pair_embedding.mul.mul_(0.1).add_(1.0)
            pair_embedding.bias.mul_(0.1)
        return model

    def features(self, molecules: list[str]) -> list[dict]:
        z, pos = zip(*map(atoms_and_coordinates, molecules), strict=True)
        return self.processor().featurize({"z": z, "pos": pos})

    def test_law_01_processor(self, tmp_path, monkeypatch):
        """As everywhere, with computed conformers."""
        expected = self.processor()(self.molecules, return_tensors="pt")
        self.inputs = lambda: expected
        super().test_law_01_processor(tmp_path, monkeypatch)

    def inputs(self, molecules=None):
        return dict(self.processor().pad(self.features(self.molecules if molecules is None else molecules)))

    def rows(self):
        features = self.features(self.molecules)
        return [
            {**feature, "smiles": smiles, "row_id": row_id}
            for row_id, (feature, smiles) in enumerate(zip(features, self.molecules, strict=True))
        ]

    def renumbered(self, rng):
        z, pos = [], []
        for smiles in self.molecules:
            numbers, coordinates = atoms_and_coordinates(smiles)
            order = rng.permutation(len(numbers))
            z.append(numbers[order])
            pos.append(coordinates[order])
        return dict(self.processor()(z=z, pos=pos, return_tensors="pt"))

    def agreement(self):
        """
        `goldens/uni_mol.npz` holds what the public code gives (unimol_tools 4596596, `unimol_tools/pretrain/unimol.py`
        and `loss.py` with their `models/transformers.py`; 3 layers, 32 wide, 8 heads, 128 kernels, a batch of three
        molecules with padding) for weights drawn by name, see `original_state`, with the right token numbers.
        """
        golden = {key: torch.from_numpy(value) for key, value in np.load(GOLDENS / "uni_mol.npz").items()}
        model = convert_model(original_state("uni_mol/", **SMALL))
        ids, targets = golden["input_ids"].long(), golden["target_ids"].long()
        real = (ids != 0).long()
        batch = {"input_ids": ids, "pos": golden["pos"], "attention_mask": real}
        targets = {"target_ids": targets.masked_fill(targets == 0, -100), "target_pos": golden["target_pos"]}
        pairs = real[:, :, None] * real[:, None]
        with torch.no_grad():
            given = model.uni_mol(**batch, output_pair=True)
            free, bound = model(**batch), model(**batch, **targets)
        scaled = (free.distances - model.config.distance_mean) / model.config.distance_std
        token, pair = real.bool(), pairs.bool()
        found = {
            "states": (given.last_hidden_state[token], golden["states"][token], 1e-5),
            "pairs": (given.pair_representation[pair], golden["pair"][pair], 1e-5),
            "token logits": (free.token_logits[token], golden["token_logits"][token], 1e-5),
            "coordinates": (free.coordinates[token], golden["coordinates"][token], 1e-5),
            "distances": (scaled[pair], golden["scaled_distances"][pair], 1e-5),
            "loss": (bound.loss, golden["loss"], 1e-5),
        }
        return found | {f"loss of {name}": (value, golden[name], 1e-5) for name, value in bound.losses.items()}

    # ---- 5: coordinates, both precisions

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
    @torch.no_grad()
    def test_coordinate_head_is_equivariant(self, dtype, tolerance):
        """Predicted coordinates turn, move and are mirrored with the molecule; distances and states do not change."""
        model = self.build("pre-training").to(dtype)
        inputs = self.inputs()
        inputs["pos"] = inputs["pos"].to(dtype)
        expected = model(**inputs)
        real = inputs["attention_mask"].bool()
        assert expected.coordinates.dtype == dtype
        assert (expected.coordinates - inputs["pos"])[real].abs().max() > 0.01, "the head does something"
        rng = np.random.default_rng(0)
        for reflect in (False, True):
            matrix, shift = rotation(rng, reflect).to(dtype), torch.randn(3, dtype=dtype)
            moved = model(**{**inputs, "pos": inputs["pos"] @ matrix.T + shift})
            turned = expected.coordinates @ matrix.T + shift
            torch.testing.assert_close(moved.coordinates[real], turned[real], atol=tolerance, rtol=0)
            torch.testing.assert_close(moved.distances, expected.distances, atol=tolerance, rtol=0)
            states = [output.embeddings["molecule"] for output in (moved, expected)]
            torch.testing.assert_close(*states, atol=tolerance, rtol=0)

    # ---- batches

    @torch.no_grad()
    def test_without_padding(self):
        """A batch in which nothing is padded needs no mask, and padding does not matter for any output."""
        model = self.build("pre-training")
        inputs = self.inputs(["CC(=O)Oc1ccccc1C(=O)O"] * 2)
        assert inputs["attention_mask"].all()
        plain = model(input_ids=inputs["input_ids"], pos=inputs["pos"])
        masked = model(**inputs)
        padded = model(**self.inputs(["CC(=O)Oc1ccccc1C(=O)O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O"]))
        for name in ("token_logits", "coordinates", "distances"):
            assert torch.equal(plain[name], masked[name])
            one = padded[name][0]
            one = one[:15, :15] if name == "distances" else one[:15]
            torch.testing.assert_close(one, plain[name][0], atol=1e-5, rtol=0)

    @torch.no_grad()
    def test_losses_look_at_chosen_atoms_only(self):
        """What the heads give for all tokens, compared by hand, is what the losses say."""
        model = self.build("pre-training")
        batch = self.collator()(self.rows())
        losses = model(**batch).losses
        targets = {name: batch.pop(name) for name in ("target_ids", "target_pos")}
        free = model(**batch)
        chosen = targets["target_ids"] != -100
        token = torch.nn.functional.cross_entropy(free.token_logits[chosen], targets["target_ids"][chosen])
        torch.testing.assert_close(losses["token"], token)
        smooth = torch.nn.functional.smooth_l1_loss
        torch.testing.assert_close(
            losses["coordinate"], smooth(free.coordinates[chosen], targets["target_pos"][chosen])
        )
        true = torch.cdist(targets["target_pos"], targets["target_pos"])
        pairs = chosen[:, :, None] & batch["attention_mask"].bool()[:, None]
        scaled = [(value - model.config.distance_mean) / model.config.distance_std for value in (free.distances, true)]
        torch.testing.assert_close(losses["distance"], smooth(scaled[0][pairs], scaled[1][pairs]), rtol=1e-4, atol=1e-5)

    def test_nothing_chosen(self):
        """Terms without an atom are 0, and there is a gradient all the same."""
        model = self.build("pre-training").train()
        collator = UniMolDataCollator(self.processor(), mask_probability=0.0)
        rows = [{**row, "row_id": 0} for row in self.rows()]
        batch = collator(rows)
        batch["target_ids"].fill_(-100)
        output = model(**batch)
        output.loss.backward()
        assert [output.losses[name].item() for name in ("token", "coordinate", "distance")] == [0.0, 0.0, 0.0]
        assert output.loss.isfinite()

    @torch.no_grad()
    def test_too_long(self):
        with pytest.raises(ValueError, match="9 tokens are more than max_length"):
            self.build("model", max_length=8)(**self.inputs(["CCCCCCC"]))

    @torch.no_grad()
    def test_in_place_is_as_with_gradient(self):
        """Without gradient the pair representation is changed in place; what is returned is the same."""
        model = self.build("model")
        with torch.enable_grad():
            expected = model(**self.inputs(), output_pair=True)
        given = model(**self.inputs(), output_pair=True)
        for name in ("pooler_output", "pair_representation", "initial_pair_representation"):
            torch.testing.assert_close(given[name], expected[name].detach(), atol=1e-5, rtol=0)
        assert (given.pair_representation - given.initial_pair_representation).abs().max() > 0.1

    # ---- several conformers

    @torch.no_grad()
    def test_conformers_are_averaged(self):
        """Predictions and embeddings of several conformers are means over each molecule's own."""
        rng = np.random.default_rng(0)
        z = [np.array([6, 6, 8]), np.array([7, 6])]
        pos = [rng.standard_normal((3, 3, 3)), rng.standard_normal((1, 2, 3))]
        extractor = self.processor()
        several = dict(extractor(z=z, pos=pos, return_tensors="pt"))
        assert several["pos"].shape == (2, 3, 5, 3)
        assert several["conformer_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
        single = [dict(extractor(z=[z[0]], pos=[each], return_tensors="pt")) for each in pos[0]]
        single.append(dict(extractor(z=[z[1]], pos=[pos[1]], return_tensors="pt")))
        tasks = {"problem_type": "multi_label_classification", "id2label": {0: "a", 1: "b"}}
        for kind, options, key in (("model", {}, "pooler_output"), ("property-prediction", tasks, "predictions")):
            model = self.build(kind, **options)
            rows = torch.cat([model(**batch)[key] for batch in single])
            expected = torch.stack([rows[:3].mean(dim=0), rows[3]])
            torch.testing.assert_close(model(**several)[key], expected, atol=1e-5, rtol=0)
        labels = torch.tensor([[1.0, 0.0], [math.nan, 1.0]])
        per_row = model(**several, labels=labels).loss
        assert per_row.isfinite()
        with pytest.raises(ValueError, match="one conformer"):
            self.build("model")(**several, output_pair=True)

    def test_collator_chooses_conformers(self):
        rng = np.random.default_rng(0)
        (feature,) = self.processor().featurize({"z": [np.array([6, 8])], "pos": [rng.standard_normal((4, 2, 3))]})
        conformers = feature["pos"].reshape(4, 2, 3)
        row = {**feature, "row_id": 0}
        drawn = set()
        for epoch in range(20):
            collator = UniMolDataCollator(self.processor(), noise=0.0, epoch=epoch)
            (pos,) = collator([row])["target_pos"].numpy()
            drawn |= {place for place in range(4) if np.array_equal(conformers[place], pos[1:-1])}
        assert drawn == {0, 1, 2, 3}
        labelled = {**feature, "labels": [1.0]}
        assert UniMolDataCollator(self.processor())([labelled])["pos"].shape == (1, 4, 4, 3)
        assert UniMolDataCollator(self.processor(), conformers="first")([labelled])["pos"].shape == (1, 4, 3)
        with pytest.raises(ValueError, match="row_id"):
            UniMolDataCollator(self.processor(), conformers="random")([labelled])
        with pytest.raises(ValueError, match="one conformer at a time"):
            UniMolDataCollator(self.processor(), conformers="all")([row])


# ---- what goes in


def test_tokens_are_the_original_dictionary():
    assert TOKENS[:6] == ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "C", "N"]
    assert (len(TOKENS), TOKENS[30], TOKENS[29]) == (31, "[MASK]", "Li")
    assert len(SYMBOLS) == 119
    assert all(SYMBOLS[number] == symbol for symbol, number in ELEMENTS.items())


def test_extracted_features():
    """Tokens, centred coordinates, special tokens at the centroid."""
    extractor = UniMolFeatureExtractor()
    pos = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0], [6.0, 2.0, 0.0]])
    (feature,) = extractor.featurize({"z": [[6, 8, 1]], "pos": [pos]})
    assert feature["input_ids"].tolist() == [1, 4, 6, 8, 2]
    assert feature["input_ids"].dtype == np.uint8
    assert "smiles_used" not in feature
    batch = extractor.pad([feature, *extractor.featurize({"z": [[6]], "pos": [[0.0, 0.0, 5.0]]})])
    assert batch["input_ids"].tolist() == [[1, 4, 6, 8, 2], [1, 4, 2, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    expected = torch.zeros(2, 5, 3)
    expected[0, 1:4] = torch.from_numpy(pos - pos.mean(axis=0))
    torch.testing.assert_close(batch["pos"], expected)
    (heavy,) = UniMolFeatureExtractor(hydrogens="none").featurize({"z": [[6, 8, 1]], "pos": [pos.ravel()]})
    assert heavy["z"].tolist() == [6, 8]
    assert heavy["pos"].tolist() == [-0.5, 0.0, 0.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("z", "pos", "reason"),
    [
        ([], [], "no atoms"),
        ([6, 8], np.zeros((2, 3)), "all atoms at one point"),
        ([6, 8, 8], np.eye(3)[[0, 1, 1]], "atoms 1 and 2 of the coordinates are 0.00 angstrom apart"),
        ([6, 8], [[0, 0, 0], [np.nan, 0, 0]], "not numbers"),
        ([6, 8], np.ones((3, 3)), "9 coordinates do not fit 2 atoms"),
        ([6, 200], np.eye(3)[:2], "atomic numbers"),
        ([6] * 9, np.arange(27.0), "9 atoms are more than max_atoms \\(8\\)"),
    ],
)
def test_refused_molecules(z, pos, reason):
    """Each raises, or stands in its place."""
    extractor = UniMolFeatureExtractor(max_atoms=8)
    with pytest.raises(MoleculeError, match=reason):
        extractor.featurize({"z": [z], "pos": [pos]})
    good = ([6, 8], np.eye(3)[:2])
    results = extractor.featurize({"z": [good[0], z], "pos": [good[1], pos]}, on_error="skip")
    assert [isinstance(result, MoleculeError) for result in results] == [False, True]


def test_nothing_but_hydrogens():
    pos = np.eye(3)[:2]
    with pytest.raises(MoleculeError, match="'H2': nothing is left of it without hydrogens"):
        UniMolFeatureExtractor(hydrogens="none").featurize({"z": [[1, 1]], "pos": [pos]})
    with pytest.raises(ValueError, match="hydrogens must be"):
        UniMolFeatureExtractor(hydrogens="some")


def test_smiles(tmp_path):
    """Conformers of SMILES: as many as asked for, hydrogens as asked for, and what was done is said."""
    found = {}
    for hydrogens in ("all", "polar", "none"):
        extractor = UniMolFeatureExtractor(hydrogens=hydrogens, num_conformers=2)
        extractor.conformers.cache = tmp_path / "conformers.sqlite"
        found[hydrogens] = extractor.featurize({"smiles": ["CO", "[Na+].CC(=O)[O-]", "*C"]}, on_error="skip")
        assert not {"cache", "processes", "_generator"} & extractor.to_dict().keys()
    tokens = {key: features[0]["input_ids"].tolist()[1:-1] for key, features in found.items()}
    assert tokens == {"all": [4, 6, 8, 8, 8, 8], "polar": [4, 6, 8], "none": [4, 6]}
    alcohol, salt, dummy = found["all"]
    assert alcohol["num_conformers"] == 2
    assert (alcohol["conformer_status"], salt["conformer_flags"]) == ("3d", "fragment")
    assert salt["smiles_used"] == "CC(=O)[O-]"
    assert isinstance(dummy, MoleculeError)
    assert dummy.smiles == "*C"
    batch = extractor.pad([alcohol, salt])
    assert batch["pos"].shape[:2] == (2, 2)
    assert batch["pos"][0, 0].std() > 0.5
    pos = alcohol["pos"].reshape(2, -1, 3)[0]
    polar = UniMolFeatureExtractor(hydrogens="polar")
    assert polar.featurize({"smiles": ["CO"], "z": [alcohol["z"]], "pos": [pos]})[0]["z"].tolist() == [6, 8, 1]
    with pytest.raises(MoleculeError, match="only a SMILES beside coordinates"):
        polar.featurize({"z": [alcohol["z"]], "pos": [pos]})
    with pytest.raises(ValueError, match=r"reads smiles; or .* not nothing"):
        polar.featurize({})


def test_coordinates_are_held_against_the_smiles(tmp_path):
    """Another molecule's are refused; hydrogens that are missing are added, another order is the molecule's again."""
    extractor = UniMolFeatureExtractor()
    extractor.conformers.cache = tmp_path / "conformers.sqlite"
    (ethanol,) = extractor.featurize({"smiles": ["CCO"]})
    z, pos = ethanol["z"], ethanol["pos"].reshape(-1, 3)
    (whole, bare, turned) = extractor.featurize(
        {"smiles": ["CCO", "OCC", "CCO"], "z": [z, z[:3], z[::-1]], "pos": [pos, pos[:3], pos[::-1].ravel()]}
    )
    assert (whole["smiles_used"], whole["conformer_status"], whole["conformer_flags"]) == ("CCO", "3d", "given")
    assert np.array_equal(whole["pos"], ethanol["pos"])
    assert bare["conformer_flags"].split() == ["given", "reordered", "hydrogens_added"]
    assert bare["z"].tolist() == [8, 6, 6, *[1] * 6]
    assert turned["conformer_flags"] == "given reordered"
    assert turned["z"].tolist() == z.tolist()
    broken = pos.copy()
    broken[4] = broken[5]
    wrong = [("c1ccccc1Br", pos, "coordinates of C2H6O, but the molecule is C6H5Br"), ("CCO", broken, "apart")]
    wrong.append(("COC", pos, "not this molecule's"))
    for smiles, coordinates, reason in wrong:
        with pytest.raises(MoleculeError, match=reason) as caught:
            extractor.featurize({"smiles": [smiles], "z": [z], "pos": [coordinates]})
        assert caught.value.smiles == smiles
    (heavy,) = UniMolFeatureExtractor(hydrogens="none").featurize({"smiles": ["CCO"], "z": [z], "pos": [pos]})
    assert heavy["z"].tolist() == [6, 6, 8]


def test_odd_atoms():
    """One atom works; elements without a token are named; a dummy atom is one of them."""
    extractor = UniMolFeatureExtractor()
    with pytest.warns(UserWarning, match=r"no token for \*, Pt, U: \[UNK\] in 2 of 3 molecules"):
        features = extractor.featurize(
            {"z": [[6, 78], [6], [92, 0]], "pos": [np.eye(3)[:2], [[1, 1, 1]], np.eye(3)[:2]]}
        )
    assert [feature["input_ids"].tolist()[1:-1] for feature in features] == [[4, UNKNOWN], [4], [UNKNOWN, UNKNOWN]]


def test_sample_of_atoms(tmp_path):
    """The same molecule gets the same choice, wherever it stands; another seed another one."""
    z, pos = np.tile([6, 7, 8], 4), np.arange(36.0).reshape(12, 3) ** 1.5
    extractor = UniMolFeatureExtractor(max_atoms=8, too_many_atoms="sample")
    first, second = extractor.featurize({"z": [z, z], "pos": [pos, pos]})
    assert len(first["z"]) == 8
    assert np.array_equal(first["pos"], second["pos"])
    other = UniMolFeatureExtractor(max_atoms=8, too_many_atoms="sample", seed=1).featurize({"z": [z], "pos": [pos]})[0]
    assert not np.array_equal(first["pos"], other["pos"])
    extractor.conformers.cache = tmp_path / "conformers.sqlite"
    decane, methane = extractor.featurize({"smiles": ["CCCCCCCCCC", "C"]})
    assert (decane["conformer_flags"], methane["conformer_flags"]) == ("atoms_left_out", "")


def test_extractor_is_saved(tmp_path):
    from transformers import AutoProcessor

    options = {"hydrogens": "none", "max_atoms": 100, "too_many_atoms": "sample", "seed": 3}
    UniMolConfig().save_pretrained(tmp_path)
    UniMolFeatureExtractor(**options).save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is UniMolFeatureExtractor
    assert {name: getattr(loaded, name) for name in options} == options


def test_collator_masks_as_the_original():
    """Shares of chosen, masked, random and unchanged atoms; who moves, and how far."""
    rng = np.random.default_rng(0)
    extractor = UniMolFeatureExtractor()
    z, pos = np.full(200, 6), rng.uniform(0, 30, (200, 3))
    (feature,) = extractor.featurize({"z": [z], "pos": [pos]})
    collator = UniMolDataCollator(extractor)
    rows = [{**feature, "row_id": row_id} for row_id in range(200)]
    batch = collator(rows)
    chosen = batch["target_ids"] != -100
    assert chosen.sum(dim=1).float().mean().item() == pytest.approx(30.0)  # 0.15 of 200: nothing is left to chance
    assert not chosen[:, [0, -1]].any()
    assert (batch["target_ids"][chosen] == 4).all()
    ids, moved = batch["input_ids"], (batch["pos"] - batch["target_pos"]).abs().amax(dim=-1)
    assert (ids[~chosen] == torch.from_numpy(feature["input_ids"])[None].expand(200, -1)[~chosen]).all()
    masked, same, count = ids[chosen] == MASK, ids[chosen] == 4, chosen.sum().item()
    # an atom that drew its own element at random looks unchanged, but has moved
    left = same & (moved[chosen] == 0)
    for share, expected in ((masked, 0.9), (left, 0.05), (~masked & ~left, 0.05)):
        assert share.sum().item() / count == pytest.approx(expected, abs=5 * (expected * (1 - expected) / count) ** 0.5)
    assert (moved[~chosen] == 0).all()
    shift = (batch["pos"] - batch["target_pos"])[chosen][~left]
    assert shift.abs().max() <= 1.0 + 1e-5
    assert shift.std().item() == pytest.approx(3**-0.5, rel=0.02)
    few = UniMolDataCollator(extractor)(
        [{**rows[0], "input_ids": [1, 4, 2], "pos": [0.0] * 3, "row_id": row} for row in range(400)]
    )
    assert (few["target_ids"] != -100).sum().item() == pytest.approx(60, abs=36)  # one atom: probability 0.15


@pytest.mark.parametrize(("noise_type", "bound"), [("normal", None), ("truncated_normal", 1.0), ("none", 0.0)])
def test_noise(noise_type, bound):
    extractor = UniMolFeatureExtractor()
    (feature,) = extractor.featurize({"z": [np.full(125, 6)], "pos": [2.0 * np.indices((5, 5, 5)).reshape(3, -1).T]})
    options = {"noise": 0.5, "noise_type": noise_type, "mask_probability": 1.0, "leave_probability": 0.0}
    batch = UniMolDataCollator(extractor, **options)([{**feature, "row_id": row} for row in range(20)])
    shift = (batch["pos"] - batch["target_pos"])[:, 1:-1]
    if bound is None:
        assert shift.std().item() == pytest.approx(0.5, rel=0.05)
        assert shift.abs().max() > 1.0
    else:
        assert shift.abs().max() <= bound + 1e-5


# ---- the original's files


def test_paper_size():
    """47.6 million parameters with all heads of pre-training."""
    with torch.device("meta"):
        model = UniMolForPreTraining(UniMolConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 47_618_915


def test_kernel_as_the_original_means_it():
    embedding = UniMolModel(tiny_config(kernel_init="uniform")).pair_embedding
    assert (embedding.mul == 1).all()
    assert (embedding.bias == 0).all()
    for weight in (embedding.means, embedding.stds):
        assert weight.min() >= 0
        assert 1 < weight.max() <= 3


@pytest.mark.parametrize("head", ["pre-training", "tanh", "linear"])
def test_conversion(head, tmp_path):
    """Files of the original, with the options of a command line inside, to a checkpoint that loads."""
    from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor

    from hf_molrep import AutoModelForMoleculePropertyPrediction

    state = original_state("a/", **SMALL, head=head)
    file = tmp_path / "mol_pre_no_h_220816.pt"
    torch.save({"args": argparse.Namespace(lr=1e-4), "model": state}, file)
    options = {} if head == "pre-training" else {"problem_type": "regression", "label_mean": [1], "label_std": [2]}
    out = tmp_path / "out"
    assert convert(file, out, **options)[0] == "Hydrogens: none."
    extractor = AutoProcessor.from_pretrained(out)
    assert (extractor.hydrogens, extractor.standardize) == ("none", "none")
    inputs = dict(UniMolFeatureExtractor()(z=[[6, 8]], pos=[np.eye(3)[:2]], return_tensors="pt"))
    reference = convert_model(state, **({} if head == "pre-training" else {"problem_type": "regression"})).uni_mol
    with torch.no_grad():
        expected = reference(**inputs).pooler_output
        assert torch.equal(AutoModel.from_pretrained(out)(**inputs).pooler_output, expected)
    if head == "pre-training":
        model, info = AutoModelForPreTraining.from_pretrained(out, output_loading_info=True)
    else:
        model, info = AutoModelForMoleculePropertyPrediction.from_pretrained(out, output_loading_info=True)
        hidden = expected
        if head == "tanh":
            hidden = torch.tanh(
                expected @ state["classification_head.dense.weight"].T + state["classification_head.dense.bias"]
            )
        logits = hidden @ state["classification_head.out_proj.weight"].T + state["classification_head.out_proj.bias"]
        with torch.no_grad():
            torch.testing.assert_close(model(**inputs).predictions, 2 * logits + 1, atol=1e-5, rtol=0)
    assert not any(info.values())


def state_with_outputs(head: str, outputs: int = 2) -> dict[str, torch.Tensor]:
    """A file of the original whose property head has several outputs."""
    state = original_state("a/", **SMALL, head=head)
    generator = torch.Generator().manual_seed(0)
    state["classification_head.out_proj.weight"] = torch.randn(outputs, SMALL["hidden"], generator=generator) / 6
    state["classification_head.out_proj.bias"] = torch.randn(outputs, generator=generator)
    return state


@pytest.mark.parametrize("head", ["tanh", "linear"])
@torch.no_grad()
def test_two_classes_become_one_logit(head, tmp_path, capsys):
    """A softmax over two classes, as unimol_tools has it for a binary task, is the sigmoid of one logit here."""
    from hf_molrep import AutoModelForMoleculePropertyPrediction
    from hf_molrep.cli import main

    state = state_with_outputs(head)
    torch.save({"model_state_dict": state}, tmp_path / "model_0.pth")
    command = ["convert", "uni_mol", str(tmp_path / "model_0.pth"), str(tmp_path / "out"), "--hydrogens", "all"]
    assert main([*command, "--problem-type", "classification", "--task-names", "p_np"]) == 0
    model = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path / "out")
    assert (model.config.problem_type, model.config.id2label) == ("multi_label_classification", {0: "p_np"})
    pos = np.random.default_rng(0).normal(size=(2, 3, 3))
    inputs = dict(UniMolFeatureExtractor()(z=[[6, 8, 7], [6, 6, 9]], pos=list(pos), return_tensors="pt"))
    hidden = model.uni_mol(**inputs).pooler_output
    if head == "tanh":
        dense = (state[f"classification_head.dense.{part}"] for part in ("weight", "bias"))
        hidden = torch.tanh(torch.nn.functional.linear(hidden, *dense))
    out_proj = [state[f"classification_head.out_proj.{part}"] for part in ("weight", "bias")]
    logits = torch.nn.functional.linear(hidden, *out_proj)
    expected = logits.softmax(-1)[:, 1:]
    assert (expected[0] - expected[1]).abs() > 1e-3
    torch.testing.assert_close(model(**inputs).predictions, expected, atol=1e-6, rtol=0)

    # two binary tasks look the same: their names say that they are meant
    capsys.readouterr()
    command += ["--problem-type", "multi_label_classification"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "say problem_type 'classification'" in error
    assert "say the two task_names" in error
    assert main([*command, "--task-names", "one"]) == 2
    assert "1 task_names (one) for 2 outputs" in capsys.readouterr().err
    assert main([*command, "--task-names", '["one", "two"]']) == 0
    model = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "one", 1: "two"}
    torch.testing.assert_close(model(**inputs).predictions, logits.sigmoid(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("outputs", "complaint"), [(1, "the property head has one"), (3, "the property head has 3")])
def test_other_numbers_of_classes_are_refused(outputs, complaint):
    with pytest.raises(ValueError, match=complaint):
        convert_model(state_with_outputs("linear", outputs), problem_type="classification")


def test_what_cannot_be_converted(tmp_path):
    state = original_state("a/", **SMALL)
    file = tmp_path / "weights.pt"
    torch.save({"model_state_dict": state}, file)
    assert read_state(file).keys() == state.keys()
    with pytest.raises(ValueError, match="say hydrogens"):
        convert(file, tmp_path / "out")
    torch.save({"model": state, "code": Path}, file)
    with pytest.raises(ValueError, match=r"other things than weights .*pathlib"):
        read_state(file)
    with pytest.raises(ValueError, match=r"'gbf.another' is not a name"):
        convert_model(
            {key: value for key, value in state.items() if not key.startswith("gbf_proj.linear2")}
            | {"gbf.another": torch.zeros(1)}
        )
    with pytest.raises(ValueError, match=r"do not fit UniMolForPreTraining: they lack 'uni_mol.layers.1.up_proj.bias'"):
        convert_model({key: value for key, value in state.items() if key != "encoder.layers.1.fc1.bias"})
    with pytest.raises(ValueError, match="crystal or OLED"):
        convert_state({"gbf.w_edge.weight": torch.zeros(1)})
    torch.save({"model": original_state("a/", **SMALL, head="linear")}, file)
    with pytest.raises(ValueError, match="say its problem_type"):
        convert(file, tmp_path / "out", hydrogens="all")
    with pytest.raises(ValueError, match="no field 'head_typ'; did you mean 'head_type'"):
        convert_model(state, head_typ="linear")
    torch.save({"model": state}, file)
    with pytest.raises(ValueError, match="no property head that problem_type, task_names could be of"):
        convert(file, tmp_path / "out", hydrogens="all", problem_type="classification", task_names="p_np")
    with pytest.raises(ValueError, match="and this has none"):
        convert_model(state, problem_type="classification")
    assert len(NAMES) == len(set(NAMES.values()))


@pytest.mark.skipif(not FIXTURE.exists(), reason="the fixture of the full-size model is not here")
def test_parity_at_full_size():
    """unimol_tools 0.1.4.post1 at full size, weights by name: from atoms and coordinates to states and logits."""
    golden = np.load(FIXTURE)
    sizes = {"layers": 15, "hidden": 512, "heads": 64, "intermediate": 2048, "head": "linear"}
    model = convert_model(original_state(str(golden["salt"]), 0.04, **sizes), problem_type="regression")
    z = [[ELEMENTS[symbol] for symbol in golden[f"mol{i}_atoms"]] for i in range(4)]
    batch = dict(UniMolFeatureExtractor()(z=z, pos=[golden[f"mol{i}_pos"] for i in range(4)], return_tensors="pt"))
    assert np.array_equal(batch["input_ids"], golden["batch_src_tokens"])
    assert isinstance(model, UniMolForPropertyPrediction)
    with torch.no_grad():
        output, logits = model.uni_mol(**batch), model(**batch).logits
    np.testing.assert_allclose(output.pooler_output, golden["cls_repr"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-5, rtol=0)
    for row, numbers in enumerate(z):
        given = output.last_hidden_state[row, 1 : len(numbers) + 1]
        np.testing.assert_allclose(given, golden[f"mol{row}_atom_repr"], atol=1e-5, rtol=0)


def save_seeing_distances(folder, **options) -> UniMolFeatureExtractor:
    """A tiny checkpoint whose random weights see distances."""
    torch.manual_seed(0)
    extractor = UniMolFeatureExtractor(**options)
    config = tiny_config(kernel_init="uniform", initializer_range=0.3, **extractor.config_fields())
    UniMolForPreTraining(config).save_pretrained(folder)
    extractor.save_pretrained(folder)
    return extractor


def test_an_extractor_with_other_hydrogens_is_refused(tmp_path):
    """Not where fine-tuning is asked to change them: the model is then one of the new ones."""
    from transformers import AutoModel

    from hf_molrep.inference.checkpoints import load_checkpoint
    from hf_molrep.training.finetuning import finetune
    from hf_molrep.training.labelled_molecules import LabelledMolecules
    from hf_molrep.training.settings import FinetuningSettings

    folder, hydrogens = str(tmp_path), {"hydrogens": "none"}
    save_seeing_distances(folder)
    z, pos = zip(*map(atoms_and_coordinates, ["CCO", "CC", "CN"]), strict=True)
    features = UniMolFeatureExtractor(**hydrogens).featurize({"z": z, "pos": pos})
    data = (["CCO", "CC", "CN"], np.arange(3.0)[:, None], ["x"], "regression", {"train": [0, 1, 2]})
    settings = FinetuningSettings(processor_options=hydrogens, epochs=1)
    tuned = finetune(folder, LabelledMolecules(*data, features=features), settings)
    assert tuned.model.config.hydrogens == tuned.processor.hydrogens == "none"
    UniMolFeatureExtractor(**hydrogens).save_pretrained(folder)
    message = "does not fit the model, it has hydrogens 'none', not 'all'"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(AutoModel, folder)
    with pytest.raises(ValueError, match=message):
        pipeline("molecule-embedding", model=folder)
    for options in ({}, {"max_atoms": 99}):
        with pytest.raises(ValueError, match=message):
            finetune(folder, LabelledMolecules(*data), FinetuningSettings(processor_options=options))


def test_an_sdf_gives_its_coordinates(tmp_path, capsys):
    """`embed` of an SDF: each record by its own conformer, a drawing by a computed one, the broken one reported."""
    import pyarrow.parquet as pq
    from rdkit import Chem
    from rdkit.Chem import rdDepictor, rdDistGeom

    from hf_molrep.cli import main

    mol = Chem.AddHs(Chem.MolFromSmiles("OCCCO"))
    rdDistGeom.EmbedMultipleConfs(mol, 2, randomSeed=7)
    drawing = Chem.MolFromSmiles("OCCCO")
    rdDepictor.Compute2DCoords(drawing)
    blocks = [Chem.MolToMolBlock(mol, confId=0), Chem.MolToMolBlock(mol, confId=1), Chem.MolToMolBlock(drawing)]
    (tmp_path / "in.sdf").write_text("".join(block + "$$$$\n" for block in [*blocks, "broken\n\n\nnothing\n"]))
    extractor = save_seeing_distances(tmp_path / "tiny")
    arguments = [str(tmp_path / "in.sdf"), str(tmp_path / "out.parquet"), "--model", str(tmp_path / "tiny"), "--quiet"]
    assert main(["embed", *arguments]) == 0
    table = pq.read_table(tmp_path / "out.parquet")
    embedded, errors = np.array(table["embedding"].to_pylist()[:3]), table["error"].to_pylist()
    assert errors[:3] == [None] * 3
    assert "mol block" in errors[3]
    assert table["smiles_used"].to_pylist()[:3] == ["OCCCO"] * 3
    model = UniMolModel.from_pretrained(tmp_path / "tiny").eval()
    z, pos = [[atom.GetAtomicNum() for atom in mol.GetAtoms()]] * 2, [c.GetPositions() for c in mol.GetConformers()]
    with torch.no_grad():
        given = model(**extractor(z=z, pos=pos, return_tensors="pt")).pooler_output
        computed = model(**extractor(["OCCCO"], return_tensors="pt")).pooler_output
    # blocks have four decimals
    np.testing.assert_allclose(embedded, torch.cat([given, computed]).numpy(), atol=1e-3)
    assert np.abs(embedded[0] - embedded[1]).max() > 2e-2


def test_columns_give_their_coordinates(tmp_path):
    """`embed`, `finetune` and `predict` of a Parquet file with atoms in space; a row without any is reported."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_molrep.cli import main
    from hf_molrep.training.finetuning import finetune
    from hf_molrep.training.labelled_molecules import LabelledMolecules

    extractor = save_seeing_distances(tmp_path / "tiny", hydrogens="none")
    # a chain of n atoms, straight, at two spacings: the same SMILES, told apart by its coordinates alone
    z = [[6] * n for n in range(2, 6) for _ in range(2)] + [None]
    pos = [
        [(1.2 + row % 2) * k if axis == 0 else 0.0 for k in range(len(atoms)) for axis in range(3)]
        for row, atoms in enumerate(z[:-1])
    ] + [None]
    columns = {"smiles": ["C" * (row // 2 + 2) for row in range(9)], "atomic_numbers": z, "coordinates": pos}
    columns["smiles"][7] = None  # its coordinates are enough
    columns |= {"stretched": [row % 2 for row in range(9)], "part": ["train"] * 6 + ["valid", "valid", "test"]}
    data, model = tmp_path / "in.parquet", str(tmp_path / "tiny")
    pq.write_table(pa.table(columns), data)

    assert main(["embed", str(data), str(tmp_path / "out.parquet"), "--model", model, "--quiet"]) == 0
    table = pq.read_table(tmp_path / "out.parquet")
    errors = table["error"].to_pylist()
    assert errors[:8] == [None] * 8
    assert table.column_names[-5:] == ["smiles_used", "conformer_status", "conformer_flags", "error", "embedding"]
    assert table["conformer_flags"].to_pylist() == ["given"] * 7 + [None] * 2
    assert "no atoms" in errors[8]
    embedded = np.array(table["embedding"].to_pylist()[:8])
    with torch.no_grad():
        batch = extractor(z=z[:8], pos=pos[:8], return_tensors="pt")
        expected = UniMolModel.from_pretrained(model).eval()(**batch).pooler_output
    np.testing.assert_allclose(embedded, expected.numpy(), atol=1e-5)
    assert np.abs(embedded[0] - embedded[1]).max() > 1e-3

    tuned = str(tmp_path / "tuned")
    options = ["--labels", "stretched", "--split", "column:part", "--epochs", "1", "--batch-size", "2", "--quiet"]
    assert main(["finetune", str(data), "--output", tuned, "--model", model, *options]) == 0
    assert "no atoms" in (tmp_path / "tuned" / "report" / "skipped.csv").read_text()
    rows = json.loads((tmp_path / "tuned" / "report" / "metrics.json").read_text())["rows"]
    assert (rows["conformer_status"], rows["conformer_flags"]) == ({"3d": 7}, {"given": 7})
    assert main(["predict", str(data), str(tmp_path / "said.parquet"), "--model", tuned, "--quiet"]) == 0
    predicted = pq.read_table(tmp_path / "said.parquet")
    assert predicted.column_names[-4:] == ["conformer_status", "conformer_flags", "error", "predicted_stretched"]
    assert predicted["conformer_status"].to_pylist() == ["3d"] * 7 + [None] * 2
    said = predicted["predicted_stretched"].to_pylist()
    assert said[0] != said[1]
    assert said[8] is None

    # as text they are columns like any others: conformers are computed
    (tmp_path / "in.csv").write_text('smiles,atomic_numbers,coordinates\nCO,"[6, 8]","[0, 0, 0, 9, 9, 9]"\n')
    assert main(["embed", str(tmp_path / "in.csv"), str(tmp_path / "text.parquet"), "--model", model, "--quiet"]) == 0
    assert pq.read_table(tmp_path / "text.parquet")["error"].to_pylist() == [None]

    labels = np.array([[0.0], [1.0]])
    with pytest.raises(ValueError, match="different lengths"):
        finetune(
            model,
            LabelledMolecules(["CC", "CC"], labels, ["x"], "regression", {"train": [0, 1]}, z=z[:1], pos=pos[:1]),
        )
