"""Checkpoints of fairseq in the layout of the original, written here from tiny models."""

import argparse
from fractions import Fraction

import pytest
import torch
from transformers import AutoProcessor

from hf_molrep import AutoModelForMoleculePropertyPrediction, DMPForPreTraining, DMPForPropertyPrediction
from hf_molrep.models.dmp.conversion_dmp import convert
from hf_molrep.tokenization.dmp import TOKENS
from tests.models.common import draw_weights
from tests.models.dmp.tiny import tiny_config

PARTS = {
    "embeddings.word_embeddings": "embed_tokens",
    "embeddings.position_embeddings": "embed_positions",
    "embeddings.norm": "layernorm_embedding",
    "attention.out_proj": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "up_proj": "fc1",
    "down_proj": "fc2",
    "mlp_norm": "final_layer_norm",
}
GRAPH_PARTS = {
    "atom_embeddings.tables": "atom_encoder.atom_embedding_list",
    "layers": "gcns",
    "bond_embeddings.tables": "edge_encoder.atom_embedding_list",
    "aggregate_proj": "aggrmlp",
    "out_proj": "mlp",
}
BOTTLENECK = {"up_proj": "mlps.0", "norm": "bns.0", "down_proj": "mlps.1"}


def original(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a model under the names of the original."""
    found = {"encoder0.sentence_encoder.version": torch.zeros(1)}
    for name, value in model.state_dict().items():
        if name.startswith("dmp.smiles_model."):
            name = name.removeprefix("dmp.smiles_model.")
            if "qkv_proj" in name:
                for letter, part in zip("qkv", value.chunk(3), strict=True):
                    key = name.replace("attention.qkv_proj", f"self_attn.{letter}_proj")
                    found[f"encoder0.sentence_encoder.{key}"] = part.clone()
                continue
            for ours, theirs in PARTS.items():
                name = name.replace(ours, theirs)
            name = f"encoder0.sentence_encoder.{name}"
        elif name.startswith("dmp.graph_model."):
            name = name.removeprefix("dmp.graph_model.")
            for ours, theirs in GRAPH_PARTS.items():
                name = name.replace(ours, theirs)
            name = f"encoder1.{name}"
        elif name.startswith(("projectors.", "predictors.")):
            kind, branch, part, end = name.split(".")
            number = ["smiles", "graph"].index(branch)
            kind = "projection" if kind == "projectors" else "prediction"
            name = f"{kind}_heads.{number}.{BOTTLENECK[part]}.{end}"
        elif name.startswith("token_head."):
            name = name.replace("token_head.", "encoder0.lm_head.").replace("head.norm", "head.layer_norm")
        elif name.startswith("atom_head."):
            name = f"encoder1.{name}"
        else:
            name = name.replace("head.dense.smiles", "head.dense").replace("head.dense.graph", "head.dense1")
            name = f"classification_heads.molecule_{name}"
        found[name] = value.clone()
    found["encoder0.lm_head.weight"] = found["encoder0.sentence_encoder.embed_tokens.weight"]
    found["encoder1.atom_head.weight"] = found["encoder1.atom_encoder.atom_embedding_list.0.weight"]
    return found


@pytest.fixture
def dictionary(tmp_path):
    path = tmp_path / "dict.txt"
    kept = [token for token in dict.fromkeys(TOKENS) if token != " "]
    path.write_text("".join(f"{token} {place}\n" for place, token in enumerate(kept)))
    return path, len(kept) + 5


def write(path, state, **args):
    torch.save({"model": state, "args": argparse.Namespace(encoder_attention_heads=4, dropout=0.0, **args)}, path)
    return path


def tiny(size: int, **options):
    config = tiny_config(**options)
    config.smiles_config.vocab_size = size
    return config


def test_pre_trained(tmp_path, dictionary):
    path, size = dictionary
    model = draw_weights(DMPForPreTraining(tiny(size))).eval()
    said = convert(write(tmp_path / "dmp.pt", original(model)), tmp_path / "out", path, branch="both")
    assert said == []
    loaded, info = DMPForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert loaded.config.smiles_config.num_attention_heads == 4
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer.mask_token_id == size - 1
    assert (processor.standardize, processor.canonical) == ("none", True)


@pytest.mark.parametrize(
    ("coefficients", "branch"),
    [((1.0, 0.0), "smiles"), ((0.0, 2.0), "graph"), ((1.0, 1.0), "both"), ((1.0, 0.5), "both")],
)
@torch.no_grad()
def test_fine_tuned(coefficients, branch, tmp_path, dictionary):
    """Probabilities are those of the original's formula, with two classes."""
    path, size = dictionary
    source = draw_weights(DMPForPropertyPrediction(tiny(size, id2label={0: "a", 1: "b"}))).eval()
    state = original(source)
    file = write(tmp_path / "dmp.pt", state, coeff0=coefficients[0], coeff1=coefficients[1])
    convert(file, tmp_path / "out", path, task_names="active")
    loaded = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path / "out")
    assert loaded.config.branch == branch
    assert loaded.config.id2label == {0: "active"}
    inputs = AutoProcessor.from_pretrained(tmp_path / "out")(["CCO", "c1ccccc1O"], return_tensors="pt")
    smiles, graph = source.dmp(**inputs).pooler_output.split([32, 32], dim=-1)
    logits = sum(
        coefficient * source.head.out_proj(torch.tanh(source.head.dense[name](feature)))
        for name, coefficient, feature in zip(("smiles", "graph"), coefficients, (smiles, graph), strict=True)
    )
    expected = logits.softmax(dim=-1)[:, 1:]
    torch.testing.assert_close(loaded(**inputs).predictions, expected, atol=1e-5, rtol=1e-4)


def test_refusals(tmp_path, dictionary):
    path, size = dictionary
    state = original(DMPForPreTraining(tiny(size)))
    file = write(tmp_path / "dmp.pt", state)
    with pytest.raises(ValueError, match=r"name the dictionary of the original \(dict.txt\)"):
        convert(file, tmp_path / "out")
    short = tmp_path / "short.txt"
    short.write_text("c 2\nC 1\n")
    with pytest.raises(ValueError, match=f"makes 7 tokens with the special ones, the weights have {size}"):
        convert(file, tmp_path / "out", short)
    torch.save({"weights": state}, file)
    with pytest.raises(ValueError, match="not a checkpoint of fairseq"):
        convert(file, tmp_path / "out", path)
    write(file, state | {"projection_heads.0.mlps.2.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="only heads with a bottleneck of two layers"):
        convert(file, tmp_path / "out", path)
    write(file, state | {"encoder2.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"'encoder2\.weight' is not a name of DMP's state dict"):
        convert(file, tmp_path / "out", path)
    torch.save({"model": state, "args": Fraction(1, 2)}, file)
    with pytest.raises(ValueError, match="reading them could run code"):
        convert(file, tmp_path / "out", path)
