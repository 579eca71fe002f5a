"""
transformers' own common model tests on a tiny model of each method.

They are in transformers' source distribution (not in its wheel) and stay there: `make test-common` fetches that of the
installed version and names its folder `tests` in `HF_MOLREP_TRANSFORMERS_TESTS`; without the variable all is skipped.
What such a test skips by itself (no sub-models, no text, no GPU ...) is not listed here; what we leave out is, with
the reason.
"""

import copy
import fnmatch
import importlib
import os
import sys
import unittest
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import PreTrainedConfig

from hf_molrep import (
    GroverForPreTraining,
    GroverForPropertyPrediction,
    GroverModel,
    MMDeaconForInteractionPrediction,
    MMDeaconForPreTraining,
    MMDeaconForPropertyPrediction,
    MMDeaconModel,
    MolCLRForPreTraining,
    MolCLRForPropertyPrediction,
    MolCLRModel,
    UniMolForConformerGeneration,
    UniMolForPreTraining,
    UniMolForPropertyPrediction,
    UniMolModel,
    XMolForConditionalGeneration,
    XMolForInteractionPrediction,
    XMolForPreTraining,
    XMolForPropertyPrediction,
    XMolModel,
)
from tests.models.common import laws_of

VARIABLE = "HF_MOLREP_TRANSFORMERS_TESTS"
if not os.environ.get(VARIABLE):
    pytest.skip(
        "transformers' common model tests are in its source distribution only: make test-common (or name its folder "
        f"`tests` in {VARIABLE})",
        allow_module_level=True,
    )
pytest.importorskip("parameterized", reason="transformers' common model tests use it: pip install parameterized")

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


def load_common_tests() -> ModuleType:
    """
    `test_modeling_common` of transformers. The source distribution has the files of `tests` and none of its folders, so
    the two mixins that it takes from there, for exporting and for generating text, are empty here.
    """
    package = ModuleType("transformers_tests")
    package.__path__ = [str(Path(os.environ[VARIABLE]).resolve())]
    sys.modules["transformers_tests"] = package
    mixins = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}
    for name, mixin in mixins.items():
        stand_in = ModuleType(f"transformers_tests.{name}")
        setattr(stand_in, mixin, type(mixin, (), {}))
        sys.modules[f"transformers_tests.{name.partition('.')[0]}"] = ModuleType(name)
        sys.modules[f"transformers_tests.{name}"] = stand_in
    return importlib.import_module("transformers_tests.test_modeling_common")


common = load_common_tests()


class ModelTester:
    """
    What the common tests ask about a method.

    Args:
        config: of a tiny model.
        inputs: a batch for the base model.
        added: what a batch of each model class has beside, or in place of, these inputs; labels of properties come
            with the tests. The first class is the base model.
        sizes: of that model and batch, by the names that the tests know.
    """

    batch_size = 8
    is_training = True

    def __init__(self, config: PreTrainedConfig, inputs: dict, added: dict[type, dict], **sizes: int):
        self.config, self.inputs, self.added = copy.deepcopy(config), inputs, added
        vars(self).update(sizes)

    def prepare_config_and_inputs_for_common(self):
        return copy.deepcopy((self.config, self.inputs))


class CommonTests(common.ModelTesterMixin):
    """The common tests of a method; `LEFT_OUT` and `left_out`: patterns of names of tests, with the reason."""

    # our configuration files bear no year, and without one of 2023 or later this test is skipped
    test_can_init_all_missing_weights_before_2023 = True
    left_out: dict[str, str] = {}
    LEFT_OUT = {
        "test_can_load_ignoring_mismatched_shapes": "sets all fields with _std in their name to 1e-10, but label_std "
        "is a list; its own check is of transformers' classification heads, ours is law 2",
    }

    def tester(self) -> ModelTester:
        raise NotImplementedError

    def setUp(self):
        name = self._testMethodName
        for pattern, reason in (self.LEFT_OUT | self.left_out).items():
            if fnmatch.fnmatch(name, pattern):
                self.skipTest(f"left out: {reason}")
        self.model_tester = self.tester()
        self.all_model_classes = tuple(self.model_tester.added)
        if name.startswith("test_training"):  # base models have no loss; the tests know those of transformers by name
            self.all_model_classes = self.all_model_classes[1:]
        if name in ("test_capture_outputs_decorator", "test_model_outputs_equivalence") and self.has_attentions:
            # they ask for attention weights of the default, sdpa, and expect none; ours say that there are none
            self.model_tester.config._attn_implementation = "eager"

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        rows = len(inputs_dict[model_class.main_input_name])  # a test may give fewer
        added = self.model_tester.added[model_class]
        batch = copy.deepcopy(inputs_dict)
        if rows < len(self.model_tester.inputs[model_class.main_input_name]):
            added = {key: value[:rows] for key, value in added.items()}
        batch |= copy.deepcopy(added)
        if return_labels and "Prediction" in model_class.__name__:
            batch["labels"] = torch.arange(16).view(8, 2) % 2.0
        return batch


