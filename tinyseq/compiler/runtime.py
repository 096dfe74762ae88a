"""The last pass: an emitted program compiled, kept, and run on real arrays."""

from __future__ import annotations

import hashlib
import linecache
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinyseq.compiler.buffers import pool
from tinyseq.compiler.emit import Argument, Function, Source, emit
from tinyseq.compiler.program import BATCH, Equation, Program, Value
from tinyseq.compiler.split import Plan, columns, kind, listed, split
from tinyseq.kernels import gemm
from tinyseq.kernels.jit import folder, jit
from tinyseq.kernels.threads import get_num_threads, parallel

_WORTH_SHARING = 2e7  # operations below which waking a second thread costs more than it brings
_SILENT = 2.0  # seconds of compiling before it is said


class Compiled:
    """A program for given wanted gradients: its source, its functions, and how to run them."""

    def __init__(self, program: Program, wanted: frozenset[Value], saving: bool) -> None:
        self.program = program
        self.plan: Plan = split(program, wanted, saving)
        self.source: Source = emit(self.plan)
        self.functions = load(program.name, self.source.text)
        products = [e for e in self.plan.forward if kind(e) == "product"]
        self.work = sum(2.0 * e.inputs[0].width * e.output.width for e in products)
        self.work += 30.0 * sum(e.output.width for e in self.plan.forward)
        self.panels = [
            a for f in self._emitted() for a in f.arguments if a.role == "panels"
        ]

    def _emitted(self) -> Iterator[Function]:
        source = self.source
        for f in (*source.before, source.forward, source.backward, *source.after):
            if isinstance(f, Function):
                yield f


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
        self.buffers: dict[str, np.ndarray] = {}
        enough = self.T * self.B * compiled.work > _WORTH_SHARING
        self.parts = max(1, min(get_num_threads(), self.B)) if enough else 1
        cuts = [self.B * i // self.parts for i in range(self.parts + 1)]
        self.cuts = list(zip(cuts, cuts[1:], strict=False))

    # -- the two directions -----------------------------------------------------------------------

    def forward(self) -> np.ndarray:
        """All outputs in one flat array: see `outputs`."""
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
            self.buffers[v.name] = states
        if self.own is None:
            assert program.y is not None
            n = self.T * self.B * program.y.width
            self.buffers["y"] = flat[:n].reshape(self.T, self.B, -1)
        for stage in compiled.source.before:
            self.stage(stage)
        self.call(compiled.source.forward)
        for i, (start, stop) in self.tails().items():
            last = self.buffers[program.before[i].name][0 if self.reverse else self.T]
            flat[start:stop] = last.reshape(-1)
        return flat

    def backward(self, g: np.ndarray) -> dict[Value, np.ndarray]:
        """The gradient of each wanted input, from that of the flat outputs."""
        compiled, program = self.compiled, self.compiled.program
        plan, source = compiled.plan, compiled.source
        keep = dict(self.buffers)  # what forward left; the rest is this call's own
        start, stop, _ = self.outputs[0]
        self.buffers[program.seeds[0].name] = g[start:stop].reshape(self.T, self.B, -1)
        for i, seed in enumerate(program.seeds[1:]):
            carried = pool.take((2, self.B, seed.width), self.dtype)
            tail = self.tails().get(i)
            carried[0] = 0 if tail is None else g[slice(*tail)].reshape(self.B, -1)
            self.buffers[seed.name] = carried
        for e in plan.collected:
            self.zero_sums(e.output)
        assert source.backward is not None
        self.call(source.backward)
        for stage in source.after:
            self.stage(stage)
        for o in plan.outer:
            out = np.empty(o.result.shape, self.dtype)
            gemm.product(self.matrix(o.left).T, self.matrix(o.right), out)
            self.values[o.result] = out
        late = [e for stage in plan.after for e in listed(stage) if kind(e) == "collect"]
        for e in plan.collected + late:
            sums = self.buffers[e.output.name]
            self.values[e.output] = sums.sum(axis=0).reshape(e.output.shape)
        for e in plan.final:
            self.constant(e)
        gradients = {}
        for v in plan.wanted:
            made = program.gradients.get(v)
            if v.kind == "state":
                held = self.buffers[program.seeds[1 + program.before.index(v)].name]
                gradients[v] = held[self.T % 2].reshape(self.values[v].shape).copy()
            elif made is not None and made.row:
                gradients[v] = self.rows(made).reshape(self.values[v].shape)
            elif made is not None:
                gradients[v] = self.values[made]
        self.buffers = keep
        return gradients

    # -- outputs ----------------------------------------------------------------------------------

    @property
    def own(self) -> int | None:
        """Which state the output y is, if it is one: its memory then is that of the outputs."""
        program = self.compiled.program
        assert program.y is not None
        return program.states.index(program.y) if program.y in program.states else None

    @property
    def size(self) -> int:
        ends = [stop for _, stop, _ in self.outputs]
        whole = (self.T + 1) * self.B * self.compiled.program.y.width  # type: ignore[union-attr]
        return max(*ends, whole if self.own is not None else 0)

    @property
    def outputs(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """Where in the flat array y and each last state lie: (start, stop, shape)."""
        program = self.compiled.program
        assert program.y is not None
        row = self.B * program.y.width
        start = 0 if self.own is None or self.reverse else row
        shaped = (self.B, *program.y.shape[1:])
        out = [(start, start + self.T * row, (self.T, *shaped))]
        tails = self.tails()
        for i, v in enumerate(program.states):
            shape = (self.B, *v.shape[1:])
            if i == self.own:
                at = 0 if self.reverse else self.T * row
                out.append((at, at + row, shape))
            else:
                out.append((*tails[i], shape))
        return out

    def tails(self) -> dict[int, tuple[int, int]]:
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

    # -- stages -----------------------------------------------------------------------------------

    def constant(self, e: Equation) -> None:
        arrays = [self.values[x] for x in e.inputs]
        attrs = {k: v for k, v in e.attrs.items()}
        out = np.asarray(e.op.forward(*arrays, **attrs))
        if out.dtype != e.output.dtype:
            out = out.astype(e.output.dtype)
        self.values[e.output] = out

    def stage(self, stage: Equation | Function) -> None:
        if isinstance(stage, Function):
            for a in stage.arguments:
                if a.role == "sums":
                    self.zero_sums(a.value)
            self.call(stage)
            return
        left, right = stage.inputs
        out = pool.take((self.T, self.B, stage.output.width), self.dtype)
        self.buffers[stage.output.name] = out
        gemm.product(self.matrix(left), self.values[right], out.reshape(-1, stage.output.width))

    def call(self, function: Function) -> None:
        """Run an emitted function, its rows shared out over the threads."""
        arrays = [self.bind(a) for a in function.arguments]
        run = self.compiled.functions[function.name]
        T, reverse, cuts = self.T, self.reverse, self.cuts
        if not getattr(run, "signatures", True):
            with said(self.compiled.program.name, function.name):
                run(0, 0, 0, T, reverse, *arrays)  # compiles (or loads): no rows to run yet
        if self.parts == 1:
            run(0, 0, self.B, T, reverse, *arrays)
        else:
            parallel(lambda i: run(i, *cuts[i], T, reverse, *arrays), self.parts)

    def bind(self, a: Argument) -> np.ndarray:
        """The array for an argument: what is there, or new memory for it."""
        v, name = a.value, a.name
        if a.role == "flat":
            return np.ascontiguousarray(self.values[v])
        if a.role == "panels":
            if name not in self.buffers:
                w = self.values[v]
                columns_ = gemm.width(self.dtype)
                shape = (math.ceil(w.shape[1] / columns_), w.shape[0], columns_)
                self.buffers[name] = gemm.pack(w, pool.take(shape, self.dtype))
            return self.buffers[name]
        if v.kind in ("x", "noise"):
            held = self.values[v]
            return held.reshape(self.T, self.B, -1)
        if name not in self.buffers:
            shapes = {
                "steps": (self.T, self.B, v.width),
                "rows": (self.B, v.width),
                "scratch": (self.parts, v.width),
            }
            self.buffers[name] = pool.take(shapes[a.role], v.dtype)
        return self.buffers[name]

    def zero_sums(self, v: Value) -> None:
        sums = pool.take((self.parts, v.width), self.dtype)
        sums[...] = 0
        self.buffers[v.name] = sums

    # -- what was computed for all steps ------------------------------------------------------------

    def rows(self, v: Value) -> np.ndarray:
        """v at all steps, (T, B, W)."""
        program = self.compiled.program
        if v in program.before:
            return self.buffers[v.name][self.reverse : self.reverse + self.T]
        if v in program.states and v.name not in self.buffers:
            held = self.buffers[program.before[program.states.index(v)].name]
            return held[1 - self.reverse : 1 - self.reverse + self.T]
        if v.kind in ("x", "noise"):
            return self.values[v].reshape(self.T, self.B, -1)
        return self.buffers[v.name]

    def matrix(self, v: Value) -> np.ndarray:
        """v at all steps as one matrix (T·B, W)."""
        e = v.made
        if e is not None and v.name not in self.buffers and kind(e) == "view":
            x = e.inputs[0]
            held = self.matrix(x)
            if e.op.name == "getitem":
                cols = columns(x, e.attrs["index"], e)
                step = int(cols[1] - cols[0]) if len(cols) > 1 else 1
                if step < 0:
                    return held[:, cols]
                return held[:, int(cols[0]) : int(cols[-1]) + 1 : step]
            return np.broadcast_to(held, (len(held), v.width))
        held = self.rows(v)
        return held.reshape(-1, held.shape[-1])


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
        file = f"<tinyseq {module}>" if path is None else str(_written(path / f"{module}.py", text))
        lines = text.splitlines(keepends=True)
        linecache.cache[file] = (len(text), None, lines, file)
        names: dict[str, Any] = {"__name__": f"tinyseq_{module}", "__file__": file}
        exec(compile(text, file, "exec"), names)
        own = {k: f for k, f in names.items() if getattr(f, "__module__", "") == names["__name__"]}
        keep = path is not None
        _loaded[text] = {k: jit(keep=keep)(f) for k, f in own.items()}
        return _loaded[text]


def _written(path: Path, text: str) -> Path:
    """The file, there as a whole or not at all; one that is there already is left alone."""
    if not path.exists():
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
        os.replace(temporary, path)
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


__all__ = ["BATCH", "Compiled", "Run", "load"]
