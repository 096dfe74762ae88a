"""Arrays of indices and classes: inputs of ops that are written into their signs, not drawn."""

from __future__ import annotations

from typing import Any

from tinyseq import graph
from tinyseq.primitives import ARRAY, filled
from tinyseq.tensor import FLOATS, Tensor


def walked(*tensors: Tensor) -> list[Tensor]:
    """As `graph.topological`, without arrays of indices."""
    order = graph.topological(*tensors)
    indices = {
        id(x)
        for node in (t.node for t in order if t.node is not None)
        if node.op is not None and not node.op.casts
        for x in node.inputs
        if x.dtype not in FLOATS
    }
    return [t for t in order if id(t) not in indices]


def numbers(node: graph.Node) -> tuple[Tensor, ...]:
    """The inputs of an op, without arrays of indices."""
    if node.op is None or node.op.casts:
        return node.inputs
    return tuple(x for x in node.inputs if x.dtype in FLOATS)


def picks(node: graph.Node) -> bool:
    """Does the op pick elements by their places?"""
    return node.op is not None and node.op.name in ("getitem", "lookup")


def index_of(node: graph.Node) -> Any:
    """What it picks them by, as NumPy writes it; `None` for an op that does not."""
    if not picks(node):
        return None
    return filled(node.attrs.get("index", ARRAY), iter([x._data for x in node.inputs[1:]]))
