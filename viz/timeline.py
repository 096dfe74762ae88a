"""A recording read as rows and columns: a row a recurrent layer (or what lies between two), a
column a step.

Only the recording is read: ops, their inputs and their scopes (``("LSTM", "layers.0", "t=3",
"cell")``), never what kind of cell it is. So a cell of one's own comes out like those of the
library.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyseq import graph
from tinyseq.errors import GraphError
from tinyseq.graph import identity
from tinyseq.nn import Parameter
from tinyseq.tensor import Tensor

from .wording import check_recorded

Scope = tuple[str, ...]
RowKey = tuple[
    Scope, frozenset[Scope]
]  # scope, and the recurrent layers below: one Dropout, two places


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
    """One tensor of the carried state: the ``position``-th op of each step makes it."""

    name: str
    position: int
    start: Source | None = None
    final: bool = False  # handed back at the end


@dataclass(eq=False)
class Row:
    scope: Scope
    boxes: dict[int | None, Box] = field(default_factory=dict)  # in the order in which they ran
    slots: list[Slot] = field(default_factory=list)
    reverse: bool = False  # from the last step to the first

    @property
    def recurrent(self) -> bool:
        return None not in self.boxes


@dataclass
class Timeline:
    """What there is to draw. ``sources[identity(tensor)]``: where each op's input really comes
    from.
    """

    rows: list[Row]  # bottom to top
    steps: int
    box: dict[int, Box]  # by id of the tensor made
    sources: dict[int, list[Source]]
    outputs: list[tuple[Tensor, list[Source]]]
    lookups: dict[int, list[Source]] = field(
        default_factory=dict
    )  # more sources of an op, by its id

    def inputs(self, box: Box) -> Iterator[tuple[Tensor, Source]]:
        """Each op of the box with each source of its inputs from outside of the box."""
        for op in box.ops:
            for x in recorded(op).inputs:
                for source in self.sources[identity(x)]:
                    if self.box.get(identity(source.tensor)) is not box:
                        yield op, source
            for source in self.lookups.get(identity(op), ()):
                yield op, source


def recorded(tensor: Tensor) -> graph.Node:
    """The node of a tensor that has one."""
    assert tensor.node is not None
    return tensor.node


def read(
    outputs: Sequence[Tensor],
    final: Sequence[Tensor],
    start: Sequence[Tensor] = (),
    inputs: Mapping[int, int] | None = None,
) -> Timeline:
    """Read the recording of ``outputs`` and of the ``final`` state.

    ``start``: the state it began with, one tensor for each of ``final`` or nothing; ``inputs``: the
    time axis of each tensor that holds the input of all steps, by id.

    Raises `GraphError` when nothing recurrent was recorded, or the recording was freed.
    """
    order = graph.topological(*outputs, *final)
    check_recorded(order)
    places = {identity(t): _place(t.node.scope) for t in order if t.node is not None}
    steps = max((step for _, step, _ in places.values() if step is not None), default=-1) + 1
    if steps == 0:
        raise GraphError(
            "no step in time was recorded, so there is nothing to unroll. Draw an nn.Recurrent, "
            "an nn.Stacked or a module that calls one, or mark the steps of a loop of your own: "
            "with graph.scope(f't={t}')."
        )

    sources: dict[int, list[Source]] = {}
    labels: dict[int, np.ndarray] = {}
    numbered: list[Source] = []
    rows: dict[RowKey, Row] = {}
    box: dict[int, Box] = {}
    upstream: dict[int, frozenset[Scope]] = {}

    def number(tensor: Tensor, axis: int | None) -> np.ndarray:
        """Labels for a value's elements: one for all, or one a step."""
        if axis is None:
            numbered.append(Source(tensor, None))
            return np.full(tensor.shape, len(numbered) - 1)
        count = tensor.shape[axis]
        first = len(numbered)
        numbered.extend(Source(tensor, t) for t in range(count))
        along = [1] * tensor.ndim
        along[axis] = count
        return np.broadcast_to(np.arange(first, first + count).reshape(along), tensor.shape)

    for tensor in order:
        key = identity(tensor)
        if tensor.node is None:
            labels[key] = number(tensor, (inputs or {}).get(key))
            upstream[key] = frozenset()
        else:
            scope, step, inner = places[key]
            below = frozenset[Scope]().union(*(upstream[identity(x)] for x in tensor.node.inputs))
            if not inner and _only_moves(tensor.node):
                # Which values a stack or a slice picks is found by doing the same to labels.
                moved = tensor.node.op.forward(  # type: ignore[union-attr]
                    *(labels[identity(x)] for x in tensor.node.inputs), **tensor.node.attrs
                )
                labels[key] = np.asarray(moved)
                upstream[key] = below
            else:
                timed = step is not None
                row = rows.setdefault((scope, frozenset() if timed else below), Row(scope))
                box[key] = row.boxes.setdefault(step, Box(row, step))
                box[key].add(tensor)
                upstream[key] = below | {scope} if timed else below
                whole = not timed and tensor.ndim > 1 and tensor.shape[0] == steps
                labels[key] = number(tensor, 0 if whole else None)
        sources[key] = [numbered[i] for i in np.unique(labels[key])]

    line = Timeline([], steps, box, sources, [(y, sources[identity(y)]) for y in outputs])
    line.rows = _sorted(list(rows.values()), line)
    for row in line.rows:
        if row.recurrent:
            _to_columns(row, line)
            _order_steps(row, line)
            row.slots = _slots(row, line, final, start)
    return line


