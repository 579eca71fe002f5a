"""Hooks for pre-training MolCLR: the data collator makes batches for the objective of the configuration."""

from typing import Any

from ..pretraining import PreTraining, PreTrainingOptions, descriptor_features, with_descriptor_scaling
from .configuration_molclr import MolCLRConfig

# fields of the configuration that are options of the data collator too
SHARED = ("objective", "mask_atom_type", "mask_bond_type", "num_layers", "context_inner_hops", "context_size")


def objective_options(config: MolCLRConfig, options: PreTrainingOptions | None, training: bool) -> dict[str, Any]:
    """Return the options of the data collator that the configuration determines; evaluation uses all descriptors."""
    return {name: getattr(config, name) for name in SHARED} | ({} if training else {"descriptor_share": 1.0})


PRETRAINING = PreTraining(
    prepare_processor=with_descriptor_scaling,
    feature_processor=descriptor_features,
    collator_options=objective_options,
)

__all__ = ["PRETRAINING", "objective_options"]
