"""Pre-train any method with `Trainer`: the command `hf-molrep pretrain METHOD`."""

import json
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    HfArgumentParser,
    PreTrainedConfig,
    ProcessorMixin,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from ..configuration import check_fields
from ..inference.checkpoints import check_processor, resolve_checkpoint
from ..models.auto import METHODS
from ..models.pretraining import PreTraining, PreTrainingOptions, json_object, pretraining_of, read_config
from ..processing.collation import MoleculeCollator, check_options
from ..processing.contract import MoleculeProcessor
from .labelled_molecules import label_scale
from .loading import check_encoder
from .trainer import MoleculeTrainer, bf16_is_fast

if TYPE_CHECKING:
    from datasets import Dataset

DESCRIPTION = """
    Pre-train {method}. The data are a Parquet or CSV file, a folder of such files or a dataset on the Hub with the
    column smiles (and iupac_name if the method uses names); 3D methods take coordinates from the columns atomic_numbers
    and coordinates (angstrom) of Parquet data, and otherwise compute conformers. A stopped run resumes from the last
    checkpoint in --output_dir. With several processes: torchrun --nproc_per_node 2 -m hf_molrep.cli pretrain {method}
    ...; a batch is then that of all processes together. The options from --output_dir on are those of
    transformers.TrainingArguments.
"""
REASONS_SHOWN = 10  # most frequent reasons of refused rows


# --- data -------------------------------------------------------------------------------------------------------------


def _columns(processor: MoleculeProcessor, dataset: "Dataset", hooks: PreTraining) -> dict[str, str]:
    """Map the columns of the data that are read to the names that the processor has for them."""
    from ..data.datasets import coordinate_columns

    columns = {name: name for name in hooks.columns}
    with_coordinates = frozenset(columns) | {"z", "pos"}
    return columns | (coordinate_columns(dataset) if with_coordinates in processor.inputs else {})


def prepare(
    source: str,
    processor: MoleculeProcessor,
    options: PreTrainingOptions,
    name: str,
    hooks: PreTraining,
    config: PreTrainedConfig | None = None,
) -> "Dataset":
    """
    Compute the features of a source of molecules; `datasets` caches them on disk and maps them into memory.

    Rows that the processor refuses are left out, and counted by reason on standard error.

    Args:
        source: see [`~hf_molrep.data.datasets.load_molecules`].
        processor: the processor of the model.
        options: options of the command.
        name: name of the data in messages.
        hooks: what the method needs in pre-training.
        config: configuration of the model that is trained.
    Returns:
        A `datasets.Dataset` with the arrays and integers of the features, `smiles`, `row_id`; for padded batches also
        `length`, and `group` on request; and `labels` if there are label columns.
    Raises:
        ValueError: an option does not fit the processor, a column is missing, or no row is left.
    """
    from datasets import Features, List, Value

    from ..data.datasets import load_molecules

    if options.group_by and not processor.pads:
        raise ValueError(f"group_by: batches of {type(processor).__name__} are not padded, so nothing is grouped")
    truncation: dict[str, Any] = {}
    if processor.truncates:
        truncation = {"truncation": True, "max_length": options.max_length}
    elif options.max_length is not None:
        raise ValueError(f"max_length: {type(processor).__name__} has no tokens to count")
    labels = hooks.label_columns(options, config)
    dataset = load_molecules(source, label_columns=labels, problem_type=config.problem_type if labels else None)
    for column in (*hooks.columns, *([options.group_by] if options.group_by else [])):
        if column not in dataset.column_names:
            raise ValueError(f"{source} has no column {column!r}; there are {', '.join(dataset.column_names)}")
    feature_processor = hooks.feature_processor(processor, config)
    featurize = partial(feature_processor.featurize, on_error="skip", **truncation)
    columns = _columns(feature_processor, dataset, hooks)
    types = _feature_types(dataset, columns, featurize, source, name)
    further_types = {
        "smiles": Value("string"),
        "row_id": dataset.features.get("row_id", Value("int64")),
        "length": Value("int64"),
        "group": Value("string"),
        "reason": Value("string"),
    }
    carried = [name for name in hooks.carried_columns if name in dataset.column_names]
    further_types |= {name: dataset.features[name] for name in carried}
    if labels:
        further_types["labels"] = List(Value("float32"))
    dataset = dataset.map(
        _rows_of_features,
        batched=True,
        with_indices=True,
        # only options that change a row, since the cache is found by these arguments
        fn_kwargs={
            "columns": columns,
            "featurize": featurize,
            "size": processor.size,
            "keys": list(types),
            "group_by": options.group_by,
            "labels": labels,
            "carried": carried,
        },
        remove_columns=dataset.column_names,
        features=Features(types | further_types),
        num_proc=options.preprocessing_workers if options.preprocessing_workers > 1 else None,
        desc=f"features of {name}",
    )
    reasons = np.array(dataset["reason"], dtype=object)
    accepted = np.equal(reasons, None)
    if not accepted.all():
        _report_refused(dataset, reasons, name)
        dataset = dataset.select(np.flatnonzero(accepted))
    if "num_conformers" in types:
        few = int((np.array(dataset["num_conformers"]) < feature_processor.num_conformers).sum())
        if few:
            least = feature_processor.num_conformers
            print(f"{name}: {few} of {len(dataset)} rows have fewer conformers than {least}", file=sys.stderr)
    unused = ["reason"] + ["group"] * (not options.group_by) + ["length"] * (not processor.pads)
    return dataset.remove_columns(unused)


