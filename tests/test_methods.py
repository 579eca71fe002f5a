"""THE TABLE against the tree: every method has what the house asks of it, and no folder is without its method."""

from pathlib import Path

import pytest

from hf_molrep import METHODS
from hf_molrep.hub import SHIM, SHIM_MODULE
from tests.models.common import laws_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_complete(method):
    """Configuration, preprocessing, model, collator; a card; the laws; class names by the rule."""
    folder = ROOT / "hf_molrep" / "models" / method
    for role in ("configuration", "modeling", "collation"):
        assert (folder / f"{role}_{method}.py").is_file(), role
    roles = [f"{role}_{method}" for role in ("feature_extraction", "processing", "tokenization")]
    assert [path for path in folder.glob("*.py") if path.stem in roles]
    assert (ROOT / "model_cards" / f"{method}.md").is_file()
    row = METHODS[method]
    assert row.config.model_type == method == laws_of(method).model_type
    name = row.config.__name__.removesuffix("Config")
    assert row.data_collator.__name__ == f"{name}DataCollator"
    assert row.model.__name__ == f"{name}Model"
    assert row.for_pre_training.__name__ == f"{name}ForPreTraining"
    assert row.for_property_prediction.__name__ == f"{name}ForPropertyPrediction"
    assert row.processor.__name__ in (f"{name}Processor", f"{name}FeatureExtractor")


def test_cards_belong_to_methods():
    cards = {path.stem for path in (ROOT / "model_cards").glob("*.md")} - {"TEMPLATE"}
    assert cards == set(METHODS)


def test_models_folders_are_methods():
    folders = {path.parent.name for path in (ROOT / "hf_molrep" / "models").glob("*/__init__.py")}
    assert folders == set(METHODS)


def test_code_beside_tokenizers_is_the_shim():
    code = list((ROOT / "tokenizers").rglob("*.py"))
    assert {path.name for path in code} == {f"{SHIM_MODULE}.py"}
    assert {path.read_text() for path in code} == {SHIM}
