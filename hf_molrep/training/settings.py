"""Settings of a fine-tuning run: used for the command's options, `settings.json` and resuming."""

import dataclasses
from typing import Any


def _setting(default: Any, help: str) -> Any:
    """Make a field with its default and help text."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class FinetuningSettings:
    """
    All settings that the result of fine-tuning depends on, besides checkpoint and data. The help text of each field is
    in its metadata; `hf-molrep finetune --help` shows it.
    """

    epochs: int = _setting(30, "passes over the training part")
    learning_rate: float = _setting(1e-4, "highest learning rate, after warmup")
    batch_size: int = _setting(32, "rows in a training batch")
    weight_decay: float = _setting(0.01, "weight decay of AdamW")
    warmup: float = _setting(0.1, "fraction of the updates in which the learning rate rises")
    lr_scheduler_type: str = _setting("linear", "how the learning rate falls, see transformers.SchedulerType")
    adam_beta2: float = _setting(0.999, "beta2 of AdamW")
    adam_epsilon: float = _setting(1e-8, "epsilon of AdamW")
    patience: int | None = _setting(None, "stop after this many epochs without improvement; default: run all epochs")
    metric: str | None = _setting(
        None,
        "metric on the validation part that chooses the epoch: roc_auc, pr_auc (classification), rmse, mae, r2 "
        "(regression), macro_f1, accuracy (multiclass) or loss; default: the first of its kind, but loss for a "
        "regression of several tasks (their units differ) and for conformers",
    )
    seed: int = _setting(0, "random seed of head, order and dropout")
    from_scratch: bool = _setting(False, "start from random weights of the same architecture")
    truncation: bool = _setting(False, "shorten SMILES that are too long for the model, instead of skipping them")
    bf16: bool | None = _setting(None, "bf16 autocast, weights stay float32; default: if the hardware has bf16 units")
    # metadata `option`: the name on the command line, if it differs
    config_overrides: dict[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"option": "config", "help": "changes of the configuration, e.g. smiles_config.hidden_dropout=0.1"},
    )
    processor_options: dict[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"option": "processor", "help": "of the processor, e.g. descriptors=true (GROVER)"},
    )
    collator_options: dict[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"option": "collator", "help": "of training batches, e.g. smiles_augmentation=0.5"},
    )

    def __post_init__(self):
        """Raise ValueError for values that no run can have."""
        from transformers import SchedulerType  # here, so that `finetune --help` does not load transformers

        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")
        if not self.learning_rate >= 0:
            raise ValueError(f"learning_rate is not negative: {self.learning_rate}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is a fraction of the updates, 0 to 1, not {self.warmup}")
        schedules = [schedule.value for schedule in SchedulerType]
        if self.lr_scheduler_type not in schedules:
            raise ValueError(f"lr_scheduler_type is one of {', '.join(schedules)}, not {self.lr_scheduler_type!r}")


def _changed(name: str, default: Any) -> Any:
    """Copy a field of [`FinetuningSettings`] with another default."""
    return dataclasses.field(default=default, metadata=FinetuningSettings.__dataclass_fields__[name].metadata)


@dataclasses.dataclass(frozen=True)
class ConformerSettings(FinetuningSettings):
    """Settings of conformer generation, with the optimiser settings of the original (Uni-Mol)."""

    epochs: int = _changed("epochs", 50)
    learning_rate: float = _changed("learning_rate", 2e-5)
    warmup: float = _changed("warmup", 0.06)
    weight_decay: float = _changed("weight_decay", 0.0)
    adam_beta2: float = _changed("adam_beta2", 0.99)
    adam_epsilon: float = _changed("adam_epsilon", 1e-6)
    pool: int = _setting(
        40, "MMFF94-minimised RDKit conformers per molecule; a quarter as many unminimised ones are added"
    )