def _feature_types(
    dataset: "Dataset", columns: dict[str, str], featurize: Callable[..., list], source: str, name: str
) -> dict[str, Any]:
    """
    Find the Arrow types of the arrays and integers of a feature, from the first accepted row.

    Raises:
        ValueError: no row is accepted.
    """
    from datasets import List, Value

    error = None
    for row in dataset.select_columns(list(columns)):
        (feature,) = featurize({given: [row[column]] for column, given in columns.items()})
        if isinstance(feature, dict):
            break
        error = error or feature
    else:
        raise ValueError(f"{name}: none of {len(dataset)} rows of {source} can be used, for instance {error}")
    arrays = {key: List(Value(str(value.dtype))) for key, value in feature.items() if isinstance(value, np.ndarray)}
    # not bool: those are notes such as `truncated`, which other molecules may lack
    return arrays | {key: Value("int64") for key, value in feature.items() if type(value) is int}


def _rows_of_features(
    batch: dict[str, list],
    indices: list[int],
    *,
    columns: dict[str, str],
    featurize: Callable[..., list],
    size: Callable[[dict], int],
    keys: Sequence[str],
    group_by: str | None,
    labels: Sequence[str],
    carried: Sequence[str],
) -> dict[str, list]:
    """Compute a batch of `Dataset.map`: features by column; a refused row has None and a `reason`."""
    rows = featurize({given: batch[column] for column, given in columns.items()})
    accepted = [isinstance(row, dict) for row in rows]
    return {
        **{key: [row[key] if used else None for row, used in zip(rows, accepted, strict=True)] for key in keys},
        "smiles": [
            row["smiles_used"] if used else smiles
            for row, used, smiles in zip(rows, accepted, batch["smiles"], strict=True)
        ],
        "length": [size(row) if used else None for row, used in zip(rows, accepted, strict=True)],
        **({"labels": [list(row) for row in zip(*(batch[name] for name in labels), strict=True)]} if labels else {}),
        **{name: batch[name] for name in carried},
        "row_id": batch.get("row_id", indices),
        "group": [str(value) for value in batch[group_by]] if group_by else [""] * len(rows),
        "reason": [None if used else row.reason for row, used in zip(rows, accepted, strict=True)],
    }


def _report_refused(dataset: "Dataset", reasons: np.ndarray, name: str) -> None:
    refused = np.flatnonzero(np.not_equal(reasons, None))
    counts = Counter(reasons[refused].tolist())
    print(f"{name}: {len(refused)} of {len(reasons)} rows refused and left out:", file=sys.stderr)
    for reason, count in counts.most_common(REASONS_SHOWN):
        example = dataset[int(np.flatnonzero(reasons == reason)[0])]
        row = f"row {example['row_id']}, {example['smiles']!r}"
        print(f"  {count}: {reason} (for instance {row})", file=sys.stderr)
    if len(counts) > REASONS_SHOWN:
        others = len(refused) - sum(count for _, count in counts.most_common(REASONS_SHOWN))
        print(f"  {others}: {len(counts) - REASONS_SHOWN} other reasons", file=sys.stderr)


# --- processor, configuration, collator -------------------------------------------------------------------------------


