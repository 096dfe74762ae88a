"""What a recorded tensor is called in a picture: op symbols, names, shapes, and their width."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from tinyseq.errors import GraphError
from tinyseq.tensor import Tensor

from .indices import index_of, numbers, picks

_SYMBOLS = {
    "add": "+", "sub": "−", "mul": "×", "div": "÷", "pow": "^", "neg": "−", "matmul": "@",
    "sigmoid": "σ", "sqrt": "√", "sum": "Σ", "less": "<", "less_equal": "≤", "greater": ">",
    "greater_equal": "≥", "equal": "=", "not_equal": "≠", "reshape": "reshape",
}  # fmt: skip
_COMMUTATIVE = ("add", "mul")


def check_recorded(tensors: Collection[Tensor]) -> None:
    """Raise `GraphError` when part of the recording was already consumed by a backward pass."""
    if any(t.node is not None and t.node.op is None for t in tensors):
        raise GraphError(
            "the recording was freed by a backward pass, so there is nothing left to draw. "
            "Draw before backward(), or call backward(retain_graph=True)."
        )


def sign(tensor: Tensor, folded: Mapping[int, str]) -> str:
    """What made the tensor, as a reader would write it: ``σ``, ``+``, ``@ w_x``, ``1 −``, ``[:,
    0:4]``.

    ``folded`` gives the text of those inputs (by position) that are written into the sign.
    """
    node = tensor.node
    assert node is not None
    assert node.op is not None
    name = node.op.name
    if picks(node):
        return f"{folded.get(0, '')}[{index_text(index_of(node))}]"
    symbol = _SYMBOLS.get(name, name)
    if not folded:
        return symbol + _attributes(name, node.attrs)
    if len(numbers(node)) == 2 and symbol != name:
        left, right = folded.get(0, ""), folded.get(1, "")
        if name in _COMMUTATIVE and not right:
            left, right = "", left
        return f"{left} {symbol} {right}".strip()
    return f"{symbol}({', '.join(folded.get(i, '·') for i in range(len(numbers(node))))})"


def _attributes(name: str, attrs: Mapping[str, Any]) -> str:
    axis = attrs.get("axis")
    if axis is None or axis == ():
        return ""
    listed = ", ".join(map(str, axis)) if isinstance(axis, tuple) else str(axis)
    return f" axis {listed}"


def index_text(index: Any) -> str:
    """An index as it is written in Python; arrays by their shape."""
    if isinstance(index, tuple):
        return ", ".join(index_text(part) for part in index)
    if isinstance(index, slice):
        ends = ["" if end is None else str(end) for end in (index.start, index.stop)]
        return ":".join(ends) + ("" if index.step is None else f":{index.step}")
    if isinstance(index, np.ndarray) and index.ndim:
        kind = "mask" if index.dtype == bool else "index"
        return f"{kind} {shape_text(index.shape)}"
    return "…" if index is Ellipsis else str(index)


def constant_text(tensor: Tensor, op: Tensor | None = None) -> str:
    """The name of a leaf, else its value when it is a single number, else what ``op`` does with it:
    element by element a mask lets a value through or not, as one of dropout does.
    """
    if tensor.name:
        return short(tensor.name)
    if tensor.size == 1:
        return number_text(tensor)
    node = op.node if op is not None and op.shape == tensor.shape else None
    name = node.op.name if node is not None and node.op is not None else ""
    masks = name == "mul" or (name == "where" and node is not None and node.inputs[0] is tensor)
    return "mask" if masks else "const"


def number_text(tensor: Tensor) -> str:
    value = tensor.item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shape_text(shape: tuple[int, ...], batch: int | None = None) -> str:
    """``(3, 5)``; axes as long as ``batch`` are shown as B."""
    sizes = ["B" if n == batch else str(n) for n in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def step_name(name: str, t: int) -> str:
    """x, 3 → x⟨3⟩, as in the lecture notes. On the line: not every renderer raises text."""
    return f"{name}⟨{t}⟩"


def counted(n: int, thing: str) -> str:
    """``1 step``, ``10 000 steps``."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}".replace(",", " ")


def short(name: str, limit: int = 28) -> str:
    """Long names lose their middle."""
    if len(name) <= limit:
        return name
    return f"{name[: limit // 2 - 1]}…{name[-limit // 2 + 1 :] if limit > 3 else ''}"


def width(text: str, size: float) -> float:
    """About how wide the text is in Helvetica of that size, in points."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" or c in "←→" for c in text)
    slim = sum(c in " ,.:;()[]|iljft1'" for c in text)
    return (0.58 * len(text) + 0.45 * wide - 0.24 * slim) * size
