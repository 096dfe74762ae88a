"""A picture held against the recording before it is given out: an arrow between two boxes that is
no dependency, or a dependency without an arrow, is an error and no picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from tinyseq.errors import GraphError

from .layout import Layout
from .timeline import Box

Ends = tuple[str, str]


def check(layout: Layout, arrows: Collection[Ends]) -> None:
    """Raise `GraphError` where what was drawn differs from what was recorded. ``arrows``: the nodes
    at both ends of each that carries a value and was not cut.
    """
    recorded, drawn = _recorded(layout), _drawn(layout, arrows)
    slim = {place.name for place in layout.places.values() if place.slim}
    drawn = {ends for ends in drawn if not slim & set(ends)}  # one may stand for several steps
    wrong = [(ends, "has no arrow") for ends in recorded - drawn if not slim & set(ends)]
    if not layout.rolled:  # where the state goes round, a box has an arrow to itself
        wrong += [(ends, "is no dependency and has an arrow") for ends in drawn - recorded]
    if wrong:
        (tail, head), what = min(wrong)
        raise GraphError(
            f"this recording cannot be drawn truthfully: from {_said(layout, tail)} to "
            f"{_said(layout, head)} {what}. Draw it with viz.draw, op by op, or a part of it: "
            "fewer layers, steps or calls."
        )


def _recorded(layout: Layout) -> set[Ends]:
    """Which boxes that are shown take something from which others."""
    found: set[Ends] = set()
    line = layout.line
    for box in line.boxes():
        for _, source in line.inputs(box):
            stand = layout.stand_in(source) or source
            if (maker := line.maker(stand.tensor)) is not None and maker is not box:
                found.add((_name(layout, maker), _name(layout, box)))
    loss = layout.loss
    for source in loss.sources if loss is not None else ():
        stand = layout.stand_in(source) or source
        if (maker := line.maker(stand.tensor)) is not None:
            found.add((_name(layout, maker), "loss"))
    return found


def _drawn(layout: Layout, arrows: Collection[Ends]) -> set[Ends]:
    """From which box to which others arrows lead, through values that are written between them."""
    boxes = {place.name for place in layout.places.values()} | {"loss"}
    follow: dict[str, set[str]] = defaultdict(set)
    for tail, head in arrows:
        follow[_box_of(tail, boxes)].add(_box_of(head, boxes))
    found: set[Ends] = set()
    for name in boxes:
        left, seen = list(follow.get(name, ())), {name}
        while left:
            head = left.pop()
            if head in boxes:
                found.add((name, head))
            elif head not in seen and "gap" not in head:
                seen.add(head)
                left += follow.get(head, ())
    return {(tail, head) for tail, head in found if tail != head}


def _box_of(node: str, boxes: Collection[str]) -> str:
    """The box of a node: of an op that it holds, or itself."""
    outer = node.rpartition("_")[0]
    return outer if outer in boxes else node


def _name(layout: Layout, box: Box) -> str:
    return layout.places[box].name


def _said(layout: Layout, name: str) -> str:
    """A box as its picture calls it."""
    for place in layout.places.values():
        if place.name == name:
            step = "" if place.box.step is None else f" at step {place.box.step + 1}"
            return f"{'/'.join(place.box.row.scope) or place.title}{step}"
    return "the loss"
