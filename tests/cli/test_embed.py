"""`hf-molrep embed`: every column comes out, failures in their own column, a killed run continues to the same file."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoModel, AutoProcessor

from hf_molrep.cli import COMMANDS, main
from hf_molrep.inference.embedding import embed
from hf_molrep.inference.files import FileRun
from tests.models.mm_deacon.tiny import NAMES, SMILES, save_tiny_checkpoint

BAD = ["", " ", "C1CC", "C(C)(C)(C)(C)C", "C" * 100_000, "NaN"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def run(checkpoint):
    def run(*arguments, model=checkpoint):
        return main(["embed", *map(str, arguments), "--model", model, "--device", "cpu", "--quiet"])

    return run


@pytest.fixture
def csv_file(tmp_path):
    """20 good molecules and the bad ones."""
    rows = [*SMILES, *SMILES, *SMILES[:4], *BAD]
    path = tmp_path / "in.csv"
    path.write_text("id,smiles,value\n" + "".join(f'{row:03d},"{smiles}",\n' for row, smiles in enumerate(rows)))
    return path


def test_columns_failures_and_summary(run, csv_file, checkpoint, tmp_path, capsys):
    assert run(csv_file, tmp_path / "out.parquet", "--window", "7") == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "smiles", "value", "smiles_used", "error", "embedding"]
    assert table["id"].to_pylist() == [f"{row:03d}" for row in range(26)]
    assert table["value"].to_pylist() == [""] * 26
    assert table["smiles"].to_pylist()[20:] == BAD
    assert table["error"].to_pylist()[:20] == [None] * 20
    assert all(table["error"].to_pylist()[20:])
    assert table["embedding"].to_pylist()[20:] == table["smiles_used"].to_pylist()[20:] == [None] * 6
    assert table["smiles_used"].to_pylist()[3] == "CC(=O)Oc1ccccc1C(=O)O"
    model, processor = AutoModel.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    expected = np.stack(list(embed(model, processor, SMILES)))
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist()[:8], np.float32), expected, atol=1e-5)
    output = capsys.readouterr()
    assert f"20 of 26 molecules embedded, 6 failed (column 'error' says why): {tmp_path / 'out.parquet'}" in output.out
    assert "row 23, 'C1CC'" in output.err
    assert "and 1 more" in output.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.parquet"]


def test_csv_output_holds_the_same_numbers(run, csv_file, tmp_path):
    import csv

    assert run(csv_file, tmp_path / "out.csv.gz") == 0
    assert run(csv_file, tmp_path / "out.parquet") == 0
    with gzip.open(tmp_path / "out.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = pq.read_table(tmp_path / "out.parquet")["embedding"].to_pylist()
    for row, vector in zip(rows, expected, strict=True):
        if vector is None:
            assert row["embedding"] == ""
            assert row["error"]
        else:
            np.testing.assert_array_equal(np.array(json.loads(row["embedding"]), np.float32), np.float32(vector))


def test_sdf_titles_and_properties_come_out(run, tmp_path):
    from rdkit import Chem

    records = "".join(
        f"{name}\n" + Chem.MolToMolBlock(Chem.MolFromSmiles(smiles)).split("\n", 1)[1] + f"> <code>\n0{row}\n\n$$$$\n"
        for row, (smiles, name) in enumerate(zip(SMILES, NAMES, strict=True))
    )
    (tmp_path / "in.sdf").write_text(records + "broken\n\n\nnothing\nM  END\n> <code>\n09\n\n$$$$\n")
    assert run(tmp_path / "in.sdf", tmp_path / "out.parquet") == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["title"].to_pylist() == [*NAMES, "broken"]
    assert table["code"].to_pylist() == [*(f"0{row}" for row in range(8)), "09"]
    assert table["smiles_used"].to_pylist()[4] == "C[C@H](N)C(=O)O"
    assert "mol block" in table["error"].to_pylist()[8]


def test_names(run, tmp_path):
    (tmp_path / "in.tsv").write_text("iupac_name\n" + "\n".join([*NAMES, "乙醇"]) + "\n", encoding="utf-8")
    assert run(tmp_path / "in.tsv", tmp_path / "out.parquet", "--kind", "iupac") == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["iupac_name", "error", "embedding"]
    assert [error is None for error in table["error"].to_pylist()] == [True] * 8 + [False]


def test_standard_input_and_output(run, csv_file, monkeypatch, capsys):
    text = gzip.compress(csv_file.read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(text))))
    assert run("-", "-") == 0
    output = capsys.readouterr()
    assert output.out.startswith("id,smiles,value,smiles_used,error,embedding\n000,CCO,,CCO,,")
    assert output.out.count("\n") == 27
    assert "20 of 26 molecules embedded" in output.err


def test_mistakes_are_told_in_one_line(run, csv_file, tmp_path, capsys):
    def told(*arguments):
        assert run(*arguments) == 2
        line = capsys.readouterr().err.strip()
        assert "\n" not in line
        return line

    assert "no column 'structure'; it has 'id', 'smiles', 'value'" in told(csv_file, "x.csv", "--column", "structure")
    assert "No such file" in told(tmp_path / "none.csv", tmp_path / "x.csv")
    assert "unknown ending" in told(csv_file, tmp_path / "x.npy")
    assert "written as .parquet, .csv or .tsv" in told(csv_file, tmp_path / "x.sdf")
    (tmp_path / "empty.csv").write_text("")
    assert "is empty" in told(tmp_path / "empty.csv", tmp_path / "x.csv")
    (tmp_path / "twice.csv").write_text("smiles,error\nC,\n")
    assert "already has a column 'error'" in told(tmp_path / "twice.csv", tmp_path / "x.csv")
    (tmp_path / "there.csv").write_text("")
    assert "--overwrite replaces it" in told(csv_file, tmp_path / "there.csv")
    assert "same file" in told(csv_file, csv_file, "--overwrite")
    assert csv_file.stat().st_size > 100_000


def test_exit_status_when_everything_fails_and_when_there_is_nothing(run, tmp_path):
    (tmp_path / "bad.csv").write_text("smiles\nC1CC\nNaN\n")
    assert run(tmp_path / "bad.csv", tmp_path / "bad.parquet") == 1
    assert pq.read_table(tmp_path / "bad.parquet").num_rows == 2
    (tmp_path / "none.csv").write_text("smiles\n")
    assert run(tmp_path / "none.csv", tmp_path / "none.parquet") == 0
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_on_error_raise_names_the_row(run, csv_file, tmp_path, capsys):
    assert run(csv_file, tmp_path / "out.parquet", "--on-error", "raise", "--window", "6") == 1
    assert "row 21" in capsys.readouterr().err
    assert not (tmp_path / "out.parquet").exists()
    assert run(csv_file, tmp_path / "other.parquet", "--on-error", "raise") == 1
    assert not (tmp_path / "other.parquet.parts").exists()  # nothing was done that could be continued


def test_a_killed_run_continues_to_the_same_rows(run, checkpoint, tmp_path):
    """
    A process is killed between two rows; the run that continues it keeps its parts and ends in the same rows. Numbers
    may differ in their last bits: which kernel a processor takes depends on what else a process has done.
    """
    rows = [f"{row},{'C' * (1 + row % 40) if row % 50 else 'C1CC'}\n" for row in range(400)]
    source = tmp_path / "in.csv"
    source.write_text("id,smiles\n" + "".join(rows))
    arguments = ["--window", "20", "--batch-tokens", "300"]
    assert run(source, tmp_path / "whole.parquet", *arguments) == 0

    output, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    command = [sys.executable, "-m", "hf_molrep.cli", "embed", "-", str(output), "--model", checkpoint]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [*command, "--device", "cpu", "--quiet", *arguments],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        process.stdin.write(("id,smiles\n" + "".join(rows[:250])).encode())
        process.stdin.flush()  # and now it waits for more, which never comes
        while len(list(parts.glob("part-*.parquet"))) < 5:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = {path: path.stat().st_mtime_ns for path in parts.glob("part-*.parquet")}
    assert 5 <= len(done) <= 13
    assert not output.exists()

    assert run(source, output, *arguments) == 2  # neither --resume nor --overwrite
    assert run(source, output, *arguments, "--batch-tokens", "200", "--resume") == 2
    seen, join = {}, FileRun._join

    def remember_and_join(*given):
        seen.update({part: part.stat().st_mtime_ns for part in done})
        return join(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileRun, "_join", remember_and_join)
        assert run(source, output, *arguments, "--resume") == 0
    assert seen == done  # none was made again
    require_same_rows(output, tmp_path / "whole.parquet")
    assert not parts.exists()
    before = output.read_bytes()
    assert run(source, output, *arguments, "--resume") == 0
    assert output.read_bytes() == before


def require_same_rows(path, expected_path):
    """Everything but the embeddings to the last byte, these to float rounding."""
    actual, expected = pq.read_table(path), pq.read_table(expected_path)
    assert actual.schema.equals(expected.schema, check_metadata=True)
    assert actual.drop_columns("embedding").equals(expected.drop_columns("embedding"))
    for own, other in zip(actual["embedding"].to_pylist(), expected["embedding"].to_pylist(), strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)


@pytest.fixture
def stopped(run, csv_file, tmp_path, monkeypatch):
    """A run stopped by the keyboard after its second part."""
    write = FileRun._write_part

    def stop(self, number, digest, table):
        if number == 2:
            raise KeyboardInterrupt
        write(self, number, digest, table)

    with monkeypatch.context() as patch:
        patch.setattr(FileRun, "_write_part", stop)
        assert run(csv_file, tmp_path / "out.parquet", "--window", "5") == 130
    assert len(list((tmp_path / "out.parquet.parts").glob("part-*"))) == 2
    return tmp_path / "out.parquet"


def test_an_interrupted_run_continues(run, csv_file, stopped, tmp_path):
    assert run(csv_file, stopped, "--window", "5", "--resume") == 0
    assert run(csv_file, tmp_path / "whole.parquet", "--window", "5") == 0
    assert stopped.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_another_input_does_not_continue_a_run(run, csv_file, stopped, capsys):
    csv_file.write_text(csv_file.read_text().replace("001,", "1,"))
    assert run(csv_file, stopped, "--window", "5", "--resume") == 2
    assert "rows 1 to 5" in capsys.readouterr().err
    csv_file.write_text("id,smiles,value\n")
    assert run(csv_file, stopped, "--window", "5", "--resume") == 2
    assert "has only 0 rows, fewer" in capsys.readouterr().err


def test_another_checkpoint_does_not_continue_a_run(run, csv_file, stopped, tmp_path, capsys):
    other = save_tiny_checkpoint(tmp_path / "other", seed=1)
    assert run(csv_file, stopped, "--window", "5", "--resume", model=other) == 2
    assert "checkpoint was" in capsys.readouterr().err
    assert run(csv_file, stopped, "--window", "5", "--overwrite", model=other) == 0


@pytest.mark.parametrize("arguments", [["--help"], ["embed", "--help"], ["search", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    if arguments == ["--help"]:
        output = capsys.readouterr().out
        assert all(name in output for name in COMMANDS)


def test_unknown_commands_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["embedd"])
    assert stop.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
