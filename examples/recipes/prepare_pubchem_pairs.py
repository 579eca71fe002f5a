"""
Prepare SMILES-IUPAC pairs for MM-Deacon from all of PubChem, as in the paper (which used 10 million).

    wget https://ftp.ncbi.nlm.nih.gov/pubchem/Compound/Extras/CID-SMILES.gz
    wget https://ftp.ncbi.nlm.nih.gov/pubchem/Compound/Extras/CID-IUPAC.gz
    python examples/recipes/prepare_pubchem_pairs.py CID-SMILES.gz CID-IUPAC.gz --out pubchem_pairs --share 0.085 \
        --workers 8 --exclude iupac_pairs/validation.parquet iupac_pairs/test.parquet benchmark_blocks.parquet

Both files have one line `CID<tab>text` per compound in ascending order of CID, so they are read side by side and
memory stays constant. Writes `pairs-00000.parquet`, ... (columns smiles, iupac_name, cid, inchikey_block, formula) into
a folder for `--train_data` of `hf-molrep pretrain mm_deacon`, `settings.json`, and `progress.json` with the counts of
what was left out and why. A stopped run continues after its last complete shard and gives the same files. Every CID is
one pair: pairs that become equal by standardising are kept.
"""

import argparse
import gzip
import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from hf_molrep.chem import MoleculeError, canonical_smiles, inchikey_block, molecular_formula
from hf_molrep.data.runs import check_continues

CHUNK = 2_000  # pairs that one worker standardises at a time
SCHEMA = pa.schema(
    [
        ("smiles", pa.string()),
        ("iupac_name", pa.string()),
        ("cid", pa.int64()),
        ("inchikey_block", pa.string()),
        ("formula", pa.string()),
    ]
)


def read_sorted(path: Path, report: Callable[[int], None] = lambda position: None) -> Iterator[tuple[int, str]]:
    """
    Yield (CID, text) of each line of a file, gzipped or not; `report` is called with the number of bytes read.

    Raises:
        ValueError: a line is not `CID<tab>text`, CIDs do not ascend, or a gzip file breaks off.
    """
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        lines = gzip.GzipFile(fileobj=raw) if packed else raw
        last = 0
        try:
            for number, line in enumerate(lines, start=1):
                first, tab, text = line.decode().rstrip("\r\n").partition("\t")
                if not tab or not first.isdigit():
                    raise ValueError(f"{path}, line {number}: {line[:60]!r} is not 'CID<tab>text'")
                cid = int(first)
                if cid <= last:
                    raise ValueError(
                        f"{path}, line {number}: CID {cid} comes after CID {last}; the file must be in ascending order "
                        "of CID, each once (sort -n -k1,1 -u)"
                    )
                last = cid
                if number % 4096 == 0:
                    report(raw.tell())
                yield cid, text
            report(raw.tell())
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} breaks off after line {number}: {error}") from error


def merge(
    left: Iterable[tuple[int, str]], right: Iterable[tuple[int, str]], counts: Counter
) -> Iterator[tuple[int, str, str]]:
    """Yield (CID, SMILES, name) of the CIDs that are in both; count the others."""
    left, right = iter(left), iter(right)
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        if a[0] == b[0]:
            yield a[0], a[1], b[1]
            a, b = next(left, None), next(right, None)
        elif a[0] < b[0]:
            counts["left out: no name"] += 1
            a = next(left, None)
        else:
            counts["left out: no SMILES"] += 1
            b = next(right, None)
    for rest, reason in ((a, "left out: no name"), (b, "left out: no SMILES")):
        if rest is not None:
            counts[reason] += 1 + sum(1 for _ in (left if rest is a else right))


def chosen(cid: int, share: float) -> bool:
    """Return whether a compound belongs to the random part of this share; depends only on its CID."""
    return int(hashlib.sha256(str(cid).encode()).hexdigest()[:12], 16) < share * 16**12


class Standardised(NamedTuple):
    """Result of a chunk of pairs: rows of `SCHEMA`, counts of those left out, number of pairs, last CID."""

    rows: list[tuple]
    left_out: Counter
    pairs: int
    last_cid: int


def standardise(pairs: list[tuple[int, str, str]], max_length: int) -> Standardised:
    """Compute canonical SMILES, InChIKey first block and formula of each pair; runs in a worker."""
    rows, left_out = [], Counter()
    for cid, smiles, name in pairs:
        name = name.strip()
        if not name or len(name) > max_length or len(smiles) > max_length:
            left_out["left out: empty name, or longer than max_length"] += 1
            continue
        try:
            used = canonical_smiles(smiles)
            rows.append((used, name, cid, inchikey_block(used), molecular_formula(used)))
        except MoleculeError:
            left_out["left out: SMILES refused"] += 1
    return Standardised(rows, left_out, len(pairs), pairs[-1][0])


