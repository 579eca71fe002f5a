"""Interface between `hf-molrep pretrain` and a method: its options, and the steps at which methods differ."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel, TrainerCallback, TrainingArguments

from ..processing.contract import MoleculeProcessor

SCALING_MOLECULES = 5_000  # molecules of the training data to which the scaling of descriptors is fitted


@dataclass
class PreTrainingOptions:
    """Options of every method. A dataclass that extends this one holds those of a single method."""

    train_data: str = field(metadata={"help": "Parquet or CSV file, folder of such files, or dataset on the Hub"})
    validation_data: str | None = field(default=None, metadata={"help": "the same, for evaluation during training"})
    config: str | None = field(
        default=None, metadata={"help": "JSON file with fields of the configuration; default: the paper's size"}
    )
    model: str | None = field(
        default=None,
        metadata={"help": "checkpoint to continue from, instead of random weights: folder, Hub id or name"},
    )
    processor: str | None = field(
        default=None,
        metadata={"help": "folder, Hub id or shipped name; default: that of --model, else the method's default"},
    )
    max_length: int | None = field(
        default=None, metadata={"help": "largest number of tokens in training; longer sequences are shortened"}
    )
    group_by: str | None = field(
        default=None, metadata={"help": "column; rows with the same value are put into one batch (hard negatives)"}
    )
    attention: str | None = field(
        default=None,
        metadata={
            "help": "attn_implementation; default: sdpa on a GPU, eager on a CPU, where the backward pass of torch's "
            "fused kernel is slow"
        },
    )
    collator: str | None = field(
        default=None, metadata={"help": "JSON object with options of the method's data collator, see its docstring"}
    )
    preprocessing_workers: int = field(default=1, metadata={"help": "processes that compute features"})
    restart: bool = field(default=False, metadata={"help": "ignore checkpoints in output_dir instead of resuming"})


def json_object(text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object. Raises ValueError if it is none; `where` names the text in the message."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a JSON object: {text[:80]}")
    return value


def read_config(path: str | None) -> dict[str, Any]:
    """Read the fields of `--config`; {} without a file. Raises ValueError: see [`json_object`]."""
    return json_object(Path(path).read_text(encoding="utf-8"), path) if path else {}


def with_descriptor_scaling(
    processor: MoleculeProcessor, options: PreTrainingOptions, training: TrainingArguments, checkpoint: str | None
) -> MoleculeProcessor:
    """
    [`PreTraining.prepare_processor`] of graph methods: for the objective `"descriptors"`, return the processor with the
    scaling of the targets.

    That is the scaling of the checkpoint from which the run resumes, else the processor's own, else a new one, which
    one process fits to `SCALING_MOLECULES` of the training data and saves in `<output_dir>/processor` for the others.
    """
    if read_config(options.config).get("objective") != "descriptors":
        return processor
    if checkpoint:  # the model has outputs for these targets
        return type(processor).from_pretrained(checkpoint)
    if options.model or processor.descriptor_scaling is not None:
        return processor
    from ..data.datasets import load_molecules

    folder = Path(training.output_dir) / "processor"
    with training.main_process_first(local=training.save_on_each_node, desc="scaling of the descriptors"):
        if training.should_save:
            dataset = load_molecules(options.train_data)
            drawn = np.random.default_rng(0).permutation(len(dataset))[:SCALING_MOLECULES]
            processor.fit_descriptors(dataset.select(np.sort(drawn))["smiles"]).save_pretrained(folder)
    return type(processor).from_pretrained(folder)


def descriptor_features(processor: MoleculeProcessor, config: PreTrainedConfig) -> MoleculeProcessor:
    """[`PreTraining.feature_processor`] of graph methods: compute descriptors with the graphs if the objective asks."""
    return processor.with_descriptors() if config.objective == "descriptors" else processor


def same_processor(
    processor: MoleculeProcessor, options: PreTrainingOptions, training: TrainingArguments, checkpoint: str | None
) -> MoleculeProcessor:
    """Default of [`PreTraining.prepare_processor`]: keep the loaded processor."""
    return processor


def same_features(processor: MoleculeProcessor, config: PreTrainedConfig) -> MoleculeProcessor:
    """Default of [`PreTraining.feature_processor`]: the saved processor computes the features."""
    return processor


def no_labels(options: PreTrainingOptions, config: PreTrainedConfig) -> list[str]:
    """Default of [`PreTraining.label_columns`]: pre-training needs no labels."""
    return []


def matching_config(
    config_class: type[PreTrainedConfig], fields: dict[str, Any], processor: MoleculeProcessor
) -> PreTrainedConfig:
    """Default of [`PreTraining.make_config`]: the given fields, and those that must match the processor."""
    return config_class(**fields | processor.config_fields())


def same_model(model: PreTrainedModel, options: PreTrainingOptions, on_cpu: bool) -> None:
    """Default of [`PreTraining.prepare_model`]: change nothing."""


def no_collator_options(config: PreTrainedConfig, options: PreTrainingOptions, training: bool) -> dict[str, Any]:
    """Default of [`PreTraining.collator_options`]: the defaults of the collator."""
    return {}


def no_callbacks(config: PreTrainedConfig, *collators: Any) -> list[TrainerCallback]:
    """Default of [`PreTraining.callbacks`]: none."""
    return []


@dataclass(frozen=True)
class PreTraining:
    """
    Hooks of a method for pre-training. A method that needs other than the defaults defines
    `PRETRAINING = PreTraining(...)` in `hf_molrep/models/<m>/pretraining_<m>.py`; see [`pretraining_of`].

    Attributes:
        options: [`PreTrainingOptions`], or a dataclass that extends it.
        default_processor: name of the shipped checkpoint whose processor is used without `--processor` and `--model`.
            None: the processor class with its default settings.
        columns: columns that the data must have.
        carried_columns: columns that the data collator reads as they are, if the data have them.
        prepare_processor: `(processor, options, training, checkpoint)` -> the processor that is saved with the model.
            Called in every process before features are computed; `checkpoint` is the one from which the run resumes.
        feature_processor: `(processor, config)` -> the processor that computes the features of pre-training, if it
            needs more of them than a saved processor computes.
        label_columns: `(options, config)` -> the label columns to learn; their names, means and standard deviations are
            written into the configuration.
        make_config: `(config_class, fields, processor)` -> configuration of a model with random weights; `fields` are
            those of `--config`.
        prepare_model: `(model, options, on_cpu)`; sets what depends on the options or the device.
        collator_options: `(config, options, training)` -> keyword arguments of the data collator; `training` is False
            for the collator of evaluation.
        callbacks: `(config, collator, eval_collator)` -> callbacks of `Trainer`.
        compute_metrics: `compute_metrics` of `Trainer`. None: evaluation computes only the loss.
    """

    options: type[PreTrainingOptions] = PreTrainingOptions
    default_processor: str | None = None
    columns: tuple[str, ...] = ("smiles",)
    carried_columns: tuple[str, ...] = ()
    prepare_processor: Callable[[Any, Any, TrainingArguments, str | None], Any] = same_processor
    feature_processor: Callable[[Any, PreTrainedConfig], Any] = same_features
    label_columns: Callable[[Any, PreTrainedConfig], list[str]] = no_labels
    make_config: Callable[[type[PreTrainedConfig], dict[str, Any], Any], PreTrainedConfig] = matching_config
    prepare_model: Callable[[PreTrainedModel, Any, bool], None] = same_model
    collator_options: Callable[[PreTrainedConfig, Any, bool], dict[str, Any]] = no_collator_options
    callbacks: Callable[..., list[TrainerCallback]] = no_callbacks
    compute_metrics: Callable[[Any], dict[str, float]] | None = None


def pretraining_of(method: str) -> PreTraining:
    """Return `PRETRAINING` of `hf_molrep/models/<method>/pretraining_<method>.py`, or defaults without that file."""
    name = f"{__package__}.{method}.pretraining_{method}"
    return import_module(name).PRETRAINING if find_spec(name) else PreTraining()


__all__ = [
    "PreTraining",
    "PreTrainingOptions",
    "descriptor_features",
    "json_object",
    "pretraining_of",
    "read_config",
    "with_descriptor_scaling",
]
