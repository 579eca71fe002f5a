"""The original 3D Infomax: github.com/HannesStark/3DInfomax (no licence), on DGL 2.1.0; run from its files."""

import importlib
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest import mock

import torch

# of configs_clean/pre-train_QM9.yml
SETTINGS = {
    "target_dim": 256,
    "hidden_dim": 200,
    "mid_batch_norm": True,
    "last_batch_norm": True,
    "readout_batchnorm": True,
    "batch_norm_momentum": 0.93,
    "readout_hidden_dim": 200,
    "readout_layers": 2,
    "dropout": 0.0,
    "propagation_depth": 7,
    "aggregators": ["mean", "max", "min", "std"],
    "scalers": ["identity", "amplification", "attenuation"],
    "readout_aggregators": ["min", "max", "mean"],
    "pretrans_layers": 2,
    "posttrans_layers": 1,
    "residual": True,
}


class _Absent(types.ModuleType):
    """A package that DGL imports and that message passing never uses: every name of it is there and does nothing."""

    __path__: list[str] = []

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return mock.MagicMock()


def _import(folder: Path, packages: Path):
    """The module of the network. `dgl.graphbolt`, whose binaries end at torch 2.2, and torchdata are left out."""
    names = ["torchdata", "torchdata.datapipes", "torchdata.datapipes.iter", "torchdata.dataloader2", "dgl.graphbolt"]
    names += ["torchdata.dataloader2.graph"]
    for name in names:
        sys.modules.setdefault(name, _Absent(name))
    sys.path[:0] = [str(packages), str(folder)]
    package = types.ModuleType("models")  # its __init__ imports every network
    package.__path__ = [str(folder / "models")]
    sys.modules["models"] = package
    return importlib.import_module("models.pna")


class Original:
    """The original PNA at the paper's size, with random weights."""

    def __init__(self, folder: Path, packages: Path):
        """
        Args:
            folder: checkout of the repository. packages: folder with dgl 2.1.0 and ogb 1.3.6.
        """
        self.network = _import(folder, packages).PNA(**SETTINGS)

    def graphs(self, features: Sequence[Mapping]):
        """A batch of DGL from features of the scheme `ogb`."""
        import dgl

        made = []
        for feature in features:
            atoms = int(feature["num_nodes"])
            source, target = torch.from_numpy(feature["edge_index"]).long().view(2, -1)
            graph = dgl.graph((source, target), num_nodes=atoms)
            graph.ndata["x"] = torch.from_numpy(feature["x"]).long().view(atoms, -1)
            graph.edata["x"] = torch.from_numpy(feature["edge_attr"]).long().view(len(source), -1)
            made.append(graph)
        return dgl.batch(made)

    def __call__(self, batch) -> torch.Tensor:
        """What is contrasted, `[molecules, 256]`; the network replaces the features of the graph that it is given."""
        batch.ndata["feat"], batch.edata["feat"] = batch.ndata["x"], batch.edata["x"]
        return self.network(batch)
