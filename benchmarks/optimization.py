"""Optimisation: a higher QED at similarity of at least 0.4, by a model fine-tuned on pairs of similar molecules.

    python -m benchmarks.optimization --model x-mol-mini --work runs/optimization

The protocol:

- Molecules to be improved: the QED task of Jin et al. (ICLR 2019), 800 for the test, 360 for choosing settings. Their
  InChIKey first blocks are left out of the pairs (and of what the checkpoint was pre-trained on).
- Pairs are made of ZINC250k by `examples/recipes/prepare_similar_pairs.py`, by two rules: `paper`, the best of the ten
  most similar molecules; `target`, only molecules with QED >= 0.9 as targets, up to three for each. The rule and the
  learning rate are chosen by the success on `--selection-molecules` validation molecules.
- Fine-tuning is `hf-molrep pretrain x_mol` with `--steps` updates; `random weights` is the same network without
  pre-training, with the same data, settings to choose from and updates.
- `--attempts` molecules are written for each. Success: one of them has Tanimoto similarity >= 0.4 (Morgan, radius 2,
  2,048 bits) to the molecule, QED >= 0.9, and is novel: not in ZINC250k, nor in the files of `--known` (what the
  checkpoint was pre-trained on).
- `nearest targets`: the nearest molecules of ZINC250k with QED >= 0.9; they are never novel, so their success is that
  without novelty. `mutation`: tokens of a random SMILES are replaced, inserted or deleted at random until as many
  molecules as `--attempts` have been made and judged (texts that are no molecule cost nothing); it goes on from the
  best similar molecule so far.

All that is computed is kept in `--work`, so an interrupted run continues.
"""

import hashlib
import json
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.harness.comparison import paired_bootstrap
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import ROOT, argument_parser, fingerprint, markdown_table, write_report
from benchmarks.harness.selection import Cache
from hf_molrep.chem.fingerprints import morgan_fingerprints, tanimoto
from hf_molrep.chem.properties import properties
from hf_molrep.chem.smiles import (
    MoleculeError,
    canonical_smiles,
    canonical_smiles_batch,
    inchikey_block,
    random_smiles,
)
from hf_molrep.inference.checkpoints import load_checkpoint, resolve_checkpoint
from hf_molrep.inference.generation import GenerationOptions, generate_molecules
from hf_molrep.tokenization.x_mol import tokens

SIMILARITY, QED = 0.4, 0.9
RULES = {"paper": [], "target": ["--target-value", str(QED), "--targets", "3"]}
COLUMNS = ("pre-trained", "random weights")
LOOKUP = "nearest targets"
CHUNK = 64  # molecules whose relatives are written and kept at a time
BLOCK = 100  # molecules compared with all targets at a time
TRIES = 200  # texts for each molecule of the mutation


def molecules_file(work: Path) -> Path:
    """Write ZINC250k with cleaned SMILES and QED to `<work>/molecules.parquet`, if it is not there."""
    import pandas as pd

    file = work / "molecules.parquet"
    if not file.is_file():
        table = pd.read_parquet(data_folder() / "pretrain" / "zinc250k.parquet")
        table["smiles"] = canonical_smiles_batch(table.smiles.tolist(), "clean")
        table["qed"] = properties(tqdm(table.smiles, desc="QED"), "qed")
        work.mkdir(parents=True, exist_ok=True)
        table.to_parquet(file, index=False)
    return file


def pairs_folder(work: Path, rule: str) -> Path:
    """Make the pairs of a rule in `<work>/pairs-<rule>`, if they are not there."""
    folder = work / f"pairs-{rule}"
    if not (folder / "exclusions.json").is_file():  # written last
        prepare = runpy.run_path(str(ROOT / "examples" / "recipes" / "prepare_similar_pairs.py"))["main"]
        evaluated = data_folder() / "optimization" / "graph2graph_eval.parquet"
        prepare([str(molecules_file(work)), "--exclude", str(evaluated), "--out", str(folder), *RULES[rule]])
    return folder


