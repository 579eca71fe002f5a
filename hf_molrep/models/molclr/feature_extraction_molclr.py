"""MolCLR feature extractor."""

from ...processing.graphs import MolGraphFeatureExtractor


class MolCLRFeatureExtractor(MolGraphFeatureExtractor):
    """
    SMILES to graphs of the scheme `pretrain_gnns`. The original pre-trains on heavy atoms (`node` and `subgraph`
    augmentation) and fine-tunes with explicit hydrogens; a checkpoint's extractor says which it means.
    """

    def __init__(self, scheme: str = "pretrain_gnns", **kwargs):
        if scheme != "pretrain_gnns":
            raise ValueError(f"MolCLR's graphs are of the scheme 'pretrain_gnns', not {scheme!r}")
        super().__init__(scheme=scheme, **kwargs)


__all__ = ["MolCLRFeatureExtractor"]
