"""`import hf_molrep` and the help of commands are cheap; models train where RDKit and datasets are not installed."""

import ast
import importlib
import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import hf_molrep
from hf_molrep import METHODS
from hf_molrep.cli import COMMANDS, main
from tests.models.common import laws_of

HEAVY = ["rdkit", "datasets", "torch_geometric", "faiss", "sklearn", "pandas", "matplotlib", "pyarrow", "selfies"]

TRAIN = """
import json, sys
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None
import torch
import hf_molrep
for method, row in hf_molrep.METHODS.items():
    prepared = torch.load(f"{sys.argv[1]}/{method}.pt")
    for kind, (config, batch) in prepared.items():
        torch.manual_seed(0)
        model = row.tasks[kind].model(row.config.from_dict(config)).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        changed = sum(not torch.equal(old, new) for old, new in zip(before, model.parameters()))
        print(json.dumps([method, kind, loss.item(), changed]))
"""


def run(program: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=600, env=environment
    )
    assert not done.returncode, done.stderr
    return done.stdout


def modules_after(program: str, *arguments: str) -> set[str]:
    """Names of the modules that a program has loaded when it ends."""
    return set(run(f"{program}\nimport sys\nprint()\nprint(*sys.modules)", *arguments).splitlines()[-1].split())


def test_import_is_cheap(repository, monkeypatch):
    """`import hf_molrep` loads next to nothing."""
    monkeypatch.chdir(repository)
    imported = modules_after("import hf_molrep")
    assert not imported & {"torch", "transformers", "numpy", *HEAVY}
    assert not [name for name in imported if name.startswith("hf_molrep.models.") and not name.endswith(".auto")]


@pytest.mark.parametrize("name", ["AutoModel", "AutoProcessor"])
def test_registration_is_cheap(name, repository, monkeypatch):
    """With an Auto class of transformers come the configurations of the methods, and nothing else that is not there."""
    monkeypatch.chdir(repository)
    alone = modules_after(f"from transformers import {name}")
    imported = modules_after(f"import hf_molrep; from transformers import {name}") - alone
    assert {name.partition(".")[0] for name in imported} <= {"hf_molrep", *sys.stdlib_module_names}
    roles = {
        module.rpartition(".")[2].rpartition(f"_{method}")[0]
        for method in METHODS
        for module in imported
        if module.startswith(f"hf_molrep.models.{method}.")
    }
    assert roles == {"configuration"}


def test_configurations_ask_for_no_auto_class(repository, monkeypatch):
    """Else registration would meet a configuration that is only half imported."""
    monkeypatch.chdir(repository)
    imports = "; ".join(f"import hf_molrep.models.{method}.configuration_{method}" for method in METHODS)
    assert not [name for name in modules_after(imports) if name.startswith("transformers.models.auto")]


@pytest.mark.parametrize(
    "first",
    [
        "import hf_molrep; from transformers import AutoProcessor",
        "import hf_molrep; from transformers import pipeline",
        "from transformers import AutoModel; import hf_molrep",
        "from transformers import AutoModel, AutoProcessor, pipeline; import hf_molrep",
        "from hf_molrep import *",
        "import hf_molrep.inference.pipelines",
        "import hf_molrep.models.grover.modeling_grover",
        "import hf_molrep.training.finetuning",
    ],
)
def test_registered_when_used(first, repository, monkeypatch):
    """Whatever is imported first, the methods are known once an Auto class or a pipeline can be used."""
    monkeypatch.chdir(repository)
    program = """
import hf_molrep, transformers
from transformers import AutoConfig
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY
from hf_molrep.models.auto import AUTO_CLASSES, METHODS
for model_type, method in METHODS.items():
    config = AutoConfig.for_model(model_type)
    assert type(config) is method.config is getattr(hf_molrep, method.config.__name__)
    assert transformers.AutoModel._model_mapping[type(config)] is method.model
    assert PROCESSOR_MAPPING[type(config)] is method.processor
    extracts = issubclass(method.processor, transformers.FeatureExtractionMixin)
    assert FEATURE_EXTRACTOR_MAPPING.get(type(config), None) is (method.processor if extracts else None)
    for task, names in AUTO_CLASSES.items():
        for name in names:
            owner = transformers if hasattr(transformers, name) else hf_molrep
            found = getattr(owner, name)._model_mapping.get(type(config), None)
            assert found is (method.tasks[task].model if task in method.tasks else None), (model_type, name)
assert {"molecule-embedding", "molecule-property-prediction"} <= set(PIPELINE_REGISTRY.get_supported_tasks())
print("known")
"""
    assert run(f"{first}\n{program}").split()[-1] == "known"


def test_registered_in_threads(repository, monkeypatch):
    """Threads that import parts of transformers, and ours, at once."""
    monkeypatch.chdir(repository)
    program = """
import threading, hf_molrep
import transformers  # not in the threads: it replaces itself in sys.modules, so that one may get the half-made module
failed = []
def load(name):
    try:
        getattr(hf_molrep if name in hf_molrep.__all__ else transformers, name)
    except BaseException as error:
        failed.append(error)
names = ["AutoModel", "Trainer", "AutoProcessor", "pipeline", "GroverModel", "UniMolFeatureExtractor"]
threads = [threading.Thread(target=load, args=(name,)) for name in names]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
from transformers import AutoConfig
print(AutoConfig.for_model("mm_deacon").model_type)
"""
    assert run(program).split()[-1] == "mm_deacon"


