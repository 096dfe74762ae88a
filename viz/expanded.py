"""What ran compiled, shown step by step all the same."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable

import numpy as np

from tinyseq.tensor import Tensor


def count_compiled(order: Iterable[Tensor]) -> int:
    """How many steps the longest sequence has that ran compiled."""
    calls = (t.node.attrs["call"] for t in order if t.node is not None and "call" in t.node.attrs)
    return max((call.steps for call in calls), default=0)


def expanded(tensors: Iterable[Tensor], steps: Collection[int] | None = None) -> list[Tensor]:
    """The same tensors, with the steps of compiled layers in their recording.

    ``steps``: those that are to be looked at, by default all; the others are passed over.
    A program that has not loaded the compiler has no such layers, and need not load it for this.
    """
    compiler = sys.modules.get("tinyseq.compiler.scan")
    if compiler is None:
        return list(tensors)
    with np.errstate(all="ignore"):
        return compiler.expand(*tensors, steps=steps)  # type: ignore[no-any-return]
