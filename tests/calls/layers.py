"""Right calls of modules: ``nn.Linear`` is the constructor, ``nn.Linear()`` the call."""

import numpy as np

import tinyseq as ts
from tinyseq import nn


def steps():
    return ts.tensor(np.zeros((3, 2, 4), np.float32))


CALLS = {
    "nn.Linear": lambda: (
        nn.Linear,
        {"in_features": 4, "out_features": 2, "bias": True, "rng": None},
    ),
    "nn.Linear()": lambda: (nn.Linear(4, 2), {"x": steps()}),
}

LEFT_OUT: dict[str, str] = {}
