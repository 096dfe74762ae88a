"""Which steps of a sequence get a column, and what stands for those between."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALL_UP_TO = 6  # steps are all shown; of longer sequences the ends
ENDS = {"cell": (3, 2), "op": (2, 1), "layer": (1, 0)}


@dataclass(frozen=True)
class Columns:
    """The columns of a picture, left to right.

    ``shown``: steps as the recording counts them; ``number``: what is written at each, from 1;
    ``gaps``: how many steps are left out before each of ``shown``, and after the last.
    """

    shown: tuple[int, ...]
    number: dict[int, int]
    gaps: tuple[int, ...]
    steps: int
    slim: frozenset[int] = frozenset()  # those of ``shown`` that are drawn small, without words


def choose(
    steps: int,
    columns: tuple[int, int] | Sequence[int] | None,
    level: str,
    shortest: int | None = None,
) -> Columns:
    """The columns of a sequence of so many steps: ``(first, last)``, or the steps themselves. Of
    several sequences the ``shortest`` has so many: one column that stands for all is one of those.
    """
    if level == "layer":  # the first step takes what no other takes: an initial state
        shown = [min(1, (shortest or steps) - 1)]
    elif columns is None and steps <= ALL_UP_TO:
        shown = list(range(steps))
    elif columns is None or isinstance(columns, tuple):
        first, last = ENDS[level] if columns is None else _checked_ends(columns)
        # In the room of one step left out there is room for that step.
        every = first + last + 1 >= steps
        shown = list(range(steps) if every else [*range(first), *range(steps - last, steps)])
    else:
        shown = _checked_steps(columns, steps)
    ends = [-1, *shown, steps]
    gaps = tuple(b - a - 1 for a, b in itertools.pairwise(ends))
    return Columns(tuple(shown), {t: t + 1 for t in shown}, gaps, steps)


MOST_SLIM = 60


def filled(columns: Columns) -> Columns:
    """With slim columns in the gaps, so that what flows is seen on its whole way: for each step
    left out, or for some of them at equal distances.
    """
    ends = [-1, *columns.shown, columns.steps]
    left_out = [range(a + 1, b) for a, b in itertools.pairwise(ends)]
    every = math.ceil(sum(map(len, left_out)) / MOST_SLIM) or 1
    slim = frozenset(t for steps in left_out for t in steps[::every])
    shown = tuple(sorted(slim | set(columns.shown)))
    gaps = (0,) * (len(shown) + 1)
    return Columns(shown, {t: t + 1 for t in shown}, gaps, columns.steps, slim)


def fewer(columns: Columns, ends: tuple[int, int]) -> Columns:
    """Of the columns at most the ``(first, last)``."""
    first, last = ends
    n = len(columns.shown)
    keep = [i for i in range(n) if i < first or i >= n - last]
    gaps, out = [], 0
    for i in range(n):
        out += columns.gaps[i]
        if i in keep:
            gaps.append(out)
            out = 0
        else:
            out += 1
    shown = tuple(columns.shown[i] for i in keep)
    number = {t: columns.number[t] for t in shown}
    return Columns(shown, number, (*gaps, out + columns.gaps[n]), columns.steps, columns.slim)


def shortened(columns: Columns) -> tuple[int, Columns]:
    """For a run on made-up input: fewer steps, one for each gap, that make the same picture.

    Returns how many steps to run, and the columns as that run counts them.
    """
    shown: list[int] = []
    at = 0
    for gap in columns.gaps[:-1]:
        at += gap > 0
        shown.append(at)
        at += 1
    number = dict(zip(shown, columns.number.values(), strict=True))
    at += columns.gaps[-1] > 0
    return at, Columns(tuple(shown), number, columns.gaps, columns.steps)


def _checked_ends(columns: tuple[int, ...]) -> tuple[int, int]:
    whole = all(isinstance(n, int | np.integer) and n >= 0 for n in columns)
    if len(columns) != 2 or not whole or sum(columns) < 1:
        raise ValueError(
            f"columns={columns!r} must say how many of the first and of the last steps to show, "
            "such as (3, 2), or which steps: range(20, 25) or [0, 24, 49]."
        )
    return int(columns[0]), int(columns[1])


def _checked_steps(columns: Sequence[int], steps: int) -> list[int]:
    try:
        shown = sorted({range(steps)[t] for t in columns})
    except (TypeError, IndexError) as cause:
        raise ValueError(
            f"columns={columns!r} must be whole numbers, the indices of some of {steps} steps."
        ) from cause
    if not shown:
        raise ValueError("columns is empty. Name at least one step to show.")
    return shown
