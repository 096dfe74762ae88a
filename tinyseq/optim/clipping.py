"""Gradient clipping: by the norm of all gradients together, of each by itself, or by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated

import numpy as np

from tinyseq import errors, ops
from tinyseq.arguments import Within, checked
from tinyseq.kernels import load
from tinyseq.optim.optimizers import fused, tensors
from tinyseq.tensor import Tensor

# An infinite one clips nothing: the norm alone is asked for.
Limit = Annotated[float, Within(lambda x: x >= 0, "at least 0")]
Order = Annotated[float, Within(lambda p: p > 0, "above 0")]


@checked
def clip_grad_norm(params: Iterable[Tensor], max_norm: Limit, norm_type: Order = 2.0) -> float:
    """g ← g · min(1, max_norm / ‖g‖), with ‖g‖ over all gradients together; returns ‖g‖ before.

    ``norm_type`` p: ‖g‖ = (Σ |g|ᵖ)^(1/p), for inf the largest |g|.

    Raises `ValueError` for no parameters (a generator that was read before has none left), for one
    given twice, and when the norm is not finite: clipping would only spread the NaN. Pascanu et
    al., 2013.
    """
    params = [p for p in tensors("clip_grad_norm", params) if p.grad is not None]
    gradients = [p.grad for p in params if p.grad is not None]
    norm = math.inf
    if norm_type == 2:
        norm = math.sqrt(math.fsum(_sum_of_squares(g._data) for g in gradients))
    if not math.isfinite(norm):  # the squares overflow long before the gradients do
        norm = _scaled_norm([g._data for g in gradients], norm_type)
    if not math.isfinite(norm):
        raise ValueError(f"clip_grad_norm: the norm of the gradients is {norm}{_why(params)}")
    if norm > max_norm:
        for p, g in zip(params, gradients, strict=True):
            if g.node is not None:  # as a further op of the recording
                p.grad = g * (max_norm / norm)
            else:
                np.multiply(g._data, max_norm / norm, out=g._data)
                g.changed()
    return norm


@checked
def clip_grad_norm_each(params: Iterable[Tensor], max_norm: Limit) -> list[float]:
    """g ← g · min(1, max_norm / ‖g‖) for each gradient by itself; returns each ‖g‖ before.

    One exploding gradient leaves the others as they are, but the direction of them all changes. As
    TensorFlow's ``clip_by_norm``, of which the notes speak. Raises as `clip_grad_norm`, with all
    gradients as they were.
    """
    params = [p for p in tensors("clip_grad_norm_each", params) if p.grad is not None]
    if params:
        clip_grad_norm(params, math.inf)  # which refuses what is not finite
    return [clip_grad_norm([p], max_norm) for p in params]


def _scaled_norm(gradients: list[np.ndarray], p: float) -> float:
    """Their p-norm, by way of their ratios to the largest, whose powers do not overflow."""
    largest = float(np.max([np.max(np.abs(g), initial=0) for g in gradients], initial=0))
    if p == math.inf or largest == 0 or not math.isfinite(largest):
        return largest
    ratios = (np.abs(g.astype(np.float64)) / largest for g in gradients)
    return float(largest * math.fsum(float(np.sum(r**p)) for r in ratios) ** (1 / p))


def _sum_of_squares(g: np.ndarray) -> float:
    if fused(g):
        return load.kernels.updates.sum_of_squares(g)  # type: ignore[no-any-return]
    return float(np.vdot(g, g))


@checked
def clip_grad_value(params: Iterable[Tensor], max_value: Limit) -> None:
    """g ← min(max(g, −max_value), max_value), element by element.

    Raises `ValueError`, with all gradients as they were, for no parameters, for one given twice,
    and when a gradient holds a NaN.
    """
    max_value = float(max_value)
    params = [p for p in tensors("clip_grad_value", params) if p.grad is not None]
    gradients = [p.grad for p in params if p.grad is not None]
    if any(np.isnan(g._data).any() for g in gradients):
        raise ValueError(f"clip_grad_value: a gradient is nan{_why(params)}")
    for p in params:
        _rewrite(p, lambda g: ops.clip(g, -max_value, max_value))


def _why(params: Iterable[Tensor]) -> str:
    """What is not finite, parameters before gradients, and what to do about it."""
    named = [(f"the parameter {p.name}" if p.name else "a parameter", p) for p in params]
    if wrong := errors.spoiled((name, p._data) for name, p in named):
        return (
            f": {wrong}. If it was loaded or set so, restore it; if training made it, lower the "
            "learning rate."
        )
    gradients = (
        (f"the gradient of {name}", p.grad._data) for name, p in named if p.grad is not None
    )
    return (
        f": {errors.spoiled(gradients)}. Inside ts.detect_anomaly() the forward and backward pass "
        "name the op that overflows, or the input that holds NaN or Inf; if the loss grew before, "
        "lower the learning rate."
    )


def _rewrite(p: Tensor, rule: Callable[[Tensor], Tensor]) -> None:
    """Put rule(p.grad) in place of p.grad; of a gradient that is recorded, as a further op."""
    g = p.grad
    assert g is not None
    if g.node is not None:
        p.grad = rule(g)
    else:
        g._data[...] = rule(g)._data
        g.changed()
