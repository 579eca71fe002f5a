"""
Speed and memory of 3D Infomax and GraphMVP at the papers' sizes on one thread, compared with the authors' code: PNA,
forward and training step, against the original on DGL; a pre-training step of GIN and SchNet against the original's.

    pip install --no-deps --target PACKAGES dgl==2.1.0 ogb==1.3.6 outdated littleutils
    python -m benchmarks.graph_conformer_speed --infomax FOLDER --packages PACKAGES --graphmvp FOLDER

The folders are checkouts of github.com/HannesStark/3DInfomax and github.com/chao1224/GraphMVP; their code is imported,
not copied (`originals/`). Molecules of BBBP with explicit hydrogens, as both pre-train, with RDKit's conformers, the
same batch for both; weights are random and the same for both, and outputs are compared before anything is timed.
CPU seconds, in one process and in turns, with medians of the ratios over the rounds; making batches is not timed.
Memory is that of a separate process, above its memory after model and batch were made.
"""

import argparse
import statistics
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.harness.checkpoints import usable
from benchmarks.harness.data import sample, smiles_of
from benchmarks.harness.profiling import forget_peak
from benchmarks.harness.profiling import megabytes as memory_of_process
from benchmarks.harness.report import RESULTS, markdown_table, write_report
from benchmarks.harness.steps import autocast, stepping
from benchmarks.harness.timing import Run, measure, ratio
from benchmarks.originals import graphmvp, infomax_3d
from hf_molrep.models.graphmvp import GraphMVPFeatureExtractor
from hf_molrep.models.graphmvp import conversion_graphmvp as graphmvp_weights
from hf_molrep.models.infomax_3d import Infomax3DFeatureExtractor
from hf_molrep.models.infomax_3d import conversion_infomax_3d as infomax_weights

PNA_FORWARD, PNA_STEP, TWO_VIEWS = "PNA, forward", "PNA, training step", "GIN + SchNet, pre-training step"
WHO = ("original", "ours", "ours, bf16 autocast")


