"""Base of the data collators: features, labels and a random generator of each row."""

import math
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


@dataclass
class DescriptorCollator(MoleculeCollator):
    """
    Base of the data collators of graph methods, which have the objective `"descriptors"`.

    Args:
        descriptor_share: share of the descriptors of a molecule that a step asks for (CheMeleon's 15 %).
    """

    descriptor_share: float = 0.15

    def __post_init__(self):
        if not 0 < self.descriptor_share <= 1:
            raise ValueError(f"descriptor_share is above 0 and at most 1, not {self.descriptor_share!r}")

    def descriptor_targets(self, rows: Sequence[dict]) -> dict[str, Any]:
        """
        Draw `descriptor_share` of the scaled descriptors of each row with its generator: `descriptor_places`, int64
        `[molecules, asked]`, and `descriptor_targets`, float32 `[molecules, asked]`, NaN where RDKit has none. (No name
        with "label" in it: Trainer would take them for labels.) The descriptors are in the row, or computed here from
        its `smiles`.

        Raises:
            MoleculeError: a molecule that cannot be read.
            ValueError: the rows have no `row_id`, or the processor has no scaling.
        """
        import torch

        if "descriptors" in rows[0]:
            targets = np.array([row["descriptors"] for row in rows], dtype=np.float32)
        else:
            targets = self.processor.descriptors([row["smiles"] for row in rows])
        asked = math.ceil(self.descriptor_share * targets.shape[1])
        places = np.stack([self.generator(row).permutation(targets.shape[1])[:asked] for row in rows])
        return {
            "descriptor_places": torch.from_numpy(places.astype(np.int64, copy=False)),
            "descriptor_targets": torch.from_numpy(np.take_along_axis(targets, places, axis=1)),
        }


def check_options(collator_class: type[MoleculeCollator], options: Mapping[str, Any]) -> None:
    """Raise ValueError for options that a data collator does not have."""
    known = {each.name for each in fields(collator_class)} - {"processor", "seed", "epoch"}
    if unknown := sorted(set(options) - known):
        has = ", ".join(sorted(known)) or "none"
        raise ValueError(f"{collator_class.__name__} has no option {', '.join(unknown)}; it has {has}")


__all__ = ["DescriptorCollator", "MoleculeCollator", "check_options"]
