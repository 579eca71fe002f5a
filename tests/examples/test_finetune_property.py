"""The example of fine-tuning with plain `Trainer` runs, and leaves a model that predicts in the units of the labels."""

import runpy
import sys

import numpy as np
import pytest

from hf_molrep.inference.checkpoints import load_finetuned, resolve_checkpoint
from hf_molrep.inference.prediction import predict, task_names
from tests.models.mm_deacon.tiny import save_tiny_checkpoint


@pytest.mark.parametrize("model", ["tiny MM-Deacon", "molclr-gin-mini", "grover-mini"])
def test_it_runs(repository, tmp_path, monkeypatch, capsys, model):
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny") if "tiny" in model else resolve_checkpoint(model)
    output = tmp_path / "out"
    data = tmp_path / "data.csv"
    rings = [f"C1{'C' * (size - 2)}{atom}1" for size in range(3, 9) for atom in "CN"]
    smiles = [f"{chain}{ring}" for ring in rings for chain in ("O", "CO", "CCN")]
    lines = [f"{text},{1000 + text.count('C')}" for text in smiles]
    data.write_text("\n".join(["smiles,value", *lines, "C1CC,5", "CCO,"]))
    arguments = ["--data", data, "--label", "value", "--model", checkpoint, "--output", output, "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", ["finetune_property.py", *map(str, arguments)])
    runpy.run_path(str(repository / "examples" / "finetune_property.py"), run_name="__main__")
    assert "36 of 38 rows are used" in capsys.readouterr().out
    model, processor = load_finetuned(str(output))
    assert task_names(model.config) == ["value"]
    (value,) = next(predict(model, processor, ["OC1CC1"]))
    assert 990 < value < 1020
    assert np.isclose(model.config.label_mean[0], 1004, atol=3)
