"""Draws a layout: everything in it, in the order in which it is written as DOT."""

from __future__ import annotations

from .boxes import draw_box
from .labels import width
from .layout import Layout
from .legend import draw_legend
from .loss import draw_loss
from .parameters import draw_parameters
from .pen import Pen
from .states import Starts, draw_states
from .truth import check
from .upwards import draw_between_rows, draw_handed_over, draw_inputs, draw_outputs


def draw_layout(layout: Layout, note: str = "") -> Pen:
    """Draw it all, and the ``note`` below it; returns the pen with what was drawn. Raises
    `GraphError` for what cannot be drawn truthfully.
    """
    pen = Pen(layout.ran.flow)
    draw_parameters(pen, layout)
    for box in layout.line.boxes():
        draw_box(pen, layout, layout.places[box])
    draw_inputs(pen, layout)
    starts: Starts = {}
    for row in layout.line.rows:
        if row.recurrent:
            starts |= draw_states(pen, layout, row)
    draw_between_rows(pen, layout, starts)
    if layout.rolled:
        draw_handed_over(pen, layout)
    if layout.loss is None:
        draw_outputs(pen, layout)
    else:
        draw_loss(pen, layout, layout.loss)
    check(layout, pen.arrows)
    if pen.flow is not None:
        draw_legend(pen, pen.flow, layout.rolled)
    if note:
        pen.print("note", note, width(note, 9) / 2, -14, 9)
    return pen
