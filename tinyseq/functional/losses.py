"""Losses: how wrong a prediction is, as a number to make small.

What users take from `tinyseq.functional`. Classes lie on the last axis, logits (..., V), and losses
are in nats. Each is composed from ops, so that it has gradients of any order, and computed from
logits or logarithms throughout, so that it neither overflows nor takes the logarithm of 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq import errors, graph, op, ops
from tinyseq import primitives as raw
from tinyseq.graph import ever, redone
from tinyseq.tensor import FLOATS, Tensor

IGNORED = -100


def cross_entropy(
    logits: Tensor,
    targets: op.TensorLike,
    reduction: str = "mean",
    *,
    weight: npt.ArrayLike | None = None,
    ignore_index: int = IGNORED,
    label_smoothing: float = 0.0,
) -> Tensor:
    """−Σ_c p_c · ln softmax(logits)_c: the softmax loss of a classifier or a language model.

    logits (..., V) float. ``targets``: classes, whole numbers (...) from 0 to V − 1, where p is 1
    at the class and 0 elsewhere; or probabilities p, floats (..., V), through which gradients flow
    too.

    ``reduction``: ``"mean"`` over all targets, ``"sum"``, or ``"none"``: (...). ``weight`` (V):
    every term counts w_c times; the mean over classes is then Σᵢ lossᵢ / Σᵢ w_yᵢ, that over
    probabilities divides by the number of targets. Targets equal to ``ignore_index`` cost nothing
    and are not counted. ``label_smoothing=ε`` replaces p by (1 − ε)·p + ε/V (Szegedy et al., 2016).
    All as in PyTorch, with the classes on the last axis.

    Raises `ShapeError` when the shapes do not fit, `IndexError` for a class that does not exist,
    `DtypeError` for whole-number logits, `ValueError` for targets that are not probabilities, an
    option out of its range, or a mean over targets that are all ignored.
    """
    logits, w = _scores("cross_entropy", "logits", logits, weight)
    given = targets if isinstance(targets, Tensor) else np.asarray(targets)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing={label_smoothing} must be from 0 to 1.")
    *batch, V = logits.shape
    count = math.prod(batch)
    if given.dtype.kind == "f":
        if ignore_index != IGNORED:
            raise ValueError(
                f"cross_entropy: ignore_index={ignore_index} is a class, and the targets are "
                "probabilities. Leave those rows out of logits and targets instead."
            )
        p = ops.reshape(_probabilities(logits, given), count, V)
        if label_smoothing:
            p = (1 - label_smoothing) * p + label_smoothing / V
        if w is not None:
            p = p * w
        rows = centred(ops.reshape(logits, count, V))
        loss = ops.logsumexp(rows, -1) * ops.sum(p, -1) - ops.sum(p * rows, -1)
    else:
        classes, keep = _classes("cross_entropy", "logits", logits, given, ignore_index)
        plain = keep is None and w is None and not label_smoothing and count > 0
        if plain and reduction in ("mean", "sum"):
            over = float(count) if reduction == "mean" else 1.0
            return raw.softmax_loss(logits, classes=classes, over=over)
        loss = raw.softmax_loss(logits, classes=classes, over=None)
        if w is not None:
            loss = loss * redone(_picked, w, classes)
        if label_smoothing:
            rows = centred(ops.reshape(logits, count, V))
            w_all = np.ones(V, rows.dtype) if w is None else w
            everywhere = ops.logsumexp(rows, -1) * w_all.sum() - rows @ w_all
            loss = (1 - label_smoothing) * loss + label_smoothing / V * everywhere
        loss, weight_sum = _kept(loss, keep, w, classes)
        return _reduced_over("cross_entropy", loss, reduction, batch, weight_sum)
    return _reduced_over("cross_entropy", loss, reduction, batch, count)


def nll_loss(
    log_probs: Tensor,
    targets: op.TensorLike,
    reduction: str = "mean",
    *,
    weight: npt.ArrayLike | None = None,
    ignore_index: int = IGNORED,
) -> Tensor:
    """−log_probs[target]: the negative log-likelihood, for what went through log_softmax.

    log_probs (..., V) float, targets (...) whole numbers from 0 to V − 1. ``reduction``,
    ``weight``, ``ignore_index`` and errors as for `cross_entropy`, which does both steps in one;
    `ValueError` for log_probs above 0 as well.
    """
    log_probs, w = _scores("nll_loss", "log_probs", log_probs, weight)
    refuse_logits("nll_loss", log_probs)
    *batch, V = log_probs.shape
    classes, keep = _classes("nll_loss", "log_probs", log_probs, targets, ignore_index)
    loss = -ops.reshape(log_probs, len(classes), V)[np.arange(len(classes)), classes]
    if w is not None:
        loss = loss * redone(_picked, w, classes)
    loss, count = _kept(loss, keep, w, classes)
    return _reduced_over("nll_loss", loss, reduction, batch, count)


def binary_cross_entropy_with_logits(
    logits: Tensor,
    targets: op.TensorLike,
    reduction: str = "mean",
    *,
    weight: npt.ArrayLike | None = None,
    pos_weight: npt.ArrayLike | None = None,
) -> Tensor:
    """−w·(p·y·ln σ(x) + (1 − y)·ln(1 − σ(x))): the loss of yes-or-no questions, in nats.

    logits x and targets y, probabilities from 0 to 1, of the same shape (...). ``weight`` w counts
    an element, ``pos_weight`` p its positive part; both broadcast to (...). ``reduction``: "mean"
    over all elements (whatever they weigh), "sum", or "none": (...).

    Raises `ShapeError` when the shapes do not fit, `DtypeError` for whole-number logits, and
    `ValueError` for targets outside of 0 … 1 and for negative weights.
    """
    name = "binary_cross_entropy_with_logits"
    _float(name, "logits", logits)
    y = _twin(name, "logits", logits, targets)

    def refuse(y: np.ndarray) -> None:
        if y.size and not (y.min() >= 0 and y.max() <= 1):
            raise ValueError(f"{name}: targets must be probabilities, from 0 to 1.")

    redone(refuse, y._data)
    # ln σ(x) = −softplus(−x) and ln(1 − σ(x)) = −softplus(x): exact in both tails
    yes = y * ops.softplus(-logits)
    if pos_weight is not None:
        yes = yes * _weights(name, "pos_weight", pos_weight, logits)
    loss = yes + (1 - y) * ops.softplus(logits)
    if weight is not None:
        loss = loss * _weights(name, "weight", weight, logits)
    return reduced(loss, reduction)


def mse_loss(prediction: Tensor, target: op.TensorLike, reduction: str = "mean") -> Tensor:
    """(prediction − target)², of the same shape (...): the squared error.

    ``reduction``: ``"mean"`` over all elements, ``"sum"``, or ``"none"``: (...). Raises
    `ShapeError` when the shapes differ: broadcasting here is nearly always a mistake.
    """
    _float("mse_loss", "prediction", prediction)
    error = prediction - _twin("mse_loss", "prediction", prediction, target)
    return reduced(error * error, reduction)


def sequence_loss(
    losses: Tensor,
    lengths: op.TensorLike | None = None,
    *,
    mask: op.TensorLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """L = Σₜ L⟨t⟩: the losses of the steps of a sequence, summed, padding left out.

    ``losses`` (T, B), or (T, B, ...) whose further axes are summed as well: what any loss gives
    with ``reduction="none"``. ``lengths`` (B): how many steps count, 0 to T, whole numbers; or
    ``mask`` (T, B): which, booleans. Padded steps cost nothing and pass no gradient, whatever
    they hold. ``reduction``: ``"mean"`` over the B sequences, ``"sum"``, or ``"none"``: (B).

        loss = sequence_loss(cross_entropy(logits, targets, "none"), lengths)

    Raises `ShapeError` when the shapes do not fit, `DtypeError` for a mask that is not boolean, and
    `ValueError` for lengths outside of 0 … T or both a mask and lengths.
    """
    losses = op.as_tensor(losses)
    if losses.ndim < 2:
        raise errors.ShapeError(
            f"sequence_loss: losses must be (T, B), got {errors.describe(losses.shape)}. "
            'Ask the loss for every step with reduction="none".'
        )
    T, B = losses.shape[:2]
    if lengths is not None and mask is not None:
        raise ValueError("sequence_loss: lengths and mask say the same thing. Pass one of them.")
    counted = None
    if lengths is not None:
        n = as_lengths("sequence_loss", "lengths", lengths, B, T)
        counted = redone(lambda n: np.arange(T)[:, None] < n, n)
    if mask is not None:
        counted = op.as_tensor(mask)._data
        if counted.dtype != bool:
            raise errors.DtypeError(
                f"sequence_loss: the mask must be boolean, not {counted.dtype}. Compare it: m > 0."
            )
        if counted.shape != (T, B):
            raise errors.ShapeError(
                f"sequence_loss: losses {errors.describe(losses.shape)} need a mask of shape "
                f"{errors.describe((T, B), 'TB')}, got {errors.describe(counted.shape)}."
            )
    if counted is not None:
        further = [1] * (losses.ndim - 2)
        counted = redone(lambda counted: counted.reshape(T, B, *further), counted)
        losses = ops.where(counted, losses, 0.0)
    return reduced(ops.sum(losses, [a for a in range(losses.ndim) if a != 1]), reduction)


# -- what the losses share ------------------------------------------------------------------------


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """A loss an element, reduced as a loss's ``reduction`` argument says."""
    if reduction == "mean":
        return ops.mean(loss)
    if reduction == "sum":
        return ops.sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(f"reduction={reduction!r} is unknown. Use 'mean', 'sum' or 'none'.")


