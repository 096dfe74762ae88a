"""Rows as they lie in a picture: which above which, from which end each runs, and the parts of the
state that it hands on.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence

from tinyseq.graph import Part, identity
from tinyseq.tensor import Tensor

from .calls import Lane
from .indices import numbers
from .timeline import Box, Row, Slot, Source, Timeline, recorded


def rows_below(rows: Sequence[Row], line: Timeline) -> dict[Row, set[Row]]:
    """The other rows that each takes something from."""
    return {
        row: {
            line.box[identity(source.tensor)].row
            for box in row.boxes.values()
            for _, source in line.inputs(box)
            if identity(source.tensor) in line.box
        }
        - {row}
        for row in rows
    }


def in_order(below: Mapping[Row, Collection[Row]]) -> list[Row]:
    """What is needed comes below what needs it; else in the order of the recording."""
    left, placed = list(below), list[Row]()
    while left:
        done = set(placed)
        ready = next((row for row in left if done.issuperset(below[row])), None)
        together = {ready} if ready is not None else set()
        if not together:  # of rows that need each other (feedback) those that wait for no others
            together = min((needed(row, below) - done for row in left), key=len)
        placed += [row for row in left if row in together]
        left = [row for row in left if row not in together]
    # What takes nothing from a layer, an embedding say, lies right below the first that takes it.
    for row in [row for row in placed if not below[row]]:
        taker = next((other for other in placed if row in below[other]), None)
        if taker is not None:
            placed.remove(row)
            placed.insert(placed.index(taker), row)
    return placed


def needed(row: Row, below: Mapping[Row, Collection[Row]]) -> set[Row]:
    """A row and everything that it needs, by all ways down."""
    found, left = {row}, [row]
    while left:
        new = set(below.get(left.pop(), ())) - found
        found |= new
        left += new
    return found


def to_columns(row: Row, line: Timeline, below: Mapping[Row, Collection[Row]]) -> None:
    """A layer that is handed a sequence turned around counts its steps from the end: turn back.

    Its own state says nothing of that, nor what comes back to it from layers that it feeds: the
    first step takes there what an encoder did last.
    """
    fed: set[tuple[int, int]] = set()
    found: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for step, box in row.boxes.items():
        for at, op in enumerate(box.ops):
            for i, x in enumerate(numbers(recorded(op))):
                for source in line.sources[identity(x)]:
                    maker = line.box.get(identity(source.tensor))
                    if maker is box:
                        continue
                    if maker is not None and row in needed(maker.row, below):
                        fed.add((at, i))
                    column = source.step if maker is None or maker.step is None else maker.step
                    if step is not None and column is not None:
                        found.append(((at, i), (step, column)))
    reads = {read for place, read in found if place not in fed}
    every = len({step for step, _ in reads}) == len(row.boxes) > 1  # not the initial state alone
    if every and all(step == _mirrored(row, column) for step, column in reads):
        for box in row.boxes.values():
            box.step = _mirrored(row, box.step)  # type: ignore[arg-type]
        row.boxes = {box.step: box for box in row.boxes.values()}


def _mirrored(row: Row, step: int) -> int:
    """Counted from the other end of the call that a step belongs to; −1 for that of no call."""
    return next((a + b - 1 - step for a, b in row.runs if a <= step < b), -1)


def recorded_layer(row: Row) -> object:
    """The layer whose steps a row holds, as the recording knows it; `None` if that is gone."""
    box = next(iter(row.boxes.values()))
    part = recorded(box.ops[0]).scope[len(row.scope) - 1] if row.scope else ""
    module = part.module if isinstance(part, Part) else None
    return None if module is None else module()


def order_steps(row: Row, line: Timeline) -> None:
    """Which way the row runs: where the values come from that a step takes from other steps."""
    later = 0
    for step, box in row.boxes.items():
        for _, source in line.inputs(box):
            maker = line.box.get(identity(source.tensor))
            if maker is None or maker.row is not row:
                continue
            if step is not None and row.run_of(step) == row.run_of(maker.step):  # type: ignore[arg-type]
                later += 1 if maker.step > step else -1  # type: ignore[operator]
    one_step = len(row.boxes) == 1 and getattr(recorded_layer(row), "reverse", False) is True
    row.reverse = later > 0 or one_step
    row.boxes = {step: row.boxes[step] for step in row.order() if step in row.boxes}


def levels(line: Timeline) -> dict[Row, int]:
    """Of recurrent layers that lie on others, and of those below them, which from below: one lies
    on those that made, at each of its steps, what it reads at that step.
    """
    level: dict[Row, int] = {}
    under: dict[Row, set[Row]] = {}
    for row in line.rows:
        starts = {slot.start.key for slot in row.slots if slot.start is not None}
        found: set[Row] = set()
        others: set[Lane | None] = set()  # which it also reads at other steps, as by attention
        for box in row.boxes.values():
            for _, source in line.inputs(box):
                key = identity(source.tensor)
                maker = line.box.get(key)
                step = maker.step if maker is not None and maker.step is not None else source.step
                if source.key in starts:
                    continue
                if row.recurrent and step != box.step:
                    others.add(line.skipped.get(key) if maker is None else maker.row.lane)
                elif maker is not None:
                    found.add(maker.row)
        under[row] = set()
        for other in found - {row}:
            if other.lane not in others:
                under[row] |= {other} if other.recurrent else under.get(other, set())
        level[row] = row.recurrent + max((level.get(other, 0) for other in under[row]), default=0)
    marked = {r for row in line.rows if row.recurrent and under[row] for r in (row, *under[row])}
    return {row: level[row] for row in line.rows if row in marked}


def find_slots(
    row: Row, line: Timeline, final: Sequence[Tensor], start: Sequence[Tensor]
) -> list[Slot]:
    """What each step takes from the step before, or hands back at the end."""
    boxes = list(row.boxes.values())
    slots: list[Slot] = []
    known: dict[int, dict[int, Slot]] = {}  # by how many ops a step has, and the place among them

    def slot_at(box: Box, made: int) -> Slot:
        """Steps of other lengths hand on the same parts of the state, in the same order."""
        here = known.setdefault(len(box.ops), {})
        if made not in here:
            if len(here) == len(slots):
                slots.append(Slot("", made))
            here[made] = slots[len(here)]
            here[made].places[len(box.ops)] = made
        return here[made]

    begins: Sequence[Tensor | None] = start or [None] * len(final)
    for tensor, begun in zip(final, begins, strict=True):
        for source in line.sources[identity(tensor)]:
            i = boxes[-1].position.get(identity(source.tensor))
            if i is not None and not (slot := slot_at(boxes[-1], i)).final:
                slot.start, slot.final = None if begun is None else Source(begun, None), True
    for before, box in itertools.pairwise(boxes):
        if row.before(box.step) != before.step:  # type: ignore[arg-type]
            continue
        for at, op in enumerate(box.ops):
            for i, x in enumerate(numbers(recorded(op))):
                for source in line.sources[identity(x)]:
                    made = before.position.get(line.uncut(source.tensor))
                    if made is not None:
                        row.takes.setdefault((len(box.ops), at, i), slot_at(before, made))
    if slots and len(boxes[-1].ops) not in known:  # nothing takes from a last step like no other
        slot_at(boxes[-1], len(boxes[-1].ops) - 1)
    # What the first step takes in that place is the initial state.
    for (_, at, i), slot in row.takes.items():
        if slot.start is None and at < len(boxes[0].ops):
            taken = numbers(recorded(boxes[0].ops[at]))
            found = line.sources[identity(taken[i])] if i < len(taken) else []
            outside = [s for s in found if line.box.get(identity(s.tensor)) is not boxes[0]]
            slot.start = outside[0] if outside else None

    plain = ("h", "c") if len(slots) <= 2 else tuple(f"s{i + 1}" for i in range(len(slots)))
    for slot, name in zip(slots, plain, strict=False):
        given = slot.start.tensor.name if slot.start is not None else None
        slot.name = re.sub(r"_?0$", "", given) if given else name
    return slots
