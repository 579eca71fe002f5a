"""`examples/embed.py` and `examples/search.py`, as their first lines say to call them."""

import re
import runpy
import sys

import pytest


@pytest.fixture
def example(repository, monkeypatch, capsys, mini_checkpoint):
    def run(name: str) -> str:
        monkeypatch.setattr(sys, "argv", [name])
        runpy.run_path(str(repository / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_embed(example):
    first, second, third = example("embed.py").strip().splitlines()

    assert re.fullmatch(r"two molecules: \(2, \d+\), torch\.float32", first)
    assert float(second.split()[-1]) < 1e-5
    assert third.startswith("broken-1 has no embedding: ")


def test_search(example):
    blocks = example("search.py").strip().split("\n\n")

    assert [block.splitlines()[0] for block in blocks] == [
        "SMILES to SMILES, Morgan fingerprints",
        "SMILES to SMILES, embeddings",
        "IUPAC name to SMILES",
        "SMILES to IUPAC names",
    ]
    for block in blocks:
        scores = [float(line.split()[0]) for line in block.splitlines()[1:]]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
        assert "broken-1" not in block
