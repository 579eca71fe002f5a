"""`examples/demo.py`, as `make demo` runs it."""

import runpy
import sys

import pyarrow.parquet
import pytest

from hf_molrep.chem.smiles import canonical_smiles


@pytest.fixture
def demo(repository, tmp_path, monkeypatch, capsys, mini_checkpoint):
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path), *arguments])
        runpy.run_path(str(repository / "examples" / "demo.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_defaults(demo, tmp_path, example_molecules):
    lines = demo().strip().splitlines()

    assert "Skipped row 251, broken-1: " in lines[0]
    assert lines[-1].startswith("Embedded 499 of 500 molecules (1 skipped)")
    assert str(tmp_path / "embeddings.parquet") in lines[-1]
    assert (tmp_path / "neighbours.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    table = pyarrow.parquet.read_table(tmp_path / "embeddings.parquet").to_pylist()
    names = [line.split(",")[0] for line in example_molecules.read_text().splitlines()[1:]]
    assert [row["id"] for row in table] == names
    assert [row["id"] for row in table if row["embedding"] is None] == ["broken-1"]
    assert [row["id"] for row in table if row["error"] is not None] == ["broken-1"]


def test_a_molecule_of_the_file_is_its_own_neighbour(demo):
    query = "c1(C(C)C(O)=O)ccc(CC(C)C)cc1"  # ibuprofen, written otherwise than in the file
    lines = demo("--query", query, "--top", "1").strip().splitlines()

    cosine, identifier, *_, smiles = lines[-3].split()
    assert (identifier, cosine) == ("A-1370", "1.000")
    assert canonical_smiles(smiles) == canonical_smiles(query)


def test_query_by_name(demo):
    lines = demo("--query", "2-[4-(2-methylpropyl)phenyl]propanoic acid", "--top", "3").splitlines()

    assert any(line.endswith("(read as an IUPAC name):") for line in lines)
