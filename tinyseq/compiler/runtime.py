"""The last pass: an emitted program compiled, kept, and run on real arrays."""

from __future__ import annotations

import hashlib
import itertools
import linecache
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from tinyseq.compiler.buffers import pool
from tinyseq.compiler.emit import Argument, Function, Source, emit, x_gradient
from tinyseq.compiler.program import Equation, Program, Value
from tinyseq.compiler.split import Plan, kind, listed, split
from tinyseq.kernels import gemm
from tinyseq.kernels.jit import folder, jit
from tinyseq.kernels.threads import ALONE, get_num_threads, shared

_WORTH_SHARING = 2e7  # operations below which waking a second thread costs more than it brings
_ROWS = 256  # of a chunk, for each thread: its numbers are to stay in the second-level cache
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
        equations = [e for s in self.plan.before for e in listed(s)] + self.plan.forward
        products = [e for e in equations if kind(e) == "product"]
        self.work = sum(2.0 * e.inputs[0].width * e.output.width for e in products)
        self.work += 30.0 * sum(e.output.width for e in self.plan.forward)

    def emitted(self) -> Source:
        return emit(self.plan)


class Run:
    """One sequence through a compiled program: forward now, backward perhaps later.

    Memory for T steps and B sequences, in numbers: `forward` holds the states, (T + 1) B W each,
    and what is saved, T B W each; `backward` takes a T B W for each factor of a weight's gradient.
    """

    def __init__(
        self,
        compiled: Compiled,
        inputs: Mapping[Value, np.ndarray],
        reverse: bool,
    ) -> None:
        self.compiled = compiled
        program = compiled.program
        self.values: dict[Value, np.ndarray] = dict(inputs)
        self.T, self.B = self.values[program.x].shape[:2]
        self.reverse = int(reverse)
        self.dtype = program.dtype
        self.buffers: dict[tuple[str, str], np.ndarray] = {}  # by name and role
        enough = self.T * self.B * compiled.work > _WORTH_SHARING
        self.parts = max(1, min(get_num_threads(), self.B)) if enough else 1
        cuts = [self.B * i // self.parts for i in range(self.parts + 1)]
        self.cuts = list(itertools.pairwise(cuts))
        self.chunk = max(1, min(self.T, _ROWS * self.parts // self.B))
        #: Which state the output y is, if it is one: its memory then is that of the outputs
        assert program.y is not None
        self.own = program.states.index(program.y) if program.y in program.states else None
        self.tails = self._tails()
        self.outputs = self._outputs()

    # -- the two directions -----------------------------------------------------------------------

    def prepare(self) -> np.ndarray:
        """Memory for the states and the outputs, with the initial state in place."""
        compiled, program = self.compiled, self.compiled.program
        for v in program.constants:
            if v.data is not None and not v.row:
                self.values[v] = v.data
        for e in compiled.plan.constant:
            self.constant(e)
        flat = pool.take((self.size,), self.dtype)
        for i, v in enumerate(program.before):
            if i == self.own:
                states = flat[: (self.T + 1) * self.B * v.width].reshape(self.T + 1, self.B, -1)
            else:
                states = pool.take((self.T + 1, self.B, v.width), self.dtype)
            states[self.T if self.reverse else 0] = self.values[v].reshape(self.B, -1)
            self.buffers[v.name, "state"] = states
        if self.own is None:
            assert program.y is not None
            n = self.T * self.B * program.y.width
            self.buffers["y", "steps"] = flat[:n].reshape(self.T, self.B, -1)
        return flat

    def forward(self) -> np.ndarray:
        """All outputs in one flat array: see `outputs`."""
        compiled, program = self.compiled, self.compiled.program
        flat = self.prepare()
        self.call(compiled.source.forward)
        for i, (start, stop) in self.tails.items():
            last = self.buffers[program.before[i].name, "state"][0 if self.reverse else self.T]
            flat[start:stop] = last.reshape(-1)
        return flat

    def backward(self, g: np.ndarray) -> dict[Value, np.ndarray]:
        """The gradient of each wanted input, from that of the flat outputs."""
        compiled, program = self.compiled, self.compiled.program
        plan, source = compiled.plan, compiled.source
        if source.backward is None:  # nothing of what is wanted was used
            return {}
        keep = dict(self.buffers)  # what forward left; the rest is this call's own
        start, stop, _ = self.outputs[0]
        self.buffers[program.seeds[0].name, "steps"] = g[start:stop].reshape(self.T, self.B, -1)
        for i, seed in enumerate(program.seeds[1:]):
            carried = pool.take((2, self.B, seed.width), self.dtype)
            tail = self.tails.get(i)
            carried[0] = 0 if tail is None else g[slice(*tail)].reshape(self.B, -1)
            self.buffers[seed.name, "carried"] = carried
        self.call(source.backward)
        for a in source.backward.arguments:
            if a.role in ("sums", "weight"):
                sums = self.buffers[a.name, a.role]
                total = sums[0].copy() if self.parts == 1 else np.add(sums[0], sums[1])
                for part in range(2, self.parts):
                    total += sums[part]
                self.values[a.value] = total.reshape(a.value.shape)
        for e in plan.final:
            self.constant(e)
        gradients = {}
        for v in plan.wanted:
            made = program.gradients.get(v)
            if v.kind == "state":
                seed = program.seeds[1 + program.before.index(v)]
                carried = self.buffers[seed.name, "carried"]
                gradients[v] = carried[self.T % 2].reshape(self.values[v].shape).copy()
            elif made is not None and made.row:
                name = x_gradient(made)
                gradients[v] = self.buffers[name, "steps"].reshape(self.values[v].shape)
            elif made is not None:
                gradients[v] = self.values[made]
        self.buffers = keep
        return gradients

    # -- outputs ----------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        ends = [stop for _, stop, _ in self.outputs]
        whole = (self.T + 1) * self.B * self.compiled.program.y.width  # type: ignore[union-attr]
        return max(*ends, whole if self.own is not None else 0)

    def _outputs(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Where in the flat array y and each last state lie: (start, stop, shape)."""
        program = self.compiled.program
        assert program.y is not None
        row = self.B * program.y.width
        start = 0 if self.own is None or self.reverse else row
        shaped = (self.B, *program.y.shape[1:])
        out = [(start, start + self.T * row, (self.T, *shaped))]
        tails = self.tails
        for i, v in enumerate(program.states):
            shape = (self.B, *v.shape[1:])
            if i == self.own:
                at = 0 if self.reverse else self.T * row
                out.append((at, at + row, shape))
            else:
                out.append((*tails[i], shape))
        return out

    def _tails(self) -> dict[int, tuple[int, int]]:
        """Behind y: the last states that are not part of it."""
        program = self.compiled.program
        assert program.y is not None
        at = (self.T + (self.own is not None)) * self.B * program.y.width
        out = {}
        for i, v in enumerate(program.states):
            if i != self.own:
                out[i] = (at, at + self.B * v.width)
                at += self.B * v.width
        return out

    # -- running it -------------------------------------------------------------------------------

    def constant(self, e: Equation) -> None:
        arrays = [self.values[x] for x in e.inputs]
        out = np.asarray(e.op.forward(*arrays, **e.attrs))
        self.values[e.output] = out if out.dtype == e.output.dtype else out.astype(e.output.dtype)

    def call(self, function: Function) -> None:
        """Run an emitted function, its rows shared out over the threads."""
        arrays = [self.bind(a) for a in function.arguments]
        run = self.compiled.functions[function.name]
        T, reverse, chunk, cuts = self.T, self.reverse, self.chunk, self.cuts
        if function.name not in self.compiled.there and hasattr(run, "signatures"):
            with said(self.compiled.program.name, function.name):
                run(
                    ALONE, 0, 0, 0, T, reverse, chunk, *arrays
                )  # compiles (or loads): no rows to run yet
            self.compiled.there.add(function.name)
        if self.parts == 1:
            run(ALONE, 0, 0, self.B, T, reverse, chunk, *arrays)
        else:
            shared(lambda i, team: run(team, i, *cuts[i], T, reverse, chunk, *arrays), self.parts)

    def bind(self, a: Argument) -> np.ndarray:
        """The array for an argument: what is there, or new memory for it."""
        v = a.value
        if a.role == "flat":
            return np.asarray(self.values[v], order="C")
        if v.kind in ("x", "noise"):
            return self.values[v].reshape(self.T, self.B, -1)
        key = (a.name, a.role)
        if key not in self.buffers:
            self.buffers[key] = self.memory(a)
        return self.buffers[key]

    def memory(self, a: Argument) -> np.ndarray:
        v, parts = a.value, self.parts
        if a.role == "panels":
            w = self.values[v]
            columns = gemm.width(self.dtype)
            count = math.ceil(w.shape[1] / columns)
            return gemm.pack(w, pool.take((count, w.shape[0], columns), self.dtype))
        if a.role in ("packed", "tiles"):
            rows, outer = self.chunk * math.ceil(self.B / parts), self.compiled.plan.outer
            if a.role == "packed":
                size = max(gemm.panels_size(rows, o.right.width, self.dtype) for o in outer)
            else:
                size = gemm.tiles_size(rows, max(o.left.width for o in outer))
            return pool.take((parts, size), self.dtype)
        if a.role in ("sums", "weight"):
            whole = v.shape if a.role == "weight" else (v.width,)
            sums = pool.take((parts, *whole), self.dtype)
            sums[...] = 0
            return sums
        shape = {
            "steps": (self.T, self.B, v.width),
            "chunk": (self.chunk, self.B, v.width),
            "rows": (self.B, v.width),
            "scratch": (parts, v.width),
        }[a.role]
        return pool.take(shape, v.dtype)


# -- source and functions -------------------------------------------------------------------------

_loaded: dict[str, dict[str, Callable[..., None]]] = {}
_loading = threading.Lock()


def load(name: str, text: str) -> dict[str, Callable[..., None]]:
    """The functions of an emitted source: the same source is loaded once, whichever layer asks.

    The source is a file in the folder of compiled code, where numba keeps the machine code beside
    it; where nothing can be written it lives in memory, known to tracebacks and debuggers.
    """
    with _loading:
        if text in _loaded:
            return _loaded[text]
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        module = f"{name}_{digest}"
        path = folder()
        kept = None if path is None else _written(path / f"{module}.py", text)
        file = f"<tinyseq {module}>" if kept is None else str(kept)
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
        _loaded[text] = {k: jit(keep=kept is not None)(f) for k, f in own.items()}
        vars(emitted).update(_loaded[text])  # they may call each other
        return _loaded[text]


def _written(path: Path, text: str) -> Path | None:
    """The file, there as a whole or not at all; `None` when the folder is lost, or the disk full.

    One of that length that is there already is left alone: numba looks at when it was written.
    """
    contents = text.encode()
    try:
        if not path.exists() or path.stat().st_size != len(contents):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with os.fdopen(handle, "wb") as f:
                f.write(contents)
            os.replace(temporary, path)
    except OSError:
        return None
    return path


@contextmanager
def said(name: str, function: str) -> Iterator[None]:
    """A line on stderr when what happens inside takes a while."""

    def say() -> None:
        print(
            f"tinyseq: compiling {name} ({function}), once; it is kept for the next time …",
            file=sys.stderr,
            flush=True,
        )

    timer = threading.Timer(_SILENT, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
