"""QM9 from 2D graphs: does pre-training with conformers lower the error? 3D Infomax beside other objectives.

    python -m benchmarks.qm9_2d --checkpoints runs/qm9_2d
    python -m benchmarks.qm9_2d --checkpoints runs/qm9_2d --report     # only the table of what is known so far

The protocol:

- **Parts** of [`benchmarks.qm9`]: 50,000 molecules for pre-training, up to 50,000 for fine-tuning, disjoint, validation
  and test. SMILES as QM9 has them (no stereo marks); graphs of the scheme `ogb` without hydrogen atoms (an atom knows
  their number); conformers, in pre-training alone, are QM9's own (DFT), of the heavy atoms.
- **Columns**: one network (PNA, 64 wide, 4 layers) from random weights and pre-trained by five objectives; GraphMVP
  with its GIN of as many parameters, beside random weights of that. Each objective is one `hf-molrep pretrain` on the
  same molecules, with the same epochs, batches and learning rate. Property prediction learns the atomisation energy:
  the only property that (nearly) all of these molecules have and that no table here predicts.
- **Tables**: homo, lumo and gap together, mean absolute errors in meV, for each number of labels of `--curve`; and
  the scarce properties (mu, alpha, r2, zpve, cv) together (`--scarce`). Training sets are nested.
- **Fine-tuning** as `hf-molrep finetune` does by default: the rules of the method (3D Infomax: batch norms start anew,
  staged warming up, absolute error; GraphMVP: dropout 0.2, squared error), for random weights the same loss and dropout
  and one plain warming up. The same updates in all columns; the epoch is chosen on the validation part, and so is the
  learning rate of a column, of `--learning-rates`, with the fewest labels of `--curve` and the first seed. By default
  there is one for all: of 1e-3 and 3e-3 the validation part preferred it for random weights and for 3D Infomax.
- **Improvement** over random weights of the same network: relative difference of the mean absolute errors, means over
  the seeds, with the 95 % interval of a paired bootstrap of the test molecules.

Each result is appended to `--cache` as soon as it is computed; an interrupted run continues from there, and what is not
there stands as "not run" in the table.
"""

import itertools
import json
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks import qm9
from benchmarks.harness.checkpoints import load_processor
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import RESULTS, SPLITS, argument_parser, fingerprint, markdown_table, write_report
from benchmarks.harness.selection import Cache

MEV_PER_HARTREE = 1000 * qm9.EV_PER_HARTREE
# property -> its unit here, and how much of it one unit of the data is
FRONTIER = dict.fromkeys(qm9.TARGETS, ("meV", MEV_PER_HARTREE))
SCARCE = {"mu": ("D", 1), "alpha": ("a0^3", 1), "r2": ("a0^2", 1), "zpve": ("meV", MEV_PER_HARTREE)}
SCARCE |= {"cv": ("cal/mol/K", 1)}
PROPERTIES = {"frontier": FRONTIER, "scarce": SCARCE}
LEARNED = "g4mp2_atomization_energy"  # by property prediction
# fields of the configurations of both networks, of 293 thousand parameters each
NETWORKS: dict[str, dict[str, Any]] = {
    "infomax_3d": {"embedding_dim": 64, "num_layers": 4, "readout_dim": 64},
    "graphmvp": {"graph_scheme": "ogb", "embedding_dim": 114, "num_filters": 64},
}


@dataclass(frozen=True)
class Column:
    """
    A column of the table.

    Attributes:
        method: of the network.
        objective: fields of the configuration; None: random weights.
        options: further options of `hf-molrep pretrain`.
    """

    method: str
    objective: dict[str, Any] | None = None
    options: Sequence[str] = field(default=())


