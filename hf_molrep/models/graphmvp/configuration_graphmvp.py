"""GraphMVP configuration."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ...configuration import MoleculeConfig

# Rows of the embeddings of atoms and bonds, a column each. pretrain-gnns has a row for masked atoms and, of bonds, for
# the self-loop and masked ones; ogb as of version 1.3.6 (older ones have four kinds of chirality).
FEATURE_DIMS = {
    "pretrain_gnns": ([120, 3], [6, 3]),
    "ogb": ([119, 5, 12, 12, 10, 6, 6, 2, 2], [5, 6, 2]),
}
TEMPERATURES = {"graphmvp": 0.2, "graphmvp_g": 0.05, "graphmvp_c": 0.2, "descriptors": 0.2}
HYBRID_WEIGHTS = {"graphmvp": 0.0, "graphmvp_g": 1.0, "graphmvp_c": 0.1, "descriptors": 0.0}
FINETUNING_DROPOUTS = {"multi_label_classification": 0.5, "regression": 0.2}


@strict
class GraphMVPConfig(MoleculeConfig):
    r"""
    Configuration of the GraphMVP models (Liu et al., ICLR 2022). Defaults are those of the original's final runs (the
    names of its released weights in `submit_fine_tuning.sh`). Scaling of labels:
    [`~hf_molrep.configuration.MoleculeConfig`].

    Args:
        graph_scheme: of the graphs: `"pretrain_gnns"`, with the GIN of pretrain-gnns (the original's classification),
            or `"ogb"`, with that of the Open Graph Benchmark (its regression).
        atom_feature_dims, bond_feature_dims: rows of the embeddings of each column of `x` and `edge_attr`; None: those
            of the scheme.
        embedding_dim: width of the states of both encoders.
        readout: pooling of the atoms of a molecule: their mean, or with `"descriptors"` also `"mean_sum"`, the mean
            beside a sixteenth of the sum, for properties that do not depend on the size of a molecule and for those
            that do.
        num_layers: message-passing layers of the graph encoder.
        num_elements, num_interactions, num_filters, num_gaussians: of SchNet: rows of its embedding (of atomic
            number - 1), interaction blocks, width of the filters, Gaussians that a distance becomes.
        cutoff, max_neighbors: SchNet's interactions reach `cutoff` angstrom, and the nearest `max_neighbors` atoms.
        objective: of `GraphMVPForPreTraining`: `"graphmvp"` (contrast and reconstruction of the two views), or with a
            third term on graphs alone: `"graphmvp_g"` (attribute masking) or `"graphmvp_c"` (context prediction); or
            `"descriptors"` (CheMeleon's): the graph encoder alone, without conformers, predicts scaled descriptors of
            RDKit by a linear map of `pooler_output`.
        num_descriptors: number of these descriptors, set from the `descriptor_scaling` of the processor.
        contrastive_loss: `"ebm_nce"` or `"info_nce"`.
        temperature: of the contrast; None: 0.05 for `"graphmvp_g"`, else 0.2.
        num_negatives: of EBM-NCE, for each molecule.
        contrastive_weight, reconstruction_weight: of the two terms (the original's alpha 1 and 2).
        hybrid_weight: of the third term (alpha 3); None: 1 of `"graphmvp_g"`, 0.1 of `"graphmvp_c"`.
        kl_weight: of the Kullback-Leibler divergence within reconstruction (beta).
        mask_atom_type: what stands in place of a masked atom in attribute masking.
        context_inner_hops, context_size: of context prediction: the context of an atom are the atoms more than
            `context_inner_hops` (None: `num_layers - 1`) and at most `context_size` more bonds away; it is encoded by
            `context_size` layers.
        dropout: of the graph encoder, after every layer.
        finetuning_dropout: the same under the property head; None: 0.2 for a regression, else 0.5.
    """

    model_type = "graphmvp"
    keys_to_ignore_at_inference = ["losses", "last_hidden_state", "hidden_states"]

    graph_scheme: Literal["pretrain_gnns", "ogb"] = "pretrain_gnns"
    atom_feature_dims: list[int] | None = None
    bond_feature_dims: list[int] | None = None
    embedding_dim: int = 300
    num_layers: int = 5
    num_elements: int = 119
    num_interactions: int = 6
    num_filters: int = 128
    num_gaussians: int = 51
    cutoff: float | int = 10.0
    max_neighbors: int = 32
    readout: Literal["mean", "mean_sum"] = "mean"
    objective: Literal["graphmvp", "graphmvp_g", "graphmvp_c", "descriptors"] = "graphmvp"
    num_descriptors: int | None = None
    contrastive_loss: Literal["ebm_nce", "info_nce"] = "ebm_nce"
    temperature: float | int | None = None
    num_negatives: int = 1
    contrastive_weight: float | int = 1.0
    reconstruction_weight: float | int = 1.0
    hybrid_weight: float | int | None = None
    kl_weight: float | int = 2.0
    mask_atom_type: int = 119
    context_inner_hops: int | None = None
    context_size: int = 3
    dropout: float | int = 0.0
    finetuning_dropout: float | int | None = None

    def __post_init__(self, **kwargs):
        atoms, bonds = FEATURE_DIMS.get(self.graph_scheme, (None, None))  # an unknown one is refused afterwards
        if self.atom_feature_dims is None:
            self.atom_feature_dims = atoms and list(atoms)
        if self.bond_feature_dims is None:
            self.bond_feature_dims = bonds and list(bonds)
        if self.temperature is None:
            self.temperature = TEMPERATURES.get(self.objective)
        if self.hybrid_weight is None:
            self.hybrid_weight = HYBRID_WEIGHTS.get(self.objective)
        if self.context_inner_hops is None:
            self.context_inner_hops = self.num_layers - 1
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Width of `pooler_output`."""
        return self.embedding_dim * (2 if self.readout == "mean_sum" else 1)

    def validate_architecture(self):
        """Sizes that fit the scheme; what would never be trained is refused."""
        atoms, bonds = FEATURE_DIMS[self.graph_scheme]
        for name, dims, usual in (
            ("atom_feature_dims", self.atom_feature_dims, atoms),
            ("bond_feature_dims", self.bond_feature_dims, bonds),
        ):
            if len(dims) != len(usual):
                raise ValueError(f"{name} {dims}: the scheme {self.graph_scheme!r} has {len(usual)} columns")
        if self.graph_scheme == "pretrain_gnns" and self.bond_feature_dims[0] < 5:
            raise ValueError(f"bond_feature_dims {self.bond_feature_dims}: four bonds and the self-loop need 5 rows")
        if self.num_gaussians < 2 or self.cutoff <= 0 or self.max_neighbors < 1 or self.num_negatives < 1:
            raise ValueError("num_gaussians is 2 or more, cutoff above 0, max_neighbors and num_negatives 1 or more")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature} is not above 0")
        if self.objective == "descriptors" and not self.num_descriptors:
            raise ValueError(
                "objective 'descriptors' needs num_descriptors, the number of targets in the descriptor_scaling of the "
                "processor (hf-molrep pretrain sets it)"
            )
        if self.readout != "mean" and self.objective != "descriptors":
            raise ValueError(f"objective {self.objective!r} compares graphs with conformers: readout 'mean'")
        if self.objective == "graphmvp_g":
            if self.graph_scheme != "pretrain_gnns":
                raise ValueError("objective 'graphmvp_g' masks atoms, for which only 'pretrain_gnns' has a type")
            if not 0 <= self.mask_atom_type < self.atom_feature_dims[0]:
                raise ValueError(
                    f"mask_atom_type {self.mask_atom_type} is not among {self.atom_feature_dims[0]} atom types"
                )
        if self.objective == "graphmvp_c" and not self.context_inner_hops < self.num_layers:
            raise ValueError(f"context_inner_hops {self.context_inner_hops} is not below num_layers {self.num_layers}")


__all__ = ["GraphMVPConfig"]
