"""GROVER data collator: molecules with context labels for pre-training, or with labels for fine-tuning."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...processing.collation import MoleculeCollator


@dataclass
class GroverDataCollator(MoleculeCollator):
    """
    Makes a batch of rows. A row holds the features of one molecule from [`GroverFeatureExtractor.featurize`], or a raw
    `smiles`. Rows with `labels` (and optionally `features`) are joined unchanged.

    Rows without `labels` are for pre-training: ceil(0.15 N) of N atoms and ceil(0.15 M) of M bonds keep their context
    as the label, the others get 0 (`GroverCollator` of the original); inputs are not masked. The contexts are in the
    row (`atom_context`, `bond_context`, `motifs`, see [`GroverFeatureExtractor.label`]) or made from its `smiles`.

    Args:
        processor, seed, epoch: see [`~hf_molrep.processing.collation.MoleculeCollator`].
        share: share of the atoms and of the bonds whose context is predicted.
    """

    share: float = 0.15

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"share is above 0 and at most 1, not {self.share!r}")

    def _chosen(self, contexts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Copy the labels, with all but a random share set to 0."""
        labels = np.zeros(len(contexts), dtype=np.int64)
        chosen = rng.permutation(len(contexts))[: math.ceil(self.share * len(contexts))]
        labels[chosen] = np.asarray(contexts)[chosen]
        return labels

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        features = self.features(rows)
        batch = dict(self.processor.pad(features, return_tensors="pt"))
        if "features" in rows[0] and "features" not in batch:  # of a row with a raw `smiles`
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
