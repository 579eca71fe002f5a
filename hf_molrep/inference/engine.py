"""Many molecules through a model: windows, batches sorted by length, results in the order of the input."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from inspect import signature
from itertools import islice
from multiprocessing import get_context
from threading import Barrier
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from ..chem.smiles import MoleculeError
from ..data.files import Geometry
from . import BATCH_TOKENS, WINDOW

Kind = Literal["smiles", "iupac", "mol_block", "geometry"]


class Inferred(NamedTuple):
    """
    What a model says of one molecule. `smiles_used`: the SMILES that it saw, where it saw one. `reports`: what else the
    processor has to say of it, under the names of its `reports` (3D methods: how the coordinates came about).
    """

    output: np.ndarray
    smiles_used: str | None
    reports: dict[str, str]

    @property
    def told(self) -> dict[str, str]:
        """All that is said beside the output, by name."""
        return ({} if self.smiles_used is None else {"smiles_used": self.smiles_used}) | self.reports


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """`torch.bfloat16` for `"bfloat16"`, and so on. Raises ValueError for what is no floating-point type."""
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype is 'float32', 'bfloat16' or 'float16', not {dtype!r}")
    return dtype


def reports_of(processor: Any) -> tuple[str, ...]:
    """What a processor reports of each molecule beside `smiles_used`: texts in its features."""
    return getattr(processor, "reports", ())


def reads(processor: Any, kind: Kind) -> bool:
    """Whether a processor makes features of molecules that are given in this way."""
    return set(Geometry._fields if kind == "geometry" else [kind]) <= set(signature(processor.featurize).parameters)


def token_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Molecules, the longest first, in batches of at most `batch_tokens` padded tokens (or of one longer molecule)."""
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        stop = start + max(1, batch_tokens // int(lengths[order[start]]))
        batches.append(order[start:stop])
        start = stop
    return batches


def infer(
    model: torch.nn.Module,
    processor: Any,
    molecules: Iterable[str | Geometry | MoleculeError],
    read_output: Callable[[Any], torch.Tensor],
    *,
    kind: Kind = "smiles",
    batch_tokens: int = BATCH_TOKENS,
    on_error: Literal["raise", "skip"] = "raise",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    window: int = WINDOW,
    num_workers: int = 0,
) -> Iterator[Inferred | MoleculeError]:
    """
    Outputs of a model for any number of molecules, in their order, in memory that does not grow with their number.

    `window` molecules at a time are featurised, sorted by length, cut into batches of at most `batch_tokens` padded
    tokens (or atoms) and run. What a window gives depends on nothing outside it.

    Args:
        molecules: SMILES or names. A `MoleculeError` among them stands for one that could not even be read.
        read_output: takes a `[molecules, ...]` tensor out of what the model returns.
        kind: what `molecules` holds: `"smiles"`, `"iupac"` names (MM-Deacon), or `"mol_block"`: records of an SDF,
            whose coordinates are used (3D methods), or `"geometry"`: [`~hf_molrep.data.files.Geometry`], likewise.
        on_error: `"raise"` the first failure, with its index, when its turn comes; or `"skip"`: yield the error in the
            molecule's place.
        device: the model is moved there; by default it stays where it is.
        dtype: run an fp32 model under autocast to bf16 or fp16. Results are float32 always.
        num_workers: processes that featurise; 0: a thread of this one, enough for a model on two or four cores. A GPU
            wants several; a script that uses them needs `if __name__ == "__main__":`.

    Raises:
        ValueError: arguments that cannot be. MoleculeError: see `on_error`.
    """
    if isinstance(molecules, str):
        raise ValueError("molecules is one string; give a list of strings")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    if kind not in get_args(Kind):
        raise ValueError(f"kind is one of {', '.join(map(repr, get_args(Kind)))}, not {kind!r}")
    if not reads(processor, kind):
        raise ValueError(f"{type(processor).__name__} does not read kind={kind!r}")
    for name, value, least in (
        ("batch_tokens", batch_tokens, 1),
        ("window", window, 1),
        ("num_workers", num_workers, 0),
    ):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is an integer of at least {least}, not {value!r}")
    dtype = as_dtype(dtype)
    parameter = next(model.parameters())
    if dtype == torch.float32 and parameter.dtype != torch.float32:
        raise ValueError(f"the model is loaded in {parameter.dtype}; load it with dtype=torch.float32")
    if device is not None:
        model.to(device)
    autocast_to = dtype if dtype not in (None, parameter.dtype) else None
    featurizing = (processor, kind, iter(molecules), window, num_workers)
    return _infer(model, processor, featurizing, read_output, batch_tokens, on_error, autocast_to)


def _infer(model, processor, featurizing, read_output, batch_tokens, on_error, autocast_to):
    on_cpu = next(model.parameters()).device.type == "cpu"
    # On a GPU a window runs while the next one is featurised: nothing waits for its results before _collect.
    waiting, first, reports = None, 0, reports_of(processor)
    with (
        _Threads(torch.get_num_threads() if on_cpu else 1) as threads,
        closing(_featurized_windows(*featurizing, threads)) as windows,
    ):
        for features in windows:
            outputs = _launch(model, processor, features, read_output, batch_tokens, autocast_to, threads)
            running = (features, *outputs)
            if on_cpu:
                yield from _collect(*running, reports, on_error, first)
                first += len(features)
                continue
            if waiting is not None:
                yield from _collect(*waiting, reports, on_error, first)
                first += len(waiting[0])
            waiting = running
    if waiting is not None:
        yield from _collect(*waiting, reports, on_error, first)


def _featurize(processor, kind: str, molecules: list) -> list[dict | MoleculeError]:
    results = list(molecules)
    places = [place for place, molecule in enumerate(molecules) if not isinstance(molecule, MoleculeError)]
    if places:
        usable = [molecules[place] for place in places]
        if kind == "geometry":
            given = dict(zip(Geometry._fields, map(list, zip(*usable, strict=True)), strict=True))
        else:
            given = {kind: usable}
        features = processor.featurize(**given, on_error="skip")
        for place, feature in zip(places, features, strict=True):
            results[place] = feature
    return results


def _in_worker(molecules: list) -> list[dict | MoleculeError]:
    return _featurize(*_worker, molecules)


def _set_up_worker(processor, kind: str) -> None:
    global _worker
    _worker = (processor, kind)


def _featurized_windows(processor, kind, molecules: Iterator, window: int, num_workers: int, threads: "_Threads"):
    windows = iter(lambda: list(islice(molecules, window)), [])
    if num_workers:
        # spawn, not fork: this process has threads (torch, tokenizers), and CUDA does not survive a fork
        context = get_context("spawn")
        pool: Executor = ProcessPoolExecutor(num_workers, context, _set_up_worker, (processor, kind))
        work = _in_worker
    else:
        # RDKit holds the interpreter's lock while it works, torch does not: the two overlap in part, and need no set-up
        pool, work = threads, partial(_featurize, processor, kind)
    submitted = deque()
    try:
        for chunk in windows:
            # threads share the interpreter's lock: two windows at once would only delay the first
            ready = submitted.popleft().result() if len(submitted) >= max(1, num_workers) else None
            submitted.append(pool.submit(work, chunk))
            if ready is not None:
                yield ready
        while submitted:
            yield submitted.popleft().result()
    finally:
        for future in submitted:
            future.cancel()
        if num_workers:
            pool.shutdown()


class _Threads(ThreadPoolExecutor):
    """`count` threads for the model and one for RDKit; tensor operations use one core each. Cores that share each
    operation would wait for one another, above all while RDKit works on one of them."""

    def __init__(self, count: int):
        super().__init__(count + 1)
        self.count = count
        per_operation, all_here = torch.get_num_threads(), Barrier(count + 2)

        def set_up() -> None:
            torch.set_num_threads(1)
            all_here.wait()

        for _ in range(count + 1):
            self.submit(set_up)
        all_here.wait()
        torch.set_num_threads(per_operation)  # threads that come later begin with what was set last


def _launch(model, processor, features, read_output, batch_tokens, autocast_to, threads: _Threads):
    """Run a window; the places in the order in which they ran, and the outputs, still on the device."""
    places = [place for place, feature in enumerate(features) if not isinstance(feature, MoleculeError)]
    if not places:
        return np.empty(0, dtype=np.int64), None
    lengths = np.array([processor.size(features[place]) for place in places])
    parts = token_batches(lengths, batch_tokens)
    order = np.concatenate(parts)
    batches = [[features[places[index]] for index in part] for part in parts]
    device = next(model.parameters()).device
    outputs: list[torch.Tensor | None] = [None] * len(batches)
    todo = deque(enumerate(batches))

    def run() -> None:
        """Batches, until none is left. The weights are cast once: in `inference_mode` autocast would forget them."""
        with torch.no_grad(), torch.autocast(device.type, dtype=autocast_to, enabled=autocast_to is not None):
            while True:
                try:
                    place, batch = todo.popleft()
                except IndexError:
                    return
                batch = {
                    name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
                    for name, value in processor.pad(batch, return_tensors="pt").items()
                }
                try:
                    outputs[place] = read_output(model(**batch)).float()
                except BaseException:
                    todo.clear()
                    raise

    was_training = model.training
    if was_training:
        model.eval()
    if device.type == "cpu" and len(batches) >= threads.count:
        for future in [threads.submit(run) for _ in range(threads.count)]:
            future.result()
    else:
        run()
    if was_training:
        model.train()
    return np.array(places)[order], torch.cat(outputs)


def _collect(features, places, outputs, reports, on_error, first):
    rows = {} if outputs is None else dict(zip(places.tolist(), outputs.cpu().numpy(), strict=True))
    for place, feature in enumerate(features):
        if not isinstance(feature, MoleculeError):
            told = {name: feature[name] for name in reports if name in feature}
            yield Inferred(rows[place].copy(), feature.get("smiles_used"), told)
        elif on_error == "skip":
            yield feature
        else:
            reason = f"{feature.reason} (index {first + place} of the input)"
            raise MoleculeError(feature.smiles, reason, feature.notation) from feature
