"""The loss over a picture: of each step, and their sum (``ŷ⟨t⟩ → L⟨t⟩ → L``), where it is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from . import style
from .indices import numbers
from .paths import Path
from .timeline import Box, Source, Timeline, recorded
from .wording import number_text, sign, width

if TYPE_CHECKING:
    from .drawing import Drawing

# What leaves the elements of different steps apart, and what adds them up.
_EACH = (
    "add", "sub", "mul", "div", "pow", "neg", "exp", "log", "sqrt", "tanh", "sigmoid", "softplus",
    "relu", "abs", "maximum", "minimum", "where", "reshape", "getitem", "astype", "broadcast_to",
)  # fmt: skip
_WITHIN = ("sum", "mean", "max", "logsumexp")  # over other axes than time
_TOTAL = ("sum", "mean", "softmax_loss")

VALUE, CIRCLE, RISE = 34.0, 34.0, 24.0


@dataclass(frozen=True)
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


def draw_loss(drawing: Drawing, loss: Loss) -> None:
    """ŷ above each column, L of each step above that, and their sum at the top."""
    sheet = drawing.sheet
    base = sheet.ceiling
    feet = drawing.draw_values("ŷ", "y0", loss.sources, base)
    level = base + VALUE + RISE + CIRCLE / 2
    height = level + CIRCLE / 2 + 2 * RISE + CIRCLE / 2 if loss.summed else level
    middle = sum(feet.values()) / len(feet) if feet else drawing.middle(None)
    name = sheet.names.get("L", "L")
    ops = ", ".join(dict.fromkeys(sign(op, {}) for op in loss.box.ops))
    value = number_text(loss.tensor)
    text = f"{name} = Σ {name}⟨t⟩" if loss.summed else name
    look: style.Look = {"fontname": style.MATH, "fontsize": 15, **style.LOSS}
    drawing.node(
        "loss", "loss", middle, height, width(text, 15) + 24, CIRCLE, label=text,
        tooltip=f"{name} = {value}, made with {ops}", **look,
    )  # fmt: skip
    equals = f"= {value}"
    x = middle + (width(text, 15) + 24) / 2 + 8 + width(equals, 8) / 2
    drawing.print("lossvalue", equals, x, height, 8)
    made = {step: source for source, step in sheet.given(loss.sources)}
    each = sheet.each(loss.sources)
    for step, x in feet.items():
        number = sheet.columns.number[step] if each and step is not None else None
        foot = "y0" if number is None else f"y0t{number}"
        tail, slim = foot, step in sheet.columns.slim
        path = Path((x, base + VALUE - 2))
        if loss.summed and not slim:
            tail = f"loss{number}"
            label = sheet.called(name, number)
            drawing.node(
                tail, "loss", x, level, max(width(label, 13) + 12, CIRCLE), CIRCLE, label=label,
                tooltip=f"the part of step {number} in {name}", **look | {"fontsize": 13},
            )  # fmt: skip
            tip = f"{sheet.called('ŷ', number)}"
            of = drawing.given_away(made[step], loss.sources)
            drawing.edge(foot, tail, "up", path.straight((x, level - CIRCLE / 2)), tip, of)
            path = Path((x, level + CIRCLE / 2))
        rail = height - CIRCLE / 2 - RISE
        path.straight((x, rail), (middle, rail), (middle, height - CIRCLE / 2))
        straight = drawing.given_away(made[step], loss.sources) if tail == foot else None
        drawing.edge(tail, "loss", "up", path, of=straight, slim=slim)
    if loss.summed:
        drawing.print_dots("loss", level)
