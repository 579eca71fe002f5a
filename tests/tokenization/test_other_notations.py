"""Atom-level SMILES, SELFIES and InChI."""

import pytest
from transformers import AutoTokenizer

from hf_molrep.tokenization.selfies import build_selfies, encode, version
from hf_molrep.tokenization.smiles_atom import build_smiles_atom


def load(repository, name):
    return AutoTokenizer.from_pretrained(repository / "tokenizers" / name)


@pytest.mark.parametrize(
    ("smiles", "tokens"),
    [
        ("CC(=O)Oc1ccccc1C(=O)O", list("CC(=O)Oc1ccccc1C(=O)O")),
        ("C[C@@H](Cl)Br", ["C", "[C@@H]", "(", "Cl", ")", "Br"]),
        ("[Na+].[Cl-]", ["[Na+]", ".", "[Cl-]"]),
        ("C%12CSc", ["C", "%12", "C", "S", "c"]),
        ("F/C=C\\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        ("[Xe+7]C", ["[", "X", "e", "+", "7", "]", "C"]),  # not in the vocabulary
        ("C%(100)H", ["C", "%", "(", "1", "0", "0", ")", "H"]),  # the original drops "%" and "H"
    ],
)
def test_smiles_atom(repository, smiles, tokens):
    assert load(repository, "smiles_atom").tokenize(smiles) == tokens


def test_smiles_atom_is_deterministic():
    molecules = ["[Na+].[Cl-]", "C[C@@H](N)O", "C[C@H](N)[O-]", "[Na+].O"]
    first = build_smiles_atom(molecules, min_count=1).to_str()
    assert build_smiles_atom(reversed(molecules), min_count=1).to_str() == first
    assert build_smiles_atom(molecules, min_count=2).to_str() != first


ASPIRIN = "[C] [C] [=Branch1] [C] [=O] [O] [C] [=C] [C] [=C] [C] [=C] [Ring1] [=Branch1] [C] [=Branch1] [C] [=O] [O]"


def test_selfies(repository):
    tokenizer = load(repository, "selfies")
    assert tokenizer.tokenize(ASPIRIN.replace(" ", "")) == ASPIRIN.split()
    assert tokenizer.tokenize("[Na+1].[Cl-1]") == ["[Na+1]", ".", "[Cl-1]"]
    assert tokenizer.tokenize("[nop][Xe+7]") == ["[nop]", "[", "X", "e", "+", "7", "]"]


def test_selfies_of_the_installed_version(repository):
    pytest.importorskip("selfies", reason="needs the package selfies")
    assert encode("CC(=O)Oc1ccccc1C(=O)O") == ASPIRIN.replace(" ", "")
    assert encode("*C") is None
    tokenizer = load(repository, "selfies")
    if version() == tokenizer.init_kwargs["selfies_version"]:
        strings = [encode(smiles) for smiles in ("C[C@@H](N)C(=O)O", "O=[N+]([O-])c1ccccc1Br", "[Na+].[Cl-]")]
        assert all(len(token) > 1 or token == "." for string in strings for token in tokenizer.tokenize(string))


def test_selfies_is_deterministic():
    pytest.importorskip("selfies", reason="needs the package selfies")
    strings = ["[C][C][O]", "[Na+1].[Cl-1]", "[C][13CH3]"]
    assert build_selfies(strings, min_count=1).to_str() == build_selfies(reversed(strings), min_count=1).to_str()


@pytest.mark.parametrize(
    ("inchi", "tokens"),
    [
        ("InChI=1S/CH4O/c1-2/h2H,1H3", "InChI=1S / C H 4 O /c 1 - 2 /h 2 H , 1 H 3"),
        ("InChI=1S/C12H22ClNa/t10-,11+/m0/s1", "InChI=1S / C 12 H 22 Cl Na /t 10 - , 11 + /m 0 /s 1"),
        ("InChI=1S/2ClH.Zn/h2*1H;/q;;+2/p-2", "InChI=1S / 2 Cl H . Zn /h 2 * 1 H ; /q ; ; + 2 /p - 2"),
        ("c255-256", "c 255 - 2 5 6"),
    ],
)
def test_inchi(repository, inchi, tokens):
    assert load(repository, "inchi").tokenize(inchi) == tokens.split()
