"""Convert weights of the original GROVER code (`.pt`) to checkpoints of this package."""

import _codecs
import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ...chem.descriptors import DESCRIPTOR_NAMES
from ..foreign_weights import check_state, label_fields, make_config, make_model, read_file, shape_of
from .configuration_grover import GroverConfig
from .feature_extraction_grover import GroverFeatureExtractor
from .modeling_grover import GroverForPreTraining, GroverForPropertyPrediction, GroverModel

BLOCK = r"grover\.encoders\.(node|edge)_blocks\.(\d+)\."
BRANCH = r"((?:atom|bond)_from_(?:atom|bond))"
# Names of the original -> ours; the message passing of the heads is stacked by `convert_state`.
NAMES = {
    BLOCK + r"act_func\.weight": r"grover.\1_blocks.\2.input_activation.slopes",
    BLOCK + r"layernorm\.": r"grover.\1_blocks.\2.input_norm.",
    BLOCK + r"W_i\.": r"grover.\1_blocks.\2.input_proj.",
    BLOCK + r"attn\.linear_layers\.0\.": r"grover.\1_blocks.\2.q_proj.",
    BLOCK + r"attn\.linear_layers\.1\.": r"grover.\1_blocks.\2.k_proj.",
    BLOCK + r"attn\.linear_layers\.2\.": r"grover.\1_blocks.\2.v_proj.",
    BLOCK + r"attn\.output_linear\.": r"grover.\1_blocks.\2.out_proj.",
    BLOCK + r"W_o\.": r"grover.\1_blocks.\2.heads_proj.",
    BLOCK + r"sublayer\.norm\.": r"grover.\1_blocks.\2.norm.",
    rf"grover\.encoders\.ffn_{BRANCH}\.W_1\.": r"grover.\1.up_proj.",
    rf"grover\.encoders\.ffn_{BRANCH}\.W_2\.": r"grover.\1.down_proj.",
    rf"grover\.encoders\.ffn_{BRANCH}\.act_func\.weight": r"grover.\1.activation.slopes",
    rf"grover\.encoders\.{BRANCH}_sublayer\.norm\.": r"grover.\1.norm.",
    r"av_task_(atom|bond)\.linear\.": r"atom_context_from_\1.",
    r"bv_task_(atom|bond)\.linear\.": r"bond_context_from_\1.forward_proj.",
    r"bv_task_(atom|bond)\.linear_rev\.": r"bond_context_from_\1.reverse_proj.",
    rf"fg_task_all\.linear_{BRANCH}\.": r"motif_heads.\1.",
    r"readout\.attn\.w1$": "head.readout.hidden_weight",
    r"readout\.attn\.w2$": "head.readout.head_weight",
}
HEAD = BLOCK + r"heads\.(\d+)\.mpn_([qkv])\.(W_h\.weight|W_h\.bias|act_func\.weight)$"
STACKED = {"W_h.weight": "message_weight", "W_h.bias": "message_bias", "act_func.weight": "message_activation.slopes"}
FFN = r"mol_atom_from_(atom|bond)_ffn\.(\d+)\.(weight|bias)$"
# unused activations, and zeros that are saved as a parameter
UNUSED = r"grover\.encoders\.act_func_(node|edge)\.|(fg_task_all\.)?readout\.cached_zero_vector$"
ACTIVATIONS = {
    "PReLU": "prelu",
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "tanh": "tanh",
    "SELU": "selu",
    "ELU": "elu",
}
NEEDED = ("hidden_size", "depth", "num_attn_head", "num_mt_block")
# `padded_neighbors` of a converted checkpoint. The highest number of neighbours in a batch is 4 nearly everywhere: in
# 2,342 of 2,346 batches of 32 molecules of ChEMBL, in 1,873 of 1,875 of ZINC.
PADDED_NEIGHBORS = 4
# what a file of the original may hold besides tensors: its arguments, and the numbers of its scalers
SAFE_GLOBALS = [
    argparse.Namespace,
    _codecs.encode,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)},
    np._core.multiarray._reconstruct,
    np._core.multiarray.scalar,
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
]


def read_saved(path: str | Path) -> dict:
    """
    Read a file of the original: `args` (`argparse.Namespace`), `state_dict`, and for a fine-tuned model `data_scaler`
    and `features_scaler`. A file that would run code is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not such a file, see [`~hf_molrep.models.foreign_weights.read_file`]; or arguments with the
            sizes are missing.
    """
    saved = read_file(path, SAFE_GLOBALS)
    if not isinstance(saved, Mapping) or not isinstance(saved.get("state_dict"), Mapping):
        raise ValueError(f"{path} is no file of GROVER: it has no 'state_dict'")
    if not isinstance(saved.get("args"), argparse.Namespace):
        raise ValueError(f"{path} is no file of GROVER: it has no 'args' namespace")
    if missing := [name for name in NEEDED if not isinstance(getattr(saved["args"], name, None), int)]:
        raise ValueError(f"{path} is no file of GROVER: its 'args' lack {', '.join(missing)}")
    return {**saved, "state_dict": check_state(saved["state_dict"], path)}


