"""Convert released and fine-tuned weights of MolCLR, and weights of pretrain-gnns, to checkpoints of this package."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from ...hub import save_checkpoint
from ..foreign_weights import check_state, label_fields, make_config, make_model, read_file, shape_of
from .configuration_molclr import MolCLRConfig
from .feature_extraction_molclr import MolCLRFeatureExtractor
from .modeling_molclr import MolCLRForPreTraining, MolCLRForPropertyPrediction, MolCLRModel

# Names of the original (both projects share them) -> ours.
NAMES = {
    r"x_embedding1\.": "molclr.atom_embeddings.",
    r"x_embedding2\.": "molclr.chirality_embeddings.",
    r"gnns\.(\d+)\.edge_embedding1\.": r"molclr.layers.\1.bond_embeddings.",
    r"gnns\.(\d+)\.edge_embedding2\.": r"molclr.layers.\1.direction_embeddings.",
    r"gnns\.(\d+)\.mlp\.0\.": r"molclr.layers.\1.up_proj.",
    r"gnns\.(\d+)\.mlp\.2\.": r"molclr.layers.\1.down_proj.",
    r"gnns\.(\d+)\.weight$": r"molclr.layers.\1.dense.weight",
    r"gnns\.(\d+)\.(?:weight_)?linear\.": r"molclr.layers.\1.dense.",
    r"gnns\.(\d+)\.att$": r"molclr.layers.\1.attention",
    r"gnns\.(\d+)\.bias$": r"molclr.layers.\1.bias",
    r"batch_norms\.": "molclr.norms.",
    r"feat_lin\.": "molclr.feature.",
    r"out_lin\.0\.": "contrast_dense.",
    r"out_lin\.2\.": "contrast_out.",
}
# property head of a fine-tuned file: linear layers with softplus between them, so every second index
HEAD = r"pred_head\.(\d+)\.(weight|bias)$"


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Rename a `state_dict` of the original. The two classes of a fine-tuned file (softmax) become one logit `[1]`
    (sigmoid) of the second class, with the same probabilities.

    Raises:
        ValueError: a name is unknown, or the property head is of another kind.
    """
    converted = {}
    places = sorted({int(match[1]) for key in state if (match := re.match(HEAD, key))})
    if places and (places != list(range(0, 2 * len(places), 2)) or len(places) < 2):
        raise ValueError(
            f"the layers {', '.join(map(str, places))} of pred_head are not those of the original's head with softplus "
            "(0, 2, ...), the only one that has a counterpart here"
        )
    for key, value in state.items():
        if match := re.match(HEAD, key):
            place, part = int(match[1]), match[2]
            if place < places[-1]:
                converted[f"head.dense.{place // 2}.{part}"] = value
                continue
            if not value.dim() or len(value) not in (1, 2):
                raise ValueError(
                    f"{key!r} has the shape {tuple(value.shape)}: the original's head has one output (a regression) or "
                    "two (two classes)"
                )
            converted[f"head.out_proj.{part}"] = value if len(value) == 1 else (value[1] - value[0])[None]
            continue
        pattern = next((pattern for pattern in NAMES if re.match(pattern, key)), None)
        if pattern is None:
            raise ValueError(f"{key!r} is not a name of MolCLR's or pretrain-gnns' state dict")
        if re.fullmatch(r"gnns\.\d+\.weight", key):  # the original multiplies from the other side
            value = value.T
        elif key.endswith(".att"):  # [1, heads, 2 * hidden]
            value = value.flatten(0, 1) if value.dim() == 3 else value
        converted[re.sub(pattern, NAMES[pattern], key, count=1)] = value.contiguous()
    return converted


def config_of(state: Mapping[str, torch.Tensor], gnn_type: str | None = None, **options) -> MolCLRConfig:
    """
    Make the configuration of a `state_dict` of the original from its names and shapes.

    Args:
        gnn_type: needed for the GCN and GraphSAGE of pretrain-gnns, whose files have the same layout.
        options: further fields of [`MolCLRConfig`].
    Raises:
        ValueError: the layout is unknown, ambiguous without `gnn_type`, or contradicts it.
    """
    if "x_embedding1.weight" not in state or "gnns.0.edge_embedding1.weight" not in state:
        raise ValueError("not a state dict of MolCLR or pretrain-gnns: it has no x_embedding1 and gnns.0")
    kinds = {
        "gnns.0.mlp.0.weight": ("gin",),
        "gnns.0.weight": ("gcn",),
        "gnns.0.att": ("gat",),
        "gnns.0.linear.weight": ("gcn_normalized", "graphsage"),
    }
    found = next((types for key, types in kinds.items() if key in state), ())
    if not found:
        raise ValueError("the layers of the state dict are none of GIN, GCN, GraphSAGE and GAT")
    if gnn_type is None and len(found) > 1:
        raise ValueError(f"the layout does not tell {' from '.join(found)}: say which (--gnn-type)")
    if gnn_type is not None and gnn_type not in found:
        raise ValueError(f"the state dict is of type {' or '.join(found)}, not {gnn_type}")
    atom_types, width = shape_of(state, "x_embedding1.weight")
    bond_types, _ = shape_of(state, "gnns.0.edge_embedding1.weight")
    fields = {
        "gnn_type": gnn_type or found[0],
        "num_atom_types": atom_types,
        "num_chiralities": shape_of(state, "x_embedding2.weight")[0],
        "num_bond_types": bond_types,
        "num_bond_directions": shape_of(state, "gnns.0.edge_embedding2.weight")[0],
        "embedding_dim": width,
        "num_layers": 1 + max(int(match[1]) for key in state if (match := re.match(r"gnns\.(\d+)\.", key))),
        "feature_dim": shape_of(state, "feat_lin.weight")[0] if "feat_lin.weight" in state else None,
    }
    if atom_types == 120:  # the last atom and bond types of pretrain-gnns
        fields["mask_atom_type"] = 119
    if bond_types == 6:
        fields["mask_bond_type"] = 5
    if "out_lin.2.weight" in state:
        fields["projection_dim"] = shape_of(state, "out_lin.2.weight")[0]
    if "gnns.0.att" in state:
        fields["num_heads"] = shape_of(state, "gnns.0.att", 3)[1]
    places = [int(match[1]) for key in state if (match := re.match(HEAD, key)) and match[2] == "weight"]
    if places:
        outputs, _ = shape_of(state, f"pred_head.{max(places)}.weight")
        fields["head_layers"] = len(places) - 1
        fields["problem_type"] = "regression" if outputs == 1 else "multi_label_classification"
        fields["id2label"] = {0: "task_0"}
    return make_config(MolCLRConfig, **{**fields, **options})


