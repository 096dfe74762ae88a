"""What an arrow of a rolled picture carries: one value at each step, not that of the step drawn."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from tinyseq.graph import identity

from .timeline import Box, Row, Slot, Source, Timeline


def into(line: Timeline, box: Box, source: Source) -> list[Source]:
    """What a layer takes, at all of its steps, from where ``source`` comes from."""
    boxes = (box.row.read or box.row.boxes).values()
    return alike(line, source, (s for b in boxes for _, s in line.inputs(b)))


def alike(line: Timeline, source: Source, among: Iterable[Source]) -> list[Source]:
    """Those, each once, that come from where ``source`` does: another layer, or a sequence."""
    origin = _origin(line, source)
    return list({s.key: s for s in among if _origin(line, s) == origin}.values())


def around(row: Row, slot: Slot) -> list[Source]:
    """What each step hands on to the one after it."""
    made = ((box, slot.made_in(box)) for box in list(row.read.values())[:-1])
    return [Source(box.ops[i], None) for box, i in made if i is not None]


def _origin(line: Timeline, source: Source) -> Hashable:
    key = identity(source.tensor)
    if (box := line.box.get(key)) is not None:
        return id(box.row)
    return "x" if key in line.of_one_step else key
