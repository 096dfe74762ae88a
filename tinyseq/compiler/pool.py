"""A pool of arrays that are used again: fresh memory costs page faults at every training step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyseq import changes
from tinyseq.kernels.memory import over, raw
from tinyseq.locks import new_lock

_KEPT = 512  # takes that an array may go unused before it is let go


class Pool:
    """Hands out arrays and keeps them; one that only the pool still holds is handed out again.

    Nobody gives an array back: Python counts who holds its bytes, which are the base of the array
    that was handed out and of every view of it. The pool itself holds no array over them.
    """

    def __init__(self) -> None:
        self._arrays: dict[Any, list[list[Any]]] = {}  # [bytes, when they were last handed out]
        self._takes = 0
        self._lock = new_lock(self, "_lock")
        self._alone = 0
        self._alone = self._holders([[np.empty(1), 0]][0])

    @staticmethod
    def _holders(entry: list[Any]) -> int:
        return sys.getrefcount(entry[0])

    def take(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """An array of this shape, with anything in it."""
        key = (tuple(shape), dtype)
        with self._lock:
            self._takes += 1
            if self._takes % _KEPT == 0:
                self._sweep()
            entries = self._arrays.setdefault(key, [])
            for entry in entries:
                if self._holders(entry) == self._alone:
                    entry[1] = self._takes
                    changes.forget(entry[0])
                    return over(entry[0], shape, dtype)
            entry = [raw(shape, dtype), self._takes]
            entries.append(entry)
            return over(entry[0], shape, dtype)

    def _sweep(self) -> None:
        for key, entries in list(self._arrays.items()):
            entries[:] = [
                e for e in entries if self._takes - e[1] < _KEPT or self._holders(e) != self._alone
            ]
            if not entries:
                del self._arrays[key]

    def clear(self) -> None:
        """Let go of all that nobody holds: what used it will not come again."""
        with self._lock:
            self._takes += _KEPT
            self._sweep()

    def nbytes(self) -> int:
        """How much memory the pool holds, in use or not."""
        with self._lock:
            return sum(e[0].nbytes for entries in self._arrays.values() for e in entries)


pool = Pool()
