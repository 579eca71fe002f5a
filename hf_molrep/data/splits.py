"""
Splits into training, validation and test part: random, by scaffold, or by scaffold in random order.

Rows with the same canonical SMILES are always in one part. A split is stored with a checksum of its molecules and
cannot be applied to others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..chem.scaffold import scaffold
from ..chem.smiles import MoleculeError, canonical_smiles

PARTS = ("train", "valid", "test")
FRACTIONS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Split:
    """
    Row numbers of each part.

    Attributes:
        name: "random", "scaffold" or "balanced_scaffold".
        seed: of the random splits; None for "scaffold".
        include_chirality: whether stereoisomers count as different scaffolds; None for "random".
        fractions: requested sizes, in the order of `PARTS`.
        parts: "train", "valid", "test" -> row numbers, int64, ascending.
    """

    name: str
    seed: int | None
    include_chirality: bool | None
    fractions: tuple[float, float, float]
    parts: dict[str, np.ndarray]


def block_fraction(block: str) -> float:
    """Map an InChIKey block to a number in [0, 1), so that its part does not depend on the other molecules."""
    return int(hashlib.sha256(f"hf_molrep:{block}".encode()).hexdigest()[:12], 16) / 16**12


def random_split(smiles: Sequence[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> Split:
    """
    Split distinct molecules at random.

    Raises:
        MoleculeError: a SMILES cannot be read; the reason names its row.
        ValueError: impossible fractions, or too few molecules for three parts.
    """
    sizes = _sizes(len(smiles), fractions)
    groups = list(_groups(smiles, canonical_smiles).values())
    order = np.random.default_rng(seed).permutation(len(groups))
    parts = _fill((groups[index] for index in order), sizes, "random")
    return Split("random", seed, None, tuple(fractions), parts)


def scaffold_split(
    smiles: Sequence[str], fractions: Sequence[float] = FRACTIONS, include_chirality: bool = False
) -> Split:
    """
    Split by scaffold as MoleculeNet does, deterministically: Bemis-Murcko scaffolds from the most to the least frequent
    (ties: the one that begins later in the file first, as in DeepChem) go to the training part while they fit, then to
    validation, then to test. All molecules without a ring have the same, empty scaffold.

    Raises:
        MoleculeError: a SMILES cannot be read; the reason names its row.
        ValueError: impossible fractions, or too few scaffolds for three parts.
    """
    sizes = _sizes(len(smiles), fractions)
    groups = _scaffold_groups(smiles, include_chirality)
    groups.sort(key=lambda rows: (len(rows), rows[0]), reverse=True)
    parts = _fill(groups, sizes, "scaffold", together=True)
    return Split("scaffold", None, include_chirality, tuple(fractions), parts)


def balanced_scaffold_split(
    smiles: Sequence[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0, include_chirality: bool = False
) -> Split:
    """
    Split by scaffold in random order, scaffolds larger than half the validation or test part first (chemprop's balanced
    split, Yang et al., J. Chem. Inf. Model. 59, 3370 (2019)); the same seed gives another split than chemprop's.

    Raises:
        MoleculeError: a SMILES cannot be read; the reason names its row.
        ValueError: impossible fractions, or too few scaffolds for three parts.
    """
    sizes = _sizes(len(smiles), fractions)
    groups = _scaffold_groups(smiles, include_chirality)
    shuffled = [groups[index] for index in np.random.default_rng(seed).permutation(len(groups))]
    limit = min(sizes[1], sizes[2]) / 2
    big = [rows for rows in shuffled if len(rows) > limit]
    parts = _fill(big + [rows for rows in shuffled if len(rows) <= limit], sizes, "balanced_scaffold")
    return Split("balanced_scaffold", seed, include_chirality, tuple(fractions), parts)


def make_split(
    name: str,
    smiles: Sequence[str],
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    include_chirality: bool = False,
) -> Split:
    """Make a split by name: "random", "scaffold" or "balanced_scaffold"; arguments it does not need are ignored."""
    if name == "random":
        return random_split(smiles, fractions, seed)
    if name == "scaffold":
        return scaffold_split(smiles, fractions, include_chirality)
    if name == "balanced_scaffold":
        return balanced_scaffold_split(smiles, fractions, seed, include_chirality)
    raise ValueError(f"split must be random, scaffold or balanced_scaffold, not {name!r}")


def molecules_checksum(smiles: Iterable[str]) -> str:
    """Compute the SHA-256 of the SMILES as written, in order."""
    digest = hashlib.sha256()
    for text in smiles:
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def write_split(path: str | Path, split: Split, smiles: Sequence[str]) -> None:
    """
    Write a split of these molecules as JSON.

    Raises:
        ValueError: the split has another number of molecules.
    """
    molecules = sum(len(rows) for rows in split.parts.values())
    if molecules != len(smiles):
        raise ValueError(f"the split has {molecules} rows, but there are {len(smiles)} molecules")
    content = {
        "name": split.name,
        "seed": split.seed,
        "include_chirality": split.include_chirality,
        "fractions": list(split.fractions),
        "molecules": len(smiles),
        "sha256": molecules_checksum(smiles),
        **{part: split.parts[part].tolist() for part in PARTS},
    }
    text = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    Path(path).write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


def read_split(path: str | Path, smiles: Sequence[str]) -> Split:
    """
    Read a split and check that it is one of these molecules.

    Raises:
        ValueError: not a split file, or a split of other molecules, of another order or of other SMILES of them.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        parts = {part: np.array(content[part], dtype=np.int64) for part in PARTS}
        split = Split(
            content["name"], content["seed"], content["include_chirality"], tuple(content["fractions"]), parts
        )
        molecules, checksum = content["molecules"], content["sha256"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a split file: {error}") from error
    if molecules != len(smiles):
        raise ValueError(f"{path} splits {molecules} molecules, but there are {len(smiles)}")
    if checksum != molecules_checksum(smiles):
        raise ValueError(f"{path} splits other molecules (their checksum differs), or the same ones in another order")
    if not np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(molecules)):
        raise ValueError(f"{path} is damaged: not every row is in exactly one part")
    return split


