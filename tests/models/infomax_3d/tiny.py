"""A tiny 3D Infomax, and the original's state dicts with weights drawn by name."""

import zlib

import torch

from hf_molrep.models.infomax_3d.configuration_infomax_3d import Infomax3DConfig


def tiny_config(**options) -> Infomax3DConfig:
    """Two layers, width 8, projection 6, no dropout, squared error."""
    sizes = {"embedding_dim": 8, "num_layers": 2, "readout_dim": 8, "projection_dim": 6, "net_3d_dim": 6}
    fixed = {"transformer_dropout": 0.0, "regression_loss": "mse"}
    return Infomax3DConfig(**{**sizes, **fixed, **options})


def block_shapes(name: str, inputs: int, outputs: int, norm: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's `FCLayer`."""
    shapes: dict[str, tuple[int, ...]] = {f"{name}.linear.weight": (outputs, inputs), f"{name}.linear.bias": (outputs,)}
    if norm:
        parts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (outputs,))
        shapes |= {f"{name}.batch_norm.{part}": shape for part, shape in {**parts, "num_batches_tracked": ()}.items()}
    return shapes


def original_shapes(
    width: int = 24,
    layers: int = 3,
    outputs: int = 16,
    chiralities: int = 5,
    readouts: int = 3,
    prefix: str = "node_gnn",
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's 2D network with a readout network of two layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place, size in enumerate((119, chiralities, 12, 12, 10, 6, 6, 2, 2)):
        shapes[f"{prefix}.atom_encoder.atom_embedding_list.{place}.weight"] = (size, width)
    for place, size in enumerate((5, 6, 2)):
        shapes[f"{prefix}.bond_encoder.bond_embedding_list.{place}.weight"] = (size, width)
    for layer in range(layers):
        name = f"{prefix}.mp_layers.{layer}"
        shapes |= block_shapes(f"{name}.pretrans.fully_connected.0", 3 * width, width)
        shapes |= block_shapes(f"{name}.pretrans.fully_connected.1", width, width)
        shapes |= block_shapes(f"{name}.posttrans.fully_connected.0", 13 * width, width)
    shapes |= block_shapes("output.fully_connected.0", readouts * width, width)
    return shapes | block_shapes("output.fully_connected.1", width, outputs, norm=False)


def original_shapes_3d(width: int = 20, outputs: int = 16) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's network of conformers with one layer."""
    return {
        "node_embedding": (width,),
        **block_shapes("edge_input.fully_connected.0", 9, width),
        **block_shapes("mp_layers.0.message_network.fully_connected.0", 3 * width, width),
        **block_shapes("mp_layers.0.update_network.fully_connected.0", width, width),
        "mp_layers.0.soft_edge_network.weight": (1, width),
        "mp_layers.0.soft_edge_network.bias": (1,),
        **block_shapes("output.fully_connected.0", 3 * width, outputs, norm=False),
    }


def original_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A state dict of the original in which every tensor depends on nothing but its name and shape."""
    state = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name.endswith("running_var"):
            state[name] = 0.5 + drawn.abs()
        elif name.endswith("batch_norm.weight"):
            state[name] = 1 + 0.1 * drawn
        elif name == "node_embedding":
            state[name] = drawn
        elif len(shape) == 1:
            state[name] = 0.05 * drawn
        else:
            state[name] = drawn / shape[-1] ** 0.5
    return state
