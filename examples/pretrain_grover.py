"""
Pre-train GROVER: contexts of atoms and bonds, functional groups of molecules. The shipped `grover-mini` comes from

    python examples/prepare_molecules.py ../shared/data/pretrain/zinc250k.parquet \
        ../shared/data/pretrain/chembl_validation.parquet --train-molecules 100000 \
        --exclude ../shared/data/moleculenet/benchmark_blocks.parquet --out molecules
    python examples/pretrain_grover.py --train_data molecules/train.parquet \
        --validation_data molecules/validation.parquet --config examples/grover_mini.json \
        --output_dir runs/grover-mini $(cat examples/grover_mini.args)

Vocabularies of contexts come from the training molecules, unless `--processor` (or `--model`) names a folder that has
some; they are kept in `<output_dir>/processor`, features and labels in Arrow files. `--min_frequency N` makes contexts
that occur less often `<other>`. It resumes by itself when it was stopped. `--train_data` takes a Parquet or CSV file, a
folder of them or a dataset on the Hub with the column `smiles`; `--help` lists every option.
"""

import argparse
import sys
from pathlib import Path

from hf_molrep import GroverConfig, GroverFeatureExtractor
from hf_molrep.data.datasets import load_molecules
from hf_molrep.pretraining import main


def run(argv: list[str]) -> dict:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--train_data", "--output_dir", "--processor", "--model"):
        parser.add_argument(name)
    parser.add_argument("--min_frequency", type=int, default=1)
    mine, _ = parser.parse_known_args(argv)
    if mine.train_data is None or mine.output_dir is None:
        return main("grover", argv)  # which says what is missing
    source = mine.processor or mine.model
    folder = Path(mine.output_dir) / "processor"
    if source or not (folder / "preprocessor_config.json").exists():
        extractor = GroverFeatureExtractor.from_pretrained(source) if source else GroverFeatureExtractor()
        if extractor.atom_vocabulary is None:
            extractor.learn(load_molecules(mine.train_data)["smiles"], mine.min_frequency)
        extractor.context_labels = True
        extractor.save_pretrained(folder)
        # beside it what AutoProcessor needs to know whose it is
        GroverConfig(**extractor.config_fields()).save_pretrained(folder)
    rest = list(argv)
    for name in ("--min_frequency", "--processor"):
        if name in rest:
            place = rest.index(name)
            del rest[place : place + 2]
    metrics = main("grover", [*rest, "--processor", str(folder)])
    finished = GroverFeatureExtractor.from_pretrained(mine.output_dir)
    finished.context_labels = False  # an embedding needs none
    finished.save_pretrained(mine.output_dir)
    return metrics


if __name__ == "__main__":
    run(sys.argv[1:])
