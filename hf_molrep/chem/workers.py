"""
Worker processes that can be stopped while native code runs.

RDKit may spend hours in one call, and neither a thread nor an alarm with a Python handler can interrupt native code. So
the call is made in a separate process, which the operating system ends: by a CPU timer (`ITIMER_PROF`, whose signal is
not handled) where there is one, and in any case by the wall clock.

The processes are plain interpreters that read calls from their standard input: nothing is forked from a process that
may hold threads, locks or a CUDA context, and a script needs no `if __name__ == "__main__"`. A process serves calls
until one has to be stopped, so modules are imported once.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable, Sequence

WALL_PER_CPU = 10  # wall-clock limit: this many seconds for each CPU second of the limit


class Stopped(RuntimeError):
    """
    Raised when a call did not return.

    Attributes:
        timed_out: it exceeded its limit; otherwise the process ended by itself (crashed, or was killed for its memory).
    """

    def __init__(self, message: str, timed_out: bool) -> None:
        super().__init__(message, timed_out)
        self.timed_out = timed_out

    def __str__(self) -> str:
        return self.args[0]


class Worker:
    """
    One process, for one thread at a time.

    Args:
        imports: modules that it imports before its first call, not counted in that call's time.
    """

    def __init__(self, imports: Sequence[str] = ()) -> None:
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _serve; _serve({[*imports]!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )

    def run(self, function: str, *args, limit: float):
        """
        Call a function, given as "module:name", with picklable arguments; return its result or raise its exception.

        Args:
            limit: CPU seconds (wall-clock seconds where the system has no such timer); beyond them, or beyond
                `WALL_PER_CPU` times as many seconds, the process is ended.
        Raises:
            Stopped: the process was ended, or ended by itself. This worker cannot be used again.
        """
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            self.process.kill()

        timer = threading.Timer(limit * (WALL_PER_CPU if hasattr(signal, "setitimer") else 1) + 1, end)
        timer.daemon = True
        timer.start()
        try:
            pickle.dump((function, args, limit), self.process.stdin, pickle.HIGHEST_PROTOCOL)
            self.process.stdin.flush()
            result, error = pickle.load(self.process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as broken:
            code = self.close()
            # ITIMER_PROF's signal is the only thing that ends a process in this way
            if timed_out.is_set() or (hasattr(signal, "SIGPROF") and code == -signal.SIGPROF):
                raise Stopped(f"stopped after the time limit of {limit:g} s", True) from None
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            raise Stopped(f"the process that computed it ended ({how})", False) from broken
        finally:
            timer.cancel()
        if error is not None:
            raise error
        return result

    def close(self) -> int:
        """End the process and return its exit status."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, ValueError):
                stream.close()
        try:
            return self.process.wait(1)  # its output closes before it exits: wait for its own exit status
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        """End the process at once; may be called while another thread waits for it."""
        self.process.kill()


class WorkerPool:
    """
    Up to `size` workers, started when needed and replaced after one was stopped.

    Several threads may use it. It ends its processes when it is closed or collected, or when Python exits; a process
    forked from this one starts its own.
    """

    def __init__(self, size: int, imports: Sequence[str] = ()) -> None:
        if size < 1:
            raise ValueError(f"a pool needs at least one process, not {size}")
        self.size, self.imports = size, imports
        self._reset()

    def _reset(self) -> None:
        self._owner = os.getpid()
        self._idle: queue.LifoQueue = queue.LifoQueue()
        for _ in range(self.size):
            self._idle.put(None)  # a place without a process yet
        self._started: set[Worker] = set()
        self._finalizer = weakref.finalize(self, _end_workers, self._owner, self._started)

    def run(self, function: str, *args, limit: float):
        """Run [`Worker.run`] on the next idle worker."""
        if self._owner != os.getpid():
            _parent_workers.append(self._started)
            self._reset()
        idle, started = self._idle, self._started
        worker = idle.get()
        try:
            if worker is None:
                worker = Worker(self.imports)
                started.add(worker)
            return worker.run(function, *args, limit=limit)
        except Stopped:
            started.discard(worker)
            worker = None
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and worker is not None:  # interrupted: an answer may still come
                started.discard(worker)
                worker.kill()
                worker.close()
                worker = None
            raise
        finally:
            idle.put(worker)

    def stop(self) -> None:
        """End the processes now; running calls raise [`Stopped`]. Later calls start new processes."""
        if self._owner == os.getpid():
            for worker in list(self._started):
                worker.kill()

    def close(self) -> None:
        """End the processes. Later calls start new ones."""
        self._finalizer()
        self._reset()


_parent_workers: list[set[Worker]] = []  # kept: Python warns when a process object of another parent is collected


def _end_workers(owner: int, workers: Iterable[Worker]) -> None:
    if owner == os.getpid():
        for worker in list(workers):
            worker.kill()
        for worker in list(workers):
            worker.close()


def _serve(imports: Sequence[str]) -> None:
    """Main loop of a worker: read calls, write results, until its input ends."""
    calls, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # printed text must not get between the results
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles interrupts
    has_timer = hasattr(signal, "setitimer")
    if has_timer:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, also in native code
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    for module in imports:
        importlib.import_module(module)
    while True:
        try:
            function, args, limit = pickle.load(calls)
        except EOFError:
            return
        module, _, name = function.partition(":")
        result, error = None, None
        try:
            call = getattr(importlib.import_module(module), name)
            if has_timer:
                signal.setitimer(signal.ITIMER_PROF, limit)
            result = call(*args)
        except Exception as caught:
            error = caught
        finally:
            if has_timer:
                signal.setitimer(signal.ITIMER_PROF, 0)
        try:
            answer = pickle.dumps((result, error), pickle.HIGHEST_PROTOCOL)
        except Exception as caught:  # it cannot be pickled
            answer = pickle.dumps((None, RuntimeError(f"{error or caught!r}")), pickle.HIGHEST_PROTOCOL)
        try:
            results.write(answer)
            results.flush()
        except BrokenPipeError:
            os._exit(1)
