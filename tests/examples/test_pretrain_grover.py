"""The example makes vocabularies, trains, and leaves a checkpoint that embeds without making labels."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForPreTraining, AutoProcessor

from tests.models.grover.tiny import MOLECULES


@pytest.fixture
def pretrain(repository, tmp_path, monkeypatch):
    """Three steps of a tiny model with so many molecules in a batch; the folder of the checkpoint."""
    data, size, output = tmp_path / "data.csv", tmp_path / "size.json", tmp_path / "out"
    data.write_text("\n".join(["smiles", *MOLECULES, "C1CC"]))
    size.write_text(json.dumps({"embedding_dim": 16, "num_attention_heads": 2, "depth": 4}))
    arguments = ["--train_data", data, "--validation_data", data, "--config", size, "--output_dir", output]
    arguments += ["--max_steps", 3, "--logging_steps", 1, "--min_frequency", 2]
    arguments += ["--bf16", "False", "--use_cpu", "--report_to", "none", "--per_device_train_batch_size"]

    def run(batch_size: int) -> Path:
        monkeypatch.setattr(sys, "argv", ["pretrain_grover.py", *map(str, arguments), str(batch_size)])
        runpy.run_path(str(repository / "examples" / "pretrain_grover.py"), run_name="__main__")
        return output

    return run


def test_it_runs(pretrain, capfd):
    output = pretrain(4)
    assert "1 of 9 rows refused" in capfd.readouterr().err
    model, processor = AutoModelForPreTraining.from_pretrained(output), AutoProcessor.from_pretrained(output)
    assert len(processor.atom_vocabulary) == model.config.atom_vocab_size > 2
    assert not processor.context_labels
    with torch.no_grad():
        assert model(**processor(MOLECULES, return_tensors="pt")).embeddings["atom_from_bond"].shape == (8, 16)
    logged = [
        entry for entry in json.loads((output / "trainer_state.json").read_text())["log_history"] if "loss" in entry
    ]
    assert {"loss_atom_context_from_bond", "loss_motif_disagreement"} <= logged[0].keys()


def test_fewer_molecules_than_a_batch(pretrain):
    with pytest.raises(ValueError, match="8 molecules to train on do not fill one batch of 9"):
        pretrain(9)
