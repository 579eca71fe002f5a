"""Feature extractor of the graph methods: SMILES to molecular graphs."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from inspect import signature
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from ..chem.conformers import Conformers
from ..chem.graph import SCHEMES, mols_to_graphs
from ..chem.smiles import MoleculeError, OnError, collect, standard_mol
from ..data.batching import join_graphs
from ..hub import RemoteCodeMixin
from .conformers import ConformerSource
from .contract import Columns, check_columns, check_standardize
from .descriptors import fit_scaling, scaled_descriptors

CHUNK = 64  # molecules whose arrays are made together; they fit into the CPU's cache


class MolGraphFeatureExtractor(RemoteCodeMixin, FeatureExtractionMixin):
    """
    Turns SMILES into graphs by a named feature scheme (see [`hf_molrep.chem.graph`]), and on request also into
    conformers, whose atoms have the order of the graph.

    Args:
        scheme: `"pretrain_gnns"`, `"ogb"`, `"dmp"` or `"grover"`.
        scheme_version: version that the weights were trained with; only the present one is accepted.
        explicit_hydrogens: make hydrogens atoms of the graph.
        standardize: `"none"`, `"clean"` or `"parent"`, see [`~hf_molrep.chem.smiles.standardize`].
        canonical: rewrite every SMILES as RDKit's canonical one first, so that a molecule always gives the same graph.
            False keeps chirality tags, bond directions and bracket atoms as written, as the original codes do;
            `hf-molrep convert` sets it, with `standardize="none"`.
        num_conformers: 0: graphs alone. 1 or more: a feature also has `pos`, with that many computed conformers, or
            those of the columns `z` and `pos`. Salts and mixtures are then refused, since distance geometry defines no
            distances between molecules.
        conformer_seed, force_field: see [`~hf_molrep.chem.conformers.ConformerSettings`].
        descriptor_scaling: scaling of the targets of the objective `"descriptors"`, see
            [`~hf_molrep.processing.descriptors.fit_scaling`]; None: the weights were not trained with it.

    Raises:
        ValueError: the scheme, its version or `standardize` is unknown.
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
        descriptor_scaling: dict | None = None,
        **kwargs,
    ):
        if scheme not in SCHEMES:
            raise ValueError(f"scheme is one of {', '.join(SCHEMES)}, not {scheme!r}")
        check_standardize(standardize)
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
        self.descriptor_scaling = descriptor_scaling
        self.computes_descriptors = False
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
        return {} if self.descriptor_scaling is None else {"num_descriptors": len(self.descriptor_scaling["names"])}

    def with_descriptors(self) -> "MolGraphFeatureExtractor":
        """
        Return a copy that also computes `descriptors` (float32 `[targets]`) in `featurize`, so that pre-training caches
        them with the graphs.

        Raises:
            ValueError: there is no `descriptor_scaling`.
        """
        self._check_scaling()
        extractor = copy.copy(self)
        extractor.computes_descriptors = True
        return extractor

    def fit_descriptors(self, smiles: Iterable[str]) -> "MolGraphFeatureExtractor":
        """
        Fit `descriptor_scaling` to molecules, standardised; those that cannot be read are skipped.

        Raises:
            ValueError: see [`~hf_molrep.processing.descriptors.fit_scaling`].
        """

        def readable() -> Iterator:
            for text in smiles:
                with suppress(MoleculeError):
                    yield standard_mol(text, self.standardize, self.canonical)[0]

        self.descriptor_scaling = fit_scaling(readable())
        return self

    def descriptors(self, smiles: Iterable[str]) -> np.ndarray:
        """
        Compute the scaled descriptors of the standardised molecules, without explicit hydrogens, float32
        `[molecules, targets]`, see [`~hf_molrep.processing.descriptors.scaled_descriptors`].

        Raises:
            MoleculeError: a molecule that cannot be read.
            ValueError: there is no `descriptor_scaling`.
        """
        self._check_scaling()
        mols = (standard_mol(text, self.standardize, self.canonical)[0] for text in smiles)
        return scaled_descriptors(mols, self.descriptor_scaling)

    def _check_scaling(self) -> None:
        if self.descriptor_scaling is None:
            raise ValueError(
                "this extractor has no descriptor_scaling: `hf-molrep pretrain` fits it to the training data"
            )

    def to_dict(self) -> dict:
        saved = super().to_dict()
        del saved["conformers"], saved["computes_descriptors"]
        if self.descriptor_scaling is None:
            del saved["descriptor_scaling"]
        if not self.num_conformers:  # files of graphs alone stay as they were
            for name in ("num_conformers", "conformer_seed", "force_field"):
                del saved[name]
        return saved

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict, **kwargs):
        """As in transformers, but also accept options that were added after the file was written."""
        own = {name for base in cls.__mro__ for name in signature(base.__init__).parameters}
        unnamed = {name: value for name, value in kwargs.items() if name in own and name not in feature_extractor_dict}
        return super().from_dict(feature_extractor_dict | unnamed, **kwargs)

    def featurize(self, columns: Columns, on_error: OnError = "raise") -> list[dict | MoleculeError]:
        """
        Compute one dict of one-dimensional arrays per molecule: `x` (uint8, row by row; for the scheme `grover`
        indices, and `mass` as float32), `edge_index` (int16, all sources, then all targets), `edge_attr` (uint8, row
        by row), `z` (uint8), `num_nodes` and `smiles_used`. With conformers also `pos` (float32
        `[conformers * atoms * 3]`, angstrom), `num_conformers`, `conformer_status` and `conformer_flags`; of
        [`~MolGraphFeatureExtractor.with_descriptors`] also `descriptors`.

        Raises:
            MoleculeError: a molecule is not valid, the scheme cannot express it, or it has no conformer
                (`on_error="raise"`); with `on_error="skip"` the error takes the molecule's place.
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
        if self.computes_descriptors:
            accepted = [(results[place], mol) for place, mol in zip(places, mols, strict=True)]
            accepted = [(feature, mol) for feature, mol in accepted if isinstance(feature, dict)]
            targets = scaled_descriptors((mol for _, mol in accepted), self.descriptor_scaling)
            for (feature, _), row in zip(accepted, targets, strict=True):
                feature["descriptors"] = row
        return results

    def _add_conformers(self, results: list[dict | MoleculeError], columns: Columns) -> None:
        """Add the conformers of each molecule to its feature, or replace the feature by a MoleculeError."""
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
        """Number of atoms, by which molecules are grouped into batches."""
        return len(feature["z"])

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        Join the features of several molecules into one graph (nothing is padded): `x` `[atoms, f]`, `edge_index`
        `[2, edges]`, `edge_attr` `[edges, g]`, `batch` `[atoms]` (int64; float32 for `x` and `edge_attr` of the scheme
        `grover`) and the integer `num_graphs`. If all features have conformers, also `z` int64 `[atoms]` and `pos`
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
        Make a batch from one or several SMILES, see [`~MolGraphFeatureExtractor.pad`].

        Raises:
            MoleculeError: see [`~MolGraphFeatureExtractor.featurize`].
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
