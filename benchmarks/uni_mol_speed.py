"""
Speed and memory of Uni-Mol at the paper's size on one thread, compared with unimol_tools: embedding molecules of BBBP
with all hydrogens, and training steps.

    pip download unimol_tools==0.1.4.post1 --no-deps && pip install --no-deps --target FOLDER unimol_tools-*.whl
    python -m benchmarks.uni_mol_speed --peer FOLDER [--molecules 2039]

Its code (MIT) is imported from FOLDER, not copied (`originals/uni_mol.py`). Both models have the same random weights,
and their embeddings are compared, those of the first batch before anything is timed. Its batches are 16 molecules in
order; ours are the same, and those of `hf-molrep embed`. Conformers are computed beforehand. CPU seconds are measured
in one process, in turns, with medians of the ratios over the rounds; memory is that of a separate process, above its
memory after the model was built.

The time of our model is divided by torch's profile of its operators. Memory kept for the backward pass is counted when
autograd saves it.
"""

import argparse
import statistics
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.checkpoints import usable
from benchmarks.harness.data import sample, smiles_of
from benchmarks.harness.profiling import forget_peak, shares
from benchmarks.harness.profiling import megabytes as memory_of_process
from benchmarks.harness.report import RESULTS, markdown_table, write_report
from benchmarks.harness.steps import autocast, stepping
from benchmarks.harness.timing import measure, ratio
from benchmarks.originals import uni_mol as original
from hf_molrep.inference.engine import BATCH_TOKENS, token_batches
from hf_molrep.models.uni_mol import UniMolFeatureExtractor
from hf_molrep.models.uni_mol.conversion_uni_mol import convert_model

BATCH = 16
IN_MEMORY = 8  # number of batches for the memory
TERMS = {  # torch's operators by kind
    "linear layers": ("addmm", "mm"),
    "products of queries, keys, weights and values": ("bmm", "baddbmm", "baddbmm_"),
    "softmax": ("_softmax", "_softmax_backward_data"),
    "GELU": ("gelu", "gelu_backward"),
    "norms": ("native_layer_norm", "native_layer_norm_backward"),
    "copies": ("copy_", "cat", "clone", "_to_copy"),
}


def build(which: str, folder: Path, features: list[dict]) -> tuple[torch.nn.Module, Callable[[list[dict]], dict]]:
    """Build a contender: its model, and a function from features to a batch."""
    torch.manual_seed(0)
    peer, coords2unimol = original.load_peer(folder)
    if which == "peer":
        return peer, original.collating(peer, coords2unimol, features)
    ours = convert_model(peer.state_dict(), problem_type="regression", label_mean=[0.0], label_std=[1.0])
    extractor = UniMolFeatureExtractor()
    return ours, lambda part: dict(extractor.pad(part, return_tensors="pt"))


def grouped(features: list[dict]) -> list[list[dict]]:
    """Make the batches of `hf_molrep.inference` (one window): largest molecules first, a fixed number of tokens."""
    lengths = np.array([len(feature["input_ids"]) for feature in features])
    parts = token_batches(lengths, BATCH_TOKENS)
    return [[features[index] for index in part] for part in parts]


def embed(which: str, model, collate, batches: list[list[dict]], bf16: bool = False) -> torch.Tensor:
    """Compute embeddings `[molecules, 512]`, in the order of the batches."""
    rows = []
    with torch.no_grad(), autocast(bf16):
        for part in batches:
            batch = collate(part)
            rows.append(original.embeddings(model, batch) if which == "peer" else model.uni_mol(**batch).pooler_output)
    return torch.cat([row.float() for row in rows])


def step(which: str, model, collate, part: list[dict], optimizer, bf16: bool = False) -> None:
    """Run one optimiser step on the squared predictions."""
    batch = collate(part)

    def loss() -> torch.Tensor:
        out = original.outputs(model, batch) if which == "peer" else model(**batch).logits
        return out.float().square().mean()

    stepping(loss, optimizer, bf16)()


