"""What ran compiled, shown step by step all the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable

import numpy as np

from tinyseq.tensor import Tensor

from .calls import Scope


def expanded(
    tensors: Iterable[Tensor],
    steps: Callable[[Scope], Collection[int]] | None = None,
    new: dict[int, Tensor] | None = None,
) -> list[Tensor]:
    """The same tensors, with the steps of compiled layers in their recording.

    ``steps``: those of a call, by its path, that are to be looked at, by default all; the others
    are passed over. ``new`` is filled with what stands for each value, by its identity before. A
    program that has not loaded the compiler has no such layers, and need not load it for this.
    """
    compiler = sys.modules.get("tinyseq.compiler.scan")
    if compiler is None:
        return list(tensors)
    with np.errstate(all="ignore"):
        return compiler.expand(*tensors, steps=steps, new=new)  # type: ignore[no-any-return]