COLUMNS = {
    "random weights": Column("infomax_3d"),
    "3D Infomax": Column("infomax_3d", {"objective": "contrastive"}),
    "distance prediction": Column("infomax_3d", {"objective": "distance_prediction"}),
    "property prediction": Column("infomax_3d", {"objective": "property_prediction"}, ("--labels", LEARNED)),
    "GraphCL": Column("infomax_3d", {"objective": "graph_contrast"}),
    "descriptor prediction": Column("infomax_3d", {"objective": "descriptors"}),
    "GIN, random weights": Column("graphmvp"),
    "GraphMVP": Column("graphmvp", {"objective": "graphmvp"}),
}
# random weights take configuration and processor of a checkpoint of the same network
REFERENCES = {"infomax_3d": ("random weights", "3D Infomax"), "graphmvp": ("GIN, random weights", "GraphMVP")}


class Cell(NamedTuple):
    """What is fitted with `seeds` seeds in every column: so many labels of a table, for so many epochs."""

    table: str
    labels: int
    epochs: int
    seeds: int


def cells_of(args) -> list[Cell]:
    """Read `--curve` and `--scarce`."""
    asked = [("frontier", text) for text in args.curve] + [("scarce", text) for text in args.scarce]
    return [Cell(table, *map(int, text.split(":"))) for table, text in asked]


def source_of(name: str) -> str:
    """The pre-trained column whose checkpoint a column starts from, or takes its configuration from."""
    column = COLUMNS[name]
    return REFERENCES[column.method][1] if column.objective is None else name


def checkpoint_of(name: str, args) -> Path:
    """The folder of that checkpoint."""
    return args.checkpoints / source_of(name).lower().replace(" ", "-")


def pretrain(name: str, args) -> None:
    """Pre-train what a column starts from, if its folder has no checkpoint yet."""
    from hf_molrep.training.pretraining import main as pretrain_method

    column, folder = COLUMNS[source_of(name)], checkpoint_of(name, args)
    data = args.checkpoints / "molecules"
    if (folder / "run.json").is_file():
        return
    if not (data / "molecules.parquet").is_file():
        qm9.main(["--write-pretraining", str(data), "--splits", str(args.splits)])
    fields = folder.with_suffix(".json")
    fields.write_text(json.dumps(NETWORKS[column.method] | column.objective))
    command = {
        "train_data": data / "molecules.parquet",
        "config": fields,
        "explicit_hydrogens": "false",
        "output_dir": folder,
        "num_train_epochs": args.pretraining_epochs,
        "per_device_train_batch_size": args.pretraining_batch_size,
        "learning_rate": args.pretraining_learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "logging_steps": 20,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": "true",
        "seed": 0,
    }
    options = [word for option, value in command.items() for word in (f"--{option}", str(value))]
    pretrain_method(column.method, [*options, *column.options])


def load(splits: Path) -> pd.DataFrame:
    """Load QM9 with its parts, and with the scarce properties where they are known."""
    table = qm9.load(splits)
    scarce = pd.read_parquet(data_folder() / "qm9_3d" / "qm9_properties.parquet", columns=["mol_id", *SCARCE])
    scarce["mol_id"] = scarce.mol_id.str.removeprefix("gdb_").astype("int32")
    return table.drop(columns=["coordinates", "atomic_numbers"]).merge(scarce, on="mol_id", how="left")


