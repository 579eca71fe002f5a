"""What every processor says of itself and does: the seam between molecules and models."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from transformers import BatchFeature

from ..chem.smiles import MoleculeError, OnError

Columns = Mapping[str, Sequence[Any]]
"""Molecules by column: `{"smiles": [...]}`, `{"smiles": [...], "z": [...], "pos": [...]}`, one entry per molecule."""


@runtime_checkable
class MoleculeProcessor(Protocol):
    """
    What a Processor or FeatureExtractor of this package has beside what transformers asks for. Readers, trainers and
    pipelines rely on this and on nothing else.

    Attributes:
        inputs: sets of columns that it reads, for instance `{"smiles"}`, `{"iupac_name"}`, `{"smiles", "z", "pos"}`,
            `{"mol_block"}`; the first is what it reads by default.
        pads: molecules of a batch are padded to the largest, so batches of molecules of one size save time. Otherwise
            they are joined, and must not be grouped by size (batch norm would see the sizes).
        truncates: `featurize` also takes `truncation` and `max_length`, as tokenizers do.
        reports: names under which a feature says how it came about, beside `smiles_used`.
    """

    inputs: tuple[frozenset[str], ...]
    pads: bool
    truncates: bool
    reports: tuple[str, ...]

    def featurize(self, columns: Columns, on_error: OnError = "raise") -> list[dict[str, Any] | MoleculeError]:
        """
        One dict of flat arrays per molecule, or with `on_error="skip"` the error in its place. A dict may also hold
        `smiles_used`, the SMILES that the model sees, and texts under the names of `reports`.

        Raises:
            MoleculeError: the first molecule that cannot be used (`on_error="raise"`).
            ValueError: columns that are not one of `inputs` ([`check_columns`]).
        """
        ...

    def size(self, feature: Mapping[str, Any]) -> int:
        """Tokens or atoms of one molecule: by this number molecules are grouped into batches."""
        ...

    def pad(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = "pt") -> BatchFeature:
        """The features of several molecules to a batch."""
        ...

    def config_fields(self) -> dict[str, Any]:
        """Fields of the model's configuration that must have these values for the model to understand the features."""
        ...


def check_columns(processor: MoleculeProcessor, columns: Columns) -> int:
    """
    Check what `featurize` was given.

    Returns:
        the number of molecules.
    Raises:
        ValueError: columns that are not one of `processor.inputs`, of unequal length, or a single string.
    """
    if not isinstance(columns, Mapping):
        kind = type(columns).__name__
        raise ValueError(f'molecules are given by column, as {{"smiles": [...]}}, not as {kind}')
    if frozenset(columns) not in processor.inputs:
        read = "; or ".join(" and ".join(sorted(names)) for names in processor.inputs)
        given = " and ".join(sorted(columns)) or "nothing"
        raise ValueError(f"{type(processor).__name__} reads {read}; not {given}{_left_out(processor, columns)}")
    if any(isinstance(values, str | bytes) for values in columns.values()):
        raise ValueError("a column is a list with one entry per molecule, not one string")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        raise ValueError(f"columns of different lengths: {told}")
    return next(iter(lengths.values()))


def choose_input(processor: MoleculeProcessor, available: frozenset[str], wanted: str) -> frozenset[str]:
    """
    The largest set of columns that a processor reads of those that are there and that holds `wanted`; the record of
    an SDF (`mol_block`), which holds the molecule and its coordinates, goes before all.

    Raises:
        ValueError: it does not read `wanted`.
    """
    readable = [names for names in processor.inputs if names <= available]
    if wanted == "smiles" and frozenset({"mol_block"}) in readable:
        return frozenset({"mol_block"})
    readable = [names for names in readable if wanted in names]
    if not readable:
        raise ValueError(f"{type(processor).__name__} does not read {wanted}{_left_out(processor, {wanted})}")
    return max(readable, key=len)


def _left_out(processor: MoleculeProcessor, columns: Collection[str]) -> str:
    """Why a processor that could read these columns refuses them: a loaded checkpoint restricts `inputs`."""
    possible = getattr(type(processor), "inputs", ())
    known = isinstance(possible, tuple) and any(set(columns) <= names for names in possible)
    return ": the checkpoint has no weights for it" if known else ""


def by_column(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """
    Rows of columns to columns of rows.

    Raises:
        ValueError: rows with different columns.
    """
    names = list(rows[0])
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("the molecules of a call are given by the same columns; here the rows differ")
    return {name: [row[name] for row in rows] for name in names}


__all__ = ["Columns", "MoleculeProcessor", "by_column", "check_columns", "choose_input"]
