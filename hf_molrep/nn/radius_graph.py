"""Which atoms are near each other, within the molecules of a batch."""

import torch


@torch.compiler.disable  # its shapes depend on the coordinates
@torch.no_grad()
def radius_graph(
    pos: torch.Tensor, batch: torch.Tensor, cutoff: float, max_neighbors: int | None = None
) -> torch.Tensor:
    """
    Ordered pairs of different atoms of one molecule that are at most `cutoff` apart, those of each target side by side.
    No loop over molecules: all pairs within molecules are measured at once.

    Args:
        pos: `[atoms, 3]`, angstrom.
        batch: int64 `[atoms]`, the molecule of each atom; the atoms of a molecule need not stand side by side.
        cutoff: angstrom, included.
        max_neighbors: an atom is the target of at most so many pairs, from its nearest neighbours; among equally near
            ones the first counts. So a pair may be there in one direction alone. None: of all.
    Returns:
        int64 `[2, edges]`, sources above targets; by target, then by source.
    Raises:
        ValueError: `pos` and `batch` do not fit each other.
    """
    atoms = len(batch)
    if pos.shape != (atoms, 3):
        raise ValueError(f"pos {tuple(pos.shape)} is not one point for each of {atoms} atoms")
    members = batch.argsort(stable=True)  # atoms, molecule by molecule
    sizes = torch.bincount(batch)
    starts = sizes.cumsum(0) - sizes
    per_target = sizes[batch]
    target = torch.arange(atoms, device=pos.device).repeat_interleave(per_target)
    first = per_target.cumsum(0) - per_target  # place of the first pair of each target
    within = torch.arange(len(target), device=pos.device) - first[target]
    source = members[starts[batch[target]] + within]
    squared = (pos[source] - pos[target]).square().sum(dim=-1)
    near = ((squared <= cutoff * cutoff) & (source != target)).nonzero().flatten()
    source, target, squared = source[near], target[near], squared[near]
    if max_neighbors is not None:
        count = torch.bincount(target, minlength=atoms)
        if bool((count > max_neighbors).any()):
            by_distance = squared.argsort(stable=True)
            order = by_distance[target[by_distance].argsort(stable=True)]  # by target, then by distance
            rank = torch.arange(len(order), device=pos.device) - (count.cumsum(0) - count)[target]
            kept = order[rank < max_neighbors].sort().values
            source, target = source[kept], target[kept]
    return torch.stack([source, target])
