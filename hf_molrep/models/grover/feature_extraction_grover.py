"""GROVER feature extractor: graphs, and the labels of its pre-training."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from ...chem.context_labels import context_vocabulary, molecule_contexts
from ...chem.smiles import MoleculeError
from ...feature_extraction import MolGraphFeatureExtractor


class GroverFeatureExtractor(MolGraphFeatureExtractor):
    """
    SMILES to graphs of the scheme `grover` and, for pre-training, to labels. The original has heavy atoms only.

    Args:
        atom_vocabulary, bond_vocabulary: contexts in the order of their numbers, from `<pad>` (0) and `<other>` (1) on;
            see [`~GroverFeatureExtractor.learn`]. None: no labels can be made.
        context_labels: `featurize` gives the labels of pre-training too (see [`~GroverFeatureExtractor.label`]), so
            that they are cached with the graph; they take longer than the graph, so checkpoints have False.
        others: see [`~hf_molrep.feature_extraction.MolGraphFeatureExtractor`].
    """

    def __init__(
        self,
        scheme: str = "grover",
        atom_vocabulary: list[str] | None = None,
        bond_vocabulary: list[str] | None = None,
        context_labels: bool = False,
        **kwargs,
    ):
        if scheme != "grover":
            raise ValueError(f"GROVER's graphs are of the scheme 'grover', not {scheme!r}")
        super().__init__(scheme=scheme, **kwargs)
        self.atom_vocabulary = atom_vocabulary
        self.bond_vocabulary = bond_vocabulary
        self.context_labels = context_labels

    def featurize(self, smiles: Sequence[str], on_error: str = "raise") -> list[dict | MoleculeError]:
        """See [`~hf_molrep.feature_extraction.MolGraphFeatureExtractor.featurize`] and `context_labels`."""
        found = super().featurize(smiles, on_error)
        if self.context_labels:
            valid = [place for place, feature in enumerate(found) if isinstance(feature, dict)]
            for place, labels in zip(valid, self.label([smiles[place] for place in valid]), strict=True):
                found[place] |= labels
        return found

    def learn(
        self, smiles: Iterable[str], min_frequency: int = 1, max_size: int | None = None
    ) -> "GroverFeatureExtractor":
        """
        Set both vocabularies to the contexts of these molecules (`MolVocab` of the original); molecules that cannot be
        read are passed over.

        Args:
            min_frequency: rarer contexts are `<other>`. max_size: at most so many contexts each.
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
        """What the configuration of a model takes from here: the sizes of the vocabularies."""
        if self.atom_vocabulary is None or self.bond_vocabulary is None:
            return {}
        return {"atom_vocab_size": len(self.atom_vocabulary), "bond_vocab_size": len(self.bond_vocabulary)}

    def label(self, smiles: Sequence[str]) -> list[dict]:
        """
        The labels of valid molecules, one dict of flat arrays each: `atom_context` (int32 `[atoms]`) and `bond_context`
        (int32 `[bonds]`), numbers in the vocabularies; `motifs` (uint8 `[85]`), whether each functional group is there.

        Raises:
            MoleculeError: a molecule that is not valid.
            ValueError: there are no vocabularies.
        """
        if self.atom_vocabulary is None or self.bond_vocabulary is None:
            raise ValueError("this extractor has no vocabularies of contexts; learn(smiles) makes them")
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
