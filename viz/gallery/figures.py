"""What a figure of the gallery is: a function that draws, its title, and its code as it is run."""

from __future__ import annotations

import ast
import base64
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

PREAMBLE = """\
import numpy as np

import tinyseq as ts
from tinyseq import functional, graph, nn, op, ops, text, viz

notes = {"h": "a", "y": "ŷ"}  # what the notes call the state and the output
weights = {
    "w_x": "W_ax", "w_h": "W_aa", "b": "b_a", "head.weight": "W_ya", "head.bias": "b_y",
}
gates = {
    "h": "a", "y": "a", "update": "Γ_u", "forget": "Γ_f", "output": "Γ_o", "candidate": "c̃",
}
"""


@dataclass(frozen=True)
class Figure:
    """One figure: ``draw()`` gives what a notebook would show, one picture or several."""

    key: str
    section: str
    title: str
    says: str  # a sentence or two
    draw: Callable[[], Any]

    @property
    def code(self) -> str:
        """What `draw` runs: the body of its function, with its result as the last expression."""
        source = textwrap.dedent(inspect.getsource(self.draw))
        (function,) = ast.parse(source).body
        assert isinstance(function, ast.FunctionDef)
        body = function.body[1:]  # without the docstring
        last = body[-1]
        assert isinstance(last, ast.Return)
        lines = source.splitlines()
        lines[last.lineno - 1] = lines[last.lineno - 1].replace("return ", "", 1)
        return textwrap.dedent("\n".join(lines[body[0].lineno - 1 :])) + "\n"

    def files(self) -> dict[str, bytes]:
        """Its pictures as files, by name: ``rnn.svg``, and ``rnn1.svg`` for a second one."""
        drawn = self.draw()
        pictures = drawn if isinstance(drawn, list) else [drawn]
        contents = [contents_of(picture) for picture in pictures]
        return {f"{self.key}{n or ''}.{kind}": c for n, (kind, c) in enumerate(contents)}


FIGURES: dict[str, Figure] = {}
SECTIONS = (
    "The recurrent network",
    "Shapes: what goes in, what comes out",
    "Forwards and backwards through time",
    "Gated cells",
    "Both directions, and depth",
    "Language models",
)


def all_figures() -> list[Figure]:
    """In the order of the page."""
    return sorted(FIGURES.values(), key=lambda figure: SECTIONS.index(figure.section))


def figure(section: str, title: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Make a figure of the gallery of a function; its docstring says what is to be seen."""

    def register(draw: Callable[[], Any]) -> Callable[[], Any]:
        key = draw.__name__
        assert key not in FIGURES
        FIGURES[key] = Figure(key, section, title, inspect.cleandoc(draw.__doc__ or ""), draw)
        return draw

    return register


def contents_of(picture: Any) -> tuple[str, bytes]:
    """A picture of any kind as the suffix and the bytes of a file."""
    if hasattr(picture, "svg"):
        return "svg", picture.svg().encode()
    if hasattr(picture, "_repr_png_"):
        return "png", picture._repr_png_()
    return "html", picture._repr_html_().encode()


def as_html(name: str, content: bytes, title: str) -> str:
    """A file of `Figure.files` as a part of a page."""
    stem, _, kind = name.rpartition(".")
    if kind == "png":
        data = base64.b64encode(content).decode()
        return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
    text = content.decode()
    # A page holds many pictures, and an id is to be there once.
    return text[text.index("<svg") :].replace(' id="', f' id="{stem}-') if kind == "svg" else text
