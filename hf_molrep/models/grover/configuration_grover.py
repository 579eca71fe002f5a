"""GROVER configuration."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from ...configuration import MoleculeConfig


@strict
class GroverConfig(MoleculeConfig):
    r"""
    Configuration of the GROVER models (Rong et al., NeurIPS 2020). Defaults are the paper's base size; the large one
    has `embedding_dim=1200`. For the scaling of labels see [`~hf_molrep.configuration.MoleculeConfig`].

    Args:
        atom_features, bond_features: number of columns of `x` and `edge_attr` (feature scheme `grover`).
        embedding_dim: width of the atom and bond states.
        num_blocks: number of GTransformer blocks of each view.
        num_attention_heads: number of message-passing heads of a block, and of heads of the attention among them.
        depth: number of hops of message passing; n hops make n - 1 updates, as in the original.
        dynamic_depth: `"truncnorm"`: in training the number of hops is drawn for the queries, keys and values of each
            head, from a normal distribution with mean `depth` and deviation 1, cut off at 3 deviations, rounded down.
        hidden_act: `"prelu"` (one learned slope per activation, as in the released weights) or another function.
        bias: biases of the linear layers that have none by default.
        dropout: dropout of the encoder.
        fingerprint_source: parts of `pooler_output`: the means over atoms of both atom outputs (`"atom"`), over
            directed bonds of both bond outputs (`"bond"`), or all four (`"both"`).
        padded_neighbors: fixed length to which the list of neighbours of every atom is padded. The original pads to the
            highest number of neighbours in the batch, with a row of zeros that does not stay zero; its weights need
            this padding, but embeddings then depend on the batch. With a fixed length each molecule gives the numbers
            that the original gives in a batch with this highest number of neighbours (4 in nearly all batches of
            drug-like molecules); a molecule with an atom of more neighbours is padded to its own highest number. None:
            no padding.
        legacy_padding: true pads to the highest number of neighbours in the batch, as the original does, so that
            embeddings depend on the batch; for comparisons with the original.
        atom_vocab_size, bond_vocab_size: number of contexts in pre-training, including `<pad>` and `<other>`.
        num_motifs: number of functional groups in pre-training.
        disagreement_weight: weight of the squared difference between the predictions of two branches.
        readout: readout of the property head: the mean over atoms, or `"self_attention"`.
        readout_hidden, readout_heads: sizes of the self-attentive readout (`attn_hidden`, `attn_out` of the original);
            its output is `readout_heads * embedding_dim` wide.
        features_dim: number of further features of each molecule for the property head (`features`), 0: none.
        ffn_layers, ffn_dim: layers and width of the two networks of the property head; `ffn_dim` None:
            `embedding_dim`.
        classifier_dropout: dropout of the property head; None: `dropout`.
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
        """Check widths and numbers of layers, and that at most one kind of padding is chosen."""
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
