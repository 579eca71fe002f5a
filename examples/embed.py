"""
Compute embeddings: of a few molecules with processor and model, the same for every method, and of many by a pipeline.

    python examples/embed.py [CHECKPOINT]        # a folder or a Hub repository; by default the shipped mm-deacon-mini
"""

import csv
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor, pipeline

import hf_molrep

CHECKPOINT = sys.argv[1] if len(sys.argv) > 1 else hf_molrep.checkpoint_path("mm-deacon-mini")
MOLECULES = Path(__file__).parent / "data" / "molecules.csv"


def main() -> None:
    # A few molecules: a processor, a model, pooler_output.
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    model = AutoModel.from_pretrained(CHECKPOINT)
    with torch.no_grad():
        embedding = model(**processor(["CCO", "c1ccccc1O"], return_tensors="pt")).pooler_output
    print(f"two molecules: {tuple(embedding.shape)}, {embedding.dtype}")

    # Other SMILES of the same molecules: they are canonicalised first.
    with torch.no_grad():
        again = model(**processor(["OCC", "Oc1ccccc1"], return_tensors="pt")).pooler_output
    print(f"the same two, written otherwise: largest difference {(again - embedding).abs().max():.1e}")

    # Many molecules: the pipeline takes any iterable, sorts by length, and reports molecules that it cannot read.
    embedder = pipeline("molecule-embedding", model=CHECKPOINT)
    with MOLECULES.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, result in zip(rows, embedder((row["smiles"] for row in rows), on_error="skip"), strict=True):
        if result["embedding"] is None:
            print(f"{row['id']} has no embedding: {result['error']}")


if __name__ == "__main__":
    main()
