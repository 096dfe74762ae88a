"""The first pass: run the step once, and its gradient, and read what was recorded.

The step is the cell itself, on real arrays. Its gradient is `grad` of that recording, recorded in
turn: there is no second set of rules. It is done twice, with a few sequences and with many: what
differs is the batch size, and nothing else may.
"""

from __future__ import annotations

import keyword
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from tinyseq import graph, random
from tinyseq.backprop import grad
from tinyseq.compiler.program import BATCH, Equation, Program, Value
from tinyseq.errors import CompileError, describe
from tinyseq.graph import identity, readable, recording
from tinyseq.op import REGISTRY, Op
from tinyseq.primitives import check, draw, filled, getitem, scatter_add
from tinyseq.tensor import Tensor

_ENGINE = Path(__file__).parent.parent  # the library: lines of it are nobody's equations …
_CELLS = _ENGINE / "nn"  # … but for its cells
_LAYERS = (_CELLS / "recurrent.py", _CELLS / "unroll.py")
_BATCHES = (2, 67)  # so far apart that a step which looks at the batch size is likely to show it
#: Names that the emitted source has for itself, besides those of the ops
_RESERVED = (
    "t T s s0 s1 lo hi i j part parts first last reverse chunk team begin end packed tiles before "
    "after now following total largest y d_x "
    "range min max bool float32 float64 int64 inf nan isfinite in_panels matmul matmuls outers"
)
_SUFFIXES = ("_panels", "_kept")  # of names that it makes from others
Step = Callable[[Tensor, tuple[Tensor, ...], Any], tuple[Tensor, tuple[Tensor, ...]]]


class _Entry(NamedTuple):
    op: Op
    inputs: tuple[Tensor, ...]
    attrs: dict[str, Any]
    output: Tensor
    line: str


class _Run(NamedTuple):
    """What one run of the step left behind."""

    tape: list[_Entry]
    forward: int  # how many entries are the step, before its gradient
    x: Tensor
    state: list[Tensor]
    noise: list[Tensor]
    y: Tensor
    after: list[Tensor]
    seeds: list[Tensor]
    wanted: list[Tensor]
    gradients: list[Tensor]


def trace(
    name: str,
    step: Step,
    x: tuple[int, ...],
    state: Sequence[tuple[int, ...]],
    noise: Any,
    named: dict[str, Tensor],
    state_names: Sequence[str],
    dtype: np.dtype[Any],
) -> Program:
    """The program of ``step(x, state, noise) -> (y, state)``.

    ``x``, ``state``: shapes behind the batch size. ``noise``: nested tuples of arrays (T, B, …).
    ``named``: the tensors that the step may use, by dotted name. Raises `CompileError`, with the
    line and the remedy, when the step is not a function of these that is the same at every step and
    for every sequence.
    """
    before = random.get_state()
    try:
        runs = [_run(step, n, x, state, noise, named, dtype) for n in _BATCHES]
        if random.get_state() != before:
            raise CompileError(
                "the step draws random numbers, and would draw the same ones at every step. Draw "
                "them before the first step: give the cell noise(x, state), as nn.Zoneout has it."
            )
    finally:
        random.set_state(before)
    return _Reader(name, named, state_names, dtype, *runs).program()


