"""Uni-Mol configuration."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ...configuration import MoleculeConfig


@strict
class UniMolConfig(MoleculeConfig):
    r"""
    Configuration of the Uni-Mol models (Zhou et al., ICLR 2023). The defaults are those of the released molecular
    models: 47.6 million parameters with all pre-training heads. For the scaling of labels see
    [`~hf_molrep.configuration.MoleculeConfig`].

    Args:
        vocab_size: number of tokens: padding, beginning, end, unknown element, 26 elements, mask. Pairs of tokens have
            `vocab_size ** 2` types.
        hydrogens: hydrogens that the weights were trained with: `"all"`, `"polar"` (those on carbon left out) or
            `"none"`. The setting of [`UniMolFeatureExtractor`] must agree. None: not known.
        num_attention_heads: number of heads; also the width of the pair representation.
        num_kernels: number of Gaussian functions of the distance.
        kernel_init: initial weights of the Gaussian kernel: `"normal"` with deviation `initializer_range`, as in the
            released pre-training code in effect, or `"uniform"`: centres and widths uniform in 0 ... 3, scale 1 and
            shift 0, as in the original layer without pre-training.
        embedding_dropout, hidden_dropout, attention_dropout, activation_dropout: dropout of the token embeddings, of
            the output of each half of a layer, of the attention weights, inside the feed-forward network.
        max_length: longest sequence, including two special tokens.
        distance_mean, distance_std: the distance head predicts `(distance - mean) / std`, angstrom.
        token_loss_weight, coordinate_loss_weight, distance_loss_weight, hidden_norm_loss_weight,
            pair_norm_loss_weight: weights of the five terms of the pre-training loss.
        num_recycles: number of passes of states and pairs through the encoder before conformers are predicted (the
            paper's recipe; the default of the original's command line is 1).
        conformer_coordinate_loss_weight, conformer_distance_loss_weight: weights of the two terms of the loss of
            conformer generation.
        head_type: property head: `"tanh"` (the paper: dropout, linear, tanh, dropout, linear) or `"linear"`
            (unimol_tools: dropout, linear).
        classifier_dropout: dropout of the property head.
    """

    model_type = "uni_mol"
    keys_to_ignore_at_inference = [
        "losses",
        "last_hidden_state",
        "hidden_states",
        "attentions",
        "pair_representation",
        "initial_pair_representation",
        "token_logits",
        "coordinates",
        "distances",
    ]

    vocab_size: int = 31
    hydrogens: Literal["all", "polar", "none"] | None = None
    hidden_size: int = 512
    num_hidden_layers: int = 15
    num_attention_heads: int = 64
    intermediate_size: int = 2048
    num_kernels: int = 128
    kernel_init: Literal["normal", "uniform"] = "normal"
    embedding_dropout: float | int = 0.1
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    activation_dropout: float | int = 0.0
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    max_length: int = 512
    distance_mean: float = 6.312581655060595
    distance_std: float = 3.3899264663911888
    token_loss_weight: float | int = 1.0
    coordinate_loss_weight: float | int = 5.0
    distance_loss_weight: float | int = 10.0
    hidden_norm_loss_weight: float | int = 0.01
    pair_norm_loss_weight: float | int = 0.01
    num_recycles: int = 4
    conformer_coordinate_loss_weight: float | int = 1.0
    conformer_distance_loss_weight: float | int = 1.0
    head_type: Literal["tanh", "linear"] = "tanh"
    classifier_dropout: float | int = 0.0
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def validate_architecture(self):
        """Check that heads divide the hidden width, and that `num_recycles` is positive."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.num_recycles < 1:
            raise ValueError(f"num_recycles must be 1 or more, not {self.num_recycles}")


__all__ = ["UniMolConfig"]
