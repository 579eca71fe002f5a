"""
SELFIES: one token per symbol (`[C]`, `[=Branch1]`, `.`).

Krenn et al., "SELFIES: a 100 % robust molecular string representation", Machine Learning: Science and Technology 1,
045024 (2020); https://github.com/aspuru-guzik-group/selfies (Apache-2.0). The symbols depend on the version of the
package that wrote the strings; the tokenizer's configuration names it (`selfies_version`). A symbol that is not in the
vocabulary is split into characters, so nothing in printable ASCII is unknown and decoding restores the string.
Tokenizing needs no `selfies` package; `encode` and `build_selfies` do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers

from .fast import whole_or_characters

SYMBOL_REGEX = r"\[[^\]]*\]|\."
MIN_COUNT = 3
"""A symbol becomes a token if at least this many training molecules have it."""


def version() -> str:
    """Return the version of the installed `selfies` distribution (its `__version__` is not kept up to date)."""
    from importlib.metadata import version as distribution_version

    return distribution_version("selfies")


def encode(smiles: str) -> str | None:
    """Convert SMILES to SELFIES; None for what SELFIES cannot express (`*`, valences beyond its table, ...)."""
    import selfies

    try:
        return selfies.encoder(smiles)
    except selfies.EncoderError:
        return None


def build_selfies(strings: Iterable[str], *, min_count: int = MIN_COUNT) -> Tokenizer:
    """Build a tokenizer with the symbols of the SELFIES `strings` and of the grammar as its vocabulary."""
    import selfies

    counts: Counter[str] = Counter()
    for string in strings:
        counts.update(set(re.findall(r"\[[^\]]*\]", string)))
    seen = {symbol for symbol, count in counts.items() if count >= min_count}
    symbols = sorted(seen | selfies.get_semantic_robust_alphabet() | {"[nop]"})
    tokenizer = Tokenizer(whole_or_characters(symbols))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{SYMBOL_REGEX}|(?m:.)"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer
