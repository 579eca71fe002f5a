"""MM-Deacon processor: SMILES and IUPAC names to token ids."""

from collections.abc import Sequence
from typing import Any

from transformers import BatchFeature, ProcessorMixin

from ...chem.smiles import MoleculeError, OnError, check_on_error, collect
from ...hub import RemoteCodeMixin
from ...processing.contract import Columns, check_columns
from ...processing.sequences import check_rewriting, name_texts, pad_view, smiles_texts, tokenize

# column -> prefix of its batch keys, key of the tokenized text in a feature, name of the notation in errors
VIEWS = {"smiles": ("", "smiles_used", "SMILES"), "iupac_name": ("iupac_", "iupac_used", "name")}


class MMDeaconProcessor(RemoteCodeMixin, ProcessorMixin):
    """
    Tokenizes SMILES (after parsing, standardising and canonicalising them) and IUPAC names.

    Args:
        tokenizer: SMILES tokenizer, saved at the root of the folder (so `AutoTokenizer` finds it).
        iupac_tokenizer: tokenizer of IUPAC names, saved in `iupac_tokenizer/`.
        standardize: `"none"`, `"clean"` or `"parent"`, see [`~hf_molrep.chem.smiles.standardize`].
        canonical: rewrite every SMILES as RDKit's canonical one; `False` keeps it as written. Invalid SMILES are
            refused either way.
    """

    inputs = (frozenset({"smiles"}), frozenset({"iupac_name"}), frozenset({"smiles", "iupac_name"}))
    pads = True
    truncates = True
    reports = ()

    def __init__(self, tokenizer, iupac_tokenizer, standardize: str = "clean", canonical: bool = True):
        super().__init__(tokenizer, iupac_tokenizer)
        check_rewriting(standardize, canonical)
        self.standardize = standardize
        self.canonical = canonical

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "iupac_input_ids", "iupac_attention_mask"]

    def config_fields(self) -> dict[str, Any]:
        return {}

    def tokenizer_of(self, column: str) -> Any:
        """Return the tokenizer of the column `smiles` or `iupac_name`."""
        return self.tokenizer if column == "smiles" else self.iupac_tokenizer

    def featurize(
        self, columns: Columns, on_error: OnError = "raise", truncation: bool = False, max_length: int | None = None
    ) -> list[dict | MoleculeError]:
        """
        Compute one dict of one-dimensional int32 arrays per molecule: `input_ids` (with `smiles_used`, the SMILES that
        was tokenized) and/or `iupac_input_ids` (with `iupac_used`, the name that was tokenized: without capitals at its
        beginning, since the tokenizer's rules expect small letters); and `truncated` if it was shortened.

        Raises:
            MoleculeError: a molecule is not valid, has no tokens for a part, or is longer than the model takes
                (`on_error="raise"`); with `on_error="skip"` the error takes the molecule's place.
            ValueError: neither SMILES nor names are given, or their numbers differ.
        """
        check_on_error(on_error)
        results: list[dict | MoleculeError] = [{} for _ in range(check_columns(self, columns))]
        for column in (name for name in VIEWS if name in columns):
            prefix, used_key, notation = VIEWS[column]
            if column == "smiles":
                texts = smiles_texts(columns["smiles"], self.standardize, self.canonical)
            else:
                texts = name_texts(columns["iupac_name"])
            ids, shortened = tokenize(self.tokenizer_of(column), texts, notation, truncation, max_length)
            shortened = set(shortened)
            for place, (text, tokens) in enumerate(zip(texts, ids, strict=True)):
                if isinstance(results[place], MoleculeError):
                    continue
                if isinstance(tokens, MoleculeError):
                    results[place] = tokens
                else:
                    results[place] |= {used_key: text, f"{prefix}input_ids": tokens}
                    if place in shortened:
                        results[place]["truncated"] = True
        return collect(results, on_error)

    def size(self, feature: dict) -> int:
        """Number of tokens of all views of a molecule, by which molecules are grouped into batches."""
        return sum(len(feature[key]) for key in ("input_ids", "iupac_input_ids") if key in feature)

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        Pad the features of several molecules to `input_ids`, `attention_mask` and/or `iupac_input_ids`,
        `iupac_attention_mask`, int64 `[molecules, longest]`.
        """
        batch = {}
        for column, (prefix, _, _) in VIEWS.items():
            if features and f"{prefix}input_ids" in features[0]:
                batch |= pad_view(features, self.tokenizer_of(column), prefix)
        if not batch:
            raise ValueError("no features to pad: a batch needs at least one molecule with token ids")
        return BatchFeature(batch, tensor_type=return_tensors)

    def __call__(
        self,
        smiles: str | Sequence[str] | None = None,
        iupac_name: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
        padding: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> BatchFeature:
        """
        Make a batch from SMILES and/or IUPAC names (a string or several), see [`~MMDeaconProcessor.pad`].

        Args:
            padding: False gives lists of unequal length.
            truncation, max_length: see [`~hf_molrep.processing.sequences.tokenize`].
        Raises:
            MoleculeError: see [`~MMDeaconProcessor.featurize`].
            ValueError: tensors of unequal length (`padding=False`).
        """
        given = {"smiles": smiles, "iupac_name": iupac_name}
        columns = {
            name: [value] if isinstance(value, str) else value for name, value in given.items() if value is not None
        }
        features = self.featurize(columns, truncation=truncation, max_length=max_length)
        if padding:
            return self.pad(features, return_tensors)
        keys = [key for key in ("input_ids", "iupac_input_ids") if features and key in features[0]]
        return BatchFeature(
            {key: [feature[key].tolist() for feature in features] for key in keys}, tensor_type=return_tensors
        )


__all__ = ["MMDeaconProcessor"]
