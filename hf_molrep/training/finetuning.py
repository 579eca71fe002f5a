"""Fine-tuning of any checkpoint on SMILES and labels: `hf-molrep finetune` and `benchmarks/moleculenet.py` call it."""

import contextlib
import dataclasses
import hashlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoProcessor,
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from ..chem.smiles import MoleculeError
from ..inference.checkpoints import check_processor
from ..metrics import GREATER_IS_BETTER, METRICS, property_metrics
from ..models.auto import method_of
from .property_models import label_scale, load_model_for_finetuning, quiet
from .trainer import MoleculeTrainer, bf16_is_fast

PARTS = ("train", "valid", "test")

logger = logging.get_logger(__name__)


@dataclasses.dataclass
class FinetuneResult:
    """
    What a fine-tuning run gives. `model` holds the best weights on the validation part.

    Attributes:
        valid_predictions, test_predictions: `[molecules of the part, tasks]`, in the order of `split[part]`:
            probabilities or values in the units of the labels; NaN where the molecule could not be used.
        valid_metrics, test_metrics: name of a metric -> its mean over the tasks that can be measured, and `"per_task"`:
            task -> its metrics; empty for a part that does not exist.
        selected_by: the metric that chose the epoch: its name, `"loss"`, or `"last epoch"` without a validation part.
        best_epoch, best_update: when the chosen weights were reached.
        epochs, updates: epochs begun and optimiser updates carried out.
        history: the records that Trainer logged, one dict each.
        failures: molecule (its index in `smiles`) -> why it could not be used.
        truncated: indices of the molecules that were shortened to what the model takes.
        reports: what the processor reports of molecules (`conformer_status`, `conformer_flags`) -> word -> how many.
        label_mean, label_std: of the training part, one per task; None for classification.
        settings: what the run was asked for, as it stands in `settings.json` of `output_dir`.
    """

    model: PreTrainedModel
    processor: Any
    task_names: list[str]
    problem_type: str
    valid_predictions: np.ndarray
    test_predictions: np.ndarray
    valid_metrics: dict
    test_metrics: dict
    selected_by: str
    best_epoch: int
    best_update: int
    epochs: int
    updates: int
    history: list[dict]
    failures: dict[int, MoleculeError]
    truncated: list[int]
    reports: dict[str, dict[str, int]]
    label_mean: list[float] | None
    label_std: list[float] | None
    settings: dict


class FeatureRows(Dataset):
    """
    Rows of cached features in memory, with the column `length` by which [`MoleculeTrainer`] groups batches, unless
    `grouped` is False.
    """

    def __init__(self, rows: Sequence[dict], size: Callable[[dict], int], grouped: bool = True):
        self.rows, self.size, self.grouped = rows, size, grouped
        self.column_names = ("length",) if grouped else ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> dict | list[int]:
        if key == "length":
            return [self.size(row) for row in self.rows]
        return self.rows[key]

    def longest_first(self) -> tuple["FeatureRows", np.ndarray]:
        """The rows sorted by falling length (little padding in evaluation), and where each of them stood."""
        order = np.argsort(-np.array(self["length"], dtype=np.int64), kind="stable")
        return FeatureRows([self.rows[place] for place in order], self.size, self.grouped), order


def _check_split(split: Mapping[str, Sequence[int]], molecules: int) -> dict[str, np.ndarray]:
    """The parts as index arrays, each molecule in one of them at most."""
    if "train" not in split or set(split) - set(PARTS):
        raise ValueError(f"a split has the parts train, valid and test, not {', '.join(map(str, split))}")
    parts = {part: np.asarray(split.get(part, ()), dtype=np.int64) for part in PARTS}
    values, counts = np.unique(np.concatenate(list(parts.values())), return_counts=True)
    outside = values[(values < 0) | (values >= molecules)]
    if len(outside):
        raise ValueError(f"the split names molecule {outside[-1]}; there are {molecules}, counted from 0")
    if (counts > 1).any():
        raise ValueError(f"the split names molecule {values[counts > 1][0]} more than once")
    return parts


def _check_labels(labels: np.ndarray, molecules: int, task_names: Sequence[str], problem_type: str) -> np.ndarray:
    """The labels as float64 `[molecules, tasks]`; classes are 0 and 1, NaN is missing."""
    labels = np.asarray(labels, dtype=np.float64)
    if labels.shape != (molecules, len(task_names)):
        raise ValueError(f"labels have shape {labels.shape}; there are {molecules} molecules, {len(task_names)} tasks")
    if problem_type not in METRICS:
        raise ValueError(f"problem_type is {' or '.join(METRICS)}, not {problem_type!r}")
    bad, wanted = np.isinf(labels), "finite or missing"
    if problem_type == "multi_label_classification":
        bad, wanted = ~(np.isnan(labels) | (labels == 0) | (labels == 1)), "0, 1 or missing"
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(f"label {task_names[column]!r} of molecule {row} is {labels[row, column]:g}, not {wanted}")
    return labels


