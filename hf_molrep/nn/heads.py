"""Prediction heads."""

import torch
from torch import nn

from ..losses import property_loss
from ..modeling_outputs import MoleculePropertyOutput


class PropertyHead(nn.Module):
    """
    Predict task values from molecule embeddings: dropout, linear, tanh, dropout, linear (the head of RoBERTa), from
    `[molecules, hidden]` to `[molecules, tasks]`, with a NaN-aware loss and predictions in the units of the labels.

    `config` has `num_labels`, `problem_type`, `classifier_dropout`, and for regression `label_mean`, `label_std`: the
    logits are `(value - mean) / std`.
    """

    def __init__(self, config, hidden_size: int):
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, config.num_labels)

    def _label_scale(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tasks = self.config.num_labels
        mean = logits.new_tensor(self.config.label_mean or [0.0] * tasks, dtype=torch.float32)
        std = logits.new_tensor(self.config.label_std or [1.0] * tasks, dtype=torch.float32)
        return mean, std

    def logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """`[molecules, hidden] -> [molecules, tasks]`; a method with another head overrides this."""
        return self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(embedding)))))

    def forward(self, embedding: torch.Tensor, labels: torch.Tensor | None = None) -> MoleculePropertyOutput:
        logits = self.logits(embedding).float()
        if self.config.problem_type == "regression":
            mean, std = self._label_scale(logits)
            predictions = logits * std + mean
            targets = None if labels is None else (labels - mean) / std
        else:
            predictions = torch.sigmoid(logits)
            targets = labels
        loss = None if targets is None else property_loss(logits, targets, self.config.problem_type)
        return MoleculePropertyOutput(
            loss=loss,
            losses=None if loss is None else {"property": loss.detach()},
            logits=logits,
            predictions=predictions,
        )
