"""The legend below a picture of what flowed: the scale of its arrows."""

from __future__ import annotations

from .flow import Flow
from .labels import width
from .pen import Pen

SWATCH = 30.0


def draw_legend(pen: Pen, flow: Flow, rolled: bool) -> None:
    """The scale, smallest first, and what it measures; where ``rolled``, a mean over the steps."""
    title = {
        "gradient": "‖∂L/∂v‖, the gradient that flowed back along the arrow of v",
        "value": "‖v‖, the value that flowed along the arrow",
    }[flow.kind]
    if rolled:
        title += ", mean over the steps"
    known = {"gradient": "none was recorded", "value": "not a number"}[flow.kind]
    for sort, means in (("dotted", "0"), ("grey", known)):
        if sort in flow.drawn:
            title += f"; {sort}: {means}"
    x, y = 0.0, -22.0
    for n, (text, look) in enumerate(flow.scale()):
        pen.node(
            f"legend{n}", "legend", x + SWATCH / 2, y, SWATCH, float(look["penwidth"]), label="",
            fillcolor=look["color"], color=look["color"], penwidth=0,
        )  # fmt: skip
        pen.print(f"legend{n}text", text, x + SWATCH / 2, y - 11, 8)
        x += SWATCH + 2
    pen.print("legend", title, x + 10 + width(title, 9) / 2, y - 4, 9)
