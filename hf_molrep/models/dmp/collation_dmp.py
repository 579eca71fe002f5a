"""DMP data collator: masked tokens and atoms of the same molecules, or molecules with labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...processing.collation import MoleculeCollator

MASKED_ATOM = (118, 0, 11, 11, 9, 5, 5, 0, 0)
"""Features of a masked atom in the scheme `dmp`."""
FIRST_TOKEN = 4  # those before it are special


@dataclass
class DMPDataCollator(MoleculeCollator):
    """
    Makes a batch of rows. A row holds the features of one molecule from [`DMPProcessor.featurize`], or a raw `smiles`.
    Rows with `labels` are joined unchanged. In the others tokens and atoms are masked, independently of each other:
    `masked_share` of each, rounded up or down at random; of those 80 % become `[MASK]` (or `MASKED_ATOM`), 10 % stay,
    and 10 % become a random token (or a copy of a random atom of the same molecule). As in the original `</s>`, whose
    state is the molecule's, may be masked too, and bonds are never.

    `masked_tokens` are indices into the flattened `input_ids`, `masked_token_ids` the true tokens; `masked_atoms`
    indices into `x`, `masked_atom_types` the true elements.

    Args:
        processor, seed, epoch: see [`~hf_molrep.processing.collation.MoleculeCollator`].
        masked_share: 0.15 in the paper.
        truncation: shorten the tokens of raw SMILES that are too long; otherwise they raise `MoleculeError`.
    """

    masked_share: float = 0.15
    truncation: bool = True

    def __post_init__(self):
        if not 0 < self.masked_share <= 1:
            raise ValueError(f"masked_share is above 0 and at most 1, not {self.masked_share!r}")

    def features(self, rows: Sequence[dict]) -> list[dict]:
        if self.processor.model_input_names[0] in rows[0]:
            return list(rows)
        return self.processor.featurize(self.columns(rows), truncation=self.truncation)

    def _draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Choose places among `count`, ascending, and how each is changed: below 0.8 masked, below 0.9 kept."""
        number = min(int(self.masked_share * count + rng.random()), count)
        return np.sort(rng.choice(count, number, replace=False)), rng.random(number)

    def masked(self, feature: dict, rng: np.random.Generator) -> tuple[dict, dict[str, np.ndarray]]:
        """Mask a molecule; return the changed copy, and the places and true values."""
        tokenizer = self.processor.tokenizer
        ids = np.array(feature["input_ids"])
        tokens, change = self._draw(len(ids), rng)
        token_ids = ids[tokens]
        random = rng.integers(FIRST_TOKEN, len(tokenizer), len(tokens))
        ids[tokens] = np.where(change < 0.8, tokenizer.mask_token_id, np.where(change < 0.9, token_ids, random))
        x = np.array(feature["x"]).reshape(int(feature["num_nodes"]), -1)
        atoms, change = self._draw(len(x), rng)
        atom_types = x[atoms, 0]
        copies = x[rng.integers(len(x), size=len(atoms))]
        x[atoms[change < 0.8]] = MASKED_ATOM
        x[atoms[change >= 0.9]] = copies[change >= 0.9]
        found = {"tokens": tokens, "token_ids": token_ids, "atoms": atoms, "atom_types": atom_types}
        return {**feature, "input_ids": ids, "x": x.ravel()}, found

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        features = self.features(rows)
        if "labels" in rows[0]:
            return dict(self.processor.pad(features, return_tensors="pt")) | self.labels(rows)
        drawn = [self.masked(feature, self.generator(row)) for feature, row in zip(features, rows, strict=True)]
        batch = dict(self.processor.pad([feature for feature, _ in drawn], return_tensors="pt"))
        length, first = batch["input_ids"].shape[1], 0
        for place, (feature, found) in enumerate(drawn):
            found["tokens"] = found["tokens"] + place * length
            found["atoms"] = found["atoms"] + first
            first += int(feature["num_nodes"])
        for name in ("tokens", "token_ids", "atoms", "atom_types"):
            joined = np.concatenate([found[name] for _, found in drawn]).astype(np.int64)
            batch[f"masked_{name}"] = torch.from_numpy(joined)
        return batch


__all__ = ["DMPDataCollator"]
