"""One forward pass of a layer on made-up input, for the sake of its recording; the layer stays as
it was.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import numpy as np

from tinyseq import graph, nn, ops, random
from tinyseq.arguments import shown
from tinyseq.graph import identity
from tinyseq.nested import mapped
from tinyseq.tensor import FLOATS, Tensor

from .checks import as_input, running
from .columns import Columns, choose, shortened
from .expanded import expanded
from .flow import Flow
from .indices import index_of, numbers, walked
from .labels import shape_text
from .reading import find_calls, read
from .rows import recorded_layer
from .timeline import Source, Timeline, flatten, recorded


@dataclass(eq=False)
class Run:
    """One forward pass, and what is known about it besides the recording."""

    line: Timeline
    columns: Columns
    modules: dict[tuple[str, str], nn.Module]  # by the first part of a scope and the dotted rest
    names: dict[int, str]  # parameters and constants by identity, dotted
    x: Tensor | None = None  # the input of all steps, where that is one tensor
    time_axis: int = 0
    batch: int | None = None  # how long the batch axis is, when that says nothing else
    called: dict[int, tuple[Tensor, str]] = field(default_factory=dict)  # what the code calls it
    flow: Flow | None = None


class Function(nn.Module):
    """A cell that is a plain function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.function(x, state)


def _named_like(function: Callable[..., Any]) -> nn.Module:
    """The function as a cell, with its own name in pictures and errors."""
    name = getattr(function, "__name__", type(function).__name__)
    cell: nn.Module = type(name, (Function,), {})(function)
    return cell


def layer_of(cell: nn.Module) -> nn.Recurrent:
    """A layer of the cell, which keeps its own name: being looked at does not rename it."""
    own_name = cell.__dict__.get("_scope_name")
    layer = nn.Recurrent(cell, mode="unroll")
    cell.__dict__["_scope_name"] = own_name
    return layer


_LAYERS = (nn.Recurrent, nn.Bidirectional, nn.Stacked, nn.Reversed)


def run(layer: Any, steps: int, x: Any, state: Any, choose: Callable[..., Columns]) -> Run:
    """Run ``layer`` (a cell is made a layer first) on ``x``, or on anything of so many steps.

    ``choose`` says which of the steps are shown. All steps of a recurrence are alike: where the
    input is made up, a few stand for those that are not shown.
    """
    module = layer if isinstance(layer, nn.Module) else _named_like(layer)
    if isinstance(module, Function) and state is None:
        raise ValueError(
            f"what={shown(layer)} does not say how its state starts. Pass state=..., the state "
            "that the function takes besides x."
        )
    inside = [m for _, m in module.named_modules()]
    starts = hasattr(module, "initial_state") or state is not None
    is_cell = isinstance(module, nn.Cell | Function) or starts
    if is_cell and not any(isinstance(m, _LAYERS) for m in inside):
        module = layer_of(module)

    tensors = dict(module.named_tensors())
    floats = [t.dtype for t in tensors.values() if t.dtype in FLOATS]
    dtype = floats[0] if floats else np.dtype(np.float32)
    batch = None
    columns: Columns | None = None
    made_up = x is None
    batch_first = getattr(module, "batch_first", False)
    if x is None:
        size = _input_size(module)
        steps, columns = shortened(choose(steps))
        taken = {n for t in tensors.values() for n in t.shape} | {size, steps}
        batch = next(p for p in itertools.count(7) if p not in taken and _prime(p))
        shape = (batch, steps, size) if batch_first else (steps, batch, size)
        x = Tensor(np.full(shape, 0.1), dtype)
    given = as_input(x)
    x = _marked(given if isinstance(given, Tensor) else Tensor(given))
    time_axis = 1 if batch_first else 0
    if isinstance(module, _LAYERS) and x.ndim == 2 and x.dtype in FLOATS:  # one sequence
        x = _marked(ops.expand_dims(x, 1 - time_axis))
        state = mapped(lambda s: s[None], state)
    if state is None and hasattr(module, "initial_state"):
        if x.ndim < 2:
            raise ValueError(
                f"x of shape {shape_text(x.shape)} has no steps and batch: (T, B, ...)."
            )
        state = module.initial_state(x.shape[1 - time_axis], dtype)
    state = _marked(state)

    with _untouched(module), np.errstate(all="ignore"), graph.recorded(True), _locals() as called:
        with running(module, x, made_up):
            result = module(x) if state is None else module(x, state)
        # A layer that is no part of the module (a function calls it, say) may have run compiled.
        made = expanded(flatten(result))

    outputs, final = made, list[Tensor]()
    if isinstance(result, tuple | list) and len(result) == 2 and (ys := flatten(result[0])):
        outputs, final = made[: len(ys)], made[len(ys) :]
    start = flatten(state)
    order = walked(*outputs, *final)
    calls = find_calls(order)
    if columns is None:
        columns = choose(calls.steps, calls.shortest)
    line = read(
        outputs,
        final,
        start if len(start) == len(final) else (),
        inputs={identity(x): time_axis} if x.ndim > time_axis else {},
        shown=columns.shown,
        order=order,
        calls=calls,
    )
    find_starts(line)
    find_lookups(line, x, time_axis)
    names = {identity(t): name for name, t in tensors.items()}
    modules = modules_of(module)
    return Run(line, columns, modules, names, x, time_axis, batch, called)