def drawn(model: torch.nn.Module) -> None:
    """Weights large enough that outputs can be compared: PNA begins with outputs of 1e-6."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)


def pna_runs(args: argparse.Namespace, smiles: list[str], check: bool) -> dict[tuple[str, str], Run]:
    """Runs of PNA by what and who; `check` compares the embeddings."""
    original = infomax_3d.Original(args.infomax, args.packages)
    drawn(original.network)
    ours = infomax_weights.convert_model(original.network.state_dict(), problem_type="regression")
    extractor = Infomax3DFeatureExtractor(explicit_hydrogens=True)
    features = extractor.featurize({"smiles": smiles})
    graph, batch = original.graphs(features), dict(extractor.pad(features, return_tensors="pt"))
    network = original.network
    encoder, output = ours.infomax_3d, ours.head.network
    encoder.readout = list(infomax_3d.SETTINGS["readout_aggregators"])

    def embed() -> torch.Tensor:
        return output(encoder(**batch).pooler_output)

    if check:
        network.eval(), ours.eval()
        with torch.no_grad():
            compare(original(graph), embed())

    def forward(model: torch.nn.Module, run: Callable[[], torch.Tensor], bf16: bool = False) -> Run:
        def once() -> None:
            model.eval()
            with torch.no_grad(), autocast(bf16):
                run()

        return once

    def step(model: torch.nn.Module, run: Callable[[], torch.Tensor], bf16: bool = False) -> Run:
        def loss() -> torch.Tensor:
            model.train()
            return run().float().square().mean()

        return stepping(loss, torch.optim.Adam(model.parameters(), lr=1e-6, foreach=True), bf16)

    runs = {}
    for what, make in ((PNA_FORWARD, forward), (PNA_STEP, step)):
        runs[what, WHO[0]] = make(network, lambda: original(graph))
        runs[what, WHO[1]], runs[what, WHO[2]] = make(ours, embed), make(ours, embed, True)
    return runs


def two_view_runs(args: argparse.Namespace, smiles: list[str], check: bool) -> dict[tuple[str, str], Run]:
    """Runs of a pre-training step of GraphMVP by who."""
    original = graphmvp.Original(args.graphmvp)
    parts = {name: part.state_dict() for name, part in original.parts.items()}
    ours = graphmvp_weights.convert_model(parts)
    extractor = GraphMVPFeatureExtractor().for_pretraining()
    features = usable(extractor.featurize({"smiles": smiles}, "skip"))
    batch = dict(extractor.pad(features, return_tensors="pt"))
    if check:
        for part in (*original.parts.values(), ours):
            part.eval()
        with torch.no_grad():
            found = ours(**batch).embeddings
            for theirs, name in zip(original.embeddings(batch), ("graph", "conformer"), strict=True):
                compare(theirs, found[name])
    for part in (*original.parts.values(), ours):
        part.train()
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-6, foreach=True)
    return {
        (TWO_VIEWS, WHO[0]): original.stepping(batch),
        (TWO_VIEWS, WHO[1]): stepping(lambda: ours(**batch).loss, optimizer),
        (TWO_VIEWS, WHO[2]): stepping(lambda: ours(**batch).loss, optimizer, True),
    }


def compare(theirs: torch.Tensor, ours: torch.Tensor) -> None:
    """
    Raises:
        RuntimeError: outputs that differ by more than 1e-4 of the largest value.
    """
    difference = ((theirs - ours).abs().max() / theirs.abs().max()).item()
    print(f"outputs agree within {difference:.1e} of the largest value", flush=True)
    if difference > 1e-4:
        raise RuntimeError(f"outputs differ by {difference} of the largest value: nothing to compare")


def megabytes(args: argparse.Namespace, smiles: list[str], name: tuple[str, str]) -> float:
    """Measure the peak memory of two runs in this process, above that after model and batch were made, in MB."""
    torch.set_num_threads(1)
    run = (two_view_runs if name[0] == TWO_VIEWS else pna_runs)(args, smiles, check=False)[name]
    forget_peak()
    before = memory_of_process("VmRSS")
    run()
    run()
    return memory_of_process("VmHWM") - before


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--infomax", type=Path, required=True, help="checkout of 3DInfomax")
    parser.add_argument("--packages", type=Path, required=True, help="folder with dgl 2.1.0 and ogb 1.3.6")
    parser.add_argument("--graphmvp", type=Path, required=True, help="src_classification of a checkout of GraphMVP")
    parser.add_argument("--molecules", type=int, default=128, help="of BBBP, drawn with seed 0, in one batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    args.threads = 1
    torch.set_num_threads(1)
    smiles = sample(smiles_of("moleculenet/bbbp.parquet"), 3 * args.molecules, 0)
    extractor = GraphMVPFeatureExtractor().for_pretraining()
    found = extractor.featurize({"smiles": smiles}, "skip")
    kept = [text for text, feature in zip(smiles, found, strict=True) if isinstance(feature, dict)][: args.molecules]
    runs = pna_runs(args, kept, check=True) | two_view_runs(args, kept, check=True)
    seconds = measure(runs, args.rounds)
    memory = {}
    for name in (name for name in runs if name[1] in WHO[:2]):
        with get_context("spawn").Pool(1) as pool:
            memory[name] = pool.apply(megabytes, (args, kept, name))
    rows = []
    for name in runs:
        times = ratio(seconds, (name[0], WHO[0]), name)
        rate = args.molecules / statistics.median(seconds[name])
        rows.append([*name, f"{rate:.1f}", f"{times:.2f}", f"{memory[name]:.0f}" if name in memory else ""])
    atoms = sum(feature["num_nodes"] for feature in extractor.featurize({"smiles": kept}))
    text = [
        "# 3D Infomax and GraphMVP at the papers' sizes, one thread\n",
        f"{len(kept)} molecules of BBBP with all hydrogens in one batch ({atoms / len(kept):.0f} atoms on average), "
        "random weights, the same for both.\n",
        markdown_table(["what", "who", "molecules per CPU second", "times the original", "peak memory, MB"], rows),
        f"\n- {args.rounds} rounds. Memory: above that of the process with model and batch, in two runs.",
        "- PNA: 7 layers of width 200 and the readout network; its training step minimises the squares of the outputs, "
        "with Adam. The original runs on DGL 2.1.0.",
        "- GIN + SchNet: both encoders, contrast, reconstruction, Adam. The original's search for neighbours needs "
        "torch-cluster, and is ours here.",
    ]
    raw = {
        "seconds": {", ".join(name): spent for name, spent in seconds.items()},
        "memory": {", ".join(name): value for name, value in memory.items()},
    }
    write_report("graph_conformer_speed", "\n".join(text), raw, args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
