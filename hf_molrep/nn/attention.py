"""Attention of all models that have some."""

import torch
import torch.nn.functional as F
from torch import nn


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compute attention of `[molecules, heads, length, width]`, with weights that can be given back: what
    `ALL_ATTENTION_FUNCTIONS` of transformers falls back to for "eager".

    Args:
        attention_mask: is added to the products, so lowest where nothing may be seen; None: all is seen.
    Returns:
        `[molecules, length, heads, width]`, and the weights `[molecules, heads, length, length]`.
    """
    weights = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        weights = weights + attention_mask.to(weights.dtype)
    weights = F.softmax(weights, dim=-1)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights
