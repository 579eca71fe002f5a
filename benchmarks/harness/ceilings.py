"""Ceilings: the speed of a model's matrix products alone."""

import time
from collections.abc import Sequence

import torch

from benchmarks.harness.timing import Run


def products(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, training: bool = False) -> Run:
    """
    Make a run of the matrix products of linear layers, with preallocated outputs.

    Args:
        shapes: (rows, inputs, outputs) of each layer, `[rows, inputs] x [inputs, outputs]`; or (layers, rows, inputs,
            outputs) of several layers as one batched product.
        training: include the two products for the gradients of each layer.
    """
    work = []
    for *batch, rows, inputs, outputs in shapes:
        x, weight, y = (
            torch.randn(*batch, *size).to(dtype) for size in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        work.append((x, weight.mT, y))
        if training:
            work += [(y, weight, torch.empty_like(x)), (y.mT, x, torch.empty_like(weight))]

    def run() -> None:
        for left, right, out in work:
            torch.matmul(left, right, out=out)

    return run


def matrix_rate(size: int, seconds: float, dtype: torch.dtype = torch.bfloat16) -> float:
    """Measure the FLOP/s of the product of two square matrices, repeated for some seconds."""
    a, b = torch.randn(2, size, size).to(dtype)
    for _ in range(2):
        a @ b
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        count += 1
    return count * 2 * size**3 / (time.perf_counter() - start)
