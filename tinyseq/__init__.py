"""tinyseq: a recurrence is written once, as its equations; everything else reads the recording of
them.

>>> import tinyseq as ts
>>> x = ts.tensor([1.0, 2.0], requires_grad=True)
>>> (x * x).sum().backward()
>>> x.grad
Tensor([2., 4.])
"""

from tinyseq import errors, functional, graph, nn, ops, optim, random
from tinyseq.backprop import backward, detect_anomaly, grad, no_grad
from tinyseq.derivatives import hvp, jacobian
from tinyseq.gradcheck import GradcheckError, gradcheck
from tinyseq.ops import (
    abs,
    add,
    astype,
    broadcast_to,
    concat,
    div,
    exp,
    log,
    logsumexp,
    matmul,
    max,
    maximum,
    mean,
    min,
    minimum,
    mul,
    neg,
    pow,
    relu,
    reshape,
    sigmoid,
    sign,
    softplus,
    split,
    sqrt,
    stack,
    sub,
    sum,
    swapaxes,
    tanh,
    transpose,
    where,
)
from tinyseq.random import seed
from tinyseq.tensor import Tensor, tensor

__version__ = "0.1.0"

__all__ = [
    "GradcheckError",
    "Tensor",
    "abs",
    "add",
    "astype",
    "backward",
    "broadcast_to",
    "concat",
    "detect_anomaly",
    "div",
    "errors",
    "exp",
    "functional",
    "grad",
    "gradcheck",
    "graph",
    "hvp",
    "jacobian",
    "log",
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
    "pow",
    "random",
    "relu",
    "reshape",
    "seed",
    "sigmoid",
    "sign",
    "softplus",
    "split",
    "sqrt",
    "stack",
    "sub",
    "sum",
    "swapaxes",
    "tanh",
    "tensor",
    "transpose",
    "where",
]
