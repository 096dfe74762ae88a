"""`record`: what recurrent layers compute at every step, under the names that the cells' code uses.

A `Tap` stands where a layer's cell was, hands each step on to it, and reads the local variables of
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
from tinyseq.nn.recurrent import Recurrent, Reversed, _running, _turned
from tinyseq.op import as_tensor
from tinyseq.tensor import FLOATS, Tensor

from .checks import as_input, running
from .running import profiled

_PLAIN = (
    nn.Linear,
    nn.Embedding,
    nn.LayerNorm,
    nn.Dropout,
)  # their inner values are not the cell's

# Of a value: the module within the cell, the variable, and which call of the method it was made in.
Key = tuple[str, str, int]
# What a method of the cell held when it returned: the module within the cell, its local variables,
# and which of them are its arguments.
Returned = tuple[str, dict[str, Tensor], tuple[str, ...]]


class States(dict[str, np.ndarray]):
    """What one layer computed, by name: arrays (T, B, H), or (T, B, …) for other values.

    ``state``: the names of the cell's state, the output last. A name that is not there raises
    `KeyError` with those that are.
    """

    state: tuple[str, ...] = ()

    def __missing__(self, name: str) -> np.ndarray:
        raise KeyError(f"{name!r} was not recorded; there are {', '.join(self)}")


class Record(Mapping[str, States]):
    """What `record` found: for each recurrent layer, by its dotted name, a `States`.

    ``r["layers.0"]["forget"]`` is (T, B, H). A whole number counts layers from below: ``r[0]``, and
    ``r[-1]`` for the last one. ``output`` is what the module returned, an array (of a tuple, the
    first part).
    """

    def __init__(self, layers: dict[str, States], output: np.ndarray) -> None:
        self._layers = layers
        self.output = output

    def name(self, layer: str | int) -> str:
        """The dotted name of a layer. Raises `KeyError` or `IndexError`, with those there are."""
        names = list(self._layers)
        if isinstance(layer, str):
            if layer not in self._layers:
                raise KeyError(f"no layer {layer!r}; there are {', '.join(names)}")
            return layer
        if not -len(names) <= layer < len(names):
            raise IndexError(f"no layer {layer}; there are {len(names)}: {', '.join(names)}")
        return names[layer]

    def __getitem__(self, layer: str | int) -> States:
        return self._layers[self.name(layer)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        lines = []
        for layer, states in self._layers.items():
            values = ", ".join(f"{name} {array.shape}" for name, array in states.items())
            lines.append(f"{layer}: {values}")
        return "\n".join(lines)


def record(
    module: nn.Module,
    x: Any,
    state: Any = None,
    lengths: npt.ArrayLike | None = None,
    local: bool = True,
) -> Record:
    """Run ``module(x)`` and keep what every recurrent layer in it computes, at every step.

    Of each cell: its state under the cell's ``state_names`` ("h", "c"), or else under what its code
    calls it; and every value (B, …) that a local variable of the cell's methods holds when the
    method returns, under the variable's name ("update", "forget", "output", "candidate", …).
    ``values[t]`` is what the step that read ``x[t]`` made, in layers that read from the end too. A
    variable that an inner cell and the cell around it both have is found as ``cell.name`` for the
    inner one, one of a method that is called k times in a step as ``name``, ``name_2``, … Where a
    step did not make a value, and behind the end of a sequence, there is NaN.

    It runs in `nn.evaluation`, unrolled, also what is compiled: the values are those of the
    compiled run but for rounding, and the module is left as it was.

    Args:
        module: a layer, a cell, or any Module with recurrent layers inside, `nn.Recurrent`.
        x: what the module takes: (T, B, D), or whole numbers (T, B), (T,) for a single sequence.
        state, lengths: handed to the module, when given.
        local: whether to keep local variables; the state alone is faster to record.

    Raises:
        TypeError: something that is no Module; x of a dtype that the module does not take.
        ValueError: a module without recurrent layers, or of which none ran; x of another shape.
    """
    module = as_module(module, state)
    x = as_sequence(x)
    extra = {k: v for k, v in (("state", state), ("lengths", lengths)) if v is not None}
    with nn.evaluation(module), tapped(module, local) as taps, running(module, x):
        result = module(x, **extra)
    layers = {path: tap.states() for path, tap in taps.items() if tap.steps}
    if not layers:
        raise ValueError(
            f"no recurrent layer of {_kind(module)} ran: its forward calls none of "
            f"{', '.join(taps)}."
        )
    for path, states in layers.items():
        for name, array in states.items():
            states[name] = in_the_order_of_x(array, module, path, lengths)
    output = result[0] if isinstance(result, tuple | list) else result
    return Record(layers, as_tensor(output).numpy())


def as_module(module: Any, state: Any = None) -> nn.Module:
    """The module itself if there are layers in it; a cell is made a layer."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"a layer, a cell or another nn.Module is recorded, not {_kind(module)}.")
    if any(isinstance(m, Recurrent) for _, m in module.named_modules()):
        return module
    if not (isinstance(module, nn.Cell) or hasattr(module, "initial_state") or state is not None):
        raise ValueError(
            f"{type(module).__name__} has no recurrent layer. A cell of your own becomes one as "
            "nn.Recurrent(cell)."
        )
    own_name = module.__dict__.get("_scope_name")
    layer = Recurrent(module, mode="unroll")
    module.__dict__["_scope_name"] = own_name  # being recorded does not rename it
    return layer


