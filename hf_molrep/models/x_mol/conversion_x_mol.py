"""Paddle variables of X-MOL, pre-trained or fine-tuned, to checkpoints of this package."""

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ...hub import save_checkpoint
from ...tokenization.x_mol import BASE_VOCABULARY, EXTENSION, build_x_mol
from ..foreign_weights import check_state, label_fields, make_config, make_model, shape_of
from .configuration_x_mol import XMolConfig
from .modeling_x_mol import XMolForInteractionPrediction, XMolForPreTraining, XMolForPropertyPrediction
from .processing_x_mol import XMolProcessor

# data types of the messages in Paddle's framework.proto
DTYPES = {0: "?", 1: "<i2", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8"}
LAYER = r"encoder_layer_(\d+)_"
# Names of the original -> ours. Weights of linear layers are [in, out] there.
NAMES = {
    r"word_embedding$": "x_mol.embeddings.word_embeddings.weight",
    r"pos_embedding$": "x_mol.embeddings.position_embeddings.weight",
    r"sent_embedding$": "x_mol.embeddings.token_type_embeddings.weight",
    r"pre_encoder_layer_norm_": "x_mol.embeddings.norm.",
    LAYER + r"multi_head_att_output_fc\.": r"x_mol.layers.\1.attention.out_proj.",
    LAYER + r"post_att_layer_norm_": r"x_mol.layers.\1.attention_norm.",
    LAYER + r"ffn_fc_0\.": r"x_mol.layers.\1.up_proj.",
    LAYER + r"ffn_fc_1\.": r"x_mol.layers.\1.down_proj.",
    LAYER + r"post_ffn_layer_norm_": r"x_mol.layers.\1.mlp_norm.",
    r"mask_lm_trans_fc\.": "lm_head.dense.",
    r"mask_lm_trans_layer_norm_": "lm_head.norm.",
    r"mask_lm_out_fc\.b_0$": "lm_head.bias",
    r"pooled_fc\.": "head.dense.",
    r"cls_out_w$": "head.out_proj.w_0",
    r"cls_out_b$": "head.out_proj.b_0",
}
ENDS = {"w_0": "weight", "b_0": "bias", "scale": "weight", "bias": "bias"}
VARIABLE = re.compile("|".join([*(f"(?:{name})" for name in NAMES), LAYER + "multi_head_att_", "next_sent_fc"]))


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Read a number of protobuf; return it and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _description(data: bytes) -> tuple[int, list[int]]:
    """Read a `TensorDesc`: its data type (field 1) and dimensions (field 2, packed or not)."""
    kind, dimensions, place = None, [], 0
    while place < len(data):
        key, place = _varint(data, place)
        value, place = _varint(data, place)
        if key == 1 << 3:
            kind = value
        elif key == 2 << 3:
            dimensions.append(value)
        elif key == 2 << 3 | 2:
            end = place + value
            while place < end:
                value, place = _varint(data, place)
                dimensions.append(value)
        else:
            raise ValueError(f"unknown field {key >> 3}")
    if kind is None:
        raise ValueError("no data type")
    return kind, dimensions


def read_variable(path: Path) -> torch.Tensor:
    """
    Read a file of a Paddle variable (`LoDTensor`): version, levels of detail, version, description, values.

    Raises:
        ValueError: the file is of another format, cut off, or its values are no numbers that are known here.
    """
    data = path.read_bytes()
    try:
        version, levels = struct.unpack_from("<IQ", data)
        place = 12
        for _ in range(levels):
            place += 8 + struct.unpack_from("<Q", data, place)[0]
        tensor_version, size = struct.unpack_from("<Ii", data, place)
        place += 8
        if version or tensor_version or size < 0:
            raise ValueError("unknown version")
        kind, dimensions = _description(data[place : place + size])
        values = np.frombuffer(data, DTYPES[kind], offset=place + size)
        return torch.from_numpy(values.reshape(dimensions).copy())
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a complete file of a Paddle variable ({error})") from error


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """
    Read the variables of a folder, a file each; of `<name>` and `<name>.master`, its copy in fp32, the latter.

    Raises:
        ValueError: the folder holds no variable of X-MOL, or a file is damaged.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: the weights of X-MOL are a folder with a file for each variable")
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    names = {name.removesuffix(".master") for name in files if VARIABLE.match(name)}
    # optimiser's state: <variable>_moment1_0 and the like
    names = {name for name in names if not re.search(r"_(moment[12]|beta[12]_pow_acc)_\d+$", name)}
    if not names:
        raise ValueError(f"{folder} holds no variables of X-MOL, such as word_embedding")
    read = {name: read_variable(files.get(f"{name}.master", files.get(name))) for name in sorted(names)}
    return check_state(read, folder)


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the variables of the original; those of next-sentence prediction, which nothing uses, are left out."""
    converted: dict[str, torch.Tensor] = {}
    attention: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        value = value.float()
        if match := re.match(LAYER + r"multi_head_att_(query|key|value)_fc\.(w_0|b_0)$", name):
            key = f"x_mol.layers.{match[1]}.attention.qkv_proj.{ENDS[match[3]]}"
            attention.setdefault(key, {})[match[2]] = value.T if match[3] == "w_0" else value
            continue
        pattern = next((pattern for pattern in NAMES if re.match(pattern, name)), None)
        if pattern is None:
            continue
        new = re.sub(pattern, NAMES[pattern], name, count=1)
        head, _, end = new.rpartition(".")
        if end in ENDS and not new.startswith("lm_head.bias"):
            new, value = f"{head}.{ENDS[end]}", value.T if end == "w_0" else value
        converted[new] = value.contiguous()
    for key, parts in attention.items():
        if missing := {"query", "key", "value"} - set(parts):
            raise ValueError(f"the variables of {key} lack {', '.join(sorted(missing))}")
        converted[key] = torch.cat([parts[name] for name in ("query", "key", "value")])
    return converted


def config_of(state: Mapping[str, torch.Tensor], **options) -> XMolConfig:
    """
    Read the configuration from the shapes of converted weights.

    Raises:
        ValueError: a tensor is missing, or an option contradicts the shapes.
    """
    vocabulary, hidden = shape_of(state, "x_mol.embeddings.word_embeddings.weight")
    found = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "max_position_embeddings": shape_of(state, "x_mol.embeddings.position_embeddings.weight")[0],
        "type_vocab_size": shape_of(state, "x_mol.embeddings.token_type_embeddings.weight")[0],
        "num_hidden_layers": len({name.split(".")[2] for name in state if name.startswith("x_mol.layers.")}),
        "intermediate_size": shape_of(state, "x_mol.layers.0.up_proj.weight")[0],
    }
    for name, value in options.items():
        if name in found and found[name] != value:
            raise ValueError(f"{name} {value!r}: the weights have {found[name]}")
    heads = max(hidden // 64, 1)  # the width of a head is 64 in all of the original's
    return make_config(XMolConfig, **{"num_attention_heads": heads} | found | options)


def convert(
    source: str | Path,
    out: str | Path,
    vocabulary: str | Path | None = None,
    problem_type: Literal["regression", "classification"] | None = None,
    label_mean: float | Sequence[float] | None = None,
    label_std: float | Sequence[float] | None = None,
    task_names: str | Sequence[str] | None = None,
    **options: Any,
) -> list[str]:
    """
    Convert a folder of Paddle variables of X-MOL (bm2-lab/X-MOL), a file each. With the layer of a fine-tuned model
    (`cls_out_w`) it becomes a model of properties (or, with more than two classes, of interactions), else one that
    writes SMILES.

    Args:
        source: folder with files such as `word_embedding`; a file with the ending `.master`, the copy of a variable in
            fp32, is read in its place.
        out: folder to write.
        vocabulary: file of the tokens and ids, as `molecule_dict`; needed if there are other than the 112 tokens of
            the original.
        problem_type: of a fine-tuned model: regression (default), or classification, with one output for each class.
        label_mean, label_std: scaling of the labels of a regression: a number, or a list with one for each task.
        task_names: a name, or a list with one for each task.
        options: further fields of the configuration.
    Returns:
        A sentence for each choice that was made because the files do not determine it.
    Raises:
        ValueError: the files are damaged, do not belong to such a model, or an option contradicts them.
    """
    state = convert_state(read_folder(Path(source)))
    fine_tuned = "head.out_proj.weight" in state
    prefix = "lm_head." if fine_tuned else "head."
    left = sorted(name for name in state if name.startswith(prefix))
    state = {name: value for name, value in state.items() if name not in left}
    fields, choices = label_fields(label_mean, label_std, task_names), []
    model_class: type = XMolForPreTraining
    if fine_tuned:
        model_class, head = _head(state, problem_type)
        fields = head | fields
        if problem_type is None:
            choices.append("problem_type: regression, the default; the files do not tell")
    elif fields or problem_type:
        raise ValueError("problem_type and labels belong to fine-tuned weights; these are pre-trained")
    elif left:
        choices.append("The pooler (pooled_fc) is left out: the model that writes SMILES does not use it")
    config = config_of(state, **fields | options)
    extension = _extension(vocabulary, config.vocab_size)
    model = make_model(model_class, config, state)
    # what the original reads: the SMILES as it is given
    processor = XMolProcessor(build_x_mol(extension), standardize="none", canonical=False)
    save_checkpoint(model, processor, out, weights_dtype=None)
    return choices


def _head(state: dict[str, torch.Tensor], problem_type: str | None) -> tuple[type, dict[str, Any]]:
    """Choose the model for the last layer of a fine-tuned one; of two classes, make one logit in place."""
    weight = state["head.out_proj.weight"]
    bias = state.setdefault("head.out_proj.bias", torch.zeros(len(weight)))
    labels = {"id2label": {place: f"task {place}" for place in range(len(weight))}}
    if problem_type != "classification":
        return XMolForPropertyPrediction, {"problem_type": "regression", **labels}
    if len(weight) > 2:
        classes = {"id2label": {place: f"class {place}" for place in range(len(weight))}}
        return XMolForInteractionPrediction, {"problem_type": "single_label_classification", **classes}
    if len(weight) == 2:  # softmax of two is the sigmoid of their difference
        state["head.out_proj.weight"], state["head.out_proj.bias"] = weight[1:] - weight[:1], bias[1:] - bias[:1]
    return XMolForPropertyPrediction, {"problem_type": "multi_label_classification", "id2label": {0: "task 0"}}


def _extension(vocabulary: str | Path | None, size: int) -> tuple[str, ...]:
    """Return the tokens from id 112 on."""
    if vocabulary is None:
        known = {len(BASE_VOCABULARY): (), len(BASE_VOCABULARY) + len(EXTENSION): EXTENSION}
        if size not in known:
            raise ValueError(f"the weights have {size} tokens: name the file of the vocabulary")
        return known[size]
    rows = [line.rstrip("\n").split("\t") for line in Path(vocabulary).read_text(encoding="utf-8").splitlines()]
    try:
        ids = {int(number): token for token, number in rows}
    except ValueError:
        raise ValueError(f"{vocabulary} has not a token and an id, with a tab between, in each line") from None
    if sorted(ids) != list(range(size)) or tuple(ids[place] for place in range(112)) != BASE_VOCABULARY:
        raise ValueError(f"{vocabulary} has not the ids 0 to {size - 1} of the weights, the first 112 those of X-MOL")
    return tuple(ids[place] for place in range(112, size))


__all__ = ["config_of", "convert", "convert_state", "read_folder", "read_variable"]
