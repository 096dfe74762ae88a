"""Learning-rate schedules: what the learning rate of an optimiser is after so many steps.

A schedule is made over an optimiser, whose ``lr`` at that moment is the *base*, and sets its
``lr`` from then on: call ``step()`` once after each ``optimizer.step()`` (or once an epoch: a step
is what you count). Users take them from `tinyseq.optim`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt

from tinyseq.arguments import (
    Count,
    NotNegative,
    Positive,
    Size,
    Within,
    checked,
    one_of,
    shown,
)
from tinyseq.optim.optimizers import Optimizer
from tinyseq.tensor import Tensor

__all__ = ["CosineLR", "ReduceLROnPlateau", "Schedule", "StepLR"]


class Schedule:
    """What the schedules share: the count of steps, the base, and their saving.

    A schedule is one method, ``rate(steps)``: the learning rate after that many steps.
    """

    @checked
    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lr = optimizer.lr
        self.steps = 0
        optimizer.lr = self.rate(0)

    def rate(self, steps: Count) -> float:
        """The learning rate after so many steps."""
        raise NotImplementedError(f"{type(self).__name__} does not say its rate yet.")

    def step(self) -> None:
        """Count one step and set the optimiser's learning rate."""
        self.steps += 1
        self.optimizer.lr = self.rate(self.steps)

    def state_dict(self) -> dict[str, float | int]:
        """``steps`` and ``base_lr``; the options are those that the schedule was made with."""
        return {"steps": self.steps, "base_lr": self.base_lr}

    @checked
    def load_state_dict(self, state: Mapping[str, float | int]) -> None:
        """Go on from a state that `state_dict` gave, learning rate included."""
        state = _fitting(self, state)
        self.steps, self.base_lr = int(state["steps"]), float(state["base_lr"])
        self.optimizer.lr = self.rate(self.steps)


