"""X-MOL data collators: pairs of SMILES to be read and written; molecules or their combinations with labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...chem.smiles import MoleculeError, random_smiles
from ...processing.collation import MoleculeCollator


@dataclass
class XMolDataCollator(MoleculeCollator):
    """
    Makes batches of `[CLS] source [SEP] [CLS] target [SEP]`: two random SMILES of the molecule in the column `smiles`,
    drawn here; or those in the columns `source_smiles` (by default `smiles`; a source may be a list of SMILES) and
    `target_smiles`, which are used as they are, need no RDKit, and may be of different molecules. The column
    `condition`, a property of the target as the original scales it (its value, such as a QED between 0 and 1), becomes
    the factor of the first `[CLS]`.

    Args:
        processor, seed, epoch: see [`~hf_molrep.processing.collation.MoleculeCollator`].
        empty_source: share of rows whose source is left empty, for writing new molecules (0 in the paper, which
            fine-tunes for that).
        max_length: longest source and longest target, by default half of `tokenizer.model_max_length` each. As in the
            original, a longer source loses its beginning, and a longer target its end.
    """

    empty_source: float = 0.0
    max_length: int | None = None

    def _texts(self, row: dict) -> tuple[str | Sequence[str], str]:
        """Return source and target of a row."""
        if "target_smiles" in row:
            empty = self.empty_source and self.generator(row).random() < self.empty_source
            return () if empty else row.get("source_smiles", row.get("smiles")), row["target_smiles"]
        if "smiles" not in row:
            raise ValueError("rows need the column 'smiles', or 'source_smiles' and 'target_smiles'")
        rng = self.generator(row)
        target = random_smiles(row["smiles"], rng)
        return () if rng.random() < self.empty_source else random_smiles(row["smiles"], rng), target

    def _ids(self, row: dict) -> np.ndarray:
        """Token ids of a pair."""
        processor, source_text, target_text = self.processor, *self._texts(row)
        try:
            parts = [source_text] if isinstance(source_text, str) else list(source_text)
            source = processor.join([processor.token_ids(part) for part in parts])
            target = processor.join([processor.token_ids(target_text)])
        except MoleculeError:
            # a random SMILES may have a token that the canonical one has not
            if "input_ids" not in row or "target_smiles" in row:
                raise
            source = target = np.asarray(row["input_ids"])
        limit = self.max_length or processor.tokenizer.model_max_length // 2
        if len(source) > limit:
            source = np.append(source[:1], source[1 - limit :])
        return np.append(source, target[:limit])

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        batch = self.processor.pad([{"input_ids": self._ids(row)} for row in rows], return_tensors="pt")
        batch = dict(batch)
        if "condition" in rows[0]:
            batch["condition"] = torch.tensor([self._condition(row) for row in rows])
        return batch

    def _condition(self, row: dict) -> float:
        """
        The condition of a row.

        Raises:
            ValueError: it is not a number.
        """
        try:
            value = float(row["condition"])
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            name = row.get("smiles", row.get("target_smiles"))
            raise ValueError(f"condition of {name} is a number, not {row['condition']!r}")
        return value


@dataclass
class XMolPropertyCollator(MoleculeCollator):
    """
    Makes a batch of rows with `labels`. A row holds the features of one molecule, or raw `smiles`; `second_input_ids`
    or `second_smiles` make it a pair of molecules, which are read together.

    Args:
        processor, seed, epoch: see [`~hf_molrep.processing.collation.MoleculeCollator`].
        smiles_augmentation: probability that a row's SMILES is replaced by a random SMILES of the same molecule, as the
            original does for small data sets. Needs the columns `smiles` and `row_id`.
        truncation: shorten what is too long for the model; otherwise it raises `MoleculeError`.
    """

    smiles_augmentation: float = 0.0
    truncation: bool = True

    def _feature(self, row: dict) -> dict:
        """Return the feature of a row, of both molecules together if there are two."""
        if self.smiles_augmentation and (drawn := self._drawn(row)) is not None:
            return drawn
        if "input_ids" not in row:
            parts = self._parts(row)
            return self.processor.featurize({"smiles": [parts]}, truncation=self.truncation)[0]
        if "second_input_ids" not in row:
            return row
        # the second molecule without its [CLS], its links and rings at their new places
        moved = len(row["input_ids"]) - 1
        joined = {"input_ids": np.append(row["input_ids"], row["second_input_ids"][1:])}
        for name in self.processor.knowledge_embeddings:
            second = np.asarray(row[f"second_{name}_ids"][1:]) + (0 if name == "type" else moved)
            joined[f"{name}_ids"] = np.append(row[f"{name}_ids"], second)
        return self._checked(row, joined)

    def _parts(self, row: dict) -> list[str]:
        """Return the SMILES of all molecules of a row."""
        first, second = row["smiles"], row.get("second_smiles")
        parts = [first] if isinstance(first, str) else list(first)
        return parts if second is None else [*parts, second]

    def _drawn(self, row: dict) -> dict | None:
        """Draw random SMILES of the molecules of a row; None: none was drawn, or one has tokens that are unknown."""
        parts = self._parts(row)
        rng = self.generator(row)
        texts = [random_smiles(part, rng) if rng.random() < self.smiles_augmentation else part for part in parts]
        if texts == parts:
            return None
        try:
            return self._checked(row, {"input_ids": self.processor.join(list(map(self.processor.token_ids, texts)))})
        except MoleculeError:
            return None

    def _checked(self, row: dict, feature: dict) -> dict:
        """Return a feature that fits the model, shortened from the left where that is allowed."""
        ids, limit = feature["input_ids"], self.processor.tokenizer.model_max_length
        if len(ids) <= limit:
            return feature
        if not self.truncation or len(feature) > 1:
            text = f"{row.get('smiles')} with {row.get('second_smiles')}"
            raise MoleculeError(text, f"{len(ids)} tokens, the model takes {limit} (see truncation)")
        return {"input_ids": np.append(ids[:1], ids[1 - limit :])}

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        if self.smiles_augmentation:
            if self.processor.knowledge_embeddings:
                raise ValueError("smiles_augmentation: links and rings are those of the canonical SMILES")
            if "smiles" not in rows[0] or "row_id" not in rows[0]:
                raise ValueError("smiles_augmentation needs the columns 'smiles' and 'row_id'")
        features = [self._feature(row) for row in rows]
        return dict(self.processor.pad(features, return_tensors="pt")) | self.labels(rows, integers=True)


__all__ = ["XMolDataCollator", "XMolPropertyCollator"]
