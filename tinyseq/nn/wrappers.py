"""Wrappers around any cell: a learned initial state, variational dropout, zoneout.

A wrapped cell is a cell again: ``cell(x, state) -> state``, with the state of the cell inside, so
that wrappers nest and go wherever a cell goes::

    nn.Stacked(*(nn.Zoneout(nn.LSTMCell(D, 128), (0.05, 0.5)) for D in (64, 128)))
    nn.Recurrent(nn.LearnedState(nn.VariationalDropout(nn.GRUCell(64, 128), 0.2, 0.3)))

What is random is drawn before the first step, for all of them: a cell with a method
``noise(x, state)`` is asked for it once a sequence, with x (T, B, D), and gives an array, or a
tuple of arrays, with T in front; step t is then ``cell(x⟨t⟩, state, noise=row t)``. The recurrence
stays the same function of its inputs at every step. In evaluation mode nothing is drawn. A wrapper
that is called by itself draws as if that one step were a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq import errors, graph, ops
from tinyseq.arguments import Count, FloatDtype, Fraction, checked, shown
from tinyseq.nn.cells import State, seen_of
from tinyseq.nn.layers import kept_of
from tinyseq.nn.module import Module, Parameter
from tinyseq.nn.recurrent import _Around, refuse_layer
from tinyseq.nn.unroll import noise_of, start_of, state_of
from tinyseq.random import generator
from tinyseq.tensor import Tensor

__all__ = ["LearnedState", "VariationalDropout", "Wrapper", "Zoneout"]


class Wrapper(_Around):
    """What the wrappers share: the cell inside, and that they pass on what they do not change.

    A wrapper of your own overrides `step`, and `draw` if it is random. Raises `TypeError` for a
    layer in place of a cell.
    """

    @checked
    def __init__(self, cell: Module) -> None:
        refuse_layer(type(self).__name__, cell)
        self.cell = cell
        self.carries_output = bool(getattr(cell, "carries_output", False))

    def noise(self, x: Tensor, state: State) -> Any:
        """(what the cell inside draws, what this wrapper draws) for x (T, B, D), or `None`."""
        if not isinstance(state, tuple | list) or not state:
            raise errors.ShapeError(
                f"{graph.located(type(self).__name__)}: the state must be a tuple of tensors, got "
                f"{shown(state)}. Pass what the layer returned, or initial_state(B)."
            )
        inside = self.cell.noise(x, state) if hasattr(self.cell, "noise") else None
        own = self.draw(x, state) if self.training else None
        return None if inside is None and own is None else (inside, own)

    def draw(self, x: Tensor, state: State) -> Any:
        """What is random here, T in front: an array, a tuple of arrays, or `None`. In training."""
        return None

    def forward(
        self,
        x: Tensor,
        state: State | Tensor | None = None,
        noise: tuple[Any, Any] | None = None,
        seen: Tensor | None = None,
    ) -> State:
        given: State = state_of(self, x, 0, state)
        if noise is None:  # nothing to draw, or called by itself
            noise = noise_of(self, x, given, one=True)
        if seen is not None:
            seen_of(seen, given[0])
        inside, own = (None, None) if noise is None else noise
        return self.step(x, given, inside, own, seen)

    def step(self, x: Tensor, state: State, inside: Any, own: Any, seen: Tensor | None) -> State:
        """One step, with this step's row of either noise, and the h that the weights see."""
        return self.step_inside(x, state, inside, seen)

    def step_inside(self, x: Tensor, state: State, noise: Any, seen: Tensor | None) -> State:
        """A step of the cell inside. One that carries h on must not carry on what is only seen."""
        extra = {} if noise is None else {"noise": noise}
        if seen is None:
            new = self.cell(x, state, **extra)
        elif getattr(self.cell, "carries_output", False):
            new = self.cell(x, state, seen=seen, **extra)
        else:
            new = self.cell(x, (seen, *state[1:]), **extra)
        return tuple(new)


class LearnedState(Wrapper):
    """A cell whose sequences start from a state that is trained, the same for every sequence.

    The parameters are called as the cell's state is, ``h0`` (H), ``c0`` (H) (``state0`` … for a
    cell without ``state_names``). They start as ``state``, a tuple of arrays (H), by default as
    what the cell's own ``initial_state`` gives: zeros. A cell of your own without that needs
    ``state``. Raises `ShapeError` when there is not one array for each name.
    """

    @checked
    def __init__(self, cell: Module, state: Sequence[npt.ArrayLike] | None = None) -> None:
        super().__init__(cell)
        rows = [s._data[0] for s in start_of(cell, 1)] if state is None else list(state)
        names = getattr(cell, "state_names", None) or [f"state{i}" for i in range(len(rows))]
        if len(names) != len(rows):
            raise errors.ShapeError(
                f"LearnedState: {len(rows)} tensors for the state ({', '.join(names)}) of "
                f"{type(cell).__name__}. Give one for each name."
            )
        self._starts = [name if name.startswith("state") else f"{name}0" for name in names]
        for name, row in zip(self._starts, rows, strict=True):
            setattr(self, name, Parameter(np.array(row, np.float32)))
        self.state_names = tuple(names)

    @checked
    def initial_state(self, batch_size: Count, dtype: FloatDtype = np.float32) -> State:
        """The trained state, repeated for each sequence of the batch: (B, H) for each part."""
        starts: Iterator[Parameter] = (getattr(self, name) for name in self._starts)
        return tuple(ops.broadcast_to(ops.astype(s, dtype), (batch_size, *s.shape)) for s in starts)


