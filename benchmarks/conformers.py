"""
Molecules per CPU second: embedding by RDKit, reading the cache, and what the processes and the checks around it cost.

    python -m benchmarks.conformers [--files moleculenet/bbbp.parquet] [--molecules 200] [--conformers 1]

All rows use the same sample. CPU seconds include worker processes, so that rows can be compared on a busy machine.
"""

import argparse
import os
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.harness.data import sample, smiles_of
from benchmarks.harness.report import RESULTS, markdown_table, write_report
from benchmarks.harness.timing import timed
from hf_molrep.chem.canonical_form import canonical_form
from hf_molrep.chem.conformers import ConformerGenerator, Conformers, ConformerSettings, count_reports
from hf_molrep.chem.smiles import MoleculeError, parse


def bare_rdkit(smiles: list[str], settings: ConformerSettings) -> int:
    """Run the lower bound: the two calls of RDKit without any checks."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
    from rdkit.rdBase import BlockLogs

    done, block = 0, BlockLogs()
    for text in smiles:
        mol = Chem.MolFromSmiles(text)
        if mol is None:
            continue
        mol = Chem.AddHs(mol)
        parameters = rdDistGeom.ETKDGv3()
        parameters.randomSeed, parameters.enableSequentialRandomSeeds = settings.seed, True
        if len(rdDistGeom.EmbedMultipleConfs(mol, settings.num_conformers, parameters)):
            rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, maxIters=settings.max_iterations)
            done += 1
    del block
    return done


def canonical_fragments(smiles: list[str]) -> list[str]:
    """Return the molecules that the generator embeds, with the same order of atoms."""
    found = {}
    for text in smiles:
        try:
            found[canonical_form(parse(text), text, "all", "largest").smiles] = None
        except MoleculeError:
            continue
    return list(found)


def conformers(smiles: list[str], *options) -> list[Conformers | MoleculeError]:
    """Compute conformers by a new generator; its worker processes have ended at the end, so their seconds count."""
    with ConformerGenerator(*options) as generate:
        return generate(smiles, on_error="skip")


def parse_all(smiles: list[str]) -> None:
    """Parse the molecules."""
    for text in smiles:
        try:
            parse(text)
        except MoleculeError:
            continue


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the .md and .json written")
    parser.add_argument("--files", nargs="+", default=["moleculenet/bbbp.parquet", "moleculenet/tox21.parquet"])
    parser.add_argument("--molecules", type=int, default=200, help="molecules of each file")
    parser.add_argument("--conformers", type=int, default=1, help="conformers of each molecule")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--time_limit", type=float, default=20.0, help="CPU seconds of one molecule")
    parser.add_argument("--repeats", type=int, default=5, help="readings of the cache; the median counts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    settings = ConformerSettings(num_conformers=args.conformers)
    bare_rdkit(["CCO"], settings)  # imports
    rows, raw = [], {}
    for file in args.files:
        smiles = sample(smiles_of(file), args.molecules, args.seed)
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "conformers.sqlite"
            options = settings, cache, args.processes, args.time_limit
            results, embedding = timed(partial(conformers, smiles, *options))
            hits = []
            with ConformerGenerator(*options) as generate:
                for _ in range(args.repeats):
                    again, spent = timed(partial(generate, smiles, on_error="skip"))
                    hits.append(spent.cpu)
                assert not generate._pool._started, "the cache did not know everything"
            size = cache.stat().st_size
        assert all(
            np.array_equal(one.pos, other.pos) if isinstance(one, Conformers) else one.reason == other.reason
            for one, other in zip(results, again, strict=True)
        )
        parsing = timed(partial(parse_all, smiles))[1].cpu
        # the lower bound has no time limit, so molecules that reached it are left out
        stopped = [isinstance(result, MoleculeError) and "time limit" in result.reason for result in results]
        fragments = canonical_fragments([text for text, slow in zip(smiles, stopped, strict=True) if not slow])
        floor = timed(partial(bare_rdkit, fragments, settings))[1].cpu
        embedding, reading = embedding.cpu, float(np.median(hits))
        reports = count_reports(results)
        raw[file] = {
            "molecules": len(smiles),
            "reports": reports,
            "cpu_seconds": {"embedding": embedding, "bare": floor, "hits": hits, "parsing": parsing},
            "bare_molecules": len(fragments),
            "file_bytes": size,
            "reasons": Counter(result.reason for result in results if isinstance(result, MoleculeError)),
        }
        rows.append(
            [
                file,
                len(smiles),
                f"{len(smiles) / embedding:.1f}",
                f"{len(fragments) / floor:.1f}",
                f"{len(smiles) / reading:,.0f}",
                f"{embedding / reading:,.0f}",
                f"{len(smiles) / parsing:,.0f}",
                f"{size / len(smiles) / 1000:.1f}",
                reports["3d"],
                reports["failed"],
            ]
        )
    header = ["file", "molecules", "embedding", "RDKit's two calls", "cache hit", "hit / embedding", "parsing alone"]
    text = f"""# Conformers

Molecules per CPU second (embedding: ETKDGv3 + MMFF94, {args.conformers} conformer(s), all hydrogens, start of the
worker process, checks and cache included; molecules stopped after {args.time_limit:g} s count with their time, but not
in RDKit's two calls); kilobytes of the cache file per molecule; how many have 3D coordinates or failed. A
molecule without coordinates is attempted twice (then from random coordinates), by RDKit's two calls once.

{markdown_table([*header, "kB each", "3d", "failed"], rows)}
"""
    write_report("conformers", text, raw, args)


if __name__ == "__main__":
    main()
