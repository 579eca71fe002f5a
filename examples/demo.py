"""
Embed the molecules of a file with the shipped checkpoint, and find the nearest neighbours of a query (`make demo`).

    python examples/demo.py
    python examples/demo.py --query "CC(=O)Oc1ccccc1C(=O)O"              # another molecule, as SMILES
    python examples/demo.py --query "2-(3-phenoxyphenyl)propanoic acid"  # or by its IUPAC name

Writes `embeddings.parquet` (the columns of the file and an `embedding` per row) and `neighbours.png` (a drawing of the
query and its nearest molecules) into `--out`.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from tqdm import tqdm
from transformers import pipeline

import hf_molrep
from hf_molrep.chem.drawing import draw_grid
from hf_molrep.chem.smiles import MoleculeError, parse

MOLECULES = Path(__file__).parent / "data" / "molecules.csv"
FENOPROFEN = "CC(C(=O)O)c1cccc(Oc2ccccc2)c1"  # not in the file, but four similar molecules are


def is_smiles(text: str) -> bool:
    try:
        return parse(text) is not None
    except MoleculeError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Embed a file of molecules and find the neighbours of a query.")
    parser.add_argument("--input", type=Path, default=MOLECULES, help="CSV with a column 'smiles' (%(default)s)")
    parser.add_argument("--query", default=FENOPROFEN, help="SMILES or IUPAC name (%(default)s)")
    parser.add_argument("--top", type=int, default=7, help="neighbours to show (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for the results (%(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    # 1. Read the file. Every column is kept.
    table = pyarrow.csv.read_csv(args.input)
    smiles = table["smiles"].to_pylist()

    # 2. Embed the molecules. One that cannot be read gives an error; the others are not affected.
    embedder = pipeline("molecule-embedding", model=hf_molrep.checkpoint_path("mm-deacon-mini"))
    results = list(
        tqdm(embedder(iter(smiles), on_error="skip"), total=len(smiles), desc="Embedding", unit=" molecules")
    )
    failed = [(row, result["error"]) for row, result in enumerate(results) if result["embedding"] is None]
    kept = [row for row, result in enumerate(results) if result["embedding"] is not None]
    matrix = np.stack([results[row]["embedding"] for row in kept])
    for row, reason in failed:
        print(f"Skipped row {row + 1}, {table['id'][row]}: {reason}")

    # 3. Write one row per row of the file, in its order.
    columns = {
        "embedding": pa.array([result["embedding"] for result in results], pa.list_(pa.float32())),
        "error": pa.array([result.get("error") for result in results], pa.string()),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    parquet = args.out / "embeddings.parquet"
    pyarrow.parquet.write_table(table, parquet)

    # 4. Embed the query, a SMILES or an IUPAC name, and rank by cosine similarity.
    kind = "smiles" if is_smiles(args.query) else "iupac"
    query = embedder(args.query, kind=kind)["embedding"]
    similarity = matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)
    nearest = np.argsort(-similarity)[: args.top]

    # 5. Show them.
    rows = table.select(["id", "name", "smiles"]).take([kept[place] for place in nearest]).to_pylist()
    print(f"\nNearest to {args.query} (read as {'SMILES' if kind == 'smiles' else 'an IUPAC name'}):\n")
    print(f"{'cosine':>7}  {'id':10} {'name':44} smiles")
    for place, row in zip(nearest, rows, strict=True):
        print(f"{similarity[place]:7.3f}  {row['id']:10} {row['name'][:44]:44} {row['smiles']}")
    drawn = [row["smiles"] for row in rows]
    legends = [f"{similarity[place]:.3f}  {row['name'][:30]}" for place, row in zip(nearest, rows, strict=True)]
    if kind == "smiles":  # a name has no structure to draw
        drawn, legends = [args.query, *drawn], ["query", *legends]
    picture = args.out / "neighbours.png"
    draw_grid(drawn, legends, picture)

    print(f"\nEmbedded {len(kept)} of {len(smiles)} molecules ({len(failed)} skipped): {parquet}, {picture}")


if __name__ == "__main__":
    main()
