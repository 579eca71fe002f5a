"""Rows of features that fine-tuning trains on and measures."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch.utils.data import Dataset

from ..chem.smiles import MoleculeError
from ..data.splits import PARTS
from ..processing.contract import MoleculeProcessor


def features_of(
    processor: MoleculeProcessor, columns: Mapping[str, Sequence], truncation: bool = False
) -> list[dict | MoleculeError]:
    """
    Compute the features of each molecule; a molecule that fails gives a `MoleculeError`.

    Args:
        columns: name of a column -> its value for each molecule (`smiles`; `z` and `pos`).
        truncation: shorten sequences that are too long for the model.
    Raises:
        ValueError: `truncation` for a processor without tokens.
    """
    shorten = {"truncation": True} if truncation else {}
    if truncation and not processor.truncates:
        raise ValueError(f"truncation: {type(processor).__name__} has no tokens to shorten")
    return processor.featurize(columns, on_error="skip", **shorten)


def takes_coordinates(processor: MoleculeProcessor) -> bool:
    """Return whether a processor reads atomic numbers and coordinates."""
    return frozenset({"smiles", "z", "pos"}) in processor.inputs


def takes_parts(processor: MoleculeProcessor) -> bool:
    """Return whether a processor reads several molecules of a row together: an entry of `smiles` may be a list."""
    return getattr(processor, "takes_parts", False)


def reports_on(processor: MoleculeProcessor, features: Iterable[dict]) -> dict[str, dict[str, int]]:
    """Count the words of each report of a processor (`conformer_status`, ...): report -> word -> number."""
    features = list(features)
    return {
        name: dict(Counter(word for feature in features for word in feature.get(name, "").split()))
        for name in processor.reports
    }


class FeatureRows(Dataset):
    """
    Rows of features in memory, with the column `length` that [`~hf_molrep.training.trainer.MoleculeTrainer`] groups by.

    Args:
        rows: rows for the data collator.
        lengths: size of each row.
        grouped: False if batches are not padded, so that grouping is of no use.
    """

    def __init__(self, rows: Sequence[dict], lengths: Sequence[int], grouped: bool = True):
        self.rows, self.lengths, self.grouped = list(rows), list(lengths), grouped
        self.column_names = ("length",) if grouped else ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> dict | list[int]:
        return self.lengths if key == "length" else self.rows[key]

    def select(self, places: Iterable[int]) -> "FeatureRows":
        """Return the rows with these indices, in this order."""
        places = list(places)
        return FeatureRows([self.rows[i] for i in places], [self.lengths[i] for i in places], self.grouped)

    def longest_first(self) -> tuple["FeatureRows", np.ndarray]:
        """Return the rows by falling length (little padding in evaluation), and their previous indices."""
        order = np.argsort(-np.array(self.lengths, dtype=np.int64), kind="stable")
        return self.select(order), order


def check_split(split: Mapping[str, Sequence[int]], rows: int) -> dict[str, np.ndarray]:
    """
    Check a split, and return its parts as index arrays; absent parts are empty.

    Raises:
        ValueError: there is no training part or an unknown part; or an index is outside of the rows or appears twice.
    """
    if "train" not in split or set(split) - set(PARTS):
        raise ValueError(f"a split has the parts train, valid and test, not {', '.join(map(str, split))}")
    parts = {part: np.asarray(split.get(part, ()), dtype=np.int64) for part in PARTS}
    values, counts = np.unique(np.concatenate(list(parts.values())), return_counts=True)
    outside = values[(values < 0) | (values >= rows)]
    if len(outside):
        raise ValueError(f"the split names molecule {outside[-1]}; there are {rows}, counted from 0")
    if (counts > 1).any():
        raise ValueError(f"the split names molecule {values[counts > 1][0]} more than once")
    return parts


def digest_of(texts: Sequence, arrays: Iterable[np.ndarray]) -> str:
    """Compute a digest of the data, by which a continued run recognises them."""
    digest = hashlib.sha256(json.dumps(texts, default=str).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes() + b"|")
    return digest.hexdigest()[:16]
