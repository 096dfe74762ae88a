"""`draw_unrolled`: a recurrence over time, one column a step, layers bottom to top, each parameter
once.

Every place is computed here and written into the DOT text (``layout=nop2`` takes it as it is), so
that the steps line up and the picture is the same with every renderer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq import nn
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from . import style
from .dot import Dot, Html, html_text
from .inside import Op, port
from .paths import Path, Point, at
from .render import Picture
from .running import run
from .sheet import CHIP, CHIP_GAP, RAIL, VALUE, Place, Sheet, step_number
from .timeline import Box, Row, Slot, Source, recorded
from .wording import shape_text, short, step_name, width

MAX_BOXES = 2000


def draw_unrolled(
    layer: nn.Module | Callable[..., Any],
    steps: int = 3,
    *,
    detail: str = "cells",
    x: Tensor | npt.ArrayLike | None = None,
    state: Any = None,
) -> Picture:
    """A recurrent layer, stack or cell, unrolled: time runs left to right, layers bottom to top.

    The layer is run on made-up input of ``steps`` steps and its recording is drawn, so a cell of
    your own gets the same picture as those of the library. Steps are numbered as in the lecture
    notes: x₁ is ``x[0]``, h₀ the initial state. B in a shape is the batch. Nothing of the layer or
    of the library's random state changes.

    ``detail``: ``"cells"``, one box a cell and step, or ``"ops"``, the boxes opened to show every
    recorded operation; what the cell's code calls a value is written below it. ``x``: an input to
    run on instead (then it says how many steps), for modules that take something else, such as
    tokens; ``state``: the state to begin with, for cells without an ``initial_state``.

    Raises `ValueError` for steps or a detail that cannot be, for a layer whose input size is
    unknown (pass ``x``), and for a picture of more than 2000 boxes; `GraphError` when the layer
    records no step.
    """
    if detail not in ("cells", "ops"):
        raise ValueError(f"detail={detail!r} is unknown. Use 'cells' or 'ops'.")
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps={steps!r} must be a whole number, at least 1.")
    if x is None and steps > MAX_BOXES:  # a box a step at least: no need to run it to see
        raise ValueError(
            f"{steps} steps are more than a picture can show ({MAX_BOXES} boxes). Draw fewer steps."
        )
    ran = run(layer, int(steps), x, state)
    boxes = [box for row in ran.line.rows for box in row.boxes.values()]
    count = sum(len(box.ops) for box in boxes) if detail == "ops" else len(boxes)
    if count > MAX_BOXES:
        remedy = "Draw fewer steps, or detail='cells'." if detail == "ops" else "Draw fewer steps."
        raise ValueError(f"{count} boxes are more than a picture can show ({MAX_BOXES}). {remedy}")
    return Picture(_Drawing(Sheet(ran, opened=detail == "ops")).write())


class _Drawing:
    """Writes a sheet as DOT."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self.lanes: dict[tuple[int, int], int] = {}  # beside a column, for lines past other rows
        self.dot = Dot(layout="nop2", outputorder="edgesfirst", bgcolor="white", pad=0.1)

    def write(self) -> str:
        self.dot.default("graph", fontname=style.FONT, fontcolor=style.INK)
        self.dot.default(
            "node", shape="box", style="filled", fillcolor="white", color=style.LINE, margin=0,
            fixedsize="true", fontname=style.FONT, fontcolor=style.INK, fontsize=12,
        )  # fmt: skip
        self.dot.default(
            "edge", color=style.LINE, arrowsize=0.6,
            fontname=style.MATH, fontcolor=style.INK, fontsize=14,
        )  # fmt: skip
        self._draw_parameters()
        for box in self.sheet.boxes():
            self._draw_box(self.sheet.places[box])
        self._draw_inputs()
        for row in self.sheet.line.rows:
            self._draw_states(row)
        self._draw_upwards()
        self._draw_outputs()
        return self.dot.text()

    # -- parameters ------------------------------------------------------------------------------

    def _draw_parameters(self) -> None:
        for i, row in enumerate(self.sheet.line.rows):
            chips = self.sheet.chips_of(row)
            if not chips:
                continue
            place = self.sheet.places[next(iter(row.boxes.values()))]
            top = place.y + len(chips) * (CHIP + CHIP_GAP) / 2
            home = short(self.sheet.home_of(row))
            middle = max(self.sheet.chip_width, width(home, 9)) / 2
            self._note(f"home{i}", home, middle, top + 6, 9)
            if row.recurrent and self.sheet.line.steps > 1:
                x = (self.sheet.trunk + self.sheet.left) / 2
                self._note(f"same{i}", "the same at every step", x, place.bottom - RAIL - 7, 8)
            for n, tensor in enumerate(chips):
                y = top - (n + 0.5) * (CHIP + CHIP_GAP)
                self.dot.node(
                    self._chip_id(tensor), label=self.sheet.chip_text(tensor),
                    pos=at(self.sheet.chip_width / 2, y), width=self.sheet.chip_width / 72,
                    height=CHIP / 72, fontsize=10,
                    fillcolor=style.PARAMETER_FILL if isinstance(tensor, nn.Parameter) else "white",
                    color=style.PARAMETER_LINE,
                    tooltip=self.sheet.ran.names.get(identity(tensor), self.sheet.name_of(tensor)),
                )  # fmt: skip
                self._hand_out(tensor, y)

    def _chip_id(self, tensor: Tensor) -> str:
        return f"p{list(self.sheet.chips).index(identity(tensor))}"

    def _hand_out(self, tensor: Tensor, y: float) -> None:
        """The faint lines from a parameter to everything that uses it."""
        users = self.sheet.chips[identity(tensor)][1]
        rows = list(dict.fromkeys(box.row for _, box in users))
        for op, box in {self._id(op): (op, box) for op, box in users}.values():
            place = self.sheet.places[box]
            trunk = self.sheet.trunk + 6 * rows.index(box.row)
            if box.step is None:
                end = [(trunk, place.y), (place.left, place.y)]
            else:
                rail, riser = place.bottom - RAIL, place.left + 12
                end = [(trunk, rail), (riser, rail), (riser, place.bottom)]
            path = Path((self.sheet.chip_width, y)).straight((trunk, y), *end)
            self.dot.edge(
                self._chip_id(tensor), self._id(op), pos=path.pos(4), arrowsize=0.4, penwidth=0.7,
                color=style.RAIL,
            )  # fmt: skip

    # -- boxes -----------------------------------------------------------------------------------

    def _id(self, op: Tensor) -> str:
        """The node that stands for an op: itself when its box is opened, else the box."""
        box = self.sheet.line.box[identity(op)]
        place = self.sheet.places[box]
        return place.name if place.inside is None else f"{place.name}_{box.position[identity(op)]}"

    def _draw_box(self, place: Place) -> None:
        box, inside = place.box, place.inside
        depth = len(box.row.scope) + (box.step is not None)
        where = "/".join(recorded(box.ops[0]).scope[:depth])
        tip = f"{where}: {len(box.ops)} op{'s' if len(box.ops) > 1 else ''}"
        if inside is None:
            look = style.BAND if box.step is None else style.CELL
            self.dot.node(
                place.name, label=place.title, pos=at(place.x, place.y),
                width=place.w / 72, height=place.h / 72, tooltip=tip, **look,
            )  # fmt: skip
            return
        corners = f"{at(place.left, place.bottom)},{at(place.right, place.top)}"
        half = width(place.title, 10) / 2 + 8
        passing = [
            inside.at(key)[0] for key in inside.size if isinstance(key, tuple) and key[0] == "out"
        ]
        left_free = all(x > place.left + 2 * half for x in passing)
        title_x = place.left + half if left_free else place.right - half
        with self.dot.cluster(
            place.name, bb=corners, label=place.title, lp=at(title_x, place.top - 9), tooltip=tip,
            **style.FRAME,
        ):  # fmt: skip
            for i, op in enumerate(box.ops):
                what, node = inside.ops[i], recorded(op)
                assert node.op is not None
                shape = shape_text(op.shape, self.sheet.ran.batch)
                self.dot.node(
                    self._id(op), label=_two_lines(what), pos=at(*inside.at(i)),
                    width=what.size[0] / 72, height=what.size[1] / 72,
                    tooltip=f"{node.op.name} {shape} in {'/'.join(node.scope)}", **what.look,
                )  # fmt: skip
        for tail, head in inside.layout.bends:
            if isinstance(tail, int) and isinstance(head, int):
                start, *rest = inside.through(tail, head)
                path = Path(start).curved(rest)
                self.dot.edge(self._id(box.ops[tail]), self._id(box.ops[head]), pos=path.pos(6))

    def _value(self, name: str, text: str, shape: str, x: float, y: float) -> None:
        """x or y: a name, and its shape in small print."""
        self._text(name, text, x, y + 5)
        self._note(f"{name}shape", shape, x, y - 10, 8)

    def _note(self, name: str, text: str, x: float, y: float, size: float) -> None:
        if text:
            self.dot.node(
                name, label=text, pos=at(x, y), width=width(text, size) / 72, height=size / 72,
                shape="plaintext", style="", fontsize=size, fontcolor=style.FAINT,
            )  # fmt: skip

    # -- the state: sideways, from step to step --------------------------------------------------

    def _draw_states(self, row: Row) -> None:
        boxes = list(row.boxes.values())
        way = -1 if row.reverse else 1  # the direction in which the row runs on the sheet
        for n, slot in enumerate(row.slots):
            name = f"r{self.sheet.row_number[row]}s{n}"
            look: style.Look = {"color": style.STATES[n % len(style.STATES)], "penwidth": 1.5}
            places = [self.sheet.places[box] for box in boxes]
            for i, place in enumerate(places):
                tail = self._id(boxes[i - 1].ops[slot.position]) if i else f"{name}start"
                entries = self._entries(place, slot, n, way)
                text = step_name(slot.name, step_number(boxes[i]) - way)
                if not entries:
                    continue
                if i:
                    leave = self._exit(places[i - 1], slot, n, way)
                else:
                    leave = [self._draw_start(tail, slot, text, place, entries[0][1][0][1], n, way)]
                edge = place.left if way > 0 else place.right
                lane = edge - way * (self.sheet.gutter - 18 - 12 * n)
                for k, (head, arrive) in enumerate(entries):
                    path = Path(leave[0]).straight(
                        *leave[1:], (lane, leave[-1][1]), (lane, arrive[0][1]), *arrive
                    )
                    clear = 12 if way > 0 else 28  # of the lanes, which lie left in the gutter
                    beside = clear if self.sheet.opened else self.sheet.gutter / 2 + 2
                    label: style.Look = {
                        "label": text,
                        "lp": at(edge - way * beside, arrive[0][1] + 9),
                    }
                    labelled = label if k == 0 and i else {}
                    self.dot.edge(tail, head, pos=path.pos(6), **look, **labelled)
            if slot.final:
                leave = self._exit(places[-1], slot, n, way)
                x, y = leave[-1]
                text = step_name(slot.name, step_number(boxes[-1]))
                self._text(f"{name}end", text, x + way * 38, y)
                path = Path(leave[0]).straight(*leave[1:], (x + way * 28, y))
                tail = self._id(boxes[-1].ops[slot.position])
                self.dot.edge(tail, f"{name}end", pos=path.pos(6), **look)

        self._draw_far(row, way)

    def _draw_far(self, row: Row, way: int) -> None:
        """What a step takes from further back than the step before goes over the boxes between."""
        for box in row.boxes.values():
            for source, op, slot in self.sheet.carried_into(box):
                if slot is not None:
                    continue
                maker = self.sheet.line.box[identity(source.tensor)]
                tail, head = self.sheet.places[maker], self.sheet.places[box]
                leave = [(tail.right if way > 0 else tail.left, tail.top - 7)]
                arrive = [(head.left if way > 0 else head.right, head.top - 7)]
                if tail.inside is not None and head.inside is not None:
                    i, j = maker.position[identity(source.tensor)], box.position[identity(op)]
                    leave = tail.inside.sideways(i, way, leave[0][0], 2, out=True)
                    arrive = head.inside.sideways(j, -way, arrive[0][0], 2, out=False)[::-1]
                (a, b), (c, d) = leave[-1], arrive[0]
                over, a, c = tail.top + 8, a + way * 8, c - way * 8
                path = Path(leave[0]).straight(
                    *leave[1:], (a, b), (a, over), (c, over), (c, d), *arrive
                )
                self.dot.edge(self._id(source.tensor), self._id(op), pos=path.pos(6))

    def _draw_start(
        self, name: str, slot: Slot, text: str, place: Place, y: float, n: int, way: int
    ) -> Point:
        """The initial state, beside the first step; where its line begins."""
        edge = place.left if way > 0 else place.right
        x = edge - way * (self.sheet.gutter - 4)
        trained = slot.start is not None and isinstance(slot.start.tensor, nn.Parameter)
        self._text(name, text, x, y, style.PARAMETER_LINE if trained else style.INK)
        if slot.start is not None:
            shape = shape_text(slot.start.tensor.shape, self.sheet.ran.batch)
            self._note(f"{name}shape", shape, x - way * (12 + width(shape, 8) / 2), y - 1, 8)
        return (x + way * 10, y)

    def _side(self, place: Place, slot: Slot) -> float:
        """The height at which a closed box takes and gives a part of the state: h lowest."""
        slots = place.box.row.slots
        return place.y + (slots.index(slot) - (len(slots) - 1) / 2) * 20

    def _exit(self, place: Place, slot: Slot, n: int, way: int) -> list[Point]:
        edge = place.right if way > 0 else place.left
        if place.inside is None:
            return [(edge, self._side(place, slot))]
        return place.inside.sideways(slot.position, way, edge, n, out=True)

    def _entries(self, place: Place, slot: Slot, n: int, way: int) -> list[tuple[str, list[Point]]]:
        """The nodes of a box that take a part of the state, each with the way in."""
        takers = {self._id(op): op for _, op, s in self.sheet.carried_into(place.box) if s is slot}
        edge = place.left if way > 0 else place.right
        if place.inside is None:
            return [(head, [(edge, self._side(place, slot))]) for head in takers]
        found = []
        for head, op in takers.items():
            key = place.box.position[identity(op)]
            found.append((head, place.inside.sideways(key, -way, edge, n, out=False)[::-1]))
        return sorted(found, key=lambda entry: -entry[1][0][1])

    def _text(self, name: str, text: str, x: float, y: float, colour: str = style.INK) -> None:
        self.dot.node(
            name, label=text, pos=at(x, y), width=width(text, 16) / 72, height=0.25,
            shape="plaintext", style="", fontname=style.MATH, fontsize=16, fontcolor=colour,
        )  # fmt: skip

    # -- upwards: from x through the layers to y -------------------------------------------------

    def _draw_inputs(self) -> None:
        """x at the foot of each column that reads it."""
        x = self.sheet.ran.x
        shape = x.shape[: self.sheet.time_axis] + x.shape[self.sheet.time_axis + 1 :]
        found: dict[int, list[tuple[Tensor, Box, Source]]] = {}
        for box in self.sheet.boxes():
            for op, source in self.sheet.line.inputs(box):
                if source.tensor is x and source.step is not None:
                    found.setdefault(source.step, []).append((op, box, source))
        for step in sorted(found):
            op, box, source = found[step][0]
            arrive = self._arrive(op, box, source)
            straight = arrive is not None and box.row is self.sheet.line.rows[0]
            foot = arrive[0][0] if arrive and straight else self.sheet.column[step]
            name = f"x{step + 1}"
            text = shape_text(shape, self.sheet.ran.batch)
            self._value(name, step_name("x", step + 1), text, foot, VALUE / 2)
            heads = {self._id(op): (op, box, source) for op, box, source in found[step]}
            for head, (op, box, source) in heads.items():
                self._up(
                    name, head, [(foot, VALUE)], self._arrive(op, box, source),
                    -1, self.sheet.row_number[box.row], step, self.sheet.places[box].bottom,
                )  # fmt: skip

    def _draw_upwards(self) -> None:
        """From row to row."""
        seen: set[tuple[str, str, int | None]] = set()
        for box in self.sheet.boxes():
            for op, source in self.sheet.line.inputs(box):
                maker = self.sheet.line.box.get(identity(source.tensor))
                if maker is None or maker.row is box.row:
                    continue
                ends = self._id(source.tensor), self._id(op)
                step = next((s for s in (maker.step, box.step, source.step) if s is not None), None)
                key = (*ends, step)
                if key in seen:
                    continue
                seen.add(key)
                self._up(
                    *ends, self._leave(source.tensor), self._arrive(op, box, source),
                    self.sheet.row_number[maker.row], self.sheet.row_number[box.row], step,
                    self.sheet.places[box].bottom, self.sheet.places[maker].top,
                )  # fmt: skip

    def _draw_outputs(self) -> None:
        """y above each column that gives it, or one y where it is not one a step."""
        for n, (tensor, sources) in enumerate(self.sheet.line.outputs):
            name = tensor.name or ("y" if n == 0 else f"y{chr(0x2032) * n}")
            made = [s for s in sources if identity(s.tensor) in self.sheet.line.box]
            steps = [
                self.sheet.line.box[identity(s.tensor)].step if s.step is None else s.step
                for s in made
            ]
            each = len(set(steps)) > 1 or (len(set(steps)) == 1 and self.sheet.line.steps == 1)
            shape = tensor.shape
            if each and tensor.ndim > self.sheet.time_axis:
                shape = shape[: self.sheet.time_axis] + shape[self.sheet.time_axis + 1 :]
            placed: set[str] = set()
            for source, step in zip(made, steps, strict=True):
                maker = self.sheet.line.box[identity(source.tensor)]
                leave = self._leave(source.tensor)
                foot = leave[-1][0] if leave else self._middle(step)
                top = f"y{n}" if step is None or not each else f"y{n}t{step + 1}"
                if top not in placed:
                    placed.add(top)
                    text = step_name(name, step + 1) if each and step is not None else name
                    y = self.sheet.ceiling + VALUE / 2 + n * (VALUE + 4)
                    self._value(top, text, shape_text(shape, self.sheet.ran.batch), foot, y)
                self._up(
                    self._id(source.tensor), top, leave, [(foot, self.sheet.ceiling)],
                    self.sheet.row_number[maker.row], len(self.sheet.line.rows), step,
                    self.sheet.ceiling, self.sheet.places[maker].top,
                )  # fmt: skip

    def _middle(self, step: int | None) -> float:
        return (self.sheet.left + self.sheet.right) / 2 if step is None else self.sheet.column[step]

    def _leave(self, op: Tensor) -> list[Point] | None:
        """From an op to the upper edge of its box; `None` where any place on the edge will do."""
        box = self.sheet.line.box[identity(op)]
        place = self.sheet.places[box]
        if box.step is None:
            return None
        if place.inside is None:
            return [(place.x, place.top)]
        i = box.position[identity(op)]
        return [*place.inside.through(i, ("out", i)), (place.inside.at(("out", i))[0], place.top)]

    def _arrive(self, op: Tensor, box: Box, source: Source) -> list[Point] | None:
        """From the lower edge of a box to an op in it."""
        place = self.sheet.places[box]
        if box.step is None:
            return None
        if place.inside is None:
            return [(place.x, place.bottom)]
        key = port(source)
        rest = place.inside.through(key, box.position[identity(op)])
        return [(rest[0][0], place.bottom), *rest]

    def _up(
        self,
        tail: str,
        head: str,
        leave: list[Point] | None,
        arrive: list[Point] | None,
        below: int,
        above: int,
        step: int | None,
        bottom: float,
        top: float = 0.0,
    ) -> None:
        """A line from one row to a higher one; past those between in a lane beside the column."""
        if leave is None:
            leave = [(arrive[0][0] if arrive else self._middle(step), top)]
        if arrive is None:
            arrive = [(leave[-1][0], bottom)]
        path = Path(leave[0]).curved(leave[1:])
        (a, b), (c, d) = leave[-1], arrive[0]
        if above != below + 1:
            lane = self._lane(below, above)
            x = max(a, c) if step is None else self.sheet.column[step]
            x += self.sheet.wide / 2 + 9 + 7 * lane
            path.straight((a, b + 9), (x, b + 9), (x, d - 9), (c, d - 9), (c, d))
        elif abs(a - c) > 1:
            path.straight((a, d - 9), (c, d - 9), (c, d))
        else:
            path.straight((c, d))
        path.curved(arrive[1:])
        self.dot.edge(tail, head, pos=path.pos(6))

    def _lane(self, below: int, above: int) -> int:
        """The first lane that no line past some of the same rows has taken."""
        if (below, above) not in self.lanes:
            passing = [n for (a, b), n in self.lanes.items() if a < above and below < b]
            self.lanes[below, above] = next(n for n in itertools.count() if n not in passing)
        return self.lanes[below, above]


def _two_lines(op: Op) -> Html:
    """The sign of an op, and below it in small print what the code calls the value."""
    label = f'<FONT POINT-SIZE="12">{html_text(op.sign)}</FONT>'
    if op.name:
        label += f'<BR/><FONT POINT-SIZE="9" COLOR="{style.CELL_LINE}">{html_text(op.name)}</FONT>'
    return Html(label)
