"""A character n-gram model that writes SMILES: the baseline of distribution learning."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import accumulate

import numpy as np

START, END = "\x02", "\x03"


class CharacterNgram:
    """
    Each character depends on the `order - 1` characters before it. Chances are interpolated with those of the shorter
    contexts (Witten and Bell, IEEE Trans. Inf. Theory 37, 1085 (1991)): behind a context that was seen n times, with t
    different successors, `(count + t * chance in the shorter context) / (n + t)`; under the shortest one (no character)
    all characters of the training texts are equally likely.

    Args:
        texts: training texts.
        order: 5 for a 5-gram model.
        longest: texts end after so many characters.
    """

    def __init__(self, texts: Iterable[str], order: int = 5, longest: int = 200):
        if order < 1:
            raise ValueError(f"order is at least 1, not {order}")
        self.order, self.longest = order, longest
        counts: defaultdict[str, Counter] = defaultdict(Counter)
        # count whole windows first: there are far fewer different ones than characters
        windows: Counter[str] = Counter()
        for text in texts:
            padded = START * (order - 1) + text + END
            windows.update(padded[place : place + order] for place in range(len(padded) - order + 1))
        for window, count in windows.items():
            for skipped in range(order):
                counts[window[skipped:-1]][window[-1]] += count
        if not counts:
            raise ValueError("no texts")
        self.characters = sorted(counts[""])
        self._counts = dict(counts)
        self._chances: dict[str, np.ndarray] = {}
        self._cumulative: dict[str, list[float]] = {}

    def chances(self, context: str) -> np.ndarray:
        """Return the chance of each of `characters` behind a context, float64 `[characters]`."""
        context = context[max(len(context) - self.order + 1, 0) :]
        if context not in self._chances:
            shorter = self.chances(context[1:]) if context else np.full(len(self.characters), 1 / len(self.characters))
            counts = self._counts.get(context)
            if counts is None:
                return shorter
            seen = np.array([counts.get(character, 0) for character in self.characters], dtype=float)
            different = len(counts)
            self._chances[context] = (seen + different * shorter) / (seen.sum() + different)
        return self._chances[context]

    def sample(self, count: int, seed: int) -> list[str]:
        """Write texts."""
        rng = np.random.default_rng(seed)
        return [self._text(rng) for _ in range(count)]

    def _text(self, rng: np.random.Generator) -> str:
        context, written = START * (self.order - 1), []
        for draw in rng.random(self.longest).tolist():
            cumulative = self._cumulative.get(context)
            if cumulative is None:
                cumulative = self._cumulative[context] = list(accumulate(self.chances(context).tolist()))
            character = self.characters[min(bisect_right(cumulative, draw), len(self.characters) - 1)]
            if character == END:
                break
            written.append(character)
            context = (context + character)[1:]
        return "".join(written)
