"""What was computed already, read for its picture: nothing is run again but the steps of compiled
layers that are to be shown.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from tinyseq import nn
from tinyseq.errors import GraphError
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from .calls import Calls, split
from .columns import Columns, choose
from .expanded import expanded
from .flow import Flow
from .indices import index_of, numbers, walked
from .moves import moves
from .reading import adjusting, find_calls, read
from .running import Run, find_lookups, find_starts, modules_of, run
from .timeline import Timeline, recorded

Params = nn.Module | Mapping[str, nn.Module | Tensor]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Reading makes very many small objects and no garbage: a search for cycles among them, now and
    again, would take half of the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_uncollected()
def recall(
    tensors: Sequence[Tensor],
    params: Params | None,
    chosen: Callable[[int, int], Columns],
    flow: str | None = None,
    scale: tuple[float, float] | None = None,
    whole: bool = False,
    every: bool = False,
) -> Run:
    """The recording that the tensors were made by. Raises `GraphError` where there is none.

    What flowed is found by going through every step, those of compiled layers run again, as also
    with ``every``. With ``whole`` the steps that get no column are read as well, for what flowed
    over all of them.
    """
    if not tensors or all(t.node is None for t in tensors):
        raise GraphError(
            "what: nothing was recorded for this tensor: nothing it was made from requires a "
            "gradient, or it was made under no_grad(). Give a leaf requires_grad=True before it is "
            "used."
        )
    new: dict[int, Tensor] = {}
    roots = expanded(tensors, lambda path: (), new)  # the ends of each call say how they are linked
    order = walked(*roots)
    calls = find_calls(order, new)
    columns = chosen(calls.steps, calls.shortest)
    if roots[0] is not tensors[0]:
        steps = None if flow or every else calls.local(columns.shown)
        new.clear()
        roots = expanded(tensors, steps, new)
        order = walked(*roots)
        calls = find_calls(order, new)
    names, modules = _named(params)
    shown = range(columns.steps) if whole else columns.shown
    line = _read(roots, order, calls, names, shown)
    find_starts(line)
    line.show(columns.shown)
    for op in [op for row in line.rows for box in row.boxes.values() for op in box.ops]:
        index = None if op.node is None else index_of(op.node)
        if isinstance(index, np.ndarray) and index.ndim and len(index) in calls.lengths:
            find_lookups(line, Tensor(index), 0)  # tokens, looked up in an embedding
    ran = Run(line, columns, modules, names, called=_called(line, modules))
    if flow is not None:
        ran.flow = Flow(flow, roots[0], order, line, scale)
    return ran


def _called(
    line: Timeline, modules: Mapping[tuple[str, str], nn.Module]
) -> dict[int, tuple[Tensor, str]]:
    """What the code of the cells calls its values: a recording does not say, so each cell runs a
    few steps on made-up input, and the same ops in the same order have the same names.
    """
    called: dict[int, tuple[Tensor, str]] = {}
    for row in line.rows:
        layer = modules.get((row.scope[0], ".".join(row.scope[1:]))) if row.scope else None
        if not isinstance(layer, nn.Recurrent) or not hasattr(layer.cell, "input_size"):
            continue
        again = run(layer, 3, None, None, lambda steps, *_: choose(steps, None, "cell"))
        like = next(r for r in again.line.rows if r.recurrent).boxes[1]
        for box in row.boxes.values():
            if [recorded(op).op for op in box.ops] == [recorded(op).op for op in like.ops]:
                for op, other in zip(box.ops, like.ops, strict=True):
                    if identity(other) in again.called:
                        called[identity(op)] = op, again.called[identity(other)][1]
    return called


def _read(
    roots: Sequence[Tensor],
    order: Sequence[Tensor],
    calls: Calls,
    names: Mapping[int, str],
    steps: Collection[int],
) -> Timeline:
    """Read a recording whose input is not known: a leaf that each step takes a part of.

    The steps run along its first axis, or the second behind the batch, and may be a part of a
    longer sequence: what fits by its length is tried, until each step takes one of them.
    """
    within = {  # what a step takes as it is holds no steps
        id(x)
        for t in order
        if t.node is not None and split(t.node.scope)[1] is not None and not moves(t.node)
        for x in numbers(t.node)
        if x.node is None
    }
    within |= adjusting(order)
    leaves = {identity(t): t for t in order if t.node is None and id(t) not in within}
    axes = {
        key: _time_axes(t, calls.steps, calls.lengths)
        for key, t in leaves.items()
        if not isinstance(t, nn.Parameter) and key not in names
    }
    first: dict[int, int] = {}
    while True:
        inputs = {key: fitting[0] for key, fitting in axes.items() if fitting}
        line = read(roots, inputs=inputs, shown=steps, order=order, first=first, calls=calls)
        changed = False
        for key, axis in inputs.items():
            used, alone = _used(line, leaves[key])
            begin = min(used, default=0)
            if not alone or max(used, default=0) - begin >= calls.steps:
                axes[key] = axes[key][1:]
                changed = True
            elif begin and leaves[key].shape[axis] > calls.steps:
                first[key] = begin
                changed = True
        if not changed:
            return line


def _time_axes(x: Tensor, steps: int, lengths: Collection[int]) -> list[int]:
    """Which axes of a leaf the steps may run along, those of just so many first; a layer may have
    fewer, as a decoder has.
    """
    sizes = x.shape[:2] if x.ndim > 1 else ()
    fitting = [axis for axis, n in enumerate(sizes) if n >= steps or n in lengths]
    return sorted(fitting, key=lambda axis: (sizes[axis] != steps, sizes[axis] not in lengths))


def _used(line: Timeline, leaf: Tensor) -> tuple[set[int], bool]:
    """Which steps of a leaf are taken, and whether no step in time takes several."""
    used: set[int] = set()
    alone = True
    for row in line.rows:
        for box in (row.read or row.boxes).values():
            taken = {
                source.step
                for _, source in line.inputs(box)
                if source.tensor is leaf and source.step is not None
            }
            used |= taken
            alone &= box.step is None or len(taken) <= 1
    return used, alone


def _named(params: Params | None) -> tuple[dict[int, str], dict[tuple[str, str], nn.Module]]:
    """Names of parameters by identity, and modules by their place in a scope."""
    given = {"": params} if isinstance(params, nn.Module) else dict(params or {})
    names: dict[int, str] = {}
    modules: dict[tuple[str, str], nn.Module] = {}
    for name, thing in given.items():
        if isinstance(thing, nn.Module):
            modules |= modules_of(thing)
            for inner, tensor in thing.named_tensors():
                names[identity(tensor)] = f"{name}.{inner}" if name else inner
        else:
            names[identity(thing)] = name
    return names, modules
