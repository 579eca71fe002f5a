"""Batch per-molecule arrays, for any method; keys are those of transformers and PyG."""

from collections.abc import Sequence

import numpy as np

from ..chem.graph import LOWEST, MolGraph, Scheme


def pad_tokens(sequences: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Pad token ids of several molecules on the right to `input_ids` and `attention_mask`, int64 `[molecules, longest]`.

    Raises:
        ValueError: no sequence, or an empty one.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    if not len(lengths) or lengths.min() == 0:
        raise ValueError("a batch needs at least one molecule, and every molecule at least one token")
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(sequences)
    return ids, mask.astype(np.int64)


def grouped_order(
    lengths: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
    group_size: int = 8,
    batches_per_window: int = 64,
) -> np.ndarray:
    """
    Draw a random order of the molecules in which every `batch_size` consecutive ones have similar lengths.

    Molecules are shuffled, cut into windows of `batches_per_window` batches, sorted by length within each window, cut
    into batches, and the batches shuffled. With `groups`, up to `group_size` molecules of one group stay together:
    given molecular formulas, the other molecules of a contrastive batch include isomers.

    Args:
        lengths: `[molecules]`, tokens or atoms of each molecule.
        groups: `[molecules]`, any integers.
    Returns:
        a permutation of `range(molecules)`.
    """
    lengths = np.asarray(lengths)
    order = rng.permutation(len(lengths))
    if groups is None:
        unit = np.arange(len(lengths))
    else:
        # molecules of one group side by side in random order, then chunks of group_size; a chunk is one unit
        order = order[np.argsort(np.asarray(groups)[order], kind="stable")]
        sorted_groups = np.asarray(groups)[order]
        starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        unit = np.cumsum(rank % group_size == 0) - 1
    unit_length = np.bincount(unit, weights=lengths[order]) / np.bincount(unit)
    unit_order = rng.permutation(len(unit_length))
    position = np.empty_like(unit_order)
    position[unit_order] = np.arange(len(unit_order))
    order = order[np.argsort(position[unit], kind="stable")]
    unit = unit[np.argsort(position[unit], kind="stable")]

    window = batch_size * batches_per_window
    batches = []
    for start in range(0, len(order), window):
        in_window, their_units = order[start : start + window], unit[start : start + window]
        # by the length of the unit, then by unit, so that a group is not split
        in_window = in_window[np.lexsort((their_units, -unit_length[their_units]))]
        batches += [in_window[first : first + batch_size] for first in range(0, len(in_window), batch_size)]
    full = [batch for batch in batches if len(batch) == batch_size]
    rest = [batch for batch in batches if len(batch) < batch_size]
    shuffled = [full[index] for index in rng.permutation(len(full))]
    return np.concatenate(shuffled + rest) if batches else order


def join_graphs(features: Sequence[dict], scheme: Scheme) -> dict[str, np.ndarray | int]:
    """
    Join molecules, as [`~hf_molrep.processing.graphs.MolGraphFeatureExtractor`] returns them, into one graph of several
    components: `x` `[atoms, f]`, `edge_index` int64 `[2, edges]`, `edge_attr` `[edges, g]`, `batch` int64 `[atoms]`,
    `num_graphs`; `x` and `edge_attr` are int64 indices, or float32 where the scheme is one-hot. Edges keep their order.
    Molecules with conformers also give `z` int64 `[atoms]` and `pos` float32 angstrom, `[atoms, 3]` for one conformer
    each, else `[conformers, atoms, 3]`.

    Raises:
        ValueError: no molecule; columns of another scheme; different numbers of conformers.
    """
    if not features:
        raise ValueError("a batch needs at least one molecule")
    edges = [np.asarray(feature["edge_index"]) for feature in features]
    edge_counts = np.array([len(index) // 2 for index in edges])
    x = np.concatenate([np.asarray(feature["x"]) for feature in features])
    edge_attr = np.concatenate([np.asarray(feature["edge_attr"]) for feature in features])
    counts = np.array([feature["num_nodes"] for feature in features])
    if len(x) != counts.sum() * len(scheme.atoms) or len(edge_attr) != edge_counts.sum() * len(scheme.bonds):
        raise ValueError(f"these features were not made by the scheme {scheme.name!r}")
    ends = [index[:count] for index, count in zip(edges, edge_counts, strict=True)]
    ends += [index[count:] for index, count in zip(edges, edge_counts, strict=True)]
    edge_index = np.concatenate(ends).astype(np.int64).reshape(2, -1)
    edge_index += np.repeat(np.cumsum(counts) - counts, edge_counts)
    mass = np.concatenate([np.asarray(feature["mass"]) for feature in features]) if "mass" in features[0] else None
    positions = {}
    if "pos" in features[0]:
        positions["z"] = np.concatenate([np.asarray(feature["z"], dtype=np.int64) for feature in features])
        positions["pos"] = _join_positions([np.asarray(feature["pos"], np.float32) for feature in features], counts)
    return positions | {
        "x": scheme.expand_atoms(x.reshape(-1, len(scheme.atoms)), mass),
        "edge_index": edge_index,
        "edge_attr": scheme.expand_bonds(edge_attr.reshape(-1, len(scheme.bonds))),
        "batch": np.repeat(np.arange(len(counts)), counts),
        "num_graphs": len(counts),
    }


def _join_positions(flat: Sequence[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Join flat positions of each molecule to `[conformers, all atoms, 3]`, or `[all atoms, 3]` for one conformer."""
    conformers = {len(pos) // (3 * atoms) for pos, atoms in zip(flat, counts.tolist(), strict=True)}
    if len(conformers) > 1 or any(len(pos) % (3 * atoms) for pos, atoms in zip(flat, counts.tolist(), strict=True)):
        raise ValueError(
            f"molecules of a batch have different numbers of conformers: {', '.join(map(str, sorted(conformers)))}"
        )
    (number,) = conformers
    joined = np.concatenate([pos.reshape(number, -1, 3) for pos in flat], axis=1)
    return joined[0] if number == 1 else joined


def to_pyg(graph: MolGraph):
    """
    Convert the graph of a molecule to `torch_geometric.data.Data` with the same names: `x`, `edge_attr` int64 (float32
    for one-hot schemes), `edge_index` int64, `z`, and `pos` if present. The inverse is [`graph_from_pyg`].
    """
    import torch
    from torch_geometric.data import Data

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array if array.dtype.kind == "f" else array.astype(np.int64))

    return Data(**{key: tensor(value) for key, value in graph._asdict().items() if value is not None})


def from_pyg(data, scheme: Scheme) -> dict:
    """
    Convert a `torch_geometric` `Data` or `Batch` to the inputs of graph models, see [`join_graphs`]. Edges are sorted
    into pairs (edge 2k from the lower to the higher atom index, 2k + 1 back), which PyG's featuriser does not do.

    Raises:
        ValueError: `x` or `edge_attr` do not fit the scheme in number or range of columns; an edge without its reverse,
            with other features than its reverse, stored twice, or from an atom to itself.
    """
    import torch

    x, edge_index, edge_attr = data.x, data.edge_index, data.edge_attr
    for name, value, columns, width in (
        ("x", x, scheme.atoms, scheme.atom_features),
        ("edge_attr", edge_attr, scheme.bonds, scheme.bond_features),
    ):
        if value is None or value.dim() != 2 or value.shape[1] != width:
            shape = None if value is None else tuple(value.shape)
            raise ValueError(f"{name} of the scheme {scheme.name!r} has {width} columns; here its shape is {shape}")
        if scheme.one_hot or not len(value):
            continue
        if value.is_floating_point():
            raise ValueError(f"{name} of the scheme {scheme.name!r} holds indices, not {value.dtype}")
        for column, low, high in zip(columns, value.amin(dim=0).tolist(), value.amax(dim=0).tolist(), strict=True):
            if low < 0 or high >= column.size:
                raise ValueError(
                    f"{column.name} of the scheme {scheme.name!r} is 0 ... {column.size - 1}; here {low} ... {high}: "
                    "these features are of another scheme"
                )
    low, high = edge_index.min(dim=0).values, edge_index.max(dim=0).values
    order = np.lexsort([part.cpu().numpy() for part in (edge_index[0] > edge_index[1], high, low)])
    order = torch.from_numpy(order).to(edge_index.device)
    edge_index, edge_attr = edge_index[:, order], edge_attr[order]
    forth, back = edge_index[:, ::2], edge_index[:, 1::2]
    if forth.shape != back.shape or not torch.equal(forth, back.flip(0)) or bool((forth[0] >= forth[1]).any()):
        raise ValueError("every bond must be in edge_index twice, once in each direction, and join two atoms")
    if not torch.equal(edge_attr[::2], edge_attr[1::2]):
        raise ValueError("the two directions of a bond have different edge_attr")
    batch = getattr(data, "batch", None)
    if batch is None:
        batch = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    x, edge_attr = (value if scheme.one_hot else value.long() for value in (x, edge_attr))
    num_graphs = int(getattr(data, "num_graphs", 0) or batch.max() + 1)
    return {"x": x, "edge_index": edge_index, "edge_attr": edge_attr, "batch": batch, "num_graphs": num_graphs}


def graph_from_pyg(data, scheme: Scheme) -> MolGraph:
    """
    Convert a `torch_geometric` `Data` of one molecule to its graph, edges in pairs as in [`from_pyg`], with `pos` if
    present. Without `z` the atomic numbers are taken from `x`, and 0 where `x` does not determine them (a masked atom;
    for `ogb` and `dmp` the atom `*`; for `grover` also an element beyond 100).

    Raises:
        ValueError: see [`from_pyg`]; several molecules, or more atoms than int16 can index; `z` or `pos` do not fit.
    """
    inputs = from_pyg(data, scheme)
    if inputs["num_graphs"] != 1:
        raise ValueError(
            f"{inputs['num_graphs']} molecules are not a single graph: convert them one by one (to_data_list)"
        )
    x, edge_index, edge_attr = (inputs[key].detach().cpu().numpy() for key in ("x", "edge_index", "edge_attr"))
    atoms, limit = len(x), np.iinfo(np.int16).max
    if atoms > limit:
        raise ValueError(f"a molecule of {atoms} atoms: the limit of edge_index is {limit}")
    z, pos = (getattr(data, key, None) for key in ("z", "pos"))
    z, pos = (None if value is None else value.detach().cpu().numpy() for value in (z, pos))
    if z is None:
        elements = scheme.atoms[0]
        known = elements.table[-LOWEST:][:119]
        numbers = np.zeros(256, dtype=np.uint8)
        numbers[known[::-1]] = np.arange(119)[::-1]  # the lowest of those that share an index comes last and stays
        z = numbers[x[:, : elements.size].argmax(axis=1) if scheme.one_hot else x[:, 0]]
    if z.shape != (atoms,) or (atoms and not 0 <= z.min() <= z.max() <= 118):
        raise ValueError(f"z {z.shape} is not one atomic number, 0 ... 118, for each of {atoms} atoms")
    if pos is not None and pos.shape != (atoms, 3):
        raise ValueError(f"pos {pos.shape} is not one point for each of {atoms} atoms")
    dtype = np.float32 if scheme.one_hot else np.uint8
    return MolGraph(
        x.astype(dtype),
        edge_index.astype(np.int16),
        edge_attr.astype(dtype),
        z.astype(np.uint8),
        None if pos is None else pos.astype(np.float32),
    )
