"""
Metrics of generated molecules, of SMILES: what MOSES and GuacaMol measure without the weights of a network.

MOSES: Polykovskiy et al., Front. Pharmacol. 11, 565644 (2020), github.com/molecularsets/moses (MIT). GuacaMol: Brown et
al., J. Chem. Inf. Model. 59, 1096 (2019), github.com/BenevolentAI/guacamol (MIT). Definitions are those of the codes;
the code is ours. Not here: FCD (needs a network's weights), the filters of MOSES (need its list of medicinal chemistry
alerts). The formulas on arrays are in `hf_molrep.metrics`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from ..metrics import count_cosine, kl_divergence
from .fingerprints import internal_diversity, nearest_similarity
from .smiles import MoleculeError, parse

if TYPE_CHECKING:
    from rdkit.Chem import Mol
    from rdkit.Chem.FilterCatalog import FilterCatalog

RADIUS, BITS = 2, 1024  # Morgan fingerprints of MOSES
KL_BITS = 4096  # and of GuacaMol
MIN_RINGS = 2  # of a scaffold that counts in MOSES
KL_MOLECULES = 10_000  # of GuacaMol
# descriptors of GuacaMol, RDKit's names: is the distribution discrete?
KL_DESCRIPTORS = {
    "BertzCT": False,
    "MolLogP": False,
    "MolWt": False,
    "TPSA": False,
    "NumHAcceptors": True,
    "NumHDonors": True,
    "NumRotatableBonds": True,
    "NumAliphaticRings": True,
    "NumAromaticRings": True,
}


def canonical_or_none(text: str, stereo: bool = True) -> str | None:
    """Write RDKit's canonical SMILES of the molecule as drawn, None if the text is not valid; an empty one is not."""
    from rdkit import Chem

    try:
        return Chem.MolToSmiles(parse(text), isomericSmiles=stereo)
    except MoleculeError:
        return None


@dataclass(frozen=True, eq=False)
class MoleculeProfile:
    """
    What MOSES compares of a set of molecules; of a reference set it is worth keeping (`save`, `load`).

    Attributes:
        fingerprints: uint8 `[molecules, 1024]`, Morgan fingerprints of radius 2.
        fragments: counts of BRICS fragments (canonical SMILES).
        scaffolds: counts of Bemis-Murcko scaffolds with at least two rings (canonical SMILES).
    """

    fingerprints: np.ndarray
    fragments: Mapping[str, int]
    scaffolds: Mapping[str, int]

    @classmethod
    def of(cls, smiles: Iterable[str]) -> MoleculeProfile:
        """
        Compute the profile of molecules, as drawn and with all repetitions.

        Raises:
            MoleculeError: a SMILES cannot be read.
        """
        from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

        generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
        rows, fragments, scaffolds = [], Counter(), Counter()
        for text in smiles:
            mol = parse(text)
            rows.append(np.packbits(generator.GetFingerprintAsNumPy(mol)))
            fragments.update(_fragments(mol))
            if (scaffold := _scaffold(mol)) is not None:
                scaffolds[scaffold] += 1
        packed = np.array(rows, dtype=np.uint8).reshape(-1, BITS // 8)
        return cls(np.unpackbits(packed, axis=1), fragments, scaffolds)

    def save(self, path: str | PathLike) -> None:
        """Write the profile to an .npz file."""
        tables = {name: getattr(self, name) for name in ("fragments", "scaffolds")}
        arrays = {name: np.array(list(table), dtype=np.str_) for name, table in tables.items()}
        arrays |= {f"{name}_counts": np.array(list(table.values()), dtype=np.int64) for name, table in tables.items()}
        np.savez_compressed(path, fingerprints=np.packbits(self.fingerprints, axis=1), **arrays)

    @classmethod
    def load(cls, path: str | PathLike) -> MoleculeProfile:
        """Read a profile that was saved."""
        with np.load(path) as arrays:
            fragments, scaffolds = (
                dict(zip(arrays[name].tolist(), arrays[f"{name}_counts"].tolist(), strict=True))
                for name in ("fragments", "scaffolds")
            )
            return cls(np.unpackbits(arrays["fingerprints"], axis=1), fragments, scaffolds)


def distribution_metrics(
    texts: Sequence[str],
    references: Mapping[str, MoleculeProfile],
    training: Collection[str] | None = None,
    unique_at: Sequence[int] = (1000, 10_000),
) -> dict[str, float]:
    """
    Compute the metrics of MOSES of generated molecules.

    Args:
        texts: what a model wrote, in its order, with what is invalid and all repetitions.
        references: name -> profile, such as those of the test set and of the scaffold test set.
        training: canonical SMILES ([`canonical_or_none`]) of the training molecules; a set is fastest.
        unique_at: so many of the first valid molecules are looked at for uniqueness.
    Returns:
        "valid": share of the texts; "unique@<k>": share of different molecules among the first k valid ones (absent if
        there are fewer); "novel": share of the different molecules that are not in `training`; "IntDiv1", "IntDiv2":
        see [`~hf_molrep.chem.fingerprints.internal_diversity`]; for each reference "SNN/<name>" (mean similarity to the
        nearest molecule), "Frag/<name>" and "Scaf/<name>" (cosine of the counts), of all valid molecules.
    Raises:
        ValueError: no text is valid.
    """
    molecules = [canonical for canonical in map(canonical_or_none, texts) if canonical is not None]
    if not molecules:
        raise ValueError(f"none of {len(texts):,} texts is a valid SMILES")
    found = {"valid": len(molecules) / len(texts)}
    found |= {f"unique@{k}": len(set(molecules[:k])) / k for k in unique_at if len(molecules) >= k}
    if training is not None:
        known, different = training if isinstance(training, (set, frozenset)) else set(training), set(molecules)
        found["novel"] = len(different - known) / len(different)
    profile = MoleculeProfile.of(molecules)
    found["IntDiv1"], found["IntDiv2"] = internal_diversity(profile.fingerprints)
    for name, reference in references.items():
        found[f"SNN/{name}"] = float(nearest_similarity(profile.fingerprints, reference.fingerprints).mean())
        found[f"Frag/{name}"] = count_cosine(profile.fragments, reference.fragments)
        found[f"Scaf/{name}"] = count_cosine(profile.scaffolds, reference.scaffolds)
    return found


@dataclass(frozen=True, eq=False)
class DescriptorDistributions:
    """
    What GuacaMol compares of a set of molecules.

    Attributes:
        values: name of the descriptor -> float64 `[molecules]`: `KL_DESCRIPTORS`, and `internal_similarity`, that to
            the nearest other molecule (Tanimoto, Morgan fingerprints of radius 2 with 4,096 bits).
    """

    values: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, smiles: Sequence[str], molecules: int = KL_MOLECULES, seed: int | None = None):
        """
        Compute the distributions of different molecules without stereo marks.

        Args:
            smiles: what is invalid and repetitions are passed over.
            molecules: so many are taken.
            seed: None: the first ones, as of generated molecules; otherwise drawn with this seed, as of training ones.
        Raises:
            ValueError: fewer than two molecules.
        """
        from rdkit.Chem import Descriptors
        from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

        if seed is not None and molecules < len(smiles):
            rows = np.random.default_rng(seed).choice(len(smiles), molecules, replace=False)
            smiles = [smiles[row] for row in np.sort(rows)]
        chosen: dict[str, None] = {}
        for text in smiles:
            if len(chosen) == molecules:
                break
            if (canonical := canonical_or_none(text, stereo=False)) is not None:
                chosen[canonical] = None
        if len(chosen) < 2:
            raise ValueError("a distribution needs two different molecules")
        mols = [parse(text) for text in chosen]
        functions = {name: getattr(Descriptors, name) for name in KL_DESCRIPTORS}
        values = {name: np.array([function(mol) for mol in mols], float) for name, function in functions.items()}
        generator = GetMorganGenerator(radius=RADIUS, fpSize=KL_BITS)
        fingerprints = np.stack([generator.GetFingerprintAsNumPy(mol) for mol in mols])
        return cls({**values, "internal_similarity": nearest_similarity(fingerprints).astype(float)})

    def divergences(self, reference: DescriptorDistributions) -> dict[str, float]:
        """Compute the divergence of each descriptor, see [`hf_molrep.metrics.kl_divergence`]."""
        return {
            name: kl_divergence(reference.values[name], values, KL_DESCRIPTORS.get(name, False))
            for name, values in self.values.items()
        }

    def score(self, reference: DescriptorDistributions) -> float:
        """Compute the score of GuacaMol: the mean over the descriptors of exp(-divergence); 1 is best."""
        return float(np.mean(np.exp(-np.array(list(self.divergences(reference).values())))))


