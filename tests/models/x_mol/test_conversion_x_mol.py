"""Paddle variables of X-MOL, written here by a small writer, as checkpoints."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoProcessor

from hf_molrep import (
    AutoModelForMoleculeInteractionPrediction,
    AutoModelForMoleculePropertyPrediction,
    XMolForPreTraining,
    XMolForPropertyPrediction,
)
from hf_molrep.models.x_mol.conversion_x_mol import convert, read_variable
from tests.models.common import draw_weights
from tests.models.laws.checks import quiet_loading
from tests.models.x_mol.tiny import tiny_config

TYPES = {"<f2": 4, "<f4": 5, "<i8": 3}


def number(value: int) -> bytes:
    """A number of protobuf."""
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def write_variable(path: Path, values: np.ndarray, levels: bytes = b"") -> None:
    """A file as `fluid.io.save_vars` writes it: LoD, version and TensorDesc (type, dims), values."""
    description = b"\x08" + number(TYPES[values.dtype.str]) + b"".join(b"\x10" + number(size) for size in values.shape)
    head = struct.pack("<IQ", 0, 1 if levels else 0) + (struct.pack("<Q", len(levels)) + levels if levels else b"")
    path.write_bytes(head + struct.pack("<Ii", 0, len(description)) + description + values.tobytes())


def original(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights of a model under the names of the original; linear ones as [in, out]."""
    norm, fully = {"weight": "_scale", "bias": "_bias"}, {"weight": ".w_0", "bias": ".b_0"}
    found = {}
    for name, value in model.state_dict().items():
        head, _, end = name.rpartition(".")
        value = value.numpy()
        parts = head.split(".")
        layer = f"encoder_layer_{parts[2]}_" if "layers" in parts else ""
        linear = value.T if end == "weight" else value
        if parts[-1] == "qkv_proj":
            for place, which in enumerate(("query", "key", "value")):
                columns = np.split(linear, 3, axis=-1)[place]
                found[f"{layer}multi_head_att_{which}_fc{fully[end]}"] = columns
        elif parts[-1] in ("out_proj", "up_proj", "down_proj") and layer:
            short = {"out_proj": "multi_head_att_output_fc", "up_proj": "ffn_fc_0", "down_proj": "ffn_fc_1"}[parts[-1]]
            found[layer + short + fully[end]] = linear
        elif layer:
            short = {"attention_norm": "post_att_layer_norm", "mlp_norm": "post_ffn_layer_norm"}[parts[-1]]
            found[layer + short + norm[end]] = value
        else:
            others = {
                "x_mol.embeddings.word_embeddings": ("word_embedding", {"weight": ""}, value),
                "x_mol.embeddings.position_embeddings": ("pos_embedding", {"weight": ""}, value),
                "x_mol.embeddings.token_type_embeddings": ("sent_embedding", {"weight": ""}, value),
                "x_mol.embeddings.norm": ("pre_encoder_layer_norm", norm, value),
                "lm_head.dense": ("mask_lm_trans_fc", fully, linear),
                "lm_head.norm": ("mask_lm_trans_layer_norm", norm, value),
                "lm_head": ("mask_lm_out_fc", fully, value),
                "head.dense": ("pooled_fc", fully, linear),
                "head.out_proj": ("cls_out", {"weight": "_w", "bias": "_b"}, linear),
            }
            short, ends, kept = others[head]
            found[short + ends[end]] = kept
    return found


