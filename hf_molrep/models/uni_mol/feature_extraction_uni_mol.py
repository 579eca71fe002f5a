"""Atoms and their coordinates to the tokens and coordinates that Uni-Mol reads; saved with the weights."""

import re
import warnings
import zlib
from collections.abc import Sequence

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from ...chem.smiles import MoleculeError
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
SYMBOLS = re.findall(
    "[*A-Z][a-z]?",
    "*HHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTcRuRhPdAgCdInSnSbTeIXeCsBaLaCePrNdPmSm"
    "EuGdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaUNpPuAmCmBkCfEsFmMdNoLrRfDbSgBhHsMtDsRgCnNhFlMcLvTsOg",
)
TOKEN_OF = np.full(len(SYMBOLS), UNKNOWN, dtype=np.uint8)
TOKEN_OF[list(ELEMENTS.values())] = np.arange(len(ELEMENTS)) + UNKNOWN + 1


def _formula(z: np.ndarray) -> str:
    """How an error names a molecule that came without a SMILES, for example `C2H6O`."""
    counts = {SYMBOLS[number]: count for number, count in zip(*np.unique(z, return_counts=True), strict=True)}
    order = sorted(counts, key=lambda symbol: (symbol not in ("C", "H") or "C" not in counts, symbol))
    return "".join(symbol + (str(counts[symbol]) if counts[symbol] > 1 else "") for symbol in order)


class UniMolFeatureExtractor(RemoteCodeMixin, FeatureExtractionMixin):
    """
    Atomic numbers and coordinates to tokens (a special one before and after the atoms) and centred coordinates.

    Args:
        hydrogens: `"all"`: as given (the weights that the paper reports on saw all), or `"none"`: they are taken away.
            Weights of one kind do not fit atoms of the other.
        max_atoms: more (of those that are left) are refused with `MoleculeError`; the original takes a random choice of
            256 in silence.
        too_many_atoms: `"error"`, or `"sample"`: `max_atoms` of them, chosen by `seed` and the elements alone.
        seed: of that choice.

    Elements without a token become `[UNK]`, with a warning that names them.
    """

    model_input_names = ["input_ids", "pos", "attention_mask"]

    def __init__(
        self,
        hydrogens: str = "all",
        max_atoms: int = 256,
        too_many_atoms: str = "error",
        seed: int = 0,
        **kwargs,
    ):
        if hydrogens not in ("all", "none"):
            raise ValueError(f"hydrogens is 'all' or 'none', not {hydrogens!r}")
        if too_many_atoms not in ("error", "sample"):
            raise ValueError(f"too_many_atoms is 'error' or 'sample', not {too_many_atoms!r}")
        self.hydrogens = hydrogens
        self.max_atoms = max_atoms
        self.too_many_atoms = too_many_atoms
        self.seed = seed
        super().__init__(**kwargs)

    def featurize_one(self, z: np.ndarray, pos: np.ndarray, name: str | None = None) -> dict:
        """
        One molecule: `input_ids` uint8 `[atoms + 2]`, `z` uint8 `[atoms]`, `pos` float32 `[conformers * atoms * 3]`
        (angstrom, each conformer's centroid at the origin), `num_conformers`.

        Args:
            z: atomic numbers `[atoms]`, 0 for an atom that is none.
            pos: angstrom, `[atoms, 3]` or `[conformers, atoms, 3]`, or either one flattened.
            name: how errors call the molecule, by default its formula.
        Raises:
            MoleculeError: no atoms, coordinates that are not finite, not of as many atoms, or all the same; too many
                atoms.
        """
        z = np.asarray(z)
        pos = np.asarray(pos, dtype=np.float64)

        def refuse(reason: str) -> MoleculeError:
            known = z.ndim == 1 and z.size and z.dtype.kind in "iu" and z.min() >= 0 and z.max() < len(SYMBOLS)
            return MoleculeError(name or (_formula(z) if known else ""), reason, "SMILES" if name else "molecule")

        if z.ndim != 1 or not len(z):
            raise refuse("it has no atoms")
        if z.dtype.kind not in "iu" or z.min() < 0 or z.max() >= len(SYMBOLS):
            raise refuse(f"z are atomic numbers from 0 to {len(SYMBOLS) - 1}")
        if pos.size == 0 or pos.size % (3 * len(z)):
            raise refuse(f"{pos.size} coordinates do not fit {len(z)} atoms")
        if not np.isfinite(pos).all():
            raise refuse("a coordinate is not a finite number")
        pos = pos.reshape(-1, len(z), 3)
        if len(z) > 1 and (np.ptp(pos, axis=1).max(axis=-1) == 0).any():
            raise refuse("all atoms lie at one point: these coordinates were never computed")
        if self.hydrogens == "none":
            heavy = z != 1
            if not heavy.any():
                raise refuse("nothing is left of it without hydrogens")
            z, pos = z[heavy], pos[:, heavy]
        if len(z) > self.max_atoms:
            if self.too_many_atoms == "error":
                raise refuse(f"{len(z)} atoms are more than max_atoms ({self.max_atoms})")
            rng = np.random.default_rng([self.seed, zlib.crc32(z.astype(np.uint8).tobytes())])
            kept = np.sort(rng.choice(len(z), self.max_atoms, replace=False))
            z, pos = z[kept], pos[:, kept]
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
    ) -> list[dict | MoleculeError]:
        """
        Molecules to dicts, see [`~UniMolFeatureExtractor.featurize_one`].

        Args:
            z, pos: atomic numbers and coordinates of each molecule; `smiles` then only names them in errors and stands
                in the result as `smiles_used`.
            on_error: `"raise"`, or `"skip"`: a `MoleculeError` stands in the molecule's place.
        Raises:
            MoleculeError: the first molecule that cannot be used.
            ValueError: molecules without coordinates, or lists of different lengths.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        if z is None or pos is None:
            raise ValueError("give z and pos: atomic numbers and coordinates of each molecule")
        if len(z) != len(pos) or (smiles is not None and len(smiles) != len(z)):
            raise ValueError("smiles, z and pos name different numbers of molecules")
        results: list[dict | MoleculeError] = []
        for place, (numbers, coordinates) in enumerate(zip(z, pos, strict=True)):
            name = None if smiles is None else smiles[place]
            try:
                feature = self.featurize_one(numbers, coordinates, name)
            except MoleculeError as error:
                if on_error == "raise":
                    raise
                results.append(error)
                continue
            results.append(feature if name is None else {**feature, "smiles_used": name})
        self._warn_of_unknown(results)
        return results

    def _warn_of_unknown(self, results: list) -> None:
        features = [result for result in results if not isinstance(result, MoleculeError)]
        unknown = [feature["z"][feature["input_ids"][1:-1] == UNKNOWN] for feature in features]
        count = sum(map(bool, map(len, unknown)))
        if count:
            names = ", ".join(SYMBOLS[number] for number in np.unique(np.concatenate(unknown)))
            warnings.warn(f"no token for {names}: [UNK] in {count} of {len(results)} molecules", stacklevel=3)

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
