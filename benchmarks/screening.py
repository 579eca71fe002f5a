"""Virtual screening, neighbours and clusters: frozen embeddings compared with Morgan fingerprints.

    python -m benchmarks.screening

**Screening** on the RDKit benchmarking platform: 17 MUV targets (headline), 21 DUD, 80 ChEMBL. For each target
`--draws` fixed draws of five actives are the queries; all other molecules are ranked by their largest similarity to a
query (max-fusion), without molecules that have the canonical SMILES of a query. AUC, BEDROC (alpha 20) and enrichment
factor at 1 %, averaged over draws, then over the targets of a source. The same with only those actives whose Tanimoto
similarity to every query is below 0.4 (without draws that leave none). Ties count half in AUC and against the method in
the other two.

Columns: cosine of the checkpoint's embeddings, of the same architecture with random weights, Tanimoto of Morgan
fingerprints (radius 2, 2,048 bits), distance in eight simple properties (standardised), random scores.

**Neighbours and clusters** on the actives of the ChEMBL targets: share of the five nearest molecules with the same
target, and k-means (k = number of targets, five seeds) compared with the targets and with Murcko scaffolds of at least
ten molecules: adjusted mutual information (0 = chance, 1 = equal) and purity.
"""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.fingerprints import properties, tanimoto
from benchmarks.harness import checkpoints
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import argument_parser, fingerprint, markdown_table, mean_sd, write_report
from hf_molrep.chem import MoleculeError, canonical_smiles_batch
from hf_molrep.chem.fingerprints import morgan_fingerprints
from hf_molrep.chem.scaffold import scaffold
from hf_molrep.inference.checkpoints import resolve_checkpoint

ALPHA, TOP, QUERIES, DISSIMILAR = 20.0, 0.01, 5, 0.4
METRICS = ("auc", "bedroc", "ef1")
SHARED_DECOYS = "zinc"  # target name of ChEMBL's decoys, which all of its targets share


def screening_metrics(active_scores: np.ndarray, decoy_scores: np.ndarray, sorted_decoys: bool = False) -> dict:
    """
    ROC-AUC (ties count half), BEDROC with alpha 20 (Truchon and Bayly 2007, eq. 36) and the enrichment factor of the
    first 1 % (rounded up; both with actives behind decoys of the same score).

    Args:
        active_scores, decoy_scores: `[actives]`, `[decoys]`, higher is better; neither empty.
        sorted_decoys: the decoys are in ascending order already.
    Raises:
        ValueError: there is no active or no decoy, or a score is NaN.
    """
    actives, decoys = len(active_scores), len(decoy_scores)
    if not actives or not decoys or np.isnan(active_scores).any() or np.isnan(decoy_scores).any():
        raise ValueError("screening needs actives, decoys and scores that are numbers")
    decoy_scores = decoy_scores if sorted_decoys else np.sort(decoy_scores)
    total = actives + decoys
    worse = np.searchsorted(decoy_scores, active_scores, side="left")
    not_better = np.searchsorted(decoy_scores, active_scores, side="right")
    auc = float((worse + not_better).mean() / (2 * decoys))

    # rank of each active: better or equal decoys, better actives, itself
    ranks = np.sort(decoys - worse) + np.arange(1, actives + 1)
    ratio = actives / total
    sum_of_weights = np.exp(-ALPHA * ranks / total).sum()
    enhancement = sum_of_weights / (ratio * (1 - np.exp(-ALPHA)) / (np.exp(ALPHA / total) - 1))
    factor = ratio * np.sinh(ALPHA / 2) / (np.cosh(ALPHA / 2) - np.cosh(ALPHA / 2 - ALPHA * ratio))
    bedroc = float(enhancement * factor + 1 / (1 - np.exp(ALPHA * (1 - ratio))))

    first = int(np.ceil(TOP * total))
    return {"auc": auc, "bedroc": bedroc, "ef1": float((ranks <= first).sum() / actives / (first / total))}


class Target:
    """A target: indices of its molecules among all embedded ones, actives first, and the number of actives."""

    def __init__(self, source: str, name: str, actives: list[int], decoys: list[int]):
        self.source, self.name, self.count = source, name, len(actives)
        self.members = np.array([*actives, *decoys])


