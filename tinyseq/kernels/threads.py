"""One team of threads that shares out the work of a kernel: the only owner of the cores.

`parallel` runs a task in as many parts as there are threads, the first part on the calling thread.
The team sleeps between tasks and is never waited for by spinning. When it is busy, because another
thread of the program runs a kernel, or a part asks for parts of its own, the caller does all parts
itself: eight layers at once in eight threads have eight threads and one helper, not sixteen.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class _Team:
    """The threads besides the caller's own, asleep until there is a part to do."""

    def __init__(self, helpers: int) -> None:
        self.helpers = helpers
        self.free = threading.Lock()
        self._go = [threading.Lock() for _ in range(helpers)]
        self._done = [threading.Lock() for _ in range(helpers)]
        self._task: Callable[[int], None] | None = None
        self._parts = 0
        self._failed: list[BaseException] = []
        for i in range(helpers):
            self._go[i].acquire()
            self._done[i].acquire()
            threading.Thread(target=self._work, args=(i,), daemon=True, name="tinyseq").start()

    def _work(self, i: int) -> None:
        while True:
            self._go[i].acquire()
            if self._task is None:  # the team was replaced by one of another size
                return
            try:
                self._share(i + 1)
            except BaseException as error:
                self._failed.append(error)
            self._done[i].release()

    def _share(self, first: int) -> None:
        assert self._task is not None
        for part in range(first, self._parts, self.helpers + 1):
            self._task(part)

    def run(self, task: Callable[[int], None], parts: int) -> None:
        """Parts 1, 2 … on the helpers, part 0 here; `free` is held by the caller."""
        self._task, self._parts = task, parts
        woken = min(parts - 1, self.helpers)
        for i in range(woken):
            self._go[i].release()
        try:
            self._share(0)
        finally:
            for i in range(woken):
                self._done[i].acquire()
            failed, self._failed = self._failed, []
        if failed:
            raise failed[0]

    def dismiss(self) -> None:
        with self.free:
            self._task = None
            for go in self._go:
                go.release()


_threads = 0  # 0: not asked for yet
_team: _Team | None = None
_starting = threading.Lock()


def get_num_threads() -> int:
    """How many threads a kernel may use: by default as many as the process has cores."""
    global _threads
    if _threads == 0:
        given = os.environ.get("TINYSEQ_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS", "")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        _threads = int(given) if given.isdigit() and int(given) > 0 else cores or 1
    return _threads


def set_num_threads(n: int) -> None:
    """Use n threads in kernels from now on, the caller's own included. 1: none but the caller's.

    Raises `ValueError` for less than 1.
    """
    global _threads, _team
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads: n={n!r} must be a whole number, at least 1.")
    with _starting:
        if n != _threads and _team is not None:
            _team.dismiss()
            _team = None
        _threads = n


def parallel(task: Callable[[int], None], parts: int) -> None:
    """task(0), task(1), … task(parts − 1), at the same time where the team is free.

    Each part has to release the GIL (a compiled kernel does), or nothing is gained. An error in a
    part is raised here, after all parts have ended.
    """
    global _team
    if parts > 1 and get_num_threads() > 1:
        with _starting:
            if _team is None:
                _team = _Team(get_num_threads() - 1)
            team = _team
            taken = team.free.acquire(blocking=False)
        if taken:
            try:
                return team.run(task, parts)
            finally:
                team.free.release()
    for part in range(parts):
        task(part)
    return None


def in_slices(n: int, task: Callable[[slice], object]) -> None:
    """task(slice) for slices of 0 … n − 1, as even as can be, one a thread."""
    parts = get_num_threads()

    def part(i: int) -> None:
        task(slice(n * i // parts, n * (i + 1) // parts))

    parallel(part, parts)


def _after_fork() -> None:
    """The threads of the parent are not there in the child."""
    global _team, _starting
    _team, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
