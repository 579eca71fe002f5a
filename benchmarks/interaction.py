"""Drug-drug interactions of unseen drugs: DeepDDI's interaction types, frozen fingerprints compared with baselines.

    python -m benchmarks.interaction

The protocol:

- Unordered pairs, each (pair, interaction type) once. A pair with several types is in one fold, once per type, and a
  prediction can be right for only one of them. Types with fewer than 50 pairs are one class, "rare".
- **Drugs** are divided 7:1:2 into training, validation and test, drugs that share an InChIKey first block together.
  Trained on pairs of two training drugs. *One drug unseen*: a test and a training drug. *Both unseen*: two test drugs.
  Validation: pairs of a validation drug with a training or another validation drug. Pairs of a validation and a test
  drug are not used. Each seed is another division and another initialisation.
- Macro-F1 over the classes that occur in the test fold or are predicted there; accuracy beside it.
- Every column is the same head (dropout, one hidden layer, symmetric in the two drugs) with the same number of updates;
  the epoch is chosen by macro-F1 on validation. The identifier-only column knows only which training drug it is, not
  its structure: its scores come from the class frequencies of each drug.

The head on the frozen fingerprint is the `ForInteractionPrediction` model of the checkpoint's method, which takes
embeddings in place of SMILES: each drug is embedded once.

    python -m benchmarks.interaction --model x-mol-mini --seeds 0 --train-pairs 12000 --valid-pairs 2000 \
        --test-pairs 5000 --batch-size 256 --name interaction_x_mol

A method that reads both drugs together (X-MOL) has two more columns, *read together*: its interaction model fine-tuned
from the checkpoint and from random weights, as `hf-molrep finetune --smiles-column A B` does. That is a forward pass of
the whole network per pair, so the pairs of each fold are drawn, with the seed of the division and the same for every
column; its updates are other and fewer (`--together-epochs`), and it sees a pair in one order only. The frozen columns
of such a method have the head of the fixed features.
"""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.harness import checkpoints
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import (
    RESULTS,
    SPLITS,
    argument_parser,
    fingerprint,
    markdown_table,
    mean_sd,
    write_report,
)
from benchmarks.harness.selection import Cache
from hf_molrep.chem import MoleculeError, inchikey_block
from hf_molrep.chem.fingerprints import morgan_fingerprints
from hf_molrep.data.splits import Split, read_split, write_split
from hf_molrep.inference.checkpoints import resolve_checkpoint, silent_transformers
from hf_molrep.metrics import macro_f1
from hf_molrep.training.rows import takes_parts

RARE_BELOW = 50
SHARES = (0.7, 0.1, 0.2)
TESTS = ("one drug unseen", "both unseen")
TOGETHER = ("read together, random weights", "read together, pre-trained")


class Interactions(NamedTuple):
    """
    Unordered interactions.

    Attributes:
        drugs, smiles, blocks: `[drugs]`: identifier, SMILES, InChIKey first block.
        pairs: `[interactions, 2]`, indices of drugs, the smaller first; labels: `[interactions]`, class index.
        classes: names of the classes; the last one is "rare" where types were pooled.
    """

    drugs: list[str]
    smiles: list[str]
    blocks: list[str]
    pairs: np.ndarray
    labels: np.ndarray
    classes: list[str]


