"""`page`: a recurrence as one HTML file that is looked into with mouse or keyboard, and needs no
network.
"""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyseq import nn
from tinyseq.arguments import Size, checked
from tinyseq.graph import identity
from tinyseq.saving import write_atomically
from tinyseq.tensor import Tensor

from .checks import as_tensors
from .columns import Columns
from .dot import visible
from .drawing import draw_layout
from .labels import counted
from .layout import Layout
from .marks import marked_svg, slot_key
from .measures import Measured, measure
from .recall import Params, recall
from .render import NO_RENDERER, Picture, RenderError, find_renderer
from .running import Run, run
from .timeline import Row

MOST_STEPS = 100  # that the slider goes over
ALL_UP_TO = 8  # steps side by side; of more, five around the slider's and the ends


@checked
def page(
    what: nn.Module | Callable[..., Any] | Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    steps: Size = 20,
    *,
    x: Any = None,
    state: Any = None,
    params: Params | None = None,
    names: Mapping[str, str] | None = None,
    columns: range | None = None,
    title: str | None = None,
) -> Path:
    """Write one HTML file about a recurrence: its graph, to be opened level by level, with the size
    of every value and gradient. The file needs nothing else, and no network. Returns its path.

    ``what``: a loss or another tensor that was computed already, or several; or a layer, model or
    cell, which is run for the page on random numbers (on ``x``, ``state`` if they are given). As in
    `draw_unrolled`, which says more about it and about ``params`` and ``names``. ``title``: the
    page's heading.

    In the page a click on a layer opens its steps, a click on a step its operations; Escape goes
    back. The slider (or ← and →) chooses the step that is looked at. A gradient's path is shown
    from a loss to an input: from L or, where L is a sum over steps, one L⟨t⟩ (of an output y,
    the sum of its elements) to one x⟨t⟩, a parameter or an initial state. Width and strength of an
    arrow say how large the gradient is with respect to what the arrow carries, in the Euclidean
    norm over all elements, on a logarithmic scale; pointing at a thing tells its numbers.

    A page tells of 100 steps at most: of those that ``columns`` names, ``range(0, 100)`` being the
    first hundred, or of the last ones, with a warning; it says which. Gradients come through all
    steps. The recording is kept, and nothing of a module or of the library's random state changes.

    Raises `GraphError` when nothing was recorded, the recording was freed by a backward pass (write
    the page before, or keep it: ``backward(retain_graph=True)``) or a tensor changed in place since
    (as an optimiser does); `ValueError` for steps, names or columns that cannot be, or a layer
    whose input size is unknown; `ShapeError` or `DtypeError` for an ``x`` that does not go into it;
    `RenderError` without a Graphviz renderer; `OSError` when the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path: a page is HTML, let the name {path.name!r} end in .html.")
    if find_renderer() is None:
        raise RenderError(NO_RENDERER)
    names = names or {}
    ran = _read(what, int(steps), x, state, params, columns)
    rows = list(ran.line.rows)
    layout = _layout(ran, rows, ran.columns, "cell", names)
    layout.check_names()
    measured = measure(layout, lambda t: ran.called.get(identity(t), (t, ""))[1])
    views = _views(ran.columns, ran.line.calls.shortest)
    pictures = [_template(view, ran, rows, names, measured) for view in views]
    data = _facts(layout, measured)
    if title is None:
        made_of = ", ".join(dict.fromkeys(row["title"] for row in data["rows"]))
        title = f"{made_of} over {counted(ran.columns.steps, 'step')}"
    write_atomically(path, _fill(visible(title), _note(data), data, pictures).encode())
    return path


def _read(
    what: Any, steps: int, x: Any, state: Any, params: Params | None, columns: range | None
) -> Run:
    """The recording with every step that the slider goes over."""

    def told(steps: int, shortest: int | None = None) -> Columns:
        first, last = max(0, steps - MOST_STEPS), steps
        if columns is not None:
            first, last = _checked(columns, steps)
        elif first:
            warnings.warn(
                f"a page tells of {MOST_STEPS} steps: of {counted(steps, 'step')}, the last. "
                f"Choose others with columns=range(0, {MOST_STEPS}).",
                stacklevel=6,
            )
        shown = tuple(range(first, last))
        gaps = (first, *[0] * (len(shown) - 1), steps - last)
        return Columns(shown, {t: t + 1 for t in shown}, gaps, steps)

    tensors = as_tensors(what)
    if tensors is not None:
        return recall(tensors, params, told, every=True)  # gradients come through all steps
    if x is not None or not hasattr(what, "input_size"):
        return run(what, steps, x, state, told)
    weights = list(what.parameters()) if isinstance(what, nn.Module) else []
    sizes = {what.input_size, steps, *(n for p in weights for n in p.shape)}
    batch = next(n for n in itertools.count(5) if n not in sizes)  # an axis that can be told apart
    first = batch if getattr(what, "batch_first", False) else steps
    shape = (first, steps * batch // first, what.input_size)
    x = np.random.default_rng(0).standard_normal(shape)
    x = Tensor(x, weights[0].dtype if weights else np.float32)
    return replace(run(what, steps, x, state, told), batch=batch)


def _checked(columns: range, steps: int) -> tuple[int, int]:
    """The first of the steps in a row that were chosen, and the one behind the last."""
    in_a_row = isinstance(columns, range) and columns.step == 1
    if (
        not in_a_row
        or not 0 < len(columns) <= MOST_STEPS
        or not 0 <= columns.start < columns.stop <= steps
    ):
        raise ValueError(
            f"columns={columns!r} must be at most {MOST_STEPS} steps in a row, a range within the "
            f"{counted(steps, 'step')} that there are: columns=range(0, {min(steps, MOST_STEPS)})."
        )
    return columns.start, columns.stop


def _note(data: Mapping[str, Any]) -> str:
    """Which steps the page tells of, where these are not all."""
    first, last, steps = data["first"], data["last"], data["steps"]
    if last - first + 1 == steps:
        return ""
    return (
        f"This page tells of steps {first} to {last} of {counted(steps, 'step')}; gradients come "
        f"through all of them. viz.page(…, columns=range(0, {min(steps, MOST_STEPS)})) tells of "
        f"the first ones, and of any {MOST_STEPS} in a row."
    )


def _layout(
    ran: Run, rows: Sequence[Row], columns: Columns, level: str, names: Mapping[str, str]
) -> Layout:
    """One picture of several of the same recording."""
    line = replace(ran.line, rows=list(rows))
    line.show(columns.shown)
    return Layout(replace(ran, line=line, columns=columns), level, names)


# -- the pictures ----------------------------------------------------------------------------------


class View(NamedTuple):
    """One picture of the page, and the slider's steps (as written) that it serves."""

    level: str
    columns: Columns
    first: int
    last: int
    middle: int | None = None  # the column that goes with the slider, and those beside it


