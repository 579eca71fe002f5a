"""Uni-Mol feature extractor: SMILES, or atoms with coordinates, to tokens and coordinates."""

import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from ...chem.conformers import Conformers
from ...chem.elements import SYMBOLS, formula
from ...chem.smiles import MoleculeError, OnError, collect
from ...data.batching import pad_tokens
from ...hub import RemoteCodeMixin
from ...processing.conformers import ConformerSource
from ...processing.contract import Columns, check_columns, check_standardize

PAD, BEGIN, END, UNKNOWN = 0, 1, 2, 3
# Elements of the released weights' dictionary, in its order after the special tokens: symbol -> atomic number.
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
    Turns SMILES, or atomic numbers and coordinates, into tokens (a special one before and after the atoms) and centred
    coordinates. Conformers of SMILES are computed, or taken from a cache on disk, see [`hf_molrep.chem.conformers`].
    Elements without a token become `[UNK]`, with a warning that names them.

    Args:
        hydrogens: which hydrogens are kept: `"all"` (as for the weights that the paper reports), `"none"`, or `"polar"`
            (those on carbon are left out). It must be what the weights were trained with.
        num_conformers, conformer_seed, force_field, dimensions: of computed conformers, see
            [`~hf_molrep.chem.conformers.ConformerSettings`].
        standardize: mode for SMILES: `"none"`, `"clean"` or `"parent"`, see [`~hf_molrep.chem.smiles.standardize`].
        max_atoms: largest number of atoms that are kept; the original silently takes a random choice of 256.
        too_many_atoms: what happens above it: `"error"`, or `"sample"`: a choice that depends only on `seed` and the
            elements.
        seed: seed of that choice.

    Attributes:
        conformers: the source of conformers; its `cache`, `processes` and `time_limit` say how they are computed, see
            [`~hf_molrep.processing.conformers.ConformerSource`].
    """

    model_input_names = ["input_ids", "pos", "attention_mask"]
    inputs = (
        frozenset({"smiles"}),
        frozenset({"z", "pos"}),
        frozenset({"smiles", "z", "pos"}),
        frozenset({"mol_block"}),
    )
    pads = True
    truncates = False
    reports = ConformerSource.reports

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
        check_standardize(standardize)
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
        self.conformers = ConformerSource()
        self._configure()  # checks the values

    def _configure(self) -> None:
        self.conformers.configure(
            num_conformers=self.num_conformers,
            seed=self.conformer_seed,
            hydrogens=self.hydrogens,
            force_field=self.force_field,
            dimensions=self.dimensions,
        )

    def config_fields(self) -> dict[str, Any]:
        """See [`~hf_molrep.processing.contract.MoleculeProcessor.config_fields`]."""
        return {"hydrogens": self.hydrogens}

    def to_dict(self) -> dict:
        saved = super().to_dict()
        del saved["conformers"]
        return saved

    def _feature(self, molecule: Conformers) -> dict:
        """Make the feature of one molecule. Raises MoleculeError for too many atoms."""
        z, pos, left_out = molecule.z, molecule.pos, []
        if len(z) > self.max_atoms:
            if self.too_many_atoms == "error":
                named = (molecule.smiles, "SMILES") if molecule.smiles else (formula(z), "molecule")
                raise MoleculeError(named[0], f"{len(z)} atoms are more than max_atoms ({self.max_atoms})", named[1])
            rng = np.random.default_rng([self.seed, zlib.crc32(z.astype(np.uint8).tobytes())])
            kept = np.sort(rng.choice(len(z), self.max_atoms, replace=False))
            z, pos, left_out = z[kept], pos[:, kept], ["atoms_left_out"]
        pos = pos.astype(np.float64)
        pos = pos - pos.mean(axis=1, keepdims=True)
        z = z.astype(np.uint8)
        feature = {
            "input_ids": np.concatenate([[BEGIN], TOKEN_OF[z], [END]]).astype(np.uint8),
            "z": z,
            "pos": pos.astype(np.float32).ravel(),
            "num_conformers": len(pos),
        }
        if molecule.smiles:
            feature |= {
                "smiles_used": molecule.smiles,
                "conformer_status": molecule.status,
                "conformer_flags": " ".join([*molecule.flags, *left_out]),
            }
        return feature

    def featurize(self, columns: Columns, on_error: OnError = "raise") -> list[dict | MoleculeError]:
        """
        Compute one dict per molecule: `input_ids` uint8 `[atoms + 2]`, `z` uint8 `[atoms]`, `pos` float32
        `[conformers * atoms * 3]` (angstrom, each conformer's centroid at the origin) and `num_conformers`; unless only
        `z` and `pos` are given also `smiles_used` (of the atoms that have coordinates), `conformer_status` (`"3d"`,
        `"2d"`) and `conformer_flags`, separated by spaces, see [`hf_molrep.chem.conformers.FLAGS`].

        Args:
            columns: `smiles`; `z` and `pos`; all three; or `mol_block`. See
                [`~hf_molrep.processing.conformers.ConformerSource`].
            on_error: `"raise"`, or `"skip"`: a `MoleculeError` takes the molecule's place.
        Raises:
            MoleculeError: a molecule cannot be used.
            ValueError: columns that this extractor does not read.
        """
        check_columns(self, columns)
        self._configure()

        def result(place: int, molecule: Conformers | MoleculeError) -> dict | MoleculeError:
            if isinstance(molecule, MoleculeError):
                return molecule
            try:
                return self._feature(molecule)
            except MoleculeError as error:
                if "smiles" in columns:
                    return MoleculeError(columns["smiles"][place], error.reason)
                return error

        molecules = self.conformers(columns, self.standardize)
        found = collect((result(*each) for each in enumerate(molecules)), on_error)
        self._warn_of_unknown(found)
        return found

    def featurize_one(self, z: np.ndarray, pos: np.ndarray, smiles: str | None = None) -> dict:
        """Compute the feature of one molecule with coordinates, see [`~UniMolFeatureExtractor.featurize`]."""
        columns = {"z": [z], "pos": [pos]} | ({} if smiles is None else {"smiles": [smiles]})
        (feature,) = self.featurize(columns)
        return feature

    def _warn_of_unknown(self, results: list) -> None:
        features = [result for result in results if not isinstance(result, MoleculeError)]
        unknown = [feature["z"][feature["input_ids"][1:-1] == UNKNOWN] for feature in features]
        count = sum(map(bool, map(len, unknown)))
        if count:
            names = ", ".join(SYMBOLS[number] for number in np.unique(np.concatenate(unknown)))
            warnings.warn(f"no token for {names}: [UNK] in {count} of {len(results)} molecules", stacklevel=3)

    def size(self, feature: dict) -> int:
        """Number of tokens, by which molecules are grouped into batches."""
        return len(feature["input_ids"])

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        Pad the features of several molecules, on the right: `input_ids` and `attention_mask` int64
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
        """Make a batch of molecules, see [`~UniMolFeatureExtractor.featurize`] and [`~UniMolFeatureExtractor.pad`]."""
        columns = {"smiles": [smiles] if isinstance(smiles, str) else smiles, "z": z, "pos": pos}
        columns = {name: values for name, values in columns.items() if values is not None}
        return self.pad(self.featurize(columns), return_tensors)


__all__ = ["UniMolFeatureExtractor"]
