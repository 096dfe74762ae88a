"""The one door to the compiled kernels: `kernels` is None until `load_kernels` has been called.

Importing numba costs a fifth of a second and compiling costs more, so nothing of it happens before
there is enough work to repay it: whoever sees that (a layer that has run many steps, say) calls
`load_kernels`. From then on eager ops on large float32 arrays go through the kernels::

    if load.worth(x):
        load.kernels.activations.apply_tanh(x, out)

and all else through NumPy: float64 for its exactness, small arrays because a call costs a
microsecond. Without a numba that works `load_kernels` warns once, and everything runs on NumPy; so
it does, without a word, under ``NUMBA_DISABLE_JIT=1``.
"""

from __future__ import annotations

import importlib
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinyseq import errors

_F32 = np.dtype(np.float32)
_LARGE = 4096  # elements

kernels: Any = None  # once loaded: .activations, .gemm, .losses, .updates
_failed = False


def load_kernels() -> None:
    """Import the kernels, if that was not done or did not fail before."""
    global kernels, _failed
    if kernels is not None or _failed:
        return
    found = SimpleNamespace()
    try:
        numba = importlib.import_module("numba")
        for name in ("activations", "gemm", "losses", "updates"):
            setattr(found, name, importlib.import_module(f"tinyseq.kernels.{name}"))
    except Exception as cause:
        broken = isinstance(cause, ImportError | SystemError) or type(cause) is OSError
        if not broken and not errors.of_values(cause):
            raise  # of a signal handler, say: it is tried again
        _failed = True
        warnings.warn(
            f"tinyseq runs on NumPy alone, as numba cannot be imported ({cause}). "
            "Reinstall it for compiled code: pip install --force-reinstall numba",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    if not numba.config.DISABLE_JIT:
        kernels = found


def worth(x: np.ndarray) -> bool:
    """Whether a kernel may be used on this array and is faster than NumPy."""
    return kernels is not None and x.size >= _LARGE and x.dtype is _F32 and x.flags.c_contiguous
