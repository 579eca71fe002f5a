"""Files of molecules come in piece by piece, and everything in them goes out as it came in."""

import gzip
import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_molrep.chem.sdf import read_sdf
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.data.files import MoleculeReader, file_format, find_column
from hf_molrep.data.table_writer import TableWriter

CSV = 'id,smiles,note\n007,CCO,\n1e5,c1ccccc1,"two, with ""quotes""\nand a line"\nNaN,C1CC,NA\n'


def read(path, rows=2, **options):
    """Columns and molecules of a file."""
    with MoleculeReader(path, **options) as reader:
        pieces = list(reader.pieces(rows))
        assert all(piece.table.num_rows == len(piece.rows) for piece in pieces)
        assert [piece.table.num_rows for piece in pieces[:-1]] == [rows] * (len(pieces) - 1)
        table = pa.Table.from_batches([piece.table for piece in pieces], reader.schema)
    return table, [
        row if isinstance(row, MoleculeError) else row[reader.given_as] for piece in pieces for row in piece.rows
    ]


def write(path, table, **options):
    with TableWriter(path, table.schema, **options) as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write(batch)


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


def test_csv_text_stays_text(csv_file):
    table, molecules = read(csv_file)
    assert molecules == ["CCO", "c1ccccc1", "C1CC"]
    assert table["id"].to_pylist() == ["007", "1e5", "NaN"]
    assert table["note"].to_pylist() == ["", 'two, with "quotes"\nand a line', "NA"]


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.tsv", "out.tsv.gz", "out.parquet"])
def test_what_is_written_is_read_back(csv_file, tmp_path, name):
    table, _ = read(csv_file)
    write(tmp_path / name, table)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.csv", name])
    again, molecules = read(tmp_path / name, rows=1)
    assert again.equals(table)
    assert molecules == ["CCO", "c1ccccc1", "C1CC"]


def test_a_csv_file_is_written_back_byte_by_byte(csv_file, tmp_path):
    write(tmp_path / "out.csv", read(csv_file)[0])
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == CSV


def test_gzip_is_seen_whatever_the_ending(tmp_path):
    (tmp_path / "in.csv").write_bytes(gzip.compress(CSV.encode()))
    assert read(tmp_path / "in.csv")[0]["id"].to_pylist() == ["007", "1e5", "NaN"]


def test_the_same_rows_give_the_same_gzip_file(csv_file, tmp_path):
    for name in ("a.csv.gz", "b.csv.gz"):
        write(tmp_path / name, read(csv_file)[0])
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_a_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbfSMILES,id\r\nCCO,1\r\n\r\nC,2\r\n")
    table, molecules = read(tmp_path / "in.csv")
    assert table.column_names == ["SMILES", "id"]
    assert molecules == ["CCO", "C"]


def test_a_very_long_cell_is_read(tmp_path):
    (tmp_path / "in.csv").write_text(f"smiles\n{'C' * 200_000}\nCC\n")
    assert [len(molecule) for molecule in read(tmp_path / "in.csv")[1]] == [200_000, 2]


def test_standard_input_and_output(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(CSV.encode())))))
    table, molecules = read("-")
    assert molecules == ["CCO", "c1ccccc1", "C1CC"]
    write("-", table)
    assert capsys.readouterr().out == CSV
    assert not sys.stdin.closed


def test_values_of_other_types_in_csv(tmp_path):
    embedding = pa.array([[0.1, -2.5], None], pa.list_(pa.float32(), 2))
    table = pa.table({"a": pa.array([1, None]), "b": ["x", None], "c": [[1, 2], None], "embedding": embedding})
    write(tmp_path / "out.csv", table)
    assert (tmp_path / "out.csv").read_text() == 'a,b,c,embedding\n1,x,"[1, 2]","[0.1, -2.5]"\n,,,\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,a,smiles\n1,2,C\n", "several columns are called 'a'"),
        ("name,formula\nx,y\n", r"no column that is known to hold SMILES.*'name', 'formula'"),
        ("smiles,id\nCC,1\nC\n", "line 3: 1 cells, the header has 2"),
        ('smiles,id\n"CC"x,1\n', "line 2"),
        ("smiles,SMILES\nC,C\n", "'smiles' or 'SMILES'"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "in.csv")


