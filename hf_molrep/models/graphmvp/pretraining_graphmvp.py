"""Pre-training of GraphMVP: its features hold conformers, which a saved extractor does not compute."""

import copy
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from ..pretraining import PreTraining, PreTrainingOptions, descriptor_features, with_descriptor_scaling
from .configuration_graphmvp import GraphMVPConfig
from .feature_extraction_graphmvp import GraphMVPFeatureExtractor

# Fields of the configuration that the data collator must know.
SHARED = ("objective", "mask_atom_type", "num_layers", "context_inner_hops", "context_size")


@dataclass
class GraphMVPPreTrainingOptions(PreTrainingOptions):
    """Options of every method, and what the molecules of pre-training look like."""

    num_conformers: int | None = field(
        default=None,
        metadata={
            "help": "conformers that are computed of a molecule without coordinates, one of which is drawn in each "
            "epoch; default: what the processor says (1)"
        },
    )
    explicit_hydrogens: bool | None = field(
        default=None,
        metadata={
            "help": "whether both views have hydrogens in pre-training; default: what the processor says (yes, as in "
            "the original, which embeds and fine-tunes without)"
        },
    )


def with_options(
    extractor: GraphMVPFeatureExtractor,
    options: GraphMVPPreTrainingOptions,
    training: TrainingArguments,
    checkpoint: str | None,
) -> GraphMVPFeatureExtractor:
    """
    The extractor that is saved with the model: it remembers what pre-training saw.

    Raises:
        ValueError: fewer than one conformer.
    """
    extractor = copy.deepcopy(extractor)
    if options.num_conformers is not None:
        if options.num_conformers < 1:
            raise ValueError(f"num_conformers is 1 or more, not {options.num_conformers}")
        extractor.pretraining_conformers = options.num_conformers
    if options.explicit_hydrogens is not None:
        extractor.pretraining_hydrogens = options.explicit_hydrogens
    return with_descriptor_scaling(extractor, options, training, checkpoint)


def with_conformers(extractor: GraphMVPFeatureExtractor, config: GraphMVPConfig) -> GraphMVPFeatureExtractor:
    """Return a copy of the extractor that also computes conformers, or instead of them descriptors."""
    return descriptor_features(extractor, config) if config.objective == "descriptors" else extractor.for_pretraining()


def objective_options(config: GraphMVPConfig, options: PreTrainingOptions | None, training: bool) -> dict[str, Any]:
    """
    Options of the data collator by the configuration; evaluation takes the first conformer and all descriptors.

    Raises:
        ValueError: conformers or hydrogens for the objective `"descriptors"`, which learns from the graphs that are
            embedded.
    """
    given = [name for name in ("num_conformers", "explicit_hydrogens") if getattr(options, name, None) is not None]
    if config.objective == "descriptors" and given:
        raise ValueError(f"the objective 'descriptors' uses the graphs that the processor embeds: no {given[0]}")
    options_of_both = {name: getattr(config, name) for name in SHARED}
    return options_of_both | ({} if training else {"conformers": "first", "descriptor_share": 1.0})


PRETRAINING = PreTraining(
    options=GraphMVPPreTrainingOptions,
    prepare_processor=with_options,
    feature_processor=with_conformers,
    collator_options=objective_options,
)

__all__ = ["PRETRAINING", "GraphMVPPreTrainingOptions", "objective_options"]
