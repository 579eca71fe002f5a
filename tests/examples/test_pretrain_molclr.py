"""The example trains wherever it is called and leaves a checkpoint that embeds; processors that nothing names."""

import json
import runpy
import shlex
import sys

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from hf_molrep.cli import main
from hf_molrep.configuration import check_fields
from hf_molrep.models.auto import METHODS

MOLECULES = ["CCO", "COc1ccccc1", "C[C@H](N)C(=O)O", "C/C=C/C", "COC", "Cc1ccccc1O", "CC(=O)NCO", "CC(C)=C"]


def test_it_runs(repository, tmp_path, monkeypatch, capfd):
    data, size, output = tmp_path / "data.csv", tmp_path / "size.json", tmp_path / "out"
    data.write_text("\n".join(["smiles", *MOLECULES, "C1CC"]))
    size.write_text(json.dumps({"embedding_dim": 16, "num_layers": 2, "feature_dim": 24, "projection_dim": 8}))
    arguments = ["--train_data", data, "--validation_data", data, "--config", size, "--output_dir", output]
    arguments += ["--max_steps", 3, "--per_device_train_batch_size", 4, "--logging_steps", 1, "--report_to", "none"]
    arguments += ["--bf16", "False", "--use_cpu", "--collator", '{"augmentation": "subgraph"}']
    monkeypatch.setattr(sys, "argv", ["pretrain_molclr.py", *map(str, arguments)])
    monkeypatch.chdir(tmp_path)  # no folder tokenizers/ here
    runpy.run_path(str(repository / "examples" / "pretrain_molclr.py"), run_name="__main__")
    assert "1 of 9 rows refused" in capfd.readouterr().err
    logged = [
        entry for entry in json.loads((output / "trainer_state.json").read_text())["log_history"] if "loss" in entry
    ]
    assert [entry["step"] for entry in logged] == [1, 2, 3]
    assert all(0 < entry["loss"] < 10 for entry in logged)
    run = json.loads((output / "run.json").read_text())
    assert shlex.split(run["command"]) == ["hf-molrep", "pretrain", "molclr", *sys.argv[1:]]  # as a shell reads it
    assert (run["steps"], run["train_rows"]) == (3, 8)
    model, processor = AutoModel.from_pretrained(output).eval(), AutoProcessor.from_pretrained(output)
    with torch.no_grad():
        embeddings = model(**processor(MOLECULES, return_tensors="pt")).pooler_output
    assert embeddings.shape == (8, 24)
    assert embeddings.isfinite().all()
    assert embeddings.unique(dim=0).shape == (8, 24)
    check_fields(type(model.config), json.loads((output / "config.json").read_text()))  # as Trainer writes it


@pytest.mark.parametrize("method", ["molclr", "uni_mol"])
def test_default_settings_are_those_of_the_folder(repository, method):
    processor = METHODS[method].processor
    saved = processor.from_pretrained(repository / "tokenizers" / method).to_dict()
    assert {key: value for key, value in saved.items() if key != "auto_map"} == processor().to_dict()


def test_missing_tokenizers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "mm_deacon", "--train_data", "pairs.csv", "--output_dir", "out", "--use_cpu"]) == 2
    told = capsys.readouterr().err
    assert "no folder tokenizers/mm_deacon" in told
    assert "huggingface.co" not in told
