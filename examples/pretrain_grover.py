"""
Pre-train GROVER: contexts of atoms and bonds, functional groups of molecules. The shipped `grover-mini` comes from

    python examples/prepare_molecules.py ../shared/data/pretrain/zinc250k.parquet \
        ../shared/data/pretrain/chembl_validation.parquet --train-molecules 100000 \
        --exclude ../shared/data/moleculenet/benchmark_blocks.parquet --out molecules
    python examples/pretrain_grover.py --train_data molecules/train.parquet \
        --validation_data molecules/validation.parquet --config examples/grover_mini.json \
        --output_dir runs/grover-mini $(cat examples/grover_mini.args)

Vocabularies of contexts come from the training molecules and are kept in `<output_dir>/processor`, unless `--processor`
names a folder that has some; a run that goes on from a checkpoint, its own or that of `--model`, keeps those of the
checkpoint. `--min_frequency N` makes contexts that occur less often `<other>`. Features and labels are cached in Arrow
files. It resumes by itself when it was stopped. `--train_data` takes a Parquet or CSV file, a folder of them or a
dataset on the Hub with the column `smiles`; `--help` lists every option.
"""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainingArguments

from hf_molrep import GroverConfig, GroverFeatureExtractor
from hf_molrep.data.datasets import load_molecules
from hf_molrep.training.pretraining import PreTrainingDataArguments, last_checkpoint, load_processor, main


@dataclass
class Arguments(PreTrainingDataArguments):
    """Those of every method, and how the vocabularies are made."""

    min_frequency: int = field(default=1, metadata={"help": "contexts that occur less often become <other>"})


def make_processor(data: Arguments, training: TrainingArguments) -> GroverFeatureExtractor:
    """With the vocabularies of the run that goes on, of `--model`, of `--processor`, or newly learned ones."""
    if checkpoint := last_checkpoint(data, training):
        return GroverFeatureExtractor.from_pretrained(checkpoint)  # its heads know no contexts but their own
    if data.model:
        return load_processor("grover", data)
    extractor = GroverFeatureExtractor.from_pretrained(data.processor) if data.processor else GroverFeatureExtractor()
    if extractor.atom_vocabulary is not None:
        return extractor
    folder = Path(training.output_dir) / "processor"
    with training.main_process_first(local=training.save_on_each_node, desc="vocabularies"):
        if training.should_save:
            extractor.learn(load_molecules(data.train_data)["smiles"], data.min_frequency).save_pretrained(folder)
            # beside it what AutoProcessor needs to know whose it is
            GroverConfig(**extractor.config_fields()).save_pretrained(folder)
    return GroverFeatureExtractor.from_pretrained(folder)


if __name__ == "__main__":
    main("grover", None, Arguments, make_processor, "python examples/pretrain_grover.py")
