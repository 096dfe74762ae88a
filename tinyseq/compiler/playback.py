"""A `Take` done again: the same calls on arrays that stay where they are.

Nothing is recorded, looked up or allocated any more. Every array of the step has a place from the
start; what is only another view of one costs nothing, and places are given to later arrays as soon
as nobody reads them, so that there are no more of them than the step needs at once. What is left is
arithmetic: a list of NumPy's and the kernels' functions with their arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinyseq.compiler.bound import Bound, Calls
from tinyseq.compiler.pool import pool
from tinyseq.compiler.scan import joined_into
from tinyseq.compiler.take import Call, Take
from tinyseq.kernels import load
from tinyseq.kernels.memory import bytes_for, over
from tinyseq.op import Op
from tinyseq.primitives import ARRAY, repeated_axes, worth_a_kernel
from tinyseq.tensor import FLOATS, Tensor

_UFUNCS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
    "neg": np.negative, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "tanh": np.tanh,
    "abs": np.abs, "maximum": np.maximum, "minimum": np.minimum, "less": np.less,
    "less_equal": np.less_equal, "greater": np.greater, "greater_equal": np.greater_equal,
    "equal": np.equal, "not_equal": np.not_equal,
}  # fmt: skip
_ALWAYS = math.inf
_UNSAID = math.nan  # until when an array is read: as long as nobody says so, always
_WASTE = 1.25  # how much larger a place may be than the array that is put there
_SEVERAL = 4096  # numbers from which a kernel of ours is faster than NumPy's


class Playback:
    """The calls of a take, and the arrays they work in.

    ``ends``: the numbers of the values that are wanted at the end; `results` are their arrays, one
    each, in rows, which no other one shares. Making it does the step once, on ``given``.
    """

    def __init__(self, take: Take, ends: Sequence[int], given: Sequence[np.ndarray]) -> None:
        self._take = take
        self._arrays: list[np.ndarray | None] = [v.array for v in take.values]
        self._last = _last_uses(take, ends)
        self._memory = _Memory()
        self._bound: dict[int, Bound] = {}  # by the number of what a compiled layer gives
        self._within = _parts_of_joined(take)
        self.calls: Calls = []
        self.arguments = [np.array(a) for a in given]
        for n, argument in enumerate(self.arguments):
            self._arrays[n] = argument
        with np.errstate(all="ignore"):
            for i, call in enumerate(take.calls):
                steps = list(self._steps(i, call))
                self._memory.at(i)
                self.calls += steps
        self.results = self._ends(ends)
        del self._take, self._arrays, self._last

    def __call__(self, given: Sequence[np.ndarray]) -> None:
        """The step on other arguments, of the same shapes: its `results` are new."""
        for argument, array in zip(self.arguments, given, strict=True):
            np.copyto(argument, array, casting="same_kind")
        for call in self.calls:
            call()

    def _ends(self, ends: Sequence[int]) -> list[np.ndarray]:
        out: list[np.ndarray] = []
        own = [*self.arguments, *(v.array for v in self._take.values if v.array is not None)]
        for n in ends:
            array = self._array(n)
            shared = any(np.may_share_memory(array, a) for a in [*out, *own])
            if shared or not array.flags.carray:
                plain = np.empty(array.shape, array.dtype)
                self.calls.append(partial(np.copyto, plain, array))
                self.calls[-1]()
                array = plain
            out.append(array)
        return out

    # -- a call ---------------------------------------------------------------------------------

    def _steps(self, i: int, call: Call) -> Iterator[Callable[[], Any]]:
        """What does a call again; each has been done when the next one is asked for."""
        arrays = [self._array(n) for n in call.inputs]
        made: list[Any]
        if call.op == "backward":
            steps, made = self._backward(call)
        elif "call" in call.attrs:  # a compiled layer
            still = call.attrs["call"]
            sizes = (still.steps, still.batch, still.reverse, still.parts)
            values = dict(zip(still.order, arrays, strict=True))
            bound = Bound(still.compiled, values, sizes, self._memory.scratch)
            self._memory.free_scratch()
            self._bound[call.outputs[0]] = bound
            steps, made = bound.forward, [bound.flat]
        else:
            step, result = (self._op if call.drawn is None else self._draw)(call, arrays)
            steps, made = [] if step is None else [step], [result]
        for step in steps:
            step()
            yield step
        for n, array in zip(call.outputs, made, strict=True):
            if n >= 0:
                self._arrays[n] = array
                self._memory.extend(array, self._last[n])

    def _op(
        self, call: Call, arrays: list[np.ndarray]
    ) -> tuple[Callable[[], Any] | None, np.ndarray]:
        op, attrs, value = call.op, call.attrs, self._take.values[call.outputs[0]]
        assert isinstance(op, Op)
        natural = np.asarray(op.forward(*arrays, **attrs))
        if any(np.may_share_memory(natural, a) for a in arrays):
            return None, natural  # a view: it is always up to date
        if op.name == "joined" and call.outputs[0] in self._within.values():
            out = self._joined(call.outputs[0])
            there = [np.may_share_memory(a, out) for a in arrays]  # some were views of others
            return partial(joined_into, out, arrays, attrs["places"], there), out
        if call.outputs[0] in self._within:
            out = self._part(call.outputs[0])
        else:
            out = self._memory.place(value.shape, value.dtype, self._last[call.outputs[0]])
        if natural.dtype == value.dtype:
            step = _into(op, arrays, attrs, out)
            return step or (lambda: _copy_alike(out, op.forward(*arrays, **attrs))), out
        tensors = [Tensor.wrap(a) for a in arrays]  # whole numbers went in: an op makes floats
        return lambda: _copy_alike(out, op(*tensors, **attrs)._data), out

    def _part(self, n: int) -> np.ndarray:
        """Where a value is made that is to be a part of a joined array: there."""
        whole, value = self._within[n], self._take.values[n]
        (call,) = (c for c in self._take.calls if c.outputs == (whole,))
        start, stop = call.attrs["places"][call.inputs.index(n)]
        return self._joined(whole)[start:stop].reshape(value.shape)

    def _joined(self, n: int) -> np.ndarray:
        if self._arrays[n] is None:
            value = self._take.values[n]
            self._arrays[n] = self._memory.place(value.shape, value.dtype, self._last[n])
        return self._array(n)

    def _draw(
        self, call: Call, arrays: list[np.ndarray]
    ) -> tuple[Callable[[], Any] | None, np.ndarray]:
        op, drawn, n = call.op, call.drawn, call.outputs[0]
        assert isinstance(op, Op)
        assert drawn is not None
        out = self._memory.place(drawn.shape, drawn.dtype, self._last[n])
        np.copyto(out, drawn)
        # What was drawn when the step was taken down is in place; from now on it is drawn anew
        once = iter([True])
        again = partial(op.forward, *arrays, **call.attrs)
        return lambda: None if next(once, False) else _copy_alike(out, again()), out

    def _backward(self, call: Call) -> tuple[Calls, list[np.ndarray | None]]:
        g, y = call.inputs
        bound = self._bound[y]
        steps, gradients = bound.backward(self._array(g), self._memory.kept)
        self._memory.free_scratch()
        return steps, [
            gradients[v] if n >= 0 else None
            for v, n in zip(call.attrs["call"].order, call.outputs, strict=True)
        ]

    def _array(self, n: int) -> np.ndarray:
        array = self._arrays[n]
        assert array is not None, n
        return array


class _Memory:
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

    def kept(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """Memory for an array that is read until `extend` says so."""
        return self.place(shape, dtype, _UNSAID)

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


def _last_uses(take: Take, ends: Sequence[int]) -> list[float]:
    """By which call each value is read for the last time."""
    last: list[float] = [0] * len(take.values)
    inputs: dict[int, tuple[int, ...]] = {}  # of the compiled layers, by what they give
    for i, call in enumerate(take.calls):
        read = list(call.inputs)
        if call.op == "backward":
            read += inputs[call.inputs[1]]
        elif "call" in call.attrs:
            inputs[call.outputs[0]] = call.inputs
        for n in (*read, *call.outputs):
            if n >= 0:
                last[n] = i
    for n in ends:
        last[n] = _ALWAYS
    return last


def _parts_of_joined(take: Take) -> dict[int, int]:
    """Values that an op makes to be a part of one joined array alone, and the number of that."""
    uses: dict[int, int] = {}
    for call in take.calls:
        for n in call.inputs:
            uses[n] = uses.get(n, 0) + 1
    made = {c.outputs[0] for c in take.calls if isinstance(c.op, Op) and "call" not in c.attrs}
    within = {}
    for call in take.calls:
        if isinstance(call.op, Op) and call.op.name == "joined":
            places = call.attrs["places"]
            for n, (start, stop) in zip(call.inputs, places, strict=True):
                alone = all(stop <= a or b <= start for a, b in places if (a, b) != (start, stop))
                whole = take.values[call.outputs[0]]
                alike = take.values[n].dtype == whole.dtype and places.count((start, stop)) == 1
                if uses[n] == 1 and n in made and alone and alike and n not in take.ends:
                    within[n] = call.outputs[0]
    return within


# -- an op that writes where it is told -----------------------------------------------------------


def _into(
    op: Op, arrays: Sequence[np.ndarray], attrs: dict[str, Any], out: np.ndarray
) -> Callable[[], Any] | None:
    """What writes the result of an op into ``out``; `None` where nobody wrote that yet."""
    name = op.name
    if name == "add" and _is_bias(arrays[0], arrays[1], out):
        rows = (arrays[0].reshape(-1, out.shape[-1]), arrays[1], out.reshape(-1, out.shape[-1]))
        return partial(load.kernels.updates.add_to_rows, *rows)
    if name == "check":
        return partial(op.forward, *arrays, **attrs)
    if name in _UFUNCS:
        return partial(_UFUNCS[name], *arrays, out=out)
    if name == "matmul":
        return _product_into(arrays[0], arrays[1], out)
    if name == "sum":
        return partial(np.add.reduce, arrays[0], out=out, **attrs)
    if name == "sum_to":
        return _sum_to_into(arrays[0], attrs["shape"], out)
    if name == "concat":
        return partial(np.concatenate, arrays, attrs["axis"], out=out)
    if name == "astype":
        return partial(np.copyto, out, arrays[0], casting="unsafe")
    if name == "lookup" or (
        name == "getitem" and attrs["index"] is ARRAY and arrays[1].dtype != bool
    ):
        return partial(_rows_into, arrays[0], arrays[1], out, name == "lookup")
    if name in ("scatter_add", "softmax_loss_slope"):
        return partial(op.forward, *arrays, **attrs, out=out)
    if name == "joined":
        return partial(joined_into, out, arrays, attrs["places"])
    return None


def _copy_alike(out: np.ndarray, made: np.ndarray) -> None:
    """Copy, but never one number into many: what a mask picks may be less than the last time."""
    if np.shape(made) != out.shape:
        raise ValueError("other sizes than the last time")
    np.copyto(out, made)


def _plain(*arrays: np.ndarray) -> bool:
    """Whether a kernel can take these: floats of one dtype, in rows, and enough of them."""
    a = arrays[0]
    if load.kernels is None or a.dtype not in FLOATS or a.size < _SEVERAL:
        return False
    return all(b.dtype == a.dtype and b.flags.c_contiguous for b in arrays)


def _is_bias(x: np.ndarray, row: np.ndarray, out: np.ndarray) -> bool:
    alike = x.shape == out.shape and row.shape == x.shape[-1:]
    return alike and _plain(x, row, out)


def _product_into(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> Callable[[], Any] | None:
    if a.ndim > 2 and b.ndim == 2:
        rows = a.reshape(-1, a.shape[-1])
        if not np.may_share_memory(rows, a):
            return None
        a, out = rows, out.reshape(-1, b.shape[1])
    if a.ndim == b.ndim == 2 and worth_a_kernel(a, b):
        return partial(load.kernels.gemm.product, a, b, out)
    return partial(np.matmul, a, b, out=out)


def _sum_to_into(x: np.ndarray, shape: tuple[int, ...], out: np.ndarray) -> Callable[[], Any]:
    if x.ndim > 1 and shape == x.shape[-1:] and _plain(x, out):
        return partial(load.kernels.updates.sum_of_rows, x.reshape(-1, *shape), out)
    axes = repeated_axes(x.shape, shape)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return partial(np.add.reduce, x, axes, out=out.reshape(kept), keepdims=True)


def _rows_into(x: np.ndarray, index: np.ndarray, out: np.ndarray, or_zeros: bool) -> None:
    # NumPy looks at each index first, or else writes by way of a buffer; without a sign one below
    # 0 is large
    whole = index.size == 0 or index.view(np.uint64).max() < len(x)
    np.take(x, index, axis=0, out=out, mode="clip" if whole else "raise")
    if or_zeros and not whole:
        out[index < 0] = 0