def test_a_failing_registration_names_this_package(repository, monkeypatch):
    """It may surface in a `from transformers import ...` of somebody who never heard of this package."""
    monkeypatch.chdir(repository)
    program = """
import sys, hf_molrep
sys.modules["hf_molrep.models.grover.configuration_grover"] = None
try:
    from transformers import AutoModel
except ImportError as error:
    print(error, "|", type(error.__cause__).__name__)
"""
    assert run(program).splitlines()[-1] == (
        "hf_molrep could not register its methods with transformers.models.auto.configuration_auto: import of "
        "hf_molrep.models.grover.configuration_grover halted; None in sys.modules | ModuleNotFoundError"
    )


def test_a_broken_model_is_its_own_problem(repository, monkeypatch):
    """A method whose model cannot be imported leaves transformers and the other methods alone."""
    monkeypatch.chdir(repository)
    program = """
import sys, hf_molrep
sys.modules["hf_molrep.models.grover.modeling_grover"] = None
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
print(type(AutoModel.from_pretrained(hf_molrep.checkpoint_path("molclr-gin-mini"))).__name__)
try:
    AutoModel.from_pretrained(hf_molrep.checkpoint_path("grover-mini"))
except ImportError as error:
    print(error.name)
"""
    assert run(program).split() == ["MolCLRModel", "hf_molrep.models.grover.modeling_grover"]


def test_mappings_of_transformers_hold_classes():
    """However they are read; stock pipelines go through the values, processes get the mapping pickled."""
    mapping = AutoModelForSequenceClassification._model_mapping
    expected = {method.config: method.tasks["property-prediction"].model for method in METHODS.values()}
    assert expected.items() <= dict(mapping._extra_content).items()
    assert set(expected.values()) <= set(mapping._extra_content.values())
    assert expected.items() <= dict(pickle.loads(pickle.dumps(mapping))._extra_content).items()


def test_editors_see_the_public_names(repository):
    """The imports for type checking in `hf_molrep/__init__.py` are what `__getattr__` finds: the table of methods."""
    (block,) = [
        node
        for node in ast.parse((repository / "hf_molrep" / "__init__.py").read_text()).body
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    seen = {f".{node.module}": sorted(alias.name for alias in node.names) for node in block.body}
    needed = {module: sorted(names) for module, names in hf_molrep._NAMES.items()}
    lines = "\n".join(f"    from {module} import {', '.join(needed[module])}" for module in sorted(needed))
    assert seen == needed, f"put this into hf_molrep/__init__.py, under `if _TYPE_CHECKING:`, and format it\n{lines}"
    for name in hf_molrep.__all__:
        assert getattr(hf_molrep, name) is not None


@pytest.mark.parametrize("method", METHODS)
def test_a_method_offers_the_names_of_its_files(method):
    package = importlib.import_module(f"hf_molrep.models.{method}")
    files = {getattr(package, name).__module__ for name in package.__all__}
    assert {
        f"hf_molrep.models.{method}.{role}_{method}" for role in ("configuration", "collation", "modeling")
    } <= files
    assert dir(package) == package.__all__ == sorted(set(package.__all__))
    with pytest.raises(AttributeError, match=f"'hf_molrep.models.{method}' has no attribute 'torch'"):
        _ = package.torch


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_is_cheap(command, repository, monkeypatch):
    """The help of a command, and the complaint about an unknown option, load neither torch nor transformers."""
    monkeypatch.chdir(repository)
    program = """
import sys
from hf_molrep.cli import main
for option in ("--help", "--no-such-option"):
    try:
        main([*sys.argv[1:], option])
    except SystemExit as ended:
        print(ended.code)
print(*sys.modules)
"""
    *page, modules = run(program, *([] if command is None else [command])).splitlines()
    assert (page[0].split()[:2], page[-2:]) == (["usage:", "hf-molrep"], ["0", "2"])
    assert not set(modules.split()) & {"torch", "transformers", *HEAVY}


@pytest.mark.parametrize("command", ["pretrain", "convert"])
def test_help_lists_the_methods(command, repository, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    released = [
        method for method in METHODS if (repository / f"hf_molrep/models/{method}/conversion_{method}.py").exists()
    ]
    page = " ".join(capsys.readouterr().out.split())
    assert ", ".join(METHODS) in page if command == "pretrain" else f"{{{','.join(released)}}}" in page


def test_training_without_chemistry(repository, monkeypatch, tmp_path):
    """One step of pre-training and of a property head per method, from prepared features, nothing heavy installed."""
    monkeypatch.chdir(repository)
    expected = {}
    for method in METHODS:
        laws = laws_of(method)
        prepared = {}
        for kind, _, options, batch in laws.cases()[1:]:
            config = laws.config(**options)
            prepared[kind] = (config.to_dict(), batch)
            torch.manual_seed(0)
            model = laws.model_class(kind)(config).train()
            expected[method, kind] = model(**batch).loss.item()
        torch.save(prepared, tmp_path / f"{method}.pt")
    lines = [json.loads(line) for line in run(TRAIN, str(tmp_path), json.dumps(HEAVY)).splitlines()]
    assert {(method, kind) for method, kind, *_ in lines} == expected.keys()
    for method, kind, loss, changed in lines:
        assert loss == pytest.approx(expected[method, kind], rel=1e-5)
        assert changed > 0
