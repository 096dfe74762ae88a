"""The calls of each layer that a recording holds, and how they lie in time.

A layer that is called again with the state it gave goes on where it ended: its steps get the
columns after those of the call before. Calls that no state links (a siamese net's) are rows of
their own. A recording says which call an op belongs to: every entry of a scope has its number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from tinyseq.graph import Part, identity
from tinyseq.tensor import Tensor

from .indices import numbers
from .moves import moves

Scope = tuple[str, ...]
Frames = tuple[tuple[str, int], ...]
Key = tuple[Scope, int, int]  # of a call: the layer's path, its entry, and which loop in there


class Lane(NamedTuple):
    """A layer, and which of the rows it has in the picture: more where calls are not linked."""

    scope: Scope
    number: int = 0


@dataclass(eq=False)
class Call:
    """One run of a layer along a sequence."""

    key: Key
    entries: dict[int, int] = field(default_factory=dict)  # when each step was entered first
    modules: set[int] = field(default_factory=set)  # what ran in its steps
    parts: dict[int, set[str]] = field(default_factory=dict)  # the same by step, as it is called
    parent: Part | None = None
    before: Call | None = None  # whose state it goes on with
    cut: bool = False  # has that state been detached?
    offset: int = 0  # the column of its step 0

    @cached_property
    def layer(self) -> object:
        """What tells its layer from others: the module, or what runs in the steps of a loop."""
        known = frozenset(self.modules) if self.parent is None else id(self.parent.module)
        return self.key[0], known

    @property
    def begun(self) -> tuple[int, int]:
        """When; the steps of a compiled layer are entered when they are drawn."""
        begun = min(self.entries.values())
        return (begun if self.parent is None else self.parent.entry), begun

    @property
    def first(self) -> int:
        """The step that ran first."""
        return min(self.entries, key=self.entries.__getitem__)

    @property
    def last(self) -> int:
        return max(self.entries, key=self.entries.__getitem__)

    @property
    def begin(self) -> int:
        """Its first column; one that goes on counting begins where its layer ended."""
        return self.offset + (0 if self.before is None else min(self.entries))

    @property
    def end(self) -> int:
        return self.offset + max(self.entries) + 1


@cache
def split(scope: Scope) -> tuple[Scope, int | None, Scope]:
    """Where an op ran: (the layer's path, step, path within the step)."""
    for i, part in enumerate(scope):
        if match := re.fullmatch(r"t=(\d+)", part):
            return scope[:i], int(match[1]), scope[i + 1 :]
    return scope, None, ()


def scopes(order: Iterable[Tensor]) -> Collection[Scope]:
    """The paths of a recording: one for each time that a scope was entered."""
    return {id(t.node.scope): t.node.scope for t in order if t.node is not None}.values()


class Calls:
    """The calls in a recording, linked, and the columns and rows they get."""

    def __init__(self, order: Sequence[Tensor], new: Mapping[int, Tensor] | None = None) -> None:
        self._places: dict[int, tuple[Scope, tuple[Lane, int | None, Scope]]] = {}
        self._loops: dict[int, int] = {}  # by the entry of a step, in a path with several loops
        self.cuts: dict[int, int] = {}  # the value that a leaf was detached from, by their ids
        found = self._find(scopes(order))
        self.calls = sorted(found.values(), key=lambda call: call.begun)
        self._call = found
        if len({call.layer for call in self.calls}) < len(self.calls):
            self._link(order, new or {})
        self._lane: dict[Key, Lane] = {}
        self.lanes: dict[Lane, list[Call]] = {}
        for call in self.calls:
            lane = self._lane_of(call)
            self._lane[call.key] = lane
            self.lanes.setdefault(lane, []).append(call)

    @property
    def steps(self) -> int:
        """How many columns there are."""
        return max((call.end for call in self.calls), default=0)

    @property
    def steps_of(self) -> dict[Lane, int]:
        """The column behind the last of each row: an encoder and a decoder differ."""
        return {lane: calls[-1].end for lane, calls in self.lanes.items()}

    @property
    def shortest(self) -> int:
        """How many columns every row has."""
        return min(self.steps_of.values(), default=0)

    @property
    def lengths(self) -> set[int]:
        """Of the sequences: those of single calls and of calls in a row."""
        each = {call.end - call.begin for call in self.calls}
        return each | set(self.steps_of.values())

    def place(self, scope: Scope) -> tuple[Lane, int | None, Scope]:
        """Where an op lies: (row, column, path within the step)."""
        known = self._places.get(id(scope))
        if known is None:  # holds the path, so that the id stays its own
            known = self._places[id(scope)] = scope, self._found(scope)
        return known[1]

    def offset(self, scope: Scope) -> int:
        """The column of step 0 of the call that an op belongs to, of one of its steps or not."""
        path, step, _ = split(scope)
        key = (path, _called(scope), 0) if step is None else self._key(scope)
        return self._call[key].offset if key in self._call else 0

    @property
    def linked(self) -> bool:
        """Does any call go on where another ended?"""
        return any(call.before is not None for call in self.calls)

    def beside(self, columns: Collection[int]) -> set[int]:
        """What is to be read besides these columns: those that a call has in their place if it
        counts its steps from the end, and the ends of the call, where two steps in a row tell how
        the state is handed on.
        """
        found: set[int] = set()
        for call in self.calls:
            a, b = call.begin, call.end
            if mirrored := {a + b - 1 - t for t in columns if a <= t < b}:
                found |= mirrored | {a, b - 1, min(a + 1, b - 1), max(b - 2, a)}
        return found

    def before(self, columns: Collection[int]) -> set[int]:
        """The columns whose state these take over a seam."""
        return {
            call.before.last + call.before.offset
            for call in self.calls
            if call.before is not None and call.first + call.offset in columns
        }

    def local(self, columns: Collection[int]) -> Callable[[Scope], Collection[int]]:
        """The same columns as the steps of each call, by the call's path."""

        beside = self.beside(columns)

        def steps(path: Scope) -> Collection[int]:
            call = self._call.get((path, _called(path), 0))
            if call is None:
                return columns
            wanted = {*columns, *(beside if len(columns) > 1 else ())}
            return {t - call.offset for t in wanted if call.begin <= t < call.end}

        return steps

    def frames(self, scope: Scope) -> Frames:
        """The parts of a path, each with what tells its calls, and loops, from others."""
        loop = self._loops.get
        return tuple(
            (str(part), _called((part,)) if _module((part,)) else loop(_entry((part,)), 0))
            for part in scope
        )

    def _found(self, scope: Scope) -> tuple[Lane, int | None, Scope]:
        path, step, inner = split(scope)
        if step is None:
            return Lane(path), None, inner
        key = self._key(scope)
        return self._lane[key], step + self._call[key].offset, inner

    def _key(self, scope: Scope) -> Key:
        path, _, _ = split(scope)
        loop = self._loops.get(_entry(scope[: len(path) + 1]), 0)
        return path, _called(scope[: len(path)]), loop

    # -- which calls there are -------------------------------------------------------------------

    def _find(self, paths: Collection[Scope]) -> dict[Key, Call]:
        together: dict[tuple[Scope, int], dict[int, int]] = {}
        for scope in paths:
            path, step, _ = split(scope)
            if step is not None:
                steps = together.setdefault((path, _called(scope[: len(path)])), {})
                steps[_entry(scope[: len(path) + 1])] = step
        for steps in together.values():
            loop, seen, before = 0, set[int](), -1
            for entry, step in sorted(steps.items()):
                if step in seen and step != before:  # a second loop, within the same call
                    loop, seen = loop + 1, set()
                seen.add(step)
                before = step
                if loop:
                    self._loops[entry] = loop
        found: dict[Key, Call] = {}
        for scope in paths:
            path, step, inner = split(scope)
            if step is None:
                continue
            call = found.setdefault(key := self._key(scope), Call(key))
            i = len(path)
            call.parent = _module(scope[:i])
            entry = _entry(scope[: i + 1])
            call.entries[step] = min(entry, call.entries.get(step, entry))
            if inner and isinstance(part := scope[i + 1], Part) and part.module is not None:
                call.modules.add(id(part.module))  # of one module there is one reference
                call.parts.setdefault(step, set()).add(part)
        return found

    # -- which go on with the state of another ---------------------------------------------------

    def _link(self, order: Sequence[Tensor], new: Mapping[int, Tensor]) -> None:
        """Link each call to the one before of the same layer whose last step made what its first
        step takes.
        """
        followed: set[Call] = set()
        taken = self._taken(order, new)
        for i, call in enumerate(self.calls):
            for other in reversed(self.calls[:i]):
                counts_on = min(call.entries) == max(other.entries) + 1
                linked = counts_on or other in taken[call]
                if linked and other not in followed and other.layer == call.layer:
                    call.before, call.cut = other, taken[call].get(other, False)
                    call.offset = other.offset if counts_on else other.end - min(call.entries)
                    followed.add(other)
                    break

    def _taken(
        self, order: Sequence[Tensor], new: Mapping[int, Tensor]
    ) -> dict[Call, dict[Call, bool]]:
        """The calls whose last step made something that the first step of each takes, and whether
        all of that was detached; calls in the order they ran.
        """
        origins = Origins()
        ends: dict[int, Call] = {}
        takes: dict[Call, list[Tensor]] = {call: [] for call in self.calls}
        leaves: dict[int, Tensor] = {}
        for tensor in order:
            node = tensor.node
            if node is None:
                leaves[identity(tensor)] = tensor
                continue
            _, step, inner = split(node.scope)
            if not inner and moves(node):
                origins.move(tensor)
            elif step is not None:
                call = self._call[self._key(node.scope)]
                if step == call.last:
                    ends[id(node)] = call
                if step == call.first:
                    takes[call] += numbers(node)
        found: dict[Call, dict[Call, bool]] = {}
        for call in self.calls:
            here = found[call] = {}
            for key in [key for x in takes[call] for key in origins.of(identity(x))]:
                if (made := ends.get(key)) is not None and made is not call:
                    here[made] = False
                elif key in leaves and (made := self._cut(leaves[key], origins, ends, new)):
                    here.setdefault(made, True)
        return found

    def _cut(
        self, leaf: Tensor, origins: Origins, ends: Mapping[int, Call], new: Mapping[int, Tensor]
    ) -> Call | None:
        """The call that ended with what a leaf was detached from."""
        if leaf.cut_from is None:
            return None
        origin, scope = leaf.cut_from[0](), leaf.cut_from[1]
        if origin is None:  # nothing else of that call was made from it: its state at the end
            path, step, _ = split(scope)
            key = (path, _called(scope), 0) if step is None else self._key(scope)
            call = self._call.get(key)
            made = None if call is None or step not in (None, call.last) else call
            self.cuts[identity(leaf)] = identity(leaf)
        else:
            renewed = new.get(id(origin))
            found = origins.of(id(origin) if renewed is None else identity(renewed))
            made = ends.get(found[0]) if len(found) == 1 else None
            self.cuts[identity(leaf)] = found[0]
        if made is None:
            del self.cuts[identity(leaf)]
        return made

    def _lane_of(self, call: Call) -> Lane:
        if call.before is not None:
            return self._lane[call.before.key]
        taken = sum(lane.scope == call.key[0] for lane in self.lanes)
        return Lane(call.key[0], taken)

    def turn(self, lane: Lane) -> int | None:
        """The column from which on other modules run than before, as where an encoder and a decoder
        are in one loop; `None` where there is none, or more than one.
        """
        parts = {t + call.offset: p for call in self.lanes[lane] for t, p in call.parts.items()}
        steps = sorted(parts)
        turns = [t for s, t in itertools.pairwise(steps) if parts[s].isdisjoint(parts[t])]
        return turns[0] if len(turns) == 1 else None

    def seams(self, lane: Lane) -> Sequence[Call]:
        """The calls of a row but the first, each of which begins at a seam."""
        return self.lanes[lane][1:]


class Origins:
    """What made each element of a value, through ops that only move elements; by id."""

    def __init__(self) -> None:
        self._labels: dict[int, np.ndarray] = {}
        self._made: list[int] = []
        self._number: dict[int, int] = {}

    def move(self, tensor: Tensor) -> None:
        node = tensor.node
        assert node is not None
        assert node.op is not None
        given = numbers(node)
        indices = [x._data for x in node.inputs[len(given) :]]
        moved = node.op.forward(*map(self._of, given), *indices, **node.attrs)
        self._labels[id(node)] = np.asarray(moved)

    def of(self, key: int) -> Sequence[int]:
        """The ids of the values that the elements of a value were made as."""
        labels = self._labels.get(key)
        return (key,) if labels is None else [self._made[i] for i in np.unique(labels)]

    def _of(self, x: Tensor) -> np.ndarray:
        key = identity(x)
        if key not in self._labels:
            if key not in self._number:
                self._number[key] = len(self._made)
                self._made.append(key)
            return np.broadcast_to(self._number[key], x.shape)
        return self._labels[key]


def _entry(path: Scope) -> int:
    """When the last scope of a path was entered; −1 where that is not known."""
    return path[-1].entry if path and isinstance(path[-1], Part) else -1


def _module(path: Scope) -> Part | None:
    """The innermost module of a path. A name that a loop gives itself, maybe at every step, is no
    call.
    """
    parts = (part for part in reversed(path) if isinstance(part, Part))
    return next((part for part in parts if part.module is not None), None)


def _called(path: Scope) -> int:
    """When the innermost module of a path was called; −1 without one."""
    module = _module(path)
    return -1 if module is None else module.entry
