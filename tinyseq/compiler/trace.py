"""The first pass, recording: every op that a cell or a training step calls goes on a tape, and two
tapes are compared.

The function runs as it is, on real arrays. Its gradient is `grad` of that recording, recorded in
turn: there is no second set of rules. It runs twice. A cell runs with a few sequences and with
many: what differs is the batch size, and nothing else may. A training step runs on arguments of the
same shapes, and nothing may differ but what hangs on them.
"""

from __future__ import annotations

import functools
import keyword
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np

from tinyseq import graph, random
from tinyseq.backprop import grad
from tinyseq.compiler.content import DRAWS
from tinyseq.compiler.program import BATCH, Equation, Program, Value
from tinyseq.errors import CompileError, describe, of_values
from tinyseq.graph import identity, readable, recording
from tinyseq.nested import mapped
from tinyseq.op import REGISTRY, Op
from tinyseq.primitives import check, draw, filled, getitem, scatter_add
from tinyseq.random import generator
from tinyseq.tensor import Tensor

if TYPE_CHECKING:
    from tinyseq.nn.module import Module

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


# -- the tape -------------------------------------------------------------------------------------


class Tape:
    """Every op that a cell's step calls while it is traced, and every one of its gradient.

    Tensors are told apart by their `identity`. What was not given and made by no op comes from
    outside: a constant.
    """

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.values: list[Value] = []
        self.ends: list[Value] = []  # what is wanted in the end
        self.forward: int | None = None  # how many equations are the step, before its gradient
        self._known: dict[int, Value] = {}
        self._held: list[Any] = []  # an identity is a tensor's own while it lives

    def __call__(
        self, op: Op, inputs: tuple[Tensor, ...], attrs: dict[str, Any], y: Tensor
    ) -> None:
        """Note a call of an op."""
        if op in (check, draw):  # no part of a loop; what is drawn would be a constant, and differs
            return
        if op in (getitem, scatter_add):
            inputs, attrs = self._with_index(op, inputs, attrs)
        self.note(op, inputs, attrs, (y,))

    def note(
        self, op: Op, inputs: Sequence[Tensor], attrs: dict[str, Any], ys: Sequence[Tensor | None]
    ) -> Equation:
        line = line_of(sys._getframe(1)) if self.forward is None else "in its gradient"
        values = tuple(map(self.value, inputs))
        outputs = tuple(None if y is None else self.given("made", y) for y in ys)
        self.equations.append(Equation(op, values, attrs, outputs, line))
        return self.equations[-1]

    def given(self, kind: str, tensor: Tensor, key: Any = None) -> Value:
        """A new value, which this tensor stands for."""
        array = tensor._data
        value = Value(array.shape, array.dtype, kind, key=key, tensors=[ref(tensor)])
        self.values.append(value)
        self._known[self._identity(tensor)] = value
        self._hold(tensor, value)
        return value

    def value(self, tensor: Tensor) -> Value:
        """What the tensor stands for."""
        found = self._known.get(self._identity(tensor))
        if found is None:
            found = self.given("constant", tensor)
            found.data = tensor._data
        elif found.kind == "constant" and all(t() is not tensor for t in found.tensors):
            found.tensors.append(ref(tensor))
        return found

    def _identity(self, tensor: Tensor) -> int:
        return identity(tensor)

    def _hold(self, tensor: Tensor, value: Value) -> None:
        self._held.append(tensor)

    def _with_index(
        self, op: Op, inputs: tuple[Tensor, ...], attrs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        """An op whose index is part of the program: its arrays are the same at every step."""
        n = 1 if op is getitem else len(attrs["indices"])
        made = {id(_tensor(v)._data) for v in self.values if v.kind == "made"}
        if any(id(array._data) in made or array.name for array in inputs[n:]):
            readable("an index")
        arrays = iter([array._data for array in inputs[n:]])
        if op is getitem:
            return inputs[:n], {"index": filled(attrs["index"], arrays)}
        indices = [filled(index, arrays) for index in attrs["indices"]]
        return inputs[:n], {**attrs, "indices": indices}


class StepTape(Tape):
    """Every op of a whole training step, to be done again by `playback` on other numbers.

    Arrays are told apart, and only as long as they live: the step frees its memory as it does
    without a tape.
    """

    def __init__(self, arguments: Sequence[Tensor], strict: bool = False) -> None:
        super().__init__()
        self.strict = strict  # raise what is refused; else the step goes on without the tape
        self.refused: CompileError | None = None
        self.modules: dict[int, Module] = {}  # that were called, by identity
        #: Where random streams are: the library's, and those that these modules hold
        self._streams: list[tuple[np.random.Generator, Any]] = [(generator(), random.get_state())]
        for t in arguments:
            self.given("argument", t)

    def called(self, module: Module) -> None:
        """What a module holds the step rests on."""
        if id(module) not in self.modules:
            self.modules[id(module)] = module
            self._streams += [(g, g.bit_generator.state) for g in generators(module)]

    def check_streams(self) -> None:
        """Refuse the step if it drew random numbers other than by `draw`: those of later calls
        would be the same ones.
        """
        if self.refused is None and any(
            g.bit_generator.state != state for g, state in self._streams
        ):
            graph.refuse(
                CompileError(
                    "the step draws random numbers, and would draw the same ones in every call. "
                    "Pass them as an argument of the step; or let layers draw them (nn.Dropout, a "
                    "cell's noise(x, state))."
                )
            )

    def __call__(
        self, op: Op, inputs: tuple[Tensor, ...], attrs: dict[str, Any], y: Tensor
    ) -> None:
        if "call" in attrs:  # one use of a compiled layer, which holds the memory of a run
            attrs = {"call": attrs["call"].layer}
        output = self.note(op, inputs, attrs, (y,)).output
        if op is draw:
            output.kind, output.data = "drawn", y._data
            self._streams = [(g, g.bit_generator.state) for g, _ in self._streams]

    def close(self) -> None:
        """Forget the identities: new arrays may have them."""
        self._known.clear()
        self._held.clear()

    def _identity(self, tensor: Tensor) -> int:
        return id(tensor._data)

    def _hold(self, tensor: Tensor, value: Value) -> None:
        key = id(tensor._data)

        def forget(_: object) -> None:  # the identity may be given to another array
            if self._known.get(key) is value:
                del self._known[key]

        self._held.append(ref(tensor._data, forget))


def generators(module: Module) -> list[np.random.Generator]:
    """Those that are its attributes."""
    return [g for g in list(vars(module).values()) if isinstance(g, np.random.Generator)]


@contextmanager
def step_taped(arguments: Sequence[Tensor], strict: bool = False) -> Iterator[StepTape]:
    """Inside, everything that is done with Tensors goes on the tape."""
    tape = StepTape(arguments, strict)
    try:
        with graph.taped(tape, whole=True):
            yield tape
    finally:
        tape.close()


def _tensor(value: Value) -> Tensor:
    """The first tensor that stood for a value, of a cell's tape."""
    tensor = value.tensors[0]()
    assert tensor is not None
    return tensor


@functools.cache
def _is_equation(file: str) -> bool:
    """Whether code in this file is somebody's step: a cell's, not the engine's."""
    path = Path(file)
    return _ENGINE not in path.parents or (_CELLS in path.parents and path not in _LAYERS)


def line_of(frame: FrameType | None) -> str:
    """The innermost line that is somebody's equation."""
    while frame is not None and not _is_equation(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _raised(error: Exception) -> str:
    """The innermost such line that an error came through, with a colon."""
    line, at = "", error.__traceback__
    while at is not None:
        file = at.tb_frame.f_code.co_filename
        line = f"{Path(file).name}:{at.tb_lineno}: " if _is_equation(file) else line
        at = at.tb_next
    return line


# -- two tapes of one function --------------------------------------------------------------------


class _Words(NamedTuple):
    """What is said where two tapes differ."""

    differs: str
    gives: str
    constant: str
    attribute: str
    shape: str


OF_STEP = _Words(
    differs="the function does something else in one call than in the next, for arguments of the "
    "same shapes. Let what it does hang on shapes alone, and choose between values with ops.where.",
    gives="the function gives something else in one call than in the next.",
    constant="an array of shape {shape} comes from outside of the step and is another one in one "
    "call than in the next. Pass it as an argument of the step; random numbers are drawn by layers "
    "(nn.Dropout, a cell's noise(x, state)).",
    attribute="{name} of {op} is another one in one call than in the next. Pass what changes as an "
    "argument of the step: arrays and Tensors, or what stays the same.",
    shape="the sizes of what it makes hang on values.",
)
OF_CELL = _Words(
    differs="the step does something else for a few sequences than for many. Let it do the same "
    "for every batch size.",
    gives="the step gives something else for a few sequences than for many.",
    constant="the step uses an array of shape {shape} that is another one for a few sequences than "
    "for many, or changes from call to call. Random numbers are drawn before the first step: give "
    "the cell noise(x, state). What hangs on the batch size, as a mean over the batch does, or on "
    "values that NumPy computed from the step's own has no place in a compiled step.",
    attribute="{op} has other arguments for a few sequences than for many. Arguments that hang on "
    "values or on the batch size have no place in a compiled step.",
    shape=f"{{few}} for {_BATCHES[0]} sequences, {{shape}} for {_BATCHES[1]}: rows of the batch "
    "are mixed with something else. Keep axis 0 the batch.",
)


def compare(a: Tape, b: Tape, words: _Words, batches: tuple[int, int] | None = None) -> None:
    """Raise `CompileError`, with the line, unless both are the same, on other numbers.

    ``batches``: the batch size of either run. Afterwards it is B in the shapes and arguments of
    ``a``, and constants that are one number for all sequences are that number.
    """
    in_a: dict[Value | None, int] = {v: n for n, v in enumerate(a.values)}
    in_b: dict[Value | None, int] = {v: n for n, v in enumerate(b.values)}
    line, left = "", set(a.values)

    def failed(text: str, **names: str) -> CompileError:
        return CompileError((f"{line}: " if line else "") + text.format(**names))

    def look(v: Value | None, w: Value | None) -> None:
        """Where a value comes for the first time."""
        if v is None or w is None or v not in left:
            return
        left.remove(v)
        sizes = {"few": describe(v.shape), "shape": describe(w.shape)}
        same = (v.kind, v.dtype) == (w.kind, w.dtype)
        if not same or (v.kind == "constant" and not _same_constant(v, w, batches)):
            raise failed(words.constant, **sizes)
        try:
            v.shape = _both(v.shape, w.shape, batches)
        except ValueError:
            raise failed(words.shape, **sizes) from None
        if BATCH in v.shape[2:] or v.shape.count(BATCH) > 1:
            raise failed(words.shape, **sizes)

    for e, f in zip(a.equations, b.equations, strict=False):
        line, values, others = f.line, e.inputs + e.outputs, f.inputs + f.outputs
        if e.op is not f.op or [*map(in_a.get, values)] != [*map(in_b.get, others)]:
            raise failed(words.differs)
        for name, attribute in e.attrs.items():
            try:
                both = _both(attribute, f.attrs[name], batches)
            except ValueError:
                raise failed(words.attribute, name=name, op=f.op.name) from None
            if batches:
                e.attrs = {**e.attrs, name: both}
        for v, w in zip(values, others, strict=True):
            look(v, w)
    line = ""
    if len(a.equations) != len(b.equations) or a.forward != b.forward:
        raise failed(words.differs)
    if [*map(in_a.get, a.ends)] != [*map(in_b.get, b.ends)]:
        raise failed(words.gives)
    for v, w in zip(a.values, b.values, strict=True):
        look(v, w)


def _both(a: Any, b: Any, batches: tuple[int, int] | None) -> Any:
    """What is the same in both runs, with B for the batch sizes. Raises ValueError."""
    if isinstance(a, int | np.integer) and (a, b) == batches:
        return BATCH
    if type(a) is not type(b):
        same = False
    elif isinstance(a, slice):
        return slice(*_both((a.start, a.stop, a.step), (b.start, b.stop, b.step), batches))
    elif isinstance(a, tuple | list) and len(a) == len(b):
        both = [_both(m, n, batches) for m, n in zip(a, b, strict=True)]
        return both if isinstance(a, list) else tuple(both)
    elif isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and np.array_equal(a, b)
    else:
        same = a is b or bool(a == b)
    if not same:
        raise ValueError
    return a


def _same_constant(v: Value, w: Value, batches: Any) -> bool:
    """Whether nothing changed. A tensor that a training step writes to, a parameter say, stays the
    same. In a cell, what is a single number for all sequences, as zeros (B, W), becomes that.
    """
    a, b = v.data, w.data
    assert a is not None
    assert b is not None
    if a.shape == b.shape:
        mine = [id(t) for known in v.tensors if (t := known()) is not None and not batches]
        same = a is b or any(id(known()) in mine for known in w.tensors)
        return same or np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if not (batches and a.size and b.size and (a == a.flat[0]).all() and (b == a.flat[0]).all()):
        return False
    v.data = a.flat[:1].reshape(())
    return True


# -- a cell's step --------------------------------------------------------------------------------


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
        few, many = (_run(step, n, x, state, noise, named, dtype) for n in _BATCHES)
        if random.get_state() != before:
            raise CompileError(DRAWS)
    finally:
        random.set_state(before)
    compare(few, many, OF_CELL, _BATCHES)
    return _Namer(name, few, state_names, dtype, named).program


def _run(
    step: Step,
    batch: int,
    x_shape: tuple[int, ...],
    state_shapes: Sequence[tuple[int, ...]],
    noise: Any,
    named: dict[str, Tensor],
    dtype: np.dtype[Any],
) -> Tape:
    """The tape of one run. Its ends: y, the new state, what wants a gradient, and the gradients."""
    rng = np.random.default_rng(0)
    tape, gradients = Tape(), list[Tensor]()

    def given(kind: str, shape: tuple[int, ...], key: Any = None) -> Tensor:
        t = Tensor(rng.standard_normal((batch, *shape)), dtype, requires_grad=True)
        tape.given(kind, t, key)
        return t

    def row(array: Any) -> Tensor:
        t = Tensor(rng.random((batch, *array.shape[2:])).astype(array.dtype))
        tape.given("noise", t)
        return t

    x = given("x", x_shape)
    state = [given("state", shape, i) for i, shape in enumerate(state_shapes)]
    noise = mapped(row, noise)
    for key, t in named.items():
        tape.given("parameter", t, key)
    with np.errstate(all="ignore"), graph.recorded(True), graph.within(()), graph.taped(tape):
        anomaly, recording.anomaly = recording.anomaly, False
        try:
            try:
                y, after = step(x, tuple(state), noise)
            except CompileError as error:
                raise CompileError(f"{_raised(error)}{error}") from None
            except Exception as error:
                if not of_values(error):
                    raise
                raise CompileError(
                    f"{_raised(error)}a step on its own, run for {batch} sequences, fails: "
                    f"{type(error).__name__}: {error}"
                ) from error
            tape.forward = len(tape.equations)
            made = (y, *after)
            if not all(isinstance(t, Tensor) for t in made):
                raise CompileError("the step returns something that is not a Tensor.")
            seeds = [Tensor(rng.standard_normal(t.shape), dtype, requires_grad=True) for t in made]
            for i, (t, seed) in enumerate(zip(made, seeds, strict=True)):
                tape.given("seed", seed, i)
                if t.dtype != dtype:
                    raise CompileError(
                        f"the step makes {t.dtype} of {dtype}. Return what has the dtype of x: "
                        "h.astype(x.dtype)."
                    )
            outs = [(t, s) for t, s in zip(made, seeds, strict=True) if t.requires_grad]
            used = {v for e in tape.equations for v in e.inputs} | {tape.value(t) for t, _ in outs}
            wanted = [x, *state, *(t for t in named.values() if t.requires_grad)]
            wanted = [t for t in wanted if tape.value(t) in used]
            if wanted:
                ys, gs = zip(*outs, strict=True)
                gradients = list(grad(ys, wanted, gs, create_graph=True))
        finally:
            recording.anomaly = anomaly
    tape.ends = [tape.value(t) for t in (*made, *wanted, *gradients)]
    return tape


class _Namer:
    """A tape, with names for its values, as a program."""

    def __init__(
        self,
        name: str,
        tape: Tape,
        state_names: Sequence[str],
        dtype: np.dtype[Any],
        named: dict[str, Tensor],
    ) -> None:
        called = (op.emit.split("(")[0] for op in REGISTRY.values() if op.emit)
        self.taken: set[str] = {*_RESERVED.split(), *called}
        self.counts: dict[str, int] = {}
        self.named = named

        def given(kind: str, names: Sequence[str] | None = None) -> list[Value]:
            values = [v for v in tape.values if v.kind == kind]
            if names is None or len(names) != len(values):
                names = [f"{kind}_{i}" for i in range(len(values))]
            for v, n in zip(values, names, strict=True):
                v.name = self.unique(n)
            return values

        (x,), before, noise = given("x", ["x"]), given("state", state_names), given("noise")
        self.program = program = Program(name, dtype, x, before, noise, parameters=[])
        program.seeds = given("seed", [f"d_{n}" for n in ("y", *(v.name for v in before))])
        for i, e in enumerate(tape.equations):
            (program.forward if i < (tape.forward or 0) else program.backward).append(e)
            self.equation(e)
        for v in tape.ends:
            self.read(v)
        n = len(program.seeds)
        program.y, *program.states = tape.ends[:n]
        for v, made in zip(before, program.states, strict=True):
            if v.shape != made.shape:
                raise CompileError(
                    f"the state {v.name} goes in with the shape {describe(v.shape)} and "
                    f"comes out with {describe(made.shape)}."
                )
        half = (len(tape.ends) - n) // 2
        for v, g in zip(tape.ends[n : n + half], tape.ends[n + half :], strict=True):
            zero = g.kind == "constant" and g.data is not None and not g.data.any()
            program.gradients[v] = None if zero else g

    def equation(self, e: Equation) -> None:
        holder = _tensor(e.output).node
        if holder is not None and holder.hooks:
            raise CompileError(
                f"{e.line}: a hook on the result of {e.op.name} would not be called: in a compiled "
                "loop there is no tensor to hang it on."
            )
        for v in e.inputs:
            self.read(v, f"{e.line}: ")
        e.output.name = self.unique(e.op.name, numbered=True)
        e.output.made = e

    def read(self, v: Value, at: str = "") -> None:
        """A parameter or constant is named where it is read for the first time."""
        if v.kind == "parameter" and not v.name:
            v.name = self.unique(v.key.replace(".", "_"))
            self.program.parameters.append(v)
        elif v.kind == "constant" and v not in self.program.constants:
            self.constant(v, at)
            self.program.constants.append(v)

    def constant(self, v: Value, at: str) -> None:
        t = _tensor(v)
        assert v.data is not None
        if t.node is not None or t.requires_grad:
            raise CompileError(
                f"{at}the step uses a tensor of shape {describe(t.shape)} that was made outside of "
                "it and is neither x, state nor an attribute of the cell. Make it an attribute, or "
                "part of the state."
            )
        if BATCH in v.shape:
            v.name = self.unique("constant" if v.data else "zeros")
        elif v.shape:
            v.name = self.unique("constant")
            known = (t for t in self.named.values() if t.ndim)
            if any(np.may_share_memory(v.data, t._data) for t in known):
                raise CompileError(
                    f"{at}the step reads a parameter behind the recording's back (detach, or "
                    "operations under no_grad). Make what it needs an attribute of the cell."
                )
        v.data = v.data.copy()

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
