"""The end of a training step that is played back: the norm, clipping, and the optimiser's rule.

Gradients stay in the same arrays from step to step, so what `optim` does parameter by parameter is
one call for all of them where the rule is Adam's; any other optimiser goes its own way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyseq import optim
from tinyseq.kernels import load
from tinyseq.tensor import FLOATS, Tensor


class Update:
    """Clipping and one step of an optimiser, for gradients (`None`: of a parameter that has none)
    that are in these arrays; ``always``: from now on.
    """

    def __init__(
        self,
        optimizer: optim.Optimizer,
        gradients: Sequence[np.ndarray | None],
        always: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.gradients = [None if g is None else Tensor.wrap(g) for g in gradients]
        self._mine = [i for i, g in enumerate(gradients) if g is not None]
        self._table = self._as_table() if always else None

    def _as_table(self) -> Any:
        """Parameters, gradients, means and squares for a kernel over all; `None` where none is."""
        o = self.optimizer
        if load.kernels is None or type(o) not in (optim.Adam, optim.AdamW) or not self._mine:
            return None
        gradients = [g._data for g in self.gradients if g is not None]
        params = [o.params[i]._data for i in self._mine]
        buffers = [[o.buffers[name][i] for i in self._mine] for name in o.buffer_names]
        arrays = [*params, *gradients, *(a for part in buffers for a in part)]
        dtype = arrays[0].dtype
        if dtype not in FLOATS or not all(a.dtype == dtype and a.flags.carray for a in arrays):
            return None
        return load.kernels.updates.Table(params, gradients, *buffers)

    def __call__(self, max_norm: float | None) -> float | None:
        """Do it; the norm of the gradients before clipping, if they are to be clipped."""
        o, table = self.optimizer, self._table
        steps = {int(n) for n in o.steps[self._mine]} if table is not None else set()
        decays = isinstance(o, optim.AdamW) or not o.weight_decay
        if len(steps) != 1 or not decays:
            return self._one_by_one(max_norm)
        norm = None
        if max_norm is not None:
            norm = math.sqrt(load.kernels.updates.sum_of_all_squares(table, 1))
            if not norm <= max_norm:  # or NaN, which is said there
                norm = self._clipped(max_norm)
        o.steps[self._mine] += 1
        assert isinstance(o, optim.Adam)
        decay = o.weight_decay if isinstance(o, optim.AdamW) else 0.0
        load.kernels.updates.adam_of_all(table, steps.pop() + 1, o.lr, o.betas, o.eps, decay)
        for i in self._mine:
            o.params[i].changed()
        return norm

    def _clipped(self, max_norm: float) -> float:
        self._give()
        try:
            return optim.clip_grad_norm(self.optimizer.params, max_norm)
        finally:
            self.optimizer.zero_grad()

    def _one_by_one(self, max_norm: float | None) -> float | None:
        self._give()
        norm = None
        try:
            if max_norm is not None:
                norm = optim.clip_grad_norm(self.optimizer.params, max_norm)
            self.optimizer.step()
        finally:
            self.optimizer.zero_grad()
        return norm

    def _give(self) -> None:
        ours = type(self.optimizer).__module__.startswith(optim.__name__)  # any other may keep them
        for p, g in zip(self.optimizer.params, self.gradients, strict=True):
            p.grad = g if ours or g is None else Tensor.wrap(g._data.copy())
