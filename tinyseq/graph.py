"""The recording: one `Node` an operation, and the one walk over it that every reader uses.

Back-propagation, the pictures, the gradient checks and the compiler all read the same thing:
which op made a tensor, from which tensors, with which attributes, in which module and step.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyseq.errors import CompileError, DtypeError, ShapeError, describe, listed

if TYPE_CHECKING:
    from tinyseq.op import Op
    from tinyseq.tensor import Hook, Tensor


class Node:
    """How a tensor was made.

    ``op`` applied to ``inputs`` with ``attrs``; ``scope`` is the path of module names and steps
    (``("LSTM", "layers.0", "t=3", "cell")``). A node keeps only what the op's gradient rule reads:
    inputs that it does not read stand here as husks, with a shape, a name and their own node, but
    without contents (so that their memory is free for the next step as soon as the caller drops
    them); ``output`` is the result, if the rule reads it. ``time`` is when it was recorded by the
    clock of `changes`, and ``seen`` are fingerprints of what the rule reads, where user code could
    write into that, so that a change in place before the backward pass is noticed.

    A node is not changed after it was made, but for `free` and the hooks on its result.
    """

    __slots__ = (
        "__weakref__", "attrs", "hooks", "inputs", "op", "output", "scope", "seen", "time",
    )  # fmt: skip

    def __init__(
        self,
        op: Op,
        inputs: tuple[Tensor, ...],
        attrs: dict[str, Any],
        scope: tuple[str, ...],
        time: int,
        output: Tensor | None,
    ) -> None:
        self.op: Op | None = op
        self.inputs = inputs
        self.attrs = attrs
        self.scope = scope
        self.time = time
        self.seen: list[int | None] | None = None
        self.output = output
        self.hooks: list[Hook] | None = None

    def free(self) -> None:
        """Let go of everything: a backward pass has been here. ``op`` is `None` from then on."""
        self.op = self.output = None
        self.inputs = ()
        self.attrs = {}

    def read(self) -> Iterator[tuple[int | None, Tensor]]:
        """What the op's rule reads: inputs with their number, and the result."""
        assert self.op is not None
        for i, x in enumerate(self.inputs):
            if self.op.reads_all or i in self.op.reads_inputs:
                yield i, x
        if self.output is not None:
            yield None, self.output


def identity(tensor: Tensor) -> int:
    """Equal for two tensors that are the same value of the recording, a tensor and its husk, say.

    A value is known by the node that made it; a leaf by itself.
    """
    return id(tensor if tensor.node is None else tensor.node)


class _Recording(threading.local):
    """Whether operations are recorded, and under which path: per thread, as in PyTorch."""

    enabled: bool = True
    anomaly: bool = False  # look at every result for a NaN or an Inf
    scope: tuple[str, ...] = ()
    tape: Any = None  # while a step is traced: called with every op, differentiable or not
    step: Any = (
        None  # the tape where it is that of a whole training step, `compiler.trace.StepTape`
    )
    # Whether each layer ran compiled: noted within a checkpoint, so that it can be done the same
    # way again, to the bit.
    choices: list[bool] | None = None
    chosen: Iterator[bool] | None = None


recording = _Recording()
#: Another object after each change of a public attribute of any Module: look here first.
module_changes = [object()]


@contextmanager
def taped(tape: Any, whole: bool = False) -> Iterator[None]:
    """Call the tape with every op inside, of a cell's step or of a ``whole`` training step. The
    step of a cell becomes part of a loop, so no layer in it has one of its own; a training step
    comes again, so all have.
    """
    outer = recording.tape, recording.step
    recording.tape, recording.step = tape, tape if whole else None
    try:
        yield
    finally:
        recording.tape, recording.step = outer


_entries = itertools.count()


class Part(str):
    """One name in a path. It equals any other of the same letters; ``entry``, which counts, tells
    apart a scope that is entered twice, such as a layer's that is called twice. ``module``: the
    module that it is the scope of, by a weak reference, for a recording keeps no module alive.
    """

    __slots__ = ("entry", "module")

    entry: int
    module: weakref.ref[Any] | None


class scope:
    """Everything recorded inside carries ``name`` as one more component of its path."""

    __slots__ = ("name", "outer")

    def __init__(self, name: str, module: object = None) -> None:
        self.name = Part(name)
        self.name.entry = next(_entries)
        self.name.module = None if module is None else weakref.ref(module)

    def __enter__(self) -> None:
        self.outer = recording.scope
        recording.scope = (*self.outer, self.name)

    def __exit__(self, *_: object) -> None:
        recording.scope = self.outer


