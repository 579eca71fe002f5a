"""GraphMVP batches: graph and conformer of the same atoms for pre-training, molecules with labels for fine-tuning."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ...data.augmentation import grown_subgraph, hops_from, mask_atoms, part_of
from ...processing.collation import DescriptorCollator


@dataclass
class GraphMVPDataCollator(DescriptorCollator):
    """
    Rows to a batch. A row holds the features of one molecule, as [`GraphMVPFeatureExtractor.featurize`] gives them, or
    the columns that the processor reads. With `labels` the graphs are joined as they are; without, graph and conformer
    (`z`, `pos`) of each molecule are two views of the same atoms: of N atoms a random connected part of
    `floor((1 - masked_share) N) + 1` is left in both, the others are dropped (the original's
    `Molecule3DMaskingDataset.subgraph`).

    `objective` adds, made from the graphs that are left:
        `"graphmvp_g"`: `masked_x`, floor(0.15 n + 1) of the n atoms of each with `mask_atom_type`; `masked_atoms` are
            their places, `masked_atom_types` what stood there (pretrain-gnns' `MaskAtom`).
        `"graphmvp_c"`: a random atom of each, its place in `centers`, in the part of its molecule that is within
            `num_layers` bonds (`substructure_x`, ...); and what is more than `context_inner_hops`, and at most
            `context_size` bonds more, away (`context_x`, ...). `anchors` are the context's atoms that are in both
            parts, `anchor_batch` the molecule of each. A molecule that is too small has no context (pretrain-gnns'
            `ExtractSubstructureContextPair`).

    `"descriptors"`: instead of two views the unchanged graphs, and a random share of the scaled descriptors of each,
    see [`~hf_molrep.processing.collation.DescriptorCollator.descriptor_targets`].

    Args:
        processor, seed, epoch, descriptor_share: see [`~hf_molrep.processing.collation.DescriptorCollator`].
        objective, mask_atom_type, num_layers, context_inner_hops, context_size: the configuration's.
        masked_share: of the atoms, dropped in both views; 0: all stay.
        attribute_share: of the atoms, in attribute masking.
        conformers: of molecules that have several: `"all"`, each of which is a sample of its own, as in the original:
            the first `pretraining_conformers` of the processor, repeated in their order where a molecule has fewer
            (flag `fewer_conformers` of its feature); `"first"`; or `"random"`, another one in each epoch, the default
            since a step then costs one pass of SchNet whatever their number.
    """

    objective: Literal["graphmvp", "graphmvp_g", "graphmvp_c", "descriptors"] = "graphmvp"
    masked_share: float = 0.15
    attribute_share: float = 0.15
    conformers: Literal["random", "first", "all"] = "random"
    mask_atom_type: int = 119
    num_layers: int = 5
    context_inner_hops: int = 4
    context_size: int = 3

    def __post_init__(self):
        super().__post_init__()
        if self.objective not in ("graphmvp", "graphmvp_g", "graphmvp_c", "descriptors"):
            raise ValueError(f"unknown objective {self.objective!r}")
        if self.conformers not in ("random", "first", "all"):
            raise ValueError(f"conformers is 'random', 'first' or 'all', not {self.conformers!r}")
        if not (0 <= self.masked_share < 1 and 0 <= self.attribute_share < 1):
            raise ValueError("masked_share and attribute_share are shares of the atoms: 0 or more and below 1")

    def views(self, feature: dict, rng: np.random.Generator) -> dict:
        """
        A molecule without the atoms that are dropped, with one conformer or all of them.

        Raises:
            ValueError: it has no conformer.
        """
        if "pos" not in feature:
            raise ValueError(
                "a molecule without conformer cannot be pre-trained on: the processor needs num_conformers of 1 or "
                "more, or the columns z and pos"
            )
        atoms = int(feature["num_nodes"])
        pos = np.asarray(feature["pos"], dtype=np.float32).reshape(-1, atoms, 3)
        if self.conformers == "all":
            pos = np.resize(pos, (self.processor.pretraining_conformers, atoms, 3))
        else:
            pos = pos[[rng.integers(len(pos)) if self.conformers == "random" else 0]]
        if self.masked_share:
            kept = grown_subgraph(feature, rng, math.floor((1 - self.masked_share) * atoms) + 1)
            feature, pos = part_of(feature, kept), pos[:, kept]
        return {**feature, "pos": pos.ravel()}

    def masked(self, features: Sequence[dict], generators: Sequence[np.random.Generator]) -> dict[str, torch.Tensor]:
        """What attribute masking adds to the batch."""
        changed, places, types, atom = [], [], [], 0
        for feature, rng in zip(features, generators, strict=True):
            number = int(feature["num_nodes"])
            count = math.floor(number * self.attribute_share + 1)
            new, chosen = mask_atoms(feature, rng, min(count, number), (self.mask_atom_type, 0))
            changed.append(new)
            places.append(chosen + atom)
            types.append(np.asarray(feature["x"]).reshape(number, -1)[chosen, 0])
            atom += number
        masked = self.processor.pad(changed, return_tensors="pt")
        return {
            "masked_x": masked["x"],
            "masked_atoms": _joined(places),
            "masked_atom_types": _joined(types),
        }

    def split(self, features: Sequence[dict], generators: Sequence[np.random.Generator]) -> dict[str, torch.Tensor]:
        """What context prediction adds to the batch."""
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
        added = {"centers": _joined(centers), "anchors": _joined(anchors), "anchor_batch": _joined(owners)}
        for name, parts in (("substructure", near), ("context", far)):
            joined = self.processor.pad(parts, return_tensors="pt")
            added |= {f"{name}_{key}": joined[key] for key in ("x", "edge_index", "edge_attr")}
        return added

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        features = self.features(rows)
        if "labels" in rows[0]:
            return dict(self.processor.pad(features, return_tensors="pt")) | self.labels(rows)
        if self.objective == "descriptors":
            return dict(self.processor.pad(features, return_tensors="pt")) | self.descriptor_targets(rows)
        generators = [self.generator(row) for row in rows]
        features = [self.views(feature, rng) for feature, rng in zip(features, generators, strict=True)]
        batch = dict(self.processor.pad(features, return_tensors="pt"))
        graphs = [{key: value for key, value in feature.items() if key != "pos"} for feature in features]
        if self.objective == "graphmvp_g":
            batch |= self.masked(graphs, generators)
        elif self.objective == "graphmvp_c":
            batch |= self.split(graphs, generators)
        return batch


def _joined(parts: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


__all__ = ["GraphMVPDataCollator"]
