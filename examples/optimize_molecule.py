"""
Improve a molecule: write its relatives and keep those that are similar and have a higher QED.

    python examples/optimize_molecule.py "CC(=O)Oc1ccccc1C(=O)O" --model my-optimizer

The model has been fine-tuned on pairs of a molecule and a better one (examples/recipes/prepare_similar_pairs.py).
Prints the improvements and draws them, with their QED, to `improved.png`.
"""

import argparse

from transformers import AutoModelForCausalLM, AutoProcessor

import hf_molrep  # noqa: F401 - registers the methods
from hf_molrep.chem.drawing import draw_grid
from hf_molrep.inference.generation import GenerationOptions
from hf_molrep.inference.optimization import Goal, optimize_molecules


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smiles")
    parser.add_argument("--model", required=True)
    parser.add_argument("--number", type=int, default=20, help="relatives that are written")
    parser.add_argument("--picture", default="improved.png")
    arguments = parser.parse_args(argv)

    model = AutoModelForCausalLM.from_pretrained(arguments.model)
    processor = AutoProcessor.from_pretrained(arguments.model)
    options = GenerationOptions(num_return_sequences=arguments.number, seed=0)
    ((own, found),) = optimize_molecules(model, processor, [arguments.smiles], Goal("qed"), options)
    print(f"{arguments.smiles}  QED {own:.3f}")
    if not found:
        print(f"none of {arguments.number} relatives is similar and has a higher QED")
    for better in found:
        print(f"{better.smiles}  QED {better.value:.3f}  similarity {better.similarity:.2f}")
    molecules = [(arguments.smiles, own), *((better.smiles, better.value) for better in found[:11])]
    draw_grid([smiles for smiles, _ in molecules], [f"QED {value:.3f}" for _, value in molecules], arguments.picture)
    print(f"drawn to {arguments.picture}")


if __name__ == "__main__":
    main()
