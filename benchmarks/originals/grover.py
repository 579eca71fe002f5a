"""GROVER of huggingmolecules: a checkout of github.com/gmum/huggingmolecules (Apache-2.0)."""

import sys
import types
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness.steps import stepping
from benchmarks.harness.timing import Run


class Peer:
    """
    The model of base size, or of another width, with random weights, in evaluation mode, on a batch of its own
    featuriser. Further packages that it imports (downloads, gin) are replaced by empty modules.
    """

    def __init__(self, folder: Path, width: int, smiles: Sequence[str]):
        for name, attributes in {
            "gdown": {},
            "gin": {"configurable": lambda *args, **kwargs: args[0] if args else None},
        }.items():
            module = types.ModuleType(name)
            module.__dict__.update(attributes)
            sys.modules.setdefault(name, module)
        sys.path.insert(0, str(folder / "src" if (folder / "src").is_dir() else folder))
        from huggingmolecules.configuration import GroverConfig
        from huggingmolecules.featurization import GroverFeaturizer
        from huggingmolecules.models import GroverModel
        from rdkit import RDLogger

        RDLogger.DisableLog("rdApp.*")  # its featuriser causes a warning of RDKit for each atom
        config = GroverConfig(d_model=width)
        self.model, self.batch = GroverModel(config).eval(), GroverFeaturizer(config)(list(smiles))

    def forward(self) -> None:
        """Run one forward pass without gradients, with all four outputs."""
        with torch.no_grad():
            self.model.grover(self.batch)

    def stepping(self) -> Run:
        """Make a run of one training step, in evaluation mode: in training mode it raises with NumPy 2.4 and newer."""

        def loss() -> torch.Tensor:
            return sum(value.square().mean() for value in self.model.grover(self.batch).values())

        return stepping(loss, torch.optim.Adam(self.model.parameters(), lr=1e-5, foreach=True))
