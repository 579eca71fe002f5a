"""SMILES to molecular graphs, for all graph methods; saved with the weights as `preprocessor_config.json`."""

from collections.abc import Sequence
from inspect import signature

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from ..chem.graph import SCHEMES, mols_to_graphs
from ..chem.smiles import STANDARDIZE_MODES, MoleculeError, standard_mol
from ..data.batching import join_graphs
from ..hub import RemoteCodeMixin

CHUNK = 64  # molecules whose arrays are made together: so few stay in the processor's cache


class MolGraphFeatureExtractor(RemoteCodeMixin, FeatureExtractionMixin):
    """
    SMILES to graphs by a named feature scheme (see [`hf_molrep.chem.graph`]).

    Args:
        scheme: `"pretrain_gnns"`, `"ogb"`, `"dmp"` or `"grover"`.
        scheme_version: of the arrays that the weights have seen; another than the present one is refused.
        explicit_hydrogens: hydrogens are atoms of the graph.
        standardize: `"none"`, `"clean"` or `"parent"`, see [`~hf_molrep.chem.smiles.standardize`]. The original codes
            take every SMILES as drawn (`"none"`, which `hf-molrep convert` sets); `"clean"` is the default here as
            everywhere in this package, so that one molecule is one graph.
        canonical: rewrite every SMILES as RDKit's canonical one first, so that the embedding does not depend on how it
            was written. By default atoms, chirality tags and bond directions are those of the SMILES as given, as in
            the original codes.

    Raises:
        ValueError: an unknown scheme, another version of it, an unknown way to standardise.
    """

    model_input_names = ["x", "edge_index", "edge_attr", "batch"]
    # Nothing is padded, so batches need not hold molecules of one size; and they must not where there is batch norm,
    # which would take the size of the molecules out of every batch.
    pads = False

    def __init__(
        self,
        scheme: str = "pretrain_gnns",
        scheme_version: int | None = None,
        explicit_hydrogens: bool = False,
        standardize: str = "clean",
        canonical: bool = False,
        **kwargs,
    ):
        if scheme not in SCHEMES:
            raise ValueError(f"scheme is one of {', '.join(SCHEMES)}, not {scheme!r}")
        if standardize not in STANDARDIZE_MODES:
            raise ValueError(f"standardize is one of {', '.join(STANDARDIZE_MODES)}, not {standardize!r}")
        present = SCHEMES[scheme].version
        if scheme_version not in (None, present):
            raise ValueError(
                f"these weights need version {scheme_version} of the feature scheme {scheme!r}; here it is {present}"
            )
        self.scheme = scheme
        self.scheme_version = present
        self.explicit_hydrogens = explicit_hydrogens
        self.standardize = standardize
        self.canonical = canonical
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict, **kwargs):
        """As in transformers, but options count too that the file, written before they came, does not name."""
        own = signature(cls.__init__).parameters
        unnamed = {name: value for name, value in kwargs.items() if name in own and name not in feature_extractor_dict}
        return super().from_dict(feature_extractor_dict | unnamed, **kwargs)

    def featurize(self, smiles: Sequence[str], on_error: str = "raise") -> list[dict | MoleculeError]:
        """
        One dict of one-dimensional arrays of small types per molecule: `x` (uint8, row by row; the scheme `grover`
        stores indices here, and `mass` as float32), `edge_index` (int16, all sources, then all targets), `edge_attr`
        (uint8, row by row), `z` (uint8), with `num_nodes` and `smiles_used`.

        Raises:
            MoleculeError: the first molecule that is not valid or that the scheme cannot express
                (`on_error="raise"`); with `on_error="skip"` such an error stands in the molecule's place.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        results: list[dict | MoleculeError] = []
        for start in range(0, len(smiles), CHUNK):
            for result in self._featurize(smiles[start : start + CHUNK]):
                if isinstance(result, MoleculeError) and on_error == "raise":
                    raise result
                results.append(result)
        return results

    def _featurize(self, smiles: Sequence[str]) -> list[dict | MoleculeError]:
        results: list[dict | MoleculeError] = []
        places, mols, used = [], [], []
        for place, text in enumerate(smiles):
            try:
                mol, text_used = standard_mol(text, self.standardize, self.canonical)
            except MoleculeError as error:
                results.append(error)
            else:
                results.append({"smiles_used": text_used})
                places.append(place)
                mols.append(mol)
                used.append(text_used)
        graphs = mols_to_graphs(mols, self.scheme, self.explicit_hydrogens, used, compact=True)
        for place, graph in zip(places, graphs, strict=True):
            if isinstance(graph, MoleculeError):
                results[place] = MoleculeError(smiles[place], graph.reason)
                continue
            results[place] |= {
                "x": graph.x.ravel(),
                "edge_index": graph.edge_index.ravel(),
                "edge_attr": graph.edge_attr.ravel(),
                "z": graph.z,
                "num_nodes": len(graph.z),
            }
            if graph.mass is not None:
                results[place]["mass"] = graph.mass
        return results

    def size(self, feature: dict) -> int:
        """Atoms of a molecule: by this number molecules are grouped into batches."""
        return len(feature["z"])

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        Features of several molecules to one joined graph (nothing is padded): `x` `[atoms, f]`, `edge_index`
        `[2, edges]`, `edge_attr` `[edges, g]`, `batch` `[atoms]` (int64; `x` and `edge_attr` of the scheme `grover`
        float32) and the number `num_graphs`.
        """
        joined = join_graphs(features, SCHEMES[self.scheme])
        if return_tensors == "pt":
            import torch

            joined = {
                key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                for key, value in joined.items()
            }
        elif return_tensors not in (None, "np"):
            raise ValueError(f"return_tensors is 'pt', 'np' or None, not {return_tensors!r}")
        return BatchFeature(joined)

    def __call__(self, smiles: str | Sequence[str], return_tensors: str | None = None) -> BatchFeature:
        """
        SMILES (one or several) to a batch, see [`~MolGraphFeatureExtractor.pad`].

        Raises:
            MoleculeError: as [`~MolGraphFeatureExtractor.featurize`].
        """
        return self.pad(self.featurize([smiles] if isinstance(smiles, str) else list(smiles)), return_tensors)


__all__ = ["MolGraphFeatureExtractor"]
