"""MM-Deacon batches: pairs for pre-training, molecules with labels, pairs of molecules for interactions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...chem.smiles import random_smiles
from .processing_mm_deacon import MMDeaconProcessor


@dataclass
class MMDeaconDataCollator:
    """
    Rows to a batch. A row holds the features of one molecule (`input_ids`, `iupac_input_ids` as
    [`MMDeaconProcessor.featurize`] gives them), or raw `smiles` / `iupac_name`, which are then tokenized here; with
    `second_input_ids` or `second_smiles` it is a pair of molecules. `labels` (a number, or one per task) are stacked.

    Args:
        processor: the processor of the checkpoint.
        smiles_augmentation: probability that a row's SMILES is replaced by a random SMILES of the same molecule (ours;
            the paper uses the SMILES as given). Needs RDKit, and the columns `smiles` and `row_id`.
        truncation: shorten what is longer than the model takes; otherwise it raises `MoleculeError`.
        seed, epoch: each molecule draws from `default_rng([seed, epoch, row_id])`; a trainer sets `epoch`.
    """

    processor: MMDeaconProcessor
    smiles_augmentation: float = 0.0
    truncation: bool = True
    seed: int = 0
    epoch: int = 0

    def _smiles(self, row: dict) -> str | None:
        """The random SMILES of a row that is to be augmented, else None."""
        if not self.smiles_augmentation:
            return None
        if "smiles" not in row or "row_id" not in row:
            raise ValueError("smiles_augmentation needs the columns 'smiles' and 'row_id'")
        rng = np.random.default_rng([self.seed, self.epoch, int(row["row_id"])])
        return random_smiles(row["smiles"], rng) if rng.random() < self.smiles_augmentation else None

    def _tokens(self, rows: Sequence[dict], key: str, text_key: str, tokenizer, texts: list[str | None]) -> list:
        """Token ids of one view: of the replaced texts, else the row's own, else of its raw text."""
        sequences: list = [None if text is not None else row.get(key) for row, text in zip(rows, texts, strict=True)]
        missing = [place for place, sequence in enumerate(sequences) if sequence is None]
        replaced = [place for place in missing if texts[place] is not None]
        limit = tokenizer.model_max_length
        if replaced:
            encoded = tokenizer([texts[place] for place in replaced], padding=False, truncation=False, verbose=False)
            for place, ids in zip(replaced, encoded["input_ids"], strict=True):
                if len(ids) <= limit:
                    sequences[place] = np.array(ids)
                elif self.truncation:
                    sequences[place] = np.array(ids[: limit - 1] + ids[-1:])
        raw = [place for place in missing if sequences[place] is None]
        if raw:
            kind = "iupac" if text_key == "iupac_name" else "smiles"
            features = self.processor.featurize(
                **{kind: [rows[place][text_key] for place in raw]}, truncation=self.truncation
            )
            for place, feature in zip(raw, features, strict=True):
                sequences[place] = feature["iupac_input_ids" if kind == "iupac" else "input_ids"]
        return sequences

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        processor, nothing = self.processor, [None] * len(rows)
        features: list[dict] = [{} for _ in rows]
        first = rows[0]

        def add(key: str, sequences: list):
            for feature, sequence in zip(features, sequences, strict=True):
                feature[key] = sequence

        if "input_ids" in first or "smiles" in first:
            texts = [self._smiles(row) for row in rows]
            add("input_ids", self._tokens(rows, "input_ids", "smiles", processor.tokenizer, texts))
        if "iupac_input_ids" in first or "iupac_name" in first:
            add(
                "iupac_input_ids",
                self._tokens(rows, "iupac_input_ids", "iupac_name", processor.iupac_tokenizer, nothing),
            )
        batch = dict(processor.pad(features, return_tensors="pt"))
        if "second_input_ids" in first or "second_smiles" in first:
            sequences = self._tokens(rows, "second_input_ids", "second_smiles", processor.tokenizer, nothing)
            second = processor.pad([{"input_ids": sequence} for sequence in sequences], return_tensors="pt")
            batch |= {f"second_{key}": value for key, value in second.items()}
        if "labels" in first:
            labels = np.array([row["labels"] for row in rows])
            batch["labels"] = torch.from_numpy(labels if labels.dtype.kind in "iu" else labels.astype(np.float32))
        return batch


__all__ = ["MMDeaconDataCollator"]
