"""A recording read as rows and columns.

Only the recording is read: ops, their inputs and their scopes (``("LSTM", "layers.0", "t=3",
"cell")``), never what kind of cell it is. So a cell of one's own comes out like those of the
library. Steps that are not to be shown are passed over, so that 10 000 of them cost little.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tinyseq import graph
from tinyseq.errors import GraphError
from tinyseq.graph import identity
from tinyseq.nn import Parameter
from tinyseq.tensor import Tensor

from .calls import Calls, Lane
from .indices import numbers, walked
from .labels import check_recorded
from .moves import moves
from .rows import find_slots, in_order, needed, order_steps, rows_below, to_columns
from .timeline import Box, Row, Source, Timeline, recorded

# Scope, has it steps, and the recurrent layers below: one Dropout, two places. And which of those:
# what a model does itself below a layer of its own is another row than what it does above.
RowKey = tuple[Lane, bool, frozenset[Lane], int]
MOST = 8  # rows of one scope, one above another; in a loop without scopes there would be no end


def find_calls(order: Sequence[Tensor], new: Mapping[int, Tensor] | None = None) -> Calls:
    """The calls that a recording holds, inputs first. Raises `GraphError` where there are none, or
    the recording was freed.
    """
    check_recorded(order)
    calls = Calls(order, new)
    if not calls.steps:
        raise GraphError(
            "no step in time was recorded, so there is nothing to unroll. Draw an nn.Recurrent, "
            "an nn.Stacked or a module that calls one, or mark the steps of a loop of your own: "
            "with graph.scope(f't={t}')."
        )
    return calls


def read(
    outputs: Sequence[Tensor],
    final: Sequence[Tensor] = (),
    start: Sequence[Tensor] = (),
    inputs: Mapping[int, int] | None = None,
    shown: Collection[int] | None = None,
    order: Sequence[Tensor] = (),
    first: Mapping[int, int] | None = None,
    calls: Calls | None = None,
) -> Timeline:
    """Read the recording of ``outputs`` and of the ``final`` state.

    ``start``: the state it began with, one tensor for each of ``final`` or nothing; ``inputs``: the
    time axis of each tensor that holds the input of all steps, by id; ``shown``: the columns to
    read, by default all; ``order``: the recording, inputs first, if it was walked already;
    ``first``: where the first step lies along that axis, if not at its start; ``calls``: those of
    the recording, if they were found already.

    Raises `GraphError` when nothing recurrent was recorded, or the recording was freed.
    """
    order = order or walked(*outputs, *final)
    calls = calls or find_calls(order)
    steps = calls.steps
    columns = set(range(steps) if shown is None else shown)
    wanted = columns | calls.beside(columns) | calls.before(columns)
    wanted |= {0, 1, steps - 2, steps - 1}
    reader = _Reader(order, calls, inputs or {}, wanted, first or {})
    line = reader.line
    for key, count in line.spans.items():
        reader.begin(reader.made[key][0], count)
    line.outputs = [(y, line.sources[identity(y)]) for y in outputs]
    below = rows_below(list(reader.rows.values()), line)
    line.rows = in_order(below)
    for row in line.rows:
        if row.recurrent:
            to_columns(row, line, below)
            order_steps(row, line)
            row.slots = find_slots(row, line, final, start)
            _name_inputs(row, line)
            row.read = row.boxes
    line.show(columns)
    return line


class _Labels(dict[int, np.ndarray]):
    """Of each element of a value, where it comes from: an index into the reader's ``numbered``."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader

    def __missing__(self, key: int) -> np.ndarray:
        self[key] = found = self.reader.number(*self.reader.made[key])
        return found


