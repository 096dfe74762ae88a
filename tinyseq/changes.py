"""Changes in place between the forward and the backward pass: noticed, so no gradient is wrong.

Every change that is noticed gets the next number of one ``clock``. A node notes the clock when it
is recorded; what its rule reads must not have changed since. Changes belong to the memory of an
array: NumPy's own ``base`` says which arrays are views of it.

The library says when it writes (`note`). Nobody can tell when user code writes into an array that
it got hold of (`hand_out`), so the contents are compared, by checksum: when a backward pass needs
them, and when nobody holds the array any more. A node that is recorded in between keeps checksums
of what its rule reads, so that reading a long sequence step by step stays linear.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
import zlib

import numpy as np

from tinyseq.locks import new_lock

clock = 0  # changes noticed so far
out: dict[int, _Memory] = {}  # what user code may write into, by the id of the array that owns it
_memories: dict[int, _Memory] = {}  # all that was handed out or written to, likewise
_ticking = new_lock(sys.modules[__name__], "_ticking", threading.RLock)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B")) if array.size else 0


def _owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory this one is a view of, or itself."""
    owner, base = array, array.base
    while base is not None:
        if isinstance(base, np.ndarray):
            owner = base
        base = getattr(base, "base", None)
    return owner


class _Memory:
    """The memory of an array: when it changed last, and what is in it while user code holds it."""

    __slots__ = ("checksum", "handed_out", "key", "owner", "time")

    def __init__(self, owner: np.ndarray) -> None:
        self.key = id(owner)
        self.owner = weakref.ref(owner, functools.partial(_memories.pop, self.key))
        self.time = 0
        self.checksum = 0
        self.handed_out: list[weakref.ref[np.ndarray]] = []

    def look(self) -> None:
        owner = self.owner()
        if self.handed_out and owner is not None and _checksum(owner) != self.checksum:
            self.checksum = _checksum(owner)
            self.changed()

    def changed(self) -> None:
        global clock
        with _ticking:
            clock += 1
            self.time = clock

    def take_back(self, reference: weakref.ref[np.ndarray]) -> None:
        self.look()
        self.handed_out.remove(reference)
        if not self.handed_out:
            out.pop(self.key, None)


def _memory(array: np.ndarray) -> _Memory:
    owner = _owner(array)
    found = _memories.get(id(owner))
    if found is None:
        found = _memories[id(owner)] = _Memory(owner)
    return found


def note(*arrays: np.ndarray) -> None:
    """The library has written into these arrays, or puts one in the place of another."""
    global clock
    with _ticking:
        clock += 1
        for array in arrays:
            _memory(array).time = clock


def forget(array: np.ndarray) -> None:
    """Nobody holds this memory any more: what it is used for from now on is new."""
    _memories.pop(id(array), None)


def hand_out(array: np.ndarray) -> np.ndarray:
    """The same memory, for user code, which may write into it as long as it holds this array or a
    view of it.
    """
    memory = _memory(array)
    if not memory.handed_out:
        owner = memory.owner()
        assert owner is not None
        memory.checksum = _checksum(owner)
        out[memory.key] = memory
    # Over a memoryview: views of an array over another array would not keep that one alive, but
    # the array at the bottom.
    shown = np.asarray(memoryview(array))  # type: ignore[arg-type]
    memory.handed_out.append(weakref.ref(shown, memory.take_back))
    return shown


def fingerprint(array: np.ndarray) -> int | None:
    """What the array holds now, if user code holds its memory."""
    return _checksum(array) if id(_owner(array)) in out else None


def changed(array: np.ndarray, since: int, fingerprint: int | None = None) -> bool:
    """Whether the array was seen to change since then, or since its fingerprint was taken."""
    if fingerprint is not None:
        return _checksum(array) != fingerprint
    memory = _memories.get(id(_owner(array)))
    if memory is None:
        return False
    memory.look()
    return memory.time > since
