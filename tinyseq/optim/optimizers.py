"""Optimisers: from gradients to the next values of the parameters.

An optimiser reads ``p.grad`` of the parameters it was given and writes into them in place; its
buffers travel with ``state_dict``. Update rules and defaults are PyTorch's, as are its names. One
optimiser has one learning rate: for parameters that want another, make another optimiser.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from tinyseq import errors, graph, states
from tinyseq.arguments import Fraction, NotNegative, checked
from tinyseq.kernels import load
from tinyseq.optim.options import MOST, Options
from tinyseq.tensor import FLOATS, Tensor

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "NAdam", "Optimizer", "RMSprop"]


class Optimizer(Options):
    """What the optimisers share: the parameters, the learning rate, the buffers and their saving.

    ``weight_decay`` λ adds λ·p to the gradient. A parameter without a gradient is left alone, and
    so are its buffers. A rule is one method, ``update(p, g, t, *buffers)``: it changes the array p
    in place, given its gradient g, for the t-th time (from 1).

    Options may be set later, as in ``optimizer.lr = 0.01``. Raises `ValueError` for no parameters,
    one given twice or computed from others, and, then too, for options out of their range;
    `TypeError` for what is no tensor.
    """

    lr: NotNegative
    weight_decay: NotNegative
    buffer_names: tuple[str, ...] = ()
    _buffer_for: ClassVar[Mapping[str, str]] = {}  # the buffer that an option needs
    _never_negative: ClassVar[tuple[str, ...]] = ()  # buffers that hold squares
    decays_apart = False  # whether weight_decay is no part of the gradient

    @checked
    def __init__(
        self, params: Iterable[Tensor], lr: NotNegative, weight_decay: NotNegative = 0.0
    ) -> None:
        kind = type(self).__name__
        self.params = tensors(kind, params)
        for i, p in enumerate(self.params):
            if p.node is not None:
                raise ValueError(
                    f"{kind}: parameter {i} of shape {errors.describe(p.shape)} was computed from "
                    "other tensors and gets no gradient of its own. Pass the leaves, or detach() "
                    "it."
                )
        self.lr = lr
        self.weight_decay = weight_decay
        self.steps = np.zeros(len(self.params), np.int64)  # per parameter: some skip steps
        self.buffers: dict[str, list[np.ndarray]] = {
            name: [np.zeros(p.shape, p.dtype) for p in self.params] for name in self.buffer_names
        }

    def _agree(self) -> None:
        made = vars(self)
        for name, buffer in self._buffer_for.items():
            if made.get(name) and buffer not in made.get("buffers", (buffer,)):
                raise ValueError(
                    f"{type(self).__name__}: {name}={made[name]} needs a buffer for each parameter "
                    f"that this one was made without. Make a new one with {name}."
                )

    def update(self, p: np.ndarray, g: np.ndarray, t: int, *buffers: np.ndarray) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no update rule yet.")

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        graph.unrepeated(f"{type(self).__name__}.step()")
        for i, p in enumerate(self.params):
            if p.grad is None:
                continue
            self.steps[i] += 1
            buffers = [self.buffers[name][i] for name in self.buffer_names]
            self.update(p._data, self._decayed(p._data, p.grad._data), int(self.steps[i]), *buffers)
            p.changed()

    def _decayed(self, p: np.ndarray, g: np.ndarray) -> np.ndarray:
        return g + self.weight_decay * p if self.weight_decay and not self.decays_apart else g

    def zero_grad(self) -> None:
        """Forget the gradients collected so far."""
        for p in self.params:
            p.grad = None

    def _arrays(self) -> dict[str, np.ndarray]:
        named = {f"{n}.{i}": a for n, arrays in self.buffers.items() for i, a in enumerate(arrays)}
        return {"steps": self.steps, **named}

    def state_dict(self) -> dict[str, Any]:
        """``steps`` (one a parameter), ``lr``, and copies of the buffers as ``"name.i"`` for
        parameter number i.
        """
        arrays = {name: a.copy() for name, a in self._arrays().items()}
        return {"steps": arrays.pop("steps"), "lr": self.lr, **arrays}

    @checked
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave.

        Raises `ValueError` that lists what is wrong with it, before anything is written: names and
        shapes of another optimiser, and numbers that no optimiser has.
        """
        mine = self._arrays()
        new = states.read(
            {"lr": np.asarray(self.lr, np.float64), **mine},
            state,
            f"{type(self).__name__} over {len(self.params)} parameters",
            "Make the same optimiser over the same parameters.",
            self._wrong_entry,
        )
        self.lr = new.pop("lr").item()
        for name, array in new.items():
            mine[name][...] = array

    def _wrong_entry(self, name: str, array: np.ndarray) -> str | None:
        """What is wrong with the values of an entry of a state."""
        if name == "lr":
            return self._wrong(name, array)
        if name == "steps" and not ((array >= 0) & (array <= MOST)).all():
            return f"steps hold {array[(array < 0) | (array > MOST)][0]}, no number of steps"
        if name.partition(".")[0] in self._never_negative and (array < 0).any():
            return f"{name} holds {array.min()}, but a mean of squares is never negative"
        return None


