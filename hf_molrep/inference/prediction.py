"""Predict properties of many molecules."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ..chem.smiles import MoleculeError
from ..processing.contract import MoleculeProcessor
from .engine import infer, rows_of


def prediction_step(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """
    Compute the `predictions` `[molecules, tasks]` of a batch.

    Raises:
        ValueError: the model has none.
    """
    output = model(**batch)
    values = getattr(output, "predictions", None)
    if values is None:
        raise ValueError(
            f"{type(output).__name__} has no predictions: load the model with AutoModelForMoleculePropertyPrediction"
        )
    return values


def task_names(config: Any) -> list[str]:
    """Return the names of the tasks, in the order of the predictions."""
    return [config.id2label[task] for task in range(config.num_labels)]


def task_units(config: Any) -> dict[str, str | None]:
    """Return the unit of each task by name: "probability", or for a regression its unit (None: unknown)."""
    names = task_names(config)
    if config.problem_type != "regression":
        return dict.fromkeys(names, "probability")
    return dict(zip(names, config.label_units or [None] * len(names), strict=True))


def predict(
    model: torch.nn.Module,
    processor: MoleculeProcessor,
    molecules: Iterable[str | Mapping[str, Any] | MoleculeError],
    kind: str = "smiles",
    **options: Any,
) -> Iterator[np.ndarray | MoleculeError]:
    """
    Predict properties of molecules, in the order of the input and in constant memory.

    Args:
        molecules: SMILES, or with `kind="iupac"` names; or dicts of the columns that `processor` reads.
        options: options of [`~hf_molrep.inference.engine.infer`], which with [`prediction_step`] also gives the SMILES
            used.
    Returns:
        For each molecule its predictions, float32 `[tasks]` (see [`task_names`], [`task_units`]); with
        `on_error="skip"` a [`~hf_molrep.chem.MoleculeError`] if it failed.
    """
    results = infer(model, processor, rows_of(molecules, kind), prediction_step, **options)
    return (result if isinstance(result, MoleculeError) else result.output for result in results)


__all__ = ["predict", "prediction_step", "task_names", "task_units"]