def convert_state(state: Mapping[str, torch.Tensor], num_attention_heads: int) -> dict[str, torch.Tensor]:
    """
    Rename a `state_dict` of the original.

    Raises:
        ValueError: a name is unknown, or heads are missing.
    """
    converted: dict[str, torch.Tensor] = {}
    stacks: dict[str, dict[int, torch.Tensor]] = {}
    for key, value in state.items():
        if re.match(UNUSED, key):
            continue
        if match := re.match(HEAD, key):
            view, block, head, kind, part = match.groups()
            channel = "qkv".index(kind) * num_attention_heads + int(head)
            value = value.squeeze() if part == "act_func.weight" else value
            stacks.setdefault(f"grover.{view}_blocks.{block}.{STACKED[part]}", {})[channel] = value
            continue
        if match := re.match(FFN, key):
            source, place, part = match[1], int(match[2]), match[3]
            # dropout, linear, (activation, dropout, linear)*: one activation, saved under each of its indices
            name = f"layers.{(place - 1) // 3}.{part}" if place % 3 == 1 else "activation.slopes"
            converted[f"head.from_{source}.{name}"] = value
            continue
        for pattern, name in NAMES.items():
            if re.match(pattern, key):
                converted[re.sub(pattern, name, key, count=1)] = value
                break
        else:
            raise ValueError(f"{key!r} is not a name of GROVER's state dict")
    for name, channels in stacks.items():
        if sorted(channels) != list(range(3 * num_attention_heads)):
            raise ValueError(f"{name}: {len(channels)} message-passing networks, not {3 * num_attention_heads}")
        if len({value.shape for value in channels.values()}) > 1:
            raise ValueError(f"{name}: the message-passing networks are of several sizes")
        converted[name] = torch.stack([channels[place] for place in range(3 * num_attention_heads)])
    return converted


def config_of(saved: Mapping, **options) -> GroverConfig:
    """
    Make the configuration of a file of the original from its arguments and shapes; `options` override. Lists of
    neighbours are padded to `PADDED_NEIGHBORS`, unless `options` have `padded_neighbors` or `legacy_padding=True`.

    Raises:
        ValueError: arguments are not supported (no released model has them), or an option is not a field.
    """
    args, state = vars(saved["args"]), saved["state_dict"]
    for name in ("undirected", "dense"):
        if args.get(name):
            raise ValueError(f"the file was trained with --{name}, which is not supported")
    if args.get("activation", "PReLU") not in ACTIVATIONS:
        raise ValueError(f"activation {args['activation']!r} is not supported")
    fields = {
        "embedding_dim": args["hidden_size"],
        "depth": args["depth"],
        "num_attention_heads": args["num_attn_head"],
        "num_blocks": args["num_mt_block"],
        "hidden_act": ACTIVATIONS[args.get("activation", "PReLU")],
        "bias": bool(args.get("bias", False)),
        "dropout": args.get("dropout", 0.0),
        "disagreement_weight": args.get("dist_coff", 0.1),
        "padded_neighbors": None if options.get("legacy_padding") else PADDED_NEIGHBORS,
    }
    if "av_task_atom.linear.weight" in state:
        fields["atom_vocab_size"] = shape_of(state, "av_task_atom.linear.weight")[0]
        fields["bond_vocab_size"] = shape_of(state, "bv_task_atom.linear.weight")[0]
        fields["num_motifs"] = shape_of(state, "fg_task_all.linear_atom_from_atom.weight")[0]
    linear = sorted(
        int(match[2])
        for key in state
        if (match := re.match(FFN, key)) and match[1] == "atom" and match[3] == "weight" and int(match[2]) % 3 == 1
    )
    if linear:
        hidden, inputs = shape_of(state, f"mol_atom_from_atom_ffn.{linear[0]}.weight")
        tasks = shape_of(state, f"mol_atom_from_atom_ffn.{linear[-1]}.weight")[0]
        width = fields["embedding_dim"]
        fields["ffn_layers"] = len(linear)
        if len(linear) > 1:
            fields["ffn_dim"] = hidden
        if "readout.attn.w1" in state:
            fields["readout"] = "self_attention"
            fields["readout_hidden"] = shape_of(state, "readout.attn.w1")[0]
            fields["readout_heads"] = shape_of(state, "readout.attn.w2")[0]
            width *= fields["readout_heads"]
        fields["features_dim"] = inputs - width
        names = args.get("task_names") or [f"task {task}" for task in range(tasks)]
        fields["id2label"] = dict(enumerate(names))
        classification = args.get("dataset_type") == "classification"
        fields["problem_type"] = "multi_label_classification" if classification else "regression"
        scaler = saved.get("data_scaler")
        if scaler is not None and not classification:
            mean, std = ([float(value) for value in scaler[name]] for name in ("means", "stds"))
            fields |= label_fields(mean, std, None)
        if saved.get("features_scaler") is not None:
            raise ValueError("the file scales its molecular features (features_scaler), which is not supported")
    return make_config(GroverConfig, **{**fields, **options})