def convert_model(
    state: Mapping[str, torch.Tensor], gnn_type: str | None = None, **options
) -> MolCLRForPreTraining | MolCLRForPropertyPrediction | MolCLRModel:
    """
    Make the model in evaluation mode with the weights of the original: with the projection of MolCLR, with the property
    head of a fine-tuned file, or the encoder alone (pretrain-gnns).

    Args:
        gnn_type, options: see [`config_of`].
    Raises:
        ValueError: see [`config_of`] and [`convert_state`]; or tensors are missing or have another shape.
    """
    converted = convert_state(state)
    config = config_of(state, gnn_type, **options)
    if "head.out_proj.weight" in converted:
        return make_model(MolCLRForPropertyPrediction, config, converted)
    if "contrast_out.weight" in converted:
        return make_model(MolCLRForPreTraining, config, converted)
    return make_model(MolCLRModel, config, {name.removeprefix("molclr."): value for name, value in converted.items()})


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Read the `state_dict` in a file of `torch.save`. A file that would run code is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see [`~hf_molrep.models.foreign_weights.read_file`] and
            [`~hf_molrep.models.foreign_weights.check_state`].
    """
    return check_state(read_file(path), path)


def convert(
    source: str | Path,
    out: str | Path,
    *,
    gnn_type: Literal["gin", "gcn", "gcn_normalized", "graphsage", "gat"] | None = None,
    label_mean: float | None = None,
    label_std: float | None = None,
    task_names: str | Sequence[str] | None = None,
) -> list[str]:
    """
    Convert released or fine-tuned weights to a checkpoint in float32, with the feature extractor that the original uses
    for fine-tuning: explicit hydrogens for MolCLR, implicit ones for pretrain-gnns (whose files have no `feat_lin`).
    SMILES are used as written, as in the original.

    A fine-tuned file of MolCLR has one task: a regression (one output), or two classes (two outputs, softmax), which
    are saved as one logit. The original scales the labels of QM7 and QM9 and does not save the scale: without
    `label_mean` and `label_std` predictions stay scaled.

    Args:
        source: the file of weights.
        out: folder of the checkpoint.
        gnn_type: the layers: for MolCLR `"gin"` or `"gcn"`, for pretrain-gnns `"gin"`, `"gcn_normalized"`,
            `"graphsage"` or `"gat"`. Needed only for the GCN and GraphSAGE of pretrain-gnns, whose files have the same
            layout.
        label_mean, label_std: scaling of the labels of a fine-tuned regression: a number each.
        task_names: name of the task of a fine-tuned file, such as `"p_np"`.
    Returns:
        A sentence for each choice that the file does not determine.
    Raises:
        OSError, ValueError: see [`read_state`] and [`convert_model`]; or the file has no property head or scaled labels
            to which the arguments refer.
    """
    state = read_state(source)
    fields = label_fields(label_mean, label_std, task_names)
    if not any(re.match(HEAD, key) for key in state):
        given = {"label_mean": label_mean, "label_std": label_std, "task_names": task_names}
        if named := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"the file has no property head that {', '.join(named)} could be of")
    elif len(fields.get("id2label", [""])) != 1:
        raise ValueError(f"{len(fields['id2label'])} task_names for one task")
    model = convert_model(state, gnn_type, **fields)
    choices = ["SMILES are taken as written, as in the original."]
    if isinstance(model, MolCLRForPropertyPrediction):
        if model.config.problem_type != "regression":
            if scaled := fields.keys() & {"label_mean", "label_std"}:
                raise ValueError(f"the file has two classes, and {', '.join(sorted(scaled))} are of a regression")
            choices.append("Two classes under a softmax are saved as one logit: the probability of the second.")
        elif not fields.keys() & {"label_mean", "label_std"}:
            choices.append(
                "Predictions are the outputs as they are: labels that were scaled (QM7, QM9) need label_mean and "
                "label_std, which the file does not hold."
            )
    explicit = "feat_lin.weight" in state
    processor = MolCLRFeatureExtractor(explicit_hydrogens=explicit, canonical=False, standardize="none")
    save_checkpoint(model, processor, out, weights_dtype=None)
    return choices


__all__ = ["config_of", "convert", "convert_model", "convert_state", "read_state"]
