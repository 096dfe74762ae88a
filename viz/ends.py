"""The sequences that go into a picture: x⟨t⟩, and what a decoder is told, y⟨t−1⟩."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from .timeline import Box, Row, Source

if TYPE_CHECKING:
    from .layout import Layout


@dataclass
class Inputs:
    """One sequence, with everything that takes it, by step."""

    row: Row  # the lowest that takes it
    takers: dict[int, list[tuple[Tensor, Box, Source]]] = field(default_factory=dict)
    name: str = "x"
    back: int = 0  # how many steps before the step that takes it it is counted
    bottom: float = 0.0  # of where it is written


def find_inputs(layout: Layout) -> list[Inputs]:
    """The sequences, that of the lowest row first. The first is x. What goes into a layer whose
    first state another layer made is the decoder's own output of the step before, y⟨t−1⟩; any
    other one is x′.
    """
    found: dict[Hashable, Inputs] = {}
    shown = set(layout.columns.shown)
    for box in layout.boxes():
        for op, source in layout.line.inputs(box):
            if source.step in shown and layout.is_input(source):
                inputs = found.setdefault(_sequence(layout, found, box, source), Inputs(box.row))
                inputs.takers.setdefault(source.step, []).append((op, box, source))
    primes = 0
    for inputs in list(found.values())[1:]:
        if _is_decoder(layout, inputs.row):
            inputs.name, inputs.back = "y", 1
        else:
            primes += 1
            inputs.name = "x" + chr(0x2032) * primes
    return list(found.values())


def _sequence(layout: Layout, found: dict[Hashable, Inputs], box: Box, source: Source) -> Hashable:
    """What tells one sequence from another."""
    tensor = source.tensor
    if identity(tensor) in layout.line.of_one_step:  # of the lowest row that takes this step's
        for key, inputs in found.items():
            taken = inputs.takers.get(source.step, ())  # type: ignore[arg-type]
            if any(other.tensor is tensor for _, _, other in taken):
                return key
        return box.row
    if tensor.dtype.kind in "iu":  # an embedding's index: two may look up the same tokens
        return tensor.shape, tensor.numpy().tobytes()
    return identity(tensor)


def _is_decoder(layout: Layout, row: Row) -> bool:
    """Does the row, or one right above it, begin with a state that another layer made?"""
    above = {
        box.row
        for box in layout.boxes()
        for _, source in layout.line.inputs(box)
        if (maker := layout.line.box.get(identity(source.tensor))) is not None and maker.row is row
    }
    starts = [slot.start for r in (above | {row}) for slot in r.slots if slot.start is not None]
    return any(start.tensor.node is not None for start in starts)