def ordered_map(function: Callable, chunks: Iterator, workers: int, *arguments) -> Iterator:
    """Yield `function(chunk, *arguments)` of each chunk in order, computed in processes a few chunks ahead."""
    if workers < 2:
        yield from (function(chunk, *arguments) for chunk in chunks)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    try:
        waiting: deque = deque()
        for chunk in chunks:  # submitted in order, and only a few ahead: memory stays constant
            waiting.append(pool.submit(function, chunk, *arguments))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def excluded_blocks(files: Iterable[Path]) -> frozenset[str]:
    """Read the column `inchikey_block` of Parquet files."""
    return frozenset(
        block
        for file in files
        for block in pq.read_table(file, columns=["inchikey_block"])["inchikey_block"].to_pylist()
    )


def replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file atomically."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)


def prepare(arguments: argparse.Namespace) -> Counter:
    """
    Prepare the pairs, see the top of this file. Returns the counts.

    Raises:
        ValueError: see `read_sorted`; the folder holds a run with other settings; or the files have no CID in common.
    """
    excluded = excluded_blocks(arguments.exclude)
    settings = {
        "smiles": [arguments.smiles.name, arguments.smiles.stat().st_size],
        "names": [arguments.names.name, arguments.names.stat().st_size],
        "excluded": hashlib.sha256("".join(sorted(excluded)).encode()).hexdigest(),
        **{key: getattr(arguments, key) for key in ("share", "limit", "max_length", "shard_pairs")},
    }
    check_continues(arguments.out / "settings.json", settings, resume=True)
    progress = arguments.out / "progress.json"
    state = {"finished": False, "shards": 0, "last_cid": 0, "read": 0, "counts": {}}
    if progress.is_file():
        state = json.loads(progress.read_text())
    if state["finished"]:
        return Counter(state["counts"])
    done, passed = state["last_cid"], Counter()  # `passed` counts all lines, also those of earlier runs

    def wanted(bar) -> Iterator[tuple[int, str, str]]:
        smiles = read_sorted(arguments.smiles, lambda position: bar.update(position - bar.n))
        for pair in merge(smiles, read_sorted(arguments.names), passed):
            if not chosen(pair[0], arguments.share):
                passed["left out: not in the share"] += 1
            elif pair[0] > done:
                yield pair

    def save(parts: list[Standardised]) -> None:
        usable = [row for part in parts for row in part.rows]
        rows = [row for row in usable if row[3] not in excluded]
        columns = zip(*rows, strict=True) if rows else [[] for _ in SCHEMA]
        table = pa.table([pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
        shard = arguments.out / f"pairs-{state['shards']:05d}.parquet"
        replace(shard, lambda path: pq.write_table(table, path, compression="zstd"))
        counts = sum((part.left_out for part in parts), Counter(state["counts"]))
        counts["left out: excluded molecule (InChIKey first block)"] += len(usable) - len(rows)
        counts["pairs"] += len(rows)
        state.update(shards=state["shards"] + 1, last_cid=parts[-1].last_cid, counts=counts)
        state["read"] += sum(part.pairs for part in parts)
        replace(progress, lambda path: path.write_text(json.dumps(state, indent=1) + "\n"))

    with tqdm(total=arguments.smiles.stat().st_size, unit="B", unit_scale=True, desc=arguments.smiles.name) as bar:
        rest = None if arguments.limit is None else arguments.limit - state["read"]
        pairs = islice(wanted(bar), rest)
        chunks = iter(lambda: list(islice(pairs, min(CHUNK, arguments.shard_pairs))), [])
        parts: list[Standardised] = []
        for part in ordered_map(standardise, chunks, arguments.workers, arguments.max_length):
            parts.append(part)
            if sum(part.pairs for part in parts) >= arguments.shard_pairs:
                save(parts)
                parts = []
        if parts:
            save(parts)
    if not state["read"]:
        raise ValueError(f"{arguments.smiles} and {arguments.names} have no CID in common")
    state.update(finished=True, counts=Counter(state["counts"]) + passed)
    replace(progress, lambda path: path.write_text(json.dumps(state, indent=1) + "\n"))
    return state["counts"]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smiles", type=Path, help="CID-SMILES, gzipped or not")
    parser.add_argument("names", type=Path, help="CID-IUPAC, gzipped or not")
    parser.add_argument("--out", type=Path, default=Path("pubchem_pairs"))
    parser.add_argument("--exclude", type=Path, nargs="*", default=[], help="Parquet files with inchikey_block")
    parser.add_argument("--share", type=float, default=1.0, help="random part of the compounds, chosen by CID")
    parser.add_argument("--limit", type=int, help="stop after so many compounds with both texts")
    parser.add_argument("--max-length", type=int, default=2000, help="characters of a SMILES or name")
    parser.add_argument("--shard-pairs", type=int, default=200_000, help="compounds per file, before filtering")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that standardise")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.share <= 1 or arguments.shard_pairs < 1:
        parser.error("--share is above 0 and at most 1, --shard-pairs at least 1")
    try:
        counts = prepare(arguments)
    except (ValueError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{json.dumps(counts, indent=1)}\n{counts.get('pairs', 0)} pairs in {arguments.out}/pairs-*.parquet")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
