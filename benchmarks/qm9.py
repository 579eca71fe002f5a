"""QM9 frontier orbitals from 3D: a checkpoint compared with random weights of its architecture and with baselines.

    python -m benchmarks.qm9 --write-pretraining qm9_pretraining      # what a checkpoint may be pre-trained on
    python -m benchmarks.qm9 --model uni-mol-mini --sizes 1000 5000

The protocol:

- **Parts**, saved in `benchmarks/splits/qm9.parquet`: 50,000 molecules for pre-training (first those without lumo and
  gap), 50,000 for fine-tuning, validation and test; no two parts share an InChIKey first block. `--write-pretraining`
  writes only the first part. Training sets of `--sizes` are nested.
- **Targets** homo, lumo and gap together, in eV (the data are in hartree); mean absolute errors in meV.
- **Coordinates**: `rdkit` (ETKDGv3 + MMFF94 from the SMILES with the stereo that QM9's geometry shows: the headline)
  and `dft` (QM9's own), the same source in training and test.
- **Columns**: `pre-trained`, `random weights` (same epochs, hence the same updates), and in the row of each size
  `Morgan + RF` and `descriptors + GB`, which see no coordinates. Selection on the validation part only: `--trials`
  settings per column, tried with the first seed.
- **Improvement** of pre-training over random weights: relative difference of the mean absolute errors, means over the
  seeds, with the 95 % interval of a paired bootstrap of the test molecules.

Each result is appended to `--cache` as soon as it is computed; an interrupted run continues from there.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.harness.checkpoints import load_processor
from benchmarks.harness.columns import NEURAL, SETTINGS, epochs, fit, fixed_features
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import RESULTS, SPLITS, argument_parser, fingerprint, markdown_table, write_report
from benchmarks.harness.selection import Cache, choose_then_seed
from benchmarks.moleculenet import COLUMNS
from hf_molrep.chem.conformers import generate_conformers
from hf_molrep.chem.coordinates import stereo_from_coordinates
from hf_molrep.chem.smiles import MoleculeError, inchikey_block
from hf_molrep.data.splits import block_fraction
from hf_molrep.inference.checkpoints import resolve_checkpoint

TARGETS = ["homo", "lumo", "gap"]
EV_PER_HARTREE = 27.211386245988
PRETRAINING, FINETUNING = 50_000, 50_000
VALID, TEST = 0.03, 0.05  # shares of the labelled molecules
PARTS_FILE = "qm9.parquet"


def divide(blocks: Sequence[str], labelled: np.ndarray) -> list[str]:
    """
    Choose the part of each molecule: `test`, `valid`, `pretrain` (first those without labels), `train`, or "".

    Args:
        blocks: first blocks of InChIKeys; a block is in one part only.
        labelled: which molecules have all targets.
    """
    fraction = np.array([block_fraction(f"qm9:{block}") for block in blocks])
    parts = np.full(len(blocks), "", dtype=object)
    held_out = fraction < VALID + TEST
    parts[(fraction < TEST) & labelled] = "test"
    parts[(fraction >= TEST) & held_out & labelled] = "valid"
    # whole blocks: molecules with and without labels may share a block
    unlabelled = {block for block, known in zip(blocks, labelled, strict=True) if not known}
    without = np.array([block in unlabelled for block in blocks])
    order = np.lexsort((-fraction, ~without))
    free = order[~held_out[order]]
    cut = PRETRAINING
    while 0 < cut < len(free) and blocks[free[cut]] == blocks[free[cut - 1]]:
        cut += 1
    parts[free[:cut]] = "pretrain"
    rest = free[cut:]
    parts[rest[labelled[rest]][:FINETUNING]] = "train"
    return parts.tolist()


def blocks_of(table: pd.DataFrame) -> list[str]:
    """Compute the first blocks of the InChIKeys."""
    return [inchikey_block(text) for text in tqdm(table.smiles, desc="InChIKeys")]


def load(splits: Path) -> pd.DataFrame:
    """
    Load QM9's geometries with `part` and `fraction` (by which molecules are drawn); the parts are made where
    `<splits>/qm9.parquet` is missing, which takes a minute.
    """
    table = pd.read_parquet(data_folder() / "qm9_3d" / "qm9_3d.parquet")
    table["mol_id"] = table.mol_id.str.removeprefix("gdb_").astype("int32")
    table = table.sort_values("mol_id", ignore_index=True)
    file = splits / PARTS_FILE
    if not file.is_file():
        parts = divide(blocks_of(table), table[TARGETS].notna().all(axis=1).to_numpy())
        splits.mkdir(parents=True, exist_ok=True)
        made = pd.DataFrame({"mol_id": table.mol_id, "part": pd.Categorical(parts)})
        encoding = {
            "use_dictionary": ["part"],
            "column_encoding": {"mol_id": "DELTA_BINARY_PACKED"},
        }  # a tenth as large
        made.to_parquet(file, index=False, compression="zstd", **encoding)
    made = pd.read_parquet(file)
    if not np.array_equal(made.mol_id, table.mol_id):
        raise ValueError(f"{file} was made for other molecules")
    table["part"] = made.part.astype(str)
    table["fraction"] = [block_fraction(f"qm9:{number}") for number in table.mol_id]
    return table


def draw(table: pd.DataFrame, part: str, molecules: int | None) -> pd.DataFrame:
    """Draw molecules of a part by `fraction`; smaller draws are subsets of larger ones."""
    rows = table[table.part == part].sort_values(["fraction", "mol_id"], ascending=False)
    return rows if molecules is None else rows.iloc[:molecules]


class Task:
    """Molecules, targets in eV `[molecules, 3]`, the split, and features of every source, computed on demand."""

    def __init__(self, table: pd.DataFrame, size: int, args):
        parts = {"train": size, "valid": args.valid, "test": args.test}
        drawn = {part: draw(table, part, count) for part, count in parts.items()}
        self.rows = pd.concat(drawn.values(), ignore_index=True)
        ends = np.cumsum([0, *(len(part) for part in drawn.values())])
        self.split = {name: np.arange(ends[k], ends[k + 1]) for k, name in enumerate(drawn)}
        self.labels = self.rows[TARGETS].to_numpy(dtype=np.float64) * EV_PER_HARTREE
        self.smiles = [
            stereo_from_coordinates(row.smiles, row.atomic_numbers, row.coordinates)
            for row in self.rows.itertuples(index=False)
        ]
        self._features: dict = {}
        self.processes = args.threads

    def features(self, column: str, source: str, checkpoint: str):
        key = source if column in NEURAL else column
        if key not in self._features:
            if column not in NEURAL:
                self._features[key] = fixed_features(column, self.smiles)
            else:
                processor = load_processor(checkpoint)
                z, pos = list(self.rows.atomic_numbers), list(self.rows.coordinates)
                if source == "rdkit":
                    found = generate_conformers(self.smiles, processes=self.processes, on_error="skip")
                    failed = [result for result in found if isinstance(result, MoleculeError)]
                    print(f"{len(failed)} of {len(found)} molecules have no RDKit conformer")
                    z = [[1] if isinstance(result, MoleculeError) else result.z for result in found]
                    pos = [[0.0] * 3 if isinstance(result, MoleculeError) else result.pos for result in found]
                made = processor.featurize({"z": z, "pos": pos})
                if source == "rdkit":
                    made = [f if isinstance(f, MoleculeError) else m for f, m in zip(found, made, strict=True)]
                self._features[key] = made
        return self._features[key]


def errors(column: str, setting: dict, task: Task, source: str, seed: int, checkpoint: str, args) -> dict:
    """Compute the mean absolute error on validation (standardised targets) and absolute errors of test molecules."""
    features = task.features(column, source, checkpoint)
    valid, test = fit(
        column, setting, features, task.smiles, task.labels, TARGETS, "regression", task.split, seed, checkpoint, args
    )
    scale = task.labels[task.split["train"]].std(axis=0)
    difference = np.abs(valid - task.labels[task.split["valid"]]) / scale
    wrong = 1000 * np.abs(test - task.labels[task.split["test"]])
    return {
        "valid": float(np.nanmean(difference)),
        "errors": [[None if math.isnan(value) else float(f"{value:.5g}") for value in row] for row in wrong],
    }


def improvement(own: np.ndarray, other: np.ndarray, resamples: int, seed: int = 0) -> tuple[float, float, float]:
    """
    Compute the relative reduction of the mean absolute error, in per cent, and its 95 % interval.

    Args:
        own, other: absolute errors `[seeds, molecules]`.
    """
    own, other = own.mean(axis=0), other.mean(axis=0)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(own), size=(resamples, len(own)))
    ratios = 100 * (1 - own[drawn].mean(axis=1) / other[drawn].mean(axis=1))
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(100 * (1 - own.mean() / other.mean())), float(low), float(high)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, "qm9")
    parser.set_defaults(model="uni-mol-mini")
    parser.add_argument("--write-pretraining", type=Path, metavar="FOLDER", help="only write the part for pre-training")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000], help="molecules of the training part")
    parser.add_argument("--valid", type=int, default=1000, help="molecules")
    parser.add_argument("--test", type=int, default=2000, help="molecules")
    parser.add_argument("--sources", nargs="+", default=["rdkit", "dft"], choices=["rdkit", "dft"])
    parser.add_argument("--columns", nargs="+", default=COLUMNS, choices=COLUMNS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--trials", type=int, default=2, choices=[1, 2, 3, 4], help="settings per column")
    parser.add_argument("--epochs", type=int, default=10, help="of the neural columns")
    parser.add_argument("--updates", type=int, default=1000, help="least number of updates")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--trees", type=int, default=500, help="of the random forest")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--splits", type=Path, default=SPLITS, help="folder of the file with the parts")
    parser.add_argument("--cache", type=Path, default=RESULTS / "qm9.cache.jsonl", help="finished results")
    args = parser.parse_args(argv)
    table = load(args.splits)
    if args.write_pretraining:
        args.write_pretraining.mkdir(parents=True, exist_ok=True)
        table["inchikey_block"] = blocks_of(table)
        columns = ["mol_id", "smiles", "inchikey_block", "atomic_numbers", "coordinates", "g4mp2_atomization_energy"]
        table[table.part == "pretrain"][columns].to_parquet(args.write_pretraining / "molecules.parquet", index=False)
        held_out = table[table.part.isin(["valid", "test"])][["inchikey_block"]].drop_duplicates()
        held_out.to_parquet(args.write_pretraining / "held_out.parquet", index=False)
        print(table.part.value_counts().to_string())
        return 0
    import torch

    torch.set_num_threads(args.threads)
    checkpoint = resolve_checkpoint(args.model)
    cache = Cache(args.cache)
    rows, gains, raw, left_out = [], [], [], {}
    for size in args.sizes:
        task = Task(table, size, args)
        for source in args.sources:
            found: dict[str, np.ndarray] = {}
            for column in args.columns:
                neural = column in NEURAL
                if not neural and source != args.sources[0]:
                    continue  # they see no coordinates
                identity = {"size": size, "valid": args.valid, "test": args.test, "column": column}
                if neural:
                    identity |= {
                        "source": source,
                        "checkpoint": fingerprint(checkpoint, column != "random weights"),
                        "epochs": epochs(task.split, args),
                        "batch_size": args.batch_size,
                    }
                elif column == "Morgan + RF":
                    identity |= {"trees": args.trees}
                run = SimpleNamespace(column=column, source=source, identity=identity)

                def result(setting: dict, seed: int, run=run, task=task) -> dict:
                    value = cache.get(
                        run.identity | {"setting": setting, "seed": seed},
                        lambda: errors(run.column, setting, task, run.source, seed, checkpoint, args),
                    )
                    print(f"{run.identity} {setting} {seed}: valid {value['valid']:.4f}", flush=True)
                    return value

                records = choose_then_seed(SETTINGS[column][: args.trials], args.seeds, result, greater_is_better=False)
                chosen = records[0]["setting"]
                wrong = np.array([record["errors"] for record in records], dtype=np.float64)
                found[column] = wrong
                if absent := int(np.isnan(wrong[0]).all(axis=1).sum()):
                    left_out[size, source] = absent
                means = np.nanmean(wrong, axis=1)  # [seeds, targets]
                cells = [f"{mean:.1f}" for mean in means.mean(axis=0)]
                if len(means) > 1:
                    cells = [f"{cell} ± {sd:.1f}" for cell, sd in zip(cells, means.std(axis=0, ddof=1), strict=True)]
                rows.append([size, source if neural else "not used", column, *cells])
                raw.append({**identity, "setting": chosen, "seeds": args.seeds, "mae_mev": means.tolist()})
            if set(NEURAL) <= set(found):
                kept = ~np.isnan(found[NEURAL[0]]).any(axis=(0, 2)) & ~np.isnan(found[NEURAL[1]]).any(axis=(0, 2))
                for target, name in enumerate(TARGETS):
                    pair = [found[column][:, kept, target] for column in NEURAL]
                    mean, low, high = improvement(*pair, args.resamples)
                    gains.append([size, source, name, f"{mean:.1f} %", f"{low:.1f} ... {high:.1f} %"])
    several = len(args.seeds) > 1
    spread = f"mean ± standard deviation over seeds {args.seeds}" if several else f"seed {args.seeds[0]}"
    text = [
        "# QM9: homo, lumo, gap\n",
        f"Mean absolute errors in meV, {spread}; {args.test} test molecules.\n",
        markdown_table(["training molecules", "coordinates", "column", *TARGETS], rows),
    ]
    if gains:
        text += [
            "\nImprovement of pre-trained over random weights (95 % interval, paired bootstrap of test molecules):\n",
            markdown_table(["training molecules", "coordinates", "target", "improvement", "interval"], gains),
        ]
    text += [
        f"\n- Settings per column: {args.trials}, chosen on {args.valid} validation molecules; both neural columns "
        f"have {args.epochs} epochs and at least {args.updates} updates.",
        *(
            f"- {size} training molecules, {source}: {absent} test molecules have no conformer; the neural columns "
            "leave them out, the others do not."
            for (size, source), absent in left_out.items()
        ),
        "- `rdkit` coordinates are computed from SMILES, `dft` are QM9's own; the same in training and test.",
    ]
    write_report(args.name, "\n".join(text), {"results": raw}, args, checkpoint)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
