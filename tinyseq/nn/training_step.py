"""`TrainingStep`: forward, backward, clipping and update in one call, recorded and played back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tinyseq import errors, graph, optim
from tinyseq.arguments import Positive, Rule, assigned, checked, refusal, rule_of
from tinyseq.errors import CompileError
from tinyseq.kernels import load
from tinyseq.locks import new_lock
from tinyseq.nested import leaves
from tinyseq.nn.modes import Mode
from tinyseq.optim.clipping import Order
from tinyseq.optim.parallel import Averaging, Communicator, Weight
from tinyseq.optim.update import Update
from tinyseq.tensor import Tensor, plain_array

if TYPE_CHECKING:
    from tinyseq.compiler.recorded import Done, RecordedStep

_AS_WRITTEN = "The training step runs as it is written."
_WEIGHT = cast(Rule, rule_of(Weight))
_COMPARED = 100  # steps of several ranks from one comparison of their parameters to the next
_MOST = 8  # kinds of arguments whose recordings are kept; and recordings of one kind, unused


class TrainingStep:
    """One step of training as one call: ``loss = step(*arguments)``.

    It does what these lines do, and gives the loss, cut off from its recording::

        value = loss(*arguments)
        optimizer.zero_grad()
        value.backward()
        optim.clip_grad_norm(optimizer.params, max_norm, norm_type)  # unless max_norm is None
        optimizer.step()

    The first two calls with arguments of new shapes run as they are written and are recorded: every
    op that is called, forward and backward. From then on the recording is played back with the
    numbers of each call: nothing is looked up, recorded or allocated any more. Where networks and
    batches are so small that Python takes longer than the arithmetic, that is several times as
    fast. Layers run compiled, as with ``mode="compiled"``, unless they say ``mode="unroll"``.

    Args:
        loss: a function of Tensors that gives the loss, a Tensor of one element, or a tuple of the
            loss and what else is wanted, nested tuples of Tensors (a state to carry on, say);
            ``step`` gives the same.
        optimizer: its parameters get gradients; one that the loss does not hang on is left alone.
            Its rates are looked up at each call, so schedules go on.
        max_norm, norm_type: for `optim.clip_grad_norm`; ``norm`` is then the norm before clipping.
        mode: ``"auto"``, or `None`, plays back where that can be done and says once, with the
            reason, where it cannot; ``"compiled"`` raises `CompileError` there; ``"unroll"`` runs
            every step as it is written.
        comm: a communicator of mpi4py, such as ``MPI.COMM_WORLD``, to train on all its ranks at
            once, each with a shard of the batch.

    With ``comm`` making the step is `optim.broadcast`: load a checkpoint before, on rank 0 at
    least. Each call then says how many predictions the loss of this rank's shard is the mean of::

        loss = step(inputs, targets, weight=(targets != -100).sum())

    Gradients are averaged with these weights before clipping, one Allreduce for all, so that the
    update is that of the whole batch in one process; the loss that comes back is the mean over all.
    What else the function gives stays this rank's own. With ``weight=0`` this rank has nothing in
    this step: the function is not run, and the loss alone comes back. When a rank fails, all raise,
    and name it. The first step, and every hundredth, is also `optim.check_equal`. Without ``comm``
    a weight changes nothing.

    Arguments are arrays, Tensors, nested tuples of them, and plain values (numbers, strings,
    `None`). The function gets Tensors in place of arrays, cut off from what they were made by, so
    that a state goes from one call into the next. A plain value is part of the recording: pass a
    number that changes from call to call as an array.

    What the function reads may change, and the step is then re-recorded: globals, attributes of any
    object, and what arrays, lists and dictionaries hold, which is looked at in each call, so pass
    large ones as arguments. What keeps its values where no look can go (a clock, a file, an
    iterator, os.environ, objects written in C) makes the step run as it is written; so do control
    flow on the value of a Tensor, attributes of a Module that are set, and a list or counter that
    the function itself changes. Installed packages are taken to stay as they are, but for the one
    that the function is from. Dropout and other noise of layers is drawn anew each time; draw other
    random numbers outside, and pass them.

    Each call runs the function at most once, so an iterator in it loses nothing. What a replayed
    step does not do again is to print or log: that happens while it is recorded, in two calls.

    A copy of a step, or a pickle, is recorded anew. Raises what the function, its backward pass,
    clipping and the optimiser raise, with parameters and optimiser as they were; ``.grad`` is
    `None` after a step.
    """

    loss: Callable[..., Any]
    optimizer: optim.Optimizer
    max_norm: Positive | None
    mode: Mode
    norm_type: Order
    comm: Communicator | None

    @checked
    def __init__(
        self,
        loss: Callable[..., Any],
        optimizer: optim.Optimizer,
        max_norm: Positive | None = None,
        mode: Mode | None = "auto",
        norm_type: Order = 2.0,
        comm: Communicator | None = None,
    ) -> None:
        self.loss, self.optimizer, self.max_norm = loss, optimizer, max_norm
        self.mode, self.norm_type, self.comm = mode or "auto", norm_type, comm
        self._averaging: Averaging | None = None
        self._update: Update | None = None  # by averaged gradients
        self._steps = 0  # of all ranks
        if comm is not None:
            optim.broadcast(optimizer, comm)
        self.norm: float | None = None
        self._kinds: dict[Any, _Kind] = {}
        self._told = 0  # kinds so far
        # A recording works in memory of its own, once at a time
        self._lock = new_lock(self, "_lock", threading.RLock)

    def __setattr__(self, name: str, value: Any) -> None:
        assigned(self, name, value)
        super().__setattr__(name, value)

    def __call__(self, *arguments: Any, weight: float | None = None) -> Any:
        if graph.recording.tape is not None:
            graph.refuse(CompileError("a training step within another one cannot be recorded."))
        with self._lock:
            if self.comm is not None:
                return self._with_others(arguments, weight)
            kind, done, update = self._run(arguments)
            self.norm = update(self.max_norm, self.norm_type)
            self._keep(kind)
            return kind.result(done.outputs)

    def _run(self, arguments: tuple[Any, ...]) -> tuple[_Kind, Done, Update]:
        """Forward and backward."""
        arrays: list[np.ndarray] = []
        key = tuple([_key(a, arrays) for a in arguments])
        kind = self._kinds.get(key) or _Kind(self, key, arguments)
        return kind, *kind.run(arrays)

    def _with_others(self, arguments: tuple[Any, ...], weight: float | None) -> Any:
        """A step of all ranks."""
        optimizer, averaging = self.optimizer, self._averaging
        assert self.comm is not None
        if averaging is None or not averaging.holds(optimizer.params, self.comm):
            self._averaging = averaging = Averaging(optimizer.params, self.comm)
            self._update = None
        kind, outputs = None, [np.zeros((), optimizer.params[0].dtype)]
        gradients: list[np.ndarray | None] = [None] * len(optimizer.params)
        with averaging.or_all_fail():
            if not _WEIGHT.accepts(weight):
                raise refusal(TrainingStep.__call__, "weight", weight, _WEIGHT)
            if weight:
                kind, (outputs, gradients), _ = self._run(arguments)
            loss = outputs[0].item()
        mean = averaging(gradients, float(weight or 0), loss)
        update = self._update
        if update is None or update.optimizer is not optimizer or averaging.moved:
            update = self._update = Update(optimizer, averaging.gradients, again=True)
        self.norm = update(self.max_norm, self.norm_type)
        if self._steps % _COMPARED == 0:
            optim.check_equal(optimizer.params, self.comm)
        self._steps += 1
        outputs = [np.full_like(outputs[0], mean), *outputs[1:]]
        if kind is None:
            return Tensor.wrap(outputs[0])
        self._keep(kind)
        return kind.result(outputs)

    def _keep(self, kind: _Kind) -> None:
        """Its arguments did not fail."""
        if kind.key in self._kinds:
            return
        if len(self._kinds) >= _MOST:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind.key] = kind
        self._told += 1
        if self._told == 4 * _MOST:
            errors.warn_unrolled(
                CompileError(f"TrainingStep was called with {self._told} kinds of arguments."),
                "Each is recorded by itself: keep shapes the same (the last batch of a pass, say), "
                "and pass numbers that change as arrays.",
            )

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without the recordings, which hold the memory they work in."""
        made: dict[str, Any] = {"_kinds": {}, "_averaging": None, "_update": None, "_lock": None}
        return {**vars(self), **made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=new_lock(self, "_lock", threading.RLock))

    def __repr__(self) -> str:
        name = getattr(self.loss, "__qualname__", type(self.loss).__name__)
        return f"TrainingStep({name}, {type(self.optimizer).__name__}, mode={self.mode!r})"


