"""Batches in an order of their own in every epoch, found again by plain numbers."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Self, TypeVar

import numpy as np

from tinyseq.arguments import Count, Rule, checked

Batch = TypeVar("Batch", covariant=True)


def _is_shard(value: Any) -> bool:
    whole = isinstance(value, tuple | list) and len(value) == 2
    whole = whole and all(isinstance(n, int | np.integer) and type(n) is not bool for n in value)
    return whole and bool(0 <= value[0] < value[1])


#: Of several processes that share out each batch: which one this is, and how many there are.
Shard = Annotated[
    tuple[int, int],
    Rule(
        _is_shard,
        "(rank, size), two whole numbers, the rank from 0 to size − 1",
        "pairs (rank, size) of whole numbers",
    ),
]


def columns(batch_size: int, shard: Shard) -> slice:
    """Those of a batch that belong to a shard: every size-th one, from number ``rank`` on.

    Raises `ValueError` where a rank would never get one.
    """
    rank, size = shard
    if batch_size < size:
        raise ValueError(
            f"batch_size={batch_size} cannot be shared out with shard=({rank}, {size}): some ranks "
            "would have nothing to read. Use a batch_size of at least the number of ranks"
        )
    return slice(rank, None, size)


class Epochs(Sequence[Batch]):
    """The batches of one epoch, 0 at first; `epoch` gives those of any other.

    What is drawn for an epoch depends on the seed and on its number alone, so that a training run
    resumes anywhere from the number of its step::

        for step in range(start, steps):
            epoch, i = divmod(step, len(batches))
            batch = batches.epoch(epoch)[i]

    Every epoch has ``len(batches)`` batches. Without a seed they are all the same.
    """

    _number: int
    _latest: Self | None  # the epoch last asked for, besides this one

    def __init__(self, seed: int | None, batch_size: int, shard: Shard) -> None:
        """To be called at the end of a subclass's own: it draws the first epoch."""
        self._seed = seed
        self.batch_size, self.shard = batch_size, shard
        self._mine = columns(batch_size, shard)
        self._start(0)

    @checked
    def epoch(self, number: Count) -> Self:
        """The batches of epoch ``number``, 0 or more.

        Raises:
            ValueError: it is negative.
        """
        if number == self._number:
            return self
        if self._latest is None or self._latest._number != number:
            other = copy.copy(self)
            other._start(number)
            self._latest = other
        return self._latest

    def _start(self, number: int) -> None:
        self._number = number
        self._latest = None
        self._draw(None if self._seed is None else np.random.default_rng((self._seed, number)))

    @checked
    def __getitem__(self, i: int) -> Batch:  # type: ignore[override]  # one at a time, no slices
        """Batch ``i`` of this epoch, 0 … len − 1.

        Raises:
            IndexError: out of range.
        """
        if not 0 <= i < len(self):
            raise IndexError(
                f"batch {i} of an epoch that has {len(self)}: i is 0 to {len(self) - 1}"
            )
        return self._batch(i)

    @abstractmethod
    def _draw(self, rng: np.random.Generator | None) -> None:
        """Set the order of an epoch; without a generator it is the given one."""

    @abstractmethod
    def _batch(self, i: int) -> Batch:
        """Batch ``i``, which is in range."""
