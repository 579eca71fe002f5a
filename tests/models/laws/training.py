"""Laws 6, 7, 8, 13 and 14: gradients, seeded batches, learning, resuming, several processes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from hf_molrep.training.trainer import MoleculeTrainer
from tests.models.laws.checks import require, require_same, tensors
from tests.models.laws.hooks import MethodHooks
from tests.models.laws.two_processes import two_process_gradients


class Interrupted(Exception):
    pass


class InterruptAfter(TrainerCallback):
    """Kills the training before the step after `step`."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Interrupted


class TrainingLaws(MethodHooks):
    def test_law_06_gradients(self):
        """Pre-training gives every parameter a gradient, but for those listed as frozen, which get none."""
        model = self.build("pre-training").train()
        model(**self.collator()(self.rows())).loss.backward()
        unused = dict(self.frozen)
        for name, parameter in model.named_parameters():
            reasons = [pattern for pattern in self.frozen if re.search(pattern, name)]
            alive = parameter.grad is not None and bool(parameter.grad.isfinite().all() and parameter.grad.any())
            require(6, alive != bool(reasons), f"{name}: gradient {alive}, listed as frozen {bool(reasons)}")
            for pattern in reasons:
                unused.pop(pattern, None)
        require(6, not unused, f"listed as frozen, but there is no such parameter: {sorted(unused)}")

    def test_law_07_seeded_batches(self):
        """A batch is a function of seed, epoch and row ids: not of other calls, rows or generators."""
        rows = self.rows()
        expected = self.collator()(rows)
        collator = self.collator()
        np.random.seed(1)  # noqa: NPY002 - a global generator is what must not matter
        torch.manual_seed(1)
        require_same(7, "first call", collator(rows), expected)
        np.random.seed(2)  # noqa: NPY002
        torch.manual_seed(2)
        collator(rows[:3])
        require_same(7, "call after others", collator(rows), expected)
        alone = collator(rows[2:3])
        require_same(7, "row alone, again", collator(rows[2:3]), alone)
        collator.epoch = 1
        later = collator(rows)
        other_seed = self.collator(seed=1)(rows)
        for what, batch in (("epoch", later), ("seed", other_seed)):
            differs = any(
                tensor.shape != tensors(batch)[name].shape or not torch.equal(tensor, tensors(batch)[name])
                for name, tensor in tensors(expected).items()
            )
            require(7, differs == self.random_batches, f"another {what} changes the batch: {differs}")
        self._require_rows_draw_for_themselves(rows)

    def _require_rows_draw_for_themselves(self, rows: list[dict]) -> None:
        """A row draws the same wherever it stands in the batch: two rows in both orders."""
        pair, model = [rows[3], rows[6]], self.build("pre-training")
        first, second = self.collator()(pair), self.collator()(pair[::-1])
        for name, tensor in tensors(first).items():
            other = tensors(second)[name]
            if "edge_index" in first:  # joined: only the loss tells
                break
            if tensor.dim() and tensor.shape[0] == 2 and other.shape == tensor.shape:
                require_same(7, f"rows in another order{name}", other, tensor.flip(0))
        with torch.no_grad():
            losses = [model(**batch).loss for batch in (second, first)]
        require_same(7, "loss of rows in another order", *losses, 10 * self.tolerance)

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # fork of the workers
    def test_law_07_workers_and_resuming(self):
        """Loaders with 0 and 2 workers, and one resumed in mid-epoch, give the same batches."""
        from accelerate import skip_first_batches

        def loader(workers: int):
            sampler = torch.utils.data.RandomSampler(range(8), generator=torch.Generator().manual_seed(0))
            return torch.utils.data.DataLoader(
                self.rows(), batch_size=2, sampler=sampler, collate_fn=self.collator(), num_workers=workers
            )

        expected = list(loader(0))
        require_same(7, "two workers", list(loader(2)), expected)
        require_same(7, "resumed in mid-epoch", list(skip_first_batches(loader(0), 2)), expected[2:])

    def test_law_08_overfitting(self):
        """Eight molecules can be learned by heart: pre-training objective and property head."""
        steps, rate, left = self.overfit
        torch.manual_seed(0)
        labels = torch.randn(8, 2)
        tasks = {"problem_type": "regression", "id2label": {0: "a", 1: "b"}}
        for kind, options, batch in (
            ("pre-training", {}, self.collator()(self.rows())),
            ("property-prediction", tasks, {**self.inputs(), "labels": labels}),
        ):
            model = self.build(kind, **options).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
            first = None
            for _ in range(steps):
                loss = model(**batch).loss
                first = loss.item() if first is None else first
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            require(8, loss.item() < left * first, f"{kind}: loss {first:.3g} -> {loss.item():.3g} in {steps} steps")

    def _trainer(self, folder: Path, seed: int, *callbacks: TrainerCallback) -> MoleculeTrainer:
        from datasets import Dataset

        rows = [{**row, "length": self.processor().size(row)} for row in self.rows()]
        torch.manual_seed(seed)
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=3,
            per_device_train_batch_size=4,  # two steps in an epoch: one is interrupted, the next one begins
            learning_rate=1e-2,
            save_steps=1,
            logging_steps=1,
            remove_unused_columns=False,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        return MoleculeTrainer(
            model=self.method.tasks["pre-training"].model(self.config(dropout=0.1)),
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            data_collator=self.collator(),
            callbacks=list(callbacks),
        )

    def test_law_13_resuming(self, tmp_path):
        """Three steps through Trainer; killed after the first (in mid-epoch) and resumed, they give the same losses."""
        through = self._trainer(tmp_path / "through", 0)
        through.train()
        with pytest.raises(Interrupted):
            self._trainer(tmp_path / "killed", 0, InterruptAfter(1)).train()
        resumed = self._trainer(tmp_path / "killed", 1)
        resumed.train(resume_from_checkpoint=True)
        losses = [
            {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
            for trainer in (resumed, through)
        ]
        require(13, sorted(losses[1]) == [1, 2, 3], f"losses of the steps {sorted(losses[1])} were logged")
        require(13, losses[0] == losses[1], f"losses after resuming {losses[0]}, else {losses[1]}")
        require_same(13, "weights", resumed.model.state_dict(), through.model.state_dict())
        require(13, "eval_loss" in through.evaluate(through.train_dataset), "evaluation gives no loss")

    def test_law_14_two_processes(self, tmp_path):
        """Two gloo processes under torchrun give loss and gradients of one process with the joined batch."""
        name = f"{type(self).__module__}:{type(self).__qualname__}"
        self.require_joined(two_process_gradients([name], tmp_path)[name])

    def require_joined(self, actual: dict) -> None:
        expected = self._run(self.build("pre-training"), self.share(0, 1))
        require_same(14, "two processes", actual, expected, 10 * self.tolerance)
