"""`finetune`: what it learns, what it selects, how it continues, what it refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, TrainerCallback

from hf_molrep import AutoModelForMoleculePropertyPrediction
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.inference.checkpoints import load_finetuned
from hf_molrep.inference.prediction import predict
from hf_molrep.training.finetuning import FinetuneResult, finetune
from hf_molrep.training.labelled_molecules import LabelledMolecules, label_scale
from hf_molrep.training.loading import config_for_labels, load_model_for_finetuning
from hf_molrep.training.rows import FeatureRows
from hf_molrep.training.settings import FinetuningSettings
from tests.models.mm_deacon.tiny import save_tiny_checkpoint

# Chains and rings of growing size, every second one an alcohol: the label is easily read off the SMILES.
SMILES = [
    ("C" * carbons if not ring else f"C1{'C' * (carbons + 1)}C1") + ("O" if alcohol else "N")
    for carbons in range(1, 21)
    for ring in (False, True)
    for alcohol in (False, True)
]
IS_ALCOHOL = np.array([[float(text.endswith("O"))] for text in SMILES])
CARBONS = np.array([[float(text.count("C"))] for text in SMILES])
ORDER = np.random.default_rng(0).permutation(len(SMILES))
SPLIT = {"train": ORDER[:56], "valid": ORDER[56:68], "test": ORDER[68:]}
QUICK = {"epochs": 2, "learning_rate": 3e-3, "batch_size": 16, "bf16": False}


OF_DATA = {field.name for field in dataclasses.fields(LabelledMolecules)}
OF_SETTINGS = {field.name for field in dataclasses.fields(FinetuningSettings)}


def fit(checkpoint: str, smiles, labels, task_names, problem_type, split, **options) -> FinetuneResult:
    """A run; `options` of the data, of the settings and of `finetune`."""
    data = {name: options.pop(name) for name in OF_DATA & options.keys()}
    settings = FinetuningSettings(**{name: options.pop(name) for name in OF_SETTINGS & options.keys()})
    return finetune(
        checkpoint, LabelledMolecules(smiles, labels, task_names, problem_type, split, **data), settings, **options
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), pre_training=True)


@pytest.fixture(scope="module")
def classified(checkpoint):
    return fit(
        checkpoint,
        SMILES,
        IS_ALCOHOL,
        ["alcohol"],
        "multi_label_classification",
        SPLIT,
        epochs=8,
        learning_rate=3e-3,
        batch_size=8,
        bf16=False,
    )


def test_classification_is_learned(classified):
    assert classified.test_metrics["roc_auc"] > 0.95
    assert classified.test_metrics["per_task"]["alcohol"]["roc_auc"] == classified.test_metrics["roc_auc"]
    assert classified.test_predictions.shape == (len(SPLIT["test"]), 1)
    assert ((classified.test_predictions >= 0) & (classified.test_predictions <= 1)).all()
    assert classified.selected_by == "roc_auc"
    assert (classified.epochs, classified.updates) == (8, 56)
    assert not classified.failures


def test_the_best_epoch_is_kept(classified):
    by_epoch = {
        round(record["epoch"]): record["eval_roc_auc"] for record in classified.history if "eval_roc_auc" in record
    }
    best = max(by_epoch.values())
    assert classified.valid_metrics["roc_auc"] == pytest.approx(best)
    assert classified.best_epoch == min(epoch for epoch, value in by_epoch.items() if value == best)
    assert classified.best_update == 7 * classified.best_epoch


def test_predictions_are_in_the_order_of_the_split(classified):
    molecules = [SMILES[index] for index in SPLIT["test"]]
    again = np.stack(list(predict(classified.model, classified.processor, molecules)))
    np.testing.assert_allclose(classified.test_predictions, again, atol=1e-5)


def test_regression_in_its_units(checkpoint, tmp_path):
    labels = 1000.0 + 50.0 * CARBONS  # far from 0 and 1: without scaling nothing of this could be learned
    result = fit(
        checkpoint,
        SMILES,
        labels,
        ["carbons"],
        "regression",
        SPLIT,
        epochs=20,
        learning_rate=1e-2,
        batch_size=8,
        bf16=True,  # what is reported is float32 all the same
        label_units=["K"],
    )
    train = labels[SPLIT["train"], 0]
    assert result.label_mean == pytest.approx([train.mean()])  # of the training part, not of all
    assert result.label_std == pytest.approx([train.std()])
    assert abs(train.mean() - labels.mean()) > 1e-3
    assert result.selected_by == "rmse"
    constant = np.sqrt(np.mean((labels[SPLIT["test"]] - train.mean()) ** 2))
    assert result.test_metrics["rmse"] < 0.3 * constant
    truth = labels[SPLIT["test"]]
    assert result.test_metrics["rmse"] == pytest.approx(np.sqrt(np.mean((result.test_predictions - truth) ** 2)))

    result.model.save_pretrained(tmp_path)
    loaded = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path)
    assert loaded.config.label_units == ["K"]
    assert loaded.config.id2label == {0: "carbons"}
    molecules = [SMILES[index] for index in SPLIT["test"]]
    again = np.stack(list(predict(loaded, result.processor, molecules)))
    np.testing.assert_allclose(result.test_predictions, again, rtol=1e-5)


def test_missing_labels_and_bad_molecules(checkpoint):
    smiles = list(SMILES)
    bad_train, bad_test = int(SPLIT["train"][3]), int(SPLIT["test"][2])
    smiles[bad_train], smiles[bad_test] = "C1CC", "C" * 200  # a ring left open; too long for the model
    labels = np.hstack([IS_ALCOHOL, CARBONS > 12])
    labels[::3, 1] = np.nan
    labels[SPLIT["train"][0]] = np.nan
    result = fit(checkpoint, smiles, labels, ["alcohol", "large"], "multi_label_classification", SPLIT, **QUICK)
    assert set(result.failures) == {bad_train, bad_test}
    assert all(isinstance(error, MoleculeError) for error in result.failures.values())
    assert np.isnan(result.test_predictions[2]).all()
    assert np.isfinite(np.delete(result.test_predictions, 2, axis=0)).all()
    assert set(result.test_metrics["per_task"]) == {"alcohol", "large"}
    # 56 training molecules, less one that is bad and one without a label: 54 in batches of 16
    assert result.updates == 2 * 4

    shortened = fit(
        checkpoint,
        smiles,
        labels,
        ["alcohol", "large"],
        "multi_label_classification",
        SPLIT,
        truncation=True,
        **QUICK,
    )
    assert shortened.truncated == [bad_test]
    assert np.isfinite(shortened.test_predictions).all()


class _StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_killed_run_continues_to_the_same_result(checkpoint, tmp_path):
    def run(folder, **more):
        options = {"epochs": 4, "learning_rate": 3e-3, "batch_size": 16, "patience": 3}
        options["config_overrides"] = {"classifier_dropout": 0.2, "smiles_config": {"hidden_dropout": 0.1}}
        options["collator_options"] = {"smiles_augmentation": 0.5}
        return fit(checkpoint, SMILES, CARBONS, ["carbons"], "regression", SPLIT, output_dir=folder, **options | more)

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", callbacks=[_StopAt(10)])  # in the third of four epochs of four updates
    continued = run(tmp_path / "killed", resume=True)
    np.testing.assert_array_equal(whole.test_predictions, continued.test_predictions)
    assert [record["epoch"] for record in whole.history] == [record["epoch"] for record in continued.history]

    with pytest.raises(ValueError, match=r"learning_rate was 0\.003 and is 0\.1"):
        run(tmp_path / "killed", resume=True, learning_rate=0.1)
    settings = json.loads((tmp_path / "killed" / "settings.json").read_text())
    assert settings["collator_options"] == {"smiles_augmentation": 0.5}


def test_seed_decides(checkpoint):
    def run(seed):
        options = {**QUICK, "epochs": 1, "seed": seed}
        return fit(checkpoint, SMILES, CARBONS, ["carbons"], "regression", SPLIT, **options).test_predictions

    first = run(0)
    np.testing.assert_array_equal(first, run(0))
    assert not np.array_equal(first, run(1))


def test_patience_stops(checkpoint):
    result = fit(
        checkpoint,
        SMILES,
        CARBONS,
        ["carbons"],
        "regression",
        SPLIT,
        epochs=6,
        learning_rate=0.0,  # nothing is learned, so nothing gets better after the first epoch
        batch_size=16,
        patience=2,
    )
    assert (result.epochs, result.best_epoch) == (3, 1)


def test_without_validation_the_last_epoch_is_kept(checkpoint):
    result = fit(checkpoint, SMILES, CARBONS, ["carbons"], "regression", {"train": np.arange(len(SMILES))}, **QUICK)
    assert result.selected_by == "last epoch"
    assert result.best_epoch == result.epochs == 2
    assert result.test_predictions.shape == (0, 1)
    assert result.test_metrics == {}


def test_selection_where_the_metric_cannot_be_measured(checkpoint):
    alcohols, amines = np.flatnonzero(IS_ALCOHOL[:, 0]), np.flatnonzero(IS_ALCOHOL[:, 0] == 0)
    split = {"train": np.r_[alcohols[5:], amines], "valid": alcohols[:5]}
    arguments = (checkpoint, SMILES, IS_ALCOHOL, ["alcohol"], "multi_label_classification", split)
    assert fit(*arguments, **QUICK).selected_by == "loss"
    with pytest.raises(ValueError, match="cannot measure roc_auc"):
        fit(*arguments, **QUICK, metric="roc_auc")


def test_several_tasks_of_a_regression_are_selected_by_the_scaled_loss(checkpoint):
    labels = np.hstack([CARBONS, 1e6 * CARBONS])
    result = fit(checkpoint, SMILES, labels, ["small", "huge"], "regression", SPLIT, **QUICK)
    assert result.selected_by == "loss"


def test_from_scratch_takes_nothing_but_the_architecture(checkpoint):
    torch.manual_seed(0)
    config = config_for_labels(checkpoint, ["a", "b"], "regression")
    scratch = load_model_for_finetuning(checkpoint, config, from_scratch=True)
    loaded = load_model_for_finetuning(checkpoint, config)
    original = AutoModelForMoleculePropertyPrediction.from_pretrained(checkpoint)
    name = "mm_deacon.smiles_projection.weight"
    assert torch.equal(loaded.get_parameter(name), original.get_parameter(name))
    assert not torch.equal(scratch.get_parameter(name), original.get_parameter(name))
    assert scratch.config.id2label == loaded.config.id2label == {0: "a", 1: "b"}


def test_only_a_trained_head_is_loaded(checkpoint, classified, tmp_path):
    with pytest.raises(ValueError, match="predicts no properties: fine-tune it first"):
        load_finetuned(checkpoint)
    classified.model.save_pretrained(tmp_path)
    classified.processor.save_pretrained(tmp_path)
    model, _ = load_finetuned(str(tmp_path))
    assert torch.equal(model.head.out_proj.weight.cpu(), classified.model.head.out_proj.weight.cpu())
    assert not model.training


def test_a_finetuned_checkpoint_gets_a_new_head(classified, tmp_path):
    classified.model.save_pretrained(tmp_path)
    classified.processor.save_pretrained(tmp_path)
    for tasks in (["solubility"], ["solubility", "pKa"]):
        torch.manual_seed(1)
        scale = {"label_mean": [2.0] * len(tasks), "label_std": [1.0] * len(tasks)}
        model = load_model_for_finetuning(str(tmp_path), config_for_labels(str(tmp_path), tasks, "regression", **scale))
        assert model.config.problem_type == "regression"
        assert model.config.num_labels == len(tasks)
        assert model.head.out_proj.weight.shape == (len(tasks), 16)
        assert not model.head.out_proj.bias.any()  # as initialised
        assert not torch.equal(model.head.dense.weight, classified.model.head.dense.weight)
        assert torch.equal(
            model.mm_deacon.smiles_projection.weight, classified.model.mm_deacon.smiles_projection.weight
        )


def test_a_checkpoint_that_lacks_encoder_weights_is_refused(checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(f"{checkpoint}/model.safetensors")
    gone = [name for name in weights if "smiles_projection" in name]
    save_file(
        {name: value for name, value in weights.items() if name not in gone},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    shutil.copy(f"{checkpoint}/config.json", tmp_path)
    with pytest.raises(ValueError, match="lacks 2 weights of the encoder"):
        load_model_for_finetuning(str(tmp_path), config_for_labels(str(tmp_path), ["a"], "regression"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full((len(SMILES), 1), np.nan)}, "'alcohol' has no label in the training part"),
        ({"labels": IS_ALCOHOL[:-1]}, "labels have shape"),
        ({"labels": IS_ALCOHOL + 1}, "label 'alcohol' of molecule 1 is 2, not 0, 1 or missing"),
        ({"labels": np.full((len(SMILES), 1), np.inf), "problem_type": "regression"}, "is inf, not finite or missing"),
        ({"problem_type": "ranking"}, "problem_type is regression or multi_label_classification or single_label"),
        ({"metric": "rmse"}, "the metric of multi_label_classification is roc_auc, pr_auc or loss, not 'rmse'"),
        ({"split": {"train": [0, 1], "dev": [2]}}, "train, valid and test, not train, dev"),
        ({"split": {"train": [0, 1], "test": [1]}}, "names molecule 1 more than once"),
        ({"split": {"train": [0, len(SMILES)]}}, f"names molecule {len(SMILES)}; there are {len(SMILES)}"),
        ({"split": {"train": [0, -1]}}, "names molecule -1"),
        ({"split": {"train": np.arange(20)}, "patience": 2}, "patience needs a validation part"),
        ({"resume": True}, "resume needs the output_dir"),
    ],
)
def test_bad_arguments(checkpoint, change, message):
    arguments = {"labels": IS_ALCOHOL, "problem_type": "multi_label_classification", "split": SPLIT, **QUICK, **change}
    with pytest.raises(ValueError, match=message):
        fit(checkpoint, SMILES, task_names=["alcohol"], **arguments)


def test_divergence_is_told(checkpoint):
    with pytest.raises(ValueError, match="training has diverged"):
        fit(checkpoint, SMILES, CARBONS, ["carbons"], "regression", SPLIT, **{**QUICK, "learning_rate": 1e30})


def test_label_scale():
    labels = np.array([[1.0, 7.0], [3.0, 7.0], [np.nan, np.nan]])
    assert label_scale(labels) == ([2.0, 7.0], [1.0, 1.0])  # a constant task is not divided by zero


def test_feature_rows_sort_and_come_back():
    rows = FeatureRows([{"row_id": length} for length in (3, 9, 3, 5)], [3, 9, 3, 5])
    longest_first, order = rows.longest_first()
    assert longest_first["length"] == [9, 5, 3, 3]
    assert [rows[place]["row_id"] for place in order] == [row["row_id"] for row in longest_first.rows]


def test_bf16_is_close(checkpoint):
    fp32, bf16 = (
        fit(checkpoint, SMILES, CARBONS, ["carbons"], "regression", SPLIT, **{**QUICK, "bf16": bf16})
        for bf16 in (False, True)
    )
    assert bf16.model.dtype == torch.float32
    assert bf16.test_predictions.dtype == np.float32
    assert not np.array_equal(bf16.test_predictions, fp32.test_predictions)
    np.testing.assert_allclose(bf16.test_predictions, fp32.test_predictions, atol=0.3)


def test_precomputed_features_are_used(checkpoint, monkeypatch):
    processor = AutoProcessor.from_pretrained(checkpoint)
    features = processor.featurize({"smiles": SMILES}, on_error="skip")
    arguments = (checkpoint, SMILES, CARBONS, ["carbons"], "regression", SPLIT)
    expected = fit(*arguments, **QUICK).test_predictions
    monkeypatch.setattr(type(processor), "featurize", None)
    np.testing.assert_array_equal(fit(*arguments, **QUICK, features=features).test_predictions, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is at least 1"),
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"patience": 0}, "patience is at least 1"),
        ({"warmup": 2.0}, "warmup is a fraction"),
        ({"learning_rate": -1.0}, "learning_rate is not negative"),
        ({"lr_scheduler_type": "foo"}, "lr_scheduler_type is one of"),
    ],
)
def test_settings_that_no_run_can_have_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FinetuningSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"collator_options": {"foo": 1}}, "MMDeaconDataCollator has no option foo; it has smiles_augmentation"),
        ({"config_overrides": {"foo": 1}}, "MMDeaconConfig has no field 'foo'"),
        ({"processor_options": {"foo": 1}}, "does not take foo=1"),
    ],
)
def test_a_mistyped_option_leaves_nothing_behind(checkpoint, tmp_path, settings, message):
    """So that the command can be given again, corrected."""
    data = (SMILES, CARBONS, ["carbons"], "regression", SPLIT)
    with pytest.raises(ValueError, match=message):
        fit(checkpoint, *data, **settings, output_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "settings.json").exists()
