"""Load the processor and the model of a checkpoint for fine-tuning, with a new head if the task needs one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..configuration import check_fields
from ..inference.checkpoints import check_processor, silent_transformers
from ..models.auto import Task, method_of
from ..processing.contract import MoleculeProcessor


def task_of(config: PreTrainedConfig, name: str) -> Task:
    """
    Return model and data collator of a task.

    Args:
        config: configuration of the method.
        name: a key of [`~hf_molrep.models.auto.AUTO_CLASSES`].
    Raises:
        ValueError: the configuration belongs to no method of this package, or the method does not have the task.
    """
    tasks = method_of(config).tasks
    if name not in tasks:
        raise ValueError(f"{config.model_type} has no model for {name}")
    return tasks[name]


def load_processor(checkpoint: str, options: Mapping[str, Any]) -> MoleculeProcessor:
    """
    Load the processor of a checkpoint with some options changed.

    Raises:
        ValueError: the saved processor does not fit the model, or an option is unknown.
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
    molecule_columns: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> PreTrainedConfig:
    """
    Load the configuration of a checkpoint and set the labels: their names, and for regression scaling and units.

    Args:
        label_names: names of the tasks, or of mutually exclusive classes.
        molecule_columns: names of the molecules of a row, for a method that reads several together.
        overrides: fields to change, nested for sub-configurations, for instance
            `{"classifier_dropout": 0.2, "smiles_config": {"hidden_dropout": 0.1}}`.
    """
    overrides = overrides or {}
    check_fields(type(AutoConfig.from_pretrained(checkpoint)), overrides)
    config = AutoConfig.from_pretrained(checkpoint, **overrides)
    config.label_mean = config.label_std = config.label_units = None
    config.problem_type = problem_type
    if hasattr(config, "molecule_columns"):
        config.molecule_columns = None if molecule_columns is None else list(molecule_columns)
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
    Load the model of a checkpoint for a task, in float32.

    If the method has rules for the transfer to a new head, its `begin_transfer` applies them.

    Args:
        config: configuration of the checkpoint, with all changes.
        task: see [`task_of`].
        new_head: initialise everything outside of the base model, even if the checkpoint has it, since that head is for
            other tasks. False: initialise only what the checkpoint lacks.
        from_scratch: use random weights of the same architecture instead of the checkpoint's.
        attention: `attn_implementation`; None: the model's default.
    Raises:
        ValueError: see [`task_of`]; or the checkpoint lacks weights of the encoder.
    """
    model_class = task_of(config, task).model
    if from_scratch:
        return model_class._from_config(config, dtype=torch.float32, attn_implementation=attention)
    with silent_transformers(logging.ERROR):  # transformers would report the new head
        model, info = model_class.from_pretrained(
            checkpoint,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    base = model.base_model_prefix
    check_encoder(model, info, checkpoint)
    for name, part in model.named_children():
        if name == base or not new_head:
            continue
        for module in part.modules():
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # else transformers keeps the loaded values
            model._init_weights(module)
    if new_head and hasattr(model, "begin_transfer"):
        model.begin_transfer()
    return model


def check_encoder(model: PreTrainedModel, info: Mapping[str, Any], checkpoint: str) -> None:
    """Raise ValueError if a checkpoint lacks weights of the encoder; `info` is the `loading_info` of transformers."""
    missing = sorted(key for key in info["missing_keys"] if key.startswith(f"{model.base_model_prefix}."))
    if missing:
        raise ValueError(f"{checkpoint} lacks {len(missing)} weights of the encoder, for instance {missing[0]}")