class _Sources(dict[int, list[Source]]):
    """The sources of a value, found out when they are asked for."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader

    def __missing__(self, key: int) -> list[Source]:
        labels, numbered = self.reader.labels[key], self.reader.numbered
        self[key] = [numbered[i] for i in np.unique(labels)]
        return self[key]


class _Reader:
    """One walk along the recording. What a stack or a slice picks is found by doing the same to
    labels of the elements.
    """

    def __init__(
        self,
        order: Sequence[Tensor],
        calls: Calls,
        inputs: Mapping[int, int],
        wanted: Collection[int],
        first: Mapping[int, int],
    ) -> None:
        self.calls = calls
        self.numbered: list[Source] = []
        self.made: dict[int, tuple[Tensor, int | None]] = {}  # and the axis of time, if it has one
        self.labels = _Labels(self)
        self.rows: dict[RowKey, Row] = {}
        self.needs: dict[Row, set[Row]] = {}  # of the rows without steps
        self.line = Timeline([], calls, {}, _Sources(self), [], axes=inputs, first=dict(first))
        lengths = calls.lengths
        upstream: dict[int, frozenset[Lane]] = {}
        nothing: frozenset[Lane] = frozenset()
        between: dict[int, frozenset[Row]] = {}  # the rows without steps a value comes from
        none: frozenset[Row] = frozenset()
        for tensor in order:
            node = tensor.node
            if node is None:
                key = identity(tensor)
                upstream[key] = nothing
                self.made[key] = tensor, inputs.get(key)
                continue
            key = id(node)
            lane, step, inner = calls.place(node.scope)
            below, given = nothing, numbers(node)
            if step is not None or moves(node):
                self._number_as(node)
            for x in given:
                more = upstream[identity(x)]
                if more is not below and more:
                    below = below | more if below else more
            upstream[key] = below if step is None or lane in below else below | {lane}
            taken = none if step is not None else _rows_of(node, between)
            if step is not None and step not in wanted:
                self.line.skipped[key] = lane
                self.made[key] = tensor, None
            elif not inner and moves(node):
                upstream[key] = below
                labels = [self.labels[identity(x)] for x in given]
                indices = [x._data for x in node.inputs[len(given) :]]
                moved = node.op.forward(*labels, *indices, **node.attrs)  # type: ignore[union-attr]
                self.labels[key] = np.asarray(moved)
                between[key] = taken
            else:
                timed = step is not None
                row = self._row(lane, timed, nothing if timed else below, taken)
                between[key] = none if timed else frozenset((row,))
                box = row.boxes.setdefault(step, Box(row, step))
                self.line.box[key] = box
                box.add(tensor)
                all_steps = not timed and tensor.ndim > 1 and tensor.shape[0] in lengths
                self.made[key] = tensor, 0 if all_steps else None
                if all_steps:
                    self.line.spans[key] = len(tensor._data)

    def _row(self, lane: Lane, timed: bool, below: frozenset[Lane], taken: Collection[Row]) -> Row:
        """The row of an op that takes something from these rows: the first that none of them needs,
        so that what it takes can lie below it.
        """
        for n in range(MOST):
            key = lane, timed, below, n
            if key not in self.rows:
                self.rows[key] = self._new_row(lane, timed)
            row = self.rows[key]
            others = set(taken) - {row}
            if others <= self.needs.setdefault(row, set()):
                break
            if n == MOST - 1 or not any(row in needed(other, self.needs) for other in others):
                self.needs[row] |= others
                break
        return row

    def number(self, tensor: Tensor, axis: int | None) -> np.ndarray:
        """Labels for a value's elements: one for all, or one a step."""
        first = len(self.numbered)
        if axis is None:
            self.numbered.append(Source(tensor, None))
            return np.broadcast_to(first, tensor.shape)
        count = tensor.shape[axis]
        begin = self.begin(tensor, count)
        self.numbered.extend(Source(tensor, t - begin) for t in range(count))
        along = [1] * tensor.ndim
        along[axis] = count
        return np.broadcast_to(np.arange(first, first + count).reshape(along), tensor.shape)

    def _new_row(self, lane: Lane, timed: bool) -> Row:
        runs = [(call.begin, call.end) for call in self.calls.lanes[lane]] if timed else []
        return Row(lane, runs=runs)

    def _number_as(self, node: graph.Node) -> None:
        """A sequence that a call takes a step of is numbered as the columns of that call are."""
        offset = self.calls.offset(node.scope) if self.calls.linked else 0
        for x in numbers(node) if offset else ():
            key = identity(x)
            if key not in self.labels and self.made.get(key, (x, None))[1] is not None:
                self.line.first.setdefault(key, -offset)

    def begin(self, tensor: Tensor, count: int) -> int:
        """Where column 0 lies along a sequence: as was found, or where it lies in what the sequence
        was made from.
        """
        key = identity(tensor)
        if key not in self.line.first and tensor.node is not None and self.calls.linked:
            found = (self._begin_in(x, count) for x in numbers(tensor.node))
            begins = {begin for begin in found if begin is not None}
            if len(begins) == 1:
                self.line.first[key] = begins.pop()
        return self.line.first.get(key, 0)

    def _begin_in(self, x: Tensor, count: int) -> int | None:
        """The same for an input of the op that made it."""
        if x.ndim < 2 or len(x._data) != count:
            return None
        if (axis := self.made.get(identity(x), (x, None))[1]) is not None:
            return self.begin(x, count) if axis == 0 and x.node is not None else None
        source = self.numbered[self.labels[identity(x)][0].flat[0]]
        box = self.line.box.get(identity(source.tensor))
        step = source.step if box is None or box.step is None else box.step
        return None if step is None else -step


