"""
Search across notations: molecules by SMILES, molecules by name, names by SMILES.

    python examples/search.py [CHECKPOINT]       # a folder or a Hub repository; by default the shipped mm-deacon-mini
"""

import sys
from pathlib import Path

import numpy as np
from transformers import AutoModel

from hf_molrep.inference.checkpoints import load_checkpoint
from hf_molrep.inference.embedding import embed
from hf_molrep.inference.search import MoleculeIndex

CHECKPOINT = sys.argv[1] if len(sys.argv) > 1 else "mm-deacon-mini"
MOLECULES = Path(__file__).parent / "data" / "molecules.csv"
SMILES = "CC(C(=O)O)c1cccc(Oc2ccccc2)c1"  # fenoprofen, which is not in the file
NAME = "2-(3-phenoxyphenyl)propanoic acid"  # the same molecule


def show(question: str, index: MoleculeIndex, hits: list) -> None:
    print(f"\n{question}")
    for hit in hits:
        row = index.table.slice(hit.row, 1).to_pylist()[0]
        print(f"  {hit.score:.3f}  {row['id']:8} {row['smiles']:45} {row['iupac_name'] or ''}")


def main() -> None:
    model, processor = load_checkpoint(AutoModel, CHECKPOINT)
    (smiles,) = embed(model, processor, [SMILES])
    (name,) = embed(model, processor, [NAME], kind="iupac")

    # The SMILES of the file. Row `broken-1` cannot be read and is never a hit.
    molecules = MoleculeIndex.from_file(str(MOLECULES), column="smiles")
    molecules.embed(model, processor)
    show("SMILES to SMILES, Morgan fingerprints", molecules, molecules.search_fingerprints([SMILES], 5)[0])
    show("SMILES to SMILES, embeddings", molecules, molecules.search_embeddings(np.stack([smiles]), 5)[0])
    show("IUPAC name to SMILES", molecules, molecules.search_embeddings(np.stack([name]), 5)[0])

    # The IUPAC names of the file.
    names = MoleculeIndex.from_file(str(MOLECULES), column="iupac_name", kind="iupac")
    names.embed(model, processor)
    show("SMILES to IUPAC names", names, names.search_embeddings(np.stack([smiles]), 5)[0])


if __name__ == "__main__":
    main()
