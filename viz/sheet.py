"""Where everything in an unrolled picture lies: steps in columns, layers in rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tinyseq import nn
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from . import style
from .gates import find_gates
from .indices import numbers
from .inputs import find_inputs
from .inside import Inside, Op, lay_out, port, shown
from .loss import find_loss
from .running import Run
from .timeline import Box, Row, Slot, Source, recorded
from .wording import constant_text, counted, shape_text, short, sign, step_name, width

# Distances, in points.
CHIP, CHIP_GAP = 18.0, 4.0  # a parameter's height, and what is left between two
RAIL = 17.0  # below a row: the line that hands its parameters to every step
RAIL_GAP, RAILS = 7.0, 4  # between two of them, and how many there are at most
BAND = 28.0  # the height of a layer that works on all steps at once
VALUE = 34.0  # the height of x or y with its shape
AIR = 24.0  # between rows
GAP = 78.0  # how wide the box is that stands for the steps left out
SLIM, SLIM_GAP = 4.0, 8.0  # a step without words, and what is left between two
LOOP = 34.0  # how far the state of a rolled layer swings out


@dataclass
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


class Sheet:
    """Everything that is drawn, measured and placed; y goes up."""

    def __init__(self, ran: Run, level: str, names: Mapping[str, str]) -> None:
        self.ran = ran
        self.line = ran.line
        self.columns = ran.columns
        self.opened = level == "op"
        self.rolled = level == "layer"
        self.names = names  # what to call x, y and the parts of the state instead
        self.row_number = {row: i for i, row in enumerate(self.line.rows)}
        self.starts = {
            identity(slot.start.tensor): self.called(slot.name, self.start_number(row))
            for row in self.line.rows
            for slot in row.slots
            if slot.start
        }
        self._below: dict[Box, int | None] = {}
        self.loss = find_loss(self.line)
        if self.loss is not None:  # it is drawn above the rows
            self.line.rows.remove(self.loss.box.row)
        self.inputs = find_inputs(self)
        self.exits = self._find_exits()
        self.chips = self._find_chips()
        self.places = {box: self._measure(box) for box in self.boxes()}
        self._arrange()

    # -- what there is ---------------------------------------------------------------------------

    def called(self, name: str, number: int | None, back: int = 0) -> str:
        """A value of one step (or so many before) as it is written: h⟨3⟩, and of any step where
        there is one box.
        """
        name = self.names.get(name, name)
        if self.rolled:
            return f"{name}⟨t−{back}⟩" if back else f"{name}⟨t⟩"
        return name if number is None else step_name(name, number - back)

    def left_out(self, n: int, row: Row) -> int:
        """How many steps of a row are left out before the n-th column: it may end among them."""
        columns, length = self.columns, self.line.steps_of.get(row.scope, 0)
        if row.reverse or columns.steps != self.line.steps:  # the run has fewer, as an example
            return columns.gaps[n]
        end = columns.shown[n] if n < len(columns.shown) else columns.steps
        return max(0, min(end, length) - (end - columns.gaps[n]))

    def start_number(self, row: Row) -> int:
        """The step, as it is written, before the first of a row."""
        return self.columns.steps + 1 if row.reverse else 0

    def is_input(self, source: Source) -> bool:
        """Is it x of one step?"""
        given = source.tensor.node is None and not isinstance(source.tensor, nn.Parameter)
        return given and source.step is not None

    def is_x(self, tensor: Tensor) -> bool:
        return any(self.is_input(source) for source in self.line.sources[identity(tensor)])

    def boxes(self) -> Iterator[Box]:
        return (box for row in self.line.rows for box in row.boxes.values())

    def _find_exits(self) -> set[tuple[Row, int, int]]:
        """The ops, by row and position among so many, whose value leaves the box upwards in some
        step: to another row, or as an output. There is a way out for them in every step, so that
        all look alike.
        """
        ids = {identity(source.tensor) for _, found in self.line.outputs for source in found}
        for box in self.boxes():
            for _, source in self.line.inputs(box):
                maker = self.line.maker(source.tensor)
                if maker is not None and maker.row is not box.row:
                    ids.add(identity(source.tensor))
        ids |= {identity(source.tensor) for source in self.loss.sources} if self.loss else set()
        return {
            (box.row, len(box.ops), i)
            for box in self.boxes()
            for i, op in enumerate(box.ops)
            if identity(op) in ids
        }

    def _find_chips(self) -> dict[int, tuple[Tensor, list[tuple[Tensor, Box]]]]:
        """Parameters, and constants that belong to the module: each with the ops that use it."""
        chips: dict[int, tuple[Tensor, list[tuple[Tensor, Box]]]] = {}
        for box in self.boxes():
            for op, source in self.line.inputs(box):
                tensor = source.tensor
                belongs = identity(tensor) in self.ran.names or tensor.requires_grad
                is_value = self.is_input(source) or identity(tensor) in self.starts
                if tensor.node is None and belongs and not is_value:
                    chips.setdefault(identity(tensor), (tensor, []))[1].append((op, box))
        return chips

    def chips_of(self, row: Row) -> list[Tensor]:
        """What is drawn beside a row: the parameters that it is the first to use."""
        return [tensor for tensor, users in self.chips.values() if users[0][1].row is row]

    def rails_of(self, row: Row) -> dict[int, int]:
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

    def name_of(self, tensor: Tensor) -> str:
        """A parameter's own name: the path to it stands above."""
        plain = "parameter" if isinstance(tensor, nn.Parameter) else "leaf"
        name = self.ran.names.get(identity(tensor), tensor.name or plain)
        return name.rpartition(".")[2]

    def home_of(self, row: Row) -> str:
        """Where in the module the parameters of a row live, when that is one place."""
        names = (self.ran.names.get(identity(t)) for t in self.chips_of(row))
        paths = {name.rpartition(".")[0] for name in names if name is not None}
        return paths.pop() if len(paths) == 1 else ""

    def _title(self, box: Box) -> str:
        depth = len(box.row.scope) + (box.step is not None)
        within = {recorded(op).scope[depth : depth + 1] for op in box.ops}
        scope = box.row.scope + (within.pop() if len(within) == 1 else ())
        module = self.ran.modules.get((scope[0], ".".join(scope[1:]))) if scope else None
        if isinstance(module, nn.Recurrent):
            if box.step is None:  # what the layer does itself, to all of its steps at once
                return short(", ".join(sign(op, {}) for op in box.ops))
            module = module.cell
        if module is None:
            named = [part for part in scope if part != "cell"]
            return short(named[-1] if named else ", ".join(sign(op, {}) for op in box.ops))
        if box.step is None and any(m is not module for _, m in module.named_modules()):
            return short(", ".join(sign(op, {}) for op in box.ops))  # what a container does itself
        whole = repr(module)
        says_more = box.step is None and "\n" not in whole and not list(module.parameters())
        return short(whole if says_more else type(module).__name__)

    def given(self, sources: list[Source]) -> list[tuple[Source, int | None]]:
        """Those of some values that are shown, and in which column."""
        found = []
        boxes: set[Box] = set()
        # Where one column stands for all steps, what is made in others comes out of it, too.
        stands = (stand for source in sources if (stand := self.stand_in(source)))
        others = list({stand.key: stand for stand in stands}.values())
        for source in [*sources, *others]:
            maker = self.line.maker(source.tensor)
            if maker is None or (source in others and maker in boxes):
                continue
            step = maker.step if source.step is None else source.step
            if step is None:  # a layer on all steps at once, or on what is above one of them
                step = self.step_below(maker)
                if self.rolled and step not in self.column:
                    step = None
            if step is None or step in self.column:
                found.append((source, step))
                boxes.add(maker)
        return found

    def each(self, sources: list[Source]) -> bool:
        """Is a value one of each step, and written with its number?"""
        return len(sources) > 1 or self.columns.steps == 1

    def step_below(self, box: Box) -> int | None:
        """The one step that everything comes from that a layer between, and those below it, work
        on; `None` where they work on several.
        """
        if box in self._below:
            return self._below[box]
        steps: set[int | None] = set()
        seen, left = {box}, [box]
        while left:
            for _, source in self.line.inputs(left.pop()):
                maker = self.line.box.get(identity(source.tensor))
                if maker is None:
                    continue
                if source.step is not None or maker.step is not None:
                    steps.add(maker.step if source.step is None else source.step)
                elif maker not in seen:
                    seen.add(maker)
                    left.append(maker)
        self._below[box] = steps.pop() if len(steps) == 1 else None
        return self._below[box]

    def stand_in(self, source: Source) -> Source | None:
        """At level "layer", for a value of a step that is not shown: that of the step which is."""
        scope = self.line.hidden(source.tensor) if self.rolled else None
        if scope is None:
            return None
        was = self.line.box.get(identity(source.tensor))
        for row in self.line.rows:
            if row.scope == scope and row.recurrent and was in (None, *row.read.values()):
                (box,) = row.boxes.values()
                made = (i for slot in row.slots if (i := slot.made_in(box)) is not None)
                return Source(box.ops[next(made, -1)], None)
        return None

    def step_shape(self, source: Source) -> str:
        """The shape of a value, of one step where it holds all."""
        shape = source.tensor.shape
        axis = self.line.axes.get(identity(source.tensor), self.ran.time_axis)
        if source.step is not None and len(shape) > axis:
            shape = shape[:axis] + shape[axis + 1 :]
        return shape_text(shape, self.ran.batch)

    def input_shape(self, source: Source) -> str:
        """The shape of x of one step, from the sequence it is part of or as it is."""
        if identity(source.tensor) in self.line.of_one_step:
            return shape_text(source.tensor.shape, self.ran.batch)
        return self.step_shape(source)

    # -- how large, and where --------------------------------------------------------------------

    def _measure(self, box: Box) -> Place:
        name = f"r{self.row_number[box.row]}"
        title = self._title(box)
        if box.step is None:
            return Place(box, name, title, 0.0, BAND)
        name += f"t{self.columns.number[box.step]}"
        if box.step in self.columns.slim:
            return Place(box, name, "", SLIM, 48.0, slim=True)
        if not self.opened:
            more = 20.0 * max(0, len(box.row.slots) - 2)
            return Place(box, name, title, max(width(title, 12) + 26, 84.0), 48.0 + more)
        inside = self._open(box)
        wide = max(inside.layout.width + 28, width(title, 10) + 24)
        return Place(box, name, title, wide, inside.layout.height + 22, inside=inside)

    def _open(self, box: Box) -> Inside:
        """Label the ops of a box and lay them out."""
        slots = {i: slot for slot in box.row.slots if (i := slot.made_in(box)) is not None}
        carried = self.carried_into(box)
        ops: dict[int, Op] = {}
        edges: list[tuple[Any, Any]] = []
        for i, op in enumerate(box.ops):
            folded: dict[int, str] = {}
            uses_parameter = False
            for n, x in enumerate(numbers(recorded(op))):
                for source in self.line.sources[identity(x)]:
                    key = identity(source.tensor)
                    if key in box.position:
                        edges.append((box.position[key], i))
                    elif key in self.chips:
                        folded[n] = self.name_of(source.tensor)
                        uses_parameter = True
                    elif any(source.key == s.key for s, _, _ in carried):
                        pass
                    elif self.line.hidden(source.tensor) is not None:
                        edges.append((port(source), i))
                    elif source.tensor.node is None and not self.is_input(source):
                        folded[n] = self.starts.get(key) or constant_text(source.tensor, op)
                    else:
                        edges.append((port(source), i))
            edges += [(port(source), i) for source in self.line.lookups.get(identity(op), ())]
            if i in slots:
                name = self.called(slots[i].name, self.number(box))
            else:
                name = self.ran.called.get(identity(op), (op, ""))[1]
            ops[i] = shown(op, sign(op, folded), name, uses_parameter)
            if (box.row, len(box.ops), i) in self.exits:
                edges.append((i, ("out", i)))
        between = [(a, b) for a, b in edges if isinstance(a, int) and isinstance(b, int)]
        kinds = {i: node.op.name for i, op in enumerate(box.ops) if (node := recorded(op)).op}
        names = {i: op.name for i, op in ops.items() if op.name}
        gates = find_gates(kinds, between, names, slots)
        colours = dict(
            zip(dict.fromkeys(gates[i] for i in sorted(gates)), style.GATES, strict=False)
        )
        for i, gate in gates.items():
            ops[i].gate = gate
            ops[i].look = ops[i].look | {"fillcolor": colours.get(gate, "white")}
        takes = {box.position[identity(op)] for _, op, _ in carried}
        ends = (set(slots), takes) if box.row.reverse else (takes, set(slots))
        return lay_out(ops, edges, *ends)

    def number(self, box: Box) -> int:
        """The step of a box as it is written."""
        assert box.step is not None
        return self.columns.number[box.step]

    def carried_into(self, box: Box) -> list[tuple[Source, Tensor, Slot | None]]:
        """What a step takes from the step before or, at first, from the initial state.

        As (value, op, slot); no slot stands for what comes from further back in the same row.
        """
        row = box.row
        before = row.read.get(box.step - row.way) if box.step is not None else None
        is_first = next(iter(row.read.values()), None) is box
        found: list[tuple[Source, Tensor, Slot | None]] = []
        for op in box.ops:
            for i, x in enumerate(numbers(recorded(op))):
                for source in self.line.sources[identity(x)]:
                    maker = self.line.box.get(identity(source.tensor))
                    if maker is box:
                        continue
                    if maker is not None and maker is before:
                        position = maker.position[identity(source.tensor)]
                        made = (s for s in row.slots if s.made_in(maker) == position)
                        slot = next(made, None)
                        found.append((source, op, slot))
                    elif maker is not None and maker.row is row:
                        found.append((source, op, None))
                    elif is_first:
                        starts = (s for s in row.slots if s.start and s.start.key == source.key)
                        found += [(source, op, slot) for slot in starts]
                    elif maker is None and (
                        taken := row.takes.get((len(box.ops), box.position[identity(op)], i))
                    ):
                        found.append((source, op, taken))  # its maker was passed over
                    elif self.line.skipped.get(identity(source.tensor)) == row.scope:
                        found.append((source, op, None))
        return found

    def _arrange(self) -> None:
        """Columns left to right, rows bottom to top."""
        columns = [place for place in self.places.values() if place.box.step is not None]
        recurrent = [row for row in self.line.rows if row.recurrent]
        slots = max(len(row.slots) for row in recurrent)
        longest = max(
            (width(self.called(slot.name, n), 14) for row in recurrent for slot in row.slots
             for n in self.columns.number.values()), default=0.0,
        )  # fmt: skip
        self.gutter = longest + (18 + 12.0 * slots if self.opened else 34)
        before = max(self.gutter + max(longest, 30.0), self.gutter + self._start_width() - 4)
        if self.rolled:
            before = 2 * LOOP + 60 if any(row.reverse for row in recurrent) else 104
        self.wide = max(place.w for place in columns)
        texts = [self.chip_text(t) for row in self.line.rows for t in self.chips_of(row)]
        self.chip_width = max((width(text, 10) + 12 for text in texts), default=0.0)
        self.trunk = self.chip_width + 10
        self.rails = {row: self.rails_of(row) for row in recurrent}
        more = {row: RAIL_GAP * max(rails.values(), default=0) for row, rails in self.rails.items()}
        self._place_columns(self.trunk + 8 + max(more.values()) + before)
        lower = [one for one in self.inputs if one.row is self.line.rows[0]] or self.inputs[:1]
        for n, one in enumerate(lower):
            one.bottom = -n * (VALUE + 14)
        y = VALUE
        for row in self.line.rows:
            for one in self.inputs:
                if one.row is row and one not in lower:  # it is written right below the row
                    one.bottom = y + AIR
                    y += AIR + VALUE
            places = [self.places[box] for box in row.boxes.values()]
            chips = self.chips_of(row)
            below = 2 * RAIL + 2 + more[row] if row.recurrent and chips else AIR
            high = max(place.h for place in places)
            stack = len(chips) * (CHIP + CHIP_GAP) + (12 if self.home_of(row) else 0)
            half = max(high, stack) / 2
            y += below + half
            for place in places:
                place.y, place.h = y, high
                if place.box.step is None:
                    place.w, place.x = self.right - self.left, (self.left + self.right) / 2
                else:
                    place.w = SLIM if place.slim else self.wide
                    place.x = self.column[place.box.step]
                if place.inside is not None:
                    layout = place.inside.layout
                    place.inside.x = place.x - layout.width / 2
                    place.inside.y = place.bottom + (high - 14 - layout.height) / 2
            y += half
        self.ceiling = y + AIR

    def _start_width(self) -> float:
        """How far an initial state, written with its shape, reaches out from its middle."""
        return max(
            (
                width(self.called(slot.name, 0), 16) / 2
                + width(shape_text(slot.start.tensor.shape, self.ran.batch), 8)
                for row in self.line.rows
                for slot in row.slots
                if slot.start is not None
            ),
            default=0.0,
        )

    def _place_columns(self, left: float) -> None:
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

    def chip_text(self, tensor: Tensor) -> str:
        batch = None if isinstance(tensor, nn.Parameter) else self.ran.batch
        row = self.chips[identity(tensor)][1][0][1].row
        name = self.name_of(tensor)
        if not self.home_of(row):  # then nothing above says whose it is
            name = self.ran.names.get(identity(tensor), name)
        return f"{short(name)}  {shape_text(tensor.shape, batch)}"

    def full_name(self, tensor: Tensor) -> str:
        """A parameter's name, with the path to it where two parameters have the same."""
        names = [self.name_of(other) for other, _ in self.chips.values()]
        name = self.name_of(tensor)
        return name if len(set(names)) == len(names) else self.ran.names.get(identity(tensor), name)