def load_processor(method_name: str, options: PreTrainingOptions) -> MoleculeProcessor:
    """
    Load the processor of `--processor`, else of `--model`, else the method's default.

    Raises:
        ValueError: the method needs tokenizers and has no default.
    """
    # not AutoProcessor: it needs a config.json to find the method, and the folder may have none
    processor_class = METHODS[method_name].processor
    source = options.processor or options.model or pretraining_of(method_name).default_processor
    if source:
        return processor_class.from_pretrained(resolve_checkpoint(source))
    if issubclass(processor_class, ProcessorMixin):
        raise ValueError(f"{method_name} needs tokenizers: name a folder or Hub id that has them with --processor")
    return processor_class()


def last_checkpoint(options: PreTrainingOptions, training: TrainingArguments) -> str | None:
    """Find the checkpoint in `output_dir` from which a run resumes; None: it starts from the beginning."""
    if options.restart or not os.path.isdir(training.output_dir):
        return None
    return get_last_checkpoint(training.output_dir)


def make_config(method_name: str, processor: MoleculeProcessor, path: str | None) -> PreTrainedConfig:
    """
    Make the configuration from a JSON file (default: the paper's size), and fit it to the processor.

    Raises:
        ValueError: the file holds no JSON object, an unknown field or a wrong value.
    """
    config_class = METHODS[method_name].config
    given = read_config(path)
    check_fields(config_class, given)
    try:
        return pretraining_of(method_name).make_config(config_class, given, processor)
    except StrictDataclassError as error:
        raise ValueError(f"{path}: {error}") from error


def check_given(config: PreTrainedConfig, options: PreTrainingOptions) -> None:
    """Raise ValueError for fields of `--config` that differ from the configuration of the checkpoint of `--model`."""
    known, other = config.to_dict(), []
    for name, value in read_config(options.config).items():
        given = {**known[name], **value} if isinstance(value, dict) and isinstance(known.get(name), dict) else value
        if known.get(name) != given:
            other.append(name)
    if other:
        raise ValueError(
            f"--config: {', '.join(other)} is not that of {options.model}, and a checkpoint keeps its configuration; "
            "without --model the fields make a new model with random weights"
        )


def make_collators(
    method_name: str,
    processor: MoleculeProcessor,
    config: PreTrainedConfig,
    options: PreTrainingOptions,
    seed: int,
) -> tuple[MoleculeCollator, MoleculeCollator]:
    """
    Make the data collators of training, with the options of `--collator`, and of evaluation.

    Raises:
        ValueError: `--collator` is not a JSON object, or holds an unknown option or a wrong value.
    """
    collator_class = METHODS[method_name].tasks["pre-training"].collator
    collator_options = pretraining_of(method_name).collator_options
    given = json_object(options.collator, "--collator") if options.collator else {}
    try:
        check_options(collator_class, given)
    except ValueError as error:
        raise ValueError(f"--collator: {error}") from None
    return (
        collator_class(processor, seed=seed, **collator_options(config, options, True) | given),
        collator_class(processor, **collator_options(config, options, False)),
    )


# --- the command ------------------------------------------------------------------------------------------------------


class _OptionParser(HfArgumentParser):
    """Raises ValueError for a wrong option, instead of printing the usage of all 150 options first."""

    def error(self, message: str) -> None:
        raise ValueError(message)


