"""The interface of every processor, between molecules and models."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from transformers import BatchFeature

from ..chem.smiles import STANDARDIZE_MODES, MoleculeError, OnError

Columns = Mapping[str, Sequence[Any]]
"""Molecules by column: `{"smiles": [...]}`, `{"smiles": [...], "z": [...], "pos": [...]}`, one entry per molecule."""


@runtime_checkable
class MoleculeProcessor(Protocol):
    """
    What a Processor or FeatureExtractor of this package offers beyond what transformers requires. Readers, trainers and
    pipelines use this and nothing else.

    Attributes:
        inputs: accepted sets of columns, for instance `{"smiles"}`, `{"iupac_name"}`, `{"smiles", "z", "pos"}`,
            `{"mol_block"}`; the first is the default.
        pads: True: a batch is padded to its largest molecule, so that batches of similar size save time. False: the
            molecules are joined, and must not be grouped by size (batch norm would see the sizes).
        truncates: `featurize` also takes `truncation` and `max_length`, as tokenizers do.
        takes_parts: (only where it is True) an entry of `smiles` may be a list of molecules, which are read together.
        reports: keys of a feature, besides `smiles_used`, that say how the feature was made.
        model_input_names: keys of a batch, as in transformers; a feature has the first of them.
    """

    inputs: tuple[frozenset[str], ...]
    pads: bool
    truncates: bool
    reports: tuple[str, ...]
    model_input_names: list[str]

    def featurize(self, columns: Columns, on_error: OnError = "raise") -> list[dict[str, Any] | MoleculeError]:
        """
        Compute one dict of flat arrays per molecule; with `on_error="skip"` a failed molecule gives its error instead.
        A dict may also hold `smiles_used`, the SMILES that the model sees, and texts under the names in `reports`.

        Raises:
            MoleculeError: a molecule cannot be used (`on_error="raise"`).
            ValueError: the columns are not one of `inputs` (see [`check_columns`]).
        """
        ...

    def size(self, feature: Mapping[str, Any]) -> int:
        """Number of tokens or atoms of one molecule, by which molecules are grouped into batches."""
        ...

    def pad(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = "pt") -> BatchFeature:
        """Make a batch from the features of several molecules."""
        ...

    def config_fields(self) -> dict[str, Any]:
        """Values that the model's configuration must have to fit the features, by field."""
        ...


def check_columns(processor: MoleculeProcessor, columns: Columns) -> int:
    """
    Check the columns given to `featurize`.

    Returns:
        The number of molecules.
    Raises:
        ValueError: the columns are not one of `processor.inputs`, differ in length, or one is a single string.
    """
    if not isinstance(columns, Mapping):
        kind = type(columns).__name__
        raise ValueError(f'molecules are given by column, as {{"smiles": [...]}}, not as {kind}')
    if frozenset(columns) not in processor.inputs:
        given = " and ".join(sorted(columns)) or "nothing"
        accepted, reason = list_inputs(processor), _reason_of_refusal(processor, columns)
        raise ValueError(f"{type(processor).__name__} reads {accepted}; not {given}{reason}")
    if any(isinstance(values, str | bytes) for values in columns.values()):
        raise ValueError("a column is a list with one entry per molecule, not one string")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise ValueError(f"columns of different lengths: {listed}")
    return next(iter(lengths.values()))


def list_inputs(processor: MoleculeProcessor) -> str:
    """List the sets of columns that a processor reads, for messages: "smiles; or pos and smiles and z"."""
    return "; or ".join(" and ".join(sorted(names)) for names in processor.inputs)


def check_standardize(standardize: str) -> None:
    """Raise ValueError unless `standardize` is a mode of [`~hf_molrep.chem.smiles.standardize`]."""
    if standardize not in STANDARDIZE_MODES:
        raise ValueError(f"standardize is one of {', '.join(STANDARDIZE_MODES)}, not {standardize!r}")


def choose_input(processor: MoleculeProcessor, available: frozenset[str], wanted: str) -> frozenset[str]:
    """
    Choose the largest set of available columns that the processor reads and that contains `wanted`. The record of an
    SDF (`mol_block`), which holds the molecule and its coordinates, comes before SMILES.

    Raises:
        ValueError: the processor does not read `wanted`.
    """
    readable = [names for names in processor.inputs if names <= available]
    if wanted == "smiles" and frozenset({"mol_block"}) in readable:
        return frozenset({"mol_block"})
    readable = [names for names in readable if wanted in names]
    if not readable:
        raise ValueError(f"{type(processor).__name__} does not read {wanted}{_reason_of_refusal(processor, {wanted})}")
    return max(readable, key=len)


def _reason_of_refusal(processor: MoleculeProcessor, columns: Collection[str]) -> str:
    """Say why a processor whose class reads these columns refuses them: a loaded checkpoint restricts `inputs`."""
    possible = getattr(type(processor), "inputs", ())
    known = isinstance(possible, tuple) and any(set(columns) <= names for names in possible)
    return ": the checkpoint has no weights for it" if known else ""


def by_column(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """
    Turn rows (dicts) into columns (lists).

    Raises:
        ValueError: the rows have different columns.
    """
    names = list(rows[0])
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("the molecules of a call are given by the same columns; here the rows differ")
    return {name: [row[name] for row in rows] for name in names}


__all__ = [
    "Columns",
    "MoleculeProcessor",
    "by_column",
    "check_columns",
    "check_standardize",
    "choose_input",
    "list_inputs",
]
