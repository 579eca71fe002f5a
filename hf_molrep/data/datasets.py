"""
Load files, folders and Hub repositories of molecules as `datasets.Dataset` with checked columns; MoleculeNet tasks.

Tables are memory-mapped Arrow files in the cache of `datasets`: they may be larger than memory.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ..chem.smiles import MoleculeError, canonical_smiles, inchikey, parse
from .files import COORDINATE_COLUMNS

if TYPE_CHECKING:
    from datasets import Dataset

ProblemType = Literal["regression", "multi_label_classification"]
Variant = Literal["raw", "cleaned"]

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_MISSING = {"", "na", "nan", "n/a", "null", "none"}  # in a text column, whatever the case


def load_molecules(
    source: str | Path,
    *,
    smiles_column: str = "smiles",
    label_columns: Sequence[str] = (),
    problem_type: ProblemType | None = None,
    split: str = "train",
) -> Dataset:
    """
    Load a table of molecules and check its columns.

    Args:
        source: a CSV, TSV or Parquet file (text files may be gzipped), a folder with files of one of these kinds, or
            the id of a dataset on the Hub.
        smiles_column: is renamed to `smiles`. SMILES are not parsed here.
        label_columns: are converted to float32, missing values (empty, NaN, NA, null) to NaN. Other columns are not
            changed; those of text files are text.
        problem_type: with "multi_label_classification" labels must be 0, 1 or missing.
        split: of a Hub dataset.
    Raises:
        FileNotFoundError: `source` looks like a file and does not exist.
        ValueError: an empty file, a missing column (those present are listed), a label that is not a number or not a
            class (its row, counted from 1, and value are named), a label column without any value.
    """
    from datasets import Features, Value, load_dataset
    from datasets.exceptions import DatasetGenerationError

    kind, files = _files(source)
    names = [str(file) for file in files]
    try:
        if kind == "hub":
            dataset = load_dataset(str(source), split=split)
        elif kind == "parquet":
            dataset = load_dataset("parquet", data_files=names, split="train")
        else:
            for file in files:
                _check_header(file, kind, smiles_column, label_columns)
            # all columns as text: no type is guessed from the first rows, and other columns are not changed
            features = Features(dict.fromkeys(_header(files[0], kind), Value("string")))
            text = {"sep": kind, "features": features, "keep_default_na": False, "encoding": "utf-8-sig"}
            dataset = load_dataset("csv", data_files=names, split="train", **text)
    except (DatasetGenerationError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} cannot be read: {error.__cause__ or error}") from error
    if not len(dataset):
        raise ValueError(f"{source} has no rows")
    _require_columns(source, dataset.column_names, smiles_column, label_columns)
    if smiles_column != "smiles":
        if "smiles" in dataset.column_names:
            raise ValueError(f"{source} has a column 'smiles' beside {smiles_column!r}: rename or drop it")
        dataset = dataset.rename_column(smiles_column, "smiles")
    if dataset.features["smiles"].dtype not in ("string", "large_string"):
        raise ValueError(f"{source}: column {smiles_column!r} holds {dataset.features['smiles'].dtype}, not text")
    return _with_labels(dataset, source, label_columns, problem_type)


def infer_problem_type(labels: np.ndarray) -> ProblemType:
    """Return "multi_label_classification" if every label that is not missing is 0 or 1, else "regression"."""
    present = np.asarray(labels)[~np.isnan(labels)]
    return "multi_label_classification" if np.isin(present, (0, 1)).all() else "regression"


def label_matrix(dataset: Dataset, label_columns: Sequence[str]) -> np.ndarray:
    """Stack the label columns of a dataset from `load_molecules` to float32 `[molecules, tasks]`, NaN = missing."""
    columns = [dataset.with_format("numpy")[name][:] for name in label_columns]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)


def coordinate_columns(dataset: Dataset) -> dict[str, str]:
    """Return columns with coordinates and their names in processors; {} unless both exist and are lists."""
    features = dataset.features
    return COORDINATE_COLUMNS if all(hasattr(features.get(name), "feature") for name in COORDINATE_COLUMNS) else {}


# --- reading ----------------------------------------------------------------------------------------------------------


def _files(source: str | Path) -> tuple[str, list[Path]]:
    """Return ("hub", []), ("parquet", files) or (separator, files)."""
    path = Path(source)
    if path.is_dir():
        found: dict[str, list[Path]] = {}
        for file in sorted(path.iterdir()):
            if file.is_file() and (kind := _kind(file)):
                found.setdefault(kind, []).append(file)
        if len(found) != 1:
            what = "several kinds of" if found else "no"
            raise ValueError(f"folder {source} holds {what} tables: needs CSV, TSV or Parquet files of one kind")
        return next(iter(found.items()))
    kind = _kind(path)
    if path.is_file():
        if not kind:
            raise ValueError(f"{source}: not a .csv, .tsv or .parquet file (.csv.gz and .tsv.gz are fine too)")
        if not path.stat().st_size:
            raise ValueError(f"{source} is empty")
        return kind, [path]
    if kind or isinstance(source, Path) or path.is_absolute() or str(source).count("/") > 1:
        raise FileNotFoundError(f"{source} does not exist")
    return "hub", []


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return "parquet" if name.endswith(".parquet") else _SEPARATORS.get(Path(name.removesuffix(".gz")).suffix)


def _header(file: Path, separator: str) -> list[str]:
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    with opened(file, "rt", encoding="utf-8-sig", newline="") as lines:
        return next(csv.reader(lines, delimiter=separator))


def _check_header(file: Path, separator: str, smiles_column: str, label_columns: Sequence[str]) -> None:
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    with opened(file, "rt", encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, delimiter=separator)
        header = next(rows, None)
        if not header:
            raise ValueError(f"{file} is empty")
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise ValueError(f"{file} has several columns named {', '.join(repeated)}")
        _require_columns(file, header, smiles_column, label_columns)
        if next(rows, None) is None:
            raise ValueError(f"{file} has no rows")


def _require_columns(source: str | Path, present: Sequence[str], smiles: str, labels: Sequence[str]) -> None:
    for name in (smiles, *labels):
        if name not in present:
            by_case = {other.lower(): other for other in present}
            near = difflib.get_close_matches(name.lower(), by_case, n=1)
            hint = f" (meant {by_case[near[0]]!r}?)" if near else ""
            raise ValueError(f"{source} has no column {name!r}{hint}; it has {', '.join(map(repr, present))}")
    if len(set(labels)) != len(labels):
        raise ValueError(f"a label column is named twice in {', '.join(labels)}")


def _with_labels(
    dataset: Dataset, source: str | Path, columns: Sequence[str], problem_type: ProblemType | None
) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset, concatenate_datasets

    if not columns:
        return dataset
    numbers = {name: np.empty(len(dataset), dtype=np.float32) for name in columns}
    for start in range(0, len(dataset), 10_000):
        batch = dataset.select_columns(list(columns)).with_format("arrow")[start : start + 10_000]
        for name in columns:
            values = _numbers(batch[name], source, name, start, problem_type)
            numbers[name][start : start + len(values)] = values
    for name, values in numbers.items():
        if np.isnan(values).all():
            raise ValueError(f"{source}: label column {name!r} has no value in any of {len(values)} rows")
    others = [name for name in dataset.column_names if name not in numbers]
    # labels take memory (4 bytes a value); the other columns stay on disk
    labels = Dataset(pa.table({name: pa.array(values, pa.float32()) for name, values in numbers.items()}))
    both = concatenate_datasets([dataset.select_columns(others), labels], axis=1)
    return both.select_columns(dataset.column_names)


def _numbers(column, source: str | Path, name: str, start: int, problem_type: ProblemType | None) -> np.ndarray:
    """Convert one chunk of a label column, from row `start` on, to float32."""
    import pyarrow as pa

    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = result = column.to_numpy().astype(np.float64)  # nulls become NaN
    else:
        values = column.to_pylist()
        result = np.array([_number(value) for value in values], dtype=np.float64)
    bad, expected = np.isinf(result), "a number"
    if problem_type == "multi_label_classification":
        bad, expected = ~(np.isnan(result) | np.isin(result, (0, 1))), "0, 1 or missing"
    if bad.any():
        first = int(bad.argmax())
        value = values[first].item() if isinstance(values, np.ndarray) else values[first]
        raise ValueError(f"{source}, row {start + first + 1}: label {name!r} is {value!r}, not {expected}")
    return result.astype(np.float32)


def _number(value: object) -> float:
    """Convert a cell to a number: NaN if missing, infinity if not a number."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("inf")


