"""Conformers: computed, kept, mapped, stopped, refused; and taken from the user."""

import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from hf_molrep.chem import conformer_embedding
from hf_molrep.chem import conformers as module
from hf_molrep.chem.canonical_form import MAX_EMBEDDED_ATOMS
from hf_molrep.chem.conformer_cache import ConformerCache, Record, default_path
from hf_molrep.chem.conformers import (
    FLAGS,
    ConformerGenerator,
    Conformers,
    ConformerSettings,
    count_reports,
    generate_conformers,
)
from hf_molrep.chem.coordinates import (
    conformers_of_mol,
    conformers_of_mol_block,
    given_conformers,
    stereo_from_coordinates,
)
from hf_molrep.chem.smiles import MoleculeError, parse
from hf_molrep.chem.workers import Stopped, Worker, WorkerPool

IBUPROFEN = "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O"


class InProcess:
    """Computes in this process, so that tests are quick and can look inside; counts what it computes."""

    def __init__(self):
        self.calls = []

    def run(self, function, *args, limit):
        self.calls.append((function.partition(":")[2], *args))
        return getattr(conformer_embedding, function.partition(":")[2])(*args)

    def stop(self):
        pass

    close = stop


def generator(cache=None, time_limit=60.0, **settings):
    made = ConformerGenerator(ConformerSettings(**settings), cache, time_limit=time_limit)
    made._pool = InProcess()
    return made


def compute(molecule, **settings):
    (result,) = generator(**settings)([molecule])
    return result


def distances(pos):
    return np.sqrt(((pos[..., :, None, :] - pos[..., None, :, :]) ** 2).sum(-1))


def molecule_with(smiles, result, conformer=0):
    """The molecule with all hydrogens and its conformer, as RDKit sees it."""
    mol = Chem.AddHs(parse(smiles))
    assert [atom.GetAtomicNum() for atom in mol.GetAtoms()] == result.z.tolist()
    positions = Chem.Conformer(mol.GetNumAtoms())
    for k, place in enumerate(result.pos[conformer].tolist()):
        positions.SetAtomPosition(k, place)
    mol.AddConformer(positions)
    return mol


def stereo_smiles(smiles, result):
    mol = molecule_with(smiles, result)
    Chem.AssignStereochemistryFrom3D(mol)
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


# --------------------------------------------------------------------------------------------------------------------
# What comes out


def test_shapes_types_and_geometry():
    result = compute("CCO", num_conformers=3)
    assert result.z.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    assert result.z.dtype == np.uint8
    assert result.pos.shape == (3, 9, 3)
    assert result.pos.dtype == np.float32
    assert result.index.tolist() == [0, 1, 2, -1, -1, -1, -1, -1, -1]
    assert (result.smiles, result.status, result.flags) == ("CCO", "3d", ())
    assert result.energies.shape == (3,)
    assert not np.array_equal(result.pos[0], result.pos[1])
    between = distances(result.pos[0])
    assert 1.4 < between[0, 1] < 1.6
    assert 1.3 < between[1, 2] < 1.5
    assert np.allclose(np.sort(between[0])[1:4], 1.09, atol=0.03)


def test_every_flag_is_explained():
    used = {"fragment", "stereo_unspecified", "random_coordinates", "chirality_unenforced", "force_field_missing"}
    used |= {
        "force_field_undone",
        "not_converged",
        "fewer_conformers",
        "layout",
        "given",
        "hydrogens_added",
        "atoms_left_out",
        "reordered",
    }
    assert used == set(FLAGS)


@pytest.mark.parametrize("smiles", [IBUPROFEN, "C/C=C\\C(Cl)Br", "[H]/N=C/C", "OC1CC[C@H]2C[C@@H]1CC2", "[2H]C([2H])O"])
def test_the_way_it_is_written_does_not_matter(smiles):
    rng = np.random.default_rng(0)
    mol = parse(smiles)
    expected = compute(mol)
    for explicit in (False, True):
        start = Chem.AddHs(mol) if explicit else mol
        for _ in range(4):
            order = rng.permutation(start.GetNumAtoms()).tolist()
            result = compute(Chem.RenumberAtoms(start, order))
            assert np.array_equal(np.sort(result.index[result.index >= 0]), np.arange(start.GetNumAtoms()))
            rows = [
                (order[k], row)
                for row, k in enumerate(result.index.tolist())
                if k >= 0 and order[k] < len(mol.GetAtoms())
            ]
            rows = [row for _, row in sorted(rows)]
            heavy = mol.GetNumAtoms()
            assert np.array_equal(result.z[rows], expected.z[:heavy])
            assert Counter(result.z.tolist()) == Counter(expected.z.tolist())
            # by an automorphism: as sets of (element, place) they are one, and each atom's neighbourhood is its own
            assert sorted(map(tuple, result.pos[0].tolist())) == sorted(map(tuple, expected.pos[0].tolist()))
            renumbered = Chem.RenumberAtoms(start, order)
            whole = Chem.AddHs(renumbered)
            for bond in whole.GetBonds():
                first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
                assert distances(result.pos[0])[first, second] < 2.1
            assert given_conformers(result.z, result.pos, renumbered).flags == ("given",)


