"""
Conformer generation on the test part of a scaffold split: RDKit's conformers, clustered, and moved by a model.

    python -m benchmarks.conformer_generation [--model FOLDER] [--molecules 20] [--pool_per_conformer 10]

For each molecule twice as many conformers are generated as there are references (as in the original, with `--ratio`).
Distances are those of heavy atoms, with equivalent atoms exchanged; nothing is minimised afterwards. The references are
at most ten conformers of a molecule, not an ensemble: compare the rows with each other, not with numbers of papers.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.comparison import paired_bootstrap
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import argument_parser, markdown_table, write_report
from hf_molrep.chem.conformer_clustering import cluster_conformers, conformer_pools, mol_with_conformers
from hf_molrep.chem.conformer_embedding import keeps_stereo
from hf_molrep.chem.conformer_metrics import best_rmsd, coverage_and_matching
from hf_molrep.chem.conformers import Conformers
from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.data.conformer_pairs import Ensemble, read_ensembles, read_molecules
from hf_molrep.data.splits import PARTS, scaffold_split
from hf_molrep.inference.checkpoints import load_checkpoint

MINIMISED, CLUSTERED, MOVED = "RDKit, minimised", "RDKit + clustering", "RDKit + clustering + model"


def starting_conformers(
    ensembles: Sequence[Ensemble], ratio: int, pool_per_conformer: int, seed: int, **options
) -> dict[str, list[Conformers | MoleculeError]]:
    """
    Compute `ratio` conformers for each reference of a molecule: the first minimised ones of its pool, and those that
    represent its clusters. The pool has `pool_per_conformer` minimised conformers for each wanted one, and a quarter as
    many that are not minimised.
    """
    found: dict[str, list] = {MINIMISED: [None] * len(ensembles), CLUSTERED: [None] * len(ensembles)}
    wanted = [ratio * len(ensemble.conformers.pos) for ensemble in ensembles]
    for number in sorted(set(wanted)):  # one call for all molecules that need the same number
        places = [place for place, each in enumerate(wanted) if each == number]
        smiles = [ensembles[place].smiles for place in places]
        pools = conformer_pools(smiles, number * pool_per_conformer, seed=seed, on_error="skip", **options)
        for place, pool in zip(places, pools, strict=True):
            if isinstance(pool, MoleculeError):
                found[MINIMISED][place] = found[CLUSTERED][place] = pool
                continue
            chosen = cluster_conformers(pool.pos, number, seed)
            found[MINIMISED][place] = pool._replace(pos=pool.pos[-number:])  # the minimised ones are the last
            found[CLUSTERED][place] = pool._replace(pos=pool.pos[chosen])
    return found


def scores_of(
    ensembles: Sequence[Ensemble], generated: Sequence[Conformers | MoleculeError], thresholds: Sequence[float]
) -> list[dict | None]:
    """Compute the metrics of each molecule; None if nothing was generated."""
    scores: list[dict | None] = []
    for ensemble, conformers in zip(ensembles, generated, strict=True):
        if isinstance(conformers, MoleculeError):
            scores.append(None)
            continue
        own = mol_with_conformers(ensemble.smiles, conformers)
        rmsd = best_rmsd(own, mol_with_conformers(ensemble.smiles, ensemble.conformers))
        scores.append({"name": ensemble.name, **coverage_and_matching(rmsd, thresholds)})
    return scores


def stereo_lost(
    ensembles: Sequence[Ensemble],
    starts: Sequence[Conformers | MoleculeError],
    moved: Sequence[Conformers | MoleculeError],
) -> tuple[int, int]:
    """
    Count the conformers with the specified stereo before the model moves them, and those of them without it afterwards.
    A stereo centre with a hydrogen without coordinates (of an ammonium) is not judged.
    """
    before = lost = 0
    for ensemble, start, end in zip(ensembles, starts, moved, strict=True):
        if isinstance(start, MoleculeError):
            continue
        mols = [mol_with_conformers(ensemble.smiles, conformers) for conformers in (start, end)]
        sound = [k for k in range(len(start.pos)) if keeps_stereo(mols[0], k)]
        before += len(sound)
        lost += sum(not keeps_stereo(mols[1], k) for k in sound)
    return before, lost


def mean_of(_: np.ndarray, values: np.ndarray) -> float:
    """Metric for the bootstrap: the mean over molecules of values that need no labels."""
    return float(values.mean())


def table_row(name: str, scores: Sequence[dict], kind: str) -> list:
    """Make the row of a method: mean and median MAT, and mean COV at each threshold."""
    matching = np.array([score[f"mat_{kind}"] for score in scores])
    coverage = np.array([score[f"cov_{kind}"] for score in scores]).mean(axis=0)
    return [name, float(matching.mean()), float(np.median(matching)), *(f"{100 * share:.1f}" for share in coverage)]


def load_model(folder: str, names: Sequence[str]):
    """
    Load the model and the feature extractor of a folder or a Hub repository.

    Raises:
        SystemExit: it was trained on one of `names`.
    """
    from hf_molrep import AutoModelForConformerGeneration

    record = Path(folder) / "conformer_training.json"
    if record.is_file():
        common = set(json.loads(record.read_text())["names"]) & set(names)
        if common:
            raise SystemExit(f"{folder} was trained on {len(common)} of the molecules to be measured on")
    return load_checkpoint(AutoModelForConformerGeneration, folder, device="cpu")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.set_defaults(model=None)
    parser.add_argument("--data", type=Path, help="Parquet (default: conformers/ of the data folder)")
    parser.add_argument("--part", choices=PARTS, default="test", help="of the scaffold split")
    parser.add_argument("--molecules", type=int, help="draw so many of the part with --seed; default all")
    parser.add_argument("--ratio", type=int, default=2, help="generated conformers for each reference")
    parser.add_argument("--pool_per_conformer", type=int, default=10, help="minimised conformers for each wanted one")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0, 1.25])
    parser.add_argument("--cache", default="default", help="SQLite file of computed conformers")
    parser.add_argument("--processes", type=int, default=1, help="processes that compute conformers")
    parser.add_argument("--time_limit", type=float, default=120.0, help="CPU seconds of one molecule")
    parser.add_argument("--seed", type=int, default=42, help="seed of conformers, clusters and the choice of molecules")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    path = args.data or data_folder() / "conformers" / "conformer_benchmark.parquet"
    molecules = read_molecules(path)
    names = list(molecules)
    part = [names[index] for index in scaffold_split(list(molecules.values())).parts[args.part]]
    total = len(part)
    if args.molecules is not None and args.molecules < total:
        chosen = np.random.default_rng(args.seed).choice(total, args.molecules, replace=False)
        part = [part[index] for index in np.sort(chosen)]
    loaded = None if args.model is None else load_model(args.model, part)

    ensembles, refused = read_ensembles(path, part)
    options = {"cache": args.cache, "processes": args.processes, "time_limit": args.time_limit}
    generated = starting_conformers(ensembles, args.ratio, args.pool_per_conformer, args.seed, **options)
    if loaded is not None:
        from hf_molrep.models.uni_mol import move_conformers

        usable = [start for start in generated[CLUSTERED] if not isinstance(start, MoleculeError)]
        moved = iter(move_conformers(*loaded, usable))
        generated[MOVED] = [
            start if isinstance(start, MoleculeError) else start._replace(pos=next(moved))
            for start in generated[CLUSTERED]
        ]
    raw = {method: scores_of(ensembles, conformers, args.thresholds) for method, conformers in generated.items()}
    failures = Counter(start.reason for start in generated[CLUSTERED] if isinstance(start, MoleculeError))
    scores = {method: [score for score in found if score is not None] for method, found in raw.items()}
    if not scores[CLUSTERED]:
        raise SystemExit("no conformers were generated at all")

    unspecified = sum(
        "stereo_unspecified" in start.flags for start in generated[CLUSTERED] if not isinstance(start, MoleculeError)
    )
    count = sum(len(ensemble.conformers.pos) for ensemble in ensembles)
    header = ["conformers", "MAT mean", "MAT median", *(f"COV {threshold:g} Å" for threshold in args.thresholds)]
    text = ["# Conformer generation\n"]
    for kind, question in (
        ("recall", "for each reference conformer the nearest generated one"),
        ("precision", "for each generated conformer the nearest reference"),
    ):
        table = [table_row(method, found, kind) for method, found in scores.items()]
        text += [f"## {kind.capitalize()}: {question}\n", markdown_table(header, table), ""]
    intervals = {}
    if MOVED in scores:
        for kind in ("recall", "precision"):
            before, after = (np.array([s[f"mat_{kind}"] for s in scores[m]]) for m in (CLUSTERED, MOVED))
            found = paired_bootstrap(mean_of, before, after, before, greater_is_better=False, resamples=10_000)
            intervals[kind] = [found.difference, found.low, found.high]
            low, high = found.low, found.high
            text.append(
                f"- What the model changes in MAT ({kind}), mean over molecules: {intervals[kind][0]:+.4f} Å, 95 % "
                f"interval {low:+.4f} ... {high:+.4f} (molecules drawn anew)."
            )
        before, lost = stereo_lost(ensembles, generated[CLUSTERED], generated[MOVED])
        text.append(f"- The model turned over the stereo of {lost:,} of {before:,} conformers.")
    text += [
        f"- {len(scores[CLUSTERED])} of {total} molecules of the {args.part} part (scaffold split of {len(names)} "
        f"molecules), {count} reference conformers, {args.ratio} generated for each. Means over molecules; MAT in "
        f"angstrom, COV in percent. Heavy atoms, equivalent ones exchanged, no force field afterwards.",
        f"- In the pool {args.pool_per_conformer} conformers minimised by MMFF94 for each that is wanted, a quarter "
        "as many that are not. Of each cluster the conformer nearest to its centre.",
        f"- Left out: {sum(refused.values())} reference conformers whose coordinates do not fit their SMILES, "
        f"{sum(failures.values())} molecules without conformers of RDKit. Stereo not fully specified: {unspecified}.",
        "- Up to ten references a molecule are not an ensemble: the rows compare with each other alone.",
    ]
    raw_numbers = {"molecules": raw, "refused": refused, "failures": failures, "change": intervals}
    write_report("conformer_generation", "\n".join(text), raw_numbers, args, args.model)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
