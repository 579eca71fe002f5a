"""What fine-tuning starts from: processor and model of a checkpoint for a task, with a new head where it needs one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..inference.checkpoints import check_processor, silent_transformers
from ..models.auto import Task, method_of


def task_of(config: PreTrainedConfig, name: str) -> Task:
    """
    Model and data collator of a task of a method.

    Args:
        name: a key of [`~hf_molrep.models.auto.AUTO_CLASSES`].
    Raises:
        ValueError: the configuration is of none of our methods, or its method does not have this task.
    """
    tasks = method_of(config).tasks
    if name not in tasks:
        raise ValueError(f"{config.model_type} has no model for {name}")
    return tasks[name]


def load_processor(checkpoint: str, options: Mapping[str, Any]) -> Any:
    """
    The processor of a checkpoint with some of its options changed (the model is then changed with them).

    Raises:
        ValueError: as saved it does not fit the model; an option that it does not have.
    """
    processor = AutoProcessor.from_pretrained(checkpoint)
    check_processor(processor, AutoConfig.from_pretrained(checkpoint))
    if options:
        processor = AutoProcessor.from_pretrained(checkpoint, **options)
    for name, value in options.items():
        if not hasattr(processor, name) or getattr(processor, name) != value:
            raise ValueError(f"{type(processor).__name__} does not take {name}={value!r}")
    return processor


def config_for_labels(
    checkpoint: str,
    label_names: Sequence[str],
    problem_type: str,
    *,
    label_mean: Sequence[float] | None = None,
    label_std: Sequence[float] | None = None,
    label_units: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> PreTrainedConfig:
    """
    The configuration of a checkpoint for these labels: their names, and for regression their scaling and units.

    Args:
        label_names: of the tasks, or of the classes that exclude each other.
        overrides: fields to change, nested for sub-configurations, for instance
            `{"classifier_dropout": 0.2, "smiles_config": {"hidden_dropout": 0.1}}`.
    """
    config = AutoConfig.from_pretrained(checkpoint, **(overrides or {}))
    config.label_mean = config.label_std = config.label_units = None
    config.problem_type = problem_type
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    if problem_type == "regression":
        config.label_mean = None if label_mean is None else [float(value) for value in label_mean]
        config.label_std = None if label_std is None else [float(value) for value in label_std]
        config.label_units = None if label_units is None else [str(unit) for unit in label_units]
    return config


def load_model_for_finetuning(
    checkpoint: str,
    config: PreTrainedConfig,
    task: str = "property-prediction",
    *,
    new_head: bool = True,
    from_scratch: bool = False,
    attention: str | None = None,
) -> PreTrainedModel:
    """
    The model of a checkpoint for a task, float32. Where a method has rules for what fine-tuning takes over, they are
    those of its `begin_transfer`, which is called for a new head on the checkpoint's encoder.

    Args:
        config: the checkpoint's, with what is changed.
        task: see [`task_of`].
        new_head: everything outside of the base model is initialised anew, also where the checkpoint has it: the tasks
            of a head that it may hold are not these. False: only what the checkpoint lacks.
        from_scratch: random weights of the same architecture instead of the checkpoint's.
        attention: `attn_implementation`; None: the model's own choice.
    Raises:
        ValueError: the checkpoint is of none of our methods, its method does not have the task, or it lacks weights
            other than the head's.
    """
    model_class = task_of(config, task).model
    if from_scratch:
        return model_class._from_config(config, dtype=torch.float32, attn_implementation=attention)
    with silent_transformers(logging.ERROR):  # transformers would report the head, which is meant to be new
        model, info = model_class.from_pretrained(
            checkpoint,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    base = model.base_model_prefix
    missing = [key for key in info["missing_keys"] if key.startswith(f"{base}.")]
    if missing:
        raise ValueError(f"{checkpoint} lacks {len(missing)} weights of the encoder, for instance {sorted(missing)[0]}")
    for name, part in model.named_children():
        if name == base or not new_head:
            continue
        for module in part.modules():
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # else transformers keeps what it loaded
            model._init_weights(module)
    if new_head and hasattr(model, "begin_transfer"):
        model.begin_transfer()
    return model
