"""SMILES to molecular graphs, for all graph methods; saved with the weights as `preprocessor_config.json`."""

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from ..chem.conformers import Conformers
from ..chem.graph import SCHEMES, mols_to_graphs
from ..chem.smiles import STANDARDIZE_MODES, MoleculeError, OnError, collect, standard_mol
from ..data.batching import join_graphs
from ..hub import RemoteCodeMixin
from .conformers import ConformerSource
from .contract import Columns, check_columns

CHUNK = 64  # molecules whose arrays are made together: so few stay in the processor's cache


class MolGraphFeatureExtractor(RemoteCodeMixin, FeatureExtractionMixin):
    """
    SMILES to graphs by a named feature scheme (see [`hf_molrep.chem.graph`]), and on request to the conformers of the
    same molecules, their atoms in the order of the graph.

    Args:
        scheme: `"pretrain_gnns"`, `"ogb"`, `"dmp"` or `"grover"`.
        scheme_version: of the arrays that the weights have seen; another than the present one is refused.
        explicit_hydrogens: hydrogens are atoms of the graph.
        standardize: `"none"`, `"clean"` or `"parent"`, see [`~hf_molrep.chem.smiles.standardize`].
        canonical: rewrite every SMILES as RDKit's canonical one first, so that one molecule is one graph. False keeps
            chirality tags, bond directions and bracket atoms of the SMILES as written, as the original codes do;
            `hf-molrep convert` sets it, with `standardize="none"`.
        num_conformers: 0: graphs alone. From 1 on a feature has `pos` too: as many conformers are computed, or those
            of the columns `z` and `pos` are taken. A salt or mixture is then refused, since distance geometry knows no
            distances between molecules.
        conformer_seed, force_field: of what is computed, see [`~hf_molrep.chem.conformers.ConformerSettings`].

    Raises:
        ValueError: an unknown scheme, another version of it, an unknown way to standardise.
    """

    model_input_names = ["x", "edge_index", "edge_attr", "batch"]
    pads = False
    truncates = False

    def __init__(
        self,
        scheme: str = "pretrain_gnns",
        scheme_version: int | None = None,
        explicit_hydrogens: bool = False,
        standardize: str = "clean",
        canonical: bool = True,
        num_conformers: int = 0,
        conformer_seed: int = 42,
        force_field: str = "mmff94",
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
        self.num_conformers = num_conformers
        self.conformer_seed = conformer_seed
        self.force_field = force_field
        super().__init__(**kwargs)
        self.conformers = ConformerSource()

    @property
    def inputs(self) -> tuple[frozenset[str], ...]:
        graphs = (frozenset({"smiles"}),)
        return (*graphs, frozenset({"smiles", "z", "pos"})) if self.num_conformers else graphs

    @property
    def reports(self) -> tuple[str, ...]:
        return ConformerSource.reports if self.num_conformers else ()

    def config_fields(self) -> dict[str, Any]:
        return {}

    def to_dict(self) -> dict:
        saved = super().to_dict()
        del saved["conformers"]
        if not self.num_conformers:  # files of graphs alone stay as they were
            for name in ("num_conformers", "conformer_seed", "force_field"):
                del saved[name]
        return saved

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict, **kwargs):
        """As in transformers, but options count too that the file, written before they came, does not name."""
        own = signature(cls.__init__).parameters
        unnamed = {name: value for name, value in kwargs.items() if name in own and name not in feature_extractor_dict}
        return super().from_dict(feature_extractor_dict | unnamed, **kwargs)

    def featurize(self, columns: Columns, on_error: OnError = "raise") -> list[dict | MoleculeError]:
        """
        One dict of one-dimensional arrays of small types per molecule: `x` (uint8, row by row; the scheme `grover`
        stores indices here, and `mass` as float32), `edge_index` (int16, all sources, then all targets), `edge_attr`
        (uint8, row by row), `z` (uint8), with `num_nodes` and `smiles_used`; with conformers also `pos` (float32
        `[conformers * atoms * 3]`, angstrom), their number `num_conformers`, `conformer_status`, `conformer_flags`.

        Raises:
            MoleculeError: the first molecule that is not valid, that the scheme cannot express or that has no
                conformer (`on_error="raise"`); with `on_error="skip"` such an error stands in the molecule's place.
            ValueError: columns that this extractor does not read.
        """
        count = check_columns(self, columns)

        def results() -> Iterator[dict | MoleculeError]:
            for start in range(0, count, CHUNK):
                yield from self._featurize({name: values[start : start + CHUNK] for name, values in columns.items()})

        return collect(results(), on_error)

    def _featurize(self, columns: Columns) -> list[dict | MoleculeError]:
        smiles = columns["smiles"]
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
        if self.num_conformers:
            self._add_conformers(results, columns)
        return results

    def _add_conformers(self, results: list[dict | MoleculeError], columns: Columns) -> None:
        """Put the conformers of each molecule into its feature, or a MoleculeError into its place."""
        self.conformers.configure(
            num_conformers=self.num_conformers,
            seed=self.conformer_seed,
            force_field=self.force_field,
            hydrogens="all" if self.explicit_hydrogens else "none",
            fragments="refuse",
        )
        places = [place for place, result in enumerate(results) if isinstance(result, dict)]
        asked = {name: [values[place] for place in places] for name, values in columns.items()}
        asked["smiles"] = [results[place]["smiles_used"] for place in places]
        for place, found in zip(places, self.conformers(asked), strict=True):
            feature, text = results[place], columns["smiles"][place]
            if isinstance(found, MoleculeError):
                results[place] = MoleculeError(text, found.reason)
            elif not np.array_equal(found.z, feature["z"]):
                reason = f"the conformer has {len(found.z)} atoms, the graph {len(feature['z'])}, or in another order"
                results[place] = MoleculeError(text, reason)
            else:
                feature |= _positions(found)

    def size(self, feature: dict) -> int:
        """Atoms of a molecule: by this number molecules are grouped into batches."""
        return len(feature["z"])

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        Features of several molecules to one joined graph (nothing is padded): `x` `[atoms, f]`, `edge_index`
        `[2, edges]`, `edge_attr` `[edges, g]`, `batch` `[atoms]` (int64; `x` and `edge_attr` of the scheme `grover`
        float32) and the number `num_graphs`; where all features have conformers also `z` int64 `[atoms]` and `pos`
        float32, see [`~hf_molrep.data.batching.join_graphs`].
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

    def __call__(
        self,
        smiles: str | Sequence[str],
        return_tensors: str | None = None,
        *,
        z: Sequence | None = None,
        pos: Sequence | None = None,
    ) -> BatchFeature:
        """
        SMILES (one or several) to a batch, see [`~MolGraphFeatureExtractor.pad`].

        Raises:
            MoleculeError: as [`~MolGraphFeatureExtractor.featurize`].
        """
        columns = {"smiles": [smiles] if isinstance(smiles, str) else list(smiles), "z": z, "pos": pos}
        columns = {name: values for name, values in columns.items() if values is not None}
        return self.pad(self.featurize(columns), return_tensors)


def _positions(found: Conformers) -> dict[str, Any]:
    return {
        "pos": found.pos.astype(np.float32).ravel(),
        "num_conformers": len(found.pos),
        "conformer_status": found.status,
        "conformer_flags": " ".join(found.flags),
    }


__all__ = ["MolGraphFeatureExtractor"]
