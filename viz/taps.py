"""A tap stands where a layer's cell was, hands each step on to it, and reads the local variables of
the cell's methods as they return. So a cell of your own needs nothing to be recorded.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq import nn
from tinyseq.nn.cells import State
from tinyseq.tensor import FLOATS, Tensor

from .running import layer_of, profiled

# Modules whose inner values are not the cell's.
_PLAIN = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.Dropout)

# Of a value: the module within the cell, the variable, and which call of the method it was made in.
Key = tuple[str, str, int]
# What a method of the cell held when it returned: the module within the cell, its local variables,
# and which of them are its arguments.
Returned = tuple[str, dict[str, Tensor], tuple[str, ...]]


def as_module(module: Any, state: Any = None) -> nn.Module:
    """The module itself if there are layers in it; a cell is made a layer."""
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"a layer, a cell or another nn.Module is recorded, not {type(module).__name__}."
        )
    if any(isinstance(m, nn.Recurrent) for _, m in module.named_modules()):
        return module
    if not (isinstance(module, nn.Cell) or hasattr(module, "initial_state") or state is not None):
        raise ValueError(
            f"{type(module).__name__} has no recurrent layer. A cell of your own becomes one as "
            "nn.Recurrent(cell)."
        )
    return layer_of(module)


@contextmanager
def tapped(module: nn.Module, local: bool = False) -> Iterator[dict[str, Tap]]:
    """Inside, a tap on each recurrent layer, by its name; the layers run unrolled."""
    layers = {
        name or type(layer).__name__: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Recurrent)
    }
    before = [(layer, layer.cell, layer.mode) for layer in layers.values()]
    taps = {name: _tap(layer, local) for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.__dict__["cell"] = taps[name]  # past Module.__setattr__, which names the cell
            layer.mode = "unroll"
        yield taps
    finally:
        for layer, cell, mode in before:
            layer.__dict__["cell"] = cell
            layer.mode = mode


def _tap(layer: nn.Recurrent, local: bool) -> Tap:
    """A tap that errors call as they call the cell."""
    kind: type[Tap] = type(type(layer.cell).__name__, (Tap,), {})
    return kind(layer.cell, layer.reverse, local)


class Tap:
    """A layer's cell, and what each of its steps made: local variables, and the new state.

    ``steps`` are in the order of running. ``local``: whether local variables are read.
    """

    def __init__(self, cell: nn.Module, reverse: bool, local: bool) -> None:
        self.cell = cell
        self.reverse = reverse
        self.local = local
        self.steps: list[tuple[dict[Key, Tensor], State]] = []
        self._starts: list[int] = []  # steps that begin a sequence
        self.called = _state_names(cell)
        self._own = {id(t) for _, t in cell.named_tensors()}
        # A cell that does not say what its state is called is read for that, at least.
        read = local or self.called is None
        inside = [(p, m) for p, m in cell.named_modules() if read and not isinstance(m, _PLAIN)]
        self._paths = {id(m): path for path, m in inside}
        self._codes = {code for _, m in inside for code in _codes(type(m))}

    def __getattr__(self, name: str) -> Any:  # sizes, and how the state starts
        return getattr(self.cell, name)

    def noise(self, x: Tensor, state: State) -> Any:
        """Asked for before the first step of every sequence."""
        self._starts.append(len(self.steps))
        return self.cell.noise(x, state) if hasattr(self.cell, "noise") else None

    def __call__(self, x: Tensor, state: State, **noise: Any) -> Any:
        returned: list[Returned] = []

        def on_return(frame: FrameType, event: str, result: Any) -> None:
            if event == "return" and frame.f_code in self._codes:
                variables = frame.f_locals
                owner = variables.get(frame.f_code.co_varnames[0])
                if (path := self._paths.get(id(owner))) is not None:
                    tensors = {n: v for n, v in variables.items() if isinstance(v, Tensor)}
                    code = frame.f_code
                    given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
                    returned.append((path, tensors, given))

        with profiled(on_return if self._codes else None):
            new = self.cell(x, state, **noise)
        if isinstance(new, tuple):  # the layer refuses anything else
            self._keep(x, state, new, returned)
        return new

    def _keep(self, x: Tensor, state: State, new: State, returned: list[Returned]) -> None:
        if self.called is None:
            # The method that was called returns last: its names count before those of its helpers.
            own = [variables for path, variables, _ in reversed(returned) if path == ""]
            self.called = _names_in_code(state, new, own)
        known = self._own | {id(t) for t in (x, *state, *new)}
        kept: dict[Key, Tensor] = {}
        # A value has the name that it was made under, not that of a method it was handed to.
        for handed in (False, True) if self.local else ():
            for path, variables, given in returned:
                for name, value in variables.items():
                    if (name in given) is handed and id(value) not in known:
                        known.add(id(value))
                        if value.ndim > 1 and len(value) == len(x) and value.dtype in FLOATS:
                            call = 1
                            while (path, name, call) in kept:
                                call += 1
                            kept[path, name, call] = value
        self.steps.append((kept, new))

    def running(self, name: str) -> list[Tensor]:
        """A part of the state after each step, in the order of running; nothing if not there."""
        if self.called is None or name not in self.called:
            return []
        place = self.called.index(name)
        return [new[place] for _, new in self.steps]

    def order(self) -> list[int]:
        """Of the steps as they ran, those for the layer's own x from its first step to its last."""
        order: list[int] = []
        for start, end in zip(self._starts, [*self._starts[1:], len(self.steps)], strict=True):
            order += reversed(range(start, end)) if self.reverse else range(start, end)
        return order


def _codes(kind: type) -> Iterator[CodeType]:
    """The code of the methods that a cell has from its own classes."""
    for base in kind.__mro__:
        if base not in (nn.Module, object):
            for value in vars(base).values():
                value = inspect.unwrap(value) if callable(value) else value
                if isinstance(value, FunctionType) and value.__code__.co_argcount:
                    yield value.__code__


def _state_names(cell: Any) -> list[str] | None:
    """As the cell says, or the cell that it is wrapped around."""
    while isinstance(cell, nn.Wrapper) and not hasattr(cell, "state_names"):
        cell = cell.cell
    return list(cell.state_names) if hasattr(cell, "state_names") else None


def _names_in_code(state: State, new: State, frames: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """The names of the new state: of the variable that holds it, or of the one that held the old.

    Where the code has neither, state0, state1, …
    """
    names: list[str] = []
    for i, pair in enumerate(zip(new, state, strict=False)):
        held = [n for value in pair for local in frames for n, v in local.items() if v is value]
        names.append(next((name for name in held if name not in names), f"state{i}"))
    return names


def in_the_order_of_x(
    array: np.ndarray, module: nn.Module, path: str, lengths: Tensor | npt.ArrayLike | None = None
) -> np.ndarray:
    """What a layer made in the order that it ran in, turned back; NaN behind the end of a sequence.

    A layer that runs from the end by itself is in order already; one within a `Reversed` is not.
    """
    T, B = array.shape[:2]
    given = lengths.numpy() if isinstance(lengths, Tensor) else lengths
    n = np.minimum(T if given is None else given, T)
    t = np.arange(T)[:, None]
    running = np.broadcast_to(t < n, (T, B))
    around = [name for name, m in module.named_modules() if isinstance(m, nn.Reversed)]
    if sum(path.startswith(f"{name}." if name else "") for name in around) % 2:
        array = array[np.where(running, n - 1 - t, t), np.arange(B)]
    return np.where(running.reshape(T, B, *(1,) * (array.ndim - 2)), array, np.nan)
