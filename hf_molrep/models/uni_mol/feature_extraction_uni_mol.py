"""SMILES, or atoms with coordinates, to the tokens and coordinates that Uni-Mol reads; saved with the weights."""

import warnings
import zlib
from collections.abc import Sequence

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from ...chem.conformers import ConformerGenerator, Conformers, ConformerSettings
from ...chem.coordinates import check_coordinates, conformers_of_mol_block, given_conformers
from ...chem.elements import SYMBOLS, formula
from ...chem.smiles import STANDARDIZE_MODES, MoleculeError, standard_mol
from ...data.batching import pad_tokens
from ...hub import RemoteCodeMixin

PAD, BEGIN, END, UNKNOWN = 0, 1, 2, 3
# The dictionary of the released weights after its special tokens, in its order: symbol -> atomic number.
ELEMENTS = {
    **{"C": 6, "N": 7, "O": 8, "S": 16, "H": 1, "Cl": 17, "F": 9, "Br": 35, "I": 53, "Si": 14, "P": 15, "B": 5},
    **{"Na": 11, "K": 19, "Al": 13, "Ca": 20, "Sn": 50, "As": 33, "Hg": 80, "Fe": 26, "Zn": 30, "Cr": 24, "Se": 34},
    **{"Gd": 64, "Au": 79, "Li": 3},
}
TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *ELEMENTS, "[MASK]"]
MASK = len(TOKENS) - 1
TOKEN_OF = np.full(len(SYMBOLS), UNKNOWN, dtype=np.uint8)
TOKEN_OF[list(ELEMENTS.values())] = np.arange(len(ELEMENTS)) + UNKNOWN + 1


