"""The optimisation and goal-directed benchmarks: what is judged, baselines, and a run from the data to the reports."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import goal_directed, optimization
from hf_molrep.chem.fingerprints import morgan_fingerprints, tanimoto
from hf_molrep.chem.properties import properties
from hf_molrep.chem.smiles import inchikey_block
from tests.models.x_mol.tiny import save_tiny_checkpoint

GOOD = "CC(=O)Nc1ccc(OCC2CCNCC2)cc1"


def test_what_is_judged(monkeypatch):
    """By hand: a similar good one, a known one, one that is not similar, one that is no molecule."""
    sources, near, far = ["CCCCCCCC", "OCCCCCCO"], "CCCCCCCCC", "c1ccncc1"
    prints = morgan_fingerprints([sources[0], near, far])
    alike = tanimoto(prints[:1], prints[1:])[0]
    assert alike[0] >= 0.4 > alike[1]
    monkeypatch.setattr(optimization, "QED", 0.3)
    own, values = properties(sources, "qed"), properties([near, far], "qed")
    assert (values >= 0.3).all()
    attempts = [[near, far, None, None], [far, None, None, None]]
    result = optimization.judged(sources, attempts, {far})
    assert result["validity"] == 3 / 8
    assert result["novelty"] == pytest.approx(1 / 3)
    gains = np.array([values[0] - own[0], values[1] - own[0], values[1] - own[1]])
    assert result["gain"] == pytest.approx(gains.mean())
    assert result["improved"] == pytest.approx((gains > 0).mean())
    assert result["best_gain"] == pytest.approx(max(gains[0], 0) / 2)
    assert result["solved"] == [True, False]
    assert result["success"] == result["success_without_novelty"] == 0.5
    known = optimization.judged(sources, attempts, {near, far})
    assert (known["success"], known["success_without_novelty"]) == (0.0, 0.5)
    monkeypatch.setattr(optimization, "QED", 0.99)
    assert optimization.judged(sources, attempts, set())["success_without_novelty"] == 0.0


def test_baselines():
    targets = ["CCO", "Oc1ccccc1", "Cc1ccccc1O", "CCCC"]
    assert optimization.nearest_targets(["Cc1ccccc1O"], targets, 2) == [["Cc1ccccc1O", "Oc1ccccc1"]]
    made = optimization.mutations("CCCCO", 12, ["C", "N", "O", "(", ")"], np.random.default_rng(0))
    assert len(set(made)) == len(made) == 12
    assert None not in made
    assert "CCCCO" not in made
    assert made == optimization.mutations("CCCCO", 12, ["C", "N", "O", "(", ")"], np.random.default_rng(0))
    assert optimization.mutations("C", 2, ["("], np.random.default_rng(0)) == [None, None]


def test_a_setting_is_chosen_by_validation_success():
    scores = {("paper", 1e-3): 0.1, ("target", 1e-3): 0.4, ("target", 1e-4): 0.4}
    found, shown = optimization.chosen(list(scores), lambda *setting: scores[setting])
    assert found == ("target", 1e-3)
    assert shown == {"paper, 0.001": 0.1, "target, 0.001": 0.4, "target, 0.0001": 0.4}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with few molecules."""
    folder = tmp_path / "data"
    for name in ("pretrain", "optimization", "moleculenet"):
        (folder / name).mkdir(parents=True)
    smiles = [f"CC(=O)Nc1ccc(O{'C' * n}{end})cc1" for n in range(1, 9) for end in ("O", "N", "Cl", "C", "CC1CCNCC1")]
    table = pd.DataFrame({"smiles": smiles, "inchikey_block": list(map(inchikey_block, smiles))})
    table = table.drop_duplicates("inchikey_block")
    table.to_parquet(folder / "pretrain" / "zinc250k.parquet")
    rows = [("qed", part, text) for part in ("valid", "test") for text in smiles[-4:-1]]
    pd.DataFrame(rows, columns=["task", "split", "smiles"]).to_parquet(
        folder / "optimization" / "graph2graph_eval.parquet"
    )
    blocks = pd.DataFrame({"inchikey_block": [inchikey_block(smiles[0])]})
    blocks.to_parquet(folder / "moleculenet" / "benchmark_blocks.parquet")
    monkeypatch.setenv("HF_MOLREP_DATA", str(folder))
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return save_tiny_checkpoint(tmp_path / "writer")


def test_optimization_from_data_to_report(data, tmp_path, monkeypatch):
    monkeypatch.setattr(optimization, "QED", 0.75)
    monkeypatch.setitem(optimization.RULES, "target", ["--target-value", "0.75", "--targets", "3"])
    options = ["--model", data, "--work", "work", "--results", "results", "--steps", "2", "--batch-size", "2"]
    options += ["--attempts", "3", "--threads", "1", "--device", "cpu", "--known", "known.parquet"]
    pd.DataFrame({"smiles": [GOOD]}).to_parquet("known.parquet")
    optimization.main([*options, "--prepare-only"])
    assert not (tmp_path / "results").exists()
    optimization.main(options)
    report = json.loads((tmp_path / "results" / "optimization.json").read_text())
    assert set(report["results"]) == {"pre-trained", "random weights", "nearest targets", "mutation"}
    assert report["results"]["nearest targets"]["novelty"] == 0
    assert report["results"]["mutation"]["validity"] == 1
    assert len(report["choices"]["random weights"]["validation success"]) == 2
    assert set(report["comparisons"]) == {"random weights", "nearest targets", "mutation"}
    fresh, tuned = (
        json.loads((tmp_path / "work" / f"{name}-paper-0.001-2" / "config.json").read_text())
        for name in ("random-weights", "pre-trained")
    )
    assert fresh == tuned
    # nothing is computed twice
    monkeypatch.setattr(optimization, "generate_molecules", None)
    optimization.main(options)
    assert json.loads((tmp_path / "results" / "optimization.json").read_text())["results"] == report["results"]


def test_goal_directed_from_data_to_report(data, tmp_path):
    options = ["--model", data, "--work", "goal", "--results", "results", "--steps", "2", "--batch-size", "4"]
    options += ["--number", "30", "--threads", "1", "--device", "cpu", "--draw", "20", "--wishes", "0.3", "0.8"]
    goal_directed.main(options)
    report = json.loads((tmp_path / "results" / "goal_directed.json").read_text())
    assert set(report["results"]) == {"0.3", "0.8", "without a wish", "checkpoint as it is"}
    assert all(0 < found["valid"] <= 1 and 0 < found["unique"] <= 1 for found in report["results"].values())
    assert -1 <= report["correlation"] <= 1
