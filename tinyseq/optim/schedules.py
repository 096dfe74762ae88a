"""Learning-rate schedules: what the learning rate of an optimiser is after so many steps.

A schedule is made over an optimiser, whose ``lr`` at that moment is the *base*, and sets its
``lr`` from then on: call ``step()`` once after each ``optimizer.step()`` (or once an epoch: a step
is what you count). Options may be set later; out of their range they raise `ValueError` then, too.
Users take them from `tinyseq.optim`.

To go on with a run, make its optimiser and its schedules again and load their states: in any order,
each state after its owner is made. Every state holds the learning rate, which then is what it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tinyseq import states
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
from tinyseq.optim.options import Options, Steps
from tinyseq.tensor import Tensor

__all__ = ["CosineLR", "ReduceLROnPlateau", "Schedule", "StepLR"]


class _Saved(Options):
    """What is saved of a schedule: some attributes, and the learning rate of its optimiser."""

    optimizer: Optimizer
    _attributes: ClassVar[tuple[str, ...]]

    def state_dict(self) -> dict[str, float | int]:
        """Counts and rates to go on from; the options are those that it was made with."""
        return {**{name: getattr(self, name) for name in self._attributes}, "lr": self.optimizer.lr}

    @checked
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave, learning rate included.

        Raises `ValueError` that lists what is wrong with it, before anything is written.
        """
        mine = {name: np.asarray(value) for name, value in self.state_dict().items()}
        new = states.read(
            mine, state, type(self).__name__, "Make the same schedule.", self._wrong_entry
        )
        before = dict(vars(self))
        vars(self).update({name: new[name].item() for name in self._attributes})
        try:
            self._agree()
        except ValueError:
            vars(self).update(before)
            raise
        self.optimizer.lr = new["lr"].item()

    def _wrong_entry(self, name: str, array: np.ndarray) -> str | None:
        return (self.optimizer if name == "lr" else self)._wrong(name, array)


class Schedule(_Saved):
    """What the schedules share: the count of steps, the base, and their saving.

    A schedule is one method, ``rate(steps)``: the learning rate after that many steps.
    """

    steps: Steps
    base_lr: NotNegative
    _attributes = ("steps", "base_lr")

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
        lr = self._after(self.steps + 1)
        self.steps += 1
        self.optimizer.lr = lr

    @checked
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "lr" in state:
            super().load_state_dict(state)
            return
        before = dict(vars(self))  # an earlier version saved it: the rate follows from the rest
        super().load_state_dict({**state, "lr": self.optimizer.lr})
        try:
            self.optimizer.lr = self._after(self.steps)
        except ValueError:
            vars(self).update(before)
            raise

    def _after(self, steps: int) -> float:
        try:
            lr = self.rate(steps)
        except OverflowError:
            lr = math.inf
        if not 0 <= lr < math.inf:
            raise ValueError(
                f"{type(self).__name__}: the learning rate after {steps} steps from {self.base_lr} "
                f"is {lr}, and must be at least 0 and finite."
            )
        return lr


class StepLR(Schedule):
    """lr = base · gammaⁿ with n = ⌊steps / step_size⌋: a fall every ``step_size`` steps.

    Raises `ValueError` for a step_size below 1 and a gamma that is not positive and finite.
    """

    step_size: Size
    gamma: Positive

    @checked
    def __init__(self, optimizer: Optimizer, step_size: Size, gamma: Positive = 0.1) -> None:
        self.step_size = step_size
        self.gamma = gamma
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

    Raises `ValueError` unless 0 ≤ W < N and 0 ≤ min_lr, and from the first step on unless min_lr ≤
    base: until then a state may be loaded that says the base.
    """

    total_steps: Size
    warmup_steps: Count
    min_lr: NotNegative

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: Size,
        warmup_steps: Count = 0,
        min_lr: NotNegative = 0.0,
    ) -> None:
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.min_lr = min_lr
        super().__init__(optimizer)

    def _agree(self) -> None:
        options = vars(self)
        if options.get("warmup_steps", 0) >= self.total_steps:
            raise ValueError(
                f"CosineLR: warmup_steps={self.warmup_steps} leave nothing of total_steps="
                f"{self.total_steps}. Warm up for fewer, or train for more."
            )
        if options.get("steps") and self.min_lr > self.base_lr:
            raise ValueError(
                f"CosineLR: min_lr={self.min_lr} must be at most the base, the lr="
                f"{self.base_lr} that the optimiser had. Lower it, or raise the base_lr."
            )

    @checked
    def rate(self, steps: Count) -> float:
        if steps < self.warmup_steps:
            return self.base_lr * (steps + 1) / self.warmup_steps
        falling = self.total_steps - self.warmup_steps
        done = min((steps - self.warmup_steps) / falling, 1.0)
        return self.min_lr + (self.base_lr - self.min_lr) * (1 + math.cos(math.pi * done)) / 2


class ReduceLROnPlateau(_Saved):
    """lr ← max(factor · lr, min_lr) when a metric has not got better for a while.

    ``step(metric)`` after each evaluation: more than ``patience`` of them in a row that are no
    better than the best so far lower the learning rate, and for ``cooldown`` more nothing is
    counted. Better is, for ``mode="min"``, less than best · (1 − threshold), or less than
    best − threshold for ``threshold_mode="abs"``; for ``mode="max"``, more than best · (1 +
    threshold), or than best + threshold. Options and defaults are PyTorch's.

    Raises `ValueError` for options out of their range and for a metric that is NaN.
    """

    mode: Annotated[str, one_of("min", "max")]
    factor: Annotated[float, Within(lambda x: 0 < x < 1, "above 0 and below 1")]
    patience: Count
    threshold: NotNegative
    threshold_mode: Annotated[str, one_of("rel", "abs")]
    cooldown: Count
    min_lr: NotNegative
    best: float
    bad: Count
    cooling: Count
    _attributes = ("best", "bad", "cooling")

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
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.best = math.inf if mode == "min" else -math.inf
        self.bad = 0
        self.cooling = 0

    def _agree(self) -> None:
        if vars(self).get("threshold_mode") == "rel" and self.threshold >= 1:
            raise ValueError(
                f"{type(self).__name__}: threshold={self.threshold} must be below 1 when relative."
            )

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
