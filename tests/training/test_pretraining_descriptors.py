"""`hf-molrep pretrain` with `objective: "descriptors"`: the scaling is fitted once, saved, and kept when resuming."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor

from hf_molrep import METHODS, MolCLRFeatureExtractor
from hf_molrep.models.pretraining import PreTrainingOptions, with_descriptor_scaling
from hf_molrep.training.pretraining import main
from tests.models.laws.hooks import MOLECULES

SIZES = {  # configuration, width of the embedding
    "molclr": ({"embedding_dim": 16, "num_layers": 2, "feature_dim": None}, 16),
    "graphmvp": ({"embedding_dim": 16, "num_layers": 2, "readout": "mean_sum"}, 32),
    "infomax_3d": ({"embedding_dim": 8, "num_layers": 2, "readout": ["mean", "sum"]}, 16),
}


@pytest.fixture
def pretrain(tmp_path, monkeypatch):
    """Pre-train a method on few molecules, one of which cannot be read; returns the folder of the checkpoint."""
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))
    data, size, output = tmp_path / "data.csv", tmp_path / "size.json", tmp_path / "out"
    data.write_text("\n".join(["smiles", *MOLECULES, "C1CC"]))

    def run(method: str, *more: object) -> Path:
        size.write_text(json.dumps(SIZES[method][0] | {"objective": "descriptors"}))
        arguments = ["--train_data", data, "--validation_data", data, "--config", size, "--output_dir", output]
        arguments += ["--max_steps", 3, "--per_device_train_batch_size", 4, "--logging_steps", 1, "--use_cpu"]
        main(method, list(map(str, [*arguments, "--bf16", "False", "--report_to", "none", *more])))
        return output

    return run


@pytest.mark.parametrize("method", SIZES)
def test_the_checkpoint_knows_its_targets(pretrain, method):
    output, width = pretrain(method), SIZES[method][1]
    processor = AutoProcessor.from_pretrained(output)
    fitted = METHODS[method].processor().fit_descriptors(MOLECULES).descriptor_scaling
    assert processor.descriptor_scaling == fitted
    model = AutoModelForPreTraining.from_pretrained(output)
    assert model.config.num_descriptors == len(fitted["names"])
    head = load_file(output / "model.safetensors")["descriptor_head.weight"]
    assert head.shape == (model.config.num_descriptors, width)
    features = processor.featurize({"smiles": MOLECULES})
    assert not {"descriptors", "pos"} & set(features[0])
    with torch.no_grad():
        embedded = AutoModel.from_pretrained(output)(**processor.pad(features))
    assert embedded.pooler_output.shape == (len(MOLECULES), width)
    # evaluation compares all descriptors, of which training asks for 15 %
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    targets = torch.from_numpy(processor.descriptors(MOLECULES))
    with torch.no_grad():
        expected = model(**processor.pad(features), descriptor_targets=targets).loss.item()
    assert history[-1]["eval_loss"] == pytest.approx(expected, rel=1e-4)
    trained = [entry for entry in history if "loss_descriptors" in entry]
    assert trained[0]["loss_descriptors"] == pytest.approx(trained[0]["loss"], abs=1e-4)


def test_the_scaling_is_of_the_data_unless_the_run_resumes(pretrain, tmp_path):
    first = AutoProcessor.from_pretrained(pretrain("molclr", "--save_steps", 2)).descriptor_scaling
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["smiles", *(f"{'C' * length}Cl" for length in range(1, 9))]))
    resumed = pretrain("molclr", "--train_data", other, "--max_steps", 4)
    assert json.loads((resumed / "run.json").read_text())["resumed_from"] == "checkpoint-3"
    assert AutoProcessor.from_pretrained(resumed).descriptor_scaling == first
    anew = AutoProcessor.from_pretrained(pretrain("molclr", "--train_data", other, "--restart"))
    assert anew.descriptor_scaling != first


def test_conformers_are_refused(pretrain):
    with pytest.raises(ValueError, match="uses the graphs that the processor embeds: no num_conformers"):
        pretrain("graphmvp", "--num_conformers", 2)


def test_one_process_fits(pretrain, tmp_path):
    size = tmp_path / "size.json"
    size.write_text('{"objective": "descriptors"}')
    options = PreTrainingOptions(train_data=str(tmp_path / "data.csv"), config=str(size))
    first, second = (
        SimpleNamespace(
            output_dir=str(tmp_path / "out"),
            save_on_each_node=False,
            should_save=should_save,
            main_process_first=lambda **_: nullcontext(),
        )
        for should_save in (True, False)
    )
    with pytest.raises(OSError, match="processor"):  # nothing has been saved that it could load
        with_descriptor_scaling(MolCLRFeatureExtractor(), options, second, None)
    fitted = with_descriptor_scaling(MolCLRFeatureExtractor(), options, first, None)
    loaded = with_descriptor_scaling(MolCLRFeatureExtractor(), options, second, None)
    assert loaded.descriptor_scaling == fitted.descriptor_scaling is not None
    assert with_descriptor_scaling(fitted, options, first, None) is fitted
    other = MolCLRFeatureExtractor()
    without = PreTrainingOptions(train_data=options.train_data)
    assert with_descriptor_scaling(other, without, first, None) is other
    assert other.descriptor_scaling is None