def _reduced_over(
    name: str, loss: Tensor, reduction: str, batch: list[int], count: float | np.ndarray
) -> Tensor:
    """As `reduced`, for a flat loss whose mean divides by ``count``."""
    if reduction == "none":
        return ops.reshape(loss, *batch)
    if reduction != "mean":
        return reduced(loss, reduction)
    if loss.size == 0:
        raise errors.ShapeError(
            f"{name}: the mean over no targets is undefined. Give at least one."
        )
    total = raw.sum(loss, axis=(0,), keepdims=False)
    if not isinstance(count, np.ndarray):
        return total / float(count)

    def weighing(count: np.ndarray) -> np.ndarray:
        if count == 0:
            raise ValueError(
                f"{name}: all targets are ignored or weigh nothing, and their mean is undefined. "
                'Skip this batch, or use reduction="sum".'
            )
        return count

    return total / Tensor.wrap(redone(weighing, count))


def centred(x: Tensor, axis: int = -1) -> Tensor:
    """x − max x along an axis, with the maximum as a constant.

    Softmax does not change when all its inputs move together, nor does any of its derivatives; but
    numbers near 0 are kept finely, and near 10⁴ float32 knows steps of 0.001 only.
    """
    return x - ops.max(x.detach(), axis, keepdims=True)


