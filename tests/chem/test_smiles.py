"""Parsing with reasons, standardisation, canonical and random SMILES."""

import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
from rdkit import Chem

from hf_molrep.chem import smiles as module
from hf_molrep.chem.smiles import (
    MAX_ATOMS,
    MoleculeError,
    canonical_smiles,
    canonical_smiles_batch,
    inchikey,
    inchikey_block,
    molecular_formula,
    parse,
    random_smiles,
    standardize,
)


def sample(folder, file, n, seed=0):
    column = pq.read_table(folder / file, columns=["smiles"])["smiles"]
    rows = np.sort(np.random.default_rng(seed).choice(len(column), n, replace=False))
    return column.take(rows).to_pylist()


BAD = {
    "": "empty",
    " \t": "only white space",
    "C1CC": "ring 1 not closed",
    "C1CC2": "rings 1, 2 not closed",
    "C11": "ring 1 joins an atom to itself",
    "C12CC12": "ring 2 joins two atoms that already have a bond",
    "C(": "parenthesis opened at position 2 not closed",
    "C)": "parenthesis closed at position 2 was never opened",
    "C()C": "empty parentheses at position 2",
    "(C)": "parenthesis at position 1 follows no atom",
    "C=": "'=' at position 2 leads to no atom",
    "C==C": "'=' at position 3 follows no atom",
    "CC..C": "'.' at position 4 follows no atom",
    "1CC1": "ring number at position 1 follows no atom",
    "[CH3": "bracket opened at position 1 not closed",
    "CH3]": "element H at position 2 needs brackets: [H]",
    "C]": "bracket closed at position 2 was never opened",
    "[]": "empty brackets at position 1",
    "[Xx]": "unknown element Xx",
    "CX": "unknown element X at position 2",
    "Na": "element Na at position 1 needs brackets: [Na]",
    "[CH33]": "[CH33] at position 1 is not an atom",
    "C C": "white space at position 2: pass the SMILES without a name",
    "Cé": "character 'é' at position 2 is not allowed in a SMILES",
    "C\0C": "character '\\x00' at position 2 is not allowed in a SMILES",
    "C(C)(C)(C)(C)C": "explicit valence for atom 0 C, 5, is greater than permitted",
    "c1cccc1": "can't kekulize the aromatic system of atoms 0 1 2 3 4",
    "c": "non-ring atom 0 marked aromatic",
    "ethanol": "unknown element e at position 1",
}


@pytest.mark.parametrize(("smiles", "reason"), BAD.items())
def test_bad_smiles_are_refused_with_the_reason(smiles, reason, capfd):
    with pytest.raises(MoleculeError) as caught:
        parse(smiles)
    assert caught.value.reason == reason
    assert caught.value.smiles == smiles
    assert str(caught.value) == f"SMILES {smiles!r}: {reason}"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("thing", [None, 5, float("nan"), b"CCO", Chem.MolFromSmiles("C")])
def test_not_a_string_is_refused(thing):
    with pytest.raises(MoleculeError, match=f"not a string but {type(thing).__name__}"):
        parse(thing)


