"""`unroll`: a recurrence step by step, the specification of everything that is faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from tinyseq import errors, graph, op, ops
from tinyseq.arguments import Count, checked, no_class, shown
from tinyseq.nested import leaves, mapped
from tinyseq.nn.cells import State, dtype_for
from tinyseq.nn.module import Module
from tinyseq.ops.axes import for_rows_of
from tinyseq.primitives import draw
from tinyseq.tensor import Tensor, plain_array


@checked
def unroll(
    cell: Annotated[Callable[..., State], no_class],
    x: Tensor,
    state: Any,  # a `State`: the cell looks at it
    reverse: bool = False,
    running: Tensor | None = None,
    noise: Any = None,
    first: Count = 0,
) -> tuple[Tensor, State]:
    """The recurrence, step by step: the specification of everything that is faster.

    x (T, B, D) → outputs (T, B, H) and the last state. ``reverse`` runs from the last step to the
    first. ``running`` (T, B, 1) of booleans says which sequences have a step t; the state of the
    others stands still, and their output there is 0. ``noise`` is what the cell drew for the
    sequence: step t gets its row t. ``first`` is the number of the first step in what is recorded,
    for a part of a sequence.
    """
    T = x.shape[0]
    for rows in leaves((running, noise)):
        if getattr(rows, "shape", ())[:1] != (T,):
            raise errors.ShapeError(
                f"unroll: running and noise need one row for each of the T={T} steps of x, got "
                f"{shown(rows)}."
            )
    state = state_of(cell, x, 1, state)
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
                on = running[t]
                state = tuple(
                    ops.where(for_rows_of(on, n), n, s) for n, s in zip(new, state, strict=True)
                )
                outputs[t] = ops.where(for_rows_of(on, new[0]), new[0], 0.0)
    return ops.stack(outputs), state


def _check_state(cell: Any, new: Any, old: State) -> None:
    if not isinstance(new, tuple) or len(new) != len(old):
        got = f"a tuple of {len(new)}" if isinstance(new, tuple) else f"a {type(new).__name__}"
        raise TypeError(
            f"{graph.located(type(cell).__name__)}: a cell returns its new state, a tuple of "
            f"as many tensors as it was given ({len(old)}), the output first, got {got}. "
            "A state of one tensor is written (h,)."
        )


def noise_at(noise: Any, t: int | slice) -> Any:
    """Row t, or some rows, of what a cell drew for a sequence: (T, …) in nested tuples, or None."""
    return mapped(lambda part: part[t], noise)


def noise_of(cell: Any, x: op.TensorLike, state: Any, one: bool = False) -> Any:
    """What a cell draws for a sequence x (T, B, D): Tensors, in nested tuples, or None. For ``one``
    step x (B, D), the only row of what it draws for that.
    """
    if not isinstance(state, tuple | list):
        return cell.noise(x, state)  # which says so
    inputs = [op.as_tensor(part) for part in (x, *state)]
    drawing = _Drawing(cell, one)
    parts = [draw(*inputs, by=drawing, part=0)]
    parts += [draw(*inputs, by=drawing, part=i) for i in range(1, len(drawing.arrays))]
    drawn = iter(parts)
    return mapped(lambda _: next(drawn), drawing.made)


class _Drawing:
    """What a cell draws for one sequence, array by array: asked for the first, it draws all."""

    def __init__(self, cell: Any, one: bool) -> None:
        self.cell, self.one = cell, one
        self.made: Any = None
        self.arrays: list[np.ndarray] = []

    def __call__(self, x: np.ndarray, *state: np.ndarray, part: int) -> np.ndarray:
        if part == 0:
            x = x[None] if self.one else x
            with graph.taped(None):  # the whole of it is one op
                self.made = self.cell.noise(Tensor.wrap(x), tuple(map(Tensor.wrap, state)))
            self.arrays = []
            mapped(lambda a: self.arrays.append(_as_array(a)), self.made)
        if not self.arrays:
            return np.zeros(0)
        return self.arrays[part][0] if self.one else self.arrays[part]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Drawing) and (other.cell, other.one) == (self.cell, self.one)

    __hash__ = None  # type: ignore[assignment]


def _as_array(drawn: Any) -> np.ndarray:
    return drawn._data if isinstance(drawn, Tensor) else plain_array(drawn)


def state_of(cell: Any, x: Tensor, axis: int, state: Any) -> Any:
    """The state as a cell takes it: a tuple of Tensors; of `None`, what its sequences start from;
    of a single tensor, the tuple of it. ``axis`` is that of x for the batch.
    """
    if state is None:
        return start_of(cell, x.shape[axis], dtype_for(cell, x))
    if isinstance(state, Tensor | np.ndarray):
        state = (state,)
    if isinstance(state, tuple | list):  # of arrays, too
        who = type(cell).__name__
        return tuple(
            op.as_tensor(s, None, who, "state") if isinstance(s, np.ndarray) else s for s in state
        )
    return state


def start_of(cell: Module, batch_size: int, dtype: npt.DTypeLike = np.float32) -> State:
    """The state that a cell says its sequences start from."""
    if not hasattr(cell, "initial_state"):
        raise ValueError(
            f"{type(cell).__name__} does not say how its state starts. Pass state=..., or give it "
            "initial_state(batch_size, dtype)."
        )
    return cell.initial_state(batch_size, dtype)  # type: ignore[no-any-return]