def share_without_alerts(smiles: Sequence[str], catalog: str = "PAINS") -> float:
    """
    Compute the share of molecules without a match in a catalogue of RDKit. It is not the filter of MOSES, which has its
    own PAINS patterns, a list of medicinal chemistry alerts, and limits of rings, atoms and charges.

    Args:
        smiles: valid molecules.
        catalog: a name of RDKit's `FilterCatalogParams.FilterCatalogs`.
    Raises:
        MoleculeError: a SMILES cannot be read.
        ValueError: an unknown catalogue, or no molecules.
    """
    if not len(smiles):
        raise ValueError("no molecules")
    alerts = _catalog(catalog)
    return 1 - float(np.mean([alerts.HasMatch(parse(text)) for text in smiles]))


@functools.cache
def _catalog(name: str) -> FilterCatalog:
    from rdkit.Chem.FilterCatalog import FilterCatalog, FilterCatalogParams

    known = FilterCatalogParams.FilterCatalogs.names
    if name not in known:
        raise ValueError(f"RDKit has no catalogue {name!r}; there are {', '.join(known)}")
    parameters = FilterCatalogParams()
    parameters.AddCatalog(known[name])
    return FilterCatalog(parameters)


def _fragments(mol: Mol) -> list[str]:
    """SMILES of the parts between the BRICS bonds."""
    from rdkit import Chem

    return Chem.MolToSmiles(Chem.FragmentOnBRICSBonds(mol)).split(".")


def _scaffold(mol: Mol) -> str | None:
    """SMILES of the scaffold, None if it has fewer rings than count."""
    from rdkit import Chem
    from rdkit.Chem.Scaffolds.MurckoScaffold import GetScaffoldForMol

    if mol.GetRingInfo().NumRings() < MIN_RINGS:
        return None
    return Chem.MolToSmiles(GetScaffoldForMol(mol))


__all__ = [
    "KL_DESCRIPTORS",
    "DescriptorDistributions",
    "MoleculeProfile",
    "canonical_or_none",
    "distribution_metrics",
    "share_without_alerts",
]
