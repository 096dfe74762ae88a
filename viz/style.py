"""How the pictures look. Colours by Okabe and Ito (2008), told apart by colour-blind readers; on
black-and-white paper shapes, labels and line widths say the same.
"""

from __future__ import annotations

from .dot import Value

Look = dict[str, Value]

FONT = "Helvetica"
MATH = "Times-Italic"

INK = "#222222"
FAINT = "#6F6F6F"
LINE = "#444444"

CELL_FILL, CELL_LINE = "#DCEAF6", "#0072B2"
FRAME_FILL = "#F3F8FC"
BAND_FILL = "#E8E8E8"
FUNCTION_FILL = "#CFE3F3"
PARAMETER_FILL, PARAMETER_LINE = "#FCEBC8", "#B27C00"
RAIL = "#C9A765"

STATES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # h, c, and what else a cell may carry
# Little to much: pale to dark, so that grey paper tells it, too.
FLOWS = {
    "gradient": ("#F3DDCF", "#D55E00", "#521F00"),
    "value": ("#D6E4F0", "#0072B2", "#062B48"),
}
UNKNOWN = "#BBBBBB"


def between(colours: tuple[str, ...], part: float) -> str:
    """The colour at a part, from 0 to 1, of the way along a few colours."""
    place = part * (len(colours) - 1)
    i = min(int(place), len(colours) - 2)
    ends = [[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in colours[i : i + 2]]
    mixed = (round(a + (b - a) * (place - i)) for a, b in zip(*ends, strict=True))
    return "#" + "".join(f"{c:02X}" for c in mixed)


# How an opened cell's ops are told apart.
WITH_PARAMETER: Look = {"fillcolor": PARAMETER_FILL, "color": PARAMETER_LINE}
FUNCTION: Look = {"fillcolor": FUNCTION_FILL, "color": CELL_LINE, "style": "rounded,filled"}
ARITHMETIC: Look = {"fillcolor": "white", "style": "rounded,filled"}
MOVE: Look = {"fillcolor": "white", "color": "#AAAAAA", "style": "rounded,filled,dashed"}

CELL: Look = {
    "style": "rounded,filled", "fillcolor": CELL_FILL, "color": CELL_LINE, "penwidth": 1.4,
}  # fmt: skip
SLIM: Look = {"fillcolor": CELL_FILL, "color": CELL_FILL, "penwidth": 0.5}
FRAME: Look = {
    "style": "rounded,filled", "fillcolor": FRAME_FILL, "color": CELL_LINE, "penwidth": 1.2,
    "fontsize": 10, "fontcolor": CELL_LINE,
}  # fmt: skip
BAND: Look = {"fillcolor": BAND_FILL}
GAP: Look = {"style": "rounded,dashed", "color": "#8A8A8A", "fontcolor": "#555555"}
CUT: Look = {"style": "dashed"}
LOSS: Look = {"style": "rounded,filled", "fillcolor": "#F6E3EE", "color": "#A8527F"}
SCOPE: Look = {"style": "rounded", "color": "#9BB8D0", "penwidth": 0.8}

GATES = ("#CDEBE0", "#FADCC9", "#F1DDEA", "#D8E6F5", "#F4EFC4")  # what belongs to one of them

ARITHMETIC_OPS = ("add", "sub", "mul", "div", "neg", "matmul")
MOVE_OPS = (
    "getitem", "lookup", "scatter_add", "reshape", "transpose", "concat", "broadcast_to", "sum_to",
    "astype",
)  # fmt: skip
