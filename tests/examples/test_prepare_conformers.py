"""`examples/recipes/prepare_conformers.py`, and pre-training on the coordinates of a file."""

import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from hf_molrep.chem.smiles import inchikey_block, parse
from hf_molrep.cli import main

RECIPES = Path(__file__).resolve().parents[2] / "examples" / "recipes"
CHAINS = ["C" * length + "O" for length in range(3, 23)]
CHLORIDES = ["C" * length + "Cl" for length in range(1, 9)]


def zigzag(smiles: str) -> tuple[np.ndarray, np.ndarray]:
    """The heavy atoms of a chain, and coordinates at distances of bonds, angstrom."""
    z = np.array([atom.GetAtomicNum() for atom in parse(smiles).GetAtoms()])
    steps = np.arange(len(z))
    return z, np.stack([1.3 * steps, 0.6 * (steps % 2), 0.0 * steps], axis=1)


def geometries(path: Path, smiles: list[str]) -> Path:
    made = [zigzag(text) for text in smiles]
    table = {"smiles": smiles, "inchikey_block": [inchikey_block(text) for text in smiles]}
    table["atomic_numbers"] = [z.astype(np.uint8) for z, _ in made]
    table["coordinates"] = [pos.astype(np.float32).ravel() for _, pos in made]
    pd.DataFrame(table).to_parquet(path)
    return path


def smiles_only(path: Path, smiles: list[str]) -> Path:
    blocks = [inchikey_block(text) if text != "C1CC" else "broken" for text in smiles]
    pd.DataFrame({"smiles": smiles, "inchikey_block": blocks}).to_parquet(path)
    return path


def prepare(folder: Path, *arguments) -> dict[str, pd.DataFrame]:
    runpy.run_path(str(RECIPES / "prepare_conformers.py"))["main"]([*map(str, arguments), "--out", str(folder)])
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "validation")}


def test_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    given = geometries(tmp_path / "given.parquet", CHAINS)
    written = smiles_only(tmp_path / "written.parquet", [*CHLORIDES, "C1CC"])
    excluded = smiles_only(tmp_path / "excluded.parquet", ["CCCO", "CCl"])
    options = ["--exclude", excluded, "--validation-fraction", "0.3"]
    parts = prepare(tmp_path / "out", "--geometries", given, "--smiles", written, *options, "--conformers", 2)
    counts = json.loads((tmp_path / "out" / "exclusions.json").read_text())
    assert counts["given: left out: benchmark molecule (InChIKey first block)"] == 1
    assert counts["written: left out: benchmark molecule (InChIKey first block)"] == 1
    assert counts["written: left out: SMILES refused or no conformer found"] == 1
    assert [counts[f"written: {report}"] for report in ("3d", "2d", "failed")] == [7, 0, 0]
    together = pd.concat(parts.values())
    assert counts["train"] == len(parts["train"]) > len(parts["validation"]) > 0
    assert set(together.smiles) == {*CHAINS, *CHLORIDES} - {"CCCO", "CCl"}
    assert sorted(together.row_id) == list(range(26))
    for row in together.itertuples():
        conformers = 2 if row.source == "written" else 1
        assert len(row.coordinates) == 3 * conformers * len(row.atomic_numbers)
    # a smaller draw lies within a larger one, and does not depend on what is left out beside it
    few = [prepare(tmp_path / f"few{n}", "--smiles", written, "--molecules", n)["train"] for n in (3, 5)]
    assert set(few[0].smiles) < set(few[1].smiles)
    with pytest.raises(SystemExit):
        prepare(tmp_path / "none", "--geometries", written)
    assert "atomic_numbers" in capsys.readouterr().err


def test_it_trains_on_the_coordinates_of_the_file(tmp_path, monkeypatch, capfd):
    data, size, output = tmp_path / "data", tmp_path / "size.json", tmp_path / "out"
    data.mkdir()
    file = geometries(data / "given.parquet", CHAINS)
    table = pd.read_parquet(file)
    table.at[4, "coordinates"] = np.full_like(table.coordinates[4], np.nan)
    table.to_parquet(file)
    size.write_text(json.dumps({"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}))
    arguments = ["--train_data", data, "--validation_data", data, "--config", size, "--output_dir", output]
    arguments += ["--max_steps", 3, "--per_device_train_batch_size", 4, "--logging_steps", 1, "--report_to", "none"]
    arguments += ["--bf16", "False", "--use_cpu"]
    monkeypatch.setattr("hf_molrep.chem.conformers.ConformerGenerator.__call__", None)  # nothing may be computed
    assert main(["pretrain", "uni_mol", *map(str, arguments)]) == 0
    told = capfd.readouterr().err
    assert "1 of 20 rows refused" in told
    assert "CCCCCCCO" in told
    logged = [line for line in json.loads((output / "trainer_state.json").read_text())["log_history"] if "loss" in line]
    assert {"loss_token", "loss_coordinate", "loss_distance"} <= logged[0].keys()
    model, processor = AutoModel.from_pretrained(output).eval(), AutoProcessor.from_pretrained(output)
    z, pos = zigzag("CCCO")
    with torch.no_grad():
        assert model(**processor(z=[z], pos=[pos], return_tensors="pt")).pooler_output.shape == (1, 32)
