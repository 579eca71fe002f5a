"""GROVER batches: chosen context labels for pre-training, molecules with labels for fine-tuning."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .feature_extraction_grover import GroverFeatureExtractor

GRAPH_KEYS = ("x", "edge_index", "edge_attr", "z", "num_nodes", "mass")


@dataclass
class GroverDataCollator:
    """
    Rows to a batch. A row holds the features of one molecule, as [`GroverFeatureExtractor.featurize`] gives them, or a
    raw `smiles`. With `labels` (and, where the model takes them, `features`) the molecules are joined as they are.
    Without, pre-training labels are chosen: of N atoms ceil(0.15 N), of M bonds ceil(0.15 M) keep their context, the
    others get 0 (`GroverCollator` of the original); inputs stay as they are. The contexts are in the row
    (`atom_context`, `bond_context`, `motifs`, see [`GroverFeatureExtractor.label`]) or made from its `smiles`.

    Args:
        processor: the feature extractor of the checkpoint.
        share: of atoms and of bonds that are asked for.
        seed, epoch: each molecule draws from `default_rng([seed, epoch, row_id])`; a trainer sets `epoch`.
    """

    processor: GroverFeatureExtractor
    share: float = 0.15
    seed: int = 0
    epoch: int = 0

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"share is above 0 and at most 1, not {self.share!r}")

    def _chosen(self, contexts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A copy with all but a share of the labels set to 0."""
        labels = np.zeros(len(contexts), dtype=np.int64)
        chosen = rng.permutation(len(contexts))[: math.ceil(self.share * len(contexts))]
        labels[chosen] = np.asarray(contexts)[chosen]
        return labels

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        first = rows[0]
        if "x" in first:
            features = [{key: row[key] for key in (*GRAPH_KEYS, "features") if key in row} for row in rows]
        else:
            features = self.processor.featurize([row["smiles"] for row in rows])
        batch = dict(self.processor.pad(features, return_tensors="pt"))
        for key in ("features", "labels"):  # `features` may stand beside a raw `smiles`, too
            if key in first:
                batch[key] = torch.from_numpy(np.array([row[key] for row in rows], dtype=np.float32))
        if "labels" in first:
            return batch
        if "row_id" not in first:
            raise ValueError("choosing labels needs the column 'row_id': each molecule draws its own random numbers")
        labels = rows if "atom_context" in first else self.processor.label([row["smiles"] for row in rows])
        atoms, bonds = [], []
        for row, label in zip(rows, labels, strict=True):
            rng = np.random.default_rng([self.seed, self.epoch, int(row["row_id"])])
            atoms.append(self._chosen(label["atom_context"], rng))
            bonds.append(self._chosen(label["bond_context"], rng))
        batch["atom_labels"] = torch.from_numpy(np.concatenate(atoms))
        batch["bond_labels"] = torch.from_numpy(np.concatenate(bonds))
        motifs = np.stack([np.asarray(label["motifs"], dtype=np.float32) for label in labels])
        batch["motif_labels"] = torch.from_numpy(motifs)
        return batch


__all__ = ["GroverDataCollator"]
