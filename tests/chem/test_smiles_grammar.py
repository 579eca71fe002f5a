"""What may follow in a SMILES: everything that RDKit writes is allowed, and what is allowed can be read."""

import numpy as np
import pytest

from hf_molrep.chem.smiles import random_smiles
from hf_molrep.chem.smiles_grammar import ATOM, OTHER, RING, UNRESTRICTED, SmilesState, Vocabulary, token_kind
from hf_molrep.tokenization.x_mol import BASE_VOCABULARY, EXTENSION, tokens

TOKENS = [*BASE_VOCABULARY, *EXTENSION]
END = TOKENS.index("[SEP]")
MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "C[C@H](N)C(=O)O",
    "F/C=C/Cl",
    "[Na+].[O-]C(=O)c1cc[nH]c1",
    "C[N+](C)(C)CC(=O)[O-]",
    "CS(=O)(=O)N1CCC(O)(C#N)CC1",
    "O=c1[nH]c2ccccc2o1",
    "C1CC2(C1)CCC2.Cl",
    "c1ccc(-c2ccccn2)cc1",
    "CP(=O)(O)OC12CC3CC(CC(C3)C1)C2",
    "O=[N+]([O-])c1ccc2c(c1)OCO2",
    "C[Si](C)(C)C#CB(O)O",
    "*CC[Se]C",
]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(TOKENS, END)


def write(vocabulary, text: str) -> SmilesState:
    """Write a text token by token; each must be allowed."""
    state = SmilesState()
    for place, token in enumerate(tokens(text)):
        assert state.allowed(vocabulary)[TOKENS.index(token)], f"{token!r} at {place} of {text}"
        state = state.after(vocabulary, TOKENS.index(token))
    return state


@pytest.mark.parametrize("smiles", MOLECULES)
def test_molecules_may_be_written(smiles, vocabulary):
    rng = np.random.default_rng(0)
    for text in [smiles, *(random_smiles(smiles, rng) for _ in range(5))]:
        assert write(vocabulary, text).allowed(vocabulary)[END], text


def test_what_is_written_at_random_can_be_read(vocabulary):
    """Any walk through what is allowed ends in time, as a text without open ends and with possible valences."""
    from rdkit import Chem

    from hf_molrep.chem.smiles import rdkit_log_off

    rng = np.random.default_rng(1)
    for _ in range(50):
        state, text, length = SmilesState(), "", int(rng.integers(2, 40))
        for left in range(length, 0, -1):
            allowed = np.flatnonzero(state.allowed(vocabulary, left))
            assert len(allowed), text
            # aromatic atoms are what is not tracked
            token = int(rng.choice([place for place in allowed if not token_kind(TOKENS[place])[2]]))
            state = state.after(vocabulary, token)
            if token == END:
                break
            text += TOKENS[token]
        assert token == END, text
        with rdkit_log_off:
            mol = Chem.MolFromSmiles(text, sanitize=False)
            assert mol is not None, text
            problems = [problem.Message() for problem in Chem.DetectChemistryProblems(mol)]
        assert not problems, f"{text}: {problems}"


@pytest.mark.parametrize(
    ("begin", "token"),
    [
        *(("", "("), ("", "1"), ("", "="), ("", "[SEP]"), ("C(", ")"), ("C(", "1"), ("C(=", "1")),
        *(("C=", "="), ("C=", "[SEP]"), ("C(C", "[SEP]"), ("C1CC", "[SEP]"), ("C1", "1"), ("C1C", "1")),
        *(("CF", "C"), ("C=O", "C"), ("C#N", "C"), ("N#C=", "O")),
        *(
            ("CC(C)(C)C(C)(C)C(C", "[SEP]"),
            ("COC", "[MASK]"),
            ("CC", "["),
            ("CC", "[CLS]"),
            ("CC", "[PAD]"),
            ("C1CC", "."),
        ),
        *(("C[NH3+]", "C"), ("C1CF", "[SEP]"), ("C[O-]", "C"), ("c1ccc(C)c(C)c1c", "#"), ("CC)", "C")),
    ],
)
def test_what_is_not_allowed(begin, token, vocabulary):
    *whole, last = [*tokens(begin), token]
    state = SmilesState()
    for each in whole:
        allowed = state.allowed(vocabulary)
        if not allowed[TOKENS.index(each)]:
            return
        state = state.after(vocabulary, TOKENS.index(each))
    assert last not in TOKENS or not state.allowed(vocabulary)[TOKENS.index(last)]


def test_an_open_ring_keeps_an_atom_for_its_end(vocabulary):
    state = write(vocabulary, "C1CC")
    assert not state.allowed(vocabulary)[TOKENS.index("F")], "nothing could follow"
    state = write(vocabulary, "C1CC(")
    assert state.allowed(vocabulary)[TOKENS.index("F")], "the text goes on after the branch"


def test_kinds_of_tokens():
    assert token_kind("[NH3+]") == (ATOM, 1, False)
    assert token_kind("[N+]") == (ATOM, 4, False)
    assert token_kind("[O-]") == (ATOM, 1, False)
    assert token_kind("[C@@H]") == (ATOM, 3, False)
    assert token_kind("[nH]") == (ATOM, 2, True)
    assert token_kind("[Fe+2]") == (ATOM, UNRESTRICTED, False)
    assert token_kind("[13CH3]") == (ATOM, 1, False)
    assert token_kind("[Cl-]") == (ATOM, 0, False)
    assert token_kind("%12")[0] == RING
    assert {token_kind(token)[0] for token in ("[PAD]", "[CLS]", "[UNK]", "~", ":")} == {OTHER}
