"""`import hf_molrep` is cheap, and models train where RDKit and datasets are not installed."""

import json
import os
import subprocess
import sys

import pytest
import torch

from hf_molrep import METHODS
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
        model = getattr(row, kind)(row.config.from_dict(config)).train()
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


def test_import_is_cheap(repository, monkeypatch):
    """`import hf_molrep` loads next to nothing; the methods, when they are registered, none of the heavy libraries."""
    monkeypatch.chdir(repository)
    imported = run("import sys, hf_molrep; print(*sorted(sys.modules))").split()
    assert not set(imported) & {"torch", "transformers", "numpy", *HEAVY}
    imported = run("import sys, hf_molrep; from transformers import AutoModel; print(*sorted(sys.modules))").split()
    assert "hf_molrep.models.mm_deacon.modeling_mm_deacon" in imported
    assert not set(imported) & set(HEAVY)


@pytest.mark.parametrize(
    "first",
    [
        "import hf_molrep; from transformers import AutoConfig",
        "import hf_molrep; from transformers import AutoProcessor",
        "import hf_molrep; from transformers import Trainer",
        "import hf_molrep; from transformers import pipeline",
        "import transformers; import hf_molrep; from transformers import pipeline",
        "from transformers import AutoModel; import hf_molrep",
        "from hf_molrep import *",
        "import hf_molrep.hub",
        "import hf_molrep.training.finetuning",
    ],
)
def test_registered_when_used(first, repository, monkeypatch):
    """Whatever is imported first, the methods are known once an Auto class or a pipeline can be used."""
    monkeypatch.chdir(repository)
    program = """
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY
import sys, hf_molrep
config = AutoConfig.for_model("mm_deacon")
assert type(config) is hf_molrep.MMDeaconConfig
assert type(config) in AutoModel._model_mapping and type(config) in AutoModelForPreTraining._model_mapping
assert {"molecule-embedding", "molecule-property-prediction"} <= set(PIPELINE_REGISTRY.get_supported_tasks())
assert not [finder for finder in sys.meta_path if "hf_molrep" in type(finder).__module__]
print("known")
"""
    assert run(f"{first}\n{program}").split()[-1] == "known"


def test_registered_in_threads(repository, monkeypatch):
    """Two threads that import parts of transformers at once."""
    monkeypatch.chdir(repository)
    program = """
import threading, hf_molrep
def load(name):
    import transformers
    getattr(transformers, name)
threads = [threading.Thread(target=load, args=(name,)) for name in ("AutoModel", "Trainer", "AutoProcessor")]
for thread in threads: thread.start()
for thread in threads: thread.join()
from transformers import AutoConfig
print(AutoConfig.for_model("mm_deacon").model_type)
"""
    assert run(program).split()[-1] == "mm_deacon"


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
            model = getattr(laws.method, kind)(config).train()
            expected[method, kind] = model(**batch).loss.item()
        torch.save(prepared, tmp_path / f"{method}.pt")
    lines = [json.loads(line) for line in run(TRAIN, str(tmp_path), json.dumps(HEAVY)).splitlines()]
    assert {(method, kind) for method, kind, *_ in lines} == expected.keys()
    for method, kind, loss, changed in lines:
        assert loss == pytest.approx(expected[method, kind], rel=1e-5)
        assert changed > 0
