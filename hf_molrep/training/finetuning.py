"""Fine-tune any checkpoint and measure it; used by `hf-molrep finetune` and the benchmarks."""

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoConfig,
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from ..chem.smiles import MoleculeError
from ..configuration import check_fields
from ..data.runs import check_continues
from ..inference.checkpoints import silent_transformers
from ..processing.collation import check_options
from ..processing.contract import MoleculeProcessor
from .callbacks import EpochLines
from .labelled_molecules import GREATER_SCORE_IS_BETTER, LabelledMolecules
from .loading import load_processor, task_of
from .reference_conformers import ReferenceConformers
from .settings import FinetuningSettings
from .trainer import MoleculeTrainer, bf16_is_fast


@dataclasses.dataclass
class FinetuneResult:
    """
    Result of a fine-tuning run.

    Attributes:
        model: the model with the weights that are best on the validation part.
        processor: its processor.
        task: `"property-prediction"`, `"interaction-prediction"` or `"conformer-generation"`.
        task_names: names of the columns of the predictions.
        problem_type: problem type of the labels; None for conformers.
        classes: names of mutually exclusive classes, else empty.
        valid_predictions, test_predictions: `[rows of the part, tasks or classes]`, in the order of `split[part]`:
            probabilities or values in the units of the labels; for conformers their RMSD in angstrom from a reference
            before and after the model moves them; NaN for a row that could not be used.
        valid_metrics, test_metrics: metric -> mean over the tasks that can be measured, and for properties
            `"per_task"`: task -> its metrics; empty for an absent part.
        selected_by: metric that chose the epoch, `"loss"`, or `"last epoch"` without a validation part.
        best_epoch, best_update: epoch and update of the chosen weights.
        epochs, updates: number of epochs begun and of optimiser updates.
        history: the records that Trainer logged, one dict each.
        failures: index of a row -> why it could not be used.
        truncated: indices of the rows that were shortened.
        reports: report of the processor (`conformer_status`, `conformer_flags`) -> word -> number of molecules.
        label_mean, label_std: statistics of the training part, one per task; None for classification.
        settings: settings of the run, as in `settings.json` of `output_dir`.
    """

    model: PreTrainedModel
    processor: MoleculeProcessor
    task: str
    task_names: list[str]
    problem_type: str | None
    classes: list[str]
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


