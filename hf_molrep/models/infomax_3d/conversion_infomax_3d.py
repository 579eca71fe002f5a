"""Weights of 3D Infomax, pre-trained or fine-tuned, to checkpoints of this package."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...hub import save_checkpoint
from ..foreign_weights import check_state, label_fields, make_config, make_model, read_file, shape_of
from .configuration_infomax_3d import Infomax3DConfig
from .feature_extraction_infomax_3d import Infomax3DFeatureExtractor
from .modeling_infomax_3d import Infomax3DForPreTraining, Infomax3DForPropertyPrediction, Infomax3DModel

# Names of the 2D network of the original -> ours; older files say `gnn.` or `gnn2.` for `node_gnn.`.
NAMES = {
    r"(?:node_gnn|gnn2?)\.atom_encoder\.atom_embedding_list\.(\d+)\.": r"infomax_3d.atom_embeddings.\1.",
    r"(?:node_gnn|gnn2?)\.bond_encoder\.bond_embedding_list\.(\d+)\.": r"infomax_3d.bond_embeddings.\1.",
    r"(?:node_gnn|gnn2?)\.mp_layers\.(\d+)\.pretrans\.fully_connected\.0\.": r"infomax_3d.layers.\1.message_in.",
    r"(?:node_gnn|gnn2?)\.mp_layers\.(\d+)\.pretrans\.fully_connected\.1\.": r"infomax_3d.layers.\1.message_out.",
    r"(?:node_gnn|gnn2?)\.mp_layers\.(\d+)\.posttrans\.fully_connected\.0\.": r"infomax_3d.layers.\1.update.",
}
# Those of its network of conformers.
NAMES_3D = {
    r"node_embedding$": "conformer_encoder.atom_embedding",
    r"edge_input\.fully_connected\.0\.": "conformer_encoder.pair_in.",
    r"mp_layers\.(\d+)\.message_network\.fully_connected\.0\.": r"conformer_encoder.layers.\1.message.",
    r"mp_layers\.(\d+)\.update_network\.fully_connected\.0\.": r"conformer_encoder.layers.\1.update.",
    r"mp_layers\.(\d+)\.soft_edge_network\.": r"conformer_encoder.layers.\1.gate.",
    r"output\.fully_connected\.0\.linear\.": "conformer_encoder.out_proj.",
}
OUTPUT = r"output\.fully_connected\.(\d+)\."
# The scheduler's and optimiser's numbers, which stand beside the weights.
ALLOWED = [np._core.multiarray.scalar, np.dtype, *(type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8", "?"))]


def convert_state(
    state: Mapping[str, torch.Tensor], state_3d: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """
    The two `state_dict`s of the original under our names.

    Args:
        state: of the 2D network with its readout network; state_3d: of the network of conformers, where there is one.
    Raises:
        ValueError: a name that the original does not have.
    """
    head = "graph_readout." if state_3d else "head.network."
    last = max((int(match[1]) for key in state if (match := re.match(OUTPUT, key))), default=0)
    converted = {}
    for key, value in state.items():
        if match := re.match(OUTPUT, key):
            block = "out_proj." if int(match[1]) == last else f"blocks.{match[1]}."
            name = re.sub(OUTPUT, head + block, key)
            name = name.replace("out_proj.linear.", "out_proj.")
        else:
            name = _renamed(key, NAMES)
        converted[_parts(name)] = value.contiguous()
    for key, value in (state_3d or {}).items():
        converted[_parts(_renamed(key, NAMES_3D))] = value.contiguous()
    return converted


def _renamed(key: str, names: Mapping[str, str]) -> str:
    pattern = next((pattern for pattern in names if re.match(pattern, key)), None)
    if pattern is None:
        raise ValueError(f"{key!r} is not a name of 3D Infomax's state dict")
    return re.sub(pattern, names[pattern], key, count=1)


def _parts(name: str) -> str:
    """Names of the parts of a block."""
    return name.replace(".linear.", ".dense.").replace(".batch_norm.", ".norm.")


def config_of(
    state: Mapping[str, torch.Tensor], state_3d: Mapping[str, torch.Tensor] | None = None, **options
) -> Infomax3DConfig:
    """
    The configuration that the `state_dict`s belong to, read from their names (see [`convert_state`]) and shapes.

    Args:
        options: further fields of [`Infomax3DConfig`].
    Raises:
        ValueError: the layout is none that is known.
    """
    converted = convert_state(state, state_3d)
    atoms, width = shape_of(converted, "infomax_3d.atom_embeddings.0.weight")
    layers = [int(match[1]) for name in converted if (match := re.match(r"infomax_3d\.layers\.(\d+)\.", name))]
    if not layers:
        raise ValueError("not a state dict of 3D Infomax: it has no mp_layers")
    fields: dict[str, Any] = {
        "num_atom_types": atoms,
        "num_chiralities": shape_of(converted, "infomax_3d.atom_embeddings.1.weight")[0],
        "embedding_dim": width,
        "num_layers": 1 + max(layers),
    }
    head = "graph_readout." if state_3d else "head.network."
    if f"{head}out_proj.weight" in converted:
        outputs, readout_dim = shape_of(converted, f"{head}out_proj.weight")
        blocks = [name for name in converted if re.match(rf"{re.escape(head)}blocks\.\d+\.dense\.weight", name)]
        fields["readout_layers"] = 1 + len(blocks)
        if blocks:
            fields["readout_dim"] = readout_dim
        inputs = shape_of(converted, f"{head}blocks.0.dense.weight")[1] if blocks else readout_dim
        if state_3d:
            fields["projection_dim"] = outputs
            if inputs != 3 * width:
                raise ValueError(f"the readout network takes {inputs} numbers, not minimum, maximum, mean of {width}")
        else:
            readouts = {3 * width: ["min", "max", "mean"], 4 * width: ["min", "max", "mean", "sum"]}
            if inputs not in readouts:
                raise ValueError(f"the readout network takes {inputs} numbers, not three or four times {width}")
            fields["finetuning_readout"] = readouts[inputs]
            fields["id2label"] = {number: f"task_{number}" for number in range(outputs)}
    if state_3d:
        wide, inputs = shape_of(converted, "conformer_encoder.pair_in.dense.weight")
        fields["net_3d_dim"], fields["num_fourier"] = wide, (inputs - 1) // 2
        fields["net_3d_layers"] = 1 + max(
            int(match[1]) for name in converted if (match := re.match(r"conformer_encoder\.layers\.(\d+)\.", name))
        )
    return make_config(Infomax3DConfig, **{**fields, **options})


def convert_model(
    state: Mapping[str, torch.Tensor], state_3d: Mapping[str, torch.Tensor] | None = None, **options
) -> Infomax3DForPreTraining | Infomax3DForPropertyPrediction | Infomax3DModel:
    """
    The model in evaluation mode with the weights of the original: for pre-training where there is a network of
    conformers, with a property head where there is a readout network alone, else the encoder. Every tensor must find
    its place.

    Args:
        state, state_3d, options: see [`config_of`].
    Raises:
        ValueError: as [`config_of`] and [`convert_state`]; or tensors are missing or have another shape.
    """
    converted, config = convert_state(state, state_3d), config_of(state, state_3d, **options)
    if state_3d:
        return make_model(Infomax3DForPreTraining, config, converted)
    if "head.network.out_proj.weight" in converted:
        return make_model(Infomax3DForPropertyPrediction, config, converted)
    return make_model(
        Infomax3DModel, config, {name.removeprefix("infomax_3d."): value for name, value in converted.items()}
    )


def read_states(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
    """
    The `state_dict`s in a checkpoint of the original, of the 2D network and, where there is one, of that of conformers.
    Only tensors and numbers are read: a file that would run code is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see [`~hf_molrep.models.foreign_weights.read_file`] and
            [`~hf_molrep.models.foreign_weights.check_state`].
    """
    found = read_file(path, ALLOWED)
    if not isinstance(found, Mapping) or "model_state_dict" not in found:
        raise ValueError(f"{path} is no checkpoint of 3D Infomax: it holds no state dict as 'model_state_dict'")
    of_conformers = found.get("model3d_state_dict")
    return (
        check_state(found["model_state_dict"], path),
        check_state(of_conformers, path) if of_conformers else None,
    )


def convert(
    source: str | Path,
    out: str | Path,
    *,
    explicit_hydrogens: bool = False,
    num_conformers: int = 1,
    label_mean: float | Sequence[float] | None = None,
    label_std: float | Sequence[float] | None = None,
    task_names: str | Sequence[str] | None = None,
) -> list[str]:
    """
    A checkpoint of the original to one of this package, in float32, with the feature extractor. SMILES are taken as
    written, as in the original.

    A fine-tuned file predicts z-scored labels and does not save their scale: without `label_mean` and `label_std`
    predictions stay in it.

    Args:
        source: the original's `best_checkpoint.pt`, or one like it.
        out: folder of the checkpoint.
        explicit_hydrogens: hydrogens were atoms of the graphs that the weights have seen, which the file does not tell:
            in the original for QM9, and not for QMugs, GEOM-Drugs and the tasks of MoleculeNet.
        num_conformers: of each molecule in pre-training, which the file does not tell either: 3 for QMugs, 5 for
            GEOM-Drugs.
        label_mean, label_std: of a fine-tuned regression, how its labels were scaled: a number, or one for each task.
        task_names: what a fine-tuned file predicts, such as `"homo"`.
    Returns:
        What was chosen where the file leaves it open, a sentence each.
    Raises:
        OSError, ValueError: as [`read_states`] and [`convert_model`]; something said of labels that the file does not
            have.
    """
    state, state_3d = read_states(source)
    fields = label_fields(label_mean, label_std, task_names)
    if fields and (state_3d or not any(re.match(OUTPUT, key) for key in state)):
        raise ValueError("the file was not fine-tuned: label_mean, label_std and task_names are of properties")
    model = convert_model(state, state_3d, **fields, **({"num_conformers": num_conformers} if state_3d else {}))
    told = [
        "SMILES are taken as written, as in the original.",
        f"Hydrogens are {'' if explicit_hydrogens else 'not '}atoms of the graphs: the file does not tell "
        "(explicit_hydrogens).",
    ]
    if isinstance(model, Infomax3DForPropertyPrediction) and not {"label_mean", "label_std"} & fields.keys():
        told.append("Predictions are z-scored: label_mean and label_std, which the file does not hold, were not given.")
    processor = Infomax3DFeatureExtractor(explicit_hydrogens=explicit_hydrogens, canonical=False, standardize="none")
    save_checkpoint(model, processor, out, weights_dtype=None)
    return told


__all__ = ["config_of", "convert", "convert_model", "convert_state", "read_states"]
