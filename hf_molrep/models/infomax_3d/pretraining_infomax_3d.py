"""Pre-training of 3D Infomax: conformers or labels by the objective of the configuration."""

import copy
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from ..pretraining import PreTraining, PreTrainingOptions, descriptor_features, with_descriptor_scaling
from .configuration_infomax_3d import Infomax3DConfig
from .feature_extraction_infomax_3d import Infomax3DFeatureExtractor


@dataclass
class Infomax3DPreTrainingOptions(PreTrainingOptions):
    """Options of every method, and those of this one."""

    labels: str | None = field(
        default=None, metadata={"help": "columns that the objective property_prediction learns, separated by commas"}
    )
    explicit_hydrogens: bool | None = field(
        default=None,
        metadata={"help": "hydrogens are atoms of the graph (QM9 in the paper); default: as the processor"},
    )


def with_hydrogens(
    extractor: Infomax3DFeatureExtractor,
    options: Infomax3DPreTrainingOptions,
    training: TrainingArguments,
    checkpoint: str | None,
) -> Infomax3DFeatureExtractor:
    """Set the hydrogens of `--explicit_hydrogens`, and the scaling of descriptors if the objective needs one."""
    if options.explicit_hydrogens is not None:
        extractor.explicit_hydrogens = options.explicit_hydrogens
    return with_descriptor_scaling(extractor, options, training, checkpoint)


def with_conformers(extractor: Infomax3DFeatureExtractor, config: Infomax3DConfig) -> Infomax3DFeatureExtractor:
    """Return a copy with as many conformers as the objective needs, or descriptors; a saved one computes graphs."""
    needed = {"contrastive": config.num_conformers, "distance_prediction": 1}.get(config.objective, 0)
    with_them = copy.copy(descriptor_features(extractor, config))
    with_them.num_conformers = needed
    return with_them


def label_columns(options: Infomax3DPreTrainingOptions, config: Infomax3DConfig) -> list[str]:
    """
    The columns to learn.

    Raises:
        ValueError: labels for an objective that learns none, or none for the one that does.
    """
    names = [name.strip() for name in (options.labels or "").split(",") if name.strip()]
    if bool(names) != (config.objective == "property_prediction"):
        told = "needs --labels" if not names else "learns no labels: --labels is for 'property_prediction'"
        raise ValueError(f"the objective {config.objective!r} {told}")
    return names


def objective_options(config: Infomax3DConfig, options: PreTrainingOptions | None, training: bool) -> dict[str, Any]:
    """Return the options of the data collator that the configuration determines; evaluation uses all descriptors."""
    return {"objective": config.objective} | ({} if training else {"descriptor_share": 1.0})


PRETRAINING = PreTraining(
    options=Infomax3DPreTrainingOptions,
    prepare_processor=with_hydrogens,
    feature_processor=with_conformers,
    label_columns=label_columns,
    collator_options=objective_options,
)

__all__ = ["PRETRAINING", "Infomax3DPreTrainingOptions", "objective_options"]
