"""A training step as a run for `timing.measure`."""

from collections.abc import Callable

import torch

from benchmarks.harness.timing import Run


def autocast(bf16: bool) -> torch.autocast:
    """Return bf16 autocast on the CPU, disabled without `bf16`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bf16)


def stepping(
    loss_of: Callable[[], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    bf16: bool = False,
    clip: float | None = None,
) -> Run:
    """
    Make a run of one optimiser step: `loss_of()`, backward, update.

    Args:
        bf16: compute the loss under autocast.
        clip: largest norm of the gradients.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def run() -> None:
        with autocast(bf16):
            loss = loss_of()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        optimizer.zero_grad()

    return run