def _selection(metric: str | None, problem_type: str, labels: np.ndarray) -> str:
    """
    The metric that chooses the epoch. Without a wish it is the usual one of the problem, or the loss where these labels
    of the validation part cannot measure it (one class only), and for several tasks of a regression, whose errors have
    different units.
    """
    if metric is not None and metric not in (*METRICS[problem_type], "loss"):
        raise ValueError(f"the metric of {problem_type} is {', '.join(METRICS[problem_type])} or loss, not {metric!r}")
    if np.isnan(labels).all():
        if metric is not None:
            raise ValueError(f"metric {metric!r} needs a validation part with labels")
        return "last epoch"
    wanted = metric or METRICS[problem_type][0]
    if wanted == "loss" or (metric is None and problem_type == "regression" and labels.shape[1] > 1):
        return "loss"
    # Any predictions do: whether a metric is defined depends on the labels alone.
    if math.isnan(property_metrics(np.zeros_like(labels), labels, problem_type)[wanted]):
        message = f"the validation part ({len(labels)} molecules) cannot measure {wanted}"
        if metric is not None:
            raise ValueError(message)
        logger.warning(f"{message}; the epoch is chosen by the loss")
        return "loss"
    return wanted


def _load_processor(checkpoint: str, options: Mapping[str, Any]):
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


def _check_same_run(path: Path, settings: dict, resume: bool) -> None:
    """Settings of a run stand beside its checkpoints; continuing with others would be a different run."""
    if resume and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            told = ", ".join(f"{key} was {before.get(key)!r} and is {settings[key]!r}" for key in changed)
            raise ValueError(f"cannot continue the run in {path.parent}: {told}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2), encoding="utf-8")


class _EpochLines(ProgressCallback):
    """Trainer's progress bar over the updates, with one readable line per epoch instead of its dicts."""

    training_loss = float("nan")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is None or not logs or "train_runtime" in logs:
            return
        self.training_loss = logs.get("loss", self.training_loss)
        if "eval_loss" in logs or args.eval_strategy == "no":
            values = {key[len("eval_") :]: value for key, value in logs.items() if key.startswith("eval_")}
            shown = [f"{key} {value:.4g}" for key, value in values.items() if not key.endswith(("time", "second"))]
            valid = f"  validation: {', '.join(shown)}" if shown else ""
            self.training_bar.write(f"epoch {logs['epoch']:.0f}  training: loss {self.training_loss:.4g}{valid}")

    def on_prediction_step(self, *args, **kwargs):
        """No second bar."""


def _training_arguments(folder: str, settings: Mapping[str, Any], keep: bool, progress: bool) -> TrainingArguments:
    """`keep`: a checkpoint after each epoch, from which the run can be continued; else only the best weights."""
    selecting = settings["metric"] != "last epoch"
    if keep:
        saving = {"save_strategy": "epoch", "save_total_limit": 1}
    else:
        saving = {"save_strategy": "best" if selecting else "no", "save_total_limit": 1, "save_only_model": True}
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        per_device_eval_batch_size=4 * settings["batch_size"],
        learning_rate=settings["learning_rate"],
        weight_decay=settings["weight_decay"],
        warmup_steps=settings["warmup"],
        lr_scheduler_type=settings["lr_scheduler_type"],
        seed=settings["seed"],
        bf16=settings["bf16"],
        use_cpu=not on_gpu,
        eval_strategy="epoch" if selecting else "no",
        load_best_model_at_end=selecting,
        metric_for_best_model=settings["metric"] if selecting else None,
        greater_is_better=settings["metric"] in GREATER_IS_BETTER if selecting else None,
        logging_strategy="epoch",
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        restore_callback_states_from_checkpoint=keep,  # the patience that is left
        disable_tqdm=not progress,
        report_to="none",
        **saving,
    )


