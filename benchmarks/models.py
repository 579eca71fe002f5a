"""Speed of the graph models at the papers' sizes, beside their own matrix products and the original classes.

    python -m benchmarks.models molclr --original ../MolCLR

One thread, CPU seconds, the same molecules and weights for all, one process. In every round each contender runs once,
one after the other; what counts is the median over the rounds of the ratio to another contender of the same round.

*Ceiling*: the matrix products that the model cannot do without, of the same shapes and type, with nothing between them
(in training also those of the gradients). A model at 80 % of it spends a fifth of its time on all else: gathering over
bonds, batch norm, activations, casts, the loss, the optimizer.

`--original`: folder with the files of github.com/yuyangw/MolCLR (MIT); its classes are imported from there as they are.
Without it that column is left out.
"""

import argparse
import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks.report import RESULTS, data_folder, markdown_table, write_report

Run = Callable[[], object]


def measure(contenders: dict[Hashable, Run], rounds: int) -> dict[Hashable, list[float]]:
    """CPU seconds of each contender in each round, after one run that does not count."""
    for run in contenders.values():
        run()
    seconds: dict[Hashable, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return seconds


def ratio(seconds: dict[Hashable, list[float]], one: Hashable, other: Hashable) -> float:
    """How many times as fast as `one` is `other`."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def products(shapes: Sequence[tuple[int, int, int]], dtype: torch.dtype, training: bool) -> Run:
    """
    A run of the products `[rows, inputs] x [inputs, outputs]` of linear layers, results written to memory that is there
    already; with `training` also the two products of each layer's gradients, of the same number of operations.
    """
    work = []
    for rows, inputs, outputs in shapes:
        x, weight, y = (torch.randn(size).to(dtype) for size in ((rows, inputs), (outputs, inputs), (rows, outputs)))
        work.append((x, weight.T, y))
        if training:
            work += [(y, weight, torch.empty_like(x)), (y.T, x, torch.empty_like(weight))]

    def run() -> None:
        for left, right, out in work:
            torch.mm(left, right, out=out)

    return run


def molclr(args: argparse.Namespace) -> tuple[str, list[dict]]:
    """GIN at the paper's size: embedding, and steps of contrastive pre-training (two views, Adam)."""
    from hf_molrep import MolCLRConfig, MolCLRDataCollator, MolCLRFeatureExtractor
    from hf_molrep.models.molclr import MolCLRForPreTraining
    from hf_molrep.models.molclr.conversion_molclr import convert_model

    extractor = MolCLRFeatureExtractor()
    features = extractor.featurize({"smiles": bbbp(max(args.batches))}, on_error="skip")
    features = [feature for feature in features if isinstance(feature, dict)]
    torch.manual_seed(0)
    original = Original(args.original) if args.original else None
    model = convert_model(original.network.state_dict()) if original else MolCLRForPreTraining(MolCLRConfig())
    header = ["what", "molecules", "atoms", "type", "ms", "of the ceiling", "times the original"]
    rows, raw = [], []
    # all embedding first: training moves the weights of ours and of the original apart
    for training, wanted in itertools.product((False, True), args.batches):
        inputs = dict(extractor.pad(features[:wanted]))
        labelled = [{**feature, "row_id": place} for place, feature in enumerate(features[:wanted])]
        views = MolCLRDataCollator(extractor)(labelled)
        size = inputs["num_graphs"]
        atoms = len(inputs["x"]) * (2 if training else 1)
        shapes = [(atoms, 300, 600), (atoms, 600, 300)] * 5
        shapes += [(2 * size, 300, 512), (2 * size, 512, 512), (2 * size, 512, 256)] if training else [(size, 300, 512)]
        for dtype in (torch.float32, torch.bfloat16):
            cast = torch.autocast("cpu", torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()
            ours = stepping(model, views, cast) if training else embedding(model, inputs, cast)
            contenders = {"ours": ours, "ceiling": products(shapes, dtype, training)}
            if original:
                contenders["original"] = (
                    original.stepping(views, size, cast) if training else original.embedding(inputs, cast)
                )
                if not training and dtype == torch.float32:
                    difference = (contenders["original"]() - ours()).abs().max().item()
                    assert difference < 1e-4, f"ours and the original differ by {difference}"
            seconds = measure(contenders, args.rounds)
            result = {
                "what": "pre-training step" if training else "embedding",
                "molecules": size,
                "atoms": atoms,
                "type": "fp32" if dtype == torch.float32 else "bf16 autocast",
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


def bbbp(count: int) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(data_folder() / "moleculenet" / "bbbp.parquet", columns=["smiles"])["smiles"].to_pylist()[
        : count + count // 8
    ]


def embedding(model, inputs: dict, cast) -> Run:
    model.eval()

    def run() -> torch.Tensor:
        model.eval()
        with torch.no_grad(), cast:
            return model.molclr(**inputs).pooler_output

    return run


def stepping(model, views: dict, cast) -> Run:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)

    def run() -> None:
        model.train()
        with cast:
            loss = model(**views).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


class Original:
    """The original's network and loss, imported from its files."""

    def __init__(self, folder: Path):
        self.modules = {}
        for path in ("models/ginet_molclr.py", "utils/nt_xent.py"):
            spec = importlib.util.spec_from_file_location(f"original_{Path(path).stem}", folder / path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # PyG looks for the modules of its layers there
            spec.loader.exec_module(module)
            self.modules[Path(path).stem] = module
        self.network = self.modules["ginet_molclr"].GINet(feat_dim=512)

    def embedding(self, inputs: dict, cast) -> Run:
        data = SimpleNamespace(**inputs)

        def run() -> torch.Tensor:
            self.network.eval()
            with torch.no_grad(), cast:
                return self.network(data)[0]

        return run

    def stepping(self, views: dict, size: int, cast) -> Run:
        names = ("x", "edge_index", "edge_attr", "batch")
        first, second = (SimpleNamespace(**{name: views[kind + name] for name in names}) for kind in ("", "second_"))
        loss_of = self.modules["nt_xent"].NTXentLoss("cpu", size, 0.1, True)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-6)

        def run() -> None:
            self.network.train()
            with cast:
                projections = [torch.nn.functional.normalize(self.network(data)[1], dim=1) for data in (first, second)]
                loss = loss_of(*projections)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return run


METHODS = {"molclr": molclr}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("methods", nargs="*", default=list(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128], help="molecules at a time")
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