def test_atoms_that_are_unique_keep_their_coordinates():
    expected, result = compute("OC(=O)C(F)Cl"), compute("ClC(F)C(O)=O")
    by_element = {z: expected.pos[0, k] for k, z in enumerate(expected.z.tolist()) if z in (9, 17)}
    for k, z in enumerate(result.z.tolist()):
        if z in by_element:
            assert np.array_equal(result.pos[0, k], by_element[z])
    assert result.index.tolist()[:6] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("smiles", "none", "polar", "everything"),
    [
        ("CCO", [6, 6, 8], [6, 6, 8, 1], [6, 6, 8, 1, 1, 1, 1, 1, 1]),
        ("C[NH3+]", [6, 7], [6, 7, 1, 1, 1], [6, 7, 1, 1, 1, 1, 1, 1]),
        ("[2H]C([2H])O", [6, 8], [6, 8, 1], [1, 6, 1, 8, 1, 1]),
        ("[2H]O", [8], [1, 8, 1], [1, 8, 1]),
        ("[H][H]", [1, 1], [1, 1], [1, 1]),
        ("[HH]", [1, 1], [1, 1], [1, 1]),
        ("[H+]", [1], [1], [1]),
    ],
)
def test_hydrogens(smiles, none, polar, everything):
    whole = compute(smiles)
    for which, expected in (("none", none), ("polar", polar), ("all", everything)):
        result = compute(smiles, hydrogens=which)
        assert result.z.tolist() == expected
        assert result.pos.shape == (1, len(expected), 3)
        # the same embedding, rows left out
        assert {tuple(row) for row in result.pos[0].tolist()} <= {tuple(row) for row in whole.pos[0].tolist()}
    explicit = Chem.AddHs(parse(smiles))
    assert compute(explicit, hydrogens="none").z.tolist() == none
    full = compute(explicit)
    assert full.index.tolist() == list(range(explicit.GetNumAtoms()))
    assert full.z.tolist() == [atom.GetAtomicNum() for atom in explicit.GetAtoms()]


def test_salts_say_which_fragment():
    result = compute("[Na+].CC(=O)[O-]")
    assert (result.smiles, result.flags) == ("CC(=O)[O-]", ("fragment",))
    assert result.index[:4].tolist() == [1, 2, 3, 4]
    assert np.array_equal(result.pos, compute("CC(=O)[O-]").pos)
    # with a carbon before the larger one without
    assert compute("C.O=S(=O)(O)O").smiles == "C"
    assert compute("CC.CCO").smiles == "CCO"
    assert compute("[Na+].[Cl-]").smiles == "[Cl-]"
    assert compute(Chem.AddHs(parse("O.CCO"))).index.tolist() == [1, 2, 3, *range(6, 12)]
    with pytest.raises(MoleculeError, match="more than one fragment"):
        compute("[Na+].CC(=O)[O-]", fragments="refuse")


@pytest.mark.parametrize("smiles", ["[Na+]", "[Fe]", "[He]", "[H+]", "[U]"])
def test_single_atoms(smiles):
    result = compute(smiles, num_conformers=2)
    assert result.pos.tolist() == [[[0.0, 0.0, 0.0]]] * 2
    assert (result.status, result.energies) == ("3d", None)


def test_hydrogen_molecule():
    result = compute("[H][H]")
    assert result.z.tolist() == [1, 1]
    assert 0.5 < distances(result.pos[0])[0, 1] < 1.0


def test_metals_have_no_force_field():
    result = compute("C[Sn](C)(C)c1ccccc1")
    assert result.status == "3d"
    assert result.flags == ("force_field_missing",)
    assert result.energies is None
    between = distances(result.pos[0])
    assert 1.9 < between[0, 1] < 2.5


def test_isotopes_are_other_molecules_with_the_same_atoms():
    result = compute("[13CH3]O")
    assert result.z.tolist() == compute("CO").z.tolist()
    assert result.smiles == "[13CH3]O"


def test_no_element_is_refused():
    with pytest.raises(MoleculeError, match="atom 0 is not an element"):
        compute("*CC")
    with pytest.raises(MoleculeError, match="no atoms"):
        compute(Chem.Mol())


def test_too_many_atoms_are_refused_before_anything_is_computed():
    with pytest.raises(MoleculeError, match=f"more than the limit of {MAX_EMBEDDED_ATOMS:,}"):
        compute("C" * 400)


def test_atom_maps_do_not_matter():
    assert np.array_equal(compute("[CH3:2][OH:7]").pos, compute("CO").pos)


def test_unspecified_stereo_is_reported():
    assert compute("CC(F)Cl").flags == ("stereo_unspecified",)
    assert compute("CC=CC").flags == ("stereo_unspecified",)
    assert compute("C[C@H](F)Cl").flags == ()
    assert compute("C/C=C/C").flags == ()