def finetuned(folder: Path, source: Sequence[str], data: Path, rate: float, args, options: Sequence[str] = ()) -> Path:
    """
    Fine-tune with `hf-molrep pretrain x_mol` to `folder`, if that is not done; an interrupted run continues.

    Args:
        source: options that say where the weights are from.
        data: folder of `train.parquet`.
    """
    from hf_molrep.training.pretraining import main as pretrain

    if not (folder / "run.json").is_file():  # written last
        command = [*source, "--train_data", str(data / "train.parquet"), "--output_dir", str(folder)]
        command += ["--max_steps", str(args.steps)]
        command += ["--learning_rate", str(rate), "--lr_scheduler_type", "linear", "--warmup_steps", "0.1"]
        command += ["--weight_decay", "0.01", "--per_device_train_batch_size", str(args.batch_size)]
        command += ["--save_steps", "100", "--save_total_limit", "1", "--logging_steps", "20", "--report_to", "none"]
        pretrain("x_mol", [*command, "--seed", str(args.seed), *options])
    return folder


def weights(column: str, model: str, work: Path) -> list[str]:
    """Return the options of `hf-molrep pretrain` for the weights of a checkpoint, or random ones of its shape."""
    if column == "pre-trained":
        return ["--model", model]
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    fields = {name: getattr(config, name) for name in type(config).__annotations__ if name != "model_type"}
    file = work / "config.json"
    file.write_text(json.dumps(fields, indent=1))
    return ["--config", str(file), "--processor", model]


def written(folder: Path, sources: Sequence[str], args) -> list[list[str | None]]:
    """Write `args.attempts` molecules for each source, canonical SMILES, None for what is no molecule; kept on disk."""
    cache = Cache(args.work / "written.cache.jsonl")
    identity, loaded, found = fingerprint(str(folder)), [], []
    options = GenerationOptions(num_return_sequences=args.attempts, seed=args.seed, keep_all=True)
    for first in tqdm(range(0, len(sources), CHUNK), desc=f"{folder.name}: writing"):
        chunk = list(sources[first : first + CHUNK])

        def write(chunk: list[str] = chunk) -> dict:
            from transformers import AutoModelForCausalLM

            if not loaded:
                loaded.extend(load_checkpoint(AutoModelForCausalLM, str(folder), args.device))
            results, _ = generate_molecules(*loaded, chunk, options)
            return {"smiles": [[each.smiles if each.valid else None for each in found] for found in results]}

        digest = hashlib.sha256("\n".join(chunk).encode()).hexdigest()[:16]
        key = {"checkpoint": identity, "sources": digest, "attempts": args.attempts, "seed": args.seed}
        found += cache.get(key, write)["smiles"]
    return found


def nearest_targets(sources: Sequence[str], targets: Sequence[str], count: int) -> list[list[str]]:
    """Return the `count` most similar targets of each source, the nearest first."""
    prints = morgan_fingerprints(targets)
    found = []
    for first in range(0, len(sources), BLOCK):
        alike = tanimoto(morgan_fingerprints(sources[first : first + BLOCK]), prints)
        found += [[targets[place] for place in row] for row in np.argsort(-alike, axis=1, kind="stable")[:, :count]]
    return found


def mutations(source: str, count: int, alphabet: Sequence[str], rng: np.random.Generator) -> list[str | None]:
    """
    Make molecules by random edits, each judged by QED and similarity; what follows starts at the best similar one.

    Returns:
        `count` molecules, canonical SMILES; None where no edit of `TRIES * count` gave another one.
    """
    prints = morgan_fingerprints([source])
    best, best_value = source, float(properties([source], "qed")[0])
    seen, found = {canonical_smiles(source)}, []
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        text = list(tokens(random_smiles(best, rng)))
        place, edit, new = rng.integers(len(text)), rng.integers(3), alphabet[rng.integers(len(alphabet))]
        text[place : place + (edit != 1)] = [] if edit == 2 else [new]
        try:
            molecule = canonical_smiles("".join(text))
        except MoleculeError:
            continue
        if molecule in seen:
            continue
        seen.add(molecule)
        found.append(molecule)
        value = float(properties([molecule], "qed")[0])
        if value > best_value and tanimoto(prints, morgan_fingerprints([molecule]))[0, 0] >= SIMILARITY:
            best, best_value = molecule, value
    return found + [None] * (count - len(found))


