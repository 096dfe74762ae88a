"""Placement of a small acyclic graph in layers, bottom to top (Sugiyama, Tagawa and Toda, 1981).

Used for the ops inside a cell, so that every step of an unrolled picture has the same layout, which
no renderer promises. Layers by longest path; few crossings by barycentres; positions by least
squares.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Key = Hashable
Edge = tuple[Key, Key]
Point = tuple[float, float]

GAP = 14.0  # between neighbours in a layer
RISE = 19.0  # between layers


@dataclass(frozen=True)
class Layering:
    """Where things are, in points; (0, 0) is the lower left corner."""

    at: dict[Key, Point]
    layers: list[list[Key]]  # bottom to top, left to right, without the places of passing edges
    bends: dict[Edge, list[Point]]  # where an edge passes through the layers between its ends
    width: float
    height: float


def layered(
    sizes: Mapping[Key, tuple[float, float]],
    edges: Iterable[Edge],
    left: Iterable[Key] = (),
    right: Iterable[Key] = (),
    bottom: Iterable[Key] = (),
    top: Iterable[Key] = (),
) -> Layering:
    """Place nodes of these (width, height)s. ``left``, ``right``: nodes that should lie towards
    that side; ``bottom``, ``top``: nodes that get the first or the last layer to themselves.
    """
    edges = list(dict.fromkeys(edges))
    rank = _ranks(list(sizes), edges, set(bottom), set(top))
    layers: list[list[Key]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for node in sizes:
        layers[rank[node]].append(node)

    links: list[Edge] = []  # between neighbouring layers only
    passing: dict[Edge, list[Key]] = {}
    for tail, head in edges:
        between = [("passing", tail, head, r) for r in range(rank[tail] + 1, rank[head])]
        for place in between:
            layers[place[3]].append(place)
        passing[tail, head] = list(between)
        links += itertools.pairwise([tail, *between, head])

    _order(layers, links, set(left), set(right))
    x = _positions(layers, links, {k: size[0] for k, size in sizes.items()})
    heights = [max((sizes[k][1] for k in layer if k in sizes), default=0.0) for layer in layers]
    y: dict[Key, float] = {}
    base = 0.0
    for layer, height in zip(layers, heights, strict=True):
        for key in layer:
            y[key] = base + height / 2
        base += height + RISE

    start = min((x[k] - sizes.get(k, (0, 0))[0] / 2 for k in x), default=0.0)
    end = max((x[k] + sizes.get(k, (0, 0))[0] / 2 for k in x), default=0.0)
    at = {key: (x[key] - start, y[key]) for key in x}
    return Layering(
        at={key: at[key] for key in sizes},
        layers=[[key for key in layer if key in sizes] for layer in layers],
        bends={edge: [at[place] for place in places] for edge, places in passing.items()},
        width=end - start,
        height=max(base - RISE, 0.0),
    )


def _ranks(
    nodes: Sequence[Key], edges: Sequence[Edge], bottom: set[Key], top: set[Key]
) -> dict[Key, int]:
    """Longest path from below; what nothing below leads to lies right under what needs it."""
    below = {node: [tail for tail, head in edges if head == node] for node in nodes}
    above = {node: [head for tail, head in edges if tail == node] for node in nodes}
    floor = 1 if bottom else 0
    rank: dict[Key, int] = {}
    for node in nodes:  # nodes come inputs first
        rank[node] = 0 if node in bottom else max([floor, *(rank[k] + 1 for k in below[node])])
    for node in reversed(nodes):
        if node not in bottom and not below[node] and above[node]:
            rank[node] = max(floor, min(rank[k] for k in above[node]) - 1)
    last = max((rank[k] for k in nodes if k not in top), default=-1) + 1
    return rank | dict.fromkeys(top, last)


def _order(layers: list[list[Key]], links: Sequence[Edge], left: set[Key], right: set[Key]) -> None:
    """Sort each layer by the mean place of its neighbours, up and down, and keep the best found."""
    below: dict[Key, list[Key]] = {}
    above: dict[Key, list[Key]] = {}
    for tail, head in links:
        below.setdefault(head, []).append(tail)
        above.setdefault(tail, []).append(head)

    def cost(*rows: int) -> float:
        """Crossings above some layers, and how far nodes are from the sides they belong to."""
        total = 0.0
        for r in rows:
            place = {k: i for i, k in enumerate(layers[r])}
            over = {k: i for i, k in enumerate(layers[r + 1])} if r + 1 < len(layers) else {}
            ends = sorted((place[k], over[other]) for k in place for other in above.get(k, ()))
            passed: list[int] = []
            for _, end in ends:  # a line crosses those that began before it and end behind it
                total += len(passed) - bisect.bisect_right(passed, end)
                bisect.insort(passed, end)
            total += 0.3 * sum(place[k] for k in left & place.keys())
            total += 0.3 * sum(len(place) - 1 - place[k] for k in right & place.keys())
        return total

    def sort(layer: list[Key], neighbours: Mapping[Key, list[Key]]) -> None:
        place = {k: i / max(len(row) - 1, 1) for row in layers for i, k in enumerate(row)}

        def mean(key: Key) -> float:
            near = [place[k] for k in neighbours.get(key, ())] or [place[key]]
            near += [-0.5] * (key in left) + [1.5] * (key in right)
            return sum(near) / len(near)

        layer.sort(key=mean)

    every = range(len(layers))
    best, lowest = [list(layer) for layer in layers], cost(*every)
    for sweep in range(12):
        upwards = sweep % 2 == 0
        for layer in layers if upwards else reversed(layers):
            sort(layer, below if upwards else above)
        if (now := cost(*every)) < lowest:
            best, lowest = [list(layer) for layer in layers], now
    layers[:] = best
    for _ in range(12):  # and what exchanging two neighbours still improves
        swapped = False
        for r, layer in enumerate(layers):
            touched = range(max(r - 1, 0), r + 1)
            before = cost(*touched)
            for i in range(len(layer) - 1):
                layer[i], layer[i + 1] = layer[i + 1], layer[i]
                if (now := cost(*touched)) < before - 1e-9:
                    before, swapped = now, True
                else:
                    layer[i], layer[i + 1] = layer[i + 1], layer[i]
        if not swapped:
            break


def _positions(
    layers: Sequence[Sequence[Key]], links: Sequence[Edge], widths: Mapping[Key, float]
) -> dict[Key, float]:
    """Every node as near to the mean of its neighbours as order and width allow."""
    near: dict[Key, list[tuple[Key, float]]] = {}
    for tail, head in links:
        weight = 3.0 if tail not in widths or head not in widths else 1.0  # long edges run straight
        near.setdefault(tail, []).append((head, weight))
        near.setdefault(head, []).append((tail, weight))
    x: dict[Key, float] = {}
    offsets: list[list[float]] = []
    for layer in layers:
        place, row = 0.0, []
        for before, key in zip([None, *layer], layer, strict=False):
            if before is not None:
                place += (widths.get(before, 4) + widths.get(key, 4)) / 2 + GAP
            row.append(place)
        offsets.append(row)
        x |= {key: p - place / 2 for key, p in zip(layer, row, strict=True)}
    for sweep in range(200):  # they settle in far fewer, or nearly so
        for i in range(len(layers)) if sweep % 2 == 0 else reversed(range(len(layers))):
            wanted = []
            for key, offset in zip(layers[i], offsets[i], strict=True):
                pulls = near.get(key) or [(key, 1.0)]
                force = sum(w for _, w in pulls)
                wanted.append((sum(x[k] * w for k, w in pulls) / force - offset, force))
            for key, offset, value in zip(layers[i], offsets[i], _rising(wanted), strict=True):
                x[key] = offset + value
    return x


def _rising(wanted: Sequence[tuple[float, float]]) -> list[float]:
    """The non-decreasing values nearest to these (value, weight): pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in wanted:
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (b, w, n), (a, v, m) = blocks.pop(), blocks.pop()
            blocks.append(((a * v + b * w) / (v + w), v + w, m + n))
    return [value for value, _, n in blocks for _ in range(n)]
