"""The last pass: an emitted program compiled, kept, and run on real arrays."""

from __future__ import annotations

import hashlib
import itertools
import linecache
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from tinyseq.compiler.emit import Argument, Function, Source, emit, x_gradient
from tinyseq.compiler.pool import pool
from tinyseq.compiler.program import Equation, Program, Value
from tinyseq.compiler.split import Plan, flattened, kind, split
from tinyseq.kernels import gemm
from tinyseq.kernels.jit import is_kept, jit
from tinyseq.kernels.memory import aligned, over, raw
from tinyseq.kernels.threads import ALONE, get_num_threads, shared
from tinyseq.locks import new_lock

_WORTH_SHARING = 2e7  # operations below which waking a second thread costs more than it brings
_ROWS = 256  # of a chunk, for each thread: its numbers are to stay in the second-level cache
_MOST = 4  # memories of other sizes that a program keeps
_LISTED = [object()]
_ALONE = sys.getrefcount(_LISTED[0])  # of something that a list holds, and nobody else
_LARGE = 1 << 14  # numbers: memory that layers share, where it holds nothing between two calls
_SILENT = 2.0  # seconds of compiling before it is said


class Compiled:
    """A program for given wanted gradients: its source, its functions, and how to run them."""

    def __init__(self, program: Program, wanted: frozenset[Value], saving: bool) -> None:
        self.program = program
        self.plan: Plan = split(program, wanted, saving)
        self.source: Source = self.emitted()
        self.functions = load(program.name, self.source.text)
        self.there: set[str] = set()  # those that were compiled, or loaded from disk
        gemm.ready(program.dtype)
        equations = flattened(self.plan.before) + self.plan.forward
        products = [e for e in equations if kind(e) == "product"]
        self.work = sum(2.0 * e.inputs[0].width * e.output.width for e in products)
        self.work += 30.0 * sum(e.output.width for e in self.plan.forward)

        self.constants = {v: v.data for v in program.constants if v.data is not None and not v.row}
        self.memories: list[Memory] = []
        self._lock = new_lock(self, "_lock")

    def emitted(self) -> Source:
        return emit(self.plan)

    def memory(self, T: int, B: int, reverse: int, parts: int) -> Memory:
        """Memory of this size that nobody works in."""
        size = (T, B, reverse, parts)
        with self._lock:
            for n in range(len(self.memories)):
                if sys.getrefcount(self.memories[n]) == _ALONE and self.memories[n].returned():
                    m = self.memories[n]
                    if (m.T, m.B, m.reverse, m.parts) == size:
                        self.memories.append(self.memories.pop(n))  # the last used one is last
                        return m
            self.memories = [m for m in self.memories if not m.returned()][-_MOST:] + [
                m for m in self.memories if m.returned()
            ][-_MOST:]
            self.memories.append(Memory(self, *size))
            return self.memories[-1]


