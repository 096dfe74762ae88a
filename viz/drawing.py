"""Draws a layout as DOT. Every place is computed before, and written into the text (``layout=nop2``
takes it as it is), so that the steps line up and the picture is the same with every renderer.
"""

from __future__ import annotations

import itertools
from collections import Counter

from tinyseq import nn
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from . import style
from .dot import Dot, Html, Value, html_text
from .ends import Inputs
from .flow import Carried, draw_legend
from .inside import Op, port
from .labels import shape_text, short, width
from .layout import CHIP, CHIP_GAP, RAIL, RAIL_GAP, VALUE, Layout, Place
from .loss import draw_loss
from .paths import Path, Point, at
from .rolled import alike, into
from .states import draw_states
from .timeline import Box, Row, Source, recorded


class Drawing:
    """A layout on its way to DOT text, and how each kind of thing looks."""

    def __init__(self, layout: Layout, note: str = "") -> None:
        self.layout = layout
        self.note = note
        self.starts: dict[
            tuple[Box, tuple[int, int | None]], tuple[str, Point]
        ] = {}  # initial states, where written
        self.lanes: dict[tuple[int, int], int] = {}  # beside a column, for lines past other rows
        self.arrows: Counter[str] = Counter()
        self.flow = layout.ran.flow
        self.data: dict[str, dict[str, float]] = {}  # what flowed, by arrow
        self.columns: dict[str, int] = {}  # the step, as written, of an arrow from row to row
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
        for box in self.layout.boxes():
            self._draw_box(self.layout.places[box])
        self._draw_inputs()
        for row in self.layout.line.rows:
            if row.recurrent:
                draw_states(self, row)
        self._draw_upwards()
        if self.layout.rolled:
            self._draw_handed_over()
        if self.layout.loss is None:
            self._draw_outputs()
        else:
            draw_loss(self, self.layout.loss)
        if self.flow is not None:
            draw_legend(self, self.flow)
        if self.note:
            self.print("note", self.note, width(self.note, 9) / 2, -14, 9)
        return self.dot.text()

    # -- one thing -------------------------------------------------------------------------------

    def node(
        self, name: str, kind: str, x: float, y: float, w: float, h: float, **look: Value
    ) -> None:
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
    ) -> str:
        """An arrow that carries the value ``of``; ``slim`` ones have no head. Returns its id."""
        look = dict(look or {})
        arrow = 0 if slim else 4 if kind == "use" else 6
        if slim:
            look["arrowhead"] = "none"
        name, short = f"{tail}--{head}", 0.0
        self.arrows[name] += 1
        name += f"--{self.arrows[name]}" if self.arrows[name] > 1 else ""
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

    def shape_of(self, tensor: Tensor) -> str:
        return shape_text(tensor.shape, self.layout.ran.batch)

    # -- parameters ------------------------------------------------------------------------------

    def _draw_parameters(self) -> None:
        for i, row in enumerate(self.layout.line.rows):
            chips = self.layout.chips_of(row)
            if not chips:
                continue
            place = self.layout.places[next(iter(row.boxes.values()))]
            top = place.y + len(chips) * (CHIP + CHIP_GAP) / 2
            home = short(self.layout.home_of(row), 40)
            middle = max(self.layout.chip_width, width(home, 9)) / 2
            self.print(f"home{i}", home, middle, top + 6, 9)
            if row.recurrent and self.layout.columns.steps > 1 and self._used_always(row, chips):
                x = (self.layout.trunk + self.layout.left) / 2
                self.print(f"same{i}", "the same at every step", x, place.bottom - RAIL - 7, 8)
            for n, tensor in enumerate(chips):
                y = top - (n + 0.5) * (CHIP + CHIP_GAP)
                self.node(
                    self._chip_id(tensor), "parameter", self.layout.chip_width / 2, y,
                    self.layout.chip_width, CHIP, label=self.layout.chip_text(tensor), fontsize=10,
                    fillcolor=style.PARAMETER_FILL if isinstance(tensor, nn.Parameter) else "white",
                    color=style.PARAMETER_LINE,
                    tooltip=self.layout.path_of(tensor),
                )  # fmt: skip
                self._hand_out(tensor, y)

    def _used_always(self, row: Row, chips: list[Tensor]) -> bool:
        """Does every step of the row use all of these? Encoder and decoder may be in one loop."""
        using = [
            {box.step for _, box in self.layout.chips[identity(tensor)][1] if box.row is row}
            for tensor in chips
        ]
        return all(steps == set(row.boxes) for steps in using)

    def _chip_id(self, tensor: Tensor) -> str:
        return f"p{list(self.layout.chips).index(identity(tensor))}"

    def _hand_out(self, tensor: Tensor, y: float) -> None:
        """The faint lines from a parameter to everything that uses it."""
        users = self.layout.chips[identity(tensor)][1]
        rows = list(dict.fromkeys(box.row for _, box in users))
        for op, box in {self.id(op): (op, box) for op, box in users}.values():
            place = self.layout.places[box]
            if place.slim:
                continue
            trunk = self.layout.trunk + 6 * rows.index(box.row)
            if box.step is None:
                end = [(trunk, place.y), (place.left, place.y)]
            else:
                n = self.layout.rails[box.row][identity(tensor)]
                trunk += RAIL_GAP * n
                rail, riser = place.bottom - RAIL - RAIL_GAP * n, place.left + 12 + RAIL_GAP * n
                end = [(trunk, rail), (riser, rail), (riser, place.bottom)]
            path = Path((self.layout.chip_width, y)).straight((trunk, y), *end)
            self.edge(
                self._chip_id(tensor), self.id(op), "use", path,
                look={"arrowsize": 0.4, "penwidth": 0.7, "color": style.RAIL},
            )  # fmt: skip

    # -- boxes -----------------------------------------------------------------------------------

    def id(self, op: Tensor) -> str:
        """The node that stands for an op: itself when its box is opened, else the box."""
        box = self.layout.line.box[identity(op)]
        place = self.layout.places[box]
        return place.name if place.inside is None else f"{place.name}_{box.position[identity(op)]}"

    def _draw_box(self, place: Place) -> None:
        box, inside = place.box, place.inside
        depth = len(box.row.scope) + (box.step is not None)
        where = "/".join(recorded(box.ops[0]).scope[:depth])
        tip = f"{where}: {len(box.ops)} op{'s' if len(box.ops) > 1 else ''}"
        if inside is None:
            kind, look = ("band", style.BAND) if box.step is None else ("cell", style.CELL)
            if place.slim:
                kind, look = "cell slim", style.SLIM
                tip = f"step {self.layout.number(box)}, {tip}"
            self.node(
                place.name, kind, place.x, place.y, place.w, place.h,
                label=place.title, tooltip=tip, **look,
            )  # fmt: skip
            return
        corners = f"{at(place.left, place.bottom)},{at(place.right, place.top)}"
        passing = [
            inside.at(key)[0] for key in inside.size if isinstance(key, tuple) and key[0] == "out"
        ]
        rooms = (
            min(passing, default=place.right) - place.left,
            place.right - max(passing, default=place.left),
        )
        room = rooms[0] if width(place.title, 10) + 16 < rooms[0] else max(rooms)
        title = place.title
        while len(title) > 3 and width(title, 10) + 16 > room:  # no arrow crosses it
            title = short(place.title, len(title) - 1)
        half = width(title, 10) / 2 + 8
        title_x = place.left + half if room == rooms[0] else place.right - half
        with self.dot.cluster(
            place.name, bb=corners, label=title, lp=at(title_x, place.top - 9), tooltip=tip,
            **{"id": place.name, "class": "cell"}, **style.FRAME,
        ):  # fmt: skip
            for i, op in enumerate(box.ops):
                what, node = inside.ops[i], recorded(op)
                assert node.op is not None
                (x, y), (w, h) = inside.at(i), what.size
                self.node(
                    self.id(op), f"op {what.gate}".strip(), x, y, w, h, label=_two_lines(what),
                    tooltip=f"{node.op.name} {self.shape_of(op)} in {'/'.join(node.scope)}",
                    **what.look,
                )  # fmt: skip
        for tail, head in inside.layering.bends:
            if isinstance(tail, int) and isinstance(head, int):
                start, *rest = inside.through(tail, head)
                made = box.ops[tail]
                self.edge(
                    self.id(made), self.id(box.ops[head]), "inside", Path(start).curved(rest),
                    self.shape_of(made), Source(made, None),
                )  # fmt: skip

    # -- upwards: from x through the layers to y -------------------------------------------------

    def _draw_inputs(self) -> None:
        """x at the foot of each column that reads it, other sequences below the row that does."""
        for n, inputs in enumerate(self.layout.inputs):
            below = self.layout.row_number[inputs.row] - 1 if inputs.bottom > 0 else -1 - n
            for step in sorted(inputs.takers):
                self._draw_input(n, inputs, step, below)
            self.print_dots("x" if n == 0 else f"in{n}", inputs.bottom + VALUE / 2 + 5)

    def _draw_input(self, n: int, inputs: Inputs, step: int, below: int) -> None:
        op, box, source = inputs.takers[step][0]
        arrive = self._arrive(op, box, source)
        straight = arrive is not None and self.layout.row_number[box.row] == below + 1
        foot = arrive[0][0] if arrive and straight else self.layout.column[step]
        number = self.layout.columns.number[step]
        name = f"in{n}t{number}" if n else f"x{number}"
        text = self.layout.called(inputs.name, number, inputs.back)
        shape = self.layout.input_shape(source)
        slim = step in self.layout.columns.slim
        self.write_value(name, "" if slim else text, shape, foot, inputs.bottom + VALUE / 2)
        heads = {self.id(op): (op, box, source) for op, box, source in inputs.takers[step]}
        for head, (op, box, source) in heads.items():
            self._up(
                name, head, [(foot, inputs.bottom + VALUE)], self._arrive(op, box, source),
                below, self.layout.row_number[box.row], step, self.layout.places[box].bottom,
                tip=f"{text} {shape}", of=self._taken(box, source), written=True,
            )  # fmt: skip

    def print_dots(self, name: str, y: float) -> None:
        """Where a line of values has steps left out."""
        for n, x in self.layout.gap.items():
            self.print(f"{name}gap{n}", "…", x, y, 16)
        for n, (x, text) in enumerate(self.layout.slim_runs if name == "x" else ()):
            self.print(f"{name}slim{n}", text, x, y, 11)

    def _draw_upwards(self) -> None:
        """From row to row."""
        seen: set[tuple[str, str, int | None]] = set()
        for box in self.layout.boxes():
            for op, taken in self.layout.line.inputs(box):
                stand = self.layout.stand_in(taken) if box.step is None else None
                source = stand or taken
                maker = self.layout.line.maker(source.tensor)
                if maker is None or maker.row is box.row:
                    continue
                given = self.starts.get((box, source.key))  # as the initial state
                ends = self.id(source.tensor), given[0] if given else self.id(op)
                step = next((s for s in (maker.step, box.step, source.step) if s is not None), None)
                if step is None:
                    step = self.layout.step_below(maker)
                if self.layout.rolled and maker.step is box.step is None:
                    step = self.layout.columns.shown[0]  # which stands for whichever it is
                key = (*ends, step)
                if key in seen or (step is not None and step not in self.layout.column):
                    continue
                seen.add(key)
                leave = self.leave(source.tensor)
                arrive = None if given else self._arrive(op, box, source)
                if given:
                    x, y = given[1]
                    arrive = [(x, self.layout.places[box].bottom), (x, y - 10)]
                    if leave is None:  # from the near end of a layer on all steps at once
                        leave = [(self.layout.left + 16, self.layout.places[maker].top)]
                self._up(
                    *ends, leave, arrive,
                    self.layout.row_number[maker.row], self.layout.row_number[box.row], step,
                    self.layout.places[box].bottom, self.layout.places[maker].top,
                    tip=self.layout.step_shape(source), of=self._taken(box, source),
                )  # fmt: skip

    def _draw_handed_over(self) -> None:
        """In a rolled picture, from the layer whose last state is another one's initial state."""
        step = self.layout.columns.shown[0]
        drawn: set[tuple[str, str]] = set()
        for row in self.layout.line.rows:
            for slot in row.slots if row.recurrent else ():
                if slot.start is None:
                    continue
                shown = self.layout.line.maker(slot.start.tensor)
                source = slot.start if shown else self.layout.stand_in(slot.start)
                maker = self.layout.line.maker(source.tensor) if source else None
                if source is None or maker is None or maker.row is row:
                    continue
                (box,) = row.boxes.values()
                ends = self.id(source.tensor), self.layout.places[box].name
                if ends in drawn:
                    continue
                drawn.add(ends)
                place = self.layout.places[box]
                self._up(
                    *ends, self.leave(source.tensor), [(place.x, place.bottom)],
                    self.layout.row_number[maker.row], self.layout.row_number[row], step,
                    place.bottom, self.layout.places[maker].top,
                    tip=f"the initial state {self.shape_of(slot.start.tensor)}", of=slot.start,
                    written=True,
                )  # fmt: skip

    def _draw_outputs(self) -> None:
        """y above each column that gives it, or one y where it is not one a step."""
        for n, (tensor, sources) in enumerate(self.layout.line.outputs):
            name = tensor.name or ("y" if n == 0 else f"y{chr(0x2032) * n}")
            self.draw_values(name, f"y{n}", sources, self.layout.ceiling + n * (VALUE + 4))

    def draw_values(
        self, name: str, node: str, sources: list[Source], bottom: float
    ) -> dict[int | None, float]:
        """What the uppermost rows give, written in a line; returns where, by step."""
        found = self.layout.given(sources)
        each = self.layout.each(sources)
        placed: dict[int | None, float] = {}
        for source, step in found:
            maker = self.layout.line.box[identity(source.tensor)]
            leave = self.leave(source.tensor)
            foot = leave[-1][0] if leave else self.middle(step)
            number = self.layout.columns.number[step] if each and step is not None else None
            top = node if number is None else f"{node}t{number}"
            shape = self.layout.step_shape(source)
            text = self.layout.called(name, number) if each else self.layout.names.get(name, name)
            if step not in placed:
                placed[step] = foot
                slim = each and step in self.layout.columns.slim
                self.write_value(top, "" if slim else text, shape, foot, bottom + VALUE / 2)
            self._up(
                self.id(source.tensor), top, leave, [(foot, self.layout.ceiling)],
                self.layout.row_number[maker.row], len(self.layout.line.rows), step,
                self.layout.ceiling, self.layout.places[maker].top, tip=f"{text} {shape}",
                of=self.given_away(source, sources),
            )  # fmt: skip
        if len(placed) > 1:
            self.print_dots(node, bottom + VALUE / 2 + 5)
        return placed

    def _taken(self, box: Box, source: Source) -> Carried:
        """What flows into a box where it takes ``source``."""
        return into(self.layout, box, source) if self.layout.rolled else source

    def given_away(self, source: Source, sources: list[Source]) -> Carried:
        """What flows out of a box that gives ``source``, of all that is given."""
        return alike(self.layout.line, source, sources) if self.layout.rolled else source

    def middle(self, step: int | None) -> float:
        return (
            (self.layout.left + self.layout.right) / 2 if step is None else self.layout.column[step]
        )

    def leave(self, op: Tensor) -> list[Point] | None:
        """From an op to the upper edge of its box; `None` where any place on the edge will do."""
        box = self.layout.line.box[identity(op)]
        place = self.layout.places[box]
        if box.step is None:
            return None
        if place.inside is None:
            return [(place.x, place.top)]
        i = box.position[identity(op)]
        return [*place.inside.through(i, ("out", i)), (place.inside.at(("out", i))[0], place.top)]

    def _arrive(self, op: Tensor, box: Box, source: Source) -> list[Point] | None:
        """From the lower edge of a box to an op in it."""
        place = self.layout.places[box]
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
        tip: str = "",
        of: Carried | None = None,
        written: bool = False,
    ) -> None:
        """A line from one row to a higher one; past those between in a lane beside the column, as
        also from a row down to one that it is fed back to.
        """
        if leave is None:
            leave = [(arrive[0][0] if arrive else self.middle(step), top)]
        if arrive is None:
            arrive = [(leave[-1][0], bottom)]
        path = Path(leave[0]).curved(leave[1:])
        (a, b), (c, d) = leave[-1], arrive[0]
        if above != below + 1:
            lane = self._lane(below, above)
            x = max(a, c) if step is None else self.layout.column[step]
            rows = self.layout.line.rows
            passed = rows[min(below + 1, len(rows) - 1)]  # none when it goes back down
            side = -passed.way if self.layout.rolled else 1  # where the state does not go round
            if step not in self.layout.columns.slim:
                x += side * (self.layout.wide / 2 + 9 + 7 * lane)
            path.straight((a, b + 9), (x, b + 9), (x, d - 9), (c, d - 9), (c, d))
        elif abs(a - c) > 1:
            path.straight((a, d - 9), (c, d - 9), (c, d))
        else:
            path.straight((c, d))
        path.curved(arrive[1:])
        slim = step in self.layout.columns.slim
        name = self.edge(tail, head, "up", path, tip, of, slim)
        if step is not None:
            self.columns[name] = self.layout.columns.number[step]
        inner = not written and bottom < self.layout.ceiling  # at the ends others say it
        if inner and abs(a - c) <= 1 and not slim:
            self.print(f"{name}--shape", tip, c - 6 - width(tip, 8) / 2, b + 11, 8)

    def _lane(self, below: int, above: int) -> int:
        """The first lane that no line past some of the same rows has taken."""
        low, high = (below, above) if below < above else (above - 1, below + 1)
        if (below, above) not in self.lanes:
            taken = [n for (a, b), n in self.lanes.items() if min(a, b) < high and low < max(a, b)]
            self.lanes[below, above] = next(n for n in itertools.count() if n not in taken)
        return self.lanes[below, above]


def _two_lines(op: Op) -> Html:
    """The sign of an op, and below it in small print what the code calls the value."""
    label = f'<FONT POINT-SIZE="12">{html_text(op.sign)}</FONT>'
    if op.name:
        label += f'<BR/><FONT POINT-SIZE="9" COLOR="{style.CELL_LINE}">{html_text(op.name)}</FONT>'
    return Html(label)
