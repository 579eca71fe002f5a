"""Write molecules with a model that has `generate`: new ones, or relatives of given ones."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..chem.smiles import MoleculeError, canonical_smiles
from ..data.runs import check_continues
from ..data.table_writer import TableWriter
from .files import checkpoint_digest
from .logits import SeededSampling, SmilesLogitsProcessor

BATCH_ROWS = 128
MAX_NEW_TOKENS = 128


@dataclass(frozen=True)
class GenerationOptions:
    """
    How molecules are written.

    Attributes:
        num_return_sequences: of each source.
        seed: with it the same molecules are written again.
        temperature: below 1 the likeliest tokens are preferred, above 1 all become more alike.
        top_k, top_p: only the likeliest tokens, as in transformers; 0 and 1: all.
        num_beams: beam search instead of sampling, if above 1; `num_return_sequences` of the beams are given back.
        max_new_tokens: longest SMILES.
        condition: wished value of the property with which the model was fine-tuned for goal-directed generation; None:
            none (the same as 1).
        constrained: use [`SmilesLogitsProcessor`].
        keep_all: also give back invalid molecules, duplicates, and the source itself.
        batch_rows: molecules that are written at a time.
    Raises:
        ValueError: an option is out of range, or does not fit the others.
    """

    num_return_sequences: int = 1
    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    num_beams: int = 1
    max_new_tokens: int = MAX_NEW_TOKENS
    condition: float | None = None
    constrained: bool = True
    keep_all: bool = False
    batch_rows: int = BATCH_ROWS

    def __post_init__(self):
        for name, least in (
            *(("num_return_sequences", 1), ("seed", 0), ("top_k", 0), ("num_beams", 1)),
            *(("max_new_tokens", 2), ("batch_rows", 1)),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is an integer of at least {least}, not {value!r}")
        if self.condition is not None and not np.isfinite(self.condition):
            raise ValueError(f"condition is a number, not {self.condition!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature is above 0, not {self.temperature!r}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is above 0 and at most 1, not {self.top_p!r}")
        if self.num_beams > 1:
            if self.num_return_sequences > self.num_beams:
                raise ValueError(f"{self.num_beams} beams do not give {self.num_return_sequences} molecules")
            if (self.temperature, self.top_k, self.top_p) != (1.0, 0, 1.0):
                raise ValueError("temperature, top_k and top_p belong to sampling, num_beams to beam search")


class GeneratedMolecule(NamedTuple):
    """
    A molecule that was written.

    Attributes:
        smiles: canonical; as it was written if it is not valid.
        score: logarithm of the chance that the model gives to the text as it was written (before temperature, top-k,
            top-p and constraints).
        valid: whether it is a molecule.
    """

    smiles: str
    score: float
    valid: bool


@dataclass
class GenerationCounts:
    """
    What became of the molecules that were written; all are counted here.

    Attributes:
        written: how many were written.
        invalid, duplicate, source: how many of them are not molecules; are written before for the same source; are the
            source itself.
        kept: all others.
    """

    written: int = 0
    invalid: int = 0
    duplicate: int = 0
    source: int = 0
    kept: int = 0

    def add(self, other: "GenerationCounts") -> None:
        """Add other counts."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        parts = [f"{self.written:,} written, {self.kept:,} kept"]
        words = {"invalid": "invalid", "duplicate": "duplicates", "source": "the same as their source"}
        parts += [f"{getattr(self, name):,} {what}" for name, what in words.items() if getattr(self, name)]
        return ", ".join(parts)