def _run(
    step: Step,
    batch: int,
    x_shape: tuple[int, ...],
    state_shapes: Sequence[tuple[int, ...]],
    noise: Any,
    named: dict[str, Tensor],
    dtype: np.dtype[Any],
) -> _Run:
    rng = np.random.default_rng(0)

    def given(shape: tuple[int, ...]) -> Tensor:
        return Tensor(rng.standard_normal((batch, *shape)), dtype, requires_grad=True)

    x, state = given(x_shape), [given(shape) for shape in state_shapes]
    flat_noise: list[Tensor] = []

    def rows(part: Any) -> Any:
        if part is None:
            return None
        if isinstance(part, tuple):
            return tuple(rows(p) for p in part)
        flat_noise.append(Tensor(rng.random((batch, *part.shape[2:])).astype(part.dtype)))
        return flat_noise[-1]

    noise = rows(noise)
    tape: list[_Entry] = []
    forward: int | None = None  # how long the tape was when the step had ended

    def note(op: Op, inputs: tuple[Tensor, ...], attrs: dict[str, Any], output: Tensor) -> None:
        if op in (check, draw):  # no part of a loop; what is drawn would be a constant, and differs
            return
        if op in _INDEXED:
            inputs, attrs = _with_index(op, inputs, attrs, tape)
        line = line_of(sys._getframe(1)) if forward is None else "in its gradient"
        tape.append(_Entry(op, inputs, attrs, output, line))

    with np.errstate(all="ignore"), graph.recorded(True), graph.within(()), graph.taped(note):
        anomaly, recording.anomaly = recording.anomaly, False
        try:
            try:
                y, after = step(x, tuple(state), noise)
            except CompileError as error:
                raise CompileError(f"{_raised(error)}{error}") from None
            except Exception as error:
                raise CompileError(
                    f"{_raised(error)}a step on its own, run for {batch} sequences, fails: "
                    f"{type(error).__name__}: {error}"
                ) from error
            forward = len(tape)
            if not all(isinstance(t, Tensor) for t in (y, *after)):
                raise CompileError("the step returns something that is not a Tensor.")
            outs = [t for t in (y, *after) if t.requires_grad]
            seeds = [Tensor(rng.standard_normal(t.shape), dtype) for t in (y, *after)]
            for t in (y, *after):
                if t.dtype != dtype:
                    raise CompileError(
                        f"the step makes {t.dtype} of {dtype}. Return what has the dtype of x: "
                        "h.astype(x.dtype)."
                    )
            for s in seeds:
                s.requires_grad = True
            wanted = [x, *state, *(t for t in named.values() if t.requires_grad)]
            given_seeds = [s for s, t in zip(seeds, (y, *after), strict=True) if t.requires_grad]
            used = {identity(t) for entry in tape for t in entry.inputs}
            used |= {identity(t) for t in outs}
            wanted = [t for t in wanted if identity(t) in used]
            gradients = list(grad(outs, wanted, given_seeds, create_graph=True)) if wanted else []
        finally:
            recording.anomaly = anomaly
    return _Run(tape, forward, x, state, flat_noise, y, list(after), seeds, wanted, gradients)


_INDEXED = (getitem, scatter_add)


