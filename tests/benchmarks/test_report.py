"""Tables and settings of the benchmarks."""

import argparse
import json
from pathlib import Path

from benchmarks.harness import report


def test_table_and_spread():
    table = report.markdown_table(["a", "longer"], [["x", 0.12345], ["yy", 2]])
    assert table.splitlines() == ["| a  | longer |", "|----|--------|", "| x  | 0.123  |", "| yy | 2      |"]
    assert report.mean_sd([0.5, 0.7]) == "0.600 ± 0.141"
    assert report.mean_sd([0.5]) == "0.500"
    assert report.mean_sd([float("nan")]) == "n/a"


def test_paths_are_published_without_the_folders_of_the_machine(tmp_path):
    assert report.public_path(report.ROOT / "benchmarks" / "x.md") == "benchmarks/x.md"
    assert report.public_path(report.ROOT.parent / "shared" / "data") == "../shared/data"
    assert report.public_path(tmp_path / "secret" / "file.parquet") == "file.parquet"
    assert report.public_path("mm-deacon-mini") == "mm-deacon-mini"


def test_report_holds_every_setting(tmp_path, capsys):
    args = argparse.Namespace(model="m", results=tmp_path, seed=3, data=[Path("/home/someone/pairs.parquet")], epochs=2)
    report.write_report("name", "# Title", {"numbers": [1.5]}, args)
    raw = json.loads((tmp_path / "name.json").read_text())
    assert raw["numbers"] == [1.5]
    assert raw["settings"]["arguments"] == {"model": "m", "seed": 3, "data": ["pairs.parquet"], "epochs": 2}
    assert {"python", "torch", "rdkit"} <= set(raw["settings"]["versions"])
    page = (tmp_path / "name.md").read_text()
    assert page.startswith("# Title\n")
    assert "/home/someone" not in page
    assert report.settings_of(argparse.Namespace(model=None), None)["arguments"] == {"model": None}
    assert "# Title" in capsys.readouterr().out


def test_fingerprint_follows_weights_and_configuration(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = report.fingerprint(str(tmp_path))
    assert before == report.fingerprint(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert report.fingerprint(str(tmp_path)) != before
    assert report.fingerprint("someone/model") == "someone/model"


def test_a_benchmark_of_no_checkpoint_has_no_model():
    assert report.argument_parser("Speed.").parse_args([]).model == "mm-deacon-mini"
    assert "model" not in report.argument_parser("Speed.", model=False).parse_args([])
