"""Pictures of what was recorded: any graph, and recurrent layers unrolled over time; and of what a
network does: its state, its gradients, its training.

A recording is read as rows and columns (`reading`, of a layer in `running`, of a loss in `recall`),
named (`contents`), placed (`layout`) and drawn (`drawing`, with `pen`). The rest is a file each:
`draw` in `graphs`, `record` in `values`, the page in `page`, charts in `gradients`, `curves`,
`heatmaps`, text in `colour` and `units`. `gallery` draws the figures of the lecture notes.

>>> from tinyseq import nn, viz
>>> viz.draw_unrolled(nn.LSTM(3, 4, num_layers=2), steps=3).save("lstm.svg")  # doctest: +SKIP
"""

from .colour import ColouredText, colour_text
from .curves import training
from .gradients import gradient_flow
from .graphs import draw
from .heatmaps import heatmap
from .page import page
from .render import Picture, RenderError
from .units import PROPERTIES, Unit, Units, find_units
from .unrolled import draw_unrolled
from .values import Record, record

__all__ = [
    "PROPERTIES",
    "ColouredText",
    "Picture",
    "Record",
    "RenderError",
    "Unit",
    "Units",
    "colour_text",
    "draw",
    "draw_unrolled",
    "find_units",
    "gradient_flow",
    "heatmap",
    "page",
    "record",
    "training",
]