def tensors(name: str, params: Iterable[Tensor]) -> list[Tensor]:
    """Several tensors as a list, each once."""
    found = list(params)
    if not found:
        raise ValueError(
            f"{name}: params holds no parameters. Pass module.parameters(). A generator can be "
            "read only once: if it was read before, make it a list first."
        )
    for i, p in enumerate(found):
        if not isinstance(p, Tensor):
            raise TypeError(
                f"{name}: params[{i}] is of type {type(p).__name__}, not a tensor. "
                "Pass module.parameters()."
            )
    if len({id(p) for p in found}) < len(found):
        raise ValueError(f"{name}: a parameter was given twice, and would count twice. Pass one.")
    return found


class SGD(Optimizer):
    """p ← p − lr·v, with v ← momentum·v + g; nesterov: p ← p − lr·(g + momentum·v).

    Without momentum v is g. Polyak, 1964; Nesterov, 1983; Sutskever et al., 2013.
    """

    momentum: NotNegative
    nesterov: bool
    _buffer_for: ClassVar[Mapping[str, str]] = {"momentum": "momentum"}

    @checked
    def __init__(
        self,
        params: Iterable[Tensor],
        lr: NotNegative = 1e-3,
        momentum: NotNegative = 0.0,
        nesterov: bool = False,
        weight_decay: NotNegative = 0.0,
    ) -> None:
        self.momentum = momentum
        self.nesterov = nesterov
        self.buffer_names = ("momentum",) if self.momentum else ()
        super().__init__(params, lr, weight_decay)

    def _agree(self) -> None:
        super()._agree()
        if vars(self).get("nesterov") and not self.momentum:
            raise ValueError(
                f"SGD: nesterov needs a momentum above 0, got momentum={self.momentum}."
            )

    def update(self, p: np.ndarray, g: np.ndarray, t: int, *buffers: np.ndarray) -> None:
        if self.momentum:
            (v,) = buffers
            if fused(p, g, v):
                load.kernels.updates.momentum(p, g, v, self.lr, self.momentum, self.nesterov)
                return
            v *= self.momentum
            v += g
            g = g + self.momentum * v if self.nesterov else v
        p -= self.lr * g


