"""MM-Deacon configuration."""

import math
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ...configuration import MoleculeConfig


@strict
class MMDeaconTowerConfig(PreTrainedConfig):
    r"""
    Configuration of one encoder of MM-Deacon: a RoBERTa-like Transformer over the tokens of a SMILES or an IUPAC name.

    The paper fixes six layers and mean pooling; the widths are ours (RoBERTa-base), since neither code nor weights were
    released. `norm_first=False` is RoBERTa's post-norm; `True` (pre-norm) and `position_embedding="rotary"` train
    better from few pairs.
    """

    model_type = "mm_deacon_tower"

    vocab_size: int = 1000
    hidden_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    max_position_embeddings: int = 512
    position_embedding: Literal["absolute", "rotary"] = "absolute"
    rope_theta: float | int = 10000.0
    norm_first: bool = False
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2

    def validate_architecture(self):
        """Check that heads divide the hidden width, and for rotary positions that the width of a head is even."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.position_embedding == "rotary" and (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError("rotary positions need an even head width")


@strict
class MMDeaconSmilesConfig(MMDeaconTowerConfig):
    r"""The SMILES encoder of MM-Deacon, see [`MMDeaconTowerConfig`]."""

    model_type = "mm_deacon_smiles"
    base_config_key = "smiles_config"


@strict
class MMDeaconIupacConfig(MMDeaconTowerConfig):
    r"""The IUPAC-name encoder of MM-Deacon, see [`MMDeaconTowerConfig`]."""

    model_type = "mm_deacon_iupac"
    base_config_key = "iupac_config"


@strict
class MMDeaconConfig(MoleculeConfig):
    r"""
    Configuration of the MM-Deacon models (Guo et al., ACL 2022, arXiv 2109.08830). For the scaling of labels see
    [`~hf_molrep.configuration.MoleculeConfig`].

    Args:
        smiles_config, iupac_config: the two towers ([`MMDeaconSmilesConfig`], [`MMDeaconIupacConfig`], or dicts).
        projection_dim: width of the joint space (512 is ours; the value of the paper is not known).
        logit_scale_init: ln(1 / temperature) at the start of training; the temperature is learned (0.07 is CLIP's).
        logit_scale_max: upper limit of the learned ln(1 / temperature) (CLIP's ln 100).
        loss_reduction: the two directional losses are averaged (`"mean"`) or added (`"sum"`, as the paper writes).
        encoder_chunk_size: number of molecules that pass a tower at a time in pre-training and in `get_*_features`,
            sorted by length and padded only to the longest of the chunk; 0: the whole batch. The result is the same; on
            a CPU, where a chunk's activations stay in cache, 32 to 64 train over twice as fast as all 256.
        classifier_dropout: dropout of the property and interaction heads.
        interaction_hidden_size: width of the hidden layer of the drug-drug interaction head.
        interaction_symmetric: average the interaction logits over both orders of the two molecules.
        freeze_encoder: do not train the towers under the interaction head (the paper's "MM-Deacon fingerprint").
    """

    model_type = "mm_deacon"
    sub_configs = {"smiles_config": MMDeaconSmilesConfig, "iupac_config": MMDeaconIupacConfig}
    problem_types = (*MoleculeConfig.problem_types, "single_label_classification")  # the last one for interactions
    keys_to_ignore_at_inference = ["losses", "last_hidden_state", "hidden_states", "attentions"]

    smiles_config: dict | PreTrainedConfig | None = None
    iupac_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 512
    logit_scale_init: float = math.log(1 / 0.07)
    logit_scale_max: float = math.log(100.0)
    loss_reduction: Literal["mean", "sum"] = "mean"
    encoder_chunk_size: int = 0
    classifier_dropout: float | int = 0.1
    interaction_hidden_size: int = 512
    interaction_symmetric: bool = False
    freeze_encoder: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        for name, config_class in self.sub_configs.items():
            value = getattr(self, name)
            if value is None:
                setattr(self, name, config_class())
            elif isinstance(value, dict):
                setattr(self, name, config_class(**value))
        super().__post_init__(**kwargs)

    def get_text_config(self, *args, **kwargs) -> PreTrainedConfig:
        """Return the tower used by `get_input_embeddings` and `resize_token_embeddings`."""
        return self.smiles_config

    @property
    def hidden_size(self) -> int:
        """Width of `pooler_output`."""
        return self.projection_dim


__all__ = ["MMDeaconConfig", "MMDeaconIupacConfig", "MMDeaconSmilesConfig"]
