"""Properties that molecules are optimised for, computed by RDKit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .smiles import parse

PROPERTIES = {
    "qed": "drug-likeness, 0 to 1 (Bickerton et al., Nature Chemistry 4, 90 (2012))",
    "logp": "octanol-water partition coefficient (Wildman and Crippen 1999)",
}


def properties(smiles: Iterable[str], name: str) -> np.ndarray:
    """
    Compute a property of each molecule, float64 `[molecules]`.

    Args:
        name: a key of [`PROPERTIES`].
    Raises:
        MoleculeError: a SMILES cannot be read.
        ValueError: an unknown property.
    """
    from rdkit.Chem import QED, Crippen

    if name not in PROPERTIES:
        raise ValueError(f"the property is {' or '.join(PROPERTIES)}, not {name!r}")
    function = {"qed": QED.qed, "logp": Crippen.MolLogP}[name]
    return np.array([function(parse(text)) for text in smiles], dtype=np.float64)


__all__ = ["PROPERTIES", "properties"]
