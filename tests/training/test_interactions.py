"""Fine-tuning on pairs of molecules: what is learned, what is measured, what is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from hf_molrep import AutoModelForMoleculeInteractionPrediction, MMDeaconForInteractionPrediction
from hf_molrep.training.finetuning import finetune
from hf_molrep.training.labelled_molecules import LabelledMolecules
from hf_molrep.training.settings import FinetuningSettings
from tests.models.mm_deacon.tiny import save_tiny_checkpoint
from tests.models.molclr.tiny import tiny_config as tiny_molclr
from tests.training.test_finetuning import _StopAt

# Alcohols and amines with each other: the kind of a pair is read off both SMILES.
MOLECULES = [f"{'C' * carbons}{end}" for carbons in range(1, 7) for end in "ON"]
PAIRS = [(first, second) for first in MOLECULES for second in MOLECULES]
FIRST, SECOND = map(list, zip(*PAIRS, strict=True))
KINDS = ["no alcohol", "one alcohol", "two alcohols"]
KIND = np.array([[float(first.endswith("O")) + second.endswith("O")] for first, second in PAIRS])
ORDER = np.random.default_rng(0).permutation(len(PAIRS))
SPLIT = {"train": ORDER[:104], "valid": ORDER[104:124], "test": ORDER[124:]}
SETTINGS = FinetuningSettings(epochs=20, learning_rate=1e-2, batch_size=16, bf16=False)


def kinds(**changes) -> LabelledMolecules:
    arguments = {"smiles": FIRST, "labels": KIND, "task_names": ["kind"], "split": SPLIT, "second_smiles": SECOND}
    arguments |= {"problem_type": "single_label_classification", "classes": KINDS}
    return LabelledMolecules(**arguments | changes)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), pre_training=True, interaction_symmetric=True)


@pytest.fixture(scope="module")
def learned(checkpoint):
    smiles, labels = list(FIRST), KIND.copy()
    smiles[SPLIT["test"][1]] = "C1CC"  # a ring left open
    labels[SPLIT["valid"][:2]] = np.nan
    return finetune(checkpoint, kinds(smiles=smiles, labels=labels), SETTINGS)


def test_classes_are_learned(learned):
    assert learned.task == "interaction-prediction"
    assert isinstance(learned.model, MMDeaconForInteractionPrediction)
    assert learned.model.config.id2label == dict(enumerate(KINDS))
    assert learned.classes == KINDS
    assert learned.selected_by == "macro_f1"
    assert learned.test_metrics["accuracy"] > 0.9
    assert learned.test_metrics["macro_f1"] > 0.9
    assert learned.test_predictions.shape == (len(SPLIT["test"]), 3)
    assert set(learned.failures) == {SPLIT["test"][1]}
    assert np.isnan(learned.test_predictions[1]).all()
    used = np.delete(learned.test_predictions, 1, axis=0)
    np.testing.assert_allclose(used.sum(axis=1), 1.0, atol=1e-5)
    truth = np.delete(KIND[SPLIT["test"], 0], 1)
    assert learned.test_metrics["accuracy"] == pytest.approx((used.argmax(axis=1) == truth).mean())


def test_both_molecules_reach_the_model(learned, tmp_path):
    learned.model.save_pretrained(tmp_path)
    model, processor = AutoModelForMoleculeInteractionPrediction.from_pretrained(tmp_path).eval(), learned.processor
    pairs = [PAIRS[index] for index in SPLIT["test"][2:6]]
    first, second = (processor(list(smiles), return_tensors="pt") for smiles in zip(*pairs, strict=True))
    second = {f"second_{key}": value for key, value in second.items()}
    with torch.no_grad():
        expected = model(**first, **second).predictions.numpy()
    np.testing.assert_allclose(learned.test_predictions[2:6], expected, atol=1e-5)


def test_labels_of_0_and_1_with_gaps(checkpoint):
    labels = np.hstack([KIND > 0, KIND > 1]).astype(float)
    labels[::3, 1] = np.nan
    data = kinds(labels=labels, task_names=["any", "both"], problem_type="multi_label_classification", classes=())
    # by the loss: on so few molecules the area of an untrained head may be 1 by chance
    settings = dataclasses.replace(SETTINGS, epochs=30, learning_rate=5e-3, metric="loss")
    result = finetune(checkpoint, data, settings)
    assert set(result.test_metrics["per_task"]) == {"any", "both"}
    assert result.test_metrics["roc_auc"] > 0.9
    assert result.model.config.id2label == {0: "any", 1: "both"}


def test_a_killed_run_continues_to_the_same_result(checkpoint, tmp_path):
    settings = FinetuningSettings(epochs=3, learning_rate=1e-2, batch_size=35, bf16=False)
    whole = finetune(checkpoint, kinds(), settings, output_dir=tmp_path / "whole")
    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        finetune(checkpoint, kinds(), settings, output_dir=killed, callbacks=[_StopAt(5)])
    continued = finetune(checkpoint, kinds(), settings, output_dir=killed, resume=True)
    np.testing.assert_array_equal(whole.test_predictions, continued.test_predictions)
    with pytest.raises(ValueError, match=r"data was '\w+' and is '\w+'"):
        finetune(checkpoint, kinds(second_smiles=FIRST), settings, output_dir=killed, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem_type": "regression", "classes": ()}, "interaction-prediction is multi_label_classification or"),
        ({"second_smiles": None}, "property-prediction is regression or multi_label_classification, not 'single"),
        ({"second_smiles": SECOND[:-1]}, "144 first and 143 second molecules"),
        ({"labels": KIND + 1}, "is 3, not one of 3 classes or missing"),
        ({"classes": KINDS[:1]}, "one label column and two or more classes"),
        ({"z": [[6]] * 144, "pos": [[0.0] * 3] * 144}, "those of one molecule per row"),
    ],
)
def test_bad_data(changes, message):
    with pytest.raises(ValueError, match=message):
        kinds(**changes)


def test_a_method_without_the_task(tmp_path):
    tiny_molclr().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="molclr has no model for interaction-prediction"):
        finetune(str(tmp_path), kinds())


def test_a_metric_of_another_problem(checkpoint):
    with pytest.raises(ValueError, match="the metric of single_label_classification is macro_f1, accuracy or loss"):
        finetune(checkpoint, kinds(), FinetuningSettings(metric="roc_auc"))