class RMSprop(Optimizer):
    """s ← α·s + (1 − α)·g²; p ← p − lr·g / (√s + ε). Hinton, 2012.

    ``centered``: √(s − m²) with m ← α·m + (1 − α)·g instead of √s, the spread of the gradient
    instead of its size (Graves, 2013). ``momentum``: v ← momentum·v + g / (√s + ε), p ← p − lr·v.
    """

    alpha: Fraction
    eps: NotNegative
    momentum: NotNegative
    centered: bool
    _buffer_for: ClassVar[Mapping[str, str]] = {"momentum": "momentum", "centered": "mean"}
    _never_negative = ("square",)

    @checked
    def __init__(
        self,
        params: Iterable[Tensor],
        lr: NotNegative = 1e-2,
        alpha: Fraction = 0.99,
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 0.0,
        momentum: NotNegative = 0.0,
        centered: bool = False,
    ) -> None:
        self.alpha = alpha
        self.eps = eps
        self.momentum = momentum
        self.centered = centered
        asked = {"square": True, "mean": self.centered, "momentum": self.momentum > 0}
        self.buffer_names = tuple(name for name, wanted in asked.items() if wanted)
        super().__init__(params, lr, weight_decay)

    def update(self, p: np.ndarray, g: np.ndarray, t: int, *buffers: np.ndarray) -> None:
        if len(buffers) == 1 and fused(p, g, *buffers):
            load.kernels.updates.rmsprop(p, g, *buffers, self.lr, self.alpha, self.eps)
            return
        named = dict(zip(self.buffer_names, buffers, strict=True))
        spread = _average(named["square"], g * g, self.alpha)
        if self.centered:
            mean = _average(named["mean"], g, self.alpha)
            spread = np.maximum(spread - mean * mean, 0)  # rounding may leave it a little below
        g = g / (np.sqrt(spread) + self.eps)
        if self.momentum:
            v = named["momentum"]
            v *= self.momentum
            v += g
            g = v
        p -= self.lr * g


