"""MM-Deacon: the laws, and what is its own."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import AutoModel, BertConfig, BertModel, RobertaConfig, RobertaModel

from hf_molrep import (
    AutoModelForMoleculeInteractionPrediction,
    MMDeaconConfig,
    MMDeaconDataCollator,
    MMDeaconForInteractionPrediction,
    MMDeaconForPreTraining,
    MMDeaconModel,
)
from hf_molrep.models.mm_deacon.modeling_mm_deacon import MMDeaconEncoder, rotary_table, rotate
from tests.models.common import MethodLaws, draw_weights
from tests.models.laws.checks import quiet_loading
from tests.models.mm_deacon.tiny import MAX_LENGTH, NAMES, SMILES, tiny_config, tiny_processor


def bert_weights(encoder: MMDeaconEncoder, first_position: int) -> dict[str, torch.Tensor]:
    """The weights of a post-norm tower under the names of transformers' BERT and RoBERTa; no token types."""
    ours, config = encoder.state_dict(), encoder.config
    positions = torch.zeros(config.max_position_embeddings + first_position, config.hidden_size)
    positions[first_position:] = ours["embeddings.position_embeddings.weight"]
    theirs = {
        "embeddings.word_embeddings.weight": ours["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": positions,
        "embeddings.token_type_embeddings.weight": torch.zeros(1, config.hidden_size),
        "embeddings.LayerNorm.weight": ours["embeddings.norm.weight"],
        "embeddings.LayerNorm.bias": ours["embeddings.norm.bias"],
    }
    parts = {
        "attention.out_proj": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up_proj": "intermediate.dense",
        "down_proj": "output.dense",
        "mlp_norm": "output.LayerNorm",
    }
    for layer in range(config.num_hidden_layers):
        for end in ("weight", "bias"):
            qkv = ours[f"layers.{layer}.attention.qkv_proj.{end}"].chunk(3)
            for name, value in zip(("query", "key", "value"), qkv, strict=True):
                theirs[f"encoder.layer.{layer}.attention.self.{name}.{end}"] = value
            for name, other in parts.items():
                theirs[f"encoder.layer.{layer}.{other}.{end}"] = ours[f"layers.{layer}.{name}.{end}"]
    return theirs


class TestMMDeacon(MethodLaws):
    model_type = "mm_deacon"
    does_not_apply = {"law_05_motion": "SMILES and names have no coordinates"}
    initial_values = {
        r"norm\.weight$": ("constant", 1.0),
        r"bias$": ("constant", 0.0),
        r"logit_scale$": ("constant", torch.tensor(math.log(1 / 0.07)).item()),
        r"weight$": ("normal", 0.02),
    }
    hidden_states = 3
    attentions = 2

    def config(self, dropout: float = 0.0, **options):
        tower = {"hidden_dropout": dropout, "attention_dropout": dropout}
        return tiny_config(smiles=tower, iupac=tower, **options)

    def processor(self):
        return tiny_processor()

    def collator(self, seed: int = 0):
        return MMDeaconDataCollator(tiny_processor(), smiles_augmentation=0.5, seed=seed)

    def rows(self):
        features = tiny_processor().featurize({"smiles": SMILES, "iupac_name": NAMES})
        return [{**feature, "smiles": SMILES[place], "row_id": place} for place, feature in enumerate(features)]

    def agreement(self):
        """
        Neither code nor weights of MM-Deacon were released, so there is no original to agree with. Its towers are held
        to transformers' BERT (SMILES) and RoBERTa (names) with the same weights instead.
        """
        model = self.build("model")
        batch = tiny_processor()(SMILES, NAMES, return_tensors="pt")
        found = {}
        for view, encoder, prefix, config_class, model_class, first_position in (
            ("smiles", model.smiles_model, "", BertConfig, BertModel, 0),
            ("iupac", model.iupac_model, "iupac_", RobertaConfig, RobertaModel, 2),
        ):
            ours = encoder.config
            config = config_class(
                vocab_size=ours.vocab_size,
                hidden_size=ours.hidden_size,
                num_hidden_layers=ours.num_hidden_layers,
                num_attention_heads=ours.num_attention_heads,
                intermediate_size=ours.intermediate_size,
                max_position_embeddings=ours.max_position_embeddings + first_position,
                type_vocab_size=1,
                layer_norm_eps=ours.layer_norm_eps,
                pad_token_id=ours.pad_token_id,
            )
            oracle = model_class(config, add_pooling_layer=False).eval()
            oracle.load_state_dict(bert_weights(encoder, first_position))
            ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
            with torch.no_grad():
                states = oracle(input_ids=ids, attention_mask=mask).last_hidden_state
                given = encoder(ids, mask)
            means = torch.stack([states[row, : mask[row].sum()].mean(dim=0) for row in range(len(ids))])
            real = mask.bool()
            found[f"{view} tokens"] = (given.last_hidden_state[real], states[real], 1e-5)
            found[f"{view} mean"] = (given.pooler_output, means, 1e-5)
        return found


class TestMMDeaconRotaryPreNorm(TestMMDeacon):
    """The other form of the towers: rotary positions, norm first. What does not depend on the form is not run again."""

    does_not_apply = {
        **TestMMDeacon.does_not_apply,
        "law_01_processor": "the processor does not know the form",
        "law_07_workers_and_resuming": "the collator does not know the form",
        "law_10_bad_smiles": "the processor does not know the form",
        "law_13_resuming": "resuming does not depend on the form",
        "law_14_two_processes": "gathering does not depend on the form",
    }

    def config(self, dropout: float = 0.0, **options):
        tower = {
            "hidden_dropout": dropout,
            "attention_dropout": dropout,
            "position_embedding": "rotary",
            "norm_first": True,
        }
        return tiny_config(smiles=tower, iupac=tower, **options)

    def agreement(self):
        """RoFormer (Su et al. 2021, eq. 34) as complex numbers: channel pairs turn by position times frequency."""
        queries = torch.randn(1, 2, 7, 8)
        turned = rotate(queries, *rotary_table(7, 8, 10000.0, queries))
        pairs = torch.complex(queries[..., :4].double(), queries[..., 4:].double())
        angle = torch.arange(7.0).double()[:, None] * 10000.0 ** (-torch.arange(4).double() / 4)
        pairs = pairs * torch.polar(torch.ones_like(angle), angle)
        return {"rotary": (turned, torch.cat([pairs.real, pairs.imag], dim=-1).float(), 1e-5)}


@pytest.fixture(scope="module")
def batch() -> dict:
    return dict(tiny_processor()(SMILES, NAMES, return_tensors="pt"))


@pytest.fixture
def model() -> MMDeaconModel:
    return draw_weights(MMDeaconModel(tiny_config())).eval()


def view(batch: dict, prefix: str) -> dict:
    """The part of a batch that belongs to one view."""
    return {f"{prefix}{key}": batch[f"{prefix}{key}"] for key in ("input_ids", "attention_mask")}


@torch.no_grad()
def test_embedding_of_one_view_and_of_both(model, batch):
    smiles = model.get_smiles_features(**view(batch, ""))
    names = model.get_iupac_features(**view(batch, "iupac_"))
    assert smiles.shape == names.shape == (8, 16)
    assert (smiles.norm(dim=-1) - 1).abs().min() > 1e-3, "features are not normalised"
    assert torch.equal(model(**view(batch, "")).pooler_output, smiles)
    assert torch.equal(model(**view(batch, "iupac_")).pooler_output, names)
    both = model(**batch)
    assert list(both.embeddings) == ["smiles", "iupac"]
    expected = [row.numpy() / np.linalg.norm(row.numpy(), axis=1, keepdims=True) for row in (smiles, names)]
    np.testing.assert_allclose(both.pooler_output.numpy(), (expected[0] + expected[1]) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="MM-Deacon needs input_ids"):
        model()


@pytest.mark.parametrize(("logit_scale", "temperature"), [(math.log(20.0), 0.05), (math.log(5000.0), 0.01)])
def test_loss_is_the_papers(batch, logit_scale, temperature):
    """Symmetric InfoNCE in three lines of NumPy; the learned temperature stops at 0.01."""
    model = draw_weights(MMDeaconForPreTraining(tiny_config(logit_scale_max=math.log(100.0)))).eval()
    with torch.no_grad():
        model.logit_scale.fill_(logit_scale)
        output = model(**batch)
    smiles, names = (output.embeddings[key].double().numpy() for key in ("smiles", "iupac"))
    smiles, names = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (smiles, names))
    exponent = np.exp(smiles @ names.T / temperature)
    forward, backward = (-np.log(np.diag(exponent) / exponent.sum(axis=axis)).mean() for axis in (1, 0))
    assert output.losses["smiles_to_iupac"].item() == pytest.approx(forward, rel=1e-4)
    assert output.losses["iupac_to_smiles"].item() == pytest.approx(backward, rel=1e-4)
    assert output.loss.item() == pytest.approx((forward + backward) / 2, rel=1e-4)
    model.config.loss_reduction = "sum"
    assert model(**batch).loss.item() == pytest.approx(forward + backward, rel=1e-4)
    assert model(**batch, return_loss=False).loss is None


