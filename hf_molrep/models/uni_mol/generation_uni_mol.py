"""Generate conformers: those of RDKit, clustered, then moved by the model."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ...chem.conformer_clustering import clustered_conformers, mol_with_conformers
from ...chem.conformers import Conformers
from ...chem.smiles import MoleculeError, OnError, collect
from .feature_extraction_uni_mol import UniMolFeatureExtractor
from .modeling_uni_mol import UniMolForConformerGeneration


@torch.inference_mode()
def move_conformers(
    model: UniMolForConformerGeneration,
    processor: UniMolFeatureExtractor,
    starts: Sequence[Conformers],
    batch_size: int = 32,
) -> list[np.ndarray]:
    """
    Move conformers by the model.

    Args:
        model: the model; it is used in evaluation mode and then set back to its previous mode.
        processor: the feature extractor of the checkpoint.
        starts: conformers of each molecule, with the hydrogens that `processor` keeps.
        batch_size: number of conformers in a batch.
    Returns:
        Coordinates of each molecule, float32 `[conformers, atoms, 3]`, angstrom.
    Raises:
        MoleculeError: the feature extractor refuses a molecule.
        ValueError: the feature extractor leaves out atoms of `starts`.
    """
    features, place = [], []
    for molecule, start in enumerate(starts):
        for number, pos in enumerate(start.pos):
            feature = processor.featurize_one(start.z, pos)
            if len(feature["z"]) != len(start.z):
                raise ValueError(f"{start.smiles}: the feature extractor leaves atoms out (hydrogens?)")
            features.append(feature)
            place.append((molecule, number))
    results = [np.empty_like(start.pos, dtype=np.float32) for start in starts]
    order = np.argsort([processor.size(feature) for feature in features], kind="stable")
    training = model.training
    model.eval()
    try:
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            batch = processor.pad([features[index] for index in chosen], return_tensors="pt").to(model.device)
            coordinates = model(**batch).coordinates.float().cpu().numpy()
            for index, predicted in zip(chosen, coordinates, strict=True):
                molecule, number = place[index]
                results[molecule][number] = predicted[1 : 1 + len(starts[molecule].z)]
    finally:
        model.train(training)
    return results


def generate_conformers(
    model: UniMolForConformerGeneration,
    processor: UniMolFeatureExtractor,
    smiles: Sequence[str],
    num_conformers: int,
    *,
    pool: int | None = None,
    seed: int = 42,
    batch_size: int = 32,
    cache: str | os.PathLike | None = "default",
    processes: int = 1,
    time_limit: float = 60.0,
    on_error: OnError = "raise",
) -> list:
    """
    Generate at most `num_conformers` conformers of each molecule: RDKit's conformers, chosen by
    [`~hf_molrep.chem.conformer_clustering.clustered_conformers`], then moved by the model, without a force field.

    Args:
        processor: the feature extractor of the checkpoint; with `hydrogens="none"` the molecules have none.
        pool, seed, cache, processes, time_limit: how RDKit's conformers are computed.
        batch_size: number of conformers in a batch.
        on_error: `"raise"`, or `"skip"`: a molecule that fails gives a `MoleculeError`.
    Returns:
        RDKit molecules with conformers, their atoms in the order of the SMILES.
    Raises:
        MoleculeError: a molecule fails (`on_error="raise"`).
        ValueError: `processor.hydrogens` is `"polar"`.
    """
    if processor.hydrogens == "polar":
        raise ValueError("conformers are generated with all hydrogens or without")
    options = {"cache": cache, "processes": processes, "time_limit": time_limit, "on_error": on_error}
    starts = clustered_conformers(smiles, num_conformers, pool, seed=seed, hydrogens=processor.hydrogens, **options)
    usable = [start for start in starts if not isinstance(start, MoleculeError)]
    moved = iter(move_conformers(model, processor, usable, batch_size))

    def results() -> Iterator:
        for text, start in zip(smiles, starts, strict=True):
            if isinstance(start, MoleculeError):
                yield start
                continue
            try:
                yield mol_with_conformers(text, start, next(moved))
            except MoleculeError as error:
                yield error

    return collect(results(), on_error)


__all__ = ["generate_conformers", "move_conformers"]
