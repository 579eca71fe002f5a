"""MolCLR data collator: augmented, masked or split molecules for pre-training, or molecules with labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ...data.augmentation import delete_bonds, hops_from, mask_atoms, mask_bonds_of, part_of, remove_subgraph
from ...processing.collation import DescriptorCollator


@dataclass
class MolCLRDataCollator(DescriptorCollator):
    """
    Makes a batch of rows. A row holds the features of one molecule from [`MolCLRFeatureExtractor.featurize`], or a raw
    `smiles`. Rows with `labels` are joined unchanged; rows without are prepared for `objective`.

    `"contrastive"`: two augmented views of each molecule, the second one under keys that begin with `second_`.
    Augmentations of N atoms and M bonds (the original's `dataset.py`, `dataset_subgraph.py`, `dataset_mix.py`):
        node: max(1, floor(N / 4)) atoms masked and floor(M / 4) bonds deleted;
        subgraph: floor(N / 4) atoms around a center masked, their bonds deleted, another center in the second view;
        mix: a subgraph of up to a fifth of the atoms, then atoms masked and bonds deleted up to a quarter of each.
    Differences from the original: if the fragment of the center is too small, the subgraph is that fragment (the
    original never ends, or raises for a lone ion); bonds are deleted independently of their direction (`subgraph` of
    the original misses some); molecules of one atom are accepted.

    `"attribute_masking"` (pretrain-gnns' `MaskAtom`): floor(0.15 N + 1) atoms are masked, and their bonds if
    `mask_bond_type` is set. `masked_atoms` and `masked_bonds` (edges 2k) are their indices in the batch,
    `masked_atom_types` and `masked_bond_types` their true types.

    `"context_prediction"` (`ExtractSubstructureContextPair`): for a random atom, its index in `centers`, the part of
    its molecule within `num_layers` bonds, and under keys that begin with `context_` the part that is more than
    `context_inner_hops` and at most `context_size` bonds further away. `anchors` are the atoms of the context that are
    in both parts, `anchor_batch` the molecule of each. A molecule that is too small has no context.

    `"descriptors"`: the unchanged molecules, and a random share of the scaled descriptors of each, see
    [`~hf_molrep.processing.collation.DescriptorCollator.descriptor_targets`].

    Args:
        processor, seed, epoch, descriptor_share: see [`~hf_molrep.processing.collation.DescriptorCollator`].
        objective, mask_atom_type, mask_bond_type, num_layers, context_inner_hops, context_size: as in the
            configuration.
        augmentation: `"node"` (the original's default), `"subgraph"` or `"mix"`.
        masked_share: share of the atoms that attribute masking masks.
    """

    objective: Literal["contrastive", "attribute_masking", "context_prediction", "descriptors"] = "contrastive"
    augmentation: Literal["node", "subgraph", "mix"] = "node"
    mask_atom_type: int = 118
    mask_bond_type: int | None = None
    masked_share: float = 0.15
    num_layers: int = 5
    context_inner_hops: int = 4
    context_size: int = 3

    def __post_init__(self):
        super().__post_init__()
        if self.objective not in ("contrastive", "attribute_masking", "context_prediction", "descriptors"):
            raise ValueError(f"unknown objective {self.objective!r}")
        if self.augmentation not in ("node", "subgraph", "mix"):
            raise ValueError(f"augmentation is 'node', 'subgraph' or 'mix', not {self.augmentation!r}")

    def views(self, feature: dict, rng: np.random.Generator) -> tuple[dict, dict]:
        """Make two augmented copies of a molecule."""
        mask = (self.mask_atom_type, 0)
        atoms, bonds = int(feature["num_nodes"]), len(feature["edge_index"]) // 4
        centers = rng.permutation(atoms)[:2]
        made = []
        for view in range(2):
            changed = feature
            if self.augmentation == "node":
                changed, _ = mask_atoms(changed, rng, max(1, atoms // 4), mask)
                changed = delete_bonds(changed, rng, bonds // 4)
            else:
                share = 0.25 if self.augmentation == "subgraph" else rng.uniform(0, 0.2)
                center = int(centers[view % len(centers)])
                changed, removed = remove_subgraph(changed, rng, math.floor(share * atoms), mask, center)
                if self.augmentation == "mix":
                    rest = np.setdiff1d(np.arange(atoms), removed)
                    changed, _ = mask_atoms(changed, rng, max(0, atoms // 4 - len(removed)), mask, among=rest)
                    left = len(changed["edge_index"]) // 4
                    changed = delete_bonds(changed, rng, max(0, left - math.ceil(0.75 * bonds)))
            made.append(changed)
        return made[0], made[1]

    def masked(self, features: list[dict], generators: list[np.random.Generator]) -> dict[str, torch.Tensor]:
        """Make a batch of attribute masking."""
        changed, parts, atom, edge = [], [], 0, 0
        for feature, rng in zip(features, generators, strict=True):
            number = int(feature["num_nodes"])
            count = math.floor(number * self.masked_share + 1)
            new, places = mask_atoms(feature, rng, min(count, number), (self.mask_atom_type, 0))
            part = {"atoms": places + atom, "atom_types": _column(feature["x"])[places]}
            if self.mask_bond_type is not None:
                new, bonds = mask_bonds_of(new, places, (self.mask_bond_type, 0))
                part |= {"bonds": bonds + edge, "bond_types": _column(feature["edge_attr"])[bonds]}
            changed.append(new)
            parts.append(part)
            atom, edge = atom + number, edge + len(feature["edge_index"]) // 2
        batch = dict(self.processor.pad(changed, return_tensors="pt"))
        names = {"atoms": "masked_atoms", "atom_types": "masked_atom_types"}
        if self.mask_bond_type is not None:
            names |= {"bonds": "masked_bonds", "bond_types": "masked_bond_types"}
        return batch | {name: _joined([part[key] for part in parts]) for key, name in names.items()}

    def split(self, features: list[dict], generators: list[np.random.Generator]) -> dict[str, torch.Tensor]:
        """Make a batch of context prediction."""
        inner, outer = self.context_inner_hops, self.context_inner_hops + self.context_size
        near, far, centers, anchors, owners, atom, context_atom = [], [], [], [], [], 0, 0
        for place, (feature, rng) in enumerate(zip(features, generators, strict=True)):
            center = int(rng.integers(int(feature["num_nodes"])))
            hops = hops_from(feature, center)
            substructure = (hops >= 0) & (hops <= self.num_layers)
            context = (hops > inner) & (hops <= outer)
            near.append(part_of(feature, substructure))
            far.append(part_of(feature, context))
            centers.append([atom + int(substructure[:center].sum())])
            both = np.flatnonzero(substructure[context])
            anchors.append(both + context_atom)
            owners.append(np.full(len(both), place))
            atom, context_atom = atom + int(substructure.sum()), context_atom + int(context.sum())
        batch = dict(self.processor.pad(near, return_tensors="pt"))
        contexts = self.processor.pad(far, return_tensors="pt")
        batch |= {f"context_{key}": contexts[key] for key in ("x", "edge_index", "edge_attr")}
        return batch | {
            "centers": _joined(centers),
            "anchors": _joined(anchors),
            "anchor_batch": _joined(owners),
        }

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        features = self.features(rows)
        if "labels" in rows[0]:
            return dict(self.processor.pad(features, return_tensors="pt")) | self.labels(rows)
        if self.objective == "descriptors":
            return dict(self.processor.pad(features, return_tensors="pt")) | self.descriptor_targets(rows)
        generators = [self.generator(row) for row in rows]
        if self.objective == "attribute_masking":
            return self.masked(features, generators)
        if self.objective == "context_prediction":
            return self.split(features, generators)
        pairs = [self.views(feature, rng) for feature, rng in zip(features, generators, strict=True)]
        first, second = (self.processor.pad(views, return_tensors="pt") for views in zip(*pairs, strict=True))
        return {**first, **{f"second_{key}": value for key, value in second.items()}}


def _column(flat: Sequence[int]) -> np.ndarray:
    """Return the first of two feature columns."""
    return np.asarray(flat)[::2]


def _joined(parts: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


__all__ = ["MolCLRDataCollator"]
