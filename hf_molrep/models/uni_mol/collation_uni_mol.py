"""Uni-Mol data collators: masked and moved atoms, molecules with labels, or pairs of conformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ...processing.collation import MoleculeCollator
from .feature_extraction_uni_mol import ELEMENTS, MASK, UNKNOWN


@dataclass
class UniMolDataCollator(MoleculeCollator):
    """
    Makes a batch of rows. A row holds the features of one molecule from [`UniMolFeatureExtractor.featurize`], or the
    columns that the processor reads. Rows with `labels` are padded unchanged. In rows without, for pre-training, atoms
    are chosen, masked and moved (`mask_points_dataset.py` of the original); `target_ids` and `target_pos` hold the
    truth.

    Of n atoms `int(mask_probability * n + u)` are chosen, u uniform in 0 ... 1; for few atoms this may be none, as in
    the original. A share `leave_probability` of them is not changed, a share `random_probability` gets the token of a
    random element, the others `[MASK]`; all changed atoms are moved.

    Args:
        processor, seed, epoch: see [`~hf_molrep.processing.collation.MoleculeCollator`].
        mask_probability, leave_probability, random_probability: see above.
        noise, noise_type: `"uniform"` in -noise ... noise angstrom along each axis, `"normal"` with that standard
            deviation, `"truncated_normal"` (cut at twice of it), or `"none"`.
        conformers: choice among several conformers: `"random"`: one per epoch (the paper, in training), `"all"` (the
            paper, in evaluation) or `"first"`. None: `"random"` in pre-training, `"all"` for rows with labels.
    """

    mask_probability: float = 0.15
    leave_probability: float = 0.05
    random_probability: float = 0.05
    noise: float = 1.0
    noise_type: Literal["uniform", "normal", "truncated_normal", "none"] = "uniform"
    conformers: Literal["random", "all", "first"] | None = None

    def __post_init__(self):
        if self.noise_type not in ("uniform", "normal", "truncated_normal", "none"):
            raise ValueError(
                f"noise_type is 'uniform', 'normal', 'truncated_normal' or 'none', not {self.noise_type!r}"
            )
        if self.conformers not in (None, "random", "all", "first"):
            raise ValueError(f"conformers is 'random', 'all' or 'first', not {self.conformers!r}")

    def _noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        if self.noise_type == "uniform":
            return rng.uniform(-self.noise, self.noise, shape)
        if self.noise_type == "none":
            return np.zeros(shape)
        drawn = rng.normal(0.0, self.noise, shape)
        return drawn if self.noise_type == "normal" else drawn.clip(-2 * self.noise, 2 * self.noise)

    def corrupted(self, feature: dict, rng: np.random.Generator) -> tuple[dict, np.ndarray]:
        """Mask and move atoms of a molecule. Returns it and its `target_ids` `[atoms + 2]` (-100: not chosen)."""
        ids = np.array(feature["input_ids"])
        atoms = len(ids) - 2
        chosen = 1 + rng.choice(atoms, int(self.mask_probability * atoms + rng.random()), replace=False)
        targets = np.full(len(ids), -100)
        targets[chosen] = ids[chosen]
        what = rng.random(len(chosen))
        changed = chosen[what >= self.leave_probability]
        random = chosen[(what >= self.leave_probability) & (what < self.leave_probability + self.random_probability)]
        ids[changed] = MASK
        ids[random] = UNKNOWN + 1 + rng.integers(len(ELEMENTS), size=len(random))
        pos = np.array(feature["pos"], dtype=np.float32).reshape(-1, 3)
        pos[changed - 1] += self._noise(rng, (len(changed), 3)).astype(np.float32)
        return {"input_ids": ids, "pos": pos.ravel()}, targets

    def _chosen_conformer(self, feature: dict, rng: np.random.Generator | None) -> dict:
        pos = np.asarray(feature["pos"], dtype=np.float32).reshape(-1, 3 * (len(feature["input_ids"]) - 2))
        return {"input_ids": feature["input_ids"], "pos": pos[0 if rng is None else rng.integers(len(pos))]}

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        features = self.features(rows)
        labelled = "labels" in rows[0]
        conformers = self.conformers or ("all" if labelled else "random")
        generators = None if labelled and conformers != "random" else [self.generator(row) for row in rows]
        if conformers != "all":
            drawing = generators if conformers == "random" else [None] * len(rows)
            features = [self._chosen_conformer(each, rng) for each, rng in zip(features, drawing, strict=True)]
        if labelled:
            return dict(self.processor.pad(features, return_tensors="pt")) | self.labels(rows)
        if conformers == "all":
            raise ValueError("pre-training takes one conformer at a time: conformers is 'random' or 'first'")
        corrupted = [self.corrupted(feature, rng) for feature, rng in zip(features, generators, strict=True)]
        batch = dict(self.processor.pad([feature for feature, _ in corrupted], return_tensors="pt"))
        clean = self.processor.pad(features, return_tensors="pt")
        batch["target_pos"] = clean["pos"]
        targets = torch.full(clean["input_ids"].shape, -100)
        for row, (_, target) in enumerate(corrupted):
            targets[row, : len(target)] = torch.from_numpy(target)
        batch["target_ids"] = targets
        return batch


@dataclass
class UniMolConformerCollator(MoleculeCollator):
    """
    Makes a batch for [`UniMolForConformerGeneration`]. A row holds the features of one molecule from
    [`UniMolFeatureExtractor.featurize`], with its `n` starting conformers as `pos`; `target_pos` `[m * atoms * 3]`, its
    `m` reference conformers; `rmsd` `[m * n]` between them, angstrom; and `row_id`. See
    [`hf_molrep.data.conformer_pairs`].

    For each molecule a reference is drawn uniformly, then one of the `nearest` starting conformers with weights
    `1 / (rmsd ** power + smooth)` (`ConformerSampleConfGV2Dataset` of the original, with the options of its README).

    Args:
        processor, seed, epoch: see [`~hf_molrep.processing.collation.MoleculeCollator`].
        nearest, power, smooth: see above.
    """

    nearest: int = 20
    power: float = 4.0
    smooth: float = 0.1

    def __post_init__(self):
        if self.nearest < 1 or self.smooth <= 0:
            raise ValueError("nearest is 1 or more and smooth more than 0")

    def drawn(self, row: dict, rng: np.random.Generator) -> tuple[dict, dict]:
        """Draw a starting and a reference conformer of a molecule, both centred, as features to pad."""
        width = 3 * (len(row["input_ids"]) - 2)
        starts = np.asarray(row["pos"], dtype=np.float32).reshape(-1, width)
        targets = np.asarray(row["target_pos"], dtype=np.float32).reshape(-1, width)
        rmsd = np.asarray(row["rmsd"], dtype=np.float64)
        if rmsd.size != len(starts) * len(targets):
            raise ValueError(f"{rmsd.size} values of rmsd for {len(starts)} starting and {len(targets)} references")
        target = rng.integers(len(targets))
        distance = rmsd.reshape(len(targets), len(starts))[target]
        near = np.argsort(distance, kind="stable")[: self.nearest]
        weights = 1.0 / (distance[near] ** self.power + self.smooth)
        start = rng.choice(near, p=weights / weights.sum())
        reference = targets[target].reshape(-1, 3)
        reference = reference - reference.mean(axis=0)
        ids = row["input_ids"]
        return {"input_ids": ids, "pos": starts[start]}, {"input_ids": ids, "pos": reference.ravel()}

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        if missing := [name for name in ("input_ids", "pos", "target_pos", "rmsd") if name not in rows[0]]:
            raise ValueError(f"rows lack {', '.join(missing)}: hf_molrep.data.conformer_pairs prepares them")
        generators = [self.generator(row) for row in rows]
        pairs = [self.drawn(row, rng) for row, rng in zip(rows, generators, strict=True)]
        batch = dict(self.processor.pad([start for start, _ in pairs], return_tensors="pt"))
        batch["target_pos"] = self.processor.pad([target for _, target in pairs], return_tensors="pt")["pos"]
        return batch


__all__ = ["UniMolConformerCollator", "UniMolDataCollator"]
