"""Pre-training of any method through `Trainer`, as one command: `hf-molrep pretrain METHOD ...` and the examples."""

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from transformers import HfArgumentParser, ProcessorMixin, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..configuration import check_fields
from ..inference.checkpoints import check_processor
from ..metrics import retrieval_compute_metrics
from ..models.auto import METHODS, Method
from .trainer import MoleculeTrainer, bf16_is_fast

# A row that stands in the place of refused ones.
METHANE = {"smiles": "C", "iupac_name": "methane", "z": [6], "pos": [0.0, 0.0, 0.0]}


@dataclass
class PreTrainingDataArguments:
    """What is trained, and on what. All other options are those of `transformers.TrainingArguments`."""

    train_data: str = field(metadata={"help": "Parquet or CSV file, folder of such, or dataset on the Hub"})
    validation_data: str | None = field(default=None, metadata={"help": "the same, for evaluation while training"})
    config: str | None = field(
        default=None, metadata={"help": "JSON file with the fields of the configuration; default: the paper's size"}
    )
    model: str | None = field(default=None, metadata={"help": "checkpoint to go on from, instead of random weights"})
    processor: str | None = field(
        default=None,
        metadata={"help": "folder or Hub id; default: that of --model, else tokenizers/<method> or default settings"},
    )
    max_length: int | None = field(
        default=None, metadata={"help": "tokens of a view that are used in training; longer ones are shortened"}
    )
    group_by: str | None = field(
        default=None, metadata={"help": "column; rows that share its value meet in a batch (hard negatives)"}
    )
    attention: str | None = field(
        default=None,
        metadata={
            "help": "attn_implementation; default: sdpa on a GPU, eager on CPU, where the backward pass of torch's "
            "fused kernel took four tenths of a step"
        },
    )
    encoder_chunk_size: int | None = field(
        default=None, metadata={"help": "see the configuration of that name; default: 32 on CPU, 0 on a GPU"}
    )
    smiles_augmentation: float = field(default=0.0, metadata={"help": "share of SMILES replaced by random ones"})
    collator: str | None = field(
        default=None, metadata={"help": "JSON object with options of the method's data collator, see its docstring"}
    )
    preprocessing_workers: int = field(default=1, metadata={"help": "processes that make features"})
    restart: bool = field(default=False, metadata={"help": "ignore checkpoints in output_dir instead of resuming"})


