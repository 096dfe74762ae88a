"""Where everything in an unrolled picture lies: steps in columns, layers in rows."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from . import style
from .contents import Contents
from .gates import find_gates
from .indices import numbers, picks
from .inside import Inside, Op, lay_out, port, shown
from .labels import constant_text, counted, sign, width
from .moves import moves
from .paths import Point
from .running import Run
from .timeline import Box, Row, Slot, Source, recorded

# Distances, in points.
CHIP, CHIP_GAP = 18.0, 4.0  # a parameter's height, and what is left between two
RAIL = 17.0  # below a row: the line that hands its parameters to every step
RAIL_GAP, RAILS = 7.0, 4  # between two of them, and how many there are at most
BAND = 28.0  # the height of a layer that works on all steps at once
VALUE = 34.0  # the height of x or y with its shape
INPUT_GAP = 14.0  # between two sequences that the lowest row reads
AIR = 24.0  # between rows
GAP = 78.0  # how wide the box is that stands for the steps left out
SLIM, SLIM_GAP = 4.0, 8.0  # a step without words, and what is left between two
LOOP = 34.0  # how far the state of a rolled layer swings out


@dataclass(eq=False)
class Place:
    """Where a box lies, and what it shows when it is opened."""

    box: Box
    name: str
    title: str
    w: float
    h: float
    x: float = 0.0
    y: float = 0.0
    inside: Inside | None = None
    slim: bool = False

    @property
    def left(self) -> float:
        return self.x - self.w / 2

    @property
    def right(self) -> float:
        return self.x + self.w / 2

    @property
    def bottom(self) -> float:
        return self.y - self.h / 2

    @property
    def top(self) -> float:
        return self.y + self.h / 2


class Layout(Contents):
    """The contents of a picture, measured and placed; y goes up."""

    def __init__(self, ran: Run, level: str, names: Mapping[str, str]) -> None:
        super().__init__(ran, level, names)
        self._lanes: dict[tuple[int, int], int] = {}  # for lines past other rows
        self.places = {box: self._measure(box) for box in self.line.boxes()}
        self._place_columns()
        self._place_rows()

    # -- how large, and where --------------------------------------------------------------------

    def _measure(self, box: Box) -> Place:
        name = f"r{self.row_number[box.row]}"
        title = self.title_of(box)
        if box.step is None:
            return Place(box, name, title, 0.0, BAND)
        name += f"t{self.columns.number[box.step]}"
        if box.step in self.columns.slim:
            return Place(box, name, "", SLIM, 48.0, slim=True)
        if not self.opened:
            more = 20.0 * max(0, len(box.row.slots) - 2)
            return Place(box, name, title, max(width(title, 12) + 26, 84.0), 48.0 + more)
        inside = self._open(box)
        wide = max(inside.layering.width + 28, width(title, 10) + 24)
        return Place(box, name, title, wide, inside.layering.height + 22, inside=inside)

    def _open(self, box: Box) -> Inside:
        """Label the ops of a box and lay them out."""
        slots = {i: slot for slot in box.row.slots if (i := slot.made_in(box)) is not None}
        carried = self.line.carried_into(box)
        gates = self._gates_of(box, slots)
        passed = {i: i for i in range(len(box.ops)) if self._only_parts(box, i, slots, gates)}
        ops: dict[int, Op] = {}
        edges: list[tuple[Any, Any]] = []
        for i, op in enumerate(box.ops):
            folded: dict[int, str] = {}
            uses_parameter = False
            for n, x in enumerate(() if i in passed else numbers(recorded(op))):
                for source in self.line.sources[identity(x)]:
                    while (key := identity(source.tensor)) in box.position:
                        if (part := box.position[key]) not in passed:
                            break
                        passed[part] = i
                        whole = numbers(recorded(source.tensor))[0]
                        (source,) = self.line.sources[identity(whole)]
                    if key in box.position:
                        edges.append((box.position[key], i))
                    elif key in self.chips:
                        folded[n] = self.name_of(source.tensor)
                        uses_parameter = True
                    elif any(source.key == s.key for s, _, _ in carried):
                        pass
                    elif self.line.hidden(source.tensor) is not None:
                        edges.append((port(source), i))
                    elif source.tensor.node is None and not source.is_input:
                        folded[n] = self.starts.get(key) or constant_text(source.tensor, op)
                    else:
                        edges.append((port(source), i))
            edges += [(port(source), i) for source in self.line.lookups.get(identity(op), ())]
            if i in slots:
                name = self.called(slots[i].name, self.number(box), row=box.row)
            else:
                name = self.names.get(self.code_name(op), self.code_name(op))
            if i not in passed:
                text = self.joined(op, box) or sign(op, folded)
                ops[i] = shown(op, text, name, uses_parameter)
            if (box.row, len(box.ops), i) in self.exits:
                edges.append((i, ("out", i)))
        colours = dict(
            zip(dict.fromkeys(gates[i] for i in sorted(gates)), style.GATES, strict=False)
        )
        for i in ops.keys() & gates.keys():
            ops[i].gate = gates[i]
            ops[i].look = ops[i].look | {"fillcolor": colours.get(gates[i], "white")}
        takes = {box.position[identity(op)] for _, op, _ in carried}
        ends = (set(slots), takes) if box.row.reverse else (takes, set(slots))
        return lay_out(ops, edges, *ends, passed)

    def _gates_of(self, box: Box, slots: Mapping[int, Slot]) -> dict[int, str]:
        """The gate of each op that has one."""
        ops = list(enumerate(box.ops))
        between = [
            (box.position[identity(source.tensor)], i)
            for i, op in ops
            for x in numbers(recorded(op))
            for source in self.line.sources[identity(x)]
            if identity(source.tensor) in box.position
        ]
        kinds = {i: node.op.name for i, op in ops if (node := recorded(op)).op}
        names = {i: name for i, op in ops if i not in slots and (name := self.code_name(op))}
        names |= {i: slot.name for i, slot in slots.items()}
        return find_gates(kinds, between, names, slots)

    def _only_parts(
        self, box: Box, i: int, slots: Collection[int], gates: Mapping[int, str]
    ) -> bool:
        """Does an op only take a part of what the box made, or of a parameter, for others in it?
        Then arrows pass it by, unless the part is what a gate, or another value, is called.
        """
        op = box.ops[i]
        name = self.code_name(op)
        parts = picks(recorded(op)) and moves(recorded(op))
        if not parts or i in slots or (name and gates.get(i, name) == name):
            return False
        whole = self.line.sources[identity(numbers(recorded(op))[0])]
        inside = {k for k in map(identity, (s.tensor for s in whole)) if k in box.position}
        inside |= {identity(s.tensor) for s in whole} & self.chips.keys()
        return len(whole) == len(inside) == 1 and (box.row, len(box.ops), i) not in self.handed_on

    def _place_columns(self) -> None:
        """Left to right: parameters, the lines that hand them out, initial states, the steps."""
        recurrent = [row for row in self.line.rows if row.recurrent]
        names = [
            self.called(slot.name, n, row=row)
            for row in recurrent
            for slot in row.slots
            for n in self.columns.number.values()
        ]
        longest = max((width(name, 14) for name in names), default=0.0)
        slots = max(len(row.slots) for row in recurrent)
        self.gutter = longest + (18 + 12.0 * slots if self.opened else 34)  # between two columns
        before = max(self.gutter + max(longest, 30.0), self.gutter + self._start_width() - 4)
        if self.rolled:
            before = 2 * LOOP + 60 if any(row.reverse for row in recurrent) else 104
        self.wide = max(p.w for p in self.places.values() if p.box.step is not None)  # a column
        texts = [self.chip_text(t) for row in self.line.rows for t in self.chips_of(row)]
        self.chip_width = max((width(text, 10) + 12 for text in texts), default=0.0)
        self.trunk = self.chip_width + 10  # from where parameters go to rows
        self.rails = {row: self._rails_of(row) for row in recurrent}
        self._place_steps(self.trunk + 8 + max(map(self._rails_height, recurrent)) + before)

    def _place_rows(self) -> None:
        """Bottom to top, the other sequences that a row reads right below it."""
        lower = [one for one in self.inputs if one.row is self.line.rows[0]] or self.inputs[:1]
        for n, one in enumerate(lower):
            before = lower[n - 1] if n else one
            beside = before.takers.keys().isdisjoint(one.takers)  # of other steps: in one line
            one.bottom = before.bottom - (VALUE + INPUT_GAP) * (n > 0 and not beside)
        y = VALUE
        for row in self.line.rows:
            for one in self.inputs:
                if one.row is row and one not in lower:
                    one.bottom = y + AIR
                    y += AIR + VALUE
            places = [self.places[box] for box in row.boxes.values()]
            chips = self.chips_of(row)
            rails = row.recurrent and chips
            high = max(place.h for place in places)
            stack = len(chips) * (CHIP + CHIP_GAP) + (12 if self.home_of(row) else 0)
            half = max(high, stack) / 2
            y += (2 * RAIL + 2 + self._rails_height(row) if rails else AIR) + half
            for place in places:
                self._put(place, y, high)
            y += half
        self.ceiling = y + AIR  # above the uppermost row

    def _put(self, place: Place, y: float, high: float) -> None:
        """A box in its column and in the row around y, and what is inside of it."""
        place.y, place.h = y, high
        if place.box.step is None:
            place.w, place.x = self.right - self.left, (self.left + self.right) / 2
        else:
            place.w = SLIM if place.slim else self.wide
            place.x = self.column[place.box.step]
        if place.inside is not None:
            layering = place.inside.layering
            place.inside.x = place.x - layering.width / 2
            place.inside.y = place.bottom + (high - 14 - layering.height) / 2

    def _rails_height(self, row: Row) -> float:
        """The room that the lines below a row take which are more than one."""
        return RAIL_GAP * max(self.rails[row].values(), default=0)

    def _rails_of(self, row: Row) -> dict[int, int]:
        """By which line below a row each parameter, by id, comes to its steps: those that other
        steps use come by another one, as where an encoder and a decoder are in one loop.
        """
        found: dict[int, int] = {}
        using: list[set[Box]] = []
        for key, (_, users) in self.chips.items():
            boxes = {box for _, box in users if box.row is row and not self.places[box].slim}
            if boxes and boxes not in using and len(using) < RAILS:
                using.append(boxes)
            if boxes:
                found[key] = using.index(boxes) if boxes in using else RAILS - 1
        return found

    def _start_width(self) -> float:
        """How far an initial state, written with its shape, reaches out from its middle."""
        return max(
            (
                width(self.called(slot.name, 0, row=row), 16) / 2
                + width(self.shape_of(slot.start.tensor), 8)
                for row in self.line.rows
                for slot in row.slots
                if slot.start is not None
            ),
            default=0.0,
        )

    def _place_steps(self, left: float) -> None:
        """Where the steps lie, and the boxes that stand for those between."""
        self.column: dict[int, float] = {}
        self.gap: dict[int, float] = {}  # the middle of the gap before the n-th column
        self.left = x = left
        for n, gap in enumerate(self.columns.gaps):
            if gap and not self.rolled:
                self.gap[n] = x + GAP / 2
                x += GAP + self.gutter
            if n < len(self.columns.shown):
                wide, after = self._room(n)
                self.column[self.columns.shown[n]] = x + wide / 2
                self.right = x + wide
                x += wide + after
        if self.columns.gaps[-1] and not self.rolled:
            self.right = x - self.gutter
        self.slim_runs = [
            ((self.column[run[0]] + self.column[run[-1]]) / 2, self._slim_text(run))
            for slim, shown in itertools.groupby(self.columns.shown, self.columns.slim.__contains__)
            if slim
            for run in [list(shown)]
        ]

    def _room(self, n: int) -> tuple[float, float]:
        """The width of the n-th column, and what is left behind it."""
        shown, slim = self.columns.shown, self.columns.slim
        here, there = (t in slim for t in (shown[n], shown[min(n + 1, len(shown) - 1)]))
        wide = SLIM if here else self.wide
        return wide, SLIM_GAP if here and there else 3 * SLIM_GAP if here or there else self.gutter

    def _slim_text(self, run: list[int]) -> str:
        """What is written under slim columns."""
        before = [t for t in self.columns.shown if t < run[0]]
        after = [t for t in self.columns.shown if t > run[-1]]
        first = before[-1] + 1 if before else 0
        last = after[0] if after else self.columns.steps
        text = counted(last - first, "step")
        if len(run) < last - first:
            text += f", one in {run[1] - run[0]} drawn" if len(run) > 1 else ", one drawn"
        return f"… {text} …"

    # -- the ends of lines -----------------------------------------------------------------------

    def node_of(self, op: Tensor) -> str:
        """The node that stands for an op: itself when its box is opened, else the box."""
        box = self.line.box[identity(op)]
        place, i = self.places[box], box.position[identity(op)]
        inside = place.inside
        return place.name if inside is None else f"{place.name}_{inside.passed.get(i, i)}"

    def middle(self, step: int | None) -> float:
        """Of a column, or of all of them."""
        return (self.left + self.right) / 2 if step is None else self.column[step]

    def leave(self, op: Tensor) -> list[Point] | None:
        """From an op to the upper edge of its box; `None` where any place on the edge will do."""
        box = self.line.box[identity(op)]
        place = self.places[box]
        if box.step is None:
            return None
        if place.inside is None:
            return [(place.x, place.top)]
        i = box.position[identity(op)]
        return [*place.inside.through(i, ("out", i)), (place.inside.at(("out", i))[0], place.top)]

    def arrive(self, op: Tensor, box: Box, source: Source) -> list[Point] | None:
        """From the lower edge of a box to an op in it."""
        place = self.places[box]
        if box.step is None:
            return None
        if place.inside is None:
            return [(place.x, place.bottom)]
        rest = place.inside.through(port(source), box.position[identity(op)])
        return [(rest[0][0], place.bottom), *rest]

    def lane(self, below: int, above: int) -> int:
        """Beside a column, the first lane that no line past some of the same rows has taken."""
        low, high = (below, above) if below < above else (above - 1, below + 1)
        if (below, above) not in self._lanes:
            taken = [n for (a, b), n in self._lanes.items() if min(a, b) < high and low < max(a, b)]
            self._lanes[below, above] = next(n for n in itertools.count() if n not in taken)
        return self._lanes[below, above]
