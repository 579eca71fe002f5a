"""Hooks for pre-training DMP: the vocabulary of the processor, and the second network of BYOL."""

from typing import Any

from transformers import TrainerCallback

from ..pretraining import PreTraining, PreTrainingOptions
from .configuration_dmp import DMPConfig
from .modeling_dmp import DMPForPreTraining
from .processing_dmp import DMPProcessor


def config_with_vocabulary(config_class: type[DMPConfig], fields: dict[str, Any], processor: DMPProcessor) -> DMPConfig:
    """Make a configuration whose SMILES branch has the vocabulary of the tokenizer."""
    tokenizer = processor.tokenizer
    vocabulary = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return config_class(**fields | {"smiles_config": {**fields.get("smiles_config", {}), **vocabulary}})


def freeze_target(model: DMPForPreTraining, options: PreTrainingOptions, on_cpu: bool) -> None:
    """No gradient for the second network: loading a checkpoint makes every parameter trainable."""
    if model.target is not None:
        model.target.requires_grad_(False)


class MomentumTarget(TrainerCallback):
    """Lets the second network of `DMPForPreTraining` follow after each step, and begin as the trained one."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if not int(model.target_steps):  # a run that resumes has it already
            model.update_target()

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        model.update_target()


def momentum_target(config: DMPConfig, *collators: Any) -> list[TrainerCallback]:
    """What must happen after each step, where there is a second network."""
    return [MomentumTarget()] if config.momentum_target else []


PRETRAINING = PreTraining(make_config=config_with_vocabulary, prepare_model=freeze_target, callbacks=momentum_target)

__all__ = ["PRETRAINING", "MomentumTarget"]
