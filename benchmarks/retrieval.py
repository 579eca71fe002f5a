"""Zero-shot cross-lingual retrieval: the IUPAC name of a SMILES and the SMILES of a name, for unseen molecules.

    python -m benchmarks.retrieval --test pairs/test.parquet --more pairs/train.parquet pairs/valid.parquet

Three kinds of candidate pools:

- **random**: `--pool-size` molecules of the test file, including the positive. Mean and standard deviation of `--pools`
  pools, compared with an oracle that knows only the molecular formula.
- **hard** (headline): the positive and at least `--distractors` others of the same molecular formula: all those of the
  test file, then random ones of the files under `--more` (seen in training, so they are only distractors); if there are
  still too few, the nearest molecules by Tanimoto similarity (Morgan, radius 2, 2,048 bits) among all candidates. Also
  with candidates of the test file alone.
- **stereo**: the stereoisomers of one molecule in the whole set of pairs (`--all-pairs`); only molecules whose InChIKey
  first block is in the test file. Chance and size are given.

A tie counts against the model (the positive comes last among equals). The oracle's ties are broken at random, in
expectation: with m molecules of the right formula in the pool, recall@k is min(k, m) / m.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.fingerprints import tanimoto
from benchmarks.harness import checkpoints
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import argument_parser, markdown_table, mean_sd, write_report
from hf_molrep.chem import parse
from hf_molrep.chem.fingerprints import morgan_fingerprints
from hf_molrep.inference.checkpoints import resolve_checkpoint
from hf_molrep.metrics import retrieval_ranks

KS = (1, 5, 10)
DIGITS = 6  # digits of a cosine: a matrix product rounds equal rows differently
METRICS = (*(f"recall@{k}" for k in KS), "mrr")
DIRECTIONS = {"smiles_to_iupac": "SMILES to name", "iupac_to_smiles": "name to SMILES"}


def pessimistic_ranks(scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Compute [`~hf_molrep.metrics.retrieval_ranks`] of cosines, which are rounded so that equal rows tie."""
    return retrieval_ranks(np.round(scores, DIGITS), positives)


def metrics_of_ranks(ranks: np.ndarray) -> dict[str, float]:
    """Compute recall@1, @5, @10 and mean reciprocal rank of `[queries]` ranks."""
    ranks = np.asarray(ranks)
    return {f"recall@{k}": float((ranks <= k).mean()) for k in KS} | {"mrr": float((1 / ranks).mean())}


def cells(ranks: np.ndarray) -> list[str]:
    """Format metrics of one pool per query: mean ± standard error over the queries."""
    values = [*(ranks <= k for k in KS), 1 / ranks]
    return [f"{value.mean():.3f} ± {value.std() / max(len(ranks), 1) ** 0.5:.3f}" for value in values]


def oracle_metrics(same: np.ndarray) -> dict[str, float]:
    """
    Compute the expected metrics of an oracle that cannot distinguish `same` candidates, including the positive.

    Args:
        same: `[queries]`, number of candidates with the query's formula, at least 1.
    """
    same = np.asarray(same, dtype=np.int64)
    harmonic = np.cumsum(1 / np.arange(1, same.max() + 1))
    return {f"recall@{k}": float((np.minimum(k, same) / same).mean()) for k in KS} | {
        "mrr": float((harmonic[same - 1] / same).mean())
    }


