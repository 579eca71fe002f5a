"""Hooks for pre-training GROVER: learn the vocabularies of contexts from the training data, compute labels once."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainingArguments

from ...data.datasets import load_molecules
from ..pretraining import PreTraining, PreTrainingOptions
from .configuration_grover import GroverConfig
from .feature_extraction_grover import GroverFeatureExtractor


@dataclass
class GroverPreTrainingOptions(PreTrainingOptions):
    """Options of GROVER: how the vocabularies are made."""

    min_frequency: int = field(default=1, metadata={"help": "contexts that occur less often become <other>"})


def with_vocabularies(
    extractor: GroverFeatureExtractor,
    options: GroverPreTrainingOptions,
    training: TrainingArguments,
    checkpoint: str | None,
) -> GroverFeatureExtractor:
    """
    Return an extractor with vocabularies: those of the checkpoint from which the run resumes, its own, or new ones that
    one process learns from the training data and saves in `<output_dir>/processor` for the others.
    """
    if checkpoint:  # the heads of the model were trained with these
        return GroverFeatureExtractor.from_pretrained(checkpoint)
    if options.model or extractor.atom_vocabulary is not None:
        return extractor
    folder = Path(training.output_dir) / "processor"
    with training.main_process_first(local=training.save_on_each_node, desc="vocabularies"):
        if training.should_save:
            extractor.learn(load_molecules(options.train_data)["smiles"], options.min_frequency).save_pretrained(folder)
            # AutoProcessor needs a configuration to find the method
            GroverConfig(**extractor.config_fields()).save_pretrained(folder)
    return GroverFeatureExtractor.from_pretrained(folder)


def with_labels(extractor: GroverFeatureExtractor, config: GroverConfig) -> GroverFeatureExtractor:
    """Return a copy of the extractor that also computes labels, so that they are cached with the features."""
    labelling = copy.copy(extractor)
    labelling.context_labels = True
    return labelling


PRETRAINING = PreTraining(
    options=GroverPreTrainingOptions, prepare_processor=with_vocabularies, feature_processor=with_labels
)

__all__ = ["PRETRAINING", "GroverPreTrainingOptions"]
