"""Base of the data collators: features, labels and a random generator of each row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .contract import MoleculeProcessor, by_column, list_inputs


@dataclass
class MoleculeCollator:
    """
    Base of the data collators. A row holds the features of one molecule from `processor.featurize`, or the columns that
    the processor reads. It may also hold `labels` (a number, or one per task) and `row_id`.

    Args:
        processor: the processor of the checkpoint.
        seed, epoch: each molecule draws from `default_rng([seed, epoch, row_id])`, so a batch is the same with any
            number of workers and after resuming. The trainer sets `epoch`.
    """

    processor: MoleculeProcessor
    seed: int = 0
    epoch: int = 0

    def generator(self, row: dict) -> np.random.Generator:
        """
        Make the random generator of a row in this epoch.

        Raises:
            ValueError: the row has no `row_id`.
        """
        if "row_id" not in row:
            raise ValueError("random steps need the column 'row_id': each molecule draws its own random numbers")
        return np.random.default_rng([self.seed, self.epoch, int(row["row_id"])])

    def features(self, rows: Sequence[dict]) -> list[dict]:
        """
        Return the features of each row, computed here if the rows hold molecules.

        Raises:
            MoleculeError: a molecule cannot be used.
            ValueError: the rows hold neither features nor columns that the processor reads.
        """
        if self.processor.model_input_names[0] in rows[0]:
            return list(rows)
        return self.processor.featurize(self.columns(rows))

    def columns(self, rows: Sequence[dict]) -> dict[str, list[Any]]:
        """Return the largest set of columns of the rows that the processor reads."""
        readable = [names for names in self.processor.inputs if names <= rows[0].keys()]
        if not readable:
            needed = list_inputs(self.processor)
            raise ValueError(f"rows hold {', '.join(rows[0])}; needed are features of the processor, or {needed}")
        chosen = max(readable, key=len)
        return by_column([{name: row[name] for name in sorted(chosen)} for row in rows])

    def labels(self, rows: Sequence[dict], integers: bool = False) -> dict[str, Any]:
        """Stack labels to `{"labels": [molecules] or [molecules, tasks]}`, float32 (`integers`: int64); {} if none."""
        if "labels" not in rows[0]:
            return {}
        import torch

        labels = np.array([row["labels"] for row in rows])
        keep = integers and labels.dtype.kind in "iu"
        return {"labels": torch.from_numpy(labels.astype(np.int64 if keep else np.float32))}


def check_options(collator_class: type[MoleculeCollator], options: Mapping[str, Any]) -> None:
    """Raise ValueError for options that a data collator does not have."""
    known = {each.name for each in fields(collator_class)} - {"processor", "seed", "epoch"}
    if unknown := sorted(set(options) - known):
        has = ", ".join(sorted(known)) or "none"
        raise ValueError(f"{collator_class.__name__} has no option {', '.join(unknown)}; it has {has}")


__all__ = ["MoleculeCollator", "check_options"]
