"""What an unrolled picture holds, and what each thing in it is called."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Mapping

from tinyseq import nn
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from .ends import find_inputs, find_loss
from .labels import shape_text, short, sign, step_name
from .running import Run
from .timeline import Box, Row, Source, recorded


class Contents:
    """The rows of a timeline, the parameters they use, what goes in and what comes out."""

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
        self.loss = find_loss(self.line)
        if self.loss is not None:  # it is drawn above the rows
            self.line.rows.remove(self.loss.box.row)
        self.inputs = find_inputs(self.line, set(self.columns.shown))
        self.exits = self._find_exits()
        self.chips = self._find_chips()

    # -- values and their names ------------------------------------------------------------------

    def called(self, name: str, number: int | None, back: int = 0) -> str:
        """A value of one step (or so many before) as it is written: h⟨3⟩, and of any step where
        there is one box.
        """
        name = self.names.get(name, name)
        if self.rolled:
            return f"{name}⟨t−{back}⟩" if back else f"{name}⟨t⟩"
        return name if number is None else step_name(name, number - back)

    @property
    def shortened(self) -> bool:
        """Has the run fewer steps than the picture, as an example?"""
        return self.columns.steps != self.line.steps

    def left_out(self, row: Row) -> dict[int, int]:
        """How many steps of a row are left out before the n-th column: it may end among them."""
        shown = self.columns.shown
        gaps = Counter(bisect(shown, t) for t in row.order() if t not in shown)
        return {n: self.columns.gaps[n] if self.shortened else gaps[n] for n in gaps}

    def start_number(self, row: Row) -> int:
        """The step, as it is written, before the first of a row."""
        if self.shortened or not row.runs:
            return self.columns.steps + 1 if row.reverse else 0
        begin, end = row.runs[0]
        return end + 1 if row.reverse else begin

    def end_number(self, row: Row) -> int:
        """The step, as it is written, that a row comes to last."""
        if self.shortened:
            return 1 if row.reverse else self.columns.steps
        begin, end = row.runs[-1]
        return begin + 1 if row.reverse else end

    def number_before(self, box: Box) -> int:
        """The step, as it is written, that ran before that of a box."""
        assert box.step is not None
        row = box.row
        at_seam = box.step in row.boxes and abs(row.before(box.step) - box.step) > 1
        return row.before(box.step) + 1 if at_seam else self.number(box) - row.way

    def number(self, box: Box) -> int:
        """The step of a box as it is written."""
        assert box.step is not None
        return self.columns.number[box.step]

    def given(self, sources: list[Source]) -> list[tuple[Source, int | None]]:
        """Those of some values that are shown, and in which column."""
        found = []
        boxes: set[Box] = set()
        late: dict[Box, Source] = {}
        # Where one column stands for all steps, what is made in others comes out of it, too.
        stands = (stand for source in sources if (stand := self.stand_in(source)))
        others = list({stand.key: stand for stand in stands}.values())
        for source in [*sources, *others]:
            maker = self.line.maker(source.tensor)
            if maker is None or (source in others and maker in boxes):
                continue
            step = maker.step if source.step is None else source.step
            if step is None:  # a layer on all steps at once, or on what is above one of them
                step = self.line.step_below(maker)
                if self.rolled and step not in self.columns.number:
                    step = None
            if step is None or step in self.columns.number:
                found.append((source, step))
                boxes.add(maker)
            elif maker.step is None:
                late.setdefault(maker, source)
        # What a layer on all steps gives at steps that are not shown comes out of it, too.
        return [*found, *((s, None) for maker, s in late.items() if maker not in boxes)]

    def each(self, sources: list[Source]) -> bool:
        """Is a value one of each step, and written with its number?"""
        return len(sources) > 1 or self.columns.steps == 1

    def stand_in(self, source: Source) -> Source | None:
        """At level "layer", for a value of a step that is not shown: that of the step which is."""
        lane = self.line.hidden(source.tensor) if self.rolled else None
        if lane is None:
            return None
        was = self.line.box.get(identity(source.tensor))
        for row in self.line.rows:
            if row.lane == lane and row.recurrent and was in (None, *row.read.values()):
                (box,) = row.boxes.values()
                made = (i for slot in row.slots if (i := slot.made_in(box)) is not None)
                return Source(box.ops[next(made, -1)], None)
        return None

    def shape_of(self, tensor: Tensor) -> str:
        """The shape of a value, with B for the batch."""
        return shape_text(tensor.shape, self.ran.batch)

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
            return self.shape_of(source.tensor)
        return self.step_shape(source)

    # -- parameters and boxes --------------------------------------------------------------------

    def _find_exits(self) -> set[tuple[Row, int, int]]:
        """The ops, by row and position among so many, whose value leaves the box upwards in some
        step: to another row, or as an output. There is a way out for them in every step, so that
        all look alike.
        """
        ids = {identity(source.tensor) for _, found in self.line.outputs for source in found}
        for box in self.line.boxes():
            for _, source in self.line.inputs(box):
                maker = self.line.maker(source.tensor)
                if maker is not None and maker.row is not box.row:
                    ids.add(identity(source.tensor))
        ids |= {identity(source.tensor) for source in self.loss.sources} if self.loss else set()
        return {
            (box.row, len(box.ops), i)
            for box in self.line.boxes()
            for i, op in enumerate(box.ops)
            if identity(op) in ids
        }

    def _find_chips(self) -> dict[int, tuple[Tensor, list[tuple[Tensor, Box]]]]:
        """Parameters, and constants that belong to the module: each with the ops that use it."""
        chips: dict[int, tuple[Tensor, list[tuple[Tensor, Box]]]] = {}
        for box in self.line.boxes():
            for op, source in self.line.inputs(box):
                tensor = source.tensor
                belongs = identity(tensor) in self.ran.names or tensor.requires_grad
                is_value = source.is_input or identity(tensor) in self.starts
                if tensor.node is None and belongs and not is_value:
                    chips.setdefault(identity(tensor), (tensor, []))[1].append((op, box))
        return chips

    def chips_of(self, row: Row) -> list[Tensor]:
        """What is drawn beside a row: the parameters that it is the first to use."""
        return [tensor for tensor, users in self.chips.values() if users[0][1].row is row]

    def name_of(self, tensor: Tensor) -> str:
        """A parameter's own name: the path to it stands above."""
        plain = "parameter" if isinstance(tensor, nn.Parameter) else "leaf"
        name = self.ran.names.get(identity(tensor), tensor.name or plain)
        return name.rpartition(".")[2]

    def path_of(self, tensor: Tensor) -> str:
        """The dotted path to a parameter, or else its own name."""
        return self.ran.names.get(identity(tensor), self.name_of(tensor))

    def home_of(self, row: Row) -> str:
        """Where in the module the parameters of a row live, when that is one place."""
        names = (self.ran.names.get(identity(t)) for t in self.chips_of(row))
        paths = {name.rpartition(".")[0] for name in names if name is not None}
        return paths.pop() if len(paths) == 1 else ""

    def chip_text(self, tensor: Tensor) -> str:
        batch = None if isinstance(tensor, nn.Parameter) else self.ran.batch
        row = self.chips[identity(tensor)][1][0][1].row
        name = self.name_of(tensor)
        if not self.home_of(row):  # then nothing above says whose it is
            name = self.path_of(tensor)
        return f"{short(name)}  {shape_text(tensor.shape, batch)}"

    def full_name(self, tensor: Tensor) -> str:
        """A parameter's name, with the path to it where two parameters have the same."""
        names = [self.name_of(other) for other, _ in self.chips.values()]
        name = self.name_of(tensor)
        return name if len(set(names)) == len(names) else self.path_of(tensor)

    def title_of(self, box: Box) -> str:
        """What a box is: its module, or what it does itself."""
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
