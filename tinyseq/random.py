"""Random numbers: one seed, a stream for each thread, and the same bits run after run.

Everything in tinyseq that draws (initialisers, dropout, sampling) takes an ``rng``; where none is
given it draws from the library's stream. Its state can be saved with a checkpoint and restored.

Every thread has a stream of its own, and all functions here are about that of the calling thread.
The main thread's starts from seed 0. Those of other threads are spawned from the last `seed` of the
main thread, numbered in the order in which the threads first draw. Call `seed` in a thread, or pass
generators that `spawn` gave, where each thread is to draw the same numbers in every run.

A forked process goes on from where its parent was: forked workers all draw the same numbers. The
remedy is ``rngs = ts.random.spawn(workers)`` before the fork, and ``ts.seed(rngs[i])`` in worker i.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np

from tinyseq.arguments import Count, Rule, checked, shown

__all__ = ["generator", "get_state", "seed", "set_state", "spawn"]


def _is_seed(n: Any) -> bool:
    return isinstance(n, int | np.integer) and not isinstance(n, bool) and bool(n >= 0)


#: As many bits as you like: secrets.randbits(128).
Seed = Annotated[int, Rule(_is_seed, "a whole number, at least 0", "whole numbers, at least 0")]


class _Stream(threading.local):
    generator: np.random.Generator | None = None


_stream = _Stream()
_Key = tuple[int, ...]
#: What other threads' streams are spawned from, entropy and key, and their numbers.
_root: tuple[Any, _Key, Iterator[int]] = 0, (), itertools.count()


def _own() -> np.random.Generator:  # on first use: numpy.random takes a while to import
    if _stream.generator is None:
        seeds = np.random.SeedSequence(0)
        if not _in_main():
            entropy, key, numbers = _root
            seeds = np.random.SeedSequence(entropy, spawn_key=(*key, next(numbers)))
        _stream.generator = np.random.Generator(np.random.PCG64(seeds))
    return _stream.generator


def _in_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def generator(rng: np.random.Generator | None = None) -> np.random.Generator:
    """``rng`` itself, or the library's stream when it is ``None``."""
    if rng is None:
        return _own()
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng={shown(rng)} must be a generator, such as np.random.default_rng(0), or None."
        )
    return rng


@checked
def seed(n: Seed | np.random.Generator) -> None:
    """Start the stream over from seed ``n`` (a whole number, at least 0), or go on as a generator
    that `spawn` gave would.

    In the main thread, the streams of threads that have not drawn yet follow from it, too.
    """
    global _root
    bits = n.bit_generator if isinstance(n, np.random.Generator) else np.random.PCG64(n)
    _own().bit_generator.state = bits.state
    if _in_main():
        seeds: Any = bits.seed_seq
        _root = seeds.entropy, seeds.spawn_key, itertools.count()


@checked
def spawn(n: Count) -> list[np.random.Generator]:
    """n generators, independent of each other and of the stream, for threads and processes.

    They follow from where the stream is, and move it on: the next call gives others.
    """
    entropy = _own().integers(1 << 32, size=4).tolist()
    seeds = np.random.SeedSequence(entropy).spawn(n)
    return [np.random.Generator(np.random.PCG64(s)) for s in seeds]


def get_state() -> dict[str, Any]:
    """The stream's state as plain, JSON-able Python."""
    return dict(_own().bit_generator.state)


@checked
def set_state(state: dict[str, Any]) -> None:
    """Go on from a state that `get_state` gave. Raises `ValueError`, with the stream as it was, for
    anything else.
    """
    # Tried on another one: NumPy writes half before it refuses the rest.
    bits: Any = np.random.PCG64(0)
    try:
        bits.state = state
    except (KeyError, TypeError, ValueError, OverflowError) as cause:
        raise ValueError(
            f"set_state: this state is none that get_state gave: {cause!r}."
        ) from cause
    _own().bit_generator.state = bits.state