def _place(scope: Scope) -> tuple[Scope, int | None, Scope]:
    """(of the layer, step, within the step)."""
    for i, part in enumerate(scope):
        if match := re.fullmatch(r"t=(\d+)", part):
            return scope[:i], int(match[1]), scope[i + 1 :]
    return scope, None, ()


def _only_moves(node: graph.Node) -> bool:
    """Does the op only say where values lie? An embedding's lookup computes, for all that it is an
    index.
    """
    assert node.op is not None
    if node.op.name == "getitem":
        index = node.attrs["index"]
        parts = index if isinstance(index, tuple) else (index,)
        return not (isinstance(node.inputs[0], Parameter) and any(map(_is_array, parts)))
    if node.op.name == "concat":
        return bool(node.attrs["axis"] == 0)
    return node.op.name in ("reshape", "transpose", "broadcast_to")


def _is_array(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.ndim > 0


def _sorted(rows: Sequence[Row], line: Timeline) -> list[Row]:
    """What is needed comes below what needs it; else in the order of the recording."""
    below = {
        row: {
            line.box[identity(source.tensor)].row
            for box in row.boxes.values()
            for _, source in line.inputs(box)
            if identity(source.tensor) in line.box
        }
        - {row}
        for row in rows
    }
    left, placed = list(rows), list[Row]()
    while left:
        done = set(placed)
        ready = (row for row in left if below[row] <= done)
        row = next(
            ready, left[0]
        )  # rows that need each other (feedback between layers) stay as recorded
        placed.append(row)
        left.remove(row)
    return placed


def _to_columns(row: Row, line: Timeline) -> None:
    """A layer that is handed a sequence turned around counts its steps from the end: turn back."""
    reads: set[tuple[int, int]] = set()
    for step, box in row.boxes.items():
        for _, source in line.inputs(box):
            maker = line.box.get(identity(source.tensor))
            column = source.step if maker is None or maker.step is None else maker.step
            if step is not None and column is not None and (maker is None or maker.row is not row):
                reads.add((step, column))
    if all(step == line.steps - 1 - column for step, column in reads) and reads:
        for box in row.boxes.values():
            box.step = line.steps - 1 - box.step  # type: ignore[operator]
        row.boxes = {box.step: box for box in row.boxes.values()}


def _order_steps(row: Row, line: Timeline) -> None:
    """Which way the row runs: where the values come from that a step takes from other steps."""
    later = 0
    for step, box in row.boxes.items():
        for _, source in line.inputs(box):
            maker = line.box.get(identity(source.tensor))
            if maker is not None and maker.row is row:
                later += 1 if maker.step > step else -1  # type: ignore[operator]
    row.reverse = later > 0
    steps = sorted(step for step in row.boxes if step is not None)
    row.boxes = {step: row.boxes[step] for step in (reversed(steps) if row.reverse else steps)}


def _slots(
    row: Row, line: Timeline, final: Sequence[Tensor], start: Sequence[Tensor]
) -> list[Slot]:
    """What each step takes from the step before, or hands back at the end."""
    boxes = list(row.boxes.values())
    slots: dict[int, Slot] = {}

    begins: Sequence[Tensor | None] = start or [None] * len(final)
    for tensor, begun in zip(final, begins, strict=True):
        for source in line.sources[identity(tensor)]:
            i = boxes[-1].position.get(identity(source.tensor))
            if i is not None and i not in slots:
                slots[i] = Slot("", i, None if begun is None else Source(begun, None), final=True)
    takes: dict[tuple[int, int], int] = {}  # (op, input) of a step that takes a slot's value
    for before, box in itertools.pairwise(boxes):
        for at, op in enumerate(box.ops):
            for i, x in enumerate(recorded(op).inputs):
                for source in line.sources[identity(x)]:
                    made = before.position.get(identity(source.tensor))
                    if made is not None:
                        slots.setdefault(made, Slot("", made))
                        takes.setdefault((at, i), made)
    for (
        at,
        i,
    ), made in takes.items():  # what the first step takes in that place is the initial state
        slot = slots[made]
        if slot.start is None and at < len(boxes[0].ops):
            inputs = recorded(boxes[0].ops[at]).inputs
            found = line.sources[identity(inputs[i])] if i < len(inputs) else []
            outside = [s for s in found if line.box.get(identity(s.tensor)) is not boxes[0]]
            slot.start = outside[0] if outside else None

    listed = list(slots.values())
    plain = ("h", "c") if len(listed) <= 2 else tuple(f"s{i + 1}" for i in range(len(listed)))
    for slot, name in zip(listed, plain, strict=False):
        given = slot.start.tensor.name if slot.start is not None else None
        slot.name = re.sub(r"_?0$", "", given) if given else name
    return listed


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
