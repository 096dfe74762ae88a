"""What losses and layers ask of their arguments: sizes and dtypes at once, and values by the op
`check`, which a recorded training step does anew with each call's arrays.
"""

from __future__ import annotations

import numpy as np

from tinyseq import errors, op, ops
from tinyseq.primitives import check
from tinyseq.tensor import FLOATS, Tensor, plain_array

IGNORED = -100


# -- whole numbers --------------------------------------------------------------------------------


def as_indices(x: op.TensorLike, size: int, name: str, letter: str, least: int = 0) -> Tensor:
    """Whole numbers from ``least`` to size − 1; anything else is named and refused."""
    index = x if isinstance(x, Tensor) else plain_array(x)
    if index.dtype.kind not in "iu":
        raise errors.DtypeError(
            f"{name}: indices must be whole numbers, not {index.dtype}. Convert them with "
            ".astype(int)."
        )
    index = Tensor(index)  # a copy: the caller may write into it before the backward pass
    check(index, rule=_within, least=least, most=size - 1, name=name, letter=letter)
    return index


def _within(n: np.ndarray, least: int, most: int, name: str, letter: str = "") -> None:
    """Of lengths or, with the letter of their size, of indices, which may be −1 for some."""
    if _all_within(n, least, most):
        return
    wrong = n[(n < least) | (n > most)].ravel()[0]
    if not letter:
        raise ValueError(f"{name}: {wrong} is outside of {least} … {most}.")
    raise IndexError(f"{name}: index {wrong} is outside of 0 … {most} ({letter}={most + 1}).")


def _all_within(n: np.ndarray, least: int, most: int) -> bool:
    above = n - least if least else n  # in one pass: without a sign, what lies below 0 is large
    return n.size == 0 or bool(above.view(np.uint64).max() <= most - least)


def as_classes(
    name: str, argument: str, scores: Tensor, targets: op.TensorLike, ignored: int, mean: bool
) -> Tensor:
    """One class a row of the scores (..., V): (...), or the one that is ignored, which not all are
    where a mean is wanted.
    """
    *batch, V = scores.shape
    classes = op.as_tensor(targets, None, name, "targets")
    if classes.shape != tuple(batch):
        raise errors.ShapeError(
            f"{name}: {argument} {errors.describe(scores.shape)} need targets of shape "
            f"{errors.describe(batch)}, got {errors.describe(classes.shape)}: "
            "one class a row, without the last axis V."
        )
    if classes is targets:  # a copy: the caller may write into it before the backward pass
        classes = Tensor(classes)
    if classes.dtype != np.int64:
        as_indices(classes, V, f"{name}: targets", "V")  # which says so
    check(classes, rule=_within_or_ignored, most=V - 1, name=name, ignored=ignored, mean=mean)
    return classes


def _within_or_ignored(classes: np.ndarray, most: int, name: str, ignored: int, mean: bool) -> None:
    if 0 <= ignored <= most or not _all_within(classes, 0, most):
        classes = classes[classes != ignored]
        _within(classes, 0, most, f"{name}: targets", "V")
    if mean:
        refuse_nothing(classes.size, name)


def refuse_nothing(weight: np.ndarray | int, name: str) -> None:
    """A rule, which raises when the targets weigh nothing together."""
    if weight == 0:
        raise ValueError(
            f"{name}: all targets are ignored or weigh nothing, and their mean is undefined. "
            'Skip this batch, or use reduction="sum".'
        )


def as_lengths(name: str, x: op.TensorLike, B: int, most: int) -> Tensor:
    """B whole numbers from 0 to ``most``; anything else is named and refused."""
    n = x if isinstance(x, Tensor) else plain_array(x)
    if B == 0 and n.shape == (0,):  # an empty list, which NumPy takes for floats
        n = n.astype(np.int64)
    if n.shape != (B,) or n.dtype.kind not in "iu":
        raise errors.ShapeError(
            f"{name} must be B={B} whole numbers, one a sequence, got {n.dtype} of shape "
            f"{errors.describe(n.shape)}."
        )
    n = op.as_tensor(n)
    check(n, rule=_within, least=0, most=most, name=name)
    return n


# -- numbers --------------------------------------------------------------------------------------


def refuse_whole(name: str, argument: str, x: Tensor, other: str = "targets") -> None:
    """Raise unless x holds floats."""
    if x.dtype not in FLOATS:
        raise errors.DtypeError(
            f"{name}: {argument} must be float32 or float64, not {x.dtype}. "
            f"Are {argument} and {other} in this order?"
        )


