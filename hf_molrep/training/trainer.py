"""`transformers.Trainer` with grouped batches, a log entry for each named loss, and seeded collators."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import Seq2SeqTrainer, Trainer, TrainerCallback

from ..data.batching import grouped_order
from ..hub import push

STAGES_SHARE = 0.3


def bf16_is_fast(device: str) -> bool:
    """Return whether the hardware has units for bf16 matrix products (CUDA from Ampere on; CPUs with AVX512-BF16)."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return False


def stage_factor(steps: Sequence[int], stage: int, update: int, updates: int) -> float:
    """
    Part of the learning rate that a stage of warming up has in an update (3D Infomax). The stages rise linearly, one
    after the other, each over its number of updates; before, the factor is 0. All together take at most 30 % of the
    run: in a shorter one they shrink.

    Args:
        steps: updates of each stage; update: counted from 0; updates: of the whole run.
    """
    shrunk = min(1.0, STAGES_SHARE * updates / max(sum(steps), 1))
    begin, length = shrunk * sum(steps[:stage]), shrunk * steps[stage]
    if update < begin:
        return 0.0
    return min(1.0, (update + 1 - begin) / length) if length else 1.0


def _staged(factor: Callable[[int], float], steps: Sequence[int], stage: int, updates: int, update: int) -> float:
    return factor(update) * stage_factor(steps, stage, update, updates)


class GroupedSampler(Sampler[int]):
    """
    Samples indices in [`~hf_molrep.data.batching.grouped_order`]: batches of similar length and, with `groups`, of
    related molecules. The order depends only on `(seed, epoch)`.
    """

    def __init__(self, lengths, batch_size: int, groups=None, seed: int = 0):
        self.lengths = np.asarray(lengths)
        self.groups = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        yield from grouped_order(self.lengths, self.batch_size, rng, self.groups).tolist()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class _EpochSetter(TrainerCallback):
    """Sets the epoch of sampler and collator, also after resuming, before the loader starts its workers."""

    def __init__(self, trainer: "MoleculeTrainerMixin"):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        epoch = int(state.epoch or 0)
        for target in (self.trainer.data_collator, self.trainer.train_sampler):
            if hasattr(target, "epoch"):
                target.epoch = epoch


