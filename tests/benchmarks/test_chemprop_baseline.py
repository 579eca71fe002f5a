"""chemprop as a column of the MoleculeNet benchmark, where it is installed."""

import numpy as np
import pytest
import torch

from benchmarks.chemprop_baseline import fit_chemprop
from hf_molrep.chem.smiles import parse

pytest.importorskip("chemprop", reason="a column for those who install it")
# what it imports is not ours to mend
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def one_thread():
    """Several add up in whichever order they come, and a run is no longer the same to the last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_it_learns_what_is_easy_and_ignores_missing_labels(problem_type):
    smiles = [f"{'C' * n}{link}{'C' * m}" for n in range(1, 9) for m in range(1, 9) for link in ("", "N")]
    nitrogen = np.array([float("N" in text) for text in smiles])
    labels = np.stack([nitrogen, nitrogen], axis=1)
    if problem_type == "regression":
        labels = 100 + 10 * labels
    labels[::3, 1] = np.nan
    rows = np.random.default_rng(0).permutation(len(smiles))
    split = {"train": rows[:96], "valid": rows[96:112], "test": rows[112:]}
    mols = [parse(text) for text in smiles]
    first, again = (fit_chemprop({}, mols, labels, split, problem_type, 0, 20, 16) for _ in range(2))
    for part, predictions, same in zip(("valid", "test"), first, again, strict=True):
        np.testing.assert_array_equal(predictions, same)
        has = nitrogen[split[part]] == 1
        assert predictions.shape == (16, 2)
        middle = 0.5 if problem_type == "multi_label_classification" else 105
        assert ((predictions > middle) == has[:, None]).mean() > 0.9
