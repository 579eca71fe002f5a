"""Tables of molecules with checked columns; MoleculeNet raw and cleaned."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_molrep.chem.smiles import canonical_smiles, inchikey
from hf_molrep.data.datasets import (
    MOLECULENET,
    infer_problem_type,
    label_matrix,
    load_moleculenet,
    load_molecules,
    merge_duplicates,
)
from hf_molrep.metrics import METRICS

NAN = np.nan
TABLE = 'name,SMILES,y,note\n001,CCO,1.50,"a, b"\n002,C1CC,NA,\n003,c1ccccc1,,null\n004,CCO,-2,x\n'


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Files of the same name in different tests do not share a cache entry."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "molecules.csv"
    path.write_text(TABLE)
    return path


def test_csv_labels_are_numbers_and_everything_else_is_as_it_was(table):
    dataset = load_molecules(table, smiles_column="SMILES", label_columns=["y"])
    assert dataset.column_names == ["name", "smiles", "y", "note"]
    assert dataset["name"][:] == ["001", "002", "003", "004"]
    assert dataset["smiles"][:] == ["CCO", "C1CC", "c1ccccc1", "CCO"]
    assert dataset["note"][:] == ["a, b", "", "null", "x"]
    assert dataset.features["y"].dtype == "float32"
    np.testing.assert_array_equal(label_matrix(dataset, ["y"]), np.array([[1.5], [NAN], [NAN], [-2]], np.float32))


@pytest.mark.parametrize("form", ["csv.gz", "tsv", "parquet", "folder", "bom", "str"])
def test_other_forms_give_the_same(form, tmp_path, table):
    expected = load_molecules(table, smiles_column="SMILES", label_columns=["y"])
    source = tmp_path / "other" / f"table.{form}"
    source.parent.mkdir()
    if form == "csv.gz":
        source.write_bytes(gzip.compress(TABLE.encode()))
    elif form == "tsv":
        source.write_text(TABLE.replace('"a, b"', "a# b").replace(",", "\t").replace("#", ","))
    elif form == "parquet":
        columns = {name: expected[name][:] for name in ("name", "smiles", "y", "note")}
        pq.write_table(pa.table(columns).rename_columns(["name", "SMILES", "y", "note"]), source)
    elif form == "folder":
        lines = TABLE.splitlines(keepends=True)
        (source.parent / "1.csv").write_text("".join(lines[:3]))
        (source.parent / "2.csv").write_text(lines[0] + "".join(lines[3:]))
        (source.parent / "README").write_text("not a table")
        source = source.parent
    elif form == "bom":
        source = source.with_suffix(".csv")
        source.write_text(TABLE, encoding="utf-8-sig")
    else:
        source = str(table)
    dataset = load_molecules(source, smiles_column="SMILES", label_columns=["y"])
    assert str(dataset.to_dict()) == str(expected.to_dict())


def test_whole_numbers_and_nulls_of_parquet(tmp_path):
    path = tmp_path / "molecules.parquet"
    pq.write_table(pa.table({"smiles": ["C", "N", None], "a": [1, None, 0], "b": [True, False, None]}), path)
    dataset = load_molecules(path, label_columns=["a", "b"], problem_type="multi_label_classification")
    np.testing.assert_array_equal(label_matrix(dataset, ["b", "a"]), [[1, 1], [0, NAN], [NAN, 0]])
    assert dataset["smiles"][:] == ["C", "N", None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("SMILES,y\n", "has no rows"),
        ("mol,y\nC,1\n", r"has no column 'SMILES'; it has 'mol', 'y'"),
        ("smiles,y\nC,1\n", r"has no column 'SMILES' \(meant 'smiles'\?\); it has 'smiles', 'y'"),
        ("SMILES,Y\nC,1\n", r"has no column 'y' \(meant 'Y'\?\)"),
        ("SMILES,y\nC,1\nN,high\n", "row 2: label 'y' is 'high', not a number"),
        ("SMILES,y\nC,1\nN,inf\n", "row 2: label 'y' is 'inf', not a number"),
        ("SMILES,y\nC,\nN,NaN\n", "label column 'y' has no value in any of 2 rows"),
        ("SMILES,y,y\nC,1,2\n", "several columns named y"),
        ("SMILES,y,smiles\nC,1,N\n", "has a column 'smiles' beside 'SMILES'"),
        ("SMILES,y\nC,1\nC,1,2,3\n", "cannot be read"),
    ],
)
def test_bad_tables(content, message, tmp_path):
    path = tmp_path / "molecules.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_molecules(path, smiles_column="SMILES", label_columns=["y"])


def test_classes_must_be_classes(tmp_path):
    path = tmp_path / "molecules.csv"
    path.write_text("smiles,y\n" + "C,1\n" * 10_500 + "N,2\n")
    with pytest.raises(ValueError, match="row 10501: label 'y' is '2', not 0, 1 or missing"):
        load_molecules(path, label_columns=["y"], problem_type="multi_label_classification")
    assert len(load_molecules(path, label_columns=["y"])) == 10_501


def test_bad_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv does not exist"):
        load_molecules("nothing.csv")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_molecules(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no tables"):
        load_molecules(tmp_path)
    (tmp_path / "molecules.docx").write_text("C")
    with pytest.raises(ValueError, match=r"not a \.csv, \.tsv or \.parquet file"):
        load_molecules(tmp_path / "molecules.docx")
    pq.write_table(pa.table({"smiles": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(ValueError, match="column 'smiles' holds int64, not text"):
        load_molecules(tmp_path / "numbers.parquet")
    (tmp_path / "latin.csv").write_bytes("smiles,name\nC,m\xe9thane\n".encode("latin-1"))
    with pytest.raises(ValueError, match="cannot be read"):
        load_molecules(tmp_path / "latin.csv")


def test_infer_problem_type():
    assert infer_problem_type(np.array([[0, 1, NAN]])) == "multi_label_classification"
    assert infer_problem_type(np.array([[0, 2.0]])) == "regression"


def test_merge_duplicates():
    keys = ["a", "b", "a", "c", "c", "d", "d"]
    labels = np.array([[1, NAN], [NAN, NAN], [1, 0], [0, 1], [1, 1], [0, NAN], [1, NAN]])
    rows, merged, dropped = merge_duplicates(keys, labels, "multi_label_classification")
    assert rows.tolist() == [0, 1, 3]
    assert dropped == 1  # d has nothing but a contradiction
    np.testing.assert_array_equal(merged, np.array([[1, 0], [NAN, NAN], [NAN, 1]], np.float32))
    rows, merged, dropped = merge_duplicates(keys, labels, "regression")
    assert (rows.tolist(), dropped) == ([0, 1, 3, 5], 0)
    np.testing.assert_array_equal(merged, np.array([[1, 0], [NAN, NAN], [0.5, 1], [0.5, NAN]], np.float32))


def write_moleculenet(folder, name, smiles, labels):
    columns = dict(zip(MOLECULENET[name].labels, labels, strict=True))
    pq.write_table(
        pa.table({"smiles": smiles, "other": list(range(len(smiles))), **columns}), folder / f"{name}.parquet"
    )


def test_moleculenet_raw_and_cleaned(tmp_path):
    smiles = ["CC(=O)O", "CC(=O)[O-].[Na+]", "C1CC", "CCN", "C[C@H](N)F", "C[C@@H](N)F", "C[NH3+]", "CN.Cl"]
    values = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
    write_moleculenet(tmp_path, "bbbp", smiles, [values])
    raw = load_moleculenet("bbbp", root=tmp_path)
    assert raw["smiles"][:] == smiles[:2] + smiles[3:]
    assert "1 of 8 rows have a SMILES that cannot be read" in raw.info.description
    cleaned = load_moleculenet("bbbp", "cleaned", root=tmp_path)
    assert cleaned["smiles"][:] == ["CCN", "C[C@H](N)F", "C[C@@H](N)F", "CN"]
    assert cleaned["p_np"][:] == [0, 1, 0, 1]
    assert cleaned["other"][:] == [3, 4, 5, 6]
    assert cleaned["inchikey"][:] == [inchikey(text) for text in cleaned["smiles"]]
    assert "2 repeat another molecule" in cleaned.info.description
    assert "1 molecules have only contradicting labels" in cleaned.info.description
    write_moleculenet(tmp_path, "lipophilicity", smiles, [values])
    cleaned = load_moleculenet("lipophilicity", "cleaned", root=tmp_path)
    assert cleaned["exp"][:] == [0.5, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="no MoleculeNet task 'pcba'; there are bbbp, bace"):
        load_moleculenet("pcba")
    with pytest.raises(ValueError, match='"raw" or "cleaned"'):
        load_moleculenet("bbbp", "clean", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"hiv\.parquet does not exist"):
        load_moleculenet("hiv", root=tmp_path)


def test_the_folder_of_moleculenet_is_given_or_named_by_the_environment(tmp_path, monkeypatch):
    folder = tmp_path / "moleculenet"
    folder.mkdir()
    write_moleculenet(folder, "bbbp", ["CCO", "CCN"], [[1.0, 0.0]])
    monkeypatch.delenv("HF_MOLREP_DATA", raising=False)
    with pytest.raises(ValueError, match="pass it as root, or set the environment variable HF_MOLREP_DATA"):
        load_moleculenet("bbbp")
    monkeypatch.setenv("HF_MOLREP_DATA", str(tmp_path))
    assert load_moleculenet("bbbp")["smiles"][:] == ["CCO", "CCN"]


def test_the_task_table_fits_the_files(shared_data):
    for name, task in MOLECULENET.items():
        table = pq.read_table(shared_data / "moleculenet" / f"{task.file}.parquet", columns=["smiles", *task.labels])
        assert len(task.units) == len(task.labels) == table.num_columns - 1
        assert task.metric in METRICS[task.problem_type]
        values = np.stack([column.to_numpy().astype(float) for column in table.columns[1:]], axis=1)
        assert infer_problem_type(values) == task.problem_type, name


def test_real_moleculenet(shared_data):
    raw, cleaned = (
        load_moleculenet("freesolv", root=shared_data / "moleculenet"),
        load_moleculenet("freesolv", "cleaned", root=shared_data / "moleculenet"),
    )
    assert len(raw) == 642
    assert len(cleaned) == len(set(cleaned["inchikey"])) <= 642
    assert all(canonical_smiles(text, "parent") == text for text in cleaned["smiles"])
