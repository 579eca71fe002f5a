"""Yield of Buchwald-Hartwig reactions from four molecules that are read together, beside a one-hot forest.

    python -m benchmarks.reaction_yield --model x-mol-mini

The protocol:

- 3,955 reactions: aryl halide, additive, base, ligand, and the yield as a fraction (Ahneman et al., Science 360, 186
  (2018)). The design is nearly full, so that who knows the numbers of the four molecules knows most of a yield.
- Three splits, of one seed each: **random** (70, 10 and 20 %), **unseen additives** and **unseen halides**: a fifth of
  the additives (halides) is in the test part, a tenth in the validation part, none of them in training.
- Fine-tuned through `hf_molrep.training.finetuning`, as `hf-molrep finetune --smiles-column aryl_halide additive base
  ligand --labels yield` does: from the checkpoint and from random weights of the same architecture, one setting, the
  epoch chosen by RMSE on validation. Baselines: the mean of the training part; a random forest on the one-hot numbers
  of the four molecules (an unseen molecule has none), and on their Morgan fingerprints, one after the other.
- R2, MAE and RMSE on the test part; differences in RMSE with a paired bootstrap of the test reactions, which says
  nothing about other additives or halides.

Results are kept in `--cache`, so an interrupted run continues.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.comparison import paired_bootstrap
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import (
    RESULTS,
    SPLITS,
    argument_parser,
    fingerprint,
    markdown_table,
    write_report,
)
from benchmarks.harness.selection import Cache
from hf_molrep.chem.fingerprints import morgan_fingerprints
from hf_molrep.data.splits import Split, random_split, read_split, write_split
from hf_molrep.inference.checkpoints import resolve_checkpoint
from hf_molrep.metrics import property_metrics, rmse

PARTS = ("aryl_halide", "additive", "base", "ligand")
FRACTIONS = (0.7, 0.1, 0.2)
HELD_OUT = {"unseen additives": "additive", "unseen halides": "aryl_halide"}
SPLIT_NAMES = ("random", *HELD_OUT)
FORESTS = ("one-hot + RF", "Morgan + RF")
NEURAL = ("random weights", "pre-trained")
COLUMNS = ("mean", *FORESTS, *NEURAL)
METRICS = ("r2", "mae", "rmse")


def read_reactions(path: Path) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Read the SMILES of the four parts of each reaction, and the yields `[reactions, 1]`."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=[*PARTS, "yield"]).to_pydict()
    yields = np.array(table["yield"], dtype=np.float64)[:, None]
    return list(zip(*(table[part] for part in PARTS), strict=True)), yields


def held_out(values: Sequence[str], seed: int, fractions: Sequence[float] = FRACTIONS) -> dict[str, np.ndarray]:
    """Divide rows by their value in a column: a fifth of the values to the test part, a tenth to validation."""
    names = sorted(set(values))
    order = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    test, valid = (math.ceil(fraction * len(names)) for fraction in (fractions[2], fractions[1]))
    chosen = {"train": order[test + valid :], "valid": order[test : test + valid], "test": order[:test]}
    column = np.array(values)
    return {part: np.flatnonzero(np.isin(column, members)) for part, members in chosen.items()}


def split_of(name: str, reactions: Sequence[tuple[str, ...]], seed: int, folder: Path) -> dict[str, np.ndarray]:
    """Read a split from its file in `folder`, or make and write it."""
    file = folder / f"buchwald_hartwig_yield.{name.replace(' ', '_')}-{seed}.json"
    texts = [".".join(row) for row in reactions]
    if not file.is_file():
        if name == "random":
            split = random_split(texts, FRACTIONS, seed)
        else:
            values = [row[PARTS.index(HELD_OUT[name])] for row in reactions]
            split = Split(name, seed, None, FRACTIONS, held_out(values, seed))
        folder.mkdir(parents=True, exist_ok=True)
        write_split(file, split, texts)
    return read_split(file, texts).parts


def one_hot(reactions: Sequence[tuple[str, ...]], train: np.ndarray) -> np.ndarray:
    """Make one-hot numbers of the molecules of each part, those of the training part only."""
    columns = []
    for values in zip(*reactions, strict=True):
        known = {value: place for place, value in enumerate(sorted({values[row] for row in train}))}
        hot = np.zeros((len(values), len(known)), dtype=np.float32)
        for row, value in enumerate(values):
            if value in known:
                hot[row, known[value]] = 1.0
        columns.append(hot)
    return np.concatenate(columns, axis=1)


def morgan(reactions: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Compute the Morgan fingerprints of the four parts, one after the other."""
    columns = []
    for values in zip(*reactions, strict=True):
        names = sorted(set(values))
        prints = dict(zip(names, morgan_fingerprints(names, size=1024), strict=True))
        columns.append(np.stack([prints[value] for value in values]))
    return np.concatenate(columns, axis=1)


def forest(features: np.ndarray, yields: np.ndarray, split: dict[str, np.ndarray], trees: int, seed: int) -> dict:
    """Fit a random forest; predictions of the test part. Columns that do not vary in training are left out."""
    from sklearn.ensemble import RandomForestRegressor

    features = features[:, features[split["train"]].std(axis=0) > 0]
    estimator = RandomForestRegressor(trees, max_features=1 / 3, n_jobs=1, random_state=seed)
    estimator.fit(features[split["train"]], yields[split["train"], 0])
    return {"test": estimator.predict(features[split["test"]]).tolist()}


