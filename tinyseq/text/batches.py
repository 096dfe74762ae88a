"""Many sequences of different lengths, some at a time: padded, and put together by length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq.arguments import Count, Size, checked
from tinyseq.functional.targets import IGNORED
from tinyseq.tensor import plain_array
from tinyseq.text.epochs import Epochs, Shard
from tinyseq.text.partition import Padded


@checked
def padded(sequences: Iterable[Any], value: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of whole numbers side by side: an array (T, B), and their lengths (B).

    T is the longest; behind the end of a shorter one there is ``value``. Both are int64. Layers
    take the lengths as ``lengths=``, so that what is filled up changes nothing.

    >>> array, lengths = padded([[1, 2, 3], [4]])
    >>> array
    array([[1, 4],
           [2, 0],
           [3, 0]])
    >>> lengths
    array([3, 1])

    Raises:
        TypeError: sequences that are not of whole numbers.
        ValueError: there are none, one is empty, or one has more than one axis.
    """
    return _padded(_sequences(sequences, "sequences"), value)


def _padded(sequences: Sequence[np.ndarray], value: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    T = lengths.max(initial=0)
    array = np.full((len(sequences), T), value, np.int64)
    array[np.arange(T) < lengths[:, None]] = np.concatenate([np.zeros(0, np.int64), *sequences])
    return np.ascontiguousarray(array.T), lengths


def _sequences(sequences: Iterable[npt.ArrayLike], name: str) -> list[np.ndarray]:
    arrays = [_whole_numbers(sequence, f"{name}[{i}]") for i, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError(f"{name}: there is no sequence to make a batch of")
    for i, array in enumerate(arrays):
        if not array.size:
            raise ValueError(f"{name}[{i}] is empty. Leave it out")
    return arrays


def _whole_numbers(given: npt.ArrayLike, name: str) -> np.ndarray:
    """An array (N,). Raises `TypeError` and `ValueError` for all else."""
    try:
        array = plain_array(given)
    except ValueError:
        raise TypeError(f"{name} holds lists of different lengths, not whole numbers") from None
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} is made of {array.dtype}, not of whole numbers. Vocabulary.encode makes them "
            "of a text"
        )
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}, where (length,) is expected")
    return array