def modules_of(module: nn.Module) -> dict[tuple[str, str], nn.Module]:
    """The modules within by their path in a scope: the root goes by the name of its class."""
    return {(type(module).__name__, name): m for name, m in module.named_modules()}


def _prime(n: int) -> bool:
    """A batch of prime length is no multiple of a hidden size: its axis can be told apart."""
    return all(n % k for k in range(2, math.isqrt(n) + 1))


def _input_size(module: nn.Module) -> int:
    try:
        return int(module.input_size)  # type: ignore[attr-defined]
    except AttributeError as cause:
        who = type(getattr(module, "cell", module)).__name__
        raise ValueError(
            f"{who} does not say how wide its input is. Pass an input to run on, "
            "x=... of shape (T, B, D), or give it an input_size."
        ) from cause


def _marked(tree: Any) -> Any:
    """The same values as leaves that require a gradient: what is done to them is then recorded."""
    if isinstance(tree, Tensor):
        return Tensor(tree.detach().numpy(), None, tree.dtype in FLOATS, tree.name)
    return tuple(_marked(part) for part in tree) if isinstance(tree, tuple | list) else tree


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Record everything, unroll what could be compiled; afterwards all is as it was."""
    modules = [m for _, m in module.named_modules()]
    modes = [(m, m.mode) for m in modules if isinstance(m, nn.Recurrent)]
    frozen = [p for p in module.parameters() if not p.requires_grad and p.dtype in FLOATS]
    own = [v for m in modules for v in vars(m).values() if isinstance(v, np.random.Generator)]
    states = [(g, g.bit_generator.state) for g in own]
    library = random.get_state()
    for layer, _ in modes:
        layer.mode = "unroll"
    for parameter in frozen:
        parameter.requires_grad = True
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.mode = mode
        for parameter in frozen:
            parameter.requires_grad = False
        for generator, state in states:
            generator.bit_generator.state = state
        random.set_state(library)


@contextmanager
def _locals() -> Iterator[dict[int, tuple[Tensor, str]]]:
    """What modules' methods call the values they make, read from their local variables as they
    return.
    """
    called: dict[int, tuple[Tensor, str]] = {}

    def on_return(frame: FrameType, event: str, result: Any) -> None:
        if event != "return" or not isinstance(frame.f_locals.get("self"), nn.Module):
            return
        here = graph.recording.scope
        for name, value in frame.f_locals.items():
            if isinstance(value, Tensor) and value.node and value.node.scope[: len(here)] == here:
                called.setdefault(
                    identity(value), (value, name)
                )  # holds the tensor, so that the id stays its own

    with profiled(on_return):
        yield called


@contextmanager
def profiled(function: Callable[[FrameType, str, Any], None] | None) -> Iterator[None]:
    """Inside, the function is told of every call and return; of none, if there is no function."""
    if function is None:
        yield
        return
    before: Any = sys.getprofile()
    sys.setprofile(function)
    try:
        yield
    finally:
        if before is None or callable(before):
            sys.setprofile(before)
        else:  # a profiler in C, as cProfile's, which is set in a way of its own
            before.enable()


def find_starts(line: Timeline) -> None:
    """The initial state, and x, of layers that ran one step: no step before or after it tells them
    from other leaves. The layer's own steps do, a few that it runs on made-up input.
    """
    for row in line.rows:
        if not row.recurrent or len(row.read) > 1 or row.slots:
            continue
        layer = recorded_layer(row)
        if not isinstance(layer, nn.Recurrent) or not hasattr(layer.cell, "input_size"):
            continue
        again = run(layer, 3, None, None, lambda steps, *_: choose(steps, None, "cell")).line
        like = next(r for r in again.rows if r.recurrent)
        (box,) = row.read.values()
        ops, others = box.ops, like.read[1].ops
        if [recorded(op).op for op in ops] != [recorded(op).op for op in others]:
            continue
        row.slots = [replace(slot, start=None, final=False) for slot in like.slots]
        for at, (op, other) in enumerate(zip(ops, others, strict=True)):
            for i, x in enumerate(numbers(recorded(op))):
                sources = line.sources[identity(x)]
                taken = again.sources[identity(numbers(recorded(other))[i])]
                if slot := like.takes.get((len(ops), at, i)):
                    row.slots[like.slots.index(slot)].start = sources[0]
                elif x.node is None and any(source.is_input for source in taken):
                    sources[:] = [Source(x, box.step)]
                    line.of_one_step.add(identity(x))


def _is_step(index: np.ndarray, x: Tensor, step: int, axis: int) -> bool:
    return step < x.shape[axis] and np.array_equal(index, x._data.take(step, axis))


def find_lookups(line: Timeline, x: Tensor, axis: int) -> None:
    """Whole numbers enter an embedding as an index, not as an input: count them as one."""
    if x.dtype in FLOATS or x.ndim <= axis:
        return
    for key, box in line.box.items():
        op = box.ops[box.position[key]]
        index = index_of(recorded(op))
        if not isinstance(index, np.ndarray):
            continue
        if box.step is None and np.array_equal(index, x._data):
            begin = line.first.get(key, 0)
            line.lookups[key] = [Source(x, t - begin) for t in range(x.shape[axis])]
        elif box.step is not None and _is_step(index, x, box.step, axis):
            line.lookups[key] = [Source(x, box.step)]
