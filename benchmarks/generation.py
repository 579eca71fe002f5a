"""What a checkpoint writes: free samples, another SMILES of a molecule, and how fast.

    python -m benchmarks.generation --model x-mol-mini --molecules runs/x-mol-mini-data/validation.parquet

Free samples: valid and unique, with and without the logits processor. Reconstruction: the checkpoint reads a random
SMILES of a molecule that it has not seen in training and writes another one: sampled, greedy, and the best of five
beams; right is the same canonical form. Speed: 1,000 new molecules, batched, with the key/value cache and without.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import trange
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.harness.report import argument_parser, fingerprint, markdown_table, write_report
from benchmarks.harness.samples import free_samples
from benchmarks.harness.selection import Cache
from benchmarks.harness.timing import timed
from hf_molrep.chem.distribution_metrics import canonical_or_none
from hf_molrep.chem.smiles import MoleculeError, random_smiles
from hf_molrep.inference.checkpoints import load_checkpoint, resolve_checkpoint
from hf_molrep.inference.generation import MAX_NEW_TOKENS, GenerationOptions, source_seed, write_texts
from hf_molrep.processing.contract import MoleculeProcessor

MODES = {  # options of reconstruction; greedy is one beam that takes the likeliest token
    "sampled": {},
    "greedy": {"top_k": 1},
    "beam (5)": {"num_beams": 5},
}
LENGTHS = ((0, 30), (31, 50), (51, 70), (71, 10_000))  # characters of the canonical SMILES
CHUNK = 256  # molecules whose reconstructions are kept at a time


def prompts_of(
    molecules: Sequence[str], processor: MoleculeProcessor, seed: int
) -> tuple[list[np.ndarray | None], list[str]]:
    """
    Make a prompt of a random SMILES of each molecule, as written; None if it has a token that is unknown or if it is
    too long. Also returns the random SMILES.
    """
    tokenizer, prompts = processor.tokenizer, []
    texts = [random_smiles(smiles, np.random.default_rng([seed, row])) for row, smiles in enumerate(molecules)]
    for text in texts:
        try:
            source = processor.join([processor.token_ids(text)])
        except MoleculeError:
            prompts.append(None)
            continue
        fits = len(source) <= tokenizer.model_max_length
        prompts.append(np.append(source, tokenizer.cls_token_id) if fits else None)
    return prompts, texts


def reconstruct(
    model: PreTrainedModel,
    processor: MoleculeProcessor,
    prompts: Sequence[np.ndarray],
    key: dict,
    options: GenerationOptions,
    cache: Cache,
) -> list[str]:
    """Write one text for each prompt; kept in the cache in chunks."""
    texts: list[str] = []
    for start in trange(0, len(prompts), CHUNK, desc=str(key["mode"])):
        part = prompts[start : start + CHUNK]

        def compute(part=part) -> dict:
            seeds = [source_seed(options.seed, prompt) for prompt in part]
            return {"texts": [found[0][0] for found in write_texts(model, processor, part, seeds, options)]}

        texts += cache.get({**key, "start": start}, compute)["texts"]
    return texts


def compare(molecules: Sequence[str], texts: Sequence[str | None]) -> pd.DataFrame:
    """
    Compare what was written with the molecules: `valid`, `exact` (same canonical SMILES), `without_stereo` (the same
    but for stereo marks), `stereo` (the molecule has such marks); None is wrong.
    """
    rows = []
    for molecule, text in zip(molecules, texts, strict=True):
        flat, written = canonical_or_none(molecule, stereo=False), None if text is None else canonical_or_none(text)
        rows.append(
            {
                "valid": written is not None,
                "exact": written == canonical_or_none(molecule),
                "without_stereo": written is not None and canonical_or_none(written, stereo=False) == flat,
                "stereo": any(mark in molecule for mark in "@/\\"),
            }
        )
    return pd.DataFrame(rows)


def speed(model: PreTrainedModel, processor: MoleculeProcessor, count: int, batch_rows: int, seed: int) -> dict:
    """Measure CPU seconds of writing new molecules with the key/value cache and without, after a warm-up of each."""
    import torch

    (prompt,) = processor.prompt_ids([None])
    longest = min(MAX_NEW_TOKENS, model.longest_target(len(prompt)))
    found = {}
    for use_cache in (True, False):

        @torch.no_grad()
        def run(rows: int, use_cache: bool = use_cache) -> list[str]:
            texts = []
            for first in range(0, rows, batch_rows):
                torch.manual_seed(seed + first)
                batch = processor.pad_prompts([prompt] * min(batch_rows, rows - first))
                # the same draws in both: what they write is the same but for rounding
                sequences = model.generate(
                    **batch, do_sample=True, top_k=0, max_new_tokens=longest, use_cache=use_cache
                )
                texts += processor.written(sequences)
            return texts

        run(8)
        texts, spent = timed(lambda run=run: run(count))
        found["with cache" if use_cache else "without cache"] = {"cpu": spent.cpu, "wall": spent.wall, "texts": texts}
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, name="generation")
    parser.set_defaults(model="x-mol-mini", threads=1)
    parser.add_argument("--molecules", type=Path, required=True, help="held-out molecules: Parquet, smiles and source")
    parser.add_argument("--count", type=int, help="draw so many of them with --seed; default all")
    parser.add_argument("--samples", type=int, default=10_000, help="free samples")
    parser.add_argument("--speed_samples", type=int, default=1000, help="molecules written for the speed")
    parser.add_argument("--batch_rows", type=int, default=256, help="molecules written at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/generation"), help="folder of what is kept")
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    model, processor = load_checkpoint(AutoModelForCausalLM, args.model, "cpu")
    folder = resolve_checkpoint(args.model)

    speeds = speed(model, processor, args.speed_samples, args.batch_rows, args.seed)
    equal = np.mean([a == b for a, b in zip(*(found.pop("texts") for found in speeds.values()), strict=True)])
    gain = speeds["without cache"]["cpu"] / speeds["with cache"]["cpu"]

    free = {}
    for name, constrained in (("free", False), ("constrained", True)):
        options = GenerationOptions(
            args.samples, seed=args.seed, constrained=constrained, batch_rows=args.batch_rows, keep_all=True
        )
        texts = free_samples(model, processor, folder, options, args.cache / "samples.jsonl")
        valid = [text for text in map(canonical_or_none, texts) if text is not None]
        free[name] = {"texts": len(texts), "valid": len(valid) / len(texts)}
        free[name]["unique"] = len(set(valid)) / len(valid) if valid else float("nan")

    table = pd.read_parquet(args.molecules)
    if args.count is not None and args.count < len(table):
        table = table.iloc[np.sort(np.random.default_rng(args.seed).choice(len(table), args.count, replace=False))]
    molecules = [str(text) for text in table.smiles]
    sources = table["source"].astype(str) if "source" in table else pd.Series("all", index=table.index)
    prompts, given = prompts_of(molecules, processor, args.seed)
    usable = [row for row, prompt in enumerate(prompts) if prompt is not None]
    cache, results = Cache(args.cache / "reconstruction.jsonl"), {}
    for mode, changes in MODES.items():
        options = GenerationOptions(seed=args.seed, constrained=False, batch_rows=args.batch_rows, **changes)
        key = {"checkpoint": fingerprint(folder), "molecules": args.molecules.name, "count": len(molecules)}
        key |= {"seed": args.seed, "mode": mode}
        written = iter(reconstruct(model, processor, [prompts[row] for row in usable], key, options, cache))
        texts = [None if prompt is None else next(written) for prompt in prompts]
        frame = compare(molecules, texts).assign(source=sources.to_numpy(), length=[len(text) for text in molecules])
        frame["copy"] = [text == source for text, source in zip(texts, given, strict=True)]
        results[mode] = frame

    strata = {"all": lambda frame: frame.valid | True, "with stereo": lambda frame: frame.stereo}
    strata |= {name: lambda frame, name=name: frame.source == name for name in sorted(set(sources))}
    for low, high in LENGTHS:
        label = f"{low} to {high} characters" if high < LENGTHS[-1][1] else f"{low} characters and more"
        strata[label] = lambda frame, low=low, high=high: frame.length.between(low, high)
    raw, rows = {}, []
    for name, choose in strata.items():
        parts = {mode: frame[choose(frame)] for mode, frame in results.items()}
        if not len(parts["greedy"]):
            continue
        columns = ("valid", "exact", "without_stereo", "copy")
        raw[name] = {mode: {"molecules": len(part), **part[[*columns]].mean()} for mode, part in parts.items()}
        rows.append([name, len(parts["greedy"])])
        rows[-1] += [raw[name][mode][column] for mode in MODES for column in ("exact", "without_stereo")]
    shares = {
        column: ", ".join(f"{100 * raw['all'][mode][column]:.1f} % ({mode})" for mode in MODES)
        for column in ("copy", "valid")
    }
    header = ["molecules", "n", *(f"{mode}{extra}" for mode in MODES for extra in ("", ", no stereo"))]
    text = [
        "# What the checkpoint writes\n",
        "## New molecules\n",
        markdown_table(
            ["sampling", "texts", "valid", "unique"],
            [[name, found["texts"], found["valid"], found["unique"]] for name, found in free.items()],
        ),
        "\n- unique: share of different molecules among the valid ones. constrained: with the logits processor.\n",
        "## Another SMILES of the same molecule\n",
        markdown_table(header, rows),
        f"\n- {len(molecules):,} held-out molecules, one text each; the source is a random SMILES. Right: the same "
        "canonical SMILES; 'no stereo': the same without stereo marks on both sides. Without the logits processor.",
        f"- {len(molecules) - len(usable)} sources have unknown tokens or are too long: counted as wrong. The source "
        f"itself was written by {shares['copy']}; valid: {shares['valid']}.\n",
        "## Speed\n",
        markdown_table(
            ["", "CPU seconds", "molecules per CPU second"],
            [[name, found["cpu"], args.speed_samples / found["cpu"]] for name, found in speeds.items()],
        ),
        f"\n- {args.speed_samples:,} new molecules, {args.batch_rows} at a time, {args.threads} thread(s): "
        f"{gain:.1f} times as fast with the cache. {100 * equal:.1f} % of the texts are equal.",
    ]
    write_report(args.name, "\n".join(text), {"free": free, "reconstruction": raw, "speed": speeds}, args, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
