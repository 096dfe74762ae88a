"""Losses: how wrong a prediction is, as a number to make small.

What users take from `tinyseq.functional`. Classes lie on the last axis, logits (..., V), and losses
are in nats. Each is composed from ops, so that it has gradients of any order, and computed from
logits or logarithms throughout, so that it neither overflows nor takes the logarithm of 0.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from tinyseq import errors, op, ops
from tinyseq import primitives as raw
from tinyseq.arguments import Positive, Rate, checked, one_of
from tinyseq.functional import targets as taken
from tinyseq.functional.targets import IGNORED
from tinyseq.tensor import Axis, Tensor, plain_array

Reduction = Annotated[str, one_of("mean", "sum", "none")]


@checked
def cross_entropy(
    logits: op.TensorLike,
    targets: op.TensorLike,
    reduction: Reduction = "mean",
    *,
    weight: op.TensorLike | None = None,
    ignore_index: int = IGNORED,
    label_smoothing: Rate = 0.0,
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
    logits, w = taken.as_scores("cross_entropy", "logits", logits, weight)
    given = targets if isinstance(targets, Tensor) else plain_array(targets)
    *batch, V = logits.shape
    count = math.prod(batch)
    if given.dtype.kind == "f":
        if ignore_index != IGNORED:
            raise ValueError(
                f"cross_entropy: ignore_index={ignore_index} is a class, and the targets are "
                "probabilities. Leave those rows out of logits and targets instead."
            )
        p = ops.reshape(taken.as_probabilities(logits, given), count, V)
        if label_smoothing:
            p = (1 - label_smoothing) * p + label_smoothing / V
        if w is not None:
            p = p * w
        rows = centred(ops.reshape(logits, count, V))
        loss = ops.logsumexp(rows, -1) * ops.sum(p, -1) - ops.sum(p * rows, -1)
        return _reduced_over("cross_entropy", loss, reduction, batch, count)
    mean = reduction == "mean" and count > 0
    classes = taken.as_classes("cross_entropy", "logits", logits, given, ignore_index, mean)
    if w is None and not label_smoothing and count > 0 and reduction in ("mean", "sum"):
        return raw.softmax_loss(logits, classes, ignored=ignore_index, reduction=reduction)
    loss = raw.softmax_loss(logits, classes, ignored=ignore_index, reduction="none")
    weights, known = _weights(classes, ignore_index, w)
    if w is not None:
        loss = loss * w[known]
    if label_smoothing:
        rows = centred(ops.reshape(logits, count, V))
        w_all = op.as_tensor(np.ones(V, rows.dtype)) if w is None else w
        everywhere = ops.logsumexp(rows, -1) * ops.sum(w_all) - rows @ w_all
        loss = (1 - label_smoothing) * loss + label_smoothing / V * everywhere
        loss = ops.where(ops.reshape(classes, -1) != ignore_index, loss, 0.0)
    return _reduced_over("cross_entropy", loss, reduction, batch, weights)


@checked
def nll_loss(
    log_probs: op.TensorLike,
    targets: op.TensorLike,
    reduction: Reduction = "mean",
    *,
    weight: op.TensorLike | None = None,
    ignore_index: int = IGNORED,
) -> Tensor:
    """−log_probs[target]: the negative log-likelihood, for what went through log_softmax.

    log_probs (..., V) float, targets (...) whole numbers from 0 to V − 1. ``reduction``,
    ``weight``, ``ignore_index`` and errors as for `cross_entropy`, which does both steps in one;
    `ValueError` for log_probs above 0 as well.
    """
    log_probs, w = taken.as_scores("nll_loss", "log_probs", log_probs, weight)
    raw.check(log_probs, rule=taken.refuse_logits, name="nll_loss")
    *batch, V = log_probs.shape
    mean = reduction == "mean" and math.prod(batch) > 0
    classes = taken.as_classes("nll_loss", "log_probs", log_probs, targets, ignore_index, mean)
    weights, known = _weights(classes, ignore_index, w)
    loss = -ops.reshape(log_probs, known.size, V)[np.arange(known.size), known]
    if w is not None:
        loss = loss * w[known]
    loss = ops.where(ops.reshape(classes, -1) != ignore_index, loss, 0.0)
    return _reduced_over("nll_loss", loss, reduction, batch, weights)


@checked
def binary_cross_entropy_with_logits(
    logits: op.TensorLike,
    targets: op.TensorLike,
    reduction: Reduction = "mean",
    *,
    weight: op.TensorLike | None = None,
    pos_weight: op.TensorLike | None = None,
) -> Tensor:
    """−w·(p·y·ln σ(x) + (1 − y)·ln(1 − σ(x))): the loss of yes-or-no questions, in nats.

    logits x and targets y, probabilities from 0 to 1, of the same shape (...). ``weight`` w counts
    an element, ``pos_weight`` p its positive part; both broadcast to (...). ``reduction``: "mean"
    over all elements (whatever they weigh), "sum", or "none": (...).

    Raises `ShapeError` when the shapes do not fit, `DtypeError` for whole-number logits, and
    `ValueError` for targets outside of 0 … 1 and for negative weights.
    """
    name = "binary_cross_entropy_with_logits"
    logits, y = taken.as_twins(name, "logits", logits, "targets", targets)
    raw.check(y, rule=taken.refuse_improbable, name=name)
    # ln σ(x) = −softplus(−x) and ln(1 − σ(x)) = −softplus(x): exact in both tails
    yes = y * ops.softplus(-logits)
    if pos_weight is not None:
        yes = yes * taken.as_weights(name, "pos_weight", pos_weight, logits)
    loss = yes + (1 - y) * ops.softplus(logits)
    if weight is not None:
        loss = loss * taken.as_weights(name, "weight", weight, logits)
    return reduced(loss, reduction)


@checked
def binary_cross_entropy(
    probabilities: op.TensorLike,
    targets: op.TensorLike,
    reduction: Reduction = "mean",
    *,
    weight: op.TensorLike | None = None,
) -> Tensor:
    """−w·(y·ln p + (1 − y)·ln(1 − p)), for what went through a sigmoid already, in nats.

    probabilities p and targets y from 0 to 1, of the same shape (...); ``weight``, ``reduction``
    and errors as for `binary_cross_entropy_with_logits`, which is exact in both tails. Here, as in
    PyTorch, a logarithm is at least −100, and its slope at most 10¹².
    """
    name = "binary_cross_entropy"
    p, y = taken.as_twins(name, "probabilities", probabilities, "targets", targets)
    raw.check(p, rule=taken.refuse_improbable, name=name, argument="probabilities")
    raw.check(y, rule=taken.refuse_improbable, name=name)
    loss = -(y * _bounded_log(p) + (1 - y) * _bounded_log(1 - p))
    if weight is not None:
        loss = loss * taken.as_weights(name, "weight", weight, p)
    return reduced(loss, reduction)


def _bounded_log(p: Tensor) -> Tensor:
    """ln p; below 10⁻¹² a constant, at least −100, and a slope of 10¹²."""
    near, fixed = p < 1e-12, p.detach()
    lowest = ops.log(ops.where(fixed > 0, fixed, 1e-44))
    return ops.where(
        near,
        ops.maximum(lowest, -100.0) + (p - fixed) * 1e12,
        ops.log(ops.where(near, 1.0, p)),
    )


@checked
def kl_div(
    log_probs: op.TensorLike,
    targets: op.TensorLike,
    reduction: Annotated[str, one_of("mean", "batchmean", "sum", "none")] = "mean",
    *,
    log_target: bool = False,
) -> Tensor:
    """p·(ln p − log_probs), element by element: summed over classes, the divergence of
    distributions q = e^log_probs from p, KL(p ‖ q), in nats.

    log_probs and targets p, probabilities (with ``log_target`` their logarithms), of the same shape
    (...). Where p is 0 it costs nothing. ``reduction``: ``"mean"`` over all elements, classes
    included; ``"batchmean"``, the sum over the length of the first axis, which is the divergence of
    (B, V); ``"sum"``; or ``"none"``: (...). All as in PyTorch.

    Raises `ShapeError` when the shapes differ, `DtypeError` for whole numbers, `ValueError` for
    what are no probabilities or no logarithms of them.
    """
    q, p = taken.as_twins("kl_div", "log_probs", log_probs, "targets", targets)
    raw.check(q, rule=taken.refuse_logits, name="kl_div")
    if log_target:
        raw.check(p, rule=taken.refuse_logits, name="kl_div", argument="targets")
    else:
        raw.check(p, rule=taken.refuse_improbable, name="kl_div")
    some = p != (-math.inf if log_target else 0)  # elsewhere 0·∞ would be NaN, in gradients too
    q, p = ops.where(some, q, 0.0), ops.where(some, p, 0.0 if log_target else 1.0)
    loss = ops.exp(p) * (p - q) if log_target else p * (ops.log(p) - q)
    loss = ops.where(some, loss, 0.0)
    if reduction != "batchmean":
        return reduced(loss, reduction)
    if not loss.ndim or not len(loss):
        raise errors.ShapeError(
            f"kl_div: reduction='batchmean' divides by the length of the first axis of log_probs, "
            f"and got {errors.describe(loss.shape)}. Give it one row or more."
        )
    return ops.sum(loss) / len(loss)


@checked
def mse_loss(
    prediction: op.TensorLike, target: op.TensorLike, reduction: Reduction = "mean"
) -> Tensor:
    """(prediction − target)², of the same shape (...): the squared error.

    ``reduction``: ``"mean"`` over all elements, ``"sum"``, or ``"none"``: (...). Raises
    `ShapeError` when the shapes differ: broadcasting here is nearly always a mistake.
    """
    x, y = taken.as_twins("mse_loss", "prediction", prediction, "target", target)
    error = x - y
    return reduced(error * error, reduction)


@checked
def l1_loss(
    prediction: op.TensorLike, target: op.TensorLike, reduction: Reduction = "mean"
) -> Tensor:
    """|prediction − target|, of the same shape (...): the absolute error. The rest as
    `mse_loss`.
    """
    x, y = taken.as_twins("l1_loss", "prediction", prediction, "target", target)
    return reduced(ops.abs(x - y), reduction)


@checked
def huber_loss(
    prediction: op.TensorLike,
    target: op.TensorLike,
    reduction: Reduction = "mean",
    *,
    delta: Positive = 1.0,
) -> Tensor:
    """e²/2 where |e| ≤ delta, elsewhere delta·(|e| − delta/2), with e = prediction − target:
    squares near the target, absolute errors far from it. The rest as `mse_loss`. Huber, 1964.
    """
    x, y = taken.as_twins("huber_loss", "prediction", prediction, "target", target)
    error, delta = x - y, float(delta)
    near = ops.clip(error, -delta, delta)
    return reduced(near * (error - near * 0.5), reduction)


@checked
def sequence_loss(
    losses: op.TensorLike,
    lengths: op.TensorLike | None = None,
    *,
    mask: op.TensorLike | None = None,
    reduction: Reduction = "mean",
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
    losses = op.as_tensor(losses, None, "sequence_loss", "losses")
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
        name = f"sequence_loss: lengths for losses {errors.describe(losses.shape)}"
        n = taken.as_lengths(name, lengths, B, T)
        counted = ops.less(np.arange(T)[:, None], n)
    if mask is not None:
        counted = op.as_tensor(mask, None, "sequence_loss", "mask")
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
        counted = ops.reshape(counted, T, B, *[1] * (losses.ndim - 2))
        losses = ops.where(counted, losses, 0.0)
    return reduced(ops.sum(losses, [a for a in range(losses.ndim) if a != 1]), reduction)


# -- what the losses share ------------------------------------------------------------------------


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """A loss an element, reduced as a loss's ``reduction`` argument says."""
    if reduction == "mean":
        return ops.mean(loss)
    if reduction == "sum":
        return ops.sum(loss)
    return loss


