"""`hf-molrep pretrain dmp` with BYOL's second network: it follows, is saved, and a stopped run resumes with it."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from hf_molrep import DMPForPreTraining, DMPModel
from hf_molrep.cli import main
from tests.models.laws.hooks import MOLECULES

TOKENIZER = Path(__file__).resolve().parents[2] / "tokenizers" / "dmp"
BRANCHES = {
    "smiles_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    "graph_config": {"hidden_size": 8, "num_hidden_layers": 2},
    "projection_dim": 8,
}


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    pd.DataFrame({"smiles": MOLECULES}).to_parquet("molecules.parquet")
    return tmp_path


def pretrain(output: str, *more: str, **fields) -> list[dict]:
    Path("config.json").write_text(json.dumps(BRANCHES | fields))
    given = ["--train_data", "molecules.parquet", "--config", "config.json", "--processor", str(TOKENIZER)]
    given += ["--output_dir", output, "--max_steps", "3", "--per_device_train_batch_size", "4", "--use_cpu"]
    given += ["--logging_steps", "1", "--save_steps", "1", "--bf16", "False", "--report_to", "none"]
    assert main(["pretrain", "dmp", *given, *more]) == 0
    history = json.loads(Path(output, "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "loss" in entry]


def test_the_second_network_follows_and_resumes():
    decay = 0.75
    log = pretrain("through", momentum_target=True, target_decay=decay)
    names = {"loss_tokens", "loss_atoms", "loss_consistency", "smiles_spread", "graph_spread"}
    assert all(names <= entry.keys() for entry in log)
    models = [DMPForPreTraining.from_pretrained(f"through/checkpoint-{step}") for step in (2, 3)]
    assert [int(model.target_steps) for model in models] == [3, 4]  # the first one copies
    before, after = (model.target["dmp"].smiles_model.embeddings.norm.bias for model in models)
    trained = models[1].dmp.smiles_model.embeddings.norm.bias
    torch.testing.assert_close(after, decay * before + (1 - decay) * trained)
    assert not torch.equal(after, before)
    assert not any("target" in name for name in DMPModel.from_pretrained("through").state_dict())

    Path("stopped").mkdir()
    Path("through/checkpoint-2").rename("stopped/checkpoint-2")
    assert pretrain("stopped", momentum_target=True, target_decay=decay)[-1]["loss"] == log[-1]["loss"]
    resumed = DMPForPreTraining.from_pretrained("stopped").state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in models[1].state_dict().items())


def test_a_checkpoint_without_second_network_gets_one():
    """It begins as the trained network, not at random."""
    pretrain("first")
    config = json.loads(Path("first/config.json").read_text())
    Path("first/config.json").write_text(json.dumps(config | {"momentum_target": True}))
    pretrain("second", "--model", "first", "--learning_rate", "0", momentum_target=True)
    model = DMPForPreTraining.from_pretrained("second")
    pairs = zip(model.target["dmp"].parameters(), model.dmp.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