def _with_index(
    op: Op, inputs: tuple[Tensor, ...], attrs: dict[str, Any], tape: Sequence[_Entry]
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """An op whose index is part of the program: its arrays are the same at every step."""
    n = 1 if op is getitem else len(attrs["indices"])
    made = {id(entry.output._data) for entry in tape}
    if any(id(array._data) in made for array in inputs[n:]):
        readable("an index")
    arrays = iter([array._data for array in inputs[n:]])
    if op is getitem:
        return inputs[:n], {"index": filled(attrs["index"], arrays)}
    return inputs[:n], {**attrs, "indices": [filled(index, arrays) for index in attrs["indices"]]}


def _uniform(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether both are nothing but the same number."""
    return a.size > 0 and b.size > 0 and bool((a == a.flat[0]).all() and (b == a.flat[0]).all())


def _is_equation(frame: FrameType) -> bool:
    """Whether the code is somebody's step: a cell's, not the engine's."""
    path = Path(frame.f_code.co_filename)
    return _ENGINE not in path.parents or (_CELLS in path.parents and path not in _LAYERS)


def line_of(frame: FrameType | None) -> str:
    """The innermost line that is somebody's equation."""
    while frame is not None and not _is_equation(frame):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _raised(error: Exception) -> str:
    """The innermost such line that an error came through, with a colon."""
    line, at = "", error.__traceback__
    while at is not None:
        if _is_equation(at.tb_frame):
            line = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}: "
        at = at.tb_next
    return line


class _Reader:
    """Two runs, read side by side into one program."""

    def __init__(
        self,
        name: str,
        named: dict[str, Tensor],
        state_names: Sequence[str],
        dtype: np.dtype[Any],
        few: _Run,
        many: _Run,
    ) -> None:
        self.few, self.many, self.dtype = few, many, dtype
        called = (op.emit.split("(")[0] for op in REGISTRY.values() if op.emit)
        self.taken: set[str] = {*_RESERVED.split(), *called}
        self.counts: dict[str, int] = {}
        self.values: dict[int, Value] = {}  # by the identity of the tensor of the first run
        self.partner: dict[int, int] = {}  # and of the same one in the second
        self.constants: list[Value] = []
        self.held: list[Tensor] = []  # constants: an identity is a tensor's own while it lives
        self.named = {identity(t): key for key, t in named.items()}
        self.named_tensors = named
        names = list(state_names) if len(state_names) == len(few.state) else []
        names = names or [f"state_{i}" for i in range(len(few.state))]
        self.program_ = Program(
            name,
            dtype,
            x=self.input(few.x, many.x, "x", "x", None),
            before=[
                self.input(a, b, n, "state", i)
                for i, (n, a, b) in enumerate(zip(names, few.state, many.state, strict=True))
            ],
            noise=[
                self.input(a, b, f"noise_{i}", "noise", i)
                for i, (a, b) in enumerate(zip(few.noise, many.noise, strict=True))
            ],
            parameters=[],
        )

    def program(self) -> Program:
        few, many, program = self.few, self.many, self.program_
        if len(few.tape) != len(many.tape) or few.forward != many.forward:
            raise CompileError(
                "the step does something else for a few sequences than for many. Let it do the "
                "same for every batch size."
            )
        names = [f"d_{n}" for n in ("y", *(v.name for v in program.before))]
        for i, (n, a, b) in enumerate(zip(names, few.seeds, many.seeds, strict=True)):
            program.seeds.append(self.input(a, b, n, "seed", i))
        for i, entries in enumerate(zip(few.tape, many.tape, strict=True)):
            equation = self.equation(*entries)
            (program.forward if i < few.forward else program.backward).append(equation)
        program.y = self.value(few.y, many.y)
        program.states = [self.value(a, b) for a, b in zip(few.after, many.after, strict=True)]
        for given, made in zip(program.before, program.states, strict=True):
            if given.shape != made.shape:
                raise CompileError(
                    f"the state {given.name} goes in with the shape {describe(given.shape)} and "
                    f"comes out with {describe(made.shape)}."
                )
        pairs = zip(few.wanted, many.wanted, few.gradients, many.gradients, strict=True)
        for s, t, a, b in pairs:
            g = self.value(a, b)
            zero = g.kind == "constant" and g.data is not None and not g.data.any()
            program.gradients[self.value(s, t)] = None if zero else g
        program.constants = self.constants
        return program

    # -- values ---------------------------------------------------------------------------------

    def input(self, a: Tensor, b: Tensor, name: str, kind: str, key: Any) -> Value:
        value = Value(self.unique(name), self.shape(a, b, ""), a.dtype, kind, key=key)
        self.values[identity(a)], self.partner[identity(a)] = value, identity(b)
        return value

    def value(self, a: Tensor, b: Tensor, line: str = "") -> Value:
        """What the tensor of the first run stands for; b is the same one in the second run."""
        found = self.values.get(identity(a))
        if found is not None:
            if self.partner[identity(a)] != identity(b):
                raise CompileError(f"{line}: the step does not do the same thing twice.")
            return found
        if (key := self.named.get(identity(a))) is not None:
            value = self.input(a, b, key.replace(".", "_"), "parameter", key)
            self.program_.parameters.append(value)
            return value
        return self.constant(a, b, line)

    def constant(self, a: Tensor, b: Tensor, line: str) -> Value:
        at = f"{line}: " if line else ""
        if a.node is not None or a.requires_grad:
            raise CompileError(
                f"{at}the step uses a tensor of shape {describe(a.shape)} that was made outside of "
                "it and is neither x, state nor an attribute of the cell. Make it an attribute, or "
                "part of the state."
            )
        if a.shape != b.shape and _uniform(a._data, b._data):  # zeros, say, (B, W)
            shape, number = self.shape(a, b, line), a._data.flat[0].copy()
            name = self.unique("constant" if number else "zeros")
            value = Value(name, shape, a.dtype, "constant", data=np.asarray(number))
        elif a.shape != b.shape or not np.array_equal(a._data, b._data, equal_nan=True):
            raise CompileError(
                f"{at}the step uses an array of shape {describe(a.shape)} that is another one for "
                "a few sequences than for many, or changes from call to call. Random numbers are "
                "drawn before the first step: give the cell noise(x, state). What hangs on the "
                "batch size, as a mean over the batch does, or on values that NumPy computed "
                "from the step's own has no place in a compiled step."
            )
        else:
            known = (t for t in self.named_tensors.values() if t.ndim)
            if a.ndim and any(np.may_share_memory(a._data, t._data) for t in known):
                raise CompileError(
                    f"{at}the step reads a parameter behind the recording's back (detach, or "
                    "operations under no_grad). Make what it needs an attribute of the cell."
                )
            name = "" if a.ndim == 0 else self.unique("constant")
            value = Value(name, a.shape, a.dtype, "constant", data=a._data.copy())
        self.values[identity(a)], self.partner[identity(a)] = value, identity(b)
        self.held += [a, b]
        self.constants.append(value)
        return value

    def equation(self, a: _Entry, b: _Entry) -> Equation:
        line = a.line
        if a.op is not b.op or len(a.inputs) != len(b.inputs):
            raise CompileError(f"{line}: {a.op.name} comes in one run of the step, not in another.")
        holder = a.output.node
        if holder is not None and holder.hooks:
            raise CompileError(
                f"{line}: a hook on the result of {a.op.name} would not be called: in a compiled "
                "loop there is no tensor to hang it on."
            )
        inputs = tuple(self.value(s, t, line) for s, t in zip(a.inputs, b.inputs, strict=True))
        attrs = {k: self.attribute(v, b.attrs[k], a.op.name, line) for k, v in a.attrs.items()}
        shape = self.shape(a.output, b.output, line)
        name = self.unique(a.op.name, numbered=True)
        output = Value(name, shape, a.output.dtype, "made")
        output.made = Equation(a.op, inputs, attrs, output, line)
        self.values[identity(a.output)] = output
        self.partner[identity(a.output)] = identity(b.output)
        return output.made

    # -- what differs is the batch size -----------------------------------------------------------

    def shape(self, a: Tensor, b: Tensor, line: str) -> tuple[int, ...]:
        wrong = len(a.shape) != len(b.shape)
        out = []
        for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=False)):
            wrong |= m != n and ((m, n) != _BATCHES or i > 1)
            out.append(m if m == n else BATCH)
        if wrong or out.count(BATCH) > 1:
            raise CompileError(
                f"{line}: {describe(a.shape)} for {_BATCHES[0]} sequences, {describe(b.shape)} "
                f"for {_BATCHES[1]}: "
                "rows of the batch are mixed with something else. Keep axis 0 the batch."
            )
        return tuple(out)

    def attribute(self, a: Any, b: Any, op: str, line: str) -> Any:
        if isinstance(a, bool) or isinstance(b, bool):
            same = a == b
        elif isinstance(a, int | np.integer) and isinstance(b, int | np.integer):
            if a != b and (int(a), int(b)) == _BATCHES:
                return BATCH
            same = a == b
        elif isinstance(a, slice) and isinstance(b, slice):
            ends = zip((a.start, a.stop, a.step), (b.start, b.stop, b.step), strict=True)
            return slice(*(self.attribute(m, n, op, line) for m, n in ends))
        elif isinstance(a, tuple | list) and isinstance(b, tuple | list) and len(a) == len(b):
            return type(a)(self.attribute(m, n, op, line) for m, n in zip(a, b, strict=True))
        elif isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            same = np.array_equal(a, b)
        else:
            same = a is b or bool(a == b)
        if not same:
            raise CompileError(
                f"{line}: {op} has other arguments for a few sequences than for many. Arguments "
                "that hang on values or on the batch size have no place in a compiled step."
            )
        return a

    # -- names ------------------------------------------------------------------------------------

    def unique(self, name: str, numbered: bool = False) -> str:
        name = "".join(c if c.isalnum() or c == "_" else "_" for c in name) or "value"
        if name[0].isdigit() or keyword.iskeyword(name):
            name = f"_{name}"
        if not (numbered or name in self.taken or name.endswith(_SUFFIXES)):
            self.taken.add(name)
            return name
        while True:
            self.counts[name] = self.counts.get(name, 0) + 1
            candidate = f"{name}_{self.counts[name]}"
            if candidate not in self.taken:
                self.taken.add(candidate)
                return candidate
