"""Derivatives composed from `grad`: Jacobians and Hessian-vector products."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tinyseq import errors, ops
from tinyseq.arguments import checked, shown
from tinyseq.backprop import grad
from tinyseq.tensor import Tensor


@checked
def jacobian(fn: Callable[[Tensor], Tensor], x: Tensor, create_graph: bool = False) -> Tensor:
    """J[i, j] = ∂yᵢ / ∂xⱼ of y = fn(x), in the shape of y followed by that of x.

    One backward pass an element of y. ``x``: float, in any shape; it need not require a gradient.
    ``create_graph=True`` records J, so that ``jacobian(lambda x: jacobian(f, x, True), x)`` is
    the Hessian. Raises `GraphError` when fn returns something that was not recorded.
    """
    x = _leaf(x)
    y = _tensor("jacobian", fn(x))
    rows = []
    for i in range(y.size):
        unit = np.zeros(y.size, y.dtype)
        unit[i] = 1
        seed = Tensor(unit.reshape(y.shape))
        rows.append(grad(y, x, seed, create_graph=create_graph, retain_graph=True))
    if not rows:
        return Tensor(np.zeros((*y.shape, *x.shape), x.dtype))
    return ops.reshape(ops.stack(rows), (*y.shape, *x.shape))


@checked
def hvp(
    fn: Callable[..., Tensor],
    xs: Tensor | Iterable[Tensor],
    vs: Tensor | Iterable[Tensor],
    create_graph: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """H v: the Hessian of a scalar fn(*xs) times a vector, without the Hessian.

    By differentiating ⟨∇f, v⟩ (Pearlmutter, 1994): two backward passes. ``vs`` has the shapes of
    ``xs``, and so has the result; one Tensor in, one Tensor out. Raises `ShapeError` when they
    differ or fn does not give one element.
    """
    single = isinstance(xs, Tensor)
    points = [_leaf(x) for x in ([xs] if isinstance(xs, Tensor) else xs)]
    vectors = [vs] if isinstance(vs, Tensor) else list(vs)
    if not points:
        raise ValueError("hvp: there are no xs. A generator can be read only once: pass a list.")
    shapes = [x.shape for x in points]
    if [v.shape for v in vectors] != shapes:
        raise errors.ShapeError(
            f"hvp: vs of shapes {[v.shape for v in vectors]} must be like xs of shapes {shapes}."
        )
    gradients = grad(_tensor("hvp", fn(*points)), points, create_graph=True)
    inner = Tensor(np.zeros((), points[0].dtype))
    for g, v in zip(gradients, vectors, strict=True):
        inner = inner + ops.sum(g * v.detach())
    if not inner.requires_grad:  # linear: nothing of the gradient depends on xs
        out = tuple(Tensor(np.zeros(x.shape, x.dtype)) for x in points)
    else:
        out = grad(inner, points, create_graph=create_graph)
    return out[0] if single else out


def _tensor(name: str, y: Any) -> Tensor:
    if not isinstance(y, Tensor):
        raise TypeError(f"{name}: fn must return a Tensor, not {shown(y)}.")
    return y


def _leaf(x: Tensor) -> Tensor:
    """x itself if gradients flow to it, else a copy to which they do."""
    return x if x.requires_grad else Tensor(x, requires_grad=True)
