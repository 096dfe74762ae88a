"""What there is to draw of a recurrence: a row a recurrent layer (or what lies between two), a
column a step. `reading.read` makes it from a recording.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinyseq import graph
from tinyseq.graph import identity
from tinyseq.nn import Parameter
from tinyseq.tensor import Tensor

from .calls import Calls, Lane, Scope
from .indices import numbers


@dataclass(frozen=True, eq=False)
class Source:
    """Where a value comes from: a leaf or an op's result, and which step of it when it holds all
    steps.
    """

    tensor: Tensor
    step: int | None

    @property
    def key(self) -> tuple[int, int | None]:
        return identity(self.tensor), self.step

    @property
    def is_input(self) -> bool:
        """Is it x of one step?"""
        given = self.tensor.node is None and not isinstance(self.tensor, Parameter)
        return given and self.step is not None


@dataclass(eq=False)
class Box:
    """The ops of one row in one step; of a whole row when ``step`` is `None`, for it works on all
    steps at once.
    """

    row: Row
    step: int | None
    ops: list[Tensor] = field(default_factory=list)  # inputs first
    position: dict[int, int] = field(default_factory=dict)  # of each op in ``ops``, by id

    def add(self, op: Tensor) -> None:
        self.position[identity(op)] = len(self.ops)
        self.ops.append(op)


@dataclass(eq=False)
class Slot:
    """One tensor of the carried state: the ``position``-th op of each step makes it. Where steps
    differ, ``places`` says which op it is in a step of so many ops.
    """

    name: str
    position: int
    start: Source | None = None
    final: bool = False  # handed back at the end
    places: dict[int, int] = field(default_factory=dict)

    def made_in(self, box: Box) -> int | None:
        """The place of the op that makes it; `None` where a step hands on less than others."""
        return self.places.get(len(box.ops))


@dataclass(eq=False)
class Row:
    """A layer in one direction, or what lies between two: its boxes in the order they ran."""

    lane: Lane
    boxes: dict[int | None, Box] = field(default_factory=dict)  # of the steps that are shown
    slots: list[Slot] = field(default_factory=list)
    reverse: bool = False  # from the last step to the first
    read: dict[int | None, Box] = field(default_factory=dict)  # of these and of some beside them
    takes: dict[tuple[int, int, int], Slot] = field(
        default_factory=dict
    )  # by (op, input) of a step of so many ops: (ops, op, input)
    runs: list[tuple[int, int]] = field(default_factory=list)  # the columns of each call

    @property
    def scope(self) -> Scope:
        """The path of the layer."""
        return self.lane.scope

    @property
    def recurrent(self) -> bool:
        return None not in self.boxes

    @property
    def way(self) -> int:
        """The direction in which the row runs in the picture."""
        return -1 if self.reverse else 1

    def order(self) -> Iterator[int]:
        """All of its steps, as they ran: call after call, each in the row's direction."""
        return (t for begin, end in self.runs for t in range(begin, end)[:: self.way])

    def run_of(self, step: int) -> tuple[int, int]:
        """The columns of the call that a step belongs to."""
        return next(run for run in self.runs if run[0] <= step < run[1])

    def before(self, step: int) -> int:
        """The step that ran before this one; that of no row, if it was the first."""
        begin, end = run = self.run_of(step)
        if begin <= step - self.way < end:
            return step - self.way
        i = self.runs.index(run)
        if i == 0:
            return -1
        begin, end = self.runs[i - 1]
        return begin if self.reverse else end - 1


