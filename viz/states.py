"""The state's path through the picture: sideways from step to step, past steps left out, or around
the one box of a rolled layer.
"""

from __future__ import annotations

from bisect import bisect

from tinyseq import nn
from tinyseq.graph import identity

from . import style
from .labels import counted, width
from .layout import GAP, LOOP, Layout, Place
from .paths import Path, Point
from .pen import Pen
from .rolled import around
from .timeline import Box, Row, Slot, Source

# Initial states, by the box that takes one and its value: the node, and where its line comes in.
Starts = dict[tuple[Box, tuple[int, int | None]], tuple[str, Point]]


def draw_states(pen: Pen, layout: Layout, row: Row) -> Starts:
    """Everything that one row carries from step to step; returns the initial states written."""
    states: _Rolled | _Unrolled = (_Rolled if layout.rolled else _Unrolled)(pen, layout, row)
    states.draw()
    return states.starts


class _States:
    """What both have in common: where a box takes and gives a part of the state."""

    def __init__(self, pen: Pen, layout: Layout, row: Row) -> None:
        self.pen, self.layout, self.row = pen, layout, row
        self.way = row.way
        self.name = f"r{layout.row_number[row]}"
        self.places = [layout.places[box] for box in row.boxes.values()]
        self.starts: Starts = {}

    def look(self, n: int) -> style.Look:
        return {"color": style.STATES[n % len(style.STATES)], "penwidth": 1.5}

    def side(self, slot: Slot) -> float:
        """The height, from a closed box's middle, of a part of the state: h lowest."""
        return (self.row.slots.index(slot) - (len(self.row.slots) - 1) / 2) * 20

    def front(self, place: Place) -> float:
        """The edge of a box that looks to where the row comes from."""
        return place.left if self.way > 0 else place.right

    def back(self, place: Place) -> float:
        return place.right if self.way > 0 else place.left

    def called(self, slot: Slot, number: int) -> str:
        return self.layout.called(slot.name, number, row=self.row)

    def shape(self, slot: Slot) -> str:
        boxes = self.row.boxes.values()
        made = (box.ops[i] for box in boxes if (i := slot.made_in(box)) is not None)
        return next((self.layout.shape_of(op) for op in made), "")


class _Rolled(_States):
    """The state of a rolled layer leaves on one side and comes in again on the same."""

    def draw(self) -> None:
        pen, layout, way = self.pen, self.layout, self.way
        (place,) = self.places
        if len(list(self.row.order())) == 1 and not any(slot.final for slot in self.row.slots):
            return  # one step was computed, and nothing went round
        edge = self.back(place)
        for n, slot in enumerate(self.row.slots):
            rise = 7.0 + 9.0 * n
            out = edge + way * (LOOP * 0.6 + 8 * n)
            path = Path((edge, place.y + rise)).straight(
                (out, place.y + rise), (out, place.y - rise), (edge, place.y - rise)
            )
            name = self.called(slot, 0)
            tip = f"{name} {self.shape(slot)}, {counted(layout.columns.steps, 'step')}"
            of = around(self.row, slot)
            kind, look = f"state s{n}", self.look(n)
            if all(end - begin == 1 for begin, end in self.row.runs) and self._all_cut():
                kind, look = f"{kind} cut", look | style.CUT
            pen.edge(place.name, place.name, kind, path, tip, of, look=look)
        out = edge + way * (LOOP * 0.6 + 8 * len(self.row.slots))
        for n, slot in enumerate(self.row.slots):
            text, shape = self.called(slot, 0), self.shape(slot)
            wide = width(text, 16)
            y = place.y + 9 + self.side(slot)
            colour = style.STATES[n % len(style.STATES)]
            pen.write_name(f"{self.name}s{n}", text, out + way * (wide / 2 + 2), y, colour)
            x = out + way * (wide + 6 + width(shape, 8) / 2)
            pen.print(f"{self.name}s{n}shape", shape, x, y - 1, 8)
        times = "× T" if way > 0 else "× T, from the end"
        seams = layout.line.calls.seams(self.row.lane)
        if seams:
            times += f", {counted(len(seams) + 1, 'call')}"
        if cuts := sum(call.cut for call in seams):
            times += f", the gradient stops {'between' if self._all_cut() else f'{cuts}×'}"
        x = out + way * (width(times, 10) / 2 + 4)
        below = 9 + 10 * (len(self.row.slots) - 1)
        pen.print(f"{self.name}times", times, x, place.y - below - 4, 10)

    def _all_cut(self) -> bool:
        """Is the state detached after each call?"""
        seams = self.layout.line.calls.seams(self.row.lane)
        return len(seams) > 0 and all(call.cut for call in seams)


