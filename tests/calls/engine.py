"""Right calls of tensors, ops, losses and gradients: what makes (call, arguments), by name."""

import numpy as np

import tinyseq as ts
from tinyseq import functional

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


def x():
    return ts.tensor(X, requires_grad=True)


CALLS = {
    "functional.softmax": lambda: (functional.softmax, {"x": x(), "axis": 1}),
}

# What is no call of a user's, with the reason.
LEFT_OUT: dict[str, str] = {}