@pytest.mark.parametrize("force_field", ["mmff94", "mmff94s", "uff", "none"])
def test_stereo_is_kept(force_field):
    pairs = [("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"), ("C/C=C/Cl", "C/C=C\\Cl"), ("C[C@H]1CC[C@@H](O)CC1",) * 2]
    for left, right in pairs:
        for smiles in (left, right):
            result = compute(smiles, force_field=force_field)
            assert stereo_smiles(smiles, result) == Chem.CanonSmiles(smiles)
            assert (result.energies is None) == (force_field == "none")


def test_enantiomers_are_mirror_images():
    volumes = []
    for smiles in ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"):
        pos = compute(smiles).pos[0]
        methyl, amine, carboxyl = (pos[k] - pos[1] for k in (0, 2, 3))
        volumes.append(np.dot(methyl, np.cross(amine, carboxyl)))
    assert volumes[0] * volumes[1] < 0
    assert abs(volumes[0]) == pytest.approx(abs(volumes[1]), rel=0.05)


def test_a_force_field_that_turns_stereo_over_is_undone():
    """MMFF94 lets the Z azo group of this dye turn over; RDKit embeds it as written."""
    dye = "O=S(=O)([O-])c1ccc2c(/N=N\\c3ccc(S(=O)(=O)[O-])c4ccccc34)c(O)c(S(=O)(=O)[O-])cc2c1"
    result = compute(dye)
    assert "force_field_undone" in result.flags
    assert np.isnan(result.energies).all()
    assert np.array_equal(result.pos, compute(dye, force_field="none").pos)
    assert stereo_smiles(dye, result) == Chem.CanonSmiles(dye)


def test_random_coordinates_are_the_second_attempt(monkeypatch):
    embed = conformer_embedding._embed

    def second(mol, count, seed, **changes):
        return embed(mol, count, seed, **changes) if changes else ([], "")

    monkeypatch.setattr(conformer_embedding, "_embed", second)
    result = compute("CCO")
    assert (result.status, result.flags) == ("3d", ("random_coordinates",))


@pytest.mark.parametrize("smiles", ["C[C@H]1CO[C@]12[C@@H]1OC[C@@H]12", "N#C[C@H](O)[C@H]1[C@H]2CO[C@H]21"])
def test_strained_rings_are_embedded_without_rdkit_checks_but_with_their_stereo(smiles):
    """RDKit's own checks refuse these molecules of QM9 altogether."""
    assert not conformer_embedding._embed(Chem.AddHs(parse(smiles)), 1, 42)[0]
    result = compute(smiles, num_conformers=2)
    assert (result.status, result.flags) == ("3d", ("chirality_unenforced",))
    assert result.pos.shape[0] == 2
    assert stereo_smiles(smiles, result) == Chem.CanonSmiles(smiles)


def test_what_fails_says_why_and_gives_no_coordinates(monkeypatch):
    monkeypatch.setattr(conformer_embedding, "_embed", lambda *_, **__: ([], " (for a test)"))
    with pytest.raises(MoleculeError) as caught:
        compute("CCO")
    assert caught.value.reason == "no 3D coordinates found (for a test)"
    assert caught.value.smiles == "CCO"
    flat = compute("CCO", dimensions="3d or 2d", num_conformers=3)
    assert (flat.status, flat.flags, flat.energies) == ("2d", ("layout",), None)
    assert flat.pos.shape == (1, 9, 3)
    assert not flat.pos[..., 2].any()
    assert (distances(flat.pos[0])[np.triu_indices(9, 1)] > 0.3).all()
    results = generator()(["CCO", "C1CC", "[Na+]", "*"], on_error="skip")
    assert [type(result) for result in results] == [MoleculeError, MoleculeError, Conformers, MoleculeError]
    assert count_reports(results) == {"3d": 1, "2d": 0, "failed": 3}


def test_rdkits_cause_is_told():
    (result,) = generator()(["O=C1[C@@H]2[C@@H](O)[C@H]3[C@@H]2N13"], on_error="skip")  # of QM9
    assert result.reason.startswith("no 3D coordinates found (ETKDG's attempts ended mostly at ")


def test_layout_alone():
    result = compute("c1ccccc1O.Cl", dimensions="2d", hydrogens="none")
    assert (result.status, result.flags) == ("2d", ("fragment", "layout"))
    between = distances(result.pos[0])
    assert np.allclose(np.sort(between, axis=1)[:, 1], 1.5, atol=0.01)


def test_seeds():
    first = compute(IBUPROFEN, num_conformers=3, seed=0)
    assert np.array_equal(first.pos, compute(IBUPROFEN, num_conformers=3, seed=0).pos)
    assert len({place.tobytes() for place in first.pos}) == 3
    # conformer k comes from the seed `seed + k`
    assert np.array_equal(first.pos[1:], compute(IBUPROFEN, num_conformers=2, seed=1).pos)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_conformers": 0},
        {"seed": -1},
        {"seed": 2**31},
        {"max_iterations": 0},
        {"hydrogens": "some"},
        {"force_field": "gaff"},
        {"dimensions": "4d"},
        {"fragments": "all"},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ConformerSettings(**wrong)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="on_error"):
        generator()(["C"], on_error="ignore")
    with pytest.raises(ValueError, match="not one string"):
        generator()("CCO")
    with pytest.raises(ValueError, match="time_limit"):
        ConformerGenerator(time_limit=0)
    with pytest.raises(ValueError, match="at least one process"):
        ConformerGenerator(processes=0)
    with pytest.raises(ValueError, match="not sanitised"):
        generator()([Chem.MolFromSmiles("CCO", sanitize=False)])


