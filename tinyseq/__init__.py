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

from tinyseq import backprop, display, errors, functional, graph, nn, ops, optim, random
from tinyseq.backprop import backward, detect_anomaly, grad, no_grad
from tinyseq.derivatives import hvp, jacobian
from tinyseq.gradcheck import GradcheckError, gradcheck
from tinyseq.ops import (
    abs,
    add,
    all,
    any,
    argmax,
    argmin,
    argsort,
    astype,
    broadcast_to,
    chunk,
    clip,
    concat,
    cos,
    cumsum,
    div,
    einsum,
    erf,
    exp,
    expand,
    expand_dims,
    expm1,
    flip,
    gather,
    gelu,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    logsumexp,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    mul,
    neg,
    numpy_functions,
    pad,
    permute,
    pow,
    prod,
    relu,
    reshape,
    sigmoid,
    sign,
    sin,
    softplus,
    sort,
    split,
    sqrt,
    squeeze,
    stack,
    std,
    sub,
    sum,
    swapaxes,
    take_along_axis,
    tanh,
    transpose,
    var,
    where,
)
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
    "GradcheckError",
    "Tensor",
    "abs",
    "add",
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "astype",
    "backward",
    "broadcast_to",
    "chunk",
    "clip",
    "concat",
    "cos",
    "cumsum",
    "detect_anomaly",
    "div",
    "einsum",
    "erf",
    "errors",
    "exp",
    "expand",
    "expand_dims",
    "expm1",
    "flip",
    "functional",
    "gather",
    "gelu",
    "get_num_threads",
    "grad",
    "gradcheck",
    "graph",
    "hvp",
    "jacobian",
    "log",
    "log1p",
    "logical_and",
    "logical_not",
    "logical_or",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mul",
    "neg",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "pad",
    "permute",
    "pow",
    "prod",
    "random",
    "relu",
    "reshape",
    "seed",
    "set_num_threads",
    "sigmoid",
    "sign",
    "sin",
    "softplus",
    "sort",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "swapaxes",
    "take_along_axis",
    "tanh",
    "tensor",
    "transpose",
    "var",
    "where",
]