# --- MoleculeNet ------------------------------------------------------------------------------------------------------


class MoleculeNetTask(NamedTuple):
    """
    One row of the task table.

    Attributes:
        file: name of the Parquet file without suffix.
        labels: label columns.
        problem_type: as in the config of a property model.
        units: one per label; "" for classes.
        metric: to report, a key of `hf_molrep.metrics.METRICS`.
    """

    file: str
    labels: tuple[str, ...]
    problem_type: ProblemType
    units: tuple[str, ...]
    metric: str


def _classes(file: str, *labels: str, metric: str = "roc_auc") -> MoleculeNetTask:
    return MoleculeNetTask(file, labels, "multi_label_classification", ("",) * len(labels), metric)


def _values(file: str, metric: str, **units: str) -> MoleculeNetTask:
    return MoleculeNetTask(file, tuple(units), "regression", tuple(units.values()), metric)


_QM8 = {f"{kind}-{method}": unit for method in ("CC2", "PBE0", "CAM") for kind, unit in
        (("E1", "hartree"), ("E2", "hartree"), ("f1", "1"), ("f2", "1"))}  # fmt: skip

# Tasks and metrics as in Wu et al., Chem. Sci. 9, 513 (2018); BACE also with the pIC50 values behind its classes.
MOLECULENET: dict[str, MoleculeNetTask] = {
    "bbbp": _classes("bbbp", "p_np"),
    "bace": _classes("bace", "Class"),
    "bace_regression": _values("bace", "rmse", pIC50="-log10(mol/L)"),
    "clintox": _classes("clintox", "FDA_APPROVED", "CT_TOX"),
    "sider": _classes(
        "sider",
        "Hepatobiliary disorders",
        "Metabolism and nutrition disorders",
        "Product issues",
        "Eye disorders",
        "Investigations",
        "Musculoskeletal and connective tissue disorders",
        "Gastrointestinal disorders",
        "Social circumstances",
        "Immune system disorders",
        "Reproductive system and breast disorders",
        "Neoplasms benign, malignant and unspecified (incl cysts and polyps)",
        "General disorders and administration site conditions",
        "Endocrine disorders",
        "Surgical and medical procedures",
        "Vascular disorders",
        "Blood and lymphatic system disorders",
        "Skin and subcutaneous tissue disorders",
        "Congenital, familial and genetic disorders",
        "Infections and infestations",
        "Respiratory, thoracic and mediastinal disorders",
        "Psychiatric disorders",
        "Renal and urinary disorders",
        "Pregnancy, puerperium and perinatal conditions",
        "Ear and labyrinth disorders",
        "Cardiac disorders",
        "Nervous system disorders",
        "Injury, poisoning and procedural complications",
    ),
    "tox21": _classes(
        "tox21",
        *("NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma"),
        *("SR-ARE", "SR-ATAD5", "SR-HSE", "SR-MMP", "SR-p53"),
    ),
    "hiv": _classes("hiv", "HIV_active"),
    "muv": _classes(
        "muv",
        *("MUV-466", "MUV-548", "MUV-600", "MUV-644", "MUV-652", "MUV-689", "MUV-692", "MUV-712", "MUV-713"),
        *("MUV-733", "MUV-737", "MUV-810", "MUV-832", "MUV-846", "MUV-852", "MUV-858", "MUV-859"),
        metric="pr_auc",
    ),
    "esol": _values("esol", "rmse", **{"measured log solubility in mols per litre": "log10(mol/L)"}),
    "freesolv": _values("freesolv", "rmse", expt="kcal/mol"),
    "lipophilicity": _values("lipophilicity", "rmse", exp="log10(D)"),
    "qm8": _values("qm8", "mae", **_QM8),
}


