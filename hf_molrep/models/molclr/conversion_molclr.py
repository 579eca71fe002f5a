"""Released weights of MolCLR and of pretrain-gnns to checkpoints of this package."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from ...hub import save_checkpoint
from .configuration_molclr import MolCLRConfig
from .feature_extraction_molclr import MolCLRFeatureExtractor
from .modeling_molclr import MolCLRForPreTraining, MolCLRModel

# Names of the original (both projects share them) -> ours. A fine-tuned file has `pred_head` in place of `out_lin`.
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


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    A `state_dict` of the original under our names.

    Raises:
        ValueError: a name that the original does not have.
    """
    converted = {}
    for key, value in state.items():
        pattern = next((pattern for pattern in NAMES if re.match(pattern, key)), None)
        if pattern is None:
            raise ValueError(f"{key!r} is not a name of MolCLR's or pretrain-gnns' state dict")
        if re.fullmatch(r"gnns\.\d+\.weight", key):  # the original multiplies from the left
            value = value.T
        elif key.endswith(".att"):  # [1, heads, 2 * hidden]
            value = value[0]
        converted[re.sub(pattern, NAMES[pattern], key, count=1)] = value.contiguous()
    return converted


def config_of(state: Mapping[str, torch.Tensor], gnn_type: str | None = None) -> MolCLRConfig:
    """
    The configuration that a `state_dict` of the original belongs to, read from its names and shapes.

    Args:
        gnn_type: needed for the GCN and GraphSAGE of pretrain-gnns, whose files have the same layout.
    Raises:
        ValueError: the layout is none that is known, or it needs `gnn_type`, or it contradicts it.
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
    options = {"feature_dim": state["feat_lin.weight"].shape[0] if "feat_lin.weight" in state else None}
    if state["x_embedding1.weight"].shape[0] == 120:  # the last atom and bond types of pretrain-gnns
        options["mask_atom_type"] = 119
    if state["gnns.0.edge_embedding1.weight"].shape[0] == 6:
        options["mask_bond_type"] = 5
    if "out_lin.2.weight" in state:
        options["projection_dim"] = state["out_lin.2.weight"].shape[0]
    if "gnns.0.att" in state:
        options["num_heads"] = state["gnns.0.att"].shape[1]
    return MolCLRConfig(
        gnn_type=gnn_type or found[0],
        num_atom_types=state["x_embedding1.weight"].shape[0],
        num_chiralities=state["x_embedding2.weight"].shape[0],
        num_bond_types=state["gnns.0.edge_embedding1.weight"].shape[0],
        num_bond_directions=state["gnns.0.edge_embedding2.weight"].shape[0],
        embedding_dim=state["x_embedding1.weight"].shape[1],
        num_layers=1 + max(int(key.split(".")[1]) for key in state if key.startswith("gnns.")),
        **options,
    )


def convert_model(state: Mapping[str, torch.Tensor], gnn_type: str | None = None) -> MolCLRForPreTraining | MolCLRModel:
    """
    The model in evaluation mode with the weights of the original: with its projection where the file has one (MolCLR),
    else the encoder alone (pretrain-gnns). Every tensor must find its place.

    Raises:
        ValueError: as [`config_of`] and [`convert_state`]; or tensors are missing or have another shape.
    """
    config, converted = config_of(state, gnn_type), convert_state(state)
    if "contrast_out.weight" in converted:
        model = MolCLRForPreTraining(config)
    else:
        model = MolCLRModel(config)
        converted = {name.removeprefix("molclr."): value for name, value in converted.items()}
    try:
        model.load_state_dict(converted)
    except RuntimeError as error:
        raise ValueError(f"the state dict is incomplete: {error}") from error
    return model.eval()


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """
    The `state_dict` in a file of `torch.save`. Only tensors are read: a file that would run code is refused.

    Raises:
        OSError: no such file.
        ValueError: not such a file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is no file of tensors alone: {str(error).splitlines()[0]}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict (names and tensors)")
    return dict(state)


def convert(
    source: str | Path,
    out: str | Path,
    *,
    gnn_type: Literal["gin", "gcn", "gcn_normalized", "graphsage", "gat"] | None = None,
) -> Path:
    """
    A file of released weights to a checkpoint, in float32, with the feature extractor of the graphs that the original
    fine-tunes: hydrogens explicit for MolCLR, implicit for pretrain-gnns (whose files have no `feat_lin`). SMILES are
    taken as drawn.

    Args:
        source: the file of weights.
        out: folder of the checkpoint.
        gnn_type: the layers: of MolCLR `"gin"` or `"gcn"`, of pretrain-gnns `"gin"`, `"gcn_normalized"`, `"graphsage"`
            or `"gat"`. Needed for the GCN and GraphSAGE of pretrain-gnns alone, whose files have the same layout; all
            others tell it.
    Returns:
        `out`.
    Raises:
        OSError, ValueError: as [`read_state`] and [`convert_model`].
    """
    state = read_state(source)
    model = convert_model(state, gnn_type)
    processor = MolCLRFeatureExtractor(explicit_hydrogens="feat_lin.weight" in state, standardize="none")
    return save_checkpoint(model, processor, out, weights_dtype=None)
