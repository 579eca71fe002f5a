"""`MoleculeEmbedder` among the estimators of scikit-learn."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from hf_molrep import MoleculeEmbedder
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.inference.checkpoints import load_checkpoint
from hf_molrep.inference.embedding import embed
from tests.models.mm_deacon.tiny import NAMES, SMILES, save_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def embedder(checkpoint):
    return MoleculeEmbedder(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def expected(checkpoint):
    from transformers import AutoModel

    return np.stack(list(embed(*load_checkpoint(AutoModel, checkpoint, "cpu"), SMILES)))


INPUTS = {
    "list": SMILES,
    "array": np.array(SMILES),
    "objects": np.array(SMILES, dtype=object),
    "column": np.array(SMILES)[:, None],
    "series": pd.Series(SMILES, index=range(7, 15)),
    "table": pd.DataFrame({"smiles": SMILES}),
}


@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS)
def test_all_forms_of_one_column(embedder, expected, given):
    rows = embedder.fit_transform(given)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize("given", ["CCO", pd.DataFrame({"a": SMILES, "b": SMILES}), np.array([SMILES, SMILES]), [[]]])
def test_what_is_no_column_is_refused(embedder, given):
    with pytest.raises(ValueError, match=r"column|one string"):
        embedder.fit(given)


def test_parameters(embedder, checkpoint):
    assert embedder.get_params()["model"] == checkpoint
    assert set(embedder.get_params()) == {"model", "processor", "kind", "on_error", "batch_tokens", "dtype", "device"}
    copy = clone(embedder.set_params(kind="iupac"))
    assert copy is not embedder
    assert copy.get_params() == embedder.get_params()
    with pytest.raises(ValueError, match="Invalid parameter"):
        embedder.set_params(batch_size=3)


def test_set_output_and_feature_names(embedder, expected):
    table = embedder.set_output(transform="pandas").fit_transform(pd.Series(SMILES, index=list("abcdefgh")))
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == [f"embedding{channel}" for channel in range(16)]
    assert list(table.index) == list("abcdefgh")
    np.testing.assert_allclose(table.to_numpy(), expected, atol=1e-6)
    assert list(embedder.get_feature_names_out()) == list(table.columns)


def test_it_must_be_fitted(embedder):
    with pytest.raises(NotFittedError):
        embedder.transform(SMILES)
    with pytest.raises(NotFittedError):
        embedder.get_feature_names_out()


def test_pipelines_and_grid_search(embedder):
    target = np.arange(8.0)
    pipeline = make_pipeline(embedder, Ridge(1e-6)).fit(SMILES, target)
    assert pipeline.predict(SMILES).shape == (8,)
    assert pipeline.score(SMILES, target) > 0.5
    search = GridSearchCV(make_pipeline(embedder, Ridge()), {"moleculeembedder__batch_tokens": [50, 500]}, cv=2)
    search.fit(SMILES, target)
    assert set(search.best_params_) == {"moleculeembedder__batch_tokens"}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_bad_molecules(checkpoint, expected):
    with pytest.raises(MoleculeError, match=r"ring.*index 1"):
        MoleculeEmbedder(checkpoint, device="cpu").fit_transform(["CCO", "C1CC"])
    rows = MoleculeEmbedder(checkpoint, device="cpu", on_error="skip").fit_transform(["CCO", "C1CC", np.nan])
    np.testing.assert_allclose(rows[0], expected[0], atol=1e-6)
    assert np.isnan(rows[1:]).all()


def test_names(checkpoint, expected):
    rows = MoleculeEmbedder(checkpoint, device="cpu", kind="iupac").fit_transform(NAMES)
    assert rows.shape == expected.shape
    assert not np.allclose(rows, expected, atol=1e-3)


def test_pickling_leaves_the_weights_in_their_folder(embedder, expected):
    embedder.fit(SMILES)
    stored = pickle.dumps(embedder)
    assert len(stored) < 2000
    np.testing.assert_allclose(pickle.loads(stored).transform(SMILES), expected, atol=1e-6)


def test_a_model_object(checkpoint, expected):
    from transformers import AutoModel

    model, processor = load_checkpoint(AutoModel, checkpoint, "cpu")
    np.testing.assert_allclose(MoleculeEmbedder(model, processor).fit_transform(SMILES), expected, atol=1e-6)
    with pytest.raises(ValueError, match="needs its processor"):
        MoleculeEmbedder(model).fit(SMILES)


# check_estimator stops before its checks where the input is not a table of numbers (it warns that it cannot test such
# estimators), and nearly all of its checks feed such tables. These are the ones that do not.
CHECKS = [
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_mixin_order",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
]


@pytest.mark.parametrize("name", CHECKS)
def test_checks_of_scikit_learn(name):
    getattr(estimator_checks, name)("MoleculeEmbedder", MoleculeEmbedder())


def test_check_estimator_says_that_the_rest_does_not_apply():
    with pytest.warns(Warning, match="Can't test estimator MoleculeEmbedder which requires input"):
        estimator_checks.check_estimator(MoleculeEmbedder(), on_skip="warn")
