"""The two ends of a picture: the sequences that go in (x⟨t⟩, and y⟨t−1⟩, which a decoder is told),
and the loss that comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field

from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from .indices import numbers
from .timeline import Box, Row, Source, Timeline, recorded


@dataclass(eq=False)
class Inputs:
    """One sequence, with everything that takes it, by step."""

    row: Row  # the lowest that takes it
    takers: dict[int, list[tuple[Tensor, Box, Source]]] = field(default_factory=dict)
    name: str = "x"
    back: int = 0  # how many steps before the step that takes it it is counted
    bottom: float = 0.0  # of where it is written


def find_turn(line: Timeline, loss: Loss | None) -> int | None:
    """The column from which a decoder runs that is in one loop with its encoder: other modules than
    before, and all that comes out comes from them.
    """
    turns = {line.calls.turn(row.lane) for row in line.rows if row.recurrent}
    turn = turns.pop() if len(turns) == 1 else None
    sources = loss.sources if loss is not None else [s for _, found in line.outputs for s in found]
    steps = [s.step if m is None or m.step is None else m.step
             for s in sources for m in [line.box.get(identity(s.tensor))]]  # fmt: skip
    return turn if turn and all(step is None or step >= turn for step in steps) else None


def find_inputs(line: Timeline, shown: Collection[int], turn: int | None) -> list[Inputs]:
    """The sequences that the steps ``shown`` take, that of the lowest row first, which is x. What
    goes into a layer whose first state another layer made is the decoder's own output of the step
    before, y⟨t−1⟩, also from ``turn`` on, where both are in one loop; any other one is x′.
    """
    found: dict[Hashable, Inputs] = {}
    parts: dict[Hashable, Hashable] = {}  # of a sequence that is given call by call
    for box in line.boxes():
        for op, source in line.inputs(box):
            if source.is_input and source.step is not None and source.step in shown:
                key = _sequence(line, found, box, source)
                if told := turn is not None and source.step >= turn:
                    key = key, "told"
                if key not in found and key not in parts:
                    parts[key] = _continued(found, box, op, source.step)
                inputs = found.setdefault(parts.get(key) or key, Inputs(box.row))
                if told:
                    inputs.back = turn + 1  # type: ignore[operator]
                inputs.takers.setdefault(source.step, []).append((op, box, source))
    primes = 0
    for inputs in list(found.values())[1:]:
        if inputs.back or _is_decoder(line, inputs.row):
            inputs.name, inputs.back = "y", inputs.back or 1
        else:
            primes += 1
            inputs.name = "x" + chr(0x2032) * primes
    return list(found.values())


def _sequence(line: Timeline, found: dict[Hashable, Inputs], box: Box, source: Source) -> Hashable:
    """What tells one sequence from another."""
    tensor = source.tensor
    if identity(tensor) in line.of_one_step:  # of the lowest row that takes this step's
        for key, inputs in found.items():
            taken = inputs.takers.get(source.step, ())  # type: ignore[arg-type]
            if any(_place(other.tensor) == _place(tensor) for _, _, other in taken):
                return key
        return box.row
    if tensor.dtype.kind in "iu":  # an embedding's index: two may look up the same tokens
        return tensor.shape, tensor.numpy().tobytes()
    return identity(tensor)


def _place(tensor: Tensor) -> Hashable:
    """Where it lies in memory: two layers that read one sequence take leaves of the same place."""
    array = tensor._data
    return array.__array_interface__["data"], array.shape, array.strides


def _continued(found: dict[Hashable, Inputs], box: Box, op: Tensor, step: int) -> Hashable:
    """The sequence that the same op of earlier calls of the row takes: this one goes on with it."""
    row = box.row
    if step not in row.boxes or len(row.runs) == 1:
        return None
    begin, end = row.run_of(step)
    position = box.position[identity(op)]
    for key, inputs in found.items():
        taken = [(op, box) for at in inputs.takers if not begin <= at < end
                 for op, box, _ in inputs.takers[at] if box.row is row]  # fmt: skip
        if any(other.position[identity(tensor)] == position for tensor, other in taken):
            return key
    return None


def _is_decoder(line: Timeline, row: Row) -> bool:
    """Does the row, or one right above it, begin with a state that another layer made?"""
    above = {
        box.row
        for box in line.boxes()
        for _, source in line.inputs(box)
        if (maker := line.box.get(identity(source.tensor))) is not None and maker.row is row
    }
    starts = [slot.start for r in (above | {row}) for slot in r.slots if slot.start is not None]
    return any(start.tensor.node is not None for start in starts)


# What leaves the elements of different steps apart, and what adds them up.
_EACH = (
    "add", "sub", "mul", "div", "pow", "neg", "exp", "log", "sqrt", "tanh", "sigmoid", "softplus",
    "relu", "abs", "maximum", "minimum", "where", "reshape", "getitem", "astype", "broadcast_to",
)  # fmt: skip
_WITHIN = ("sum", "mean", "max", "logsumexp")  # over other axes than time
_TOTAL = ("sum", "mean", "softmax_loss")


@dataclass(frozen=True, eq=False)
class Loss:
    """The number that a recording ends in, and what it was made from."""

    tensor: Tensor
    box: Box
    sources: list[Source]
    summed: bool  # is it a sum over steps?


def find_loss(line: Timeline) -> Loss | None:
    """The one number at the end of a recording, made from all steps at once."""
    if len(line.outputs) != 1:
        return None
    tensor = line.outputs[0][0]
    box = line.maker(tensor)
    if tensor.ndim or box is None or box.step is not None or box.row is not line.rows[-1]:
        return None
    if any(
        line.box.get(identity(s.tensor)) is box
        for row in line.rows
        for b in row.boxes.values()
        if b is not box
        for _, s in line.inputs(b)
    ):
        return None  # it does more: other layers take what it makes
    found = {s.key: s for _, s in line.inputs(box) if s.key[0] in line.box or line.hidden(s.tensor)}
    summed = len(found) > 1 and _is_sum(tensor, box)
    return Loss(tensor, box, list(found.values()), summed)


def _is_sum(tensor: Tensor, box: Box) -> bool:
    """Is the number a sum of numbers that each come from one step? Read from its ops, not tried."""
    left = [(tensor, True)]  # (value, are the steps added up already on the way from here to L?)
    seen: set[tuple[int, bool]] = set()
    while left:
        value, total = left.pop()
        if identity(value) not in box.position or (identity(value), total) in seen:
            if total and identity(value) in box.row.boxes:
                return False
            continue
        seen.add((identity(value), total))
        node = recorded(value)
        name = node.op.name if node.op is not None else ""
        made = [x for x in numbers(node) if identity(x) in box.position or x.node is not None]
        if not total:
            axis = node.attrs.get("axis")
            within = (
                name in _WITHIN
                and axis is not None
                and 0 not in (axis if isinstance(axis, tuple) else (axis,))
            )
            if name not in _EACH and not within and name != "softmax_loss":
                return False
            left += [(x, False) for x in made]
        elif name in _TOTAL:
            left += [(x, False) for x in made]
        elif name in ("add", "sub", "neg", "reshape", "astype") or (
            name in ("mul", "div") and len(made) == 1
        ):
            left += [(x, True) for x in made]
        else:
            return False
    return True
