"""Losses as pure functions: tensors in, a scalar out; equation and source in each docstring."""

import torch
import torch.nn.functional as F


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """
    Gather the rows of all processes, `[molecules, ...] -> [processes * molecules, ...]`, and send gradients back to the
    process of each row (`torch.distributed.all_gather` has no gradient). Every process must hold equally many rows.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    if torch.distributed.get_world_size() == 1:
        return tensor
    return _GatherRows.apply(tensor)


class _GatherRows(torch.autograd.Function):
    """Differentiable gather; those of torch are deprecated in newer versions or missing in older ones."""

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
        # gloo has no reduce_scatter: sum all rows, keep those of this process
        gradient = gradient.clone()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


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


def ebm_nce(
    first: torch.Tensor, second: torch.Tensor, temperature: float, negatives: int = 1, gather: bool = True
) -> torch.Tensor:
    """
    EBM-NCE, one direction (Liu et al. 2022, eq. 5; GraphMVP's `do_CL`): is this the same molecule,

        L = mean_i softplus(-s_i,i) + sum_k mean_i softplus(s_i,i+k),    s_i,j = cos(x_i, y_j) / T,  k = 1 ... K

    where i + k is the k-th next molecule of the batch, the first one after the last.

    Args:
        first, second: `[molecules, hidden]`, row k of both is the same molecule; need not be normalised.
        temperature: T.
        negatives: K.
        gather: under `torch.distributed`, the next molecules are those of all processes; the mean of the losses of the
            processes is the loss of one process with the joined batch, gradients included.
    """
    first, second = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
    everyone, start = second, 0
    if gather and torch.distributed.is_available() and torch.distributed.is_initialized():
        everyone, start = gather_with_gradient(second), torch.distributed.get_rank() * len(first)
    own = torch.arange(len(first), device=first.device) + start
    loss = F.softplus(-(first * second).sum(dim=-1) / temperature).mean()
    for shift in range(1, negatives + 1):
        others = everyone[(own + shift) % len(everyone)]
        loss = loss + F.softplus((first * others).sum(dim=-1) / temperature).mean()
    return loss


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float, gather: bool = True) -> torch.Tensor:
    """
    NT-Xent (Chen et al. 2020, eq. 1; MolCLR's `nt_xent.py` with cosine similarity): each of the 2N views must find the
    other view of its molecule among the 2N - 1 others,

        L = -1/2N sum_i log( exp(cos(z_i, z_p(i)) / T) / sum_{j != i} exp(cos(z_i, z_j) / T) )

    Args:
        first, second: `[molecules, hidden]`, row k of both is the same molecule; need not be normalised.
        temperature: T.
        gather: under `torch.distributed`, views of all processes are candidates; the mean of the losses of the
            processes is the loss of one process with the joined batch, gradients included.
    """
    views = torch.stack([F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)], dim=1)
    candidates, rank = views, 0
    if gather and torch.distributed.is_available() and torch.distributed.is_initialized():
        candidates, rank = gather_with_gradient(views), torch.distributed.get_rank()
    views, candidates = views.flatten(0, 1), candidates.flatten(0, 1)  # the two views of a molecule are neighbours
    self_index = torch.arange(len(views), device=views.device) + rank * len(views)
    similarity = views @ candidates.T / temperature
    similarity = similarity.masked_fill(F.one_hot(self_index, len(candidates)).bool(), -torch.inf)
    return F.cross_entropy(similarity, self_index ^ 1)


def one_sided_nt_xent(
    queries: torch.Tensor, keys: torch.Tensor, temperature: float, eps: float = 1e-8, gather: bool = True
) -> torch.Tensor:
    """
    NT-Xent as in 3D Infomax (Stärk et al. 2022, eq. 2 and its form with several conformers) and GraphCL (You et al.
    2020): one direction, and the positive stands outside of the denominator, so that the loss can be negative:

        L = -1/N sum_i log( sum_u exp(s_iiu) / sum_{j != i} sum_u exp(s_iju) ),  s_iju = cos(q_i, k_ju) / T

    A single molecule has nothing to be told from: its loss is 0.

    Args:
        queries: `[molecules, hidden]`; keys: `[molecules, hidden]`, or `[molecules, conformers, hidden]` (u above); row
            k of both is the same molecule; need not be normalised.
        temperature: T.
        eps: added to the product of the lengths (the original: 1e-8 for one conformer, 0 for several).
        gather: under `torch.distributed`, the keys of all processes are candidates; the mean of the losses of the
            processes is the loss of one process with the joined batch, gradients included.
    """
    queries, keys = queries.float(), keys.float()
    keys = keys[:, None] if keys.dim() == 2 else keys
    rank = 0
    if gather and torch.distributed.is_available() and torch.distributed.is_initialized():
        keys, rank = gather_with_gradient(keys), torch.distributed.get_rank()
    if len(keys) == 1:
        return (queries.sum() + keys.sum()) * 0
    lengths = queries.norm(dim=-1)[:, None, None] * keys.norm(dim=-1) + eps
    similarity = torch.einsum("id,jud->iju", queries, keys) / lengths / temperature
    similarity = similarity.logsumexp(dim=-1)
    itself = torch.arange(len(queries), device=queries.device) + rank * len(queries)
    own = F.one_hot(itself, len(keys)).bool()
    positive = similarity.masked_fill(~own, 0.0).sum(dim=-1)
    return (similarity.masked_fill(own, -torch.inf).logsumexp(dim=-1) - positive).mean()


def negative_cosine(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """
    Negative cosine similarity with a stopped target (SimSiam, Chen and He 2021, eq. 1; DMP, Zhu et al. 2023): the mean
    of `-cos(p_i, t_i)`, -1 at best. The targets get no gradient.

    Args:
        predictions, targets: `[molecules, hidden]`, row k of both is the same molecule; need not be normalised.
    """
    return -F.cosine_similarity(predictions.float(), targets.detach().float(), dim=-1).mean()


def mean_over_processes(total: torch.Tensor, count: int | torch.Tensor) -> torch.Tensor:
    """
    Divide a sum by the mean of `count` over the processes. The mean of the results over the processes is then the mean
    over all items of all processes, gradients included, also for unequal counts. 0 where there are no items.
    """
    count = torch.as_tensor(count, dtype=torch.float32, device=total.device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        count = count.clone()
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return torch.where(count > 0, total / count.clamp(min=torch.finfo(torch.float32).tiny), total * 0)


@torch.no_grad()
def kabsch_rotation(moving: torch.Tensor, onto: torch.Tensor) -> torch.Tensor:
    """
    Compute the proper rotation R that minimises `|moving @ R - onto|` (Kabsch, Acta Cryst. A32, 922 (1976)),
    `[molecules, 3, 3]`, without a gradient. If it is not unique (atoms on a line, a single atom), it is one of them.

    Args:
        moving, onto: `[molecules, atoms, 3]`, each centred at the origin; zero where there is no atom.
    """
    with torch.autocast(moving.device.type, enabled=False):
        dtype = torch.promote_types(moving.dtype, torch.float32)
        covariance = moving.to(dtype).transpose(1, 2) @ onto.to(dtype)
        # the gradient scaler skips steps that overflow, but the decomposition would raise an error
        left, _, right = torch.linalg.svd(torch.nan_to_num(covariance, posinf=0.0, neginf=0.0))
        reflects = torch.linalg.det(left) * torch.linalg.det(right) < 0
        sign = torch.ones_like(covariance[:, 0])
        sign[:, 2] = torch.where(reflects, -1.0, 1.0)  # along the direction of the smallest singular value
        return (left * sign[:, None]) @ right


def conformer_losses(
    coordinates: torch.Tensor,
    distances: torch.Tensor,
    target_pos: torch.Tensor,
    atoms: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """
    Losses of conformer generation (Zhou et al. 2023; `unimol/losses/conf_gen.py`): `coordinate`, the mean absolute
    difference per axis between the centred coordinates and the target rotated onto them by [`kabsch_rotation`]; and
    `distance`, that of the distances of all ordered pairs of atoms, including each atom with itself. Means are taken
    over all processes.

    Args:
        coordinates, target_pos: `[molecules, length, 3]`, angstrom; atom i is the same atom in both.
        distances: `[molecules, length, length]`, angstrom.
        atoms: bool `[molecules, length]`, False for special tokens and padding.
    """
    dtype = torch.promote_types(coordinates.dtype, torch.float32)
    present = atoms.to(dtype)[..., None]
    count = present.sum(dim=1, keepdim=True).clamp(min=1.0)

    def centred(pos: torch.Tensor) -> torch.Tensor:
        pos = pos.to(dtype) * present
        return (pos - pos.sum(dim=1, keepdim=True) / count) * present

    predicted, target = centred(coordinates), centred(target_pos)
    target = target @ kabsch_rotation(target, predicted.detach())
    pairs = present * present.transpose(1, 2)
    true_distances = (target[:, :, None] - target[:, None]).square().sum(dim=-1).sqrt()
    return {
        "coordinate": mean_over_processes((predicted - target).abs().sum(), 3 * present.sum()),
        "distance": mean_over_processes(((distances.to(dtype) - true_distances).abs() * pairs).sum(), pairs.sum()),
    }


def masked_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """
    Mean cross-entropy of masked items over all processes (attribute masking, Hu et al. 2020, section 3.1.2).

    Args:
        logits: `[masked, classes]`.
        targets: int64 `[masked]`.
    """
    return mean_over_processes(F.cross_entropy(logits.float(), targets, reduction="sum"), len(targets))


def context_prediction(centers: torch.Tensor, contexts: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """
    Context prediction with one negative (Hu et al. 2020, section 3.1.1; `pretrain_contextpred.py`, "cbow"):

        L = mean softplus(-c_i . k_i) + mean softplus(c_i . k_next(i))

    where next(i) is the next molecule with a context, over all processes and cyclically.

    Args:
        centers, contexts: `[molecules, hidden]`, equally many in every process.
        present: bool `[molecules]`, False for molecules without a context, which do not count.
    """
    centers, contexts = centers.float(), contexts.float()
    gathered = gather_with_gradient(torch.cat([contexts, present[:, None].to(contexts.dtype)], dim=-1))
    contexts_of_all, present_of_all = gathered[:, :-1], gathered[:, -1] > 0.5
    rank = torch.distributed.get_rank() if len(gathered) > len(centers) else 0
    # shapes must not depend on the data: sort molecules with a context first, and count the position of the next one
    with_context = torch.argsort((~present_of_all).byte(), stable=True)
    number = present_of_all.cumsum(0) % present_of_all.sum().clamp(min=1)
    index = torch.arange(len(centers), device=centers.device) + rank * len(centers)
    following = contexts_of_all[with_context[number[index]]]
    positive = F.softplus(-(centers * contexts).sum(dim=-1))
    negative = F.softplus((centers * following).sum(dim=-1))
    return mean_over_processes(torch.where(present, positive + negative, 0.0).sum(), present.sum())


def descriptor_loss(
    predictions: torch.Tensor, targets: torch.Tensor, places: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Mean squared error of the scaled descriptors that a step asks for, over all processes (CheMeleon, Burns, Zalte and
    Green 2025, arXiv 2506.15792: a random share of the descriptors of each molecule, nothing masked in the input):

        L = mean over (i, k) with t_ik not NaN of (p_ik - t_ik)^2

    Args:
        predictions: `[molecules, descriptors]`.
        targets: `[molecules, asked]`, NaN where a molecule has no such descriptor.
        places: int64 `[molecules, asked]`, which descriptors the targets are; None: all, in order.
    Raises:
        ValueError: shapes that differ.
    """
    if places is not None:
        predictions = predictions.gather(1, places)
    if predictions.shape != targets.shape:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, the model predicts {tuple(predictions.shape)}")
    present = ~torch.isnan(targets)
    error = torch.where(present, predictions.float() - torch.where(present, targets, 0.0).float(), 0.0)
    return mean_over_processes(error.square().sum(), present.sum())


def mean_absolute_error(predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """
    Mean absolute difference of everything that is present (not NaN), over all processes; 0 with a gradient of 0 where
    nothing is.

    Args:
        predicted, targets: of one shape.
    Raises:
        ValueError: shapes that differ.
    """
    if predicted.shape != targets.shape:
        raise ValueError(f"targets have shape {tuple(targets.shape)}, the model predicts {tuple(predicted.shape)}")
    present = ~torch.isnan(targets)
    error = (predicted.float() - torch.where(present, targets, 0.0).float()).abs()
    return mean_over_processes(torch.where(present, error, 0.0).sum(), present.sum())


def property_loss(logits: torch.Tensor, labels: torch.Tensor, problem_type: str) -> torch.Tensor:
    """
    Mean loss over the labels that are not NaN: squared error for `regression`, binary cross-entropy for
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
