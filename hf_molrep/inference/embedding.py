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
    `pooler_output` `[molecules, hidden]` of a batch.

    Raises:
        ValueError: the model gives none, as those with a head.
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
    The embedding of each molecule, float32 `[hidden]`, in the order of the input; with `on_error="skip"` a
    [`~hf_molrep.chem.MoleculeError`] in the place of one that failed.

    The same for a molecule whatever else is embedded with it, and in memory that does not grow with the number of
    molecules.

    Args:
        molecules: SMILES, or with `kind="iupac"` names; or dicts of the columns that `processor` reads.
        options: those of [`~hf_molrep.inference.engine.infer`]: `batch_tokens`, `batch_size`, `on_error`, `device`,
            `dtype`, `window`, `num_workers`.
    """
    # called here, not in the generator below, so that bad arguments raise at once
    results = infer(model, processor, rows_of(molecules, kind), embedding_step, **options)
    return (result if isinstance(result, MoleculeError) else result.output for result in results)


__all__ = ["embed", "embedding_step"]
