"""The retrieval benchmark on embeddings and pools whose answer is known."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import retrieval
from hf_molrep.chem import inchikey_block, molecular_formula
from hf_molrep.chem.fingerprints import morgan_fingerprints
from tests.models.mm_deacon.tiny import save_tiny_checkpoint

ALCOHOLS = ["CCO", "CCCO", "CC(C)O", "CCCCO", "CC(C)CO", "CCC(C)O", "CC(C)(C)O", "COCC", "COC"]


def test_oracle_is_what_random_ties_give():
    same = np.array([1, 2, 2, 7, 30])
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.integers(1, same + 1) for _ in range(20_000)])
    expected = retrieval.oracle_metrics(same)
    for name, value in retrieval.metrics_of_ranks(ranks).items():
        assert expected[name] == pytest.approx(value, abs=0.01)
    assert expected["recall@1"] == pytest.approx((1 + 1 / 2 + 1 / 2 + 1 / 7 + 1 / 30) / 5)


def test_ties_count_against_the_model():
    scores = np.array([[0.5, 0.5, 0.1], [0.5, 0.5 + 1e-8, 0.1], [0.2, 0.9, 0.3]], dtype=np.float32)
    assert retrieval.pessimistic_ranks(scores, np.array([0, 1, 1])).tolist() == [2, 2, 1]
    constant = np.ones((4, 8), dtype=np.float32)  # a model that says the same of everything is last, not first
    assert retrieval.pool_ranks([np.arange(4)], constant, constant).tolist() == [4]


def test_random_pools_of_perfect_and_formula_only_embeddings():
    rng = np.random.default_rng(0)
    formulas = np.repeat(np.arange(60), 2)
    perfect = np.eye(120, dtype=np.float32)
    args = type("Args", (), {"pool_size": 50, "pools": 20, "seed": 3})
    results, ranks = retrieval.evaluate_random({"smiles": perfect, "iupac": perfect}, formulas, args)
    assert results["smiles_to_iupac"]["recall@1"] == [1.0] * 20
    assert len(ranks["iupac_to_smiles"][0]) == 20 * 50

    # an embedding of the formula alone with random ties scores what the oracle is said to score
    noisy = np.eye(60, dtype=np.float32)[formulas]
    views = {name: np.hstack([noisy, 1e-2 * rng.standard_normal((120, 30))]).astype(np.float32) for name in "ab"}
    results, _ = retrieval.evaluate_random({"smiles": views["a"], "iupac": views["b"]}, formulas, args)
    assert np.mean(results["formula only"]["recall@1"]) < 0.9
    assert np.mean(results["smiles_to_iupac"]["recall@1"]) == pytest.approx(
        np.mean(results["formula only"]["recall@1"]), abs=0.05
    )


def test_hard_pools_take_isomers_of_the_test_part_then_others_then_neighbours():
    # eight of one formula in the test part, four more behind it, and others
    isomers = ["CCCCCCO", "CCCCC(C)O", "CCCC(CC)O", "CCC(C)CCO", "CC(C)CCCO", "CCCCOCC", "CCCOCCC", "CCCCCOC"]
    test = [*isomers, "c1ccccc1", "Cc1ccccc1", "Clc1ccccc1"]
    more = ["CC(C)OC(C)C", "CC(C)(C)CCO", "CCC(CC)CO", "CCC(C)(O)CC", "Brc1ccccc1", "Fc1ccccc1", "CCCN", "O=C=O"]
    smiles = test + more
    formulas = np.array([molecular_formula(text) for text in smiles])
    bits = morgan_fingerprints(smiles)
    queries = [0, 8]
    pools, same = retrieval.hard_pools(queries, formulas, len(test), bits, distractors=9, seed=0)
    assert [pool[0] for pool in pools] == queries
    assert all(len(set(pool.tolist())) == len(pool) == 10 for pool in pools)
    assert same.tolist() == [10, 1]
    assert set(pools[0][:8]) == set(range(8))
    assert set(formulas[pools[0]]) == {"C6H14O"}
    # benzene has no isomer here: its nearest neighbours by Tanimoto are the substituted benzenes
    assert {"Cc1ccccc1", "Clc1ccccc1", "Brc1ccccc1", "Fc1ccccc1"} <= {smiles[place] for place in pools[1][1:6]}

    fewer, same = retrieval.hard_pools([0], formulas, len(test), bits, distractors=3, seed=0)
    assert len(fewer[0]) == same[0] == 8  # at least three: every isomer of the test part stays
    again, _ = retrieval.hard_pools([8, 0], formulas, len(test), bits, distractors=9, seed=0)
    assert again[1].tolist() == pools[0].tolist()  # a pool does not depend on the other queries


def test_stereo_pools_hold_stereoisomers_only():
    smiles = [
        *["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "CC(N)C(=O)O"],
        *["C/C=C/C", "C/C=C\\C"],
        "[2H]C(C)C=CC",  # an isotopologue has the same block but is no stereoisomer
        *["CCO", "CCO"],
    ]
    pools = retrieval.stereo_pools(smiles, [inchikey_block(text) for text in smiles])
    assert Counter(tuple(sorted(pool.tolist())) for pool in pools) == {(0, 1, 2): 3, (3, 4): 2}
    assert sorted(int(pool[0]) for pool in pools) == [0, 1, 2, 3, 4]


def test_heavy_atoms():
    assert [retrieval.heavy_atoms(formula) for formula in ("C2H6O", "CH3Cl", "C9H8NaO4", "H2", "C2H3O2-")] == [
        3,
        2,
        14,
        0,
        4,
    ]


def test_the_command_writes_table_and_numbers(tmp_path):
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    names = ["ethanol", "propan-1-ol", "propan-2-ol", "butan-1-ol", "2-methylpropan-1-ol", "butan-2-ol"]
    names += ["2-methylpropan-2-ol", "methoxyethane", "methoxymethane"]
    rows = [
        {
            "smiles": smiles,
            "iupac_name": name,
            "source": "here",
            "inchikey_block": inchikey_block(smiles),
            "formula": molecular_formula(smiles),
        }
        for smiles, name in zip(ALCOHOLS, names, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows[:6]), tmp_path / "test.parquet")
    pq.write_table(pa.Table.from_pylist(rows[5:]), tmp_path / "train.parquet")
    stereo = [("C[C@H](O)CC", "(2R)-butan-2-ol"), ("C[C@@H](O)CC", "(2S)-butan-2-ol"), ("CCC(C)O", "butan-2-ol")]
    pairs = [
        {"smiles": s, "iupac_name": n, "source": "here", "opsin_check": "exact", "primary": True} for s, n in stereo
    ]
    pairs = [row | {"inchikey_block": inchikey_block(row["smiles"])} for row in pairs]
    pairs += [row | {"source": "massbank", "smiles": "CC[C@H](O)C"} for row in pairs[:1]]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "pairs.parquet")
    arguments = ["--model", checkpoint, "--test", tmp_path / "test.parquet", "--more", tmp_path / "train.parquet"]
    arguments += ["--all-pairs", tmp_path / "pairs.parquet", "--results", tmp_path / "results", "--threads", "1"]
    arguments += ["--pool-size", "5", "--pools", "2", "--distractors", "4"]
    assert retrieval.main([str(argument) for argument in arguments]) == 0
    raw = json.loads((tmp_path / "results" / "retrieval.json").read_text())
    assert raw["hard pools"]["pool_sizes"] == [5] * 6
    assert raw["stereo"]["pool_sizes"] == [3] * 3  # the MassBank row is left out
    assert raw["stereo"]["chance"]["recall@1"] == pytest.approx(1 / 3)
    assert len(raw["random"]["smiles_to_iupac"]["mrr"]) == 2
    page = (tmp_path / "results" / "retrieval.md").read_text()
    assert "formula only" in page
    assert "stereoisomers" in page
    assert str(tmp_path) not in page  # no folder of the machine in a published table