class Adagrad(Optimizer):
    """s ← s + g²; p ← p − lr·g / (√s + ε): rare features keep taking large steps. Duchi et al.,
    2011.
    """

    eps: NotNegative
    buffer_names = ("square",)
    _never_negative = ("square",)

    @checked
    def __init__(
        self,
        params: Iterable[Tensor],
        lr: NotNegative = 1e-2,
        eps: NotNegative = 1e-10,
        weight_decay: NotNegative = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.eps = eps

    def update(self, p: np.ndarray, g: np.ndarray, t: int, *buffers: np.ndarray) -> None:
        (square,) = buffers
        if fused(p, g, square):
            load.kernels.updates.adagrad(p, g, square, self.lr, self.eps)
            return
        square += g * g
        p -= self.lr * g / (np.sqrt(square) + self.eps)


class Adam(Optimizer):
    """m ← β₁·m + (1 − β₁)·g; s ← β₂·s + (1 − β₂)·g²; p ← p − lr·m̂ / (√ŝ + ε).

    m̂ = m / (1 − β₁ᵗ) and ŝ = s / (1 − β₂ᵗ) undo the start at zero. Kingma and Ba, 2015.
    ``amsgrad``: the largest s so far in place of s. Reddi et al., 2018.
    """

    betas: tuple[Fraction, Fraction]
    eps: NotNegative
    amsgrad: bool
    _buffer_for: ClassVar[Mapping[str, str]] = {"amsgrad": "largest"}
    _never_negative = ("square", "largest")

    @checked
    def __init__(
        self,
        params: Iterable[Tensor],
        lr: NotNegative = 1e-3,
        betas: tuple[Fraction, Fraction] = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 0.0,
        amsgrad: bool = False,
    ) -> None:
        self.amsgrad = amsgrad
        self.buffer_names = ("mean", "square", *["largest"] * amsgrad)
        super().__init__(params, lr, weight_decay)
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = eps

    def _numbers(self, t: int) -> tuple[float, ...]:
        """What update number t multiplies by: p ← shrink·p − (rate·m + ahead·g) / (√s·steady + ε),
        as (shrink, β₁, β₂, ε, steady, rate, ahead).
        """
        shrink = 1 - self.lr * self.weight_decay if self.decays_apart else 1.0
        return shrink, *self.betas, self.eps, 1 / math.sqrt(1 - self.betas[1] ** t), *self._rates(t)

    def _rates(self, t: int) -> tuple[float, float]:
        return self.lr / (1 - self.betas[0] ** t), 0.0

    def update(self, p: np.ndarray, g: np.ndarray, t: int, *buffers: np.ndarray) -> None:
        mean, square, *largest = buffers
        if not largest and fused(p, g, mean, square):
            load.kernels.updates.adam(p, g, mean, square, self._numbers(t))
            return
        shrink, beta1, beta2, eps, steady, rate, ahead = self._numbers(t)
        _average(mean, g, beta1)
        _average(square, g * g, beta2)
        if self.amsgrad:
            square = np.maximum(largest[0], square, out=largest[0])
        if shrink != 1:
            p *= shrink
        p -= (rate * mean + ahead * g) / (np.sqrt(square) * steady + eps)


class AdamW(Adam):
    """`Adam` with its weight decay λ apart from the gradient: p ← (1 − lr·λ)·p before each update.

    So every parameter decays at the same rate, whatever the size of its gradients. Loshchilov and
    Hutter, 2019.
    """

    decays_apart = True

    @checked
    def __init__(
        self,
        params: Iterable[Tensor],
        lr: NotNegative = 1e-3,
        betas: tuple[Fraction, Fraction] = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)


class NAdam(Adam):
    """`Adam` with Nesterov's look ahead: p ← p − lr·(μₜ₊₁·m / (1 − Πμₛ, s ≤ t + 1) + (1 − μₜ)·g /
    (1 − Πμₛ, s ≤ t)) / (√ŝ + ε), with μₜ = β₁·(1 − 0.96^(t·momentum_decay) / 2).

    ``decoupled_weight_decay``: as in `AdamW`. Dozat, 2016.
    """

    momentum_decay: NotNegative
    decoupled_weight_decay: bool

    @checked
    def __init__(
        self,
        params: Iterable[Tensor],
        lr: NotNegative = 2e-3,
        betas: tuple[Fraction, Fraction] = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 0.0,
        momentum_decay: NotNegative = 4e-3,
        decoupled_weight_decay: bool = False,
    ) -> None:
        self.momentum_decay = momentum_decay
        self.decoupled_weight_decay = decoupled_weight_decay
        super().__init__(params, lr, betas, eps, weight_decay)

    @property
    def decays_apart(self) -> bool:  # type: ignore[override]
        return self.decoupled_weight_decay

    def _rates(self, t: int) -> tuple[float, float]:
        beta, decay = self.betas[0], self.momentum_decay
        now, following = _momentum(beta, decay, t), _momentum(beta, decay, t + 1)
        enough = math.ceil(-40 / math.log(beta)) if beta else 1  # e⁻⁴⁰ beside 1 is nothing
        product = _product(beta, decay, min(t, enough))
        return self.lr * following / (1 - product * following), self.lr * (1 - now) / (1 - product)


def _momentum(beta: float, decay: float, t: Any) -> Any:
    return beta * (1 - 0.5 * 0.96 ** (t * decay))


@functools.lru_cache
def _product(beta: float, decay: float, t: int) -> float:
    return float(np.prod(_momentum(beta, decay, np.arange(1, t + 1))))


def fused(*arrays: np.ndarray) -> bool:
    """Whether there is a kernel and it can take these: it looks at no shapes, and writes to plain
    memory.
    """
    if load.kernels is None:
        return False
    shape, dtype = arrays[0].shape, arrays[0].dtype
    if dtype not in FLOATS:
        return False
    for a in arrays:  # noqa: SIM110  # a generator would cost more than the kernel's call
        if a.shape != shape or a.dtype != dtype or not a.flags.carray:
            return False
    return True


def _average(a: np.ndarray, x: np.ndarray, keep: float) -> np.ndarray:
    """a ← keep·a + (1 − keep)·x, in place: the running average of the optimisers."""
    a *= keep
    a += (1 - keep) * x
    return a
