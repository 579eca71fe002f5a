"""`hf-molrep pretrain infomax_3d`, with each objective; fine-tuning and embedding with what it leaves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForPreTraining, AutoProcessor, TrainingArguments

from hf_molrep import Infomax3DFeatureExtractor, Infomax3DForPropertyPrediction
from hf_molrep.cli import main as command
from hf_molrep.training.pretraining import main
from hf_molrep.training.trainer import MoleculeTrainer, stage_factor
from tests.models.infomax_3d.tiny import tiny_config

MOLECULES = ["CCO", "CO", "C#N", "CC(=O)O", "CN", "CC", "OCC=O", "CCN"]


@pytest.fixture(scope="module")
def molecules(tmp_path_factory) -> Path:
    """Molecules with coordinates and a property, a salt, and one with another molecule's coordinates."""
    folder = tmp_path_factory.mktemp("molecules")
    extractor = Infomax3DFeatureExtractor(explicit_hydrogens=True, num_conformers=1, force_field="none")
    extractor.conformers.cache = None
    features = extractor.featurize({"smiles": MOLECULES})
    z = [feature["z"].tolist() for feature in features]
    pos = [feature["pos"].tolist() for feature in features]
    columns = {
        "smiles": [*MOLECULES, "[Na+].[Cl-]", "CCC"],
        "atomic_numbers": [*z, [11, 17], z[0]],
        "coordinates": [*pos, [0.0, 0, 0, 2.4, 0, 0], pos[0]],
        "homo": [float(number) for number in range(8)] + [0.0, float("nan")],
    }
    pq.write_table(pa.table(columns), folder / "molecules.parquet")
    pq.write_table(pa.table({"smiles": columns["smiles"][:9]}), folder / "smiles.parquet")
    return folder


@pytest.fixture
def pretrain(tmp_path, molecules, monkeypatch):
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))

    def run(data: str, *more, **fields) -> Path:
        size = tmp_path / "size.json"
        tiny = {"embedding_dim": 8, "num_layers": 2, "readout_dim": 8, "projection_dim": 6, "net_3d_dim": 6}
        size.write_text(json.dumps({**tiny, **fields}))
        arguments = ["--train_data", molecules / data, "--config", size, "--output_dir", tmp_path / "out"]
        arguments += ["--max_steps", 2, "--logging_steps", 1, "--bf16", "False", "--use_cpu", "--report_to", "none"]
        main("infomax_3d", list(map(str, [*arguments, "--per_device_train_batch_size", 4, *more])))
        return tmp_path / "out"

    return run


def logged(folder: Path) -> dict:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return next(entry for entry in history if "loss" in entry)


def test_contrast_then_fine_tuning_and_embedding(pretrain, molecules, tmp_path, capfd):
    """Given coordinates, several conformers; what has none is left out and named; the result reads graphs alone."""
    options = ["--explicit_hydrogens", "true", "--validation_data", molecules / "molecules.parquet"]
    output = pretrain("molecules.parquet", *options, num_conformers=2)
    printed = capfd.readouterr().err
    assert "training data: 1 of 10 rows refused" in printed
    assert "'CCC'" in printed
    assert "training data: 9 of 9 rows have fewer conformers than 2" in printed
    assert logged(output)["loss_contrastive"] == pytest.approx(logged(output)["loss"], abs=1e-4)
    run = json.loads((output / "run.json").read_text())
    assert (run["train_rows"], np.isfinite(run["metrics"]["eval_loss"])) == (9, True)
    processor = AutoProcessor.from_pretrained(output)
    assert (processor.explicit_hydrogens, processor.num_conformers) == (True, 0)
    assert AutoModelForPreTraining.from_pretrained(output).config.num_conformers == 2

    table = tmp_path / "labels.csv"
    rows = [f"{smiles},{number}" for number, smiles in enumerate([*MOLECULES, "[Na+].[Cl-]", "CCCO"])]
    table.write_text("\n".join(["smiles,homo", *rows]))
    tuning = ["finetune", str(table), "--model", str(output), "--labels", "homo", "--output", str(tmp_path / "tuned")]
    assert command([*tuning, "--split", "random", "--epochs", "1", "--batch-size", "4", "--quiet"]) == 0
    tuned = Infomax3DForPropertyPrediction.from_pretrained(tmp_path / "tuned")
    assert tuned.config.id2label == {0: "homo"}
    assert command(["embed", str(table), str(tmp_path / "embedded.parquet"), "--model", str(output)]) == 0
    embedded = pq.read_table(tmp_path / "embedded.parquet")["embedding"].to_pylist()
    assert [len(embedding) for embedding in embedded] == [24] * 10


