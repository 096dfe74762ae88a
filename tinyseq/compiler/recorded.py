"""Decides when a training step is recorded, replayed or re-recorded, by what has changed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyseq.backprop import of_leaves
from tinyseq.compiler.content import changed
from tinyseq.compiler.playback import Playback
from tinyseq.compiler.pool import pool
from tinyseq.compiler.reads import watch
from tinyseq.compiler.trace import OF_STEP, StepTape, compare, generators, step_taped
from tinyseq.errors import CompileError
from tinyseq.graph import module_changes
from tinyseq.kernels.threads import get_num_threads
from tinyseq.random import generator
from tinyseq.tensor import Tensor

_SAMPLE = 1 << 14  # how many numbers of an array are compared, about
#: How far those of a playback may lie from those of the step as it is written, of the largest
_NEAR = {np.dtype(np.float32): 1e-3, np.dtype(np.float64): 1e-8}


class Done(NamedTuple):
    """What a step made: its outputs, the loss first, and a gradient (or `None`) each parameter."""

    outputs: list[np.ndarray]
    gradients: list[np.ndarray | None]


class RecordedStep:
    """A step for arguments of the same shapes: twice as it is written, then played back.

    ``function`` gives the loss and more Tensors in one flat list, ``source`` is the user's own
    function in it, ``params`` are what gets gradients, ``plain`` is what else it is given, objects
    perhaps.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Tensor]], list[Tensor]],
        source: Any,
        params: Sequence[Tensor],
        plain: Any,
    ) -> None:
        self.function, self.source, self.params, self.plain = function, source, params, plain
        self.plays = 0
        self.refused: CompileError | None = None  # why it cannot be played back
        self.moved: str | None = None  # what it reads that was found changed, last
        self._threads = get_num_threads()
        self._first: StepTape | None = None
        self._playback: Playback | None = None
        self._done: Done | None = None

    def written(self, tensors: Sequence[Tensor], tape: StepTape | None = None) -> Done:
        """The step as it is written; what it makes are copies."""
        outputs = self.function(tensors)
        gradients = of_leaves(outputs[0], self.params)
        if tape is not None:
            tape.ends = [tape.value(t) for t in (*outputs, *gradients) if t is not None]
        own: list[np.ndarray | None] = []  # arrays of their own, for they will be written into
        for g in (None if g is None else g._data for g in gradients):
            fresh = g is None or (
                g.base is None and g.flags.carray and all(g is not a for a in own)
            )
            own.append(g if g is None or fresh else g.copy())
        return Done([t._data.copy() for t in outputs], own)

    @property
    def ready(self) -> bool:
        """Whether there is a recording."""
        return self._playback is not None

    @property
    def other_threads(self) -> bool:
        """Whether there is another number of threads now: one may return to the first."""
        return self._threads != get_num_threads()

    def play(self, arrays: Sequence[np.ndarray]) -> Done | None:
        """The step played back: its arrays are written over by the next call. `None` where these
        values cannot be: an index that is none, padding where there was none, another number of
        places that a mask picks. As it is written, the step says what is wrong, or does something
        else. Nobody's code runs here but that of a signal handler and of a cell's noise: what they
        raise comes out.
        """
        assert self._playback is not None
        assert self._done is not None
        drawn = [generator(), *self._generators] if self._draws else []
        before = [g.bit_generator.state for g in drawn]
        try:
            self._playback(arrays)
        except BaseException as error:  # what it drew it will draw again
            for g, state in zip(drawn, before, strict=True):
                g.bit_generator.state = state
            if isinstance(error, ValueError | IndexError) and _is_ours(error):
                return None
            raise
        self.plays += 1
        return self._done

    def record(self, arrays: Sequence[np.ndarray], strict: bool = False) -> Done:
        """The step as it is written, once, and recorded; the second time, it is ready afterwards.
        ``strict``: raise `CompileError` when it cannot be played back. Else ``refused`` says why,
        and what the step made is good all the same.
        """
        tensors = [Tensor(a) for a in arrays]
        with step_taped(tensors, strict) as tape:
            done = self.written(tensors, tape)
            tape.check_streams()
        self.refused = tape.refused
        if self.refused is None:
            try:
                return self._noted(tape, [t._data for t in tensors], done)
            except CompileError as reason:
                if strict:
                    raise
                self.refused = reason
        return done

    def _noted(self, tape: StepTape, given: list[np.ndarray], done: Done) -> Done:
        """What one more recording gives: the second one, a playback."""
        if self._first is None:
            self._note(tape)
            self._first = tape
            return done
        self.moved = changed((*self._reads, *self._counted))
        compare(self._first, tape, OF_STEP)
        if self.moved is not None:
            raise CompileError(
                f"the function changes {self.moved}, or another thread did while it ran: played "
                "back, it would be left as it is. Let the function return what is to be kept."
            )
        self._first = None
        self._note(tape)
        expected = _samples(done)
        n, has = len(done.outputs), [g is not None for g in done.gradients]
        pool.clear()
        playback = Playback(tape, given)
        gradients = iter(playback.results[n:])
        found = Done(playback.results[:n], [next(gradients) if there else None for there in has])
        _check(expected, _samples(found))
        self._done, self._playback = found, playback
        return found

    # -- what a recording rests on ----------------------------------------------------------------

    def _note(self, tape: StepTape) -> None:
        outside = (v for v in tape.values if v.kind == "constant")
        alive = ((t(), v.data) for v in outside for t in v.tensors)
        self._outside = [(t, a, t.requires_grad) for t, a in alive if t is not None]
        self._modules = list(tape.modules.values())
        reads, hidden = watch([self.source, self.plain], self._modules)
        if hidden is not None:
            raise CompileError(hidden)
        layers = [e.attrs["call"] for e in tape.equations if "call" in e.attrs]
        for known in {id(layer.known): layer.known for layer in layers}.values():
            reads += known.reads
        self._reads = [read for read in reads if not read.counted]
        self._counted = [read for read in reads if read.counted]
        self._changes = module_changes[0]
        self._threads = get_num_threads()
        self._draws = any(v.kind == "drawn" for v in tape.values)
        self._generators = list({id(g): g for m in self._modules for g in generators(m)}.values())

    def holds(self, source: Any, params: Sequence[Tensor]) -> bool:
        """Whether what was recorded rests on what is still so: the function, the parameters, and
        all that it reads.
        """
        if self._first is None and not self.ready:
            return True
        if source is not self.source or len(params) != len(self.params):
            return False
        if not all(map(operator.is_, params, self.params)):
            return False
        for tensor, array, wanted in self._outside:
            if tensor._data is not array or tensor.hooks or tensor.requires_grad is not wanted:
                return False
        if self.other_threads:
            return False
        self.moved = changed(self._reads)
        now = module_changes[0]
        if self.moved is None and self._changes is not now:  # of some module: perhaps back again
            self.moved = changed(self._counted)
            if self.moved is None:
                self._changes = now
        return self.moved is None


def _is_ours(error: BaseException) -> bool:
    """Whether an error came from the library and NumPy alone, by way of nobody else's code."""
    at = error.__traceback__
    while at is not None:
        name, file = at.tb_frame.f_globals.get("__name__", ""), at.tb_frame.f_code.co_filename
        if name.partition(".")[0] not in ("tinyseq", "numpy") and not file.startswith("<tinyseq "):
            return False
        at = at.tb_next
    return True


def _samples(done: Done) -> list[np.ndarray]:
    """Some numbers of each array: enough to tell whether two steps did the same."""
    arrays = [a.reshape(-1) for a in (*done.outputs, *done.gradients) if a is not None]
    return [a[:: max(1, a.size // _SAMPLE)].copy() for a in arrays]


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
