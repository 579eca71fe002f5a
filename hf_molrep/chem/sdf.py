"""Records of an SDF, one at a time (format: BIOVIA CTfile specification, chapter "SDFiles")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .smiles import parse_mol_block

_FIELD = re.compile(r"^>.*?<(.+)>")


class SdfRecord(NamedTuple):
    """One molecule of an SDF: its first line, its mol block, and its data fields as text."""

    title: str
    block: str
    properties: dict[str, str]

    def smiles(self) -> str:
        """
        Write canonical isomeric SMILES, nothing standardised; stereo from the coordinates and wedges.

        Raises:
            MoleculeError: the block cannot be read; its `smiles` is the title.
        """
        from rdkit import Chem

        return Chem.MolToSmiles(parse_mol_block(self.block))


def read_sdf(lines: Iterable[str]) -> Iterator[SdfRecord]:
    """
    Split the lines of an SDF into records, readable or not. A last record without `$$$$` counts unless it is blank.

    A value extends to the next field: empty lines within it are kept, those at its end are not. Where a record has a
    field twice, the values are joined by a line break.
    """
    record: list[str] = []
    for line in lines:
        line = line.rstrip("\r\n")
        if line.startswith("$$$$"):
            yield _record(record)
            record = []
        else:
            record.append(line)
    if any(line.strip() for line in record):
        yield _record(record)


def field_name(line: str) -> str | None:
    """Return the name of the data field that starts in this line, or None."""
    match = _FIELD.match(line) if line.startswith(">") else None
    return match[1] if match else None


def _record(lines: list[str]) -> SdfRecord:
    # the first four lines are the header of the block, whatever they contain
    end = next((row for row, line in enumerate(lines) if line.startswith("M  END")), None)
    if end is None:
        end = next(
            (row - 1 for row, line in enumerate(lines) if row >= 4 and field_name(line) is not None), len(lines) - 1
        )
    properties: dict[str, str] = {}
    name: str | None = None
    values: dict[str, list[list[str]]] = {}
    for line in lines[end + 1 :]:
        opened = field_name(line)
        if opened is not None:
            name = opened
            values.setdefault(name, []).append([])
        elif name is not None:
            values[name][-1].append(line)
    for name, parts in values.items():
        properties[name] = "\n".join("\n".join(part).rstrip("\n") for part in parts)
    return SdfRecord(lines[0] if lines else "", "\n".join([*lines[: end + 1], ""]), properties)