def judged(sources: Sequence[str], attempts: Sequence[Sequence[str | None]], known: set[str]) -> dict:
    """
    Judge what was made for each source.

    Args:
        attempts: canonical SMILES of each source, None for what is no molecule.
        known: canonical SMILES that are not novel.
    Returns:
        `validity`: share of the attempts that are molecules; of these `novelty`, `similarity` and `gain` of QED (means)
        and `improved` (share with a gain); `success` and `success_without_novelty`: share of the sources; `best_gain`:
        mean over the sources of the largest gain at the similarity that is asked for, 0 if there is none; and
        `solved` and `solved_known`: whether each source is a success, with and without novelty.
    """
    prints, own = morgan_fingerprints(sources), properties(sources, "qed")
    novel, alike, gains, solved, solved_known, best = [], [], [], [], [], []
    for place, texts in enumerate(attempts):
        valid = [text for text in texts if text is not None]
        values = properties(valid, "qed")
        similar = tanimoto(prints[place : place + 1], morgan_fingerprints(valid))[0]
        new = np.array([text not in known for text in valid], dtype=bool)
        fits = (similar >= SIMILARITY) & (values >= QED)
        gain = values - own[place]
        novel += new.tolist()
        alike += similar.tolist()
        gains += gain.tolist()
        solved.append(bool((fits & new).any()))
        solved_known.append(bool(fits.any()))
        best.append(float(gain[similar >= SIMILARITY].max(initial=0.0)))
    count = sum(map(len, attempts))
    return {
        "validity": len(gains) / count,
        **{
            name: float(np.mean(values)) if len(values) else float("nan")
            for name, values in (("novelty", novel), ("similarity", alike), ("gain", gains))
        },
        "improved": float(np.mean(np.array(gains) > 0)) if gains else float("nan"),
        "success": float(np.mean(solved)),
        "success_without_novelty": float(np.mean(solved_known)),
        "best_gain": float(np.mean(best)),
        "solved": solved,
        "solved_known": solved_known,
    }


def chosen(settings: Sequence[tuple[str, float]], success: Callable[[str, float], float]) -> tuple[tuple, dict]:
    """Return the setting with the largest success on the validation molecules, the first of equals, and all of them."""
    if len(settings) == 1:
        return settings[0], {}
    scores = {setting: success(*setting) for setting in settings}
    return max(settings, key=scores.get), {f"{rule}, {rate:g}": score for (rule, rate), score in scores.items()}


