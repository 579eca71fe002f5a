"""
Which token may follow in a SMILES that is being written: branches, rings and bonds that can be closed, and valences.

What is tracked: the grammar of branches, ring numbers and bonds, and for each atom how many bonds it can still take.
What is not: whether aromatic atoms are in a ring that can be given double bonds, and stereo marks. A text that follows
these rules is a SMILES, but not always of a molecule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

# Largest valence that RDKit allows a neutral atom; others are not restricted.
VALENCES = {
    **{"H": 1, "B": 3, "C": 4, "N": 3, "O": 2, "F": 1, "Si": 4, "P": 5, "S": 6, "Cl": 1, "Ge": 4, "As": 5, "Se": 6},
    **{"Br": 1, "Sn": 4, "Sb": 5, "Te": 6, "I": 1, "Al": 3, "Ga": 3, "In": 3, "Pb": 4},
}
# A charged atom has the valence of the element before or after it: N+ that of C, O- that of F.
_ROWS = (("B", "C", "N", "O", "F"), ("Al", "Si", "P", "S", "Cl"), ("Ga", "Ge", "As", "Se", "Br"))
_ROWS = (*_ROWS, ("In", "Sn", "Sb", "Te", "I"))
# Aromatic atoms: number of neighbours that are not hydrogens.
_AROMATIC = {"b": 3, "c": 3, "n": 3, "o": 2, "p": 3, "s": 2, "se": 2, "si": 3, "as": 3, "te": 2}
UNRESTRICTED = 9
_BRACKET = re.compile(r"\[\d*(?P<symbol>[A-Z][a-z]?|[a-z]{1,2}|\*)@*(?:H(?P<hydrogens>\d*))?(?P<charge>[+-]\d*)?\]")
# ":" and "~" are not written: a bond between aromatic atoms needs no sign, and the other is a query
ORDERS = {"-": 1, "/": 1, "\\": 1, "=": 2, "#": 3}
BONDS = frozenset(ORDERS)

ATOM, BOND, RING, OPEN, CLOSE, DOT, END, OTHER = range(8)


@lru_cache(maxsize=4096)
def token_kind(token: str) -> tuple[int, int, bool]:
    """
    Describe a token: its kind (`ATOM`, `BOND`, `RING`, ...), how many bonds it can take (an atom) or its order (a
    bond), and whether it is aromatic.
    """
    if token in BONDS:
        return BOND, ORDERS[token], False
    if token in "().":
        return {"(": OPEN, ")": CLOSE, ".": DOT}[token], 0, False
    if token.isdigit() or re.fullmatch(r"%\d\d", token):
        return RING, 0, False
    if token == "*":
        return ATOM, UNRESTRICTED, False
    if token in VALENCES and token not in ("H", "Si", "Ge", "As", "Se", "Sn", "Sb", "Te"):
        return ATOM, VALENCES[token], False
    if token in ("b", "c", "n", "o", "p", "s"):
        return ATOM, _AROMATIC[token], True
    match = _BRACKET.fullmatch(token)
    if not match:
        return OTHER, 0, False
    symbol = match["symbol"]
    hydrogens = 0 if match["hydrogens"] is None else int(match["hydrogens"] or 1)
    charge = match["charge"] or "+0"
    charge = int(f"{charge}1" if len(charge) == 1 else charge)
    if symbol.islower():
        charged = (symbol in ("o", "s") and charge > 0) - (symbol == "n" and charge < 0)
        return ATOM, max(_AROMATIC.get(symbol, 3) - hydrogens + charged, 0), True
    return ATOM, max(_valence(symbol, charge) - hydrogens, 0), False


def _valence(symbol: str, charge: int) -> int:
    if symbol == "H" and charge:
        return 0
    for row in _ROWS:
        if symbol in row and charge:
            place = row.index(symbol) - charge
            if place >= len(row):
                return 0  # the shell is full
            return VALENCES.get(row[place], UNRESTRICTED) if place >= 0 else 0
    return VALENCES.get(symbol, UNRESTRICTED)


@dataclass
class Vocabulary:
    """
    The tokens of a vocabulary, described for [`SmilesState`].

    Args:
        tokens: of each id.
        end: id of the token that ends a SMILES.
    Attributes:
        kinds, capacities, aromatic: of each token, see [`token_kind`]; carbon: id of `C`.
        masks: what [`SmilesState.allowed`] found before.
    """

    tokens: Sequence[str]
    end: int
    kinds: np.ndarray = field(init=False)
    capacities: np.ndarray = field(init=False)
    aromatic: np.ndarray = field(init=False)
    carbon: int = field(init=False)
    masks: dict = field(init=False, default_factory=dict)

    def __post_init__(self):
        kinds, capacities, aromatic = zip(*map(token_kind, self.tokens), strict=True)
        self.kinds, self.capacities, self.aromatic = np.array(kinds), np.array(capacities), np.array(aromatic)
        self.kinds[self.end] = END
        self.carbon = self.tokens.index("C")


@dataclass(frozen=True)
class _Ring:
    """An open ring: its number, atom and the order of its bond (0: not said)."""

    number: int
    atom: int
    order: int


@dataclass(frozen=True)
class SmilesState:
    """
    Where the writing of a SMILES stands. It is not changed: [`~SmilesState.after`] gives the next one.

    Attributes:
        free: bonds that each atom can still take; those to open rings are taken already.
        aromatic: of each atom.
        bonds: pairs of atoms that are bonded, as far as ring bonds could repeat them.
        last: the kind of the last token; `DOT` at the beginning.
        atom: the atom that the next one is bonded to, -1: none.
        order: order of a bond that was written before the next atom or ring number; 0: none.
        branching: whether a branch was opened and has no atom yet.
        branches: the atoms at which branches are open.
        rings: the open rings.
    """

    free: tuple[int, ...] = ()
    aromatic: tuple[bool, ...] = ()
    bonds: frozenset[tuple[int, int]] = frozenset()
    last: int = DOT
    atom: int = -1
    order: int = 0
    branching: bool = False
    branches: tuple[int, ...] = ()
    rings: tuple[_Ring, ...] = ()

    def cost(self, atom: int, order: int) -> int:
        """Return how much of its capacity a bond takes of an atom: an aromatic one counts neighbours."""
        return 1 if self.aromatic[atom] else max(order, 1)

    def after(self, vocabulary: Vocabulary, token: int) -> SmilesState:
        """Return the state after a further token, which [`~SmilesState.allowed`] must allow."""
        kind = int(vocabulary.kinds[token])
        if kind == ATOM:
            aromatic, capacity = bool(vocabulary.aromatic[token]), int(vocabulary.capacities[token])
            new, free = len(self.free), list(self.free)
            bonds = self.bonds
            if self.atom >= 0:
                free[self.atom] -= self.cost(self.atom, self.order)
                capacity -= 1 if aromatic else max(self.order, 1)
                bonds = bonds | {(self.atom, new)}
            return replace(
                self,
                free=(*free, capacity),
                aromatic=(*self.aromatic, aromatic),
                bonds=bonds,
                last=ATOM,
                atom=new,
                order=0,
                branching=False,
            )
        if kind == BOND:
            return replace(self, last=BOND, order=int(vocabulary.capacities[token]))
        if kind == RING:
            free = list(self.free)
            opened = next((ring for ring in self.rings if ring.number == token), None)
            if opened is None:
                free[self.atom] -= self.cost(self.atom, self.order)
                rings = (*self.rings, _Ring(token, self.atom, self.order))
                return replace(self, free=tuple(free), rings=rings, last=RING, order=0)
            order = self.order or opened.order
            free[self.atom] -= self.cost(self.atom, order)
            free[opened.atom] -= self.cost(opened.atom, order) - self.cost(opened.atom, opened.order)
            rings = tuple(ring for ring in self.rings if ring is not opened)
            bonds = self.bonds | {(opened.atom, self.atom)}
            return replace(self, free=tuple(free), rings=rings, bonds=bonds, last=RING, order=0)
        if kind == OPEN:
            return replace(self, branches=(*self.branches, self.atom), last=OPEN, branching=True)
        if kind == CLOSE:
            return replace(self, atom=self.branches[-1], branches=self.branches[:-1], last=CLOSE)
        if kind == DOT:
            return replace(self, atom=-1, last=DOT)
        return replace(self, last=END)

    def _can_close(self, ring: _Ring) -> bool:
        """Whether the current atom can be the other end of a ring bond."""
        pair = (min(ring.atom, self.atom), max(ring.atom, self.atom))
        if ring.atom == self.atom or pair in self.bonds or (self.order and ring.order and self.order != ring.order):
            return False
        order = self.order or ring.order
        more = self.cost(ring.atom, order) - self.cost(ring.atom, ring.order)
        return self.free[self.atom] >= self.cost(self.atom, order) and self.free[ring.atom] >= more

    def tokens_to_close(self) -> int:
        """Return an upper bound of the tokens that it takes to end the SMILES from here, with the one at its end."""
        atom = 1 if self.last in (BOND, OPEN, DOT) else 0
        return atom + 3 * len(self.rings) + len(self.branches) + 1

    def allowed(self, vocabulary: Vocabulary, left: int | None = None) -> np.ndarray:
        """
        Find the tokens that may follow, bool `[vocabulary]`.

        Args:
            left: how many tokens may still be written, the end included. When they become few, only what closes
                branches and rings may follow.
        """
        if self.last == END:
            return vocabulary.kinds == END
        complete = self.last in (ATOM, RING, CLOSE)
        free = self.free[self.atom] if self.atom >= 0 else 0
        aromatic = self.atom >= 0 and self.aromatic[self.atom]
        ring_may_follow = self.last in (ATOM, RING, BOND) and not self.branching
        closable = frozenset(ring.number for ring in self.rings if ring_may_follow and self._can_close(ring))
        # with open rings there must remain an atom that can take the next one
        elsewhere = any(
            self.free[atom] > (self.cost(atom, self.order) if atom == self.atom else 0) for atom in self.branches
        )
        closing = left is not None and left <= self.tokens_to_close() + 4
        signature = (
            *(self.last, min(free, UNRESTRICTED), aromatic, self.order, self.atom >= 0, bool(self.branches), closing),
            *(self.branching, closable, frozenset((ring.number, ring.order) for ring in self.rings), elsewhere),
        )
        mask = vocabulary.masks.get(signature)
        if mask is None:
            mask = self._mask(vocabulary, complete, free, closable, elsewhere, closing)
            vocabulary.masks[signature] = mask
        return mask

    def _mask(
        self,
        vocabulary: Vocabulary,
        complete: bool,
        free: int,
        closable: frozenset[int],
        elsewhere: bool,
        closing: bool,
    ) -> np.ndarray:
        kinds, capacities = vocabulary.kinds, vocabulary.capacities
        aromatic = self.atom >= 0 and self.aromatic[self.atom]
        mask = np.zeros(len(kinds), dtype=bool)
        rings = len(self.rings)
        # atoms
        starting = self.atom < 0
        if starting or free >= self.cost(self.atom, self.order):
            needed = 0 if starting else np.where(vocabulary.aromatic, 1, max(self.order, 1))
            # free afterwards: at least 1 while a ring is open, unless the text can go on at another atom
            spare = 1 if rings and not elsewhere else 0
            mask |= (kinds == ATOM) & (capacities >= needed + spare)
            if self.order > 1:  # an aromatic atom has no triple bond, and a double one only beside two others
                mask &= ~vocabulary.aromatic | (capacities == 3) & (self.order == 2)
        # ring numbers: closing those that are open, opening others
        if self.last in (ATOM, RING, BOND) and not self.branching:
            for number in closable:
                order = self.order or next(ring.order for ring in self.rings if ring.number == number)
                mask[number] = rings == 1 or free > self.cost(self.atom, order) or elsewhere
            taken = {ring.number for ring in self.rings}
            cost = self.cost(self.atom, self.order)
            if free >= cost and (free > cost or elsewhere):
                for number in np.flatnonzero(kinds == RING):
                    if number not in taken:
                        mask[number] = True
        # bonds: what follows is an atom or a ring number
        if self.last in (ATOM, RING, CLOSE, OPEN) and free > 0:
            highest = 2 if aromatic else free
            mask |= (kinds == BOND) & (capacities <= highest)
        if complete:
            if free > 0:
                mask |= kinds == OPEN
            if self.branches:
                mask |= (kinds == CLOSE) & (not rings or elsewhere)
            elif not rings:
                mask |= (kinds == DOT) | (kinds == END)
        if not closing:
            return mask
        # the room ends: close a ring; else a branch, or with open rings go on to an atom where one can be closed
        for candidates in (
            np.isin(np.arange(len(kinds)), list(closable)) & mask,
            mask & (kinds == END),
            mask & (kinds == CLOSE) & (not rings or free == 0),
            mask & (np.arange(len(kinds)) == vocabulary.carbon),
            mask & (kinds == CLOSE),
            mask & (kinds == ATOM),
        ):
            if candidates.any():
                return candidates
        return mask


__all__ = ["SmilesState", "Vocabulary", "token_kind"]
