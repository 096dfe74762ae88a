"""Beam search: of all that could be written, the likeliest that a few hypotheses at a time find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinyseq import errors
from tinyseq.arguments import NotNegative, Size, checked
from tinyseq.nested import mapped
from tinyseq.nn.module import Module
from tinyseq.tensor import Tensor


class Hypothesis(NamedTuple):
    """One way to write a sequence, as a beam search ranks them.

    ``symbols`` without start and end; ``score``, what it was ranked by; ``log_probability``, in
    nats, of the symbols and, if it ``ended``, of the end.
    """

    symbols: list[int]
    score: float
    log_probability: float
    ended: bool


@checked
def beam_search(
    step: Callable[[np.ndarray, Any], tuple[Tensor, Any]],
    first: np.ndarray,
    state: Any,
    *,
    model: Module,
    eos: int | None,
    width: Size,
    max_steps: Size,
    length_penalty: NotNegative = 0.0,
    refused: np.ndarray | None = None,
) -> list[list[Hypothesis]]:
    """For each sequence the best ``width`` hypotheses that were kept, best first.

    At each step every hypothesis that has not ended is continued by every symbol, and the best
    ``width`` of all go on; those that ended stay and compete. Ranked by ln P(y) / ((5 + |y|) / 6)^α
    with α = ``length_penalty`` and |y| counting the end (Wu et al., 2016).

    Args:
        step: symbols (1, B·W), state → logits (1, B·W, V) for the next ones, state; row b·W + w is
            hypothesis w of sequence b.
        first: the symbols (B) that are read first, and ``state``, tensors (B, …), before them.
        model: whose step it is, for the error where its logits are not finite.
        eos: the symbol that ends a sequence; `None` where there is none.
        refused: symbols that are never written; the others share their probability.

    Raises `ValueError` for a width or a number of steps below 1, a penalty that is negative or not
    finite, and logits that are not finite.
    """
    W, B = width, len(first)
    state = rows_of(state, np.repeat(np.arange(B), W))
    symbols = np.repeat(first[:, None], W, axis=1)
    written = np.zeros((B, W, 0), np.int64)
    length, going = np.zeros((B, W), int), np.ones((B, W), bool)
    log_p = np.full((B, W), -np.inf)
    log_p[:, 0] = 0.0  # one way to write nothing, not W
    for _ in range(max_steps):
        logits, state = step(symbols.reshape(1, B * W), state)
        V = logits.shape[-1]
        after = log_softmax(finite(logits._data, model), refused).reshape(B, W, V)
        after[~going] = -np.inf
        if eos is not None:
            after[~going, eos] = 0.0  # what has ended is one candidate, as it is
        length = length + going
        candidates = log_p[:, :, None] + after
        rank = candidates / (((5 + length) / 6) ** length_penalty)[:, :, None]
        best = np.argsort(-rank.reshape(B, W * V), axis=1, kind="stable")[:, :W]
        parent, symbols = np.divmod(best, V)
        log_p = np.take_along_axis(candidates.reshape(B, W * V), best, axis=1)
        length = np.take_along_axis(length, parent, axis=1)
        going = np.take_along_axis(going, parent, axis=1) & (symbols != eos)
        written = np.take_along_axis(written, parent[:, :, None], axis=1)
        written = np.concatenate([written, symbols[:, :, None]], axis=2)
        state = rows_of(state, (parent + W * np.arange(B)[:, None]).ravel())
        if not (going & np.isfinite(log_p)).any():
            break
    score = log_p / ((5 + length) / 6) ** length_penalty
    return [
        [
            Hypothesis(
                written[b, w, : length[b, w] - (not going[b, w])].tolist(),
                float(score[b, w]),
                float(log_p[b, w]),
                not going[b, w],
            )
            for w in range(W)
            if np.isfinite(log_p[b, w])
        ]
        for b in range(B)
    ]


def rows_of(state: Any, rows: np.ndarray) -> Any:
    """Some sequences of a batch, out of a state whose tensors are (B, …)."""
    return mapped(lambda part: part[rows], state)


def finite(values: np.ndarray, model: Module) -> np.ndarray:
    """The logits, or what was made of them. Raises `ValueError` where one is not finite."""
    if not np.isfinite(values).all():
        raise not_finite(model)
    return values


def not_finite(model: Module) -> ValueError:
    """The error where a model's output is not, which tells a parameter that is not from other
    causes.
    """
    if wrong := errors.spoiled((name, t._data) for name, t in model.named_tensors()):
        return ValueError(
            f"the model's output is not finite, for {wrong}. Load parameters that are finite; "
            "where training made it, lower the learning rate, or clip the gradients."
        )
    return ValueError(
        "the model's output is not finite, though its parameters are. Inside ts.detect_anomaly() "
        "the call names the op that overflows, or the input that holds NaN or Inf."
    )


def log_softmax(logits: np.ndarray, refused: np.ndarray | None = None) -> np.ndarray:
    """In float64: scores of long hypotheses are sums of many. −∞ for what is refused."""
    x = logits.astype(np.float64)
    if refused is not None:
        x[..., refused] = -np.inf
    x -= x.max(axis=-1, keepdims=True)
    out: np.ndarray = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return out
