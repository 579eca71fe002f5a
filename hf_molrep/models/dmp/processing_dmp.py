"""DMP processor: a SMILES to token ids and to the graph of the same atoms in the same order."""

from collections.abc import Sequence
from typing import Any

from transformers import BatchFeature, ProcessorMixin

from ...chem.smiles import MoleculeError, OnError, check_on_error, collect
from ...hub import RemoteCodeMixin
from ...processing.contract import Columns, check_columns
from ...processing.graphs import MolGraphFeatureExtractor
from ...processing.sequences import check_rewriting, pad_view, tokenize


class DMPProcessor(RemoteCodeMixin, ProcessorMixin):
    """
    Makes both views of a molecule from its SMILES, standardised and canonical: `SMILES </s>` in tokens, and the graph
    whose atoms have the order of the SMILES.

    Args:
        tokenizer: see [`~hf_molrep.tokenization.dmp.build_dmp`].
        standardize: `"none"`, `"clean"` or `"parent"`, see [`~hf_molrep.chem.smiles.standardize`].
        canonical: rewrite every SMILES as RDKit's canonical one; `False` keeps it as written.
        scheme_version: version of the feature scheme `dmp` that the weights were trained with.
    """

    inputs = (frozenset({"smiles"}),)
    pads = True
    truncates = True
    reports = ()

    def __init__(
        self, tokenizer, standardize: str = "clean", canonical: bool = True, scheme_version: int | None = None
    ):
        super().__init__(tokenizer)
        check_rewriting(standardize, canonical)
        self.standardize = standardize
        self.canonical = canonical
        self._graphs = MolGraphFeatureExtractor(
            "dmp", scheme_version=scheme_version, standardize=standardize, canonical=canonical
        )
        self.scheme_version = self._graphs.scheme_version

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "x", "edge_index", "edge_attr", "batch"]

    def config_fields(self) -> dict[str, Any]:
        return {}

    def to_dict(self) -> dict[str, Any]:
        """As in transformers, without the extractor, which is made from the other fields."""
        return {name: value for name, value in super().to_dict().items() if name != "_graphs"}

    def featurize(
        self, columns: Columns, on_error: OnError = "raise", truncation: bool = False, max_length: int | None = None
    ) -> list[dict | MoleculeError]:
        """
        Compute one dict of one-dimensional arrays per molecule: `input_ids` (int32), those of
        [`~hf_molrep.processing.graphs.MolGraphFeatureExtractor.featurize`], `smiles_used`, and `truncated` if the
        tokens were shortened (the graph is whole in any case).

        Args:
            truncation, max_length: see [`~hf_molrep.processing.sequences.tokenize`].
        Raises:
            MoleculeError: a molecule is not valid, has a token outside of the vocabulary, or is too long
                (`on_error="raise"`); with `on_error="skip"` the error takes the molecule's place.
        """
        check_on_error(on_error)
        check_columns(self, columns)
        given, results = columns["smiles"], []
        graphs = self._graphs.featurize({"smiles": given}, on_error="skip")
        texts = [graph if isinstance(graph, MoleculeError) else graph["smiles_used"] for graph in graphs]
        ids, shortened = tokenize(self.tokenizer, texts, truncation=truncation, max_length=max_length)
        shortened = set(shortened)
        for place, (graph, tokens) in enumerate(zip(graphs, ids, strict=True)):
            if isinstance(tokens, MoleculeError):
                results.append(MoleculeError(given[place], tokens.reason))
            else:
                results.append({"input_ids": tokens, **graph, **({"truncated": True} if place in shortened else {})})
        return collect(results, on_error)

    def size(self, feature: dict) -> int:
        """Number of tokens, by which molecules are grouped into batches, as the original does."""
        return len(feature["input_ids"])

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        Pad the tokens of several molecules on the right, to `input_ids` and `attention_mask`, int64
        `[molecules, longest]`, and join their graphs, see
        [`~hf_molrep.processing.graphs.MolGraphFeatureExtractor.pad`].
        """
        tokens = BatchFeature(pad_view(features, self.tokenizer), tensor_type=return_tensors)
        return BatchFeature(dict(tokens) | dict(self._graphs.pad(features, return_tensors)))

    def __call__(
        self,
        smiles: str | Sequence[str],
        return_tensors: str | None = None,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> BatchFeature:
        """
        Make a batch from SMILES (a string or several), see [`~DMPProcessor.pad`].

        Args:
            truncation, max_length: see [`~DMPProcessor.featurize`].
        Raises:
            MoleculeError: see [`~DMPProcessor.featurize`].
        """
        columns = {"smiles": [smiles] if isinstance(smiles, str) else list(smiles)}
        return self.pad(self.featurize(columns, truncation=truncation, max_length=max_length), return_tensors)


__all__ = ["DMPProcessor"]