def write(folder: Path, variables: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    for name, values in variables.items():
        write_variable(folder / name, np.ascontiguousarray(values))
    return folder


def build(model_class: type, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    return draw_weights(model_class(tiny_config(**{"vocab_size": 112, **options}))).eval()


def test_a_pre_trained_folder(tmp_path):
    model = build(XMolForPreTraining)
    variables = original(model)
    assert len(variables) == 2 * 16 + 3 + 2 + 5
    variables["pooled_fc.w_0"] = np.ones((32, 32), np.float32)
    variables["next_sent_fc.w_0"] = np.ones((32, 33), np.float32)
    variables["word_embedding_moment1_0"] = variables["word_embedding"] * 5
    choices = convert(write(tmp_path / "paddle", variables), tmp_path / "out", num_attention_heads=4)
    assert len(choices) == 1
    assert "pooled_fc" in choices[0]
    loaded = XMolForPreTraining.from_pretrained(tmp_path / "out")
    assert loaded.config.to_dict()["intermediate_size"] == 64
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    batch = processor(["C(C)O", "c1ccccc1O"], return_tensors="pt")
    assert batch["input_ids"][0].tolist() == [1, 25, 9, 25, 10, 30, 2, 0, 0, 0, 0]  # as it is written
    with torch.no_grad():
        expected = model.x_mol(**batch).pooler_output
        with quiet_loading():
            assert torch.equal(AutoModel.from_pretrained(tmp_path / "out")(**batch).pooler_output, expected)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").can_generate()


def test_the_master_copy_is_preferred(tmp_path):
    model = build(XMolForPreTraining)
    variables = original(model)
    halves = {name: value.astype("<f2") for name, value in variables.items()}
    folder = write(tmp_path / "half", halves | {f"{name}.master": value for name, value in variables.items()})
    convert(folder, tmp_path / "out", num_attention_heads=4)
    loaded = XMolForPreTraining.from_pretrained(tmp_path / "out").state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded[name], value), name
    for path in folder.glob("*.master"):
        path.unlink()
    convert(folder, tmp_path / "half_out", num_attention_heads=4)
    loaded = XMolForPreTraining.from_pretrained(tmp_path / "half_out").state_dict()
    assert torch.equal(loaded["lm_head.dense.weight"], model.state_dict()["lm_head.dense.weight"].half().float())


def test_fine_tuned_folders(tmp_path):
    regression = build(XMolForPropertyPrediction, num_labels=1)
    convert(
        write(tmp_path / "regression", original(regression)),
        tmp_path / "r",
        task_names="logS",
        label_mean=2.0,
        label_std=3.0,
        num_attention_heads=4,
    )
    loaded = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path / "r")
    batch = AutoProcessor.from_pretrained(tmp_path / "r")(["CCO"], return_tensors="pt")
    with torch.no_grad():
        logits = regression(**batch).logits
        torch.testing.assert_close(loaded(**batch).predictions, logits * 3 + 2)
    assert loaded.config.id2label == {0: "logS"}

    two = build(XMolForPropertyPrediction, num_labels=2)
    folder = write(tmp_path / "two", original(two))
    assert not convert(folder, tmp_path / "c", problem_type="classification", num_attention_heads=4)
    with torch.no_grad():
        chance = two(**batch).logits.softmax(-1)[:, 1:]
        found = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path / "c")(**batch).predictions
    torch.testing.assert_close(found, chance)

    three = build(XMolForPropertyPrediction, num_labels=3)
    convert(
        write(tmp_path / "i", original(three)), tmp_path / "ddi", problem_type="classification", num_attention_heads=4
    )
    found = AutoModelForMoleculeInteractionPrediction.from_pretrained(tmp_path / "ddi")
    with torch.no_grad():
        torch.testing.assert_close(found(**batch).predictions, three(**batch).logits.softmax(-1))


def test_extended_vocabulary(tmp_path):
    model = build(XMolForPreTraining, vocab_size=114)
    folder = write(tmp_path / "paddle", original(model))
    with pytest.raises(ValueError, match="114 tokens: name the file of the vocabulary"):
        convert(folder, tmp_path / "out", num_attention_heads=4)
    from hf_molrep.tokenization.x_mol import BASE_VOCABULARY

    lines = [f"{token}\t{place}" for place, token in enumerate((*BASE_VOCABULARY, "[NH2+]", "[NH3+]"))]
    (tmp_path / "dict").write_text("\n".join(lines) + "\n")
    convert(folder, tmp_path / "out", vocabulary=tmp_path / "dict", num_attention_heads=4)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor(["C[NH3+]"])["input_ids"].tolist() == [[1, 25, 113, 2]]
    (tmp_path / "dict").write_text("\n".join(lines[::-1][:50]) + "\n")
    with pytest.raises(ValueError, match="has not the ids 0 to 113"):
        convert(folder, tmp_path / "out", vocabulary=tmp_path / "dict", num_attention_heads=4)


def test_levels_of_detail_and_numbers(tmp_path):
    values = np.arange(300, dtype="<i8").reshape(2, 150)
    write_variable(tmp_path / "a", values, levels=struct.pack("<QQ", 0, 300))
    assert torch.equal(read_variable(tmp_path / "a"), torch.from_numpy(values))


def test_what_is_refused(tmp_path):
    model = build(XMolForPreTraining)
    variables = original(model)
    folder = write(tmp_path / "cut", variables)
    whole = (folder / "word_embedding").read_bytes()
    for bad in (b"", whole[:10], whole[:-1], b"\x80\x04" + whole):
        (folder / "word_embedding").write_bytes(bad)
        with pytest.raises(ValueError, match="word_embedding is not a complete file of a Paddle variable"):
            convert(folder, tmp_path / "out")
    (folder / "word_embedding").unlink()
    with pytest.raises(ValueError, match=r"no 'x_mol\.embeddings\.word_embeddings\.weight'"):
        convert(folder, tmp_path / "out")
    (folder / "word_embedding").write_bytes(whole)
    (folder / "encoder_layer_1_multi_head_att_key_fc.b_0").unlink()
    with pytest.raises(ValueError, match="lack key"):
        convert(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="belong to fine-tuned weights"):
        convert(write(tmp_path / "full", variables), tmp_path / "out", task_names="logS")
    with pytest.raises(ValueError, match="hidden_size 64: the weights have 32"):
        convert(tmp_path / "full", tmp_path / "out", hidden_size=64)
    with pytest.raises(ValueError, match="no variables of X-MOL"):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="is not a folder"):
        convert(tmp_path / "nothing", tmp_path / "out")
