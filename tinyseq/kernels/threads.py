"""One team of threads that shares out the work of a kernel: the only owner of the cores.

`parallel` runs a task in as many parts as it is cut into, the first on the calling thread. Between
tasks a helper watches for the next one for a millisecond, letting any other thread that wants its
core go first, and then sleeps: waking a thread takes longer (75 µs, where it was measured) than
many a product. So does waiting for the GIL while another thread has it: in `shared` the compiled
functions themselves say that they `begin` and `end`, at which moments nobody holds it. When the
team is busy, because another thread of the program runs a kernel or a part has parts of its own,
the caller does all parts itself: eight layers at once in eight threads have eight threads and one
helper, not sixteen.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Callable, Sequence

import numba.core.config
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tinyseq.arguments import Size, checked
from tinyseq.kernels.jit import EXACT, jit
from tinyseq.locks import new_lock

_WATCH = 70_000  # looks, some 15 ns each: a millisecond
_LINE = 16  # numbers of 8 bytes: what is written by different threads is not to share cache lines


@intrinsic  # type: ignore[untyped-decorator]
def _read(typingctx, address):  # type: ignore[no-untyped-def]
    """The number at an address, as another thread may just have written it."""

    def write(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.intp), write


@intrinsic  # type: ignore[untyped-decorator]
def _pause(typingctx):  # type: ignore[no-untyped-def]
    """Tell the processor that this is a loop that waits."""

    def write(context, builder, signature, args):  # type: ignore[no-untyped-def]
        if platform.machine().lower() in ("x86_64", "amd64"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            pause = cgutils.get_or_insert_function(builder.module, nothing, "llvm.x86.sse2.pause")
            builder.call(pause, [])
        return context.get_dummy_value()

    return types.void(), write


if hasattr(os, "sched_yield"):
    _let_others = types.ExternalFunction("sched_yield", types.int32())
else:  # Windows

    @jit(EXACT, inline=True)
    def _let_others() -> int:
        return 0


@intrinsic  # type: ignore[untyped-decorator]
def _write(typingctx, address, value):  # type: ignore[no-untyped-def]
    """Put a number at an address, behind all that was written before."""

    def write(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        builder.store_atomic(args[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), write


@jit(EXACT)
def _watch(address: int, seen: int, looks: int) -> bool:
    """Whether the number at the address became another one while it was looked at."""
    for i in range(looks):
        if _read(address) != seen:
            return True
        _pause()
        if i % 64 == 63:
            _let_others()
    return False


_PLAIN = bool(numba.core.config.DISABLE_JIT)  # no compiler: nothing is shared out
ALONE = np.zeros(1, np.int64)  # the team of a compiled function that is run in one part


@jit(EXACT)
def begin(team, part):  # type: ignore[no-untyped-def]
    """The first thing that a part of a `shared` task does: part 0 calls the others."""
    if team.size > 1 and part == 0:
        _write(team.ctypes.data, team[0] + 1)


@jit(EXACT)
def end(team, part):  # type: ignore[no-untyped-def]
    """The last thing that a part does: part 0 waits for the others, they for the next task, a
    moment.
    """
    if team.size > 1:
        now = _read(team.ctypes.data)
        if part > 0:
            _write(team.ctypes.data + part * 8 * _LINE, now)
            _watch(team.ctypes.data, now, _WATCH)
        else:
            for i in range(_LINE, team.size, _LINE):
                _watch(team.ctypes.data + 8 * i, now - 1, _WATCH)


class _Team:
    """The threads besides the caller's own.

    A number each says what is going on: the count of tasks, which the helpers watch, and a helper's
    count of those it has done, which the caller watches. A helper that stops watching says so in a
    dictionary and waits for a lock; who takes the entry out has to release it. The caller watches
    on: in a `shared` task the helper's count changes in compiled code, which cannot release a lock.
    """

    def __init__(self, helpers: int) -> None:
        self.helpers = helpers
        self.busy = False  # read and written under the lock of the module
        self.counts = np.zeros((1 + helpers) * _LINE, np.int64)
        self._address = self.counts.ctypes.data
        self._task: Callable[[int], object] | None = None
        self._parts = 0
        self._asleep: dict[int, bool] = {}
        self._go = [threading.Semaphore(0) for _ in range(helpers)]
        self._failed: list[BaseException] = []
        for i in range(helpers):
            threading.Thread(target=self._work, args=(i,), daemon=True, name="tinyseq").start()

    def _seen(self, place: int, value: int) -> bool:
        """Whether the count at this place is no longer the value, after a while of watching."""
        return bool(_watch(self._address + 8 * place, value, _WATCH))

    def _work(self, i: int) -> None:
        mine, task = (1 + i) * _LINE, 0
        while True:
            if not self._seen(0, task):
                self._asleep[i] = True
                if self.counts[0] == task or self._asleep.pop(i, None) is None:
                    self._go[i].acquire()
                if self.counts[0] == task:  # woken ahead of a task that is about to begin
                    continue
            task = int(self.counts[0])
            if self._task is None:  # the team was replaced by one of another size
                return
            try:
                self._share(i + 1)
            except BaseException as error:
                self._failed.append(error)
            self.counts[mine] = task

    def _share(self, first: int) -> None:
        assert self._task is not None
        for part in range(first, self._parts, self.helpers + 1):
            self._task(part)

    def _wake(self) -> None:
        for i in range(self.helpers):
            if self._asleep.pop(i, None):
                self._go[i].release()

    def _joined(self) -> list[BaseException]:
        """What failed of the last task that began, once every helper has done its parts."""
        now = int(self.counts[0])
        for i in range(self.helpers):
            mine = (1 + i) * _LINE
            while self.counts[mine] != now:
                self._wake()  # it may have gone to sleep just before a `shared` task began
                self._seen(mine, now - 1)
        failed, self._failed = self._failed, []
        return failed

    def run(self, task: Callable[[int], object], parts: int, begins: bool = False) -> None:
        """Any number of parts, the first here, the others in turn on the helpers and here.

        ``begins``: the task begins and ends by itself, in no more parts than there are threads.
        """
        self._task, self._parts = task, parts
        if not begins:
            self.counts[0] += 1
        self._wake()
        try:
            self._share(0)
        finally:
            failed = self._joined()
        if failed:
            raise failed[0]

    def dismiss(self) -> None:
        self._task = None
        self.counts[0] += 1
        self._wake()


_threads = 0  # 0: not asked for yet
_team: _Team | None = None
#: Of the two above, and of whether the team is busy.
_lock = new_lock(sys.modules[__name__], "_lock")


def _wanted() -> int:
    """How many threads, the lock being held."""
    global _threads
    if _threads == 0:
        given = os.environ.get("TINYSEQ_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS", "")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        _threads = int(given) if given.isdigit() and int(given) > 0 else cores or 1
    return _threads


def get_num_threads() -> int:
    """How many threads a kernel may use: by default as many as the process has cores."""
    with _lock:
        return _wanted()


@checked
def set_num_threads(n: Size) -> None:
    """Use n threads in kernels from now on, the caller's own included. 1: none but the caller's.

    Any thread may call it at any time. A kernel that runs ends with the threads it began with.

    Raises `ValueError` for less than 1.
    """
    global _threads, _team
    n = int(n)
    with _lock:
        if n != _threads and _team is not None:
            if not _team.busy:  # else it is dismissed when its task has ended
                _team.dismiss()
            _team = None
        _threads = n


def parallel(task: Callable[[int], object], parts: int) -> None:
    """task(0), task(1), … task(parts − 1), at the same time where the team is free.

    Each part has to release the GIL (a compiled kernel does), or nothing is gained. An error in a
    part is raised here, after all parts have ended.
    """
    shared(lambda part, _: task(part), parts, begins=False)


def shared(task: Callable[[int, np.ndarray], object], parts: int, *, begins: bool = True) -> None:
    """As `parallel`, for a task whose one compiled call begins with ``begin(team, part)`` and ends
    with ``end(team, part)``: task(part, team). With ``team=ALONE`` both do nothing.
    """
    team = _taken() if parts > 1 else None
    if team is None:
        for part in range(parts):
            task(part, ALONE)
        return
    begins = begins and parts <= team.helpers + 1  # or it became smaller since the parts were cut
    given = team.counts if begins else ALONE
    try:
        team.run(lambda part: task(part, given), parts, begins)
    finally:
        _give_back(team)


def _taken() -> _Team | None:
    """The team, if there is one and nobody else has it: to be given back."""
    global _team
    with _lock:
        if _team is None and _wanted() > 1 and not _PLAIN:
            _team = _Team(_wanted() - 1)
        if _team is None or _team.busy:
            return None
        _team.busy = True
        return _team


def _give_back(team: _Team) -> None:
    with _lock:
        team.busy = False
        if team is not _team:  # it was replaced meanwhile
            team.dismiss()


def cuts(n: int, parts: int) -> list[slice]:
    """0 … n − 1 in so many slices, as even as can be."""
    return [slice(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


def in_slices(n: int, task: Callable[[slice], object]) -> None:
    """task(slice) for `cuts` of 0 … n − 1, one a thread."""
    slices = cuts(n, get_num_threads())
    parallel(lambda i: task(slices[i]), len(slices))


def over(
    kernel: Callable[..., object],
    arrays: Sequence[np.ndarray],
    many: int,
    options: tuple[float, ...] = (),
) -> None:
    """kernel(*arrays, *options) for the elements of contiguous arrays of one size, in a row: in
    slices, one a thread, from ``many`` elements on.
    """
    flat = [a.reshape(-1) for a in arrays]  # views, as the arrays are contiguous
    n = flat[0].size
    if n < many:
        kernel(*flat, *options)
    else:
        in_slices(n, lambda part: kernel(*[a[part] for a in flat], *options))


def _after_fork() -> None:
    """The threads of the parent are not there in the child."""
    global _team
    _team = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
