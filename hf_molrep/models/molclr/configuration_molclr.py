"""MolCLR configuration."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ...hub import RemoteCodeMixin


@strict
class MolCLRConfig(RemoteCodeMixin, PreTrainedConfig):
    r"""
    Configuration of the MolCLR models (Wang et al., Nature Machine Intelligence 2022). Defaults are those of the
    original's `config.yaml` and `config_finetune.yaml`.

    Args:
        gnn_type: MolCLR's `"gin"` or `"gcn"`; or a layer of pretrain-gnns (Hu et al., ICLR 2020), whose released
            weights have no `feature_dim`: `"gcn_normalized"`, `"graphsage"`, `"gat"`.
        num_atom_types, num_chiralities, num_bond_types, num_bond_directions: rows of the embeddings. 119 and 5 hold
            the mask token 118 and the self-loop 4 of MolCLR; pretrain-gnns has 120 and 6.
        embedding_dim: width of the atom states.
        num_layers: message-passing layers.
        num_heads: attention heads of `"gat"`.
        feature_dim: width of `pooler_output`, a linear map of the mean over the atoms; None: the mean itself.
        projection_dim: width of the contrasted projection.
        temperature: tau of NT-Xent.
        dropout: after every layer, in pre-training and in the bare model.
        finetuning_dropout: the same under the property head.
        head_layers: hidden layers (width `hidden_size // 2`, softplus) of the property head; None: the original's, two
            over `"gin"`, one over the others.
        label_mean, label_std, label_units: one per task of a regression; predictions come back in these units.
    """

    model_type = "molclr"
    keys_to_ignore_at_inference = ["losses", "last_hidden_state"]

    gnn_type: Literal["gin", "gcn", "gcn_normalized", "graphsage", "gat"] = "gin"
    num_atom_types: int = 119
    num_chiralities: int = 3
    num_bond_types: int = 5
    num_bond_directions: int = 3
    embedding_dim: int = 300
    num_layers: int = 5
    num_heads: int = 2
    feature_dim: int | None = 512
    projection_dim: int = 256
    temperature: float = 0.1
    dropout: float | int = 0.0
    finetuning_dropout: float | int = 0.3
    head_layers: int | None = None
    label_mean: list[float] | None = None
    label_std: list[float] | None = None
    label_units: list[str] | None = None

    def __post_init__(self, **kwargs):
        if self.problem_type is None:
            self.problem_type = "regression"
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Width of `pooler_output`."""
        return self.feature_dim or self.embedding_dim

    def validate_architecture(self):
        """The self-loop is bond type 4."""
        if self.num_bond_types < 5:
            raise ValueError(f"num_bond_types is {self.num_bond_types}; four bonds and the self-loop need 5")
        if self.num_layers < 2:
            raise ValueError(f"num_layers is {self.num_layers}; MolCLR needs at least 2")

    def validate_labels(self):
        """Label scales must stand for every task."""
        for name in ("label_mean", "label_std", "label_units"):
            value = getattr(self, name)
            if value is not None and len(value) != self.num_labels:
                raise ValueError(f"{name} has {len(value)} entries for {self.num_labels} tasks")


__all__ = ["MolCLRConfig"]
