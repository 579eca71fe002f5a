"""The original GraphMVP: github.com/chao1224/GraphMVP (MIT); its classes are imported from its files unchanged."""

import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch_geometric.utils import scatter

from benchmarks.harness.steps import stepping
from benchmarks.harness.timing import Run
from hf_molrep.nn.radius_graph import radius_graph


def _radius_graph(pos: torch.Tensor, r: float, batch: torch.Tensor) -> torch.Tensor:
    """PyG's function, which needs pyg-lib or torch-cluster: ours, with PyG's default of 32 neighbours."""
    return radius_graph(pos, batch, r, 32)


def _module(name: str, **attributes) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules.setdefault(name, module)


class Original:
    """Its two encoders and variational heads at the paper's size, with random weights, and its pre-training step."""

    def __init__(self, folder: Path):
        def scatter_add(src, index, dim=0, dim_size=None):
            return scatter(src, index, dim, dim_size, "sum")

        _module("torch_scatter", scatter=lambda src, index, dim, reduce: scatter(src, index, dim, reduce=reduce))
        sys.modules["torch_scatter"].scatter_add = scatter_add
        _module("torch_geometric.data.makedirs", makedirs=None)
        _module("ase", data=SimpleNamespace(atomic_masses=np.zeros(119)))
        modules = {}
        for path in ("models/molecule_gnn_model.py", "models/schnet.py", "models/auto_encoder.py"):
            spec = importlib.util.spec_from_file_location(f"original_{Path(path).stem}", folder / path)
            modules[Path(path).stem] = module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # PyG looks for the modules of its layers there
            spec.loader.exec_module(module)
        modules["schnet"].radius_graph = _radius_graph
        sizes = {"hidden_channels": 300, "num_filters": 128, "num_interactions": 6, "num_gaussians": 51, "cutoff": 10}
        self.graph = modules["molecule_gnn_model"].GNN(5, 300, JK="last", drop_ratio=0.0, gnn_type="gin")
        self.conformer = modules["schnet"].SchNet(**sizes, readout="mean")
        autoencoder = modules["auto_encoder"].VariationalAutoEncoder
        self.to_conformer, self.to_graph = (autoencoder(300, "l2", detach_target=True, beta=2) for _ in range(2))
        self.folder = folder

    @property
    def parts(self) -> dict[str, torch.nn.Module]:
        """By the names of its `*_model_complete.pth`."""
        return {
            "model": self.graph,
            "model_3D": self.conformer,
            "AE_2D_3D_model": self.to_conformer,
            "AE_3D_2D_model": self.to_graph,
        }

    def embeddings(self, batch: Mapping) -> tuple[torch.Tensor, torch.Tensor]:
        """Of graphs and of conformers, `[molecules, 300]` each."""
        from torch_geometric.nn import global_mean_pool

        states = self.graph(batch["x"], batch["edge_index"], batch["edge_attr"])
        conformers = self.conformer(batch["x"][:, 0], batch["pos"], batch["batch"])
        return global_mean_pool(states, batch["batch"]), conformers

    def contrast(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Its `dual_CL` with the settings of its final runs, of two embeddings."""
        spec = importlib.util.spec_from_file_location("original_util", self.folder / "util.py")
        module = importlib.util.module_from_spec(spec)
        unused = {"networkx": mock.MagicMock(), "datasets": mock.MagicMock()}
        with mock.patch.dict(sys.modules, unused):
            spec.loader.exec_module(module)
        settings = SimpleNamespace(normalize=True, CL_similarity_metric="EBM_dot_prod", CL_neg_samples=1, T=0.2)
        return lambda one, two: module.dual_CL(one, two, settings)[0]

    def stepping(self, batch: Mapping) -> Run:
        """Make a run of one step of pre-training."""
        contrast = self.contrast()

        def loss() -> torch.Tensor:
            graph, conformer = self.embeddings(batch)
            directions = self.to_conformer(graph, conformer) + self.to_graph(conformer, graph)
            return contrast(graph, conformer) + directions / 2

        parameters = [parameter for part in self.parts.values() for parameter in part.parameters()]
        return stepping(loss, torch.optim.Adam(parameters, lr=1e-6, foreach=True))