class MoleculeTrainerMixin:
    """
    Additions to `Trainer` or a class derived from it; list it before that class among the bases.

    - If the training set has the column `length`, batches hold molecules of similar length; with the column `group`
      (for instance the molecular formula) also related molecules.
    - If the model has `warmup_stages`, the learning rate of its parts rises in stages, see [`stage_factor`].
    - Every entry of `outputs.losses` and `outputs.monitors` is logged, averaged over the steps since the last log.
    - `data_collator.epoch` is set at the start of each epoch, so that seeded augmentation differs between epochs and is
      the same after resuming. `eval_data_collator` (default: the same collator) serves evaluation and prediction.
    - `push_to_hub` uploads weights, processor and card, but no pickle (`training_args.bin`) or other state of the run.

    Raises:
        ValueError: persistent workers with a collator that has an `epoch`, which they would not update; or
            `push_to_hub=True` with another `hub_strategy` than `"end"`, which would upload state while training.
    """

    def __init__(self, *args, eval_data_collator=None, **kwargs):
        self.train_sampler: GroupedSampler | None = None
        self._loss_sums: dict[str, torch.Tensor] = {}
        self._loss_counts = 0
        super().__init__(*args, **kwargs)
        if not self.label_names:  # else evaluation skips the loss of models without labels
            self.can_return_loss = True
        self.eval_data_collator = eval_data_collator
        if self.args.dataloader_persistent_workers and hasattr(self.data_collator, "epoch"):
            raise ValueError("dataloader_persistent_workers would freeze the collator's epoch: set it to False")
        if self.args.push_to_hub and self.args.hub_strategy != "end":
            raise ValueError(f"hub_strategy {self.args.hub_strategy.value!r} uploads pickles while training: use 'end'")
        self.add_callback(_EpochSetter(self))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        columns = getattr(dataset, "column_names", None) or []
        if "length" not in columns:
            return super()._get_train_sampler(train_dataset)
        self.train_sampler = GroupedSampler(
            dataset["length"],
            self.args.train_batch_size * self.args.world_size,
            dataset["group"] if "group" in columns else None,
            self.args.data_seed if self.args.data_seed is not None else self.args.seed,
        )
        return self.train_sampler

    def create_optimizer(self, *args, **kwargs) -> torch.optim.Optimizer:
        """Groups of parameters are those of `Trainer`, divided by the `warmup_stages` of the model, if it has such."""
        created = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        stages = getattr(self.model, "warmup_stages", [])
        if created and stages:
            stage_of = {name: stage for stage, (names, _) in enumerate(stages) for name in names}
            stage_of = {id(parameter): stage_of[name] for name, parameter in self.model.named_parameters()}
            optimizer.param_groups = [
                {**group, "params": inside, "stage": stage}
                for group in optimizer.param_groups
                for stage in range(len(stages))
                if (inside := [parameter for parameter in group["params"] if stage_of[id(parameter)] == stage])
            ]
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """
        The schedule of `Trainer`, times that of the stages of the model.

        Raises:
            ValueError: the model has stages, and the learning rate does not follow a function of the update.
        """
        created = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        stages = getattr(self.model, "warmup_stages", [])
        if not created or not stages:
            return scheduler
        if not isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
            raise ValueError(
                f"the model warms up in stages, which lr_scheduler_type {self.args.lr_scheduler_type} cannot"
            )
        steps = [count for _, count in stages]
        scheduler.lr_lambdas = [
            partial(_staged, factor, steps, group["stage"], num_training_steps)
            for factor, group in zip(scheduler.lr_lambdas, scheduler.optimizer.param_groups, strict=True)
        ]
        for group, base, factor in zip(
            scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = base * factor(0)
        return scheduler

    def get_eval_dataloader(self, eval_dataset=None):
        return self._evaluating(super().get_eval_dataloader, eval_dataset)

    def get_test_dataloader(self, test_dataset):
        return self._evaluating(super().get_test_dataloader, test_dataset)

    def _evaluating(self, get_dataloader, dataset):
        """Make a loader with the collator of evaluation and without `dataloader_drop_last`."""
        training = self.data_collator, self.args.dataloader_drop_last
        self.data_collator, self.args.dataloader_drop_last = self.eval_data_collator or training[0], False
        try:
            return get_dataloader(dataset)
        finally:
            self.data_collator, self.args.dataloader_drop_last = training

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training and getattr(outputs, "losses", None):
            named = {f"loss_{name}": value for name, value in outputs.losses.items()}
            for name, value in (named | (outputs.get("monitors") or {})).items():
                self._loss_sums[name] = self._loss_sums.get(name, 0.0) + value.detach().float()
            self._loss_counts += 1
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, Any], *args, **kwargs) -> None:
        if self._loss_counts and "loss" in logs:
            for name, total in self._loss_sums.items():
                logs[name] = round(float(total) / self._loss_counts, 6)
            self._loss_sums, self._loss_counts = {}, 0
        super().log(logs, *args, **kwargs)

    def push_to_hub(
        self, commit_message="End of training", blocking=True, token=None, revision=None, private=None, **card_kwargs
    ):
        """
        Upload the current model to `args.hub_model_id` (default: the name of `output_dir`), see
        [`~hf_molrep.hub.push`]. Without a README.md in `output_dir`, `create_model_card(**card_kwargs)` writes one.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        folder = Path(self.args.output_dir)
        repo_id = self.args.hub_model_id or folder.absolute().name
        card = folder / "README.md"
        if not card.exists() or "generated_from_trainer" in card.read_text(encoding="utf-8"):
            self.create_model_card(model_name=card_kwargs.pop("model_name", repo_id.split("/")[-1]), **card_kwargs)
        return push(
            folder,
            repo_id,
            private=self.args.hub_private_repo if private is None else private,
            revision=self.args.hub_revision if revision is None else revision,
            commit_message=commit_message,
            token=self.args.hub_token if token is None else token,
            blocking=blocking,
        )


class MoleculeTrainer(MoleculeTrainerMixin, Trainer):
    """`Trainer` with the additions of [`MoleculeTrainerMixin`]."""


class MoleculeSeq2SeqTrainer(MoleculeTrainerMixin, Seq2SeqTrainer):
    """`Seq2SeqTrainer`, which generates in evaluation, with the additions of [`MoleculeTrainerMixin`]."""
