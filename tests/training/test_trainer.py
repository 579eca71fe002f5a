"""`MoleculeTrainerMixin` on another trainer than `Trainer`: an encoder-decoder that generates in evaluation."""

from dataclasses import dataclass, field
from functools import wraps

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
)
from transformers.modeling_outputs import Seq2SeqLMOutput

from hf_molrep.training.trainer import MoleculeSeq2SeqTrainer, MoleculeTrainer, MoleculeTrainerMixin

LENGTHS = [3, 9, 4, 8, 5, 7, 6, 10] * 2
BATCH = 4


@dataclass
class NamedLosses(Seq2SeqLMOutput):
    losses: dict | None = None


class TinyT5(T5ForConditionalGeneration):
    """T5 that names the parts of its loss, as the models of the package do."""

    @wraps(T5ForConditionalGeneration.forward)  # generation looks at the names of the arguments
    def forward(self, *args, **inputs):
        output = super().forward(*args, **inputs)
        if output.loss is None:
            return output
        return NamedLosses(**output, losses={"whole": output.loss.detach(), "half": output.loss.detach() / 2})


class Rows(Dataset):
    """Sequences to be copied, with their lengths."""

    column_names = ("length",)

    def __getitem__(self, key):
        if key == "length":
            return LENGTHS
        return {"input_ids": 2 + np.arange(LENGTHS[key]) % 5, "row_id": key}

    def __len__(self):
        return len(LENGTHS)


@dataclass
class Collator:
    """Pads; replaces one token of each row by a random one, drawn from seed, epoch and row."""

    seed: int = 0
    epoch: int = 0
    seen: list = field(default_factory=list)

    def __call__(self, rows):
        width = max(len(row["input_ids"]) for row in rows)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        labels = np.full((len(rows), width), -100)
        for place, row in enumerate(rows):
            length = len(row["input_ids"])
            labels[place, :length] = ids[place, :length] = row["input_ids"]
            rng = np.random.default_rng([self.seed, self.epoch, row["row_id"]])
            ids[place, rng.integers(length)] = rng.integers(2, 7)
            self.seen.append((self.epoch, row["row_id"], length, ids[place, :length].tolist()))
        mask = (ids > 0).astype(np.int64)
        return {name: torch.from_numpy(value) for name, value in
                (("input_ids", ids), ("attention_mask", mask), ("labels", labels))}  # fmt: skip


def trained(folder) -> tuple[MoleculeSeq2SeqTrainer, Collator]:
    torch.manual_seed(0)
    config = T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    collator, model = Collator(), TinyT5(config)
    model.generation_config.max_length = 12
    trainer = MoleculeSeq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            str(folder),
            num_train_epochs=2,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            predict_with_generate=True,
            remove_unused_columns=False,
            logging_strategy="epoch",
            save_strategy="no",
            dataloader_pin_memory=False,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
        ),
        data_collator=collator,
        eval_data_collator=Collator(seed=1),
        train_dataset=Rows(),
        eval_dataset=Rows(),
        compute_metrics=lambda result: {
            "generated": result.predictions.dtype.kind == "i",
            "width": result.predictions.shape[1],
        },
    )
    trainer.train()
    return trainer, collator


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("seq2seq"))


def test_both_trainers_have_it():
    assert issubclass(MoleculeTrainer, MoleculeTrainerMixin)
    assert issubclass(MoleculeTrainer, Trainer)
    assert not issubclass(MoleculeTrainer, Seq2SeqTrainer)
    assert issubclass(MoleculeSeq2SeqTrainer, MoleculeTrainerMixin)
    assert issubclass(MoleculeSeq2SeqTrainer, Seq2SeqTrainer)


def test_batches_are_grouped(run):
    _, collator = run
    lengths = [length for epoch, _, length, _ in collator.seen if epoch == 0]
    assert sorted(lengths) == sorted(LENGTHS)
    spread = [max(lengths[i : i + BATCH]) - min(lengths[i : i + BATCH]) for i in range(0, len(lengths), BATCH)]
    assert max(spread) <= 1  # sixteen rows of eight lengths, two each: four neighbours span two lengths


def test_named_losses_are_logged(run):
    trainer, _ = run
    logs = [record for record in trainer.state.log_history if "loss" in record]
    assert len(logs) == 2
    for record in logs:
        assert record["loss_whole"] == pytest.approx(record["loss"], rel=1e-3)
        assert record["loss_half"] == pytest.approx(record["loss_whole"] / 2, rel=1e-3)


def test_collators_are_seeded(run, tmp_path):
    _, collator = run
    first, second = ({row: ids for epoch, row, _, ids in collator.seen if epoch == number} for number in (0, 1))
    assert first.keys() == second.keys() == set(range(len(LENGTHS)))
    assert first != second  # another epoch, another draw
    _, again = trained(tmp_path)
    assert again.seen == collator.seen


def test_evaluation_generates_with_its_own_collator(run):
    trainer, collator = run
    before, evaluating = len(collator.seen), trainer.eval_data_collator
    evaluating.seen.clear()
    metrics = trainer.evaluate()
    assert (metrics["eval_generated"], metrics["eval_width"]) == (True, 12)  # tokens, not logits
    assert np.isfinite(metrics["eval_loss"])
    assert len(collator.seen) == before
    assert [(epoch, row) for epoch, row, *_ in evaluating.seen] == [(0, row) for row in range(len(LENGTHS))]
