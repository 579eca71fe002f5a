"""SMILES to conformers: those of RDKit, clustered, each moved by the model."""

import os
from collections.abc import Sequence

import numpy as np
import torch

from ...chem.conformer_clustering import clustered_conformers, mol_with_conformers
from ...chem.conformers import Conformers
from ...chem.smiles import MoleculeError, OnError
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
    The coordinates that the model makes of each conformer: float32 `[conformers, atoms, 3]` of each molecule, angstrom.

    Args:
        model: used in evaluation mode and left in the mode it was in.
        starts: with the hydrogens that `processor` keeps.
        batch_size: conformers.
    Raises:
        MoleculeError: the feature extractor refuses a molecule.
        ValueError: it leaves atoms out that `starts` has.
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
    RDKit molecules, atoms in the order of their SMILES, each with at most `num_conformers` conformers: RDKit's, chosen
    by [`~hf_molrep.chem.conformer_clustering.clustered_conformers`], each moved by the model. No force field follows.

    Args:
        processor: the feature extractor of the checkpoint; with `hydrogens="none"` the molecules have none.
        pool, seed, cache, processes, time_limit: of RDKit's conformers.
        batch_size: conformers.
        on_error: `"raise"`, or `"skip"`: a `MoleculeError` stands in the molecule's place.
    Raises:
        ValueError: `processor.hydrogens` is `"polar"`: what bonds are is not known where the model is asked.
    """
    if processor.hydrogens == "polar":
        raise ValueError("conformers are generated with all hydrogens or without")
    options = {"cache": cache, "processes": processes, "time_limit": time_limit, "on_error": on_error}
    starts = clustered_conformers(smiles, num_conformers, pool, seed=seed, hydrogens=processor.hydrogens, **options)
    usable = [start for start in starts if not isinstance(start, MoleculeError)]
    moved = iter(move_conformers(model, processor, usable, batch_size))
    results: list = []
    for text, start in zip(smiles, starts, strict=True):
        if not isinstance(start, MoleculeError):
            pos = next(moved)
            try:
                start = mol_with_conformers(text, start, pos)
            except MoleculeError as error:
                if on_error == "raise":
                    raise
                start = error
        results.append(start)
    return results


__all__ = ["generate_conformers", "move_conformers"]
