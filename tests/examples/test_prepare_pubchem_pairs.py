"""PubChem's two files to pairs: the join, what is refused, and that a stopped run continues to the same files."""

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPOUNDS = {  # CID: SMILES, name; these are PubChem's
    176: ("CC(=O)O", "acetic acid"),
    241: ("C1=CC=CC=C1", "benzene"),
    702: ("CCO", "ethanol"),
    887: ("CO", "methanol"),
    962: ("O", "oxidane"),
    1140: ("CC1=CC=CC=C1", "toluene"),
    2244: ("CC(=O)OC1=CC=CC=C1C(=O)O", "2-acetyloxybenzoic acid"),
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "prepare_pubchem_pairs", ROOT / "examples/recipes/prepare_pubchem_pairs.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path: Path, texts: dict[int, str]) -> Path:
    with gzip.open(path, "wt") as lines:
        lines.writelines(f"{cid}\t{text}\n" for cid, text in texts.items())
    return path


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    smiles = {cid: smiles for cid, (smiles, _) in COMPOUNDS.items()} | {2245: "C1CC", 3000: "CCCC"}
    names = {1: "of no compound"} | {cid: name for cid, (_, name) in COMPOUNDS.items()} | {2245: "nothing"}
    del names[962]
    return write(tmp_path / "CID-SMILES.gz", smiles), write(tmp_path / "CID-IUPAC.gz", names)


def arguments(files, out: Path, *more: str) -> list[str]:
    return [str(files[0]), str(files[1]), "--out", str(out), "--workers", "1", *more]


def rows(out: Path) -> list[dict]:
    return [row for shard in sorted(out.glob("pairs-*.parquet")) for row in pq.read_table(shard).to_pylist()]


def test_joins_by_cid_and_counts_what_is_left_out(script, files, tmp_path):
    out = tmp_path / "pairs"
    assert script.main(arguments(files, out, "--shard-pairs", "3")) == 0
    found = rows(out)
    assert [row["cid"] for row in found] == [176, 241, 702, 887, 1140, 2244]
    assert found[1] == {
        "smiles": "c1ccccc1",
        "iupac_name": "benzene",
        "cid": 241,
        "inchikey_block": "UHOVQNZJYSORNB",
        "formula": "C6H6",
    }
    assert len(list(out.glob("pairs-*.parquet"))) == 3
    state = json.loads((out / "progress.json").read_text())
    assert state["finished"]
    assert state["counts"] == {
        "pairs": 6,
        "left out: SMILES refused": 1,
        "left out: no name": 2,
        "left out: no SMILES": 1,
    }


def test_the_processes_give_the_same_rows(script, files, tmp_path):
    script.main(arguments(files, tmp_path / "one", "--shard-pairs", "2"))
    command = [*arguments(files, tmp_path / "two", "--shard-pairs", "2"), "--workers", "2"]
    subprocess.run([sys.executable, ROOT / "examples/recipes/prepare_pubchem_pairs.py", *command], check=True, cwd=ROOT)
    assert rows(tmp_path / "one") == rows(tmp_path / "two")


def test_excluded_blocks_and_limit_and_share(script, files, tmp_path):
    blocks = tmp_path / "blocks.parquet"
    pq.write_table(pa.table({"inchikey_block": ["UHOVQNZJYSORNB"]}), blocks)
    script.main(arguments(files, tmp_path / "a", "--exclude", str(blocks), "--limit", "3"))
    assert [row["cid"] for row in rows(tmp_path / "a")] == [176, 702]
    script.main(arguments(files, tmp_path / "b", "--share", "0.5"))
    kept = {row["cid"] for row in rows(tmp_path / "b")}
    assert kept == {cid for cid in COMPOUNDS if cid != 962 and script.chosen(cid, 0.5)}
    assert 0.45 < sum(script.chosen(cid, 0.5) for cid in range(1, 2001)) / 2000 < 0.55


def test_continues_after_a_stop_to_the_same_files(script, files, tmp_path, monkeypatch):
    script.main(arguments(files, tmp_path / "whole", "--shard-pairs", "2"))

    standardise, calls = script.standardise, []

    def stop_at_the_third(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return standardise(*given)

    monkeypatch.setattr(script, "standardise", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        script.main(arguments(files, tmp_path / "stopped", "--shard-pairs", "2"))
    assert len(rows(tmp_path / "stopped")) == 4
    script.main(arguments(files, tmp_path / "stopped", "--shard-pairs", "2"))
    assert [len(chunk) for chunk, _ in calls[3:]] == [2, 1]  # only what was missing
    for file in ("progress.json", *(shard.name for shard in (tmp_path / "whole").glob("pairs-*.parquet"))):
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_refuses_a_folder_of_another_run(script, files, tmp_path, capsys):
    script.main(arguments(files, tmp_path / "out"))
    with pytest.raises(SystemExit) as error:
        script.main(arguments(files, tmp_path / "out", "--share", "0.5"))
    assert error.value.code == 1
    assert "share was 1.0 and is 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1\tC\n3\tCC\n2\tCCC\n", r"line 3: CID 2 comes after CID 3; .* ascending order"),
        ("1\tC\n1\tCC\n", r"line 2: CID 1 comes after CID 1"),
        ("1\tC\nmethane\n", r"line 2: b'methane.*' is not 'CID<tab>text'"),
        ("CID\tSMILES\n", r"line 1"),
    ],
)
def test_files_of_another_form_are_refused_by_line(script, tmp_path, lines, message):
    file = tmp_path / "CID-SMILES"  # not gzipped: that is fine
    file.write_text(lines)
    with pytest.raises(ValueError, match=message):
        list(script.read_sorted(file))


def test_a_download_that_broke_off_is_named(script, files):
    file = files[0]
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(ValueError, match="breaks off after line"):
        list(script.read_sorted(file))


def test_nothing_in_common(script, tmp_path):
    files = write(tmp_path / "a.gz", {1: "C", 5: "CC"}), write(tmp_path / "b.gz", {2: "x", 7: "y"})
    with pytest.raises(ValueError, match="no CID in common"):
        script.prepare(
            script.argparse.Namespace(
                smiles=files[0],
                names=files[1],
                out=tmp_path / "out",
                exclude=[],
                share=1.0,
                limit=None,
                max_length=100,
                shard_pairs=10,
                workers=1,
            )
        )