def _rows_of(node: graph.Node, between: Mapping[int, frozenset[Row]]) -> frozenset[Row]:
    """The rows without steps that the inputs of an op come from."""
    found: frozenset[Row] = frozenset()
    for x in numbers(node):
        more = between.get(identity(x), found)
        if more is not found:
            found = found | more if found else more
    return found


def _name_inputs(row: Row, line: Timeline) -> None:
    """Where x needs no gradient, each step is recorded to take a leaf of its own: that step's x."""
    boxes = list(row.boxes.values())
    taken = [(box, op, i) for box in boxes[1:] for op in box.ops for i, _ in _leaves(op, line)]
    if any(source.step is not None for box in boxes for _, source in line.inputs(box)):
        return
    users: dict[int, set[int | None]] = {}
    for box, op, i in taken:
        users.setdefault(identity(numbers(recorded(op))[i]), set()).add(box.step)
    places = {
        (box.position[identity(op)], i)
        for box, op, i in taken
        if len(users[identity(numbers(recorded(op))[i])]) == 1
        and (len(box.ops), box.position[identity(op)], i) not in row.takes
    }
    first = min(places, default=None)  # a mask may follow, drawn for each step
    for box in boxes if first is not None and len(boxes) > 2 else ():
        at, i = first  # type: ignore[misc]
        if at < len(box.ops) and i in dict(_leaves(box.ops[at], line)):
            x = numbers(recorded(box.ops[at]))[i]
            line.sources[identity(x)][:] = [Source(x, box.step)]
            line.of_one_step.add(identity(x))


_ADJUST = ("sub", "mul", "div", "where", "maximum", "minimum")


def adjusting(order: Sequence[Tensor]) -> set[int]:
    """The ids of constants that do nothing else but scale, shift or choose from a value: a mask, be
    it dropout's, drawn at random, is as long as a sequence and yet none.
    """
    found: set[int] = set()
    others: set[int] = set()
    for node in (t.node for t in order if t.node is not None):
        assert node.op is not None
        given, adjusts = numbers(node), node.op.name in _ADJUST
        for x in given:
            beside = (y for y in given if y is not x) if adjusts and not x.requires_grad else ()
            plain = any(
                y.node is not None or (y.requires_grad and not isinstance(y, Parameter))
                for y in beside
            )
            (found if plain else others).add(id(x))
    return found - others


def _leaves(op: Tensor, line: Timeline) -> list[tuple[int, Tensor]]:
    """The inputs of an op that are given: neither made nor trained, nor a number on its own. What
    only scales or shifts a computed value (a mask, what softmax takes off) is a constant.
    """
    if recorded(op).op.name in _ADJUST and any(x.node for x in numbers(recorded(op))):  # type: ignore[union-attr]
        return []
    return [
        (i, x)
        for i, x in enumerate(numbers(recorded(op)))
        if x.node is None and not isinstance(x, Parameter) and x.ndim > 1
        if all(source.tensor is x for source in line.sources[identity(x)])
    ]
