"""Splits: whole scaffolds, no duplicate in two parts, bound to their molecules."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from hf_molrep.chem.scaffold import scaffold
from hf_molrep.chem.smiles import MoleculeError, canonical_smiles
from hf_molrep.data.splits import (
    balanced_scaffold_split,
    make_split,
    random_split,
    read_split,
    scaffold_split,
    write_split,
)

RINGS = [
    "c1ccccc1",
    "C1CC1",
    "C1CCC1",
    "C1CCCC1",
    "C1CCCCC1",
    "c1ccncc1",
    "c1ccoc1",
    "c1ccsc1",
    "C1CCNC1",
    "c1cc[nH]c1",
]


@pytest.fixture(scope="module")
def smiles():
    """200 molecules: 10 scaffolds of falling frequency, and acyclic ones; every tenth is written a second way."""
    rng = np.random.default_rng(0)
    rings = rng.choice(11, 180, p=np.arange(11, 0, -1) / 66)
    texts = [
        (RINGS[ring] if ring < 10 else "") + "C" * int(n)
        for ring, n in zip(rings, rng.integers(1, 30, 180), strict=True)
    ]
    return texts + [f"[CH3:1]C{text}" if index % 2 else f"{text}.[Na]Cl" for index, text in enumerate(texts[::9])]


def parts_of(split, smiles):
    assert np.array_equal(np.sort(np.concatenate(list(split.parts.values()))), np.arange(len(smiles)))
    return {part: [smiles[row] for row in rows] for part, rows in split.parts.items()}


@pytest.mark.parametrize("name", ["random", "scaffold", "balanced_scaffold"])
def test_every_split(name, smiles):
    split = make_split(name, smiles, seed=3)
    parts = parts_of(split, smiles)
    assert [len(rows) for rows in parts.values()] == pytest.approx([160, 20, 20], abs=12)
    molecules = [{canonical_smiles(text) for text in texts} for texts in parts.values()]
    assert not molecules[0] & molecules[1] | molecules[0] & molecules[2] | molecules[1] & molecules[2]
    if name != "random":
        scaffolds = [{scaffold(canonical_smiles(text)) for text in texts} for texts in parts.values()]
        assert not scaffolds[0] & scaffolds[1] | scaffolds[0] & scaffolds[2] | scaffolds[1] & scaffolds[2]
    again = make_split(name, smiles, seed=3)
    other = make_split(name, smiles, seed=4)
    for part in parts:
        assert np.array_equal(split.parts[part], again.parts[part])
    same = all(np.array_equal(split.parts[part], other.parts[part]) for part in parts)
    assert same == (name == "scaffold")  # the only one without a seed


def test_duplicates_stay_together():
    smiles = [f"{'C' * (1 + number % 20)}O" for number in range(100)]
    split = random_split(smiles, seed=1)
    parts = parts_of(split, smiles)
    assert sum(len(set(texts)) for texts in parts.values()) == 20


def test_scaffold_split_is_largest_first_and_ties_go_to_the_later():
    smiles = ["c1ccccc1C", "C1CC1", "c1ccccc1", "C1CCC1", "c1ccccc1CC", "C1CCCC1", "c1ccccc1CCC", "C1CCCCC1"]
    parts = scaffold_split(smiles, (0.625, 0.125, 0.25)).parts
    assert {part: rows.tolist() for part, rows in parts.items()} == {
        "train": [0, 2, 4, 6, 7], "valid": [5], "test": [1, 3]
    }  # fmt: skip


def test_chirality_flag_separates_stereoisomers():
    smiles = ["C1CC[C@@H]2CCCC[C@H]2C1"] * 4 + ["C1CC[C@@H]2CCCC[C@@H]2C1"] * 4 + ["C1CC1"]
    with pytest.raises(ValueError, match="test part empty"):
        scaffold_split(smiles, (0.45, 0.45, 0.1))  # one scaffold of 8
    parts = scaffold_split(smiles, (0.45, 0.45, 0.1), include_chirality=True).parts
    assert [rows.tolist() for rows in parts.values()] == [[4, 5, 6, 7], [0, 1, 2, 3], [8]]
    assert balanced_scaffold_split(smiles, (0.45, 0.45, 0.1), seed=0, include_chirality=True).include_chirality


def test_balanced_split_keeps_large_scaffolds_in_training():
    smiles = [f"C1{'C' * size}C1" for size in range(1, 101)] + [f"c1ccccc1{'C' * length}" for length in range(50)]
    tests = set()
    for seed in range(5):
        parts = balanced_scaffold_split(smiles, seed=seed).parts
        assert set(range(100, 150)) <= set(parts["train"].tolist())
        assert [len(rows) for rows in parts.values()] == [120, 15, 15]
        tests.add(tuple(parts["test"]))
    assert len(tests) == 5


def test_write_and_read(tmp_path, smiles):
    path = tmp_path / "split.json"
    split = balanced_scaffold_split(smiles, seed=7, include_chirality=True)
    write_split(path, split, smiles)
    back = read_split(path, smiles)
    assert (back.name, back.seed, back.include_chirality, back.fractions) == (
        "balanced_scaffold",
        7,
        True,
        (0.8, 0.1, 0.1),
    )
    for part, rows in split.parts.items():
        assert back.parts[part].dtype == np.int64
        assert np.array_equal(back.parts[part], rows)
    with pytest.raises(ValueError, match="splits 200 molecules, but there are 199"):
        read_split(path, smiles[1:])
    with pytest.raises(ValueError, match="other molecules"):
        read_split(path, smiles[::-1])
    with pytest.raises(ValueError, match="the split has 200 rows, but there are 3 molecules"):
        write_split(path, split, smiles[:3])
    content = json.loads(path.read_text())
    content["valid"] = content["train"][:1] + content["valid"][1:]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="damaged"):
        read_split(path, smiles)
    path.write_text("{}")
    with pytest.raises(ValueError, match="not a split file"):
        read_split(path, smiles)


def test_bad_input():
    with pytest.raises(MoleculeError, match=r"ring 1 not closed \(row 2\)"):
        random_split(["C", "C1"])
    with pytest.raises(MoleculeError, match=r"not a string but NoneType \(row 1\)"):
        scaffold_split([None, "C"])
    with pytest.raises(ValueError, match="no molecules"):
        random_split([])
    with pytest.raises(ValueError, match="valid part empty"):
        random_split(["C", "CC"])
    with pytest.raises(ValueError, match="sum 1"):
        random_split(["C"], (0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="random, scaffold or balanced_scaffold, not 'stratified'"):
        make_split("stratified", ["C"])


def test_real_data(shared_data):
    smiles = pq.read_table(shared_data / "moleculenet/esol.parquet")["smiles"].to_pylist()
    for name in ("scaffold", "balanced_scaffold"):
        sizes = [len(rows) for rows in make_split(name, smiles).parts.values()]
        assert sizes == pytest.approx([902, 113, 113], abs=3)
