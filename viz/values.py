"""`record`: what recurrent layers compute at every step, under the names in the cells' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq import nn
from tinyseq.arguments import checked
from tinyseq.errors import listed
from tinyseq.op import as_tensor
from tinyseq.tensor import Tensor

from .checks import as_sequence, running
from .taps import Key, Tap, as_module, in_the_order_of_x, tapped


class States(dict[str, np.ndarray]):
    """What one layer computed, by name: arrays (T, B, H), or (T, B, …) for other values.

    ``state``: the names of the cell's state, the output last. A name that is not there raises
    `KeyError` with those that are.
    """

    state: tuple[str, ...] = ()

    def __missing__(self, name: str) -> np.ndarray:
        raise KeyError(f"the name {str(name)!r} is not among the recorded names: {listed(self)}")


class Record(Mapping[str, States]):
    """What `record` found: for each recurrent layer, by its dotted name, a `States`.

    ``r["layers.0"]["forget"]`` is (T, B, H). A whole number counts layers from below: ``r[0]``, and
    ``r[-1]`` for the last one. ``output`` is what the module returned, an array (of a tuple, the
    first part).
    """

    def __init__(self, layers: dict[str, States], output: np.ndarray) -> None:
        self._layers = layers
        self.output = output

    @checked
    def name(self, layer: str | int) -> str:
        """The dotted name of a layer. Raises `KeyError` or `IndexError`, with those there are."""
        names = list(self._layers)
        if isinstance(layer, str):
            if layer not in self._layers:
                raise KeyError(f"no layer {layer!r}; there are {listed(names)}")
            return layer
        if not -len(names) <= layer < len(names):
            raise IndexError(f"no layer {layer}; there are {len(names)}: {listed(names)}")
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


@checked
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
    layers = {path: _states(tap) for path, tap in taps.items() if tap.steps}
    if not layers:
        raise ValueError(
            f"no recurrent layer of {type(module).__name__} ran: its forward calls none of "
            f"{listed(taps)}."
        )
    for path, states in layers.items():
        for name, array in states.items():
            states[name] = in_the_order_of_x(array, module, path, lengths)
    output = result[0] if isinstance(result, tuple | list) else result
    return Record(layers, as_tensor(output).numpy())


def _states(tap: Tap) -> States:
    """Each value at all steps as one array, in the order of the layer's own x."""
    steps = [tap.steps[i] for i in tap.order()]
    assert tap.called is not None
    names = tap.called
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