def read_interactions(path: Path, rare_below: int = RARE_BELOW) -> Interactions:
    """Read interactions from a Parquet file with drugbank_id_1, drugbank_id_2, smiles_1, smiles_2, label."""
    import pyarrow.parquet as pq

    columns = pq.read_table(path).to_pydict()
    smiles = dict(zip(columns["drugbank_id_1"], columns["smiles_1"], strict=True))
    smiles |= dict(zip(columns["drugbank_id_2"], columns["smiles_2"], strict=True))
    drugs = sorted(smiles)
    index = {drug: place for place, drug in enumerate(drugs)}
    rows = {
        (*sorted((index[first], index[second])), label)
        for first, second, label in zip(
            columns["drugbank_id_1"], columns["drugbank_id_2"], columns["label"], strict=True
        )
    }
    table = np.array(sorted(rows), dtype=np.int64)
    types, inverse, counts = np.unique(table[:, 2], return_inverse=True, return_counts=True)
    frequent = counts >= rare_below
    class_of_type = np.where(frequent, np.cumsum(frequent) - 1, frequent.sum())
    classes = [str(name) for name in types[frequent]] + ([] if frequent.all() else ["rare"])
    blocks = []
    for drug in drugs:
        try:
            blocks.append(inchikey_block(smiles[drug]))
        except MoleculeError:
            blocks.append(drug)  # no InChI: a group of its own
    return Interactions(drugs, [smiles[drug] for drug in drugs], blocks, table[:, :2], class_of_type[inverse], classes)


def divide_drugs(blocks: Sequence[str], seed: int, shares: Sequence[float] = SHARES) -> dict[str, list[int]]:
    """Divide the drugs into `train`, `valid`, `test` by these shares; drugs of one block stay together."""
    groups = defaultdict(list)
    for place, block in enumerate(blocks):
        groups[block].append(place)
    names = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(names))
    limits = np.cumsum(shares) * len(blocks)
    parts: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    taken = 0
    for place in order:
        part = list(parts)[int(np.searchsorted(limits[:2], taken, side="right"))]
        parts[part] += groups[names[place]]
        taken += len(groups[names[place]])
    return parts


def division_of(data: Interactions, seed: int, folder: Path) -> dict[str, np.ndarray]:
    """Read the division of the drugs from its file in `folder`, or make and write it."""
    file = folder / f"deepddi.drugs-{seed}.json"
    if not file.is_file():
        parts = {part: np.sort(drugs) for part, drugs in divide_drugs(data.blocks, seed).items()}
        folder.mkdir(parents=True, exist_ok=True)
        write_split(file, Split("drugs", seed, None, SHARES, parts), data.drugs)
    return read_split(file, data.drugs).parts


