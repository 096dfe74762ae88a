"""Where a peer runs: a process of its own, which does nothing unless it is its turn.

Thread pools that share cores fight: those of OpenBLAS, OpenMP and XLA spin for a while after each
call. In one process, and without pauses, each would be measured under the spinning of the one
before.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
import traceback
from typing import Any

PAUSE = 0.05  # seconds between turns: until the threads of the one before sleep


class Seat:
    """A peer and the jobs it has been given; only its own package is imported."""

    def __init__(self, peer: str, threads: int) -> None:
        if hasattr(os, "sched_setaffinity"):  # the only limit that XLA heeds
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        self.module = importlib.import_module(f"peers_{peer}")
        if hasattr(self.module, "set_threads"):
            self.module.set_threads(threads)
        self.threads = threads
        self.jobs: dict[str, Any] = {}

    def version(self) -> str:
        return str(self.module.version())

    def cells(self) -> tuple[str, ...]:
        return tuple(self.module.CELLS)

    def build(self, job: str, kind: str, point: Any) -> float:
        """Make a job and run it until it is warm; seconds of its fastest step of three."""
        if hasattr(self.module, "set_threads"):
            self.module.set_threads(self.threads)
        self.jobs[job] = getattr(self.module, kind)(point)
        self.jobs[job].run(1)
        return min(self.turn(job, 1) for _ in range(3))

    def turn(self, job: str, steps: int) -> float:
        """Seconds of so many steps, after one that does not count."""
        self.jobs[job].run(1)
        start = time.perf_counter()
        self.jobs[job].run(steps)
        return time.perf_counter() - start

    def drop(self, job: str) -> None:
        self.jobs.pop(job, None)

    def gradients(self, point: Any, weights: Any, inputs: Any, targets: Any) -> Any:
        return self.module.Training(point, weights).gradients(inputs, targets)


class Child:
    """A `Seat` in a process of its own: calls go over a pipe, one at a time."""

    def __init__(self, peer: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, peer, threads), daemon=True, name=f"the process of {peer}"
        )
        self.process.start()
        theirs.close()
        self._answer()

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any) -> Any:
            self.connection.send((method, args))
            return self._answer()

        return call

    def _answer(self) -> Any:
        try:
            error, answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise RuntimeError(
                f"{self.process.name} ended with exit code {self.process.exitcode}, e.g. for want "
                "of memory."
            ) from None
        if error:
            raise RuntimeError(f"in the peer's process:\n{error}")
        return answer


def _serve(connection: Any, peer: str, threads: int) -> None:
    try:
        seat = Seat(peer, threads)
        connection.send((None, None))
        while True:
            method, args = connection.recv()
            connection.send((None, getattr(seat, method)(*args)))
    except (EOFError, KeyboardInterrupt):
        pass  # the parent has gone
    except Exception:
        connection.send((traceback.format_exc(), None))


def limit_threads(threads: int) -> None:
    """For this process and its children, before NumPy is imported."""
    for library in ("OMP", "OPENBLAS", "MKL", "TINYSEQ"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
