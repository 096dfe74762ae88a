"""Optimisers, learning-rate schedules, gradient clipping, and averaging over processes."""

from tinyseq.optim import optimizers, parallel, schedules
from tinyseq.optim.clipping import clip_grad_norm, clip_grad_norm_each, clip_grad_value
from tinyseq.optim.optimizers import *
from tinyseq.optim.parallel import *
from tinyseq.optim.schedules import *

__all__ = [
    "clip_grad_norm", "clip_grad_norm_each", "clip_grad_value",
    *optimizers.__all__, *parallel.__all__, *schedules.__all__,
]  # fmt: skip