@torch.inference_mode()
def _predictions(model: PreTrainedModel, collate: Callable, rows: FeatureRows, batch_size: int) -> np.ndarray:
    """`[rows, tasks]`, in float32 also after training under autocast: the numbers that `predict` will give."""
    model.eval()
    outputs = []
    for start in range(0, len(rows), batch_size):
        batch = collate(rows.rows[start : start + batch_size])
        batch = {
            key: value.to(model.device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()
        }
        outputs.append(model(**batch).predictions.float().cpu())
    return torch.cat(outputs).numpy()


def finetune(
    checkpoint: str,
    smiles: Sequence[str],
    labels: np.ndarray,
    task_names: Sequence[str],
    problem_type: str,
    split: Mapping[str, Sequence[int]],
    *,
    from_scratch: bool = False,
    epochs: int = 30,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    lr_scheduler_type: str = "linear",
    seed: int = 0,
    metric: str | None = None,
    patience: int | None = None,
    label_units: Sequence[str] | None = None,
    truncation: bool = False,
    z: Sequence | None = None,
    pos: Sequence | None = None,
    features: Sequence[dict | MoleculeError] | None = None,
    config_overrides: Mapping[str, Any] | None = None,
    processor_options: Mapping[str, Any] | None = None,
    collator_options: Mapping[str, Any] | None = None,
    bf16: bool | None = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> FinetuneResult:
    """
    Fine-tune a checkpoint on molecules with labels and keep the weights that are best on the validation part.

    Features are computed once; batches hold molecules of similar length where they are padded; regression labels are
    standardised with the mean and standard deviation of the training part only. Same arguments, same numbers (on one
    machine). The global seeds are set, as `Trainer` does.

    Args:
        checkpoint: folder or Hub repository of any method; a new head is put on it.
        smiles: one per molecule. Those that cannot be used are left out of their part and reported in `failures`.
        labels: `[molecules, tasks]`, in their own units; NaN = missing.
        split: indices of the molecules of `train`, `valid` and `test`; the last two may be absent or empty.
        from_scratch: random weights of the same architecture.
        warmup: share of the updates in which the learning rate rises.
        metric: chooses the epoch on the validation part: one of [`~hf_molrep.metrics.METRICS`] or `"loss"`; by default
            ROC-AUC for classification, RMSE for one task of regression, loss for several (their units differ).
        patience: stop after so many epochs without improvement; None runs all epochs.
        truncation: shorten SMILES with more tokens than the model takes instead of leaving them out (sequence methods).
        z, pos: atomic numbers and coordinates of each molecule, for methods that read them, instead of computed ones.
        features: what `processor.featurize(smiles, on_error="skip")` gave, where it is already known.
        config_overrides: see [`~hf_molrep.training.property_models.load_model_for_finetuning`].
        processor_options: options of the processor to change, for instance `{"descriptors": True}` of GROVER; what the
            model must then match (its `config_fields()`) is changed with them.
        collator_options: for the method's data collator in training, for instance `{"smiles_augmentation": 0.5}`.
        bf16: autocast (weights stay float32); None: where the hardware computes in bf16.
        output_dir: Trainer's checkpoints, one after each epoch, for `resume`; None keeps nothing on disk.
        resume: continue from the last checkpoint in `output_dir` (from the start if there is none); same settings
            required.
    Raises:
        ValueError: labels or split that do not fit the molecules, classes other than 0 and 1, a task without any label
            in the training part, a metric that the validation part cannot measure, `resume` with other settings,
            an option that the processor does not have, predictions that are not finite (training has diverged).
    """
    smiles, task_names = list(smiles), [str(name) for name in task_names]
    labels = _check_labels(labels, len(smiles), task_names, problem_type)
    parts = _check_split(split, len(smiles))
    if resume and output_dir is None:
        raise ValueError("resume needs the output_dir of the run that is to be continued")

    processor = _load_processor(checkpoint, processor_options or {})
    geometry = {} if z is None and pos is None else {"z": z, "pos": pos}
    if geometry and frozenset({"smiles", "z", "pos"}) not in processor.inputs:
        raise ValueError(f"{type(processor).__name__} does not read coordinates")
    if features is None:
        shorten = {"truncation": True} if truncation else {}
        features = processor.featurize({"smiles": smiles, **geometry}, on_error="skip", **shorten)
    failures = {index: value for index, value in enumerate(features) if isinstance(value, MoleculeError)}
    usable = {part: np.array([i for i in indices if i not in failures], np.int64) for part, indices in parts.items()}
    has_label = ~np.isnan(labels)
    usable["train"] = usable["train"][has_label[usable["train"]].any(axis=1)]  # the others teach nothing
    for task, name in enumerate(task_names):
        if not has_label[usable["train"], task].any():
            raise ValueError(f"task {name!r} has no label in the training part ({len(usable['train'])} molecules)")

    selected_by = _selection(metric, problem_type, labels[usable["valid"]])
    if patience is not None and selected_by == "last epoch":
        raise ValueError("patience needs a validation part with labels")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = {
        "checkpoint": str(checkpoint),
        "data": _digest(smiles, labels, parts, geometry),
        "task_names": task_names,
        "problem_type": problem_type,
        "from_scratch": from_scratch,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "lr_scheduler_type": lr_scheduler_type,
        "seed": seed,
        "metric": selected_by,
        "patience": patience,
        "config_overrides": dict(config_overrides or {}),
        "processor_options": dict(processor_options or {}),
        "collator_options": dict(collator_options or {}),
        "bf16": bf16_is_fast(device) if bf16 is None else bf16,
    }
    if output_dir is not None:
        _check_same_run(Path(output_dir) / "settings.json", settings, resume)

    mean, std = label_scale(labels[usable["train"]]) if problem_type == "regression" else (None, None)
    set_seed(seed)  # for the new head
    model = load_model_for_finetuning(
        checkpoint,
        task_names,
        problem_type,
        label_mean=mean,
        label_std=std,
        label_units=label_units,
        from_scratch=from_scratch,
        config_overrides={**processor.config_fields(), **(config_overrides or {})},
        # on a CPU the backward pass of torch's fused kernel takes twice as long for molecules, which are short
        attention="eager" if device == "cpu" else None,
    )

    def row(index: int) -> dict:
        kept = {key: value for key, value in features[index].items() if isinstance(value, np.ndarray | int)}
        used = features[index].get("smiles_used", smiles[index])
        return {**kept, "smiles": used, "row_id": int(index), "labels": labels[index].astype(np.float32)}

    rows = {part: FeatureRows([row(index) for index in usable[part]], processor.size, processor.pads) for part in PARTS}

    def measure(predictions: np.ndarray, truth: np.ndarray) -> dict:
        if not np.isfinite(predictions).all():
            raise ValueError("predictions are not finite: training has diverged, try a lower learning rate")
        return property_metrics(predictions, truth, problem_type, task_names)

    data_collator = method_of(model.config).tasks["property-prediction"].collator
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet())
        folder = output_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="hf_molrep_finetune_"))
        trainer = MoleculeTrainer(
            model=model,
            args=_training_arguments(str(folder), settings, output_dir is not None, progress),
            data_collator=data_collator(processor, **(collator_options or {})),
            eval_data_collator=data_collator(processor),
            train_dataset=rows["train"],
            eval_dataset=rows["valid"].longest_first()[0] if selected_by != "last epoch" else None,
            compute_metrics=lambda result: {
                name: value
                for name, value in measure(result.predictions, result.label_ids).items()
                if name in METRICS[problem_type]
            },
            preprocess_logits_for_metrics=lambda outputs, labels: outputs[-1],  # of (logits, predictions)
            callbacks=[*callbacks, *([EarlyStoppingCallback(patience)] if patience is not None else [])],
        )
        trainer.remove_callback(ProgressCallback if progress else PrinterCallback)
        if progress:
            trainer.add_callback(_EpochLines)
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if resume else None)
        # without the autocast that accelerate put around forward
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)

        predictions, metrics = {}, {"valid": {}, "test": {}}
        for part in metrics:
            predictions[part] = np.full((len(parts[part]), len(task_names)), np.nan, dtype=np.float32)
            if not len(rows[part]):
                continue
            sorted_rows, order = rows[part].longest_first()
            values = np.empty((len(order), len(task_names)), dtype=np.float32)
            values[order] = _predictions(model, trainer.eval_data_collator, sorted_rows, 4 * batch_size)
            predictions[part][np.isin(parts[part], usable[part])] = values
            metrics[part] = measure(values, labels[usable[part]])

    state = trainer.state
    updates_per_epoch = state.max_steps / epochs
    best_update = state.best_global_step if state.best_global_step else state.global_step
    return FinetuneResult(
        model=model,
        processor=processor,
        task_names=task_names,
        problem_type=problem_type,
        valid_predictions=predictions["valid"],
        test_predictions=predictions["test"],
        valid_metrics=metrics["valid"],
        test_metrics=metrics["test"],
        selected_by=selected_by,
        best_epoch=round(best_update / updates_per_epoch),
        best_update=best_update,
        epochs=math.ceil(state.global_step / updates_per_epoch),
        updates=state.global_step,
        history=list(state.log_history),
        failures=failures,
        reports={
            name: dict(
                Counter(word for each in features if isinstance(each, dict) for word in each.get(name, "").split())
            )
            for name in processor.reports
        },
        truncated=[index for index, value in enumerate(features) if isinstance(value, dict) and "truncated" in value],
        label_mean=mean,
        label_std=std,
        settings=settings,
    )


def _digest(
    smiles: Sequence[str], labels: np.ndarray, parts: Mapping[str, np.ndarray], geometry: Mapping[str, Sequence]
) -> str:
    """A fingerprint of the data, by which a continued run recognises them."""
    digest = hashlib.sha256(json.dumps(list(smiles), default=str).encode())
    rows = [np.asarray(row, dtype=np.float64) for column in geometry.values() for row in column]
    for array in (labels, *parts.values(), *rows):
        digest.update(np.ascontiguousarray(array).tobytes() + b"|")
    return digest.hexdigest()[:16]
