"""3D Infomax batches: graphs with conformers or labels, or two changed graphs of each molecule."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from ...chem.graph import SCHEMES
from ...data.augmentation import part_of
from ...nn.atom_pairs import count_atoms, pairs_within_molecules
from ...processing.collation import DescriptorCollator
from .configuration_infomax_3d import AUGMENTATIONS

Augmentation = Literal["node_dropping", "bond_perturbation", "attribute_masking", "subgraph"]
TOLERANCE = 1e-3  # of the sum of probabilities, which a checkpoint may hold in bfloat16


@dataclass
class Infomax3DDataCollator(DescriptorCollator):
    """
    Rows to a batch. A row holds the features of one molecule, as [`Infomax3DFeatureExtractor.featurize`] gives them, or
    the columns that it reads; with conformers where the features have such, with `labels` where the rows have such; for
    `objective="property_prediction"` these are called `targets`, since `Trainer` asks models that take `labels` for no
    loss where a batch has none.

    With `objective="graph_contrast"` and no labels: two changed graphs of each molecule, the second one under keys
    that begin with `second_`, without conformers. Both are changed by `augmentation`, in a share of `changed_share` of
    N atoms or M bonds (GraphCL, You et al. 2020; 3D Infomax compares with the first):
        node_dropping: floor(share N) atoms and their bonds are taken away;
        bond_perturbation: floor(share M) bonds are taken away and as many put between random atoms, with random
            features;
        attribute_masking: floor(share N) atoms get the mean of the features of all atoms, rounded down (as in the
            original, though a mean of categories has no meaning);
        subgraph: floor((1 - share) N) + 1 atoms, at most N, are kept, grown from a random one along bonds; where the
            fragment ends, from another one;
        random: one of these, drawn for each view.
    Other than the original: bonds are changed in both directions at once, and the atoms that a new bond joins are two.

    With `objective="descriptors"`: the graphs, and a random share of the scaled descriptors of each, see
    [`~hf_molrep.processing.collation.DescriptorCollator.descriptor_targets`].

    Args:
        processor, seed, epoch, descriptor_share: see [`~hf_molrep.processing.collation.DescriptorCollator`].
        objective: the configuration's.
        augmentation, changed_share: see above.
        probabilities: of the pairs of augmentations, 25 numbers, row by row a first view and in the row the second one,
            each in the order of `AUGMENTATIONS`, the last of which changes nothing: each molecule draws its pair
            (JOAO), and the batch says which (`augmentation`, `second_augmentation`). None: see `augmentation`.
    """

    objective: Literal["contrastive", "property_prediction", "distance_prediction", "graph_contrast", "descriptors"] = (
        "contrastive"
    )
    augmentation: Literal["node_dropping", "bond_perturbation", "attribute_masking", "subgraph", "random"] = (
        "node_dropping"
    )
    changed_share: float = 0.2
    probabilities: Sequence[float] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.augmentation not in (*get_args(Augmentation), "random"):
            names = ", ".join(map(repr, get_args(Augmentation)))
            raise ValueError(f"augmentation is {names} or 'random', not {self.augmentation!r}")
        if not 0 <= self.changed_share < 1:
            raise ValueError(f"changed_share is from 0 to below 1, not {self.changed_share}")
        if self.probabilities is not None:
            if self.augmentation != "node_dropping":
                raise ValueError("give probabilities of pairs (JOAO) or augmentation, not both")
            given = np.asarray(self.probabilities, dtype=np.float64)
            if given.shape != (len(AUGMENTATIONS) ** 2,) or (given < 0).any() or abs(given.sum() - 1) > TOLERANCE:
                raise ValueError(f"probabilities are {len(AUGMENTATIONS) ** 2} numbers whose sum is 1")

    def pair(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw the augmentations of both views by their `probabilities`, as places in `AUGMENTATIONS`."""
        given = np.asarray(self.probabilities, dtype=np.float64)
        return divmod(int(rng.choice(len(given), p=given / given.sum())), len(AUGMENTATIONS))

    def view(self, feature: dict, rng: np.random.Generator, name: str | None = None) -> dict:
        """A copy of a molecule, changed by `name` (None: by `augmentation`)."""
        graph = {key: feature[key] for key in ("x", "edge_index", "edge_attr", "num_nodes", "z") if key in feature}
        name = name or self.augmentation
        if name == "none":
            return graph
        if name == "random":
            name = get_args(Augmentation)[rng.integers(len(get_args(Augmentation)))]
        atoms = int(graph["num_nodes"])
        if name == "bond_perturbation":
            return perturb_bonds(graph, rng, self.changed_share)
        if name == "subgraph":
            return part_of(graph, grow(graph, rng, min(atoms, math.floor((1 - self.changed_share) * atoms) + 1)))
        chosen = rng.choice(atoms, math.floor(self.changed_share * atoms), replace=False)
        if name == "node_dropping":
            kept = np.ones(atoms, dtype=bool)
            kept[chosen] = False
            return part_of(graph, kept)
        x = np.array(graph["x"]).reshape(atoms, -1)
        x[chosen] = x.mean(axis=0).astype(x.dtype)
        return {**graph, "x": x.ravel()}

    def joined(self, features: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Graphs, and of conformers what a compiled model could not count: `pairs` of atoms, `max_atoms`."""
        batch = dict(self.processor.pad(features, return_tensors="pt"))
        if "pos" in batch:
            batch["pairs"] = pairs_within_molecules(batch["batch"], batch["num_graphs"])
            batch["max_atoms"] = int(count_atoms(batch["batch"], batch["num_graphs"]).max())
        return batch

    def __call__(self, rows: Sequence[dict]) -> dict[str, torch.Tensor]:
        features = self.features(rows)
        if self.objective != "graph_contrast" or "labels" in rows[0]:
            labels = self.labels(rows)
            if self.objective == "property_prediction" and labels:
                labels = {"targets": labels["labels"]}
            targets = self.descriptor_targets(rows) if self.objective == "descriptors" and not labels else {}
            return self.joined(features) | labels | targets
        pairs, drawn = [], []
        for row, feature in zip(rows, features, strict=True):
            rng = self.generator(row)
            names = (None, None)
            if self.probabilities is not None:
                drawn.append(self.pair(rng))
                names = tuple(AUGMENTATIONS[place] for place in drawn[-1])
            pairs.append(tuple(self.view(feature, rng, name) for name in names))
        first, second = (dict(self.processor.pad(views, return_tensors="pt")) for views in zip(*pairs, strict=True))
        if drawn:
            first["augmentation"], second["augmentation"] = torch.tensor(drawn).unbind(1)
        return {**first, **{f"second_{key}": value for key, value in second.items()}}


def _ends(graph: dict) -> np.ndarray:
    """`[2, edges]`; an empty list would be taken for floats."""
    return np.asarray(graph["edge_index"], dtype=np.int64).reshape(2, -1)


def perturb_bonds(graph: dict, rng: np.random.Generator, share: float) -> dict:
    """A copy in which a share of the bonds is replaced by random ones between random atoms; a lone atom gets none."""
    bonds = SCHEMES["ogb"].bonds
    ends, features = _ends(graph), np.asarray(graph["edge_attr"], dtype=np.int64).reshape(-1, len(bonds))
    count, atoms = len(features) // 2, int(graph["num_nodes"])
    changed = math.floor(share * count)
    kept = np.sort(rng.choice(count, count - changed, replace=False)) if count else np.zeros(0, dtype=np.int64)
    kept = (2 * kept[:, None] + np.arange(2)).ravel()
    begin = rng.integers(atoms, size=changed)
    end = (begin + rng.integers(1, max(atoms, 2), size=changed)) % atoms
    drawn = np.stack([rng.integers(column.size, size=changed) for column in bonds], axis=1)
    low, high = np.minimum(begin, end), np.maximum(begin, end)
    added = np.stack([np.stack([low, high], axis=1).ravel(), np.stack([high, low], axis=1).ravel()])
    return {
        **graph,
        "edge_index": np.concatenate([ends[:, kept], added], axis=1).ravel(),
        "edge_attr": np.concatenate([features[kept], drawn.repeat(2, axis=0)]).ravel(),
    }


def grow(graph: dict, rng: np.random.Generator, count: int) -> np.ndarray:
    """bool `[atoms]`: `count` atoms, each a random neighbour of those before it, or if there is none a random one."""
    source, target = _ends(graph)
    inside = np.zeros(int(graph["num_nodes"]), dtype=bool)
    for _ in range(count):
        around = np.unique(target[inside[source] & ~inside[target]])
        inside[rng.choice(around if len(around) else np.flatnonzero(~inside))] = True
    return inside


__all__ = ["Infomax3DDataCollator"]
