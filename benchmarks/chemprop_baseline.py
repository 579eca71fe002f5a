"""chemprop's D-MPNN as a column of `benchmarks.moleculenet`, in an environment that has it (`pip install chemprop`).

Everything is what chemprop 2's command line does by default (three steps of 300 over directed bonds, sums divided by
100, one hidden layer, Adam with a warm-up to 1e-3, the epoch with the least loss on validation), but for the number of
epochs and the batch size, which are those of the other neural columns. chemprop pins RDKit, so it wants an environment
of its own; what it finds there reaches a table through `--cache`.
"""

import logging
import warnings
from collections.abc import Sequence

import numpy as np
from rdkit import Chem


def fit_chemprop(
    setting: dict,
    mols: Sequence[Chem.Mol],
    labels: np.ndarray,
    split: dict,
    problem_type: str,
    seed: int,
    epochs: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Predictions of validation and test part, `[molecules, tasks]` each, probabilities in classification; one model for
    all tasks, missing labels (NaN) ignored. With one thread of torch the same seed gives the same numbers.

    Args:
        setting: other arguments of `chemprop.models.MPNN` than its defaults.
    """
    import torch
    from chemprop import data, models, nn
    from lightning import pytorch as lightning

    class KeepBest(lightning.Callback):
        """The weights of the epoch with the least loss on validation, in memory."""

        loss, weights = float("inf"), None

        def on_validation_end(self, trainer, module):
            loss = float(trainer.callback_metrics["val_loss"])
            if not trainer.sanity_checking and loss < self.loss:
                self.loss, self.weights = loss, {name: value.clone() for name, value in module.state_dict().items()}

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lightning.seed_everything(seed, verbose=False)
    parts = {
        name: data.MoleculeDataset([data.MoleculeDatapoint(mols[row], labels[row]) for row in rows])
        for name, rows in split.items()
    }
    classify = problem_type == "multi_label_classification"
    if classify:
        head = nn.BinaryClassificationFFN(n_tasks=labels.shape[1])
    else:
        scaler = parts["train"].normalize_targets()
        parts["valid"].normalize_targets(scaler)
        scale = nn.UnscaleTransform.from_standard_scaler(scaler)
        head = nn.RegressionFFN(n_tasks=labels.shape[1], output_transform=scale)
    loaders = {}
    for name, part in parts.items():
        part.cache = True  # graphs are made once, not per epoch
        loaders[name] = data.build_dataloader(part, batch_size, seed=seed, shuffle=name == "train", drop_last=False)
    model = models.MPNN(nn.BondMessagePassing(), nn.NormAggregation(), head, **setting)
    best = KeepBest()
    with warnings.catch_warnings():
        # lightning asks for worker processes, and tells of each step that it logs
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[best],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, loaders["train"], loaders["valid"])
        model.load_state_dict(best.weights)
        predictions = [torch.cat(trainer.predict(model, loaders[name])).numpy() for name in ("valid", "test")]
    return predictions[0].astype(np.float64), predictions[1].astype(np.float64)
