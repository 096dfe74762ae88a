"""Attention: a mean of what an encoder wrote, weighted by how well each place fits a query.

e⟨t,s⟩ = score(query⟨t⟩, memory⟨s⟩), α⟨t,·⟩ = softmax over s of e⟨t,·⟩, context⟨t⟩ = Σₛ α⟨t,s⟩
memory⟨s⟩. The scores differ: `AdditiveAttention` is Bahdanau's, `DotAttention` Luong's.
"""

from __future__ import annotations

import math

import numpy as np

from tinyseq import errors, functional, graph, op, ops
from tinyseq.arguments import Size, checked
from tinyseq.nn import init
from tinyseq.nn.layers import Linear
from tinyseq.nn.module import Module, Parameter
from tinyseq.primitives import check
from tinyseq.tensor import Tensor

# Finite, so that nothing infinite is recorded; e to the power of it is exactly 0 beside any score.
_NEVER = -1e9


class Attention(Module):
    """What the attentions share: masked softmax over the places, and the weighted mean.

    Called ``context, weights = attention(query, memory, mask=None, keys=None)`` with query
    (T, B, H), or (B, H) for one step; memory (S, B, M); mask (S, B) of booleans, true where there
    is something to read; keys as ``self.keys(memory)`` gives them, for those who ask T times of the
    same memory. context (T, B, M), weights (T, B, S), or without T. Weights are at least 0, sum to
    1 over s, and are exactly 0 behind a mask; where that leaves a sequence nothing, weights and
    context are 0.

    ``before`` says where an `EncoderDecoder` asks: before the decoder's step, with its last output
    as the query, or after it. Raises `ShapeError` for sizes that do not fit.
    """

    before: bool = False

    @checked
    def __init__(self, query_size: Size, memory_size: Size) -> None:
        self.query_size = int(query_size)
        self.memory_size = int(memory_size)

    query_size: Size
    memory_size: Size

    @checked
    def keys(self, memory: op.TensorLike) -> Tensor:
        """The part of the score that depends on the memory alone: (S, B, M) → (S, B, K)."""
        return self._read(memory)

    def _read(self, memory: op.TensorLike) -> Tensor:
        """The memory; `ShapeError` unless it is (S, B, M)."""
        memory = op.as_tensor(memory)
        if memory.ndim != 3 or memory.shape[2] != self.memory_size:
            raise errors.ShapeError(
                f"{type(self).__name__}: memory has shape {errors.describe(memory.shape)}, "
                f"expected (S, B, M={self.memory_size})."
            )
        return memory

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """query (T, B, H), keys (S, B, K) → (B, T, S)."""
        raise NotImplementedError(f"{type(self).__name__} has no score yet: give it scores().")

    def forward(
        self,
        query: op.TensorLike,
        memory: op.TensorLike,
        mask: op.TensorLike | None = None,
        keys: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        query, memory = op.coerce((query, memory))
        one = query.ndim == 2
        if one:
            query = ops.reshape(query, 1, *query.shape)
        self._check(query, memory)
        if keys is None:
            keys = self.keys(memory)
        elif keys.ndim != 3 or keys.shape[:2] != memory.shape[:2]:
            raise errors.ShapeError(
                f"{graph.located(type(self).__name__)}: keys of shape "
                f"{errors.describe(keys.shape)} do not go with the memory "
                f"{errors.describe(memory.shape, 'SBM')}. Pass what keys(memory) gives."
            )
        scores = self.scores(query, keys)
        if mask is not None:
            on, where = op.as_tensor(mask), graph.located(type(self).__name__)
            check(on, rule=_refuse_mask, shape=memory.shape[:2], where=where)
            on = ops.transpose(on)[:, None, :]
            scores = ops.where(on, scores, _NEVER)
        weights = functional.softmax(scores)  # (B, T, S)
        if mask is not None:
            weights = ops.where(on, weights, 0.0)  # there may be nothing to read
        context = ops.swapaxes(weights @ ops.swapaxes(memory, 0, 1), 0, 1)
        weights = ops.swapaxes(weights, 0, 1)
        return (context[0], weights[0]) if one else (context, weights)

    def _check(self, query: Tensor, memory: Tensor) -> None:
        H, M = self.query_size, self.memory_size
        if query.ndim != 3 or query.shape[2] != H or memory.ndim != 3 or memory.shape[2] != M:
            raise errors.ShapeError(
                f"{graph.located(type(self).__name__)}: query {errors.describe(query.shape)} and "
                f"memory {errors.describe(memory.shape)}, expected (T, B, H={H}) and "
                f"(S, B, M={M}). Make the attention with these sizes."
            )
        if query.shape[1] != memory.shape[1] or memory.shape[0] == 0:
            raise errors.ShapeError(
                f"{graph.located(type(self).__name__)}: query "
                f"{errors.describe(query.shape, 'TBH')} and memory "
                f"{errors.describe(memory.shape, 'SBM')} need the same batch B, and S ≥ 1."
            )

    def _describe(self) -> str:
        return f"{self.query_size}, {self.memory_size}"


def _refuse_mask(on: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    if on.dtype != bool or on.shape != shape:
        raise errors.ShapeError(
            f"{where}: the mask must be booleans (S, B) = {errors.describe(shape)}, got {on.dtype} "
            f"of shape {errors.describe(on.shape)}."
        )


class AdditiveAttention(Attention):
    """score(q, m) = tanh(q w_q + m w_m + b) · v. Bahdanau, Cho and Bengio, 2015.

    ``w_q`` (H, A), ``w_m`` (M, A), ``b`` (A), ``v`` (A); A is ``attention_size``, by default H.
    Asked before the decoder's step, as in the paper.
    """

    before = True

    @checked
    def __init__(
        self,
        query_size: Size,
        memory_size: Size,
        attention_size: Size | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(query_size, memory_size)
        A = query_size if attention_size is None else int(attention_size)
        self.w_q = Parameter(init.glorot_uniform((query_size, A), rng))
        self.w_m = Parameter(init.glorot_uniform((memory_size, A), rng))
        self.b = Parameter(init.zeros((A,)))
        self.v = Parameter(init.uniform((A,), math.sqrt(3 / A), rng))

    @checked
    def keys(self, memory: op.TensorLike) -> Tensor:
        return self._read(memory) @ self.w_m + self.b

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        asked = query @ self.w_q
        T, B, A = asked.shape
        together = ops.reshape(asked, T, 1, B, A) + keys  # (T, S, B, A)
        return ops.transpose(ops.tanh(together) @ self.v, 2, 0, 1)


class DotAttention(Attention):
    """score(q, m) = q · m, or q · (m w) with ``general=True``. Luong, Pham and Manning, 2015.

    The plain product needs H = M (`ValueError` otherwise) and has no parameters; the general one
    has ``weight.weight`` (M, H). ``scale=True`` divides by √H (Vaswani et al., 2017).
    Asked after the decoder's step, as in the paper.
    """

    @checked
    def __init__(
        self,
        query_size: Size,
        memory_size: Size,
        general: bool = False,
        scale: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(query_size, memory_size)
        if not general and query_size != memory_size:
            raise ValueError(
                f"DotAttention: query_size={query_size} and memory_size={memory_size} differ, so "
                "their product is undefined. Use general=True, which learns a weight between them."
            )
        self.weight = Linear(memory_size, query_size, bias=False, rng=rng) if general else None
        self.factor = 1 / math.sqrt(query_size) if scale else 1.0

    @checked
    def keys(self, memory: op.TensorLike) -> Tensor:
        memory = self._read(memory)
        return memory if self.weight is None else self.weight(memory)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        products = ops.swapaxes(query, 0, 1) @ ops.transpose(keys, 1, 2, 0)
        return products if self.factor == 1.0 else products * self.factor
