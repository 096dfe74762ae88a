"""What an unrolled picture holds, and what each thing in it is called."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Collection, Mapping

from tinyseq import nn
from tinyseq.errors import listed
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from .calls import Scope
from .ends import find_inputs, find_loss, find_turn
from .indices import numbers
from .labels import shape_text, short, sign, step_name
from .rows import levels
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
        self.names = names  # what to call values and parameters instead
        self.row_number = {row: i for i, row in enumerate(self.line.rows)}
        self.level = levels(self.line)
        self.arrow = self._find_arrows()
        self.starts = {
            identity(slot.start.tensor): self.called(slot.name, self.start_number(row), row=row)
            for row in self.line.rows
            for slot in row.slots
            if slot.start
        }
        self.loss = find_loss(self.line)
        if self.loss is not None:  # it is drawn above the rows
            self.line.rows.remove(self.loss.box.row)
        self.turn = find_turn(self.line, self.loss)
        self.inputs = find_inputs(self.line, set(self.columns.shown), self.turn)
        self.exits, self.handed_on = self._find_exits()
        self.chips = self._find_chips()

    # -- values and their names ------------------------------------------------------------------

    def called(
        self,
        name: str,
        number: int | None,
        back: int = 0,
        row: Row | None = None,
        given: bool = False,
    ) -> str:
        """A value of one step (or so many before) as it is written: h⟨3⟩, and of any step where
        there is one box. A state of ``row`` says its direction and layer where there are several:
        ←h[2]⟨3⟩. What a decoder is ``given``, y, keeps its name, which is not that of the output.
        """
        name = name if given and name == "y" else self.named(name, row)
        if self.rolled:
            return f"{name}⟨t−{back}⟩" if back else f"{name}⟨t⟩"
        return name if number is None else step_name(name, number - back)

    def named(self, name: str, row: Row | None = None) -> str:
        """The same of no step."""
        name = self.names.get(name, name)
        level = "" if row is None or row not in self.level else f"[{self.level[row]}]"
        return name if row is None else f"{self.arrow.get(row, '')}{name}{level}"

    def _find_arrows(self) -> dict[Row, str]:
        """The direction of rows that lie beside others of the other direction."""
        ways: dict[Scope, set[bool]] = {}
        recurrent = [row for row in self.line.rows if row.recurrent]
        for row in recurrent:
            ways.setdefault(row.scope[:-1], set()).add(row.reverse)
        both = (row for row in recurrent if len(ways[row.scope[:-1]]) == 2)
        return {row: "←" if row.reverse else "→" for row in both}

    def check_names(self) -> None:
        """Raise `ValueError` for a name to replace that nothing has."""
        plain = [self.line.outputs[0][0].name or "y", "x"]
        values = [slot.name for row in self.line.rows for slot in row.slots]
        values += [one.name for one in self.inputs] + ["ŷ", "L"] * (self.loss is not None)
        code = [name for _, name in self.ran.called.values()]
        paths = [*self.ran.names.values(), *(self.path_of(t) for t, _ in self.chips.values())]
        known = dict.fromkeys([*plain, *values, *code, *(p.rpartition(".")[2] for p in paths)])
        if unknown := [n for n in self.names if n not in known and n not in (*paths, "y")]:
            raise ValueError(
                f"names: nothing is called {listed(map(repr, unknown))}. Rename one of "
                f"{listed(known, most=24)}, or one parameter by its path, such as 'head.weight'."
            )

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

    def output_number(self, number: int | None) -> int | None:
        """The same for what comes out: a decoder in one loop with its encoder begins with 1."""
        return None if number is None else number - (self.turn or 0)

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

    def _find_exits(self) -> tuple[set[tuple[Row, int, int]], set[tuple[Row, int, int]]]:
        """The ops, by row and position among so many, whose value leaves the box upwards in some
        step: to another row, or as an output. There is a way out for them in every step, so that
        all look alike. And those with them whose value other steps take.
        """
        ids = {identity(source.tensor) for _, found in self.line.outputs for source in found}
        within: set[int] = set()
        for box in self.line.boxes():
            for _, source in self.line.inputs(box):
                maker = self.line.maker(source.tensor)
                if maker is not None:
                    (within if maker.row is box.row else ids).add(identity(source.tensor))
        ids |= {identity(source.tensor) for source in self.loss.sources} if self.loss else set()

        def places(ids: Collection[int]) -> set[tuple[Row, int, int]]:
            return {
                (box.row, len(box.ops), i)
                for box in self.line.boxes()
                for i, op in enumerate(box.ops)
                if identity(op) in ids
            }

        return places(ids), places(ids | within)

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
        own = self.path_of(tensor).rpartition(".")[2]
        return self.renamed(tensor) or own

    def path_of(self, tensor: Tensor) -> str:
        """The dotted path to a parameter, or else its own name."""
        plain = "parameter" if isinstance(tensor, nn.Parameter) else "leaf"
        return self.ran.names.get(identity(tensor), tensor.name or plain)

    def renamed(self, tensor: Tensor) -> str | None:
        """What to call a parameter instead, by its path or by its own name."""
        path = self.path_of(tensor)
        return self.names.get(path, self.names.get(path.rpartition(".")[2]))

    def home_of(self, row: Row) -> str:
        """Where in the module the parameters of a row live, when that is one place."""
        names = (self.ran.names.get(identity(t)) for t in self.chips_of(row))
        paths = {name.rpartition(".")[0] for name in names if name is not None}
        return paths.pop() if len(paths) == 1 else ""

    def code_name(self, op: Tensor) -> str:
        """What the cell's code calls a value."""
        return self.ran.called.get(identity(op), (op, ""))[1]

    def joined(self, op: Tensor, box: Box) -> str:
        """What a concatenation joins, as the notes write it: [a⟨0⟩, x⟨1⟩], and where one box joins
        it for all steps [→a⟨t⟩, ←a⟨t⟩]; nothing where no part has a name.
        """
        node = recorded(op)
        if node.op is None or node.op.name != "concat":
            return ""
        texts = []
        for x in numbers(node):
            found = {self._text_of(source, box) for source in self.line.sources[identity(x)]} - {""}
            texts.append(found.pop() if len(found) == 1 else "·")
        return f"[{', '.join(texts)}]" if set(texts) != {"·"} else ""

    def _text_of(self, source: Source, box: Box) -> str:
        """A value that a box takes, by its name, if it has one."""
        key = identity(source.tensor)
        maker = self.line.box.get(key)
        if key in self.starts and box.step is not None:
            return self.starts[key]
        if maker is box:
            return self.names.get(self.code_name(source.tensor), self.code_name(source.tensor))
        name, back = "", 0
        if maker is not None and maker.step is not None:
            made = (s for s in maker.row.slots if s.made_in(maker) == maker.position[key])
            if slot := next(made, None):
                name = self.named(slot.name, maker.row)
                back = maker.row.way if maker.row is box.row else 0
        for one in self.inputs:
            if any(source.key == s.key for taken in one.takers.values() for _, _, s in taken):
                name, back = self.named(one.name), one.back
        if not name or box.step is None:
            return name and f"{name}⟨t⟩"
        return step_name(name, self.number(box) - back)

    def chip_text(self, tensor: Tensor) -> str:
        batch = None if isinstance(tensor, nn.Parameter) else self.ran.batch
        row = self.chips[identity(tensor)][1][0][1].row
        name = self.name_of(tensor)
        if not self.home_of(row):  # then nothing above says whose it is
            name = self.renamed(tensor) or self.path_of(tensor)
        return f"{short(name)}  {shape_text(tensor.shape, batch)}"

    def full_name(self, tensor: Tensor) -> str:
        """A parameter's name, with the path to it where two parameters have the same."""
        names = [self.name_of(other) for other, _ in self.chips.values()]
        name = self.name_of(tensor)
        return name if names.count(name) == 1 else self.path_of(tensor)

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
        if box.step is None and len(box.ops) == 1 and (text := self.joined(box.ops[0], box)):
            return text
        if module is None:
            named = [part for part in scope if part != "cell"]
            return short(named[-1] if named else ", ".join(sign(op, {}) for op in box.ops))
        if box.step is None and any(m is not module for _, m in module.named_modules()):
            return short(", ".join(sign(op, {}) for op in box.ops))  # what a container does itself
        whole = repr(module)
        says_more = box.step is None and "\n" not in whole and not list(module.parameters())
        return short(whole if says_more else type(module).__name__)
