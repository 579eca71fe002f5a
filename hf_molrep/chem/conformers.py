"""
Conformers: atom coordinates, computed by RDKit or given by the user.

Computed coordinates depend on the molecule, the settings and the version of RDKit alone: the molecule is embedded in
the atom order of its canonical SMILES and mapped back, so the way it is written, the other molecules and the number of
processes do not matter. Equivalent atoms are mapped by one of the molecule's automorphisms.

The steps; flags report what happened:

1. Of a salt or mixture only the largest fragment is embedded, organic ones (with a carbon) before all others
   (`fragment`): distance geometry has no distances between molecules.
2. ETKDGv3 (Wang et al., J. Chem. Inf. Model. 60, 2044 (2020)) with all hydrogens, conformer k from the seed
   `seed + k`; if that fails, from random coordinates (`random_coordinates`), and then without RDKit's checks of
   chirality (`chirality_unenforced`), which refuse some fused three- and four-membered rings (158 of 3,500 molecules
   of QM9); of several attempts, those with the stereo of the SMILES are kept.
3. Minimisation by MMFF94 (Halgren, J. Comput. Chem. 17, 490 (1996)), for at most `max_iterations`. The coordinates stay
   as embedded where it lacks parameters (`force_field_missing`) and where it inverts stereo, as with Z azo compounds
   (`force_field_undone`).
4. Where no 3D coordinates are found, and only on request, RDKit's 2D layout (status `2d`, third coordinate 0).

A failure is a [`MoleculeError`] with the reason, never placeholder coordinates.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from .canonical_form import CanonicalForm, Hydrogens, canonical_form
from .conformer_cache import ConformerCache, Record, default_path
from .conformer_embedding import compute_conformers, compute_layout
from .smiles import MoleculeError, OnError, check_on_error, parse
from .workers import Stopped, WorkerPool

if TYPE_CHECKING:
    from rdkit.Chem import Mol

RECIPE = 2  # increase it when the same settings give other coordinates
FLAGS = {
    "fragment": "a salt or mixture: only its largest (organic) fragment has coordinates",
    "stereo_unspecified": "a stereo centre or double bond is not specified: this is one of the stereoisomers",
    "random_coordinates": "embedded from random coordinates, as the first attempt found none",
    "chirality_unenforced": "embedded without RDKit's checks of chirality; the stereo written was checked afterwards",
    "force_field_missing": "the force field lacks parameters: coordinates as embedded",
    "force_field_undone": "the force field inverted stereo: such conformers stay as embedded, their energy is NaN",
    "not_converged": "the force field stopped at its limit of iterations, for at least one conformer",
    "fewer_conformers": "fewer conformers were found than requested",
    "layout": "no 3D coordinates were found, or only a layout was requested: a 2D drawing",
    "given": "coordinates of the user",
    "hydrogens_added": "hydrogens were added to coordinates of the user, by ideal geometry",
    "atoms_left_out": "more atoms than the model takes: a seeded choice of them",
    "reordered": "coordinates of the user were brought into the order of the molecule by their connectivity",
}
_RDKIT = tuple(f"rdkit.Chem.{name}" for name in ("rdDistGeom", "rdForceFieldHelpers", "rdDepictor"))
_RUN_AHEAD = 2048  # molecules read before the first result is returned
_CHUNK = 256  # molecules looked up in the cache at a time
_SAVE_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class ConformerSettings:
    """
    Everything besides the molecule and the version of RDKit that coordinates depend on.

    Attributes:
        num_conformers: how many; conformer k is embedded from the seed `seed + k`.
        seed: 0 or more.
        hydrogens: which are returned: "all"; "none"; "polar", those on N, O, F, S, Cl, Se, Br, I. They are left out
            after embedding and force field, which always see all. Hydrogens without a heavier neighbour (H2, H+) stay;
            isotopes are hydrogens.
        force_field: "mmff94", "mmff94s" (flat nitrogens), "uff" or "none".
        max_iterations: of the force field.
        dimensions: "3d"; "3d or 2d": a 2D layout where no 3D coordinates are found; "2d": the layout alone.
        fragments: "largest": of a salt; "refuse": a MoleculeError for more than one fragment.
    """

    num_conformers: int = 1
    seed: int = 42
    hydrogens: Hydrogens = "all"
    force_field: Literal["mmff94", "mmff94s", "uff", "none"] = "mmff94"
    max_iterations: int = 200
    dimensions: Literal["3d", "3d or 2d", "2d"] = "3d"
    fragments: Literal["largest", "refuse"] = "largest"

    def __post_init__(self) -> None:
        if self.num_conformers < 1:
            raise ValueError(f"num_conformers must be 1 or more, not {self.num_conformers}")
        if not 0 <= self.seed < 2**31 - self.num_conformers:
            raise ValueError(f"seed must be between 0 and 2**31, not {self.seed}")
        if self.max_iterations < 1:
            raise ValueError(f'max_iterations must be 1 or more, not {self.max_iterations}; see force_field="none"')
        for name, allowed in (
            ("hydrogens", ("all", "none", "polar")),
            ("force_field", ("mmff94", "mmff94s", "uff", "none")),
            ("dimensions", ("3d", "3d or 2d", "2d")),
            ("fragments", ("largest", "refuse")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {getattr(self, name)!r}")

    def to_dict(self) -> dict:
        """Convert to a dict for JSON; `ConformerSettings(**...)` restores it."""
        return asdict(self)

    def _key(self, layout: bool) -> str:
        """Key of the cache. Cached records do not depend on `hydrogens` and `fragments`."""
        key: dict = {"recipe": RECIPE, "rdkit": _rdkit_version(), "kind": "2d" if layout else "etkdgv3"}
        if not layout:
            key |= {"num_conformers": self.num_conformers, "seed": self.seed, "force_field": self.force_field}
            if self.force_field != "none":
                key["max_iterations"] = self.max_iterations
        return json.dumps(key, sort_keys=True)


class Conformers(NamedTuple):
    """
    Coordinates of one molecule. Rows are the atoms of the input in its order, without those left out, then the implied
    hydrogens in the order of `Chem.AddHs`.

    Attributes:
        z: uint8 `[atoms]`, atomic numbers.
        pos: float32 `[conformers, atoms, 3]`, angstrom.
        index: int32 `[atoms]`, the atom's index in the input; -1 for an implied hydrogen.
        smiles: canonical SMILES of the part that has coordinates.
        status: "3d" or "2d". (A failed molecule is a `MoleculeError` instead.)
        flags: see `FLAGS`.
        energies: float64 `[conformers]`, of the force field, kcal/mol, comparable between conformers of one molecule;
            None without one.
    """

    z: np.ndarray
    pos: np.ndarray
    index: np.ndarray
    smiles: str
    status: str
    flags: tuple[str, ...] = ()
    energies: np.ndarray | None = None


def count_reports(results: Iterable[Conformers | MoleculeError]) -> dict[str, int]:
    """Count the molecules that are "3d", "2d" and "failed", and those with each flag."""
    counts: Counter = Counter({"3d": 0, "2d": 0, "failed": 0})
    for result in results:
        if isinstance(result, MoleculeError):
            counts["failed"] += 1
        else:
            counts[result.status] += 1
            counts.update(result.flags)
    return dict(counts)


@functools.cache
def _rdkit_version() -> str:
    from rdkit.rdBase import rdkitVersion

    return rdkitVersion


def _result(prepared: CanonicalForm, record: Record, text: str, layout: bool) -> Conformers:
    if record.reason:
        raise MoleculeError(text, record.reason)
    if not np.array_equal(record.z, prepared.z):
        raise MoleculeError(text, f"its canonical SMILES {prepared.smiles} describes other atoms")
    flags = prepared.flags + record.flags
    return Conformers(
        prepared.z[prepared.take],
        record.pos[:, prepared.take],
        prepared.index,
        prepared.smiles,
        "2d" if layout else "3d",
        flags,
        record.energies.copy() if len(record.energies) else None,
    )


class ConformerGenerator:
    """
    Compute conformers of molecules in worker processes; what is in the cache is not computed again.

    ```python
    with ConformerGenerator(ConformerSettings(num_conformers=10), processes=4) as generate:
        results = generate(["CCO", "[Na+].CC(=O)[O-]"], on_error="skip")
    ```

    Processes start with the first molecule that is not in the cache (about a third of a second each) and live until the
    generator is closed or collected. Failures are cached too, but crashes are tried again, and molecules that exceeded
    the time limit are tried again with a higher one.

    Args:
        settings: see [`ConformerSettings`].
        cache: a file; "default": the shared one (`HF_MOLREP_CACHE`, else in Hugging Face's cache folder); None: none.
        processes: number of worker processes, one core each. The results do not depend on it.
        time_limit: CPU seconds per molecule, all conformers together, after which its process is ended (wall-clock
            seconds on systems without a CPU timer, such as Windows).
    """

    def __init__(
        self,
        settings: ConformerSettings | None = None,
        cache: str | os.PathLike | None = "default",
        processes: int = 1,
        time_limit: float = 60.0,
    ) -> None:
        if not time_limit > 0:
            raise ValueError(f"time_limit must be more than 0, not {time_limit}")
        self.settings = settings or ConformerSettings()
        self.time_limit = time_limit
        self.processes = processes
        self.cache = None if cache is None else ConformerCache(default_path() if cache == "default" else Path(cache))
        self._pool = WorkerPool(processes, _RDKIT)

    def __getstate__(self) -> dict:
        return {key: value for key, value in vars(self).items() if key != "_pool"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._pool = WorkerPool(self.processes, _RDKIT)

    def __enter__(self) -> ConformerGenerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and close the cache. Both start again when needed."""
        self._pool.close()
        if self.cache is not None:
            self.cache.close()

    def __call__(
        self, molecules: Sequence[str | Mol], on_error: OnError = "raise", progress: bool | None = None
    ) -> list[Conformers | MoleculeError]:
        """
        Compute the conformers of each molecule, in order.

        Args:
            molecules: SMILES (taken as drawn; standardise before) or sanitised RDKit molecules.
            on_error: "skip" returns the MoleculeError in the place of a failed molecule.
            progress: whether to show a bar; None: on a terminal, from 100 molecules on.
        Raises:
            MoleculeError: the first molecule that failed.
            ValueError: an unknown `on_error`; `molecules` is one string.
        """
        return list(self.stream(molecules, on_error, progress))

    def stream(
        self, molecules: Iterable[str | Mol], on_error: OnError = "raise", progress: bool | None = None
    ) -> Iterator[Conformers | MoleculeError]:
        """Yield the results one by one, for inputs larger than memory; some are computed ahead."""
        check_on_error(on_error)
        if isinstance(molecules, str):
            raise ValueError("a list of molecules is expected, not one string")
        total = len(molecules) if hasattr(molecules, "__len__") else None
        results = self._stream(iter(molecules))
        if progress is False or (progress is None and (total or 0) < 100):
            return self._checked(results, on_error)
        return self._checked(_with_bar(results, total, None if progress is None else False), on_error)

    @staticmethod
    def _checked(results: Iterator[Conformers | MoleculeError], on_error: str) -> Iterator[Conformers | MoleculeError]:
        try:
            for result in results:
                if on_error == "raise" and isinstance(result, MoleculeError):
                    raise result
                yield result
        finally:
            results.close()

    def _stream(self, molecules: Iterator[str | Mol]) -> Iterator[Conformers | MoleculeError]:
        # as a fallback, the layout is a second computation
        layout_first = self.settings.dimensions == "2d"
        work = _Work(self, layout_first)
        waiting: deque[tuple[str, CanonicalForm | MoleculeError, Record | Future | None]] = deque()
        ended = False
        try:
            while True:
                while not ended and len(waiting) <= _RUN_AHEAD - _CHUNK:
                    chunk = list(islice(molecules, _CHUNK))
                    ended = len(chunk) < _CHUNK
                    prepared = [self._prepare(molecule) for molecule in chunk]
                    records = work.request([entry.smiles for _, entry in prepared if isinstance(entry, CanonicalForm)])
                    waiting.extend(
                        (text, entry, records[entry.smiles] if isinstance(entry, CanonicalForm) else None)
                        for text, entry in prepared
                    )
                if not waiting:
                    break
                text, entry, record = waiting.popleft()
                yield entry if isinstance(entry, MoleculeError) else self._finish(work, text, entry, record)
            work.save()
        finally:
            work.close()

    def _prepare(self, molecule: str | Mol) -> tuple[str, CanonicalForm | MoleculeError]:
        from rdkit import Chem

        try:
            is_mol = isinstance(molecule, Chem.Mol)
            mol = molecule if is_mol else parse(molecule)
            text = Chem.MolToSmiles(mol) if is_mol else molecule
            if is_mol and mol.NeedsUpdatePropertyCache():
                raise ValueError("the molecule is not sanitised; see Chem.SanitizeMol")
            return text, canonical_form(mol, text, self.settings.hydrogens, self.settings.fragments)
        except MoleculeError as error:
            return error.smiles, error

    def _finish(
        self, work: _Work, text: str, prepared: CanonicalForm, record: Record | Future
    ) -> Conformers | MoleculeError:
        layout = self.settings.dimensions == "2d"
        found = work.wait(record)
        if found.reason and self.settings.dimensions == "3d or 2d":
            layout = True
            reason_3d = found.reason
            found = work.layout(prepared.smiles)
            if found.reason:
                found = found._replace(reason=f"{reason_3d}; 2D: {found.reason}")
        try:
            return _result(prepared, found, text, layout)
        except MoleculeError as error:
            return error


def _with_bar(results: Iterator, total: int | None, disable: bool | None) -> Iterator:
    from tqdm import tqdm

    counts: Counter = Counter()
    with tqdm(total=total, unit=" molecules", disable=disable, mininterval=0.5) as bar:
        try:
            for result in results:
                counts["failed" if isinstance(result, MoleculeError) else result.status] += 1
                if counts["failed"] or counts["2d"]:
                    bar.set_postfix({name: counts[name] for name in ("2d", "failed")}, refresh=False)
                bar.update()
                yield result
        finally:
            results.close()


class _Work:
    """Computations of one generator call: looked up in the cache, computed if missing, saved as they finish."""

    def __init__(self, generator: ConformerGenerator, layout: bool) -> None:
        self.generator = generator
        self.layout_first = layout
        self.executor: ThreadPoolExecutor | None = None
        self.running: dict[tuple[bool, str], Future] = {}
        self.saved_at = time.monotonic()

    def request(self, smiles: Sequence[str]) -> dict[str, Record | Future]:
        """Return the record of each molecule, or the future that computes it."""
        return self._request(smiles, self.layout_first)

    def layout(self, smiles: str) -> Record:
        """Return the 2D layout of one molecule."""
        return self.wait(self._request([smiles], True)[smiles])

    def _request(self, smiles: Sequence[str], layout: bool) -> dict[str, Record | Future]:
        # look here before the cache: a computation that finishes meanwhile is still in `running`
        records: dict[str, Record | Future] = {
            text: self.running[layout, text] for text in smiles if (layout, text) in self.running
        }
        generator = self.generator
        missing = [text for text in dict.fromkeys(smiles) if text not in records]
        if generator.cache is not None and missing:
            for text, record in generator.cache.get(generator.settings._key(layout), missing).items():
                if not record.spent or record.spent >= generator.time_limit:
                    records[text] = record
        for text in missing:
            if text not in records:
                if self.executor is None:
                    self.executor = ThreadPoolExecutor(generator.processes, "conformers")
                records[text] = self.running[layout, text] = self.executor.submit(self._compute, text, layout)
        return records

    def _compute(self, smiles: str, layout: bool) -> Record:
        """Runs in a thread, which waits for a process."""
        settings, limit = self.generator.settings, self.generator.time_limit
        function, arguments = compute_layout, ()
        if not layout:
            function = compute_conformers
            arguments = (settings.num_conformers, settings.seed, settings.force_field, settings.max_iterations)
        empty = Record(np.zeros(0, np.uint8), np.zeros((0, 0, 3), np.float32), np.zeros(0))
        try:
            name = f"{function.__module__}:{function.__name__}"
            return self.generator._pool.run(name, smiles, *arguments, limit=limit)
        except Stopped as error:
            return empty._replace(reason=f"embedding: {error}", spent=limit if error.timed_out else float("inf"))
        except MoleculeError as error:  # its canonical SMILES cannot be read back
            return empty._replace(reason=f"canonical SMILES {smiles}: {error.reason}")
        except (RuntimeError, ValueError, MemoryError) as error:
            return empty._replace(reason=f"RDKit failed: {str(error).strip() or repr(error)}", spent=float("inf"))

    def wait(self, record: Record | Future) -> Record:
        while isinstance(record, Future):
            if time.monotonic() - self.saved_at > _SAVE_EVERY:
                self.save()
            wait([record], timeout=_SAVE_EVERY, return_when=FIRST_COMPLETED)
            if record.done():
                record = record.result()
        return record

    def save(self) -> None:
        """Move finished records to the cache. Crashes (`spent` is infinite) are not cached."""
        cache, settings = self.generator.cache, self.generator.settings
        done = [key for key, future in self.running.items() if future.done() and not future.cancelled()]
        for layout in (False, True):
            records = [
                (text, self.running[kind, text].result())
                for kind, text in done
                if kind == layout and not self.running[kind, text].exception()
            ]
            if cache is not None:
                cache.put(settings._key(layout), [pair for pair in records if pair[1].spent != float("inf")])
        for key in done:
            del self.running[key]
        self.saved_at = time.monotonic()

    def close(self) -> None:
        """Save finished records; end the other computations."""
        if self.executor is None:
            return
        self.executor.shutdown(wait=False, cancel_futures=True)
        try:
            self.save()
        finally:
            if any(not future.done() for future in self.running.values()):
                self.generator._pool.stop()
            self.executor.shutdown(wait=True)


def generate_conformers(
    molecules: Sequence[str | Mol],
    on_error: OnError = "raise",
    *,
    cache: str | os.PathLike | None = "default",
    processes: int = 1,
    time_limit: float = 60.0,
    progress: bool | None = None,
    **settings,
) -> list[Conformers | MoleculeError]:
    """Call a [`ConformerGenerator`] once; `settings` are those of [`ConformerSettings`]."""
    with ConformerGenerator(ConformerSettings(**settings), cache, processes, time_limit) as generator:
        return generator(molecules, on_error, progress)