def read_targets(path: Path, sources: Sequence[str], max_decoys: int | None, max_targets: int | None, seed: int):
    """Read distinct canonical SMILES, the `Target`s over them, and the number of molecules that cannot be read."""
    import pyarrow.parquet as pq

    columns = pq.read_table(path, columns=["source", "target", "smiles", "active"]).to_pydict()
    groups: dict = defaultdict(lambda: ([], []))
    for source, target, smiles, active in zip(*columns.values(), strict=True):
        if source in sources:
            groups[source, target][0 if active else 1].append(smiles)
    shared = {source: decoys for (source, target), (_, decoys) in groups.items() if target == SHARED_DECOYS}
    chosen = []
    for source in sources:
        names = sorted(target for group, target in groups if group == source and target != SHARED_DECOYS)
        for name in names[:max_targets]:
            actives, decoys = groups[source, name]
            decoys = decoys or shared[source]
            if max_decoys is not None and len(decoys) > max_decoys:
                keep = np.random.default_rng(seed).choice(len(decoys), max_decoys, replace=False)
                decoys = [decoys[place] for place in np.sort(keep)]
            chosen.append((source, name, actives, decoys))
    distinct = list(dict.fromkeys(text for _, _, actives, decoys in chosen for text in [*actives, *decoys]))
    canonical = dict(zip(distinct, canonical_smiles_batch(distinct, on_error="skip"), strict=True))
    place, bad, targets = {}, 0, []
    for source, name, actives, decoys in chosen:
        parts = []
        for part in (actives, decoys):
            used = [canonical[text] for text in part]
            bad += sum(isinstance(text, MoleculeError) for text in used)
            used = dict.fromkeys(text for text in used if not isinstance(text, MoleculeError))
            parts.append([place.setdefault(text, len(place)) for text in used])
        parts[1] = [decoy for decoy in parts[1] if decoy not in set(parts[0])]
        targets.append(Target(source, name, *parts))
    return list(place), targets, bad


def draws_of(actives: int, count: int, seed: int) -> list[np.ndarray]:
    """Make `count` fixed draws of five of `actives`, the same for every method."""
    return [np.random.default_rng([seed, draw]).choice(actives, QUERIES, replace=False) for draw in range(count)]


def screen(target: Target, similarity: np.ndarray, nearness: np.ndarray, draws: Sequence[np.ndarray]) -> dict:
    """
    Average metrics over the draws: `{"all": {metric: mean}, "dissimilar": {...}}` (NaN if no draw leaves an active).

    Args:
        similarity: similarity of a method, `[actives, molecules of the target]`, actives first.
        nearness: Tanimoto similarity, same shape.
    """
    values: dict = {"all": defaultdict(list), "dissimilar": defaultdict(list)}
    for queries in draws:
        score = similarity[queries].max(axis=0)
        rest = np.setdiff1d(np.arange(target.count), queries)
        decoys = np.sort(score[target.count :])
        far = rest[nearness[queries][:, rest].max(axis=0) < DISSIMILAR]
        for part, members in (("all", rest), ("dissimilar", far)):
            if len(members):
                for metric, value in screening_metrics(score[members], decoys, sorted_decoys=True).items():
                    values[part][metric].append(value)
    return {
        part: {metric: float(np.mean(found[metric])) if found[metric] else float("nan") for metric in METRICS}
        for part, found in values.items()
    }