class Molecules:
    """The molecules of each cell, and the features of each method, computed when they are first asked for."""

    def __init__(self, table: pd.DataFrame, args):
        self.table, self.args = table, args
        self._features: dict[str, dict[int, dict]] = {method: {} for method in NETWORKS}

    def drawn(self, cell: Cell) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Rows of training, validation and test part, and the split of them."""
        known = self.table[self.table[list(PROPERTIES[cell.table])].notna().all(axis=1)]
        counts = {"train": cell.labels, "valid": self.args.valid, "test": self.args.test}
        parts = [qm9.draw(known, part, count) for part, count in counts.items()]
        if len(parts[0]) < cell.labels:
            raise ValueError(f"{len(parts[0])} molecules to train on have all of {', '.join(PROPERTIES[cell.table])}")
        ends = np.cumsum([0, *map(len, parts)])
        split = {part: np.arange(*ends[place : place + 2]) for place, part in enumerate(counts)}
        return pd.concat(parts, ignore_index=True), split

    def features(self, method: str, rows: pd.DataFrame, checkpoint: Path) -> list[dict]:
        """Features of molecules, in their order."""
        known = self._features[method]
        missing = rows[[number not in known for number in rows.mol_id]]
        if len(missing):
            known |= zip(
                missing.mol_id, load_processor(checkpoint).featurize({"smiles": list(missing.smiles)}), strict=True
            )
        return [known[number] for number in rows.mol_id]


def errors(name: str, cell: Cell, learning_rate: float, seed: int, molecules: Molecules, args) -> dict:
    """Fit a cell of a column: mean absolute error on validation (scaled labels), and those of each test molecule."""
    from hf_molrep.training.finetuning import finetune
    from hf_molrep.training.labelled_molecules import LabelledMolecules
    from hf_molrep.training.settings import FinetuningSettings

    rows, split = molecules.drawn(cell)
    properties = PROPERTIES[cell.table]
    labels = rows[list(properties)].to_numpy(np.float64) * [factor for _, factor in properties.values()]
    column, checkpoint = COLUMNS[name], checkpoint_of(name, args)
    features = molecules.features(column.method, rows, checkpoint)
    result = finetune(
        str(checkpoint),
        LabelledMolecules(list(rows.smiles), labels, list(properties), "regression", split, features=features),
        FinetuningSettings(
            epochs=cell.epochs,
            batch_size=args.batch_size,
            learning_rate=learning_rate,
            seed=seed,
            from_scratch=column.objective is None,
        ),
    )
    scale = labels[split["train"]].std(axis=0)
    wrong = np.abs(result.test_predictions - labels[split["test"]])
    return {
        "valid": float((np.abs(result.valid_predictions - labels[split["valid"]]) / scale).mean()),
        "best_epoch": result.best_epoch,
        "updates": result.updates,
        "errors": [[float(f"{value:.4g}") for value in row] for row in wrong],
    }


class Results:
    """What is known of each cell, column and seed, and what is still to be computed."""

    def __init__(self, args):
        self.args, self.cells = args, cells_of(args)
        self.cache = Cache(args.cache)

    def key(self, name: str, cell: Cell, learning_rate: float, seed: int) -> dict:
        column, args = COLUMNS[name], self.args
        return {
            "column": name,
            **cell._replace(seeds=0)._asdict(),
            "valid": args.valid,
            "test": args.test,
            "batch_size": args.batch_size,
            "checkpoint": fingerprint(str(checkpoint_of(name, args)), column.objective is not None),
            "learning_rate": learning_rate,
            "seed": seed,
        }

    def learning_rate(self, name: str) -> float | None:
        """The learning rate of a column that is best on the validation part; None before all were tried."""
        if not (checkpoint_of(name, self.args) / "run.json").is_file():
            return None
        found = {rate: self.cache.known(self.key(name, self.cells[0], rate, 0)) for rate in self.args.learning_rates}
        return None if None in found.values() else min(found, key=lambda rate: found[rate]["valid"])

    def compute(self, name: str, cell: Cell, seed: int, molecules: Molecules) -> None:
        """Compute what is not known, with the learning rates to choose from where these are not known."""
        rates = [self.learning_rate(name)]
        if cell == self.cells[0] and seed == 0:
            rates = self.args.learning_rates
        for rate in rates:
            key = self.key(name, cell, rate, seed)
            if self.cache.known(key) is None:
                value = self.cache.get(key, lambda rate=rate: errors(name, cell, rate, seed, molecules, self.args))
                print(f"{name}, {cell}, {rate}, seed {seed}: valid {value['valid']:.4f}", flush=True)

    def wrong(self, name: str, cell: Cell) -> np.ndarray | None:
        """Errors `[seeds, molecules, properties]` of the first seeds, as many as are known; None if none is."""
        rate = self.learning_rate(name)
        if rate is None:
            return None
        known = (self.cache.known(self.key(name, cell, rate, seed)) for seed in range(cell.seeds))
        found = [value["errors"] for value in itertools.takewhile(lambda value: value is not None, known)]
        return np.array(found) if found else None


def order(cells: Sequence[Cell], columns: Sequence[str]) -> Iterator[tuple[str, Cell, int]]:
    """Column, cell and seed of all fits: first one seed of every cell, then the others, few labels first."""
    for later in (False, True):
        for cell in cells:
            for seed in range(1, cell.seeds) if later else range(1):
                for name in columns:
                    yield name, cell, seed


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return np.format_float_positional(value, 3, fractional=False, trim="-")


def write_tables(results: Results, args) -> None:
    """Write the tables and the picture of what is known."""
    wrong = {(name, cell): results.wrong(name, cell) for cell in results.cells for name in args.columns}
    text, raw = ["# QM9 from 2D graphs\n"], []
    for table, properties in PROPERTIES.items():
        rows, gains = [], []
        for cell in (cell for cell in results.cells if cell.table == table):
            for name in args.columns:
                errors_here = wrong[name, cell]
                if errors_here is None:
                    rows.append([cell.labels, name, "not run", *[""] * len(properties)])
                    continue
                means = errors_here.mean(axis=1)  # [seeds, properties]
                texts = [digits(mean) for mean in means.mean(axis=0)]
                if len(means) > 1:
                    texts = [f"{mean} ± {sd:.2g}" for mean, sd in zip(texts, means.std(axis=0, ddof=1), strict=True)]
                rows.append([cell.labels, name, len(means), *texts])
                raw.append({"table": table, "labels": cell.labels, "epochs": cell.epochs, "column": name})
                raw[-1] |= {"learning_rate": results.learning_rate(name), "molecules": errors_here.shape[1]}
                raw[-1]["mean_absolute_errors"] = means.tolist()
                reference = REFERENCES[COLUMNS[name].method][0]
                random = wrong.get((reference, cell))
                if name != reference and random is not None:
                    seeds = min(len(errors_here), len(random))
                    pairs = zip(*(np.moveaxis(each[:seeds], 2, 0) for each in (errors_here, random)), strict=True)
                    found = [qm9.improvement(own, other, args.resamples) for own, other in pairs]
                    texts = [f"{mean:.1f} ({low:.1f} ... {high:.1f})" for mean, low, high in found]
                    gains.append([cell.labels, name, seeds, *texts])
                    raw[-1]["improvement"] = dict(zip(properties, found, strict=True))
        if rows:
            molecules = {entry["molecules"] for entry in raw if entry["table"] == table}
            header = [f"{name} / {unit}" for name, (unit, _) in properties.items()]
            text += [
                f"\n## {', '.join(properties)}\n\nMean absolute errors of {'/'.join(map(str, molecules))} test "
                "molecules, mean ± standard deviation over the seeds (of head and order; the labels are the same):\n",
                markdown_table(["labels", "column", "seeds", *header], rows),
                "\nImprovement over random weights of the same network, per cent (95 % interval, paired bootstrap of "
                "the test molecules):\n",
                markdown_table(["labels", "column", "seeds", *properties], gains),
            ]
    picture = args.results / f"{args.name}.png"
    draw(wrong, [cell for cell in results.cells if cell.table == "frontier"], args.columns, picture)
    runs = pretraining_runs(args)
    text += [
        f"\n![Error against number of labels]({picture.name})\n",
        "## Pre-training\n",
        markdown_table(["column", "molecules", "epochs", "updates", "last loss", "hours"], runs),
        "",
        *notes(results, args),
    ]
    write_report(args.name, "\n".join(text), {"results": raw}, args)


def pretraining_runs(args) -> list[list]:
    """What the runs of pre-training were."""
    rows = []
    for name in args.columns:
        folder = checkpoint_of(name, args)
        if COLUMNS[name].objective is not None and (folder / "run.json").is_file():
            run = json.loads((folder / "run.json").read_text())
            history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
            losses = [entry["loss"] for entry in history if "loss" in entry]
            last = f"{losses[-1]:.3g}" if losses else "n/a"
            hours = f"{run['hours_since_last_start']:.2f}"
            rows.append([name, run["train_rows"], f"{run['epochs']:.3g}", run["steps"], last, hours])
    return rows


def notes(results: Results, args) -> list[str]:
    """What the tables do not tell."""
    rates = {name: rate for name in args.columns if (rate := results.learning_rate(name)) is not None}
    chosen = ", ".join(f"{rate:g} ({name})" for name, rate in rates.items())
    if len(args.learning_rates) == 1:
        chosen = f"{args.learning_rates[0]:g} in all columns"
    lengths = ", ".join(f"{cell.epochs} for {cell.labels} labels ({cell.table})" for cell in results.cells)
    return [
        "- Improvements are of means over the seeds; their intervals are over test molecules and not over seeds.",
        f"- Epochs of fine-tuning, in batches of {args.batch_size}: {lengths}; those are kept that are best on "
        f"{args.valid} validation molecules. Learning rate: {chosen}.",
        "- Short runs, of pre-training and fine-tuning: a part of an improvement may be that what is pre-trained "
        "learns faster. The paper pre-trains and fine-tunes for up to 1,000 epochs.",
        "- Pre-trained PNAs are fine-tuned by 3D Infomax's rules, whatever the objective was: batch norms start anew, "
        "norms, head and the rest warm up one after the other. Random weights warm up once. The GINs have dropout 0.2 "
        "and the squared error, as GraphMVP has, and are not to be compared with the PNAs.",
        f"- Property prediction learns `{LEARNED}`, known for nearly all molecules of pre-training and in no table "
        "here. It is close kin of zpve, alpha and cv, which also nearly are sums over atoms and bonds.",
        "- All columns see heavy atoms alone, in graphs and conformers (the paper has hydrogen atoms in both).",
        "- The `seconds` below are those of the last call, which may have found its results in the cache.",
    ]


def draw(errors_of: dict, cells: Sequence[Cell], columns: Sequence[str], file: Path) -> None:
    """Draw error against number of labels, a line per column and a panel per property."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    for task, (axes, name) in enumerate(zip(figure.subplots(1, len(FRONTIER)), FRONTIER, strict=True)):
        for place, column in enumerate(columns):
            known = [(cell.labels, errors_of[column, cell]) for cell in cells if errors_of[column, cell] is not None]
            if known:
                mean = [wrong[:, :, task].mean() for _, wrong in known]
                random = COLUMNS[column].objective is None
                style = {"linestyle": "--" if random else "-", "color": f"C{place}", "marker": "o", "markersize": 4}
                axes.plot([labels for labels, _ in known], mean, label=column, **style)
        axes.set(title=name, xlabel="labels", xscale="log")
        ticks = [cell.labels for cell in cells]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("mean absolute error / meV")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)


