"""
Systematic (IUPAC) names cut into fragments by the rules of Krasnov et al. (2021), in one `tokenizer.json`.

The original is one ordered alternation of fragments and locant patterns (`iupac_fragments.py` has the source), followed
by splitting rules, and it rejects a name of which any character is left over. The same rules here, inside `tokenizers`:

* In an ordered alternation of plain words, a word is never matched if an earlier word is a prefix of it. Of the other
  words, the longest that fits is matched. So they are written as a prefix tree, longest first: much faster.
* A normalizer writes `^` into the superscripts of von Baeyer names (`.02,9` -> `.0^2,9`); the decoder removes it.
  A literal `^` is replaced by one private-use character and restored by the decoder.
* A `Unigram` model with one cost for every fragment and a tenfold cost for a single character splits the pieces of the
  regular expression further (`methane` -> `meth ane`, `12'a` -> `12 ' a`).

**Fallback.** Names that the original rejects are kept: a character at which no rule matches becomes one token, and
matching continues after it (`leftover` returns these characters). Printable ASCII and the Greek letters and primes
of `FALLBACK_CHARACTERS` have tokens; anything else is `<unk>`. Decoding gives the name back exactly.

Differences from the original on names that it accepts: its empty token (`.2,4` -> `.`, ``, `^`, `2`) is left out, and
numbers over 99 are split into shorter numbers. Here a superscripted locant does not begin with 0 and has at most three
digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from .fast import PRINTABLE_ASCII, SPECIAL_TOKENS
from .iupac_fragments import FRAGMENTS, SPLITS

FALLBACK_CHARACTERS = PRINTABLE_ASCII + "".join(map(chr, range(0x3B1, 0x3CA))) + "Δ′″‴·±–"
LITERAL_CIRCUMFLEX = "\ue05e"
"""Replaces a literal `^` of a name; the token `^` marks a superscript."""

_CHARGES = tuple(f"({digit}{sign})" for digit in range(10) for sign in "+-")
_NUMBERS = tuple(str(number) for number in range(10, 100))

# Locants, in the original's order. The lookarounds keep the letters of `[de]` and `[a]` as separate tokens.
_LOCANTS = (
    r"\.\d*\^\d+,\d+",
    r"[1-9]{2}-[a-z]\]|[0-9]-[a-z]\]|[1-9]{2}[a-z]|[1-9]{2}'[a-z]|[0-9]'[a-z]|[0-9][a-z]",
    r"\([0-9][+-]\)|[1-9]{2}",
    r"(?<=\[)[a-z](?=[a-z]?\])|(?<=\[[a-z])[a-z](?=\])",
)


def reachable(fragments: Iterable[str]) -> list[str]:
    """Return, in order, the fragments that can match: those without an earlier fragment as a prefix."""
    kept: dict[str, None] = {}
    for fragment in fragments:
        if not any(fragment[:length] in kept for length in range(1, len(fragment) + 1)):
            kept[fragment] = None
    return list(kept)


def split_fragment(fragment: str) -> list[str]:
    """Split one matched fragment into its tokens."""
    return _SPLIT_TABLE.get(fragment, [fragment])


def prefix_tree_regex(words: Iterable[str]) -> str:
    """Build a regular expression that matches the longest of `words` that fits; alternatives in the words' order."""
    tree: dict = {}
    for word in words:
        node = tree
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}

    def expression(node: dict) -> str:
        branches = [_escape(character) + expression(child) for character, child in node.items() if character]
        if not branches:
            return ""
        if "" in node:
            return f"(?:{'|'.join(branches)})?"
        return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"

    return expression(tree)


def _escape(character: str) -> str:
    return character if character.isalnum() else f"\\{character}"


def _at_most(digits: int) -> str:
    """Build a pattern of `R,Q`, two numbers of `digits` digits without leading zero, R <= Q."""
    alternatives = []
    for same in range(digits):  # the first digit that differs
        head = f"(?<same{same}of{digits}>[1-9]" + r"\d" * (same - 1) + ")" if same else ""
        again = rf"\k<same{same}of{digits}>" if same else ""
        tail = r"\d" * (digits - same - 1)
        lowest = 0 if same else 1
        last = same == digits - 1
        for digit in range(lowest, 10 if last else 9):
            alternatives.append(f"{head}{digit}{tail},{again}[{digit if last else digit + 1}-9]{tail}")
    return _with_unique_groups(alternatives)


def _with_unique_groups(alternatives: list[str]) -> str:
    """Join alternatives, giving the named groups of each different names."""
    return "|".join(part.replace("<same", f"<alternative{index}same") for index, part in enumerate(alternatives))


def superscript_regex() -> str:
    r"""
    Build a pattern of the empty position in `.02,9` before the superscripted locant pair `2,9`.

    The digits before it belong to the bridge: an optional 0, then as few digits as leave a number not greater than
    the one after the comma (which has at most three digits).
    """
    shorter = [rf"[1-9]\d{{0,{digits - 2}}},[1-9]\d{{{digits - 1}}}" for digits in (2, 3)]
    rest = "|".join([*shorter, *(_at_most(digits) for digits in (1, 2, 3))])
    return rf"\.(?>0?)\d*?\K(?=(?:{rest})(?!\d))"


def vocabulary() -> list[str]:
    """List all tokens but the special ones: fallback characters, numbers, charges, fragments; from the rules alone."""
    fragments = [piece for fragment in _REACHABLE for piece in split_fragment(fragment)]
    return list(dict.fromkeys([*FALLBACK_CHARACTERS, LITERAL_CIRCUMFLEX, *_NUMBERS, *_CHARGES, *fragments]))


def leftover(name: str) -> str:
    """Return the characters of `name` that no rule covers; empty for names that the original accepts."""
    position, uncovered = 0, []
    while position < len(name):
        match = _STRICT.match(name, position)
        uncovered.append("" if match else name[position])
        position = match.end() if match else position + 1
    return "".join(uncovered)


def build_iupac() -> Tokenizer:
    """Build the tokenizer of systematic names; needs no data."""
    pieces = vocabulary()
    scores = [(token, 0.0) for token in SPECIAL_TOKENS] + [(p, -1.0 if len(p) > 1 else -10.0) for p in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=SPECIAL_TOKENS.index("<unk>")))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("^", LITERAL_CIRCUMFLEX),
            normalizers.Replace(Regex(superscript_regex()), "^"),
        ]
    )
    words = "|".join([*_LOCANTS, prefix_tree_regex(_REACHABLE), r"(?m:.)"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(words), behavior="isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("^", ""), decoders.Replace(LITERAL_CIRCUMFLEX, "^"), decoders.Fuse()]
    )
    return tokenizer


_REACHABLE = reachable(fragment for _, words in FRAGMENTS for fragment in words.split())
_SPLIT_TABLE = {rule.replace("|", ""): rule.split("|") for rule in SPLITS}
_STRICT = re.compile(
    "|".join([r"\.\d+,\d+", *_LOCANTS[1:], r"[0-9]|[-\s()SREZNCO'\";λH,.\[\]]", prefix_tree_regex(_REACHABLE)])
)
