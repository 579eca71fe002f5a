"""The 5-gram model, the recipe of MOSES, and both benchmarks of what a checkpoint writes."""

import json
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import distribution_learning, generation
from benchmarks.ngram import CharacterNgram
from tests.models.x_mol.tiny import save_tiny_checkpoint

RECIPE = Path(__file__).resolve().parents[2] / "examples" / "recipes" / "prepare_moses.py"
SMILES = ["CCO", "CCN", "CC(=O)O", "c1ccccc1O", "Cc1ccncc1", "CC(C)CO", "c1ccc(-c2ccncc2)cc1", "CCCl", "CCOC", "CCCCN"]


def test_chances_of_the_ngram_model():
    model = CharacterNgram(["ab", "ab", "ac"], order=2)
    assert model.characters == ["\x03", "a", "b", "c"]
    # nine characters are written, four different ones: (count + 4 * 1/4) / (9 + 4)
    single = (np.array([3, 3, 2, 1]) + 1) / 13
    np.testing.assert_allclose(model.chances(""), single)
    # behind "a" three characters, two different ones
    np.testing.assert_allclose(model.chances("a"), (np.array([0, 0, 2, 1]) + 2 * single) / 5)
    np.testing.assert_allclose(model.chances("xya"), model.chances("a"))
    assert model.chances("zz").tolist() == single.tolist()
    for context in ("", "a", "b"):
        assert model.chances(context).sum() == pytest.approx(1)


def test_the_ngram_model_writes_what_it_has_seen():
    model = CharacterNgram(["C" * 5 + "O"] * 50 + ["N"] * 50, order=5)
    written = Counter(model.sample(400, seed=1))
    assert model.sample(400, seed=1) == model.sample(400, seed=1) != model.sample(400, seed=2)
    assert written["N"] == pytest.approx(200, abs=40)
    assert max(map(len, CharacterNgram(["C" * 100], longest=7).sample(20, seed=0))) == 7
    with pytest.raises(ValueError, match="no texts"):
        CharacterNgram([])


@pytest.fixture
def moses(tmp_path):
    folder = tmp_path / "moses"
    folder.mkdir()
    flags = {"in_moleculenet": [True] + [False] * 9, "in_moleculeace": [False] * 9 + [True]}
    pd.DataFrame({"smiles": SMILES} | flags).to_parquet(folder / "moses_train.parquet")
    for name in ("moses_test", "moses_test_scaffolds"):
        pd.DataFrame({"smiles": ["CCS", "c1ccc(-c2ccncc2)cc1"]}).to_parquet(folder / f"{name}.parquet")
    return folder


def test_the_recipe_leaves_out_flagged_molecules(moses, tmp_path, capsys):
    file, out = str(moses / "moses_train.parquet"), tmp_path / "drawn"
    prepare = runpy.run_path(str(RECIPE))["main"]
    prepare([file, "--draw", "5", "--validation", "2", "--out", str(out)])
    parts = {name: pd.read_parquet(out / f"{name}.parquet") for name in ("train", "validation")}
    drawn = [*parts["train"].smiles, *parts["validation"].smiles]
    assert (len(parts["train"]), len(parts["validation"])) == (5, 2)
    assert len(set(drawn)) == 7
    assert set(drawn) <= set(SMILES[1:9])
    counts = json.loads((out / "exclusions.json").read_text())
    assert (counts["left out: in_moleculenet"], counts["left out: in_moleculeace"]) == (1, 1)
    with pytest.raises(SystemExit):
        prepare([file, "--draw", "9", "--validation", "2", "--out", str(out)])
    assert "8 molecules without a flag" in capsys.readouterr().err


def test_distribution_learning(moses, tmp_path):
    pd.DataFrame({"smiles": SMILES[1:9]}).to_parquet(tmp_path / "train.parquet")
    command = ["--train", tmp_path / "train.parquet", "--moses", moses, "--samples", 30, "--threads", 1]
    command = [*map(str, [*command, "--cache", tmp_path / "cache", "--results", tmp_path])]
    assert distribution_learning.main(command) == 0
    found = json.loads((tmp_path / "distribution_learning.json").read_text())["writers"]
    drawn = found["training molecules"]
    assert (drawn["valid"], drawn["novel"], drawn["known"]) == (1, 0, 1)
    assert drawn["Scaf/Test"] == pytest.approx(1)
    assert set(found["character 5-gram"]) == set(drawn)
    before = (tmp_path / "cache" / "metrics.jsonl").read_text()
    assert distribution_learning.main(command) == 0  # from the cache
    assert (tmp_path / "cache" / "metrics.jsonl").read_text() == before


def test_generation(tmp_path):
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    file = tmp_path / "held_out.parquet"
    pd.DataFrame({"smiles": ["CCO", "C[C@H](N)O", "c1ccccc1"], "source": ["a", "b", "b"]}).to_parquet(file)
    command = ["--model", checkpoint, "--molecules", file, "--samples", 20, "--speed_samples", 6, "--cache", tmp_path]
    assert generation.main([*map(str, [*command, "--results", tmp_path, "--batch_rows", 16])]) == 0
    found = json.loads((tmp_path / "generation.json").read_text())
    assert found["free"]["constrained"]["texts"] == 20
    assert {name: part["greedy"]["molecules"] for name, part in found["reconstruction"].items()} == {
        "all": 3,
        "with stereo": 1,
        "a": 1,
        "b": 2,
        "0 to 30 characters": 3,
    }
    assert all(found["speed"][name]["cpu"] > 0 for name in ("with cache", "without cache"))


def test_what_counts_as_reconstructed():
    molecules = ["CCO", "C[C@H](N)O", "C[C@H](N)O", "C[C@H](N)O", "CCN", "CCN"]
    frame = generation.compare(molecules, ["OCC", "O[C@H](C)N", "O[C@@H](C)N", "CC(N)O", "C1CC", None])
    assert frame.exact.tolist() == [True, True, False, False, False, False]
    assert frame.without_stereo.tolist() == [True, True, True, True, False, False]
    assert frame.valid.tolist() == [True, True, True, True, False, False]
    assert frame.stereo.tolist() == [False, True, True, True, False, False]
