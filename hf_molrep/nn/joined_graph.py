"""A batch of molecules that is one joined graph."""

import torch


def check_whole(edge_index: torch.Tensor, edge_attr: torch.Tensor) -> None:
    """
    Check that a joined graph is whole: `edge_index` `[2, edges]`, `edge_attr` `[edges, ...]`.

    Raises:
        ValueError: the batch was cut, as `nn.DataParallel` does.
    """
    if edge_index.shape[0] != 2 or edge_index.shape[1] != len(edge_attr):
        raise ValueError(
            f"edge_index {tuple(edge_index.shape)} does not fit edge_attr {tuple(edge_attr.shape)}: a joined graph "
            "must not be cut as nn.DataParallel does; use torchrun for several GPUs"
        )