def test_too_long_is_refused_by_name_without_being_parsed(monkeypatch):
    monkeypatch.setattr(Chem, "MolFromSmiles", lambda text: pytest.fail("parsed"))
    with pytest.raises(MoleculeError, match="100,000 characters long, more than the limit of 20,000") as caught:
        parse("C" * 100_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("atom", ["C", "*", "c1ccccc1"])
def test_more_atoms_than_rdkits_stack_takes_are_refused(atom):
    with pytest.raises(MoleculeError, match="atoms, more than the limit of 5,000"):
        canonical_smiles(atom * (19_999 // len(atom)))
    assert canonical_smiles("*" * MAX_ATOMS) == "*" * MAX_ATOMS


def test_deep_nesting_is_an_error_or_a_molecule():
    assert canonical_smiles("C(" * 4_999 + "C" + ")" * 4_999) == "C" * 5_000
    with pytest.raises(MoleculeError, match="parenthesis opened at position 19998 not closed"):
        parse("C(" * 9_999)
    with pytest.raises(MoleculeError, match="bracket opened at position 1 not closed"):
        parse("[" * 19_999)


def test_error_shortens_and_pickles():
    error = MoleculeError("C" * 50 + "N" * 100, "ring 1 not closed")
    assert str(error) == f"SMILES '{'C' * 50}...{'N' * 27}': ring 1 not closed"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.smiles, copy.reason) == (MoleculeError, error.smiles, error.reason)
    assert isinstance(error, ValueError)


def test_nothing_leaks_from_threads_and_the_users_log_is_left_on():
    # In a subprocess: RDKit writes to the file descriptor behind Python's back.
    code = """
import threading
from rdkit import Chem
from hf_molrep.chem.smiles import canonical_smiles_batch
texts = ["C1CC", "c1cccc1", "C(C)(C)(C)(C)C", "CCO", "[H]", "CS(C)=O", "[Na]OC"] * 100
threads = [threading.Thread(target=canonical_smiles_batch, args=(texts, "parent", "skip")) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
Chem.MolFromSmiles("C1CCC")  # the user's own call still logs
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "unclosed ring" in lines[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_another_thread_parses_can_parse():
    code = """
import os, sys, threading
from hf_molrep.chem import smiles
inside, leave = threading.Event(), threading.Event()
def work():
    with smiles.rdkit_log_off:
        inside.set()
        leave.wait()
smiles.parse("CCO")
thread = threading.Thread(target=work)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    smiles.parse("CCO")
    os._exit(smiles.rdkit_log_off._depth)
status = os.waitpid(child, 0)[1]
leave.set()
thread.join()
sys.exit(status)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


CLEAN = [
    # group 1 and 2 metals
    ("[Na]OC", "C[O-].[Na+]"),
    ("CC(=O)O[K]", "CC(=O)[O-].[K+]"),
    ("CO[Mg]OC", "C[O-].C[O-].[Mg+2]"),
    ("[Na]Cl", "[Cl-].[Na+]"),
    ("[Ca]=O", "[Ca+2].[O-2]"),
    ("C[Mg]Br", "[CH3][Mg][Br]"),  # Grignard: as drawn
    ("CCCC[Li]", "[Li][CH2]CCC"),
    ("CO[Al](OC)OC", "C[O][Al]([O]C)[O]C"),  # other metals: as drawn
    ("Cl[Pt](Cl)(N)N", "[NH2][Pt]([NH2])([Cl])[Cl]"),
    # functional groups
    ("CN(=O)=O", "C[N+](=O)[O-]"),
    ("CS(C)=O", "C[S+](C)[O-]"),
    ("C[S@](=O)CC", "CC[S@+](C)[O-]"),
    ("CS(C)(=O)=O", "CS(C)(=O)=O"),
    ("C[S+2]([O-])([O-])C", "CS(C)(=O)=O"),
    ("CN=N#N", "CN=[N+]=[N-]"),
    ("C=N#N", "C=[N+]=[N-]"),
    ("c1ccccn1=O", "[O-][n+]1ccccc1"),
    ("CP(=O)=O", "C[P+](=O)[O-]"),
    ("C[P+]([O-])([O-])C", "CP(C)(=O)[O-]"),
    ("C[C+](N)N", "CC(N)=[NH2+]"),
    ("C[P+](C)(C)N", "C[P+](C)(C)N"),
    ("CC([O-])=[N+](C)C", "CC(=O)N(C)C"),
    ("[O-]C=CC=[N+](C)C", "CN(C)C=CC=O"),
    ("C[C+]=[N-]", "CC#N"),
    ("O=[I-]", "[O-]I"),
    # dropped and kept
    ("[CH3:1][OH:2]", "CO"),
    ("[CH3:1][C@H]([CH3:2])O", "CC(C)O"),
    ("CC(=O)[O-].[NH4+]", "CC(=O)[O-].[NH4+]"),
    ("C[NH3+]", "C[NH3+]"),
    ("[13CH3]O", "[13CH3]O"),
    ("[2H]C", "[2H]C"),
    ("N[C@@H](C)C(=O)O", "C[C@H](N)C(=O)O"),
    ("F/C=C\\F", "F/C=C\\F"),
    ("CC(O)=CC", "CC=C(C)O"),  # an enol stays one
    ("*C", "*C"),
    (" CCO\n", "CCO"),
]


@pytest.mark.parametrize(("drawn", "clean"), CLEAN)
def test_clean(drawn, clean):
    assert canonical_smiles(drawn) == clean
    assert canonical_smiles(clean) == clean
    assert Chem.MolToSmiles(standardize(parse(drawn), "clean")) == clean
    mol = parse(drawn)
    before = Chem.MolToSmiles(mol)
    standardize(mol, "parent")
    assert Chem.MolToSmiles(mol) == before  # the argument is not changed


PARENT = [
    ("CC(=O)[O-].[Na+]", "CC(=O)O"),
    ("CC(=O)O[Na]", "CC(=O)O"),
    ("C[NH3+].[Cl-]", "CN"),
    ("CCO.[I-].[I-].[I-].[I-]", "CCO"),
    ("OS(=O)(=O)O.CN", "CN"),  # organic before larger
    ("C[N+](C)(C)C.[Cl-]", "C[N+](C)(C)C"),
    ("C[N+](C)(C)CC(=O)[O-]", "C[N+](C)(C)CC(=O)[O-]"),
    ("C[N+](=O)[O-]", "C[N+](=O)[O-]"),
    ("[NH3+]CC(=O)[O-]", "NCC(=O)O"),
    ("[13CH3]C(=O)[O-]", "[13CH3]C(=O)O"),
    ("N[C@@H](C)C(=O)[O-]", "C[C@H](N)C(=O)O"),
    ("[Na+].[Cl-]", "Cl"),
    ("C[c-]1cccc1.[Na+]", "CC1C=CC=C1"),
    ("[SbH6+3]", "[SbH6+3]"),  # neutral it would be impossible
]


@pytest.mark.parametrize(("drawn", "parent"), PARENT)
def test_parent(drawn, parent):
    assert canonical_smiles(drawn, "parent") == parent
    assert canonical_smiles(parent, "parent") == parent


def test_none_leaves_everything():
    assert canonical_smiles("[CH3:1]O[Na]", "none") == "[Na][O][CH3:1]"
    assert canonical_smiles("CS(C)=O", "none") == "CS(C)=O"


@pytest.mark.parametrize("call", [lambda: canonical_smiles("C", "full"), lambda: standardize(parse("C"), "full")])
def test_unknown_mode(call):
    with pytest.raises(ValueError, match="none, clean, parent, not 'full'"):
        call()


def test_standardize_sanitises_what_was_not():
    assert Chem.MolToSmiles(standardize(Chem.MolFromSmiles("C1=CC=CC=C1[Na]", sanitize=False), "clean"))
    mol = Chem.MolFromSmiles("C1=CC=CC=C1O[Na]", sanitize=False)
    assert Chem.MolToSmiles(standardize(mol)) == "[Na+].[O-]c1ccccc1"
    with pytest.raises(MoleculeError, match="explicit valence for atom 1 C, 5"):
        standardize(Chem.MolFromSmiles("CC(C)(C)(C)C", sanitize=False))


FILES = [
    "iupac/smiles_iupac_pairs.parquet",
    "pretrain/zinc250k.parquet",
    "pretrain/geom_drugs_smiles.parquet",
    "pretrain/chembl_validation.parquet",
]


@pytest.mark.parametrize("file", FILES)
def test_real_molecules(shared_data, file):
    """The gate gives what RDKit's Normalizer gives without it; canonical is canonical; random is the same molecule."""
    normalizer = module._standardizers()[0]
    rng = np.random.default_rng(0)
    for smiles in sample(shared_data, file, 250):
        clean = canonical_smiles(smiles)
        ungated = normalizer.normalize(module._cut_metal_bonds(parse(smiles)))
        assert clean == Chem.MolToSmiles(ungated)
        assert clean == Chem.MolToSmiles(standardize(parse(smiles)))
        assert canonical_smiles(clean) == clean
        assert canonical_smiles(random_smiles(clean, rng)) == clean
        parent = canonical_smiles(smiles, "parent")
        assert canonical_smiles(parent, "parent") == canonical_smiles(parent) == parent


# One molecule for each of RDKit's reactions, as it is before: the gate must let all of them through.
BEFORE_NORMALIZER = [
    "CN(C)[C+](C)N", "CNN[C+](C)C", "C[P+](N)(N)C", "CNNC[N+]#N", "[O-]C=[NH+]C", "[O-]c1cccc[n+]1C",
    "[O-]c1cc[n+](C)cc1", "[n-]1ccc(=[N+](C)C)cc1", "[n-]1ccccc1=[N+](C)C", "NC=[N+](C)C", "NC=CC=[N+](C)C",
    "OC=[O+]C", "[nH]1ccc(=[N+](C)C)cc1", "[nH]1ccccc1=[N+](C)C", "C[C+]=[P-]", "C[As](=O)=O", "CP(=S)=S",
]  # fmt: skip


@pytest.mark.parametrize("drawn", BEFORE_NORMALIZER + [drawn for drawn, clean in CLEAN if drawn.strip() != clean])
def test_gate_lets_through_what_the_normalizer_changes(drawn):
    mol = module._cut_metal_bonds(parse(drawn))
    changed = module._standardizers()[0].normalize(mol)
    assert Chem.MolToSmiles(changed) == Chem.MolToSmiles(mol) or module._may_normalize(mol)
    text = Chem.MolToSmiles(mol)
    assert Chem.MolToSmiles(changed) == text or module._may_normalize(mol, text)


def test_batch_keeps_places():
    results = canonical_smiles_batch(["OCC", "C1CC", "", "OCC"], on_error="skip")
    assert results[0] == results[3] == "CCO"
    assert [type(result) for result in results[1:3]] == [MoleculeError, MoleculeError]
    assert results[1].reason == "ring 1 not closed"
    with pytest.raises(MoleculeError, match="ring 1 not closed"):
        canonical_smiles_batch(["OCC", "C1CC"])
    with pytest.raises(ValueError, match="on_error"):
        canonical_smiles_batch([], on_error="ignore")
    assert canonical_smiles_batch([]) == []


def test_random_smiles_come_from_the_generator_alone():
    smiles = "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O"
    first = [random_smiles(smiles, np.random.default_rng(seed)) for seed in range(50)]
    results = {}

    def again():
        results["threads"] = [random_smiles(smiles, np.random.default_rng(seed)) for seed in range(50)]

    thread = threading.Thread(target=again)
    thread.start()
    [Chem.MolToSmiles(parse(smiles), doRandom=True) for _ in range(50)]  # RDKit's own generator does not matter
    thread.join()
    assert results["threads"] == first
    assert len(set(first)) > 30
    assert {canonical_smiles(text) for text in first} == {canonical_smiles(smiles)}


def test_identity_and_formula():
    assert inchikey("CCO") == "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"
    assert inchikey_block("C[C@H](N)C(=O)O") == inchikey_block("C[C@@H](N)C(=O)O") == "QNAYBMKLOCPYGJ"
    assert inchikey("C[C@H](N)C(=O)O") != inchikey("C[C@@H](N)C(=O)O")
    with pytest.raises(MoleculeError, match="has no InChI"):
        inchikey("*C")
    assert molecular_formula("CC(=O)[O-]") == "C2H3O2-"
    assert molecular_formula("[2H]C") == "CH4"


def test_threads_give_what_one_thread_gives(shared_data):
    texts = sample(shared_data, FILES[0], 100) + [drawn for drawn, _ in CLEAN]
    expected = canonical_smiles_batch(texts, "parent")
    results = {}

    def work(number):
        results[number] = canonical_smiles_batch(texts, "parent")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results[n] == expected for n in range(4))