@dataclass(eq=False)
class Timeline:
    """What there is to draw. ``sources[identity(tensor)]``: where each op's input really comes
    from.
    """

    rows: list[Row]  # bottom to top
    calls: Calls
    box: dict[int, Box]  # by id of the tensor made
    sources: Mapping[int, list[Source]]
    outputs: list[tuple[Tensor, list[Source]]]
    lookups: dict[int, list[Source]] = field(
        default_factory=dict
    )  # more sources of an op, by its id
    skipped: dict[int, Lane] = field(default_factory=dict)  # made in steps not read: the row's
    axes: Mapping[int, int] = field(default_factory=dict)  # of time, by the id of an input
    first: dict[int, int] = field(default_factory=dict)  # where step 0 lies along it, if not at 0
    of_one_step: set[int] = field(default_factory=set)  # ids of leaves that are x of one step each
    spans: dict[int, int] = field(default_factory=dict)  # ops on all steps, by id: on how many
    _below: dict[Box, int | None] = field(default_factory=dict)  # what `step_below` found

    @property
    def steps(self) -> int:
        """How many columns there are."""
        return self.calls.steps

    def part_of(self, source: Source) -> tuple[int, int] | None:
        """Where a value of one step lies in a tensor that holds several: (axis, index)."""
        tensor, key = source.tensor, identity(source.tensor)
        if source.step is None or tensor.ndim == 0 or key in self.of_one_step:
            return None
        index = source.step + self.first.get(key, 0)
        return self.axes.get(key, 0 if index < tensor.shape[0] else 1), index

    def columns_of(self, op: Tensor) -> range | None:
        """The columns whose steps an op on all steps made, if it made one for each."""
        key = identity(op)
        begin = -self.first.get(key, 0)
        return range(begin, begin + self.spans[key]) if key in self.spans else None

    def uncut(self, tensor: Tensor) -> int:
        """The identity of a value or, where it was detached, of what it was detached from."""
        key = identity(tensor)
        return self.calls.cuts.get(key, key)

    def show(self, columns: Collection[int]) -> None:
        """Of the steps that were read, these get boxes."""
        for row in self.rows:
            if row.read:
                row.boxes = {t: box for t, box in row.read.items() if t in columns}
        self.rows = [row for row in self.rows if row.boxes]

    def boxes(self) -> Iterator[Box]:
        """All that are shown, row by row from below."""
        return (box for row in self.rows for box in row.boxes.values())

    def maker(self, tensor: Tensor) -> Box | None:
        """The box that made it, if that is shown."""
        box = self.box.get(identity(tensor))
        return box if box is not None and box.row.boxes.get(box.step) is box else None

    def hidden(self, tensor: Tensor) -> Lane | None:
        """The row that made it in a step that is not shown."""
        box = self.box.get(identity(tensor))
        if box is None:
            return self.skipped.get(identity(tensor))
        return None if self.maker(tensor) else box.row.lane

    def inputs(self, box: Box) -> Iterator[tuple[Tensor, Source]]:
        """Each op of the box with each source of its inputs from outside of the box."""
        for op in box.ops:
            for x in numbers(recorded(op)):
                for source in self.sources[identity(x)]:
                    if self.box.get(identity(source.tensor)) is not box:
                        yield op, source
            for source in self.lookups.get(identity(op), ()):
                yield op, source

    def carried_into(self, box: Box) -> list[tuple[Source, Tensor, Slot | None]]:
        """What a step takes from the step before or, at first, from the initial state.

        As (value, op, slot); no slot stands for what comes from further back in the same row.
        """
        row = box.row
        before = row.read.get(row.before(box.step)) if box.step is not None else None
        is_first = next(iter(row.read.values()), None) is box
        at_seam = any(box.step in (begin, end - 1)[:: row.way][:1] for begin, end in row.runs[1:])
        found: list[tuple[Source, Tensor, Slot | None]] = []
        for op in box.ops:
            for i, x in enumerate(numbers(recorded(op))):
                for source in self.sources[identity(x)]:
                    made_as = self.uncut(source.tensor)
                    maker = self.box.get(made_as)
                    if maker is box:
                        continue
                    if maker is not None and maker is before:
                        position = maker.position[made_as]
                        made = (s for s in row.slots if s.made_in(maker) == position)
                        slot = next(made, None)
                        found.append((source, op, slot))
                    elif maker is not None and maker.row is row:
                        found.append((source, op, None))
                    elif is_first:
                        starts = (s for s in row.slots if s.start and s.start.key == source.key)
                        found += [(source, op, slot) for slot in starts]
                    elif (
                        maker is None
                        and (not at_seam or identity(source.tensor) in self.calls.cuts)
                        and (taken := row.takes.get((len(box.ops), box.position[identity(op)], i)))
                    ):
                        found.append((source, op, taken))  # its maker was passed over
                    elif self.skipped.get(made_as) == row.lane:
                        found.append((source, op, None))
        return found

    def step_below(self, box: Box) -> int | None:
        """The one step that everything comes from that a layer between, and those below it, work
        on; `None` where they work on several.
        """
        if box in self._below:
            return self._below[box]
        steps: set[int | None] = set()
        seen, left = {box}, [box]
        while left:
            for _, source in self.inputs(left.pop()):
                maker = self.box.get(identity(source.tensor))
                if maker is None:
                    continue
                if source.step is not None or maker.step is not None:
                    steps.add(maker.step if source.step is None else source.step)
                elif maker not in seen:
                    seen.add(maker)
                    left.append(maker)
        self._below[box] = steps.pop() if len(steps) == 1 else None
        return self._below[box]


def recorded(tensor: Tensor) -> graph.Node:
    """The node of a tensor that has one."""
    assert tensor.node is not None
    return tensor.node


def flatten(tree: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    parts: Iterable[Any] = ()
    if isinstance(tree, Mapping):
        parts = tree.values()
    elif isinstance(tree, tuple | list):
        parts = tree
    return [tensor for part in parts for tensor in flatten(part)]