class GraphTests(CommonTests):
    """Those of a method that takes graphs; rows of a joined graph are atoms and edges, not molecules."""

    LEFT_OUT = CommonTests.LEFT_OUT | {
        "test_batching_equivalence": "takes the first rows of every tensor for a molecule; law 4 compares batches",
        "test_resize_tokens_embeddings": "changes input_ids, which a graph has not",
    }


@cache
def of_laws(model_type: str, **options) -> tuple[PreTrainedConfig, dict, dict]:
    """Of the laws of a method: the configuration, a batch for its model and one for pre-training."""
    laws = laws_of(model_type)
    config = laws.config(problem_type="multi_label_classification", **options)
    return config, laws.inputs(), dict(laws.collator()(laws.rows()))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MOLREP_CACHE", str(tmp_path / "cache"))


class TestMMDeacon(CommonTests, unittest.TestCase):
    def tester(self) -> ModelTester:
        config, inputs, pre_training = of_laws("mm_deacon")
        added = {
            MMDeaconModel: {},
            MMDeaconForPreTraining: {key: value for key, value in pre_training.items() if key.startswith("iupac_")},
            MMDeaconForPropertyPrediction: {},
            MMDeaconForInteractionPrediction: {},
        }
        seq_length = inputs["input_ids"].shape[1]
        sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": seq_length}
        return ModelTester(config, inputs, added, **sizes)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        batch = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if model_class is MMDeaconForInteractionPrediction:  # of each molecule with itself
            batch |= {f"second_{key}": batch[key] for key in ("input_ids", "attention_mask") if key in batch}
        return batch


class TestMolCLR(GraphTests, unittest.TestCase):
    has_attentions = False

    def tester(self) -> ModelTester:
        config, inputs, pre_training = of_laws("molclr", num_layers=2)
        added = {MolCLRModel: {}, MolCLRForPreTraining: pre_training, MolCLRForPropertyPrediction: {}}
        sizes = {"num_hidden_layers": 2, "hidden_size": 16, "seq_length": len(inputs["x"])}
        return ModelTester(config, inputs, added, **sizes)


class TestGrover(GraphTests, unittest.TestCase):
    left_out = {
        "test_model_get_set_embeddings": "atoms come as features; there is no table of embeddings",
        "test_eager_matches_sdpa_inference*": "gives the model x alone, without edges; law 12 compares the two",
    }

    def tester(self) -> ModelTester:
        config, inputs, pre_training = of_laws("grover")
        added = {GroverModel: {}, GroverForPreTraining: pre_training, GroverForPropertyPrediction: {}}
        sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "seq_length": len(inputs["x"])}
        if self._testMethodName == "test_attention_outputs":  # an atom attends to its own heads
            sizes["seq_length"] = config.num_attention_heads
        return ModelTester(config, inputs, added, **sizes)


class TestUniMol(CommonTests, unittest.TestCase):
    left_out = {"test_resize_tokens_embeddings": "pairs of elements have weights too: refused, see test_outputs.py"}

    def tester(self) -> ModelTester:
        config, inputs, pre_training = of_laws("uni_mol", num_recycles=1)
        added = {
            UniMolModel: {},
            UniMolForPreTraining: pre_training,
            UniMolForConformerGeneration: {"target_pos": inputs["pos"].flip(-1)},
            UniMolForPropertyPrediction: {},
        }
        seq_length = inputs["input_ids"].shape[1]
        sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": seq_length}
        return ModelTester(config, inputs, added, **sizes)


class TestXMol(CommonTests, unittest.TestCase):
    left_out = {
        "test_generation_tester_mixin_inheritance": "the mixin is not in transformers' source distribution",
        "test_bc_cache_name_forward": "asks for a warning; ours takes past_key_values as older versions give it",
    }

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        batch = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class is XMolForConditionalGeneration:
            batch["labels"] = batch["input_ids"]
        return batch

    def tester(self) -> ModelTester:
        config, _, pre_training = of_laws("x_mol")
        pairs = {key: pre_training[key] for key in ("input_ids", "attention_mask")}  # the others can read them too
        classes = (
            XMolModel,
            XMolForPreTraining,
            XMolForConditionalGeneration,
            XMolForPropertyPrediction,
            XMolForInteractionPrediction,
        )
        seq_length = pairs["input_ids"].shape[1]
        sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": seq_length}
        return ModelTester(config, pairs, {each: {} for each in classes}, **sizes)
