"""MolCLR feature extractor."""

from ...processing.graphs import MolGraphFeatureExtractor


class MolCLRFeatureExtractor(MolGraphFeatureExtractor):
    """
    Turns SMILES into graphs of the scheme `pretrain_gnns`. The original pre-trains on heavy atoms (`node` and
    `subgraph` augmentation) and fine-tunes with explicit hydrogens; `explicit_hydrogens` is saved with a checkpoint.
    """

    def __init__(self, scheme: str = "pretrain_gnns", **kwargs):
        if scheme != "pretrain_gnns":
            raise ValueError(f"MolCLR's graphs are of the scheme 'pretrain_gnns', not {scheme!r}")
        super().__init__(scheme=scheme, **kwargs)


__all__ = ["MolCLRFeatureExtractor"]
