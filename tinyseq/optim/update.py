"""Clipping and an optimiser's step as one call, for the gradients of a replayed training step."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from tinyseq import changes
from tinyseq.kernels import load
from tinyseq.optim.clipping import clip_grad_norm
from tinyseq.optim.optimizers import Adam, AdamW, NAdam, Optimizer
from tinyseq.tensor import FLOATS, Tensor


class Update:
    """Clips gradients (`None`: of a parameter that has none) and makes one step of an optimiser.

    ``again``: the gradients of later calls are in the same arrays. Then the rule of Adam is one
    call of a kernel for all parameters; any other optimiser goes parameter by parameter.
    """

    def __init__(
        self, optimizer: Optimizer, gradients: Sequence[np.ndarray | None], again: bool = False
    ) -> None:
        self.optimizer, self.again = optimizer, again
        self.gradients = [None if g is None else Tensor.wrap(g) for g in gradients]
        self._mine = [i for i, g in enumerate(gradients) if g is not None]
        self._owned: list[Any] = []  # the parameters and buffers that the table was made of
        self._table: Any = None

    def __call__(self, max_norm: float | None, norm_type: float = 2.0) -> float | None:
        """Do it; the norm of the gradients before clipping, if they are to be clipped."""
        o, table = self.optimizer, self._looked_up() if self.again else None
        steps = set(o.steps[self._mine].tolist()) if table is not None else set()
        if len(steps) != 1 or (o.weight_decay and not o.decays_apart):
            return self._one_by_one(max_norm, norm_type)
        norm = None
        if max_norm is not None:
            if norm_type == 2:
                norm = math.sqrt(load.kernels.updates.sum_of_all_squares(table, 1))
            if norm is None or not norm <= max_norm:  # or NaN, which is said there
                norm = self._one_by_one(max_norm, norm_type, step=False)
        o.steps[self._mine] += 1
        assert isinstance(o, Adam)
        load.kernels.updates.adam_of_all(table, o._numbers(steps.pop() + 1))
        changes.note(*[o.params[i]._data for i in self._mine])
        return norm

    def _looked_up(self) -> Any:
        """The table, of the arrays that the optimiser has now; `None` where there is none."""
        owned = chain(self.optimizer.params, *self.optimizer.buffers.values())
        if not self._owned or not all(map(operator.is_, owned, self._owned)):
            self._owned = [*self.optimizer.params, *chain(*self.optimizer.buffers.values())]
            self._table = self._made()
        return self._table

    def _made(self) -> Any:
        """Parameters, gradients, means and squares for a kernel over all."""
        o = self.optimizer
        if load.kernels is None or type(o) not in (Adam, AdamW, NAdam) or "largest" in o.buffers:
            return None
        gradients = [g._data for g in self.gradients if g is not None]
        params = [o.params[i]._data for i in self._mine]
        buffers = [[o.buffers[name][i] for i in self._mine] for name in o.buffer_names]
        arrays = [*params, *gradients, *chain(*buffers)]
        if not arrays or arrays[0].dtype not in FLOATS:
            return None
        if not all(a.dtype == arrays[0].dtype and a.flags.carray for a in arrays):
            return None
        return load.kernels.updates.Table(params, gradients, *buffers)

    def _one_by_one(
        self, max_norm: float | None, norm_type: float, step: bool = True
    ) -> float | None:
        o = self.optimizer
        ours = type(o).__module__.startswith("tinyseq.optim")  # any other one may keep gradients
        for p, g in zip(o.params, self.gradients, strict=True):
            p.grad = g if ours or g is None else Tensor.wrap(g._data.copy())
        try:
            norm = None if max_norm is None else clip_grad_norm(o.params, max_norm, norm_type)
            if step:
                o.step()
        finally:
            o.zero_grad()
        return norm