def test_settings_travel_as_json():
    settings = ConformerSettings(num_conformers=4, hydrogens="polar")
    assert ConformerSettings(**json.loads(json.dumps(settings.to_dict()))) == settings


def test_real_molecules(shared_data):
    column = pq.read_table(shared_data / "moleculenet" / "bbbp.parquet", columns=["smiles"])["smiles"].to_pylist()
    rows = np.random.default_rng(3).choice(len(column), 12, replace=False)
    generate = generator()
    for smiles in [column[row] for row in rows]:
        (result,) = generate([smiles], on_error="skip")
        if isinstance(result, MoleculeError):
            continue
        assert result.status == "3d"
        # every atom is where the molecule as given says: bonds have the lengths of bonds, stereo is as written
        if "fragment" not in result.flags:
            again = given_conformers(result.z, result.pos, smiles)
            assert again.flags == ("given",)
            assert np.array_equal(again.index, result.index)
        for text in (Chem.MolToSmiles(parse(smiles), doRandom=True) for _ in range(2)):
            (other,) = generate([text])
            assert other.smiles == result.smiles
            assert np.array_equal(np.sort(other.pos, axis=None), np.sort(result.pos, axis=None))


# --------------------------------------------------------------------------------------------------------------------
# Processes and the time limit


def test_a_native_call_is_really_stopped():
    """`7 ** 10**10` holds the interpreter's lock for hours: neither a thread nor a Python alarm would end it."""
    pool = WorkerPool(1)
    started = time.monotonic()
    with pytest.raises(Stopped, match=r"time limit of 0\.2 s") as caught:
        pool.run("operator:pow", 7, 10**10, limit=0.2)
    assert caught.value.timed_out
    assert time.monotonic() - started < 60
    assert pool.run("operator:add", 2, 3, limit=1) == 5  # a new process takes its place
    pool.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="counts wall-clock seconds here")
def test_the_limit_counts_cpu_seconds_and_the_wall_clock_stands_behind(monkeypatch):
    worker = Worker()
    worker.run("time:sleep", 0.3, limit=0.1)  # idle: a busy machine does not make molecules fail
    monkeypatch.setattr("hf_molrep.chem.workers.WALL_PER_CPU", 1)
    with pytest.raises(Stopped) as caught:
        worker.run("time:sleep", 600, limit=0.1)
    assert caught.value.timed_out
    assert worker.process.poll() is not None
    worker.close()


def test_errors_and_crashes_of_a_worker():
    pool = WorkerPool(1)
    with pytest.raises(ZeroDivisionError):
        pool.run("operator:truediv", 1, 0, limit=5)
    with pytest.raises(MoleculeError, match="ring 1 not closed"):
        pool.run("hf_molrep.chem.smiles:parse", "C1CC", limit=5)
    with pytest.raises(RuntimeError, match="cannot pickle"):
        pool.run("threading:Lock", limit=5)  # does not travel
    with pytest.raises(Stopped, match="exit status 3") as caught:
        pool.run("os:_exit", 3, limit=5)
    assert not caught.value.timed_out
    assert pool.run("builtins:len", "abc", limit=5) == 3
    (worker,) = pool._started
    pool.close()
    assert worker.process.poll() is not None


def test_what_a_worker_prints_does_not_get_between():
    worker = Worker()
    assert worker.run("builtins:print", "text", limit=5) is None
    assert worker.run("os:write", 1, b"more text", limit=5) == 9
    assert worker.run("operator:add", 1, 1, limit=5) == 2
    worker.close()


