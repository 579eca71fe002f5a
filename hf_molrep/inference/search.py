"""Find the molecules of a file that are nearest to a query, by Morgan fingerprint or by embedding."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..chem.smiles import MoleculeError, canonical_smiles, canonical_smiles_batch
from ..data.files import MoleculeReader, molecule_column

if TYPE_CHECKING:
    import pyarrow as pa

    from ..processing.contract import MoleculeProcessor

Metric = Literal["morgan", "embedding"]

# Between SMILES the default is Morgan/Tanimoto: frozen embeddings do not find actives better so far
# (benchmarks/screening.py, MUV). Between SMILES and names there is only the embedding.
DEFAULT_SMILES_METRIC: Metric = "morgan"

_ROWS = 4096


class Hit(NamedTuple):
    """A row of the index and its score: Tanimoto similarity, or cosine of the embeddings."""

    row: int
    score: float


@dataclass
class MoleculeIndex:
    """
    Searchable molecules in memory: 4 bytes per molecule and embedding channel, 256 per fingerprint.

    Attributes:
        table: `pyarrow.Table`, all columns of the file except `embedding` and `error`.
        molecules: SMILES or name of each row; None if it failed.
        kind: which of the two, `"smiles"` or `"iupac"`.
        embeddings: float32 `[rows, hidden]`, NaN for failed molecules; None before [`MoleculeIndex.embed`].
        model: name of the checkpoint with which the file was embedded, if known.
    """

    table: "pa.Table"
    molecules: list[str | None]
    kind: str = "smiles"
    embeddings: np.ndarray | None = None
    model: str | None = None
    _standard: bool = False  # molecules are standardised SMILES already
    _fingerprints: np.ndarray | None = None  # bits packed, [rows, 256]
    _faiss: Any = None

    @classmethod
    def from_file(
        cls, path: str, column: str | None = None, kind: str | None = None, format: str | None = None
    ) -> "MoleculeIndex":
        """
        Read an output of `hf-molrep embed` (Parquet, with its embeddings) or any file of molecules.

        Args:
            column, format: see [`~hf_molrep.data.files.MoleculeReader`].
            kind: by default what the embeddings were made from, else `"smiles"`.
        Raises:
            ValueError: the file has no rows; or see [`~hf_molrep.data.files.MoleculeReader`].
        """
        import pyarrow as pa

        made = _embed_settings(path, format)
        embedded = made is not None and kind in (None, made["kind"]) and column in (None, made["column"])
        kind = kind or (made["kind"] if made else "smiles")
        tables, molecules, embeddings = [], [], []
        given_as = molecule_column(kind)
        with MoleculeReader(path, made["column"] if embedded else column, given_as, format) as reader:
            for piece in reader.pieces(_ROWS):
                texts = [None if isinstance(row, MoleculeError) else row[given_as] for row in piece.rows]
                if embedded:
                    embeddings.append(_matrix(piece.table.column("embedding")))
                    failed = piece.table.column("error").is_valid().to_pylist()
                    texts = [None if bad else text for text, bad in zip(texts, failed, strict=True)]
                molecules += texts
                tables.append(piece.table.drop_columns(["embedding", "error"]) if made else piece.table)
        if not tables:
            raise ValueError(f"{path} has no rows to search")
        return cls(
            table=pa.Table.from_batches(tables),
            molecules=molecules,
            kind=kind,
            embeddings=np.concatenate(embeddings) if embedded else None,
            model=made["model"] if made else None,
            _standard=embedded and kind == "smiles",
        )

    def embed(self, model: Any, processor: "MoleculeProcessor", **options: Any) -> None:
        """Compute `embeddings` with a model; options: see [`~hf_molrep.inference.engine.infer`]."""
        from .embedding import embed

        width = model.config.hidden_size
        rows = embed(model, processor, self.molecules, kind=self.kind, on_error="skip", **options)
        failed = np.full(width, np.nan, dtype=np.float32)
        self.embeddings = np.stack([failed if isinstance(row, MoleculeError) else row for row in rows])
        self._faiss = None

    def search_embeddings(self, queries: np.ndarray, top: int = 10) -> list[list[Hit]]:
        """
        Find the `top` rows with the largest cosine to each query, by exact search (FAISS, flat inner product).

        Args:
            queries: float32 `[queries, hidden]`.
            top: number of hits per query.
        Raises:
            ValueError: the index has no embeddings, or of another width.
        """
        import faiss

        if self.embeddings is None:
            raise ValueError("the index has no embeddings yet: call embed(model, processor)")
        if queries.shape[-1] != self.embeddings.shape[1]:
            raise ValueError(
                f"queries have {queries.shape[-1]} channels, the index {self.embeddings.shape[1]}: from another model"
            )
        usable = np.flatnonzero(np.isfinite(self.embeddings).all(axis=1))
        if self._faiss is None:
            self._faiss = faiss.IndexFlatIP(self.embeddings.shape[1])
            self._faiss.add(_unit(self.embeddings[usable]))
        if not len(usable):
            return [[] for _ in queries]
        scores, places = self._faiss.search(_unit(queries), min(top, len(usable)))
        return [
            [Hit(int(usable[place]), float(score)) for place, score in zip(*pair, strict=True)]
            for pair in zip(places, scores, strict=True)
        ]

    def search_fingerprints(self, queries: Sequence[str], top: int = 10) -> list[list[Hit]]:
        """
        Find the `top` rows with the largest Tanimoto similarity to each query SMILES, by exact search (Morgan, radius
        2, 2,048 bits, standardised molecules).

        Raises:
            MoleculeError: a query cannot be read.
            ValueError: the index holds names.
        """
        from ..chem.fingerprints import morgan_fingerprints, tanimoto

        if self.kind != "smiles":
            raise ValueError("fingerprints need SMILES, and the index holds names: use the metric 'embedding'")
        prints = morgan_fingerprints([canonical_smiles(query) for query in queries])
        if self._fingerprints is None:
            self._fingerprints = np.concatenate(list(self._packed_fingerprints()))
        scores = np.concatenate(
            [
                tanimoto(prints, np.unpackbits(self._fingerprints[first : first + _ROWS], axis=1))
                for first in range(0, len(self._fingerprints), _ROWS)
            ],
            axis=1,
        )
        usable = np.flatnonzero([molecule is not None for molecule in self.molecules])
        best = np.argsort(-scores[:, usable], axis=1, kind="stable")[:, :top]
        return [
            [Hit(int(usable[place]), float(row[usable[place]])) for place in places]
            for row, places in zip(scores, best, strict=True)
        ]

    def _packed_fingerprints(self) -> Iterator[np.ndarray]:
        from ..chem.fingerprints import morgan_fingerprints

        for first in range(0, len(self.molecules), _ROWS):
            chunk = self.molecules[first : first + _ROWS]
            if not self._standard:
                chunk = canonical_smiles_batch(chunk, on_error="skip")
                chunk = [None if isinstance(one, MoleculeError) else one for one in chunk]
                self.molecules[first : first + _ROWS] = chunk
            packed = np.zeros((len(chunk), 256), dtype=np.uint8)
            kept = [row for row, one in enumerate(chunk) if one is not None]
            packed[kept] = np.packbits(morgan_fingerprints([chunk[row] for row in kept]), axis=1)
            yield packed


def choose_metric(metric: Metric | None, query_kind: str, index_kind: str) -> Metric:
    """
    Choose the metric: the given one, or by default [`DEFAULT_SMILES_METRIC`] between SMILES, else the embedding.

    Raises:
        ValueError: Morgan fingerprints with names.
    """
    if query_kind == index_kind == "smiles":
        return metric or DEFAULT_SMILES_METRIC
    if metric == "morgan":
        raise ValueError("the metric 'morgan' compares SMILES with SMILES; with names use 'embedding'")
    return "embedding"


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _matrix(column: Any) -> np.ndarray:
    matrix = np.full((len(column), column.type.list_size), np.nan, dtype=np.float32)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    matrix[valid] = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return matrix


def _embed_settings(path: str, format: str | None) -> dict[str, Any] | None:
    """Read the metadata that `hf-molrep embed` wrote into its Parquet file; None for any other file."""
    from ..data.files import file_format

    if path == "-" or path.endswith(".gz") or file_format(path, format) != "parquet":
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid:  # not Parquet: the reader reports it
        return None
    text = (schema.metadata or {}).get(b"hf_molrep")
    if text is None or "embedding" not in schema.names:
        return None
    made = json.loads(text)
    if made["kind"] == "smiles":
        made["column"] = "smiles_used"
    return made