def folds_of(pairs: np.ndarray, drugs: dict[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Return the indices of the interactions of `train`, `valid` and the two `TESTS` for a division of the drugs."""
    role = np.full(pairs.max() + 1, -1)
    for number, part in enumerate(("train", "valid", "test")):
        role[list(drugs[part])] = number
    low, high = np.sort(role[pairs], axis=1).T
    return {
        "train": np.flatnonzero((low == 0) & (high == 0)),
        "valid": np.flatnonzero((low >= 0) & (high == 1)),
        TESTS[0]: np.flatnonzero((low == 0) & (high == 2)),
        TESTS[1]: np.flatnonzero((low == 2) & (high == 2)),
    }


def drawn(folds: dict[str, np.ndarray], sizes: dict[str, int | None], seed: int) -> dict[str, np.ndarray]:
    """Draw so many interactions of each fold (None or too few: all)."""
    result = {}
    for number, (fold, rows) in enumerate(folds.items()):
        size = sizes[fold]
        if size is not None and size < len(rows):
            rows = np.sort(np.random.default_rng([seed, number]).choice(rows, size, replace=False))
        result[fold] = rows
    return result


def scores(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute macro-F1 over the classes that occur in `labels` or are predicted, and accuracy."""
    return {"macro_f1": macro_f1(labels, predicted), "accuracy": float((predicted == labels).mean())}


class FeatureInteraction(nn.Module):
    """
    The head of `MMDeaconForInteractionPrediction` (symmetric) on fixed features of the drugs.

    The hidden layer of a concatenation is a sum, W [a; b] = W1 a + W2 b, so each half is computed once per drug of a
    batch instead of once per pair, which saves most of the work for wide sparse features.
    """

    def __init__(self, features: np.ndarray, classes: int, hidden: int, dropout: float):
        super().__init__()
        self.register_buffer("features", torch.from_numpy(features.astype(np.float32)), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(features.shape[1], 2 * hidden, bias=False)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out_proj = nn.Linear(hidden, classes)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.normal_(self.out_proj.weight, std=0.02)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor | None = None) -> dict:
        drugs, place = torch.unique(torch.cat([first, second]), return_inverse=True)
        left, right = self.dense(self.dropout(self.features[drugs])).chunk(2, dim=-1)
        one, two = place.chunk(2)
        logits = 0
        for a, b in ((one, two), (two, one)):
            logits = logits + self.out_proj(self.dropout(torch.relu(left[a] + right[b] + self.bias))) / 2
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def train_and_predict(model, collate, labels: np.ndarray, folds: dict, args, seed: int) -> dict[str, np.ndarray]:
    """Train, keep the epoch with the best macro-F1 on `valid`, and return the predicted classes of the `TESTS`."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    with tempfile.TemporaryDirectory(prefix="hf_molrep_ddi_") as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=args.epochs,
                per_device_train_batch_size=args.batch_size,
                per_device_eval_batch_size=4 * args.batch_size,
                learning_rate=args.learning_rate,
                warmup_steps=0.05,
                weight_decay=0.01,
                seed=seed,
                eval_strategy="epoch",
                save_strategy="epoch",
                save_total_limit=1,
                save_only_model=True,
                load_best_model_at_end=True,
                metric_for_best_model="macro_f1",
                greater_is_better=True,
                label_names=["labels"],
                remove_unused_columns=False,
                logging_strategy="no",
                disable_tqdm=True,
                report_to="none",
                use_cpu=not torch.accelerator.is_available(),
                dataloader_pin_memory=torch.accelerator.is_available(),
            ),
            data_collator=collate,
            train_dataset=folds["train"].tolist(),
            eval_dataset=folds["valid"].tolist(),
            compute_metrics=lambda result: scores(result.predictions, result.label_ids),
            preprocess_logits_for_metrics=lambda outputs, _: (
                outputs[0] if isinstance(outputs, tuple) else outputs
            ).argmax(dim=-1),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return {test: trainer.predict(folds[test].tolist()).predictions for test in TESTS}


def read_together(column: str, folder: str, data: Interactions, folds: dict, args, seed: int) -> dict[str, list[int]]:
    """
    Fine-tune the interaction model on the pairs themselves; predicted classes of the `TESTS`. A pair that the model
    cannot read is predicted as the most frequent class of the training part.
    """
    from hf_molrep.training.finetuning import finetune
    from hf_molrep.training.labelled_molecules import LabelledMolecules
    from hf_molrep.training.settings import FinetuningSettings

    rows = np.concatenate(list(folds.values()))
    starts = np.cumsum([0, *map(len, folds.values())])
    split = {"train": np.arange(starts[1]), "valid": np.arange(starts[1], starts[2])}
    split["test"] = np.arange(starts[2], starts[-1])
    first, second = ([data.smiles[drug] for drug in data.pairs[rows, side]] for side in (0, 1))
    result = finetune(
        folder,
        LabelledMolecules(
            first,
            data.labels[rows, None],
            ["type"],
            "single_label_classification",
            split,
            second_smiles=second,
            classes=data.classes,
        ),
        FinetuningSettings(
            epochs=args.together_epochs,
            learning_rate=args.together_learning_rate,
            batch_size=args.together_batch_size,
            truncation=True,
            seed=seed,
            from_scratch="random weights" in column,
        ),
    )
    unread = np.isnan(result.test_predictions).any(axis=1)
    print(f"{len(result.failures)} pairs could not be read, {int(unread.sum())} of them in the tests", flush=True)
    majority = np.bincount(data.labels[folds["train"]]).argmax()
    predicted = np.where(unread, majority, np.nan_to_num(result.test_predictions).argmax(axis=1))
    parts = np.split(predicted, [len(folds[TESTS[0]])])
    return {test: part.tolist() for test, part in zip(TESTS, parts, strict=True)}


def head_of_checkpoint(folder: str, classes: int, args):
    """Load the interaction model of the checkpoint's method, with frozen towers and a new head."""
    from transformers.utils import logging

    import hf_molrep

    with silent_transformers(logging.ERROR):  # transformers would report the new head
        return hf_molrep.AutoModelForMoleculeInteractionPrediction.from_pretrained(
            folder,
            num_labels=classes,
            problem_type="single_label_classification",
            interaction_hidden_size=args.hidden,
            interaction_symmetric=True,
            freeze_encoder=True,
            classifier_dropout=args.dropout,
            dtype=torch.float32,
        )


def standardised(features: np.ndarray, drugs: Sequence[int]) -> np.ndarray:
    """Scale columns to mean 0 and deviation 1 over the given (training) drugs."""
    part = features[list(drugs)]
    return ((features - part.mean(axis=0)) / np.maximum(part.std(axis=0), 1e-6)).astype(np.float32)


def columns_of(folder: str, data: Interactions) -> dict[str, np.ndarray]:
    """
    Compute the features of every drug by column, `[drugs, features]`, except the identifiers, which depend on the
    division.

    Raises:
        ValueError: the checkpoint cannot embed a drug.
    """
    features = {"Morgan": morgan_fingerprints(data.smiles, size=1024)}
    for name, seed in (("frozen, random weights", 0), ("frozen, pre-trained", None)):
        model, processor = checkpoints.load(folder, seed)
        features[name], _ = checkpoints.embed(model, processor, data.smiles, truncation=True)
        failed = np.flatnonzero(np.isnan(features[name]).any(axis=1))
        if len(failed):
            raise ValueError(f"{len(failed)} drugs cannot be embedded, the first is {data.drugs[failed[0]]}")
    return features


def run_seed(seed: int, folder: str, data: Interactions, features: dict, args) -> dict[str, dict]:
    """Compute the scores by column and test for one division of the drugs."""
    from transformers import set_seed

    drugs = division_of(data, seed, args.splits)
    sizes = {"train": args.train_pairs, "valid": args.valid_pairs, **dict.fromkeys(TESTS, args.test_pairs)}
    folds = drawn(folds_of(data.pairs, drugs), sizes, seed)
    labels = torch.from_numpy(data.labels)
    pairs = torch.from_numpy(data.pairs)
    majority = np.bincount(data.labels[folds["train"]]).argmax()
    results = {
        "most frequent class": {
            test: scores(np.full(len(folds[test]), majority), data.labels[folds[test]]) for test in TESTS
        }
    }
    identifiers = np.zeros((len(data.drugs), len(drugs["train"])), dtype=np.float32)
    identifiers[drugs["train"], np.arange(len(drugs["train"]))] = 1.0

    def rows_of(rows: list[int]) -> dict[str, torch.Tensor]:
        return {"first": pairs[rows, 0], "second": pairs[rows, 1], "labels": labels[rows]}

    together = takes_parts(checkpoints.load_processor(folder))
    columns = {"identifiers only": identifiers} | features | (dict.fromkeys(TOGETHER) if together else {})
    for name, values in columns.items():
        if args.columns and name not in args.columns:
            continue
        set_seed(seed)
        collate = rows_of
        if name in TOGETHER:
            options = ("together_epochs", "together_learning_rate", "together_batch_size")
            key = {"column": name, "seed": seed, "checkpoint": fingerprint(folder, name == TOGETHER[1])}
            key |= {"folds": [len(rows) for rows in folds.values()]} | {each: getattr(args, each) for each in options}
            found = Cache(args.cache).get(key, lambda name=name: read_together(name, folder, data, folds, args, seed))
            predicted = {test: np.array(classes) for test, classes in found.items()}
        elif together or not name.startswith("frozen"):
            if name.startswith("frozen"):
                values = standardised(values, drugs["train"])
            model = FeatureInteraction(values, len(data.classes), args.hidden, args.dropout)
        else:
            model = head_of_checkpoint(folder, len(data.classes), args)
            table = torch.from_numpy(standardised(values, drugs["train"]))

            def collate(rows: list[int], table=table) -> dict[str, torch.Tensor]:
                batch = rows_of(rows)
                return {
                    "embeddings": table[batch["first"]],
                    "second_embeddings": table[batch["second"]],
                    "labels": batch["labels"],
                }

        if name not in TOGETHER:
            predicted = train_and_predict(model, collate, data.labels, folds, args, seed)
        results[name] = {test: scores(predicted[test], data.labels[folds[test]]) for test in TESTS}
        print(
            f"seed {seed}, {name}: " + ", ".join(f"{t} {results[name][t]['macro_f1']:.3f}" for t in TESTS), flush=True
        )
    results["pairs"] = {fold: len(rows) for fold, rows in folds.items()}
    return results


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, "interaction")
    parser.add_argument("--interactions", type=Path, help="Parquet (default: ddi/deepddi.parquet of the data folder)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--columns", nargs="*", help="only these columns")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--dropout", type=float, default=0.1)
    for fold, what in (("train", "of training"), ("valid", "of validation"), ("test", "of each test")):
        parser.add_argument(f"--{fold}-pairs", type=int, help=f"draw so many pairs {what} (default: all)")
    parser.add_argument("--together-epochs", type=int, default=2)
    parser.add_argument("--together-learning-rate", type=float, default=5e-4)
    parser.add_argument("--together-batch-size", type=int, default=32)
    parser.add_argument(
        "--cache", type=Path, default=RESULTS / "interaction.cache.jsonl", help="finished fits (together)"
    )
    parser.add_argument("--splits", type=Path, default=SPLITS, help="folder of the split files")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    folder = resolve_checkpoint(args.model)

    data = read_interactions(args.interactions or data_folder() / "ddi" / "deepddi.parquet")
    features = columns_of(folder, data)
    by_seed = {seed: run_seed(seed, folder, data, features, args) for seed in args.seeds}

    first = by_seed[args.seeds[0]]
    rows = []
    for name in first:
        if name != "pairs":
            values = [
                [by_seed[seed][name][test][metric] for seed in args.seeds]
                for test in TESTS
                for metric in ("macro_f1", "accuracy")
            ]
            rows.append([name, *(mean_sd(column) for column in values)])
    several = len(data.pairs) - len(np.unique(data.pairs, axis=0))
    sizes = "; ".join(
        f"seed {seed}: " + ", ".join(f"{fold} {n}" for fold, n in by_seed[seed]["pairs"].items()) for seed in args.seeds
    )
    text = [
        "# Drug-drug interaction (DeepDDI)\n",
        markdown_table(
            ["features", *(f"{test}, {metric}" for test in TESTS for metric in ("macro-F1", "accuracy"))], rows
        ),
        "",
        f"- {len(data.drugs)} drugs, {len(data.pairs)} interactions ({several} more than unordered pairs: pairs with "
        f"several types), {len(data.classes)} classes. Mean ± standard deviation over seeds {args.seeds}; each divides "
        "the drugs anew.",
        f"- Pairs: {sizes}.",
        *(
            [
                f"- Read together: {args.together_epochs} epochs with learning rate {args.together_learning_rate:g}, "
                f"batches of {args.together_batch_size}; the other columns: {args.epochs} epochs, batches of "
                f"{args.batch_size}."
            ]
            if TOGETHER[1] in first
            else []
        ),
        "- The data derive from DrugBank (CC BY-NC): heads trained on them are not shipped.",
    ]
    write_report(args.name, "\n".join(text), {"by_seed": by_seed, "classes": data.classes}, args, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