def kept_for_backward(model, batch: dict) -> dict[str, float]:
    """Measure the MB that a forward pass keeps for the backward pass: of pairs of tokens, and of tokens."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    seen: dict[int, tuple[bool, int]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in weights:
            # attention has rows as long as their number; features of pairs are as many as the squares of the lengths
            of_pairs = tensor.dim() > 2 and tensor.shape[-1] == tensor.shape[-2]
            of_pairs |= tensor.dim() > 1 and tensor.shape[-1] == model.config.num_kernels
            seen[storage.data_ptr()] = of_pairs, storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(**batch)  # kept until it is counted: what is freed could be seen twice
    model.eval()
    found = {"pairs of tokens": 0.0, "tokens": 0.0}
    for of_pairs, size in seen.values():
        found["pairs of tokens" if of_pairs else "tokens"] += size / 1e6
    del output
    return found


def megabytes(which: str, folder: Path, features: list[dict], training: bool) -> float:
    """Measure the peak memory of this process above that after the model was built, in MB."""
    torch.set_num_threads(1)
    model, collate = build(which, folder, features)
    plain = [features[start : start + BATCH] for start in range(0, len(features), BATCH)]
    forget_peak()
    before = memory_of_process("VmRSS")
    if training:
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
        for part in plain[:2]:
            step(which, model, collate, part, optimizer)
    else:
        embed(which, model, collate, grouped(features) if which == "ours" else plain)
    return memory_of_process("VmHWM") - before


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="folder into which unimol_tools 0.1.4.post1 was put")
    parser.add_argument("--molecules", type=int, default=256, help="of BBBP, drawn with seed 0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="training steps in each round")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    args.threads = 1
    torch.set_num_threads(1)
    smiles = sample(smiles_of("moleculenet/bbbp.parquet"), args.molecules, 0)
    features = usable(UniMolFeatureExtractor().featurize({"smiles": smiles}, "skip"))
    np.random.default_rng(0).shuffle(features)
    plain = [features[start : start + BATCH] for start in range(0, len(features), BATCH)]
    contenders = {which: build(which, args.peer, features) for which in ("peer", "ours")}

    first = [embed(which, *contenders[which], plain[:1]) for which in contenders]
    difference = (first[0] - first[1]).abs().max().item()
    if difference > 1e-4:
        raise RuntimeError(f"the embeddings differ by {difference}: nothing to compare")

    optimizers = {which: torch.optim.Adam(model.parameters(), lr=1e-5) for which, (model, _) in contenders.items()}

    def train(which: str, bf16: bool = False) -> None:
        model, collate = contenders[which]
        model.train()
        for part in plain[: args.steps]:
            step(which, model, collate, part, optimizers[which], bf16)
        model.eval()

    groups = grouped(features)
    embeddings: dict[str, torch.Tensor] = {}

    def run(name: str, which: str, batches: list[list[dict]], bf16: bool = False) -> None:
        made = embed(which, *contenders[which], batches, bf16)
        embeddings.setdefault(name, made)  # before training steps change the weights

    runs = {
        ("embedding", "unimol_tools", "16 as they come"): lambda: run("peer", "peer", plain),
        ("embedding", "ours", "the same"): lambda: run("ours", "ours", plain),
        ("embedding", "ours", "as embed makes them"): lambda: run("grouped", "ours", groups),
        ("embedding", "ours, bf16", "as embed makes them"): lambda: run("bf16", "ours", groups, True),
        ("training step", "unimol_tools", "16 as they come"): lambda: train("peer"),
        ("training step", "ours", "the same"): lambda: train("ours"),
        ("training step", "ours, bf16", "the same"): lambda: train("ours", True),
    }
    seconds = measure(runs, args.rounds)
    difference = (embeddings["peer"] - embeddings["ours"]).abs().max().item()
    lengths = embeddings["grouped"].norm(dim=1)
    change = ((embeddings["grouped"] - embeddings["bf16"]).norm(dim=1) / lengths).max().item()
    counts = {"embedding": len(features), "training step": BATCH * args.steps}
    rows = []
    for name, spent in seconds.items():
        times = ratio(seconds, (name[0], "unimol_tools", "16 as they come"), name)
        rows.append([*name, f"{counts[name[0]] / statistics.median(spent):.1f}", f"{times:.2f}"])
    memory = []
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for training in (False, True):
            for which in ("peer", "ours"):
                used = pool.apply(megabytes, (which, args.peer, features[: IN_MEMORY * BATCH], training))
                memory.append(["training step" if training else "embedding", which, f"{used:.0f}"])
    model, collate = contenders["ours"]
    terms = [shares(lambda: run("ours", "ours", groups[:IN_MEMORY]), TERMS), shares(lambda: train("ours"), TERMS)]
    kept = kept_for_backward(model, collate(plain[0]))
    atoms = np.array([len(feature["z"]) for feature in features])
    text = [
        "# Uni-Mol at the paper's size, one thread\n",
        f"{len(features)} molecules of BBBP with all hydrogens ({atoms.mean():.0f} atoms on average, at most "
        f"{atoms.max()}), random weights, the same for both; embeddings agree within {difference:.1e}.\n",
        markdown_table(["what", "who", "batches", "molecules per CPU second", "times unimol_tools"], rows),
        f"\nbf16 autocast changes the embedding of a molecule by at most {100 * change:.2f} % of its length (L2).\n",
        markdown_table(["memory above the model, MB", "who", "peak"], memory),
        "\nWhere our time goes, fp32:\n",
        markdown_table(
            ["term", "embedding, %", "training step, %"],
            [[term, *(f"{100 * each[term]:.1f}" for each in terms)] for term in terms[0]],
        ),
        f"\nA training step of {BATCH} molecules keeps for the backward pass "
        + " and ".join(f"{size:.0f} MB of {what}" for what, size in kept.items())
        + ".\n",
        f"- Rounds: {args.rounds}; a round of training steps has {args.steps}. Embedding in `hf-molrep embed`'s "
        f"batches: at most {BATCH_TOKENS} padded tokens. Memory: of {IN_MEMORY * BATCH} molecules (training: two "
        f"steps). Shares: of the {IN_MEMORY} batches with the largest molecules, and of {args.steps} training steps.",
    ]
    raw = {
        "seconds": {", ".join(name): spent for name, spent in seconds.items()},
        "memory": memory,
        "largest_difference": difference,
        "largest_change_by_bf16": change,
        "shares": dict(zip(("embedding", "training step"), terms, strict=True)),
        "kept_for_backward": kept,
    }
    write_report("uni_mol_speed", "\n".join(text), raw, args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
