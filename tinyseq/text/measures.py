"""Perplexity, the same of every model: exp of the mean −ln p over all symbols that are given."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tinyseq.arguments import checked, shown
from tinyseq.tensor import plain_array
from tinyseq.text.vocabulary import Vocabulary


@checked
def perplexity(probabilities: Iterable[Any]) -> float:
    """exp(−1/N Σ ln p) = (p⟨1⟩ · p⟨2⟩ · … · p⟨N⟩)^(−1/N), of the probabilities of N symbols.

    Each p is what a model gave to the symbol that came, knowing those before it. As many equally
    likely symbols would be as hard to predict: 1 for a perfect model, V for one that knows nothing,
    and ∞ where a symbol came that had the probability 0. `NGram.perplexity` and
    `LanguageModel.perplexity` are this, of their own probabilities.

    >>> round(perplexity([0.5, 0.25, 0.125]), 12)
    4.0

    Args:
        probabilities: of one sequence, an array of any shape, or of several, a list of arrays.

    Raises:
        TypeError: what is not numbers.
        ValueError: no probabilities, or one outside of 0 … 1.
    """
    parts = [probabilities] if isinstance(probabilities, np.ndarray) else list(probabilities)
    p = np.concatenate([np.zeros(0), *map(_probabilities, parts)])
    with np.errstate(divide="ignore"):
        return of_nats(-float(np.log(p).sum()), len(p), "probabilities")


def _probabilities(part: Any) -> np.ndarray:
    p = plain_array(part)
    if p.size and p.dtype.kind not in "biuf":
        raise TypeError(f"probabilities are real numbers, not {shown(part)}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probabilities are from 0 to 1, and not {shown(part)}")
    return p.ravel().astype(np.float64)


def of_nats(nats: float, symbols: int, name: str = "sequences") -> float:
    """exp(nats / symbols); at most the largest float where that is finite."""
    if not symbols:
        raise ValueError(f"a perplexity needs at least one symbol, and {name} has none")
    mean = nats / symbols
    return math.inf if mean == math.inf else math.exp(min(mean, 709.0))


def sequences_of(given: str | Iterable[Any], vocabulary: Vocabulary | None) -> list[Any]:
    """One sequence or several, of numbers or strings: a list of sequences of numbers."""
    if isinstance(given, str) or (isinstance(given, np.ndarray) and given.ndim == 1):
        return [numbers_of(given, vocabulary)]
    items = list(given)
    if any(_is_sequence(item, vocabulary) for item in items):
        return [numbers_of(item, vocabulary) for item in items]
    return [numbers_of(items, vocabulary)]


def _is_sequence(item: Any, vocabulary: Vocabulary | None) -> bool:
    if isinstance(item, str):  # of characters, it may be a text
        return vocabulary is not None and vocabulary._is_text(item)
    return isinstance(item, list | tuple | Iterator) or getattr(item, "ndim", 0) > 0


def numbers_of(
    sequence: str | Iterable[Any], vocabulary: Vocabulary | None, name: str = "sequences"
) -> Any:
    """A sequence of numbers as it is, one of strings as their numbers."""
    if isinstance(sequence, Iterator):
        sequence = list(sequence)
    if isinstance(sequence, np.ndarray) and sequence.dtype.kind not in "OUST":
        return sequence
    if not isinstance(sequence, str) and not any(isinstance(item, str) for item in sequence):
        try:
            return plain_array(sequence)
        except ValueError as cause:
            raise ValueError(f"{name}: {shown(sequence)} is no row of symbols: {cause}") from cause
    if vocabulary is None:
        raise TypeError(
            f"{shown(sequence)} is made of strings. Pass vocabulary=…, which has their numbers"
        )
    return vocabulary.encode(sequence)
