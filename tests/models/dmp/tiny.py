"""A tiny DMP: the real tokenizer, random weights."""

from functools import cache

from hf_molrep.models.dmp import DMPConfig, DMPProcessor
from hf_molrep.tokenization.dmp import build_dmp

tokenizer = cache(build_dmp)


def tiny_processor(**options) -> DMPProcessor:
    """The processor of the tiny model; `options` go to [`DMPProcessor`]."""
    return DMPProcessor(tokenizer(), **options)


def tiny_config(dropout: float = 0.0, **options) -> DMPConfig:
    """Two layers of width 32, three of width 16, both branches, no dropout."""
    smiles = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "hidden_dropout": dropout,
        "attention_dropout": dropout,
    }
    graph = {"hidden_size": 16, "num_hidden_layers": 3, "dropout": dropout}
    fields = {"branch": "both", "projection_dim": 24, "bottleneck_ratio": 2, "classifier_dropout": dropout}
    return DMPConfig(**{"smiles_config": smiles, "graph_config": graph, **fields, **options})
