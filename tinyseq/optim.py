"""Optimisers and gradient clipping.

An optimiser reads ``p.grad`` of the parameters it was given and writes into them in place; its
buffers travel with ``state_dict``. Update rules and defaults are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinyseq import errors
from tinyseq.tensor import Tensor


class Optimizer:
    """What the optimisers share: the parameters, the learning rate, the buffers and their saving.

    A rule is one method, ``update(p, g, buffers)``: it changes the array p in place, given the
    gradient g.
    """

    buffer_names: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.0) -> None:
        self.params = list(params)
        if not self.params:
            raise ValueError(
                f"{type(self).__name__}: no parameters were given. Pass module.parameters()."
            )
        if not lr >= 0:
            raise ValueError(f"{type(self).__name__}: lr={lr} must not be negative.")
        self.lr = lr
        self.weight_decay = weight_decay
        self.steps = 0
        self.buffers: dict[str, list[np.ndarray]] = {
            name: [np.zeros(p.shape, p.dtype) for p in self.params] for name in self.buffer_names
        }

    def update(self, p: np.ndarray, g: np.ndarray, *buffers: np.ndarray) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no update rule yet.")

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        self.steps += 1
        for i, p in enumerate(self.params):
            if p.grad is None:
                continue
            g = p.grad._data
            if self.weight_decay:
                g = g + self.weight_decay * p._data
            self.update(p._data, g, *(self.buffers[name][i] for name in self.buffer_names))
            p.changed()

    def zero_grad(self) -> None:
        """Forget the gradients collected so far."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """``steps``, ``lr``, and copies of the buffers as ``"name.i"`` for parameter number i."""
        out: dict[str, Any] = {"steps": self.steps, "lr": self.lr}
        for name, arrays in self.buffers.items():
            out |= {f"{name}.{i}": a.copy() for i, a in enumerate(arrays)}
        return out

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave; `ValueError` when it is another
        optimiser's.
        """
        mine = self.state_dict()
        wrong = sorted(set(mine) ^ set(state))
        wrong += [
            f"{k} has shape {errors.describe(np.shape(state[k]))}, expected "
            f"{errors.describe(np.shape(v))}"
            for k, v in mine.items()
            if k in state and np.shape(state[k]) != np.shape(v)
        ]
        if wrong:
            raise ValueError(
                f"this state does not fit {type(self).__name__} over {len(self.params)} "
                "parameters: "
                f"{', '.join(wrong)}. Make the same optimiser over the same parameters."
            )
        self.steps, self.lr = int(state["steps"]), float(state["lr"])
        for name, arrays in self.buffers.items():
            for i, a in enumerate(arrays):
                a[...] = state[f"{name}.{i}"]


class SGD(Optimizer):
    """p ← p − lr·v, with v ← momentum·v + g (v starts as the first g); nesterov: p ← p − lr·(g +
    momentum·v).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if nesterov and momentum <= 0:
            raise ValueError(f"SGD: nesterov needs a momentum above 0, got momentum={momentum}.")
        self.momentum = momentum
        self.nesterov = nesterov
        self.buffer_names = ("momentum",) if momentum else ()
        super().__init__(params, lr, weight_decay)

    def update(self, p: np.ndarray, g: np.ndarray, *buffers: np.ndarray) -> None:
        if self.momentum:
            (v,) = buffers
            v *= self.momentum
            v += g
            g = g + self.momentum * v if self.nesterov else v
        p -= self.lr * g


class RMSprop(Optimizer):
    """s ← α·s + (1 − α)·g²; p ← p − lr·g / (√s + ε). Hinton, 2012."""

    buffer_names = ("square",)

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.alpha = alpha
        self.eps = eps

    def update(self, p: np.ndarray, g: np.ndarray, *buffers: np.ndarray) -> None:
        (square,) = buffers
        square *= self.alpha
        square += (1 - self.alpha) * g * g
        p -= self.lr * g / (np.sqrt(square) + self.eps)


class Adam(Optimizer):
    """m ← β₁·m + (1 − β₁)·g; s ← β₂·s + (1 − β₂)·g²; p ← p − lr·m̂ / (√ŝ + ε).

    m̂ = m / (1 − β₁ᵗ) and ŝ = s / (1 − β₂ᵗ) undo the start at zero. Kingma and Ba, 2015.
    """

    buffer_names = ("mean", "square")

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.betas = betas
        self.eps = eps

    def update(self, p: np.ndarray, g: np.ndarray, *buffers: np.ndarray) -> None:
        mean, square = buffers
        beta1, beta2 = self.betas
        mean *= beta1
        mean += (1 - beta1) * g
        square *= beta2
        square += (1 - beta2) * g * g
        scale = np.sqrt(square)
        scale /= math.sqrt(1 - beta2**self.steps)
        scale += self.eps
        np.divide(mean, scale, out=scale)
        scale *= self.lr / (1 - beta1**self.steps)
        p -= scale


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> float:
    """g ← g · min(1, max_norm / ‖g‖), with ‖g‖ over all gradients together; returns ‖g‖ before.

    Raises `ValueError` when the norm is not finite: clipping would only spread the NaN. Pascanu et
    al., 2013.
    """
    grads = [p.grad._data for p in params if p.grad is not None]
    norm = math.sqrt(math.fsum(float(np.vdot(g, g)) for g in grads))
    if not math.isfinite(norm):
        raise ValueError(
            f"clip_grad_norm: the norm of the gradients is {norm}. Lower the learning "
            "rate, or look for "
            "the op that overflowed."
        )
    if norm > max_norm:
        for g in grads:
            g *= max_norm / norm
    return norm
