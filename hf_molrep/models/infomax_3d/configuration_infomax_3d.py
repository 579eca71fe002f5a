"""3D Infomax configuration."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ...configuration import MoleculeConfig

Aggregator = Literal["min", "max", "mean", "sum"]
# Values of each column of the scheme `ogb` behind the atomic number and the chirality; and of the bonds.
ATOM_SIZES = (12, 12, 10, 6, 6, 2, 2)
BOND_SIZES = (5, 6, 2)
# What JOAO chooses among, for each of the two views.
AUGMENTATIONS = ("node_dropping", "bond_perturbation", "attribute_masking", "subgraph", "none")


@strict
class Infomax3DConfig(MoleculeConfig):
    r"""
    Configuration of the 3D Infomax models (Stärk et al., ICML 2022). Defaults are those of the original's
    configurations for pre-training on one conformer and for fine-tuning on QM9. Scaling of labels:
    [`~hf_molrep.configuration.MoleculeConfig`].

    Args:
        num_atom_types, num_chiralities: rows of the embeddings. Files made with OGB before version 1.3 may have 4
            chiralities and no row for "anything else".
        embedding_dim: width of the atom states.
        num_layers: message-passing layers of the 2D network.
        readout: what makes a molecule of its atoms, side by side, in the bare model and in pre-training.
        finetuning_readout: the same under the property head.
        readout_dim: hidden width of the readout network, which every objective but distances and descriptors has behind
            the readout, and of the property head.
        readout_layers: linear layers of both.
        projection_dim: width of what is contrasted.
        dropout: in every block of linear layer, activation and batch norm, before the norm.
        batch_norm_momentum: share of the last batch in the running statistics; finetuning_batch_norm_momentum: the same
            in fine-tuning.
        objective: of `Infomax3DForPreTraining`: the paper's `"contrastive"` against conformers, or what it is compared
            with, on the same encoder: `"property_prediction"`, `"distance_prediction"`, `"graph_contrast"` (GraphCL);
            or `"descriptors"` (CheMeleon's): a linear map of `pooler_output` predicts scaled descriptors of RDKit.
        num_descriptors: number of these descriptors, set from the `descriptor_scaling` of the processor.
            with, on the same encoder: `"property_prediction"`, `"distance_prediction"`, `"graph_contrast"` (GraphCL).
        augmentation_choice: in `"graph_contrast"`: the data collator's (`"given"`), or learned: one probability for
            each pair of augmentations (`"joao"`, JOAO of You et al., ICML 2021), and with it a readout network for each
            augmentation (`"joao_v2"`).
        joao_gamma: how strongly JOAO holds to the uniform distribution; joao_step: length of its step up the losses,
            once an epoch; joao_share: share of the molecules on which it measures them.
        num_conformers: of each molecule in `"contrastive"`; the original has 1 (QM9), 3 (QMugs), 5 (GEOM-Drugs).
        temperature: tau of both contrasts.
        net_3d_dim, net_3d_layers: width and layers of the network over distances.
        num_fourier: a distance d becomes sin(d / 2^k), cos(d / 2^k) for k < `num_fourier`, and d.
        transformer_heads, transformer_dim, transformer_dropout: the layer over the atoms of a molecule in
            `"distance_prediction"`: heads, width of its feed-forward part (None: `embedding_dim`), dropout.
        regression_loss: of properties, in pre-training and fine-tuning: mean absolute (the original's) or squared error
            of the scaled labels.
        restart_batch_norm: fine-tuning takes over all of the encoder but its batch norms, which start anew. The
            original does so for QM9, and keeps them for the tasks of MoleculeNet.
        unfreezing_steps: fine-tuning warms up in three stages of so many updates, one after the other: batch norms that
            started anew, the new head, and last what was taken over; until its stage a group stands still. In short
            runs the stages shrink together to 30 % of all updates. `[]`: all are trained from the first update.
    """

    model_type = "infomax_3d"
    attribute_map = {"vocab_size": "num_atom_types"}  # what `resize_token_embeddings` writes down
    keys_to_ignore_at_inference = ["losses", "last_hidden_state", "hidden_states"]

    num_atom_types: int = 119
    num_chiralities: int = 5
    embedding_dim: int = 200
    num_layers: int = 7
    readout: list[Aggregator] | None = None
    finetuning_readout: list[Aggregator] | None = None
    readout_dim: int = 200
    readout_layers: int = 2
    projection_dim: int = 256
    dropout: float | int = 0.0
    batch_norm_momentum: float = 0.93
    finetuning_batch_norm_momentum: float = 0.1
    objective: Literal["contrastive", "property_prediction", "distance_prediction", "graph_contrast", "descriptors"] = (
        "contrastive"
    )
    num_descriptors: int | None = None
    augmentation_choice: Literal["given", "joao", "joao_v2"] = "given"
    joao_gamma: float | int = 0.1
    joao_step: float | int = 1.0
    joao_share: float | int = 0.1
    num_conformers: int = 1
    temperature: float | int = 0.1
    net_3d_dim: int = 20
    net_3d_layers: int = 1
    num_fourier: int = 4
    transformer_heads: int = 2
    transformer_dim: int | None = None
    transformer_dropout: float | int = 0.1
    regression_loss: Literal["l1", "mse"] = "l1"
    restart_batch_norm: bool = True
    unfreezing_steps: list[int] | None = None

    def __post_init__(self, **kwargs):
        if self.readout is None:
            self.readout = ["min", "max", "mean"]
        if self.finetuning_readout is None:
            self.finetuning_readout = ["min", "max", "mean", "sum"]
        if self.unfreezing_steps is None:
            self.unfreezing_steps = [700, 700, 390]
        super().__post_init__(**kwargs)

    @property
    def atom_sizes(self) -> tuple[int, ...]:
        """Values of each column of `x`."""
        return (self.num_atom_types, self.num_chiralities, *ATOM_SIZES)

    @property
    def bond_sizes(self) -> tuple[int, ...]:
        """Values of each column of `edge_attr`."""
        return BOND_SIZES

    @property
    def hidden_size(self) -> int:
        """Width of `pooler_output`."""
        return len(self.readout) * self.embedding_dim

    def validate_architecture(self):
        """Layers and readouts are there; the parts of fine-tuning are three."""
        for name in ("num_layers", "readout_layers", "net_3d_layers", "num_conformers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and must be 1 or more")
        for name in ("readout", "finetuning_readout"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name one or more of min, max, mean, sum")
        if self.augmentation_choice != "given" and self.objective != "graph_contrast":
            raise ValueError(
                f"augmentation_choice {self.augmentation_choice!r} is for the objective 'graph_contrast', "
                f"not {self.objective!r}"
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature is above 0, not {self.temperature}")
        if not 0 < self.joao_share <= 1:
            raise ValueError(f"joao_share is above 0 and at most 1, not {self.joao_share}")
        if self.objective == "descriptors" and not self.num_descriptors:
            raise ValueError(
                "objective 'descriptors' needs num_descriptors, the number of targets in the descriptor_scaling of the "
                "processor (hf-molrep pretrain sets it)"
            )
        if self.embedding_dim % self.transformer_heads:
            raise ValueError(
                f"{self.transformer_heads} transformer_heads do not divide embedding_dim {self.embedding_dim}"
            )
        if len(self.unfreezing_steps) not in (0, 3) or any(steps < 0 for steps in self.unfreezing_steps):
            raise ValueError(f"unfreezing_steps are three numbers of updates or none, not {self.unfreezing_steps}")


__all__ = ["Infomax3DConfig"]
