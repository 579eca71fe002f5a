"""X-MOL configuration."""

from dataclasses import field
from typing import Literal

from huggingface_hub.dataclasses import strict

from ...configuration import MoleculeConfig


@strict
class XMolConfig(MoleculeConfig):
    r"""
    Configuration of the X-MOL models (Xue et al., Science Bulletin 67, 899 (2022); code bm2-lab/X-MOL). The defaults
    are those of the original. For the scaling of labels see [`~hf_molrep.configuration.MoleculeConfig`].

    Args:
        vocab_size: 112 in the original, more with an extended tokenizer.
        max_position_embeddings: positions of the table. With continuous positions, source and target have to fit
            together; otherwise each part of the source, and the target.
        type_vocab_size: number of token types: parts of a source, and the target.
        target_type_id: token type of the target; those of the parts of a source are 0, 1 ...
        continuous_position: positions run through source and target; else they begin again, at 1 in each part of the
            source (its `[CLS]` has 0), and at 0 in the target.
        pooling: embedding of a molecule: state of the first token, or mean over the tokens. The pre-training trains
            neither for it.
        knowledge_embeddings: embeddings added to those of the tokens, of links, rings and kinds of tokens (see
            [`~hf_molrep.tokenization.x_mol.knowledge_ids`]); not for the models that write SMILES.
        classifier_dropout: dropout of the property and interaction heads.
        molecule_columns: names of the molecules of a row, in the order in which the property head was trained on them;
            None: one molecule.
    """

    model_type = "x_mol"
    problem_types = (*MoleculeConfig.problem_types, "single_label_classification")  # the last one for interactions
    keys_to_ignore_at_inference = ["losses", "last_hidden_state", "hidden_states", "attentions", "cache"]

    vocab_size: int = 112
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 4
    target_type_id: int = 1
    continuous_position: bool = True
    pooling: Literal["first", "mean"] = "first"
    knowledge_embeddings: list[Literal["link", "ring", "type"]] = field(default_factory=list)
    classifier_dropout: float | int = 0.1
    molecule_columns: list[str] | None = None
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs):
        # Trainer sets it to False and saves it; what was trained would then be slow to generate
        kwargs.pop("use_cache", None)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Check that heads divide the hidden width, and that the target has a token type of its own."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if not 0 < self.target_type_id < self.type_vocab_size:
            raise ValueError(
                f"target_type_id {self.target_type_id} is not among the types 1 to {self.type_vocab_size - 1}"
            )


__all__ = ["XMolConfig"]