def test_a_pool_ends_its_processes_when_it_is_forgotten():
    pool = WorkerPool(1)
    pool.run("builtins:len", "", limit=5)
    (worker,) = pool._started
    del pool
    assert worker.process.wait(10) is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_its_own(tmp_path):
    program = f"""
import os, sys
from hf_molrep.chem.conformers import ConformerGenerator
generate = ConformerGenerator(cache={str(tmp_path / "c.sqlite")!r})
first = generate(["CCO"])
child = os.fork()
result = generate(["OCC", "CCN"])
assert (result[0].pos[0, 2] == first[0].pos[0, 0]).all()
assert result[1].z.tolist()[:3] == [6, 6, 7]
if child:
    assert os.waitpid(child, 0)[1] == 0
generate.close()
os._exit(0)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=120)


def test_rdkit_is_stopped_and_the_next_molecule_computed(tmp_path):
    """A long chain takes RDKit many seconds in one native call."""
    slow = "CC(O)" * 40
    cache = tmp_path / "c.sqlite"
    with ConformerGenerator(cache=cache, time_limit=0.5) as generate:
        generate(["C"], on_error="skip")  # imports are not part of the next one's time
        started = time.monotonic()
        results = generate([slow, "CCO", slow], on_error="skip")
        assert time.monotonic() - started < 60
        assert [type(result) for result in results] == [MoleculeError, Conformers, MoleculeError]
        assert results[0].reason == "embedding: stopped after the time limit of 0.5 s"
        (flat,) = ConformerGenerator(ConformerSettings(dimensions="3d or 2d"), cache, time_limit=0.5)([slow])
        assert flat.status == "2d"
    # known to take longer; with a higher limit it is tried again
    lower, higher = generator(cache, time_limit=0.4), generator(cache, time_limit=0.9)
    for generate in (lower, higher):
        generate._pool.run = lambda *_, limit: pytest.fail("computed")
    assert "0.5 s" in lower([slow], on_error="skip")[0].reason
    with pytest.raises(pytest.fail.Exception):
        higher([slow])
    lower.close()
    higher.close()


def test_a_crash_is_not_remembered(tmp_path):
    generate = generator(tmp_path / "c.sqlite")

    def crash(*_, limit):
        raise Stopped("the process that computed it ended (signal 9)", False)

    works, generate._pool.run = generate._pool.run, crash
    (result,) = generate(["CCO"], on_error="skip")
    assert result.reason == "embedding: the process that computed it ended (signal 9)"
    generate._pool.run = works
    assert generate(["CCO"])[0].status == "3d"
    generate.close()


def test_results_do_not_depend_on_processes_order_or_company():
    smiles = ["CCO", "C[C@H](N)C(=O)O", "c1ccccc1O", "[Na+].[Cl-]", "C1CC", "CC(F)Cl", "OCC", "CCCCCC"]
    alone = [compute(text, num_conformers=2) if text != "C1CC" else None for text in smiles]
    settings = {"num_conformers": 2, "cache": None, "on_error": "skip"}
    one, two = (generate_conformers(smiles, processes=processes, **settings) for processes in (1, 2))
    turned = generate_conformers(smiles[::-1], processes=2, **settings)[::-1]
    for expected, *others in zip(alone, one, two, turned, strict=True):
        for other in others:
            if expected is None:
                assert other.reason == "ring 1 not closed"
            else:
                assert np.array_equal(other.pos, expected.pos)
                assert np.array_equal(other.energies, expected.energies) or expected.energies is None
                assert other[3:6] == expected[3:6]


def test_the_first_error_is_raised():
    with pytest.raises(MoleculeError, match="ring 1 not closed"):
        generator()(["CCO", "C1CC", "*"])


def test_a_stream_reads_ahead_but_not_everything(monkeypatch):
    monkeypatch.setattr(module, "_RUN_AHEAD", 8)
    monkeypatch.setattr(module, "_CHUNK", 4)
    read = []

    def endless():
        while True:
            read.append(None)
            yield "C" * (len(read) % 5 + 1)

    generate = generator()
    stream = generate.stream(endless())
    sizes = [next(stream).z.tolist().count(6) for _ in range(10)]
    stream.close()
    assert sizes == [2, 3, 4, 5, 1, 2, 3, 4, 5, 1]
    assert len(read) <= 24


def test_progress_bar(capfd):
    generator()(["CCO", "C1CC"], on_error="skip", progress=True)
    assert "2/2" in capfd.readouterr().err
    generator()(["CCO", "C1CC"], on_error="skip")
    assert capfd.readouterr() == ("", "")


def test_a_generator_travels(tmp_path):
    generate = ConformerGenerator(ConformerSettings(seed=3), tmp_path / "c.sqlite", processes=2, time_limit=5)
    copy = pickle.loads(pickle.dumps(generate))
    assert (copy.settings, copy.cache.path, copy.processes, copy.time_limit) == (
        generate.settings,
        generate.cache.path,
        2,
        5,
    )


# --------------------------------------------------------------------------------------------------------------------
# The cache


def test_what_is_known_is_not_embedded_again(tmp_path, monkeypatch):
    cache = tmp_path / "folder" / "c.sqlite"
    smiles = ["CCO", "[Na+].CC(=O)[O-]", "C[Sn](C)C", "CC(F)Cl", "C1CC"]
    first = generator(cache)(smiles, on_error="skip")
    monkeypatch.setattr(rdDistGeom, "EmbedMultipleConfs", lambda *_: pytest.fail("embedded"))
    monkeypatch.setattr(WorkerPool, "run", lambda *_, **__: pytest.fail("computed"))
    with ConformerGenerator(cache=cache) as generate:
        again = generate(smiles, on_error="skip")
        other_way = generate(["OCC"])
        heavy = ConformerGenerator(ConformerSettings(hydrogens="none"), cache)(["CCO"])
    for before, after in zip(first[:-1], again[:-1], strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(before[:3], after[:3], strict=True))
        assert before[3:6] == after[3:6]
        assert np.array_equal(before.energies, after.energies) or before.energies is after.energies is None
    assert np.array_equal(other_way[0].pos[0, [2, 1, 0]], first[0].pos[0, :3])
    assert np.array_equal(heavy[0].pos, first[0].pos[:, :3])


def test_one_molecule_is_computed_once(tmp_path):
    generate = generator(tmp_path / "c.sqlite")
    generate(["CCO", "OCC", "C(O)C", "CCO.[Na+]"])
    assert len(generate._pool.calls) == 1
    generate.close()


def test_failures_are_kept_too(tmp_path, monkeypatch):
    generate = generator(tmp_path / "c.sqlite")
    monkeypatch.setattr(conformer_embedding, "_embed", lambda *_, **__: ([], ""))
    reasons = [generate(["CCO"], on_error="skip")[0].reason for _ in range(2)]
    assert reasons == ["no 3D coordinates found"] * 2
    assert len(generate._pool.calls) == 1
    generate.close()


def test_other_settings_do_not_collide(tmp_path, monkeypatch):
    cache = tmp_path / "c.sqlite"
    variants = [
        {},
        {"seed": 1},
        {"num_conformers": 2},
        {"force_field": "mmff94s"},
        {"force_field": "none"},
        {"max_iterations": 3},
        {"dimensions": "2d"},
    ]
    results = []
    for settings in variants:
        generate = generator(cache, **settings)
        results.append(generate([IBUPROFEN])[0])
        assert len(generate._pool.calls) == 1, settings
        generate.close()
    for settings, expected in zip(variants, results, strict=True):
        assert np.array_equal(generator(cache, **settings)([IBUPROFEN])[0].pos, expected.pos)
        assert np.array_equal(compute(IBUPROFEN, **settings).pos, expected.pos)
    # stereo and isotopes are other molecules; another RDKit is another computation
    generate = generator(cache)
    generate(["CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O", "CC(C)Cc1ccc(cc1)C(C)C(=O)O"])
    assert len(generate._pool.calls) == 2
    monkeypatch.setattr(module, "_rdkit_version", lambda: "2099.03.1")
    generate([IBUPROFEN])
    assert len(generate._pool.calls) == 3
    generate.close()


def test_a_fallback_that_nobody_asked_for_is_not_taken_from_the_cache(tmp_path, monkeypatch):
    cache = tmp_path / "c.sqlite"
    monkeypatch.setattr(conformer_embedding, "_embed", lambda *_, **__: ([], ""))
    assert generator(cache, dimensions="3d or 2d")(["CCO"])[0].status == "2d"
    with pytest.raises(MoleculeError, match="no 3D coordinates"):
        generator(cache)(["CCO"])


def record(seed=0, atoms=5):
    rng = np.random.default_rng(seed)
    return Record(
        rng.integers(1, 9, atoms).astype(np.uint8),
        rng.normal(size=(2, atoms, 3)).astype(np.float32),
        rng.normal(size=2),
        ("not_converged",),
    )


def same(left, right):
    return all(np.array_equal(x, y) for x, y in zip(left, right, strict=True))


def test_records_come_back_as_they_were(tmp_path):
    cache = ConformerCache(tmp_path / "c.sqlite")
    many = {f"C{k}": record(k, 1 + k % 7) for k in range(1_100)}  # more than one query
    failed = Record(np.zeros(0, np.uint8), np.zeros((0, 0, 3), np.float32), np.zeros(0), (), "why", 3.5)
    cache.put("one", [*many.items(), ("failed", failed)])
    found = cache.get("one", [*many, "failed", "unknown"])
    assert set(found) == {*many, "failed"}
    assert all(same(found[text], many[text]) for text in many)
    assert same(found["failed"], failed)
    assert cache.get("two", list(many)) == {}
    cache.put("one", [("C0", record(7))])
    assert same(cache.get("one", ["C0"])["C0"], record(7))
    assert len(cache) == 1_101
    cache.close()


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "c.sqlite"
    generate = generator(path)
    (expected,) = generate(["CCO"])
    generate.close()
    with sqlite3.connect(path) as connection:
        (blob,) = connection.execute("SELECT pos FROM conformers").fetchone()
        connection.execute("UPDATE conformers SET pos = ?", (bytes([blob[0] ^ 1]) + blob[1:],))
    connection.close()
    again = generator(path)
    assert np.array_equal(again(["CCO"])[0].pos, expected.pos)
    assert len(again._pool.calls) == 1
    again.close()
    once_more = generator(path)
    once_more(["CCO"])
    assert not once_more._pool.calls
    once_more.close()


@pytest.mark.parametrize("damage", ["text", "header", "middle"])
def test_a_damaged_file_is_put_aside(tmp_path, damage):
    path = tmp_path / "c.sqlite"
    if damage == "text":
        path.write_text("this is no database\n" * 100)
    else:
        cache = ConformerCache(path)
        cache.put("settings", [(f"C{k}", record(k, 40)) for k in range(200)])
        cache.close()
        content = bytearray(path.read_bytes())
        start = 0 if damage == "header" else 4096
        content[start : start + 40_000] = b"\xa5" * min(40_000, len(content) - start)
        path.write_bytes(content)
    cache = ConformerCache(path)
    with pytest.warns(UserWarning, match="is damaged"):
        found = cache.get("settings", ["C1"])
    assert found == {}
    cache.put("settings", [("C1", record())])
    assert same(cache.get("settings", ["C1"])["C1"], record())
    assert len(list(tmp_path.glob("c.sqlite.damaged-*"))) == 1
    cache.close()


def test_another_database_is_refused(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (data)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not a conformer cache"):
        ConformerCache(path).get("settings", ["C"])
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError, match=r"cannot create the folder of the conformer cache .*cache\.sqlite \(see HF_MOLREP_CACHE\)"
    ):
        generate_conformers(["CCO"], cache=tmp_path / "file" / "cache.sqlite")


def test_a_read_only_file_is_read(tmp_path, monkeypatch):
    path = tmp_path / "c.sqlite"
    cache = ConformerCache(path)
    cache.put("settings", [("C", record())])
    cache.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    cache.put("settings", [("CC", record())])
    assert set(cache.get("settings", ["C", "CC"])) == {"C"}
    cache.close()


WRITER = """
import sys, numpy as np
from hf_molrep.chem.conformer_cache import ConformerCache, Record
cache, name = ConformerCache(sys.argv[1]), sys.argv[2]
for k in range(int(sys.argv[3])):
    pos = np.full((1, 30, 3), k, np.float32)
    cache.put("settings", [(f"{name}-{k}-{n}", Record(np.ones(30, np.uint8), pos, np.zeros(0))) for n in range(20)])
    print(k, flush=True)