@torch.no_grad()
def write_texts(
    model: Any,
    processor: Any,
    prompts: Sequence[np.ndarray],
    seeds: Sequence[Sequence[int]],
    options: GenerationOptions,
) -> list[list[tuple[str, float]]]:
    """
    Write texts for prompts.

    Args:
        model: a model with `generate` and `longest_target`, in evaluation mode.
        processor: of the checkpoint; with `pad_prompts` and `written`.
        prompts: token ids of each prompt.
        seeds: integers for each prompt; sample n has the seed `[*seed, n]`.
    Returns:
        For each prompt `num_return_sequences` texts with their scores.
    Raises:
        ValueError: a prompt leaves no room in the positions of the model.
    """
    count = options.num_return_sequences
    beams = options.num_beams > 1
    # rows with as much room for new tokens, so that what is written does not depend on the other rows of a batch
    room = [min(options.max_new_tokens, model.longest_target(len(prompt))) for prompt in prompts]
    if tight := [len(prompt) for prompt, left in zip(prompts, room, strict=True) if left < 2]:
        raise ValueError(f"a source of {tight[0]} tokens leaves no room for a molecule")
    rows = [(prompt, number) for prompt in range(len(prompts)) for number in range(1 if beams else count)]
    rows.sort(key=lambda row: (room[row[0]], -len(prompts[row[0]])))
    found: list[list] = [[None] * count for _ in prompts]
    size = max(1, options.batch_rows // options.num_beams)
    alike = [list(group) for _, group in groupby(rows, key=lambda row: room[row[0]])]
    for chosen in (group[first : first + size] for group in alike for first in range(0, len(group), size)):
        limit = room[chosen[0][0]]
        batch = processor.pad_prompts([prompts[prompt] for prompt, _ in chosen]).to(model.device)
        if options.condition is not None:
            batch["condition"] = torch.full((len(chosen),), float(options.condition), device=model.device)
        processors = LogitsProcessorList()
        if options.constrained:
            processors.append(SmilesLogitsProcessor(processor.tokenizer, limit))
        if not beams:
            if options.temperature != 1:
                processors.append(TemperatureLogitsWarper(float(options.temperature)))
            if options.top_k:
                processors.append(TopKLogitsWarper(options.top_k))
            if options.top_p < 1:
                processors.append(TopPLogitsWarper(options.top_p))
            processors.append(SeededSampling([[*seeds[prompt], number] for prompt, number in chosen]))
        result = model.generate(
            **batch,
            do_sample=False,
            num_beams=options.num_beams,
            num_return_sequences=count if beams else 1,
            max_new_tokens=limit,
            use_cache=True,
            logits_processor=processors,
            output_logits=True,
            return_dict_in_generate=True,
        )
        texts = processor.written(result.sequences.cpu())
        scores = model.compute_transition_scores(
            result.sequences, result.logits, getattr(result, "beam_indices", None), normalize_logits=True
        )
        # what stands behind the end is padding
        ends = (result.sequences[:, -scores.shape[1] :] == processor.tokenizer.sep_token_id).long()
        real = ends.cumsum(dim=1) - ends == 0
        scores = scores.masked_fill(~real, 0.0).sum(dim=1).tolist()
        for place, (prompt, number) in enumerate(chosen):
            for beam in range(count if beams else 1):
                index = place * (count if beams else 1) + beam
                found[prompt][beam if beams else number] = texts[index], scores[index]
    return found


def select(
    texts: Iterable[tuple[str, float]], source: str | None, options: GenerationOptions, seen: set[str] | None = None
) -> tuple[list[GeneratedMolecule], GenerationCounts]:
    """
    Make molecules of texts; leave out what is not wanted, and count it.

    Args:
        texts: with their scores.
        source: canonical SMILES of the molecule to which relatives were written; None: there is none.
        seen: molecules that are duplicates from the beginning; the new ones are added.
    """
    counts, kept = GenerationCounts(), []
    seen = set() if seen is None else seen
    for text, score in texts:
        counts.written += 1
        try:
            molecule = GeneratedMolecule(canonical_smiles(text), score, True)
        except MoleculeError:
            molecule = GeneratedMolecule(text, score, False)
        if not molecule.valid:
            counts.invalid += 1
        elif molecule.smiles == source:
            counts.source += 1
        elif molecule.smiles in seen:
            counts.duplicate += 1
        else:
            counts.kept += 1
            seen.add(molecule.smiles)
            kept.append(molecule)
            continue
        if options.keep_all:
            kept.append(molecule)
    return kept, counts


def generate_molecules(
    model: Any, processor: Any, sources: Sequence[Any], options: GenerationOptions
) -> tuple[list[list[GeneratedMolecule]], GenerationCounts]:
    """
    Write molecules: relatives of each source, or new ones for None.

    Args:
        model: a model with `generate`, such as `XMolForConditionalGeneration`.
        processor: of the checkpoint.
        sources: SMILES, tuples of SMILES (several parts of one source), or None.
    Returns:
        The molecules of each source, and the counts of all.
    Raises:
        MoleculeError: a source cannot be used.
    """
    prompts = processor.prompt_ids(sources)
    texts = write_texts(model, processor, prompts, [source_seed(options.seed, ids) for ids in prompts], options)
    results, counts = [], GenerationCounts()
    for source, written in zip(sources, texts, strict=True):
        own = canonical_smiles(source) if isinstance(source, str) else None
        molecules, found = select(written, own, options)
        results.append(molecules)
        counts.add(found)
    return results, counts


def source_seed(seed: int, prompt: np.ndarray) -> list[int]:
    """Return the seed of a source: its molecules do not depend on other sources."""
    return [seed, *np.asarray(prompt, dtype=np.uint32).tolist()]


def generation_step(processor: Any, options: GenerationOptions) -> Callable[[torch.nn.Module, dict], list[dict]]:
    """
    Make the step of [`~hf_molrep.inference.engine.infer`] that writes relatives: for each molecule a dict with its
    canonical SMILES as `given`, the `molecules` that were written (SMILES), their `scores`, and the counts of
    [`GenerationCounts`].
    """

    def step(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> list[dict]:
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        tokenizer = processor.tokenizer
        sources = [ids[:length].cpu().numpy() for ids, length in zip(batch["input_ids"], lengths, strict=True)]
        prompts = [np.append(ids, tokenizer.cls_token_id) for ids in sources]
        texts = write_texts(model, processor, prompts, [source_seed(options.seed, ids) for ids in prompts], options)
        results = []
        for ids, written in zip(sources, texts, strict=True):
            source = canonical_smiles(tokenizer.decode(ids, skip_special_tokens=True), "none")
            kept, counts = select(written, source, options)
            smiles, scores = [molecule.smiles for molecule in kept], [molecule.score for molecule in kept]
            results.append({"given": source, "molecules": smiles, "scores": scores, **vars(counts)})
        return results

    return step


@dataclass
class NewMolecules:
    """
    New molecules, in chunks that do not depend on each other, so that a run can be continued.

    Args:
        model, processor: of the checkpoint.
        options: see [`GenerationOptions`]; `num_return_sequences` are written in all.
        chunk: number of molecules of a chunk.
    """

    model: Any
    processor: Any
    options: GenerationOptions
    chunk: int = 512
    counts: GenerationCounts = field(default_factory=GenerationCounts)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.options.num_return_sequences // self.chunk)

    def texts(self, number: int) -> list[tuple[str, float]]:
        """Write the texts of a chunk, with their scores."""
        first = number * self.chunk
        count = min(self.chunk, self.options.num_return_sequences - first)
        (prompt,) = self.processor.prompt_ids([None])
        seeds = [[*source_seed(self.options.seed, prompt), first + place] for place in range(count)]
        single = GenerationOptions(**{**vars(self.options), "num_return_sequences": 1})
        return [texts[0] for texts in write_texts(self.model, self.processor, [prompt] * count, seeds, single)]

    def __iter__(self) -> Iterator[GeneratedMolecule]:
        return self.selected(map(self.texts, range(self.chunks)))

    def selected(self, chunks: Iterable[Sequence[tuple[str, float]]]) -> Iterator[GeneratedMolecule]:
        """Choose from the texts of all chunks, in their order; count in `counts`."""
        seen: set[str] = set()
        for texts in chunks:
            molecules, counts = select(texts, None, self.options, seen)
            self.counts.add(counts)
            yield from molecules

    def write(
        self, output: str, resume: bool = False, overwrite: bool = False, progress: bool = True
    ) -> list[GeneratedMolecule]:
        """
        Write a table with the columns `smiles`, `score` and `valid`. Finished chunks are kept in `<output>.parts` until
        all are done; a run that is stopped and resumed gives the same table.

        Args:
            output: .parquet, .csv or .tsv, or "-" for standard output.
            resume: continue a stopped run; a complete output is left as it is, and gives no molecules.
            overwrite: replace the output, and delete a stopped run.
        Returns:
            The molecules of the table.
        Raises:
            ValueError: the output or an unfinished run exists already, or a resumed run has other settings.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq
        from tqdm import trange

        parts = Path(f"{output}.parts")
        if overwrite:
            shutil.rmtree(parts, ignore_errors=True)
        elif resume and output != "-" and os.path.exists(output) and not parts.is_dir():
            return []
        elif parts.is_dir() and not resume:
            raise ValueError(f"an unfinished run stands in {parts}: --resume continues it, --overwrite forgets it")
        elif os.path.exists(output) and not resume:
            raise ValueError(f"{output} exists: --overwrite replaces it")

        def chunks() -> Iterator[list[tuple[str, float]]]:
            if output == "-":
                yield from map(self.texts, range(self.chunks))
                return
            settings = {"checkpoint": checkpoint_digest(self.model, self.processor), "chunk": self.chunk}
            settings |= {name: value for name, value in vars(self.options).items() if name != "batch_rows"}
            check_continues(parts / "settings.json", settings, resume)
            for number in trange(self.chunks, unit=" chunks", disable=not progress):
                path = parts / f"part-{number:06d}.parquet"
                if not path.is_file():
                    texts, scores = zip(*self.texts(number), strict=True)
                    unfinished = path.with_name(path.name + ".tmp")
                    pq.write_table(pa.table({"text": texts, "score": pa.array(scores, pa.float64())}), unfinished)
                    os.replace(unfinished, path)
                table = pq.read_table(path)
                yield list(zip(table["text"].to_pylist(), table["score"].to_pylist(), strict=True))

        found = list(self.selected(chunks()))
        schema = pa.schema([("smiles", pa.string()), ("score", pa.float32()), ("valid", pa.bool_())])
        with TableWriter(output, schema) as writer:
            writer.write(pa.RecordBatch.from_pylist([molecule._asdict() for molecule in found], schema=schema))
        shutil.rmtree(parts, ignore_errors=True)
        return found


__all__ = [
    "GeneratedMolecule",
    "GenerationCounts",
    "GenerationOptions",
    "NewMolecules",
    "generate_molecules",
    "generation_step",
    "select",
    "write_texts",
]
