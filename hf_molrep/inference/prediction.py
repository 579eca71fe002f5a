"""Predicted properties of many molecules."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from ..chem.smiles import MoleculeError
from .engine import infer


def predictions(output: Any) -> torch.Tensor:
    """
    `predictions` `[molecules, tasks]` of what a model returned.

    Raises:
        ValueError: the model gives none.
    """
    values = getattr(output, "predictions", None)
    if values is None:
        raise ValueError(
            f"{type(output).__name__} has no predictions: load the model with AutoModelForMoleculePropertyPrediction"
        )
    return values


def task_names(config: Any) -> list[str]:
    """Names of the tasks, in the order of the predictions."""
    return [config.id2label[task] for task in range(config.num_labels)]


def task_units(config: Any) -> dict[str, str | None]:
    """Unit of each task's predictions by its name: "probability", or of a regression its unit, None if not known."""
    names = task_names(config)
    if config.problem_type != "regression":
        return dict.fromkeys(names, "probability")
    return dict(zip(names, config.label_units or [None] * len(names), strict=True))


def predict(
    model: torch.nn.Module, processor: Any, molecules: Iterable[str | MoleculeError], **options: Any
) -> Iterator[np.ndarray | MoleculeError]:
    """
    The predictions for each molecule, float32 `[tasks]` (names in [`task_names`], units in [`task_units`]), in the
    order of the input; with `on_error="skip"` a [`~hf_molrep.chem.MoleculeError`] in the place of one that failed.

    Options are those of [`~hf_molrep.inference.engine.infer`], which also gives the SMILES used:
    `infer(model, processor, molecules, predictions)`.
    """
    results = infer(model, processor, molecules, predictions, **options)
    return (result if isinstance(result, MoleculeError) else result.output for result in results)
