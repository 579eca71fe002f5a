"""GROVER configuration."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ...configuration import MoleculeConfig


@strict
class GroverConfig(MoleculeConfig):
    r"""
    Configuration of the GROVER models (Rong et al., NeurIPS 2020). Defaults are the paper's base size; the large one
    has `embedding_dim=1200`. Scaling of labels: [`~hf_molrep.configuration.MoleculeConfig`].

    Args:
        atom_features, bond_features: columns of `x` and `edge_attr` (feature scheme `grover`).
        embedding_dim: width of the atom and bond states.
        num_blocks: GTransformer blocks of each view.
        num_attention_heads: message-passing heads of a block; also the heads of the attention among them.
        depth: hops of message passing. What follows a hop count of n are n - 1 updates, as in the original.
        dynamic_depth: `"truncnorm"`: in training each of the queries, keys and values of each head draws its hops from
            a normal distribution around `depth` with deviation 1, cut off at 3 and rounded down.
        hidden_act: one learned slope per activation (`"prelu"`, what the released weights have) or another function.
        bias: biases of the linear layers that have none by default.
        dropout: everywhere in the encoder.
        fingerprint_source: what `pooler_output` is made of: the means over atoms of both atom outputs (`"atom"`), over
            directed bonds of both bond outputs (`"bond"`), or all four (`"both"`).
        padded_neighbors: the original pads the list of neighbours of every atom to the highest number of neighbours in
            its batch, with a row of zeros that does not stay zero. Weights that were trained with it need it, but an
            embedding then depends on the batch. A number here is a fixed length instead: every molecule is computed by
            itself, as the original computes it in a batch whose highest number of neighbours is this one (4 in nearly
            all batches of drug-like molecules); a molecule that has an atom of more neighbours is padded to its own
            highest number. None: no padding.
        legacy_padding: true pads to the highest number of neighbours in the batch, as the original does, so that an
            embedding depends on the batch; for comparisons with numbers of the original.
        atom_vocab_size, bond_vocab_size: contexts that are predicted in pre-training, `<pad>` and `<other>` included.
        num_motifs: functional groups that are predicted in pre-training.
        disagreement_weight: weight of the squared difference between the predictions of two branches.
        readout: of the property head: the mean over atoms, or `"self_attention"`.
        readout_hidden, readout_heads: of the self-attentive readout (`attn_hidden`, `attn_out` of the original); its
            output is `readout_heads * embedding_dim` wide.
        features_dim: further features of each molecule given to the property head (`features`), 0: none.
        ffn_layers, ffn_dim: of the two networks of the property head; `ffn_dim` None: `embedding_dim`.
        classifier_dropout: of the property head; None: `dropout`.
    """

    model_type = "grover"
    keys_to_ignore_at_inference = ["losses", "last_hidden_state", "hidden_states", "attentions"]

    atom_features: int = 151
    bond_features: int = 14
    embedding_dim: int = 800
    num_blocks: int = 1
    num_attention_heads: int = 4
    depth: int = 6
    dynamic_depth: Literal["truncnorm", "none"] = "truncnorm"
    hidden_act: Literal["prelu", "relu", "leaky_relu", "tanh", "selu", "elu"] = "prelu"
    bias: bool = False
    dropout: float | int = 0.1
    layer_norm_eps: float = 1e-5
    fingerprint_source: Literal["atom", "bond", "both"] = "both"
    padded_neighbors: int | None = None
    legacy_padding: bool = False
    atom_vocab_size: int = 2
    bond_vocab_size: int = 2
    num_motifs: int = 85
    disagreement_weight: float | int = 0.1
    readout: Literal["mean", "self_attention"] = "mean"
    readout_hidden: int = 4
    readout_heads: int = 128
    features_dim: int = 0
    ffn_layers: int = 2
    ffn_dim: int | None = None
    classifier_dropout: float | int | None = None

    @property
    def hidden_size(self) -> int:
        """Width of `pooler_output`."""
        return (4 if self.fingerprint_source == "both" else 2) * self.embedding_dim

    def validate_architecture(self):
        """Attention divides the width among its heads; one hop is no message passing; one kind of padding at most."""
        if self.embedding_dim % self.num_attention_heads:
            raise ValueError(
                f"embedding_dim {self.embedding_dim} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.depth < 2 or self.num_blocks < 1 or self.ffn_layers < 1:
            raise ValueError("depth is at least 2, num_blocks and ffn_layers at least 1")
        if self.padded_neighbors is not None:
            if self.padded_neighbors < 1:
                raise ValueError(f"padded_neighbors is {self.padded_neighbors}: it is at least 1, or None")
            if self.legacy_padding:
                raise ValueError(
                    f"padded_neighbors {self.padded_neighbors} and legacy_padding exclude each other: a fixed number "
                    "of neighbours, or the highest number in the batch"
                )


__all__ = ["GroverConfig"]