def test_too_many_tokens_for_the_model(model):
    ids = torch.zeros(1, MAX_LENGTH + 1, dtype=torch.long)
    with pytest.raises(ValueError, match=f"{MAX_LENGTH + 1} tokens are more than max_position_embeddings"):
        model(input_ids=ids)


def interaction(**options) -> MMDeaconForInteractionPrediction:
    return draw_weights(MMDeaconForInteractionPrediction(tiny_config(**options))).eval()


@pytest.fixture(scope="module")
def pairs(batch) -> dict:
    """Each molecule with its neighbour in the list."""
    first = view(batch, "")
    return first | {f"second_{key}": value.roll(1, dims=0) for key, value in first.items()}


BINARY = {"problem_type": "multi_label_classification", "id2label": {0: "interacts"}}
CLASSES = {"problem_type": "single_label_classification", "id2label": {0: "none", 1: "up", 2: "down"}}


@torch.no_grad()
def test_binary_interaction(pairs):
    model = interaction(**BINARY)
    labels = torch.tensor([0.0, 1, 1, 0, 1, 0, math.nan, 1])[:, None]
    output = model(**pairs, labels=labels)
    assert output.logits.shape == output.predictions.shape == (8, 1)
    chances = 1 / (1 + np.exp(-output.logits.double().numpy()[:, 0]))
    np.testing.assert_allclose(output.predictions.numpy()[:, 0], chances, atol=1e-6)
    right = np.where(labels.numpy()[:, 0] == 1, chances, 1 - chances)[~np.isnan(labels.numpy()[:, 0])]
    assert output.loss.item() == pytest.approx(-np.log(right).mean(), rel=1e-5)
    assert output.losses["interaction"].item() == output.loss.item()


