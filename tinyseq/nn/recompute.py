"""`checkpoint`: activations are computed again in the backward pass, less memory for more work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np

from tinyseq import errors, graph, ops, random
from tinyseq.arguments import checked, no_class
from tinyseq.backprop import grad
from tinyseq.graph import identity, recorded, recording
from tinyseq.nested import leaves, mapped
from tinyseq.op import primitive
from tinyseq.tensor import Tensor


@checked
def checkpoint(fn: Annotated[Callable[..., Any], no_class], *inputs: Any) -> Any:
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
    tensors = _tensors(inputs)
    random_state = random.get_state()

    def run(again: Sequence[Tensor]) -> list[Tensor]:
        return _tensors(fn(*_like(inputs, iter(again))))

    # Which layers run compiled inside; a checkpoint around this one notes it, too.
    choices = [] if recording.choices is None else recording.choices
    before = len(choices)
    with graph.scope("checkpoint"):
        copies = [ops.cut(x) for x in tensors]
        with _set("choices", choices):
            result = fn(*_like(inputs, iter(copies)))
        outs = _tensors(result)
        if not outs:
            raise TypeError("checkpoint: the function gives no tensors for these inputs.")
        parameters = _parameters(outs, copies)
    packed = _checkpointed(
        *tensors,
        *parameters,
        n=len(tensors),
        run=run,
        value=np.concatenate([y._data.reshape(-1) for y in outs]),
        random_state=random_state,
        choices=choices[before:],
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
        with recorded(True), _set("chosen", iter(choices)):  # compiled, or not, as it was
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
def _set(name: str, value: Any) -> Iterator[None]:
    """Another value of the recording's, inside."""
    outer = getattr(recording, name)
    setattr(recording, name, value)
    try:
        yield
    finally:
        setattr(recording, name, outer)


def _parameters(outs: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The parameters that went into the outputs besides the inputs."""
    path = recording.scope
    given = {identity(x) for x in inputs}
    found = []
    for x in graph.topological(*outs):
        if x.node is None:
            if x.requires_grad and identity(x) not in given:
                found.append(x)
        elif x.node.scope[: len(path)] != path:
            raise errors.GraphError(
                f"checkpoint: the function uses a recorded tensor of shape "
                f"{errors.describe(x.shape)} that is not among its inputs, and which could not be "
                "reached when it is computed again. Pass it as an input."
            )
    return found


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in nested tuples, in order."""
    found = list(leaves(value))
    for x in found:
        if not isinstance(x, Tensor):
            raise TypeError(
                f"checkpoint: inputs and results are tensors, nested tuples of them, or None, not "
                f"{type(x).__name__}. Bind other arguments with functools.partial."
            )
    return found


def _like(structure: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nested tuples, filled with other tensors."""
    return mapped(lambda _: next(tensors), structure)
