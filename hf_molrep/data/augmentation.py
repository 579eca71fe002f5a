"""
Augmentation of molecular graphs: each function takes a feature dict (flat arrays of one molecule, as feature extractors
return it) and returns a changed copy. The NumPy generator passed in is the only source of randomness.
"""

import numpy as np


def _bond_ends(feature: dict) -> np.ndarray:
    """Return `edge_index` as `[2, edges]`; the reverse of edge 2k is 2k + 1."""
    ends = np.asarray(feature["edge_index"])
    if not len(ends):  # the empty list of a cached row without bonds would become floats
        ends = ends.astype(np.int16)
    return ends.reshape(2, -1)


def _with_masked(feature: dict, atoms: np.ndarray, mask: tuple[int, ...]) -> dict:
    x = np.array(feature["x"]).reshape(int(feature["num_nodes"]), -1)
    x[atoms] = mask
    return {**feature, "x": x.ravel()}


def _with_edges(feature: dict, kept: np.ndarray) -> dict:
    """Keep only the edges where `kept`, bool `[edges]`, is True."""
    attributes = np.asarray(feature["edge_attr"])
    if len(kept):
        attributes = attributes.reshape(len(kept), -1)[kept].ravel()
    return {**feature, "edge_index": _bond_ends(feature)[:, kept].ravel(), "edge_attr": attributes}


def mask_atoms(
    feature: dict, rng: np.random.Generator, count: int, mask: tuple[int, ...], among: np.ndarray | None = None
) -> tuple[dict, np.ndarray]:
    """
    Give `count` random atoms (of those with the indices `among`) the features `mask`.

    Returns:
        the changed copy, and the indices of the atoms masked, ascending.
    Raises:
        ValueError: there are fewer atoms.
    """
    atoms = int(feature["num_nodes"]) if among is None else among
    chosen = np.sort(rng.choice(atoms, count, replace=False))
    return _with_masked(feature, chosen, mask), chosen


def delete_bonds(feature: dict, rng: np.random.Generator, count: int) -> dict:
    """
    Delete `count` random bonds, in both directions.

    Raises:
        ValueError: there are fewer bonds.
    """
    kept = np.ones(_bond_ends(feature).shape[1] // 2, dtype=bool)
    kept[rng.choice(len(kept), count, replace=False)] = False
    return _with_edges(feature, kept.repeat(2))


def remove_subgraph(
    feature: dict, rng: np.random.Generator, count: int, mask: tuple[int, ...], center: int | None = None
) -> tuple[dict, np.ndarray]:
    """
    Give up to `count` atoms around a random center, nearest first, the features `mask`, and delete their bonds
    (MolCLR's "subgraph removal": masked atoms stay, so every view has all atoms of the molecule). From the last shell,
    atoms are drawn at random. If the fragment of the center (an ion of a salt) is smaller, only this is removed.

    Args:
        center: first atom; None: drawn at random.
    Returns:
        the changed copy, and the atoms removed in the order of their removal.
    """
    atoms = int(feature["num_nodes"])
    source, target = _bond_ends(feature)
    shell = np.array([rng.integers(atoms) if center is None else center])
    reached = np.zeros(atoms, dtype=bool)
    removed: list[int] = []
    while len(removed) < count and len(shell):
        reached[shell] = True
        left = count - len(removed)
        if len(shell) > left:
            shell = rng.choice(shell, left, replace=False)
        removed.extend(shell.tolist())
        inside = np.zeros(atoms, dtype=bool)
        inside[shell] = True
        shell = np.unique(target[inside[source] & ~reached[target]])
    removed_atoms = np.array(removed, dtype=np.int64)
    inside = np.zeros(atoms, dtype=bool)
    inside[removed_atoms] = True
    kept = ~(inside[source] | inside[target])
    return _with_edges(_with_masked(feature, removed_atoms, mask), kept), removed_atoms


def grown_subgraph(feature: dict, rng: np.random.Generator, count: int) -> np.ndarray:
    """
    `count` atoms that hang together: grown from a random atom by random neighbours of what is there (GraphMVP's
    `subgraph`). Where a fragment has no more, the growth goes on at a random atom of the rest.

    Returns:
        bool `[atoms]`, True for the atoms chosen.
    Raises:
        ValueError: there are fewer atoms.
    """
    atoms = int(feature["num_nodes"])
    if count > atoms:
        raise ValueError(f"{count} of {atoms} atoms")
    neighbours: list[list[int]] = [[] for _ in range(atoms)]
    for source, target in _bond_ends(feature).T.tolist():
        neighbours[source].append(target)
    chosen = np.zeros(atoms, dtype=bool)
    frontier: list[int] = []
    for draw in rng.random(count).tolist():  # plain lists: NumPy takes ten times as long for so few atoms
        candidates = frontier or np.flatnonzero(~chosen).tolist()
        choice = candidates[int(draw * len(candidates))]
        chosen[choice] = True
        new = [atom for atom in neighbours[choice] if not chosen[atom] and atom not in frontier]
        frontier = [atom for atom in frontier if atom != choice] + new
    return chosen


def mask_bonds_of(feature: dict, atoms: np.ndarray, mask: tuple[int, ...]) -> tuple[dict, np.ndarray]:
    """
    Give the bonds of some atoms the features `mask`.

    Returns:
        the changed copy, and the masked bonds as the indices of their first edges (2k).
    """
    source, target = _bond_ends(feature)
    is_chosen = np.zeros(int(feature["num_nodes"]), dtype=bool)
    is_chosen[atoms] = True
    masked = is_chosen[source] | is_chosen[target]
    attributes = np.array(feature["edge_attr"])
    if len(source):
        attributes = attributes.reshape(len(source), -1)
        attributes[masked] = mask
    return {**feature, "edge_attr": attributes.ravel()}, np.flatnonzero(masked[::2]) * 2


def hops_from(feature: dict, center: int) -> np.ndarray:
    """Count the bonds on the shortest path from an atom to each atom, `[atoms]`; -1 where there is no path."""
    source, target = _bond_ends(feature)
    hops = np.full(int(feature["num_nodes"]), -1)
    hops[center], distance = 0, 0
    while True:
        shell = target[hops[source] == distance]
        shell = shell[hops[shell] < 0]
        if not len(shell):
            return hops
        distance += 1
        hops[shell] = distance


def part_of(feature: dict, atoms: np.ndarray) -> dict:
    """
    Extract the atoms where `atoms`, bool `[atoms]`, is True, and the bonds between them, in order, as a new molecule
    (`x`, `edge_index`, `edge_attr`, `num_nodes` and `z` where it is given).
    """
    source, target = _bond_ends(feature)
    inside = atoms[source] & atoms[target]
    new_index = np.cumsum(atoms) - 1
    part = _with_edges(feature, inside)
    part["x"] = np.asarray(feature["x"]).reshape(len(atoms), -1)[atoms].ravel()
    part["edge_index"] = new_index[np.asarray(part["edge_index"], dtype=np.intp)]
    part["num_nodes"] = int(atoms.sum())
    if "z" in feature:
        part["z"] = np.asarray(feature["z"])[atoms]
    return part
