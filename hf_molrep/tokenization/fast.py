"""What all tokenizers of this project share: special tokens, `<s> ... </s>`, and how they are saved."""

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
    Give a bare `tokenizers.Tokenizer` the special tokens and the template, and wrap it for transformers.

    `extra` goes into `tokenizer_config.json` (e.g. the version of SELFIES that wrote the alphabet).
    Raises ValueError if the special tokens do not have the ids 0 to 4.
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
    """Model that turns a pre-token into one token if it is among `pieces`, else into its characters."""
    vocabulary = with_special_tokens([*PRINTABLE_ASCII, *pieces])
    return models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", ignore_merges=True)


def with_special_tokens(pieces: list[str]) -> dict[str, int]:
    """Vocabulary with the special tokens first and then `pieces` in their order; repeated pieces are counted once."""
    return {piece: index for index, piece in enumerate(dict.fromkeys([*SPECIAL_TOKENS, *pieces]))}


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
