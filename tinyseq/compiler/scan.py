"""`scan`: a cell over a whole sequence as one op of the graph, with the values of `nn.unroll`.

The first call with a new kind of input traces, splits, emits and compiles; the later ones run. What
tells kinds apart is everything that a step could see, but for the sizes T and B: the cell's plain
attributes, the shapes behind the batch, the dtype, and which gradients are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from tinyseq import ops
from tinyseq.backprop import grad
from tinyseq.compiler.content import Read, changed, kept
from tinyseq.compiler.emit import emit
from tinyseq.compiler.pool import pool
from tinyseq.compiler.program import Program, Value
from tinyseq.compiler.reads import watch
from tinyseq.compiler.runtime import Compiled, Run
from tinyseq.compiler.split import split
from tinyseq.compiler.trace import trace
from tinyseq.errors import CompileError
from tinyseq.graph import Node, identity, recorded, recording, topological, within
from tinyseq.nested import leaves, mapped
from tinyseq.op import Op, Use, primitive
from tinyseq.ops.axes import for_rows_of
from tinyseq.tensor import FLOATS, Tensor

if TYPE_CHECKING:
    from tinyseq.nn.module import Module

State = tuple[Tensor, ...]
Unroll = Callable[..., tuple[Tensor, State]]


_MOST = 8  # programs of a cell whose attributes keep changing; each one is compiled


class Known:
    """What was traced of a cell as it was: its program, and what was compiled of it."""

    def __init__(self, reads: list[Read], program: Program, tensors: dict[str, Tensor]) -> None:
        self.reads, self.program = reads, program
        self.tensors = [tensors[v.key] for v in program.parameters]
        self.compiled: dict[Any, Compiled | CompileError] = {}

    def for_gradients(self, wanted: frozenset[Value], saving: bool) -> Compiled:
        key = (wanted, saving)
        if key not in self.compiled:
            try:
                self.compiled[key] = Compiled(self.program, wanted, saving)
            except CompileError as error:
                reason = f"{self.program.name} cannot be compiled: {error}"
                self.compiled[key] = CompileError(reason)
        found = self.compiled[key]
        if isinstance(found, CompileError):
            raise found.with_traceback(None)
        return found


_Entry = tuple[list[Read], Known | CompileError]
#: By cell and kind of input: what was traced of it, the last used first, or why it could not be
_known: WeakKeyDictionary[Module, dict[Any, list[_Entry]]] = WeakKeyDictionary()


def scan(
    unroll: Unroll,
    cell: Module,
    x: Tensor,
    state: State,
    reverse: bool = False,
    running: Tensor | None = None,
    noise: Any = None,
) -> tuple[Tensor, State]:
    """As ``unroll``, at speed. Raises `CompileError` where a step cannot be compiled, and why.

    ``unroll`` is that of `nn`, step by step: what is computed again for gradients of gradients, or
    to be looked at.
    """
    known = lookup(cell, x, state, running, noise)
    program = known.program
    inputs = [x, *state, *known.tensors]
    values = dict(zip([program.x, *program.before, *program.parameters], inputs, strict=True))
    saving = recording.enabled and any(t.requires_grad for t in inputs)
    wanted = frozenset(
        v for v, t in values.items() if saving and t.requires_grad and v in program.gradients
    )
    compiled = known.for_gradients(wanted, bool(wanted))
    if running is not None:  # whatever lies behind an end, NaN too, is never read
        x = inputs[0] = ops.where(running, x, 0.0)
    given = list(leaves((noise, running)))
    arrays = {v: t._data for v, t in zip(values, inputs, strict=True)}
    arrays |= {v: t._data for v, t in zip(program.noise, given, strict=True)}
    run = Run(compiled, arrays, reverse)
    order = (*values, *program.noise)
    layer = LayerUse(known, compiled, order, reverse, run.memory.parts)
    call = _LayerCall(layer, run, partial(unroll, cell), running, noise, len(state))
    flat = _scan(*inputs, *given, call=call)
    y, *after = (_piece(flat, start=a, stop=b, shape=s) for a, b, s in run.memory.outputs)
    return y, tuple(after)


@dataclass(slots=True)
class LayerUse:
    """One use of a compiled program: what a training step needs that does it again."""

    known: Known
    compiled: Compiled
    order: tuple[Value, ...]  # of its inputs
    reverse: bool
    parts: int = field(compare=False)  # the number of threads may change between two recordings


class _LayerCall:
    """One use of a compiled program, as it ran: what its gradient needs."""

    def __init__(
        self,
        layer: LayerUse,
        run: Run,
        unroll: Unroll,
        running: Tensor | None,
        noise: Any,
        states: int,
    ) -> None:
        self.layer, self.run, self.unroll = layer, run, unroll
        self.running, self.noise, self.states = running, noise, states
        self.steps = run.memory.outputs[0][2][0]
        self.path = recording.scope

    def unrolled(self, inputs: Sequence[Tensor]) -> tuple[Tensor, State]:
        """The same y and last state, step by step."""
        x, *state = inputs[: 1 + self.states]
        with within(self.path), recorded(True):
            return self.unroll(x, tuple(state), self.layer.reverse, self.running, noise=self.noise)

    def some(self, inputs: Sequence[Tensor], steps: Collection[int]) -> tuple[Tensor, State]:
        """As `unrolled`, with zeros in place of what each run of other steps makes."""
        x, state = inputs[0], tuple(inputs[1 : 1 + self.states])
        reverse, T = self.layer.reverse, self.steps
        shape = self.run.memory.outputs[0][2][1:]
        parts = []
        wanted = {t for t in steps if t < T} | {t for t in (0, 1, T - 2, T - 1) if 0 <= t < T}
        with within(self.path), recorded(True):
            for known, run in groupby(range(T)[:: -1 if reverse else 1], wanted.__contains__):
                ts = sorted(run)
                rows = slice(ts[0], ts[-1] + 1)
                if known:
                    running = None if self.running is None else self.running[rows]
                    noise = mapped(itemgetter(rows), self.noise)
                    part, state = self.unroll(
                        x[rows], state, reverse, running, noise=noise, first=ts[0]
                    )
                else:
                    part = Tensor.wrap(np.zeros((len(ts), *shape), state[0].dtype))
                    if len(steps) > 1:  # one step stands for all: then the last state comes of it
                        state = tuple(Tensor.wrap(np.zeros(s.shape, s.dtype)) for s in state)
                parts.append(part)
            return ops.concat(parts[::-1] if reverse else parts), state

    def again(self, inputs: Sequence[Tensor]) -> Tensor:
        """The same flat outputs, unrolled and recorded: for gradients of gradients."""
        memory = self.run.memory
        own = memory.own
        y, after = self.unrolled(inputs)
        parts = [ops.reshape(y, -1)]
        if own is not None:
            before = ops.reshape(inputs[1 + own], -1)
            parts = [*parts, before] if memory.reverse else [before, *parts]
        parts += [ops.reshape(after[i], -1) for i in memory.tails]
        return ops.concat(parts)


def _scan_vjp(g: Tensor, y: Tensor, *inputs: Tensor, call: _LayerCall) -> tuple[Tensor | None, ...]:
    # A gradient that is itself to be differentiated, or in which a NaN is looked for, has steps.
    if recording.enabled or recording.anomaly:
        if not recording.enabled:  # on copies, so that the walk ends at them
            n = 1 + call.states
            inputs = (*map(ops.cut, inputs[:n]), *inputs[n:])
        with recorded(True):
            again = call.again(inputs)
        wanted = [x for x in inputs if x.requires_grad]
        found = iter(grad(again, wanted, g, create_graph=recording.enabled))
        return tuple(next(found) if x.requires_grad else None for x in inputs)
    made = scan_gradient.forward(g._data, y._data, call=call)
    out = tuple(None if a is None else Tensor.wrap(a) for a in made)
    if recording.step is not None:
        recording.step.note(scan_gradient, (g, y), {"call": call.layer}, out)
    return out


def _gradients(g: np.ndarray, y: np.ndarray, call: _LayerCall) -> list[np.ndarray | None]:
    made = {v: a.copy() if v.kind == "state" else a for v, a in call.run.backward(g).items()}
    return [made.get(v) for v in call.layer.order]


#: The gradient of `_scan`, on the tape of a training step: it alone has several results
scan_gradient = Op("scan_gradient", _gradients, None, "", {}, None, None)


@primitive(_scan_vjp, reads="xy")
def _scan(*arrays: np.ndarray, call: _LayerCall) -> Any:
    """A compiled recurrence: y at all steps and the last state, in one flat array."""
    return call.run.forward()


def _piece_joint(flat: Tensor, uses: list[Use]) -> Tensor:
    return _joined(
        *(use.g for use in uses),
        places=[(use.attrs["start"], use.attrs["stop"]) for use in uses],
        size=flat.size,
    )


@primitive(lambda g, y, x, start, stop, shape: (None,), reads="", joint={0: _piece_joint})
def _piece(x: np.ndarray, start: int, stop: int, shape: tuple[int, ...]) -> Any:
    """A part of a flat array, in a shape of its own."""
    return x[start:stop].reshape(shape)


def _joined_vjp(
    g: Tensor, y: Tensor, *xs: Tensor, places: list[tuple[int, int]], size: int
) -> tuple[Tensor, ...]:
    return tuple(
        _piece(g, start=a, stop=b, shape=x.shape) for x, (a, b) in zip(xs, places, strict=True)
    )


def joined_into(
    out: np.ndarray,
    xs: Sequence[np.ndarray],
    places: Sequence[tuple[int, int]],
    there: Sequence[bool] | None = None,
) -> None:
    """Each part added at its place to zeros; ``there``: which of them, that overlap with no other
    one, are in place already.
    """
    order = sorted(range(len(xs)), key=lambda i: places[i])
    filled = 0
    for i in order:
        a, b = places[i]
        part = xs[i].reshape(-1)
        if a > filled:
            out[filled:a] = 0
        if there is None or not there[i]:
            both = max(a, min(b, filled))
            out[a:both] += part[: both - a]
            out[both:b] = part[both - a :]
        filled = max(filled, b)
    out[filled:] = 0


@primitive(
    _joined_vjp, reads="", into=lambda out, *xs, places, size: partial(joined_into, out, xs, places)
)
def _joined(*xs: np.ndarray, places: list[tuple[int, int]], size: int) -> Any:
    """Several parts added into a flat array of zeros: the adjoint of `_piece`."""
    out = pool.take((size,), xs[0].dtype)
    joined_into(out, xs, places)
    return out


# -- for those who read recordings -----------------------------------------------------------------


def expand(
    *tensors: Tensor,
    steps: Callable[[tuple[str, ...]], Collection[int]] | None = None,
    new: dict[int, Tensor] | None = None,
) -> list[Tensor]:
    """The same tensors, recorded as if every compiled layer they were made by had run unrolled.

    For reading alone, in a picture say: of the values only those of the steps are computed again.
    ``steps``: those that are wanted, of a long sequence, by the path of the call; what the others
    made is then left at 0, so that only who made what of what is right, and not the values.
    ``new`` is filled with what stands now for each value, by its identity before.
    """
    given = {identity(t): t for t in tensors}
    new = {} if new is None else new
    outputs: dict[int, dict[Any, Tensor]] = {}  # of a compiled layer, by their place
    sequences: dict[int, Tensor] = {}  # that need no gradient

    def renewed(x: Tensor) -> Tensor:
        found = new.get(identity(x), x)
        found.name = found.name or x.name
        return found

    for t in topological(*tensors):
        node = t.node
        if node is None or node.op is None:
            continue
        inputs = tuple(map(renewed, node.inputs))
        if node.op is _scan:
            x = inputs[0]
            if not x.requires_grad:  # what each step takes of it is to be recorded all the same
                inputs = (sequences.setdefault(identity(x), ops.cut(x)), *inputs[1:])
                inputs[0].requires_grad, inputs[0].name = True, x.name
            outputs[id(node)] = _replayed(node, inputs, steps)
        elif node.op is _piece and id(node.inputs[0].node) in outputs:
            place = (node.attrs["start"], node.attrs["stop"], node.attrs["shape"])
            new[identity(t)] = outputs[id(node.inputs[0].node)][place]
        elif any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
            t = given.get(identity(t), t)  # the walk may have met its husk first
            copy = new[identity(t)] = Tensor.wrap(t._data)
            copy.name, copy.requires_grad = t.name, t.requires_grad
            copy.node = Node(node.op, inputs, node.attrs, node.scope, node.time, node.output)
            copy.node.seen = node.seen
    return list(map(renewed, tensors))


def _replayed(
    node: Node,
    inputs: tuple[Tensor, ...],
    steps: Callable[[tuple[str, ...]], Collection[int]] | None,
) -> dict[Any, Tensor]:
    call: _LayerCall = node.attrs["call"]
    if call.running is not None and (masked := inputs[0].node) is not None:
        inputs = (masked.inputs[1], *inputs[1:])  # `unroll` masks x itself
    y, after = call.unrolled(inputs) if steps is None else call.some(inputs, steps(call.path))
    return dict(zip(call.run.memory.outputs, (y, *after), strict=True))


def describe(cell: Module, x: Tensor, state: State) -> tuple[Program, str]:
    """The program of a step of the cell, and the source that trains it."""
    program = lookup(cell, x, state, None, None).program
    wanted = frozenset(v for v in program.gradients if v.kind != "state")
    return program, emit(split(program, wanted, saving=True)).text


# -- what is known of a cell -----------------------------------------------------------------------


def lookup(cell: Module, x: Tensor, state: State, running: Tensor | None, noise: Any) -> Known:
    """The traced program for inputs of this kind, traced now if it is new."""
    _check_call(cell, x, state, noise)
    kind = (
        type(cell),
        x.shape[2:],
        x.dtype,
        tuple((s.shape[1:], s.dtype) for s in state),
        running is None,
        mapped(lambda n: (n.shape[2:], str(n.dtype)), noise),
    )
    mine = _known.setdefault(cell, {}).setdefault(kind, [])
    found = next((entry for entry in list(mine) if changed(entry[0]) is None), None)
    if found is None:
        found = _new(mine, cell, x, state, running, noise)
    elif found is not mine[0]:
        mine[:] = [found, *(entry for entry in mine if entry is not found)]
    known = found[1]
    if isinstance(known, CompileError):
        raise known.with_traceback(None)
    return known


def _check_call(cell: Module, x: Tensor, state: State, noise: Any) -> None:
    """Raise `CompileError` unless the compiled loop can take what this call brings. It is looked at
    in each call, and a failure is this call's alone: nothing of it is kept.
    """

    def failed(text: str) -> CompileError:
        return CompileError(f"{type(cell).__name__} cannot be compiled for this call: {text}")

    if x.dtype not in FLOATS:
        raise failed(f"x holds {x.dtype}; a compiled step takes float32 or float64.")
    if not isinstance(state, tuple) or not all(isinstance(s, Tensor) for s in state):
        raise failed("the state is not a tuple of tensors.")
    T, B = x.shape[:2]
    for s in state:
        if s.dtype != x.dtype:
            raise failed(f"the state holds {s.dtype}; a compiled step carries {x.dtype}, as x has.")
        if s.ndim not in (1, 2) or s.shape[0] != B:
            raise failed(f"the state has shape {s.shape}; a compiled step carries (B={B}, W).")
    for part in leaves(noise):
        if part.shape[:2] != (T, B):
            raise failed(
                f"noise(x, state) gives an array of shape {part.shape}; a compiled step takes "
                f"(T={T}, B={B}, …)."
            )


def _new(
    mine: list[_Entry], cell: Module, x: Tensor, state: State, running: Tensor | None, noise: Any
) -> _Entry:
    """A cell traced as it is now, kept among those that are known.

    A failure counts if it repeats: another thread may have changed the cell, or a signal handler
    raised something. What the cell's code raised once, and then no more, comes out as it is.
    """
    known: Known | CompileError
    first: BaseException | None = None
    for last in (False, True):
        reads, hidden = watch((), [cell], baked=True)
        try:
            if hidden is not None:
                raise CompileError(hidden)
            if len(mine) >= _MOST:
                raise CompileError(
                    f"{changed(mine[0][0])} was another one in each of {len(mine)} calls, and "
                    "every time the step would be compiled anew. Make it a Tensor that is an "
                    "attribute of the cell, and change its contents: self.rate = ts.tensor(0.5); "
                    "self.rate.data = …"
                )
            with kept(cell, reads):
                known = Known(reads, *_traced(cell, x, state, running, noise))
        except CompileError as error:
            known = CompileError(f"{type(cell).__name__} cannot be compiled: {error}")
            known.__cause__ = error.__cause__
            if not last:
                first = error.__cause__
                continue
        again = known.__cause__ if isinstance(known, CompileError) else None
        if first is not None and type(again) is not type(first):
            raise first
        if len(mine) < _MOST and changed(reads) is None:
            mine.insert(0, (reads, known))
        break
    return reads, known


def _traced(
    cell: Module, x: Tensor, state: State, running: Tensor | None, noise: Any
) -> tuple[Program, dict[str, Tensor]]:
    tensors = dict(cell.named_tensors())
    for name, t in tensors.items():
        if t.dtype in FLOATS and t.dtype != x.dtype:
            raise CompileError(
                f"{name} is {t.dtype} and x {x.dtype}. Make them the same: cell.astype(x.dtype)."
            )

    def step(x: Tensor, state: State, rows: Any) -> tuple[Tensor, State]:
        on = None
        if running is not None:
            rows, on = rows
        new = cell(x, state) if rows is None else cell(x, state, noise=rows)
        if not isinstance(new, tuple) or len(new) != len(state):
            raise CompileError("the step does not return a tuple like its state.")
        if on is None:
            return new[0], new
        held = tuple(ops.where(for_rows_of(on, n), n, s) for n, s in zip(new, state, strict=True))
        return ops.where(for_rows_of(on, new[0]), new[0], 0.0), held

    rows = noise if running is None else (noise, running)
    program = trace(
        type(cell).__name__,
        step,
        x.shape[2:],
        [s.shape[1:] for s in state],
        rows,
        tensors,
        getattr(cell, "state_names", ()),
        x.dtype,
    )
    return program, tensors
