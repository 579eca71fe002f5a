"""
Fine-tune a checkpoint of any method on one property with plain `Trainer`; `hf-molrep finetune` does the same and more.

    python examples/finetune_property.py                                  # solubility of examples/data/molecules.csv
    python examples/finetune_property.py --data my.csv --label logD --model <repo or folder> --output my_model
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoProcessor, Trainer, TrainingArguments, set_seed

import hf_molrep
from hf_molrep import METHODS, AutoModelForMoleculePropertyPrediction
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.data.datasets import label_matrix, load_molecules
from hf_molrep.data.splits import scaffold_split
from hf_molrep.metrics import property_compute_metrics

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default=str(Path(__file__).parent / "data" / "molecules.csv"))
parser.add_argument("--label", default="solubility_log_mol_per_l")
parser.add_argument("--model", help="folder or Hub repository (default: the shipped infomax-3d-descriptors-mini)")
parser.add_argument("--output", default="finetuned")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
checkpoint = args.model or hf_molrep.checkpoint_path("infomax-3d-descriptors-mini")
set_seed(args.seed)

# Molecules: features are computed once; invalid molecules and rows without a label are left out.
processor = AutoProcessor.from_pretrained(checkpoint)
table = load_molecules(args.data, label_columns=[args.label])
labels = label_matrix(table, [args.label])  # [molecules, 1], NaN = missing
features = processor.featurize({"smiles": table["smiles"][:]}, on_error="skip")
usable = [i for i, f in enumerate(features) if not isinstance(f, MoleculeError) and not np.isnan(labels[i, 0])]
print(f"{len(usable)} of {len(table)} rows are used")
split = scaffold_split([table[i]["smiles"] for i in usable]).parts
rows = {part: [features[usable[i]] | {"labels": labels[usable[i]]} for i in split[part]] for part in split}

# Model: its configuration holds names and scaling of the labels (of the training part).
train_labels = np.array([row["labels"] for row in rows["train"]])
config = AutoConfig.from_pretrained(
    checkpoint,
    problem_type="regression",
    id2label={0: args.label},
    label2id={args.label: 0},
    label_mean=train_labels.mean(axis=0).tolist(),
    label_std=train_labels.std(axis=0).tolist(),
)
model = AutoModelForMoleculePropertyPrediction.from_pretrained(checkpoint, config=config)

trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir=f"{args.output}/training",
        num_train_epochs=args.epochs,
        per_device_train_batch_size=32,
        learning_rate=1e-4,
        warmup_steps=0.1,
        seed=args.seed,
        eval_strategy="epoch",
        save_strategy="best",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="rmse",
        greater_is_better=False,
        logging_strategy="epoch",
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
    ),
    data_collator=METHODS[config.model_type].tasks["property-prediction"].collator(processor),
    train_dataset=rows["train"],
    eval_dataset=rows["valid"],
    compute_metrics=property_compute_metrics(config),
)
trainer.train()

# Measured once, with the weights that were best on the validation part.
print(trainer.evaluate(rows["test"], metric_key_prefix="test"))
model.save_pretrained(args.output)
processor.save_pretrained(args.output)
print(f"Done: the model is in {args.output}; use it: hf-molrep predict IN.csv OUT.csv --model {args.output}")