def test_a_header_without_rows_is_a_file_without_molecules(tmp_path):
    (tmp_path / "in.csv").write_text("smiles,id\n")
    table, molecules = read(tmp_path / "in.csv")
    assert molecules == []
    assert table.column_names == ["smiles", "id"]


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "in.csv").write_bytes("smiles,name\nCCO,éthanol\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read(tmp_path / "in.csv")


@pytest.mark.parametrize("name", ["in.csv.gz", "in.smi.gz", "in.sdf.gz"])
def test_a_damaged_gzip_file(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(("smiles\n" + "CCO\n$$$$\n" * 50_000).encode())[:-200])
    with pytest.raises(ValueError, match="damaged or end too early"):
        read(tmp_path / name, rows=1000)


def test_columns():
    assert find_column(["id", "Smiles"], None) == "Smiles"
    assert find_column(["canonical_smiles", "smiles"], None) == "smiles"
    assert find_column(["x", "IUPAC_Name"], None, "iupac_name") == "IUPAC_Name"
    assert find_column(["x", "y"], "y") == "y"
    with pytest.raises(ValueError, match=r"f\.csv has no column 'z'; it has 'x', 'y'"):
        find_column(["x", "y"], "z", where="f.csv")


def test_formats():
    assert file_format("a/b.SMI.gz".replace("SMI", "smi")) == "smi"
    assert file_format("-") == "csv"
    assert file_format("-", "sdf") == "sdf"
    with pytest.raises(ValueError, match=r"unknown ending '\.xls'"):
        file_format("a.xls")
    with pytest.raises(ValueError, match="unknown format 'xls'"):
        file_format("a.csv", "xls")


def test_smi(tmp_path):
    (tmp_path / "in.smi").write_text("CCO ethyl alcohol\nC\n\nc1ccccc1\tbenzene (ring)\n\tno molecule\n")
    table, molecules = read(tmp_path / "in.smi")
    assert molecules == ["CCO", "C", "c1ccccc1", ""]
    assert table["name"].to_pylist() == ["ethyl alcohol", "", "benzene (ring)", "no molecule"]
    assert read(tmp_path / "in.smi", given_as="iupac_name")[1][0] == "ethyl alcohol"


def test_smi_with_a_header(tmp_path):
    (tmp_path / "in.smi").write_text("SMILES Name\nCCO ethanol\n")
    assert read(tmp_path / "in.smi")[1] == ["CCO"]


def block(smiles):
    from rdkit import Chem

    return Chem.MolToMolBlock(Chem.MolFromSmiles(smiles)).split("\n", 1)[1]


@pytest.fixture
def sdf_text():
    return (
        f"first molecule\n{block('CCO')}> <ID>\n007\n\n> 12 <note> (1)\nline one\n\nline three\n\n$$$$\n"
        "broken\n  made up\n\nnot a counts line\nM  END\n> <ID>\n008\n\n$$$$\n"
        f"third\n{block('N[C@@H](C)C(=O)O')}> <extra>\n\n$$$$\n"
        f"\n{block('C')}"
    )


def test_sdf(tmp_path, sdf_text):
    (tmp_path / "in.sdf").write_text(sdf_text)
    table, molecules = read(tmp_path / "in.sdf")
    assert table.column_names == ["title", "ID", "note", "extra"]
    assert table["title"].to_pylist() == ["first molecule", "broken", "third", ""]
    assert table["ID"].to_pylist() == ["007", "008", None, None]
    assert table["note"].to_pylist() == ["line one\n\nline three", None, None, None]
    assert table["extra"].to_pylist() == [None, None, "", None]
    assert [molecules[0], *molecules[2:]] == ["CCO", "C[C@H](N)C(=O)O", "C"]
    assert isinstance(molecules[1], MoleculeError)
    with MoleculeReader(tmp_path / "in.sdf") as reader:
        assert reader.total == 4


def test_sdf_from_standard_input(monkeypatch, sdf_text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(sdf_text.encode())))))
    table, molecules = read("-", format="sdf")
    assert table["title"].to_pylist() == ["first molecule", "broken", "third", ""]
    assert molecules[3] == "C"
    assert not sys.stdin.closed


