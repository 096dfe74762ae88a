"""Lines that go up through a picture: from x through the layers to y, and past the rows between."""

from __future__ import annotations

from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from .ends import Inputs
from .flow import Carried
from .labels import width
from .layout import INPUT_GAP, VALUE, Layout
from .paths import Path, Point
from .pen import Pen
from .rolled import alike, into
from .states import Starts
from .timeline import Box, Source


def draw_inputs(pen: Pen, layout: Layout) -> None:
    """x at the foot of each column that reads it, other sequences below the row that does."""
    for n, inputs in enumerate(layout.inputs):
        line = int(inputs.bottom // (VALUE + INPUT_GAP))  # 0, −1, … below the rows
        below = layout.row_number[inputs.row] - 1 if inputs.bottom > 0 else line - 1
        for step in sorted(inputs.takers):
            _draw_input(pen, layout, n, inputs, step, below)
        if all(inputs.bottom != before.bottom for before in layout.inputs[:n]):
            print_dots(pen, layout, "x" if n == 0 else f"in{n}", inputs.bottom + VALUE / 2 + 5)


def _draw_input(pen: Pen, layout: Layout, n: int, inputs: Inputs, step: int, below: int) -> None:
    op, box, source = inputs.takers[step][0]
    arrive = layout.arrive(op, box, source)
    straight = arrive is not None and layout.row_number[box.row] == below + 1
    foot = arrive[0][0] if arrive and straight else layout.column[step]
    number = layout.columns.number[step]
    name = f"in{n}t{number}" if n else f"x{number}"
    text = layout.called(inputs.name, number, inputs.back, given=True)
    shape = layout.input_shape(source)
    slim = step in layout.columns.slim
    pen.write_value(name, "" if slim else text, shape, foot, inputs.bottom + VALUE / 2)
    heads = {layout.node_of(op): (op, box, source) for op, box, source in inputs.takers[step]}
    for head, (op, box, source) in heads.items():
        draw_line(
            pen, layout, name, head,
            [(foot, inputs.bottom + VALUE)], layout.arrive(op, box, source),
            below, layout.row_number[box.row], step, layout.places[box].bottom,
            tip=f"{text} {shape}", of=_taken(layout, box, source), written=True,
        )  # fmt: skip


def print_dots(pen: Pen, layout: Layout, name: str, y: float) -> None:
    """Where a line of values has steps left out."""
    for n, x in layout.gap.items():
        pen.print(f"{name}gap{n}", "…", x, y, 16)
    for n, (x, text) in enumerate(layout.slim_runs if name == "x" else ()):
        pen.print(f"{name}slim{n}", text, x, y, 11)


def draw_between_rows(pen: Pen, layout: Layout, starts: Starts) -> None:
    """From row to row, to the initial states that are written as well."""
    line = layout.line
    seen: set[tuple[str, str, int | None]] = set()
    late: dict[tuple[str, str], tuple[Box, Tensor, Source]] = {}
    starting = {(row, s.start.key) for row in line.rows for s in row.slots if s.start is not None}
    for box in line.boxes():
        for op, taken in line.inputs(box):
            handed = (box.row, taken.key) in starting  # which `draw_handed_over` shows
            stand = None if handed else layout.stand_in(taken)
            source = stand or taken
            maker = line.maker(source.tensor)
            if maker is None or maker.row is box.row:
                continue
            given = starts.get((box, source.key))  # as the initial state
            ends = layout.node_of(source.tensor), given[0] if given else layout.node_of(op)
            step = next((s for s in (maker.step, box.step, source.step) if s is not None), None)
            if step is None:
                step = line.step_below(maker)
            if layout.rolled and maker.step is box.step is None:
                step = layout.columns.shown[0]  # which stands for whichever it is
            if step is not None and step not in layout.column:
                if maker.step is box.step is None:
                    late.setdefault(ends, (box, op, source))
            elif (*ends, step) not in seen:
                seen.add((*ends, step))
                _draw_between(pen, layout, ends, box, op, source, step, given)
    # What flows between two layers on all steps, at steps alone that are not shown.
    drawn = {(tail, head) for tail, head, _ in seen}
    for ends in [ends for ends in late if ends not in drawn]:
        _draw_between(pen, layout, ends, *late[ends], None, None)


def _draw_between(
    pen: Pen,
    layout: Layout,
    ends: tuple[str, str],
    box: Box,
    op: Tensor,
    source: Source,
    step: int | None,
    given: tuple[str, Point] | None,
) -> None:
    maker = layout.line.box[identity(source.tensor)]
    bottom, top = layout.places[box].bottom, layout.places[maker].top
    leave = layout.leave(source.tensor)
    arrive = None if given else layout.arrive(op, box, source)
    if given:
        x, y = given[1]
        arrive = [(x, bottom), (x, y - 10)]
        if leave is None:  # from the near end of a layer on all steps at once
            leave = [(layout.left + 16, top)]
    draw_line(
        pen, layout, *ends, leave, arrive,
        layout.row_number[maker.row], layout.row_number[box.row], step, bottom, top,
        tip=layout.step_shape(source), of=_taken(layout, box, source),
    )  # fmt: skip


def draw_handed_over(pen: Pen, layout: Layout) -> None:
    """In a rolled picture, from the layer whose last state is another one's initial state."""
    line, step = layout.line, layout.columns.shown[0]
    drawn: set[tuple[str, str]] = set()
    for row in line.rows:
        for slot in row.slots if row.recurrent else ():
            if slot.start is None:
                continue
            source = slot.start if line.maker(slot.start.tensor) else layout.stand_in(slot.start)
            maker = line.maker(source.tensor) if source else None
            if source is None or maker is None or maker.row is row:
                continue
            (box,) = row.boxes.values()
            place = layout.places[box]
            ends = layout.node_of(source.tensor), place.name
            if ends in drawn:
                continue
            drawn.add(ends)
            draw_line(
                pen, layout, *ends, layout.leave(source.tensor), [(place.x, place.bottom)],
                layout.row_number[maker.row], layout.row_number[row], step,
                place.bottom, layout.places[maker].top,
                tip=f"the initial state {layout.shape_of(slot.start.tensor)}", of=slot.start,
                written=True,
            )  # fmt: skip


def draw_outputs(pen: Pen, layout: Layout) -> None:
    """y above each column that gives it, or one y where it is not one a step."""
    for n, (tensor, sources) in enumerate(layout.line.outputs):
        name = tensor.name or ("y" if n == 0 else f"y{chr(0x2032) * n}")
        draw_values(pen, layout, name, f"y{n}", sources, layout.ceiling + n * (VALUE + 4))


def draw_values(
    pen: Pen, layout: Layout, name: str, node: str, sources: list[Source], bottom: float
) -> dict[int | None, float]:
    """What the uppermost rows give, written in a line; returns where, by step."""
    each = layout.each(sources)
    placed: dict[int | None, float] = {}
    for source, step in layout.given(sources):
        maker = layout.line.box[identity(source.tensor)]
        leave = layout.leave(source.tensor)
        foot = leave[-1][0] if leave else layout.middle(step)
        number = layout.columns.number[step] if each and step is not None else None
        top = node if number is None else f"{node}t{number}"
        shape = layout.step_shape(source)
        text = layout.called(name, layout.output_number(number)) if each else layout.named(name)
        if step not in placed:
            placed[step] = foot
            slim = each and step in layout.columns.slim
            pen.write_value(top, "" if slim else text, shape, foot, bottom + VALUE / 2)
        draw_line(
            pen, layout, layout.node_of(source.tensor), top, leave, [(foot, layout.ceiling)],
            layout.row_number[maker.row], len(layout.line.rows), step,
            layout.ceiling, layout.places[maker].top, tip=f"{text} {shape}",
            of=given_away(layout, source, sources),
        )  # fmt: skip
    if len(placed) > 1:
        print_dots(pen, layout, node, bottom + VALUE / 2 + 5)
    return placed


def _taken(layout: Layout, box: Box, source: Source) -> Carried:
    """What flows into a box where it takes ``source``."""
    return into(layout.line, box, source) if layout.rolled else source


def given_away(layout: Layout, source: Source, sources: list[Source]) -> Carried:
    """What flows out of a box that gives ``source``, of all that is given."""
    return alike(layout.line, source, sources) if layout.rolled else source


def draw_line(
    pen: Pen,
    layout: Layout,
    tail: str,
    head: str,
    leave: list[Point] | None,
    arrive: list[Point] | None,
    below: int,
    above: int,
    step: int | None,
    bottom: float,
    top: float = 0.0,
    tip: str = "",
    of: Carried | None = None,
    written: bool = False,
) -> None:
    """A line from the row ``below`` to the row ``above``, in the column of ``step``; past those
    between in a lane beside the column, as also from a row down to one that it is fed back to.

    ``leave``, ``arrive``: the way within the boxes at its ends, or any place on the upper edge of
    the one (``top``), the lower edge of the other (``bottom``). ``written``: others say its shape.
    """
    columns = layout.columns
    if leave is None:
        leave = [(arrive[0][0] if arrive else layout.middle(step), top)]
    if arrive is None:
        arrive = [(leave[-1][0], bottom)]
    path = Path(leave[0]).curved(leave[1:])
    (a, b), (c, d) = leave[-1], arrive[0]
    slim = step in columns.slim
    if above != below + 1:
        lane = layout.lane(below, above)
        x = max(a, c) if step is None else layout.column[step]
        rows = layout.line.rows
        passed = rows[min(below + 1, len(rows) - 1)]  # none when it goes back down
        side = -passed.way if layout.rolled else 1  # where the state does not go round
        if not slim:
            x += side * (layout.wide / 2 + 9 + 7 * lane)
        path.straight((a, b + 9), (x, b + 9), (x, d - 9), (c, d - 9), (c, d))
    elif abs(a - c) > 1:
        path.straight((a, d - 9), (c, d - 9), (c, d))
    else:
        path.straight((c, d))
    path.curved(arrive[1:])
    number = None if step is None else columns.number[step]
    name = pen.edge(tail, head, "up", path, tip, of, slim, column=number)
    inner = not written and bottom < layout.ceiling  # at the ends others say it
    if inner and abs(a - c) <= 1 and not slim:
        pen.print(f"{name}--shape", tip, c - 6 - width(tip, 8) / 2, b + 11, 8)
