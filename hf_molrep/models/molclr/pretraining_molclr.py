"""Pre-training of MolCLR: the data collator makes batches for the objective of the configuration."""

from typing import Any

from ..pretraining import PreTraining, PreTrainingOptions
from .configuration_molclr import MolCLRConfig

# Fields of the configuration that the data collator must know.
SHARED = ("objective", "mask_atom_type", "mask_bond_type", "num_layers", "context_inner_hops", "context_size")


def objective_options(config: MolCLRConfig, options: PreTrainingOptions | None, training: bool) -> dict[str, Any]:
    """Options of the data collator that follow from the configuration, in training and evaluation alike."""
    return {name: getattr(config, name) for name in SHARED}


PRETRAINING = PreTraining(collator_options=objective_options)

__all__ = ["PRETRAINING", "objective_options"]
