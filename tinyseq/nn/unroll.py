"""`unroll`: a recurrence step by step, the specification of everything that is faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq import graph, ops
from tinyseq.nn.cells import State
from tinyseq.nn.module import Module
from tinyseq.tensor import Tensor


def unroll(
    cell: Callable[..., State],
    x: Tensor,
    state: State,
    reverse: bool = False,
    running: np.ndarray | None = None,
    noise: Any = None,
    first: int = 0,
) -> tuple[Tensor, State]:
    """The recurrence, step by step: the specification of everything that is faster.

    x (T, B, D) → outputs (T, B, H) and the last state. ``reverse`` runs from the last step to the
    first. ``running`` (T, B, 1) of booleans says which sequences have a step t; the state of the
    others stands still, and their output there is 0. ``noise`` is what the cell drew for the
    sequence: step t gets its row t. ``first`` is the number of the first step in what is recorded,
    for a part of a sequence.
    """
    T = x.shape[0]
    if running is not None:  # whatever lies behind an end, NaN too, is never read
        x = ops.where(running, x, 0.0)
    outputs: list[Any] = [None] * T
    for t in reversed(range(T)) if reverse else range(T):
        with graph.scope(f"t={first + t}"):
            extra = {} if noise is None else {"noise": noise_at(noise, t)}
            new = cell(x[t], state, **extra)
            _check_state(cell, new, state)
            if running is None:
                state, outputs[t] = new, new[0]
            else:
                on = Tensor.wrap(noise_at(running, t))
                state = tuple(ops.where(on, n, s) for n, s in zip(new, state, strict=True))
                outputs[t] = ops.where(on, new[0], 0.0)
    return ops.stack(outputs), state


def _check_state(cell: Any, new: Any, old: State) -> None:
    if not isinstance(new, tuple) or len(new) != len(old):
        got = f"a tuple of {len(new)}" if isinstance(new, tuple) else f"a {type(new).__name__}"
        raise TypeError(
            f"{graph.located(type(cell).__name__)}: a cell returns its new state, a tuple of "
            f"as many tensors as it was given ({len(old)}), the output first, got {got}. "
            "A state of one tensor is written (h,)."
        )


def noise_at(noise: Any, t: int) -> Any:
    """Row t of what a cell drew for a whole sequence: arrays (T, …), in nested tuples, or None."""
    if noise is None:
        return None
    if isinstance(noise, tuple):
        return tuple(noise_at(part, t) for part in noise)
    return graph.redone(lambda noise: noise[t], noise)


def noise_of(cell: Any, x: Tensor, state: State) -> Any:
    """What a cell draws for a sequence x (T, B, D): arrays, in nested tuples, or None."""
    if not isinstance(state, tuple) or not all(isinstance(s, Tensor) for s in state):
        return cell.noise(x, state)  # which says so

    def drawn(*arrays: np.ndarray) -> Any:
        again, *states = map(Tensor.wrap, arrays)
        return _as_arrays(cell.noise(again, tuple(states)))

    return graph.redone(drawn, x._data, *(s._data for s in state), draws=True)


def _as_arrays(noise: Any) -> Any:
    if isinstance(noise, tuple):
        return tuple(map(_as_arrays, noise))
    if noise is None or isinstance(noise, np.ndarray):
        return noise
    return noise._data if isinstance(noise, Tensor) else np.asarray(noise)


def start_of(cell: Module, batch_size: int, dtype: npt.DTypeLike = np.float32) -> State:
    """The state that a cell says its sequences start from."""
    if not hasattr(cell, "initial_state"):
        raise ValueError(
            f"{type(cell).__name__} does not say how its state starts. Pass state=..., or give it "
            "initial_state(batch_size, dtype)."
        )
    return cell.initial_state(batch_size, dtype)  # type: ignore[no-any-return]
