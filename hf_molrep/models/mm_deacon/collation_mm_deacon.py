"""MM-Deacon data collator: SMILES with names, molecules with labels, or pairs of molecules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...chem.smiles import random_smiles
from ...processing.collation import MoleculeCollator
from ...processing.sequences import tokenize


@dataclass
class MMDeaconDataCollator(MoleculeCollator):
    """
    Makes a batch of rows. A row holds the features of one molecule (`input_ids`, `iupac_input_ids` from
    [`MMDeaconProcessor.featurize`]), or raw `smiles` / `iupac_name`, which are tokenized here; `second_input_ids` or
    `second_smiles` make it a pair of molecules. `labels` (a number, or one per task) are stacked.

    Args:
        processor, seed, epoch: see [`~hf_molrep.processing.collation.MoleculeCollator`].
        smiles_augmentation: probability that a row's SMILES is replaced by a random SMILES of the same molecule (not in
            the paper). Needs the columns `smiles` and `row_id`.
        truncation: shorten sequences that are too long for the model; otherwise they raise `MoleculeError`.
    """

    smiles_augmentation: float = 0.0
    truncation: bool = True

    def _random_smiles(self, row: dict) -> str | None:
        """Return a random SMILES of the row if it is drawn for augmentation, else None."""
        if not self.smiles_augmentation:
            return None
        if "smiles" not in row or "row_id" not in row:
            raise ValueError("smiles_augmentation needs the columns 'smiles' and 'row_id'")
        rng = self.generator(row)
        return random_smiles(row["smiles"], rng) if rng.random() < self.smiles_augmentation else None

    def _tokens(self, rows: Sequence[dict], key: str, column: str, prefix: str = "") -> list[np.ndarray]:
        """Return the token ids of one view: those under `key`, else of the text in the column `prefix + column`."""
        sequences: list = [row.get(key) for row in rows]
        raw = [place for place, sequence in enumerate(sequences) if sequence is None]
        if raw:
            texts = {column: [rows[place][prefix + column] for place in raw]}
            key = "iupac_input_ids" if column == "iupac_name" else "input_ids"
            for place, feature in zip(raw, self.processor.featurize(texts, truncation=self.truncation), strict=True):
                sequences[place] = feature[key]
        return sequences

    def _augmented(self, rows: Sequence[dict]) -> list[dict]:
        """Replace the token ids of rows that are drawn for augmentation by those of a random SMILES, if it fits."""
        random = [self._random_smiles(row) for row in rows]
        drawn = [place for place, text in enumerate(random) if text is not None]
        rows = list(rows)
        if drawn:
            texts = [random[place] for place in drawn]
            ids, _ = tokenize(self.processor.tokenizer, texts, truncation=self.truncation)
            for place, tokens in zip(drawn, ids, strict=True):
                if isinstance(tokens, np.ndarray):
                    rows[place] = {**rows[place], "input_ids": tokens}
        return rows

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        processor, views = self.processor, {}
        if "input_ids" in rows[0] or "smiles" in rows[0]:
            views["input_ids"] = self._tokens(self._augmented(rows), "input_ids", "smiles")
        if "iupac_input_ids" in rows[0] or "iupac_name" in rows[0]:
            views["iupac_input_ids"] = self._tokens(rows, "iupac_input_ids", "iupac_name")
        features = [dict(zip(views, values, strict=True)) for values in zip(*views.values(), strict=True)]
        batch = dict(processor.pad(features, return_tensors="pt"))
        if "second_input_ids" in rows[0] or "second_smiles" in rows[0]:
            sequences = self._tokens(rows, "second_input_ids", "smiles", prefix="second_")
            second = processor.pad([{"input_ids": sequence} for sequence in sequences], return_tensors="pt")
            batch |= {f"second_{key}": value for key, value in second.items()}
        return batch | self.labels(rows, integers=True)


__all__ = ["MMDeaconDataCollator"]
