"""Law 14: the pre-training gradients of laws classes in two gloo processes."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from tests.models.laws.checks import gradients

REPOSITORY = Path(__file__).resolve().parents[3]


def two_process_gradients(names: list[str], folder: Path) -> dict[str, dict]:
    """
    `{"loss": ..., "gradients": ...}` of the pre-training of each named laws class (`module:Class`) in two gloo
    processes, each with its share of the rows. One torchrun for all of them: starting it is what takes time.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "tests.models.laws.two_processes", str(folder), *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"torchrun failed:\n{done.stderr[-4000:]}")
    return {name: torch.load(folder / f"{place}.pt") for place, name in enumerate(names)}


def work(folder: Path, names: list[str]) -> None:
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for place, name in enumerate(names):
        laws = laws_by_name(name)
        model = nn.parallel.DistributedDataParallel(laws.build("pre-training"), find_unused_parameters=True)
        loss = model(**laws.share(rank, world)).loss
        loss.backward()
        total = loss.detach().clone()
        torch.distributed.all_reduce(total)
        if rank == 0:
            result = {"loss": total / world, "gradients": gradients(model.module)}
            torch.save(result, folder / f"{place}.pt")
    torch.distributed.destroy_process_group()


def laws_by_name(name: str):
    """The laws object of `module:Class`."""
    module, _, laws = name.partition(":")
    return getattr(importlib.import_module(module), laws)()


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2:])
    # The results are written. The interpreter's teardown after gloo now and then aborts in torch ("terminate called
    # without an active exception"), which says nothing about the law.
    os._exit(0)
