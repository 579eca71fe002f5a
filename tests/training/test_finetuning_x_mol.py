"""X-MOL through the common fine-tuning: pairs of molecules, and several molecules as the parts of one row."""

import numpy as np
import pytest

from hf_molrep import XMolForInteractionPrediction, XMolForPropertyPrediction
from hf_molrep.training.finetuning import finetune
from hf_molrep.training.labelled_molecules import LabelledMolecules
from hf_molrep.training.settings import FinetuningSettings
from tests.models.x_mol.tiny import save_tiny_checkpoint

MOLECULES = [f"{'C' * carbons}{end}" for carbons in range(1, 5) for end in "ON"]
PAIRS = [(first, second) for first in MOLECULES for second in MOLECULES]
ORDER = np.random.default_rng(0).permutation(len(PAIRS))
SPLIT = {"train": ORDER[:48], "valid": ORDER[48:56], "test": ORDER[56:]}
SETTINGS = FinetuningSettings(epochs=25, learning_rate=3e-3, batch_size=16, bf16=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_pairs_of_molecules(checkpoint):
    """Whether both are alcohols, both amines, or neither: what only the pair tells."""
    kind = np.array([[float(first.endswith("O")) + second.endswith("O")] for first, second in PAIRS])
    first, second = map(list, zip(*PAIRS, strict=True))
    data = LabelledMolecules(
        first,
        kind,
        ["kind"],
        "single_label_classification",
        SPLIT,
        second_smiles=second,
        classes=["no alcohol", "one alcohol", "two alcohols"],
    )
    result = finetune(checkpoint, data, SETTINGS)
    assert isinstance(result.model, XMolForInteractionPrediction)
    assert result.test_metrics["accuracy"] > 0.8


def test_parts_of_a_row(checkpoint):
    """A regression on several molecules, as the yield of a reaction: number of carbons of both."""
    carbons = np.array([[float(first.count("C") + 2 * second.count("C"))] for first, second in PAIRS])
    smiles = list(PAIRS)
    smiles[SPLIT["test"][1]] = ("CCO", "C1CC")
    data = LabelledMolecules(smiles, carbons, ["carbons"], "regression", SPLIT)
    result = finetune(checkpoint, data, SETTINGS)
    assert isinstance(result.model, XMolForPropertyPrediction)
    assert set(result.failures) == {SPLIT["test"][1]}
    assert result.test_metrics["rmse"] < 0.5 * carbons.std()
