"""3D Infomax feature extractor."""

import numpy as np

from ...chem.smiles import MoleculeError
from ...processing.contract import Columns
from ...processing.graphs import MolGraphFeatureExtractor

NOISE = 0.05  # angstrom


class Infomax3DFeatureExtractor(MolGraphFeatureExtractor):
    """
    SMILES to graphs of the scheme `ogb`, and with `num_conformers` to as many conformers.

    The original pre-trains with explicit hydrogens on QM9 and without on QMugs and GEOM-Drugs (its released weights),
    and fine-tunes with them on QM9 and without on MoleculeNet; a checkpoint's extractor says which it means.

    Of more conformers than asked for, the first ones are taken. Missing ones are, as in the original, copies of the
    first with noise of 0.05 angstrom in each coordinate, drawn once (from `conformer_seed`); `num_conformers` of a
    feature is the number before that, and such molecules carry the flag `fewer_conformers`.
    """

    def __init__(self, scheme: str = "ogb", **kwargs):
        if scheme != "ogb":
            raise ValueError(f"3D Infomax's graphs are of the scheme 'ogb', not {scheme!r}")
        super().__init__(scheme=scheme, **kwargs)

    def _add_conformers(self, results: list[dict | MoleculeError], columns: Columns) -> None:
        super()._add_conformers(results, columns)
        for feature in results:
            if isinstance(feature, dict):
                self._make_as_many(feature)

    def _make_as_many(self, feature: dict) -> None:
        found = feature["pos"].reshape(feature["num_conformers"], -1)
        missing = self.num_conformers - len(found)
        if missing > 0:
            rng = np.random.default_rng(self.conformer_seed)
            noise = rng.normal(scale=NOISE, size=(missing, found.shape[1])).astype(np.float32)
            found = np.concatenate([found, found[:1] + noise])
            flags = feature["conformer_flags"].split()
            feature["conformer_flags"] = " ".join([*flags, *{"fewer_conformers"}.difference(flags)])
        feature["pos"] = found[: self.num_conformers].ravel()
        feature["num_conformers"] = min(feature["num_conformers"], self.num_conformers)


__all__ = ["Infomax3DFeatureExtractor"]
