"""`hf-molrep finetune` trains a model of conformers, and the benchmark measures it, on what it has not seen."""

import json

import pytest

from benchmarks import conformer_generation
from hf_molrep import UniMolFeatureExtractor, UniMolForPreTraining
from hf_molrep.chem.conformers import generate_conformers
from hf_molrep.cli import main
from hf_molrep.data.conformer_pairs import Ensemble
from tests.data.test_conformer_pairs import write_table
from tests.models.uni_mol.tiny import tiny_config


def test_command_and_benchmark(tmp_path):
    table, output, cache = tmp_path / "table.parquet", tmp_path / "model", tmp_path / "cache"
    write_table(table, {f"molecule {size}": f"OCC1{'C' * (size - 2)}N1" for size in range(3, 13)})
    start = tmp_path / "start"
    UniMolForPreTraining(tiny_config(num_recycles=2, hydrogens="none")).save_pretrained(start)
    UniMolFeatureExtractor(hydrogens="none").save_pretrained(start)
    command = ["finetune", table, "--task", "conformer-generation", "--model", start, "--output", output, "--quiet"]
    assert main([*map(str, command), "--cache", str(cache), "--pool", "2", "--epochs", "1"]) == 0
    seen = json.loads((output / "conformer_training.json").read_text())["names"]
    assert len(seen) == 9  # of training, and of validation, which chose the epoch

    arguments = ["--data", table, "--cache", cache, "--pool_per_conformer", 1, "--results", tmp_path, "--threads", 1]
    arguments = [*map(str, arguments), "--thresholds", "0.01", "100", "--model", str(output)]
    assert conformer_generation.main(arguments) == 0
    found = json.loads((tmp_path / "conformer_generation.json").read_text())
    molecules = found["molecules"]
    assert list(molecules) == ["RDKit, minimised", "RDKit + clustering", "RDKit + clustering + model"]
    for scores in molecules.values():
        (score,) = scores
        assert score["name"] not in seen
        assert score["cov_recall"][1] == score["cov_precision"][1] == 1.0
        assert 0 < score["mat_recall"] < 2
    before, after = (molecules[name][0]["mat_recall"] for name in list(molecules)[1:])
    assert found["change"]["recall"][0] == pytest.approx(after - before)
    page = (tmp_path / "conformer_generation.md").read_text()
    assert "1 of 1 molecules of the test part (scaffold split of 10 molecules)" in page
    assert "The model turned over the stereo of 0 of 4 conformers." in page

    with pytest.raises(SystemExit, match="was trained on 8 of the molecules"):
        conformer_generation.main([*arguments, "--part", "train"])


def test_stereo_that_a_model_turns_over_is_counted():
    smiles = ["C[C@H](N)C(=O)O", "CCO"]
    starts = generate_conformers(smiles, num_conformers=3, hydrogens="none", cache=None)
    mirrored = [start._replace(pos=start.pos * [-1, 1, 1]) for start in starts]
    ensembles = [Ensemble(text, text, start) for text, start in zip(smiles, starts, strict=True)]
    assert conformer_generation.stereo_lost(ensembles, starts, starts) == (6, 0)
    assert conformer_generation.stereo_lost(ensembles, starts, mirrored) == (6, 3)
    assert conformer_generation.stereo_lost(ensembles, mirrored, starts) == (3, 0)
