"""Hooks for pre-training MolCLR: the data collator makes batches for the objective of the configuration."""

from typing import Any

from ..pretraining import PreTraining, PreTrainingOptions
from .configuration_molclr import MolCLRConfig

# fields of the configuration that are options of the data collator too
SHARED = ("objective", "mask_atom_type", "mask_bond_type", "num_layers", "context_inner_hops", "context_size")


def objective_options(config: MolCLRConfig, options: PreTrainingOptions | None, training: bool) -> dict[str, Any]:
    """Return the options of the data collator that the configuration determines."""
    return {name: getattr(config, name) for name in SHARED}


PRETRAINING = PreTraining(collator_options=objective_options)

__all__ = ["PRETRAINING", "objective_options"]