def parse_options(method_name: str, argv: Sequence[str], program: str) -> tuple[PreTrainingOptions, TrainingArguments]:
    """
    Parse the options of a command line.

    Raises:
        ValueError: an option is unknown, or a value is wrong.
    """
    dataclasses = (pretraining_of(method_name).options, TrainingArguments)
    description = " ".join(cleandoc(DESCRIPTION.format(method=method_name)).split())
    parser = _OptionParser(dataclasses, prog=program, description=description)
    parser.set_defaults(
        remove_unused_columns=False,
        per_device_eval_batch_size=128,
        dataloader_drop_last=True,
        ddp_find_unused_parameters=False,
    )
    flags = {argument.replace("-", "_") for argument in argv if argument.startswith("--")}
    on_cpu = "__use_cpu" in flags or not torch.cuda.is_available()
    added = ["--use_cpu"] if on_cpu and "__use_cpu" not in flags else []
    if not any(flag.startswith(("__bf16", "__fp16")) for flag in flags):
        added += ["--bf16", str(bf16_is_fast("cpu" if on_cpu else "cuda"))]
    options, training, unknown = parser.parse_args_into_dataclasses(
        [*argv, *added], return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        name = unknown[0].partition("=")[0]
        near = get_close_matches(name, [f"--{each.name}" for dataclass in dataclasses for each in fields(dataclass)])
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        what = "option" if name.startswith("-") else "argument"
        raise ValueError(f"{method_name} has no {what} {name}{hint}")
    return options, training


def main(method_name: str, argv: Sequence[str]) -> dict[str, float]:
    """
    Pre-train a method.

    `output_dir` gets checkpoints, from which a stopped run resumes, the final model with its processor, and `run.json`
    with all that is needed to repeat the run.

    Args:
        method_name: a key of `METHODS`.
        argv: the options of the command line after `hf-molrep pretrain METHOD`.
    Returns:
        The metrics of the last evaluation; none without `--validation_data`.
    Raises:
        ValueError: options do not fit the method, the data or each other.
    """
    if method_name not in METHODS:
        raise ValueError(f"{method_name!r} is none of the methods here: {', '.join(METHODS)}")
    model_class, hooks = METHODS[method_name].tasks["pre-training"].model, pretraining_of(method_name)
    program = f"hf-molrep pretrain {method_name}"
    options, training = parse_options(method_name, argv, program)
    training.label_names = []
    set_seed(training.seed)

    # check all options before features are computed, which may take hours
    checkpoint = last_checkpoint(options, training)
    source = resolve_checkpoint(options.model) if options.model else None
    config = AutoConfig.from_pretrained(source) if source else None
    if config is not None and config.model_type != method_name:
        raise ValueError(f"--model: {options.model} is a checkpoint of {config.model_type}, not of {method_name}")
    processor = hooks.prepare_processor(load_processor(method_name, options), options, training, checkpoint)
    if config is not None:
        check_given(config, options)
        check_processor(processor, config)
    else:
        config = make_config(method_name, processor, options.config)
    if options.attention is not None and not model_class._supports_sdpa:
        raise ValueError(f"{method_name} has no choice of attention")
    collator, eval_collator = make_collators(method_name, processor, config, options, training.seed)

    with training.main_process_first(desc="features"):
        train_set = prepare(options.train_data, processor, options, "training data", hooks, config)
        validation_set = None
        if options.validation_data:
            validation_set = prepare(options.validation_data, processor, options, "validation data", hooks, config)
    if len(train_set) < (batch := training.train_batch_size * training.world_size):  # incomplete batches are left out
        raise ValueError(f"{len(train_set)} molecules to train on do not fill one batch of {batch}")

    if (label_names := hooks.label_columns(options, config)) and not source:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {label: number for number, label in config.id2label.items()}
        if config.problem_type == "regression":
            config.label_mean, config.label_std = label_scale(np.array(train_set["labels"]))
    if source:
        model, info = model_class.from_pretrained(source, output_loading_info=True)
        check_encoder(model, info, options.model)
    else:
        model = model_class(config)
    on_cpu = training.device.type == "cpu"
    hooks.prepare_model(model, options, on_cpu)
    if type(model)._supports_sdpa:
        model.set_attn_implementation(options.attention or ("eager" if on_cpu else "sdpa"))
    compute_metrics = hooks.compute_metrics if validation_set is not None else None
    training.prediction_loss_only = compute_metrics is None

    trainer = MoleculeTrainer(
        model=model,
        args=training,
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=collator,
        eval_data_collator=eval_collator,
        processing_class=processor,
        compute_metrics=compute_metrics,
        callbacks=hooks.callbacks(config, collator, eval_collator),
    )
    started = time.time()
    trainer.train(resume_from_checkpoint=checkpoint)
    metrics = trainer.evaluate() if validation_set is not None else {}
    trainer.save_model()
    if trainer.is_world_process_zero():
        trainer.state.save_to_json(os.path.join(training.output_dir, "trainer_state.json"))
        run = {
            "command": f"{program} {shlex.join(argv)}",
            "method": method_name,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "train_rows": len(train_set),
            "validation_rows": len(validation_set) if validation_set is not None else 0,
            "steps": trainer.state.global_step,
            "epochs": trainer.state.epoch,
            "seed": training.seed,
            "bf16": training.bf16,
            "processes": training.world_size,
            "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads"
            if training.device.type == "cpu"
            else torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "hours_since_last_start": round((time.time() - started) / 3600, 3),
            "resumed_from": checkpoint and os.path.basename(checkpoint),
            "metrics": metrics,
        }
        Path(training.output_dir, "run.json").write_text(json.dumps(run, indent=2) + "\n")
        print(f"{method_name} pre-trained for {trainer.state.global_step} steps; see {training.output_dir}/")
    return metrics
