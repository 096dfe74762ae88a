"""The pen: boxes, arrows and words as DOT statements, each with an id, a class and its look.

It knows how things look, and is told where they lie: every place stands in the text
(``layout=nop2`` takes it as it is), so the picture is the same with every renderer.
"""

from __future__ import annotations

from collections import Counter

from . import style
from .dot import Dot, Value
from .flow import Carried, Flow
from .labels import width
from .paths import Path, at


class Pen:
    """A picture on its way to DOT text. With a ``flow`` its arrows show what they carry.

    ``data``: what flowed, by the id of the arrow; ``columns``: of an arrow that belongs to one step
    its number, as written, where its ends do not say it.
    """

    def __init__(self, flow: Flow | None = None) -> None:
        self.flow = flow
        self.data: dict[str, dict[str, float]] = {}
        self.columns: dict[str, int] = {}
        self.arrows: list[tuple[str, str]] = []  # that carry a value and were not cut
        self._arrows: Counter[str] = Counter()
        self.dot = Dot(layout="nop2", outputorder="edgesfirst", bgcolor="white", pad=0.1)
        self.dot.default("graph", fontname=style.FONT, fontcolor=style.INK)
        self.dot.default(
            "node", shape="box", style="filled", fillcolor="white", color=style.LINE, margin=0,
            fixedsize="true", fontname=style.FONT, fontcolor=style.INK, fontsize=12,
        )  # fmt: skip
        self.dot.default(
            "edge", color=style.LINE, arrowsize=0.6,
            fontname=style.MATH, fontcolor=style.INK, fontsize=14,
        )  # fmt: skip

    def text(self) -> str:
        """What was drawn, as DOT."""
        return self.dot.text()

    def node(
        self, name: str, kind: str, x: float, y: float, w: float, h: float, **look: Value
    ) -> None:
        """A box of the class ``kind`` with its middle at (x, y)."""
        self.dot.node(
            name, pos=at(x, y), width=w / 72, height=h / 72,
            **{"id": name, "class": kind}, **look,
        )  # fmt: skip

    def edge(
        self,
        tail: str,
        head: str,
        kind: str,
        path: Path,
        tip: str = "",
        of: Carried | None = None,
        slim: bool = False,
        look: style.Look | None = None,
        column: int | None = None,
    ) -> str:
        """An arrow that carries the value ``of``; ``slim`` ones have no head. Returns its id."""
        look = dict(look or {})
        arrow = 0 if slim else 4 if kind == "use" else 6
        if slim:
            look["arrowhead"] = "none"
        name, short = f"{tail}--{head}", 0.0
        self._arrows[name] += 1
        name += f"--{self._arrows[name]}" if self._arrows[name] > 1 else ""
        if column is not None:
            self.columns[name] = column
        if not {"use", "inside", "cut"} & set(kind.split()):
            self.arrows.append((tail, head))
        if self.flow is not None and of is not None:
            look |= self.flow.look(of)
            short = 0.0 if slim else float(look["penwidth"])  # a wide arrow's tip reaches further
            self.data[name] = self.flow.told(of)
            tip = ", ".join([tip, *self.flow.words(of)])
        told: style.Look = {"tooltip": tip} if tip else {}
        self.dot.edge(
            tail, head, pos=path.pos(arrow, short), **{"id": name, "class": kind}, **told, **look
        )
        return name

    def print(self, name: str, text: str, x: float, y: float, size: float) -> None:
        """Small print."""
        if text:
            self.node(
                name, "note", x, y, width(text, size), size, label=text,
                shape="plaintext", style="", fontsize=size, fontcolor=style.FAINT,
            )  # fmt: skip

    def write_name(self, name: str, text: str, x: float, y: float, colour: str = style.INK) -> None:
        """The name of a value."""
        self.node(
            name, "value", x, y, width(text, 16), 18, label=text, shape="plaintext", style="",
            fontname=style.MATH, fontsize=16, fontcolor=colour,
        )  # fmt: skip

    def write_value(self, name: str, text: str, shape: str, x: float, y: float) -> None:
        """x or y: a name, and its shape in small print."""
        if not text:  # of a slim column: there is only the arrow's end
            self.node(name, "value", x, y, 1, 1, label="", style="invis")
            return
        self.write_name(name, text, x, y + 5)
        self.print(f"{name}shape", shape, x, y - 10, 8)
