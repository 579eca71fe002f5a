"""Distribution learning on MOSES: what a fine-tuned checkpoint writes, beside a character 5-gram model.

    python examples/recipes/prepare_moses.py ../shared/data/generation/moses_train.parquet --draw 200000 --out moses
    hf-molrep pretrain x_mol --model x-mol-mini --train_data moses/train.parquet \\
        --validation_data moses/validation.parquet --empty_source 1.0 --output_dir runs/x-mol-moses ...
    python -m benchmarks.distribution_learning --model runs/x-mol-moses --train moses/train.parquet

Metrics of MOSES against its test set and its scaffold test set, and the divergence of descriptors of GuacaMol from the
training molecules. The 5-gram model has the same training molecules; a draw of these is the upper reference.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness.data import data_folder, sample, smiles_of
from benchmarks.harness.report import argument_parser, fingerprint, markdown_table, write_report
from benchmarks.harness.samples import free_samples
from benchmarks.harness.selection import Cache
from benchmarks.ngram import CharacterNgram
from hf_molrep.chem.distribution_metrics import (
    DescriptorDistributions,
    MoleculeProfile,
    canonical_or_none,
    distribution_metrics,
    share_without_alerts,
)

REFERENCES = {"Test": "moses_test", "TestSF": "moses_test_scaffolds"}
ALERTS_OF = 2000  # molecules, of which alerts are looked for: 3 ms each
COLUMNS = ("valid", "unique@1000", "unique@10000", "novel", "known", "IntDiv1", "IntDiv2")
SIMILARITIES = tuple(f"{metric}/{name}" for name in REFERENCES for metric in ("SNN", "Frag", "Scaf"))


def reference_profile(path: Path, cache: Path) -> MoleculeProfile:
    """Compute the profile of a reference set, or read it from the folder `cache`."""
    file = cache / f"{path.stem}.npz"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npz")
        MoleculeProfile.of(smiles_of(path)).save(partial)
        partial.replace(file)
    return MoleculeProfile.load(file)


def canonical_set(path: Path, cache: Path) -> frozenset[str]:
    """Write the canonical SMILES of all molecules of a file, or read them from the folder `cache`."""
    file = cache / f"{path.stem}_canonical.parquet"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        table = pa.table({"smiles": [canonical_or_none(text) for text in smiles_of(path)]})
        partial = file.with_suffix(".partial")
        pq.write_table(table, partial)
        partial.replace(file)
    return frozenset(pq.read_table(file)["smiles"].to_pylist())


def measure(
    texts: Sequence[str],
    references: dict[str, MoleculeProfile],
    moses: frozenset[str],
    training: frozenset[str],
    descriptors: DescriptorDistributions,
) -> dict:
    """Compute all metrics of the texts of one model."""
    found = distribution_metrics(texts, references, moses)
    valid = [text for text in map(canonical_or_none, texts) if text is not None]
    found["known"] = float(np.mean([text in training for text in valid]))
    found["KL"] = DescriptorDistributions.of(texts).score(descriptors)
    found["no PAINS"] = share_without_alerts(valid[:ALERTS_OF])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, name="distribution_learning")
    parser.set_defaults(model=None)
    parser.add_argument("--train", type=Path, required=True, help="the training molecules, Parquet")
    parser.add_argument("--moses", type=Path, help="folder of MOSES (default: generation/ of the data folder)")
    parser.add_argument("--samples", type=int, default=30_000, help="of each model")
    parser.add_argument("--batch_rows", type=int, default=256, help="molecules written at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/distribution_learning"), help="folder of what is kept")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    folder = args.moses or data_folder() / "generation"
    references = {name: reference_profile(folder / f"{file}.parquet", args.cache) for name, file in REFERENCES.items()}
    moses = canonical_set(folder / "moses_train.parquet", args.cache)
    train = smiles_of(args.train)
    training = frozenset(map(canonical_or_none, train))
    descriptors = DescriptorDistributions.of(train, seed=args.seed)

    writers = {
        "training molecules": lambda: sample(train, args.samples, args.seed + 1),
        "character 5-gram": lambda: CharacterNgram(train).sample(args.samples, args.seed),
    }
    if args.model is not None:
        from transformers import AutoModelForCausalLM

        from hf_molrep.inference.checkpoints import load_checkpoint
        from hf_molrep.inference.generation import GenerationOptions

        model, processor = load_checkpoint(AutoModelForCausalLM, args.model)
        for name, constrained in (("fine-tuned", False), ("fine-tuned, constrained", True)):
            options = GenerationOptions(
                args.samples, seed=args.seed, constrained=constrained, batch_rows=args.batch_rows, keep_all=True
            )
            writers[name] = lambda options=options: free_samples(
                model, processor, args.model, options, args.cache / "samples.jsonl"
            )
    known, raw = Cache(args.cache / "metrics.jsonl"), {}
    for name, texts in writers.items():
        key = {"writer": name, "train": args.train.name, "molecules": len(train), "samples": args.samples}
        key |= {"seed": args.seed, "checkpoint": fingerprint(args.model) if "fine" in name else None}
        raw[name] = known.get(key, lambda texts=texts: measure(texts(), references, moses, training, descriptors))
        print(name, raw[name], flush=True)

    def table(columns: Sequence[str]) -> str:
        return markdown_table(
            ["written by", *columns],
            [[name, *(found.get(column, "n/a") for column in columns)] for name, found in raw.items()],
        )

    sizes = ", ".join(f"{file}: {len(references[name].fingerprints):,}" for name, file in REFERENCES.items())
    text = [
        "# Distribution learning on MOSES\n",
        table((*COLUMNS, "no PAINS", "KL")),
        "",
        table(SIMILARITIES),
        "",
        f"- {args.samples:,} texts of each, one seed; {len(train):,} training molecules, the same for all. The first "
        "row is a draw of these: what a perfect model would reach (but for novel and known).",
        f"- valid, unique, novel, IntDiv, SNN, Frag, Scaf: by the definitions of MOSES, against its whole test sets "
        f"({sizes} molecules). novel: of the different molecules, those not among the {len(moses):,} of moses_train. "
        "known: of the valid texts, those among the training molecules.",
        "- KL: the score of GuacaMol (nine descriptors and internal similarity, mean of exp(-divergence)), from 10,000 "
        "different molecules against 10,000 training molecules.",
        f"- no PAINS: share without an alert of RDKit's PAINS catalogue, of the first {ALERTS_OF:,} valid. It is not "
        "the filter of MOSES, which needs its list of alerts. FCD: not run.",
        "- constrained: with the logits processor that leaves no ring or branch open and no valence exceeded.",
        "- character 5-gram: interpolated Witten-Bell smoothing, sampled character by character.",
    ]
    write_report(args.name, "\n".join(text), {"writers": raw}, args, args.model)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
