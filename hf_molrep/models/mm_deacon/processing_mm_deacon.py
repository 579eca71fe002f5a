"""MM-Deacon processor: SMILES and IUPAC names to token ids."""

import re
from collections.abc import Sequence

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from ...chem.smiles import MoleculeError, canonical_smiles_batch
from ...data.batching import pad_tokens
from ...hub import RemoteCodeMixin

CAPITALISED = re.compile(r"(?<![A-Za-z])[A-Z](?=[a-z]{2})")


def systematic_case(name: str) -> str:
    """A name as in the middle of a sentence ("2-Acetyloxybenzoic acid" -> "2-acetyloxybenzoic acid"), stripped."""
    return CAPITALISED.sub(lambda match: match.group().lower(), name.strip())


class MMDeaconProcessor(RemoteCodeMixin, ProcessorMixin):
    """
    Tokenizes SMILES (after parsing, standardising and canonicalising them) and IUPAC names.

    Args:
        tokenizer: SMILES tokenizer, saved at the root of the folder (so `AutoTokenizer` finds it).
        iupac_tokenizer: tokenizer of IUPAC names, saved in `iupac_tokenizer/`.
        standardize: `"none"`, `"clean"` or `"parent"`, see [`~hf_molrep.chem.smiles.standardize`].
        canonical: rewrite every SMILES as RDKit's canonical one; `False` keeps what was written, but still refuses what
            is no molecule.
    """

    def __init__(self, tokenizer, iupac_tokenizer, standardize: str = "clean", canonical: bool = True):
        super().__init__(tokenizer, iupac_tokenizer)
        if standardize not in ("none", "clean", "parent"):
            raise ValueError(f"standardize is 'none', 'clean' or 'parent', not {standardize!r}")
        if not canonical and standardize != "none":
            raise ValueError("canonical=False keeps the SMILES as written and so needs standardize='none'")
        self.standardize = standardize
        self.canonical = canonical

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "iupac_input_ids", "iupac_attention_mask"]

    def _tokenize(
        self, tokenizer, texts: list, places: list[int], results: list, key: str, truncation, max_length, notation
    ):
        """Token ids of `texts` into `results[place][key]`; a text that cannot be expressed becomes a MoleculeError."""
        if not texts:
            return
        limit, unknown = max_length or tokenizer.model_max_length, tokenizer.unk_token_id
        # not tokenizer(texts), which also makes character offsets and two masks that nobody reads
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()  # a call of the tokenizer may have left both switched on
        backend.no_padding()
        for place, text, encoding in zip(places, texts, backend.encode_batch_fast(texts), strict=True):
            ids = np.array(encoding.ids, dtype=np.int32)
            if unknown in encoding.ids:
                odd = sorted({letter for letter in text if unknown in tokenizer(letter)["input_ids"]})
                reason = f"the vocabulary has no {', '.join(map(repr, odd)) or 'token for a part of it'}"
                results[place] = MoleculeError(text, reason, notation)
            elif len(ids) > limit and not truncation:
                reason = f"{len(ids)} tokens, the model takes {limit} (see truncation)"
                results[place] = MoleculeError(text, reason, notation)
            else:
                if len(ids) > limit:
                    ids = np.append(ids[: limit - 1], ids[-1])
                    results[place]["truncated"] = True
                results[place][key] = ids

    def featurize(
        self,
        smiles: Sequence[str] | None = None,
        iupac: Sequence[str] | None = None,
        on_error: str = "raise",
        truncation: bool = False,
        max_length: int | None = None,
    ) -> list[dict | MoleculeError]:
        """
        One dict of one-dimensional int32 arrays per molecule: `input_ids` (with `smiles_used`, the SMILES that was
        tokenized) and/or `iupac_input_ids` (with `iupac_used`: the name, without the capitals with which a sentence or
        a label begins, since the rules know small letters), and `truncated` where `truncation` shortened it.

        Raises:
            MoleculeError: the first molecule that is not valid, cannot be expressed or is longer than the model takes
                (`on_error="raise"`); with `on_error="skip"` such an error stands in the molecule's place.
            ValueError: neither SMILES nor names, or different numbers of them.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        if smiles is None and iupac is None:
            raise ValueError("give smiles, iupac, or both")
        if smiles is not None and iupac is not None and len(smiles) != len(iupac):
            raise ValueError(f"{len(smiles)} SMILES and {len(iupac)} names")
        results: list[dict | MoleculeError] = [{} for _ in (smiles if smiles is not None else iupac)]
        if smiles is not None:
            used = canonical_smiles_batch(smiles, self.standardize, on_error=on_error)
            for place, text in enumerate(used):
                if isinstance(text, MoleculeError):
                    results[place] = text
                else:
                    results[place]["smiles_used"] = text if self.canonical else smiles[place].strip()
            places = [place for place, result in enumerate(results) if isinstance(result, dict)]
            texts = [results[place]["smiles_used"] for place in places]
            self._tokenize(self.tokenizer, texts, places, results, "input_ids", truncation, max_length, "SMILES")
        if iupac is not None:
            for place, name in enumerate(iupac):
                if isinstance(results[place], dict) and (not isinstance(name, str) or not name.strip()):
                    results[place] = MoleculeError(name, "an IUPAC name is a string that is not empty", "name")
            places = [place for place, result in enumerate(results) if isinstance(result, dict)]
            texts = [systematic_case(iupac[place]) for place in places]
            for place, text in zip(places, texts, strict=True):
                results[place]["iupac_used"] = text
            self._tokenize(
                self.iupac_tokenizer, texts, places, results, "iupac_input_ids", truncation, max_length, "name"
            )
        if on_error == "raise":
            for result in results:
                if isinstance(result, MoleculeError):
                    raise result
        return results

    pads = True  # batches of one length waste less

    def size(self, feature: dict) -> int:
        """Tokens of a molecule, of all its views: by this number molecules are grouped into batches."""
        return sum(len(feature[key]) for key in ("input_ids", "iupac_input_ids") if key in feature)

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        Features of several molecules to `input_ids`, `attention_mask` and/or `iupac_input_ids`,
        `iupac_attention_mask`, int64 `[molecules, longest]`.
        """
        batch = {}
        for prefix, tokenizer in (("", self.tokenizer), ("iupac_", self.iupac_tokenizer)):
            if features and f"{prefix}input_ids" in features[0]:
                sequences = [np.asarray(feature[f"{prefix}input_ids"]) for feature in features]
                ids, mask = pad_tokens(sequences, tokenizer.pad_token_id)
                batch |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
        if not batch:
            raise ValueError("no features to pad: a batch needs at least one molecule with token ids")
        return BatchFeature(batch, tensor_type=return_tensors)

    def __call__(
        self,
        smiles: str | Sequence[str] | None = None,
        iupac: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
        padding: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> BatchFeature:
        """
        SMILES and/or IUPAC names (a string or several) to a batch, see [`~MMDeaconProcessor.pad`]. Longer than
        `max_length` (by default what the model takes) raises, unless `truncation=True`.

        Raises:
            MoleculeError: as [`~MMDeaconProcessor.featurize`].
            ValueError: `padding=False` with tensors of unequal length.
        """
        smiles = [smiles] if isinstance(smiles, str) else smiles
        iupac = [iupac] if isinstance(iupac, str) else iupac
        features = self.featurize(smiles, iupac, truncation=truncation, max_length=max_length)
        if padding:
            return self.pad(features, return_tensors)
        keys = [key for key in ("input_ids", "iupac_input_ids") if features and key in features[0]]
        return BatchFeature(
            {key: [feature[key].tolist() for feature in features] for key in keys}, tensor_type=return_tensors
        )


__all__ = ["MMDeaconProcessor"]