def parser() -> ArgumentParser:
    """The options of this benchmark."""
    parser = argument_parser(__doc__, "qm9_2d", model=False)
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of the pre-trained weights, made there")
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=list(COLUMNS))
    cell = "LABELS:EPOCHS:SEEDS"
    parser.add_argument("--curve", nargs="+", metavar=cell, default=["1000:45:3", "5000:15:3", "50000:3:1"])
    parser.add_argument("--scarce", nargs="*", metavar=cell, default=["5000:15:1"], help="of the scarce properties")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-3], help="to choose from")
    parser.add_argument("--batch-size", type=int, default=128, help="of fine-tuning")
    parser.add_argument("--pretraining-epochs", type=float, default=5)
    parser.add_argument("--pretraining-batch-size", type=int, default=256)
    parser.add_argument("--pretraining-learning-rate", type=float, default=1e-3)
    parser.add_argument("--valid", type=int, default=500, help="molecules")
    parser.add_argument("--test", type=int, help="molecules; default: all of the part")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--splits", type=Path, default=SPLITS, help="folder of the file with the parts")
    parser.add_argument("--cache", type=Path, default=RESULTS / "qm9_2d.cache.jsonl", help="finished results")
    parser.add_argument("--report", action="store_true", help="compute nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    results = Results(args)
    if not args.report:
        import torch

        torch.set_num_threads(args.threads)
        args.checkpoints.mkdir(parents=True, exist_ok=True)
        for name in args.columns:
            pretrain(name, args)
        molecules = Molecules(load(args.splits), args)
        for name, cell, seed in order(results.cells, args.columns):
            results.compute(name, cell, seed, molecules)
    write_tables(results, args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
