"""A long sequence cut up: training and validation, and chunks for truncated back-propagation.

`Partition` carries a state from chunk to chunk; `RandomOffsets` and `Windows` start afresh with
each. N symbols make N − 1 predictions, of every symbol but the first from those before it: how
often a class shows each of them is what it states. Many short sequences go into `Batches`.

With ``shard=(rank, size)`` a class gives one of several processes its part of each batch, columns
rank, rank + size, …, so that all of them together read what one would read: ``batch_size`` is that
of the whole, and all have the same number of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt

from tinyseq.arguments import Count, Size, Within, checked
from tinyseq.functional.targets import IGNORED
from tinyseq.tensor import plain_array
from tinyseq.text.epochs import Epochs, Shard, columns

__all__ = ["Partition", "RandomOffsets", "Windows", "split"]

Chunk = tuple[np.ndarray, np.ndarray]
Padded = tuple[np.ndarray, np.ndarray, np.ndarray]
Share = Annotated[float, Within(lambda p: 0 < p < 1, "between 0 and 1")]


@checked
def split(indices: npt.ArrayLike, held_out: Share = 0.1) -> Chunk:
    """Training and validation: the contiguous last ``held_out`` share is kept for validation.

    The validation array starts with the last symbol of training. It is there to predict the first
    held-out symbol from, so that `score` predicts every held-out symbol exactly once.

    Both are views of ``indices``, whole numbers (N,), and take no memory of their own.

    Raises:
        TypeError: indices that are not whole numbers.
        ValueError: ``held_out`` is not within 0 … 1, or leaves one of the two parts empty; negative
            indices, or more than one axis.
    """
    indices = one_text(indices)
    size = len(indices)
    at = size - round(size * held_out)
    if at < 1 or at == size:
        raise ValueError(
            f"indices: {size} symbols cannot be split with held_out={held_out}: one part would be "
            "empty. Use a longer text"
        )
    return indices[:at], indices[at - 1 :]


class Partition(Sequence[Chunk]):
    """A sequence laid out as B parallel tracks, read T steps at a time.

    With L = ⌊(N − 1) / B⌋, track b is the L symbols from b·L on, and its targets are one later.
    Chunk i is ``(inputs, targets)``, both (T, B), and goes on in every track where chunk i − 1
    ended: a state carried from chunk to chunk reads each track as one long text. Start from a fresh
    state at chunk 0. What is left over at the end, less than B + T·B symbols, is not used.

    The tracks are views of ``indices``: the whole takes no memory, however long the text.

    A position is the plain number of a chunk, so a training run resumes anywhere::

        for step in range(start, steps):
            inputs, targets = chunks[step % len(chunks)]

    Args:
        indices: integers (N,).
        batch_size: B, parallel tracks.
        steps: T, steps in one chunk.
        shard: of several processes this one's number, from 0, and how many there are: it reads the
            tracks rank, rank + size, … as its B.

    Raises:
        TypeError: indices that are not whole numbers.
        ValueError: sizes below one, fewer than B·T + 1 symbols, or negative ones; more processes
            than tracks.
    """

    @checked
    def __init__(
        self, indices: npt.ArrayLike, batch_size: Size, steps: Size, *, shard: Shard = (0, 1)
    ) -> None:
        indices = one_text(indices)
        length = (len(indices) - 1) // batch_size
        if length < steps:
            raise ValueError(
                f"indices: {len(indices)} symbols are too few for one chunk: {batch_size} tracks "
                f"× {steps} steps + 1 target = {batch_size * steps + 1}. "
                "Use a longer text, a smaller batch_size or fewer steps"
            )
        self.batch_size, self.shard = batch_size, shard
        self.steps = steps
        mine = columns(batch_size, shard)
        used = length * batch_size
        # (L, B): consecutive in time down a column, so that a chunk is a plain slice of rows.
        self._inputs = indices[:used].reshape(batch_size, length)[mine].T
        self._targets = indices[1 : used + 1].reshape(batch_size, length)[mine].T

    def __len__(self) -> int:
        """Chunks in one pass over the sequence."""
        return len(self._inputs) // self.steps

    @checked
    def __getitem__(self, i: int) -> Chunk:  # type: ignore[override]  # one chunk at a time, no slices
        """Chunk ``i``, 0 … len − 1.

        Raises:
            IndexError: out of range.
        """
        if not 0 <= i < len(self):
            raise IndexError(
                f"chunk {i} of a partition that has {len(self)}: i is 0 to {len(self) - 1}"
            )
        rows = slice(i * self.steps, (i + 1) * self.steps)
        return self._inputs[rows].copy("C"), self._targets[rows].copy("C")


class RandomOffsets(Epochs[Chunk]):
    """Chunks of T steps from all over a sequence, in random order, B at a time.

    In each epoch the sequence is cut every T symbols from a random offset 0 … T − 1 on, and the
    chunks are shuffled: another epoch sees other chunks, so that no prediction always stands at the
    start of one, where there is little to go by. A batch is ``(inputs, targets)``, both (T, B),
    targets one later. Start each from a fresh state.

    An epoch shows len·B·T predictions, none of them twice. Fewer than (B + 2)·T are left out, other
    ones in each epoch: those at the two ends that make no chunk, and the chunks that make no batch.

    Args:
        indices: integers (N,).
        batch_size: B, chunks in a batch.
        steps: T, steps in one chunk.
        seed: decides all that is drawn, with the number of the epoch.
        shard: of several processes this one's number, from 0, and how many there are: it gets every
            size-th chunk of each batch.

    Raises:
        TypeError: indices that are not whole numbers.
        ValueError: sizes below one, fewer than (B + 1)·T symbols, negative ones, a negative seed,
            or more processes than chunks in a batch.
    """

    @checked
    def __init__(
        self,
        indices: npt.ArrayLike,
        batch_size: Size,
        steps: Size,
        seed: Count = 0,
        *,
        shard: Shard = (0, 1),
    ) -> None:
        self._indices = one_text(indices)
        self.steps = steps
        # As many as there are chunks for, and the last one's target, wherever an epoch starts.
        self._batches = (len(self._indices) - steps) // steps // batch_size
        if self._batches < 1:
            raise ValueError(
                f"indices: {len(self._indices)} symbols are too few for one batch: {batch_size} "
                f"chunks × {steps} steps, and {steps} for a random start = "
                f"{(batch_size + 1) * steps}. Use a longer text, a smaller batch_size "
                "or fewer steps"
            )
        super().__init__(seed, batch_size, shard)

    def _draw(self, rng: np.random.Generator | None) -> None:
        assert rng is not None
        offset = rng.integers(self.steps)
        order = rng.permutation((len(self._indices) - 1 - offset) // self.steps)
        order = order[: len(self) * self.batch_size]
        self._starts = (offset + self.steps * order).reshape(len(self), self.batch_size)

    def __len__(self) -> int:
        """Batches in one epoch."""
        return self._batches

    def _batch(self, i: int) -> Chunk:
        at = self._starts[i, self._mine] + np.arange(self.steps)[:, None]
        return self._indices[at], self._indices[at + 1]


class Windows(Epochs[Padded]):
    """Chunks of T steps, one every ``stride``: side by side, or overlapping windows.

    Window k is the T inputs from k·stride on; the last one is the first that reaches the end, and
    is filled up when it reaches beyond it. A batch is ``(inputs, targets, lengths)``: two arrays
    (T, B), and how many steps of each window there are (B), which layers take as ``lengths=``.
    Behind them inputs are ``pad`` and targets −100, which `functional.cross_entropy` leaves out.
    Start each from a fresh state.

    An epoch shows every prediction: exactly once with ``stride`` T, as by default; with a shorter
    one prediction i, counted from 0, once for each window k with k·stride ≤ i < k·stride + T. The
    last batch may have fewer than B windows.

    Args:
        indices: integers (N,), N > T.
        batch_size: B, windows in a batch.
        steps: T, steps in one window.
        stride: symbols from the start of one window to that of the next, 1 … T.
        pad: the symbol that fills up the inputs.
        seed: shuffles the windows, in every epoch anew; in the order of the text when left out.
        shard: of several processes this one's number, from 0, and how many there are: it gets every
            size-th window of each batch; of a last one that has fewer windows, perhaps none.

    Raises:
        TypeError: indices that are not whole numbers.
        ValueError: sizes below one, a stride that skips symbols, no T + 1 symbols, negative ones, a
            negative seed, or more processes than windows in a batch.
    """

    @checked
    def __init__(
        self,
        indices: npt.ArrayLike,
        batch_size: Size,
        steps: Size,
        stride: Size | None = None,
        *,
        pad: int = 0,
        seed: Count | None = None,
        shard: Shard = (0, 1),
    ) -> None:
        self._indices = one_text(indices)
        stride = steps if stride is None else int(stride)
        if stride > steps:
            raise ValueError(
                f"a stride is from 1 to steps ({steps}), not {stride}: none is skipped"
            )
        self._predictions = len(self._indices) - 1
        if self._predictions < steps:
            raise ValueError(
                f"indices: {len(self._indices)} symbols are too few for one window: {steps} steps "
                f"+ 1 target = {steps + 1}. Use a longer text or fewer steps"
            )
        self.steps, self.stride, self.pad = steps, stride, pad
        self._windows = 1 - (steps - self._predictions) // stride  # rounded up
        super().__init__(seed, batch_size, shard)

    def _draw(self, rng: np.random.Generator | None) -> None:
        order = np.arange(self._windows) if rng is None else rng.permutation(self._windows)
        self._starts = self.stride * order

    def __len__(self) -> int:
        """Batches in one epoch."""
        return -(-self._windows // self.batch_size)

    def _batch(self, i: int) -> Padded:
        starts = self._starts[i * self.batch_size : (i + 1) * self.batch_size]
        at = starts[self._mine] + np.arange(self.steps)[:, None]
        there = at < self._predictions
        at = np.minimum(at, self._predictions - 1)
        # int64, which has room for the −100
        inputs = np.where(there, self._indices[at].astype(np.int64), self.pad)
        targets = np.where(there, self._indices[at + 1].astype(np.int64), IGNORED)
        return inputs, targets, there.sum(0)


def one_text(indices: npt.ArrayLike) -> np.ndarray:
    indices = plain_array(indices)
    if indices.ndim != 1:
        raise ValueError(f"indices are one sequence, of shape (N,), not {indices.shape}")
    if indices.dtype.kind not in "iu" and indices.size:
        raise TypeError(
            f"indices are whole numbers, not {indices.dtype}. Vocabulary.encode makes them of text"
        )
    if indices.size and indices.min() < 0:
        i = int((indices < 0).argmax())
        raise ValueError(
            f"indices[{i}] is {indices[i]}: the symbols of a text are numbered from 0. A START "
            "before each of many texts is for Batches"
        )
    return indices
