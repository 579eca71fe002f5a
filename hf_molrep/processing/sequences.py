"""Texts to token ids, for the processors of sequence methods."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..chem.smiles import MoleculeError, Standardize, canonical_smiles_batch
from ..data.batching import pad_tokens
from .contract import check_standardize

CAPITALISED = re.compile(r"(?<![A-Za-z])[A-Z](?=[a-z]{2})")


def check_rewriting(standardize: str, canonical: bool) -> None:
    """
    Check the options of a processor that rewrites SMILES.

    Raises:
        ValueError: `standardize` is unknown; or `canonical=False` with any other than `"none"`, which would be ignored.
    """
    check_standardize(standardize)
    if not canonical and standardize != "none":
        raise ValueError("canonical=False keeps the SMILES as written and so needs standardize='none'")


def smiles_texts(
    smiles: Sequence[str], standardize: Standardize = "clean", canonical: bool = True
) -> list[str | MoleculeError]:
    """
    Prepare SMILES for tokenizing: parsed, standardised and canonical, or with `canonical=False` as written. What is not
    a molecule gives a MoleculeError.
    """
    used = canonical_smiles_batch(smiles, standardize, on_error="skip")
    if canonical:
        return used
    return [
        text if isinstance(text, MoleculeError) else given.strip() for text, given in zip(used, smiles, strict=True)
    ]


def systematic_case(name: str) -> str:
    """Remove the capital that begins a sentence ("2-Acetyloxybenzoic acid" -> "2-acetyloxybenzoic acid")."""
    return CAPITALISED.sub(lambda match: match.group().lower(), name.strip())


def name_texts(names: Sequence[str]) -> list[str | MoleculeError]:
    """Prepare IUPAC names for tokenizing, see [`systematic_case`]. What is not a name gives a MoleculeError."""
    return [
        systematic_case(name)
        if isinstance(name, str) and name.strip()
        else MoleculeError(name, "an IUPAC name is a string that is not empty", "name")
        for name in names
    ]


def tokenize(
    tokenizer: Any,
    texts: Sequence[str | MoleculeError],
    notation: str = "SMILES",
    truncation: bool = False,
    max_length: int | None = None,
) -> tuple[list[np.ndarray | MoleculeError], list[int]]:
    """
    Tokenize texts.

    Args:
        tokenizer: a fast tokenizer of transformers.
        texts: texts; errors among them are passed through.
        notation: name of the notation in error messages.
        truncation: shorten texts longer than `max_length`, keeping the last token; otherwise they give a MoleculeError.
        max_length: number of tokens, by default `tokenizer.model_max_length`.
    Returns:
        int32 `[tokens]` or a MoleculeError for each text; and the indices of the texts that were shortened.
    """
    limit, unknown = max_length or tokenizer.model_max_length, tokenizer.unk_token_id
    results: list[np.ndarray | MoleculeError] = list(texts)
    shortened: list[int] = []
    places = [place for place, text in enumerate(texts) if isinstance(text, str)]
    # not tokenizer(texts), which also makes character offsets and two masks that are not needed
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # a call of the tokenizer may have left both switched on
    backend.no_padding()
    encodings = backend.encode_batch_fast([texts[place] for place in places])
    for place, encoding in zip(places, encodings, strict=True):
        text, ids = texts[place], np.array(encoding.ids, dtype=np.int32)
        if unknown in encoding.ids:
            odd = sorted({letter for letter in text if unknown in tokenizer(letter)["input_ids"]})
            reason = f"the vocabulary has no {', '.join(map(repr, odd)) or 'token for a part of it'}"
            results[place] = MoleculeError(text, reason, notation)
        elif len(ids) > limit and not truncation:
            reason = f"{len(ids)} tokens, the model takes {limit} (see truncation)"
            results[place] = MoleculeError(text, reason, notation)
        else:
            if len(ids) > limit:
                ids = np.append(ids[: limit - 1], ids[-1])
                shortened.append(place)
            results[place] = ids
    return results, shortened


def pad_view(features: Sequence[dict], tokenizer: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Pad one view to `<prefix>input_ids` and `<prefix>attention_mask`, int64 `[molecules, longest]`."""
    sequences = [np.asarray(feature[f"{prefix}input_ids"]) for feature in features]
    ids, mask = pad_tokens(sequences, tokenizer.pad_token_id)
    return {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}


__all__ = ["check_rewriting", "name_texts", "pad_view", "smiles_texts", "systematic_case", "tokenize"]
