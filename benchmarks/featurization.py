"""Speed of SMILES to batched graphs, compared with `Chem.MolFromSmiles`: CPU seconds of one thread, molecules of BBBP.

    python -m benchmarks.featurization

Every round measures RDKit's parsing, each feature scheme from SMILES to batches of 64 molecules, PyTorch Geometric's
`from_smiles` with `Batch`, and, if it is installed (it pins another RDKit), chemprop's featurizer with its batches. The
result is the median over the rounds of the ratio to RDKit's parsing in the same round. `clean` standardises as every
checkpoint does by default, `none` keeps the SMILES, as the originals, PyG and chemprop do.

cuik-molmaker (C++, `cuik_molmaker_pin` 2026.3.6 with its RDKit) was tried as an optional fast path: its arrays are the
same for the 83 to 98 % of molecules that it supports; as a share of RDKit's parsing it gave 1.2 to 1.3 times the rate
for indices and 0.8 times for `grover`. It is not offered because it crashes the process if a SMILES of the batch cannot
be parsed. The trial is not a part of this benchmark.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.harness.checkpoints import usable
from benchmarks.harness.data import smiles_of
from benchmarks.harness.report import RESULTS, markdown_table, write_report
from benchmarks.harness.timing import measure, ratio
from hf_molrep.chem.graph import SCHEMES
from hf_molrep.chem.smiles import rdkit_log_off
from hf_molrep.processing.graphs import MolGraphFeatureExtractor

BARS = {"pretrain_gnns": 0.40, "ogb": 0.30, "dmp": 0.30, "grover": 0.20}
BATCH = 64


def floor(smiles: Sequence[str]) -> int:
    from rdkit import Chem

    with rdkit_log_off:
        return sum(Chem.MolFromSmiles(text) is not None for text in smiles)


def ours(
    scheme: str, standardize: str, hydrogens: bool = False, canonical: bool = False
) -> Callable[[Sequence[str]], int]:
    options = {"standardize": standardize, "explicit_hydrogens": hydrogens, "canonical": canonical}
    extractor = MolGraphFeatureExtractor(scheme, **options)

    def run(smiles: Sequence[str]) -> int:
        done = 0
        for start in range(0, len(smiles), BATCH):
            features = extractor.featurize({"smiles": smiles[start : start + BATCH]}, "skip")
            done += extractor.pad(usable(features))["num_graphs"]
        return done

    return run


def pyg(smiles: Sequence[str]) -> int:
    from torch_geometric.data import Batch
    from torch_geometric.utils import from_smiles

    done = 0
    with rdkit_log_off:
        for start in range(0, len(smiles), BATCH):
            data = [from_smiles(text) for text in smiles[start : start + BATCH]]
            done += Batch.from_data_list([each for each in data if each.num_nodes]).num_graphs
    return done


def chemprop(smiles: Sequence[str]) -> int:
    from chemprop.data import BatchMolGraph
    from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
    from rdkit import Chem

    featurize, done = SimpleMoleculeMolGraphFeaturizer(), 0
    with rdkit_log_off:
        for start in range(0, len(smiles), BATCH):
            mols = [Chem.MolFromSmiles(text) for text in smiles[start : start + BATCH]]
            done += len(BatchMolGraph([featurize(mol) for mol in mols if mol is not None]))
    return done


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--smiles", type=Path, help="Parquet file with the column smiles (default: BBBP)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the .md and .json written")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    file = args.smiles or Path("moleculenet/bbbp.parquet")
    smiles = smiles_of(file)
    contenders = {("RDKit's parsing", ""): floor}
    for scheme in SCHEMES:
        for standardize in ("clean", "none"):
            contenders[scheme, standardize] = ours(scheme, standardize)
        contenders[f"{scheme}, canonical SMILES", "clean"] = ours(scheme, "clean", canonical=True)
    contenders["pretrain_gnns, explicit hydrogens", "clean"] = ours("pretrain_gnns", "clean", True)
    contenders["PyG from_smiles + Batch", "none"] = pyg
    if find_spec("chemprop"):
        contenders["chemprop's featurizer + BatchMolGraph", "none"] = chemprop

    counts = {name: run(smiles) for name, run in contenders.items()}
    seconds = measure({name: partial(run, smiles) for name, run in contenders.items()}, args.rounds)
    rows, raw = [], []
    for (name, standardize), times in seconds.items():
        share = ratio(seconds, ("RDKit's parsing", ""), (name, standardize))
        micro = statistics.median(times) / len(smiles) * 1e6
        bar = BARS.get(name, "")
        rows.append([name, standardize, counts[name, standardize], f"{micro:.0f}", share, f"{bar}"])
        raw.append({"what": name, "standardize": standardize, "seconds": times, "ratio": share})
    header = ["what", "standardised", "molecules", "µs / molecule", "rate, of RDKit's parsing", "bar"]
    text = [f"# SMILES to batches of {BATCH} graphs, {file.stem}, one thread\n", markdown_table(header, rows)]
    write_report("featurization", "\n".join(text), {"results": raw}, args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
