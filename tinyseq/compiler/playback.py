"""Replays a recorded training step: the same calls, on arrays that stay where they are.

Nothing is recorded, looked up or allocated any more. Every array of the step has a place from the
start; what is only another view of one costs nothing, and places are given to later arrays as soon
as nobody reads them, so that there are no more of them than the step needs at once. What is left is
arithmetic: a list of NumPy's and the kernels' functions with their arguments.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinyseq.compiler.pool import pool
from tinyseq.compiler.program import Equation, Value
from tinyseq.compiler.runtime import Room, Run
from tinyseq.compiler.scan import LayerUse, joined_into, scan_gradient
from tinyseq.compiler.trace import StepTape
from tinyseq.kernels.memory import bytes_for, over
from tinyseq.tensor import Tensor

Calls = list[Callable[[], Any]]
_ALWAYS = math.inf
_UNSAID = math.nan  # until when an array is read: as long as nobody says so, always
_WASTE = 1.25  # how much larger a place may be than the array that is put there


class Playback:
    """The calls of a tape, and the arrays they work in.

    `results` are the arrays of the tape's ends, one each, in rows, which no other one shares.
    Making it does the step once, on ``given``.
    """

    def __init__(self, tape: StepTape, given: Sequence[np.ndarray]) -> None:
        self._last = _last_uses(tape)
        self._memory = _Memory()
        self._runs: dict[Value, Run] = {}  # of compiled layers, by what each gives
        self._within = _parts_of_joined(tape)
        self.calls: Calls = []
        self.arguments = [np.array(a) for a in given]
        self._arrays = {
            v: v.data for v in tape.values if v.kind == "constant" and v.data is not None
        }
        self._arrays |= dict(zip(tape.values, self.arguments, strict=False))  # which come first
        own = list(self._arrays.values())
        with np.errstate(all="ignore"):
            for i, e in enumerate(tape.equations):
                self.calls += self._steps(e)
                self._memory.at(i)
        self.results = self._ends(tape.ends, own)
        del self._arrays, self._last, self._within  # but not the runs, which own their memory

    def __call__(self, given: Sequence[np.ndarray]) -> None:
        """The step on other arguments, of the same shapes: its `results` are new."""
        for argument, array in zip(self.arguments, given, strict=True):
            np.copyto(argument, array, casting="same_kind")
        for call in self.calls:
            call()

    def _ends(self, ends: Sequence[Value], own: Sequence[np.ndarray]) -> list[np.ndarray]:
        out: list[np.ndarray] = []
        for v in ends:
            array = self._arrays[v]
            shared = any(np.may_share_memory(array, a) for a in [*out, *own])
            if shared or not array.flags.carray:
                plain = np.empty(array.shape, array.dtype)
                self.calls.append(partial(np.copyto, plain, array))
                self.calls[-1]()
                array = plain
            out.append(array)
        return out

    # -- a call ---------------------------------------------------------------------------------

    def _steps(self, e: Equation) -> Calls:
        """What does an equation again, done once."""
        arrays = [self._arrays[v] for v in e.inputs]
        made: Sequence[np.ndarray | None]
        if "call" in e.attrs:  # of a compiled layer: a run makes its calls itself
            steps, made = self._layer(e, arrays)
        else:
            step, result = (self._draw if e.output.kind == "drawn" else self._op)(e, arrays)
            steps, made = [] if step is None else [step], [result]
            for step in steps:
                step()
        for v, array in zip(e.outputs, made, strict=True):
            if v is not None and array is not None:
                self._arrays[v] = array
                self._memory.extend(array, self._last[v])
        return steps

    def _op(
        self, e: Equation, arrays: list[np.ndarray]
    ) -> tuple[Callable[[], Any] | None, np.ndarray]:
        op, attrs, value = e.op, e.attrs, e.output
        natural = np.asarray(op.forward(*arrays, **attrs))
        if op.name == "astype" and natural.dtype == arrays[0].dtype and value not in self._within:
            return None, arrays[0]  # a copy, which nobody writes into here
        if any(np.may_share_memory(natural, a) for a in arrays):
            return None, natural  # a view: it is always up to date
        out = self._place(value)
        if op.name == "joined":
            there = [np.may_share_memory(a, out) for a in arrays]  # some were views of others
            return partial(joined_into, out, arrays, attrs["places"], there), out
        if natural.dtype == value.dtype:
            step = op.writing(out, arrays, attrs)
            return step or (lambda: _copy_alike(out, op.forward(*arrays, **attrs))), out
        tensors = [Tensor.wrap(a) for a in arrays]  # whole numbers went in: an op makes floats
        return lambda: _copy_alike(out, op(*tensors, **attrs)._data), out

    def _place(self, value: Value) -> np.ndarray:
        """Where a value is made: what is to be a part of a joined array, there."""
        if value in self._within:
            joined, start, stop = self._within[value]
            return self._place(joined.output)[start:stop].reshape(value.shape)
        if value not in self._arrays:
            array = self._memory.place(value.shape, value.dtype, self._last[value])
            self._arrays[value] = array
        return self._arrays[value]

    def _draw(
        self, e: Equation, arrays: list[np.ndarray]
    ) -> tuple[Callable[[], Any] | None, np.ndarray]:
        out, drawn = self._place(e.output), e.output.data
        assert drawn is not None
        np.copyto(out, drawn)
        # What was drawn when the step was recorded is in place; from now on it is drawn anew
        once = iter([True])
        again = partial(e.op.forward, *arrays, **e.attrs)
        return lambda: None if next(once, False) else _copy_alike(out, again()), out

    def _layer(
        self, e: Equation, arrays: list[np.ndarray]
    ) -> tuple[Calls, Sequence[np.ndarray | None]]:
        layer: LayerUse = e.attrs["call"]
        made: Sequence[np.ndarray | None]
        if e.op is scan_gradient:
            run = self._runs[e.inputs[1]]
            gradients = run.backward(arrays[0])
            made = [gradients.get(v) for v in layer.order]
        else:
            values = dict(zip(layer.order, arrays, strict=True))
            run = Run(layer.compiled, values, layer.reverse, layer.parts, self._memory, keep=True)
            self._runs[e.output] = run
            made = [run.forward()]
        self._memory.free_scratch()
        calls, run.calls = run.calls, []
        return calls, made


class _Memory(Room):
    """Where the arrays of a step lie: a place is given again when its array was read for the last
    time.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}  # bytes, by how many they are
        self._until: dict[int, tuple[float, np.ndarray]] = {}  # by the identity of the bytes
        self._scratch: list[np.ndarray] = []

    def place(self, shape: Sequence[int], dtype: Any, until: float) -> np.ndarray:
        """Memory for an array that is read until that call."""
        least = bytes_for(shape, dtype)
        fitting = [n for n, there in self._free.items() if there and least <= n <= least * _WASTE]
        place = self._free[min(fitting)].pop() if fitting else None
        array = pool.take(shape, dtype) if place is None else over(place, shape, dtype)
        assert isinstance(array.base, np.ndarray)
        self._until[id(array.base)] = (until, array.base)
        return array

    def steps(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """Memory for an array that is read until `extend` says so."""
        return self.place(shape, dtype, _UNSAID)

    whole = steps

    def scratch(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """Memory for the call at hand alone."""
        self._scratch.append(self.place(shape, dtype, _ALWAYS))
        return self._scratch[-1]

    def free_scratch(self) -> None:
        for array in self._scratch:
            self._let_go(id(array.base))
        self._scratch.clear()

    def extend(self, array: np.ndarray, until: float) -> None:
        """The array, perhaps a view, is read until that call."""
        key = id(array.base)
        if key in self._until:
            before, place = self._until[key]
            self._until[key] = (until if math.isnan(before) else max(before, until), place)

    def at(self, i: int) -> None:
        """Call i is done: what nobody reads any more is free."""
        for key in [key for key, (until, _) in self._until.items() if until <= i]:
            self._let_go(key)

    def _let_go(self, key: int) -> None:
        _, place = self._until.pop(key)
        self._free.setdefault(place.nbytes, []).append(place)


def _last_uses(tape: StepTape) -> dict[Value, float]:
    """By which equation each value is read for the last time."""
    last: dict[Value, float] = dict.fromkeys(tape.values, 0)
    inputs: dict[Value, tuple[Value, ...]] = {}  # of the compiled layers, by what they give
    for i, e in enumerate(tape.equations):
        read = [*e.inputs, *(v for v in e.outputs if v is not None)]
        if e.op is scan_gradient:
            read += inputs[e.inputs[1]]
        elif "call" in e.attrs:
            inputs[e.output] = e.inputs
        last |= dict.fromkeys(read, i)
    return last | dict.fromkeys(tape.ends, _ALWAYS)


def _parts_of_joined(tape: StepTape) -> dict[Value, tuple[Equation, int, int]]:
    """Values that an op makes to be a part of one joined array alone: that, and where in it."""
    uses = Counter(v for e in tape.equations for v in e.inputs)
    made = {e.output for e in tape.equations if "call" not in e.attrs}
    within = {}
    for e in tape.equations:
        if e.op.name == "joined":
            places = e.attrs["places"]
            for v, (start, stop) in zip(e.inputs, places, strict=True):
                alone = all(stop <= a or b <= start for a, b in places if (a, b) != (start, stop))
                alike = v.dtype == e.output.dtype and places.count((start, stop)) == 1
                if uses[v] == 1 and v in made and alone and alike and v not in tape.ends:
                    within[v] = e, start, stop
    return within


def _copy_alike(out: np.ndarray, made: np.ndarray) -> None:
    """Copy, but never one number into many: what a mask picks may be less than the last time."""
    if np.shape(made) != out.shape:
        raise ValueError("other sizes than the last time")
    np.copyto(out, made)
