"""Common parts of all tokenizers: special tokens, the template `<s> ... </s>`, and the format they are saved in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, processors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""Ids 0 to 4, in this order, in every tokenizer."""

PRINTABLE_ASCII = "".join(chr(code) for code in range(0x20, 0x7F))
"""The characters that no tokenizer ever maps to `<unk>`."""

MODEL_MAX_LENGTH = 512


def as_fast_tokenizer(tokenizer: Tokenizer, **extra: str) -> PreTrainedTokenizerFast:
    """
    Add the special tokens and the template to a `tokenizers.Tokenizer`, and wrap it for transformers.

    Args:
        extra: entries of `tokenizer_config.json` (e.g. the version of SELFIES that wrote the alphabet).
    Raises:
        ValueError: the special tokens do not have the ids 0 to 4.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    ids = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS]
    if ids != list(range(len(SPECIAL_TOKENS))):
        raise ValueError(f"special tokens have the ids {ids}, not 0 to {len(SPECIAL_TOKENS) - 1}")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
        clean_up_tokenization_spaces=False,
        model_max_length=MODEL_MAX_LENGTH,
        **extra,
    )


def whole_or_characters(pieces: list[str]) -> models.BPE:
    """Make a model that maps a pre-token to one token if it is among `pieces`, else to its characters."""
    vocabulary = with_special_tokens([*PRINTABLE_ASCII, *pieces])
    return models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", ignore_merges=True)


def with_special_tokens(pieces: list[str]) -> dict[str, int]:
    """Make a vocabulary: special tokens first, then `pieces` in their order, without repetitions."""
    return {piece: index for index, piece in enumerate(dict.fromkeys([*SPECIAL_TOKENS, *pieces]))}


def sha256(path: Path | str) -> str:
    """Compute the hexadecimal SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
