"""tinyseq: a recurrence is written once, as its equations; everything else reads the recording of
them.

>>> import tinyseq as ts
>>> x = ts.tensor([1.0, 2.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
Tensor([2., 4.])
"""

import sys
from typing import Any

from tinyseq import backprop, display, errors, functional, graph, nn, ops, optim, primitives, random
from tinyseq.backprop import backward, detect_anomaly, grad, no_grad
from tinyseq.derivatives import hvp, jacobian
from tinyseq.gradcheck import GradcheckError, gradcheck
from tinyseq.ops import (
    astype,
    clip,
    dot,
    elu,
    gelu,
    isnan,
    leaky_relu,
    log2,
    log10,
    logical_and,
    logical_not,
    logical_or,
    masked_fill,
    matmul,
    numpy_functions,
    outer,
    round,
    silu,
    softsign,
    tan,
    tensordot,
)
from tinyseq.ops.creation import *
from tinyseq.ops.einsum import einsum
from tinyseq.ops.indexing import argsort, gather, repeat, sort, take, take_along_axis, topk
from tinyseq.ops.reductions import *
from tinyseq.ops.shaping import *
from tinyseq.primitives import *
from tinyseq.random import seed
from tinyseq.tensor import Tensor, tensor

# The one circle that a tensor library has: Tensor's methods call what is written over Tensor.
vars(sys.modules["tinyseq.tensor"]).update(
    ops=ops, backprop=backprop, display=display, numpy_functions=numpy_functions
)

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("get_num_threads", "set_num_threads"):  # numba comes with them: not before
        from tinyseq.kernels import threads

        return getattr(threads, name)
    raise AttributeError(f"module 'tinyseq' has no attribute {name!r}")


__all__ = [
    "GradcheckError", "Tensor", "argsort", "astype", "backward", "clip", "detect_anomaly", "dot",
    "einsum", "elu", "errors", "functional", "gather", "gelu", "grad", "gradcheck", "graph", "hvp",
    "isnan", "jacobian", "leaky_relu", "log2", "log10", "logical_and", "logical_not", "logical_or",
    "masked_fill", "matmul", "nn", "no_grad", "ops", "optim", "outer", "random", "repeat", "round",
    "seed", "silu", "softsign", "sort", "take", "take_along_axis", "tan", "tensor", "tensordot",
    "topk",
]  # fmt: skip
__all__ += ["get_num_threads", "set_num_threads"]  # noqa: F405  # by `__getattr__`
__all__ += [*ops.creation.__all__, *ops.reductions.__all__, *ops.shaping.__all__]
__all__ += primitives.__all__
