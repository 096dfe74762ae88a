"""What is composed from ops: softmax and its kin, one-hot vectors, and the losses (from
`tinyseq.functional.losses` and `tinyseq.functional.ctc`), all under one name.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinyseq import op, ops
from tinyseq.functional.ctc import ctc_loss
from tinyseq.functional.losses import (
    binary_cross_entropy_with_logits,
    centred,
    cross_entropy,
    mse_loss,
    nll_loss,
    sequence_loss,
)
from tinyseq.functional.targets import as_indices
from tinyseq.tensor import Tensor

__all__ = [
    "as_indices",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "ctc_loss",
    "log_sigmoid",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "sequence_loss",
    "softmax",
]


def softmax(x: op.TensorLike, axis: int = -1) -> Tensor:
    """yᵢ = e^xᵢ / Σⱼ e^xⱼ along an axis, without overflow. Same shape and dtype as x."""
    return ops.exp(log_softmax(x, axis))


def log_softmax(x: op.TensorLike, axis: int = -1) -> Tensor:
    """yᵢ = xᵢ − ln Σⱼ e^xⱼ along an axis, without overflow. Same shape and dtype as x."""
    x = centred(op.as_tensor(x), axis)
    return x - ops.logsumexp(x, axis, keepdims=True)


def log_sigmoid(x: op.TensorLike) -> Tensor:
    """y = ln σ(x) = −ln(1 + e⁻ˣ), without overflow and never ln 0. Same shape and dtype as x."""
    return -ops.softplus(-op.as_tensor(x))


def one_hot(indices: op.TensorLike, size: int, dtype: npt.DTypeLike = np.float32) -> Tensor:
    """Vectors of zeros with a one at each index: shape (...) of whole numbers gives (..., size).

    Raises `IndexError` for an index outside of 0 … size − 1.
    """
    index = as_indices(indices, size, "one_hot", "size")
    return ops.astype(ops.equal(index[..., None], np.arange(size)), dtype)
