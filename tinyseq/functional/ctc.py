"""Connectionist temporal classification: a loss over all ways to align a target with its input.

Graves et al., 2006. The network says, at each of T steps, how likely each of V symbols is, one of
them the *blank*, "nothing new". A path through the steps spells a target when repeated symbols are
taken once and blanks are then dropped: ``a a - a b`` spells ``a a b``. The loss is −ln of the
summed probability of all paths that spell the target.

The sum goes over exponentially many paths and is computed step by step: with blanks put around and
between the S symbols, ℓ = (-, l₁, -, l₂, …, -) of length 2S + 1, αₜ(s) is the probability of having
read ℓ up to s after t steps. Everything stays in logarithms and is composed from ops: the backward
recursion of the paper, and any higher derivative, is what back-propagation makes of this one.
"""

from __future__ import annotations

import numpy as np

from tinyseq import errors, graph, op, ops
from tinyseq.arguments import Count, checked
from tinyseq.functional.losses import Reduction, reduced
from tinyseq.functional.targets import as_indices, as_lengths, refuse_logits
from tinyseq.primitives import check
from tinyseq.tensor import FLOATS, Tensor


@checked
def ctc_loss(
    log_probs: op.TensorLike,
    targets: op.TensorLike,
    input_lengths: op.TensorLike,
    target_lengths: op.TensorLike,
    blank: Count = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """−ln Σ over the paths π that spell the target of Πₜ pₜ(πₜ), in nats.

    ``log_probs`` (T, B, V): ln pₜ, from `log_softmax`. ``targets``: whole numbers, never the blank,
    padded (B, S) or one after the other (Σ target_lengths). ``input_lengths`` (B) from 0 to T,
    ``target_lengths`` (B) from 0 to S. ``reduction``: ``"mean"``: each loss is divided by its
    target's length (at least 1), then the mean over the batch; ``"sum"``; or ``"none"``: (B).

    A target that needs more steps than its input has (one a symbol, and one more between two that
    are equal) costs ∞, with a gradient of 0; ``zero_infinity=True`` makes that 0.

    Raises `ShapeError` when the shapes do not fit, `DtypeError` for targets that are not whole
    numbers, `IndexError` for a symbol that does not exist, and `ValueError` for a blank among the
    targets, lengths out of range and ``log_probs`` above 0. Graves et al., 2006; reductions and
    options are PyTorch's.
    """
    if any(isinstance(t, Tensor) for t in (targets, target_lengths, input_lengths)):
        graph.readable("ctc_loss")  # whose paths hang on the values of these
    log_probs = op.as_tensor(log_probs, None, "ctc_loss", "log_probs")
    if log_probs.ndim != 3:
        raise errors.ShapeError(
            f"ctc_loss: log_probs must be (T, B, V), got {errors.describe(log_probs.shape)}. "
            "A single sequence is a batch of B=1."
        )
    if log_probs.dtype not in FLOATS:
        raise errors.DtypeError(
            f"ctc_loss: log_probs must be float32 or float64, not {log_probs.dtype}."
        )
    check(log_probs, rule=refuse_logits, name="ctc_loss")
    T, B, V = log_probs.shape
    if not 0 <= blank < V:
        raise IndexError(f"ctc_loss: blank={blank} is outside of 0 … {V - 1} (V={V}).")
    steps = as_lengths("ctc_loss: input_lengths", input_lengths, B, T)._data
    symbols, lengths = _padded(targets, target_lengths, B, V, blank)

    S = symbols.shape[1]
    path = np.full((B, 2 * S + 1), blank)
    path[:, 1::2] = symbols
    # The blank between two symbols may be left out, unless they are equal.
    may_skip = np.zeros(path.shape, bool)
    may_skip[:, 3::2] = symbols[:, 1:] != symbols[:, :-1]

    never = np.full((B, 2), -np.inf, log_probs.dtype)
    start = np.full(path.shape, -np.inf, log_probs.dtype)
    start[:, 0] = 0  # before the first step: nothing read, as if a blank had just been
    alpha = Tensor.wrap(start)
    with graph.scope("ctc_loss"):
        emitted = log_probs[:, np.arange(B)[:, None], path]  # (T, B, 2S + 1)
        for t in range(int(steps.max(initial=0))):
            with graph.scope(f"t={t}"):
                before = ops.concat([never, alpha], axis=1)
                ways = [alpha, before[:, 1:-1], ops.where(may_skip, before[:, :-2], -np.inf)]
                after = ops.logsumexp(ops.stack(ways), axis=0) + emitted[t]
                running = t < steps[:, None]
                alpha = after if running.all() else ops.where(running, after, alpha)
        # A path ends with the last symbol or with the blank behind it.
        b, end = np.arange(B), 2 * lengths
        symbol_last = ops.where(lengths > 0, alpha[b, np.maximum(end - 1, 0)], -np.inf)
        loss = -ops.logsumexp(ops.stack([symbol_last, alpha[b, end]]), axis=0)
        if zero_infinity:
            loss = ops.where(loss == np.inf, 0.0, loss)
        if reduction == "mean":
            loss = loss / np.maximum(lengths, 1)
        return reduced(loss, reduction)


def _padded(
    targets: op.TensorLike, target_lengths: op.TensorLike, B: int, V: int, blank: int
) -> tuple[np.ndarray, np.ndarray]:
    """The targets as (B, S), with blanks behind their ends, and their lengths."""
    given = op.as_tensor(targets, None, "ctc_loss", "targets")._data
    name = f"ctc_loss: target_lengths for targets {errors.describe(given.shape)}"
    if given.ndim == 1:
        lengths = as_lengths(name, target_lengths, B, len(given))._data
        if lengths.sum() != len(given):
            raise errors.ShapeError(
                f"ctc_loss: targets one after the other must be as many as target_lengths say, "
                f"{lengths.sum()}, got {len(given)}. Or pass them padded, (B={B}, S)."
            )
        used = given
    elif given.ndim == 2 and len(given) == B:
        S = given.shape[1]
        lengths = as_lengths(name, target_lengths, B, S)._data
        used = given[np.arange(S) < lengths[:, None]]
    else:
        raise errors.ShapeError(
            f"ctc_loss: targets must be (B={B}, S), or one after the other, got "
            f"{errors.describe(given.shape)}."
        )
    used = as_indices(used, V, "ctc_loss: targets", "V")._data
    if (used == blank).any():
        raise ValueError(
            f"ctc_loss: the targets contain the blank, {blank}. It stands for no symbol: leave it "
            "out, or choose another class as blank=."
        )
    symbols = np.full((B, lengths.max(initial=0)), blank)
    symbols[np.arange(symbols.shape[1]) < lengths[:, None]] = used
    return symbols, lengths
