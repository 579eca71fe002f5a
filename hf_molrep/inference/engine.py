"""Run a model over many molecules: batches of similar length, results in the order of the input."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from threading import Barrier
from typing import Any, NamedTuple

import numpy as np
import torch

from ..chem.smiles import MoleculeError, OnError, check_on_error
from ..data.files import molecule_column
from ..processing.contract import MoleculeProcessor, by_column
from . import BATCH_TOKENS, WINDOW

Step = Callable[[torch.nn.Module, dict[str, Any]], torch.Tensor | Sequence[Any]]
"""Maps a model and a batch to one result per molecule: a tensor `[molecules, ...]`, or any sequence."""


class Inferred(NamedTuple):
    """
    Result of one molecule.

    Attributes:
        output: the result of the step, tensors as NumPy arrays.
        report: what the processor reports of the molecule, by name: `smiles_used`, the SMILES that the model saw, if
            any (several, joined by dots); and its `reports` (3D methods: how the coordinates were made).
    """

    output: Any
    report: dict[str, str]


def rows_of(molecules: Iterable[Any], kind: str = "smiles") -> Iterator[Mapping[str, Any] | MoleculeError]:
    """
    Turn molecules into rows: a text becomes a dict with the column of `kind`; dicts and errors are kept.

    Raises:
        ValueError: a single string; or `kind` is unknown, see [`~hf_molrep.data.files.molecule_column`].
    """
    column = molecule_column(kind)
    if isinstance(molecules, str):
        raise ValueError("molecules are a list or another iterable, not one string")
    return (molecule if isinstance(molecule, Mapping | MoleculeError) else {column: molecule} for molecule in molecules)


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Return the torch type of a name such as `"bfloat16"`. Raises ValueError unless it is a floating-point type."""
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype is 'float32', 'bfloat16' or 'float16', not {dtype!r}")
    return dtype


