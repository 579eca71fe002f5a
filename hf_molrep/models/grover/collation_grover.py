"""GROVER batches: chosen context labels for pre-training, molecules with labels for fine-tuning."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...processing.collation import MoleculeCollator


@dataclass
class GroverDataCollator(MoleculeCollator):
    """
    Rows to a batch. A row holds the features of one molecule, as [`GroverFeatureExtractor.featurize`] gives them, or a
    raw `smiles`. With `labels` (and, where the model takes them, `features`) the molecules are joined as they are.
    Without, pre-training labels are chosen: of N atoms ceil(0.15 N), of M bonds ceil(0.15 M) keep their context, the
    others get 0 (`GroverCollator` of the original); inputs stay as they are. The contexts are in the row
    (`atom_context`, `bond_context`, `motifs`, see [`GroverFeatureExtractor.label`]) or made from its `smiles`.

    Args:
        processor, seed, epoch: see [`~hf_molrep.processing.collation.MoleculeCollator`].
        share: of atoms and of bonds that are asked for.
    """

    share: float = 0.15

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
        features = self.features(rows)
        batch = dict(self.processor.pad(features, return_tensors="pt"))
        if "features" in rows[0] and "features" not in batch:  # they may stand beside a raw `smiles`, too
            descriptors = np.array([row["features"] for row in rows], dtype=np.float32)
            batch["features"] = torch.from_numpy(descriptors)
        if "labels" in rows[0]:
            return batch | self.labels(rows)
        generators = [self.generator(row) for row in rows]
        labels = rows if "atom_context" in rows[0] else self.processor.label([row["smiles"] for row in rows])
        atoms, bonds = [], []
        for rng, label in zip(generators, labels, strict=True):
            atoms.append(self._chosen(label["atom_context"], rng))
            bonds.append(self._chosen(label["bond_context"], rng))
        batch["atom_labels"] = torch.from_numpy(np.concatenate(atoms))
        batch["bond_labels"] = torch.from_numpy(np.concatenate(bonds))
        motifs = np.stack([np.asarray(label["motifs"], dtype=np.float32) for label in labels])
        batch["motif_labels"] = torch.from_numpy(motifs)
        return batch


__all__ = ["GroverDataCollator"]
