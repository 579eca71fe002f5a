"""Weights of GraphMVP to checkpoints of this package."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ...hub import save_checkpoint
from ..foreign_weights import check_state, make_config, make_model, read_file, shape_of
from .configuration_graphmvp import GraphMVPConfig
from .feature_extraction_graphmvp import GraphMVPFeatureExtractor
from .modeling_graphmvp import GraphMVPForPreTraining, GraphMVPModel

# Names of the original -> ours. Both graph encoders have `gnns.{i}.mlp.0`.
GIN = {
    r"x_embedding([12])\.": lambda match: f"atom_embeddings.tables.{int(match[1]) - 1}.",
    r"gnns\.(\d+)\.edge_embedding([12])\.": lambda match: (
        f"layers.{match[1]}.bond_embeddings.tables.{int(match[2]) - 1}."
    ),
    r"gnns\.(\d+)\.mlp\.0\.": r"layers.\1.up_proj.",
    r"gnns\.(\d+)\.mlp\.2\.": r"layers.\1.down_proj.",
    r"batch_norms\.": "norms.",
}
OGB_GIN = {
    r"atom_encoder\.atom_embedding_list\.": "atom_embeddings.tables.",
    r"gnns\.(\d+)\.bond_encoder\.bond_embedding_list\.": r"layers.\1.messages.bond_embeddings.tables.",
    r"gnns\.(\d+)\.eps$": r"layers.\1.messages.eps",
    r"gnns\.(\d+)\.mlp\.0\.": r"layers.\1.up_proj.",
    r"gnns\.(\d+)\.mlp\.1\.": r"layers.\1.norm.",
    r"gnns\.(\d+)\.mlp\.3\.": r"layers.\1.down_proj.",
    r"batch_norms\.": "norms.",
}
SCHNET = {
    r"embedding\.": "element_embeddings.",
    r"interactions\.(\d+)\.mlp\.0\.": r"interactions.\1.filter_in.",
    r"interactions\.(\d+)\.mlp\.2\.": r"interactions.\1.filter_out.",
    r"interactions\.(\d+)\.conv\.lin1\.": r"interactions.\1.in_proj.",
    r"interactions\.(\d+)\.conv\.lin2\.": r"interactions.\1.out_proj.",
    r"interactions\.(\d+)\.lin\.": r"interactions.\1.dense.",
    r"lin1\.": "dense.",
    r"lin2\.": "out_proj.",
}
RECONSTRUCTION = {
    r"fc_mu\.": "mean_proj.",
    r"fc_var\.": "log_variance_proj.",
    r"decoder\.0\.": "dense.",
    r"decoder\.1\.": "norm.",
    r"decoder\.3\.": "out_proj.",
}
# The four state dicts of a `*_model_complete.pth`, and where they go.
PARTS = {
    "model": "graphmvp",
    "model_3D": "schnet",
    "AE_2D_3D_model": "graph_to_conformer",
    "AE_3D_2D_model": "conformer_to_graph",
}
OFFSETS = "distance_expansion.offset"


def _renamed(state: Mapping[str, torch.Tensor], names: Mapping, what: str) -> dict[str, torch.Tensor]:
    converted = {}
    for key, value in state.items():
        pattern = next((pattern for pattern in names if re.match(pattern, key)), None)
        if pattern is None:
            raise ValueError(f"{key!r} is not a name of GraphMVP's {what}")
        converted[re.sub(pattern, names[pattern], key, count=1)] = value.contiguous()
    return converted


def _without_copies(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """SchNet without what is no weight: masses, the centres of the Gaussians, and each filter's second name."""
    kept = {}
    for key, value in state.items():
        if ".conv.nn." in key:
            twin = state.get(key.replace(".conv.nn.", ".mlp."))
            if twin is None or not torch.equal(twin, value):
                raise ValueError(f"{key!r} is not the filter that stands under 'mlp' too: not GraphMVP's SchNet")
        elif key not in ("atomic_mass", OFFSETS):
            kept[key] = value
    return kept


