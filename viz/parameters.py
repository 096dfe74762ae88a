"""The parameters at the left of a picture, each once, and the faint lines to all that uses them."""

from __future__ import annotations

from tinyseq import nn
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from . import style
from .labels import short, width
from .layout import CHIP, CHIP_GAP, RAIL, RAIL_GAP, Layout
from .paths import Path
from .pen import Pen
from .timeline import Row


def draw_parameters(pen: Pen, layout: Layout) -> None:
    """Beside each row those that it is the first to use, below the path to them."""
    wide = layout.chip_width
    for i, row in enumerate(layout.line.rows):
        chips = layout.chips_of(row)
        if not chips:
            continue
        place = layout.places[next(iter(row.boxes.values()))]
        top = place.y + len(chips) * (CHIP + CHIP_GAP) / 2
        home = short(layout.home_of(row), 40)
        pen.print(f"home{i}", home, max(wide, width(home, 9)) / 2, top + 6, 9)
        if row.recurrent and layout.columns.steps > 1 and _used_always(layout, row, chips):
            x = (layout.trunk + layout.left) / 2
            pen.print(f"same{i}", "the same at every step", x, place.bottom - RAIL - 7, 8)
        for n, tensor in enumerate(chips):
            y = top - (n + 0.5) * (CHIP + CHIP_GAP)
            pen.node(
                _name(layout, tensor), "parameter", wide / 2, y, wide, CHIP,
                label=layout.chip_text(tensor), fontsize=10,
                fillcolor=style.PARAMETER_FILL if isinstance(tensor, nn.Parameter) else "white",
                color=style.PARAMETER_LINE, tooltip=layout.path_of(tensor),
            )  # fmt: skip
            _hand_out(pen, layout, tensor, y)


def _used_always(layout: Layout, row: Row, chips: list[Tensor]) -> bool:
    """Does every step of the row use all of these? Encoder and decoder may be in one loop."""
    using = [
        {box.step for _, box in layout.chips[identity(tensor)][1] if box.row is row}
        for tensor in chips
    ]
    return all(steps == set(row.boxes) for steps in using)


def _name(layout: Layout, tensor: Tensor) -> str:
    return f"p{list(layout.chips).index(identity(tensor))}"


def _hand_out(pen: Pen, layout: Layout, tensor: Tensor, y: float) -> None:
    """The faint lines from a parameter to everything that uses it."""
    users = layout.chips[identity(tensor)][1]
    rows = list(dict.fromkeys(box.row for _, box in users))
    for head, box in {layout.node_of(op): box for op, box in users}.items():
        place = layout.places[box]
        if place.slim:
            continue
        trunk = layout.trunk + 6 * rows.index(box.row)
        if box.step is None:
            end = [(trunk, place.y), (place.left, place.y)]
        else:
            n = layout.rails[box.row][identity(tensor)]
            trunk += RAIL_GAP * n
            rail, riser = place.bottom - RAIL - RAIL_GAP * n, place.left + 12 + RAIL_GAP * n
            end = [(trunk, rail), (riser, rail), (riser, place.bottom)]
        path = Path((layout.chip_width, y)).straight((trunk, y), *end)
        pen.edge(
            _name(layout, tensor), head, "use", path,
            look={"arrowsize": 0.4, "penwidth": 0.7, "color": style.RAIL},
        )  # fmt: skip
