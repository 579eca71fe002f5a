"""Find the data sets of the benchmarks, and read molecules of their files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.report import ROOT


def data_folder() -> Path:
    """
    Return the folder of the data sets: `HF_MOLREP_DATA`, else `../shared/data` beside the repository.

    Raises:
        FileNotFoundError: it does not exist.
    """
    folder = Path(os.environ.get("HF_MOLREP_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise FileNotFoundError(f"no data folder {folder}; set HF_MOLREP_DATA")
    return folder


def smiles_of(file: str | Path, count: int | None = None) -> list[str]:
    """
    Read the column `smiles` of a Parquet file.

    Args:
        file: a path, or a name within the data folder.
        count: read only so many rows.
    Raises:
        ValueError: the file has fewer than `count` rows.
    """
    import pyarrow.parquet as pq

    path = file if Path(file).is_file() else data_folder() / file
    smiles = pq.read_table(path, columns=["smiles"])["smiles"].to_pylist()
    if count is not None and len(smiles) < count:
        raise ValueError(f"{count} rows wanted, {file} has {len(smiles)}")
    return smiles[:count]


def sample(smiles: Sequence[str], molecules: int, seed: int) -> list[str]:
    """Draw at most `molecules` of the SMILES without replacement, in their order."""
    rows = np.random.default_rng(seed).choice(len(smiles), min(molecules, len(smiles)), replace=False)
    return [smiles[row] for row in np.sort(rows)]
