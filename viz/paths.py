"""Lines as Graphviz takes them: cubic Bézier curves, with an arrow's tip named apart (``pos="e,x,y
…"``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Point = tuple[float, float]

_RADIUS = 6.0


class Path:
    """A line that is drawn on and on from ``start``."""

    def __init__(self, start: Point) -> None:
        self._points = [start]

    def straight(self, *corners: Point) -> Path:
        """Along straight lines, around rounded corners; returns the path."""
        line = [self._points[-1]]
        for point in corners:
            if math.dist(point, line[-1]) > 0.05:
                line.append(point)
        for before, corner, after in zip(line, line[1:], line[2:], strict=False):
            into, out = _towards(corner, before), _towards(corner, after)
            self._segment(into)
            self._points += [corner, corner, out]
        if len(line) > 1:
            self._segment(line[-1])
        return self

    def curved(self, points: Sequence[Point]) -> Path:
        """Up or down through the points, each passed vertically; returns the path."""
        for (a, b), (c, d) in itertools.pairwise([self._points[-1], *points]):
            middle = (d - b) / 2
            self._points += [(a, b + middle), (c, d - middle), (c, d)]
        return self

    def pos(self, arrow: float, short: float = 0.0) -> str:
        """The attribute, with the last ``arrow`` points of the way left to the arrow's head, which
        ends so ``short`` of the last point; 0 is for lines without one.
        """
        points = list(self._points)
        if not arrow:
            return " ".join(at(x, y) for x, y in points)
        (a, b), (c, d) = (
            next((p for p in reversed(points[:-1]) if math.dist(p, points[-1]) > 0.05), points[0]),
            points[-1],
        )
        length = math.dist((a, b), (c, d)) or 1.0
        c, d = c - (c - a) / length * short, d - (d - b) / length * short
        points[-1] = (c - (c - a) / length * arrow, d - (d - b) / length * arrow)
        return f"e,{at(c, d)} " + " ".join(at(x, y) for x, y in points)

    def _segment(self, end: Point) -> None:
        (a, b), (c, d) = self._points[-1], end
        self._points += [(a + (c - a) * k / 3, b + (d - b) * k / 3) for k in (1, 2, 3)]


def _towards(corner: Point, other: Point) -> Point:
    """The point where the rounding of a corner starts."""
    length = math.dist(corner, other)
    part = min(_RADIUS, length / 2) / length
    return corner[0] + (other[0] - corner[0]) * part, corner[1] + (other[1] - corner[1]) * part


def at(x: float, y: float) -> str:
    """A point as an attribute; tenths of a point are fine enough."""
    return f"{x:.1f},{y:.1f}"
