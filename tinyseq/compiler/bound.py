"""A compiled layer whose arrays stay where they are: what a training step does again and again.

`runtime.Run` looks for memory, lays out weights and gathers arguments at every call; here all of
that is settled once, and what is left is a list of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinyseq.compiler.emit import Argument, Function, x_gradient
from tinyseq.compiler.program import Equation, Value
from tinyseq.compiler.runtime import Compiled
from tinyseq.kernels import gemm
from tinyseq.kernels.memory import aligned
from tinyseq.kernels.threads import ALONE, shared
from tinyseq.op import Op

Calls = list[Callable[[], Any]]
Take = Callable[[Sequence[int], Any], np.ndarray]


def settled(op: Op, arrays: Sequence[np.ndarray], attrs: dict[str, Any], calls: Calls) -> Any:
    """The result of an op on arrays that stay where they are: a view of them, or an array of its
    own that a further call fills.
    """
    made = np.asarray(op.forward(*arrays, **attrs))
    if any(np.may_share_memory(made, a) for a in arrays):
        return made
    calls.append(lambda: np.copyto(made, op.forward(*arrays, **attrs)))
    return made


class Bound:
    """One use of a compiled layer, for inputs in given arrays.

    ``forward`` and ``backward`` are the calls to make, in order; ``flat`` is what the layer gives,
    and `gradients` what the way back leaves behind. ``scratch`` gives memory that is free again
    after the call.
    """

    def __init__(
        self, compiled: Compiled, values: dict[Value, np.ndarray], sizes: tuple[int, int, int, int],
        scratch: Take,
    ) -> None:  # fmt: skip
        self.compiled, self.scratch = compiled, scratch
        self.memory = compiled.memory(*sizes)
        self.flat = self.memory.flat()
        self.forward: Calls = []
        self.values = {v: self._plain(a, self.forward) for v, a in values.items()}
        self.values |= compiled.constants
        self._bind_forward()

    def _plain(self, array: np.ndarray, calls: Calls) -> np.ndarray:
        """The array, or a copy in rows that is made at every call."""
        if array.flags.c_contiguous:
            return array
        plain = aligned(array.shape, array.dtype)
        calls.append(partial(np.copyto, plain, array))
        return plain

    def _bind_forward(self) -> None:
        memory, program, calls = self.memory, self.compiled.program, self.forward
        for e in self.compiled.plan.constant:
            self._equation(e, calls)
        first = memory.T if memory.reverse else 0
        for v in program.before:
            start = memory.buffers[v.name, "state"][first]
            calls.append(partial(np.copyto, start, self.values[v].reshape(memory.B, -1)))
        function = self.compiled.source.forward
        calls.append(self._call(function, self._arguments(function, calls)))
        for i, (start, stop) in memory.tails.items():
            states = memory.buffers[program.before[i].name, "state"]
            last = states[0 if memory.reverse else memory.T].reshape(-1)
            calls.append(partial(np.copyto, self.flat[start:stop], last))

    def backward(self, g: np.ndarray, take: Take) -> tuple[Calls, dict[Value, np.ndarray]]:
        """The calls that turn the cotangent of ``flat`` into the gradients, which are in arrays
        from ``take``.
        """
        memory, program = self.memory, self.compiled.program
        plan, function = self.compiled.plan, self.compiled.source.backward
        calls: Calls = []
        if function is None:  # nothing of what is wanted was used
            return calls, {}
        g = self._plain(g, calls)
        start, stop, _ = memory.outputs[0]
        self.values[program.seeds[0]] = g[start:stop].reshape(memory.T, memory.B, -1)
        for i, seed in enumerate(program.seeds[1:]):
            carried, tail = memory.buffers[seed.name, "carried"], memory.tails.get(i)
            if tail is None:
                calls.append(partial(carried[0].fill, 0))
            else:
                last = g[slice(*tail)].reshape(memory.B, -1)
                calls.append(partial(np.copyto, carried[0], last))
        arguments = self._arguments(function, calls, take)
        calls.append(self._call(function, arguments))
        of_x: dict[str, np.ndarray] = {}
        for a, made in zip(function.arguments, arguments, strict=True):
            if a.role in ("sums", "weight"):
                self.values[a.value] = self._summed(made, a, calls, take)
            elif a.anew:
                of_x[a.name] = made
        for e in plan.final:
            self._equation(e, calls)
        gradients = {}
        for v in plan.wanted:
            made = program.gradients.get(v)
            if v.kind == "state":
                seed = program.seeds[1 + program.before.index(v)]
                carried = memory.buffers[seed.name, "carried"][memory.T % 2]
                gradients[v] = carried.reshape(self.values[v].shape)
            elif made is not None and made.row:
                gradients[v] = of_x[x_gradient(made)].reshape(self.values[v].shape)
            elif made is not None:
                gradients[v] = self.values[made]
        return calls, gradients

    def _summed(self, made: np.ndarray, a: Argument, calls: Calls, take: Take) -> np.ndarray:
        """The parts of a sum added up: in place where there is one."""
        if len(made) == 1:
            return np.asarray(made[0].reshape(a.value.shape))
        whole = take(made.shape[1:], made.dtype)
        calls.append(partial(gemm.add_shared, made[0], made[1], whole))
        calls.extend(partial(gemm.add_shared, whole, part, whole) for part in made[2:])
        return np.asarray(whole.reshape(a.value.shape))

    def _arguments(self, function: Function, calls: Calls, take: Take | None = None) -> list[Any]:
        memory, values = self.memory, self.values
        out = list(memory.arguments[function.name])
        for n, (shape, dtype) in memory.borrowed[function.name]:
            out[n] = self.scratch(shape, dtype)
        for n, a in enumerate(function.arguments):
            if a.role == "panels":
                calls.append(partial(gemm.pack_shared, values[a.value], out[n]))
            elif a.role == "flat":
                out[n] = self._plain(values[a.value], calls)
            elif a.role in ("sums", "weight"):
                whole = a.value.shape if a.role == "weight" else (a.value.width,)
                assert take is not None
                if memory.parts == 1:  # the sum itself
                    out[n] = take(whole, memory.dtype)[None]
                else:
                    out[n] = self.scratch((memory.parts, *whole), memory.dtype)
                if a.role == "sums":
                    calls.append(partial(out[n].fill, 0))
            elif a.anew and a.name == a.value.name and a.value.kind != "made":
                out[n] = values[a.value].reshape(memory.T, memory.B, -1)
            elif a.anew:
                assert take is not None
                out[n] = take((memory.T, memory.B, a.value.width), memory.dtype)
        return out

    def _equation(self, e: Equation, calls: Calls) -> None:
        made = settled(e.op, [self.values[x] for x in e.inputs], e.attrs, calls)
        if made.dtype != e.output.dtype:
            other = np.empty(made.shape, e.output.dtype)
            calls.append(partial(np.copyto, other, made, casting="unsafe"))
            made = other
        self.values[e.output] = made

    def _call(self, function: Function, arrays: list[Any]) -> Callable[[], Any]:
        run, memory = self.compiled.functions[function.name], self.memory
        sizes, cuts = (memory.T, memory.reverse, memory.chunk), memory.cuts
        if memory.parts == 1:
            return partial(run, ALONE, 0, 0, memory.B, *sizes, *arrays)

        def part(i: int, team: np.ndarray) -> None:
            run(team, i, *cuts[i], *sizes, *arrays)

        return partial(shared, part, memory.parts)
