"""The original MolCLR: github.com/yuyangw/MolCLR (MIT); its classes are imported from its files unchanged."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks.harness.steps import autocast, stepping
from benchmarks.harness.timing import Run


class Original:
    """The original network and loss, with random weights, on our batches."""

    def __init__(self, folder: Path):
        self.modules = {}
        for path in ("models/ginet_molclr.py", "utils/nt_xent.py"):
            spec = importlib.util.spec_from_file_location(f"original_{Path(path).stem}", folder / path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # PyG looks for the modules of its layers there
            spec.loader.exec_module(module)
            self.modules[Path(path).stem] = module
        self.network = self.modules["ginet_molclr"].GINet(feat_dim=512)

    def embedding(self, inputs: Mapping, bf16: bool) -> Run:
        """Make a run that computes the embeddings `[molecules, 512]`."""
        data = SimpleNamespace(**inputs)

        def run() -> torch.Tensor:
            self.network.eval()
            with torch.no_grad(), autocast(bf16):
                return self.network(data)[0]

        return run

    def stepping(self, views: Mapping, size: int, bf16: bool) -> Run:
        """Make a run of one step of contrastive pre-training on two views of `size` molecules."""
        names = ("x", "edge_index", "edge_attr", "batch")
        pair = [SimpleNamespace(**{name: views[kind + name] for name in names}) for kind in ("", "second_")]
        loss_of = self.modules["nt_xent"].NTXentLoss("cpu", size, 0.1, True)

        def loss() -> torch.Tensor:
            self.network.train()
            return loss_of(*(torch.nn.functional.normalize(self.network(data)[1], dim=1) for data in pair))

        return stepping(loss, torch.optim.Adam(self.network.parameters(), lr=1e-6), bf16)
