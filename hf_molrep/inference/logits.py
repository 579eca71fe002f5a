"""Logits processors of generation: only tokens that keep a SMILES valid, and sampling with a seed for each row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from ..chem.smiles_grammar import SmilesState, Vocabulary


class SmilesLogitsProcessor(LogitsProcessor):
    """
    Allows only tokens that keep a SMILES valid, see [`hf_molrep.chem.smiles_grammar`]: no branch, ring or bond is left
    open at the end, and no atom has more bonds than it can take. What it cannot track, such as aromatic rings without a
    place for their double bonds, remains; [`GeneratedMolecule.valid`] tells.

    Args:
        tokenizer: of the model; a SMILES is written after its `cls_token` and ends with its `sep_token`.
        max_new_tokens: that of `generate`: what is open is closed in time.
    """

    def __init__(self, tokenizer: Any, max_new_tokens: int | None = None):
        self.start, self.end = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.vocabulary = Vocabulary(tokenizer.convert_ids_to_tokens(range(len(tokenizer))), tokenizer.sep_token_id)
        self.max_new_tokens = max_new_tokens
        self._states: dict[bytes, SmilesState] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        ids = input_ids.cpu().numpy()
        begin = ids.shape[1] - int((ids[:, ::-1] == self.start).argmax(axis=1).min())
        written = np.ascontiguousarray(ids[:, begin:])
        count = written.shape[1]
        left = None if self.max_new_tokens is None else self.max_new_tokens - count
        allowed = np.ones(scores.shape, dtype=bool)
        states = {}
        for row, tokens in enumerate(written):
            if count and self.end in tokens:
                continue
            key = tokens.tobytes()
            state = states.get(key)
            if state is None:
                state = states[key] = self._state(tokens)
            allowed[row, : len(self.vocabulary.tokens)] = state.allowed(self.vocabulary, left)
            allowed[row, len(self.vocabulary.tokens) :] = False
        self._states = states
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), -torch.inf)

    def _state(self, tokens: np.ndarray) -> SmilesState:
        """Return the state after some tokens, from that of one step ago if it is known."""
        if not len(tokens):
            return SmilesState()
        before = self._states.get(tokens[:-1].tobytes())
        if before is None:
            before = self._state(tokens[:-1])
        return before.after(self.vocabulary, int(tokens[-1]))


class SeededSampling(LogitsProcessor):
    """
    Makes greedy decoding a sampling (Gumbel-max): noise from a generator of each row's own is added to the scores. So
    what a row becomes depends on its seed alone, not on the other rows of the batch.

    Args:
        seeds: of each row, integers for `numpy.random.default_rng`.
    """

    def __init__(self, seeds: Sequence[Sequence[int]]):
        self.generators = [np.random.default_rng(list(seed)) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        noise = np.stack([generator.gumbel(size=scores.shape[1]) for generator in self.generators])
        return scores + torch.from_numpy(noise).to(scores.device, scores.dtype)


__all__ = ["SeededSampling", "SmilesLogitsProcessor"]
