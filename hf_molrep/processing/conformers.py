"""Conformers of molecules, computed or given, for the processors of 3D methods."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..chem.conformers import ConformerGenerator, Conformers, ConformerSettings
from ..chem.coordinates import check_coordinates, conformers_of_mol_block, given_conformers
from ..chem.elements import SYMBOLS, formula
from ..chem.smiles import MoleculeError, Standardize, standard_mol
from .contract import Columns

T = TypeVar("T")


class ConformerSource:
    """
    Makes [`~hf_molrep.chem.conformers.Conformers`] from columns of molecules: computed from `smiles`, or taken from `z`
    and `pos`, or from the records of an SDF (`mol_block`; 2D drawings are replaced by computed conformers).

    A processor owns it, and calls [`configure`] with its own saved settings before each use.

    Attributes:
        cache, processes, time_limit: how conformers are computed, see
            [`~hf_molrep.chem.conformers.ConformerGenerator`]. They do not change results, so they are not saved.
    """

    reports = ("conformer_status", "conformer_flags")

    def __init__(self) -> None:
        self.cache: Any = "default"
        self.processes = 1
        self.time_limit = 60.0
        self.settings = ConformerSettings()
        self._generator: tuple[tuple, ConformerGenerator] | None = None

    def __getstate__(self) -> dict:
        """Leave out the generator, which owns processes: a copy starts its own."""
        return self.__dict__ | {"_generator": None}

    def configure(self, **settings: Any) -> None:
        """Set what coordinates depend on, see [`~hf_molrep.chem.conformers.ConformerSettings`], also for its errors."""
        self.settings = ConformerSettings(**settings)

    def __call__(self, columns: Columns, standardize: Standardize = "none") -> list[Conformers | MoleculeError]:
        """
        Make the conformers of each molecule, or a MoleculeError that names the molecule as it was given.

        Args:
            columns: `{"smiles"}`; `{"z", "pos"}`: atomic numbers (0 for a dummy atom) and coordinates in angstrom, flat
                or not, one or several conformers; `{"smiles", "z", "pos"}`: coordinates that are checked against the
                SMILES, see [`~hf_molrep.chem.coordinates.given_conformers`]; or `{"mol_block"}`.
            standardize: mode for SMILES without coordinates, see [`~hf_molrep.chem.smiles.standardize`].
        """
        if "mol_block" in columns:
            return self._from_mol_blocks(columns["mol_block"])
        if "pos" not in columns:
            return self._from_smiles(columns["smiles"], standardize)
        names = columns.get("smiles", [None] * len(columns["pos"]))
        return _each(self._from_coordinates, zip(columns["z"], columns["pos"], names, strict=True))

    def _from_coordinates(self, z: Any, pos: Any, smiles: str | None) -> Conformers:
        hydrogens = self.settings.hydrogens
        z, pos = np.asarray(z), np.asarray(pos, dtype=np.float64)
        known = z.ndim == 1 and z.size and z.dtype.kind in "iu" and z.min() >= 0 and z.max() < len(SYMBOLS)
        named = (formula(z) if known else "", "molecule") if smiles is None else (smiles, "SMILES")
        first = 0 if smiles is None else 1
        if z.ndim != 1 or not len(z):
            raise MoleculeError(named[0], "it has no atoms", named[1])
        if not known or z.min() < first:
            raise MoleculeError(named[0], f"z are atomic numbers from {first} to {len(SYMBOLS) - 1}", named[1])
        if pos.size == 0 or pos.size % (3 * len(z)):
            raise MoleculeError(named[0], f"{pos.size} coordinates do not fit {len(z)} atoms", named[1])
        pos = pos.reshape(-1, len(z), 3)
        if smiles is not None:
            return given_conformers(z, pos, smiles, hydrogens)
        check_coordinates(pos, *named)
        if hydrogens == "polar":
            raise MoleculeError(named[0], "only a SMILES beside coordinates tells which hydrogens are polar", named[1])
        kept = np.arange(len(z)) if hydrogens == "all" else np.flatnonzero(z != 1)
        if not len(kept):
            raise MoleculeError(named[0], "nothing is left of it without hydrogens", named[1])
        return Conformers(z[kept].astype(np.uint8), pos[:, kept], kept.astype(np.int32), "", "3d", ("given",))

    def _from_smiles(self, smiles: Sequence[str], standardize: Standardize) -> list[Conformers | MoleculeError]:
        used = _each(lambda text: standard_mol(text, standardize)[1], ((text,) for text in smiles))
        computed = iter(self._compute([text for text in used if isinstance(text, str)]))
        results = [next(computed) if isinstance(text, str) else text for text in used]
        return [
            MoleculeError(text, result.reason) if isinstance(result, MoleculeError) else result
            for text, result in zip(smiles, results, strict=True)
        ]

    def _compute(self, smiles: Sequence[str]) -> list[Conformers | MoleculeError]:
        wanted = (self.settings, self.cache, self.processes, self.time_limit)
        if self._generator is None or self._generator[0] != wanted:
            if self._generator is not None:
                self._generator[1].close()
            self._generator = wanted, ConformerGenerator(*wanted)  # kept: its processes live on
        return self._generator[1](smiles, on_error="skip")

    def _from_mol_blocks(self, blocks: Sequence[str]) -> list[Conformers | MoleculeError]:
        found = _each(conformers_of_mol_block, ((block, self.settings.hydrogens) for block in blocks))
        drawn = [n for n, each in enumerate(found) if isinstance(each, Conformers) and each.status == "2d"]
        for place, computed in zip(drawn, self._compute([found[n].smiles for n in drawn]), strict=True):
            found[place] = computed
        return found


def _each(function: Callable[..., T], arguments: Iterable[tuple]) -> list[T | MoleculeError]:
    """Call a function for each molecule; a MoleculeError that it raises is the result of that molecule."""
    results: list[T | MoleculeError] = []
    for each in arguments:
        try:
            results.append(function(*each))
        except MoleculeError as error:
            results.append(error)
    return results


__all__ = ["ConformerSource"]