class _Unrolled(_States):
    """The state goes from stop to stop: the boxes, and a dashed one where steps are left out."""

    def draw(self) -> None:
        self.gaps = self._draw_gaps()
        self.stops = self._find_stops()
        for n, slot in enumerate(self.row.slots):
            self._draw_slot(n, slot)
        self._draw_far()
        self._draw_seams()

    def _draw_gaps(self) -> dict[int, Place]:
        """The boxes that stand for steps left out, by the column after each."""
        found: dict[int, Place] = {}
        layout, first = self.layout, self.places[0]
        for n, steps in layout.left_out(self.row).items():
            if n not in layout.gap:
                continue
            x = layout.gap[n]
            place = found[n] = Place(first.box, f"{self.name}gap{n}", "", GAP, first.h, x, first.y)
            left_out = counted(steps, "step")
            high = min(first.h, 24.0 + 20 * len(self.row.slots))
            self.pen.node(
                place.name, "gap", x, first.y, GAP, high, label=f"… {left_out} …", fontsize=10,
                tooltip=f"{left_out} that are not shown", **style.GAP,
            )  # fmt: skip
        return found

    def _find_stops(self) -> list[Place]:
        """Where the state comes by: boxes and gaps in the order in which the steps ran."""
        shown, stops = self.layout.columns.shown, list[Place]()
        for t in self.row.order():
            if t in self.row.boxes:
                stops.append(self.layout.places[self.row.boxes[t]])
            elif (gap := self.gaps.get(bisect(shown, t))) and gap not in stops[-1:]:
                stops.append(gap)
        return stops

    def _is_gap(self, stop: Place) -> bool:
        return stop.name.startswith(f"{self.name}gap")

    def _draw_slot(self, n: int, slot: Slot) -> None:
        """One part of the state, from its start through boxes and gaps to its end."""
        layout, stops = self.layout, self.stops
        tail, leave, text = self._start(n, slot, stops[0])
        of, slim, cut = slot.start, False, False
        for i, stop in enumerate(stops):
            if self._is_gap(stop):
                y = self._height(stop, slot)
                if leave:
                    self._draw_line(n, tail, stop.name, leave, [(self.front(stop), y)], text, of)
                after = stops[i + 1] if i + 1 < len(stops) else None
                of, text, cut = None, "", self._cut_within(stop)
                if after is not None and not self._is_gap(after):
                    of = self._carried(after, slot)
                    text = self.called(slot, layout.number_before(after.box))
                tail, leave = stop.name, [(self.back(stop), y)]
                continue
            for head, arrive in self._entries(stop, slot, n):
                slim = slim or stop.slim
                cut = cut or self._carried_cut(stop, slot)
                self._draw_line(n, tail, head, leave, arrive, text, of, slim, cut)
                text = ""  # once is enough
            made = slot.made_in(stop.box)
            if made is None:  # it is handed on no further from here
                return
            op = stop.box.ops[made]
            of, slim, cut = Source(op, None), stop.slim, False
            tail, leave = layout.node_of(op), self._exit(stop, made, slot, n)
            text = self.called(slot, layout.number(stop.box))
        if slot.final:
            end = f"{self.name}s{n}end"
            x, y = leave[-1]
            text = self.called(slot, layout.end_number(self.row))
            reach = 14 + width(text, 16) / 2
            self.pen.write_name(end, text, x + self.way * (reach + 14), y)
            path = Path(leave[0]).straight(*leave[1:], (x + self.way * 26, y))
            tip = f"{text} {self.shape(slot)}"
            self.pen.edge(tail, end, f"state s{n}", path, tip, of, look=self.look(n))

    def _carried(self, place: Place, slot: Slot) -> Source | None:
        """What comes into a box as a part of the state."""
        carried = self.layout.line.carried_into(place.box)
        return next((source for source, _, s in carried if s is slot), None)

    def _carried_cut(self, place: Place, slot: Slot) -> bool:
        """Was it detached on its way?"""
        source = self._carried(place, slot)
        return source is not None and identity(source.tensor) in self.layout.line.calls.cuts

    def _cut_within(self, gap: Place) -> bool:
        """Does no gradient come through the steps left out, for the state was detached there?"""
        within = {t for t in self.row.order() if self.gaps.get(self._gap_of(t)) is gap}
        return any(
            call.cut and call.before is not None
            and {call.first + call.offset, call.before.last + call.before.offset} <= within
            for call in self.layout.line.calls.seams(self.row.lane)
        )  # fmt: skip

    def _gap_of(self, step: int) -> int:
        shown = self.layout.columns.shown
        return -1 if step in shown else bisect(shown, step)

    def _draw_seams(self) -> None:
        """Where one call of the layer ends and the next begins."""
        layout, pen = self.layout, self.pen
        for k, call in enumerate(layout.line.calls.seams(self.row.lane), 2):
            before, after = (self.row.boxes.get(t) for t in (call.begin - 1, call.begin))
            here = call.cut and not self.row.reverse  # else the state goes on from somewhere else
            text = f"call {k}" + (", gradient stops here" if here else "")
            name = f"{self.name}seam{k}"
            if before is not None and after is not None:
                left, right = layout.places[before], layout.places[after]
                x, top = (left.right + right.left) / 2, left.top + 5
                pen.node(
                    name, "seam", x, left.y + 3, 0.8, left.h + 6, label="", tooltip=text,
                    style="filled", fillcolor=style.FAINT, color=style.FAINT, penwidth=0,
                )  # fmt: skip
                pen.print(f"{name}name", text, x, top + 6, 8)
            elif (gap := self.gaps.get(self._gap_of(call.begin))) is not None or (
                gap := self.gaps.get(self._gap_of(call.begin - 1))
            ) is not None:
                at = self.called(self.row.slots[0], call.begin) if self.row.slots else ""
                pen.print(f"{name}name", f"{text}: {at}", gap.x, gap.top + 5 + 9 * (k % 2), 8)

    def _height(self, gap: Place, slot: Slot) -> float:
        """Where a gap takes and gives a part of the state."""
        return gap.y + self.side(slot) * (1.0 if not self.layout.opened else 0.9)

    def _draw_line(
        self,
        n: int,
        tail: str,
        head: str,
        leave: list[Point],
        arrive: list[Point],
        text: str,
        of: Source | None,
        slim: bool = False,
        cut: bool = False,
    ) -> None:
        """The n-th part of the state from one box to the next, with its name beside the line;
        dashed where it was detached.
        """
        gutter, opened = self.layout.gutter, self.layout.opened
        edge = arrive[0][0]
        lane = edge - self.way * (gutter - 18 - 12 * n)
        if tail.endswith("start"):  # not back under the name that the line begins at
            lane = self.way * max(self.way * lane, self.way * leave[-1][0])
        level = opened or abs(leave[-1][1] - arrive[0][1]) > 0.05
        corners = [(lane, leave[-1][1]), (lane, arrive[0][1])] if level else []
        if self.way * (edge - leave[-1][0]) < 0:  # to the call after, whose first step lies further
            over = self.places[0].top + 14 + 5 * n
            out, into = leave[-1][0] + self.way * 8, edge - self.way * 8
            corners = [(out, leave[-1][1]), (out, over), (into, over), (into, arrive[0][1])]
            if cut and n == 0:
                middle = (out + into) / 2
                self.pen.print(f"{self.name}cut{head}", "gradient stops here", middle, over + 6, 8)
        path = Path(leave[0]).straight(*leave[1:], *corners, *arrive)
        clear = 4 + width(text, 14) / 2 if self.way > 0 else gutter - 22
        beside = clear if opened else gutter / 2 + 2
        # The first is written at its start, which stands there as a node.
        label: style.Look = {
            "label": text,
            "lp": f"{edge - self.way * beside:.1f},{arrive[0][1] + 9:.1f}",
        }
        labelled = label if text and not tail.endswith("start") and not slim else {}
        slot = self.row.slots[n]
        tip = f"{text or slot.name} {self.shape(slot)}"
        look, kind = self.look(n) | labelled, f"state s{n}"
        if cut:
            look, kind, tip = look | style.CUT, f"{kind} cut", f"{tip}, detached: no gradient"
        self.pen.edge(tail, head, kind, path, tip, of, slim, look)

    def _start(self, n: int, slot: Slot, first: Place) -> tuple[str, list[Point], str]:
        """The initial state, beside the first box; where its line begins."""
        pen, layout = self.pen, self.layout
        name = f"{self.name}s{n}start"
        text = self.called(slot, layout.start_number(self.row))
        places = [*self.places, *self.gaps.values()]
        outer = self.way * first.x == min(self.way * place.x for place in places)  # none before it
        entries = [] if self._is_gap(first) else self._entries(first, slot, n)
        if entries:
            y = entries[0][1][0][1]
        elif self._is_gap(first) and outer:
            y = self._height(first, slot)
        else:
            return name, [], ""  # the first step does not look at it
        x = self.front(first) - self.way * (layout.gutter - 4 if outer else layout.gutter / 2 + 4)
        trained = slot.start is not None and isinstance(slot.start.tensor, nn.Parameter)
        pen.write_name(name, text, x, y, style.PARAMETER_LINE if trained else style.INK)
        if slot.start is not None:
            if entries:
                low, side = (
                    (y, 0.0) if first.inside else (first.y + self.side(self.row.slots[0]), 6.0 * n)
                )
                self.starts[first.box, slot.start.key] = name, (x + side, low)
            shape = layout.shape_of(slot.start.tensor) if outer else ""
            reach = width(text, 16) / 2 + width(shape, 8) / 2
            pen.print(f"{name}shape", shape, x - self.way * reach, y - 1, 8)
        return name, [(x + self.way * (width(text, 16) / 2 + 3), y)], text

    def _exit(self, place: Place, made: int, slot: Slot, n: int) -> list[Point]:
        if place.inside is None:
            return [(self.back(place), place.y + self.side(slot))]
        return place.inside.sideways(made, self.way, self.back(place), n, out=True)

    def _entries(self, place: Place, slot: Slot, n: int) -> list[tuple[str, list[Point]]]:
        """The nodes of a box that take a part of the state, each with the way in."""
        carried = self.layout.line.carried_into(place.box)
        takers = {self.layout.node_of(op): op for _, op, s in carried if s is slot}
        edge = self.front(place)
        if place.inside is None:
            return [(head, [(edge, place.y + self.side(slot))]) for head in takers]
        found = []
        for head, op in takers.items():
            key = place.box.position[identity(op)]
            found.append((head, place.inside.sideways(key, -self.way, edge, n, out=False)[::-1]))
        return sorted(found, key=lambda entry: -entry[1][0][1])

    def _draw_far(self) -> None:
        """What a step takes from further back than the step before goes over the boxes between."""
        way, layout = self.way, self.layout
        for box in self.row.boxes.values():
            for source, op, slot in layout.line.carried_into(box):
                if slot is not None:
                    continue
                maker = layout.line.maker(source.tensor)
                here = self.stops.index(layout.places[box])
                before = [stop for stop in self.stops[:here] if self._is_gap(stop)]
                if maker is None and not before:
                    continue
                head = layout.places[box]
                tail = layout.places[maker] if maker is not None else before[-1]
                leave = [(self.back(tail), tail.top - 7)]
                arrive = [(self.front(head), head.top - 7)]
                name = tail.name
                if maker is not None:
                    name = layout.node_of(source.tensor)
                    if tail.inside is not None:
                        j = maker.position[identity(source.tensor)]
                        leave = tail.inside.sideways(j, way, leave[0][0], 2, out=True)
                if head.inside is not None:
                    j = box.position[identity(op)]
                    arrive = head.inside.sideways(j, -way, arrive[0][0], 2, out=False)[::-1]
                (a, b), (c, d) = leave[-1], arrive[0]
                over, a, c = tail.top + 8, a + way * 8, c - way * 8
                path = Path(leave[0]).straight(
                    *leave[1:], (a, b), (a, over), (c, over), (c, d), *arrive
                )
                self.pen.edge(
                    name, layout.node_of(op), "state", path,
                    layout.shape_of(source.tensor), source,
                )  # fmt: skip
