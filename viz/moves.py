"""Ops that only say where values lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyseq import graph
from tinyseq.nn import Parameter

from .indices import index_of, picks


def moves(node: graph.Node) -> bool:
    """Does the op only say where values lie? An embedding's lookup computes, for all that it is an
    index.
    """
    assert node.op is not None
    if picks(node):
        index = index_of(node)
        parts = index if isinstance(index, tuple) else (index,)
        return not (isinstance(node.inputs[0], Parameter) and any(map(_is_array, parts)))
    if node.op.name == "concat":
        return bool(node.attrs["axis"] == 0)
    return node.op.name in ("reshape", "transpose", "broadcast_to")


def _is_array(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.ndim > 0