@contextmanager
def within(path: tuple[str, ...]) -> Iterator[None]:
    """Everything recorded inside carries this path in place of the running one."""
    outer = recording.scope
    recording.scope = path
    try:
        yield
    finally:
        recording.scope = outer


@contextmanager
def recorded(enabled: bool) -> Iterator[None]:
    """Record (or do not) inside; nests, and is put back however the block ends."""
    outer = recording.enabled
    recording.enabled = enabled
    try:
        yield
    finally:
        recording.enabled = outer


def note_call(module: Any) -> None:
    """A module is called: a training step that is recorded rests on what the module holds."""
    if recording.step is not None:
        recording.step.called(module)


def layers_compile() -> bool | None:
    """Whether layers run compiled: yes in a training step that is recorded, for it comes again; no
    in a cell's step, which becomes part of a loop. `None`: once they have run enough.
    """
    return None if recording.tape is None else recording.step is not None


def located(name: str, scope: tuple[str, ...] | None = None) -> str:
    """The op's name, with the module path and time step (by default the running one) if there is
    one.
    """
    scope = recording.scope if scope is None else scope
    return f"{name} in {'/'.join(scope)}" if scope else name


def refuse(reason: CompileError) -> None:
    """What happens here cannot be compiled. The trace of a cell ends with this error. A training
    step runs on its real values: it goes on as it is written, and the tape learns why it ends.
    """
    if recording.step is None or recording.step.strict:
        raise reason
    recording.step.refused = reason
    recording.tape = recording.step = None


def readable(what: str, by_cells: bool = False) -> None:
    """Refuse this while a step is traced: its values are not those of later calls.

    ``by_cells``: but cells may, for whom it is a constant.
    """
    if recording.tape is not None and not (by_cells and recording.step is None):
        outside = "attributes of the cell" if recording.step is None else "arguments of the step"
        refuse(
            CompileError(
                f"{what} reads the value of a tensor in the middle of a step, and what the step "
                "does then hangs on that value. Choose between values with ops.where, which "
                f"computes both sides, and bring numbers in from outside as {outside}."
            )
        )


def unrepeated(
    what: str, remedy: str = "Let the function return what is to be kept, and keep it afterwards."
) -> None:
    """Refuse what a training step does while it is recorded and not again."""
    if recording.step is not None:
        refuse(
            CompileError(
                f"{what} in the middle of a training step would be done while it is recorded, and "
                f"never again. {remedy}"
            )
        )


def reword(
    op: Op, scope: tuple[str, ...], arrays: Sequence[np.ndarray], attrs: object, cause: Exception
) -> Exception:
    """NumPy's complaint about one op, with the op's place, its sizes and the remedy added."""
    names = [*op.names, *[""] * len(arrays)]
    named = zip(names, arrays, strict=False)
    if isinstance(cause, TypeError):
        dtypes = listed((f"{name} {a.dtype}".lstrip() for name, a in named), " and ")
        return DtypeError(f"{located(op.name, scope)}: {dtypes}: {cause}.")
    sizes = listed((f"{name} {describe(a.shape)}".lstrip() for name, a in named), " and ")
    extra = f" with {attrs}" if attrs else ""
    ufunc = "broadcast together" in str(cause) or "gufunc" in str(cause)
    why = "these do not go together" if ufunc else cause  # NumPy's words say no more
    kind = IndexError if isinstance(cause, IndexError) and op.name == "getitem" else ShapeError
    return kind(f"{located(op.name, scope)}: {sizes}{extra}: {why}. {op.hint}".rstrip())


def topological(*roots: Tensor) -> list[Tensor]:
    """Every tensor that the roots were made from, roots and leaves included, inputs first.

    Each value comes once, by its `identity`. Iterative, so that 100 000 chained steps need no
    recursion, and order-keeping: inputs come in the order in which their op names them, so that
    whatever is printed or drawn is the same every time.
    """
    order: list[Tensor] = []
    seen: set[int] = set()
    stack: list[tuple[Tensor, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        tensor, inputs_done = stack.pop()
        if inputs_done:
            order.append(tensor)
        elif (key := identity(tensor)) not in seen:
            seen.add(key)
            if tensor.node is None:
                order.append(tensor)
            else:
                stack.append((tensor, True))
                stack.extend([(x, False) for x in reversed(tensor.node.inputs)])
    return order