"""


def writer(path, name, rounds):
    arguments = [sys.executable, "-W", "error", "-c", WRITER, str(path), name, str(rounds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_several_processes_write_at_once(tmp_path):
    path = tmp_path / "c.sqlite"
    writers = [writer(path, name, 15) for name in "abc"]
    for process in writers:
        process.communicate(timeout=120)
        assert process.returncode == 0
    cache = ConformerCache(path)
    assert len(cache) == 3 * 15 * 20
    cache.close()


def test_a_writer_that_is_killed_leaves_whole_transactions(tmp_path):
    path = tmp_path / "c.sqlite"
    process = writer(path, "a", 100_000)
    for _ in range(5):
        process.stdout.readline()
    process.kill()
    done = 5 + len(process.stdout.read().split())
    process.stdout.close()
    process.wait()
    cache = ConformerCache(path)
    count = len(cache)
    assert count >= 20 * done
    assert count % 20 == 0
    assert cache.get("settings", ["a-4-19"])["a-4-19"].pos[0, 0, 0] == 4
    cache.put("settings", [("new", record())])
    assert len(cache) == count + 1
    cache.close()


def test_default_place(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_MOLREP_CACHE", raising=False)
    assert default_path() == tmp_path / "hub" / "hf_molrep" / "conformers.sqlite"
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "own"))
    assert ConformerGenerator().cache.path == tmp_path / "own" / "conformers.sqlite"
    assert not (tmp_path / "own").exists()


# --------------------------------------------------------------------------------------------------------------------
# Coordinates of the user


def test_columns_in_the_order_of_the_molecule():
    made = compute(IBUPROFEN, num_conformers=2)
    for pos in (made.pos, made.pos.reshape(-1), made.pos.tolist(), made.pos[0]):
        result = given_conformers(made.z.tolist(), pos, IBUPROFEN)
        assert result.flags == ("given",)
        assert np.array_equal(result.pos, made.pos[: len(result.pos)])
        assert np.array_equal(result.index, made.index)
        assert (result.z.dtype, result.pos.dtype, result.status) == (np.uint8, np.float32, "3d")
        assert result.smiles == Chem.CanonSmiles(IBUPROFEN)
    for hydrogens in ("none", "polar"):
        expected = compute(IBUPROFEN, num_conformers=2, hydrogens=hydrogens)
        result = given_conformers(made.z, made.pos, IBUPROFEN, hydrogens)
        assert all(np.array_equal(x, y) for x, y in zip(result[:3], expected[:3], strict=True))


def test_columns_in_another_order_are_matched():
    made = compute(IBUPROFEN)
    shuffled = np.random.default_rng(0).permutation(len(made.z))
    result = given_conformers(made.z[shuffled], made.pos[:, shuffled], IBUPROFEN)
    assert result.flags == ("given", "reordered")
    assert np.array_equal(result.z, made.z)
    assert sorted(map(tuple, result.pos[0].tolist())) == sorted(map(tuple, made.pos[0].tolist()))
    assert given_conformers(result.z, result.pos, IBUPROFEN).flags == ("given",)


def test_missing_hydrogens_are_added_and_said():
    made = compute(IBUPROFEN, hydrogens="none")
    result = given_conformers(made.z, made.pos, IBUPROFEN)
    assert result.flags == ("given", "hydrogens_added")
    assert np.array_equal(result.z, compute(IBUPROFEN).z)
    assert np.array_equal(result.pos[:, : len(made.z)], made.pos)
    assert (np.sort(distances(result.pos[0]), axis=1)[:, 1] > 0.9).all()
    assert given_conformers(made.z, made.pos, IBUPROFEN, "none").flags == ("given",)


def test_coordinates_without_a_molecule():
    made = compute("CCO")
    result = given_conformers(made.z, made.pos)
    assert np.array_equal(result.pos, made.pos)
    assert (result.smiles, result.index.tolist()) == ("", list(range(9)))
    assert given_conformers(made.z, made.pos, hydrogens="none").index.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="polar"):
        given_conformers(made.z, made.pos, hydrogens="polar")


def test_impossible_coordinates_are_refused():
    made = compute("C[C@H](N)C(=O)O")
    smiles = "C[C@H](N)C(=O)O"
    broken = made.pos.copy()
    broken[0, 3, 1] = np.nan
    near = made.pos.copy()
    near[0, 2] = near[0, 1] + 0.1
    far = made.pos.copy()
    far[0, 4] += 9
    for pos, reason in [
        (broken, "not numbers"),
        (np.zeros_like(made.pos), "all atoms at one point"),
        (near, "atoms 1 and 2 of the coordinates are 0.17 angstrom apart"),
        (far, "not this molecule's: no order of the atoms shows its bonds"),
        (made.pos * [1, 1, -1], "not this molecule's: their stereo is different"),
    ]:
        with pytest.raises(MoleculeError, match=reason):
            given_conformers(made.z, pos, smiles)
    with pytest.raises(MoleculeError, match="coordinates of C3H7NO2, but the molecule is C2H6O"):
        given_conformers(made.z, made.pos, "CCO")
    with pytest.raises(MoleculeError, match="coordinates of C2H6S, but the molecule is C2H6O"):
        given_conformers([6, 6, 16, 1, 1, 1, 1, 1, 1], compute("CCO").pos, "CCO")
    for z, pos in [([6.5], [0, 0, 0]), ([], []), ([0], [0, 0, 0]), ([6], [0, 0]), ([6, 6], np.zeros((3, 3)))]:
        with pytest.raises(ValueError, match=r"z must|pos of the shape"):
            given_conformers(z, pos)
    with pytest.raises(ValueError, match="hydrogens"):
        given_conformers(made.z, made.pos, smiles, "some")


def test_salts_of_the_user_keep_their_fragments():
    made = compute("CC(=O)[O-]")
    pos = np.concatenate([[[10, 0, 0]], made.pos[0]])
    result = given_conformers([11, *made.z.tolist()], pos, "[Na+].CC(=O)[O-]")
    assert result.z.tolist() == [11, *made.z.tolist()]
    assert result.smiles == "CC(=O)[O-].[Na+]"


def test_single_atoms_of_the_user():
    assert given_conformers([11], [1, 2, 3], "[Na+]").pos.tolist() == [[[1, 2, 3]]]


def test_records_of_an_sdf():
    made = compute(IBUPROFEN)
    mol = molecule_with(IBUPROFEN, made)
    result = conformers_of_mol_block(Chem.MolToMolBlock(mol))
    assert np.array_equal(result.z, made.z)
    assert np.allclose(result.pos, made.pos, atol=1e-3)
    assert (result.status, result.flags) == ("3d", ("given",))
    assert result.index.tolist() == list(range(len(made.z)))
    assert result.smiles == Chem.CanonSmiles(IBUPROFEN)
    assert np.array_equal(conformers_of_mol_block(Chem.MolToMolBlock(mol), "none").z, made.z[made.z > 1])
    bare = conformers_of_mol_block(Chem.MolToMolBlock(Chem.RemoveHs(mol)))
    assert bare.flags == ("given", "hydrogens_added")
    assert Counter(bare.z.tolist()) == Counter(made.z.tolist())
    with pytest.raises(MoleculeError, match="no coordinates"):
        conformers_of_mol(parse("CCO"))
    with pytest.raises(MoleculeError, match="not a readable mol block"):
        conformers_of_mol_block("title\nnot\na block\n")


def test_drawings_of_an_sdf_are_called_so():
    mol = parse("CCO")
    Chem.rdDepictor.Compute2DCoords(mol)
    result = conformers_of_mol_block(Chem.MolToMolBlock(mol), "none")
    assert (result.status, result.flags) == ("2d", ("given", "layout"))


@pytest.mark.parametrize("file", ["qm9_3d/qm9_3d.parquet", "conformers/conformer_benchmark.parquet"])
def test_real_columns(shared_data, file):
    table = pq.read_table(shared_data / file, columns=["smiles", "atomic_numbers", "coordinates"])
    rows = np.sort(np.random.default_rng(0).choice(len(table), 60, replace=False))
    refused = 0
    for row in table.take(rows).to_pylist():
        try:
            result = given_conformers(row["atomic_numbers"], row["coordinates"], row["smiles"])
        except MoleculeError:
            refused += 1
            continue
        assert stereo_smiles(row["smiles"], result)
    assert refused <= 3


@pytest.mark.parametrize("smiles", ["C[C@H](O)F", "C[C@@H](O)F", "F/C=C/Cl", r"F/C=C\Cl", "CCO"])
def test_stereo_is_read_from_coordinates(smiles):
    from rdkit import Chem

    (found,) = generate_conformers([smiles], cache=None, progress=False)
    flat = Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)
    assert stereo_from_coordinates(flat, found.z, found.pos) == found.smiles
