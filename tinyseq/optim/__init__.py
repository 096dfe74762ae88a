"""Optimisers, learning-rate schedules and gradient clipping."""

from tinyseq.optim import optimizers, schedules
from tinyseq.optim.clipping import clip_grad_norm, clip_grad_norm_each, clip_grad_value
from tinyseq.optim.optimizers import *
from tinyseq.optim.schedules import *

__all__ = [
    "clip_grad_norm", "clip_grad_norm_each", "clip_grad_value",
    *optimizers.__all__, *schedules.__all__,
]  # fmt: skip
