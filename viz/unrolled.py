"""`draw_unrolled`: a recurrence over time, one column a step, layers bottom to top, each parameter
once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from tinyseq import nn
from tinyseq.arguments import Size, checked, one_of
from tinyseq.tensor import Tensor

from .checks import as_tensors
from .columns import ENDS, Columns, choose, fewer, filled
from .drawing import draw_layout
from .flow import KINDS
from .labels import counted
from .layout import Layout
from .recall import Params, recall
from .render import Picture
from .running import Run, run

MAX_BOXES = 300  # more than this nobody reads
LEVELS = ("layer", "cell", "op")


@checked
def draw_unrolled(
    what: nn.Module | Callable[..., Any] | Tensor | Sequence[Tensor],
    steps: Size = 3,
    *,
    level: Annotated[str, one_of(*LEVELS)] = "cell",
    columns: tuple[int, int] | Sequence[int] | None = None,
    x: Any = None,
    state: Any = None,
    params: Params | None = None,
    names: Mapping[str, str] | None = None,
    flow: Annotated[str, one_of(*KINDS)] | None = None,
    scale: tuple[float, float] | None = None,
) -> Picture:
    """A recurrence unrolled: time runs left to right, layers bottom to top.

    ``what``: a recurrent layer, stack, model or cell, which is run on made-up input of ``steps``
    steps and its recording drawn, so a cell of your own gets the same picture as those of the
    library; or a tensor that was computed already, a loss say, or several: then its own recording
    is drawn, down to the loss of each step and their sum. Steps are numbered as in the lecture
    notes: x⟨1⟩ is ``x[0]``, h⟨0⟩ the initial state. B in a shape is the batch. Nothing of the
    layer, of the recording or of the library's random state changes. A decoder that counts its
    steps from 1 lies above its encoder, in the same columns; one that goes on counting, in the same
    loop, stands behind it, as in the notes, and is told y⟨0⟩, y⟨1⟩ … A layer that is called again
    with the state it gave goes on in the columns behind, after a seam; where that state was
    detached, it goes on dashed, and the gradient stops. Calls that no state links are rows of their
    own.

    ``level``: ``"layer"``, one box a layer and direction, with the state going round; ``"cell"``,
    one box a step; ``"op"``, every recorded operation, grouped by step and gate (what the cell's
    code calls a value is written below it), but for slices that part one product for several gates:
    arrows pass them by. ``columns``: of more than six steps the first three and the last two are
    shown (two and one of ops) and "… 46 steps …" between; ``(first, last)`` says how many instead,
    any other sequence which: ``range(20, 25)``. A picture of more boxes than can be read (300) is
    made smaller still: then a warning and the picture's ``note`` say so.

    ``x``: an input to run on instead of a made-up one (then it says how many steps), for modules
    that take something else, such as tokens; ``state``: the state to begin with, for cells without
    an ``initial_state``. ``params``: for a tensor, the module whose parameters' names to show, or a
    dictionary of modules and tensors. ``names``: what to call x, y, h, c, a parameter or a value
    of the cell's code instead, such as ``{"h": "a", "w_h": "W_aa", "forget": "Γ_f"}`` for the
    notes' a⟨t⟩, W_aa and Γ_f; of several parameters of one name each by its path, ``head.weight``.
    States of layers one above the other are written with their layer, h[1]⟨t⟩, h[2]⟨t⟩, those of
    two directions with an arrow, →h⟨t⟩ and ←h⟨t⟩.

    ``flow``: colour and width of each arrow show the norm of what flowed, ``"gradient"``, back:
    ‖∂L/∂v‖ of the loss L (a tensor of one element) with respect to the value v the arrow carries,
    by all its ways; or ``"value"``, forward: ‖v‖. Both stand in the tooltips and in the picture's
    ``data``. The scale is logarithmic, from the smallest norm to the largest (eight powers of ten
    at most), or from and to those of ``scale``, so that two pictures can be compared; dotted is 0,
    grey what no gradient was recorded for. Steps left out get a slim box each (some of them where
    they are more than 60); at level ``"layer"`` an arrow shows the mean of the norms over the
    steps. No ``.grad`` is touched, and the recording is kept, whole.

    **The SVG**: every box and arrow has an ``id`` and a ``class``, the same each time. Boxes, by
    row (from 0 below) and step (as written, from 1): ``r0t3`` a cell, ``r0t3_7`` its 8th operation
    (counted from 0, inputs first), ``r1`` a layer that works on all steps at once, ``r0gap1`` the
    steps left out before the second column, ``p0`` a parameter, ``x3`` and ``y0t3`` a value
    (``y0``: of no single step; ``in1t3``: of a second sequence that is read), ``r0s1start`` and
    ``r0s1end`` the second part of the state before the first step and after the last, ``loss3`` and
    ``loss`` the loss of a step and all of it. An arrow is ``tail--head`` (``r0t1--r0t2``), and
    where there are several between two boxes the others end in ``--2``, ``--3``. Classes: ``cell``
    (also ``slim``), ``op`` (and its gate, such as ``forget``), ``band``, ``gap``, ``parameter``,
    ``value``, ``loss``, ``note``, ``seam``, ``legend`` of boxes, ``state s0`` (``s1``, …; also
    ``cut``), ``up``, ``inside``, ``use`` (of a parameter) of arrows. Tooltips say what is what.

    Raises `ValueError` for steps, columns, a level, names, a flow or a scale that cannot be, for a
    layer whose input size is unknown (pass ``x``), and for the flow of what was not computed;
    `ShapeError` or `DtypeError` for an ``x`` that does not go into it; `GraphError` where no step
    was recorded, the recording was freed, or it is one that cannot be drawn truthfully so.
    """
    if scale is not None and not 0 < scale[0] < scale[1] < math.inf:
        raise ValueError(
            f"scale={scale!r} must be the smallest and the largest norm to tell apart: (1e-6, 1)."
        )

    def chosen(steps: int, shortest: int | None = None) -> Columns:
        found = choose(steps, columns, level, shortest)
        return filled(found) if flow and level == "cell" else found

    tensors = as_tensors(what)
    if tensors is not None:
        ran = recall(tensors, params, chosen, flow, scale, flow is not None and level == "layer")
    elif flow:
        raise ValueError(
            "flow shows what flowed in a computation, and a layer alone has computed nothing. "
            "Run it, and draw the loss: draw_unrolled(loss, flow='gradient')."
        )
    else:
        ran = run(what, int(steps), x, state, chosen)
    fitting, note = _fit(ran, level)
    if flow and fitting == "layer" != level:  # then it is told of every step
        assert tensors is not None  # a layer alone has no flow
        ran = recall(
            tensors, params, lambda n, least: choose(n, None, fitting, least), flow, scale, True
        )
    layout = Layout(ran, fitting, names or {})
    layout.check_names()
    drawn = draw_layout(layout, note)
    if note:
        warnings.warn(note, stacklevel=3)
    return Picture(drawn.text(), note, drawn.data)


def _fit(ran: Run, level: str) -> tuple[str, str]:
    """Make a picture of too many boxes smaller; returns the level that fits, and what was done."""

    def count(level: str) -> int:
        boxes = [
            box
            for row in ran.line.rows
            for box in row.boxes.values()
            if box.step not in ran.columns.slim
        ]
        return sum(len(box.ops) for box in boxes) if level == "op" else len(boxes)

    asked, whole = count(level), ran.columns
    done: list[str] = []
    for smaller, ends in (
        (level, ENDS[level]),
        (level, (1, 1)),
        ("cell", (3, 2)),
        ("layer", (1, 0)),
    ):
        if count(level) <= MAX_BOXES:
            break
        if LEVELS.index(smaller) < LEVELS.index(level):
            level = smaller
            done.append(f"level={level!r}")
        ran.columns = fewer(whole, ends)
        ran.line.show(ran.columns.shown)
    if ran.columns != whole:
        done.append(f"{counted(len(ran.columns.shown), 'column')} of {len(whole.shown)}")
    if not done:
        return level, ""
    return level, (
        f"{asked} boxes are more than can be read ({MAX_BOXES}). Drawn instead: {', '.join(done)}."
    )
