"""GROVER feature extractor: graphs, labels for pre-training, descriptors for fine-tuning."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from transformers import BatchFeature

from ...chem.context_labels import context_vocabulary, molecule_contexts
from ...chem.descriptors import DESCRIPTOR_NAMES, normalized_descriptors
from ...chem.smiles import MoleculeError, OnError, standard_mol
from ...processing.contract import Columns
from ...processing.graphs import MolGraphFeatureExtractor


class GroverFeatureExtractor(MolGraphFeatureExtractor):
    """
    Turns SMILES into graphs of the scheme `grover` and, for pre-training, into labels. The original has heavy atoms
    only.

    Args:
        atom_vocabulary, bond_vocabulary: contexts in the order of their indices, beginning with `<pad>` and `<other>`;
            see [`~GroverFeatureExtractor.learn`]. None: no labels can be made.
        context_labels: `featurize` also computes the labels of pre-training (see [`~GroverFeatureExtractor.label`]).
            They take longer than the graph, so checkpoints have False.
        descriptors: `featurize` also computes `features`, float32 `[200]`: the normalised RDKit descriptors of the
            paper's property head (see [`~hf_molrep.chem.descriptors.normalized_descriptors`]), of the standardised
            molecule without explicit hydrogens. The model then has `features_dim=200`. They take far longer than the
            graph.
        others: see [`~hf_molrep.processing.graphs.MolGraphFeatureExtractor`].
    """

    def __init__(
        self,
        scheme: str = "grover",
        atom_vocabulary: list[str] | None = None,
        bond_vocabulary: list[str] | None = None,
        context_labels: bool = False,
        descriptors: bool = False,
        **kwargs,
    ):
        if scheme != "grover":
            raise ValueError(f"GROVER's graphs are of the scheme 'grover', not {scheme!r}")
        super().__init__(scheme=scheme, **kwargs)
        self.atom_vocabulary = atom_vocabulary
        self.bond_vocabulary = bond_vocabulary
        self.context_labels = context_labels
        self.descriptors = descriptors

    def featurize(self, columns: Columns, on_error: OnError = "raise") -> list[dict | MoleculeError]:
        """See [`~hf_molrep.processing.graphs.MolGraphFeatureExtractor.featurize`], `context_labels`, `descriptors`."""
        found, smiles = super().featurize(columns, on_error), columns["smiles"]
        valid = [place for place, feature in enumerate(found) if isinstance(feature, dict)]
        if self.context_labels:
            for place, labels in zip(valid, self.label([smiles[place] for place in valid]), strict=True):
                found[place] |= labels
        if self.descriptors:
            mols = (standard_mol(smiles[place], self.standardize, self.canonical)[0] for place in valid)
            for place, row in zip(valid, normalized_descriptors(mols), strict=True):
                found[place]["features"] = row
        return found

    def pad(self, features: Sequence[dict], return_tensors: str | None = "pt") -> BatchFeature:
        """
        See [`~hf_molrep.processing.graphs.MolGraphFeatureExtractor.pad`]; `features` of the molecules are stacked to
        float32 `[molecules, 200]` (or another width).

        Raises:
            ValueError: some molecules lack `features`, or all do although `descriptors` is set.
        """
        batch = super().pad(features, return_tensors)
        having = sum("features" in feature for feature in features)
        if having not in (0, len(features)) or (self.descriptors and not having):
            raise ValueError(f"{having} of {len(features)} molecules have descriptors ('features')")
        if having:
            stacked = np.stack([np.asarray(feature["features"], dtype=np.float32) for feature in features])
            if return_tensors == "pt":
                import torch

                stacked = torch.from_numpy(stacked)
            batch["features"] = stacked
        return batch

    def learn(
        self, smiles: Iterable[str], min_frequency: int = 1, max_size: int | None = None
    ) -> "GroverFeatureExtractor":
        """
        Set both vocabularies to the contexts of these molecules (`MolVocab` of the original); molecules that cannot be
        read are skipped.

        Args:
            min_frequency: rarer contexts become `<other>`.
            max_size: largest size of each vocabulary.
        """
        atoms, bonds = Counter(), Counter()
        for text in smiles:
            try:
                contexts = self._contexts(text)
            except MoleculeError:
                continue
            atoms.update(contexts.atoms)
            bonds.update(contexts.bonds)
        self.atom_vocabulary = context_vocabulary(atoms, min_frequency, max_size)
        self.bond_vocabulary = context_vocabulary(bonds, min_frequency, max_size)
        return self

    def _contexts(self, smiles: str, motifs: bool = False):
        return molecule_contexts(smiles, self.standardize, self.canonical, self.explicit_hydrogens, motifs)

    def config_fields(self) -> dict[str, int]:
        """Return the sizes of the vocabularies and the number of descriptors."""
        fields = {"features_dim": len(DESCRIPTOR_NAMES)} if self.descriptors else {}
        if self.atom_vocabulary is not None and self.bond_vocabulary is not None:
            fields |= {"atom_vocab_size": len(self.atom_vocabulary), "bond_vocab_size": len(self.bond_vocabulary)}
        return fields

    def label(self, smiles: Sequence[str]) -> list[dict]:
        """
        Compute the labels of valid molecules, one dict of flat arrays each: `atom_context` (int32 `[atoms]`) and
        `bond_context` (int32 `[bonds]`), indices into the vocabularies; `motifs` (uint8 `[85]`), 1 for each functional
        group of the molecule.

        Raises:
            MoleculeError: a molecule is not valid.
            ValueError: there are no vocabularies.
        """
        if self.atom_vocabulary is None or self.bond_vocabulary is None:
            raise ValueError(
                "this extractor has no vocabularies of contexts: learn(smiles) makes them, as `hf-molrep pretrain "
                "grover` does; a model that has been pre-trained needs those that it was trained with"
            )
        atom_number = {context: number for number, context in enumerate(self.atom_vocabulary)}
        bond_number = {context: number for number, context in enumerate(self.bond_vocabulary)}
        found = []
        for text in smiles:
            contexts = self._contexts(text, motifs=True)
            found.append(
                {
                    "atom_context": np.array([atom_number.get(name, 1) for name in contexts.atoms], dtype=np.int32),
                    "bond_context": np.array([bond_number.get(name, 1) for name in contexts.bonds], dtype=np.int32),
                    "motifs": contexts.motifs,
                }
            )
        return found


__all__ = ["GroverFeatureExtractor"]
