"""DMP configuration."""

from dataclasses import field
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ...configuration import MoleculeConfig


@strict
class DMPSmilesConfig(PreTrainedConfig):
    r"""
    Configuration of DMP's SMILES branch, a RoBERTa. `max_position_embeddings` counts tokens; as in fairseq the table
    has `pad_token_id + 1` rows more.
    """

    model_type = "dmp_smiles"
    base_config_key = "smiles_config"

    vocab_size: int = 2353
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2

    def validate_architecture(self):
        """Check that heads divide the hidden width."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )


@strict
class DMPGraphConfig(PreTrainedConfig):
    r"""
    Configuration of DMP's graph branch, a DeeperGCN.

    Args:
        hidden_size: width of the atom states; that of the molecule is twice as large (maximum beside mean).
        atom_feature_dims, bond_feature_dims: sizes of the columns of the feature scheme `dmp`.
        dropout: before each layer but the first, and after the last.
    """

    model_type = "dmp_graph"
    base_config_key = "graph_config"

    hidden_size: int = 384
    num_hidden_layers: int = 12
    atom_feature_dims: list[int] = field(default_factory=lambda: [120, 4, 12, 12, 10, 6, 6, 2, 2])
    bond_feature_dims: list[int] = field(default_factory=lambda: [7, 6, 2])
    dropout: float | int = 0.1


@strict
class DMPConfig(MoleculeConfig):
    r"""
    Configuration of the DMP models (Zhu et al., KDD 2023, arXiv 2106.10234; code microsoft/DVMP). The defaults are
    those of the original. For the scaling of labels see [`~hf_molrep.configuration.MoleculeConfig`].

    Args:
        smiles_config, graph_config: the two branches ([`DMPSmilesConfig`], [`DMPGraphConfig`], or dicts).
        branch: the branches that `DMPModel` and `DMPForPropertyPrediction` have, and what `pooler_output` is: the state
            of `</s>` (`"smiles"`, which the authors recommend), the pooled atoms (`"graph"`), or both side by side.
            Pre-training always has both, so a pre-trained checkpoint can be loaded with any.
        projection_dim: width of projections and predictions.
        bottleneck_ratio: the hidden layer of projectors and predictors is so many times as wide as their input.
        tokens_weight, atoms_weight, consistency_weight: weights of the three losses.
        momentum_target: targets of the consistency come from a second network whose weights follow the trained ones, as
            in BYOL. False: from the same network, as in SimSiam and in the original.
        target_decay: part of the second network's weights that a step keeps.
        branch_choice: property prediction from both branches: `"mean"` of the two hidden layers, or weights for each
            molecule, `"learned"` (named as future work in the paper).
        classifier_dropout: dropout of the property head.
    """

    model_type = "dmp"
    sub_configs = {"smiles_config": DMPSmilesConfig, "graph_config": DMPGraphConfig}
    keys_to_ignore_at_inference = ["losses", "monitors", "last_hidden_state", "hidden_states", "attentions"]

    smiles_config: dict | PreTrainedConfig | None = None
    graph_config: dict | PreTrainedConfig | None = None
    branch: Literal["smiles", "graph", "both"] = "smiles"
    projection_dim: int = 768
    bottleneck_ratio: int = 4
    tokens_weight: float | int = 1.0
    atoms_weight: float | int = 1.0
    consistency_weight: float | int = 1.0
    momentum_target: bool = False
    target_decay: float = 0.99
    branch_choice: Literal["mean", "learned"] = "mean"
    classifier_dropout: float | int = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        for name, config_class in self.sub_configs.items():
            value = getattr(self, name)
            if value is None:
                setattr(self, name, config_class())
            elif isinstance(value, dict):
                setattr(self, name, config_class(**value))
        super().__post_init__(**kwargs)

    def validate_choice(self):
        """Check that there is something to choose from, and that the target follows."""
        if self.branch_choice == "learned" and self.branch != "both":
            raise ValueError(f"branch_choice 'learned' needs branch 'both', not {self.branch!r}")
        if not 0 <= self.target_decay < 1:
            raise ValueError(f"target_decay is at least 0 and below 1, not {self.target_decay}")

    def get_text_config(self, *args, **kwargs) -> PreTrainedConfig:
        """Return the branch used by `get_input_embeddings` and `resize_token_embeddings`."""
        return self.smiles_config

    @property
    def widths(self) -> dict[str, int]:
        """Width of the feature of each branch that `branch` names."""
        widths = {"smiles": self.smiles_config.hidden_size, "graph": 2 * self.graph_config.hidden_size}
        return widths if self.branch == "both" else {self.branch: widths[self.branch]}

    @property
    def hidden_size(self) -> int:
        """Width of `pooler_output`."""
        return sum(self.widths.values())


__all__ = ["DMPConfig", "DMPGraphConfig", "DMPSmilesConfig"]
