"""Optimisers, learning-rate schedules and gradient clipping."""

from tinyseq.optim.clipping import clip_grad_norm, clip_grad_value
from tinyseq.optim.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from tinyseq.optim.schedules import CosineLR, ReduceLROnPlateau, Schedule, StepLR

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineLR",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "StepLR",
    "clip_grad_norm",
    "clip_grad_value",
]
