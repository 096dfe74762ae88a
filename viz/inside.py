"""What is inside of a box of the unrolled picture: its ops, labelled and laid out bottom to top."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from tinyseq.tensor import Tensor

from . import style
from .indices import picks
from .labels import short, width
from .layered import RISE, Layering, layered
from .moves import moves
from .paths import Point
from .timeline import Source, recorded

Key = Hashable  # an op's position, ("in", source) or ("out", position)


@dataclass
class Op:
    """One op of an opened box, as it is shown."""

    sign: str
    name: str  # what the code calls the value
    look: style.Look
    size: tuple[float, float]
    gate: str = ""  # that it belongs to


@dataclass(eq=False)
class Inside:
    """The ops of a box by position; ports on its lower and upper edge; where all of it lies."""

    ops: dict[int, Op]
    layering: Layering
    size: dict[Key, tuple[float, float]]
    passed: dict[int, int]  # ops that arrows pass by, each with one that takes what it makes
    x: float = 0.0  # of the lower left corner in the picture
    y: float = 0.0

    def at(self, key: Key) -> Point:
        x, y = self.layering.at[key]
        return self.x + x, self.y + y

    def through(self, tail: Key, head: Key) -> list[Point]:
        """From the upper edge of one op to the lower edge of another, past what lies between."""
        (x, y), (_, h) = self.at(tail), self.size[tail]
        start = (x, y + h / 2)
        bends = [(self.x + a, self.y + b) for a, b in self.layering.bends[tail, head]]
        arriving = sorted((e for e in self.layering.bends if e[1] == head), key=self._comes_from)
        (x, y), (w, h) = self.at(head), self.size[head]
        spread = min(9.0, w / (len(arriving) + 1))
        x += (arriving.index((tail, head)) - (len(arriving) - 1) / 2) * spread
        return [start, *bends, (x, y - h / 2)]

    def _comes_from(self, edge: tuple[Key, Key]) -> float:
        return (self.layering.bends[edge] or [self.layering.at[edge[0]]])[-1][0]

    def sideways(self, key: int, side: int, edge: float, lane: int, out: bool) -> list[Point]:
        """From an op to the box's edge on a side (−1 left, 1 right), or for ``out=False`` the way
        in, reversed: straight where nothing is in the way, else through the gap above (below) the
        op's layer.
        """
        (x, y), (w, h) = self.at(key), self.size[key]
        layer = next(row for row in self.layering.layers if key in row)
        if layer[-1 if side > 0 else 0] == key:
            return [(x + side * w / 2, y), (edge, y)]
        half = max(self.size[k][1] for k in layer) / 2
        gap = half + RISE / 2 + 4 * (lane - 0.5)
        off = 0.0 if out else side * min(w / 4, 7)
        sign = 1 if out else -1
        return [(x + off, y + sign * h / 2), (x + off, y + sign * gap), (edge, y + sign * gap)]


def lay_out(
    ops: dict[int, Op],
    edges: list[tuple[Key, Key]],
    left: set[int],
    right: set[int],
    passed: dict[int, int],
) -> Inside:
    """Place the ops; edges from ``("in", …)`` start at the lower edge, edges to ``("out", …)`` end
    at the upper.
    """
    ends = [key for edge in edges for key in edge if isinstance(key, tuple)]
    ports_in = dict.fromkeys(key for key in ends if key[0] == "in")
    ports_out = dict.fromkeys(key for key in ends if key[0] == "out")
    size: dict[Key, tuple[float, float]] = dict.fromkeys(ports_in, (0.0, 0.0))
    size |= {i: op.size for i, op in ops.items()}
    size |= dict.fromkeys(ports_out, (0.0, 0.0))
    layering = layered(size, edges, left, right, ports_in, ports_out)
    return Inside(ops, layering, size, passed)


def shown(tensor: Tensor, sign: str, name: str, uses_parameter: bool) -> Op:
    """How an op looks: products in boxes, functions rounded, arithmetic in circles, slices bare."""
    node = recorded(tensor)
    assert node.op is not None
    if name and picks(node) and moves(node):  # what the part is matters, not where it lies
        sign, name = name, ""
    name = short(name, 16)
    w = max(width(sign, 12), width(name, 9)) + 10
    h = 33.0 if name else 21.0
    if uses_parameter:
        look = style.WITH_PARAMETER
    elif node.op.name in style.MOVE_OPS:
        look = style.MOVE
    elif node.op.name in style.ARITHMETIC_OPS:
        look = style.ARITHMETIC
    else:
        look = style.FUNCTION
    return Op(sign, name, look, (max(w, 26.0), h))


def port(source: Source) -> Key:
    return ("in", *source.key)
