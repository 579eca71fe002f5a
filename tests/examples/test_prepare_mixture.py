"""`examples/recipes/prepare_mixture.py`: what is drawn, what is always taken, and what never is."""

import json
import runpy
from pathlib import Path

import pandas as pd
import pytest

from hf_molrep.chem.smiles import inchikey_block, parse

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "recipes" / "prepare_mixture.py"
BENCHMARK, SMALL, FORBIDDEN, FLAGGED = "CCCO", "OCCO", "CCSC", "CCCCl"
LONG = ["C" * length + "N" for length in range(13, 33)]


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script over a folder of few molecules, with at most four drawn of each collection: its table, its counts."""
    folder, out = tmp_path / "data", tmp_path / "out"
    for part in ("iupac", "pretrain", "generation", "moleculenet"):
        (folder / part).mkdir(parents=True)

    def blocks(smiles: list[str], **columns) -> pd.DataFrame:
        return pd.DataFrame({"smiles": smiles, "inchikey_block": list(map(inchikey_block, smiles)), **columns})

    pairs = [BENCHMARK, SMALL, FORBIDDEN, SMALL, *LONG]
    source = ["made", "made", "massbank", "made"] + ["made"] * len(LONG)
    blocks(pairs, iupac_name="name", source=source).to_parquet(folder / "iupac" / "smiles_iupac_pairs.parquet")
    for name in ("chembl_validation", "zinc250k", "geom_drugs_smiles"):
        blocks([BENCHMARK, *LONG]).to_parquet(folder / "pretrain" / f"{name}.parquet")
    flags = {"in_moleculenet": [False, True, False], "in_moleculeace": False}
    moses = pd.DataFrame({"smiles": ["CCCF", FLAGGED, BENCHMARK], **flags})
    moses.to_parquet(folder / "generation" / "moses_train.parquet")
    blocks([BENCHMARK])[["inchikey_block"]].to_parquet(folder / "moleculenet" / "benchmark_blocks.parquet")

    def run(*options: str):
        module = runpy.run_path(str(SCRIPT))
        drawn = module["COLLECTIONS"]
        drawn.update(dict.fromkeys(drawn, 4))
        module["main"]([str(folder), "--out", str(out), *options])
        parts = [pd.read_parquet(out / f"{name}.parquet").assign(part=name) for name in ("train", "validation")]
        return pd.concat(parts), json.loads((out / "exclusions.json").read_text())

    return run


def test_what_it_takes(script):
    table, counts = script("--validation-fraction", "0.5")
    taken = set(table.smiles)
    assert {SMALL, "CCCF"} <= taken  # small molecules whatever is drawn
    assert not {BENCHMARK, FORBIDDEN, FLAGGED} & taken
    assert table.smiles.is_unique
    assert table.row_id.is_unique
    assert sum(parse(text).GetNumHeavyAtoms() > 12 for text in taken) <= 4 * 4
    assert counts["smiles_iupac_pairs: left out, source massbank"] == 1
    assert counts["smiles_iupac_pairs: left out, benchmark molecule (InChIKey first block)"] == 1
    assert counts["moses_train: left out, in_moleculenet"] == 1
    assert counts["chembl_validation: drawn"] == 4
    assert counts["train"] + counts["validation"] == len(table)
    assert table.groupby("inchikey_block").part.nunique().eq(1).all()


def test_the_same_again(script):
    first, _ = script()
    again, _ = script()
    assert first.smiles.tolist() == again.smiles.tolist()
    other, _ = script("--seed", "1")
    assert set(other.smiles) != set(first.smiles)
