"""Where everything in an unrolled picture lies: steps in columns, layers in rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tinyseq import nn
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from .inside import Inside, Op, lay_out, port, shown
from .running import Run
from .timeline import Box, Row, Slot, Source, recorded
from .wording import constant_text, shape_text, short, sign, step_name, width

# Distances, in points.
CHIP, CHIP_GAP = 18.0, 4.0  # a parameter's height, and what is left between two
RAIL = 17.0  # below a row: the line that hands its parameters to every step
BAND = 28.0  # the height of a layer that works on all steps at once
VALUE = 34.0  # the height of x or y with its shape
AIR = 24.0  # between rows


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


def step_number(box: Box) -> int:
    """The step as it is written: from 1, as in the notes."""
    assert box.step is not None
    return box.step + 1


class Sheet:
    """Everything that is drawn, measured and placed; y goes up."""

    def __init__(self, ran: Run, opened: bool) -> None:
        self.ran = ran
        self.line = ran.line
        self.opened = opened
        self.time_axis = 1 if getattr(ran.module, "batch_first", False) else 0
        self.modules = dict(ran.module.named_modules())
        self.row_number = {row: i for i, row in enumerate(self.line.rows)}
        self.starts = {
            identity(slot.start.tensor): step_name(slot.name, self._startstep_number(row))
            for row in self.line.rows
            for slot in row.slots
            if slot.start
        }
        self.shown_above = self._find_shown_above()
        self.chips = self._find_chips()
        self.places = {box: self._measure(box) for box in self.boxes()}
        self._arrange()

    # -- what there is ---------------------------------------------------------------------------

    def boxes(self) -> Iterator[Box]:
        return (box for row in self.line.rows for box in row.boxes.values())

    def _find_shown_above(self) -> set[int]:
        """Ids of the values that leave their box upwards: to another row, or as an output."""
        ids = {identity(source.tensor) for _, found in self.line.outputs for source in found}
        for box in self.boxes():
            for _, source in self.line.inputs(box):
                maker = self.line.box.get(identity(source.tensor))
                if maker is not None and maker.row is not box.row:
                    ids.add(identity(source.tensor))
        return ids

    def _find_chips(self) -> dict[int, tuple[Tensor, list[tuple[Tensor, Box]]]]:
        """Parameters, and constants that belong to the module: each with the ops that use it."""
        chips: dict[int, tuple[Tensor, list[tuple[Tensor, Box]]]] = {}
        for box in self.boxes():
            for op, source in self.line.inputs(box):
                tensor = source.tensor
                belongs = identity(tensor) in self.ran.names or tensor.requires_grad
                is_value = tensor is self.ran.x or identity(tensor) in self.starts
                if tensor.node is None and belongs and not is_value:
                    chips.setdefault(identity(tensor), (tensor, []))[1].append((op, box))
        return chips

    def chips_of(self, row: Row) -> list[Tensor]:
        """What is drawn beside a row: the parameters that it is the first to use."""
        return [tensor for tensor, users in self.chips.values() if users[0][1].row is row]

    def name_of(self, tensor: Tensor) -> str:
        """A parameter's own name: the path to it stands above."""
        name = self.ran.names.get(identity(tensor), tensor.name or "initial state")
        return name.rpartition(".")[2]

    def home_of(self, row: Row) -> str:
        """Where in the module the parameters of a row live, when that is one place."""
        paths = {self.ran.names.get(identity(t), "").rpartition(".")[0] for t in self.chips_of(row)}
        return paths.pop() if len(paths) == 1 else ""

    def _title(self, box: Box) -> str:
        depth = len(box.row.scope) + (box.step is not None)
        within = {recorded(op).scope[depth : depth + 1] for op in box.ops}
        scope = box.row.scope + (within.pop() if len(within) == 1 else ())
        module = self.modules.get(".".join(scope[1:]))
        if isinstance(module, nn.Recurrent):
            module = module.cell
        if module is None:
            return short(scope[-1]) if scope else ""
        if box.step is None and any(m is not module for _, m in module.named_modules()):
            return short(", ".join(sign(op, {}) for op in box.ops))  # what a container does itself
        whole = repr(module)
        says_more = box.step is None and "\n" not in whole and not list(module.parameters())
        return short(whole if says_more else type(module).__name__)

    # -- how large, and where --------------------------------------------------------------------

    def _measure(self, box: Box) -> Place:
        name = f"r{self.row_number[box.row]}"
        title = self._title(box)
        if box.step is None:
            return Place(box, name, title, 0.0, BAND)
        name += f"t{box.step + 1}"
        if not self.opened:
            more = 20.0 * max(0, len(box.row.slots) - 2)
            return Place(box, name, title, max(width(title, 12) + 26, 84.0), 48.0 + more)
        inside = self._open(box)
        wide = max(inside.layout.width + 28, width(title, 10) + 24)
        return Place(box, name, title, wide, inside.layout.height + 22, inside=inside)

    def _open(self, box: Box) -> Inside:
        """Label the ops of a box and lay them out."""
        slots = {slot.position: slot for slot in box.row.slots}
        carried = self.carried_into(box)
        ops: dict[int, Op] = {}
        edges: list[tuple[Any, Any]] = []
        for i, op in enumerate(box.ops):
            folded: dict[int, str] = {}
            uses_parameter = False
            for n, x in enumerate(recorded(op).inputs):
                for source in self.line.sources[identity(x)]:
                    key = identity(source.tensor)
                    if key in box.position:
                        edges.append((box.position[key], i))
                    elif key in self.chips:
                        folded[n] = self.name_of(source.tensor)
                        uses_parameter = True
                    elif any(source.key == s.key for s, _, _ in carried):
                        pass
                    elif source.tensor.node is None and source.tensor is not self.ran.x:
                        folded[n] = self.starts.get(key) or constant_text(source.tensor)
                    else:
                        edges.append((port(source), i))
            edges += [(port(source), i) for source in self.line.lookups.get(identity(op), ())]
            if i in slots:
                name = step_name(slots[i].name, step_number(box))
            else:
                name = self.ran.called.get(identity(op), (op, ""))[1]
            ops[i] = shown(op, sign(op, folded), name, uses_parameter)
            if identity(op) in self.shown_above:
                edges.append((i, ("out", i)))
        takes = {box.position[identity(op)] for _, op, _ in carried}
        ends = (set(slots), takes) if box.row.reverse else (takes, set(slots))
        return lay_out(ops, edges, *ends)

    def carried_into(self, box: Box) -> list[tuple[Source, Tensor, Slot | None]]:
        """What a step takes from the step before or, at first, from the initial state.

        As (value, op, slot); no slot stands for what comes from further back in the same row.
        """
        boxes = list(box.row.boxes.values())
        i = boxes.index(box)
        found: list[tuple[Source, Tensor, Slot | None]] = []
        for op, source in self.line.inputs(box):
            maker = self.line.box.get(identity(source.tensor))
            if i and maker is boxes[i - 1]:
                position = maker.position[identity(source.tensor)]
                found.append((source, op, next(s for s in box.row.slots if s.position == position)))
            elif maker is not None and maker.row is box.row:
                found.append((source, op, None))
            elif i == 0:
                starts = (s for s in box.row.slots if s.start and s.start.key == source.key)
                found += [(source, op, slot) for slot in starts]
        return found

    def _arrange(self) -> None:
        """Columns left to right, rows bottom to top."""
        columns = [place for place in self.places.values() if place.box.step is not None]
        slots = max(len(row.slots) for row in self.line.rows if row.recurrent)
        self.gutter = 44.0 + 12.0 * slots if self.opened else 58.0
        self.wide = max(place.w for place in columns)
        texts = [self.chip_text(tensor) for tensor, _ in self.chips.values()]
        self.chip_width = max((width(text, 10) + 12 for text in texts), default=0.0)
        self.trunk = self.chip_width + 10
        first = self.trunk + 34 + self.gutter + self.wide / 2
        self.column = [first + t * (self.wide + self.gutter) for t in range(self.line.steps)]
        self.left, self.right = self.column[0] - self.wide / 2, self.column[-1] + self.wide / 2
        y = VALUE
        for row in self.line.rows:
            places = [self.places[box] for box in row.boxes.values()]
            chips = self.chips_of(row)
            below = 2 * RAIL + 2 if row.recurrent and chips else AIR
            high = max(place.h for place in places)
            stack = len(chips) * (CHIP + CHIP_GAP) + (12 if self.home_of(row) else 0)
            half = max(high, stack) / 2
            y += below + half
            for place in places:
                place.y, place.h = y, high
                if place.box.step is None:
                    place.w, place.x = self.right - self.left, (self.left + self.right) / 2
                else:
                    place.w, place.x = self.wide, self.column[place.box.step]
                if place.inside is not None:
                    layout = place.inside.layout
                    place.inside.x = place.x - layout.width / 2
                    place.inside.y = place.bottom + (high - 14 - layout.height) / 2
            y += half
        self.ceiling = y + AIR

    def chip_text(self, tensor: Tensor) -> str:
        batch = None if isinstance(tensor, nn.Parameter) else self.ran.batch
        return f"{short(self.name_of(tensor))}  {shape_text(tensor.shape, batch)}"

    def _startstep_number(self, row: Row) -> int:
        return step_number(next(iter(row.boxes.values()))) - (-1 if row.reverse else 1)