@pytest.mark.parametrize(
    ("objective", "data", "options", "term"),
    [
        ("contrastive", "smiles.parquet", [], "contrastive"),  # conformers are computed
        ("distance_prediction", "molecules.parquet", [], "distance"),
        ("graph_contrast", "smiles.parquet", ["--collator", '{"augmentation": "random"}'], "contrastive"),
    ],
)
def test_objectives(pretrain, objective, data, options, term, capfd):
    output = pretrain(data, *options, objective=objective)
    assert logged(output)[f"loss_{term}"] == pytest.approx(logged(output)["loss"], abs=1e-4)
    refused = "1 of 9 rows refused" in (printed := capfd.readouterr().err)
    assert refused == (objective == "contrastive")  # without coordinates a salt has no conformer
    assert ("row 8, '[Na+].[Cl-]'" in printed) == refused


@pytest.mark.parametrize("choice", ["joao", "joao_v2"])
def test_joao(pretrain, choice):
    """The distribution moves after each epoch, stays one, and a resumed run ends as an uninterrupted one."""
    fields = {"objective": "graph_contrast", "augmentation_choice": choice, "joao_share": 0.5, "joao_step": 0.01}
    options = ["--save_steps", 2, "--max_steps", 6, "--collator", '{"changed_share": 0.5}']  # two batches an epoch
    output = pretrain("smiles.parquet", *options, **fields)
    expected = AutoModelForPreTraining.from_pretrained(output)
    halfway = AutoModelForPreTraining.from_pretrained(output / "checkpoint-4").augmentation_probabilities
    found = expected.augmentation_probabilities
    for probabilities in (halfway, found):
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
        assert (probabilities >= 0).all()
    assert (halfway - 0.04).abs().max() > 1e-4
    assert (found - halfway).abs().max() > 1e-4
    for step in (4, 6):  # resumes between two epochs
        shutil.rmtree(output / f"checkpoint-{step}")
    pretrain("smiles.parquet", *options, **fields)
    resumed = AutoModelForPreTraining.from_pretrained(output).state_dict()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(resumed[name], value, msg=name)


def test_properties(pretrain):
    """Names and scale of the labels are those of the data; none, or for another objective, are refused."""
    output = pretrain("molecules.parquet", "--labels", "homo", objective="property_prediction")
    config = AutoModelForPreTraining.from_pretrained(output).config
    assert config.id2label == {0: "homo"}
    values = np.array([*range(8), 0.0])  # the salt needs no conformer
    assert config.label_mean == pytest.approx([values.mean()])
    assert config.label_std == pytest.approx([values.std()])
    assert "loss_property" in logged(output)
    with pytest.raises(ValueError, match="'property_prediction' needs --labels"):
        pretrain("molecules.parquet", "--restart", objective="property_prediction")
    with pytest.raises(ValueError, match="'contrastive' learns no labels"):
        pretrain("molecules.parquet", "--restart", "--labels", "homo")


def test_stages_of_warming_up():
    """One after the other, each linear; in a short run all of them together take 30 %."""
    factors = [[stage_factor([2, 4, 2], stage, update, 100) for update in range(10)] for stage in range(3)]
    assert factors[0] == [0.5] + [1.0] * 9
    assert factors[1] == [0.0, 0.0, 0.25, 0.5, 0.75] + [1.0] * 5
    assert factors[2] == [0.0] * 6 + [0.5, 1.0, 1.0, 1.0]
    assert [stage_factor([700, 700, 390], 2, update, 10) for update in (0, 1, 3)] == [0.0, 0.0, 1.0]
    assert stage_factor([0, 5, 5], 0, 0, 100) == 1.0


def test_stages_move_parameters_one_after_the_other(tmp_path):
    """Batch norms, head, the rest: what stands still does not change by a bit."""
    processor = Infomax3DFeatureExtractor()
    features = processor.featurize({"smiles": MOLECULES})
    rows = [{**feature, "labels": [float(number)]} for number, feature in enumerate(features)]
    torch.manual_seed(0)
    model = Infomax3DForPropertyPrediction(tiny_config(num_labels=1, unfreezing_steps=[1, 1, 1]))
    model.begin_transfer()
    stages = [names for names, _ in model.warmup_stages]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def trainer(steps: int, **options) -> MoleculeTrainer:
        from hf_molrep import Infomax3DDataCollator

        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=5,  # of two updates: the stages are the first three
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            remove_unused_columns=False,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            **options,
        )
        found = MoleculeTrainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=rows,
            data_collator=Infomax3DDataCollator(processor),
        )

        def stop(args, state, control, **kwargs):
            control.should_training_stop = state.global_step >= steps

        found.callback_handler.callbacks[0].on_step_end = stop
        return found

    for steps in (1, 2, 3):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name])
        trainer(steps).train()
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        still = {name for names in stages[steps:] for name in names}
        assert not moved & still
        for names in stages[:steps]:
            assert moved & set(names)
    with pytest.raises(ValueError, match="warms up in stages, which lr_scheduler_type"):
        trainer(1, lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="epoch").train()
