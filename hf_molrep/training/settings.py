"""The settings of a fine-tuning run: the options of the command, `settings.json` and what resuming compares."""

import dataclasses
from typing import Any


def _setting(default: Any, help: str) -> Any:
    """A field with its default and help text."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class FinetuningSettings:
    """
    Everything that decides what fine-tuning makes of a checkpoint and data. Each field says in its metadata what it is;
    `hf-molrep finetune --help` shows that.
    """

    epochs: int = _setting(30, "passes over the training part")
    learning_rate: float = _setting(1e-4, "the highest one, after warmup")
    batch_size: int = _setting(32, "rows in a batch of training")
    weight_decay: float = _setting(0.01, "of AdamW")
    warmup: float = _setting(0.1, "share of the updates in which the learning rate rises")
    lr_scheduler_type: str = _setting("linear", "how the learning rate falls, see transformers.SchedulerType")
    adam_beta2: float = _setting(0.999, "of AdamW")
    adam_epsilon: float = _setting(1e-8, "of AdamW")
    patience: int | None = _setting(None, "stop after so many epochs without improvement; without it all epochs run")
    metric: str | None = _setting(
        None,
        "chooses the epoch on the validation part: roc_auc, pr_auc (classification), rmse, mae, r2 (regression), "
        "macro_f1, accuracy (multiclass) or loss; without it the first of its kind, for several tasks of a regression "
        "(their units differ) and for conformers the loss",
    )
    seed: int = _setting(0, "of head, order and dropout")
    from_scratch: bool = _setting(False, "random weights of the same architecture")
    truncation: bool = _setting(False, "shorten SMILES longer than the model takes, instead of leaving them out")
    bf16: bool | None = _setting(None, "autocast, weights stay float32; without it where the hardware computes in bf16")
    # `option`: its name on the command line
    config_overrides: dict[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"option": "config", "help": "changes of the configuration, as smiles_config.hidden_dropout=0.1"},
    )
    processor_options: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"option": "processor", "help": "of the features, as descriptors=true (GROVER)"}
    )
    collator_options: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"option": "collator", "help": "of training batches, as smiles_augmentation=0.5"}
    )


def _changed(name: str, default: Any) -> Any:
    """The field of [`FinetuningSettings`] with another default."""
    return dataclasses.field(default=default, metadata=FinetuningSettings.__dataclass_fields__[name].metadata)


@dataclasses.dataclass(frozen=True)
class ConformerSettings(FinetuningSettings):
    """The settings of conformer generation; the optimiser is the original's (Uni-Mol)."""

    epochs: int = _changed("epochs", 50)
    learning_rate: float = _changed("learning_rate", 2e-5)
    warmup: float = _changed("warmup", 0.06)
    weight_decay: float = _changed("weight_decay", 0.0)
    adam_beta2: float = _changed("adam_beta2", 0.99)
    adam_epsilon: float = _changed("adam_epsilon", 1e-6)
    pool: int = _setting(
        40, "RDKit conformers minimised by MMFF94 of each molecule; a quarter as many are not minimised"
    )
