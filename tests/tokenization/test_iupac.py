"""Names by the rules of Krasnov et al.: known tokenisations, superscripts, fallback."""

import re

import pytest
from transformers import AutoTokenizer

from benchmarks import tokenizer_corpus as corpus
from hf_molrep.tokenization.iupac import leftover, prefix_tree_regex, reachable, split_fragment
from hf_molrep.tokenization.iupac_fragments import FRAGMENTS

ALL_FRAGMENTS = [fragment for _, words in FRAGMENTS for fragment in words.split()]


@pytest.fixture(scope="module")
def tokenizer(repository):
    return AutoTokenizer.from_pretrained(repository / "tokenizers" / "iupac")


# What the authors' function gives for these names; a blank in the name stands as "_".
ORIGINAL = {
    "2-acetyloxybenzoic acid": "2 - acetyl oxy benzo ic _ acid",
    "1,3,7-trimethylpurine-2,6-dione": "1 , 3 , 7 - tri methyl purin e - 2 , 6 - di one",
    "bicyclo[2.2.1]heptane": "bi cyclo [ 2 . 2 . 1 ] hept ane",
    "tricyclo[8.2.1.02,9]tridecane": "tri cyclo [ 8 . 2 . 1 . 0 ^ 2 , 9 ] tri dec ane",
    "benzo[de]isoquinoline": "benzo [ d e ] iso quinolin e",
    "methane": "meth ane",
    "oxidane": "ox id ane",
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_tokenises_as_the_original(tokenizer, name):
    expected = [token.replace("_", " ") for token in ORIGINAL[name].split()]
    assert tokenizer.tokenize(name) == expected
    assert tokenizer.decode(tokenizer(name)["input_ids"], skip_special_tokens=True) == name
    assert leftover(name) == ""


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("12-b]", "12 - b ]"),
        ("2-b]", "2 - b ]"),
        ("[a]", "[ a ]"),
        ("[an]", "[ a n ]"),
        ("12'a", "12 ' a"),
        ("2'a", "2 ' a"),
        ("12a", "12 a"),
        ("4a", "4 a"),
        ("10", "1 0"),
        ("120", "12 0"),
        ("(1+)", "(1+)"),
        ("methanoyl", "methanoyl"),
        ("benzoxaza", "benz ox aza"),
        ("thiocyanato", "thio cyanato"),
        ("trisodium", "tri sodium"),
    ],
)
def test_locants_and_splits(tokenizer, name, tokens):
    assert tokenizer.tokenize(name) == tokens.split()


def test_every_reachable_fragment_gives_its_pieces(tokenizer):
    fragments = reachable(ALL_FRAGMENTS)
    assert len(fragments) > 550
    for fragment in fragments:
        assert tokenizer.tokenize(fragment) == split_fragment(fragment)


def test_prefix_tree_is_the_ordered_alternation():
    """Also where an earlier, shorter fragment hides a later one ("thio" hides "thione" if it comes first)."""
    words = ["thiol", "thi", "thio", "ab", "abc", "b", "bcd", "c"]
    assert reachable(words) == ["thiol", "thi", "ab", "b", "c"]
    ordered = re.compile("|".join(words))
    tree = re.compile(prefix_tree_regex(reachable(words)))
    text = "thiolthionethiabcdbcdthithicab"
    assert tree.findall(text) == ordered.findall(text)
    ordered = re.compile("|".join(ALL_FRAGMENTS))
    tree = re.compile(prefix_tree_regex(reachable(ALL_FRAGMENTS)))
    text = "".join(ALL_FRAGMENTS) + "".join(reversed(ALL_FRAGMENTS))
    assert tree.findall(text) == ordered.findall(text)


def superscript(bridge: str, last: str) -> str:
    """The rule, digit by digit: a 0 belongs to the bridge, then as many digits as leave a locant not over `last`."""
    for moved in range(1 if bridge[0] == "0" else 0, len(bridge)):
        rest = bridge[moved:]
        if rest[0] != "0" and int(rest) <= int(last):
            return f".{bridge[:moved]}^{rest},{last}"
    return f".{bridge},{last}"


def test_superscripts(tokenizer):
    normalizer = tokenizer.backend_tokenizer.normalizer
    for last in map(str, [*range(1, 31), 55, 90, 99, 100, 101, 109, 110, 112, 120, 199]):
        for bridge in map(str, range(1, 1_300, 7)):
            for digits in (bridge, "0" + bridge):
                text = f"[4.1.{digits},{last}]"
                assert normalizer.normalize_str(text.replace(".1.", ".1;.")) == f"[4.1;{superscript(digits, last)}]"


def test_neighbouring_superscripts(tokenizer):
    assert tokenizer.tokenize("[3.1.1.02,4.113,17]") == [*"[3.1.1.0^2,4.1^", "13", ",", "17", "]"]
    assert tokenizer.tokenize("[3.2.2,4]") == [*"[3.2.^2,4]"]  # the original has an empty token before "^"


@pytest.mark.parametrize(
    ("name", "tokens", "left"),
    [
        ("azane", "aza n e", "n"),
        ("Piperazine", "P i p e r az in e", "Pipr"),
        ("(18F)", "( 18 F )", "F"),
        ("α-pinene", "α - p in ene", "αp"),
    ],
)
def test_fallback_spells_what_no_rule_covers(tokenizer, name, tokens, left):
    assert tokenizer.tokenize(name) == tokens.split()
    assert leftover(name) == left


def test_circumflex_of_the_name_comes_back(tokenizer):
    name = "tricyclo[4.2.2.0^{2,5}]decane"
    ids = tokenizer(name)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == name
    assert "^" not in tokenizer.convert_ids_to_tokens(ids)


def test_real_names_come_back(tokenizer, shared_data):
    names = [name for _, name in corpus.pairs(shared_data)][::10]
    assert len(names) > 10_000
    ids = tokenizer(names)["input_ids"]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == names
    assert sum(tokenizer.unk_token_id in row for row in ids) == 0
    assert sum(leftover(name) == "" for name in names) / len(names) > 0.97
