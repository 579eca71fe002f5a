"""Texts that a checkpoint writes, kept on disk as they are written."""

from pathlib import Path

from tqdm.auto import trange
from transformers import PreTrainedModel

from benchmarks.harness.report import fingerprint
from benchmarks.harness.selection import Cache
from hf_molrep.inference.generation import GenerationOptions, NewMolecules
from hf_molrep.processing.contract import MoleculeProcessor


def free_samples(
    model: PreTrainedModel, processor: MoleculeProcessor, folder: str, options: GenerationOptions, cache: Path
) -> list[str]:
    """
    Write new molecules, `options.num_return_sequences` texts as the model wrote them.

    Args:
        folder: of the checkpoint, whose fingerprint is the key.
        cache: JSON lines; a stopped run continues from it.
    """
    molecules, known = NewMolecules(model, processor, options), Cache(cache)
    settings = {name: value for name, value in vars(options).items() if name not in ("batch_rows", "keep_all")}
    texts: list[str] = []
    for chunk in trange(molecules.chunks, desc="chunks of samples"):
        key = {"checkpoint": fingerprint(folder), **settings, "chunk": chunk}
        texts += known.get(key, lambda chunk=chunk: {"texts": [text for text, _ in molecules.texts(chunk)]})["texts"]
    return texts
