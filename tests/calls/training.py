"""Right calls of optimisers, schedules and clipping."""

import numpy as np

import tinyseq as ts
from tinyseq import optim


def params():
    p = ts.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    p.grad = ts.tensor(np.full((2, 3), 0.5, np.float32))
    return [p]


def made(kind, **options):
    """The constructor, over parameters that may be read many times."""
    return lambda: (kind, {"params": params(), "lr": 0.1, "weight_decay": 0.0, **options})


class Alone:
    """A communicator of one rank, as mpi4py's are."""

    def Get_rank(self):
        return 0

    def Get_size(self):
        return 1

    def Allreduce(self, sendbuf, recvbuf):
        recvbuf[...] = sendbuf

    def allgather(self, sendobj):
        return [sendobj]

    def bcast(self, obj):
        return obj


def adam():
    return optim.Adam(params())


def restoring(maker):
    def make():
        restored = maker()
        return restored.load_state_dict, {"state": restored.state_dict()}

    return make


def step_lr():
    return optim.StepLR(adam(), 2)


def plateau():
    return optim.ReduceLROnPlateau(adam())


CALLS = {
    "optim.clip_grad_norm_each": lambda: (
        optim.clip_grad_norm_each,
        {"params": params(), "max_norm": 1.0},
    ),
    "optim.clip_grad_norm": lambda: (
        optim.clip_grad_norm,
        {"params": params(), "max_norm": 1.0, "norm_type": 3.0},
    ),
    "optim.clip_grad_value": lambda: (
        optim.clip_grad_value,
        {"params": params(), "max_value": 1.0},
    ),
    "optim.average_gradients": lambda: (
        optim.average_gradients,
        {"params": params(), "comm": Alone(), "weight": 3, "loss": 0.5},
    ),
    "optim.broadcast": lambda: (optim.broadcast, {"optimizer": adam(), "comm": Alone()}),
    "optim.check_equal": lambda: (optim.check_equal, {"params": params(), "comm": Alone()}),
    "optim.Optimizer": made(optim.Optimizer),
    "optim.SGD": made(optim.SGD, momentum=0.9, nesterov=True),
    "optim.RMSprop": made(optim.RMSprop, alpha=0.9, eps=1e-8, momentum=0.1, centered=True),
    "optim.Adagrad": made(optim.Adagrad, eps=1e-10),
    "optim.Adam": made(optim.Adam, betas=(0.9, 0.999), eps=1e-8, amsgrad=True),
    "optim.AdamW": made(optim.AdamW, betas=(0.9, 0.999), eps=1e-8, amsgrad=True),
    "optim.NAdam": made(
        optim.NAdam,
        betas=(0.9, 0.999),
        eps=1e-8,
        momentum_decay=4e-3,
        decoupled_weight_decay=True,
    ),
    "optim.Optimizer.load_state_dict": restoring(adam),
    "optim.Schedule.load_state_dict": restoring(step_lr),
    "optim.ReduceLROnPlateau.load_state_dict": restoring(plateau),
    "optim.StepLR": lambda: (
        optim.StepLR,
        {"optimizer": adam(), "step_size": 2, "gamma": 0.5},
    ),
    "optim.StepLR.rate": lambda: (step_lr().rate, {"steps": 3}),
    "optim.CosineLR": lambda: (
        optim.CosineLR,
        {"optimizer": adam(), "total_steps": 10, "warmup_steps": 2, "min_lr": 1e-5},
    ),
    "optim.CosineLR.rate": lambda: (optim.CosineLR(adam(), 10).rate, {"steps": 3}),
    "optim.ReduceLROnPlateau": lambda: (
        optim.ReduceLROnPlateau,
        {
            "optimizer": adam(),
            "mode": "min",
            "factor": 0.5,
            "patience": 1,
            "threshold": 1e-4,
            "threshold_mode": "rel",
            "cooldown": 0,
            "min_lr": 0.0,
        },
    ),
    "optim.ReduceLROnPlateau.step": lambda: (plateau().step, {"metric": 1.0}),
}

LEFT_OUT = {
    "optim.Schedule": "what schedules share: its rate is for them to say",
    "optim.Schedule.rate": "for a schedule to say",
    **{
        f"optim.{kind}.update": "the rule that step() goes by, on arrays that it prepares"
        for kind in ("Optimizer", "SGD", "RMSprop", "Adagrad", "Adam")
    },
}