def _views(every: Columns, shortest: int) -> list[View]:
    """The pictures of a page. Steps in the middle look alike: one picture serves them all, and the
    numbers of its columns are written anew in the page.
    """
    first, last, steps = every.shown[0] + 1, every.shown[-1] + 1, every.steps

    def only(*numbers: int) -> Columns:
        ends = [0, *numbers, steps + 1]
        gaps = tuple(b - a - 1 for a, b in itertools.pairwise(ends))
        return Columns(tuple(n - 1 for n in numbers), {n - 1: n for n in numbers}, gaps, steps)

    views = [View("layer", only(max(first, min(first + 1, last, shortest))), first, last)]
    if last - first < ALL_UP_TO:
        views.append(View("cell", every, first, last))
    else:
        beginning, end = range(first, first + 5), range(last - 4, last + 1)
        m = first + 4
        views.append(View("cell", only(*beginning, last), first, first + 3))
        views.append(View("cell", only(first, m - 1, m, m + 1, last), m, last - 4, m))
        views.append(View("cell", only(first, *end), last - 3, last))
    if first == 1:  # an initial state goes into it
        views.append(View("op", only(1), 1, 1))
    low, high = max(first, 2), min(last, steps - 1)
    if low <= high:
        views.append(View("op", only(low), low, high, low))
    if last == steps > 1:
        views.append(View("op", only(steps), steps, steps))
    return views


def _template(
    view: View, ran: Run, rows: Sequence[Row], names: Mapping[str, str], measured: Measured
) -> str:
    layout = _layout(ran, rows, view.columns, view.level, names)
    drawn = draw_layout(layout)
    svg = marked_svg(Picture(drawn.text()), layout, drawn.columns, measured.series)
    middle = "" if view.middle is None else f' data-middle="{view.middle}"'
    return (
        f'<template data-level="{view.level}" data-first="{view.first}" data-last="{view.last}"'
        f"{middle}>{svg}</template>"
    )


# -- the numbers -----------------------------------------------------------------------------------


def _facts(layout: Layout, measured: Measured) -> dict[str, Any]:
    """What the page's script has to know besides the pictures."""
    rows = {row: i for row, i in layout.row_number.items() if row in layout.line.rows}
    numbered = {i: row for row, i in rows.items()}
    titles: dict[Row, str] = {}  # the last view need not show every row: a decoder may be shorter
    for box, placed in layout.places.items():
        titles.setdefault(box.row, placed.title)
    number = layout.columns.number
    return {
        "first": number[layout.columns.shown[0]],
        "last": number[layout.columns.shown[-1]],
        "steps": layout.columns.steps,
        "loss": layout.loss is not None,
        "apart": measured.apart,
        "ends": [{"name": end.name, "step": end.step} for end in measured.ends],
        "rows": [
            {
                "title": visible(titles[row]),
                "way": row.way if row.recurrent else 0,
                "key": slot_key(i, 0, numbered) if row.slots else f"r{i}",
            }
            for row, i in rows.items()
        ],
        "series": {
            key: {
                "name": one.name,
                "shape": one.shape(layout.ran.batch),
                "whole": one.whole,
                "value": measured.values[key],
                "gradient": [found.get(key) for found in measured.gradients],
            }
            for key, one in measured.series.items()
        },
    }


# -- the file --------------------------------------------------------------------------------------


def _fill(title: str, note: str, data: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The template with everything in its place. No text from outside is looked at as a template,
    nor ends a script.
    """
    files = resources.files(__package__)
    parts = {
        "title": html.escape(title),
        "note": f'<p id="note">{html.escape(note)}</p>' if note else "",
        "style": files.joinpath("page.css").read_text("utf-8"),
        "script": files.joinpath("page.js").read_text("utf-8"),
        "pictures": "\n".join(pictures),
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    template = files.joinpath("page.html").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
