"""How parameters start. Each function draws one float32 array from a generator."""

from __future__ import annotations

import math

import numpy as np

from tinyseq.random import generator


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """All 0."""
    return np.zeros(shape, np.float32)


def uniform(
    shape: tuple[int, ...], bound: float, rng: np.random.Generator | None = None
) -> np.ndarray:
    """U(−bound, bound)."""
    return generator(rng).uniform(-bound, bound, shape).astype(np.float32)


def normal(
    shape: tuple[int, ...], std: float = 1.0, rng: np.random.Generator | None = None
) -> np.ndarray:
    """N(0, std²)."""
    return (generator(rng).standard_normal(shape) * std).astype(np.float32)


def glorot_uniform(
    shape: tuple[int, int], rng: np.random.Generator | None = None, fan_out: int | None = None
) -> np.ndarray:
    """U(−a, a) with a = √(6 / (fan_in + fan_out)), for a weight (fan_in, fan_out).

    For the k gates of a cell side by side, (D, k·H), pass ``fan_out=H``: each gate is a matrix of
    its own. Glorot and Bengio, 2010.
    """
    return uniform(shape, math.sqrt(6 / (shape[0] + (fan_out or shape[1]))), rng)


def orthogonal(shape: tuple[int, int], rng: np.random.Generator | None = None) -> np.ndarray:
    """Square blocks (H, H) side by side in (H, k·H), each orthogonal: it keeps the length of what
    it multiplies, so that neither state nor gradient shrinks or grows at first. Saxe et al., 2014.
    """
    H, width = shape
    blocks = []
    for _ in range(0, width, H):
        q, r = np.linalg.qr(generator(rng).standard_normal((H, H)))
        blocks.append(q * np.sign(np.diag(r)))  # without the signs, not every rotation is as likely
    return np.concatenate(blocks, axis=1)[:, :width].astype(np.float32)
