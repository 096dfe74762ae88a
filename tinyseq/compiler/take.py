"""A training step as it was done once: every op that it called, and where its arrays came from.

Where `trace` reads one step of a cell, to be compiled for any batch, a `Take` is a whole call of a
function on arrays of one size, with its gradient, to be done again by `playback` on other numbers.
Arrays are told apart by identity: what is no argument, was made by no op and was not drawn comes
from outside, and has to be the same the next time. Two takes, on different arguments, are compared.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyseq.compiler.trace import line_of
from tinyseq.errors import CompileError, describe
from tinyseq.graph import recording, taped
from tinyseq.op import Op
from tinyseq.primitives import draw
from tinyseq.tensor import Tensor

if TYPE_CHECKING:
    from tinyseq.nn.module import Module


@dataclass(slots=True)
class Value:
    """An array of the step: its kind is ``"argument"``, ``"made"`` or ``"outside"``."""

    kind: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    array: np.ndarray | None = None  # of one that is from outside
    tensors: list[weakref.ref[Tensor]] = field(default_factory=list)  # whose array it is


@dataclass(slots=True)
class Call:
    """An op and the numbers of its inputs and outputs; ``op`` may also be ``"backward"``, of a
    compiled layer.
    """

    op: Op | str
    inputs: tuple[int, ...]
    attrs: dict[str, Any]
    outputs: tuple[int, ...]
    line: str
    drawn: np.ndarray | None = None  # random numbers, so that they can be given again


class Take:
    """What is noted while `taking` lasts."""

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        self.values: list[Value] = []
        self.calls: list[Call] = []
        self.modules: dict[int, Module] = {}  # that were called, by identity
        self.ends: list[int] = []  # the numbers of what is wanted in the end
        self._numbers: dict[int, int] = {}  # of arrays by identity, as long as they live
        self._alive: dict[int, weakref.ref[np.ndarray]] = {}  # by number
        for t in arguments:
            self._new("argument", t._data)

    def number(self, array: np.ndarray, tensor: Tensor | None = None) -> int:
        """Of an array; one that was not seen before comes from outside."""
        found = self._numbers.get(id(array))
        if found is None:
            found = self._new("outside", array)
            self.values[found].array = array
        known = self.values[found].tensors
        if tensor is not None and all(t() is not tensor for t in known):
            known.append(weakref.ref(tensor))
        return found

    def __call__(
        self, op: Op, inputs: tuple[Tensor, ...], attrs: dict[str, Any], y: Tensor
    ) -> None:
        """Note a call of an op."""
        numbers = tuple(self.number(x._data, x) for x in inputs)
        if "call" in attrs:  # one use of a compiled layer
            attrs = {"call": attrs["call"].still()}
        output = self._new("made", y._data)
        drawn = y._data if op is draw else None
        self.calls.append(Call(op, numbers, attrs, (output,), line_of(sys._getframe(2)), drawn))

    def backward(self, g: Tensor, y: Tensor, scan: Any, gradients: Sequence[Tensor | None]) -> None:
        """Note the gradient of a compiled layer whose flat result was y: one cotangent in, several
        out (−1 for an input that wants none).
        """
        inputs = (self.number(g._data), self.number(y._data))
        outputs = tuple(-1 if t is None else self._new("made", t._data) for t in gradients)
        self.calls.append(Call("backward", inputs, {"call": scan}, outputs, ""))

    def _new(self, kind: str, array: np.ndarray) -> int:
        number, key = len(self.values), id(array)

        def forget(_: object) -> None:  # the identity may be given to another array
            if self._numbers.get(key) == number:
                del self._numbers[key]

        self.values.append(Value(kind, array.shape, array.dtype))
        self._numbers[key] = number
        self._alive[number] = weakref.ref(array, forget)
        return number


@contextmanager
def taking(arguments: Sequence[Tensor]) -> Iterator[Take]:
    """Inside, everything that is done with Tensors is noted."""
    if recording.tape is not None:
        raise CompileError("a training step within another one cannot be recorded.")
    take = Take(arguments)
    try:
        with taped(take, take):
            yield take
    finally:
        take._numbers.clear()
        take._alive.clear()


def compare(a: Take, b: Take) -> None:
    """Raise `CompileError`, with the line, unless both did the same to other arguments."""
    for c, d in zip(a.calls, b.calls, strict=False):
        if c.op != d.op or c.inputs != d.inputs or c.outputs != d.outputs:
            raise CompileError(
                f"{_at(d)}the function does something else in one call than in the next, for "
                "arguments of the same shapes. Let what it does hang on shapes alone, and choose "
                "between values with ops.where."
            )
        for n in d.inputs:
            if not _same_value(a.values[n], b.values[n]):
                raise CompileError(f"{_at(d)}{_changed(b.values[n])}")
        for name, attribute in c.attrs.items():
            if not _same(attribute, d.attrs[name]):
                raise CompileError(
                    f"{_at(d)}{name} of {d.op.name if isinstance(d.op, Op) else d.op} is another "
                    "one in one call than in the next. Pass what changes as an argument of the "
                    "step: arrays and Tensors, or what stays the same."
                )
        for n in d.outputs:
            if n >= 0 and a.values[n].shape != b.values[n].shape:
                raise CompileError(f"{_at(d)}the sizes of what it makes hang on values.")
    if len(a.calls) != len(b.calls):
        raise CompileError("the function does more in one call than in the next.")
    if a.ends != b.ends:
        raise CompileError("the function gives something else in one call than in the next.")


def _at(call: Call) -> str:
    return f"{call.line}: " if call.line else ""


def _changed(value: Value) -> str:
    return (
        f"an array of shape {describe(value.shape)} comes from outside of the step and is another "
        "one in one call than in the next. Pass it as an argument of the step; random numbers are "
        "drawn by layers (nn.Dropout, a cell's noise(x, state))."
    )


def _same_value(a: Value, b: Value) -> bool:
    if a.kind != b.kind or a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.kind != "outside" or a.array is b.array:
        return True
    mine = [id(t) for known in a.tensors if (t := known()) is not None]
    if any(id(known()) in mine for known in b.tensors):
        return True  # a parameter, say, that was written to meanwhile
    return np.array_equal(a.array, b.array, equal_nan=a.dtype.kind == "f")  # type: ignore[arg-type]


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    return a is b or bool(a == b)