@torch.no_grad()
def test_multi_class_interaction(pairs):
    model = interaction(**CLASSES)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    output = model(**pairs, labels=labels)
    chances = np.exp(output.logits.double().numpy())
    chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(output.predictions.numpy(), chances, atol=1e-6)
    assert output.loss.item() == pytest.approx(-np.log(chances[np.arange(8), labels.numpy()]).mean(), rel=1e-5)
    assert model(**pairs).loss is None


@torch.no_grad()
@pytest.mark.parametrize("symmetric", [True, False])
def test_order_of_the_two_molecules(pairs, symmetric):
    """With `interaction_symmetric` the order does not matter, without it the head may use it."""
    model = interaction(**BINARY, interaction_symmetric=symmetric)
    keys = ("input_ids", "attention_mask")
    swapped = {key: pairs[f"second_{key}"] for key in keys} | {f"second_{key}": pairs[key] for key in keys}
    difference = (model(**pairs).logits - model(**swapped).logits).abs().max()
    assert difference < 1e-6 if symmetric else difference > 1e-3


def test_interaction_needs_a_classification(pairs):
    with pytest.raises(ValueError, match="not 'regression'"):
        interaction(problem_type="regression")(**pairs)


@torch.no_grad()
def test_interaction_of_embeddings(model, pairs):
    """Embeddings made once per molecule serve as well as the SMILES of every pair."""
    head = interaction(**BINARY)
    head.mm_deacon.load_state_dict(model.state_dict(), strict=False)
    embeddings = model(**view(pairs, "")).pooler_output
    expected = head(**pairs).logits
    given = head(embeddings=embeddings, second_embeddings=embeddings.roll(1, dims=0)).logits
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=0)
    for wrong in ({"embeddings": embeddings}, {**pairs, "second_embeddings": embeddings}):
        with pytest.raises(ValueError, match="either as input_ids or as embeddings"):
            head(**wrong)


