"""
SMILES cut into atoms, bonds, branches and ring numbers by the regular expression of Schwaller et al.

P. Schwaller et al., "Molecular Transformer", ACS Central Science 5, 1572 (2019); the expression as in the README of
https://github.com/pschwllr/MolecularTransformer. Where the original drops what it does not know (`%(100)`, a bare `H`),
such a character is one token here; a bracket atom that is not in the vocabulary is split into characters.
Nothing in printable ASCII is unknown, and decoding restores the SMILES.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers

from .fast import whole_or_characters

SCHWALLER_REGEX = r"\[[^\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|\*|\$|%[0-9]{2}|[0-9]"
MIN_COUNT = 5
"""A bracket atom becomes a token if at least this many training molecules have it."""


def build_smiles_atom(smiles: Iterable[str], *, min_count: int = MIN_COUNT) -> Tokenizer:
    """Build a tokenizer with the bracket atoms of `smiles` in its vocabulary; their order does not matter."""
    counts: Counter[str] = Counter()
    for string in smiles:
        counts.update(set(re.findall(r"\[[^\]]+\]", string)))
    brackets = sorted(bracket for bracket, count in counts.items() if count >= min_count)
    rings = [f"%{number}" for number in range(10, 100)]
    tokenizer = Tokenizer(whole_or_characters(["Cl", "Br", *rings, *brackets]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{SCHWALLER_REGEX}|(?m:.)"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer
