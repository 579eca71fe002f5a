"""A tiny MolCLR, and the original's state dict with weights drawn by name."""

import zlib
from collections.abc import Mapping

import torch

from hf_molrep.models.molclr.configuration_molclr import MolCLRConfig


def tiny_config(**options) -> MolCLRConfig:
    """Three layers, hidden 16, embedding 12, projection 8, no dropout."""
    sizes = {"embedding_dim": 16, "num_layers": 3, "feature_dim": 12, "projection_dim": 8}
    return MolCLRConfig(**{**sizes, "finetuning_dropout": 0.0, **options})


def original_shapes(gnn_type: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's `GINet(feat_dim=512)` or `GCN(feat_dim=512)`."""
    shapes: dict[str, tuple[int, ...]] = {"x_embedding1.weight": (119, 300), "x_embedding2.weight": (3, 300)}
    for layer in range(5):
        if gnn_type == "gin":
            parts = {"mlp.0.weight": (600, 300), "mlp.0.bias": (600,), "mlp.2.weight": (300, 600), "mlp.2.bias": (300,)}
            width = 300
        else:
            parts, width = {"weight": (300, 300), "bias": (300,)}, 1
        parts |= {"edge_embedding1.weight": (5, width), "edge_embedding2.weight": (3, width)}
        shapes |= {f"gnns.{layer}.{name}": shape for name, shape in parts.items()}
        norm = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (300,)) | {"num_batches_tracked": ()}
        shapes |= {f"batch_norms.{layer}.{name}": shape for name, shape in norm.items()}
    shapes |= {"feat_lin.weight": (512, 300), "feat_lin.bias": (512,)}
    return shapes | {
        "out_lin.0.weight": (512, 512),
        "out_lin.0.bias": (512,),
        "out_lin.2.weight": (256, 512),
        "out_lin.2.bias": (256,),
    }


def original_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A state dict of the original in which every tensor depends on nothing but its name and shape."""
    state = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name.endswith("running_var"):
            state[name] = 0.5 + drawn.abs()
        elif name.startswith("batch_norms") and name.endswith("weight"):
            state[name] = 1 + 0.1 * drawn
        elif len(shape) == 1:
            state[name] = 0.05 * drawn
        else:
            state[name] = drawn / shape[-1] ** 0.5
    return state