def finetune(
    checkpoint: str,
    data: LabelledMolecules | ReferenceConformers,
    settings: FinetuningSettings | None = None,
    *,
    output_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> FinetuneResult:
    """
    Fine-tune a checkpoint and keep the weights that are best on the validation part.

    Features are computed once. Padded batches hold molecules of similar length. Regression labels are standardised with
    the mean and standard deviation of the training part. The same arguments give the same numbers on one machine; the
    global seeds are set, as `Trainer` does.

    Args:
        checkpoint: folder or Hub repository of any method that has the task of the data.
        data: the data and their split.
        settings: by default those of the task. If options of the processor are changed, the configuration of the model
            follows (`config_fields()`).
        output_dir: folder for Trainer's checkpoints, one after each epoch, for `resume`; None keeps nothing on disk.
        resume: continue from the last checkpoint in `output_dir`, or start if there is none, with the same data and
            settings.
        progress: show a progress bar and one line per epoch.
        callbacks: further callbacks of Trainer.
    Raises:
        ValueError: the method does not have the task, a task has no label in the training part, the validation part
            cannot measure the metric, `resume` has other settings, the processor does not have an option, or
            predictions are not finite (training has diverged).
    """
    settings = data.settings_class() if settings is None else settings
    if not isinstance(settings, data.settings_class):
        raise ValueError(f"{data.task} takes {data.settings_class.__name__}, not {type(settings).__name__}")
    if resume and output_dir is None:
        raise ValueError("resume needs the output_dir of the run that is to be continued")
    collator = task_of(AutoConfig.from_pretrained(checkpoint), data.task).collator
    check_options(collator, settings.collator_options)
    processor = load_processor(checkpoint, settings.processor_options)
    prepared = data.prepare(processor, settings)

    on_gpu = torch.cuda.is_available()
    bf16 = bf16_is_fast("cuda" if on_gpu else "cpu") if settings.bf16 is None else settings.bf16
    settings = dataclasses.replace(settings, metric=prepared.selected_by(settings.metric), bf16=bf16)
    if settings.patience is not None and settings.metric == "last epoch":
        raise ValueError("patience needs a validation part with labels")
    overrides = {**processor.config_fields(), **settings.config_overrides}
    check_fields(type(AutoConfig.from_pretrained(checkpoint)), overrides)
    recorded = {"checkpoint": str(checkpoint), **prepared.identity(), **dataclasses.asdict(settings)}
    if output_dir is not None:
        check_continues(Path(output_dir) / "settings.json", recorded, resume)

    set_seed(settings.seed)  # for the new head
    model = prepared.load_model(
        checkpoint,
        settings,
        overrides,
        # on a CPU the backward pass of torch's fused kernel takes twice as long for short sequences
        None if on_gpu else "eager",
    )
    train_options, evaluation_options = prepared.collator_options(settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(silent_transformers())
        folder = output_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="hf_molrep_finetune_"))
        patience = [] if settings.patience is None else [EarlyStoppingCallback(settings.patience)]
        trainer = MoleculeTrainer(
            model=model,
            args=_training_arguments(str(folder), settings, prepared.label_names, output_dir is not None, progress),
            data_collator=collator(processor, **train_options),
            eval_data_collator=collator(processor, **evaluation_options),
            train_dataset=prepared.rows["train"],
            eval_dataset=prepared.evaluated_rows() if settings.metric != "last epoch" else None,
            callbacks=[*callbacks, *patience],
            **prepared.trainer_options(),
        )
        trainer.remove_callback(ProgressCallback if progress else PrinterCallback)
        if progress:
            trainer.add_callback(EpochLines)
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if resume else None)
        # remove the autocast that accelerate wraps around forward
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        valid, test = (
            prepared.measure(part, model, trainer.eval_data_collator, 4 * settings.batch_size)
            for part in ("valid", "test")
        )

    state = trainer.state
    updates_per_epoch = state.max_steps / settings.epochs
    best_update = state.best_global_step if state.best_global_step else state.global_step
    return FinetuneResult(
        model=model,
        processor=processor,
        task=data.task,
        task_names=list(prepared.task_names),
        problem_type=data.problem_type,
        classes=list(data.classes),
        valid_predictions=valid[0],
        test_predictions=test[0],
        valid_metrics=valid[1],
        test_metrics=test[1],
        selected_by=settings.metric,
        best_epoch=round(best_update / updates_per_epoch),
        best_update=best_update,
        epochs=math.ceil(state.global_step / updates_per_epoch),
        updates=state.global_step,
        history=list(state.log_history),
        failures=prepared.failures,
        truncated=list(prepared.truncated),
        reports=prepared.reports,
        label_mean=prepared.label_mean,
        label_std=prepared.label_std,
        settings=recorded,
    )


def _training_arguments(
    folder: str, settings: FinetuningSettings, label_names: Sequence[str], keep: bool, progress: bool
) -> TrainingArguments:
    """Make the arguments of Trainer; `keep` saves a checkpoint to continue from after each epoch."""
    selecting = settings.metric != "last epoch"
    if keep:
        saving = {"save_strategy": "epoch", "save_total_limit": 1}
    else:
        saving = {"save_strategy": "best" if selecting else "no", "save_total_limit": 1, "save_only_model": True}
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup,
        lr_scheduler_type=settings.lr_scheduler_type,
        adam_beta2=settings.adam_beta2,
        adam_epsilon=settings.adam_epsilon,
        seed=settings.seed,
        bf16=settings.bf16,
        use_cpu=not on_gpu,
        eval_strategy="epoch" if selecting else "no",
        load_best_model_at_end=selecting,
        metric_for_best_model=settings.metric if selecting else None,
        greater_is_better=settings.metric in GREATER_SCORE_IS_BETTER if selecting else None,
        logging_strategy="epoch",
        label_names=list(label_names),
        prediction_loss_only=not label_names,
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        restore_callback_states_from_checkpoint=keep,  # the remaining patience
        disable_tqdm=not progress,
        report_to="none",
        **saving,
    )
