"""Gradient clipping: by the norm of all gradients together, or element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from tinyseq import ops
from tinyseq.kernels import load
from tinyseq.optim.optimizers import fused, tensors
from tinyseq.tensor import Tensor


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> float:
    """g ← g · min(1, max_norm / ‖g‖), with ‖g‖ over all gradients together; returns ‖g‖ before.

    Raises `ValueError` for no parameters (a generator that was read before has none left), for one
    given twice, and when the norm is not finite: clipping would only spread the NaN. Pascanu et
    al., 2013.
    """
    _limit("clip_grad_norm", "max_norm", max_norm)
    params = [p for p in tensors("clip_grad_norm", params) if p.grad is not None]
    gradients = [p.grad for p in params if p.grad is not None]
    norm = math.sqrt(math.fsum(_sum_of_squares(g._data) for g in gradients))
    if not math.isfinite(norm):  # the squares overflow long before the gradients do
        wide = [g._data.astype(np.float64) for g in gradients]
        norm = math.hypot(*(float(np.linalg.norm(g)) for g in wide))
    if not math.isfinite(norm):
        raise ValueError(
            f"clip_grad_norm: the norm of the gradients is {norm}. Lower the learning rate, or "
            "look for the op that overflowed."
        )
    if norm > max_norm:
        for p, g in zip(params, gradients, strict=True):
            if g.node is not None:  # as a further op of the recording
                p.grad = g * (max_norm / norm)
            else:
                np.multiply(g._data, max_norm / norm, out=g._data)
                g.changed()
    return norm


def _sum_of_squares(g: np.ndarray) -> float:
    if fused(g):
        return load.kernels.updates.sum_of_squares(g)  # type: ignore[no-any-return]
    return float(np.vdot(g, g))


def clip_grad_value(params: Iterable[Tensor], max_value: float) -> None:
    """g ← min(max(g, −max_value), max_value), element by element.

    Raises `ValueError`, with all gradients as they were, for no parameters, for one given twice,
    and when a gradient holds a NaN.
    """
    _limit("clip_grad_value", "max_value", max_value)
    params = [p for p in tensors("clip_grad_value", params) if p.grad is not None]
    gradients = [p.grad for p in params if p.grad is not None]
    if any(np.isnan(g._data).any() for g in gradients):
        raise ValueError(
            "clip_grad_value: a gradient is nan. Lower the learning rate, or look for the op that "
            "overflowed."
        )
    for p in params:
        _rewrite(p, lambda g: ops.clip(g, -max_value, max_value))


def _rewrite(p: Tensor, rule: Callable[[Tensor], Tensor]) -> None:
    """Put rule(p.grad) in place of p.grad; of a gradient that is recorded, as a further op."""
    g = p.grad
    assert g is not None
    if g.node is not None:
        p.grad = rule(g)
    else:
        g._data[...] = rule(g)._data
        g.changed()


def _limit(name: str, argument: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name}: {argument}={value} must be at least 0.")
