"""Embeddings of many molecules."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from ..chem.smiles import MoleculeError
from .engine import infer


def pooled(output: Any) -> torch.Tensor:
    """
    `pooler_output` `[molecules, hidden]` of what a model returned.

    Raises:
        ValueError: the model gives none, as those with a head.
    """
    embedding = getattr(output, "pooler_output", None)
    if embedding is None:
        raise ValueError(f"{type(output).__name__} has no pooler_output: load the model with AutoModel, without a head")
    return embedding


def embed(
    model: torch.nn.Module, processor: Any, molecules: Iterable[str | MoleculeError], **options: Any
) -> Iterator[np.ndarray | MoleculeError]:
    """
    The embedding of each molecule, float32 `[hidden]`, in the order of the input; with `on_error="skip"` a
    [`~hf_molrep.chem.MoleculeError`] in the place of one that failed.

    The same for a molecule whatever else is embedded with it, and in memory that does not grow with the number of
    molecules. Options are those of [`~hf_molrep.inference.engine.infer`]: `kind`, `batch_tokens`, `on_error`, `device`,
    `dtype`, `window`, `num_workers`.
    """
    results = infer(model, processor, molecules, pooled, **options)  # here, so that bad arguments raise at once
    return (result if isinstance(result, MoleculeError) else result.output for result in results)
