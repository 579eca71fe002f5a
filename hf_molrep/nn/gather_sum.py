"""Sums of rows over edges, planned once per batch and used by every layer."""

import torch
import torch.nn.functional as F


class _SumRows(torch.autograd.Function):
    """`embedding_bag` has no gradient of its table in bf16, and a slow one in float32; the transposed sum is fast."""

    @staticmethod
    def forward(ctx, rows, index, offsets, transposed_index, transposed_offsets):
        ctx.save_for_backward(transposed_index, transposed_offsets)
        return F.embedding_bag(index, rows, offsets, mode="sum")

    @staticmethod
    def backward(ctx, gradient):
        index, offsets = ctx.saved_tensors
        return F.embedding_bag(index, gradient.contiguous(), offsets, mode="sum"), None, None, None, None


def _plan(source: torch.Tensor, target: torch.Tensor, sums: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort the sources by target; also return the offset of the first source of each target."""
    target, order = target.sort(stable=True)
    return source[order], torch.searchsorted(target, torch.arange(sums, device=target.device))


class GatherSum:
    """
    `sums[t] = sum of rows[s] over the edges s -> t`, as a callable `[rows, width] -> [sums, width]` with a gradient.
    No tensor `[edges, width]` is stored: one pass over the edges in the order of their targets (a plain `index_add` of
    gathered rows takes nine times as long on a CPU).

    Args:
        source, target: int64 `[edges]`, in any order.
        rows, sums: number of each; a sum without edges is 0.
    """

    def __init__(self, source: torch.Tensor, target: torch.Tensor, rows: int, sums: int):
        self.source, self.target, self.sums = source, target, sums
        if torch.compiler.is_compiling():  # compilers optimise the plain form, and do not support this gradient
            return
        self.index, self.offsets = _plan(source, target, sums)
        # only a gradient needs the sum over the edges in the other direction
        self.transposed = _plan(target, source, rows) if torch.is_grad_enabled() else None

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            return rows.new_zeros(self.sums, rows.shape[1]).index_add(0, self.target, rows[self.source])
        if self.transposed is None:
            return F.embedding_bag(self.index, rows, self.offsets, mode="sum")
        return _SumRows.apply(rows, self.index, self.offsets, *self.transposed)
