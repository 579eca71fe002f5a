"""Pre-training of 3D Infomax: conformers or labels by the objective of the configuration; JOAO's learned choice."""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BatchFeature, PreTrainedModel, TrainerCallback, TrainingArguments

from ..pretraining import PreTraining, PreTrainingOptions, descriptor_features, with_descriptor_scaling
from .collation_infomax_3d import Infomax3DDataCollator
from .configuration_infomax_3d import AUGMENTATIONS, Infomax3DConfig
from .feature_extraction_infomax_3d import Infomax3DFeatureExtractor


@dataclass
class Infomax3DPreTrainingOptions(PreTrainingOptions):
    """Options of every method, and those of this one."""

    labels: str | None = field(
        default=None, metadata={"help": "columns that the objective property_prediction learns, separated by commas"}
    )
    explicit_hydrogens: bool | None = field(
        default=None,
        metadata={"help": "hydrogens are atoms of the graph (QM9 in the paper); default: as the processor"},
    )


def with_hydrogens(
    extractor: Infomax3DFeatureExtractor,
    options: Infomax3DPreTrainingOptions,
    training: TrainingArguments,
    checkpoint: str | None,
) -> Infomax3DFeatureExtractor:
    """Set the hydrogens of `--explicit_hydrogens`, and the scaling of descriptors if the objective needs one."""
    if options.explicit_hydrogens is not None:
        extractor.explicit_hydrogens = options.explicit_hydrogens
    return with_descriptor_scaling(extractor, options, training, checkpoint)


def with_conformers(extractor: Infomax3DFeatureExtractor, config: Infomax3DConfig) -> Infomax3DFeatureExtractor:
    """Return a copy with as many conformers as the objective needs, or descriptors; a saved one computes graphs."""
    needed = {"contrastive": config.num_conformers, "distance_prediction": 1}.get(config.objective, 0)
    with_them = copy.copy(descriptor_features(extractor, config))
    with_them.num_conformers = needed
    return with_them


def label_columns(options: Infomax3DPreTrainingOptions, config: Infomax3DConfig) -> list[str]:
    """
    The columns to learn.

    Raises:
        ValueError: labels for an objective that learns none, or none for the one that does.
    """
    names = [name.strip() for name in (options.labels or "").split(",") if name.strip()]
    if bool(names) != (config.objective == "property_prediction"):
        told = "needs --labels" if not names else "learns no labels: --labels is for 'property_prediction'"
        raise ValueError(f"the objective {config.objective!r} {told}")
    return names


def objective_options(config: Infomax3DConfig, options: PreTrainingOptions | None, training: bool) -> dict[str, Any]:
    """Return the options of the data collator that the configuration determines; evaluation uses all descriptors."""
    chosen = {"objective": config.objective} | ({} if training else {"descriptor_share": 1.0})
    pairs = len(AUGMENTATIONS) ** 2
    return chosen if config.augmentation_choice == "given" else chosen | {"probabilities": [1 / pairs] * pairs}


def onto_simplex(values: torch.Tensor) -> torch.Tensor:
    """The probabilities nearest to the values: max(v - m, 0), with the m that makes their sum 1 (bisected by the
    original, to 0.01)."""
    descending = values.flatten().sort(descending=True).values
    above = (descending.cumsum(0) - 1) / torch.arange(1, len(descending) + 1)
    return (values - above[int((descending > above).sum()) - 1]).clamp(min=0)


def joao_step(probabilities: torch.Tensor, losses: torch.Tensor, step: float, gamma: float) -> torch.Tensor:
    """
    One step of projected gradient ascent of JOAO (You et al. 2021): towards the pairs of augmentations that are hard to
    contrast, and back to the uniform distribution.

    Args:
        probabilities: `[5, 5]`; losses: `[5, 5]`, of each pair; step: length; gamma: weight of the way back.
    """
    towards = losses - gamma * (probabilities - 1 / probabilities.numel())
    return onto_simplex(probabilities + step * towards)


class AugmentationChoice(TrainerCallback):
    """
    JOAO's choice of augmentations, learned beside the weights: between epochs the loss of each of the 25 pairs is
    measured on `joao_share` of the molecules (25 times that share in passes without gradient), and the distribution
    takes a [`joao_step`]. It is a buffer of the model, so that checkpoints hold it and a run resumes with it.

    As in the original the model stays in training mode. Differently: the running statistics of batch norms are put
    back, as they would hold little but the last pair's; the projection is exact; and each readout network of version 2
    sees all molecules, so that its batch norm has enough of them.

    Args:
        config: the configuration of the model.
        collators: that draw from the distribution, those of training and evaluation.
    """

    def __init__(self, config: Infomax3DConfig, *collators: Infomax3DDataCollator):
        self.config, self.collators = config, collators

    def _tell(self, model: PreTrainedModel) -> None:
        for collator in self.collators:
            collator.probabilities = model.augmentation_probabilities.double().flatten().tolist()

    def on_epoch_begin(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        # not at the end: a checkpoint of the last step would lack it. A run resumed amid an epoch has it already
        if state.epoch and state.epoch == int(state.epoch):
            losses = self.pair_losses(model, train_dataloader.dataset, args, int(state.epoch))
            now = model.augmentation_probabilities
            now.copy_(joao_step(now.double().cpu(), losses, self.config.joao_step, self.config.joao_gamma))
        self._tell(model)

    @torch.no_grad()
    def pair_losses(self, model: PreTrainedModel, dataset: Any, args: TrainingArguments, epoch: int) -> torch.Tensor:
        """The mean loss of each pair, `[5, 5]`; several processes share the batches."""
        size, world, rank = args.train_batch_size, args.world_size, args.process_index
        batches = max(int(self.config.joao_share * len(dataset)) // (size * world), 1)
        order = np.random.default_rng([args.seed, epoch]).permutation(len(dataset))
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
        before = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
        pairs = len(AUGMENTATIONS) ** 2
        losses = torch.zeros(pairs, dtype=torch.float64)
        for pair in range(pairs):
            collator = copy.copy(self.collators[0])
            collator.epoch, collator.probabilities = epoch, np.eye(pairs)[pair].tolist()
            for number in range(batches):
                begin = (number * world + rank) * size
                rows = [dataset[int(place)] for place in order[begin : begin + size]]
                batch = BatchFeature(collator(rows)).to(model.device)
                with torch.autocast(model.device.type, torch.bfloat16, enabled=args.bf16):
                    losses[pair] += model(**batch).loss.double().cpu() / batches
        for norm, buffers in zip(norms, before, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
        if world > 1:
            on_device = losses.to(model.device)
            torch.distributed.all_reduce(on_device)
            losses = on_device.cpu() / world
        return losses.view(len(AUGMENTATIONS), -1)


def learned_choice(config: Infomax3DConfig, *collators: Infomax3DDataCollator) -> list[TrainerCallback]:
    """What must happen between epochs: JOAO's step, where its choice is learned."""
    return [] if config.augmentation_choice == "given" else [AugmentationChoice(config, *collators)]


PRETRAINING = PreTraining(
    options=Infomax3DPreTrainingOptions,
    prepare_processor=with_hydrogens,
    feature_processor=with_conformers,
    label_columns=label_columns,
    collator_options=objective_options,
    callbacks=learned_choice,
)

__all__ = ["PRETRAINING", "AugmentationChoice", "Infomax3DPreTrainingOptions", "joao_step", "objective_options"]