class StepLR(Schedule):
    """lr = base · gammaⁿ with n = ⌊steps / step_size⌋: a fall every ``step_size`` steps.

    Raises `ValueError` for a step_size below 1 and a gamma that is not positive and finite.
    """

    @checked
    def __init__(self, optimizer: Optimizer, step_size: Size, gamma: Positive = 0.1) -> None:
        self.step_size = int(step_size)
        self.gamma = float(gamma)
        super().__init__(optimizer)

    @checked
    def rate(self, steps: Count) -> float:
        return float(self.base_lr * self.gamma ** (steps // self.step_size))


class CosineLR(Schedule):
    """Up in a line to the base, then down in half a cosine wave to ``min_lr``, where it stays.

    With W ``warmup_steps`` and N ``total_steps``: lr = base · (steps + 1) / W while steps < W, then
    min_lr + (base − min_lr) · (1 + cos(π · (steps − W) / (N − W))) / 2. So the first step is not
    wasted on a learning rate of 0. Loshchilov and Hutter, 2017; the warm-up is that of Goyal et
    al., 2017.

    Raises `ValueError` unless 0 ≤ W < N and 0 ≤ min_lr ≤ base.
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Size,
        warmup_steps: Count = 0,
        min_lr: NotNegative = 0.0,
    ) -> None:
        self.total_steps, self.warmup_steps = int(total_steps), int(warmup_steps)
        if warmup_steps >= total_steps:
            raise ValueError(
                f"CosineLR: warmup_steps={warmup_steps} leave nothing of total_steps="
                f"{total_steps}. Warm up for fewer, or train for more."
            )
        if min_lr > optimizer.lr:
            raise ValueError(
                f"CosineLR: min_lr={min_lr} must be from 0 to the optimiser's lr={optimizer.lr}."
            )
        self.min_lr = float(min_lr)
        super().__init__(optimizer)

    @checked
    def rate(self, steps: Count) -> float:
        if steps < self.warmup_steps:
            return self.base_lr * (steps + 1) / self.warmup_steps
        falling = self.total_steps - self.warmup_steps
        done = min((steps - self.warmup_steps) / falling, 1.0)
        return self.min_lr + (self.base_lr - self.min_lr) * (1 + math.cos(math.pi * done)) / 2


class ReduceLROnPlateau:
    """lr ← max(factor · lr, min_lr) when a metric has not got better for a while.

    ``step(metric)`` after each evaluation: more than ``patience`` of them in a row that are no
    better than the best so far lower the learning rate, and for ``cooldown`` more nothing is
    counted. Better is, for ``mode="min"``, less than best · (1 − threshold), or less than
    best − threshold for ``threshold_mode="abs"``; for ``mode="max"``, more than best · (1 +
    threshold), or than best + threshold. Options and defaults are PyTorch's.

    Raises `ValueError` for options out of their range and for a metric that is NaN.
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        mode: Annotated[str, one_of("min", "max")] = "min",
        factor: Annotated[float, Within(lambda x: 0 < x < 1, "above 0 and below 1")] = 0.1,
        patience: Count = 10,
        threshold: NotNegative = 1e-4,
        threshold_mode: Annotated[str, one_of("rel", "abs")] = "rel",
        cooldown: Count = 0,
        min_lr: NotNegative = 0.0,
    ) -> None:
        if threshold_mode == "rel" and threshold >= 1:
            raise ValueError(
                f"{type(self).__name__}: threshold={threshold} must be below 1 when relative."
            )
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = int(patience)
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = int(cooldown)
        self.min_lr = min_lr
        self.best = math.inf if mode == "min" else -math.inf
        self.bad = 0
        self.cooling = 0

    @checked
    def step(self, metric: Tensor | npt.ArrayLike) -> None:
        """Take in one evaluation, and lower the optimiser's learning rate if it is time."""
        if np.size(metric) != 1:
            raise ValueError(
                f"ReduceLROnPlateau.step: metric={shown(metric)} must be one number. Reduce it "
                "first: mean, max."
            )
        metric = float(metric if isinstance(metric, Tensor) else np.asarray(metric).item())
        if math.isnan(metric):
            raise ValueError(
                "ReduceLROnPlateau: the metric is nan, neither better nor worse. Inside "
                "ts.detect_anomaly() the model names the op, the parameter or the input that it "
                "comes from."
            )
        if self._better(metric):
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.cooling:
            self.cooling -= 1
            self.bad = 0
        if self.bad > self.patience:
            lr = self.optimizer.lr
            self.optimizer.lr = min(lr, max(self.factor * lr, self.min_lr))
            self.bad, self.cooling = 0, self.cooldown

    def _better(self, metric: float) -> bool:
        down = self.mode == "min"
        by = -self.threshold if down else self.threshold
        bound = self.best * (1 + by) if self.threshold_mode == "rel" else self.best + by
        return metric < bound if down else metric > bound

    def state_dict(self) -> dict[str, float | int]:
        """``best``, ``bad`` and ``cooling`` (counts) and ``lr``; the options are those that the
        schedule was made with.
        """
        return {
            "best": self.best,
            "bad": self.bad,
            "cooling": self.cooling,
            "lr": self.optimizer.lr,
        }

    @checked
    def load_state_dict(self, state: Mapping[str, float | int]) -> None:
        """Go on from a state that `state_dict` gave, learning rate included."""
        state = _fitting(self, state)
        self.best, self.optimizer.lr = float(state["best"]), float(state["lr"])
        self.bad, self.cooling = int(state["bad"]), int(state["cooling"])


def _fitting(
    schedule: Schedule | ReduceLROnPlateau, state: Mapping[str, float | int]
) -> Mapping[str, float | int]:
    wrong = sorted(set(schedule.state_dict()) ^ set(state))
    if wrong:
        raise ValueError(
            f"this state does not fit {type(schedule).__name__}: {', '.join(wrong)}. "
            "Make the same schedule."
        )
    return state
