"""
GROVER at base size on one thread, beside the same model of huggingmolecules in one process: forward passes and training
steps of the same molecules, in float32 and under bf16 autocast, and what their matrix products alone would take.

    python -m benchmarks.grover_speed --peer FOLDER

FOLDER holds a checkout of github.com/gmum/huggingmolecules (Apache-2.0); its code is imported, not copied. Its training
step is taken in evaluation mode (in training mode it raises with NumPy 2.4 and newer). CPU seconds, the best of several
turns that alternate between the candidates.
"""

import argparse
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.report import RESULTS, data_folder, markdown_table, write_report
from hf_molrep.models.grover import GroverConfig, GroverFeatureExtractor, GroverModel


def cpu_seconds(candidates: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """The least CPU time of each, after one turn that does not count."""
    best = dict.fromkeys(candidates, float("inf"))
    for turn in range(turns + 1):
        for name, run in candidates.items():
            started = time.process_time()
            run()
            if turn:
                best[name] = min(best[name], time.process_time() - started)
    return best


def load_peer(folder: Path, width: int):
    """Model and featuriser of huggingmolecules; what its import needs besides (downloads, gin) is left out."""
    for name, attributes in {
        "gdown": {},
        "gin": {"configurable": lambda *args, **kwargs: args[0] if args else None},
    }.items():
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        sys.modules.setdefault(name, module)
    sys.path.insert(0, str(folder / "src" if (folder / "src").is_dir() else folder))
    from huggingmolecules.configuration import GroverConfig as PeerConfig
    from huggingmolecules.featurization import GroverFeaturizer
    from huggingmolecules.models import GroverModel as PeerModel

    config = PeerConfig(d_model=width)
    return PeerModel(config).eval(), GroverFeaturizer(config)


def products(config: GroverConfig, rows: dict[str, int], dtype: torch.dtype) -> Callable[[], None]:
    """The matrix products of a forward pass alone, in the shapes that the model has."""
    width, heads, hops = config.embedding_dim, config.num_attention_heads, config.depth - 1
    edge_features = config.atom_features + config.bond_features

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(dtype)

    weight = normal(3 * heads, width, width).transpose(1, 2)
    square, outward = normal(width, width), normal(width, heads * width)
    made = []
    for view, features in (("atoms", config.atom_features), ("edges", edge_features)):
        count = rows[view]
        made.append(
            {
                "messages": normal(3 * heads, count, width),
                "features": normal(count, features),
                "input": normal(width, features),
                "heads": normal(heads * count, width),
                "flat": normal(count, heads * width),
                "branch": normal(count, features + width),
                "up": normal(4 * width, features + width),
                "hidden": normal(count, 4 * width),
            }
        )
    down = normal(width, 4 * width)

    def run() -> None:
        linear = torch.nn.functional.linear
        for arrays in made:
            linear(arrays["features"], arrays["input"])
            for _ in range(hops):
                torch.bmm(arrays["messages"], weight)
            for _ in range(4):  # queries, keys, values, output
                linear(arrays["heads"], square)
            linear(arrays["flat"], outward)
            for _ in range(2):  # both branches of this view
                linear(arrays["branch"], arrays["up"])
                linear(arrays["hidden"], down)

    return run


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

    import pandas
    from rdkit import RDLogger

    RDLogger.DisableLog("rdApp.*")  # the peer's featuriser calls what RDKit warns of, once per atom
    smiles = pandas.read_parquet(data_folder() / "moleculenet" / "bbbp.parquet")["smiles"].tolist()
    extractor = GroverFeatureExtractor(standardize="none")
    features = [row for row in extractor.featurize({"smiles": smiles[:500]}, on_error="skip") if isinstance(row, dict)]
    middle = (len(features) - args.molecules) // 2
    features = sorted(features, key=lambda row: row["num_nodes"])[middle : middle + args.molecules]
    batch = dict(extractor.pad(features))
    rows = {"atoms": len(batch["x"]), "edges": batch["edge_index"].shape[1]}
    peer, featurizer = load_peer(args.peer, args.width)
    peer_batch = featurizer([row["smiles_used"] for row in features])
    model = GroverModel(GroverConfig(embedding_dim=args.width)).eval()

    def forward(bf16: bool = False) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(**batch).pooler_output

    def peer_forward() -> None:
        with torch.no_grad():
            peer.grover(peer_batch)

    def step(run: Callable[[], torch.Tensor], module: torch.nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-5, foreach=True)

        def one() -> None:
            optimizer.zero_grad()
            run().backward()
            optimizer.step()

        return one

    def our_loss(bf16: bool) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(**batch).pooler_output.float().square().mean()

    def peer_loss() -> torch.Tensor:
        return sum(value.square().mean() for value in peer.grover(peer_batch).values())

    candidates = {
        "huggingmolecules, fp32": peer_forward,
        "ours, fp32": forward,
        "ours, bf16 autocast": lambda: forward(True),
        "matrix products alone, fp32": products(model.config, rows, torch.float32),
        "matrix products alone, bf16": products(model.config, rows, torch.bfloat16),
    }
    exact, rounded = forward(), forward(True).float()
    change = ((rounded - exact).norm(dim=1) / exact.norm(dim=1)).max().item()
    seconds = {"forward": cpu_seconds(candidates, args.turns)}
    if not args.no_training:
        steps = {
            "huggingmolecules, fp32": step(peer_loss, peer),
            "ours, fp32": step(lambda: our_loss(False), model),
            "ours, bf16 autocast": step(lambda: our_loss(True), model),
        }
        seconds["training step"] = cpu_seconds(steps, max(1, args.turns // 2))
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