def prepare(source: str, processor, arguments: PreTrainingDataArguments, name: str):
    """
    A source of molecules to a `datasets.Dataset` of features, cached on disk and memory-mapped: what
    `processor.featurize` gives (with names, where the method reads them and the source must have them; from the columns
    `atomic_numbers` and `coordinates`, where the method reads atoms in space and the source has them), with `smiles`,
    `row_id`, `length` and, on request, `group`. Rows that the processor refuses are left out and counted by reason on
    standard error.
    """
    from ..data.datasets import coordinate_columns, load_molecules

    dataset = load_molecules(source)
    columns = {"smiles": "smiles"}
    if any("iupac_name" in names for names in processor.inputs):
        columns["iupac_name"] = "iupac_name"
        if "iupac_name" not in dataset.column_names:
            raise ValueError(f"{source} has no column 'iupac_name'; there are {', '.join(dataset.column_names)}")
    if frozenset({"smiles", "z", "pos"}) in processor.inputs:
        columns |= coordinate_columns(dataset)
    if arguments.max_length is not None and not processor.truncates:
        raise ValueError(f"max_length: {type(processor).__name__} has no tokens to count")
    shorten = {"truncation": True, "max_length": arguments.max_length} if processor.truncates else {}
    # what stands in the place of a refused row until it is taken out
    (blank,) = processor.featurize({kind: [METHANE[kind]] for kind in columns.values()})
    keys = [key for key, value in blank.items() if isinstance(value, np.ndarray | int)]
    group_by = arguments.group_by  # alone: the cache goes by what `features` refers to, other options change nothing

    def features(batch: dict, indices: list[int]) -> dict:
        given = {kind: batch[column] for column, kind in columns.items()}
        rows = processor.featurize(given, on_error="skip", **shorten)
        out: dict[str, list] = {key: [] for key in (*keys, "smiles", "length", "row_id", "group", "error")}
        for place, row in enumerate(rows):
            failed = not isinstance(row, dict)
            for key in keys:
                out[key].append((blank if failed else row)[key])
            out["smiles"].append(batch["smiles"][place] if failed else row["smiles_used"])
            out["length"].append(processor.size(blank if failed else row))
            out["row_id"].append(batch["row_id"][place] if "row_id" in batch else indices[place])
            out["group"].append(str(batch[group_by][place]) if group_by else "")
            out["error"].append(str(row) if failed else "")
        return out

    if group_by and not processor.pads:
        raise ValueError("group_by goes with batches of similar length, and molecules here are not padded")
    if group_by and group_by not in dataset.column_names:
        raise ValueError(f"no column {group_by!r} to group by; there are {', '.join(dataset.column_names)}")
    dataset = dataset.map(
        features,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        num_proc=arguments.preprocessing_workers if arguments.preprocessing_workers > 1 else None,
        desc=f"features of {name}",
    )
    errors = np.array(dataset["error"], dtype=object)
    refused = np.flatnonzero(errors != "")
    if len(refused):
        print(f"{name}: {len(refused)} of {len(errors)} rows refused, for instance:", file=sys.stderr)
        for index in refused[:5]:
            print(f"  row {dataset[int(index)]['row_id']}: {errors[index]}", file=sys.stderr)
        dataset = dataset.select(np.flatnonzero(errors == ""))
    if not len(dataset):
        raise ValueError(f"{name}: no row of {source} is left to train on")
    unused = ["error"] + ["group"] * (not group_by) + ["length"] * (not processor.pads)
    return dataset.remove_columns(unused)


def load_processor(method_name: str, data: PreTrainingDataArguments):
    """
    The processor of `--processor` or `--model`; without either the method's tokenizers, or where it has none, its
    default settings.

    Raises:
        ValueError: the folder of tokenizers is not there.
    """
    # not AutoProcessor: a folder of settings alone, without config.json, does not tell it the method
    method, source = METHODS[method_name], data.processor or data.model
    if source is None and issubclass(method.processor, ProcessorMixin):
        source = f"tokenizers/{method_name}"
        if not os.path.isdir(source):
            raise ValueError(
                f"{method_name} needs its tokenizers, and there is no folder {source} in {os.getcwd()}: run this where "
                "the repository is, or name a folder with --processor"
            )
    return method.processor.from_pretrained(source) if source else method.processor()


def last_checkpoint(data: PreTrainingDataArguments, training: TrainingArguments) -> str | None:
    """The checkpoint in `output_dir` from which a run goes on; None: it starts anew."""
    if data.restart or not os.path.isdir(training.output_dir):
        return None
    return get_last_checkpoint(training.output_dir)


