"""What is composed from ops: softmax, the losses, one-hot vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq import errors, op, ops
from tinyseq.tensor import FLOATS, Tensor


def softmax(x: op.TensorLike, axis: int = -1) -> Tensor:
    """yᵢ = e^xᵢ / Σⱼ e^xⱼ along an axis, without overflow. Same shape and dtype as x."""
    return ops.exp(log_softmax(x, axis))


def log_softmax(x: op.TensorLike, axis: int = -1) -> Tensor:
    """yᵢ = xᵢ − ln Σⱼ e^xⱼ along an axis, without overflow. Same shape and dtype as x."""
    x = op.as_tensor(x)
    return x - ops.logsumexp(x, axis, keepdims=True)


def one_hot(indices: op.TensorLike, size: int, dtype: npt.DTypeLike = np.float32) -> Tensor:
    """Vectors of zeros with a one at each index: shape (...) of whole numbers gives (..., size).

    Raises `IndexError` for an index outside of 0 … size − 1.
    """
    index = as_indices(indices, size, "one_hot", "size")
    return Tensor.wrap(np.eye(size, dtype=dtype)[index])


def cross_entropy(logits: Tensor, targets: op.TensorLike, reduction: str = "mean") -> Tensor:
    """−ln softmax(logits)[target]: the softmax loss of a classifier or a language model, in nats.

    logits (..., V) float, targets (...) whole numbers from 0 to V − 1. ``reduction``: ``"mean"``
    over all targets, ``"sum"`` (the summed per-step loss of sequence models, L = Σₜ L⟨t⟩), or
    ``"none"``: (...). Computed from logits by log-sum-exp, so that it neither overflows nor takes
    the logarithm of 0.

    Raises `ShapeError` when the shapes do not fit, `IndexError` for a class that does not exist.
    """
    if logits.ndim == 0:
        raise errors.ShapeError(
            "cross_entropy: logits need a last axis of V classes, got a number."
        )
    if logits.dtype not in FLOATS:
        raise errors.DtypeError(
            f"cross_entropy: logits must be float32 or float64, not {logits.dtype}. "
            "Are logits and targets in this order?"
        )
    *batch, V = logits.shape
    index = as_indices(targets, V, "cross_entropy", "V")
    if index.shape != tuple(batch):
        raise errors.ShapeError(
            f"cross_entropy: logits {errors.describe(logits.shape)} need targets of shape "
            f"{errors.describe(batch)}, got {errors.describe(index.shape)}: "
            "one class a row, without the last axis V."
        )
    n = index.size
    if n == 0 and reduction == "mean":
        raise errors.ShapeError(
            "cross_entropy: the mean over no targets is undefined. Give at least one."
        )
    flat = ops.reshape(logits, n, V)
    loss = ops.logsumexp(flat, -1) - flat[np.arange(n), index.reshape(n)]
    return reduced(ops.reshape(loss, *batch) if reduction == "none" else loss, reduction)


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """A loss an element, reduced as a loss's ``reduction`` argument says."""
    if reduction == "mean":
        return ops.mean(loss)
    if reduction == "sum":
        return ops.sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(f"reduction={reduction!r} is unknown. Use 'mean', 'sum' or 'none'.")


def as_indices(x: op.TensorLike, size: int, name: str, letter: str) -> np.ndarray[Any, Any]:
    """Whole numbers from 0 to size − 1 as an array; anything else is named and refused."""
    index = x._data if isinstance(x, Tensor) else np.asarray(x)
    if index.dtype.kind not in "iu":
        raise errors.DtypeError(
            f"{name}: indices must be whole numbers, not {index.dtype}. Convert them with "
            ".astype(int)."
        )
    if index.size and (index.min() < 0 or index.max() >= size):
        wrong = index[(index < 0) | (index >= size)].ravel()[0]
        raise IndexError(f"{name}: index {wrong} is outside of 0 … {size - 1} ({letter}={size}).")
    return index
