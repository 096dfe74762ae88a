"""What is read from a tape: equations over values; and `Program`, a step of a recurrence, which
prints one equation a line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from tinyseq.op import Op

if TYPE_CHECKING:
    from tinyseq.tensor import Tensor


class _Batch(int):
    """The batch size, in a shape: the same program serves all of them."""

    def __repr__(self) -> str:
        return "B"

    __str__ = __repr__


BATCH = _Batch(-1)


@dataclass(eq=False, slots=True)
class Value:
    """What an equation makes or what a step is given. ``kind`` says where it comes from.

    ``"x"``, ``"noise"`` (an input of the step), ``"state"``, ``"parameter"``, ``"constant"``,
    ``"seed"`` (the cotangent of an output), ``"made"`` by an equation, or, in a training step, an
    ``"argument"`` or ``"drawn"``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: str
    name: str = ""  # in a `Program`
    made: Equation | None = None
    data: np.ndarray | None = None  # of a constant, or the random numbers that were drawn
    key: Any = None  # of an input: its dotted name, or its place among its kind
    tensors: list[ref[Tensor]] = field(default_factory=list)  # that stood for it

    @property
    def row(self) -> bool:
        """Whether each sequence of the batch has its own."""
        return self.shape[:1] == (BATCH,)

    @property
    def width(self) -> int:
        """How many numbers a sequence has."""
        return math.prod(self.shape[1:]) if self.row else math.prod(self.shape)

    @property
    def number(self) -> bool:
        """A constant that is written into the equations as it is."""
        return self.kind == "constant" and self.shape == ()

    def __str__(self) -> str:
        if self.number and self.data is not None:
            return repr(self.data.item())
        return self.name


@dataclass(eq=False, slots=True)
class Equation:
    """output = op(*inputs, **attrs); ``line`` of the source it was written in.

    The gradient of a compiled layer has several ``outputs``, `None` for what wants no gradient.
    """

    op: Op
    inputs: tuple[Value, ...]
    attrs: dict[str, Any]
    outputs: tuple[Value | None, ...]
    line: str

    @property
    def output(self) -> Value:
        """The first result; all ops but the one above have one."""
        value = self.outputs[0]
        assert value is not None
        return value

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.output.shape))
        comma = "," if len(self.output.shape) == 1 else ""
        if self.op.emit:
            text = self.op.emit.format(*self.inputs)
            if text.startswith("(") and text.endswith(")") and "if" not in text:
                text = text[1:-1]
        else:
            given = [*map(str, self.inputs)]
            given += [f"{name}={_short(value)}" for name, value in self.attrs.items()]
            text = f"{self.op.name}({', '.join(given)})"
        return f"{self.output.name} ({sizes}{comma}) = {text}"


def _short(value: Any) -> str:
    """An attribute as a reader writes it: slices as a:b, the batch size as B."""
    if isinstance(value, slice):
        text = ":".join("" if v is None else _short(v) for v in (value.start, value.stop))
        return text if value.step is None else f"{text}:{value.step}"
    if isinstance(value, tuple | list):
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        ends = "()" if isinstance(value, tuple) else "[]"
        return f"{ends[0]}{', '.join(map(_short, value))}{comma}{ends[1]}"
    return repr(value)


@dataclass(eq=False)
class Program:
    """A step: y, state' = step(x, state, noise), and the cotangents of its inputs.

    ``y`` and ``states`` are its outputs, ``seeds`` their cotangents (y first), ``gradients`` what
    the backward equations make of them: a value, or `None` for zero, for each input that there is.
    """

    name: str
    dtype: np.dtype[Any]
    x: Value
    before: list[Value]  # the state that the step is given
    noise: list[Value]
    parameters: list[Value]
    constants: list[Value] = field(default_factory=list)
    forward: list[Equation] = field(default_factory=list)
    y: Value | None = None
    states: list[Value] = field(default_factory=list)
    seeds: list[Value] = field(default_factory=list)
    backward: list[Equation] = field(default_factory=list)
    gradients: dict[Value, Value | None] = field(default_factory=dict)

    def __str__(self) -> str:
        def sized(values: Iterable[Value]) -> str:
            return ", ".join(
                f"{v.name} ({', '.join(map(str, v.shape))}{',' if len(v.shape) == 1 else ''})"
                for v in values
            )

        lines = [f"step {self.name}, {self.dtype}", f"given {sized([self.x, *self.before])}"]
        if self.noise:
            lines.append(f"noise {sized(self.noise)}")
        lines.append(f"parameters {sized(self.parameters)}")
        if arrays := [v for v in self.constants if not v.number]:
            lines.append(f"constants {sized(arrays)}")
        lines += ["", *(f"    {e}" for e in self.forward)]
        lines += ["", f"gives y = {self.y}, state = ({', '.join(map(str, self.states))})"]
        if self.backward:
            lines += ["", f"gradient, from {sized(self.seeds)}", ""]
            lines += [f"    {e}" for e in self.backward]
            lines.append("")
            lines += [
                f"gives the gradient of {wanted} = {'0' if g is None else g}"
                for wanted, g in self.gradients.items()
            ]
        return "\n".join(lines)


def leading_to(wanted: Iterable[Value | None]) -> set[Value]:
    """Everything that the wanted values are made from, they themselves included."""
    seen: set[Value] = set()
    stack = [v for v in wanted if v is not None]
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            if value.made is not None:
                stack.extend(value.made.inputs)
    return seen


def made_from(equations: Iterable[Equation], sources: Iterable[Value]) -> set[Value]:
    """The sources, and everything that these equations make from them."""
    touched = set(sources)
    for equation in equations:
        if any(x in touched for x in equation.inputs):
            touched.add(equation.output)
    return touched


def users(equations: Iterable[Equation]) -> dict[Value, list[Equation]]:
    """By value, the equations that read it."""
    found: dict[Value, list[Equation]] = {}
    for equation in equations:
        for x in dict.fromkeys(equation.inputs):
            found.setdefault(x, []).append(equation)
    return found