def load_moleculenet(name: str, variant: Variant = "raw", root: str | Path | None = None) -> Dataset:
    """
    Load a MoleculeNet dataset: `smiles`, the label columns `MOLECULENET[name].labels` (float32, NaN = missing) and the
    other columns of its file. Rows that RDKit cannot read are left out; `dataset.info.description` gives their number.

    Variants:
        "raw": SMILES as in the file, duplicates included, as in the papers.
        "cleaned": parent molecules (largest organic fragment, neutralised: `standardize="parent"`), one row for each
            full InChIKey (column `inchikey`): of its rows the first, with labels averaged (regression) or, where they
            contradict each other, missing (classification); rows that are left without any label are dropped.
    Args:
        root: folder of the Parquet files; by default `moleculenet/` in the folder that the environment variable
            HF_MOLREP_DATA names.
    Raises:
        ValueError: an unknown name or variant, or neither `root` nor HF_MOLREP_DATA.
        FileNotFoundError: the file is not there.
    """
    from datasets import Dataset

    if name not in MOLECULENET:
        raise ValueError(f"no MoleculeNet task {name!r}; there are {', '.join(MOLECULENET)}")
    if variant not in ("raw", "cleaned"):
        raise ValueError(f'variant must be "raw" or "cleaned", not {variant!r}')
    task = MOLECULENET[name]
    if root is None:
        data = os.environ.get("HF_MOLREP_DATA")
        if not data:
            raise ValueError(
                "the folder of the MoleculeNet files is not known: pass it as root, or set the environment variable "
                "HF_MOLREP_DATA to the folder that contains moleculenet/"
            )
        root = Path(data) / "moleculenet"
    path = Path(root) / f"{task.file}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; pass the folder of the MoleculeNet files as root")
    dataset = load_molecules(path, label_columns=task.labels, problem_type=task.problem_type)
    rows, keys, smiles = [], [], []
    for row, text in enumerate(dataset["smiles"]):
        try:
            if variant == "raw":
                parse(text)
            else:
                smiles.append(canonical_smiles(text, "parent"))
                keys.append(_identity(smiles[-1]))
        except MoleculeError:
            continue
        rows.append(row)
    unreadable = len(dataset) - len(rows)
    dataset = dataset.select(rows)
    description = f"{name} ({variant}): {unreadable} of {unreadable + len(rows)} rows have a SMILES that cannot be read"
    if variant == "cleaned":
        kept, labels, dropped = merge_duplicates(keys, label_matrix(dataset, task.labels), task.problem_type)
        columns = dataset.select(kept).to_dict()
        columns["smiles"] = [smiles[row] for row in kept]
        columns["inchikey"] = [keys[row] for row in kept]
        columns.update({label: labels[:, index] for index, label in enumerate(task.labels)})
        dataset = Dataset.from_dict(columns)
        merged = len(rows) - len(kept) - dropped
        description += f", {merged} repeat another molecule, {dropped} molecules have only contradicting labels"
    dataset.info.description = description
    return dataset


