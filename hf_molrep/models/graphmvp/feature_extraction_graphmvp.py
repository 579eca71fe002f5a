"""GraphMVP feature extractor: graphs, and for pre-training the conformers of the same molecules."""

import copy
from typing import Any

from ...processing.graphs import MolGraphFeatureExtractor


class GraphMVPFeatureExtractor(MolGraphFeatureExtractor):
    """
    SMILES to graphs, and with `num_conformers` to conformers whose atoms stand in the order of the graph.

    The original pre-trains on molecules with all their hydrogens, and embeds and fine-tunes graphs without. So a
    saved extractor makes graphs of heavy atoms and no conformers, and remembers what pre-training sees
    ([`~GraphMVPFeatureExtractor.for_pretraining`]).

    Args:
        scheme: `"pretrain_gnns"`, or `"ogb"` (the original's regression).
        pretraining_conformers: `num_conformers` in pre-training, where molecules bring no coordinates.
        pretraining_hydrogens: `explicit_hydrogens` in pre-training.
        others: see [`~hf_molrep.processing.graphs.MolGraphFeatureExtractor`].
    """

    def __init__(
        self,
        scheme: str = "pretrain_gnns",
        pretraining_conformers: int = 1,
        pretraining_hydrogens: bool = True,
        **kwargs,
    ):
        if scheme not in ("pretrain_gnns", "ogb"):
            raise ValueError(f"GraphMVP's graphs are of the scheme 'pretrain_gnns' or 'ogb', not {scheme!r}")
        if pretraining_conformers < 1:
            raise ValueError(f"pretraining_conformers is 1 or more, not {pretraining_conformers}")
        super().__init__(scheme=scheme, **kwargs)
        self.pretraining_conformers = pretraining_conformers
        self.pretraining_hydrogens = pretraining_hydrogens

    def config_fields(self) -> dict[str, Any]:
        """What the configuration of a model takes from here."""
        return super().config_fields() | {"graph_scheme": self.scheme}

    def for_pretraining(self) -> "GraphMVPFeatureExtractor":
        """A copy that gives graph and conformers as pre-training sees them."""
        extractor = copy.deepcopy(self)
        extractor.num_conformers = self.pretraining_conformers
        extractor.explicit_hydrogens = self.pretraining_hydrogens
        return extractor


__all__ = ["GraphMVPFeatureExtractor"]
