"""How parameters start. Each function makes one float32 array, drawn from ``rng``, or from the
library's own generator.

A weight is (fan_in, fan_out), for row vectors: y = x w. Where the k gates of a cell lie side by
side, (D, k·H), each is a matrix of its own: pass ``fan_out=H``.
"""

from __future__ import annotations

import math

import numpy as np

from tinyseq import errors
from tinyseq.arguments import Count, Finite, NotNegative, Size, checked
from tinyseq.random import generator

Weight = tuple[Count, ...]  # what is no weight, `_fans` refuses


@checked
def zeros(shape: tuple[Count, ...], rng: np.random.Generator | None = None) -> np.ndarray:
    """All 0; ``rng`` is there so that it goes where the others go."""
    return np.zeros(shape, np.float32)


@checked
def uniform(
    shape: tuple[Count, ...], bound: NotNegative, rng: np.random.Generator | None = None
) -> np.ndarray:
    """U(−bound, bound). Raises `ValueError` for a bound that is negative or not finite."""
    return generator(rng).uniform(-bound, bound, shape).astype(np.float32)


@checked
def normal(
    shape: tuple[Count, ...], std: NotNegative = 1.0, rng: np.random.Generator | None = None
) -> np.ndarray:
    """N(0, std²). Raises `ValueError` for an std that is negative or not finite."""
    return (generator(rng).standard_normal(shape) * std).astype(np.float32)


@checked
def glorot_uniform(
    shape: Weight, rng: np.random.Generator | None = None, fan_out: Size | None = None
) -> np.ndarray:
    """U(−a, a) with a = √(6 / (fan_in + fan_out)): the variance of `glorot_normal`. Glorot and
    Bengio, 2010.
    """
    return uniform(shape, math.sqrt(6 / _fans("glorot_uniform", shape, fan_out)), rng)


@checked
def glorot_normal(
    shape: Weight, rng: np.random.Generator | None = None, fan_out: Size | None = None
) -> np.ndarray:
    """N(0, 2 / (fan_in + fan_out)): before a tanh, neither what goes forward nor the gradient that
    comes back grows or shrinks. Glorot and Bengio, 2010.
    """
    return normal(shape, math.sqrt(2 / _fans("glorot_normal", shape, fan_out)), rng)


@checked
def he_uniform(shape: Weight, rng: np.random.Generator | None = None) -> np.ndarray:
    """U(−a, a) with a = √(6 / fan_in): the variance of `he_normal`. He et al., 2015."""
    return uniform(shape, math.sqrt(6 / _fans("he_uniform", shape, 0)), rng)


@checked
def he_normal(shape: Weight, rng: np.random.Generator | None = None) -> np.ndarray:
    """N(0, 2 / fan_in): before a relu, which drops half, what goes forward keeps its size. He et
    al., 2015.
    """
    return normal(shape, math.sqrt(2 / _fans("he_normal", shape, 0)), rng)


@checked
def orthogonal(shape: Weight, rng: np.random.Generator | None = None) -> np.ndarray:
    """Square blocks (H, H) side by side in (H, k·H), each orthogonal: it keeps the length of what
    it multiplies, so that neither state nor gradient shrinks or grows at first. Saxe et al., 2014.

    Of a block that is not whole, the columns that fit: (H, n) with n < H has orthonormal columns.
    """
    _fans("orthogonal", shape, None)
    H, width = shape
    blocks = []
    for _ in range(0, width, H):
        q, r = np.linalg.qr(generator(rng).standard_normal((H, H)))
        blocks.append(q * np.sign(np.diag(r)))  # without the signs, not every rotation is as likely
    return np.concatenate(blocks, axis=1)[:, :width].astype(np.float32)


@checked
def forget_bias(hidden_size: Size, value: Finite = 1.0) -> np.ndarray:
    """The bias of an LSTM's gates, (4·H) for u, f, o, c̃: 0, but ``value`` for the forget gate f.

    At 1 the gate starts at σ(1) ≈ 0.73, rather open: the memory, and the gradient through it,
    outlives some steps before the cell has learnt anything. Gers et al., 2000; Jozefowicz et al.,
    2015.
    """
    b = zeros((4 * hidden_size,))
    b[hidden_size : 2 * hidden_size] = value
    return b


def _fans(name: str, shape: tuple[int, ...], fan_out: int | None) -> int:
    """fan_in + fan_out of a weight."""
    if len(shape) != 2 or min(shape) < 1:
        raise errors.ShapeError(
            f"{name}: the shape {errors.describe(shape)} is not that of a weight (fan_in, fan_out)."
            " For other parameters use zeros, uniform or normal."
        )
    return shape[0] + (shape[1] if fan_out is None else fan_out)
