"""Convert checkpoints of DMP's original code (fairseq), pre-trained or fine-tuned, to checkpoints of this package."""

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...hub import save_checkpoint
from ...tokenization.dmp import build_dmp, read_dictionary
from ..foreign_weights import check_state, label_fields, make_config, make_model, read_file, shape_of
from .configuration_dmp import DMPConfig, DMPGraphConfig, DMPSmilesConfig
from .modeling_dmp import DMPForPreTraining, DMPForPropertyPrediction
from .processing_dmp import DMPProcessor

SMILES, GRAPH = r"encoder0\.sentence_encoder\.", r"encoder1\."
LAYER = SMILES + r"layers\.(\d+)\."
BRANCHES = ("smiles", "graph")
# Names of the original -> ours.
NAMES = {
    SMILES + r"embed_tokens\.": "dmp.smiles_model.embeddings.word_embeddings.",
    SMILES + r"embed_positions\.": "dmp.smiles_model.embeddings.position_embeddings.",
    SMILES + r"layernorm_embedding\.": "dmp.smiles_model.embeddings.norm.",
    LAYER + r"self_attn\.out_proj\.": r"dmp.smiles_model.layers.\1.attention.out_proj.",
    LAYER + r"self_attn_layer_norm\.": r"dmp.smiles_model.layers.\1.attention_norm.",
    LAYER + r"fc1\.": r"dmp.smiles_model.layers.\1.up_proj.",
    LAYER + r"fc2\.": r"dmp.smiles_model.layers.\1.down_proj.",
    LAYER + r"final_layer_norm\.": r"dmp.smiles_model.layers.\1.mlp_norm.",
    r"encoder0\.lm_head\.dense\.": "token_head.dense.",
    r"encoder0\.lm_head\.layer_norm\.": "token_head.norm.",
    r"encoder0\.lm_head\.bias$": "token_head.bias",
    GRAPH + r"atom_encoder\.atom_embedding_list\.": "dmp.graph_model.atom_embeddings.tables.",
    GRAPH + r"gcns\.(\d+)\.edge_encoder\.atom_embedding_list\.": r"dmp.graph_model.layers.\1.bond_embeddings.tables.",
    GRAPH + r"gcns\.(\d+)\.aggrmlp\.": r"dmp.graph_model.layers.\1.aggregate_proj.",
    GRAPH + r"gcns\.(\d+)\.mlp\.": r"dmp.graph_model.layers.\1.out_proj.",
    GRAPH + r"norms\.": "dmp.graph_model.norms.",
    GRAPH + r"atom_head\.dense\.": "atom_head.dense.",
    GRAPH + r"atom_head\.norm\.": "atom_head.norm.",
    GRAPH + r"atom_head\.bias$": "atom_head.bias",
    r"classification_heads\.molecule_head\.dense\.": "head.dense.smiles.",
    r"classification_heads\.molecule_head\.dense1\.": "head.dense.graph.",
    r"classification_heads\.molecule_head\.out_proj\.": "head.out_proj.",
}
PROJECTION = r"(projection|prediction)_heads\.([01])\.(mlps|bns)\.(\d+)\.(.+)"
# a buffer without meaning here, and ties that are stored twice
IGNORED = re.compile(SMILES + r"version$|encoder0\.lm_head\.weight$|encoder1\.atom_head\.weight$")


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Rename a `state_dict` of the original.

    Raises:
        ValueError: a name is unknown, or the projection heads are not those with a bottleneck of two layers.
    """
    converted: dict[str, torch.Tensor] = {}
    attention: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        value = value.float() if value.is_floating_point() else value
        if IGNORED.match(name):
            continue
        if match := re.match(LAYER + r"self_attn\.([qkv])_proj\.(weight|bias)$", name):
            key = f"dmp.smiles_model.layers.{match[1]}.attention.qkv_proj.{match[3]}"
            attention.setdefault(key, {})[match[2]] = value
            continue
        if match := re.fullmatch(PROJECTION, name):
            kind, place, part, layer, end = match.groups()
            ours = {("mlps", "0"): "up_proj", ("bns", "0"): "norm", ("mlps", "1"): "down_proj"}.get((part, layer))
            if ours is None:
                raise ValueError(f"{name!r}: only heads with a bottleneck of two layers have a counterpart here")
            owner = "projectors" if kind == "projection" else "predictors"
            converted[f"{owner}.{BRANCHES[int(place)]}.{ours}.{end}"] = value
            continue
        pattern = next((pattern for pattern in NAMES if re.match(pattern, name)), None)
        if pattern is None:
            raise ValueError(f"{name!r} is not a name of DMP's state dict that has a counterpart here")
        converted[re.sub(pattern, NAMES[pattern], name, count=1)] = value
    for key, parts in attention.items():
        if missing := set("qkv") - set(parts):
            raise ValueError(f"the weights of {key} lack {', '.join(sorted(missing))}")
        converted[key] = torch.cat([parts[name] for name in "qkv"])
    return converted


def branch_fields(state: Mapping[str, torch.Tensor], args: Mapping[str, Any], **options) -> dict[str, Any]:
    """
    Read the fields of both branches from the shapes of converted weights, and what shapes do not tell from the
    arguments of the original.

    Raises:
        ValueError: a tensor is missing.
    """
    word, position = "word_embeddings.weight", "position_embeddings.weight"
    vocabulary, hidden = shape_of(state, f"dmp.smiles_model.embeddings.{word}")
    positions, _ = shape_of(state, f"dmp.smiles_model.embeddings.{position}")
    places = [name.split(".") for name in state]
    smiles = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": len({part[3] for part in places if part[1:3] == ["smiles_model", "layers"]}),
        "num_attention_heads": int(args.get("encoder_attention_heads") or max(hidden // 64, 1)),
        "intermediate_size": shape_of(state, "dmp.smiles_model.layers.0.up_proj.weight")[0],
        "max_position_embeddings": positions - 2,  # the first position is behind that of padding, 1
        "hidden_dropout": float(args.get("dropout", 0.1)),
        "attention_dropout": float(args.get("attention_dropout", 0.1)),
    }
    atoms = sorted(
        (name for name in state if "graph_model.atom_embeddings" in name), key=lambda name: name.split(".")[-2]
    )
    bonds = sorted(name for name in state if "graph_model.layers.0.bond_embeddings" in name)
    if not atoms or not bonds:
        raise ValueError("the state dict has no encoder1: only models of a SMILES and a graph branch are converted")
    graph = {
        "hidden_size": shape_of(state, atoms[0])[1],
        "num_hidden_layers": len({part[3] for part in places if part[1:3] == ["graph_model", "layers"]}),
        "atom_feature_dims": [shape_of(state, name)[0] for name in atoms],
        "bond_feature_dims": [shape_of(state, name)[0] for name in bonds],
        "dropout": float(args.get("gnn_dropout", 0.1)),
    }
    fields = {"smiles_config": DMPSmilesConfig(**smiles), "graph_config": DMPGraphConfig(**graph)}
    if "projectors.smiles.up_proj.weight" in state:
        wide, inputs = shape_of(state, "projectors.smiles.up_proj.weight")
        outputs, _ = shape_of(state, "projectors.smiles.down_proj.weight")
        fields |= {"bottleneck_ratio": wide // inputs, "projection_dim": outputs}
    return fields | options


def convert_head(state: dict[str, torch.Tensor], args: Mapping[str, Any]) -> dict[str, Any]:
    """
    Change the property head in place, and return its fields: which branches it has by the coefficients of the original
    (`coeff0`, `coeff1`), which become part of the last layer; two classes (softmax) become one logit with the same
    probabilities.

    Raises:
        ValueError: coefficients or outputs that have no counterpart here.
    """
    weight, bias = state["head.out_proj.weight"], state["head.out_proj.bias"]
    if len(weight) > 2:
        raise ValueError(f"{len(weight)} mutually exclusive classes: the models here predict a value or yes and no")
    classes = len(weight) == 2
    if classes:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    of_smiles, of_graph = (float(1.0 if args.get(name) is None else args[name]) for name in ("coeff0", "coeff1"))
    if min(of_smiles, of_graph) < 0 or not of_smiles + of_graph > 0:
        raise ValueError(f"coeff0 {of_smiles} and coeff1 {of_graph}: the weights of the branches are positive")
    total = of_smiles + of_graph
    state["head.out_proj.weight"], state["head.out_proj.bias"] = total * weight, total * bias
    fields: dict[str, Any] = {"branch": "both", "id2label": {0: "task_0"}}
    fields["problem_type"] = "multi_label_classification" if classes else "regression"
    if not of_smiles or not of_graph:
        fields["branch"], other = ("smiles", "graph") if of_smiles else ("graph", "smiles")
        for name in [name for name in state if name.startswith((f"head.dense.{other}.", f"dmp.{other}_model."))]:
            del state[name]
    elif of_smiles != of_graph:  # constant weights of the branches
        width = sum(state[f"head.dense.{name}.weight"].shape[1] for name in BRANCHES)
        state["head.choice.weight"] = torch.zeros(2, width)
        state["head.choice.bias"] = torch.tensor([math.log(of_smiles), math.log(of_graph)])
        fields["branch_choice"] = "learned"
    return fields


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """
    Read a file of fairseq: its `model`, and its `args` as a dict.

    Raises:
        ValueError: the file is damaged, of another format, or would run code.
    """
    found = read_file(path, allowed=[argparse.Namespace])
    if not isinstance(found, Mapping) or "model" not in found:
        raise ValueError(f"{path} is not a checkpoint of fairseq: it has no 'model'")
    args = found.get("args")
    if args is not None and not isinstance(args, argparse.Namespace | Mapping):
        raise ValueError(f"{path}: 'args' are {type(args).__name__}, not arguments of a command line")
    return check_state(found["model"], path), dict(args) if isinstance(args, Mapping) else vars(
        args or argparse.Namespace()
    )


def convert_model(
    state: Mapping[str, torch.Tensor], args: Mapping[str, Any], **fields
) -> DMPForPreTraining | DMPForPropertyPrediction:
    """
    Make the model in evaluation mode with the weights of the original, with the property head if it has one.

    Raises:
        ValueError: see [`convert_state`], [`branch_fields`] and [`convert_head`]; or tensors are missing.
    """
    weights = convert_state(state)
    given = branch_fields(weights, args)
    if "head.out_proj.weight" not in weights:
        return make_model(DMPForPreTraining, make_config(DMPConfig, **given | fields), weights)
    weights = {name: value for name, value in weights.items() if name.startswith(("dmp.", "head."))}
    given |= convert_head(weights, args)
    return make_model(DMPForPropertyPrediction, make_config(DMPConfig, **given | fields), weights)


def convert(
    source: str | Path,
    out: str | Path,
    vocabulary: str | Path | None = None,
    label_mean: float | Sequence[float] | None = None,
    label_std: float | Sequence[float] | None = None,
    task_names: str | Sequence[str] | None = None,
    **options: Any,
) -> list[str]:
    """
    Convert a checkpoint of DMP's original code (microsoft/DVMP), a file of fairseq with `model` and `args`, pre-trained
    or fine-tuned (`classification_heads.molecule_head`).

    Args:
        source: the file.
        out: folder to write.
        vocabulary: the dictionary of the original, `dict.txt`, a token and its count in each line. Needed.
        label_mean, label_std: scaling of the labels of a regression: a number, or a list with one for each task.
        task_names: a name, or a list with one for each task.
        options: further fields of the configuration.
    Returns:
        A sentence for each choice that was made because the file does not determine it.
    Raises:
        ValueError: the file is damaged, does not belong to such a model, or an option contradicts it.
    """
    if vocabulary is None:
        raise ValueError("name the dictionary of the original (dict.txt) as the vocabulary: the file does not hold it")
    state, args = read_checkpoint(source)
    model = convert_model(state, args, **label_fields(label_mean, label_std, task_names), **options)
    tokenizer = build_dmp(read_dictionary(vocabulary))
    size = model.config.smiles_config.vocab_size
    if len(tokenizer) != size:
        raise ValueError(f"{vocabulary} makes {len(tokenizer)} tokens with the special ones, the weights have {size}")
    # what the original reads: canonical SMILES, otherwise as given
    save_checkpoint(model, DMPProcessor(tokenizer, standardize="none"), out, weights_dtype=None)
    unknown = [] if args.get("encoder_attention_heads") else ["num_attention_heads: one for 64 of the width"]
    return unknown


__all__ = ["branch_fields", "convert", "convert_model", "convert_state", "read_checkpoint"]
