"""`hf-molrep pretrain grover` learns vocabularies, trains, and leaves a checkpoint that embeds without labels."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForPreTraining, AutoProcessor

from hf_molrep import GroverFeatureExtractor
from hf_molrep.cli import main as command
from hf_molrep.models.grover.pretraining_grover import GroverPreTrainingOptions, with_labels, with_vocabularies
from hf_molrep.training.pretraining import main
from tests.models.grover.tiny import MOLECULES, save_tiny_checkpoint, tiny_processor


@pytest.fixture
def files(tmp_path):
    """Data, size of the model and output, as options."""
    data, size = tmp_path / "data.csv", tmp_path / "size.json"
    data.write_text("\n".join(["smiles", *MOLECULES, "C1CC"]))
    size.write_text(json.dumps({"embedding_dim": 16, "num_attention_heads": 2, "depth": 4}))
    return ["--train_data", data, "--validation_data", data, "--config", size, "--output_dir", tmp_path / "out"]


@pytest.fixture
def pretrain(tmp_path, files):
    """Three steps of a tiny model with so many molecules in a batch; the folder of the checkpoint."""
    arguments = [*files, "--max_steps", 3, "--logging_steps", 1, "--bf16", "False", "--use_cpu", "--report_to", "none"]

    def run(batch_size: int, *more) -> Path:
        size = arguments.index("--config")
        given = arguments[:size] + arguments[size + 2 :] if "--model" in more else arguments
        main("grover", list(map(str, [*given, "--per_device_train_batch_size", batch_size, *more])))
        return tmp_path / "out"

    return run


def test_it_runs(pretrain, capfd):
    output = pretrain(4, "--min_frequency=2")
    assert "1 of 9 rows refused" in capfd.readouterr().err
    model, processor = AutoModelForPreTraining.from_pretrained(output), AutoProcessor.from_pretrained(output)
    learned = GroverFeatureExtractor().learn(MOLECULES, min_frequency=2)
    assert processor.atom_vocabulary == learned.atom_vocabulary
    assert len(processor.atom_vocabulary) == model.config.atom_vocab_size > 2
    assert not processor.context_labels
    with torch.no_grad():
        assert model(**processor(MOLECULES, return_tensors="pt")).embeddings["atom_from_bond"].shape == (8, 16)
    logged = [
        entry for entry in json.loads((output / "trainer_state.json").read_text())["log_history"] if "loss" in entry
    ]
    assert {"loss_atom_context_from_bond", "loss_motif_disagreement"} <= logged[0].keys()


def test_vocabularies_are_of_the_data_unless_the_run_goes_on(pretrain, tmp_path):
    first = AutoProcessor.from_pretrained(pretrain(4, "--min-frequency", 2, "--save_steps", 2)).atom_vocabulary
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["smiles", *(f"{text}Cl" for text in ("C", "CC", "CCC", "CCCC"))]))
    resumed = pretrain(4, "--train_data", other, "--max_steps", 4)
    assert json.loads((resumed / "run.json").read_text())["resumed_from"] == "checkpoint-3"
    assert AutoProcessor.from_pretrained(resumed).atom_vocabulary == first
    anew = AutoProcessor.from_pretrained(pretrain(4, "--train_data", other, "--restart"))
    assert any("Cl" in context for context in anew.atom_vocabulary)


def test_one_process_learns(tmp_path, files):
    options = GroverPreTrainingOptions(train_data=str(files[1]))
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
        with_vocabularies(GroverFeatureExtractor(), options, second, None)
    learned = with_vocabularies(GroverFeatureExtractor(), options, first, None)
    saved = (tmp_path / "out" / "processor" / "preprocessor_config.json").stat().st_mtime_ns
    assert with_vocabularies(GroverFeatureExtractor(), options, second, None).atom_vocabulary == learned.atom_vocabulary
    assert (tmp_path / "out" / "processor" / "preprocessor_config.json").stat().st_mtime_ns == saved


def test_labels_are_computed_beside_the_processor_that_is_saved():
    extractor = tiny_processor()
    (labelled,) = with_labels(extractor, None).featurize({"smiles": ["CCO"]})
    assert {"atom_context", "bond_context", "motifs"} <= labelled.keys()
    assert not extractor.context_labels


def test_going_on_from_a_checkpoint(pretrain, tmp_path):
    """Its own vocabularies are used, whatever the data; those that do not fit its heads are refused."""
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny", pre_training=True)
    output = pretrain(4, "--model", checkpoint, "--min_frequency", 2)
    assert AutoProcessor.from_pretrained(output).atom_vocabulary == tiny_processor().atom_vocabulary
    assert not (output / "processor").exists()
    other = save_tiny_checkpoint(tmp_path / "other", pre_training=True, atom_vocab_size=4)
    size = len(tiny_processor().atom_vocabulary)
    with pytest.raises(ValueError, match=rf"does not fit the model, it has atom_vocab_size {size}, not 4"):
        pretrain(4, "--model", other, "--restart")
    GroverFeatureExtractor().save_pretrained(other)
    with pytest.raises(ValueError, match=r"no vocabularies of contexts.*those that it was trained with"):
        pretrain(4, "--model", other, "--restart")


def test_the_command_with_a_processor(files, tmp_path):
    """Its vocabularies are used, none are learned; the checkpoint computes no labels."""
    tiny_processor().save_pretrained(tmp_path / "extractor")
    options = ["--processor", tmp_path / "extractor", "--max_steps", 1, "--per_device_train_batch_size", 4]
    assert command(["pretrain", "grover", *map(str, [*files, *options, "--use_cpu", "--report_to", "none"])]) == 0
    assert not AutoProcessor.from_pretrained(tmp_path / "out").context_labels
    assert not (tmp_path / "out" / "processor").exists()