def as_scores(
    name: str, argument: str, x: op.TensorLike, weight: op.TensorLike | None
) -> tuple[Tensor, Tensor | None]:
    """Scores with a last axis of V classes, and the weights of the classes, (V)."""
    x = op.as_tensor(x, None, name, argument)
    if x.ndim == 0:
        raise errors.ShapeError(f"{name}: {argument} need a last axis of V classes, got a number.")
    if x.shape[-1] == 0:
        raise errors.ShapeError(
            f"{name}: {argument} {errors.describe(x.shape)} have no classes: their last axis is "
            "empty. Give it at least one."
        )
    refuse_whole(name, argument, x)
    if weight is None:
        return x, None
    w = _not_negative(name, "weight", weight, x)
    if w.shape != x.shape[-1:]:
        raise errors.ShapeError(
            f"{name}: weight of shape {errors.describe(w.shape)} does not fit {argument} "
            f"of V={x.shape[-1]} classes. Give one number a class."
        )
    return x, w


def as_weights(name: str, argument: str, weights: op.TensorLike, like: Tensor) -> Tensor:
    """Numbers that are not negative, which broadcast with what they weigh."""
    w = _not_negative(name, argument, weights, like)
    try:
        fits = np.broadcast_shapes(w.shape, like.shape) == like.shape
    except ValueError:
        fits = False
    if not fits:
        raise errors.ShapeError(
            f"{name}: {argument} of shape {errors.describe(w.shape)} does not broadcast to what "
            f"it weighs, {errors.describe(like.shape)}."
        )
    return w


def _not_negative(name: str, argument: str, weights: op.TensorLike, like: Tensor) -> Tensor:
    given = op.as_tensor(weights, like.dtype, name, argument)
    if given.requires_grad:
        raise errors.GraphError(
            f"{name}: {argument} requires a gradient, and none goes to it. Pass its detach()."
        )
    w = ops.astype(given, like.dtype)
    check(w, rule=_refuse_negative, name=name, argument=argument)
    return w


def _refuse_negative(w: np.ndarray, name: str, argument: str) -> None:
    if not (w >= 0).all():
        raise ValueError(f"{name}: {argument} must not be negative or NaN.")


def as_twins(
    name: str, argument: str, x: op.TensorLike, other: str, y: op.TensorLike
) -> tuple[Tensor, Tensor]:
    """Floats x, and y of the same shape and dtype."""
    x = op.as_tensor(x, None, name, argument)
    refuse_whole(name, argument, x, other)
    y = op.as_tensor(y, x.dtype, name, other)
    if y.shape != x.shape:
        raise errors.ShapeError(
            f"{name}: {argument} {errors.describe(x.shape)} and {other} "
            f"{errors.describe(y.shape)} must have the same shape. Reshape one of them."
        )
    return x, ops.astype(y, x.dtype)


# -- probabilities and their logarithms -----------------------------------------------------------


def as_probabilities(logits: Tensor, targets: op.TensorLike) -> Tensor:
    """One probability for every class of the logits, 1 in sum."""
    p = ops.astype(op.as_tensor(targets, None, "cross_entropy", "targets"), logits.dtype)
    if p.shape != logits.shape:
        raise errors.ShapeError(
            f"cross_entropy: targets of shape {errors.describe(p.shape)}, probabilities, do not "
            f"fit logits {errors.describe(logits.shape)}. Give one for every class, or classes as "
            "whole numbers."
        )
    check(p, rule=_sum_to_one)
    return p


def _sum_to_one(p: np.ndarray) -> None:
    # 0.001: room for what was rounded, or moved a little by finite differences
    if not ((p >= -1e-3).all() and (np.abs(p.sum(-1) - 1) <= 1e-3).all()):
        raise ValueError(
            "cross_entropy: float targets must be probabilities: at least 0, and 1 in sum over the "
            "last axis. For classes pass whole numbers."
        )


def refuse_improbable(y: np.ndarray, name: str, argument: str = "targets") -> None:
    """A rule, which raises unless all are from 0 to 1."""
    if y.size and not (y.min() >= 0 and y.max() <= 1):
        raise ValueError(f"{name}: {argument} must be probabilities, from 0 to 1.")


def refuse_logits(log_probs: np.ndarray, name: str, argument: str = "log_probs") -> None:
    """A rule, which raises for what lies above 0, by more than was rounded: ln p does not."""
    if (log_probs > 1e-3).any():
        raise ValueError(
            f"{name}: {argument} above 0 are no logarithms of probabilities. "
            "Pass logits through log_softmax first."
        )
