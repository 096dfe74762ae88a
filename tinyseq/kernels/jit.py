"""`jit`: a function compiled by numba, without the GIL, and kept on disk from run to run.

The folder is ``$TINYSEQ_CACHE_DIR``, by default ``tinyseq`` in the user's cache folder. What is
kept there is found by the sources of all kernels, the versions of Python, NumPy, numba and
tinyseq, and (by numba itself) the processor: whatever changes, it is compiled anew, beside what is
there. Files appear whole or not at all, so processes may race. A folder that cannot be written to
costs the compile time at every start, and one warning.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import config

F = TypeVar("F", bound=Callable[..., Any])

#: Sums may be taken in another order (else they are not vectorised), products and sums contracted,
#: divisions by the same number be products with its reciprocal;
#: NaN, ±∞ and −0 keep their meaning.
SUMS = frozenset({"reassoc", "contract", "arcp"})
#: Every operation as it is written, but for contraction: for functions that count on rounding.
EXACT = frozenset({"contract"})


@functools.cache
def folder() -> Path | None:
    """Where compiled code is kept; `None`, after one warning, when nothing can be written there."""
    given = os.environ.get("TINYSEQ_CACHE_DIR")
    root = Path(given) if given else _user_cache() / "tinyseq"
    path = root / _fingerprint()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as cause:
        warnings.warn(
            f"tinyseq cannot keep compiled code in {root} ({cause.strerror}), so every process "
            "compiles anew. Set TINYSEQ_CACHE_DIR to a folder that can be written to.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _fingerprint() -> str:
    """Of everything that compiled code depends on, besides its own source and the processor."""
    parts = [sys.version, np.__version__, numba.__version__, str(config.DISABLE_JIT)]
    digest = hashlib.sha256("\n".join(parts).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _never_fail(cache: Any) -> None:
    """What a full disk or a power cut left of a file is no reason to fail: it is written anew, if
    that can be done.
    """
    load, save = cache.load_overload, cache.save_overload

    def load_or_none(*args: Any) -> Any:
        try:
            return load(*args)
        except Exception:  # whatever pickle makes of it
            with contextlib.suppress(OSError):
                cache.flush()
            return None

    def save_or_not(*args: Any) -> None:
        with contextlib.suppress(OSError):
            save(*args)

    cache.load_overload, cache.save_overload = load_or_none, save_or_not


def jit(
    fastmath: Iterable[str] = SUMS, inline: bool = False, keep: bool = True
) -> Callable[[F], F]:
    """Compile the decorated function when it is first called, or load what an earlier run kept.

    ``fastmath``: `SUMS` or `EXACT`. ``inline``: part of whatever calls it, never called or kept by
    itself. ``keep=False``: not kept on disk. Under ``NUMBA_DISABLE_JIT=1`` the function stays plain
    Python.
    """

    def decorate(function: F) -> F:
        compiled = numba.njit(
            function,
            nogil=True,
            fastmath=set(fastmath),
            error_model="numpy",
            boundscheck=False,
            forceinline=inline,
        )
        path = None if inline or not keep or config.DISABLE_JIT else folder()
        if path is not None:
            outer = config.CACHE_DIR
            config.CACHE_DIR = str(path)
            try:
                compiled.enable_caching()
                _never_fail(compiled._cache)
            finally:
                config.CACHE_DIR = outer
        return compiled

    return decorate
