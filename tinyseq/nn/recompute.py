"""`checkpoint`: less memory for more computation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinyseq import errors, graph, ops, random
from tinyseq.backprop import grad
from tinyseq.graph import identity, recorded, recording
from tinyseq.op import primitive
from tinyseq.tensor import Tensor


def checkpoint(fn: Callable[..., Any], *inputs: Any) -> Any:
    """fn(*inputs), recorded as one op: what happens inside is forgotten and computed again for the
    backward pass.

    ``inputs``: tensors and nested tuples of tensors (a state); fn returns the same. Parameters that
    fn uses get their gradients too. A sequence of T steps cut into √T checkpointed chunks needs
    memory for √T states and one chunk, for the price of a second forward pass. Griewank, 1992; Chen
    et al., 2016. Gradients of any order. Draws from the library's own generator come out the same
    again.

    Raises `GraphError` when fn uses a recorded tensor that it was not given (pass it as an input),
    and in the backward pass when fn does not compute the same again (an ``rng`` of its own, say).
    """
    if not recording.enabled:
        return fn(*inputs)
    tensors = list(_flat(inputs))
    random_state = random.get_state()

    def run(again: Sequence[Tensor]) -> list[Tensor]:
        return list(_flat(fn(*_like(inputs, iter(again)))))

    choices: list[bool] = []
    with graph.scope("checkpoint"):
        copies = [ops.cut(x) for x in tensors]
        with _layers(choices):
            result = fn(*_like(inputs, iter(copies)))
        outs = list(_flat(result))
        leaves = _leaves(outs, copies)
    packed = _checkpointed(
        *tensors,
        *leaves,
        n=len(tensors),
        run=run,
        value=np.concatenate([y._data.reshape(-1) for y in outs]),
        random_state=random_state,
        choices=choices,
    )
    ends = np.cumsum([y.size for y in outs]).tolist()
    parts = (ops.reshape(packed[n - y.size : n], y.shape) for y, n in zip(outs, ends, strict=True))
    return _like(result, parts)


def _checkpointed_vjp(
    g: Tensor,
    y: Tensor,
    *xs: Tensor,
    n: int,
    run: Any,
    value: Any,
    random_state: Any,
    choices: list[bool],
) -> tuple[Tensor | None, ...]:
    create_graph = recording.enabled
    # A gradient that is itself recorded must hang together with the outer recording; any other is
    # computed on copies, so that the walk ends at them.
    given = [*(xs[:n] if create_graph else map(ops.cut, xs[:n])), *xs[n:]]
    now = random.get_state()
    random.set_state(random_state)
    try:
        with recorded(True), _layers(choices, again=True):
            again = ops.concat([ops.reshape(out, -1) for out in run(given[:n])])
    finally:
        random.set_state(now)
    if not np.array_equal(again._data, y._data, equal_nan=True):
        raise errors.GraphError(
            "checkpoint: the function did not compute the same again, so its gradient would be "
            "wrong. Does it draw from an rng of its own, or did a parameter change? Use the "
            "library's generator, and run the backward pass before the optimiser's step."
        )
    wanted = [x for x in given if x.requires_grad]
    found = iter(grad(again, wanted, g, create_graph=create_graph))
    return tuple(next(found) if x.requires_grad else None for x in given)


@primitive(_checkpointed_vjp, reads="xy")
def _checkpointed(
    *arrays: np.ndarray,
    n: int,
    run: Any,
    value: np.ndarray,
    random_state: Any,
    choices: list[bool],
) -> Any:
    """The value that was computed, with a rule that computes it again."""
    return value


@contextmanager
def _layers(choices: list[bool], again: bool = False) -> Iterator[None]:
    """Note which layers run compiled inside, or, ``again``, run them as was noted; a checkpoint
    around this one is told, too.
    """
    outer, chosen = recording.choices, recording.chosen
    if again:
        recording.chosen = iter(choices)
    else:
        recording.choices = choices
    try:
        yield
    finally:
        recording.choices, recording.chosen = outer, chosen
        if outer is not None and not again:
            outer += choices


def _leaves(outs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The parameters that went into the outputs besides the inputs."""
    path = recording.scope
    given = {identity(x) for x in inputs}
    leaves = []
    for x in graph.topological(*outs):
        if x.node is None:
            if x.requires_grad and identity(x) not in given:
                leaves.append(x)
        elif x.node.scope[: len(path)] != path:
            raise errors.GraphError(
                "checkpoint: the function uses a recorded tensor of shape "
                f"{errors.describe(x.shape)} that "
                "is not among its inputs, and which could not be reached when it is "
                "computed again. "
                "Pass it as an input."
            )
    return leaves


def _flat(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _flat(part)
    elif value is not None:
        raise TypeError(
            f"checkpoint: inputs and results are tensors, nested tuples of them, or None, not "
            f"{type(value).__name__}. Bind other arguments with functools.partial."
        )


def _like(structure: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nested tuples, filled with other tensors."""
    if isinstance(structure, Tensor):
        return next(tensors)
    if isinstance(structure, tuple | list):
        return tuple(_like(part, tensors) for part in structure)
    return structure
