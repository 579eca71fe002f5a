"""
Augmentation of molecular graphs: feature dicts in (flat arrays of one molecule, as the feature extractor gives them),
changed copies out. Every function draws from the NumPy generator it is given and from nothing else.
"""

import numpy as np


def _bond_ends(feature: dict) -> np.ndarray:
    """Atoms of both directions of every bond, `[2, edges]`; the reverse of edge 2k is 2k + 1."""
    ends = np.asarray(feature["edge_index"])
    if not len(ends):  # an empty list, as a cached row without bonds has it, would be taken for floats
        ends = ends.astype(np.int16)
    return ends.reshape(2, -1)


def _with_masked(feature: dict, atoms: np.ndarray, mask: tuple[int, ...]) -> dict:
    x = np.array(feature["x"]).reshape(int(feature["num_nodes"]), -1)
    x[atoms] = mask
    return {**feature, "x": x.ravel()}


def _with_edges(feature: dict, kept: np.ndarray) -> dict:
    """Only the edges `kept`, bool `[edges]`."""
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
    Take away `count` random bonds, in both directions.

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
    Give up to `count` atoms around a random center, nearest first, the features `mask`, and take away the bonds to
    them (MolCLR's "subgraph removal": the atoms stay, masked, so that every view has as many as the molecule). In the
    last shell, which is taken in part, atoms are drawn at random. Where the fragment of the center (an ion of a salt)
    is smaller, it alone is removed.

    Args:
        center: atom to begin with; None: drawn.
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
    gone = np.array(removed, dtype=np.int64)
    inside = np.zeros(atoms, dtype=bool)
    inside[gone] = True
    kept = ~(inside[source] | inside[target])
    return _with_edges(_with_masked(feature, gone, mask), kept), gone


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
    chosen = np.zeros(int(feature["num_nodes"]), dtype=bool)
    chosen[atoms] = True
    hit = chosen[source] | chosen[target]
    attributes = np.array(feature["edge_attr"])
    if len(source):
        attributes = attributes.reshape(len(source), -1)
        attributes[hit] = mask
    return {**feature, "edge_attr": attributes.ravel()}, np.flatnonzero(hit[::2]) * 2


def hops_from(feature: dict, center: int) -> np.ndarray:
    """Bonds on the shortest path from an atom to each, `[atoms]`; -1 where there is none."""
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
    The atoms for which the bool `[atoms]` is True and the bonds between them, in their order, as a molecule of its own
    (`x`, `edge_index`, `edge_attr`, `num_nodes` and `z` where it is given).
    """
    source, target = _bond_ends(feature)
    inside = atoms[source] & atoms[target]
    number = np.cumsum(atoms) - 1
    part = _with_edges(feature, inside)
    part["x"] = np.asarray(feature["x"]).reshape(len(atoms), -1)[atoms].ravel()
    part["edge_index"] = number[np.asarray(part["edge_index"], dtype=np.intp)]
    part["num_nodes"] = int(atoms.sum())
    if "z" in feature:
        part["z"] = np.asarray(feature["z"])[atoms]
    return part