def test_frozen_encoder(pairs, tmp_path):
    """`freeze_encoder` holds for a fresh and for a loaded model; the fingerprint is the same in training."""
    fresh = interaction(**BINARY, freeze_encoder=True, smiles={"hidden_dropout": 0.5, "attention_dropout": 0.5})
    fresh.save_pretrained(tmp_path)
    loaded = AutoModelForMoleculeInteractionPrediction.from_pretrained(tmp_path)
    assert type(loaded) is MMDeaconForInteractionPrediction
    with torch.no_grad():
        assert torch.equal(loaded(**pairs).logits, fresh(**pairs).logits)
    for model in (fresh, loaded):
        before = {name: value.clone() for name, value in model.mm_deacon.state_dict().items()}
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        model.train()
        output = model(**pairs, labels=torch.ones(8, 1))
        assert torch.equal(output.logits, model(**pairs).logits), "dropout inside the frozen encoder"
        output.loss.backward()
        optimizer.step()
        assert all(torch.equal(value, before[name]) for name, value in model.mm_deacon.state_dict().items())
        assert model.dense.weight.grad.any()


def test_interaction_head_on_a_pre_trained_checkpoint(pairs, tmp_path):
    pre_trained = draw_weights(MMDeaconForPreTraining(tiny_config()))
    pre_trained.save_pretrained(tmp_path)
    with quiet_loading():
        model = AutoModelForMoleculeInteractionPrediction.from_pretrained(tmp_path, **BINARY)
    weights = pre_trained.mm_deacon.state_dict()
    for name, value in model.mm_deacon.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert model(**pairs).logits.shape == (8, 1)


def test_defaults_are_the_documented_ones():
    """Six layers per tower are the paper's; RoBERTa-base widths and CLIP's temperature are ours."""
    config = MMDeaconConfig()
    for tower in (config.smiles_config, config.iupac_config):
        assert (tower.num_hidden_layers, tower.hidden_size, tower.num_attention_heads) == (6, 768, 12)
        assert (tower.position_embedding, tower.norm_first) == ("absolute", False)
    assert config.projection_dim == config.hidden_size == 512
    assert math.exp(-config.logit_scale_init) == pytest.approx(0.07)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"smiles": {"hidden_size": 30}}, "not a multiple of num_attention_heads"),
        ({"iupac": {"hidden_size": 12, "position_embedding": "rotary"}}, "even head width"),
        ({"smiles": {"position_embedding": "sinusoidal"}}, "position_embedding"),
        ({"label_mean": [1.0, 2.0, 3.0], "id2label": {0: "a", 1: "b"}}, "label_mean has 3 entries for 2 tasks"),
        ({"loss_reduction": "max"}, "loss_reduction"),
    ],
)
def test_configuration_is_checked(options, complaint):
    with pytest.raises((StrictDataclassClassValidationError, StrictDataclassFieldValidationError), match=complaint):
        tiny_config(**options)


def test_configuration_round_trip(tmp_path):
    config = tiny_config(smiles={"position_embedding": "rotary"}, id2label={0: "logS"}, label_units=["log mol/L"])
    config.save_pretrained(tmp_path)
    loaded = MMDeaconConfig.from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.smiles_config.position_embedding == "rotary"


def test_shipped_checkpoint(mini_checkpoint):
    """Weights lie in bf16, at most 12 MB, and are loaded in fp32 unless asked otherwise."""
    from safetensors import safe_open

    path = Path(mini_checkpoint) / "model.safetensors"
    assert path.stat().st_size <= 12_000_000
    with safe_open(path, "pt") as weights:
        dtypes = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 - no mapping
    assert dtypes == {"BF16"}
    assert AutoModel.from_pretrained(mini_checkpoint).dtype == torch.float32
    assert AutoModel.from_pretrained(mini_checkpoint, dtype=torch.bfloat16).dtype == torch.bfloat16
