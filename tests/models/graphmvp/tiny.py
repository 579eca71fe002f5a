"""A tiny GraphMVP, molecules with drawn coordinates, and the original's state dicts with weights drawn by name."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch

from hf_molrep.models.graphmvp import GraphMVPConfig, GraphMVPFeatureExtractor

OGB_ATOMS, OGB_BONDS = (119, 5, 12, 12, 10, 6, 6, 2, 2), (5, 6, 2)


def tiny_config(**options) -> GraphMVPConfig:
    """Three graph layers, two interactions, width 16, no dropout."""
    sizes = {"embedding_dim": 16, "num_layers": 3, "num_interactions": 2, "num_filters": 12, "num_gaussians": 8}
    return GraphMVPConfig(**{**sizes, "finetuning_dropout": 0.0, **options})


def with_conformers(extractor: GraphMVPFeatureExtractor, smiles: Sequence[str], conformers: int = 1) -> list[dict]:
    """Features of molecules with conformers drawn by the molecule (no real geometry, no force field)."""
    features = extractor.featurize({"smiles": smiles})
    for feature in features:
        rng = np.random.default_rng(zlib.crc32(feature["smiles_used"].encode()))
        pos = 2.0 * rng.standard_normal(3 * conformers * feature["num_nodes"])
        feature |= {"pos": pos.astype(np.float32), "num_conformers": conformers}
    return features


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    parts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,)) | {"num_batches_tracked": ()}
    return {f"{name}.{part}": shape for part, shape in parts.items()}


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def gin_shapes(width: int = 300, layers: int = 5) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `GNN(num_layer, emb_dim)`, the GIN of pretrain-gnns."""
    shapes: dict[str, tuple[int, ...]] = {"x_embedding1.weight": (120, width), "x_embedding2.weight": (3, width)}
    for layer in range(layers):
        prefix = f"gnns.{layer}"
        shapes |= _linear(f"{prefix}.mlp.0", 2 * width, width) | _linear(f"{prefix}.mlp.2", width, 2 * width)
        shapes |= {f"{prefix}.edge_embedding1.weight": (6, width), f"{prefix}.edge_embedding2.weight": (3, width)}
        shapes |= _norm(f"batch_norms.{layer}", width)
    return shapes


def ogb_shapes(width: int = 300, layers: int = 5, chiralities: int = 5) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `GNNComplete(num_layer, emb_dim)`; ogb of 2021 had four chiralities."""
    atoms = (OGB_ATOMS[0], chiralities, *OGB_ATOMS[2:])
    shapes: dict[str, tuple[int, ...]] = {
        f"atom_encoder.atom_embedding_list.{column}.weight": (rows, width) for column, rows in enumerate(atoms)
    }
    for layer in range(layers):
        prefix = f"gnns.{layer}"
        shapes |= {f"{prefix}.eps": (1,)}
        shapes |= _linear(f"{prefix}.mlp.0", 2 * width, width) | _norm(f"{prefix}.mlp.1", 2 * width)
        shapes |= _linear(f"{prefix}.mlp.3", width, 2 * width)
        for column, rows in enumerate(OGB_BONDS):
            shapes[f"{prefix}.bond_encoder.bond_embedding_list.{column}.weight"] = (rows, width)
        shapes |= _norm(f"batch_norms.{layer}", width)
    return shapes


def schnet_shapes(
    width: int = 300, interactions: int = 6, filters: int = 128, gaussians: int = 51
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the original's `SchNet`."""
    shapes: dict[str, tuple[int, ...]] = {"atomic_mass": (119,), "embedding.weight": (119, width)}
    shapes["distance_expansion.offset"] = (gaussians,)
    for block in range(interactions):
        prefix = f"interactions.{block}"
        for name in ("mlp", "conv.nn"):
            shapes |= _linear(f"{prefix}.{name}.0", filters, gaussians)
            shapes |= _linear(f"{prefix}.{name}.2", filters, filters)
        shapes |= _linear(f"{prefix}.conv.lin1", filters, width, bias=False)
        shapes |= _linear(f"{prefix}.conv.lin2", width, filters) | _linear(f"{prefix}.lin", width, width)
    return shapes | _linear("lin1", width, width) | _linear("lin2", width, width)


def reconstruction_shapes(width: int = 300) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `VariationalAutoEncoder(emb_dim)`."""
    shapes = _linear("fc_mu", width, width) | _linear("fc_var", width, width) | _linear("decoder.0", width, width)
    return shapes | _norm("decoder.1", width) | _linear("decoder.3", width, width)


def drawn(shapes: dict[str, tuple[int, ...]], prefix: str, cutoff: float = 10.0) -> dict[str, torch.Tensor]:
    """A state dict in which every tensor depends on nothing but its prefix, name and shape."""
    state = {}
    for name, shape in shapes.items():
        seed = zlib.crc32((prefix + name.replace(".conv.nn.", ".mlp.")).encode())
        r = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        if name.endswith("num_batches_tracked"):
            r = torch.tensor(0)
        elif name.endswith("offset"):
            r = torch.linspace(0.0, cutoff, *shape)
        elif name.endswith("running_var"):
            r = 0.5 + r.abs()
        elif len(shape) == 1 and (("batch_norms" in name and name.endswith("weight")) or ".1.weight" in name):
            r = 1 + 0.1 * r
        elif len(shape) == 1:
            r = 0.05 * r
        else:
            r = r / shape[-1] ** 0.5
        state[name] = r
    return state


def original_parts(
    salt: str = "", ogb: bool = False, width: int = 300, layers: int = 5, **schnet
) -> dict[str, dict[str, torch.Tensor]]:
    """What a `*_model_complete.pth` holds; with `salt` that of the goldens."""
    cutoff = schnet.pop("cutoff", 10.0)
    graphs = ogb_shapes(width, layers) if ogb else gin_shapes(width, layers)
    return {
        "model": drawn(graphs, f"{salt}gnn."),
        "model_3D": drawn(schnet_shapes(width, **schnet), f"{salt}schnet.", cutoff),
        "AE_2D_3D_model": drawn(reconstruction_shapes(width), f"{salt}vae_2d_3d."),
        "AE_3D_2D_model": drawn(reconstruction_shapes(width), f"{salt}vae_3d_2d."),
    }
