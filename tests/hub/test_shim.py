"""What saving writes so that a repository loads without `import hf_molrep`."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModel, FeatureExtractionMixin

import hf_molrep
from hf_molrep.hub import SHIM, RemoteCodeMixin
from hf_molrep.models.mm_deacon import MMDeaconSmilesConfig
from tests.models.mm_deacon.tiny import save_tiny_checkpoint, tiny_config, tiny_processor

AUTO_MAP = {
    "AutoConfig": "hf_molrep_shim.MMDeaconConfig",
    "AutoModel": "hf_molrep_shim.MMDeaconModel",
    "AutoModelForPreTraining": "hf_molrep_shim.MMDeaconForPreTraining",
    "AutoModelForSequenceClassification": "hf_molrep_shim.MMDeaconForPropertyPrediction",
}


def written(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read(path) -> dict:
    return json.loads(path.read_text())


def test_a_configuration_brings_the_shim(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    assert written(tmp_path) == {"config.json", "hf_molrep_shim.py"}
    assert (tmp_path / "hf_molrep_shim.py").read_text() == SHIM
    config = read(tmp_path / "config.json")
    assert config["auto_map"] == AUTO_MAP
    assert "auto_map" not in config["smiles_config"]


def test_a_processor_brings_the_shim_and_its_tokenizers_stay_plain(tmp_path):
    tiny_processor().save_pretrained(tmp_path)
    assert written(tmp_path) == {
        "processor_config.json",
        "hf_molrep_shim.py",
        *(
            f"{folder}{name}"
            for folder in ("", "iupac_tokenizer/")
            for name in ("tokenizer.json", "tokenizer_config.json")
        ),
    }
    assert read(tmp_path / "processor_config.json")["auto_map"] == {"AutoProcessor": "hf_molrep_shim.MMDeaconProcessor"}
    for folder in (tmp_path, tmp_path / "iupac_tokenizer"):
        tokenizer = read(folder / "tokenizer_config.json")
        assert tokenizer["tokenizer_class"] == "TokenizersBackend"
        assert "auto_map" not in tokenizer


def test_a_model_brings_the_shim(tmp_path):
    save_tiny_checkpoint(tmp_path, pre_training=True)
    assert {"model.safetensors", "config.json", "hf_molrep_shim.py"} <= written(tmp_path)
    assert read(tmp_path / "config.json")["auto_map"] == AUTO_MAP


def test_towers_are_plain(tmp_path):
    MMDeaconSmilesConfig().save_pretrained(tmp_path / "config")
    AutoModel.from_config(tiny_config()).smiles_model.save_pretrained(tmp_path / "model")
    assert written(tmp_path) == {"config/config.json", "model/config.json", "model/model.safetensors"}
    assert "auto_map" not in read(tmp_path / "model" / "config.json")


def test_a_feature_extractor_brings_the_shim(tmp_path):
    class Extractor(RemoteCodeMixin, FeatureExtractionMixin):
        """As the graph methods will have them."""

    Extractor.__module__ = "hf_molrep.models.toy"
    Extractor(scheme="ogb").save_pretrained(tmp_path)
    assert written(tmp_path) == {"preprocessor_config.json", "hf_molrep_shim.py"}
    assert read(tmp_path / "preprocessor_config.json")["auto_map"] == {
        "AutoFeatureExtractor": "hf_molrep_shim.Extractor"
    }
    assert Extractor.from_pretrained(tmp_path).scheme == "ogb"


def test_classes_of_others_are_left_alone(tmp_path):
    """A shim could not import them; what transformers does for them still works."""

    class Foreign(hf_molrep.MMDeaconConfig):
        model_type = "foreign"

    Foreign().save_pretrained(tmp_path)
    assert written(tmp_path) == {"config.json"}
    assert "auto_map" not in read(tmp_path / "config.json")
    Foreign.register_for_auto_class()
    assert Foreign._auto_class == "AutoConfig"


@pytest.mark.parametrize("model_type", hf_molrep.METHODS)
def test_the_shim_has_every_name_of_every_method(model_type, tmp_path):
    method, names = hf_molrep.METHODS[model_type], {}
    exec(SHIM, names)
    method.config().save_pretrained(tmp_path)
    auto_map = read(tmp_path / "config.json")["auto_map"]
    assert {"AutoConfig", "AutoModel", "AutoModelForPreTraining", "AutoModelForSequenceClassification"} <= set(auto_map)
    for reference in auto_map.values():
        assert names[reference.removeprefix("hf_molrep_shim.")].__module__.startswith("hf_molrep.")
    assert names[method.processor.__name__] is method.processor
    models = [method.model, *(task.model for task in method.tasks.values())]
    for cls in (method.config, method.processor, *models):
        assert issubclass(cls, RemoteCodeMixin)


def test_saving_again_names_no_repository(tmp_path):
    """Loading from the Hub prefixes the references; a copy would go on pointing there."""
    config = tiny_config()
    config.auto_map = {"AutoConfig": "someone/model--hf_molrep_shim.MMDeaconConfig"}
    config.save_pretrained(tmp_path)
    assert read(tmp_path / "config.json")["auto_map"] == AUTO_MAP


LOAD = """
import json, os, sys
import torch
import transformers

