"""Improve molecules: relatives that are similar and have a better property."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ..chem.fingerprints import morgan_fingerprints, tanimoto
from ..chem.properties import PROPERTIES, properties
from .generation import GenerationOptions, generate_molecules, generation_step


@dataclass(frozen=True)
class Goal:
    """
    What makes a relative an improvement.

    Attributes:
        property: a key of [`hf_molrep.chem.properties.PROPERTIES`].
        minimize: smaller is better.
        min_similarity: smallest Tanimoto similarity to the molecule (Morgan, radius 2, 2,048 bits).
    Raises:
        ValueError: an unknown property, or a similarity that is not between 0 and 1.
    """

    property: str = "qed"
    minimize: bool = False
    min_similarity: float = 0.4

    def __post_init__(self):
        if self.property not in PROPERTIES:
            raise ValueError(f"the property is {' or '.join(PROPERTIES)}, not {self.property!r}")
        if not 0 <= self.min_similarity <= 1:
            raise ValueError(f"min_similarity is between 0 and 1, not {self.min_similarity!r}")


class Improvement(NamedTuple):
    """A better molecule: canonical SMILES, property, similarity to the molecule that was given."""

    smiles: str
    value: float
    similarity: float


def improvements(source: str, relatives: Sequence[str], goal: Goal) -> tuple[float, list[Improvement]]:
    """
    Choose the relatives that are improvements, the best first.

    Args:
        source: SMILES of the molecule.
        relatives: SMILES of valid molecules.
    Returns:
        The property of the source, and the improvements.
    """
    own, *values = properties([source, *relatives], goal.property).tolist()
    prints = morgan_fingerprints([source, *relatives])
    alike = tanimoto(prints[:1], prints[1:])[0].tolist()
    sign = -1 if goal.minimize else 1
    found = [
        Improvement(smiles, value, similarity)
        for smiles, value, similarity in zip(relatives, values, alike, strict=True)
        if sign * (value - own) > 0 and similarity >= goal.min_similarity
    ]
    return own, sorted(found, key=lambda each: -sign * each.value)


def optimize_molecules(
    model: Any, processor: Any, sources: Sequence[str], goal: Goal, options: GenerationOptions
) -> list[tuple[float, list[Improvement]]]:
    """
    Improve molecules with a model that was fine-tuned on pairs of a molecule and a better one.

    Args:
        model, processor, options: see [`~hf_molrep.inference.generation.generate_molecules`].
        sources: SMILES.
    Returns:
        For each molecule its property, and its improvements, the best first.
    Raises:
        MoleculeError: a source cannot be used.
    """
    results, _ = generate_molecules(model, processor, list(sources), options)
    return [
        improvements(source, [each.smiles for each in found if each.valid], goal)
        for source, found in zip(sources, results, strict=True)
    ]


def optimization_step(
    processor: Any, goal: Goal, options: GenerationOptions
) -> Callable[[torch.nn.Module, dict], list[dict]]:
    """
    Make the step of [`~hf_molrep.inference.engine.infer`] that improves molecules: for each a dict with its `value`,
    the `improved` SMILES, their `values` and `similarities`.
    """
    write = generation_step(processor, options)

    def step(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> list[dict]:
        results = []
        for written in write(model, batch):
            own, found = improvements(written["given"], written["molecules"], goal)
            results.append(
                {
                    "value": own,
                    "improved": [each.smiles for each in found],
                    "values": [each.value for each in found],
                    "similarities": [each.similarity for each in found],
                }
            )
        return results

    return step


__all__ = ["Goal", "Improvement", "improvements", "optimization_step", "optimize_molecules"]
