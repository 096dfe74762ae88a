"""Is the gradient right? Finite differences against `grad`, element by element, orders 1 and 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import numpy as np

from tinyseq import errors
from tinyseq.arguments import Count, NotNegative, Within, checked, shown
from tinyseq.backprop import grad
from tinyseq.tensor import Tensor


class GradcheckError(AssertionError):
    """A gradient that disagrees with finite differences."""


@checked
def gradcheck(
    fn: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Tensor | Iterable[Tensor],
    order: int = 1,
    step: Annotated[float, Within(lambda h: 0 < h <= 1, "above 0 and at most 1")] = 1e-4,
    rtol: NotNegative = 1e-5,
    atol: NotNegative = 1e-7,
    seed: Count = 0,
) -> bool:
    """True when ``grad`` agrees with finite differences for ``fn(*inputs)``, else `GradcheckError`.

    The outputs, weighted with random numbers drawn from ``seed``, are summed to one number s; each
    ∂s/∂xᵢ is compared with the five-point difference (s(xᵢ−2h) − 8 s(xᵢ−h) + 8 s(xᵢ+h) − s(xᵢ+2h))
    / 12h, whose error falls with h⁴. ``order=2`` does the same for the gradient of s, so that it
    checks ∂²s. Inputs: float64 Tensors that require gradients; others stay fixed. ``fn`` must be
    smooth within 2h of the inputs.

    Raises `GradcheckError` (input, index, both numbers), `DtypeError` for float32 inputs, whose
    rounding would drown the differences, and `GraphError` when no input requires a gradient.
    """
    xs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    moved = [x for x in xs if x.requires_grad]
    if not xs:
        raise ValueError(
            "gradcheck: inputs holds nothing. A generator can be read only once: if it was read "
            "before, make it a list first."
        )
    if not moved:
        raise errors.GraphError(
            "gradcheck: none of inputs requires a gradient. Pass requires_grad=True."
        )
    for x in moved:
        if x.dtype != np.float64:
            raise errors.DtypeError(f"gradcheck: inputs must be float64, not {x.dtype}.")
    if order not in (1, 2):
        raise ValueError(f"gradcheck: order={order} is not offered. Use 1 or 2.")
    rng = np.random.default_rng(seed)
    of_outputs: list[np.ndarray] = []
    of_gradients: list[np.ndarray] = []

    def weighted(outputs: Sequence[Tensor], weights: list[np.ndarray]) -> Tensor:
        """Σ wᵢ·yᵢ with weights that are drawn once and then stay."""
        while len(weights) < len(outputs):
            weights.append(rng.uniform(0.5, 1.5, outputs[len(weights)].shape))
        total = Tensor(np.zeros(()))
        for y, w in zip(outputs, weights, strict=True):
            total = total + (y * Tensor(w)).sum()
        return total

    def value() -> Tensor:
        out = fn(*xs)
        outputs = [out] if isinstance(out, Tensor) else out
        if not (isinstance(outputs, list | tuple) and all(isinstance(y, Tensor) for y in outputs)):
            raise TypeError(
                f"gradcheck: fn must return a Tensor or a list of them, not {shown(out)}."
            )
        return weighted(outputs, of_outputs)

    def first_gradient() -> Tensor:
        return weighted(grad(value(), moved, create_graph=True), of_gradients)

    if order == 1:
        _compare(value, moved, step, rtol, atol, "the gradient")
    else:
        _compare(first_gradient, moved, step, rtol, atol, "the gradient of the gradient")
    return True


def _compare(
    value: Callable[[], Tensor], xs: list[Tensor], step: float, rtol: float, atol: float, what: str
) -> None:
    s = value()
    if s.requires_grad:
        analytic = [g._data for g in grad(s, xs)]
    else:  # constant, or linear at order 2: nothing was recorded, and the gradient is 0
        analytic = [np.zeros(x.shape) for x in xs]
    for n, (x, exact) in enumerate(zip(xs, analytic, strict=True)):
        for index in np.ndindex(x.shape):
            numeric = _five_point(value, x, index, step)
            if not abs(numeric - exact[index]) <= atol + rtol * abs(numeric):
                raise GradcheckError(
                    f"{what} of input {n}{f' ({x.name})' if x.name else ''} of shape "
                    f"{errors.describe(x.shape)} at {list(index)} is {exact[index]:.10g}, finite "
                    f"differences say {numeric:.10g}. Look at the vjp of the ops it goes through."
                )


def _five_point(value: Callable[[], Tensor], x: Tensor, index: tuple[int, ...], h: float) -> float:
    before = x._data
    total = 0.0
    try:
        for shift, weight in ((-2, 1.0), (-1, -8.0), (1, 8.0), (2, -1.0)):
            moved = before.copy()
            moved[index] += shift * h
            x._data = moved
            total += weight * value().item()
    finally:
        x._data = before
    return total / (12 * h)