def as_sequence(x: Any) -> Any:
    """Whole numbers (T,) as a batch of one, (T, 1); all else as it is."""
    x = as_input(x)
    if x.ndim == 1 and x.dtype.kind in "iu":
        return x[:, None]
    return x


def _kind(value: Any) -> str:
    return type(value).__name__


def in_the_order_of_x(
    array: np.ndarray, module: nn.Module, path: str, lengths: npt.ArrayLike | None = None
) -> np.ndarray:
    """What a layer made in the order that it ran in, turned back; NaN behind the end of a sequence.

    A layer that runs from the end by itself is in order already; one within a `Reversed` is not.
    """
    around = [name for name, m in module.named_modules() if isinstance(m, Reversed)]
    if sum(path.startswith(f"{name}." if name else "") for name in around) % 2:
        array = array[_turned(lengths, Tensor.wrap(array))]
    running = _running(lengths, Tensor.wrap(array))
    if running is None:
        return array
    return np.where(running.reshape(array.shape[:2] + (1,) * (array.ndim - 2)), array, np.nan)


# -- taps ------------------------------------------------------------------------------------------


@contextmanager
def tapped(module: nn.Module, local: bool = False) -> Iterator[dict[str, Tap]]:
    """Inside, a tap on each recurrent layer, by its name; the layers run unrolled."""
    layers = {
        name or _kind(layer): layer
        for name, layer in module.named_modules()
        if isinstance(layer, Recurrent)
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


def _tap(layer: Recurrent, local: bool) -> Tap:
    """A tap that errors call as they call the cell."""
    kind: type[Tap] = type(_kind(layer.cell), (Tap,), {})
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

    def states(self) -> States:
        """Each value at all steps as one array, in the order of the layer's own x."""
        steps = [self.steps[i] for i in self.order()]
        assert self.called is not None
        names = self.called
        out = States()
        # An inner module's variable keeps its bare name unless one further out has the same.
        keys = sorted(dict.fromkeys(key for kept, _ in steps for key in kept), key=_depth)
        for path, name, call in keys:
            full = name if call == 1 else f"{name}_{call}"
            if full in out or full in names:
                full = f"{path}.{full}" if path else f"{full} (local)"
            _add(out, full, [kept.get((path, name, call)) for kept, _ in steps])
        for i, name in reversed(list(enumerate(names))):  # the output last: it is made of the rest
            _add(out, name, [new[i] for _, new in steps])
        out.state = tuple(reversed(names))
        return out


def _depth(key: Key) -> int:
    return key[0].count(".") + 1 if key[0] else 0


def _add(out: States, name: str, values: list[Tensor | None]) -> None:
    """Stack a value's steps, NaN where one is missing; what changes its shape is no sequence."""
    there = [v for v in values if v is not None]
    if len({v.shape for v in there}) == 1:
        blank = np.full(there[0].shape, np.nan, there[0].dtype)
        out[name] = np.stack([blank if v is None else v._data for v in values])


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
