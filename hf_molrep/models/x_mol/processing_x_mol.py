"""X-MOL processor: SMILES to token ids, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from ...chem.smiles import MoleculeError, OnError, check_on_error, collect
from ...data.batching import pad_tokens
from ...hub import RemoteCodeMixin
from ...processing.contract import Columns, check_columns
from ...processing.sequences import check_rewriting, smiles_texts
from ...tokenization.x_mol import KNOWLEDGE, knowledge_ids, tokens

Source = str | Sequence[str] | None
"""A molecule; several, as the parts of one row; or nothing, for new molecules."""


class XMolProcessor(RemoteCodeMixin, ProcessorMixin):
    """
    Tokenizes SMILES (after parsing, standardising and canonicalising them), `[CLS] SMILES [SEP]`. An entry of the
    column `smiles` may be several molecules, such as the parts of a reaction: `[CLS] first [SEP] second [SEP] ...`.

    Args:
        tokenizer: its vocabulary is used; SMILES are split by [`~hf_molrep.tokenization.x_mol.tokens`].
        standardize: `"none"`, `"clean"` or `"parent"`, see [`~hf_molrep.chem.smiles.standardize`].
        canonical: rewrite every SMILES as RDKit's canonical one; `False` keeps it as written. Invalid SMILES are
            refused either way.
        knowledge_embeddings: see [`XMolConfig`].
    """

    inputs = (frozenset({"smiles"}),)
    pads = True
    truncates = True
    takes_parts = True
    reports = ()

    def __init__(
        self, tokenizer, standardize: str = "clean", canonical: bool = True, knowledge_embeddings: Sequence[str] = ()
    ):
        super().__init__(tokenizer)
        check_rewriting(standardize, canonical)
        if unknown := sorted(set(knowledge_embeddings) - set(KNOWLEDGE)):
            raise ValueError(f"knowledge_embeddings are {', '.join(KNOWLEDGE)}, not {', '.join(unknown)}")
        self.standardize = standardize
        self.canonical = canonical
        self.knowledge_embeddings = list(knowledge_embeddings)
        self._vocabulary = tokenizer.get_vocab()

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", *(f"{name}_ids" for name in self.knowledge_embeddings)]

    def config_fields(self) -> dict[str, Any]:
        return {"knowledge_embeddings": self.knowledge_embeddings}

    def to_dict(self) -> dict[str, Any]:
        """As in transformers, without what is made from the tokenizer."""
        return {name: value for name, value in super().to_dict().items() if name != "_vocabulary"}

    def token_ids(self, text: str) -> list[int]:
        """
        Token ids of a SMILES as it is written, without `[CLS]` and `[SEP]`.

        Raises:
            MoleculeError: a token is not in the vocabulary; names it and its place.
        """
        try:
            return [self._vocabulary[token] for token in tokens(text)]
        except KeyError:
            place = 0
            for token in tokens(text):
                if token not in self._vocabulary:
                    reason = f"the vocabulary has no {token!r} (character {place + 1})"
                    raise MoleculeError(text, reason) from None
                place += len(token)
            raise

    def join(self, parts: Sequence[Sequence[int]]) -> np.ndarray:
        """Join the token ids of the parts of a source to int32 `[CLS] first [SEP] second [SEP] ...`."""
        separator = self.tokenizer.sep_token_id
        ids = [self.tokenizer.cls_token_id]
        for part in parts:
            ids += [*part, separator]
        return np.array(ids if parts else [*ids, separator], dtype=np.int32)

    def featurize(
        self, columns: Columns, on_error: OnError = "raise", truncation: bool = False, max_length: int | None = None
    ) -> list[dict | MoleculeError]:
        """
        Compute one dict of one-dimensional int32 arrays per molecule: `input_ids`, with `smiles_used`, the SMILES that
        was tokenized (or a list of them); on request `link_ids`, `ring_ids`, `type_ids`; and `truncated` if it was
        shortened, from the left as in the original.

        Args:
            truncation: shorten what has more than `max_length` tokens; otherwise it gives a MoleculeError.
            max_length: by default `tokenizer.model_max_length`.
        Raises:
            MoleculeError: a molecule is not valid, has a token outside of the vocabulary, or is too long
                (`on_error="raise"`); with `on_error="skip"` the error takes the molecule's place.
        """
        check_on_error(on_error)
        check_columns(self, columns)
        limit = max_length or self.tokenizer.model_max_length
        rows = [
            [entry] if isinstance(entry, str) or not isinstance(entry, Sequence) else list(entry)
            for entry in columns["smiles"]
        ]
        texts = iter(smiles_texts([part for row in rows for part in row], self.standardize, self.canonical))

        def feature(row: list[str]) -> dict | MoleculeError:
            used = [next(texts) for _ in row]
            if not used:
                return MoleculeError("", "a row has no molecule")
            if failed := [text for text in used if isinstance(text, MoleculeError)]:
                return failed[0]
            try:
                ids = self.join([self.token_ids(text) for text in used])
            except MoleculeError as error:
                return error
            result = {"smiles_used": used[0] if len(used) == 1 else used, "input_ids": ids}
            if self.knowledge_embeddings:
                knowledge = knowledge_ids([tokens(text) for text in used])
                result |= {f"{name}_ids": knowledge[name] for name in self.knowledge_embeddings}
            if len(ids) <= limit:
                return result
            if not truncation:
                reason = f"{len(ids)} tokens, the model takes {limit} (see truncation)"
                return MoleculeError(used[0] if len(used) == 1 else " ".join(used), reason)
            if self.knowledge_embeddings:
                return MoleculeError(used[0], f"{len(ids)} tokens: links do not survive truncation to {limit}")
            return result | {"input_ids": np.append(ids[:1], ids[1 - limit :]), "truncated": True}

        return collect(map(feature, rows), on_error)

    def size(self, feature: dict) -> int:
        """Number of tokens, by which molecules are grouped into batches."""
        return len(feature["input_ids"])

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        Pad the features of several molecules on the right, to `input_ids`, `attention_mask` and, where there are such,
        `link_ids`, `ring_ids`, `type_ids`, int64 `[molecules, longest]`.
        """
        batch = {}
        batch["input_ids"], batch["attention_mask"] = pad_tokens(
            [np.asarray(feature["input_ids"]) for feature in features], self.tokenizer.pad_token_id
        )
        for name in (f"{name}_ids" for name in self.knowledge_embeddings):
            batch[name], _ = pad_tokens([np.asarray(feature[name]) for feature in features], 0)
        return BatchFeature(batch, tensor_type=return_tensors)

    def __call__(
        self,
        smiles: str | Sequence[str | Sequence[str]] | None = None,
        return_tensors: str | None = None,
        padding: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> BatchFeature:
        """
        Make a batch from SMILES (a string or several), see [`~XMolProcessor.pad`].

        Args:
            padding: False gives lists of unequal length.
            truncation, max_length: see [`~XMolProcessor.featurize`].
        Raises:
            MoleculeError: see [`~XMolProcessor.featurize`].
            ValueError: no molecules; or tensors of unequal length (`padding=False`).
        """
        if smiles is None:
            raise ValueError("give SMILES; prompts() makes those of new molecules")
        columns = {"smiles": [smiles] if isinstance(smiles, str) else smiles}
        features = self.featurize(columns, truncation=truncation, max_length=max_length)
        if padding:
            return self.pad(features, return_tensors)
        return BatchFeature(
            {"input_ids": [feature["input_ids"].tolist() for feature in features]}, tensor_type=return_tensors
        )

    # ---- writing

    def prompt_ids(
        self, sources: Sequence[Source], truncation: bool = False, max_length: int | None = None
    ) -> list[np.ndarray]:
        """
        Make the token ids of `[CLS] source [SEP] [CLS]`, after which a SMILES is written.

        Args:
            sources: a molecule, or its parts, for molecules related to it; None for new molecules.
            truncation, max_length: see [`~XMolProcessor.featurize`]; of the source.
        Raises:
            MoleculeError: see [`~XMolProcessor.featurize`].
        """
        given = [source for source in sources if source is not None]
        features = iter(self.featurize({"smiles": given}, truncation=truncation, max_length=max_length))
        start = self.tokenizer.cls_token_id
        return [
            np.append(self.join([]) if source is None else next(features)["input_ids"], start) for source in sources
        ]

    def pad_prompts(self, prompts: Sequence[np.ndarray]) -> BatchFeature:
        """Pad prompts on the left, to `input_ids` and `attention_mask`, int64 `[prompts, longest]`."""
        ids, mask = pad_tokens([prompt[::-1] for prompt in prompts], self.tokenizer.pad_token_id)
        batch = {"input_ids": ids[:, ::-1].copy(), "attention_mask": mask[:, ::-1].copy()}
        return BatchFeature(batch, tensor_type="pt")

    def prompts(
        self, sources: Sequence[Source], truncation: bool = False, max_length: int | None = None
    ) -> BatchFeature:
        """Make the inputs of `generate`, see [`~XMolProcessor.prompt_ids`] and [`~XMolProcessor.pad_prompts`]."""
        return self.pad_prompts(self.prompt_ids(sources, truncation, max_length))

    def written(self, sequences: Any) -> list[str]:
        """
        Read the SMILES that `generate` wrote: what follows the last `[CLS]` of each row, up to `[SEP]`.

        Args:
            sequences: `[rows, length]`, as `generate` returns them.
        """
        start, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        texts = []
        for row in np.asarray(sequences):
            ids = row[np.flatnonzero(row == start)[-1] + 1 :]
            ends = np.flatnonzero(ids == end)
            texts.append(self.tokenizer.decode(ids[: ends[0]] if len(ends) else ids, skip_special_tokens=True))
        return texts


__all__ = ["XMolProcessor"]
