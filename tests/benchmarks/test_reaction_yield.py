"""Reaction yield: what the splits hold apart, one-hot numbers of the training part only, and the whole command."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import reaction_yield
from benchmarks.reaction_yield import PARTS, held_out, morgan, one_hot
from tests.models.x_mol.tiny import save_tiny_checkpoint

HALIDES = [f"{'C' * n}{end}" for n in range(1, 6) for end in ("Cl", "Br")]
ADDITIVES = [f"{'C' * n}C1CC1" for n in range(1, 8)]
BASES, LIGANDS = ["CN", "CCN"], ["CP", "CCP"]
REACTIONS = [(a, b, c, d) for a in HALIDES for b in ADDITIVES for c in BASES for d in LIGANDS]


@pytest.fixture
def table(tmp_path):
    """A yield that is a sum over the parts: more with bromine, less with a longer additive."""
    yields = [0.5 + 0.3 * ("Br" in a) - 0.05 * len(b) + 0.1 * len(c) for a, b, c, _ in REACTIONS]
    columns = dict(zip(PARTS, map(list, zip(*REACTIONS, strict=True)), strict=True))
    pq.write_table(pa.table(columns | {"yield": yields}), tmp_path / "reactions.parquet")
    return tmp_path / "reactions.parquet"


def test_what_is_held_out_is_not_in_training():
    for column, values in enumerate(map(list, zip(*REACTIONS, strict=True))):
        if len(set(values)) < 5:
            continue
        parts = held_out(values, seed=1)
        kinds = {part: {values[row] for row in rows} for part, rows in parts.items()}
        assert not kinds["train"] & kinds["valid"]
        assert not (kinds["train"] | kinds["valid"]) & kinds["test"]
        assert len(kinds["test"]) == np.ceil(0.2 * len(set(values))), column
        assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(values)))
    additives = [reaction[1] for reaction in REACTIONS]
    assert len({tuple(held_out(additives, seed)["test"]) for seed in range(5)}) > 1


def test_one_hot_numbers_are_those_of_the_training_part():
    rows = np.array([row for row, reaction in enumerate(REACTIONS) if reaction[0] != HALIDES[0]])
    features = one_hot(REACTIONS, rows)
    assert features.shape == (len(REACTIONS), len(HALIDES) - 1 + len(ADDITIVES) + len(BASES) + len(LIGANDS))
    assert (features[rows].sum(axis=1) == 4).all()
    unseen = np.setdiff1d(np.arange(len(REACTIONS)), rows)
    assert (features[unseen].sum(axis=1) == 3).all()
    assert len(np.unique(features[rows], axis=0)) == len(rows)
    assert morgan(REACTIONS[:3]).shape == (3, 4 * 1024)


def test_the_command(table, tmp_path, monkeypatch):
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    paths = {"--model": checkpoint, "--reactions": table, "--splits": tmp_path / "splits", "--results": tmp_path}
    paths["--cache"] = tmp_path / "cache.jsonl"
    options = [str(part) for pair in paths.items() for part in pair]
    options += ["--epochs", "1", "--trees", "20", "--threads", "1", "--learning-rate", "3e-3"]
    assert reaction_yield.main(options) == 0
    found = json.loads((tmp_path / "reaction_yield.json").read_text())["by_split"]
    assert set(found) == {"random", "unseen additives", "unseen halides"}
    assert all(set(columns) == set(reaction_yield.COLUMNS) for columns in found.values())
    assert found["random"]["one-hot + RF"]["rmse"] < 0.5 * found["random"]["mean"]["rmse"]
    assert abs(found["random"]["mean"]["r2"]) < 0.2
    # bromine is in the fingerprint of a halide never seen, and not in its number
    assert found["unseen halides"]["Morgan + RF"]["rmse"] < 0.6 * found["unseen halides"]["one-hot + RF"]["rmse"]
    assert found["random"]["pre-trained"]["updates"] > 0
    compared = found["random"]["mean"]["pre-trained - this, rmse"]
    assert compared["difference"] == pytest.approx(
        found["random"]["pre-trained"]["rmse"] - found["random"]["mean"]["rmse"]
    )
    assert {file.name for file in (tmp_path / "splits").iterdir()} == {
        f"buchwald_hartwig_yield.{name}-0.json" for name in ("random", "unseen_additives", "unseen_halides")
    }
    # all of it is known now
    monkeypatch.setattr(reaction_yield, "network", None)
    monkeypatch.setattr(reaction_yield, "forest", None)
    assert reaction_yield.main(options) == 0
