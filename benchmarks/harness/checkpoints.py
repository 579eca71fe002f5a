"""Load checkpoints, and compute and cache embeddings with frozen weights."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_molrep.chem.smiles import MoleculeError, OnError
from hf_molrep.inference.checkpoints import load_checkpoint
from hf_molrep.inference.embedding import embed as embed_each
from hf_molrep.processing.contract import Columns, MoleculeProcessor


def load_processor(model: str) -> MoleculeProcessor:
    """Load the processor of a checkpoint."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(model)


def load(model: str, seed: int | None = None) -> tuple[PreTrainedModel, MoleculeProcessor]:
    """
    Load the model (in evaluation mode, on the first accelerator if there is one) and the processor of a checkpoint.

    Args:
        seed: None: the weights of the checkpoint; else random weights of that seed in the same architecture.
    """
    from transformers import AutoConfig, AutoModel, set_seed

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    if seed is None:
        return load_checkpoint(AutoModel, model, device)
    set_seed(seed)
    network = AutoModel.from_config(AutoConfig.from_pretrained(model), dtype=torch.float32)
    return network.to(device).eval(), load_processor(model)


def usable(features: Sequence[dict | MoleculeError]) -> list[dict]:
    """Return the results of `featurize` without errors."""
    return [feature for feature in features if isinstance(feature, dict)]


class Truncating:
    """A processor of token sequences that shortens those that are too long for the model, and records which."""

    truncates = False

    def __init__(self, processor: MoleculeProcessor):
        self.processor, self.truncated = processor, []
        self.inputs, self.pads, self.reports = processor.inputs, processor.pads, processor.reports
        self.size, self.pad, self.config_fields = processor.size, processor.pad, processor.config_fields

    def featurize(self, columns: Columns, on_error: OnError = "raise") -> list[dict | MoleculeError]:
        features = self.processor.featurize(columns, on_error, truncation=True)
        self.truncated += [isinstance(feature, dict) and bool(feature.get("truncated")) for feature in features]
        return features


def truncating(processor: MoleculeProcessor) -> MoleculeProcessor:
    """Make a processor shorten long sequences; one without tokens is returned unchanged."""
    return Truncating(processor) if processor.truncates else processor


def embed(
    model: PreTrainedModel,
    processor: MoleculeProcessor,
    texts: Sequence[str],
    kind: str = "smiles",
    truncation: bool = False,
    progress: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Compute the `pooler_output` of each text.

    Args:
        kind: `"smiles"` or `"iupac"`.
        truncation: shorten sequences that are too long for the model; otherwise they fail.
        progress: label of a progress bar; None: no bar.
    Returns:
        float32 `[texts, hidden]`, NaN for texts that fail; bool `[texts]`: which were shortened.
    """
    if truncation:
        processor = truncating(processor)
    rows = np.full((len(texts), model.config.hidden_size), np.nan, dtype=np.float32)
    found = embed_each(model, processor, texts, kind=kind, on_error="skip")
    for place, row in enumerate(tqdm(found, desc=progress, disable=progress is None, total=len(texts), unit="mol")):
        if not isinstance(row, MoleculeError):
            rows[place] = row
    shortened = processor.truncated if isinstance(processor, Truncating) else [False] * len(texts)
    return rows, np.array(shortened, dtype=bool)


def cached(cache: Path, key: str, texts: Sequence[str], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return `compute()`, or its result for the same `key` and texts from the folder `cache`."""
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
    partial.replace(file)  # atomic, in case the run is interrupted
    return values


def normalised(embeddings: np.ndarray) -> np.ndarray:
    """Scale rows to length 1, so that dot products are cosines; rows of zeros are kept."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
