"""A tiny GROVER: real vocabularies of a few molecules, random weights."""

from functools import cache
from pathlib import Path

from hf_molrep.models.grover import GroverConfig, GroverFeatureExtractor, GroverForPreTraining, GroverModel

# The second four are isomers of the first four: two processes that share them have equally many atoms, bonds, labels.
MOLECULES = [
    "CCO",
    "COc1ccccc1",
    "C[C@H](N)C(=O)O",
    "C/C=C/C",
    "COC",
    "Cc1ccccc1O",
    "CC(=O)NCO",
    "CC(C)=C",
]


@cache
def _vocabularies() -> tuple[tuple[str, ...], tuple[str, ...]]:
    extractor = GroverFeatureExtractor(canonical=True).learn(MOLECULES)
    return tuple(extractor.atom_vocabulary), tuple(extractor.bond_vocabulary)


def tiny_processor(**options) -> GroverFeatureExtractor:
    """The extractor of the tiny model; `options` go to [`GroverFeatureExtractor`]."""
    atoms, bonds = _vocabularies()
    return GroverFeatureExtractor(
        **{"canonical": True, "atom_vocabulary": list(atoms), "bond_vocabulary": list(bonds), **options}
    )


def tiny_config(**options) -> GroverConfig:
    """Width 16, two heads, depth 5, no dropout; `options` are fields of the configuration."""
    return GroverConfig(
        **{
            "embedding_dim": 16,
            "num_attention_heads": 2,
            "depth": 5,
            "dropout": 0.0,
            "ffn_dim": 12,
            **tiny_processor().config_fields(),
            **options,
        }
    )


def save_tiny_checkpoint(folder: str | Path, pre_training: bool = False, seed: int = 0, **options) -> str:
    """Random weights, configuration and extractor in `folder`; the folder."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (GroverForPreTraining if pre_training else GroverModel)(tiny_config(**options))
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)
