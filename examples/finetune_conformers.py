"""
Train a model that moves RDKit's conformers towards reference ones, on the training part of a scaffold split.

    python examples/finetune_conformers.py --data references.parquet                    # small, random weights
    python examples/finetune_conformers.py --data references.parquet --model <folder>   # pre-trained without hydrogens
    python -m benchmarks.conformer_generation --data references.parquet --model conformer_model

The table has one conformer per row: name, smiles, atomic_numbers, coordinates (flat, angstrom).
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoProcessor, TrainingArguments, set_seed

from hf_molrep import (
    UniMolConfig,
    UniMolConformerCollator,
    UniMolFeatureExtractor,
    UniMolForConformerGeneration,
)
from hf_molrep.chem.conformer_clustering import conformer_pools
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.data.conformer_pairs import conformer_pairs, read_ensembles, read_molecules
from hf_molrep.data.splits import scaffold_split
from hf_molrep.training.trainer import MoleculeTrainer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", required=True, help="Parquet table of reference conformers")
parser.add_argument("--model", help="folder or Hub repository of a pre-trained Uni-Mol (default: random weights)")
parser.add_argument("--output", default="conformer_model")
parser.add_argument("--molecules", type=int, help="only the first ones of the training part")
parser.add_argument(
    "--pool", type=int, default=40, help="RDKit conformers minimised by MMFF94; a quarter as many are not"
)
parser.add_argument("--cache", default="default", help="SQLite file of computed conformers")
parser.add_argument("--processes", type=int, default=1, help="that compute conformers")
parser.add_argument("--hidden_size", type=int, default=128, help="this and the next three: without --model")
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--heads", type=int, default=16)
parser.add_argument("--recycles", type=int, default=4)
parser.add_argument("--epochs", type=int, default=50)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--learning_rate", type=float, help="default: 2e-5 with --model (the paper's), else 5e-4")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
set_seed(args.seed)

# The split comes first: of validation and test nothing is read but their SMILES.
molecules = read_molecules(args.data)
names = list(molecules)
split = scaffold_split([molecules[name] for name in names])
part = [names[index] for index in split.parts["train"]][: args.molecules]

if args.model:
    processor = AutoProcessor.from_pretrained(args.model)
    if processor.hydrogens != "none":
        raise SystemExit("conformers are trained without hydrogens: take weights that have not seen them")
    model = UniMolForConformerGeneration.from_pretrained(args.model, num_recycles=args.recycles)
else:
    processor = UniMolFeatureExtractor(hydrogens="none")
    config = UniMolConfig(
        hidden_size=args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        intermediate_size=4 * args.hidden_size,
        num_recycles=args.recycles,
        kernel_init="uniform",
        **processor.config_fields(),
    )
    model = UniMolForConformerGeneration(config)

# References, RDKit's conformers of the same molecules, and how far each is from each.
ensembles, refused = read_ensembles(args.data, part)
pools = conformer_pools(
    [ensemble.smiles for ensemble in ensembles],
    args.pool,
    cache=args.cache,
    processes=args.processes,
    on_error="skip",
)
rows = conformer_pairs(ensembles, pools, processor)
failed = sum(isinstance(pool, MoleculeError) for pool in pools)
print(f"{len(rows)} molecules ({failed} without conformers of RDKit; references left out: {dict(refused)})")

trainer = MoleculeTrainer(
    model=model,
    args=TrainingArguments(
        output_dir=f"{args.output}/training",
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate or (2e-5 if args.model else 5e-4),
        warmup_steps=0.06,
        lr_scheduler_type="linear",
        adam_beta2=0.99,
        adam_epsilon=1e-6,
        max_grad_norm=1.0,
        seed=args.seed,
        save_strategy="no",
        logging_strategy="epoch",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
    ),
    data_collator=UniMolConformerCollator(processor, seed=args.seed),
    train_dataset=rows,
)
trainer.train()

# Into the checkpoint goes what it has seen: the benchmark refuses to be run on that.
model.save_pretrained(args.output)
processor.save_pretrained(args.output)
seen = {"names": sorted({ensemble.name for ensemble in ensembles}), "arguments": vars(args)}
Path(args.output, "conformer_training.json").write_text(json.dumps(seen, indent=1) + "\n")
print(
    f"Done: the model is in {args.output}; measure it: python -m benchmarks.conformer_generation --model {args.output}"
)