def convert_model(saved: Mapping, **options) -> GroverForPreTraining | GroverForPropertyPrediction | GroverModel:
    """
    Make the model in evaluation mode with the weights of the original: for pre-training, for properties (without the
    branches to bonds, which the original's fine-tuning does not use) or the encoder alone, whichever the file holds.

    Args:
        options: fields of [`GroverConfig`], for instance `legacy_padding=True`; see [`config_of`].
    Raises:
        ValueError: see [`config_of`] and [`convert_state`]; or tensors are missing or have another shape.
    """
    config = config_of(saved, **options)
    converted = convert_state(saved["state_dict"], config.num_attention_heads)
    if "atom_context_from_atom.weight" in converted:
        kind = GroverForPreTraining
    elif any(name.startswith("head.") for name in converted):
        kind = GroverForPropertyPrediction
        converted = {name: value for name, value in converted.items() if not name.startswith("grover.bond_from_")}
    else:
        kind = GroverModel
        converted = {name.removeprefix("grover."): value for name, value in converted.items()}
        if config.fingerprint_source != "both":
            with torch.device("meta"):
                wanted = GroverModel(config).state_dict()
            converted = {name: value for name, value in converted.items() if name in wanted or "_from_" not in name}
    if config.num_blocks > 1:  # input layers of later blocks, which the original never uses
        unused = r"(grover\.)?(node|edge)_blocks\.([1-9]\d*)\.input_"
        converted = {name: value for name, value in converted.items() if not re.match(unused, name)}
    return make_model(kind, config, converted)


def convert(source: str | Path, out: str | Path, **options) -> list[str]:
    """
    Convert a `.pt` file of the original to a checkpoint folder with weights, configuration and feature extractor. The
    file has no vocabularies of contexts (the original saves them in separate pickles), which further pre-training
    needs. SMILES are used as written, as in the original.

    The original pads lists of neighbours to the highest number of neighbours in the batch, and its weights were trained
    with that. The checkpoint pads them to 4 (`padded_neighbors`): its numbers do not depend on the batch, and equal the
    original's in any batch whose highest number of neighbours is 4, as in nearly all batches of drug-like molecules. A
    molecule with an atom of more neighbours has the original's numbers of a batch in which no other atom has more.

    A property model with 200 features gets an extractor that computes the normalised descriptors of the paper, unless
    the file names another generator. The file does not say what features the original read from disk
    (`--features_path`, as in its README). Any other number of features must be passed to the model.

    Args:
        source: file written by the original's `save_checkpoint` or pre-training.
        out: folder of the checkpoint.
        options: fields of [`GroverConfig`] that override the file, for instance `legacy_padding=True` to pad as the
            original does.
    Returns:
        A sentence for each choice that the file does not determine.
    Raises:
        OSError, ValueError: see [`read_saved`] and [`convert_model`].
    """
    saved = read_saved(source)
    model = convert_model(saved, **options)
    generators = vars(saved["args"]).get("features_generator")
    descriptors = model.config.features_dim == len(DESCRIPTOR_NAMES) and generators in (None, ["rdkit_2d_normalized"])
    model.save_pretrained(out)
    GroverFeatureExtractor(canonical=False, standardize="none", descriptors=descriptors).save_pretrained(out)
    if model.config.legacy_padding:
        padding = "to the highest number in the batch (legacy_padding): an embedding depends on its batch"
    elif model.config.padded_neighbors is None:
        padding = "not at all (padded_neighbors null): the numbers are not the original's"
    else:
        number = model.config.padded_neighbors
        padding = (
            f"to {number} (padded_neighbors): the numbers are the original's in any batch whose highest number of "
            f"neighbours is {number}, and depend on no batch"
        )
    return [f"Lists of neighbours are padded {padding}.", "SMILES are taken as written, as in the original."]


__all__ = ["config_of", "convert", "convert_model", "convert_state", "read_saved"]
