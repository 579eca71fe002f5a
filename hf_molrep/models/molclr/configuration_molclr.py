"""MolCLR configuration."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ...configuration import MoleculeConfig


@strict
class MolCLRConfig(MoleculeConfig):
    r"""
    Configuration of the MolCLR models (Wang et al., Nature Machine Intelligence 2022). Defaults are those of the
    original's `config.yaml` and `config_finetune.yaml`. For the scaling of labels see
    [`~hf_molrep.configuration.MoleculeConfig`].

    Args:
        gnn_type: MolCLR's `"gin"` or `"gcn"`; or a layer of pretrain-gnns (Hu et al., ICLR 2020), whose released
            weights have no `feature_dim`: `"gcn_normalized"`, `"graphsage"`, `"gat"`.
        num_atom_types, num_chiralities, num_bond_types, num_bond_directions: sizes of the embeddings. 119 atom types
            include the mask 118, and 5 bond types the self-loop 4 of MolCLR; pretrain-gnns has 120 and 6.
        mask_atom_type: type of a masked atom: 118 in MolCLR, 119 in pretrain-gnns.
        mask_bond_type: type of a masked bond, for attribute masking only: 5 in pretrain-gnns; None: no bonds are
            masked.
        objective: objective of `MolCLRForPreTraining`: MolCLR's `"contrastive"` (NT-Xent), or `"attribute_masking"` or
            `"context_prediction"` of pretrain-gnns, which train atom states and so need `feature_dim=None`; or
            `"descriptors"` (CheMeleon's): predict scaled descriptors of RDKit by a linear map of `pooler_output`.
        num_descriptors: number of these descriptors, set from the `descriptor_scaling` of the processor.
        context_inner_hops, context_size: for context prediction: the context of an atom consists of the atoms more than
            `context_inner_hops` (None: `num_layers - 1`) and at most `context_size` more bonds away; it is encoded by
            `context_size` layers.
        embedding_dim: width of the atom states.
        num_layers: message-passing layers.
        num_heads: attention heads of `"gat"`.
        jumping_knowledge: final states of the atoms: those of the last layer, or sum, maximum or concatenation over
            the embedding and all layers.
        readout: pooling of the atoms of a molecule; `"mean_sum"`: the mean beside a sixteenth of the sum, for
            properties that do not depend on the size of a molecule and for those that do.
        feature_dim: width of `pooler_output`, a linear map of the readout; None: the readout itself.
        projection_dim: width of the projection for the contrastive loss.
        temperature: tau of NT-Xent.
        dropout: dropout after every layer, in pre-training and in the base model.
        finetuning_dropout: the same in a model with a property head.
        head_layers: number of hidden layers (width `hidden_size // 2`, softplus) of the property head; None: as in the
            original, two for `"gin"`, one for the others.
    """

    model_type = "molclr"
    attribute_map = {"vocab_size": "num_atom_types"}  # set by `resize_token_embeddings`
    keys_to_ignore_at_inference = ["losses", "last_hidden_state", "hidden_states"]

    gnn_type: Literal["gin", "gcn", "gcn_normalized", "graphsage", "gat"] = "gin"
    num_atom_types: int = 119
    num_chiralities: int = 3
    num_bond_types: int = 5
    num_bond_directions: int = 3
    mask_atom_type: int = 118
    mask_bond_type: int | None = None
    objective: Literal["contrastive", "attribute_masking", "context_prediction", "descriptors"] = "contrastive"
    num_descriptors: int | None = None
    context_inner_hops: int | None = None
    context_size: int = 3
    embedding_dim: int = 300
    num_layers: int = 5
    num_heads: int = 2
    jumping_knowledge: Literal["last", "sum", "max", "concat"] = "last"
    readout: Literal["mean", "sum", "max", "mean_sum"] = "mean"
    feature_dim: int | None = 512
    projection_dim: int = 256
    temperature: float = 0.1
    dropout: float | int = 0.0
    finetuning_dropout: float | int = 0.3
    head_layers: int | None = None

    def __post_init__(self, **kwargs):
        if self.context_inner_hops is None:
            self.context_inner_hops = self.num_layers - 1
        super().__post_init__(**kwargs)

    @property
    def atom_dim(self) -> int:
        """Width of `last_hidden_state`."""
        return self.embedding_dim * (self.num_layers + 1 if self.jumping_knowledge == "concat" else 1)

    @property
    def readout_dim(self) -> int:
        """Width of the readout."""
        return self.atom_dim * (2 if self.readout == "mean_sum" else 1)

    @property
    def hidden_size(self) -> int:
        """Width of `pooler_output`."""
        return self.feature_dim or self.readout_dim

    def validate_architecture(self):
        """Check that special types have embeddings, and that the objective trains all of the model."""
        if self.num_bond_types < 5:
            raise ValueError(f"num_bond_types is {self.num_bond_types}; four bonds and the self-loop need 5")
        if not 0 <= self.mask_atom_type < self.num_atom_types:
            raise ValueError(f"mask_atom_type {self.mask_atom_type} is not among {self.num_atom_types} atom types")
        if self.mask_bond_type is not None and not 4 < self.mask_bond_type < self.num_bond_types:
            raise ValueError(
                f"mask_bond_type {self.mask_bond_type}: 0 ... 4 are bonds and the self-loop, and there are "
                f"{self.num_bond_types} bond types"
            )
        if not self.context_inner_hops < self.num_layers and self.objective == "context_prediction":
            raise ValueError(f"context_inner_hops {self.context_inner_hops} is not below num_layers {self.num_layers}")
        if self.objective == "descriptors" and not self.num_descriptors:
            raise ValueError(
                "objective 'descriptors' needs num_descriptors, the number of targets in the descriptor_scaling of the "
                "processor (hf-molrep pretrain sets it)"
            )
        if self.objective == "context_prediction" and self.readout == "mean_sum":
            raise ValueError("objective 'context_prediction' needs contexts as wide as atoms, not readout 'mean_sum'")
        if self.objective in ("attribute_masking", "context_prediction") and self.feature_dim is not None:
            raise ValueError(f"objective {self.objective!r} trains the states of atoms: set feature_dim to None")


__all__ = ["MolCLRConfig"]
