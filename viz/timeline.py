"""What there is to draw of a recurrence: a row a recurrent layer (or what lies between two), a
column a step. `reading.read` makes it from a recording.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinyseq import graph
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from .indices import numbers

Scope = tuple[str, ...]


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

    scope: Scope
    boxes: dict[int | None, Box] = field(default_factory=dict)  # of the steps that are shown
    slots: list[Slot] = field(default_factory=list)
    reverse: bool = False  # from the last step to the first
    read: dict[int | None, Box] = field(default_factory=dict)  # of these and of some beside them
    takes: dict[tuple[int, int, int], Slot] = field(
        default_factory=dict
    )  # by (op, input) of a step of so many ops: (ops, op, input)

    @property
    def recurrent(self) -> bool:
        return None not in self.boxes

    @property
    def way(self) -> int:
        """The direction in which the row runs on the sheet."""
        return -1 if self.reverse else 1


@dataclass
class Timeline:
    """What there is to draw. ``sources[identity(tensor)]``: where each op's input really comes
    from.
    """

    rows: list[Row]  # bottom to top
    steps: int
    box: dict[int, Box]  # by id of the tensor made
    sources: Mapping[int, list[Source]]
    outputs: list[tuple[Tensor, list[Source]]]
    lookups: dict[int, list[Source]] = field(
        default_factory=dict
    )  # more sources of an op, by its id
    skipped: dict[int, Scope] = field(default_factory=dict)  # made in steps not read: the row's
    steps_of: dict[Scope, int] = field(default_factory=dict)  # how many each layer has
    lengths: set[int] = field(default_factory=set)  # of the sequences: they may differ
    axes: Mapping[int, int] = field(default_factory=dict)  # of time, by the id of an input
    first: Mapping[int, int] = field(
        default_factory=dict
    )  # where step 0 lies along it, if not at 0
    of_one_step: set[int] = field(default_factory=set)  # ids of leaves that are x of one step each
    stands_for: dict[int, Tensor] = field(default_factory=dict)  # what was recorded in its place

    def show(self, columns: Collection[int]) -> None:
        """Of the steps that were read, these get boxes."""
        for row in self.rows:
            if row.read:
                row.boxes = {t: box for t, box in row.read.items() if t in columns}
        self.rows = [row for row in self.rows if row.boxes]

    def maker(self, tensor: Tensor) -> Box | None:
        """The box that made it, if that is shown."""
        box = self.box.get(identity(tensor))
        return box if box is not None and box.row.boxes.get(box.step) is box else None

    def hidden(self, tensor: Tensor) -> Scope | None:
        """The scope of the row that made it in a step that is not shown."""
        box = self.box.get(identity(tensor))
        if box is None:
            return self.skipped.get(identity(tensor))
        return None if self.maker(tensor) else box.row.scope

    def inputs(self, box: Box) -> Iterator[tuple[Tensor, Source]]:
        """Each op of the box with each source of its inputs from outside of the box."""
        for op in box.ops:
            for x in numbers(recorded(op)):
                for source in self.sources[identity(x)]:
                    if self.box.get(identity(source.tensor)) is not box:
                        yield op, source
            for source in self.lookups.get(identity(op), ()):
                yield op, source


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
