"""`Plot`: a matplotlib Figure that shows itself in a notebook, keeps its numbers and is saved
whole. matplotlib is imported when the first one is made.
"""

from __future__ import annotations

import functools
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyseq.arguments import checked
from tinyseq.saving import write_atomically

from .render import RenderError, kind_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
DPI = 150
# Okabe and Ito (2008): told apart by colour-blind readers. Dashes say the same without colour.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")


def new_plot(width: float, height: float) -> Any:
    """An empty `Plot` of that many inches. Raises `RenderError` when there is no matplotlib."""
    return _plot_class()(figsize=(width, height), layout="constrained")


@functools.cache
def _plot_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as missing:
        raise RenderError(
            "charts are drawn by matplotlib, which is not installed: pip install 'tinyseq[viz]'."
        ) from missing

    class Plot(Figure):
        """A matplotlib Figure. ``data``: the arrays that it shows, by their labels."""

        data: dict[str, np.ndarray]

        @checked
        def save(self, path: str | os.PathLike[str]) -> Path:
            """Write a .png, .svg or .pdf; the file appears whole or not at all.

            Raises `ValueError` for another suffix, `OSError` where it cannot be written.
            """
            path = Path(path)
            write_atomically(path, self._drawn(kind_of(path, FORMATS)))
            return path

        def _drawn(self, kind: str) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format=kind, dpi=DPI)
            return file.getvalue()

        def _repr_png_(self) -> bytes:
            return self._drawn("png")

    return Plot
