"""`examples/recipes`: what each recipe runs, run here on few molecules; its options are those of the card."""

import json
import os
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import AutoModelForPreTraining

from hf_molrep.chem.smiles import inchikey_block, parse
from hf_molrep.cli import main
from hf_molrep.data.splits import block_fraction

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent.name for path in (ROOT / "examples" / "recipes").glob("*/run.sh"))
# after the options of the recipe, so they count
FEW_STEPS = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu", "--bf16", "False"]
FEW_STEPS += ["--eval_strategy", "no", "--report_to", "none"]
RECORDER = '#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word" >> "$LOG"; done\necho END >> "$LOG"\n'
CHAINS = ["methyl", "ethyl", "propyl", "butyl", "pentyl", "hexyl", "heptyl", "octyl", "nonyl", "decyl", "undecyl"]

ATOMS = {"oxy": "O", "sulfanyl": "S", "amino": "N"}


def molecules() -> pd.DataFrame:
    """Ethers, sulfides and amines: ten for training, and of a few hundred those that the recipes hold out."""
    kinds = [(one, two, kind) for one in range(1, 12) for two in range(one, 12) for kind in ATOMS]
    smiles = ["C" * one + ATOMS[kind] + "C" * two for one, two, kind in kinds]
    table = pd.DataFrame({"smiles": smiles, "inchikey_block": list(map(inchikey_block, smiles))})
    table["iupac_name"] = [f"1-{CHAINS[one - 1]}{kind}{CHAINS[two - 1]}ane" for one, two, kind in kinds]
    part = table.inchikey_block.map(block_fraction)
    assert (part < 0.02).any()
    assert part.between(0.06, 0.08).any()
    return pd.concat([table[part < 0.08], table[part >= 0.08][:10]], ignore_index=True)


@pytest.fixture
def data(tmp_path) -> Path:
    """A data folder with few molecules."""
    folder = tmp_path / "data"
    for part in ("pretrain", "moleculenet", "iupac", "generation"):
        (folder / part).mkdir(parents=True)
    table = molecules()
    table[::2].to_parquet(folder / "pretrain" / "zinc250k.parquet")
    table[1::2].to_parquet(folder / "pretrain" / "chembl_validation.parquet")
    table[:5].assign(split="train").to_parquet(folder / "pretrain" / "geom_drugs_smiles.parquet")
    flags = {"in_moleculenet": False, "in_moleculeace": False}
    table[["smiles"]][:5].assign(**flags).to_parquet(folder / "generation" / "moses_train.parquet")
    table.assign(source="made", opsin_check="exact", primary=True).to_parquet(
        folder / "iupac" / "smiles_iupac_pairs.parquet"
    )
    pd.DataFrame({"inchikey_block": [inchikey_block("CCO")]}).to_parquet(
        folder / "moleculenet" / "benchmark_blocks.parquet"
    )
    return folder


def write_geometries(folder: Path) -> None:
    """What the QM9 benchmark hands out for pre-training: molecules with coordinates, and what it keeps for itself."""
    folder.mkdir(parents=True)
    table = molecules()[["smiles", "inchikey_block"]]
    atoms = [np.array([atom.GetAtomicNum() for atom in parse(text).GetAtoms()]) for text in table.smiles]
    table["atomic_numbers"] = [z.astype(np.uint8) for z in atoms]
    table["coordinates"] = [
        np.stack([1.3 * np.arange(len(z)), 0.6 * (np.arange(len(z)) % 2), np.zeros(len(z))], axis=1)
        .astype(np.float32)
        .ravel()
        for z in atoms
    ]
    table.to_parquet(folder / "molecules.parquet")
    table[["inchikey_block"]][:1].to_parquet(folder / "held_out.parquet")


def commands_of(recipe: str, *arguments: object, folder: Path) -> list[list[str]]:
    """The Python commands that a recipe gives, not run."""
    recorder, log = folder / "recorder", folder / "log"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    log.write_text("")
    script = ROOT / "examples" / "recipes" / recipe / "run.sh"
    environment = {**os.environ, "PYTHON": str(recorder), "LOG": str(log)}
    subprocess.run(["bash", script, *map(str, arguments)], check=True, cwd=folder, env=environment)
    return [words.split("\n")[:-1] for words in log.read_text().split("END\n")[:-1]]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_makes_a_checkpoint(recipe, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "runs" / recipe
    commands = commands_of(recipe, "data", f"runs/{recipe}/", *FEW_STEPS, folder=tmp_path)
    assert not output.exists()
    for command in commands:
        if command[0] != "-m":
            runpy.run_path(command[0])["main"](command[1:])
        elif command[1] == "benchmarks.qm9":
            assert command[2] == "--write-pretraining"
            write_geometries(tmp_path / command[3])
        else:
            assert command[1] == "hf_molrep.cli"
            assert main(command[2:]) == 0
    assert json.loads((output / "run.json").read_text())["steps"] == 2
    assert json.loads(Path(f"{output}-data/exclusions.json").read_text())["validation"] > 0
    AutoModelForPreTraining.from_pretrained(output)
    # the data are prepared once
    assert commands_of(recipe, "data", f"runs/{recipe}", *FEW_STEPS, folder=tmp_path) == commands[-1:]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_that_of_the_shipped_checkpoint(recipe):
    """Its options stand in the card's command, its configuration in that of the weights."""
    folder, shipped = ROOT / "examples" / "recipes" / recipe, ROOT / "hf_molrep" / "checkpoints" / recipe
    options = " ".join((folder / "options.args").read_text().split())
    assert options in (shipped / "README.md").read_text()
    if (folder / "config.json").exists():
        config, given = (json.loads((each / "config.json").read_text()) for each in (shipped, folder))
        for name, value in given.items():
            assert config[name] == ({**config[name], **value} if isinstance(value, dict) else value), name


def test_every_shipped_checkpoint_has_a_recipe():
    shipped = {path.parent.name for path in (ROOT / "hf_molrep" / "checkpoints").glob("*/config.json")}
    assert set(RECIPES) == shipped


def test_a_recipe_says_what_it_needs():
    script = ROOT / "examples" / "recipes" / RECIPES[0] / "run.sh"
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "DATA OUTPUT" in done.stderr
