"""Checkpoints in the benchmarks: loading, features, and embeddings of frozen weights, which a cache folder keeps."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from hf_molrep.chem import MoleculeError
from hf_molrep.inference.embedding import embed as embed_each


def load_processor(model: str):
    """The processor of a checkpoint."""
    from transformers import AutoProcessor

    import hf_molrep  # noqa: F401  registers the methods

    return AutoProcessor.from_pretrained(model)


def load(model: str, seed: int | None = None):
    """
    Model (in evaluation mode, on the first accelerator if there is one) and processor of a checkpoint.

    Args:
        seed: if given, the checkpoint's architecture with random weights of that seed instead of its own.
    """
    from transformers import AutoConfig, AutoModel, set_seed
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading takes a second
    processor = load_processor(model)
    if seed is None:
        network = AutoModel.from_pretrained(model, dtype=torch.float32)
    else:
        set_seed(seed)
        network = AutoModel.from_config(AutoConfig.from_pretrained(model), dtype=torch.float32)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return network.to(device).eval(), processor


def usable(features: Sequence) -> list[dict]:
    """Of the results of `processor.featurize` with `on_error="skip"` those that are features."""
    return [feature for feature in features if isinstance(feature, dict)]


class Truncating:
    """A processor of token sequences that shortens what is longer than the model takes, and remembers where it did."""

    def __init__(self, processor):
        self.processor, self.truncated = processor, []
        self.pad, self.size, self.pads = processor.pad, processor.size, processor.pads
        self.inputs, self.reports = processor.inputs, processor.reports

    def featurize(self, columns, on_error="raise") -> list[dict | MoleculeError]:
        features = self.processor.featurize(columns, on_error, truncation=True)
        self.truncated += [isinstance(feature, dict) and bool(feature.get("truncated")) for feature in features]
        return features


def truncating(processor):
    """The processor, shortening where it can: that of a method without tokens as it is."""
    return Truncating(processor) if processor.truncates else processor


def embed(
    model, processor, texts: Sequence[str], kind: str = "smiles", truncation: bool = False, progress: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    `pooler_output` of each text.

    Args:
        kind: `"smiles"` or `"iupac"`.
        truncation: shorten what is longer than the model takes (sequence methods); otherwise it fails.
    Returns:
        float32 `[texts, hidden]`, rows of NaN where the processor refuses the text; bool `[texts]`, what was shortened.
    """
    if truncation:
        processor = truncating(processor)
    rows = np.full((len(texts), model.config.hidden_size), np.nan, dtype=np.float32)
    found = embed_each(model, processor, texts, kind=kind, on_error="skip")
    for place, row in enumerate(tqdm(found, desc=progress, disable=progress is None, total=len(texts), unit="mol")):
        if not isinstance(row, MoleculeError):
            rows[place] = row
    shortened = getattr(processor, "truncated", [False] * len(texts))
    return rows, np.array(shortened, dtype=bool)


def cached(cache: Path, key: str, texts: Sequence[str], compute) -> np.ndarray:
    """`compute()`, kept in `cache` under a name made of `key` and the texts; loaded from there the next time."""
    digest = hashlib.sha256(key.encode())
    for text in texts:
        digest.update(b"\0" + text.encode())
    file = cache / f"{digest.hexdigest()[:32]}.npy"
    if file.is_file():
        return np.load(file)
    values = compute()
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npy")
    np.save(partial, values)
    partial.replace(file)  # whole or not at all, also when the run is interrupted here
    return values


def normalised(embeddings: np.ndarray) -> np.ndarray:
    """Rows of length 1 (cosine similarity is then the dot product); a row of zeros stays."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