def token_batches(lengths: np.ndarray, batch_tokens: int, batch_size: int | None = None) -> list[np.ndarray]:
    """
    Divide molecules, the longest first, into batches of at most `batch_tokens` padded tokens and `batch_size`
    molecules. A molecule longer than `batch_tokens` is a batch of its own. Returns their indices, batch by batch.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        number = max(1, batch_tokens // int(lengths[order[start]]))
        stop = start + (number if batch_size is None else min(number, batch_size))
        batches.append(order[start:stop])
        start = stop
    return batches


def infer(
    model: torch.nn.Module,
    processor: MoleculeProcessor,
    rows: Iterable[Mapping[str, Any] | MoleculeError],
    step: Step,
    *,
    batch_tokens: int = BATCH_TOKENS,
    batch_size: int | None = None,
    on_error: OnError = "raise",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    window: int = WINDOW,
    num_workers: int = 0,
) -> Iterator[Inferred | MoleculeError]:
    """
    Run a model over any number of molecules, in the order of the input and in constant memory.

    `window` molecules at a time are featurised, sorted by length, divided into batches of at most `batch_tokens` padded
    tokens (or atoms) and run. The results of a window do not depend on other windows.

    Args:
        model: the model; it is used in evaluation mode and then set back to its previous mode.
        processor: the processor of the model.
        rows: molecules, each a dict of the columns that `processor` reads, such as `{"smiles": "CCO"}`, all with the
            same columns. A `MoleculeError` stands for a molecule that has already failed.
        step: calls the model on a batch, see [`Step`]. It runs without gradients, on a CPU in several threads at once.
        batch_tokens: largest number of padded tokens in a batch; a longer molecule is a batch of its own.
        batch_size: largest number of molecules in a batch; None: no limit.
        on_error: `"raise"`, or `"skip"`: a molecule that fails gives a `MoleculeError`. A result that is not finite is
            a failure.
        device: device to move the model to; by default it is not moved.
        dtype: `"bfloat16"` or `"float16"` runs under autocast; weights stay in float32.
        window: number of molecules that are featurised and sorted together.
        num_workers: number of processes that make features; 0: a thread does, while the model runs.
    Returns:
        An iterator over the results, one per row.
    Raises:
        MoleculeError: a molecule cannot be used (`on_error="raise"`); its index is in the message.
        ValueError: arguments are wrong; before anything is read.
    """
    check_on_error(on_error)
    for name, value, least in (
        ("batch_tokens", batch_tokens, 1),
        ("batch_size", 1 if batch_size is None else batch_size, 1),
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
    featurizing = (processor, iter(rows), window, num_workers)
    run = partial(_launch, model, processor, step, (batch_tokens, batch_size), autocast_to)
    return _infer(next(model.parameters()).device, processor, featurizing, run, on_error)


def _infer(device, processor, featurizing, launch, on_error):
    on_cpu = device.type == "cpu"
    # On a GPU a window runs while the next one is featurised: only _collect waits for its results.
    waiting, first = None, 0
    with (
        _Threads(torch.get_num_threads() if on_cpu else 1) as threads,
        closing(_featurized_windows(*featurizing, threads)) as windows,
    ):
        for rows, features in windows:
            running = (rows, features, *launch(features, threads))
            if on_cpu:
                yield from _collect(*running, processor.reports, on_error, first)
                first += len(features)
                continue
            if waiting is not None:
                yield from _collect(*waiting, processor.reports, on_error, first)
                first += len(waiting[1])
            waiting = running
    if waiting is not None:
        yield from _collect(*waiting, processor.reports, on_error, first)


def _featurize(processor: MoleculeProcessor, rows: list) -> list[dict | MoleculeError]:
    results = list(rows)
    places = [place for place, row in enumerate(rows) if not isinstance(row, MoleculeError)]
    if places:
        features = processor.featurize(by_column([rows[place] for place in places]), on_error="skip")
        for place, feature in zip(places, features, strict=True):
            results[place] = feature
    return results


def _in_worker(rows: list) -> list[dict | MoleculeError]:
    return _featurize(_worker, rows)


def _set_up_worker(processor: MoleculeProcessor) -> None:
    global _worker
    _worker = processor


def _featurized_windows(processor, rows: Iterator, window: int, num_workers: int, threads: "_Threads"):
    windows = iter(lambda: list(islice(rows, window)), [])
    if num_workers:
        # spawn, not fork: this process has threads (torch, tokenizers), and CUDA does not survive a fork
        context = get_context("spawn")
        pool: Executor = ProcessPoolExecutor(num_workers, context, _set_up_worker, (processor,))
        work = _in_worker
    else:
        # RDKit holds the interpreter's lock, torch does not: the two overlap in part, without the cost of a process
        pool, work = threads, partial(_featurize, processor)
    submitted = deque()
    try:
        for chunk in windows:
            # threads share the interpreter's lock: two windows at once would only delay the first
            ready = _finished(submitted) if len(submitted) >= max(1, num_workers) else None
            submitted.append((chunk, pool.submit(work, chunk)))
            if ready is not None:
                yield ready
        while submitted:
            yield _finished(submitted)
    finally:
        for _, future in submitted:
            future.cancel()
        if num_workers:
            pool.shutdown()


def _finished(submitted: deque) -> tuple[list, list[dict | MoleculeError]]:
    """Wait for the first window; return its rows, and the feature or the error of each."""
    rows, future = submitted.popleft()
    return rows, future.result()


class _Threads(ThreadPoolExecutor):
    """
    `count` threads for the model and one for RDKit; each tensor operation uses one core. Cores that share an operation
    would wait for one another, above all while RDKit uses one of them.
    """

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


def _launch(model, processor, step, sizes, autocast_to, features, threads: _Threads):
    """Run a window; return row indices in the order of the batches, and the results of each batch, on the device."""
    places = [place for place, feature in enumerate(features) if not isinstance(feature, MoleculeError)]
    if not places:
        return np.empty(0, dtype=np.int64), []
    lengths = np.array([processor.size(features[place]) for place in places])
    parts = token_batches(lengths, *sizes)
    order = np.concatenate(parts)
    batches = [[features[places[index]] for index in part] for part in parts]
    device = next(model.parameters()).device
    outputs: list[torch.Tensor | Sequence] = [()] * len(batches)
    todo = deque(enumerate(batches))

    def run() -> None:
        """Run batches until none is left. Not in `inference_mode`, where autocast would cast the weights every time."""
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
                    outputs[place] = step(model, batch)
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
    for output, part in zip(outputs, parts, strict=True):
        if len(output) != len(part):
            raise ValueError(f"the step gave {len(output)} results for {len(part)} molecules")
    if all(isinstance(output, torch.Tensor) for output in outputs) and len({each.shape[1:] for each in outputs}) == 1:
        outputs = [torch.cat(outputs)]  # one transfer from the device
    return np.array(places)[order], outputs


def _collect(rows, features, places, outputs, reports, on_error, first):
    results = dict(zip(places.tolist(), chain.from_iterable(map(_on_host, outputs)), strict=True))
    for place, feature in enumerate(features):
        if isinstance(feature, MoleculeError):
            failure = feature
        elif _is_finite(results[place]):
            report = {name: _text(feature[name]) for name in ("smiles_used", *reports) if name in feature}
            yield Inferred(results[place], report)
            continue
        else:
            text = next((value for value in rows[place].values() if isinstance(value, str)), feature.get("smiles_used"))
            failure = MoleculeError(_text(text), "the model's output is not finite")
        if on_error == "skip":
            yield failure
        else:
            reason = f"{failure.reason} (index {first + place} of the input)"
            raise MoleculeError(failure.smiles, reason, failure.notation) from failure


def _text(value: Any) -> Any:
    """Join the SMILES of several molecules that were read together."""
    return ".".join(value) if isinstance(value, list) else value


def _on_host(output: torch.Tensor | Sequence[Any]) -> list[Any]:
    """Convert to one result per molecule: tensors to separate NumPy arrays, floating-point numbers to float32."""
    if isinstance(output, torch.Tensor):
        return [row.copy() for row in _as_array(output)]  # a view would keep the whole window in memory
    return [_result_on_host(result) for result in output]


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()


def _result_on_host(result: Any) -> Any:
    """Convert one result, dicts and lists of tensors included."""
    if isinstance(result, torch.Tensor):
        return _as_array(result)
    if isinstance(result, dict):
        return {name: _result_on_host(value) for name, value in result.items()}
    return [_result_on_host(value) for value in result] if isinstance(result, list) else result


def _is_finite(result: Any) -> bool:
    """Check all floating-point numbers of a result, those in dicts and lists included."""
    if isinstance(result, dict | list):
        return all(map(_is_finite, result.values() if isinstance(result, dict) else result))
    is_float = isinstance(result, float) or (isinstance(result, np.ndarray | np.generic) and result.dtype.kind == "f")
    return not is_float or bool(np.isfinite(result).all())