def _groups(smiles: Sequence[str], key: Callable[[str], str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(smiles):
        try:
            groups.setdefault(key(text), []).append(row)
        except MoleculeError as error:
            raise MoleculeError(error.smiles, f"{error.reason} (row {row + 1})") from None
    return groups


def _scaffold_groups(smiles: Sequence[str], include_chirality: bool) -> list[list[int]]:
    # of canonical SMILES, so that all SMILES of a molecule (metals drawn covalently, atom maps) have one scaffold
    groups = _groups(smiles, lambda text: scaffold(canonical_smiles(text), include_chirality))
    return list(groups.values())


def _sizes(molecules: int, fractions: Sequence[float]) -> list[float]:
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be three numbers from 0 to 1 with sum 1, not {tuple(fractions)}")
    if not molecules:
        raise ValueError("no molecules to split")
    return [fraction * molecules for fraction in fractions]


def _fill(
    groups: Iterable[list[int]], sizes: Sequence[float], name: str, together: bool = False
) -> dict[str, np.ndarray]:
    """
    Put each group into the first part where it fits; the last part takes the rest. With `together`, the validation part
    also gets what the training part left free.
    """
    train, valid, test = [], [], []
    for rows in groups:
        room = sizes[0] + sizes[1] - len(train) if together else sizes[1]
        if len(train) + len(rows) <= sizes[0] + 1e-6:
            train += rows
        elif len(valid) + len(rows) <= room + 1e-6:
            valid += rows
        else:
            test += rows
    parts = dict(zip(PARTS, (train, valid, test), strict=True))
    for part, size in zip(PARTS, sizes, strict=True):
        if size and not parts[part]:
            raise ValueError(f"{name} split leaves the {part} part empty: too few different molecules or scaffolds")
    return {part: np.sort(np.array(rows, dtype=np.int64)) for part, rows in parts.items()}
