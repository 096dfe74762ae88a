"""One explicit source of randomness: the same seed gives the same bits, run after run.

Everything in tinyseq that draws (initialisers, dropout, sampling) takes an ``rng``; where none is
given it is the generator kept here, which starts from seed 0 and whose state can be saved with a
checkpoint and put back.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


@functools.cache
def _own() -> np.random.Generator:  # on first use: numpy.random takes a while to import
    return np.random.Generator(np.random.PCG64(0))


def generator(rng: np.random.Generator | None = None) -> np.random.Generator:
    """``rng`` itself, or the library's own generator when it is ``None``."""
    return _own() if rng is None else rng


def seed(n: int) -> None:
    """Start the library's generator over from seed ``n`` (a whole number, at least 0)."""
    _own().bit_generator.state = np.random.PCG64(n).state


def get_state() -> dict[str, Any]:
    """The generator's state as plain, JSON-able Python."""
    return dict(_own().bit_generator.state)


def set_state(state: dict[str, Any]) -> None:
    """Go on from a state that `get_state` gave."""
    _own().bit_generator.state = state