def convert_parts(parts: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """
    State dicts of the original, by their names in `PARTS`, under our names.

    Raises:
        ValueError: a name that the original does not have.
    """
    converted = {}
    for part, place in PARTS.items():
        if part not in parts:
            continue
        state = parts[part]
        if part == "model":
            names, what = (OGB_GIN if "gnns.0.eps" in state else GIN), "graph encoder (GIN)"
        elif part == "model_3D":
            state, names, what = _without_copies(state), SCHNET, "SchNet"
        else:
            names, what = RECONSTRUCTION, "variational heads"
        converted |= {f"{place}.{name}": value for name, value in _renamed(state, names, what).items()}
    return converted


def _rows(state: Mapping[str, torch.Tensor], name: str, columns: Sequence[int]) -> list[int]:
    """Rows of the embeddings of each column."""
    return [shape_of(state, f"{name.format(column)}.weight")[0] for column in columns]


def _count(state: Mapping[str, torch.Tensor], name: str) -> int:
    return 1 + max((int(match[1]) for key in state if (match := re.match(rf"{name}\.(\d+)\.", key))), default=-1)


def config_of(parts: Mapping[str, Mapping[str, torch.Tensor]], **options) -> GraphMVPConfig:
    """
    The configuration that state dicts of the original belong to, read from their names and shapes.

    Args:
        parts: see [`convert_parts`].
        options: further fields of [`GraphMVPConfig`].
    Raises:
        ValueError: the layout is none that is known.
    """
    state = parts["model"]
    if "gnns.0.mlp.0.weight" not in state:
        raise ValueError("not a state dict of GraphMVP's graph encoder: it has no gnns.0.mlp.0 (a GIN)")
    ogb = "gnns.0.eps" in state
    if ogb:
        atoms = _rows(state, "atom_encoder.atom_embedding_list.{}", range(9))
        bonds = _rows(state, "gnns.0.bond_encoder.bond_embedding_list.{}", range(3))
    else:
        atoms = _rows(state, "x_embedding{}", (1, 2))
        bonds = _rows(state, "gnns.0.edge_embedding{}", (1, 2))
    fields = {
        "graph_scheme": "ogb" if ogb else "pretrain_gnns",
        "atom_feature_dims": atoms,
        "bond_feature_dims": bonds,
        "embedding_dim": shape_of(state, "gnns.0.mlp.0.weight")[1],
        "num_layers": _count(state, "gnns"),
    }
    if "model_3D" in parts:
        conformers = parts["model_3D"]
        (count,) = shape_of(conformers, OFFSETS, 1)
        fields |= {
            "num_elements": shape_of(conformers, "embedding.weight")[0],
            "num_interactions": _count(conformers, "interactions"),
            "num_filters": shape_of(conformers, "interactions.0.mlp.0.weight")[0],
            "num_gaussians": count,
            "cutoff": float(conformers[OFFSETS][-1]) if count else 0.0,
        }
    return make_config(GraphMVPConfig, **{**fields, **options})


def convert_model(parts: Mapping[str, Mapping[str, torch.Tensor]], **options) -> GraphMVPForPreTraining | GraphMVPModel:
    """
    The model in evaluation mode with the weights of the original: both encoders and the variational heads where all
    four are given, else the graph encoder. Every tensor must find its place.

    Args:
        parts: see [`convert_parts`].
        options: see [`config_of`].
    Raises:
        ValueError: as [`config_of`] and [`convert_parts`]; or tensors are missing or have another shape.
    """
    config, converted = config_of(parts, **options), convert_parts(parts)
    if set(parts) == set(PARTS):
        return make_model(GraphMVPForPreTraining, config, converted)
    return make_model(GraphMVPModel, config, {name.removeprefix("graphmvp."): each for name, each in converted.items()})


def read_parts(path: str | Path) -> dict[str, dict[str, torch.Tensor]]:
    """
    The state dicts in a file of the original, by their names in `PARTS`: one of `*_model.pth`, four of
    `*_model_complete.pth`. Only tensors are read: a file that would run code is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see [`~hf_molrep.models.foreign_weights.read_file`] and
            [`~hf_molrep.models.foreign_weights.check_state`]; some of the four are missing, or there are others.
    """
    found = read_file(path)
    if not isinstance(found, Mapping) or "model" not in found:
        return {"model": check_state(found, path)}
    if set(found) != set(PARTS):
        raise ValueError(
            f"{path} holds {', '.join(map(str, found))}; a complete file has the state dicts {', '.join(PARTS)}"
        )
    return {part: check_state(state, path) for part, state in found.items()}


def convert(source: str | Path, out: str | Path) -> list[str]:
    """
    A file of released weights to a checkpoint, in float32, with the feature extractor of the graphs that the original
    fine-tunes: heavy atoms alone. SMILES are taken as written, as in the original.

    Args:
        source: `*_model.pth` (the graph encoder) or `*_model_complete.pth` (also SchNet and the variational heads).
        out: folder of the checkpoint.
    Returns:
        What was chosen where the file leaves it open, a sentence each.
    Raises:
        OSError, ValueError: as [`read_parts`] and [`convert_model`].
    """
    parts = read_parts(source)
    model = convert_model(parts)
    told = [
        "SMILES are taken as written, as in the original.",
        "Hydrogens are left out, as in the original's fine-tuning; its pre-training sees them.",
    ]
    if isinstance(model, GraphMVPForPreTraining):
        told.append(
            f"The file does not tell its objective: temperature {model.config.temperature}, weights of the losses and "
            "the hybrid term are the defaults."
        )
    processor = GraphMVPFeatureExtractor(scheme=model.config.graph_scheme, canonical=False, standardize="none")
    save_checkpoint(model, processor, out, weights_dtype=None)
    return told


__all__ = ["config_of", "convert", "convert_model", "convert_parts", "read_parts"]