def screen_all(targets: Sequence[Target], embeddings: dict, bits: np.ndarray, simple: np.ndarray, args) -> list[dict]:
    """Make a record per target and column: source, target, column, actives, decoys, and the result of `screen`."""
    from tqdm.auto import tqdm

    records = []
    for number, target in enumerate(tqdm(targets, desc="targets")):
        members, actives = target.members, target.members[: target.count]
        draws = draws_of(target.count, args.draws, args.seed)
        nearness = tanimoto(bits[actives], bits[members])
        scale = simple[members].std(axis=0)
        scaled = simple[members] / np.where(scale > 0, scale, 1.0)
        random = np.random.default_rng([args.seed, number]).random(nearness.shape)
        columns = {name: values[actives] @ values[members].T for name, values in embeddings.items()} | {
            "Morgan, Tanimoto": nearness,
            "simple properties": -np.linalg.norm(scaled[: target.count, None] - scaled[None], axis=-1),
            "random": random,
        }
        for name, similarity in columns.items():
            found = screen(target, similarity, nearness, draws)
            size = {"actives": target.count, "decoys": len(members) - target.count}
            records.append({"source": target.source, "target": target.name, "column": name, **size, **found})
    return records


def purity(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Compute the share of molecules with the commonest label of their cluster; both are integers from 0."""
    table = np.zeros((clusters.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(table, (clusters, labels), 1)
    return float(table.max(axis=1).sum() / len(labels))


def neighbour_agreement(vectors: np.ndarray, labels: np.ndarray, neighbours: int = 5) -> float:
    """Compute the share of nearest molecules (cosine) with the same label, averaged over molecules."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argpartition(-similarity, neighbours, axis=1)[:, :neighbours]
    return float((labels[nearest] == labels[:, None]).mean())


def cluster_scores(vectors: np.ndarray, labels: np.ndarray, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Run k-means with as many clusters as labels: adjusted mutual information and purity, one value per seed."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score

    found: dict[str, list[float]] = {"ami": [], "purity": []}
    for seed in seeds:
        clusters = KMeans(n_clusters=labels.max() + 1, n_init=1, random_state=seed).fit_predict(vectors)
        found["ami"].append(float(adjusted_mutual_info_score(labels, clusters)))
        found["purity"].append(purity(clusters, labels))
    return found


def cluster_table(
    smiles: Sequence[str], targets: Sequence[Target], vectors: dict, args
) -> tuple[list[list], dict, str]:
    """Make table rows, raw numbers and a note on neighbours and clusters of the actives of the ChEMBL targets."""
    target_of: dict[int, set] = defaultdict(set)
    for target in targets:
        if target.source == "ChEMBL":
            for member in target.members[: target.count]:
                target_of[int(member)].add(target.name)
    members = np.array([member for member, names in target_of.items() if len(names) == 1], dtype=np.int64)
    if not len(members):
        return [], {}, "no ChEMBL targets, hence no clusters."
    labels = np.unique([next(iter(target_of[member])) for member in members], return_inverse=True)[1]
    scaffolds = np.array([scaffold(smiles[member]) for member in members])
    _, inverse, counts = np.unique(scaffolds, return_inverse=True, return_counts=True)
    common = (counts[inverse] >= 10) & (scaffolds != "")
    scaffold_labels = np.unique(inverse[common], return_inverse=True)[1]
    rows, raw = [], {}
    for name, values in vectors.items():
        part = checkpoints.normalised(values[members].astype(np.float32))
        by_target = cluster_scores(part, labels, args.cluster_seeds)
        agreement = neighbour_agreement(part, labels)
        row = [name, agreement, mean_sd(by_target["ami"]), mean_sd(by_target["purity"])]
        raw[name] = {"neighbours": agreement, "targets": by_target}
        if len(scaffold_labels):
            raw[name]["scaffolds"] = cluster_scores(part[common], scaffold_labels, args.cluster_seeds)
            row += [mean_sd(raw[name]["scaffolds"]["ami"]), mean_sd(raw[name]["scaffolds"]["purity"])]
        rows.append(row + ["n/a"] * (6 - len(row)))
    chance = float((np.bincount(labels) / len(labels) * (np.bincount(labels) - 1) / (len(labels) - 1)).sum())
    note = (
        f"{len(members)} molecules active on exactly one of {labels.max() + 1} targets (a random neighbour agrees with "
        f"probability {chance:.3f}); {common.sum()} of them in {len(np.unique(scaffold_labels))} scaffolds with at "
        f"least ten molecules. k-means on vectors of length 1, mean ± deviation over seeds {args.cluster_seeds}."
    )
    return rows, raw, note


def summarise(records: Sequence[dict], part: str) -> list[list]:
    """Make rows of source, column, targets, and macro-averaged metrics with standard errors over the targets."""
    rows = []
    for source in dict.fromkeys(record["source"] for record in records):
        for column in dict.fromkeys(record["column"] for record in records):
            found = [r[part] for r in records if r["source"] == source and r["column"] == column]
            found = [scores for scores in found if not np.isnan(scores["auc"])]
            if found:
                table = np.array([[scores[metric] for metric in METRICS] for scores in found])
                error = table.std(axis=0) / len(found) ** 0.5
                means = [f"{m:.3f} ± {e:.3f}" for m, e in zip(table.mean(axis=0), error, strict=True)]
                rows.append([source, column, len(found), *means])
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--sources", nargs="+", default=["MUV", "DUD", "ChEMBL"])
    parser.add_argument("--data", type=Path, help="Parquet (default: screening/ of the data folder)")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--max-decoys", type=int, help="random decoys per target (with --seed); default all")
    parser.add_argument("--max-targets", type=int, help="only the first targets of each source")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cluster-seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hf_molrep_benchmarks")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    folder = resolve_checkpoint(args.model)
    path = args.data or data_folder() / "screening" / "rdkit_benchmarking_platform.parquet"
    smiles, targets, bad = read_targets(path, args.sources, args.max_decoys, args.max_targets, args.seed)

    bits = checkpoints.cached(
        args.cache, "morgan 2 2048", smiles, lambda: np.packbits(morgan_fingerprints(smiles), axis=1)
    )
    bits = np.unpackbits(bits, axis=1)
    simple = checkpoints.cached(args.cache, "properties", smiles, lambda: properties(smiles))
    embeddings, failed = {}, np.zeros(len(smiles), dtype=bool)
    for name, seed in (("pre-trained, cosine", None), ("random weights, cosine", 0)):

        def compute(name=name, seed=seed) -> np.ndarray:
            model, processor = checkpoints.load(folder, seed)
            return checkpoints.embed(model, processor, smiles, truncation=True, progress=name)[0]

        values = checkpoints.cached(args.cache, f"{fingerprint(folder)} {seed}", smiles, compute)
        failed |= np.isnan(values).any(axis=1)
        embeddings[name] = checkpoints.normalised(values)
    for target in targets:  # a molecule that the checkpoint cannot take is left out for every method
        good = ~failed[target.members]
        target.count = int(good[: target.count].sum())
        target.members = target.members[good]

    records = screen_all(targets, embeddings, bits, simple, args)
    scale = simple.std(axis=0)
    vectors = embeddings | {
        "Morgan": bits,
        "simple properties": (simple - simple.mean(axis=0)) / np.where(scale > 0, scale, 1.0),
        "random": np.random.default_rng(args.seed).standard_normal((len(smiles), 64)),
    }
    rows, clusters, note = cluster_table(smiles, targets, vectors, args)
    header = ["source", "similarity", "targets", "AUC", "BEDROC(20)", "EF 1 %"]
    text = [
        "# Screening, neighbours and clusters with frozen embeddings\n",
        "## Screening, all actives (headline: MUV)\n",
        markdown_table(header, summarise(records, "all")),
        f"\n## Screening, actives with Tanimoto < {DISSIMILAR} to all queries\n",
        markdown_table(header, summarise(records, "dissimilar")),
        f"\n- {QUERIES} queries, max-fusion, {args.draws} draws (seed {args.seed}), macro-average over targets ± its "
        f"standard error. {bad} unreadable rows and {failed.sum()} molecules that the checkpoint cannot take left out.",
    ]
    if args.max_decoys:
        text.append(f"- Only {args.max_decoys} random decoys of each target (seed {args.seed}).")
    text.append("\n## Neighbours and clusters (actives of the ChEMBL targets)\n")
    if rows:
        header = ["vectors", "same target among 5 nearest", "target AMI", "target purity"]
        text.append(markdown_table([*header, "scaffold AMI", "scaffold purity"], rows))
    text.append(f"\n- {note}")
    write_report("screening", "\n".join(text), {"screening": records, "clusters": clusters}, args, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
