"""
Speed of GROVER at base size on one thread, compared with the same model of huggingmolecules and with its matrix
products alone: forward passes and training steps of the same molecules, in float32 and under bf16 autocast.

    python -m benchmarks.grover_speed --peer FOLDER

FOLDER holds a checkout of github.com/gmum/huggingmolecules (Apache-2.0); its code is imported, not copied
(`originals/grover.py`). CPU seconds, the best of several turns that alternate between the candidates.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.harness.ceilings import products
from benchmarks.harness.checkpoints import usable
from benchmarks.harness.data import smiles_of
from benchmarks.harness.report import RESULTS, markdown_table, write_report
from benchmarks.harness.steps import autocast, stepping
from benchmarks.harness.timing import Run, measure
from benchmarks.originals.grover import Peer
from hf_molrep.models.grover import GroverConfig, GroverFeatureExtractor, GroverModel


def layers(config: GroverConfig, rows: dict[str, int]) -> list[tuple[int, ...]]:
    """Return the linear layers of a forward pass, as shapes for `products`."""
    width, heads, hops = config.embedding_dim, config.num_attention_heads, config.depth - 1
    shapes: list[tuple[int, ...]] = []
    for view, features in (("atoms", config.atom_features), ("edges", config.atom_features + config.bond_features)):
        count = rows[view]
        shapes += [(count, features, width)]
        shapes += [(3 * heads, count, width, width)] * hops  # messages of all heads
        shapes += [(heads * count, width, width)] * 4  # queries, keys, values, output
        shapes += [(count, heads * width, width)]
        # both branches of this view
        shapes += [(count, features + width, 4 * width), (count, 4 * width, width)] * 2
    return shapes


def least(candidates: dict[str, Run], turns: int) -> dict[str, float]:
    """Return the lowest CPU time of each over the turns."""
    return {name: min(seconds) for name, seconds in measure(candidates, turns).items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="checkout of huggingmolecules")
    parser.add_argument("--molecules", type=int, default=16)
    parser.add_argument("--width", type=int, default=800, help="800: base, 1200: large")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--no_training", action="store_true", help="forward passes only")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    args.threads = 1
    torch.set_num_threads(1)
    torch.manual_seed(0)

    extractor = GroverFeatureExtractor(standardize="none")
    features = usable(extractor.featurize({"smiles": smiles_of("moleculenet/bbbp.parquet", 500)}, "skip"))
    middle = (len(features) - args.molecules) // 2
    features = sorted(features, key=lambda row: row["num_nodes"])[middle : middle + args.molecules]
    batch = dict(extractor.pad(features))
    rows = {"atoms": len(batch["x"]), "edges": batch["edge_index"].shape[1]}
    peer = Peer(args.peer, args.width, [row["smiles_used"] for row in features])
    model = GroverModel(GroverConfig(embedding_dim=args.width)).eval()

    def forward(bf16: bool = False) -> torch.Tensor:
        with torch.no_grad(), autocast(bf16):
            return model(**batch).pooler_output

    def step(bf16: bool) -> Run:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, foreach=True)
        return stepping(lambda: model(**batch).pooler_output.float().square().mean(), optimizer, bf16)

    candidates = {
        "huggingmolecules, fp32": peer.forward,
        "ours, fp32": forward,
        "ours, bf16 autocast": lambda: forward(True),
        "matrix products alone, fp32": products(layers(model.config, rows), torch.float32),
        "matrix products alone, bf16": products(layers(model.config, rows), torch.bfloat16),
    }
    exact, rounded = forward(), forward(True).float()
    change = ((rounded - exact).norm(dim=1) / exact.norm(dim=1)).max().item()
    seconds = {"forward": least(candidates, args.turns)}
    if not args.no_training:
        steps = {
            "huggingmolecules, fp32": peer.stepping(),
            "ours, fp32": step(bf16=False),
            "ours, bf16 autocast": step(bf16=True),
        }
        seconds["training step"] = least(steps, max(1, args.turns // 2))
    table = []
    for what, found in seconds.items():
        base = found["huggingmolecules, fp32"]
        for name, value in found.items():
            ceiling = seconds["forward"][f"matrix products alone, {'bf16' if 'bf16' in name else 'fp32'}"]
            share = f"{ceiling / value:.0%}" if what == "forward" and "ours" in name else ""
            table.append((what, name, f"{value:.3f}", f"{args.molecules / value:.1f}", f"{base / value:.2f}", share))
    counts = f"{rows['atoms']} atoms, {rows['edges']} directed bonds"
    text = (
        f"# GROVER, width {args.width}, one thread\n\n{args.molecules} molecules of BBBP of middling size ({counts}), "
        "all four outputs, random weights.\n\n"
        + markdown_table(
            ("", "", "CPU seconds", "molecules per CPU second", "times huggingmolecules", "of its matrix products"),
            table,
        )
        + f"\n\nbf16 autocast changes the embedding of a molecule by at most {change:.2%} of its length (L2)."
    )
    name = "grover_speed" if args.width == 800 else f"grover_speed_{args.width}"
    write_report(name, text, {"seconds": seconds, "rows": rows, "largest_relative_change": change}, args)


if __name__ == "__main__":
    main()