def network(
    column: str, folder: str, reactions: Sequence[tuple[str, ...]], yields: np.ndarray, split: dict, args
) -> dict:
    """Fine-tune the checkpoint, or random weights of its architecture; predictions of the test part."""
    from hf_molrep.training.finetuning import finetune
    from hf_molrep.training.labelled_molecules import LabelledMolecules
    from hf_molrep.training.settings import FinetuningSettings

    result = finetune(
        folder,
        LabelledMolecules(reactions, yields, ["yield"], "regression", split, molecule_columns=PARTS),
        FinetuningSettings(
            epochs=args.epochs,
            learning_rate=args.learning_rate,
            batch_size=args.batch_size,
            seed=args.seed,
            from_scratch=column == "random weights",
            collator_options={"smiles_augmentation": args.augmentation},
        ),
    )
    if result.failures:
        row, error = next(iter(result.failures.items()))
        raise ValueError(f"{len(result.failures)} reactions cannot be read by the model, the first is {row}: {error}")
    return {
        "test": result.test_predictions[:, 0].tolist(),
        "valid_rmse": result.valid_metrics["rmse"],
        "best_epoch": result.best_epoch,
        "updates": result.updates,
    }


def fits(folder: str, reactions: Sequence[tuple[str, ...]], yields: np.ndarray, split: dict, args) -> dict:
    """Return for each column a function that fits it and predicts the test part."""
    result: dict[str, Callable[[], dict]] = {
        "mean": lambda: {"test": [float(yields[split["train"]].mean())] * len(split["test"])},
        "one-hot + RF": lambda: forest(one_hot(reactions, split["train"]), yields, split, args.trees, args.seed),
        "Morgan + RF": lambda: forest(morgan(reactions), yields, split, args.trees, args.seed),
    }
    for column in NEURAL:
        result[column] = lambda column=column: network(column, folder, reactions, yields, split, args)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, "reaction_yield")
    parser.set_defaults(model="x-mol-mini")
    parser.add_argument("--reactions", type=Path, help="Parquet (default: buchwald_hartwig_yield of the data folder)")
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=COLUMNS)
    parser.add_argument("--splits-used", nargs="+", default=list(SPLIT_NAMES), choices=SPLIT_NAMES)
    parser.add_argument("--seed", type=int, default=0, help="of splits, forests and fine-tuning")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--augmentation", type=float, default=0.0, help="share of SMILES drawn at random in training")
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--splits", type=Path, default=SPLITS, help="folder of the split files")
    parser.add_argument("--cache", type=Path, default=RESULTS / "reaction_yield.cache.jsonl", help="finished fits")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    folder = resolve_checkpoint(args.model)
    path = args.reactions or data_folder() / "retrosynthesis" / "buchwald_hartwig_yield.parquet"
    reactions, yields = read_reactions(path)
    cache = Cache(args.cache)

    rows, raw, parts = [], {}, []
    for name in args.splits_used:
        split = split_of(name, reactions, args.seed, args.splits)
        truth = yields[split["test"]]
        parts.append(f"{name} {', '.join(f'{part} {len(members)}' for part, members in split.items())}")
        found, predicted = fits(folder, reactions, yields, split, args), {}
        for column in args.columns:
            key = {"split": name, "column": column, "seed": args.seed}
            if column in FORESTS:
                key["trees"] = args.trees
            if column in NEURAL:
                key["checkpoint"] = fingerprint(folder, column == "pre-trained")
                key |= {each: getattr(args, each) for each in ("epochs", "learning_rate", "batch_size", "augmentation")}
            value = cache.get(key, found[column])
            predicted[column] = np.array(value["test"])[:, None]
            scores = property_metrics(predicted[column], truth, "regression")
            raw.setdefault(name, {})[column] = {metric: scores[metric] for metric in METRICS} | {
                each: number for each, number in value.items() if each != "test"
            }
            rows.append([name, column, *(scores[metric] for metric in METRICS), ""])
            print(f"{name}, {column}: " + ", ".join(f"{metric} {scores[metric]:.3f}" for metric in METRICS), flush=True)
        if "pre-trained" in predicted:
            for row in rows[-len(predicted) :]:
                if row[1] != "pre-trained":
                    compared = paired_bootstrap(
                        rmse, truth, predicted["pre-trained"], predicted[row[1]], greater_is_better=False
                    )
                    row[-1] = f"{compared.difference:+.3f} [{compared.low:+.3f}, {compared.high:+.3f}]"
                    raw[name][row[1]]["pre-trained - this, rmse"] = compared._asdict()
    text = [
        "# Reaction yield (Buchwald-Hartwig)\n",
        markdown_table(["split", "column", "R2", "MAE", "RMSE", "RMSE of pre-trained minus this [95 %]"], rows),
        "",
        f"- {len(reactions)} reactions, yields as fractions; {'; '.join(parts)}. Seed {args.seed} of splits and fits.",
        f"- Networks: {args.epochs} epochs with learning rate {args.learning_rate:g}, batches of {args.batch_size}, "
        f"share of random SMILES {args.augmentation:g}; one setting, not tuned. Forests: {args.trees} trees.",
    ]
    write_report(args.name, "\n".join(text), {"by_split": raw}, args, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
