"""Speed of the graph models at the papers' sizes, compared with their matrix products and the original classes.

    python -m benchmarks.models molclr --original ../MolCLR

One thread, CPU seconds, the same molecules and weights for all, one process. In every round each contender runs once;
the result is the median over the rounds of the ratio between contenders of the same round.

*Ceiling*: the matrix products of the model alone, of the same shapes and type (in training also those of the
gradients). A model at 80 % of it spends a fifth of its time on everything else: gathering over bonds, batch norm,
activations, casts, the loss, the optimizer.

`--original`: folder with the files of github.com/yuyangw/MolCLR (MIT), whose classes are imported unchanged. Without it
that column is left out.
"""

import argparse
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness.ceilings import products
from benchmarks.harness.checkpoints import usable
from benchmarks.harness.data import smiles_of
from benchmarks.harness.report import RESULTS, markdown_table, write_report
from benchmarks.harness.steps import autocast, stepping
from benchmarks.harness.timing import Run, measure, ratio
from benchmarks.originals.molclr import Original


def molclr(args: argparse.Namespace) -> tuple[str, list[dict]]:
    """Measure GIN at the paper's size: embedding, and steps of contrastive pre-training (two views, Adam)."""
    from hf_molrep import MolCLRConfig, MolCLRDataCollator, MolCLRFeatureExtractor
    from hf_molrep.models.molclr import MolCLRForPreTraining
    from hf_molrep.models.molclr.conversion_molclr import convert_model

    extractor = MolCLRFeatureExtractor()
    most = max(args.batches)
    smiles = smiles_of("moleculenet/bbbp.parquet", most + most // 8)  # some cannot be parsed
    features = usable(extractor.featurize({"smiles": smiles}, "skip"))
    torch.manual_seed(0)
    original = Original(args.original) if args.original else None
    model = convert_model(original.network.state_dict()) if original else MolCLRForPreTraining(MolCLRConfig())
    header = ["what", "molecules", "atoms", "type", "ms", "of the ceiling", "times the original"]
    rows, raw = [], []
    # all embedding first: after training our weights differ from those of the original
    for training, wanted in itertools.product((False, True), args.batches):
        inputs = dict(extractor.pad(features[:wanted]))
        labelled = [{**feature, "row_id": place} for place, feature in enumerate(features[:wanted])]
        views = MolCLRDataCollator(extractor)(labelled)
        size = inputs["num_graphs"]
        atoms = len(inputs["x"]) * (2 if training else 1)
        shapes = [(atoms, 300, 600), (atoms, 600, 300)] * 5
        shapes += [(2 * size, 300, 512), (2 * size, 512, 512), (2 * size, 512, 256)] if training else [(size, 300, 512)]
        for dtype in (torch.float32, torch.bfloat16):
            bf16 = dtype == torch.bfloat16
            ours = pretraining(model, views, bf16) if training else embedding(model, inputs, bf16)
            contenders = {"ours": ours, "ceiling": products(shapes, dtype, training)}
            if original:
                contenders["original"] = (
                    original.stepping(views, size, bf16) if training else original.embedding(inputs, bf16)
                )
                if not training and not bf16:
                    difference = (contenders["original"]() - ours()).abs().max().item()
                    assert difference < 1e-4, f"ours and the original differ by {difference}"
            seconds = measure(contenders, args.rounds)
            result = {
                "what": "pre-training step" if training else "embedding",
                "molecules": size,
                "atoms": atoms,
                "type": "bf16 autocast" if bf16 else "fp32",
                "seconds": seconds,
                "of_ceiling": ratio(seconds, "ceiling", "ours"),
                "of_original": ratio(seconds, "original", "ours") if original else None,
            }
            raw.append(result)
            rows.append(
                [
                    *(result[key] for key in ("what", "molecules", "atoms", "type")),
                    f"{1000 * statistics.median(seconds['ours']):.1f}",
                    f"{result['of_ceiling']:.2f}",
                    f"{result['of_original']:.2f}" if original else "not run",
                ]
            )
    return f"## MolCLR, GIN, 5 x 300\n\n{markdown_table(header, rows)}\n", raw


def embedding(model, inputs: dict, bf16: bool) -> Run:
    """Make a run that computes our embeddings."""

    def run() -> torch.Tensor:
        model.eval()
        with torch.no_grad(), autocast(bf16):
            return model.molclr(**inputs).pooler_output

    return run


def pretraining(model, views: dict, bf16: bool) -> Run:
    """Make a run of one step of our contrastive pre-training."""

    def loss() -> torch.Tensor:
        model.train()
        return model(**views).loss

    return stepping(loss, torch.optim.Adam(model.parameters(), lr=1e-6, fused=True), bf16)


METHODS = {"molclr": molclr}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=list(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128], help="molecules in a batch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--original", type=Path, help="folder with the original's files, see above")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the .md and .json written")
    args = parser.parse_args(argv)
    if unknown := set(args.methods) - set(METHODS):
        parser.error(f"unknown: {', '.join(unknown)}")
    torch.set_num_threads(1)
    text, raw = ["# Graph models on one thread, molecules of BBBP\n"], {}
    for name in args.methods:
        section, raw[name] = METHODS[name](args)
        text.append(section)
    write_report("models", "\n".join(text), raw, args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
