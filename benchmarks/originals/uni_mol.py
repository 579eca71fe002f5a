"""
Uni-Mol of unimol_tools 0.1.4.post1 (MIT), the authors' package:

    pip download unimol_tools==0.1.4.post1 --no-deps && pip install --no-deps --target FOLDER unimol_tools-*.whl
"""

import sys
import tempfile
import types
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import torch

from hf_molrep.models.uni_mol.feature_extraction_uni_mol import SYMBOLS, TOKENS


class _Attributes(dict):
    __getattr__ = dict.get
    __setattr__ = dict.__setitem__


def load_peer(folder: Path):
    """Load the model of unimol_tools with random weights, and its function from atoms to inputs."""
    folder = folder.absolute()
    with tempfile.TemporaryDirectory() as weights, chdir(weights):  # its import writes a log file
        # the dictionary that it would download, and empty files in place of weights
        Path(weights, "mol.dict.txt").write_text("\n".join(TOKENS[:-1]) + "\n")
        for kind in ("all", "no"):
            Path(weights, f"mol_pre_{kind}_h_220816.pt").touch()
        # packages that it imports but that are not needed here
        for name, attributes in {"addict": {"Dict": _Attributes}, "numba": {"njit": lambda function: function}}.items():
            module = types.ModuleType(name)
            module.__dict__.update(attributes)
            sys.modules.setdefault(name, module)
        sys.path.insert(0, str(folder))
        from unimol_tools.data.conformer import coords2unimol
        from unimol_tools.models import unimol

        unimol.WEIGHT_DIR, Peer = weights, unimol.UniMolModel
        Peer.load_pretrained_weights = lambda self, path, strict=False: None
        peer = Peer(output_dim=1, data_type="molecule", remove_hs=False, pooler_dropout=0.0)
    for module in peer.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.02)
    with torch.no_grad():
        peer.embed_tokens.weight[0] = 0.0
        peer.gbf.means.weight.uniform_(0, 3)
        peer.gbf.stds.weight.uniform_(0.5, 3)
        peer.gbf.mul.weight.fill_(1.0)
    return peer.eval(), coords2unimol


def collating(peer, coords2unimol, features: list[dict]) -> Callable[[list[dict]], dict]:
    """Return a function from some of our features to the peer's batch; its inputs per molecule are made here."""
    inputs = {
        id(feature): coords2unimol(
            [SYMBOLS[z] for z in feature["z"]], feature["pos"].reshape(-1, 3), peer.dictionary, remove_hs=False
        )
        for feature in features
    }
    return lambda part: peer.batch_collate_fn([(inputs[id(feature)], 0.0) for feature in part])[0]


def embeddings(peer, batch: dict) -> torch.Tensor:
    """Compute embeddings `[molecules, 512]`."""
    return peer(**batch, return_repr=True)["cls_repr"]


def outputs(peer, batch: dict) -> torch.Tensor:
    """Compute predictions `[molecules, 1]`."""
    return peer(**batch)
