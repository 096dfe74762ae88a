"""Pictures of what was recorded: any graph, and recurrent layers unrolled over time.

>>> from tinyseq import nn, viz
>>> viz.draw_unrolled(nn.LSTM(3, 4, num_layers=2), steps=3).save("lstm.svg")  # doctest: +SKIP
"""

from .page import page
from .recording import draw
from .render import Picture, RenderError
from .unrolled import draw_unrolled

__all__ = ["Picture", "RenderError", "draw", "draw_unrolled", "page"]
