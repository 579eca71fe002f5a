"""MolCLR batches: two augmented views of each molecule for pre-training, molecules with labels for fine-tuning."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ...data.augmentation import delete_bonds, mask_atoms, remove_subgraph
from .feature_extraction_molclr import MolCLRFeatureExtractor

MASK = (118, 0)  # atom type and chirality of a masked atom


@dataclass
class MolCLRDataCollator:
    """
    Rows to a batch. A row holds the features of one molecule, as [`MolCLRFeatureExtractor.featurize`] gives them, or a
    raw `smiles`. With `labels` the molecules are joined as they are; without, two augmented views of each are made, the
    second one under keys that begin with `second_`.

    Augmentations of N atoms and M bonds (the original's `dataset/dataset.py`, `dataset_subgraph.py`, `dataset_mix.py`):
        node: max(1, floor(N / 4)) atoms masked and floor(M / 4) bonds deleted;
        subgraph: floor(N / 4) atoms around a center masked, their bonds deleted, another center in the second view;
        mix: a subgraph of up to a fifth of the atoms, then atoms masked and bonds deleted up to a quarter of each.
    Other than the original: where the fragment of the center is too small, the subgraph is that fragment (the original
    never ends, or raises for a lone ion; its `mix` stops too); bonds are deleted whichever way they are written
    (`subgraph` of the original forgets some); a molecule of one atom is not refused.

    Args:
        processor: the feature extractor of the checkpoint.
        augmentation: `"node"` (the original's default), `"subgraph"` or `"mix"`.
        seed, epoch: each molecule draws from `default_rng([seed, epoch, row_id])`; a trainer sets `epoch`.
    """

    processor: MolCLRFeatureExtractor
    augmentation: Literal["node", "subgraph", "mix"] = "node"
    seed: int = 0
    epoch: int = 0

    def __post_init__(self):
        if self.augmentation not in ("node", "subgraph", "mix"):
            raise ValueError(f"augmentation is 'node', 'subgraph' or 'mix', not {self.augmentation!r}")

    def views(self, feature: dict, row_id: int) -> tuple[dict, dict]:
        """Two augmented copies of a molecule."""
        rng = np.random.default_rng([self.seed, self.epoch, int(row_id)])
        atoms, bonds = int(feature["num_nodes"]), len(feature["edge_index"]) // 4
        centers = rng.permutation(atoms)[:2]
        made = []
        for view in range(2):
            changed = feature
            if self.augmentation == "node":
                changed = mask_atoms(changed, rng, max(1, atoms // 4), MASK)
                changed = delete_bonds(changed, rng, bonds // 4)
            else:
                share = 0.25 if self.augmentation == "subgraph" else rng.uniform(0, 0.2)
                center = int(centers[view % len(centers)])
                changed, removed = remove_subgraph(changed, rng, math.floor(share * atoms), MASK, center)
                if self.augmentation == "mix":
                    rest = np.setdiff1d(np.arange(atoms), removed)
                    changed = mask_atoms(changed, rng, max(0, atoms // 4 - len(removed)), MASK, among=rest)
                    left = len(changed["edge_index"]) // 4
                    changed = delete_bonds(changed, rng, max(0, left - math.ceil(0.75 * bonds)))
            made.append(changed)
        return made[0], made[1]

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        if "x" in rows[0]:
            features = [{key: row[key] for key in ("x", "edge_index", "edge_attr", "z", "num_nodes")} for row in rows]
        else:
            features = self.processor.featurize([row["smiles"] for row in rows])
        if "labels" in rows[0]:
            batch = dict(self.processor.pad(features, return_tensors="pt"))
            batch["labels"] = torch.from_numpy(np.array([row["labels"] for row in rows], dtype=np.float32))
            return batch
        if "row_id" not in rows[0]:
            raise ValueError("augmentation needs the column 'row_id': each molecule draws its own random numbers")
        pairs = [self.views(feature, row["row_id"]) for feature, row in zip(features, rows, strict=True)]
        first, second = (self.processor.pad(views, return_tensors="pt") for views in zip(*pairs, strict=True))
        return {**first, **{f"second_{key}": value for key, value in second.items()}}


__all__ = ["MolCLRDataCollator"]
