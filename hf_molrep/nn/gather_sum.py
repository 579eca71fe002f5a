"""Sums of rows over edges, planned once per batch and used by every layer."""

import torch
import torch.nn.functional as F


# An operator of its own, with its own gradient: `embedding_bag` has none for its table in bf16, and a slow one in
# float32, while the sum over the reversed edges is quick. (torch.compile warns about an autograd.Function here.)
@torch.library.custom_op("hf_molrep::gather_sum", mutates_args=())
def _gather_sum(
    rows: torch.Tensor,
    index: torch.Tensor,
    offsets: torch.Tensor,
    reverse_index: torch.Tensor,
    reverse_offsets: torch.Tensor,
) -> torch.Tensor:
    return F.embedding_bag(index, rows.contiguous(), offsets, mode="sum")


@_gather_sum.register_fake
def _(rows, index, offsets, reverse_index, reverse_offsets):
    return rows.new_empty(offsets.shape[0], rows.shape[1])


def _remember(ctx, inputs, output):
    ctx.save_for_backward(*inputs[1:])


def _backward(ctx, gradient):
    index, offsets, reverse_index, reverse_offsets = ctx.saved_tensors
    gradient = torch.ops.hf_molrep.gather_sum(gradient, reverse_index, reverse_offsets, index, offsets)
    return gradient, None, None, None, None


_gather_sum.register_autograd(_backward, setup_context=_remember)


def _plan(source: torch.Tensor, target: torch.Tensor, sums: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The sources in the order of their targets, and where each target's begin."""
    target, order = target.sort(stable=True)
    return source[order], torch.searchsorted(target, torch.arange(sums, device=target.device))


class GatherSum:
    """
    `sums[t] = sum of rows[s] over the edges s -> t`, as a callable `[rows, width] -> [sums, width]` with a gradient.
    Nothing of the size `[edges, width]` is ever stored: one pass over the edges in the order of their targets.

    Args:
        source, target: int64 `[edges]`, in any order.
        rows, sums: how many there are; a sum without edges is 0.
    """

    def __init__(self, source: torch.Tensor, target: torch.Tensor, rows: int, sums: int):
        self.index, self.offsets = _plan(source, target, sums)
        # only a gradient needs the sum over the edges in the other direction
        self.reverse = _plan(target, source, rows) if torch.is_grad_enabled() else None

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if self.reverse is None:
            return F.embedding_bag(self.index, rows, self.offsets, mode="sum")
        return torch.ops.hf_molrep.gather_sum(rows, self.index, self.offsets, *self.reverse)
