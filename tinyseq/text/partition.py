"""A long sequence cut up: training and validation, and chunks for truncated back-propagation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Chunk = tuple[np.ndarray, np.ndarray]


def split(indices: np.ndarray, held_out: float = 0.1) -> Chunk:
    """Training and validation: the contiguous last ``held_out`` share is kept for validation.

    The validation array starts with the last symbol of training. It is there to predict the first
    held-out symbol from, so that `score` predicts every held-out symbol exactly once.

    Raises:
        ValueError: ``held_out`` is not within 0 … 1, or leaves one of the two parts empty.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is a share between 0 and 1, not {held_out}")
    size = len(indices)
    at = size - round(size * held_out)
    if at < 1 or at == size:
        raise ValueError(
            f"{size} symbols cannot be split with {held_out:.0%} held out: one part would be "
            "empty. Use a longer text"
        )
    return indices[:at], indices[at - 1 :]


class Partition(Sequence[Chunk]):
    """A sequence laid out as B parallel tracks, read T steps at a time.

    With L = ⌊(N − 1) / B⌋, track b is the L symbols from b·L on, and its targets are one later.
    Chunk i is ``(inputs, targets)``, both (T, B), and goes on in every track where chunk i − 1
    ended: a state carried from chunk to chunk reads each track as one long text. Start from a fresh
    state at chunk 0. What is left over at the end, less than B + T·B symbols, is not used.

    A position is the plain number of a chunk, so a training run resumes anywhere::

        for step in range(start, steps):
            inputs, targets = chunks[step % len(chunks)]

    Args:
        indices: integers (N,).
        batch_size: B, parallel tracks.
        steps: T, steps in one chunk.

    Raises:
        ValueError: sizes below one, or fewer than B·T + 1 symbols.
    """

    def __init__(self, indices: np.ndarray, batch_size: int, steps: int) -> None:
        if batch_size < 1 or steps < 1:
            raise ValueError(f"batch_size ({batch_size}) and steps ({steps}) have to be at least 1")
        length = (len(indices) - 1) // batch_size
        if length < steps:
            raise ValueError(
                f"{len(indices)} symbols are too few for one chunk: {batch_size} tracks "
                f"× {steps} steps + 1 target = {batch_size * steps + 1}. "
                "Use a longer text, a smaller batch or fewer steps"
            )
        self.batch_size = batch_size
        self.steps = steps
        used = length * batch_size
        # (L, B): consecutive in time down a column, so that a chunk is a plain slice of rows.
        self._inputs = np.ascontiguousarray(indices[:used].reshape(batch_size, length).T)
        self._targets = np.ascontiguousarray(indices[1 : used + 1].reshape(batch_size, length).T)

    def __len__(self) -> int:
        """Chunks in one pass over the sequence."""
        return len(self._inputs) // self.steps

    def __getitem__(self, i: int) -> Chunk:  # type: ignore[override]  # one chunk at a time, no slices
        """Chunk ``i``, 0 … len − 1.

        Raises:
            IndexError: out of range.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"chunk {i} of a partition that has {len(self)}")
        rows = slice(i * self.steps, (i + 1) * self.steps)
        return self._inputs[rows], self._targets[rows]