class VariationalDropout(Wrapper):
    """Dropout with one mask for all steps of a sequence: the cell sees x·m_x and h·m_h.

    A mask is 0 with probability ``p_x`` (for m_x) or ``p_h`` (for m_h), else 1 / (1 − p); each
    sequence has its own, drawn from ``rng`` once a call of the layer. In evaluation nothing is
    dropped. h·m_h is what the weights see; a cell that carries h on element by element, as a GRU
    does, carries the whole h (``carries_output = True`` says that a cell does, and takes h·m_h as
    ``cell(x, state, seen=…)``). Gal and Ghahramani, 2016.
    """

    p_x: Fraction
    p_h: Fraction
    rng: np.random.Generator | None

    @checked
    def __init__(
        self,
        cell: Module,
        p_x: Fraction = 0.5,
        p_h: Fraction = 0.5,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(cell)
        self.p_x = float(p_x)
        self.p_h = float(p_h)
        self.rng = rng

    def draw(self, x: Tensor, state: State) -> tuple[np.ndarray | None, ...]:
        return self._mask(x, x.shape, self.p_x), self._mask(x, (len(x), *state[0].shape), self.p_h)

    def _mask(self, x: Tensor, shape: tuple[int, ...], p: float) -> np.ndarray | None:
        if p == 0:
            return None
        return np.broadcast_to(kept_of(shape[1:], p, x.dtype, self.rng), shape)

    def step(self, x: Tensor, state: State, inside: Any, own: Any, seen: Tensor | None) -> State:
        m_x, m_h = (None, None) if own is None else own
        if m_x is not None:
            x = x * m_x
        if m_h is not None:
            seen = (state[0] if seen is None else seen) * m_h
        return self.step_inside(x, state, inside, seen)

    def _describe(self) -> str:
        return f"p_x={self.p_x}, p_h={self.p_h}"


class Zoneout(Wrapper):
    """Units that keep their state for a step: s' = m·s + (1 − m)·s̃, with s̃ the cell's new state.

    m is 1 with probability p, drawn from ``rng`` for each unit, step and sequence. ``p``: one
    probability for all parts of the state, or one a part, e.g. (0.05, 0.5) for an LSTM's (h, c). In
    evaluation s' is the expectation, p·s + (1 − p)·s̃. Raises `ShapeError` when ``p`` has not one
    entry for each part of the state. Krueger et al., 2017.
    """

    p: Fraction | tuple[Fraction, ...]
    rng: np.random.Generator | None

    @checked
    def __init__(
        self,
        cell: Module,
        p: Fraction | Sequence[Fraction] = 0.1,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(cell)
        self.p = float(p) if isinstance(p, float | int | np.number) else tuple(map(float, p))
        self.rng = rng
        self.carries_output = True  # a unit that keeps its state keeps all of it

    def _rates(self, state: State) -> tuple[float, ...]:
        rates = self.p if isinstance(self.p, tuple) else (self.p,) * len(state)
        if len(rates) != len(state):
            raise errors.ShapeError(
                f"{graph.located('Zoneout')}: p={self.p} has {len(rates)} entries for a state of "
                f"{len(state)} tensors. Give one a part, or one number for all."
            )
        return rates

    def draw(self, x: Tensor, state: State) -> tuple[np.ndarray, ...]:
        rng = generator(self.rng)
        return tuple(
            rng.random((len(x), *s.shape), dtype=np.float32) < p
            for s, p in zip(state, self._rates(state), strict=True)
        )

    def step(self, x: Tensor, state: State, inside: Any, own: Any, seen: Tensor | None) -> State:
        new = self.step_inside(x, state, inside, seen)
        if own is not None:
            return tuple(ops.where(m, s, n) for m, s, n in zip(own, state, new, strict=True))
        rates = self._rates(state)
        return tuple(p * s + (1 - p) * n for p, s, n in zip(rates, state, new, strict=True))

    def _describe(self) -> str:
        return f"p={self.p}"