class UniMolFeatureExtractor(RemoteCodeMixin, FeatureExtractionMixin):
    """
    SMILES, or atomic numbers and coordinates, to tokens (a special one before and after the atoms) and centred
    coordinates. Of a SMILES conformers are computed, see [`hf_molrep.chem.conformers`]; those already computed are
    taken from a cache on disk.

    Args:
        hydrogens: `"all"` (the weights that the paper reports on saw all), `"none"`, or `"polar"`: those on carbon are
            left out. Weights of one kind do not fit atoms of another.
        num_conformers, conformer_seed, force_field, dimensions: of what is computed, see
            [`~hf_molrep.chem.conformers.ConformerSettings`].
        standardize: of SMILES: `"none"`, `"clean"` or `"parent"`, see [`~hf_molrep.chem.smiles.standardize`].
        max_atoms: more (of those that are left) are refused with `MoleculeError`; the original takes a random choice of
            256 in silence.
        too_many_atoms: `"error"`, or `"sample"`: `max_atoms` of them, chosen by `seed` and the elements alone.
        seed: of that choice.

    Attributes:
        cache, processes, time_limit: how conformers are computed, see
            [`~hf_molrep.chem.conformers.ConformerGenerator`]. They change no result, so they are not saved.

    Elements without a token become `[UNK]`, with a warning that names them.
    """

    model_input_names = ["input_ids", "pos", "attention_mask"]

    def __init__(
        self,
        hydrogens: str = "all",
        num_conformers: int = 1,
        conformer_seed: int = 42,
        force_field: str = "mmff94",
        dimensions: str = "3d",
        standardize: str = "clean",
        max_atoms: int = 256,
        too_many_atoms: str = "error",
        seed: int = 0,
        **kwargs,
    ):
        if too_many_atoms not in ("error", "sample"):
            raise ValueError(f"too_many_atoms is 'error' or 'sample', not {too_many_atoms!r}")
        if standardize not in STANDARDIZE_MODES:
            raise ValueError(f"standardize is one of {', '.join(STANDARDIZE_MODES)}, not {standardize!r}")
        self.hydrogens = hydrogens
        self.num_conformers = num_conformers
        self.conformer_seed = conformer_seed
        self.force_field = force_field
        self.dimensions = dimensions
        self.standardize = standardize
        self.max_atoms = max_atoms
        self.too_many_atoms = too_many_atoms
        self.seed = seed
        super().__init__(**kwargs)
        self.cache, self.processes, self.time_limit = "default", 1, 60.0
        self._generator: tuple[tuple, ConformerGenerator] | None = None
        self._settings()  # refuses what it does not know

    def _settings(self) -> ConformerSettings:
        return ConformerSettings(
            num_conformers=self.num_conformers,
            seed=self.conformer_seed,
            hydrogens=self.hydrogens,
            force_field=self.force_field,
            dimensions=self.dimensions,
        )

    def config_fields(self) -> dict[str, str]:
        """What the configuration of a model takes from here."""
        return {"hydrogens": self.hydrogens}

    def to_dict(self) -> dict:
        saved = super().to_dict()
        return {key: saved[key] for key in saved if key not in ("cache", "processes", "time_limit", "_generator")}

    def _conformers(self, smiles: Sequence[str]) -> list:
        """Computed conformers of each molecule, or a `MoleculeError` about the SMILES as it was given."""
        found: list = []
        for text in smiles:
            try:
                found.append(standard_mol(text, self.standardize)[1])
            except MoleculeError as error:
                found.append(error)
        wanted = (self._settings(), self.cache, self.processes, self.time_limit)
        if self._generator is None or self._generator[0] != wanted:
            if self._generator is not None:
                self._generator[1].close()
            self._generator = wanted, ConformerGenerator(*wanted)  # kept: its processes live on
        computed = iter(self._generator[1]([text for text in found if isinstance(text, str)], on_error="skip"))
        results = [next(computed) if isinstance(text, str) else text for text in found]
        return [
            MoleculeError(text, result.reason) if isinstance(result, MoleculeError) else result
            for text, result in zip(smiles, results, strict=True)
        ]

    def _recorded(self, blocks: Sequence[str]) -> list:
        """The conformers that records of an SDF hold, those of drawings computed, or a `MoleculeError`."""
        found: list = []
        for block in blocks:
            try:
                found.append(conformers_of_mol_block(block, self.hydrogens))
            except MoleculeError as error:
                found.append(error)
        drawn = [n for n, each in enumerate(found) if not isinstance(each, MoleculeError) and each.status == "2d"]
        for place, computed in zip(drawn, self._conformers([found[n].smiles for n in drawn]), strict=True):
            found[place] = computed
        return found

    def featurize_one(self, z: np.ndarray, pos: np.ndarray, smiles: str | None = None) -> dict:
        """
        One molecule: `input_ids` uint8 `[atoms + 2]`, `z` uint8 `[atoms]`, `pos` float32 `[conformers * atoms * 3]`
        (angstrom, each conformer's centroid at the origin), `num_conformers`; with a SMILES also what
        [`~UniMolFeatureExtractor.featurize`] says of one.

        Args:
            z: atomic numbers `[atoms]`, 0 for an atom that is none.
            pos: angstrom, `[atoms, 3]` or `[conformers, atoms, 3]`, or either one flattened.
            smiles: of the same molecule. The coordinates are held against it
                ([`hf_molrep.chem.coordinates.given_conformers`]), and hydrogens that they lack are added.
        Raises:
            MoleculeError: no atoms; coordinates that are not finite, not of as many atoms, of atoms upon each other or
                not those of the SMILES; too many atoms.
        """
        z = np.asarray(z)
        pos = np.asarray(pos, dtype=np.float64)
        known = z.ndim == 1 and z.size and z.dtype.kind in "iu" and z.min() >= 0 and z.max() < len(SYMBOLS)
        named = (formula(z) if known else "", "molecule") if smiles is None else (smiles, "SMILES")

        def refuse(reason: str) -> MoleculeError:
            return MoleculeError(named[0], reason, named[1])

        if z.ndim != 1 or not len(z):
            raise refuse("it has no atoms")
        first = 0 if smiles is None else 1
        if not known or z.min() < first:
            raise refuse(f"z are atomic numbers from {first} to {len(SYMBOLS) - 1}")
        if pos.size == 0 or pos.size % (3 * len(z)):
            raise refuse(f"{pos.size} coordinates do not fit {len(z)} atoms")
        pos = pos.reshape(-1, len(z), 3)
        if smiles is not None:
            return self._of_conformers(given_conformers(z, pos, smiles, self.hydrogens), smiles)
        check_coordinates(pos, *named)
        if self.hydrogens == "polar":
            raise refuse("which hydrogens are polar is told by a SMILES beside the coordinates")
        if self.hydrogens == "none":
            heavy = z != 1
            if not heavy.any():
                raise refuse("nothing is left of it without hydrogens")
            z, pos = z[heavy], pos[:, heavy]
        return self._tokens(z, pos, *named)

    def _of_conformers(self, molecule: Conformers, smiles: str) -> dict:
        """The feature of conformers, with the hydrogens that are wanted, and what became of the SMILES given."""
        feature = self._tokens(molecule.z, molecule.pos, smiles, "SMILES")
        feature["smiles_used"] = molecule.smiles
        feature["conformer_status"] = molecule.status
        left_out = ["atoms_left_out"] if len(feature["z"]) < len(molecule.z) else []
        feature["conformer_flags"] = " ".join([*molecule.flags, *left_out])
        return feature

    def _tokens(self, z: np.ndarray, pos: np.ndarray, name: str, notation: str) -> dict:
        """The feature of the atoms that are wanted; pos: `[conformers, atoms, 3]`."""
        if len(z) > self.max_atoms:
            if self.too_many_atoms == "error":
                reason = f"{len(z)} atoms are more than max_atoms ({self.max_atoms})"
                raise MoleculeError(name, reason, notation)
            rng = np.random.default_rng([self.seed, zlib.crc32(z.astype(np.uint8).tobytes())])
            kept = np.sort(rng.choice(len(z), self.max_atoms, replace=False))
            z, pos = z[kept], pos[:, kept]
        pos = pos.astype(np.float64)
        pos = pos - pos.mean(axis=1, keepdims=True)
        z = z.astype(np.uint8)
        return {
            "input_ids": np.concatenate([[BEGIN], TOKEN_OF[z], [END]]).astype(np.uint8),
            "z": z,
            "pos": pos.astype(np.float32).ravel(),
            "num_conformers": len(pos),
        }

    def featurize(
        self,
        smiles: Sequence[str] | None = None,
        on_error: str = "raise",
        *,
        z: Sequence | None = None,
        pos: Sequence | None = None,
        mol_block: Sequence[str] | None = None,
    ) -> list[dict | MoleculeError]:
        """
        Molecules to dicts, see [`~UniMolFeatureExtractor.featurize_one`]; of a SMILES also `smiles_used` (of what has
        coordinates), `conformer_status` (`"3d"`, `"2d"`) and `conformer_flags`, separated by spaces, see
        [`hf_molrep.chem.conformers.FLAGS`].

        Args:
            smiles: conformers are computed; or, with `z` and `pos`, the molecules that these are held against.
            z, pos: atomic numbers and coordinates of each molecule.
            mol_block: records of an SDF instead: their coordinates as they are; of a drawing in the plane conformers
                are computed.
            on_error: `"raise"`, or `"skip"`: a `MoleculeError` stands in the molecule's place.
        Raises:
            MoleculeError: the first molecule that cannot be used.
            ValueError: neither SMILES nor coordinates, or lists of different lengths.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        if mol_block is not None:
            if smiles is not None or z is not None or pos is not None:
                raise ValueError("mol_block stands for itself: give no smiles, z or pos beside it")
            smiles, molecules = [block.split("\n", 1)[0].strip() for block in mol_block], self._recorded(mol_block)
        elif (z is None) != (pos is None) or (smiles is None and z is None):
            raise ValueError("give smiles, or z and pos: atomic numbers and coordinates of each molecule; or mol_block")
        elif z is not None and (len(z) != len(pos) or (smiles is not None and len(smiles) != len(z))):
            raise ValueError("smiles, z and pos name different numbers of molecules")
        else:
            molecules = self._conformers(smiles) if z is None else list(zip(z, pos, strict=True))
        results: list[dict | MoleculeError] = []
        for place, molecule in enumerate(molecules):
            name = None if smiles is None else smiles[place]
            try:
                if isinstance(molecule, MoleculeError):
                    raise molecule
                of_columns = z is not None
                feature = self.featurize_one(*molecule, name) if of_columns else self._of_conformers(molecule, name)
            except MoleculeError as error:
                if on_error == "raise":
                    raise
                results.append(error)
                continue
            results.append(feature)
        self._warn_of_unknown(results)
        return results

    def _warn_of_unknown(self, results: list) -> None:
        features = [result for result in results if not isinstance(result, MoleculeError)]
        unknown = [feature["z"][feature["input_ids"][1:-1] == UNKNOWN] for feature in features]
        count = sum(map(bool, map(len, unknown)))
        if count:
            names = ", ".join(SYMBOLS[number] for number in np.unique(np.concatenate(unknown)))
            warnings.warn(f"no token for {names}: [UNK] in {count} of {len(results)} molecules", stacklevel=3)

    reports = ("conformer_status", "conformer_flags")
    pads = True  # batches of one size waste less

    def size(self, feature: dict) -> int:
        """Tokens of a molecule: by this number molecules are grouped into batches."""
        return len(feature["input_ids"])

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        Features of several molecules to a batch, padded right: `input_ids` and `attention_mask` int64
        `[molecules, length]`, `pos` float32 `[molecules, length, 3]`. If any has several conformers, `pos` is
        `[molecules, conformers, length, 3]` and `conformer_mask` int64 `[molecules, conformers]`.
        """
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f"return_tensors is 'pt', 'np' or None, not {return_tensors!r}")
        ids, mask = pad_tokens([np.asarray(feature["input_ids"]) for feature in features], PAD)
        atoms = mask.sum(axis=1) - 2
        conformers = np.array([len(feature["pos"]) for feature in features]) // (3 * atoms)
        present = np.arange(conformers.max()) < conformers[:, None]
        is_atom = np.arange(ids.shape[1])
        is_atom = (is_atom > 0) & (is_atom <= atoms[:, None])
        pos = np.zeros((*present.shape, ids.shape[1], 3), dtype=np.float32)
        pos[present[:, :, None] & is_atom[:, None]] = np.concatenate(
            [np.asarray(feature["pos"], dtype=np.float32) for feature in features]
        ).reshape(-1, 3)
        batch = {"input_ids": ids, "attention_mask": mask, "pos": pos}
        if present.shape[1] == 1:
            batch["pos"] = pos[:, 0]
        else:
            batch["conformer_mask"] = present.astype(np.int64)
        return BatchFeature(batch, tensor_type=return_tensors)

    def __call__(
        self,
        smiles: str | Sequence[str] | None = None,
        return_tensors: str | None = None,
        *,
        z: Sequence | None = None,
        pos: Sequence | None = None,
    ) -> BatchFeature:
        """Molecules to a batch, see [`~UniMolFeatureExtractor.featurize`] and [`~UniMolFeatureExtractor.pad`]."""
        smiles = [smiles] if isinstance(smiles, str) else smiles
        return self.pad(self.featurize(smiles, z=z, pos=pos), return_tensors)


__all__ = ["UniMolFeatureExtractor"]
