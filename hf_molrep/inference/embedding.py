"""Embeddings of many molecules."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ..chem.smiles import MoleculeError
from ..processing.contract import MoleculeProcessor
from .engine import infer, rows_of


def embedding_step(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """
    Compute the `pooler_output` `[molecules, hidden]` of a batch.

    Raises:
        ValueError: the model has none, as models with a head.
    """
    output = model(**batch)
    embedding = getattr(output, "pooler_output", None)
    if embedding is None:
        raise ValueError(f"{type(output).__name__} has no pooler_output: load the model with AutoModel, without a head")
    return embedding


def embed(
    model: torch.nn.Module,
    processor: MoleculeProcessor,
    molecules: Iterable[str | Mapping[str, Any] | MoleculeError],
    kind: str = "smiles",
    **options: Any,
) -> Iterator[np.ndarray | MoleculeError]:
    """
    Embed molecules, in the order of the input and in constant memory. The embedding of a molecule does not depend on
    the others.

    Args:
        molecules: SMILES, or with `kind="iupac"` names; or dicts of the columns that `processor` reads.
        options: options of [`~hf_molrep.inference.engine.infer`]: `batch_tokens`, `batch_size`, `on_error`, `device`,
            `dtype`, `window`, `num_workers`.
    Returns:
        For each molecule its embedding, float32 `[hidden]`; with `on_error="skip"` a [`~hf_molrep.chem.MoleculeError`]
        if it failed.
    """
    # called here, not in the generator below, so that bad arguments raise at once
    results = infer(model, processor, rows_of(molecules, kind), embedding_step, **options)
    return (result if isinstance(result, MoleculeError) else result.output for result in results)


__all__ = ["embed", "embedding_step"]
