"""Distances as vectors."""

import torch


def gaussian_basis(distance: torch.Tensor, stop: float, count: int, start: float = 0.0) -> torch.Tensor:
    """
    Gaussians of one width, their centres evenly spaced (Schütt et al. 2017, section 3.2):

        exp(-(d - m_k)^2 / (2 w^2)),    m_k = start + k w,  k = 0 ... count - 1,  w = (stop - start) / (count - 1)

    Args:
        distance: of any shape, angstrom.
        stop, start: the last and the first centre, angstrom.
        count: how many, at least 2.
    Returns:
        the shape of `distance` and one dimension `count` more.
    Raises:
        ValueError: fewer than two, or centres that do not ascend.
    """
    if count < 2 or stop <= start:
        raise ValueError(f"{count} Gaussians from {start} to {stop}: at least two, in ascending order")
    centres = torch.linspace(start, stop, count, dtype=distance.dtype, device=distance.device)
    width = (stop - start) / (count - 1)
    return torch.exp((distance[..., None] - centres).square() * (-0.5 / width**2))


def cosine_cutoff(distance: torch.Tensor, cutoff: float) -> torch.Tensor:
    """`(cos(pi d / cutoff) + 1) / 2`: 1 at distance 0, falling smoothly to 0 at `cutoff`; not to be used beyond."""
    return 0.5 * (torch.cos(distance * (torch.pi / cutoff)) + 1.0)