class Memory:
    """What a compiled program works in, for sequences of one size: used again, as fresh memory
    costs page faults and time in Python, at every step of a training.

    In numbers: the states, (T + 1) B W each, and what is saved, T B W each, from `Run.forward` on;
    in `Run.backward` besides a chunk of each factor of a weight's gradient.
    """

    def __init__(self, compiled: Compiled, T: int, B: int, reverse: int, parts: int) -> None:
        self.compiled, self.T, self.B, self.reverse, self.parts = compiled, T, B, reverse, parts
        program = compiled.program
        self.dtype = program.dtype
        cuts = [B * i // parts for i in range(parts + 1)]
        self.cuts = list(itertools.pairwise(cuts))
        self.chunk = max(1, min(T, _ROWS * parts // B))
        #: Which state the output y is, if it is one: its memory then is that of the outputs
        assert program.y is not None
        self.own = program.states.index(program.y) if program.y in program.states else None
        self.outputs = self._outputs(program.y)
        #: Behind y: the last states that are not part of it
        self.tails = {i: end[:2] for i, end in enumerate(self.outputs[1:]) if i != self.own}
        self.size = max(stop for _, stop, _ in self.outputs)
        if self.own is not None:
            self.size = max(self.size, (T + 1) * B * program.y.width)
        self.raw = raw((self.size,), self.dtype)
        self.buffers: dict[tuple[str, str], np.ndarray] = {}  # by name and role
        flat = self.flat()
        for i, v in enumerate(program.before):
            if i == self.own:
                states = flat[: (T + 1) * B * v.width].reshape(T + 1, B, -1)
            else:
                states = aligned((T + 1, B, v.width), self.dtype)
            self.buffers[v.name, "state"] = states
        if self.own is None:
            n = T * B * program.y.width
            self.buffers["y", "steps"] = flat[:n].reshape(T, B, -1)
        for seed in program.seeds[1:]:
            self.buffers[seed.name, "carried"] = aligned((2, B, seed.width), self.dtype)
        self.arguments: dict[str, list[Any]] = {}
        self.borrowed: dict[str, list[tuple[int, Any]]] = {}  # large, and for one call alone
        for f in (compiled.source.forward, compiled.source.backward):
            if f is not None:
                self.borrowed[f.name] = []
                self.arguments[f.name] = [self._bind(f, n) for n in range(len(f.arguments))]
        del flat, states
        self._held = sys.getrefcount(self.raw)

    def flat(self) -> np.ndarray:
        """All outputs in one flat array: see `outputs`."""
        return over(self.raw, (self.size,), self.dtype)

    def returned(self) -> bool:
        """Whether nobody outside holds the outputs, or a view of them."""
        return sys.getrefcount(self.raw) == self._held

    def nbytes(self) -> int:
        """How much it is, in bytes."""
        arrays = {id(a): a for a in self.buffers.values() if a.base is not self.raw}
        return int(self.raw.nbytes + sum(a.nbytes for a in arrays.values()))

    def _outputs(self, y: Value) -> list[tuple[int, int, tuple[int, ...]]]:
        """Where in the flat array y and each last state lie: (start, stop, shape)."""
        row, own = self.B * y.width, self.own is not None
        start = row if own and not self.reverse else 0
        out = [(start, start + self.T * row, (self.T, self.B, *y.shape[1:]))]
        behind = (self.T + own) * row  # the states that are no part of y
        for i, v in enumerate(self.compiled.program.states):
            at = behind if i != self.own else 0 if self.reverse else self.T * row
            out.append((at, at + self.B * v.width, (self.B, *v.shape[1:])))
            behind += self.B * v.width if i != self.own else 0
        return out

    def _bind(self, f: Function, n: int) -> np.ndarray | None:
        """Memory for an argument; `None` for one that each run brings, or borrows."""
        a = f.arguments[n]
        key = (a.name, a.role)
        if a.anew:
            return None
        if key not in self.buffers:
            shape, dtype = self._shape(a)
            if a.role != "steps" and math.prod(shape) > _LARGE:
                self.borrowed[f.name].append((n, (shape, dtype)))
                return None
            self.buffers[key] = aligned(shape, dtype)
        return self.buffers[key]

    def _shape(self, a: Argument) -> tuple[tuple[int, ...], Any]:
        v, parts = a.value, self.parts
        if a.role == "panels":
            return gemm.panels_shape(v.shape[0], v.shape[1], self.dtype), self.dtype
        if a.role in ("packed", "tiles"):
            rows, outer = self.chunk * math.ceil(self.B / parts), self.compiled.plan.outer
            if a.role == "packed":
                widest = max(o.right.width for o in outer)
                size = math.prod(gemm.panels_shape(rows, widest, self.dtype))
            else:
                size = gemm.tiles_size(rows, max(o.left.width for o in outer))
            return (parts, -size % -16 + size), self.dtype
        return {
            "steps": (self.T, self.B, v.width),
            "chunk": (self.chunk, self.B, v.width),
            "rows": (self.B, v.width),
            "scratch": (parts, v.width),
        }[a.role], v.dtype


class Room:
    """Where a run takes arrays from, by shape and dtype: ``scratch`` for the call at hand alone,
    ``steps`` for the gradient of an input, ``whole`` for one that may become a ``.grad``.
    """

    def scratch(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        return pool.take(shape, dtype)

    steps = scratch
    whole: Any = staticmethod(np.empty)


class Run:
    """One sequence through a compiled program: forward now, backward perhaps later.

    Either is a few calls on arrays that stay where they are. Each is made at once; with ``keep`` it
    is also added to ``calls``, for a training step that makes them again, on other contents.
    """

    def __init__(
        self,
        compiled: Compiled,
        inputs: Mapping[Value, np.ndarray],
        reverse: bool,
        parts: int | None = None,
        room: Room = Room(),  # noqa: B008  # it has no state
        keep: bool = False,
    ) -> None:
        self.compiled, self.room, self.keep = compiled, room, keep
        self.calls: list[Callable[[], Any]] = []
        self.values = {
            v: a if a.flags.c_contiguous else self._in_rows(a) for v, a in inputs.items()
        }
        self.values.update(compiled.constants)
        T, B = self.values[compiled.program.x].shape[:2]
        if parts is None:
            enough = T * B * compiled.work > _WORTH_SHARING
            parts = max(1, min(get_num_threads(), B)) if enough else 1
        self.memory = compiled.memory(T, B, int(reverse), parts)

    def forward(self) -> np.ndarray:
        """All outputs in one flat array: see `Memory.outputs`."""
        memory, program = self.memory, self.compiled.program
        self._call(self.compiled.source.forward, self.prepare())
        flat = memory.flat()
        for i, (start, stop) in memory.tails.items():
            states = memory.buffers[program.before[i].name, "state"]
            last = states[0 if memory.reverse else memory.T].reshape(-1)
            self._do(np.copyto, flat[start:stop], last)
        return flat

    def prepare(self) -> list[Any]:
        """The arguments of the forward function, with the initial state in place."""
        memory, program = self.memory, self.compiled.program
        for e in self.compiled.plan.constant:
            self._equation(e)
        first = memory.T if memory.reverse else 0
        for v in program.before:
            start = memory.buffers[v.name, "state"][first]
            self._do(np.copyto, start, self.values[v].reshape(memory.B, -1))
        return self._arguments(self.compiled.source.forward)

    def backward(self, g: np.ndarray) -> dict[Value, np.ndarray]:
        """The gradient of each wanted input, from that of the flat outputs. Those of the initial
        state are in memory of the run.
        """
        memory, program = self.memory, self.compiled.program
        function = self.compiled.source.backward
        if function is None:  # nothing of what is wanted was used
            return {}
        g = self._in_rows(g)
        start, stop, _ = memory.outputs[0]
        self.values[program.seeds[0]] = g[start:stop].reshape(memory.T, memory.B, -1)
        for i, seed in enumerate(program.seeds[1:]):
            carried, tail = memory.buffers[seed.name, "carried"][0], memory.tails.get(i)
            if tail is None:
                self._do(carried.fill, 0)
            else:
                self._do(np.copyto, carried, g[slice(*tail)].reshape(memory.B, -1))
        arguments = self._arguments(function)
        self._call(function, arguments)
        of_x: dict[str, np.ndarray] = {}
        for a, made in zip(function.arguments, arguments, strict=True):
            if a.role in ("sums", "weight"):
                self._add_up(a, made)
            elif a.anew:
                of_x[a.name] = made
        for e in self.compiled.plan.final:
            self._equation(e)
        gradients = {}
        for v in self.compiled.plan.wanted:
            made = program.gradients.get(v)
            if v.kind == "state":
                seed = program.seeds[1 + program.before.index(v)]
                carried = memory.buffers[seed.name, "carried"][memory.T % 2]
                gradients[v] = carried.reshape(self.values[v].shape)
            elif made is not None and made.row:
                gradients[v] = of_x[x_gradient(made)].reshape(self.values[v].shape)
            elif made is not None:
                gradients[v] = self.values[made]
        return gradients

    def _do(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)
        if self.keep:
            self.calls.append(partial(function, *arguments))

    def _in_rows(self, array: np.ndarray) -> np.ndarray:
        """The array, or a copy of it in rows."""
        if array.flags.c_contiguous:
            return array
        rows = aligned(array.shape, array.dtype)
        self._do(np.copyto, rows, array)
        return rows

    def _arguments(self, function: Function) -> list[Any]:
        """What an emitted function takes: memory, and what is this run's own."""
        memory, values, room = self.memory, self.values, self.room
        out = list(memory.arguments[function.name])
        for n, (shape, dtype) in memory.borrowed[function.name]:
            out[n] = room.scratch(shape, dtype)
        for n, a in enumerate(function.arguments):
            if a.role == "panels":
                self._do(gemm.pack_shared, values[a.value], out[n])
            elif a.role == "flat":
                out[n] = self._in_rows(values[a.value])
            elif a.role in ("sums", "weight"):
                shape = a.value.shape if a.role == "weight" else (a.value.width,)
                if memory.parts == 1:  # the sum itself
                    values[a.value] = room.whole(shape, memory.dtype)
                    out[n] = values[a.value][None]
                else:
                    out[n] = room.scratch((memory.parts, *shape), memory.dtype)
                if a.role == "sums":
                    self._do(out[n].fill, 0)
            elif a.anew and a.name == a.value.name and a.value.kind != "made":
                out[n] = values[a.value].reshape(memory.T, memory.B, -1)
            elif a.anew:
                out[n] = room.steps((memory.T, memory.B, a.value.width), memory.dtype)
        return out

    def _add_up(self, a: Argument, parts: np.ndarray) -> None:
        """A sum of its parts, as the value. It is no view where it need not be: a ``.grad`` would
        have to be a copy of that.
        """
        if len(parts) > 1:
            whole = self.values[a.value] = self.room.whole(parts.shape[1:], parts.dtype)
            self._do(gemm.add_shared, parts[0], parts[1], whole)
            for part in parts[2:]:
                self._do(gemm.add_shared, whole, part, whole)
        if self.values[a.value].shape != a.value.shape:
            self.values[a.value] = self.values[a.value].reshape(a.value.shape)

    def _equation(self, e: Equation) -> None:
        """An equation of parameters alone, or of sums."""
        arrays = [self.values[x] for x in e.inputs]
        out = np.asarray(e.op.forward(*arrays, **e.attrs))
        out = out if out.dtype == e.output.dtype else out.astype(e.output.dtype)
        self.values[e.output] = out
        if self.keep and not any(np.may_share_memory(out, a) for a in arrays):
            again = partial(e.op.forward, *arrays, **e.attrs)
            self.calls.append(lambda: np.copyto(out, again(), casting="unsafe"))

    def _call(self, function: Function, arrays: list[Any]) -> None:
        """Run an emitted function, its rows shared out over the threads."""
        run, memory = self.compiled.functions[function.name], self.memory
        sizes, cuts = (memory.T, memory.reverse, memory.chunk), memory.cuts
        if function.name not in self.compiled.there and hasattr(run, "signatures"):
            with said(self.compiled.program.name, function.name, run):
                run(ALONE, 0, 0, 0, *sizes, *arrays)  # compiles, or loads: no rows to run yet
            self.compiled.there.add(function.name)
        if memory.parts == 1:
            self._do(run, ALONE, 0, 0, memory.B, *sizes, *arrays)
        else:
            self._do(shared, lambda i, team: run(team, i, *cuts[i], *sizes, *arrays), memory.parts)


# -- source and functions -------------------------------------------------------------------------

_loaded: dict[str, dict[str, Callable[..., None]]] = {}
_loading = new_lock(sys.modules[__name__], "_loading")


def load(name: str, text: str) -> dict[str, Callable[..., None]]:
    """The functions of an emitted source: the same source is loaded once, whichever layer asks.

    The source lives in memory, known to tracebacks and debuggers.
    """
    with _loading:
        if text in _loaded:
            return _loaded[text]
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        module = f"{name}_{digest}"
        file = f"<tinyseq {module}>"
        lines = text.splitlines(keepends=True)
        linecache.cache[file] = (len(text), None, lines, file)
        # A module that can be imported by its name: what numba keeps on disk is found by that
        emitted = sys.modules[f"tinyseq_{module}"] = ModuleType(f"tinyseq_{module}")
        emitted.__file__ = file
        exec(compile(text, file, "exec"), vars(emitted))
        own = {
            k: f
            for k, f in vars(emitted).items()
            if getattr(f, "__module__", "") == emitted.__name__
        }
        _loaded[text] = {k: jit()(f) for k, f in own.items()}
        vars(emitted).update(_loaded[text])  # they may call each other
        return _loaded[text]


@contextmanager
def said(name: str, function: str, compiled: Any) -> Iterator[None]:
    """Lines on stderr when what happens inside takes a while: that it compiles, and what came of
    it.
    """
    began, told = time.monotonic(), threading.Event()

    def say(what: str) -> None:
        told.set()
        print(f"tinyseq: {what}", file=sys.stderr, flush=True)

    timer = threading.Timer(_SILENT, say, [f"compiling {name} ({function}) …"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if told.is_set():
        end = "it is kept for the next time" if is_kept(compiled) else "it could not be kept"
        say(f"compiled {name} ({function}) in {time.monotonic() - began:.0f} s; {end}.")
