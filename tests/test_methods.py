"""THE TABLE against the tree: every method has what the house asks of it, and no folder is without its method."""

import ast
from pathlib import Path

import pytest
from transformers import BertConfig, FeatureExtractionMixin, ProcessorMixin
from transformers.models.auto import modeling_auto

import hf_molrep
from hf_molrep import METHODS, lazy
from hf_molrep.hub import SHIM, SHIM_MODULE
from hf_molrep.models import auto_classes
from hf_molrep.models.auto import AUTO_CLASSES, Method, class_name, class_names, method_of
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
    assert row.model.__name__ == f"{name}Model"
    # registration tells by the name which kind it is
    kind = FeatureExtractionMixin if row.processor.__name__ == f"{name}FeatureExtractor" else ProcessorMixin
    assert row.processor.__name__ in (f"{name}Processor", f"{name}FeatureExtractor")
    assert issubclass(row.processor, kind)
    assert row.tasks["pre-training"].collator.__name__ == f"{name}DataCollator"
    for task, classes in row.tasks.items():
        assert classes.model.__name__ == f"{name}For{task.title().replace('-', '')}"
        assert classes.model.config_class is row.config


def test_every_task_has_its_auto_classes():
    assert {task for row in METHODS.values() for task in row.tasks} == set(AUTO_CLASSES)
    ours = {name for names in AUTO_CLASSES.values() for name in names if not hasattr(modeling_auto, name)}
    assert ours == set(auto_classes.__all__)


def test_classes_are_given_by_name_or_as_they_are():
    by_name = Method(config="grover.GroverConfig", processor=dict, model="grover.GroverModle", tasks={})
    assert class_names(by_name) == ["GroverConfig", "GroverModle", "dict"]
    assert by_name.config is METHODS["grover"].config
    assert by_name.processor is dict
    assert class_name(by_name, "config") == "GroverConfig"
    with pytest.raises(AttributeError, match=r"hf_molrep\.models\.grover.*GroverModle"):
        _ = by_name.model
    with pytest.raises(TypeError, match="config"):
        Method(processor=dict, model=dict, tasks={})


def test_method_of_a_configuration():
    assert method_of(hf_molrep.UniMolConfig()) is METHODS["uni_mol"]
    with pytest.raises(ValueError, match=f"'bert' is none of the methods here: {', '.join(METHODS)}"):
        method_of(BertConfig())


@pytest.mark.parametrize("method", METHODS)
def test_editors_see_the_names_of_a_method(method):
    """The imports for type checking are those of the files whose names the folder offers."""
    folder = ROOT / "hf_molrep" / "models" / method
    stars = {
        node.module
        for node in ast.walk(ast.parse((folder / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    }
    assert stars == {path.stem for path in folder.glob("*.py") if path.stem.removesuffix(f"_{method}") in lazy.ROLES}


def test_cards_belong_to_methods():
    """Or to a shipped checkpoint that was not trained by its method's own recipe."""
    cards = {path.stem for path in (ROOT / "model_cards").glob("*.md")} - {"TEMPLATE"}
    checkpoints = {path.parent.name for path in (ROOT / "hf_molrep" / "checkpoints").glob("*/config.json")}
    assert cards - checkpoints == set(METHODS)


def test_models_folders_are_methods():
    folders = {path.parent.name for path in (ROOT / "hf_molrep" / "models").glob("*/__init__.py")}
    assert folders == set(METHODS)


def test_code_beside_tokenizers_is_the_shim():
    code = list((ROOT / "tokenizers").rglob("*.py"))
    assert {path.name for path in code} == {f"{SHIM_MODULE}.py"}
    assert {path.read_text() for path in code} == {SHIM}
