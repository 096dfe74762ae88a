"""The seam between eager code and the kernels, which are imported when they are first worth it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

#: `None` until `wake` was called, then activations, gemm, losses and updates.
kernels: Any = None


def wake() -> None:
    """From here on eager code uses the compiled kernels."""
    global kernels
    if kernels is None:
        from tinyseq.kernels import losses, updates

        kernels = SimpleNamespace(losses=losses, updates=updates)