def main(argv: Sequence[str] | None = None) -> int:
    import pandas as pd

    parser = argument_parser(__doc__, name="optimization")
    parser.set_defaults(model="x-mol-mini")
    parser.add_argument("--work", type=Path, default=Path("runs/optimization"), help="folder of what is computed")
    parser.add_argument("--known", type=Path, nargs="*", default=[], help="Parquet with smiles: not novel")
    parser.add_argument("--rules", nargs="+", choices=tuple(RULES), default=list(RULES), help="pairs to choose from")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3], help="learning rates to choose from")
    parser.add_argument("--steps", type=int, default=300, help="updates of each fine-tuning")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--attempts", type=int, default=20, help="molecules written for each")
    parser.add_argument("--molecules", type=int, help="only so many test molecules")
    parser.add_argument("--selection-molecules", type=int, default=100, help="validation molecules")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--prepare-only", action="store_true", help="make the pairs, and stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="default: the first accelerator, else the CPU")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    for rule in args.rules:
        pairs_folder(args.work, rule)
    if args.prepare_only:
        return 0
    model = resolve_checkpoint(args.model)

    everything = pd.read_parquet(data_folder() / "optimization" / "graph2graph_eval.parquet")
    evaluated = everything[everything.task == "qed"]
    parts = {
        part: canonical_smiles_batch(evaluated.smiles[evaluated.split == part].tolist(), "clean")
        for part in ("valid", "test")
    }
    valid, test = parts["valid"][: args.selection_molecules], parts["test"][: args.molecules]
    zinc = pd.read_parquet(molecules_file(args.work))
    known = set(zinc.smiles).union(*(pd.read_parquet(file).smiles for file in args.known))

    results, choices = {}, {}
    for column in args.columns:

        def tuned(rule: str, rate: float, column: str = column) -> Path:
            folder = args.work / f"{column.replace(' ', '-')}-{rule}-{rate:g}-{args.steps}"
            return finetuned(folder, weights(column, model, args.work), pairs_folder(args.work, rule), rate, args)

        settings = [(rule, rate) for rule in args.rules for rate in args.rates]
        setting, scores = chosen(
            settings, lambda rule, rate: judged(valid, written(tuned(rule, rate), valid, args), known)["success"]
        )
        choices[column] = {"chosen": f"{setting[0]}, {setting[1]:g}", "validation success": scores}
        results[column] = judged(test, written(tuned(*setting), test, args), known)
    pool = zinc[zinc.qed >= QED]
    targets = pool.smiles[~pool.inchikey_block.isin({inchikey_block(text) for text in everything.smiles})].tolist()
    results[LOOKUP] = judged(test, nearest_targets(test, targets, args.attempts), known)
    alphabet = sorted({token for text in targets[:2000] for token in tokens(text)})
    made = [
        mutations(source, args.attempts, alphabet, np.random.default_rng([args.seed, place]))
        for place, source in enumerate(tqdm(test, desc="mutation"))
    ]
    results["mutation"] = judged(test, made, known)

    names = ("validity", "novelty", "similarity", "gain", "improved", "best_gain", "success_without_novelty", "success")
    labels = ("valid", "novel", "similarity", "QED gain", "improved", "best gain, similar", "success, known too")
    rows = [[column, *(result[name] for name in names)] for column, result in results.items()]
    first, *others = results
    comparisons = {
        other: paired_bootstrap(
            lambda _, solved: float(solved.mean()),
            np.zeros(len(test)),
            np.array(results[first]["solved"], dtype=float),
            np.array(results[other]["solved_known" if other == LOOKUP else "solved"], dtype=float),
            greater_is_better=True,
        )._asdict()
        for other in others
    }
    text = [
        "# Optimisation: QED of at least 0.9 at similarity of at least 0.4\n",
        markdown_table(["column", *labels, "success"], rows),
        "",
        f"- {len(test)} test molecules, {args.attempts} attempts each. *Best gain, similar*: mean of the largest gain "
        "among the similar ones. *Success, known too*: molecules of the training data count. Nearest targets are never "
        "novel, and stand in the comparison below with this success.",
        *(
            f"- {column}: pairs and learning rate {choice['chosen']}"
            + (
                f", chosen by validation success {choice['validation success']}."
                if choice["validation success"]
                else "."
            )
            for column, choice in choices.items()
        ),
        *(
            f"- Success of {first} - {other}: {found['difference']:+.3f} (95 % interval {found['low']:+.3f} to "
            f"{found['high']:+.3f}): {found['verdict']}."
            for other, found in comparisons.items()
        ),
        f"- {len(targets):,} targets, {len(known):,} known molecules; {args.steps} updates of {args.batch_size} pairs; "
        "one seed.",
    ]
    for result in results.values():
        for name in ("solved", "solved_known"):
            result[name] = int(sum(result[name]))
    raw = {"results": results, "choices": choices, "comparisons": comparisons}
    write_report(args.name, "\n".join(text), raw, args, model)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
