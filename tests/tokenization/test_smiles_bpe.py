"""SMILES BPE: no token cuts a chemical symbol, on real molecules; training is deterministic."""

import csv
from collections import Counter

import pytest
from transformers import AutoTokenizer

from benchmarks import tokenizer_corpus as corpus
from hf_molrep.tokenization.smiles_bpe import (
    RING_CLOSURES,
    build_smiles_bpe,
    known_symbols,
    learned_merges,
    symbol_merges,
    symbols,
)

SMALL = Counter(
    {
        "C[C@@H](N)C(=O)O": 3,
        "C[C@H](N)C(=O)[O-].[Na+]": 2,
        "Clc1ccc(Br)cc1[N+](=O)[O-]": 4,
        "[Cl-].C[NH+](C)CCBr": 2,
        "O=C(O)c1ccc(Cl)cc1": 5,
        "[Xe+7]CCl": 1,
    }
)


@pytest.fixture(scope="module")
def tokenizer(repository):
    return AutoTokenizer.from_pretrained(repository / "tokenizers" / "smiles_bpe")


@pytest.fixture(scope="module")
def known(tokenizer):
    return {token for token in tokenizer.get_vocab() if len(token) > 1 and symbols(token) == [token]}


def violations(tokenizer, known, smiles):
    """What is wrong with the tokens of `smiles`: cut symbols, tokens that reach over an unknown bracket atom's edge."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(smiles, add_special_tokens=False)["input_ids"])
    if "".join(tokens) != smiles:
        return [f"{smiles}: not lossless"]
    edges = {0}
    for token in tokens:
        edges.add(max(edges) + len(token))
    found, start = [], 0
    for symbol in symbols(smiles):
        end = start + len(symbol)
        if symbol in known and any(edge in edges for edge in range(start + 1, end)):
            found.append(f"{smiles}: {symbol} is cut")
        if symbol[0] == "[" and symbol not in known and not {start, end} <= edges:
            found.append(f"{smiles}: a token reaches over the edge of {symbol}")
        start = end
    return found


def test_no_symbol_is_cut_in_example_molecules(tokenizer, known, example_molecules):
    with example_molecules.open(encoding="utf-8") as file:
        molecules = [row["smiles"] for row in csv.DictReader(file)]
    assert len(molecules) > 100
    assert [wrong for smiles in molecules for wrong in violations(tokenizer, known, smiles)] == []


def test_no_symbol_is_cut_in_tens_of_thousands_of_molecules(tokenizer, known, shared_data):
    molecules = [smiles for smiles, _ in corpus.pairs(shared_data)][::4]
    molecules += [smiles for smiles, _ in corpus.pairs(shared_data, held_out=True)]
    molecules += corpus.unlabelled_smiles(shared_data, held_out=True)
    assert len(molecules) > 40_000
    assert [wrong for smiles in molecules for wrong in violations(tokenizer, known, smiles)] == []
    ids = tokenizer(molecules)["input_ids"]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == molecules
    assert not any(tokenizer.unk_token_id in row for row in ids)


def test_the_check_finds_a_cut(known):
    class Cutting:
        def __call__(self, smiles, add_special_tokens):
            return {"input_ids": ["C", "[C@@", "H]Cl"]}

        def convert_ids_to_tokens(self, ids):
            return ids

    assert violations(Cutting(), known, "C[C@@H]Cl") == ["C[C@@H]Cl: [C@@H] is cut"]
    assert "over the edge" in violations(Cutting(), known - {"[C@@H]"}, "C[C@@H]Cl")[0]


@pytest.mark.parametrize(
    ("smiles", "tokens"),
    [
        ("[Cl-]", ["[Cl-]"]),
        ("[Br-]", ["[Br-]"]),
        ("ClBr", ["Cl", "Br"]),
        ("C%12%13", ["C", "%12", "%13"]),
        ("[C@@H2]", ["[C@@H", "2", "]"]),  # no such atom in the data: a known beginning, then characters
    ],
)
def test_symbols(tokenizer, smiles, tokens):
    assert tokenizer.tokenize(smiles) == tokens


def test_every_token_is_whole_symbols_or_the_beginning_of_one(tokenizer, known):
    beginnings = {left + right for left, right in symbol_merges(known)}
    for token in tokenizer.get_vocab():
        if len(token) > 1 and token not in tokenizer.all_special_tokens and token not in beginnings:
            parts = symbols(token)
            assert all(len(part) == 1 or part in known for part in parts), token
            assert "[" not in parts, token
            assert "]" not in parts, token


def test_symbols_join_to_the_smiles():
    assert symbols("[13CH3]Cl%10.Br[") == ["[13CH3]", "Cl", "%10", ".", "Br", "["]


def test_known_symbols_are_sorted_by_count():
    assert known_symbols(SMALL, min_count=2) == ["Cl", "Br", *RING_CLOSURES, "[O-]"]
    assert known_symbols(SMALL, min_count=1)[-1] == "[Xe+7]"


def test_learned_merges_stop_at_unknown_bracket_atoms():
    merges = learned_merges(SMALL, known_symbols(SMALL, min_count=2), count=50, min_merge_count=1)
    assert len(merges) > 10
    assert not any("Xe" in left + right or "Na" in left + right for left, right in merges)


def test_training_is_deterministic():
    settings = {"vocabulary_size": 220, "min_bracket_count": 1, "min_merge_count": 1}
    first = build_smiles_bpe(SMALL, **settings).to_str()
    assert build_smiles_bpe(Counter(dict(reversed(SMALL.items()))), **settings).to_str() == first
    assert build_smiles_bpe(SMALL + Counter({"CCCCCCO": 9}), **settings).to_str() != first


def test_vocabulary_without_room_is_refused():
    with pytest.raises(ValueError, match="do not fit a vocabulary of 110"):
        build_smiles_bpe(SMALL, vocabulary_size=110)


def test_held_out_share(shared_data):
    seen = {smiles for smiles, _ in corpus.pairs(shared_data)}
    held_out = {smiles for smiles, _ in corpus.pairs(shared_data, held_out=True)}
    assert not seen & held_out
    assert 0.015 < len(held_out) / (len(seen) + len(held_out)) < 0.025