folder = sys.argv[1]
for name in (*sys.argv[2:], "AutoTokenizer", "PreTrainedModel", "ProcessorMixin"):
    getattr(transformers, name)  # slow to import: once, before the forks
assert "hf_molrep" not in sys.modules

def alone(task):
    "In a fork, so that each class is the first one that is loaded."
    process = os.fork()
    if not process:
        try:
            task()
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(process, 0)[1] == 0, "see the traceback above"

def load(name):
    loaded = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
    assert type(loaded).__module__.startswith("hf_molrep.models."), type(loaded)
    loaded.save_pretrained(f"{folder}/{name}")  # what transformers calls register_for_auto_class for
    print(name, type(loaded).__name__, *sorted(os.listdir(f"{folder}/{name}")))

for name in sys.argv[2:]:
    alone(lambda: load(name))

def tokenizer():
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert "hf_molrep" not in sys.modules
    print("AutoTokenizer", tokenizer("CCO")["input_ids"])

def everything():
    processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model = transformers.AutoModel.from_pretrained(folder)  # registered by now: no further trust is needed
    with torch.no_grad():
        print(json.dumps(model(**processor(["CCO", "c1ccccc1O"], return_tensors="pt")).pooler_output.tolist()))

def nothing_without_trust():
    try:
        transformers.AutoModel.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        assert "trust_remote_code=True" in str(error), error
        print("refused")

for task in (tokenizer, nothing_without_trust, everything):
    alone(task)
"""


def test_loading_without_our_import(tmp_path, repository):
    save_tiny_checkpoint(tmp_path, pre_training=True)
    names = [*AUTO_MAP, "AutoProcessor"]
    process = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path), *names],
        env=os.environ | {"PYTHONPATH": str(repository), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    weights = "config.json hf_molrep_shim.py model.safetensors"
    assert lines[:5] == [
        "AutoConfig MMDeaconConfig config.json hf_molrep_shim.py",
        f"AutoModel MMDeaconModel {weights}",
        f"AutoModelForPreTraining MMDeaconForPreTraining {weights}",
        f"AutoModelForSequenceClassification MMDeaconForPropertyPrediction {weights}",
        "AutoProcessor MMDeaconProcessor hf_molrep_shim.py iupac_tokenizer processor_config.json tokenizer.json "
        "tokenizer_config.json",
    ]
    processor, model = tiny_processor(), AutoModel.from_pretrained(tmp_path)
    assert lines[5:7] == [f"AutoTokenizer {processor.tokenizer('CCO')['input_ids']}", "refused"]
    with torch.no_grad():
        expected = model(**processor(["CCO", "c1ccccc1O"], return_tensors="pt")).pooler_output
    assert json.loads(lines[7]) == expected.tolist()
    assert type(AutoConfig.from_pretrained(tmp_path)) is hf_molrep.MMDeaconConfig  # with the import nothing is asked
