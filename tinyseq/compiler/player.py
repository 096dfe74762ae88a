"""When a training step is taken down, when it is played back, and when it is so no longer."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from tinyseq.backprop import of_leaves
from tinyseq.compiler.around import unchanged, watched
from tinyseq.compiler.playback import Playback
from tinyseq.compiler.pool import pool
from tinyseq.compiler.reads import fingerprint
from tinyseq.compiler.take import Take, compare, taking
from tinyseq.compiler.update import Update
from tinyseq.errors import CompileError
from tinyseq.kernels.threads import get_num_threads
from tinyseq.nn.module import changes
from tinyseq.optim import Optimizer
from tinyseq.random import generator
from tinyseq.tensor import Tensor

_SAMPLE = 1 << 14  # how many numbers of an array are compared, about
#: How far those of a playback may lie from those of the step as it is written, of the largest
_NEAR = {np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-8}


class Step(NamedTuple):
    """What a step is made of: its function, which gives the loss and more Tensors in one flat list,
    and the optimiser, whose parameters get gradients.
    """

    function: Callable[[Sequence[Tensor]], list[Tensor]]
    source: Any  # the user's own function in it
    optimizer: Optimizer
    plain: Any = ()  # values among the arguments, objects perhaps


class Done(NamedTuple):
    """What a step made: its outputs, the loss first, a gradient for each parameter, or `None`, and
    what clips them and updates the parameters.
    """

    outputs: list[np.ndarray]
    gradients: list[np.ndarray | None]
    update: Update


def written(step: Step, tensors: Sequence[Tensor], take: Take | None = None) -> Done:
    """The step as it is written; what it makes are copies."""
    outputs = step.function(tensors)
    gradients = of_leaves(outputs[0], step.optimizer.params)
    if take is not None:
        ends = [*outputs, *(g for g in gradients if g is not None)]
        take.ends = [take.number(t._data) for t in ends]
    own: list[np.ndarray | None] = []  # arrays of their own, for they will be written into
    for g in gradients:
        if g is None:
            own.append(None)
            continue
        fresh = g._data.base is None and g._data.flags.carray
        fresh = fresh and all(g._data is not a for a in own)
        own.append(g._data if fresh else g._data.copy())
    return Done([t._data.copy() for t in outputs], own, Update(step.optimizer, own))


class Player:
    """A step for arguments of the same shapes: twice as it is written, then played back."""

    def __init__(self, step: Step, ever: Iterable[str] = ()) -> None:
        self.step = step
        self.ever = frozenset(ever)
        self.plays = 0
        self._threads = get_num_threads()
        self._first: Take | None = None
        self._playback: Playback | None = None
        self._done: Done | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a recording."""
        return self._playback is not None

    @property
    def other_threads(self) -> bool:
        """Whether there is another number of threads now: one may return to the first."""
        return self._threads != get_num_threads()

    def play(self, arrays: Sequence[np.ndarray]) -> Done:
        """The step played back: its arrays are written over by the next call."""
        assert self._playback is not None
        assert self._done is not None
        drawn = [generator(), *self._generators] if self._draws else []
        before = [g.bit_generator.state for g in drawn]
        try:
            self._playback(arrays)
        except BaseException:  # what it drew it will draw again
            for g, state in zip(drawn, before, strict=True):
                g.bit_generator.state = state
            raise
        self.plays += 1
        return self._done

    def record(self, arrays: Sequence[np.ndarray]) -> Done:
        """The step as it is written, taken down; the second time, it is ready afterwards. Raises
        `CompileError` when it cannot be played back.
        """
        tensors = [Tensor(a) for a in arrays]
        with taking(tensors, self.ever) as take:
            done = written(self.step, tensors, take)
        news, self.ever = take.ever - self.ever, frozenset(take.ever)
        given = [t._data for t in tensors]
        del tensors
        self._note(take)
        if self._first is None or news:  # what a call has for the first time it does another way
            self._first = take
            return done
        compare(self._first, take)
        self._first = None
        expected = _samples(done)
        n, has = len(done.outputs), [g is not None for g in done.gradients]
        del done  # what the step as it is written worked in is free for the playback
        pool.clear()
        playback = Playback(take, take.ends, given)
        results = iter(playback.results)
        outputs = [next(results) for _ in range(n)]
        gradients = [next(results) if there else None for there in has]
        found = Done(outputs, gradients, Update(self.step.optimizer, gradients, True))
        _check(expected, _samples(found))
        self._done, self._playback = found, playback
        return found

    # -- what a recording rests on ----------------------------------------------------------------

    def _note(self, take: Take) -> None:
        outside = (v for v in take.values if v.array is not None)
        alive = ((t(), v.array) for v in outside for t in v.tensors)
        self._outside = [(t, a, t.requires_grad) for t, a in alive if t is not None]
        self._modules = list(take.modules.values())
        self._around = watched(partial(self.step.source, self.step.plain), self._modules)
        self._changes = changes[0]
        self._seen = self._look()
        self._threads = get_num_threads()
        own = (g for m in self._modules for g in vars(m).values())
        self._draws = any(c.drawn is not None for c in take.calls)
        given = (g for g in own if isinstance(g, np.random.Generator))
        self._generators = list({id(g): g for g in given}.values())
        self._owned = _arrays_of(self.step.optimizer)

    def _look(self) -> list[Any]:
        parts = (part for m in self._modules for part in fingerprint(m))
        return [part for part in parts if not part.name.startswith("_")]

    def holds(self, source: Any, optimizer: Optimizer) -> bool:
        """Whether what was recorded rests on what is still so: the function, the optimiser, and all
        that both read.
        """
        if self._first is None and not self.ready:
            return True
        if source is not self.step.source or optimizer is not self.step.optimizer:
            return False
        if not all(map(operator.is_, self._owned, _arrays_of(optimizer))):
            return False
        for tensor, array, wanted in self._outside:
            if tensor._data is not array or tensor.hooks or tensor.requires_grad is not wanted:
                return False
        if self.other_threads or not unchanged(self._around):
            return False
        now = changes[0]
        if self._changes is not now:  # of some module: perhaps it was changed back
            if self._look() != self._seen:
                return False
            self._changes = now
        return True


def _samples(done: Done) -> list[np.ndarray]:
    """Some numbers of each array: enough to tell whether two steps did the same."""
    arrays = [a.reshape(-1) for a in (*done.outputs, *done.gradients) if a is not None]
    return [a[:: max(1, a.size // _SAMPLE)].copy() for a in arrays]


def _arrays_of(optimizer: Optimizer) -> list[Any]:
    """An optimiser's parameters and buffers, and how many there are."""
    return [len(optimizer.params), *optimizer.params, *chain(*optimizer.buffers.values())]


def _check(written: list[np.ndarray], played: list[np.ndarray]) -> None:
    """Raise unless both are the same but for rounding: something was then read that is no argument,
    behind the recording's back.
    """
    for a, b in zip(written, played, strict=True):
        near = _NEAR.get(a.dtype, 0.0)
        bound = near * np.max(np.abs(a), initial=0, where=np.isfinite(a)) if near else 0.0
        if not np.allclose(a, b, rtol=near, atol=bound, equal_nan=True):
            raise CompileError(
                "played back, the step gives other numbers than as it is written: it reads values "
                "in a way that was not recorded."
            )
