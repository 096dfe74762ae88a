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

# How an opened cell's ops are told apart.
WITH_PARAMETER: Look = {"fillcolor": PARAMETER_FILL, "color": PARAMETER_LINE}
FUNCTION: Look = {"fillcolor": FUNCTION_FILL, "color": CELL_LINE, "style": "rounded,filled"}
ARITHMETIC: Look = {"fillcolor": "white", "style": "rounded,filled"}
MOVE: Look = {"fillcolor": "white", "color": "#AAAAAA", "style": "rounded,filled,dashed"}

CELL: Look = {
    "style": "rounded,filled", "fillcolor": CELL_FILL, "color": CELL_LINE, "penwidth": 1.4,
}  # fmt: skip
FRAME: Look = {
    "style": "rounded,filled", "fillcolor": FRAME_FILL, "color": CELL_LINE, "penwidth": 1.2,
    "fontsize": 10, "fontcolor": CELL_LINE,
}  # fmt: skip
BAND: Look = {"fillcolor": BAND_FILL}
GAP: Look = {"style": "rounded,dashed", "color": "#8A8A8A", "fontcolor": "#555555"}
LOSS: Look = {"style": "rounded,filled", "fillcolor": "#F6E3EE", "color": "#A8527F"}
SCOPE: Look = {"style": "rounded", "color": "#9BB8D0", "penwidth": 0.8}

ARITHMETIC_OPS = ("add", "sub", "mul", "div", "neg", "matmul")
MOVE_OPS = (
    "getitem", "scatter_add", "reshape", "transpose", "concat", "broadcast_to", "sum_to", "astype",
)  # fmt: skip
