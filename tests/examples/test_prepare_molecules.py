"""`examples/recipes/prepare_molecules.py`: what is left out, and which part a molecule belongs to."""

import json
import runpy
from pathlib import Path

import pandas as pd
import pytest

from hf_molrep.chem.properties import properties
from hf_molrep.chem.smiles import inchikey_block

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "recipes" / "prepare_molecules.py"
CHAINS = ["C" * length + "O" for length in range(1, 60)]


def table(path: Path, smiles: list[str]) -> Path:
    blocks = [inchikey_block(text) if text != "C1CC" else "broken" for text in smiles]
    pd.DataFrame({"smiles": smiles, "inchikey_block": blocks}).to_parquet(path)
    return path


def test_parts(tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    files = [table(tmp_path / "a.parquet", [*CHAINS, "OCC", "C1CC"]), table(tmp_path / "b.parquet", ["CO", "CC(C)O"])]
    excluded = table(tmp_path / "excluded.parquet", ["CCCO"])
    main([*map(str, files), "--exclude", str(excluded), "--out", str(tmp_path / "out"), "--validation-fraction", "0.3"])
    assert "written to" in capsys.readouterr().out
    counts = json.loads((tmp_path / "out" / "exclusions.json").read_text())
    parts = {name: pd.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("train", "validation")}
    assert counts == {
        "rows": 63,
        "a": 61,
        "b": 2,
        "left out: benchmark molecule (InChIKey first block)": 1,
        "left out: SMILES refused": 1,
        "left out: same SMILES after standardisation": 2,
        "train": len(parts["train"]),
        "validation": len(parts["validation"]),
    }
    assert 5 < len(parts["validation"]) < 30
    together = pd.concat(parts.values())
    assert set(together.smiles) == {*CHAINS, "CC(C)O"} - {"CCCO"}
    assert sorted(together.row_id) == list(range(59))
    # the same molecules go to the same parts whatever else is there
    main([str(files[0]), "--out", str(tmp_path / "again"), "--validation-fraction", "0.3"])
    again = set(pd.read_parquet(tmp_path / "again" / "validation.parquet").smiles)
    assert set(parts["validation"].smiles) - {"CC(C)O"} <= again
    main([str(files[0]), "--out", str(tmp_path / "few"), "--validation-fraction", "0.3", "--train-molecules", "7"])
    few = pd.read_parquet(tmp_path / "few" / "train.parquet")
    assert len(few) == 7
    assert set(few.smiles) < set(CHAINS) - again


def test_what_is_left_out_by_source_smiles_and_drawing(tmp_path):
    main = runpy.run_path(str(SCRIPT))["main"]
    file = table(tmp_path / "a.parquet", CHAINS[:40])
    pd.read_parquet(file).assign(source=["kept"] * 30 + ["left"] * 10).to_parquet(file)
    benchmark = table(tmp_path / "benchmark.parquet", ["CCO"])
    pd.DataFrame({"smiles": ["OCCC", "OCCCC"]}).to_parquet(tmp_path / "evaluation.parquet")
    excluded = ["--exclude", str(benchmark), str(tmp_path / "evaluation.parquet"), "--exclude-source", "left"]
    main([str(file), *excluded, "--draw", "20", "--out", str(tmp_path / "out")])
    counts = json.loads((tmp_path / "out" / "exclusions.json").read_text())
    assert counts["left out: source left"] == 10
    assert counts["left out: benchmark molecule (InChIKey first block)"] == 1
    assert counts["left out: molecule of evaluation (InChIKey first block)"] == 2
    assert counts["left out: not drawn"] == 7
    together = pd.concat([pd.read_parquet(tmp_path / "out" / f"{part}.parquet") for part in ("train", "validation")])
    assert len(together) == 20
    assert set(together.smiles) < set(CHAINS[:30]) - {"CCO", "CCCO", "CCCCO"}
    assert set(together.source) == {"kept"}


def test_conditions(tmp_path):
    """`--condition` adds the property of the cleaned molecule."""
    main = runpy.run_path(str(SCRIPT))["main"]
    file = table(tmp_path / "a.parquet", CHAINS[:8])
    main([str(file), "--condition", "qed", "--validation-fraction", "0", "--out", str(tmp_path / "out")])
    train = pd.read_parquet(tmp_path / "out" / "train.parquet")
    assert train.condition.tolist() == properties(train.smiles, "qed").tolist()
    assert train.condition.nunique() == 8


def test_columns_are_needed(tmp_path):
    main = runpy.run_path(str(SCRIPT))["main"]
    pd.DataFrame({"smiles": ["C"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "x.parquet")])
