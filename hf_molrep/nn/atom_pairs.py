"""Pairs of atoms of one molecule in a joined batch."""

import torch


def count_atoms(batch: torch.Tensor, num_graphs: int) -> torch.Tensor:
    """Atoms of each molecule, `[molecules]`, from the molecule of each atom, `[atoms]`."""
    empty = torch.zeros(num_graphs, dtype=batch.dtype, device=batch.device)
    return empty.scatter_add_(0, batch, torch.ones_like(batch))


def pairs_within_molecules(batch: torch.Tensor, num_graphs: int) -> torch.Tensor:
    """
    All ordered pairs of two atoms of one molecule, int64 `[2, pairs]`.

    Their number depends on the data: a model that is to be compiled takes them from the data collator.

    Args:
        batch: `[atoms]`, molecule of each atom; the atoms of a molecule stand together, molecules in their order.
    """
    counts = count_atoms(batch, num_graphs)
    first = (counts.cumsum(0) - counts)[batch]
    partners = counts[batch] - 1
    source = torch.arange(len(batch), device=batch.device).repeat_interleave(partners)
    place = torch.arange(len(source), device=batch.device) - (partners.cumsum(0) - partners)[source]
    target = first[source] + place
    return torch.stack([source, target + (target >= source)])  # passing over the atom itself
