"""
Outputs of all models.

Every output has `hidden_states` and `attentions`, filled on request: by the arguments `output_hidden_states` and
`output_attentions` of a call, else by the same fields of the configuration. They are the tensors of the
computation itself, so a loss on them has gradients (attention weights under reentrant checkpointing may have none).
With several views or molecules per row, they are those of the first one given. Models without attention weights, and
implementations that do not return them (`sdpa`), refuse `output_attentions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput


def recorded_outputs(config: PreTrainedConfig, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the extra outputs that a call requests.

    Args:
        config: of the model, for flags that are not among the arguments.
        arguments: of the call.
    Returns:
        `output_hidden_states` and `output_attentions`, those that are true.
    """
    flags = ("output_hidden_states", "output_attentions")
    values = {flag: arguments.get(flag, getattr(config, flag, False)) for flag in flags}
    return {flag: value for flag, value in values.items() if value}


def require_attention_weights(config: PreTrainedConfig) -> None:
    """
    Check that the attention implementation returns attention weights.

    Raises:
        ValueError: that of `config` does not.
    """
    if config._attn_implementation not in ("eager", None):
        raise ValueError(
            f"attn_implementation={config._attn_implementation!r} returns no attention weights (output_attentions): "
            "load the model with attn_implementation='eager', or call model.set_attn_implementation('eager')"
        )


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
        hidden_states (`tuple[torch.FloatTensor]`, each of shape `(molecules, length, hidden)` or `(atoms, hidden)`):
            On request: input of the first layer, then the output of each layer.
        attentions (`tuple[torch.FloatTensor]`, each of shape `(molecules, heads, length, length)`):
            On request: attention weights of each layer, after dropout. The shape depends on the method.
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
        monitors (`dict[str, torch.FloatTensor]`, each of shape `()`):
            Values to be logged and not minimised, such as the spread of the embeddings.
        embeddings (`dict[str, torch.FloatTensor]`, each of shape `(molecules, hidden)`):
            The embedding of each view, by the view's name.
        hidden_states, attentions (`tuple[torch.FloatTensor]`): on request, as in [`MoleculeModelOutput`].
    """

    loss: torch.FloatTensor | None = None
    losses: dict[str, torch.FloatTensor] | None = None
    monitors: dict[str, torch.FloatTensor] | None = None
    embeddings: dict[str, torch.FloatTensor] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


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
        hidden_states, attentions (`tuple[torch.FloatTensor]`): on request, as in [`MoleculeModelOutput`].
    """

    loss: torch.FloatTensor | None = None
    losses: dict[str, torch.FloatTensor] | None = None
    logits: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
