"""A recording read as rows and columns.

Only the recording is read: ops, their inputs and their scopes (``("LSTM", "layers.0", "t=3",
"cell")``), never what kind of cell it is. So a cell of one's own comes out like those of the
library. Steps that are not to be shown are passed over, so that 10 000 of them cost little.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from tinyseq import graph
from tinyseq.errors import GraphError
from tinyseq.graph import identity
from tinyseq.nn import Parameter
from tinyseq.tensor import Tensor

from .indices import index_of, numbers, picks, walked
from .labels import check_recorded
from .rows import find_slots, in_order, needed, order_steps, rows_below, to_columns
from .timeline import Box, Row, Scope, Source, Timeline, recorded

# Scope, has it steps, and the recurrent layers below: one Dropout, two places. And which of those:
# what a model does itself below a layer of its own is another row than what it does above.
RowKey = tuple[Scope, bool, frozenset[Scope], int]
MOST = 8  # rows of one scope, one above another; in a loop without scopes there would be no end


@cache
def place(scope: Scope) -> tuple[Scope, int | None, Scope]:
    """Where an op ran: (the layer's scope, step, scope within the step)."""
    for i, part in enumerate(scope):
        if match := re.fullmatch(r"t=(\d+)", part):
            return scope[:i], int(match[1]), scope[i + 1 :]
    return scope, None, ()


def count_steps(order: Sequence[Tensor], at_least: int = 1) -> int:
    """How many steps a recording has, inputs first. Raises `GraphError` where there are none, or
    the recording was freed.
    """
    check_recorded(order)
    scopes = {id(t.node.scope): t.node.scope for t in order if t.node is not None}.values()
    steps = max((step for _, step, _ in map(place, scopes) if step is not None), default=-1) + 1
    if steps < at_least:
        raise GraphError(
            "no step in time was recorded, so there is nothing to unroll. Draw an nn.Recurrent, "
            "an nn.Stacked or a module that calls one, or mark the steps of a loop of your own: "
            "with graph.scope(f't={t}')."
        )
    return steps


def read(
    outputs: Sequence[Tensor],
    final: Sequence[Tensor] = (),
    start: Sequence[Tensor] = (),
    inputs: Mapping[int, int] | None = None,
    shown: Collection[int] | None = None,
    order: Sequence[Tensor] = (),
    first: Mapping[int, int] | None = None,
) -> Timeline:
    """Read the recording of ``outputs`` and of the ``final`` state.

    ``start``: the state it began with, one tensor for each of ``final`` or nothing; ``inputs``: the
    time axis of each tensor that holds the input of all steps, by id; ``shown``: the columns to
    read, by default all; ``order``: the recording, inputs first, if it was walked already;
    ``first``: where the first step lies along that axis, if not at its start.

    Raises `GraphError` when nothing recurrent was recorded, or the recording was freed.
    """
    order = order or walked(*outputs, *final)
    steps = count_steps(order)
    columns = set(range(steps) if shown is None else shown)
    # A row that counts its steps from the end has them mirrored, and how the state is handed on is
    # learned from two steps in a row.
    wanted = columns | {steps - 1 - t for t in columns} | {0, 1, steps - 2, steps - 1}
    reader = _Reader(order, steps, inputs or {}, wanted, first or {})
    line = reader.line
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


def steps_of(order: Sequence[Tensor]) -> dict[Scope, int]:
    """How many steps each layer has: an encoder and a decoder differ."""
    last: dict[Scope, int] = {}
    for scope in {id(t.node.scope): t.node.scope for t in order if t.node is not None}.values():
        layer, step, _ = place(scope)
        if step is not None:
            last[layer] = max(step, last.get(layer, 0))
    return {layer: step + 1 for layer, step in last.items()}


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
        steps: int,
        inputs: Mapping[int, int],
        wanted: Collection[int],
        first: Mapping[int, int],
    ) -> None:
        self.steps = steps
        self.numbered: list[Source] = []
        self.made: dict[int, tuple[Tensor, int | None]] = {}  # and the axis of time, if it has one
        self.labels = _Labels(self)
        self.rows: dict[RowKey, Row] = {}
        self.needs: dict[Row, set[Row]] = {}  # of the rows without steps
        self.line = Timeline([], steps, {}, _Sources(self), [], axes=inputs, first=first)
        self.line.steps_of = steps_of(order)
        lengths = self.line.lengths = set(self.line.steps_of.values())
        upstream: dict[int, frozenset[Scope]] = {}
        nothing: frozenset[Scope] = frozenset()
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
            scope, step, inner = place(node.scope)
            below, given = nothing, numbers(node)
            for x in given:
                more = upstream[identity(x)]
                if more is not below and more:
                    below = below | more if below else more
            upstream[key] = below if step is None or scope in below else below | {scope}
            taken = none if step is not None else _rows_of(node, between)
            if step is not None and step not in wanted:
                self.line.skipped[key] = scope
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
                row = self._row(scope, timed, nothing if timed else below, taken)
                between[key] = none if timed else frozenset((row,))
                box = row.boxes.setdefault(step, Box(row, step))
                self.line.box[key] = box
                box.add(tensor)
                all_steps = not timed and tensor.ndim > 1 and tensor.shape[0] in lengths
                self.made[key] = tensor, 0 if all_steps else None

    def _row(
        self, scope: Scope, timed: bool, below: frozenset[Scope], taken: Collection[Row]
    ) -> Row:
        """The row of an op that takes something from these rows: the first that none of them needs,
        so that what it takes can lie below it.
        """
        for n in range(MOST):
            row = self.rows.setdefault((scope, timed, below, n), Row(scope))
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
        begin = self.line.first.get(identity(tensor), 0)
        self.numbered.extend(Source(tensor, t - begin) for t in range(count))
        along = [1] * tensor.ndim
        along[axis] = count
        return np.broadcast_to(np.arange(first, first + count).reshape(along), tensor.shape)


def _rows_of(node: graph.Node, between: Mapping[int, frozenset[Row]]) -> frozenset[Row]:
    """The rows without steps that the inputs of an op come from."""
    found: frozenset[Row] = frozenset()
    for x in numbers(node):
        more = between.get(identity(x), found)
        if more is not found:
            found = found | more if found else more
    return found


def moves(node: graph.Node) -> bool:
    """Does the op only say where values lie? An embedding's lookup computes, for all that it is an
    index.
    """
    assert node.op is not None
    if picks(node):
        index = index_of(node)
        parts = index if isinstance(index, tuple) else (index,)
        return not (isinstance(node.inputs[0], Parameter) and any(map(_is_array, parts)))
    if node.op.name == "concat":
        return bool(node.attrs["axis"] == 0)
    return node.op.name in ("reshape", "transpose", "broadcast_to")


def _is_array(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.ndim > 0


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
        for x in numbers(node):
            alone = not any(
                y.node is not None or (y.requires_grad and not isinstance(y, Parameter))
                for y in numbers(node)
                if y is not x
            )
            plain = node.op.name in _ADJUST and not alone and not x.requires_grad
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
