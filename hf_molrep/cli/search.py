"""`hf-molrep search`: find the molecules of a file that are nearest to a query."""

import argparse
import sys
from typing import Any

MAX_CELL = 48  # characters shown in the terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `search`."""
    from ..inference import DEFAULT_CHECKPOINT

    parser.epilog = (
        "Between SMILES the metric is Morgan/Tanimoto unless --metric embedding. With --query-kind iupac a name finds "
        "SMILES, with --kind iupac a SMILES finds names: both by embedding. All columns of the file are shown with "
        "each hit."
    )
    parser.add_argument(
        "index", metavar="INDEX", help="an output of `hf-molrep embed` (Parquet), or any file of molecules"
    )
    parser.add_argument("queries", metavar="QUERY", nargs="+", help="SMILES, or names with --query-kind iupac")
    parser.add_argument("--query-kind", choices=("smiles", "iupac"), default="smiles", help="(%(default)s)")
    parser.add_argument("--kind", choices=("smiles", "iupac"), help="what INDEX holds (default: as embedded)")
    parser.add_argument("--column", help="column of INDEX with the molecules (default: found by its name)")
    parser.add_argument("--input-format", help="csv, tsv, smi, sdf or parquet (default: from the ending)")
    parser.add_argument("--metric", choices=("morgan", "embedding"), help="default: see below")
    parser.add_argument("--top", "-k", type=int, default=10, help="hits per query (%(default)s)")
    parser.add_argument("--out", help="write the hits, with all columns, to a .csv, .tsv or .parquet file")
    parser.add_argument(
        "--model", help=f"checkpoint (default: the one that made the embeddings, else {DEFAULT_CHECKPOINT})"
    )
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..inference.search import MoleculeIndex, choose_metric

    if args.top < 1:
        raise ValueError("--top is at least 1")
    index = MoleculeIndex.from_file(args.index, args.column, args.kind, args.input_format)
    metric = choose_metric(args.metric, args.query_kind, index.kind)
    if metric == "morgan":
        hits, score = index.search_fingerprints(args.queries, args.top), "tanimoto"
    else:
        hits, score = _by_embedding(args, index), "cosine"
    table = _hits(args.queries, hits, score, index.table)
    _print(table)
    found, where = sum(map(len, hits)), ""
    if args.out:
        from ..data.table_writer import TableWriter

        with TableWriter(args.out, table.schema) as writer:
            for batch in table.combine_chunks().to_batches():
                writer.write(batch)
        where = f": {args.out}"
    print(
        f"{found} hits for {len(args.queries)} queries among {len(index.molecules)} rows ({metric}){where}",
        file=sys.stderr,
    )
    return 0


def _by_embedding(args: argparse.Namespace, index: Any) -> list:
    import numpy as np
    from transformers import AutoModel

    from ..inference import DEFAULT_CHECKPOINT
    from ..inference.checkpoints import load_checkpoint
    from ..inference.embedding import embed

    if args.model and index.embeddings is not None and args.model != index.model:
        raise ValueError(f"{args.index} was embedded by {index.model!r}, not by {args.model!r}; embed it again")
    model, processor = load_checkpoint(AutoModel, args.model or index.model or DEFAULT_CHECKPOINT, args.device)
    queries = np.stack(list(embed(model, processor, args.queries, kind=args.query_kind)))
    if index.embeddings is None:
        print(f"embedding {len(index.molecules)} rows of {args.index} ...", file=sys.stderr)
        index.embed(model, processor)
    return index.search_embeddings(queries, args.top)


def _hits(queries: list[str], hits: list, score: str, own: Any) -> Any:
    """Make a `pyarrow.Table` of the hits: query, rank, score, then the columns of the index."""
    import pyarrow as pa

    rows = [(query, rank, hit) for query, found in zip(queries, hits, strict=True) for rank, hit in enumerate(found, 1)]
    table = own.take(pa.array([hit.row for _, _, hit in rows], pa.int64()))
    first = {
        "query": [query for query, _, _ in rows],
        "rank": [rank for _, rank, _ in rows],
        score: pa.array([hit.score for _, _, hit in rows], pa.float32()),
    }
    for place, (name, values) in enumerate(first.items()):
        while name in own.schema.names:
            name = f"{name}_"
        table = table.add_column(place, name, [values] if isinstance(values, pa.Array) else [pa.array(values)])
    return table


def _print(table: Any) -> None:
    columns = [
        [name, *map(_shown, column.to_pylist())] for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(value: Any) -> str:
    text = "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value).replace("\n", " ")
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 3]}..."
