"""Losses as pure functions: tensors in, a scalar out; equation and source in each docstring."""

import torch
import torch.nn.functional as F


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """
    Rows of all processes, `[molecules, ...] -> [processes * molecules, ...]`, through which gradients flow back to the
    process that owns them (`torch.distributed.all_gather` would cut them). Every process must hold equally many rows.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    if torch.distributed.get_world_size() == 1:
        return tensor
    return _GatherRows.apply(tensor)


class _GatherRows(torch.autograd.Function):
    """torch has no differentiable gather that neither newer versions deprecate nor older ones lack."""

    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        gathered = [
            torch.empty_like(rows, memory_format=torch.contiguous_format)
            for _ in range(torch.distributed.get_world_size())
        ]
        torch.distributed.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        # gloo has no reduce_scatter: sum the whole, take the own rows
        gradient = gradient.clone()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def mean_over_processes(total: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """
    `total / count`, 0 where there is nothing to count. Under `torch.distributed` (where a gradient is asked for) the
    count is the mean over the processes: the mean of what the processes return, and of their gradients, is then that of
    one process with the joined batch, however unequal the counts. `total` and `count` are scalars.
    """
    count = count.detach().to(torch.float32)
    if torch.is_grad_enabled() and torch.distributed.is_available() and torch.distributed.is_initialized():
        count = count.clone()
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return total / torch.where(count > 0, count, 1.0)


def info_nce(
    queries: torch.Tensor, keys: torch.Tensor, scale: torch.Tensor | float, gather: bool = True
) -> torch.Tensor:
    """
    InfoNCE with in-batch negatives (van den Oord et al. 2018, eq. 4; one direction of MM-Deacon, Guo et al. 2022):

        L = -1/N sum_k log( exp(s cos(q_k, k_k)) / sum_j exp(s cos(q_k, k_j)) )

    Args:
        queries, keys: `[molecules, hidden]`, row k of both is the same molecule; need not be normalised.
        scale: s, the inverse temperature.
        gather: under `torch.distributed`, take the keys of all processes as candidates. The mean of the losses of the
            processes then equals the loss of one process with the joined batch, gradients included.
    """
    queries = F.normalize(queries.float(), dim=-1)
    keys = F.normalize(keys.float(), dim=-1)
    targets = torch.arange(len(queries), device=queries.device)
    if gather and torch.distributed.is_available() and torch.distributed.is_initialized():
        keys = gather_with_gradient(keys)
        targets = targets + torch.distributed.get_rank() * len(queries)
    return F.cross_entropy(scale * queries @ keys.T, targets)


def property_loss(logits: torch.Tensor, labels: torch.Tensor, problem_type: str) -> torch.Tensor:
    """
    Mean loss over the labels that are present (not NaN): squared error for `regression`, binary cross-entropy for
    `multi_label_classification`. Without any label the loss is 0 and still has a (zero) gradient.

    Args:
        logits, labels: `[molecules, tasks]`; labels of a regression are scaled as the logits are.
    Raises:
        ValueError: unknown `problem_type`, or shapes that differ. (Classes other than 0 and 1 are refused by `data`.)
    """
    if logits.shape != labels.shape:
        raise ValueError(f"labels have shape {tuple(labels.shape)}, the model predicts {tuple(logits.shape)}")
    present = ~torch.isnan(labels)
    labels = torch.where(present, labels, 0.0).to(torch.float32)
    logits = logits.float()
    if problem_type == "regression":
        loss = F.mse_loss(logits, labels, reduction="none")
    elif problem_type == "multi_label_classification":
        loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    else:
        raise ValueError(f"problem_type is 'regression' or 'multi_label_classification', not {problem_type!r}")
    return torch.where(present, loss, 0.0).sum() / present.sum().clamp(min=1)