def as_indices(x: op.TensorLike, size: int, name: str, letter: str) -> np.ndarray[Any, Any]:
    """Whole numbers from 0 to size − 1 as an array; anything else is named and refused."""
    if isinstance(x, Tensor):
        graph.readable_index("an index")
    index = x._data if isinstance(x, Tensor) else np.asarray(x)
    if index.dtype.kind not in "iu":
        raise errors.DtypeError(
            f"{name}: indices must be whole numbers, not {index.dtype}. Convert them with "
            ".astype(int)."
        )
    return redone(lambda index: _checked(index, size, name, letter), index)  # type: ignore[no-any-return]


def _checked(index: np.ndarray, size: int, name: str, letter: str) -> np.ndarray:
    if not _all_within(index, size):
        wrong = index[(index < 0) | (index >= size)].ravel()[0]
        raise IndexError(f"{name}: index {wrong} is outside of 0 … {size - 1} ({letter}={size}).")
    return index


def _all_within(index: np.ndarray, size: int) -> bool:
    """Whether all of these whole numbers are from 0 to size − 1."""
    if index.dtype == np.int64:  # in one pass: negative ones, read without a sign, are large
        return index.size == 0 or bool(index.view(np.uint64).max() < size)
    return index.size == 0 or bool(index.min() >= 0 and index.max() < size)


def as_lengths(name: str, argument: str, x: op.TensorLike, B: int, most: int) -> np.ndarray:
    """B whole numbers from 0 to ``most`` as an array; anything else is named and refused."""
    n = op.as_tensor(x)._data
    if n.shape != (B,) or n.dtype.kind != "i":
        raise errors.ShapeError(
            f"{name}: {argument} must be B={B} whole numbers, one a sequence, got {n.dtype} of "
            f"shape {errors.describe(n.shape)}."
        )

    def within(n: np.ndarray) -> np.ndarray:
        if B and (n.min() < 0 or n.max() > most):
            wrong = n[(n < 0) | (n > most)][0]
            raise ValueError(f"{name}: {argument}: {wrong} is outside of 0 … {most}.")
        return n

    return redone(within, n)  # type: ignore[no-any-return]


def refuse_logits(name: str, log_probs: Tensor) -> None:
    """Logarithms of probabilities are at most 0: what is above (by more than was rounded) is not
    one.
    """

    def refuse(log_probs: np.ndarray) -> None:
        if (log_probs > 1e-3).any():
            raise ValueError(
                f"{name}: log_probs above 0 are no logarithms of probabilities. "
                "Pass logits through log_softmax first."
            )

    redone(refuse, log_probs._data)


def _float(name: str, argument: str, x: Tensor) -> None:
    if x.dtype not in FLOATS:
        raise errors.DtypeError(
            f"{name}: {argument} must be float32 or float64, not {x.dtype}. "
            f"Are {argument} and targets in this order?"
        )


