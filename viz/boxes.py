"""The boxes of a picture: a step of a cell, closed or opened, or a layer on all steps at once."""

from __future__ import annotations

from . import style
from .dot import Html, html_text
from .inside import Inside, Op
from .labels import short, width
from .layout import Layout, Place
from .paths import Path, at
from .pen import Pen
from .timeline import Source, recorded


def draw_box(pen: Pen, layout: Layout, place: Place) -> None:
    """A box with its title, and what is inside where it is opened."""
    box = place.box
    depth = len(box.row.scope) + (box.step is not None)
    where = "/".join(recorded(box.ops[0]).scope[:depth])
    tip = f"{where}: {len(box.ops)} op{'s' if len(box.ops) > 1 else ''}"
    if place.inside is not None:
        _draw_opened(pen, layout, place, place.inside, tip)
        return
    kind, look = ("band", style.BAND) if box.step is None else ("cell", style.CELL)
    if place.slim:
        kind, look = "cell slim", style.SLIM
        tip = f"step {layout.number(box)}, {tip}"
    pen.node(
        place.name, kind, place.x, place.y, place.w, place.h,
        label=place.title, tooltip=tip, **look,
    )  # fmt: skip


def _draw_opened(pen: Pen, layout: Layout, place: Place, inside: Inside, tip: str) -> None:
    """A frame, the ops in it and the arrows between them."""
    ops = place.box.ops
    title, title_x = _title(place, inside)
    corners = f"{at(place.left, place.bottom)},{at(place.right, place.top)}"
    with pen.dot.cluster(
        place.name, bb=corners, label=title, lp=at(title_x, place.top - 9), tooltip=tip,
        **{"id": place.name, "class": "cell"}, **style.FRAME,
    ):  # fmt: skip
        for i, what in inside.ops.items():
            op, node = ops[i], recorded(ops[i])
            assert node.op is not None
            (x, y), (w, h) = inside.at(i), what.size
            pen.node(
                layout.node_of(op), f"op {what.gate}".strip(), x, y, w, h, label=_two_lines(what),
                tooltip=f"{node.op.name} {layout.shape_of(op)} in {'/'.join(node.scope)}",
                **what.look,
            )  # fmt: skip
    for tail, head in inside.layering.bends:
        if isinstance(tail, int) and isinstance(head, int):
            start, *rest = inside.through(tail, head)
            made = ops[tail]
            pen.edge(
                layout.node_of(made), layout.node_of(ops[head]), "inside",
                Path(start).curved(rest), layout.shape_of(made), Source(made, None),
            )  # fmt: skip


def _title(place: Place, inside: Inside) -> tuple[str, float]:
    """The title at the upper edge and its middle, beside the arrows that cross the edge: to the
    left of them where it fits, else where there is more room, and shortened.
    """
    out = [inside.at(key)[0] for key in inside.size if isinstance(key, tuple) and key[0] == "out"]
    left = min(out, default=place.right) - place.left
    right = place.right - max(out, default=place.left)
    room = left if width(place.title, 10) + 16 < left else max(left, right)
    title = place.title
    while len(title) > 3 and width(title, 10) + 16 > room:
        title = short(place.title, len(title) - 1)
    half = width(title, 10) / 2 + 8
    return title, place.left + half if room == left else place.right - half


def _two_lines(op: Op) -> Html:
    """The sign of an op, and below it in small print what the code calls the value."""
    label = f'<FONT POINT-SIZE="12">{html_text(op.sign)}</FONT>'
    if op.name:
        label += f'<BR/><FONT POINT-SIZE="9" COLOR="{style.CELL_LINE}">{html_text(op.name)}</FONT>'
    return Html(label)
