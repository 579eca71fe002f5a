"""A new property head on a checkpoint, and fine-tuned checkpoints whose head was trained."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

from ..models.auto import method_of
from ..models.auto_classes import AutoModelForMoleculePropertyPrediction
from ..nn.heads import PropertyHead


@contextlib.contextmanager
def quiet(verbosity: int | None = None) -> Iterator[None]:
    """No progress bars of loading and saving, which take moments; with `verbosity`, no lower messages either."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    if verbosity is not None:
        logging.set_verbosity(verbosity)
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def load_model_for_finetuning(
    checkpoint: str,
    task_names: Sequence[str],
    problem_type: str,
    *,
    label_mean: Sequence[float] | None = None,
    label_std: Sequence[float] | None = None,
    label_units: Sequence[str] | None = None,
    from_scratch: bool = False,
    config_overrides: Mapping[str, Any] | None = None,
    attention: str | None = None,
) -> PreTrainedModel:
    """
    The property model of a checkpoint, float32, with a new head for these tasks (also where the checkpoint had one: its
    tasks are not these). Names, scaling and units of the labels are in its configuration.

    Args:
        from_scratch: random weights of the same architecture instead of the checkpoint's.
        config_overrides: configuration fields to change, nested for sub-configurations, for instance
            `{"classifier_dropout": 0.2, "smiles_config": {"hidden_dropout": 0.1}}`.
        attention: `attn_implementation`; None: the model's own choice.
    Raises:
        ValueError: the checkpoint is of none of our methods, or lacks weights other than the head's.
    """
    config = AutoConfig.from_pretrained(checkpoint, **(config_overrides or {}))
    method_of(config)
    config.label_mean = config.label_std = config.label_units = None
    config.problem_type = problem_type
    config.id2label = dict(enumerate(task_names))
    config.label2id = {name: index for index, name in enumerate(task_names)}
    if problem_type == "regression":
        config.label_mean = None if label_mean is None else [float(value) for value in label_mean]
        config.label_std = None if label_std is None else [float(value) for value in label_std]
        config.label_units = None if label_units is None else [str(unit) for unit in label_units]
    if from_scratch:
        return AutoModelForMoleculePropertyPrediction.from_config(
            config, dtype=torch.float32, attn_implementation=attention
        )
    with quiet(logging.ERROR):  # transformers would report the head, which is meant to be new
        model, info = AutoModelForMoleculePropertyPrediction.from_pretrained(
            checkpoint,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    heads = {name: module for name, module in model.named_modules() if isinstance(module, PropertyHead)}
    missing = [key for key in info["missing_keys"] if not any(key.startswith(f"{head}.") for head in heads)]
    if missing:
        raise ValueError(f"{checkpoint} lacks {len(missing)} weights of the encoder, for instance {sorted(missing)[0]}")
    for head in heads.values():
        for module in head.modules():
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # else transformers keeps what it loaded
            model._init_weights(module)
    return model


def label_scale(labels: np.ndarray) -> tuple[list[float], list[float]]:
    """
    Mean and (population) standard deviation of each column of `labels` `[molecules, tasks]`, NaN left out; a constant
    column has standard deviation 1.
    """
    present = ~np.isnan(labels)
    count = present.sum(axis=0)
    mean = np.where(present, labels, 0.0).sum(axis=0) / np.maximum(count, 1)
    std = np.sqrt(np.where(present, (labels - mean) ** 2, 0.0).sum(axis=0) / np.maximum(count, 1))
    return mean.tolist(), np.where(std > 1e-12 * np.maximum(np.abs(mean), 1.0), std, 1.0).tolist()
