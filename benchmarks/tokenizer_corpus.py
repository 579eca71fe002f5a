"""Training data of the tokenizers, and the 2 % of them that are held out for the table.

Left out everywhere: molecules of the benchmarks (InChIKey first blocks in `moleculenet/benchmark_blocks.parquet`) and
MassBank rows, whose licence does not allow to redistribute what is learned from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

PRETRAINING_FILES = ("chembl_validation", "geom_drugs_smiles", "zinc250k")
HELD_OUT_SHARE = 50  # one in fifty: 2 %


def is_held_out(inchikey_block: str) -> bool:
    """Return whether a molecule belongs to the fixed 2 % that are held out, by its InChIKey first block."""
    return int.from_bytes(hashlib.sha256(inchikey_block.encode()).digest()[:8]) % HELD_OUT_SHARE == 0


def _table(path: Path, columns: list[str]) -> dict[str, list[str]]:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=columns).to_pydict()


def benchmark_blocks(data: Path) -> frozenset[str]:
    """Read the InChIKey first blocks of all molecules of the benchmarks."""
    return frozenset(_table(data / "moleculenet" / "benchmark_blocks.parquet", ["inchikey_block"])["inchikey_block"])


def _keep(block: str, excluded: frozenset[str], held_out: bool) -> bool:
    return block not in excluded and is_held_out(block) == held_out


def pairs(data: Path | str, *, held_out: bool = False) -> Iterator[tuple[str, str]]:
    """Read (SMILES, IUPAC name) of the name corpus, in file order."""
    data = Path(data)
    excluded = benchmark_blocks(data)
    table = _table(data / "iupac" / "smiles_iupac_pairs.parquet", ["smiles", "iupac_name", "source", "inchikey_block"])
    for smiles, name, source, block in zip(*table.values(), strict=True):
        if source != "massbank" and _keep(block, excluded, held_out):
            yield smiles, name


def unlabelled_smiles(data: Path | str, *, held_out: bool = False) -> Iterator[str]:
    """Read the SMILES of the pre-training files (ChEMBL, GEOM, ZINC), in file order."""
    data = Path(data)
    excluded = benchmark_blocks(data)
    for name in PRETRAINING_FILES:
        table = _table(data / "pretrain" / f"{name}.parquet", ["smiles", "inchikey_block"])
        for smiles, block in zip(*table.values(), strict=True):
            if _keep(block, excluded, held_out):
                yield smiles
