"""Read tables of molecules for fine-tuning, and write the result of a run to a folder."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..chem.smiles import MoleculeError, canonical_smiles_batch
from ..data.splits import FRACTIONS, PARTS, Split, make_split, read_split, write_split

if TYPE_CHECKING:
    from datasets import Dataset

    from .finetuning import FinetuneResult
    from .labelled_molecules import LabelledMolecules
    from .reference_conformers import ReferenceConformers

KINDS = ("scaffold", "balanced_scaffold", "random")
PROBLEM_TYPES = {
    "regression": "regression",
    "classification": "multi_label_classification",
    "multiclass": "single_label_classification",
}
CONFORMERS = "conformer-generation"
PART_NAMES = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test"}


@dataclasses.dataclass
class MoleculeTable:
    """
    A table whose rows hold one molecule each, a pair for an interaction, or several for a property of all together, as
    the yield of a reaction.

    Attributes:
        source: file or dataset that it was read from.
        dataset: all rows and columns; the first SMILES column is called `smiles`.
        rows: indices of the usable rows; in a table of conformers the first row of each usable molecule.
        smiles_columns: names of the SMILES columns in the source.
        molecules: for each SMILES column, the SMILES of the usable rows.
        canonical: one text per usable row, equal for equal molecules, unordered pairs, or parts.
        failures: index of an unusable row -> what is wrong with it.
        task_names, problem_type, labels: labels of the usable rows, `[rows, tasks]`; None without labels.
        classes: names of mutually exclusive classes.
        names: names of the molecules in a table of conformers.
    """

    source: str
    dataset: "Dataset"
    smiles_columns: list[str]
    rows: list[int]
    molecules: list[list[str]]
    canonical: list[str]
    failures: dict[int, MoleculeError]
    task_names: list[str] = dataclasses.field(default_factory=list)
    problem_type: str | None = None
    labels: np.ndarray | None = None
    classes: list[str] = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """Text by which a row is split: its SMILES, joined by dots if there are several."""
        return [".".join(row) for row in zip(*self.molecules, strict=True)]

    @property
    def kind(self) -> str:
        """What a row is: `"molecule"`, `"pair"` (of an interaction) or `"parts"` (of one row with a property)."""
        if len(self.molecules) == 1:
            return "molecule"
        return "pair" if _is_pair(self.smiles_columns, self.problem_type) else "parts"

    def split(
        self, kind: str, seed: int = 0, include_chirality: bool = False, fractions: Sequence[float] = FRACTIONS
    ) -> Split:
        """
        Split the usable rows, see [`~hf_molrep.data.splits.make_split`]. Rows with the same molecules share a part.

        Raises:
            ValueError: the parts of a row have no scaffold in common.
        """
        if self.kind == "parts" and kind != "random":
            raise ValueError(
                f"a {kind} split is for one molecule per row, or a pair; for {len(self.molecules)}, use random, or "
                "column:NAME to keep apart what shall be new in the test"
            )
        return make_split(kind, self.texts, fractions, seed, include_chirality)

    def column(self, name: str) -> list:
        """Return the values of a column in the usable rows."""
        return self.dataset.select(self.rows)[name][:]


def read_table(
    source: str, smiles_columns: Sequence[str] = ("smiles",), labels: Sequence[str] = (), task: str = "auto"
) -> MoleculeTable:
    """
    Read a table of molecules with their labels, see [`~hf_molrep.data.datasets.load_molecules`].

    Args:
        source: see [`~hf_molrep.data.datasets.load_molecules`].
        smiles_columns: one column; two for an interaction; two (with `task="regression"`) or more for a property
            of all together, in this order.
        labels: columns to predict; may be empty.
        task: `"regression"`, `"classification"`, `"multiclass"` (pairs), `"conformer-generation"`, or `"auto"`: chosen
            by the labels.
    Raises:
        ValueError: a column is missing, a label is neither a number nor a class, or no row holds a molecule.
    """
    from ..data.datasets import infer_problem_type, label_matrix, load_molecules

    if len(set(smiles_columns)) < len(smiles_columns):
        repeated = next(name for name in smiles_columns if list(smiles_columns).count(name) > 1)
        raise ValueError(f"{repeated!r} is named twice as a column of SMILES")
    if task == CONFORMERS:
        return _read_conformers(source, smiles_columns, labels)
    problem_type = PROBLEM_TYPES.get(task)
    if problem_type is None and len(smiles_columns) == 2 and labels:
        problem_type = _problem_of_pairs(load_molecules(source, smiles_column=smiles_columns[0]), source, labels)
    multiclass = problem_type == PROBLEM_TYPES["multiclass"]
    dataset = load_molecules(
        source,
        smiles_column=smiles_columns[0],
        label_columns=() if multiclass else labels,
        problem_type=None if multiclass else problem_type,
    )
    columns = ["smiles", *smiles_columns[1:]]
    _require(source, dataset, columns)
    unordered = _is_pair(smiles_columns, problem_type)
    table = MoleculeTable(
        source, dataset, list(smiles_columns), *_readable(dataset, columns, range(len(dataset)), unordered)
    )
    if not labels:
        return table
    table.task_names = list(labels)
    if multiclass:
        _require(source, dataset, labels)
        table.classes, values = _classes(dataset[labels[0]][:])
        table.labels = values[table.rows]
    else:
        values = label_matrix(dataset, labels)
        problem_type, table.labels = problem_type or infer_problem_type(values), values[table.rows]
    table.problem_type = problem_type
    return table


def _read_conformers(source: str, smiles_columns: Sequence[str], labels: Sequence[str]) -> MoleculeTable:
    """Read a Parquet table with one conformer per row, as one row per molecule."""
    from ..data.conformer_pairs import read_molecules
    from ..data.datasets import load_molecules
    from ..data.files import COORDINATE_COLUMNS

    if labels:
        raise ValueError("conformer generation has no label columns: the coordinates are learned")
    if list(smiles_columns) != ["smiles"]:
        raise ValueError("a table of conformers has its SMILES in the column 'smiles'")
    dataset = load_molecules(source)
    _require(source, dataset, ["name", *COORDINATE_COLUMNS])
    read_molecules(source)  # refuses a name with two SMILES
    dataset = dataset.remove_columns(list(COORDINATE_COLUMNS))
    first: dict[str, int] = {}
    for row, name in enumerate(dataset["name"][:]):
        first.setdefault(name, row)
    table = MoleculeTable(source, dataset, ["smiles"], *_readable(dataset, ["smiles"], list(first.values())))
    table.names = table.column("name")
    return table


def _require(source: str, dataset: "Dataset", columns: Sequence[str]) -> None:
    for name in columns:
        if name not in dataset.column_names:
            raise ValueError(f"{source} has no column {name!r}; it has {', '.join(map(repr, dataset.column_names))}")


def _is_pair(smiles_columns: Sequence[str], problem_type: str | None) -> bool:
    """Return whether a row is an unordered pair of molecules that interact: two, without a number to predict."""
    return len(smiles_columns) == 2 and problem_type != PROBLEM_TYPES["regression"]


def _readable(
    dataset: "Dataset", columns: Sequence[str], rows: Sequence[int], unordered: bool = True
) -> tuple[list[int], list[list[str]], list[str], dict[int, MoleculeError]]:
    """Find the rows with molecules in these columns: their indices, SMILES, canonical texts; and failures elsewhere."""
    failures: dict[int, MoleculeError] = {}
    texts, canonical = [], []
    for name in columns:
        values = dataset[name][:]
        texts.append([values[row] if isinstance(values[row], str) else "" for row in rows])
        canonical.append(canonical_smiles_batch(texts[-1], "clean", on_error="skip"))
        for row, result in zip(rows, canonical[-1], strict=True):
            if isinstance(result, MoleculeError):
                failures.setdefault(row, result)
    places = [place for place, row in enumerate(rows) if row not in failures]
    if not places:
        raise ValueError(f"none of {len(rows)} rows holds a molecule; the first: {failures[rows[0]]}")
    keys = [[column[place] for column in canonical] for place in places]
    keys = [".".join(sorted(key)) if unordered else " ".join(key) for key in keys]
    return [rows[place] for place in places], [[column[place] for place in places] for column in texts], keys, failures


def _text(value: Any) -> str | None:
    """Return a cell as the name of a class, None if it is missing; 3.0 is the class 3."""
    if isinstance(value, float):
        value = None if np.isnan(value) else int(value) if value.is_integer() else value
    return None if value is None or not str(value).strip() else str(value).strip()


def _problem_of_pairs(dataset: "Dataset", source: str, labels: Sequence[str]) -> str:
    """Infer the problem type of pairs: multiclass for one column with other values than 0 and 1."""
    _require(source, dataset, labels)
    if len(labels) > 1 or {_text(value) for value in dataset[labels[0]][:]} <= {"0", "1", "0.0", "1.0", None}:
        return PROBLEM_TYPES["classification"]
    return PROBLEM_TYPES["multiclass"]


def _classes(values: Sequence) -> tuple[list[str], np.ndarray]:
    """Return the sorted names of the classes, and the class index of each row `[rows, 1]`, NaN = missing."""
    texts = [_text(value) for value in values]
    present = {text for text in texts if text is not None}
    names = sorted(present, key=lambda name: (int(name) if name.isdecimal() else np.inf, name))
    index = {name: place for place, name in enumerate(names)}
    return names, np.array([[np.nan if text is None else index[text]] for text in texts])


def split_table(table: MoleculeTable, split: str, seed: int = 0, include_chirality: bool = False) -> Split:
    """
    Split the usable rows of a table.

    Args:
        split: `"scaffold"`, `"balanced_scaffold"`, `"random"` (rows with the same molecule, pair, or scaffolds share a
            part), `column:NAME`, or a file of `hf-molrep split`.
    Raises:
        ValueError: the kind, column or file is unknown, or does not fit the molecules.
    """
    if split in KINDS:
        return table.split(split, seed, include_chirality)
    if not split.startswith("column:"):
        if not Path(split).is_file():
            raise ValueError(f"--split is {', '.join(KINDS)}, column:NAME or a file that exists, not {split!r}")
        return read_split(split, table.texts)
    column, columns = split.removeprefix("column:"), table.dataset.column_names
    if column not in columns:
        raise ValueError(f"{table.source} has no column {column!r} for the split; it has {', '.join(columns)}")
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for index, (row, value) in enumerate(zip(table.rows, table.column(column), strict=True)):
        part = PART_NAMES.get(str(value).strip().lower())
        if part is None:
            names = ", ".join(PART_NAMES)
            raise ValueError(f"{table.source}, row {row + 1}: {column} is {value!r}, not one of {names}")
        parts[part].append(index)
    return Split(
        name=split,
        seed=None,
        include_chirality=None,
        fractions=tuple(len(members) / len(table.rows) for members in parts.values()),
        parts={part: np.array(members, dtype=np.int64) for part, members in parts.items()},
    )


def labelled_molecules(
    table: MoleculeTable, split: Split, units: Sequence[str] | None = None, coordinates: bool = False
) -> "LabelledMolecules":
    """
    Make the data of [`~hf_molrep.training.finetuning.finetune`] from a table with labels.

    Args:
        units: units of a regression, one per label.
        coordinates: use the coordinates of the table, if it has any, instead of computed conformers.
    Raises:
        ValueError: the units do not fit the labels, or the labels do not fit the problem type.
    """
    from ..data.datasets import coordinate_columns
    from .labelled_molecules import LabelledMolecules

    names, problem_type = table.task_names, table.problem_type
    if units and (problem_type != "regression" or len(units) != len(names)):
        raise ValueError(f"{len(units)} units for {len(names)} label columns ({problem_type})")
    given = {name: table.column(column) for column, name in coordinate_columns(table.dataset).items()}
    parts = table.kind == "parts"
    return LabelledMolecules(
        list(zip(*table.molecules, strict=True)) if parts else table.molecules[0],
        table.labels,
        names,
        problem_type,
        split.parts,
        second_smiles=table.molecules[1] if table.kind == "pair" else None,
        molecule_columns=table.smiles_columns if parts else None,
        classes=table.classes,
        label_units=units,
        **(given if coordinates and table.kind == "molecule" else {}),
    )


def reference_conformers(table: MoleculeTable, split: Split, **options: Any) -> "ReferenceConformers":
    """Make the data of [`~hf_molrep.training.finetuning.finetune`] from a table of conformers."""
    from .reference_conformers import ReferenceConformers

    return ReferenceConformers(table.source, table.names, table.molecules[0], split.parts, **options)


def write_run(
    output: Path,
    table: MoleculeTable,
    split: Split,
    result: "FinetuneResult",
    units: Sequence[str] | None = None,
    *,
    seconds: float,
    version: str,
) -> dict[str, Any]:
    """
    Write model, processor and report of a run to a folder.

    Args:
        units: units of a regression, one per label.
        seconds: duration of the run.
        version: version of this package.
    Returns:
        The content of `report/metrics.json`, which is written last and marks the run as finished.
    """
    import torch
    import transformers

    from ..hub import save_checkpoint
    from ..inference.checkpoints import silent_transformers
    from .reports import write_json, write_report

    with silent_transformers():
        save_checkpoint(result.model, result.processor, output, weights_dtype=None)
    if table.names:  # used in training or selection: benchmarks must not measure on these
        seen = [table.names[index] for part in ("train", "valid") for index in split.parts[part]]
        write_json(output / "conformer_training.json", {"names": sorted(seen)})
    report = output / "report"
    report.mkdir(parents=True, exist_ok=True)
    write_split(report / "split.json", split, table.texts)
    _write_predictions(report / "predictions.csv", table, split, result)
    _write_skipped(report / "skipped.csv", table)
    train = {table.canonical[index] for index in split.parts["train"]}
    on_gpu = torch.cuda.is_available()
    more = {
        "data": str(table.source),
        "split": {
            "name": split.name,
            "seed": split.seed,
            "include_chirality": split.include_chirality,
            **{part: len(members) for part, members in split.parts.items()},
        },
        "rows": {
            "read": len(table.dataset),
            "skipped": len(table.failures),
            "skipped_reasons": dict(Counter(error.reason for error in table.failures.values()).most_common(20)),
            "truncated": len(result.truncated),
            **result.reports,
            **({} if table.labels is None else {"without_any_label": int(np.isnan(table.labels).all(axis=1).sum())}),
            "repeating_a_molecule": len(table.canonical) - len(set(table.canonical)),
            "test_also_in_train": sum(table.canonical[index] in train for index in split.parts["test"]),
        },
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "versions": {"hf_molrep": version, "transformers": transformers.__version__, "torch": torch.__version__},
    }
    return write_report(report, result, table.labels, split.parts, units, more)


def _write_predictions(path: Path, table: MoleculeTable, split: Split, result: "FinetuneResult") -> None:
    """Write the test part: number of the row, its own columns, predictions."""
    import pyarrow as pa

    from ..data.table_writer import TableWriter

    rows = [table.rows[index] for index in split.parts["test"]]
    content = table.dataset.select(rows).with_format("arrow")[:]

    def unused(name: str) -> str:
        return name if name not in content.column_names else unused(f"{name}_")

    content = content.add_column(0, unused("row"), pa.array([row + 1 for row in rows], pa.int64()))
    for name, values in predicted_columns(result).items():
        content = content.append_column(unused(name), values)
    with TableWriter(path, content.schema) as writer:
        for batch in content.combine_chunks().to_batches():
            writer.write(batch)


def predicted_columns(result: "FinetuneResult") -> dict[str, Any]:
    """
    Return the predictions of the test part as Arrow columns, null for rows without: one per task; for mutually
    exclusive classes the most probable one and its probability.
    """
    import pyarrow as pa

    predictions = result.test_predictions

    def numbers(values: np.ndarray) -> pa.Array:
        return pa.array(values, pa.float32(), mask=np.isnan(values))

    if not result.classes:
        prefix = "" if result.task == CONFORMERS else "predicted_"
        return {
            f"{prefix}{name}": numbers(values) for name, values in zip(result.task_names, predictions.T, strict=True)
        }
    (name,) = result.task_names
    known = ~np.isnan(predictions).any(axis=1)
    best = np.where(known[:, None], predictions, 0.0).argmax(axis=1)
    names = [result.classes[index] if there else None for index, there in zip(best, known, strict=True)]
    return {
        f"predicted_{name}": pa.array(names, pa.string()),
        f"probability_{name}": numbers(predictions[np.arange(len(best)), best]),
    }


def _write_skipped(path: Path, table: MoleculeTable) -> None:
    import pyarrow as pa

    from ..data.table_writer import TableWriter

    rows = sorted(table.failures)
    schema = pa.schema([("row", pa.int64()), ("smiles", pa.string()), ("error", pa.string())])
    columns = [
        [row + 1 for row in rows],
        [table.failures[row].smiles for row in rows],
        [table.failures[row].reason for row in rows],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    with TableWriter(path, schema) as writer:
        writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
