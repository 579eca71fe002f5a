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
    """`import hf_molrep` loads none of the heavy libraries."""
    monkeypatch.chdir(repository)
    imported = run("import sys, hf_molrep; print(*sorted(sys.modules))").split()
    assert "hf_molrep.models.mm_deacon.modeling_mm_deacon" in imported
    assert not set(imported) & set(HEAVY)


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
