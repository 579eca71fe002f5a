"""A tiny X-MOL: the real tokenizer, random weights."""

from functools import cache
from pathlib import Path

from hf_molrep.models.x_mol import XMolConfig, XMolForPreTraining, XMolProcessor
from hf_molrep.tokenization.x_mol import build_x_mol

tokenizer = cache(build_x_mol)


def tiny_processor(**options) -> XMolProcessor:
    """The processor of the tiny model; `options` go to [`XMolProcessor`]."""
    return XMolProcessor(tokenizer(), **options)


def tiny_config(dropout: float = 0.0, **options) -> XMolConfig:
    """Two layers, hidden 32, no dropout."""
    fields = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "hidden_dropout": dropout,
        "attention_dropout": dropout,
        "classifier_dropout": dropout,
    }
    return XMolConfig(**fields | options)


def save_tiny_checkpoint(folder: str | Path, seed: int = 0, **options) -> str:
    """Random weights of a pre-training model, configuration and processor in `folder`. The folder."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = XMolForPreTraining(tiny_config(**options))
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)
