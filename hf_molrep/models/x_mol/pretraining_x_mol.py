"""Hooks for pre-training X-MOL: the vocabulary of the processor, and lengths that fit."""

from dataclasses import dataclass, field
from typing import Any

from ..pretraining import PreTraining, PreTrainingOptions
from .configuration_x_mol import XMolConfig
from .processing_x_mol import XMolProcessor


@dataclass
class XMolPreTrainingOptions(PreTrainingOptions):
    """Options of X-MOL."""

    empty_source: float = field(
        default=0.0, metadata={"help": "share of molecules that are written without a source, as new ones"}
    )


def config_with_vocabulary(
    config_class: type[XMolConfig], fields: dict[str, Any], processor: XMolProcessor
) -> XMolConfig:
    """Make a configuration with the vocabulary of the tokenizer."""
    tokenizer = processor.tokenizer
    vocabulary = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    return config_class(**fields | vocabulary | processor.config_fields())


def collation(config: XMolConfig, options: XMolPreTrainingOptions, training: bool) -> dict[str, Any]:
    """Return the options of the data collator: lengths that the positions of the model allow."""
    longest = config.max_position_embeddings // (2 if config.continuous_position else 1)
    return {
        "max_length": longest if options.max_length is None else min(longest, options.max_length),
        "empty_source": options.empty_source,
    }


PRETRAINING = PreTraining(
    options=XMolPreTrainingOptions,
    carried_columns=("source_smiles", "target_smiles", "condition"),
    make_config=config_with_vocabulary,
    collator_options=collation,
)

__all__ = ["PRETRAINING", "XMolPreTrainingOptions"]
