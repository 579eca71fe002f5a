"""`hf-molrep pretrain` with `objective: "descriptors"`: the scaling is fitted once, saved, and kept when resuming."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor

from hf_molrep import MolCLRFeatureExtractor
from hf_molrep.models.pretraining import PreTrainingOptions, with_descriptor_scaling
from hf_molrep.training.pretraining import main
from tests.models.laws.hooks import MOLECULES

SIZE = {"objective": "descriptors", "feature_dim": None, "embedding_dim": 16, "num_layers": 2}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Data, size of the model and output, as options."""
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    data, size = tmp_path / "data.csv", tmp_path / "size.json"
    data.write_text("\n".join(["smiles", *MOLECULES, "C1CC"]))
    size.write_text(json.dumps(SIZE))
    return ["--train_data", data, "--validation_data", data, "--config", size, "--output_dir", tmp_path / "out"]


def pretrain(files: list, *more: object) -> Path:
    arguments = [*files, "--max_steps", 3, "--per_device_train_batch_size", 4, "--logging_steps", 1, "--use_cpu"]
    main("molclr", list(map(str, [*arguments, "--bf16", "False", "--report_to", "none", *more])))
    return Path(files[-1])


def test_the_checkpoint_knows_its_targets(files):
    output = pretrain(files)
    processor = AutoProcessor.from_pretrained(output)
    learned = MolCLRFeatureExtractor().fit_descriptors(MOLECULES)
    assert processor.descriptor_scaling == learned.descriptor_scaling
    model = AutoModelForPreTraining.from_pretrained(output)
    assert model.config.num_descriptors == len(learned.descriptor_scaling["names"])
    assert load_file(output / "model.safetensors")["descriptor_head.weight"].shape == (model.config.num_descriptors, 16)
    assert "descriptors" not in processor.featurize({"smiles": MOLECULES})[0]
    with torch.no_grad():
        embedded = AutoModel.from_pretrained(output)(**processor(MOLECULES, return_tensors="pt"))
    assert embedded.pooler_output.shape == (len(MOLECULES), 16)


def test_the_scaling_is_of_the_data_unless_the_run_goes_on(files, tmp_path):
    first = AutoProcessor.from_pretrained(pretrain(files, "--save_steps", 2)).descriptor_scaling
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["smiles", *(f"{'C' * length}Cl" for length in range(1, 9))]))
    resumed = pretrain(files, "--train_data", other, "--max_steps", 4)
    assert json.loads((resumed / "run.json").read_text())["resumed_from"] == "checkpoint-3"
    assert AutoProcessor.from_pretrained(resumed).descriptor_scaling == first
    anew = AutoProcessor.from_pretrained(pretrain(files, "--train_data", other, "--restart"))
    assert anew.descriptor_scaling != first


def test_one_process_learns(files, tmp_path):
    options = PreTrainingOptions(train_data=str(files[1]), config=str(files[5]))
    first, second = (
        SimpleNamespace(
            output_dir=str(tmp_path / "out"),
            save_on_each_node=False,
            should_save=should_save,
            main_process_first=lambda **_: nullcontext(),
        )
        for should_save in (True, False)
    )
    with pytest.raises(OSError, match="processor"):  # what it waits for is not there
        with_descriptor_scaling(MolCLRFeatureExtractor(), options, second, None)
    learned = with_descriptor_scaling(MolCLRFeatureExtractor(), options, first, None)
    waited = with_descriptor_scaling(MolCLRFeatureExtractor(), options, second, None)
    assert waited.descriptor_scaling == learned.descriptor_scaling is not None
    assert with_descriptor_scaling(learned, options, first, None) is learned
    other = MolCLRFeatureExtractor()
    without = PreTrainingOptions(train_data=str(files[1]))
    assert with_descriptor_scaling(other, without, first, None) is other
    assert other.descriptor_scaling is None