def _identity(smiles: str) -> str:
    """Return the full InChIKey, or the SMILES where there is no InChI."""
    try:
        return inchikey(smiles)
    except MoleculeError:
        return smiles


def merge_duplicates(
    keys: Sequence[str], labels: np.ndarray, problem_type: ProblemType
) -> tuple[np.ndarray, np.ndarray, int]:
    """
    Merge rows with the same key.

    Args:
        keys: identity of each molecule.
        labels: `[molecules, tasks]`, NaN = missing.
    Returns:
        rows `[distinct]`: the first row of each key, ascending; labels `[distinct, tasks]` float32: the mean of the
        values of all its rows (regression), or their common value, missing where they contradict each other
        (classification); and the number of keys dropped because contradictions left no label.
    """
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    kept, merged, dropped = [], [], 0
    for rows in groups.values():
        group = np.asarray(labels[rows], dtype=np.float64)
        present = ~np.isnan(group)
        count = present.sum(axis=0)
        total = np.where(present, group, 0).sum(axis=0)
        mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        if problem_type == "multi_label_classification":
            mean[~np.isin(mean, (0, 1))] = np.nan
            if present.any() and np.isnan(mean).all():
                dropped += 1
                continue
        kept.append(rows[0])
        merged.append(mean)
    return np.array(kept, dtype=np.int64), np.array(merged, dtype=np.float32).reshape(len(kept), -1), dropped
