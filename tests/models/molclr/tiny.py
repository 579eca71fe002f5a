"""A tiny MolCLR, and the original's state dict with weights drawn by name."""

import zlib
from collections.abc import Mapping

import torch

from hf_molrep.models.molclr.configuration_molclr import MolCLRConfig


def tiny_config(**options) -> MolCLRConfig:
    """Three layers, hidden 16, embedding 12, projection 8, no dropout."""
    sizes = {"embedding_dim": 16, "num_layers": 3, "feature_dim": 12, "projection_dim": 8}
    return MolCLRConfig(**{**sizes, "finetuning_dropout": 0.0, **options})


def original_shapes(
    gnn_type: str, width: int = 300, layers: int = 5, features: int = 512
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's `GINet(num_layer, emb_dim, feat_dim)` or `GCN(..)`."""
    shapes: dict[str, tuple[int, ...]] = {"x_embedding1.weight": (119, width), "x_embedding2.weight": (3, width)}
    for layer in range(layers):
        if gnn_type == "gin":
            parts = {"mlp.0.weight": (2 * width, width), "mlp.0.bias": (2 * width,)}
            parts |= {"mlp.2.weight": (width, 2 * width), "mlp.2.bias": (width,)}
        else:
            parts = {"weight": (width, width), "bias": (width,)}
        of_bonds = width if gnn_type == "gin" else 1
        parts |= {"edge_embedding1.weight": (5, of_bonds), "edge_embedding2.weight": (3, of_bonds)}
        shapes |= {f"gnns.{layer}.{name}": shape for name, shape in parts.items()}
        norm = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,)) | {"num_batches_tracked": ()}
        shapes |= {f"batch_norms.{layer}.{name}": shape for name, shape in norm.items()}
    shapes |= {"feat_lin.weight": (features, width), "feat_lin.bias": (features,)}
    return shapes | {
        "out_lin.0.weight": (features, features),
        "out_lin.0.bias": (features,),
        "out_lin.2.weight": (features // 2, features),
        "out_lin.2.bias": (features // 2,),
    }


def finetuned_shapes(gnn_type: str, outputs: int, hidden_layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small model of the original's `ginet_finetune.py` or `gcn_finetune.py`."""
    shapes = original_shapes(gnn_type, width=12, layers=2, features=8)
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("out_lin")}
    for place, widths in enumerate([(4, 8)] + [(4, 4)] * (hidden_layers - 1) + [(outputs, 4)]):
        shapes |= {f"pred_head.{2 * place}.weight": widths, f"pred_head.{2 * place}.bias": widths[:1]}
    return shapes


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
