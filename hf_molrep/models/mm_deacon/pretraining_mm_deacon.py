"""Hooks for pre-training MM-Deacon: pairs of SMILES and names, evaluated by cross-lingual retrieval."""

from dataclasses import dataclass, field
from typing import Any

from ...metrics import retrieval_compute_metrics
from ..pretraining import PreTraining, PreTrainingOptions
from .configuration_mm_deacon import MMDeaconConfig
from .modeling_mm_deacon import MMDeaconForPreTraining
from .processing_mm_deacon import MMDeaconProcessor


@dataclass
class MMDeaconPreTrainingOptions(PreTrainingOptions):
    """Options of MM-Deacon: chunk size of the towers, and augmentation."""

    encoder_chunk_size: int | None = field(
        default=None, metadata={"help": "see the field of the configuration; default: 32 on a CPU, 0 on a GPU"}
    )
    smiles_augmentation: float = field(default=0.0, metadata={"help": "share of SMILES replaced by random ones"})


def config_with_vocabularies(
    config_class: type[MMDeaconConfig], fields: dict[str, Any], processor: MMDeaconProcessor
) -> MMDeaconConfig:
    """Make a configuration whose towers have the vocabularies of the two tokenizers."""
    tokenizers = {"smiles_config": processor.tokenizer, "iupac_config": processor.iupac_tokenizer}
    for tower, tokenizer in tokenizers.items():
        vocabulary = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        fields = fields | {tower: {**fields.get(tower, {}), **vocabulary}}
    return config_class(**fields)


def set_chunk_size(model: MMDeaconForPreTraining, options: MMDeaconPreTrainingOptions, on_cpu: bool) -> None:
    """Set how many molecules pass a tower at a time; it affects the speed on a CPU, not the result."""
    chunk_size = options.encoder_chunk_size
    model.config.encoder_chunk_size = chunk_size if chunk_size is not None else 32 * on_cpu


def augmentation(config: MMDeaconConfig, options: MMDeaconPreTrainingOptions, training: bool) -> dict[str, float]:
    """Return the options of the data collator: random SMILES only in training."""
    return {"smiles_augmentation": options.smiles_augmentation} if training else {}


PRETRAINING = PreTraining(
    options=MMDeaconPreTrainingOptions,
    default_processor="mm-deacon-mini",
    columns=("smiles", "iupac_name"),
    make_config=config_with_vocabularies,
    prepare_model=set_chunk_size,
    collator_options=augmentation,
    compute_metrics=retrieval_compute_metrics(("smiles", "iupac")),
)

__all__ = ["PRETRAINING", "MMDeaconPreTrainingOptions"]