def hard_pools(
    queries: Sequence[int],
    formulas: np.ndarray,
    first_count: int,
    fingerprints: np.ndarray,
    distractors: int,
    seed: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """
    Choose the distractors of each query, see the top of this file.

    Args:
        queries: candidates that are queries; formulas: `[candidates]`; fingerprints: 0/1 `[candidates, bits]`.
        first_count: number of candidates of the test part, which come first and are preferred.
    Returns:
        Candidates of each pool, the query first; `[queries]`, number of them with the query's formula.
    """
    by_formula = defaultdict(list)
    for candidate, formula in enumerate(formulas):
        by_formula[formula].append(candidate)
    pools, same = [], np.zeros(len(queries), dtype=np.int64)
    missing = []
    for place, query in enumerate(queries):
        isomers = np.array([other for other in by_formula[formulas[query]] if other != query], dtype=np.int64)
        own, rest = isomers[isomers < first_count], isomers[isomers >= first_count]
        wanted = max(0, distractors - len(own))
        if len(rest) > wanted:  # the choice depends only on the query, not on other queries
            rest = np.random.default_rng([seed, query]).choice(rest, wanted, replace=False)
        pools.append(np.concatenate([[query], own, rest]).astype(np.int64))
        same[place] = len(pools[-1])
        if len(pools[-1]) <= distractors:
            missing.append(place)
    for start in range(0, len(missing), 256):
        places = missing[start : start + 256]
        similarity = tanimoto(fingerprints[[queries[place] for place in places]], fingerprints)
        for row, place in zip(similarity, places, strict=True):
            row[pools[place]] = -1.0
            wanted = min(distractors + 1 - len(pools[place]), len(row) - len(pools[place]))
            # order by similarity, then by index, so that ties do not depend on the sorting
            threshold = -np.partition(-row, max(wanted - 1, 0))[max(wanted - 1, 0)]
            above = np.flatnonzero(row >= threshold)
            nearest = above[np.lexsort((above, -row[above]))][:wanted]
            pools[place] = np.concatenate([pools[place], nearest])
    return pools, same


def pool_ranks(pools: Sequence[np.ndarray], queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Compute the pessimistic rank of each pool's first candidate; embeddings are normalised `[molecules, hidden]`."""
    ranks = np.empty(len(pools), dtype=np.int64)
    for place, pool in enumerate(pools):
        scores = candidates[pool] @ queries[pool[0]]
        ranks[place] = pessimistic_ranks(scores[None], np.array([0]))[0]
    return ranks


def stereo_pools(smiles: Sequence[str], blocks: Sequence[str]) -> list[np.ndarray]:
    """
    Make the pool of each molecule with stereoisomers among the others (same InChIKey first block, same SMILES without
    stereo, other SMILES with stereo): all of them, itself first.
    """
    from rdkit import Chem

    by_block = defaultdict(list)
    for place, block in enumerate(blocks):
        by_block[block].append(place)
    groups = defaultdict(dict)
    for block, places in by_block.items():
        if len(places) > 1:
            for place in places:
                mol = parse(smiles[place])
                Chem.RemoveStereochemistry(mol)
                groups[block, Chem.MolToSmiles(mol)].setdefault(smiles[place], place)
    pools = []
    for members in groups.values():
        places = list(members.values())
        if len(places) > 1:
            pools += [np.array([place, *(other for other in places if other != place)]) for place in places]
    return pools


def random_pools(count: int, size: int, pools: int, seed: int) -> list[np.ndarray]:
    """Make `pools` independent draws of `size` of `count` molecules."""
    if size > count:
        raise ValueError(f"a pool of {size} molecules cannot be drawn from {count}")
    return [np.random.default_rng([seed, pool]).choice(count, size, replace=False) for pool in range(pools)]


def strata_of(table: dict, truncated: np.ndarray) -> dict[str, np.ndarray]:
    """Return the stratum of each molecule by kind: source, heavy atoms, whether the name was truncated."""
    atoms = np.array([heavy_atoms(formula) for formula in table["formula"]])
    bins = np.array(["1-15", "16-25", "26-35", "36 and more"])[np.digitize(atoms, [16, 26, 36])]
    return {
        "source": np.array(table["source"]),
        "heavy atoms": bins,
        "name": np.where(truncated, "truncated", "whole"),
    }


def heavy_atoms(formula: str) -> int:
    """Count the heavy atoms of a molecular formula in Hill order, such as `C2H3O2-`; also with dots."""
    import re

    return sum(int(count or 1) for element, count in re.findall(r"([A-Z][a-z]?)(\d*)", formula) if element != "H")


def read_pairs(paths: Sequence[Path], keep: int | None = None, seed: int = 0) -> dict[str, list]:
    """Read and join smiles, iupac_name, source, inchikey_block, formula of Parquet files; a random part if `keep`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables(
        [pq.read_table(path, columns=["smiles", "iupac_name", "source", "inchikey_block", "formula"]) for path in paths]
    )
    if keep is not None and keep < len(table):
        table = table.take(np.sort(np.random.default_rng(seed).choice(len(table), keep, replace=False)))
    return table.to_pydict()


def evaluate_random(views, formulas, args) -> tuple[dict, dict]:
    """Metrics of every random pool by direction, the oracle under `formula only`; molecules and ranks by direction."""
    results, ranks = defaultdict(lambda: defaultdict(list)), defaultdict(lambda: ([], []))
    formulas = np.unique(formulas, return_inverse=True)[1]
    for pool in random_pools(len(formulas), args.pool_size, args.pools, args.seed):
        scores = views["smiles"][pool] @ views["iupac"][pool].T
        for direction, matrix in (("smiles_to_iupac", scores), ("iupac_to_smiles", scores.T)):
            found = pessimistic_ranks(matrix, np.arange(len(pool)))
            ranks[direction][0].append(pool)
            ranks[direction][1].append(found)
            for name, value in metrics_of_ranks(found).items():
                results[direction][name].append(value)
        counts = np.bincount(formulas[pool], minlength=formulas.max() + 1)[formulas[pool]]
        for name, value in oracle_metrics(counts).items():
            results["formula only"][name].append(value)
    return results, {key: tuple(np.concatenate(part) for part in parts) for key, parts in ranks.items()}


def strata_rows(strata: dict, ranks: dict) -> list[list]:
    """Make a row per stratum: n, recall@1 and MRR both ways; `ranks[direction]` is (molecule, rank) of each query."""
    rows = []
    for kind, values in strata.items():
        for value in sorted(set(values.tolist())):
            row = [kind, value]
            for direction in DIRECTIONS:
                molecules, found = ranks[direction]
                inside = found[values[molecules] == value]
                if len(inside):
                    scores = metrics_of_ranks(inside)
                    row += [len(inside)] if direction == "smiles_to_iupac" else []
                    row += [scores["recall@1"], scores["mrr"]]
            if len(row) > 2:  # a random part of the molecules may hold none of a small stratum
                rows.append(row)
    return rows


def evaluate_hard(test: dict, more: dict, views: dict, embed_pairs, args) -> list[dict]:
    """
    Evaluate hard pools over all named molecules, then over the test part alone.

    Args:
        test, more: columns of the pairs, `more` without molecules of `test`; views: normalised embeddings of `test`.
        embed_pairs: columns to such embeddings.
    Returns:
        For each kind of pool `name`, `queries`, `ranks` by direction, `same` (candidates of the query's formula) and
        `sizes` of the pools, `test_share` of the candidates.
    """
    count = len(test["smiles"])
    everything = {key: [*test[key], *more[key]] for key in test}
    total = len(everything["smiles"])
    queries = np.random.default_rng(args.seed).permutation(count)[: args.hard_queries]
    bits, formulas = morgan_fingerprints(everything["smiles"]), np.array(everything["formula"])
    found = []
    for size in dict.fromkeys((total, count)):
        pools, same = hard_pools(queries, formulas[:size], count, bits[:size], args.distractors, args.seed)
        used = np.unique(np.concatenate(pools))
        extra = used[used >= count]
        pool_views = {}
        others = embed_pairs({key: [everything[key][place] for place in extra] for key in test}) if len(extra) else None
        for kind, values in views.items():
            pool_views[kind] = np.zeros((size, values.shape[1]), np.float32)
            pool_views[kind][:count] = values
            if others is not None:
                pool_views[kind][extra] = others[kind]
        found.append(
            {
                "name": "hard pools, test part only" if size == count else "hard pools",
                "queries": queries,
                "ranks": {
                    "smiles_to_iupac": pool_ranks(pools, pool_views["smiles"], pool_views["iupac"]),
                    "iupac_to_smiles": pool_ranks(pools, pool_views["iupac"], pool_views["smiles"]),
                },
                "same": same,
                "sizes": np.array([len(pool) for pool in pools]),
                "test_share": float(np.mean([(pool[1:] < count).mean() for pool in pools])),
            }
        )
    return found


def hard_rows(hard: dict, distractors: int) -> tuple[list[list], dict, str]:
    """Table rows, raw numbers and a note for one entry of [`evaluate_hard`]."""
    same, sizes = hard["same"], hard["sizes"]
    raw = {"same_formula": same.tolist(), "pool_sizes": sizes.tolist(), "test_share": hard["test_share"]}
    rows = []
    for part, members in (("", np.ones_like(same, dtype=bool)), (", same formula throughout", same > distractors)):
        if not members.any():
            continue
        scores = {way: metrics_of_ranks(ranks[members]) for way, ranks in hard["ranks"].items()}
        scores["formula only"] = oracle_metrics(same[members])
        raw |= {who + part: values for who, values in scores.items()}
        table = {way: cells(ranks[members]) for way, ranks in hard["ranks"].items()}
        table["formula only"] = [scores["formula only"][metric] for metric in METRICS]
        rows += [
            [hard["name"] + part, DIRECTIONS.get(who, who), int(members.sum()), *row] for who, row in table.items()
        ]
    note = (
        f"{hard['name']}: {len(same)} queries, {sizes.mean():.1f} candidates each ({sizes.min()} to {sizes.max()}); "
        f"{(same - 1).sum() / (sizes - 1).sum():.0%} of the distractors have the query's formula, the rest are nearest "
        f"Tanimoto neighbours; {hard['test_share']:.0%} of them come from the test part."
    )
    return rows, raw, note


def evaluate_stereo(table: dict, embed_pairs) -> tuple[list[list], dict, str]:
    """Table rows, raw numbers and a note for the stereoisomer pools among the pairs of `table`."""
    pools = stereo_pools(table["smiles"], table["inchikey_block"])
    if not pools:
        return [], {}, "stereoisomers: no molecule of the test part has any among the pairs."
    used = np.unique(np.concatenate(pools))
    views = embed_pairs({key: [column[place] for place in used] for key, column in table.items()})
    pools = [np.searchsorted(used, pool) for pool in pools]
    sizes = np.array([len(pool) for pool in pools])
    ranks = {
        "smiles_to_iupac": pool_ranks(pools, views["smiles"], views["iupac"]),
        "iupac_to_smiles": pool_ranks(pools, views["iupac"], views["smiles"]),
    }
    chance = oracle_metrics(sizes)
    raw = {way: metrics_of_ranks(found) for way, found in ranks.items()} | {"chance": chance}
    rows = [["stereoisomers", DIRECTIONS[way], len(pools), *cells(found)] for way, found in ranks.items()]
    rows.append(["stereoisomers", "chance", len(pools), *(chance[metric] for metric in METRICS)])
    return rows, raw | {"pool_sizes": sizes.tolist()}, f"stereoisomers: {sizes.mean():.1f} candidates in a pool."


def stereo_table(path: Path | None, blocks: set[str]) -> dict[str, list]:
    """Primary, exactly verified pairs of the given InChIKey first blocks, MassBank left out."""
    import pyarrow.parquet as pq

    path = path or data_folder() / "iupac" / "smiles_iupac_pairs.parquet"
    columns = ["smiles", "iupac_name", "source", "opsin_check", "primary", "inchikey_block"]
    kept = [
        row
        for row in pq.read_table(path, columns=columns).to_pylist()
        if row["inchikey_block"] in blocks
        and row["primary"]
        and row["opsin_check"] == "exact"
        and row["source"] != "massbank"
    ]
    return {key: [row[key] for row in kept] for key in ("smiles", "iupac_name", "source", "inchikey_block")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test", type=Path, required=True, help="held-out pairs (Parquet)")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="further pairs, as distractors of hard pools")
    parser.add_argument("--all-pairs", type=Path, help="all pairs, with stereoisomers (default: the data folder's)")
    parser.add_argument("--pool-size", type=int, default=1000)
    parser.add_argument("--pools", type=int, default=20)
    parser.add_argument("--distractors", type=int, default=20)
    parser.add_argument("--hard-queries", type=int, default=2000, help="molecules of the test file with a hard pool")
    parser.add_argument("--seed", type=int, default=0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    folder = resolve_checkpoint(args.model)
    model, processor = checkpoints.load(folder)

    def views_of(table: dict, what: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Normalised embeddings of both views, and which names were truncated."""
        views, shortened = {}, {}
        for kind, column in (("smiles", "smiles"), ("iupac", "iupac_name")):
            values, shortened[kind] = checkpoints.embed(
                model, processor, table[column], kind, truncation=True, progress=f"{what}: {column}"
            )
            failed = np.flatnonzero(np.isnan(values).any(axis=1))
            if len(failed):
                raise ValueError(
                    f"{what}: {len(failed)} {column} cannot be embedded, first {table[column][failed[0]]!r}"
                )
            views[kind] = checkpoints.normalised(values)
        return views, shortened["iupac"]

    test = read_pairs([args.test])
    count = len(test["smiles"])
    blocks = set(test["inchikey_block"])
    if len(blocks) < count:
        raise ValueError(f"{args.test} holds several molecules with one InChIKey first block")
    args.pool_size = min(args.pool_size, count)
    views, truncated = views_of(test, "test")
    strata = strata_of(test, truncated)

    results, ranks = evaluate_random(views, np.array(test["formula"]), args)
    name = f"random pools of {args.pool_size}"
    rows = [
        [name, DIRECTIONS.get(who, who), f"{args.pools} x {args.pool_size}", *(mean_sd(scores[m]) for m in METRICS)]
        for who, scores in results.items()
    ]
    raw = {"random": {who: dict(scores) for who, scores in results.items()}}
    stratified = {name: strata_rows(strata, ranks)}

    more = {key: [] for key in test}
    if args.more:
        table = read_pairs(args.more)
        fresh = [place for place, block in enumerate(table["inchikey_block"]) if block not in blocks]
        more = {key: [table[key][place] for place in fresh] for key in test}
    notes = []
    for hard in evaluate_hard(test, more, views, lambda table: views_of(table, "more")[0], args):
        added, raw[hard["name"]], note = hard_rows(hard, args.distractors)
        rows += added
        notes.append(note)
        stratified[hard["name"]] = strata_rows(strata, {way: (hard["queries"], r) for way, r in hard["ranks"].items()})
    stereo = stereo_table(args.all_pairs, blocks)
    added, raw["stereo"], note = evaluate_stereo(stereo, lambda table: views_of(table, "stereo")[0])
    rows += added
    notes += [
        note,
        f"{truncated.sum()} of {count} test names were truncated. Ties count against the model.",
        "± is the standard deviation over pools for random pools, else the standard error over queries.",
    ]

    text = ["# Cross-lingual retrieval\n", markdown_table(["pool", "query", "n", *METRICS], rows), ""]
    text += [f"- {note}" for note in notes]
    header = ["by", "", "n", *(f"{way}, {metric}" for way in DIRECTIONS.values() for metric in ("recall@1", "mrr"))]
    for name, table in stratified.items():
        text += [f"\n## By stratum: {name}\n", markdown_table(header, table)]
    write_report("retrieval", "\n".join(text), raw | {"strata": stratified}, args, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
