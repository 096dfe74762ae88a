"""How the next symbol is chosen from the logits: temperature, top-k, top-p, and a uniform draw."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

from tinyseq.arguments import Within
from tinyseq.text.vocabulary import Vocabulary

Nucleus = Annotated[float, Within(lambda p: 0 < p <= 1, "above 0 and at most 1, which keeps all")]


class Choice(NamedTuple):
    """How a symbol is chosen: ``top_k`` 0 keeps all, ``eos`` ends a text."""

    temperature: float
    top_k: int
    top_p: float
    refused: np.ndarray
    eos: int | None


def choice(
    vocabulary: Vocabulary,
    temperature: float,
    top_k: int | None,
    top_p: float,
    allow_unknown: bool,
) -> Choice:
    refused = [vocabulary.pad, vocabulary.bos, None if allow_unknown else vocabulary.unk]
    numbers = np.array([i for i in refused if i is not None], np.int64)
    return Choice(float(temperature), int(top_k or 0), float(top_p), numbers, vocabulary.eos)


def pick(logits: np.ndarray, draw: float, how: Choice) -> int:
    """The symbol that a uniform draw from [0, 1) falls on: `kernels.sampling.pick`, in NumPy."""
    x = logits.astype(np.float64)
    x[how.refused] = -np.inf
    if how.temperature == 0:
        return int(x.argmax())
    with np.errstate(over="ignore"):  # −∞ is right: a probability of 0
        weights = np.exp((x - x.max()) / how.temperature)
    if 0 < how.top_k < len(x):
        weights = _keep(x, weights, how.top_k, 2.0)
    if how.top_p < 1:
        weights = _keep(x, weights, len(x), how.top_p)
    cumulative = np.cumsum(weights)
    # side="right": a draw of exactly 0 must not pick a symbol of probability 0
    return int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))


def _keep(x: np.ndarray, weights: np.ndarray, count: int, share: float) -> np.ndarray:
    """All weights 0 but those of the likeliest: ``count`` of them, or as many as it takes to have
    this share of the sum. Of equals the first go first.
    """
    order = np.argsort(-x, kind="stable")
    mass = np.cumsum(weights[order])
    fewest = int(np.searchsorted(mass, share * mass[-1])) + 1
    kept = np.zeros_like(weights)
    here = order[: min(count, fewest)]
    kept[here] = weights[here]
    return kept