class Buckets(Epochs[np.ndarray]):
    """Which of many sequences go into a batch together: those of about the same length.

    Sorted by length, the longest first, and cut every B sequences: where B divides their number, no
    other batches have less to fill up. With a seed, sequences of the same length, and the batches,
    are shuffled in every epoch. Each batch is an array of positions in ``lengths``; in an epoch
    every sequence is in exactly one. The last of the cut, the shortest sequences, may have fewer
    than B.

    For pairs of sequences, source and target of an encoder–decoder, each with padding of its own::

        for at in text.Buckets([len(source) for source in sources], 64, seed=0):
            x, x_lengths = text.padded([sources[i] for i in at])
            y, y_lengths = text.padded([targets[i] for i in at])
            loss = model.loss(x, y, x_lengths, y_lengths)

    Args:
        lengths: whole numbers (N,), 1 or more.
        batch_size: B, sequences in a batch.
        seed: shuffles; the order is that of the lengths when left out.
        shard: of several processes this one's number, from 0, and how many there are: it gets every
            size-th position of each batch; of the one that has fewer, perhaps none.

    Raises:
        TypeError: lengths that are not whole numbers.
        ValueError: none of them, one below 1, a batch size below 1, a negative seed, or more
            processes than sequences in a batch.
    """

    @checked
    def __init__(
        self,
        lengths: npt.ArrayLike,
        batch_size: Size,
        seed: Count | None = None,
        *,
        shard: Shard = (0, 1),
    ) -> None:
        self._lengths = _whole_numbers(lengths, "lengths")
        if not len(self._lengths):
            raise ValueError("lengths is empty: there is nothing to make a batch of")
        if self._lengths.min() < 1:
            i = int(self._lengths.argmin())
            raise ValueError(f"lengths[{i}] is {self._lengths[i]}, and has to be at least 1")
        super().__init__(seed, batch_size, shard)

    def _draw(self, rng: np.random.Generator | None) -> None:
        count = len(self._lengths)
        order = np.arange(count) if rng is None else rng.permutation(count)
        order = order[np.argsort(-self._lengths[order].astype(np.int64), kind="stable")]
        batches = [order[i : i + self.batch_size] for i in range(0, count, self.batch_size)]
        places = range(len(batches)) if rng is None else rng.permutation(len(batches))
        self._batches = [batches[i] for i in places]

    def __len__(self) -> int:
        """Batches in one epoch."""
        return -(-len(self._lengths) // self.batch_size)

    def _batch(self, i: int) -> np.ndarray:
        return self._batches[i][self._mine]


class Batches(Epochs[Padded]):
    """Many sequences, B at a time, padded: ``(inputs, targets, lengths)``.

    inputs (T, B) and lengths (B) are as `padded` makes them, T the longest of this batch; in an
    epoch every sequence is in exactly one batch. There are three kinds of targets:

    - none given: the next symbols. Inputs are all but a sequence's last symbol, targets (T, B) all
      but its first, so that each of these is predicted exactly once;
    - one number for each sequence, as its class: targets (B);
    - one sequence for each, of the same length, as labels of its symbols: targets (T, B).

    Targets (T, B) are −100 behind the end, which `functional.cross_entropy` leaves out::

        for inputs, targets, lengths in text.Batches(sentences, 32, seed=0):
            y, _ = layers(embedding(inputs), lengths=lengths)
            loss = functional.cross_entropy(head(y), targets)

    Args:
        sequences: N sequences of whole numbers, each (length,).
        batch_size: B, sequences in a batch; the shortest of `Buckets`, or the last, may have fewer.
        targets: what to predict, as above.
        bucketed: sequences of about the same length go together, as in `Buckets`, so that there is
            little to fill up; otherwise any do.
        pad: the symbol that fills up the inputs, as ``vocabulary.pad``.
        seed: shuffles, in every epoch anew.
        shard: of several processes this one's number, from 0, and how many there are: it gets its
            part of each batch, as of `Buckets`. What makes up for its part of the whole is the
            number of targets that are not −100 (or of classes), 0 where it has no sequence.

    Raises:
        TypeError: what is not made of whole numbers.
        ValueError: no sequences, an empty one, or one of a single symbol, after which there is
            nothing to predict; targets of another number or length; a batch size below 1, a
            negative seed, or more processes than sequences in a batch.
    """

    @checked
    def __init__(
        self,
        sequences: Iterable[Any],
        batch_size: Size,
        targets: Iterable[Any] | None = None,
        *,
        bucketed: bool = True,
        pad: int = 0,
        seed: Count | None = None,
        shard: Shard = (0, 1),
    ) -> None:
        self._inputs = _sequences(sequences, "sequences")
        targets = targets if targets is None or isinstance(targets, np.ndarray) else list(targets)
        self._classes: np.ndarray | None = None
        if targets is None:
            short = next((i for i, s in enumerate(self._inputs) if len(s) < 2), None)
            if short is not None:
                raise ValueError(
                    f"sequences[{short}] has a single symbol, and none after it to predict. Leave "
                    "it out, or end each with a symbol for the end"
                )
            self._targets = [sequence[1:] for sequence in self._inputs]
            self._inputs = [sequence[:-1] for sequence in self._inputs]
        elif len(targets) != len(self._inputs):
            raise ValueError(f"there are {len(self._inputs)} sequences and {len(targets)} targets")
        elif isinstance(targets[0], np.generic) or not hasattr(targets[0], "__len__"):
            self._classes = _whole_numbers(targets, "targets")
        else:
            self._targets = _sequences(targets, "targets")
            for i, (x, y) in enumerate(zip(self._inputs, self._targets, strict=True)):
                if len(x) != len(y):
                    raise ValueError(
                        f"sequences[{i}] has {len(x)} symbols, targets[{i}] {len(y)}. Targets of "
                        "another length are padded on their own: see Buckets"
                    )
        self.pad = pad
        lengths = [len(x) if bucketed else 1 for x in self._inputs]
        self._buckets = Buckets(lengths, batch_size, seed, shard=shard)
        super().__init__(seed, batch_size, shard)

    def _draw(self, rng: np.random.Generator | None) -> None:
        self._buckets = self._buckets.epoch(self._number)

    def __len__(self) -> int:
        """Batches in one epoch."""
        return len(self._buckets)

    def _batch(self, i: int) -> Padded:
        at = self._buckets[i]
        inputs, lengths = _padded([self._inputs[k] for k in at], self.pad)
        if self._classes is not None:
            return inputs, self._classes[at], lengths
        targets, _ = _padded([self._targets[k] for k in at], IGNORED)
        return inputs, targets, lengths