def test_sdf_names_are_read_from_a_field(tmp_path):
    (tmp_path / "in.sdf").write_text(f"x\n{block('CCO')}> <PUBCHEM_IUPAC_NAME>\nethanol\n\n> <title>\nT\n\n$$$$\n")
    table, molecules = read(tmp_path / "in.sdf", given_as="iupac_name")
    assert molecules == ["ethanol"]
    assert table.column_names == ["sdf_title", "PUBCHEM_IUPAC_NAME", "title"]
    with pytest.raises(ValueError, match="no column 'smiles'"):
        read(tmp_path / "in.sdf", column="smiles")


def test_sdf_records_without_end_or_with_nothing():
    records = list(read_sdf(f"t\n{block('CC').replace('M  END', '')}> <a>\n1\n$$$$\n$$$$\n\n\n".splitlines(True)))
    assert [record.title for record in records] == ["t", ""]
    assert records[0].properties == {"a": "1"}
    with pytest.raises(MoleculeError):
        records[1].smiles()


def test_sdf_fields_of_the_same_name_are_joined():
    (record,) = read_sdf(f"t\n{block('CC')}> <a>\n1\n\n> <a>\n2\n\n$$$$\n".splitlines())
    assert record.properties == {"a": "1\n2"}


@pytest.mark.parametrize("name", ["in.sdf", "in.smi", "in.parquet"])
def test_empty_files(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"is empty|not a Parquet file"):
        read(tmp_path / name)


def test_parquet_types_and_metadata_stay(tmp_path):
    table = pa.table(
        {
            "id": pa.array([7, None, 9, 10, 11], pa.int16()),
            "smiles": ["C", None, "CC", "CCC", "N"],
            "when": pa.array([1, 2, 3, 4, 5], pa.timestamp("ms")),
            "list": [[1], [], None, [2, 3], [4]],
        }
    ).replace_schema_metadata({"made": "by hand"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    again, molecules = read(tmp_path / "in.parquet", rows=3)
    assert again.equals(pq.read_table(tmp_path / "in.parquet"), check_metadata=True)
    assert again.schema.metadata == {b"made": b"by hand"}
    assert molecules == ["C", None, "CC", "CCC", "N"]
    write(tmp_path / "out.parquet", again)
    assert pq.read_table(tmp_path / "out.parquet").equals(again, check_metadata=True)
    assert again.to_pydict() == table.to_pydict()


def test_a_zipped_parquet_file(tmp_path):
    pq.write_table(pa.table({"smiles": ["C"]}), tmp_path / "x.parquet")
    (tmp_path / "in.parquet.gz").write_bytes(gzip.compress((tmp_path / "x.parquet").read_bytes()))
    assert read(tmp_path / "in.parquet.gz")[1] == ["C"]


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.parquet"])
def test_a_failed_writer_leaves_nothing(tmp_path, name):
    schema = pa.schema([("a", pa.string())])

    def fail():
        with TableWriter(tmp_path / name, schema) as writer:
            writer.write(pa.RecordBatch.from_pydict({"a": ["1"]}, schema))
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_other_formats_are_not_written(tmp_path):
    schema = pa.schema([("a", pa.string())])
    with pytest.raises(ValueError, match="not as SDF"):
        TableWriter(tmp_path / "out.sdf", schema)
    with pytest.raises(ValueError, match="Parquet is written to a file"):
        TableWriter(tmp_path / "out.parquet.gz", schema)


def test_progress_through_a_file(tmp_path):
    (tmp_path / "in.csv").write_text("smiles\n" + "CCO\n" * 100_000)
    with MoleculeReader(tmp_path / "in.csv") as reader:
        seen = [reader.fraction() for _ in reader.pieces(10_000)]
    assert seen == sorted(seen)
    assert seen[0] < 0.5 < seen[-1]
    assert json.dumps(seen[-1]) == "1.0"
