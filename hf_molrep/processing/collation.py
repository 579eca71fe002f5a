"""What the data collators of all methods share: rows to features, a random generator of each row, labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .contract import MoleculeProcessor, by_column


@dataclass
class MoleculeCollator:
    """
    Base of the data collators. A row holds the features of one molecule, as `processor.featurize` gives them, or the
    columns that the processor reads; and `labels` (a number, or one per task), `row_id`.

    Args:
        processor: the processor of the checkpoint.
        seed, epoch: each molecule draws from `default_rng([seed, epoch, row_id])`; a trainer sets `epoch`. So a batch
            is the same with any number of workers and after resuming.
    """

    processor: MoleculeProcessor
    seed: int = 0
    epoch: int = 0

    def generator(self, row: dict) -> np.random.Generator:
        """
        The random numbers of a row in this epoch.

        Raises:
            ValueError: the row has no `row_id`.
        """
        if "row_id" not in row:
            raise ValueError("random steps need the column 'row_id': each molecule draws its own random numbers")
        return np.random.default_rng([self.seed, self.epoch, int(row["row_id"])])

    def features(self, rows: Sequence[dict]) -> list[dict]:
        """
        The features of each row, made here where the rows hold molecules.

        Raises:
            MoleculeError: a molecule that cannot be used.
            ValueError: neither features nor columns that the processor reads.
        """
        if self.processor.model_input_names[0] in rows[0]:
            return list(rows)
        return self.processor.featurize(self.columns(rows))

    def columns(self, rows: Sequence[dict]) -> dict[str, list[Any]]:
        """The columns of rows that the processor reads, as many as it can."""
        readable = [names for names in self.processor.inputs if names <= rows[0].keys()]
        if not readable:
            needed = "; or ".join(" and ".join(sorted(names)) for names in self.processor.inputs)
            raise ValueError(f"rows hold {', '.join(rows[0])}; needed are features of the processor, or {needed}")
        chosen = max(readable, key=len)
        return by_column([{name: row[name] for name in sorted(chosen)} for row in rows])

    def labels(self, rows: Sequence[dict], integers: bool = False) -> dict[str, Any]:
        """`{"labels": [molecules] or [molecules, tasks]}`, float32, or with `integers` classes as int64; {} without."""
        if "labels" not in rows[0]:
            return {}
        import torch

        labels = np.array([row["labels"] for row in rows])
        keep = integers and labels.dtype.kind in "iu"
        return {"labels": torch.from_numpy(labels.astype(np.int64 if keep else np.float32))}


__all__ = ["MoleculeCollator"]