def _reduced_over(
    name: str, loss: Tensor, reduction: str, batch: list[int], weights: Tensor | int
) -> Tensor:
    """As `reduced`, for a flat loss whose mean divides by the sum of the weights."""
    if reduction == "none":
        return ops.reshape(loss, *batch)
    if reduction != "mean":
        return reduced(loss, reduction)
    if loss.size == 0:
        raise errors.ShapeError(
            f"{name}: the mean over no targets is undefined. Give at least one."
        )
    total = raw.sum(loss, axis=(0,), keepdims=False)
    if not isinstance(weights, Tensor):
        return total / float(weights)
    weight = ops.sum(weights)
    raw.check(weight, rule=taken.refuse_nothing, name=name)
    return total / weight


def _weights(classes: Tensor, ignored: int, w: Tensor | None) -> tuple[Tensor, Tensor]:
    """What each target weighs, 0 for one that is ignored, and the classes with 0 for those: (N)."""
    classes = ops.reshape(classes, -1)
    keep = classes != ignored
    known = ops.where(keep, classes, 0)
    return (keep if w is None else ops.where(keep, w[known], 0.0)), known


def centred(x: Tensor, axis: Axis = -1) -> Tensor:
    """x − max x along an axis, with the maximum as a constant.

    Softmax does not change when all its inputs move together, nor does any of its derivatives; but
    numbers near 0 are kept finely, and near 10⁴ float32 knows steps of 0.001 only.
    """
    return x - ops.max(x.detach(), axis, keepdims=True)
