"""The example makes vocabularies, trains, and leaves a checkpoint that embeds without making labels."""

import json
import runpy
import sys

import torch
from transformers import AutoModelForPreTraining, AutoProcessor

from tests.models.grover.tiny import MOLECULES


def test_it_runs(repository, tmp_path, monkeypatch, capfd):
    data, size, output = tmp_path / "data.csv", tmp_path / "size.json", tmp_path / "out"
    data.write_text("\n".join(["smiles", *MOLECULES, "C1CC"]))
    size.write_text(json.dumps({"embedding_dim": 16, "num_attention_heads": 2, "depth": 4}))
    arguments = ["--train_data", data, "--validation_data", data, "--config", size, "--output_dir", output]
    arguments += [
        "--max_steps",
        "3",
        "--per_device_train_batch_size",
        "4",
        "--logging_steps",
        "1",
        "--min_frequency",
        "2",
    ]
    arguments += ["--bf16", "False", "--use_cpu", "--report_to", "none"]
    monkeypatch.setattr(sys, "argv", ["pretrain_grover.py", *map(str, arguments)])
    runpy.run_path(str(repository / "examples" / "pretrain_grover.py"), run_name="__main__")
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
