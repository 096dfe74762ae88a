"""How a notebook shows a tensor: what it is, a small table of its values, and its gradient."""

from __future__ import annotations

import numpy as np

from tinyseq.errors import describe
from tinyseq.tensor import Tensor

ENDS = 4  # rows and columns that are shown at each end of a long axis
GAP = "…"


def html(tensor: Tensor) -> str:
    """The tensor as HTML, whatever state it is in: nothing is recorded and nothing raised."""
    shown = _line(_headline(tensor)) + _values(tensor._data)
    if tensor.grad is not None:
        gradient = tensor.grad._data
        with np.errstate(all="ignore"):
            norm = np.sqrt(np.sum(np.square(gradient, dtype=np.float64)))
        shown += _line(f"gradient, norm {norm:.4g}") + _values(gradient)
    return f"<div>{shown}</div>"


def _headline(tensor: Tensor) -> str:
    """``w_x: Parameter (3, 16), float32, requires a gradient``."""
    name = f"{tensor.name}: " if tensor.name else ""
    kind = "Tensor" if tensor.node is not None else type(tensor).__name__
    how = ", requires a gradient" if tensor.requires_grad else ""
    if tensor.node is not None:
        how = ", freed" if tensor.node.op is None else f", made by {tensor.node.op.name}"
        how += "".join(f" in {'/'.join(scope)}" for scope in [tensor.node.scope] if scope)
    return f"{name}{kind} {describe(tensor.shape)}, {tensor.dtype}{how}"


def _values(array: np.ndarray) -> str:
    """A table of the last two axes; of the others the first entry, and a line says so."""
    if array.size == 0:
        return ""
    before = (0,) * (array.ndim - 2)
    table = np.atleast_2d(array[before])
    rows, columns = (_ends(n) for n in table.shape)
    numbers = _texts(table[np.ix_(rows, columns)])
    cells = [[str(i), *line] for i, line in zip(rows, numbers, strict=True)]
    cells.insert(0, ["", *map(str, columns)])
    if len(rows) < len(table):
        cells.insert(ENDS + 1, [GAP] * len(cells[0]))
    if len(columns) < table.shape[1]:
        for line in cells:
            line.insert(ENDS + 1, GAP)
    if array.ndim == 0:  # a number on its own has no index, a vector one
        cells = [cells[1][1:]]
    elif array.ndim == 1:
        cells = [line[1:] for line in cells]
    tags = [["th" if array.ndim and i == 0 else "td" for _ in line] for i, line in enumerate(cells)]
    if array.ndim >= 2:
        for line in tags:
            line[0] = "th"
    which = _line(f"[{', '.join('0' for _ in before)}, :, :]") if before else ""
    return which + _table(cells, tags)


def table(cells: list[list[str]]) -> str:
    """Texts as an HTML table under a row of headings."""
    from html import escape

    tags = [["th" if i == 0 else "td" for _ in line] for i, line in enumerate(cells)]
    return _table([[escape(text) for text in line] for line in cells], tags)


def _table(cells: list[list[str]], tags: list[list[str]]) -> str:
    body = "".join(
        f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for tag, text in zip(*both, strict=True))}</tr>"
        for both in zip(tags, cells, strict=True)
    )
    return f"<table>{body}</table>"


def _ends(n: int) -> list[int]:
    """Which of n rows are shown: all, or so many that one more could not be left out."""
    if n <= 2 * ENDS + 1:
        return list(range(n))
    return [*range(ENDS), *range(n - ENDS, n)]


def _texts(numbers: np.ndarray) -> list[list[str]]:
    """NumPy's way of writing them, with as many digits for each."""
    text = np.array2string(
        numbers.ravel(), precision=4, floatmode="maxprec_equal", separator=" ",
        max_line_width=10**9, threshold=numbers.size,
    )  # fmt: skip
    texts = iter(text.strip("[]").split())
    return [[next(texts) for _ in line] for line in numbers]


def _line(text: str) -> str:
    from html import escape

    return f"<div>{escape(text)}</div>"
