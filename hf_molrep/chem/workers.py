"""
Processes that can be stopped while native code runs.

RDKit may spend hours in one call, and a call into native code is not interrupted by a thread, nor by an alarm whose
handler is written in Python. So the call is made in a process of its own, which the operating system ends: by its own
CPU clock (`ITIMER_PROF`, whose signal nobody handles) where there is one, else and besides by the wall clock.

The processes are plain interpreters that read calls from their standard input: nothing is forked from a process that
may hold threads, locks or a CUDA context, and a script needs no `if __name__ == "__main__"`. One lives as long as its
calls come back, so that its imports are paid for once.
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

WALL_PER_CPU = 10  # a machine so busy that a CPU second takes longer than this many seconds is not waited for


class Stopped(RuntimeError):
    """
    A call that did not come back.

    Attributes:
        timed_out: it ran past its limit; otherwise the process ended by itself (a crash, or killed for its memory).
    """

    def __init__(self, message: str, timed_out: bool) -> None:
        super().__init__(message, timed_out)
        self.timed_out = timed_out

    def __str__(self) -> str:
        return self.args[0]


class Worker:
    """
    One process. Not for two threads at a time.

    Args:
        imports: modules that it imports before its first call, outside of that call's time.
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
        The result of a function, given as "module:name", for arguments that can be pickled. What it raises is raised.

        Args:
            limit: CPU seconds (wall-clock seconds where the system has no such timer); beyond them, or beyond
                `WALL_PER_CPU` times as many seconds, the process is ended.
        Raises:
            Stopped: the process was ended, or ended by itself. This worker is of no more use.
        """
        late = threading.Event()

        def end() -> None:
            late.set()
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
            if late.is_set() or (hasattr(signal, "SIGPROF") and code == -signal.SIGPROF):
                raise Stopped(f"stopped after the time limit of {limit:g} s", True) from None
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            raise Stopped(f"the process that computed it ended ({how})", False) from broken
        finally:
            timer.cancel()
        if error is not None:
            raise error
        return result

    def close(self) -> int:
        """End the process; its exit status."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, ValueError):
                stream.close()
        try:
            return self.process.wait(1)  # its output ends before it does; the status is that of what ended it
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def kill(self) -> None:
        """End the process at once, also from another thread than the one that waits for it."""
        self.process.kill()


class WorkerPool:
    """
    Up to `size` workers, started when there is something to do, and again after one was stopped.

    May be used by several threads. Ends its processes when it is closed, collected, or Python exits; a process forked
    from this one starts its own.
    """

    def __init__(self, size: int, imports: Sequence[str] = ()) -> None:
        if size < 1:
            raise ValueError(f"a pool needs at least one process, not {size}")
        self.size, self.imports = size, imports
        self._begin()

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._idle: queue.LifoQueue = queue.LifoQueue()
        for _ in range(self.size):
            self._idle.put(None)  # a place without a process yet
        self._started: set[Worker] = set()
        self._finalizer = weakref.finalize(self, _end, self._owner, self._started)

    def run(self, function: str, *args, limit: float):
        """[`Worker.run`] on the next idle worker."""
        if self._owner != os.getpid():
            _of_the_parent.append(self._started)
            self._begin()
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
        """End the processes now, whatever they do; calls under way raise [`Stopped`]. Later calls start new ones."""
        if self._owner == os.getpid():
            for worker in list(self._started):
                worker.kill()

    def close(self) -> None:
        """End the processes. Calls that come later start new ones."""
        self._finalizer()
        self._begin()


_of_the_parent: list[set[Worker]] = []  # kept: collecting a process that is not one's own child warns


def _end(owner: int, workers: Iterable[Worker]) -> None:
    if owner == os.getpid():
        for worker in list(workers):
            worker.kill()
        for worker in list(workers):
            worker.close()


def _serve(imports: Sequence[str]) -> None:
    """The life of a worker: calls in, results out, until its input ends."""
    calls, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever prints must not get between the results
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
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
        except Exception as caught:  # an error that does not travel
            answer = pickle.dumps((None, RuntimeError(f"{error or caught!r}")), pickle.HIGHEST_PROTOCOL)
        try:
            results.write(answer)
            results.flush()
        except BrokenPipeError:
            os._exit(1)
