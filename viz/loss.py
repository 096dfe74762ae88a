"""The loss over a picture: of each step, and their sum (``ŷ⟨t⟩ → L⟨t⟩ → L``), where it is one."""

from __future__ import annotations

from . import style
from .ends import Loss
from .labels import number_text, sign, width
from .layout import VALUE, Layout
from .paths import Path
from .pen import Pen
from .upwards import draw_values, given_away, print_dots

CIRCLE, RISE = 34.0, 24.0


def draw_loss(pen: Pen, layout: Layout, loss: Loss) -> None:
    """ŷ above each column, L of each step above that, and their sum at the top."""
    base = layout.ceiling
    feet = draw_values(pen, layout, "ŷ", "y0", loss.sources, base)
    level = base + VALUE + RISE + CIRCLE / 2
    height = level + CIRCLE / 2 + 2 * RISE + CIRCLE / 2 if loss.summed else level
    middle = sum(feet.values()) / len(feet) if feet else layout.middle(None)
    name = layout.names.get("L", "L")
    ops = ", ".join(dict.fromkeys(sign(op, {}) for op in loss.box.ops))
    value = number_text(loss.tensor)
    text = f"{name} = Σ {name}⟨t⟩" if loss.summed else name
    look: style.Look = {"fontname": style.MATH, "fontsize": 15, **style.LOSS}
    pen.node(
        "loss", "loss", middle, height, width(text, 15) + 24, CIRCLE, label=text,
        tooltip=f"{name} = {value}, made with {ops}", **look,
    )  # fmt: skip
    equals = f"= {value}"
    x = middle + (width(text, 15) + 24) / 2 + 8 + width(equals, 8) / 2
    pen.print("lossvalue", equals, x, height, 8)
    made = {step: source for source, step in layout.given(loss.sources)}
    each = layout.each(loss.sources)
    for step, x in feet.items():
        number = layout.columns.number[step] if each and step is not None else None
        foot = "y0" if number is None else f"y0t{number}"
        tail, slim = foot, step in layout.columns.slim
        path = Path((x, base + VALUE - 2))
        if loss.summed and not slim:
            tail = f"loss{number}"
            label = layout.called(name, layout.output_number(number))
            pen.node(
                tail, "loss", x, level, max(width(label, 13) + 12, CIRCLE), CIRCLE, label=label,
                tooltip=f"the part of step {number} in {name}", **look | {"fontsize": 13},
            )  # fmt: skip
            tip = f"{layout.called('ŷ', layout.output_number(number))}"
            of = given_away(layout, made[step], loss.sources)
            pen.edge(foot, tail, "up", path.straight((x, level - CIRCLE / 2)), tip, of)
            path = Path((x, level + CIRCLE / 2))
        rail = height - CIRCLE / 2 - RISE
        path.straight((x, rail), (middle, rail), (middle, height - CIRCLE / 2))
        straight = given_away(layout, made[step], loss.sources) if tail == foot else None
        pen.edge(tail, "loss", "up", path, of=straight, slim=slim)
    if loss.summed:
        print_dots(pen, layout, "loss", level)
