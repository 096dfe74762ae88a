"""What is composed from ops: softmax and its kin, one-hot vectors, and the losses (from
`tinyseq.functional.losses` and `tinyseq.functional.ctc`), all under one name.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinyseq import op, ops
from tinyseq.arguments import Count, checked
from tinyseq.functional.ctc import ctc_loss
from tinyseq.functional.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    centred,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    sequence_loss,
)
from tinyseq.functional.targets import as_indices as as_indices
from tinyseq.tensor import Axis, Tensor

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "ctc_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "log_sigmoid",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "sequence_loss",
    "softmax",
]


def softmax(x: op.TensorLike, axis: Axis = -1) -> Tensor:
    """yᵢ = e^xᵢ / Σⱼ e^xⱼ along an axis, without overflow. Same shape and dtype as x."""
    return ops.exp(_log_softmax(x, axis, "softmax"))


def log_softmax(x: op.TensorLike, axis: Axis = -1) -> Tensor:
    """yᵢ = xᵢ − ln Σⱼ e^xⱼ along an axis, without overflow. Same shape and dtype as x."""
    return _log_softmax(x, axis, "log_softmax")


def _log_softmax(x: op.TensorLike, axis: Axis, name: str) -> Tensor:
    x = op.as_tensor(x, None, name)
    axes = ops.normalize_axes(axis, x.ndim, name)
    x = centred(x, axes)
    return x - ops.logsumexp(x, axes, keepdims=True)


def log_sigmoid(x: op.TensorLike) -> Tensor:
    """y = ln σ(x) = −ln(1 + e⁻ˣ), without overflow and never ln 0. Same shape and dtype as x."""
    return -ops.softplus(-op.as_tensor(x, None, "log_sigmoid"))


@checked
def one_hot(indices: op.TensorLike, size: Count, dtype: npt.DTypeLike = np.float32) -> Tensor:
    """Vectors of zeros with a one at each index: shape (...) of whole numbers gives (..., size).

    Raises `IndexError` for an index outside of 0 … size − 1.
    """
    index = as_indices(indices, size, "one_hot: indices", "size")
    return ops.astype(ops.equal(index[..., None], np.arange(size)), dtype)


globals().update(ops.axes.say_axis(globals(), __all__))
