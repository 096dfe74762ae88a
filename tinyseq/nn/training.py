"""Around a layer in training: the state carried from chunk to chunk, and cut off; evaluation that
leaves no trace.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import numpy as np

from tinyseq import errors, random
from tinyseq.arguments import Size, checked, no_class, shown
from tinyseq.backprop import no_grad
from tinyseq.locks import new_lock
from tinyseq.nested import leaves, mapped
from tinyseq.nn.module import Module, Parameter
from tinyseq.nn.recurrent import Bidirectional, Recurrent, Reversed, Stacked
from tinyseq.tensor import Tensor

__all__ = ["detach", "evaluation", "tbptt"]


def reads_from_the_end(layer: Module) -> str:
    """Which part of a layer does, the layer itself included; empty when all read forwards."""
    for name, module in layer.named_modules():
        turned = isinstance(module, Recurrent) and module.reverse
        if turned or isinstance(module, Bidirectional | Reversed):
            return f"{name or 'the layer'} ({type(module).__name__})"
    return ""


def detach(state: Any) -> Any:
    """A state cut off from its recording: nested tuples of Tensors in, the same nesting out.

    Same contents, shared memory, no way back for gradients: ``Tensor.detach`` for all of a state at
    once. `None`, the state before the first step, stays `None`. Raises `TypeError` for what is not
    a state.
    """
    for part in leaves(state):
        if not isinstance(part, Tensor):
            raise TypeError(
                f"a state is a Tensor or nested tuples of Tensors, not {type(part).__name__}. Pass "
                "what a layer returned as its state."
            )
    return mapped(Tensor.detach, state)


class tbptt:  # called like a function, as `range` and `zip` are
    """Truncated back-propagation through time: a long sequence, k steps at a time.

    The state goes on from chunk to chunk, gradients do not: h at the start of a chunk is the value
    that the chunk before ended with, a constant, so ∂L/∂w sums over paths of at most k steps, in
    memory that does not grow with T. With k ≥ T it is the whole gradient. ::

        for y, targets in nn.tbptt(lstm, (x, targets), k=50):
            loss = functional.cross_entropy(head(y), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    Args:
        layer: called ``y, state = layer(x, state)``: any recurrent layer of this library that reads
            forwards, or a model of your own.
        stream: one of three.
            A Tensor or array (T, B, …), with (B, T, …) for a layer made with ``batch_first=True``,
            or (T, D) of one sequence: cut in chunks of k steps, the last one shorter if need be;
            each iteration gives ``y``.
            A tuple of them, of equal T: cut alike, the first is what the layer reads; each
            iteration gives ``(y, *others)``.
            Any other iterable, e.g. a generator or a `text.Partition`: chunks (as above) that go on
            where the one before ended; those longer than k are cut. It may be endless.
        k: the most steps that gradients flow back; `None` takes the chunks of a stream as they are.
        state: what to start from, cut off as every chunk's is; `None` is the layer's own start,
            whose gradient (a learned initial state) flows in the first chunk.

    ``state`` is at any time the state to go on from, already cut off: hand it to the next
    `tbptt`, or save it with a checkpoint.

    Raises `ValueError` for k < 1 or a layer that reads from the end (what it carries would not come
    from the chunk before), `ShapeError` for sequences of unequal T, and `TypeError` for a stream or
    a layer that is none. Williams and Peng, 1990; the notes' remedy against exploding gradients.
    """

    @checked
    def __init__(
        self,
        layer: Annotated[Callable[[Any, Any], tuple[Tensor, Any]], no_class],
        stream: Any,
        k: Size | None = None,
        state: Any = None,
    ) -> None:
        self.k = None if k is None else int(k)
        self.layer = layer
        self.state = detach(state)
        self._axis = 1 if getattr(layer, "batch_first", False) else 0
        if isinstance(layer, Module) and (wrong := reads_from_the_end(layer)):
            raise ValueError(
                f"tbptt: {wrong} reads from the end of the sequence, so no state can be carried "
                "into it from the chunk before. Use a layer that reads forwards, or whole "
                "sequences."
            )
        if isinstance(stream, Tensor | np.ndarray | tuple):
            stream = (stream,)
        elif not isinstance(stream, Iterable) or isinstance(stream, str | bytes | dict):
            raise TypeError(
                f"tbptt: the stream is a Tensor, an array, a tuple of them, or an iterable of "
                f"chunks, not {type(stream).__name__}."
            )
        self._pieces = (piece for chunk in stream for piece in self._cut(chunk))

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        chunk = next(self._pieces)
        x, *others = chunk if isinstance(chunk, tuple) else (chunk,)
        try:
            result = self.layer(x, self.state)
        except errors.ShapeError as cause:
            raise errors.ShapeError(
                f"tbptt: the layer refuses a chunk of the stream. {cause}"
            ) from cause
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                "tbptt: the layer must return (y, state), two values, got "
                f"{len(result) if isinstance(result, tuple) else type(result).__name__}."
            )
        y, state = result
        self.state = detach(state)
        return (y, *others) if isinstance(chunk, tuple) else y

    def _cut(self, chunk: Any) -> Iterator[Any]:
        """A chunk in pieces of at most k steps, tuples piece by piece alike."""
        parts = chunk if isinstance(chunk, tuple) else (chunk,)
        axis = self._axis
        if isinstance(self.layer, Stacked) and parts and getattr(parts[0], "ndim", 3) == 2:
            axis = 0  # of one sequence (T, D)
        for part in parts:
            array = isinstance(part, Tensor | np.ndarray) and part.dtype.kind in "biuf"
            if not array or part.ndim <= axis:
                raise TypeError(
                    "tbptt: a chunk of the stream is a Tensor or an array of numbers with an axis "
                    f"of T steps, or a tuple of them, but here is {shown(part)}."
                )
        sizes = [part.shape[axis] for part in parts]
        if not sizes or len(set(sizes)) > 1 or sizes[0] == 0:
            raise errors.ShapeError(
                f"tbptt: sequences of a stream that are read together need the same T ≥ 1, got "
                f"T={sizes} (axis {axis}). Cut them to equal length."
            )
        if self.k is None or self.k >= sizes[0]:
            yield chunk
            return
        for start in range(0, sizes[0], self.k):
            at = (slice(None),) * axis + (slice(start, start + self.k),)
            pieces = tuple(part[at] for part in parts)
            yield pieces if isinstance(chunk, tuple) else pieces[0]


@checked
@contextmanager
def evaluation(model: Module) -> Iterator[None]:
    """Evaluation that training does not notice: what it does inside leaves no trace.

    Inside, ``model`` is in evaluation mode and nothing is recorded. Afterwards, however the block
    ends, put back are: each part's own mode (a part that was frozen in ``eval()`` stays so); the
    random stream, the library's and that of every generator a part of the model holds; how much
    layers have run, which decides when they are compiled; and carried states, that is attributes of
    the model's parts that hold (nested tuples of) Tensors which are no `Parameter`. The state that
    `tbptt` carries is its own, so a second `tbptt` over held-out text does not touch it. A training
    run with evaluations in between gives the same bits as one without. ::

        with nn.evaluation(model):
            losses = [loss(y, t).item() for y, t in nn.tbptt(model, held_out, k=200)]

    With threads: recording and the library's stream are the calling thread's alone. The mode and
    all else that a part holds belong to the part, and so to all threads that call it: train a model
    in one thread and evaluate a copy (``copy.deepcopy``) in another. Evaluations of one model may
    overlap; it is in evaluation mode until the last of them ends, and then as it was before the
    first.
    """
    parts = [module for _, module in model.named_modules()]
    held = [value for part in parts for value in list(vars(part).values())]
    before = random.get_state()
    entries = _enter([*parts, *(g for g in held if isinstance(g, np.random.Generator))])
    try:
        model.eval()
        with no_grad():
            yield
    finally:
        _leave(entries)
        random.set_state(before)


_Entry = list[Any]  # a part or generator, and a function that puts it back to how it was
_entered: dict[int, list[_Entry]] = {}  # of all evaluations that run, by the part's identity
_lock = new_lock(sys.modules[__name__], "_lock")


def _enter(parts: Iterable[Any]) -> list[_Entry]:
    with _lock:
        entries = [[part, _as_it_is(part)] for part in {id(p): p for p in parts}.values()]
        for entry in entries:
            _entered.setdefault(id(entry[0]), []).append(entry)
    return entries


def _leave(entries: list[_Entry]) -> None:
    """Put each part back; where another evaluation came after this one, leave that to it."""
    with _lock:
        for entry in entries:
            part, put_back = entry
            running = _entered[id(part)]
            at = next(i for i, other in enumerate(running) if other is entry)
            del running[at]
            if at < len(running):
                running[at][1] = put_back
            else:
                put_back()
            if not running:
                del _entered[id(part)]


def _as_it_is(part: Module | np.random.Generator) -> Callable[[], None]:
    """What puts a part, or a generator of one, back to how it is now."""
    if isinstance(part, np.random.Generator):
        return partial(setattr, part.bit_generator, "state", part.bit_generator.state)
    held, mode = dict(vars(part)), part.training

    def put_back() -> None:
        part.training = mode
        if isinstance(part, Recurrent):  # what it ran here does not count
            part._steps = held["_steps"]
        now = vars(part)
        for name in held.keys() | now.keys():
            if name not in held and _is_state(now[name]):
                del now[name]
            elif _is_state(held.get(name)) or _is_state(now.get(name)):
                now[name] = held[name]

    return put_back


def _is_state(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) > 0 and all(_is_state(part) for part in value)
    return isinstance(value, Tensor) and not isinstance(value, Parameter)