class _Kind:
    """A step for arguments of one kind: shapes, dtypes and plain values."""

    def __init__(self, step: TrainingStep, key: Any, arguments: tuple[Any, ...]) -> None:
        self.step, self.key = step, key
        self.arguments = _emptied(arguments)
        self.rest: Any = None  # the structure of what comes with the loss
        self.recorded: RecordedStep | None = None
        self.update: Any = None  # for the arrays of the recorded step
        self.recordings = 0
        self.unused = 0  # of those the last ones, that were hardly ever played back
        self.reason: CompileError | None = None  # why it is not played back
        self.moving: str | None = None  # what made the last recordings useless
        self.pause, self.pauses = 0, _MOST  # calls that run as written before it is tried again

    def run(self, arrays: list[np.ndarray]) -> tuple[Done, Update]:
        recorded, step = self.recorded, self.step
        if recorded is not None and recorded.ready and self._may_play():
            optimizer = step.optimizer
            same = self.update.optimizer is optimizer
            if same and recorded.holds(step.loss, optimizer.params):
                done = recorded.play(arrays)
                if done is not None:
                    return done, self.update
        return self._written(arrays)

    def _may_play(self) -> bool:
        now = graph.recording
        return self.step.mode != "unroll" and now.enabled and not now.anomaly

    def _written(self, arrays: list[np.ndarray]) -> tuple[Done, Update]:
        """The step as it is written, once, whatever comes of recording it."""
        from tinyseq.compiler.recorded import RecordedStep

        step = self.step
        optimizer, strict = step.optimizer, step.mode == "compiled"
        new = RecordedStep(self._function, step.loss, list(optimizer.params), self.arguments)
        self.pause -= self.pause > 0
        if self.reason is not None and strict:
            raise self.reason.with_traceback(None)
        if self.reason is None and not self.pause and self._may_play():
            load.load_kernels()
            known, unused = self.recorded, self.unused
            if known is None or known.ready or not known.holds(step.loss, new.params):
                if known is None or not known.other_threads:
                    played = known is not None and known.plays > _MOST
                    unused = 1 if played else unused + 1
                self.moving = self.moving if known is None else known.moved
                known = new
            if unused <= _MOST:
                try:
                    done = known.record(arrays, strict)
                except CompileError:
                    self.recorded = None
                    raise
                # From here on, for a call that failed leaves all as it was
                self.recordings += known is new
                self.unused, self.recorded = unused, None if known.refused else known
                self.update = Update(optimizer, done.gradients, again=known.ready)
                self.moving = known.moved or self.moving
                if known.refused is not None and known.moved is None:
                    self.reason = known.refused
                    errors.warn_unrolled(self.reason, _AS_WRITTEN)
                return done, self.update
            what = f"{self.moving or 'something'}, which the step reads or changes,"
            changing = CompileError(f"{what} keeps changing. Pass it as an argument, or return it.")
            self.unused, self.recorded = 0, None
            if strict:
                raise changing
            self.pause = self.pauses = 2 * self.pauses
            errors.warn_unrolled(changing, _AS_WRITTEN)
        done = new.written([Tensor(a) for a in arrays])
        return done, Update(optimizer, done.gradients)

    def _function(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The loss and the Tensors that come with it."""
        made = self.step.loss(*_filled(self.arguments, iter(tensors)))
        loss, self.rest = (made[0], made[1:]) if isinstance(made, tuple) and made else (made, None)
        flat = [loss, *leaves(self.rest)]
        if wrong := [t for t in flat if not isinstance(t, Tensor)]:
            raise TypeError(
                "TrainingStep: the function gives the loss, a Tensor, or a tuple of the loss and "
                f"nested tuples of Tensors; in what it gave is a {type(wrong[0]).__name__}."
            )
        self.rest = _emptied(self.rest)
        return flat

    def result(self, outputs: Sequence[np.ndarray]) -> Any:
        loss, *rest = [Tensor.wrap(a.copy()) for a in outputs]
        return loss if self.rest is None else (loss, *_filled(self.rest, iter(rest)))


class _Place:
    """Where an array goes."""


def _key(argument: Any, arrays: list[np.ndarray]) -> Any:
    """What tells kinds of an argument apart; its arrays are appended."""
    if isinstance(argument, np.ndarray):
        arrays.append(plain_array(argument))
        return argument.shape, argument.dtype
    if isinstance(argument, Tensor):
        if argument.requires_grad and argument.node is None:
            raise TypeError(
                "TrainingStep: an argument is a Tensor that requires a gradient, and gets none as "
                "an argument. Let the function read it from around it, or pass x.detach()."
            )
        arrays.append(argument._data)
        return argument._data.shape, argument._data.dtype
    if isinstance(argument, tuple | list):
        if isinstance(argument, list) and argument and _numbers(argument):
            return _key(Tensor(argument), arrays)
        return tuple, *(_key(part, arrays) for part in argument)
    if isinstance(argument, np.generic):
        return _key(np.asarray(argument), arrays)
    try:
        hash(argument)
    except TypeError:
        raise TypeError(
            f"TrainingStep: an argument is a {type(argument).__name__}. Pass arrays, Tensors, "
            "nested tuples of them, and plain values; what stays the same the function may read "
            "from around it."
        ) from None
    return type(argument), argument, argument.__class__ is float and str(argument)  # 0.0, -0.0


def _numbers(values: list[Any]) -> bool:
    return all(
        _numbers(v) if isinstance(v, list) else isinstance(v, int | float | np.generic)
        for v in values
    )


def _emptied(value: Any) -> Any:
    """The same nested tuples, with places for arrays."""
    if isinstance(value, np.ndarray | Tensor | np.generic):
        return _Place
    if isinstance(value, list) and value and _numbers(value):
        return _Place
    return tuple(map(_emptied, value)) if isinstance(value, tuple | list) else value


def _filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    if value is _Place:
        return next(tensors)
    return tuple(_filled(part, tensors) for part in value) if isinstance(value, tuple) else value
