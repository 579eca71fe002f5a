"""
Byte-pair encoding of SMILES that never splits a chemical symbol.

A BPE over characters, without any pre-tokenizer (so it is fast), whose merges come in two groups:

1. *symbols*: the merges that build `Cl`, `Br`, `%10` to `%29` and the bracket atoms of the training data, character by
   character from the left (`[` `C` -> `[C` `@` -> `[C@` ...). They rank first, so every such symbol is complete before
   any other merge.
2. *learned*: merges learned by BPE on SMILES whose symbols were each replaced by one private-use character. A learned
   merge therefore joins whole symbols and cannot begin or end inside one.

A bracket atom that is too rare in training is split into smaller pieces, none of which extends beyond its brackets.
Nothing in printable ASCII is unknown, and `decode(encode(s)) == s` for every such string.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, trainers

from .fast import PRINTABLE_ASCII, SPECIAL_TOKENS, with_special_tokens

VOCABULARY_SIZE = 1_000
MIN_BRACKET_COUNT = 40
MIN_MERGE_COUNT = 200
MAX_SYMBOLS_PER_TOKEN = 8
IUPAC_CORPUS_WEIGHT = 5
"""Weight of the SMILES of the name corpus, the only ones with salts and those with most of the stereo marks."""

RING_CLOSURES = tuple(f"%{number}" for number in range(10, 30))
_SYMBOL = re.compile(r"\[[^\]]+\]|%[0-9]{2}|Br|Cl|.")
_PRIVATE_USE = 0xE000


def symbols(smiles: str) -> list[str]:
    """Split a SMILES into bracket atoms, `%NN`, `Br`, `Cl`, and single characters."""
    return _SYMBOL.findall(smiles)


def known_symbols(corpus: Counter[str], min_count: int = MIN_BRACKET_COUNT) -> list[str]:
    """
    List the symbols of several characters that become one token: `Cl`, `Br`, `%10` to `%29`, frequent bracket atoms.

    Bracket atoms are sorted by falling count, then by name.
    """
    counts: Counter[str] = Counter()
    for smiles in corpus:
        counts.update(set(re.findall(r"\[[^\]]+\]", smiles)))
    frequent = [bracket for bracket, count in counts.items() if count >= min_count and bracket.isascii()]
    return ["Cl", "Br", *RING_CLOSURES, *sorted(frequent, key=lambda bracket: (-counts[bracket], bracket))]


def symbol_merges(known: Iterable[str]) -> list[tuple[str, str]]:
    """Make merges that build each known symbol from the left; inside a bracket `Cl` and `Br` are already complete."""
    merges: dict[tuple[str, str], None] = {}
    for symbol in known:
        parts = re.findall("Cl|Br|.", symbol) if symbol not in ("Cl", "Br") else list(symbol)
        prefix = parts[0]
        for part in parts[1:]:
            merges[prefix, part] = None
            prefix += part
    return list(merges)


def learned_merges(corpus: Counter[str], known: list[str], count: int, min_merge_count: int) -> list[tuple[str, str]]:
    """Learn at most `count` merges of whole symbols by BPE from `corpus` (SMILES -> weight)."""
    to_private = {symbol: chr(_PRIVATE_USE + index) for index, symbol in enumerate(known)}
    from_private = {private: symbol for symbol, private in to_private.items()}

    def words() -> Iterable[str]:
        for smiles, weight in sorted(corpus.items()):
            mapped = "".join(to_private.get(part, part if len(part) == 1 else "\n") for part in symbols(smiles))
            for word in mapped.split("\n"):  # no merge is learned across an unknown symbol
                if word:
                    yield from [word] * weight

    tokenizer = Tokenizer(models.BPE())
    alphabet = sorted({*PRINTABLE_ASCII, *to_private.values()})
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + count,
        min_frequency=min_merge_count,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=MAX_SYMBOLS_PER_TOKEN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(words(), trainer)
    learned = json.loads(tokenizer.to_str())["model"]["merges"]

    def translate(piece: str) -> str:
        return "".join(from_private.get(character, character) for character in piece)

    return [(translate(left), translate(right)) for left, right in learned]


def build_smiles_bpe(
    corpus: Counter[str],
    *,
    vocabulary_size: int = VOCABULARY_SIZE,
    min_bracket_count: int = MIN_BRACKET_COUNT,
    min_merge_count: int = MIN_MERGE_COUNT,
) -> Tokenizer:
    """
    Train the tokenizer on `corpus`, which maps each SMILES to its weight. The order of the corpus does not matter.

    The vocabulary is smaller than `vocabulary_size` when fewer merges reach `min_merge_count`.
    """
    known = known_symbols(corpus, min_bracket_count)
    first = symbol_merges(known)
    room = vocabulary_size - len(SPECIAL_TOKENS) - len(PRINTABLE_ASCII) - len({left + right for left, right in first})
    if room < 0:
        raise ValueError(f"{len(known)} symbols do not fit a vocabulary of {vocabulary_size}; raise min_bracket_count")
    merges = first + learned_merges(corpus, known, room, min_merge_count)
    vocabulary = with_special_tokens([*PRINTABLE_ASCII, *(left + right for left, right in merges)])
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer
