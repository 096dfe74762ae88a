"""`jit`: a function compiled by numba, without the GIL, and kept on disk from run to run.

The folder is ``$TINYSEQ_CACHE_DIR``, by default ``tinyseq`` in the user's cache folder. What is
kept there is found by the sources of all kernels, the versions of Python, NumPy, numba and
tinyseq, and the processor: whatever changes, it is compiled anew, beside what is there. Files
appear whole or not at all, so processes may race. A folder that cannot be written to costs the
compile time at every start, and one warning.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps

F = TypeVar("F", bound=Callable[..., Any])

#: Sums may be taken in another order (else they are not vectorised), products and sums contracted,
#: divisions by the same number be products with its reciprocal;
#: NaN, ±∞ and −0 keep their meaning.
SUMS = frozenset({"reassoc", "contract", "arcp"})
#: Every operation as it is written, but for contraction: for functions that count on rounding.
EXACT = frozenset({"contract"})

_SEAL = hashlib.sha256().digest_size  # bytes at the beginning of a file


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


class _Kept(NullCache):  # type: ignore[misc]
    """Machine code on disk, as numba asks for it: a file for each function and signature.

    A file begins with the checksum of the rest. One that does not match is compiled anew and
    replaced: damaged machine code would be executed, and crash at every start.
    """

    def __init__(self, function: Callable[..., Any], path: Path) -> None:
        code = function.__code__
        # A file is found by the source alone: what is closed over are functions of kernels/
        closed = "".join(f"-{cell.cell_contents.__name__}" for cell in function.__closure__ or ())
        place = f"{function.__module__}.{function.__qualname__}-{code.co_firstlineno}"
        self._name = place.replace("<locals>.", "") + closed
        self._folder = path
        self.written = False

    @property
    def cache_path(self) -> str:
        return str(self._folder)

    def _path(self, signature: Any, codegen: Any) -> Path:
        key = repr((self._name, signature, codegen.magic_tuple()))
        return self._folder / f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.code"

    def load_overload(self, signature: Any, target: Any) -> Any:
        target.refresh()
        with contextlib.suppress(Exception):  # whatever is wrong with it: it is compiled anew
            contents = self._path(signature, target.codegen()).read_bytes()
            if contents[:_SEAL] == hashlib.sha256(contents[_SEAL:]).digest():
                found = CompileResult._rebuild(target, *pickle.loads(contents[_SEAL:]))
                self.written = True
                return found
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        assert not result.lifted
        assert not result.library.has_dynamic_globals
        code = dumps(result._reduce())
        self.written = False
        with contextlib.suppress(OSError):  # a full disk, say
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as f:
                    f.write(hashlib.sha256(code).digest() + code)
                os.replace(temporary, self._path(signature, result.codegen))
                self.written = True
            finally:
                Path(temporary).unlink(missing_ok=True)


def is_kept(compiled: Any) -> bool:
    """Whether the machine code of a function was loaded from disk, or written there."""
    return getattr(compiled._cache, "written", False)


if hasattr(os, "register_at_fork"):  # no child begins in the middle of another thread's compiling
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def jit(fastmath: Iterable[str] = SUMS, inline: bool = False) -> Callable[[F], F]:
    """Compile the decorated function when it is first called, or load what an earlier run kept.

    ``fastmath``: `SUMS` or `EXACT`. ``inline``: part of whatever calls it, never called or kept by
    itself. Under ``NUMBA_DISABLE_JIT=1`` the function stays plain Python.
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
        if not inline and not config.DISABLE_JIT and (path := folder()) is not None:
            compiled._cache = _Kept(function, path)
        return compiled

    return decorate