def make_config(method: Method, processor, path: str | None):
    """
    The configuration in a JSON file (the paper's size without one), with the vocabularies of the processor.

    Raises:
        ValueError: see [`~hf_molrep.configuration.check_fields`].
    """
    fields = json.loads(Path(path).read_text()) if path else {}
    check_fields(method.config, fields)
    for view in getattr(method.config, "sub_configs", {}):
        tokenizer = processor.iupac_tokenizer if view == "iupac_config" else processor.tokenizer
        fields[view] = {**fields.get(view, {}), "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    # what the processor knows and the model must match, for instance the number of labels of pre-training
    fields |= processor.config_fields()
    return method.config(**fields)


def collator_fields(method: Method, config) -> dict:
    """What a data collator has to know of the configuration: the fields that both have (the objective, masks ...)."""
    return {
        name: getattr(config, name)
        for name in signature(method.tasks["pre-training"].collator).parameters
        if hasattr(config, name)
    }


def main(
    method_name: str,
    argv: list[str] | None = None,
    arguments: type[PreTrainingDataArguments] = PreTrainingDataArguments,
    make_processor: Callable | None = None,
    program: str | None = None,
) -> dict:
    """
    Pre-train a method; returns the last evaluation's metrics. `output_dir` gets checkpoints (from which a run that was
    stopped goes on by itself), the final model with its processor, and `run.json` with what is needed to repeat it.

    Args:
        arguments: the options, where there are more of them.
        make_processor: makes the processor out of the values of `arguments` and `TrainingArguments`, in every process;
            None: [`load_processor`].
        program: how this is called on a command line; None: `hf-molrep pretrain METHOD`.
    Raises:
        ValueError: options that do not fit the method, the data or each other; see also [`load_processor`],
            [`~hf_molrep.inference.checkpoints.check_processor`] and [`prepare`].
    """
    if method_name not in METHODS:
        raise ValueError(f"{method_name!r} is none of the methods here: {', '.join(METHODS)}")
    argv = sys.argv[1:] if argv is None else argv
    program = program or f"hf-molrep pretrain {method_name}"
    parser = HfArgumentParser((arguments, TrainingArguments), prog=program)
    parser.set_defaults(
        remove_unused_columns=False,
        per_device_eval_batch_size=128,
        dataloader_drop_last=True,
        ddp_find_unused_parameters=False,
    )
    on_cpu = "--use_cpu" in argv or not torch.cuda.is_available()
    added = ["--use_cpu"] if on_cpu and "--use_cpu" not in argv else []
    if not any(flag.startswith(("--bf16", "--fp16")) for flag in argv):
        added += ["--bf16", str(bf16_is_fast("cpu" if on_cpu else "cuda"))]
    data, training = parser.parse_args_into_dataclasses([*argv, *added])
    training.label_names = []
    set_seed(training.seed)

    method = METHODS[method_name]
    task = method.tasks["pre-training"]
    processor = make_processor(data, training) if make_processor else load_processor(method_name, data)
    if data.model:
        check_processor(processor, method.config.from_pretrained(data.model))
    makes_labels = hasattr(processor, "context_labels")
    if makes_labels:  # once, with the features
        processor.context_labels = True
    with training.main_process_first(desc="features"):
        train_set = prepare(data.train_data, processor, data, "training data")
        validation_set = None
        if data.validation_data:
            validation_set = prepare(data.validation_data, processor, data, "validation data")
    if makes_labels:  # a checkpoint embeds, which needs none
        processor.context_labels = False
    if data.model:
        model = task.model.from_pretrained(data.model)
    else:
        model = task.model(make_config(method, processor, data.config))

    on_cpu = training.device.type == "cpu"
    if hasattr(model.config, "encoder_chunk_size"):
        chunk_size = data.encoder_chunk_size
        model.config.encoder_chunk_size = chunk_size if chunk_size is not None else 32 * on_cpu
    elif data.encoder_chunk_size is not None:
        raise ValueError(f"{method_name} has no encoder_chunk_size")
    if type(model)._supports_sdpa:
        model.set_attn_implementation(data.attention or ("eager" if on_cpu else "sdpa"))
    elif data.attention is not None:
        raise ValueError(f"{method_name} has no choice of attention")
    collator_options = collator_fields(method, model.config) | (json.loads(data.collator) if data.collator else {})
    if data.smiles_augmentation:
        collator_options["smiles_augmentation"] = data.smiles_augmentation
    # retrieval is between the two languages of a molecule
    retrieves = validation_set is not None and any("iupac_name" in names for names in processor.inputs)
    training.prediction_loss_only = not retrieves

    trainer = MoleculeTrainer(
        model=model,
        args=training,
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=task.collator(processor, seed=training.seed, **collator_options),
        eval_data_collator=task.collator(processor, **collator_fields(method, model.config)),
        processing_class=processor,
        compute_metrics=retrieval_compute_metrics(("smiles", "iupac")) if retrieves else None,
    )
    if len(train_set) < (batch := training.train_batch_size * training.world_size):  # incomplete batches are left out
        raise ValueError(f"{len(train_set)} molecules to train on do not fill one batch of {batch}")
    checkpoint = last_checkpoint(data, training)
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
