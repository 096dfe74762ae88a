"""Layers without a state: Linear, Embedding, LayerNorm, Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyseq import errors, graph, op, ops
from tinyseq import primitives as raw
from tinyseq.arguments import Fraction, Positive, Size, checked
from tinyseq.functional import as_indices
from tinyseq.nn import init
from tinyseq.nn.module import Module, Parameter
from tinyseq.random import generator
from tinyseq.tensor import FLOATS, Tensor

__all__ = ["Dropout", "Embedding", "LayerNorm", "Linear"]


class Linear(Module):
    """y = x w + b: x (..., D) → y (..., H); ``weight`` (D, H) is Glorot, ``bias`` (H) zeros.

    Row vectors: PyTorch's weight is the transpose. Raises `ShapeError` when the last axis of x is
    not D.
    """

    in_features: Size
    out_features: Size
    weight: Tensor
    bias: Tensor | None

    @checked
    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        bias: bool = True,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.in_features = int(in_features)
        self.out_features = int(out_features)
        self.weight = Parameter(init.glorot_uniform((in_features, out_features), rng))
        self.bias = Parameter(init.zeros((out_features,))) if bias else None

    def forward(self, x: op.TensorLike) -> Tensor:
        x = op.as_tensor(x)
        _check_features(x, self.in_features, "Linear", "in_features")
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class Embedding(Module):
    """y = weight[i]: whole numbers (...) → rows (..., D) of ``weight`` (V, D), at first N(0, 1).

    The same as a one-hot vector times the weight, without the vector. ``padding_idx``: a symbol,
    counted from the end if negative, whose vector starts as zeros and gets no gradient. Where it is
    called with ``zeros=True``, −1 stands for the zero vector. Raises `IndexError` for any other
    index outside of 0 … V − 1 and `DtypeError` for indices that are not whole numbers.
    """

    num_embeddings: Size
    embedding_dim: Size
    padding_idx: int | None
    weight: Tensor

    @checked
    def __init__(
        self,
        num_embeddings: Size,
        embedding_dim: Size,
        rng: np.random.Generator | None = None,
        *,
        padding_idx: int | None = None,
    ) -> None:
        V = self.num_embeddings = int(num_embeddings)
        self.embedding_dim = int(embedding_dim)
        self.weight = Parameter(init.normal((num_embeddings, embedding_dim), rng=rng))
        if padding_idx is not None:
            if not -V <= padding_idx < V:
                raise ValueError(
                    f"Embedding: padding_idx={padding_idx} is no symbol, 0 … {V - 1} (V={V})."
                )
            padding_idx %= V
            self.weight._data[padding_idx] = 0
        self.padding_idx = padding_idx

    def forward(self, indices: op.TensorLike, zeros: bool = False) -> Tensor:
        if zeros is not False and not isinstance(zeros, bool | np.bool_):
            raise TypeError(f"Embedding: zeros={zeros!r} must be True or False.")
        least = -1 if zeros else 0
        index = as_indices(indices, self.num_embeddings, "Embedding: indices", "V", least)
        if zeros:
            rows: Tensor = raw.lookup(self.weight, index)
        else:
            rows = raw.getitem(self.weight, index, index=raw.ARRAY)
        if self.padding_idx is None:
            return rows
        return ops.where((index == self.padding_idx)[..., None], rows.detach(), rows)


class LayerNorm(Module):
    """y = (x − mean) / √(var + ε) · γ + β over the last axis: x (..., D) → y (..., D).

    Each row is brought to mean 0 and variance 1 by itself, whatever the rest of the batch is.
    ``features``: D, or the shape of the last axes, all of which are then brought to that together.
    ``weight`` γ (D) starts as ones, ``bias`` β (D) as zeros; ``eps``, above 0, is ε. Raises
    `ShapeError` when the last axes of x are not D. Ba, Kiros and Hinton, 2016.
    """

    features: Size | tuple[Size, ...]
    eps: Positive
    weight: Tensor
    bias: Tensor | None

    @checked
    def __init__(
        self, features: Size | tuple[Size, ...], eps: Positive = 1e-5, bias: bool = True
    ) -> None:
        one = isinstance(features, int | np.integer)
        shape = tuple(map(int, [features] if one else features))  # type: ignore[arg-type]
        if not shape:
            raise ValueError("LayerNorm: features=() leaves nothing to norm. Give it one axis.")
        self.features = shape[0] if len(shape) == 1 else shape
        self.eps = float(eps)
        self.weight = Parameter(np.ones(shape, np.float32))
        self.bias = Parameter(init.zeros(shape)) if bias else None

    def forward(self, x: op.TensorLike) -> Tensor:
        x = op.as_tensor(x)
        _check_features(x, self.features, "LayerNorm", "features")
        axes = -1 if isinstance(self.features, int) else tuple(range(-len(self.features), 0))
        centred = x - ops.mean(x, axes, keepdims=True)
        variance = ops.mean(centred * centred, axes, keepdims=True)
        y = centred / ops.sqrt(variance + self.eps) * self.weight
        return y if self.bias is None else y + self.bias

    def _describe(self) -> str:
        return f"{self.features}, eps={self.eps}"


class Dropout(Module):
    """y = x · m / (1 − p), with m drawn anew at each call: 0 with probability p, else 1.

    Only in training mode; in evaluation y = x. Srivastava et al., 2014. The mask is drawn from
    ``rng`` (by default the library's own generator) and enters the recording as a constant.
    """

    p: Fraction
    rng: np.random.Generator | None

    @checked
    def __init__(self, p: Fraction = 0.5, rng: np.random.Generator | None = None) -> None:
        self.p = float(p)
        self.rng = rng

    def forward(self, x: op.TensorLike) -> Tensor:
        x = op.as_tensor(x)
        if not self.training or self.p == 0:
            return x
        return x * raw.draw(x, by=self._mask)

    def _mask(self, x: np.ndarray) -> np.ndarray:
        return kept_of(x.shape, self.p, x.dtype, self.rng)

    def _describe(self) -> str:
        return f"p={self.p}"


def kept_of(
    shape: tuple[int, ...], p: float, dtype: np.dtype[Any], rng: np.random.Generator | None
) -> np.ndarray:
    """A mask: 0 with probability p, else 1 / (1 − p); of what is no float, in float32."""
    dtype = dtype if dtype in FLOATS else FLOATS[0]
    keep = generator(rng).random(shape, dtype=np.float32) >= p
    return np.asarray(keep.astype(dtype) / dtype.type(1 - p))


def _check_features(x: Tensor, n: int | tuple[int, ...], layer: str, argument: str) -> None:
    if isinstance(n, tuple):
        if x.shape[-len(n) :] != n:
            raise errors.ShapeError(
                f"{graph.located(layer)}: x has shape {errors.describe(x.shape)}, and its last axes"
                f" are not the layer's {argument}={n}. Make one of them fit the other."
            )
    elif x.ndim == 0 or x.shape[-1] != n:
        raise errors.ShapeError(
            f"{graph.located(layer)}: x has shape {errors.describe(x.shape)}, "
            f"{f'D={x.shape[-1]} features' if x.ndim else 'no features'} in its last axis, but the "
            f"layer was made for {argument}={n}. Make one of them fit the other."
        )