def _scores(
    name: str, argument: str, x: Tensor, weight: npt.ArrayLike | None
) -> tuple[Tensor, np.ndarray | None]:
    """Scores with a last axis of V classes, and the weights of the classes, (V)."""
    x = op.as_tensor(x)
    if x.ndim == 0:
        raise errors.ShapeError(f"{name}: {argument} need a last axis of V classes, got a number.")
    if x.shape[-1] == 0:
        raise errors.ShapeError(
            f"{name}: {argument} {errors.describe(x.shape)} have no classes: their last axis is "
            "empty. Give it at least one."
        )
    _float(name, argument, x)
    if weight is None:
        return x, None
    w = np.asarray(weight, x.dtype)
    if w.shape != x.shape[-1:]:
        raise errors.ShapeError(
            f"{name}: weight of shape {errors.describe(w.shape)} does not fit V={x.shape[-1]} "
            "classes. Give one number a class."
        )
    _not_negative(name, "weight", w)
    return x, w


def _classes(
    name: str, argument: str, scores: Tensor, targets: op.TensorLike, ignore_index: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The classes, flat, with 0 for the ignored ones, and which are kept (`None`: all)."""
    *batch, V = scores.shape
    classes = targets._data if isinstance(targets, Tensor) else np.asarray(targets)
    if classes.shape != tuple(batch):
        raise errors.ShapeError(
            f"{name}: {argument} {errors.describe(scores.shape)} need targets of shape "
            f"{errors.describe(batch)}, got {errors.describe(classes.shape)}: "
            "one class a row, without the last axis V."
        )
    if classes.dtype.kind not in "iu":
        as_indices(classes, V, name, "V")  # which says so
    # A mask costs time: only where there is one
    some_ignored = ever("ignored", bool((classes == ignore_index).any()))

    def known(classes: np.ndarray) -> np.ndarray:  # a copy: the caller may write into the targets
        found: np.ndarray = classes.reshape(-1).astype(np.int64)
        if not 0 <= ignore_index < V and _all_within(found, V):
            return found  # the usual case
        if some_ignored:
            found[found == ignore_index] = 0
        elif (found == ignore_index).any():
            raise IndexError(f"{name}: some targets are {ignore_index}, to be ignored.")
        return _checked(found, V, name, "V")

    def kept(classes: np.ndarray) -> np.ndarray:
        return np.asarray(classes.reshape(-1) != ignore_index)

    return redone(known, classes), redone(kept, classes) if some_ignored else None


def _picked(w: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.asarray(w[classes])


def _kept(
    loss: Tensor, keep: np.ndarray | None, w: np.ndarray | None, classes: np.ndarray
) -> tuple[Tensor, np.ndarray]:
    """The losses with 0 for those that are ignored, and what the others weigh together."""
    dtype = loss.dtype
    weights = np.ones(len(classes)) if w is None else redone(_picked, w, classes)
    if keep is None:
        return loss, redone(lambda weights: np.asarray(weights.sum(), dtype), weights)
    total = redone(lambda weights, keep: np.asarray(weights[keep].sum(), dtype), weights, keep)
    return ops.where(keep, loss, 0.0), total


def _probabilities(logits: Tensor, targets: op.TensorLike) -> Tensor:
    targets = ops.astype(op.as_tensor(targets), logits.dtype)
    if targets.shape != logits.shape:
        raise errors.ShapeError(
            f"cross_entropy: probabilities of shape {errors.describe(targets.shape)} do not fit "
            f"logits {errors.describe(logits.shape)}. Give one for every class, or classes as "
            "whole numbers."
        )
    redone(_refuse_improbable, targets._data)
    return targets


def _refuse_improbable(p: np.ndarray) -> None:
    # 0.001: room for what was rounded, or moved a little by finite differences
    if not ((p >= -1e-3).all() and (np.abs(p.sum(-1) - 1) <= 1e-3).all()):
        raise ValueError(
            "cross_entropy: float targets must be probabilities: at least 0, and 1 in sum over the "
            "last axis. For classes pass whole numbers."
        )


def _twin(name: str, argument: str, x: Tensor, y: op.TensorLike) -> Tensor:
    """The targets y, of the shape and dtype of x."""
    y = op.as_tensor(y, x.dtype)
    if y.shape != x.shape:
        raise errors.ShapeError(
            f"{name}: {argument} {errors.describe(x.shape)} and targets "
            f"{errors.describe(y.shape)} must have the same shape. Reshape one of them."
        )
    return ops.astype(y, x.dtype)


def _weights(name: str, argument: str, weights: npt.ArrayLike, like: Tensor) -> np.ndarray:
    w = np.asarray(weights, like.dtype)
    _not_negative(name, argument, w)
    try:
        return np.broadcast_to(w, like.shape)
    except ValueError:
        raise errors.ShapeError(
            f"{name}: {argument} of shape {errors.describe(w.shape)} does not broadcast to logits "
            f"{errors.describe(like.shape)}."
        ) from None


def _not_negative(name: str, argument: str, w: np.ndarray) -> None:
    if not (w >= 0).all():
        raise ValueError(f"{name}: {argument} must not be negative or NaN.")
