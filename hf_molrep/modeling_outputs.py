"""What every model of the package returns."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class MoleculeModelOutput(ModelOutput):
    """
    Output of every `<Method>Model`.

    Args:
        pooler_output (`torch.FloatTensor` of shape `(molecules, hidden)`):
            *The* embedding of each molecule.
        last_hidden_state (`torch.FloatTensor` of shape `(molecules, length, hidden)` or `(atoms, hidden)`):
            States of the tokens or atoms of the first view given.
        embeddings (`dict[str, torch.FloatTensor]`, each of shape `(molecules, hidden)`):
            Where a method has several views, the embedding of each view given, by the view's name.
        hidden_states, attentions (`tuple[torch.FloatTensor]`):
            One entry per layer of the first view given, on request.
    """

    pooler_output: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    embeddings: dict[str, torch.FloatTensor] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class MoleculePreTrainingOutput(ModelOutput):
    """
    Output of every `<Method>ForPreTraining`.

    Args:
        loss (`torch.FloatTensor` of shape `()`):
            What is minimised: the weighted sum of `losses`.
        losses (`dict[str, torch.FloatTensor]`, each of shape `()`):
            Every named term, before weighting.
        embeddings (`dict[str, torch.FloatTensor]`, each of shape `(molecules, hidden)`):
            The embedding of each view, by the view's name.
    """

    loss: torch.FloatTensor | None = None
    losses: dict[str, torch.FloatTensor] | None = None
    embeddings: dict[str, torch.FloatTensor] | None = None


@dataclass
class MoleculePropertyOutput(ModelOutput):
    """
    Output of every `<Method>ForPropertyPrediction`.

    Args:
        loss (`torch.FloatTensor` of shape `()`): mean over the labels that are present.
        losses (`dict[str, torch.FloatTensor]`): the same by name.
        logits (`torch.FloatTensor` of shape `(molecules, tasks)`): of classes, or values scaled by `label_mean`,
            `label_std`.
        predictions (`torch.FloatTensor` of shape `(molecules, tasks)`): probabilities, or values in `label_units`.
    """

    loss: torch.FloatTensor | None = None
    losses: dict[str, torch.FloatTensor] | None = None
    logits: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
