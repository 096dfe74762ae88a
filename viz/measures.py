"""The numbers behind a page: the size of every value of a recording, and of its gradient.

A recording keeps only the values that its gradient rules read. The others are computed again here,
op by op, from the leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq import graph
from tinyseq.backprop import grad
from tinyseq.graph import identity
from tinyseq.tensor import FLOATS, Tensor

from .dot import visible
from .flow import replay
from .indices import walked
from .labels import shape_text
from .layout import Layout
from .timeline import Row, Source

Array = npt.NDArray[Any]
Measures = list[float | str | None]

STATISTICS: tuple[Callable[[Array], Any], ...] = (
    lambda a: np.sqrt(np.sum(np.square(a, dtype=np.float64))), np.min, np.mean, np.max,
)  # fmt: skip
MOST_LOSSES = 24  # to choose from: more make no readable list
MOST_NUMBERS = 100_000  # about 700 kB of page
MOST_WALKED = 200_000  # ops in all backward passes: a few seconds


@dataclass(frozen=True, eq=False)
class Part:
    """A tensor, or one step of it along an axis."""

    tensor: Tensor
    place: tuple[int, int] | None = None  # (axis, index)

    @property
    def index(self) -> tuple[slice | int, ...]:
        axis, index = self.place or (0, 0)
        return () if self.place is None else (*[slice(None)] * axis, index)

    def of(self, array: Array) -> Array:
        return array[self.index]


@dataclass(eq=False)
class Series:
    """A value of the picture at each step, or one for all steps."""

    name: str
    parts: list[Part | None]
    whole: bool = False

    def shape(self, batch: int | None) -> str:
        part = next(p for p in self.parts if p is not None)
        shape = part.tensor.shape
        if part.place is not None:
            shape = shape[: part.place[0]] + shape[part.place[0] + 1 :]
        return shape_text(shape, batch)


@dataclass(frozen=True, eq=False)
class End:
    """What a gradient may be of: a loss, the part of one step in it, or an output."""

    name: str
    step: int | None  # as written, from 1
    ys: tuple[Tensor, ...]
    seeds: tuple[Array, ...]


@dataclass(eq=False)
class Measured:
    """Series by the id that their boxes have in the SVG, less the step; and where gradients start.

    ``values[key]`` and ``gradients[end][key]``: norm, least, mean and greatest, each at every step.
    """

    series: dict[str, Series]
    ends: list[End]
    values: dict[str, list[Measures]] = field(default_factory=dict)
    gradients: list[dict[str, list[Measures]]] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)  # layers on all steps that do not mix them


def measure(layout: Layout, names: Callable[[Tensor], str]) -> Measured:
    """Measure everything on a layout whose columns are all the steps to tell of.

    ``names``: what the code calls a value. Raises `GraphError` when a tensor was changed in place
    since the recording.
    """
    series = dict(_collect(layout, names))
    roots = [tensor for tensor, _ in layout.line.outputs]
    everything = [p.tensor for one in series.values() for p in one.parts if p is not None]
    order = walked(*roots, *everything)
    arrays = replay(order)
    entries = sum(len(one.parts) for one in series.values()) * len(STATISTICS)
    most = max(2, min(MOST_LOSSES, MOST_NUMBERS // entries, MOST_WALKED // len(order)))
    found = Measured(series, _ends(layout, most, order, arrays))
    found.apart = _apart(layout, series, order, arrays)
    found.values = {key: _measures(one, arrays) for key, one in series.items()}
    xs = {identity(t): t for t in everything if t.requires_grad and t.dtype in FLOATS}
    for end in found.ends:
        gradient = grad(end.ys, list(xs.values()), end.seeds, retain_graph=True)
        by_id = {key: g._data for key, g in zip(xs, gradient, strict=True)}
        found.gradients.append(
            {
                key: m
                for key, one in series.items()
                if key != "loss" and (m := _measures(one, by_id))
            }
        )
    return found


# -- what there is ---------------------------------------------------------------------------------


def _collect(layout: Layout, names: Callable[[Tensor], str]) -> Iterable[tuple[str, Series]]:
    steps = layout.columns.shown
    for one in layout.inputs[:1]:
        inputs = {step: taken[0][2] for step, taken in one.takers.items()}
        yield "x", Series(layout.names.get("x", "x"), _parts(layout, inputs, steps))
    for row in layout.line.rows:
        yield from _of_row(layout, row, names)
    for n, (tensor, sources) in enumerate(layout.line.outputs):
        by_step = {step: s for s, step in layout.given(sources) if step is not None}
        name = tensor.name or ("ŷ" if layout.loss else "y" + chr(0x2032) * n)
        if layout.loss is not None:
            by_step = {step: s for s, step in layout.given(layout.loss.sources) if step is not None}
            yield "loss", Series(layout.names.get("L", "L"), [Part(tensor)], whole=True)
        if by_step:
            yield f"y{n}", Series(visible(name), _parts(layout, by_step, steps))
        else:
            yield f"y{n}", Series(visible(name), [Part(tensor)], whole=True)
    for n, (tensor, _) in enumerate(layout.chips.values()):
        yield f"p{n}", Series(visible(layout.full_name(tensor)), [Part(tensor)], whole=True)


def _of_row(
    layout: Layout, row: Row, names: Callable[[Tensor], str]
) -> Iterable[tuple[str, Series]]:
    """The ops of each step, by their place in it; of a layer on all steps what it makes."""
    i, steps = layout.row_number[row], layout.columns.shown
    if not row.recurrent:
        made = row.boxes[None].ops
        title = layout.places[row.boxes[None]].title
        timed = layout.line.columns_of(made[-1]) is not None
        parts: list[Part | None] = [Part(made[-1])]
        if timed:
            parts = [_part_at(layout, made, t) for t in steps]
        yield f"r{i}", Series(visible(title), parts, whole=not timed)
        return
    slots = {slot.position: slot.name for slot in row.slots}
    for k in range(max(len(box.ops) for box in row.boxes.values())):
        ops = [
            row.boxes[t].ops if t in row.boxes else [] for t in steps
        ]  # a decoder may be shorter
        name = slots.get(k) or next(
            (n for made in ops if k < len(made) and (n := names(made[k]))), ""
        )
        yield (
            f"r{i}_{k}",
            Series(
                visible(layout.named(name, row if k in slots else None)),
                [Part(made[k]) if k < len(made) else None for made in ops],
            ),
        )
    for j, slot in enumerate(row.slots):
        if slot.start is not None:
            name = layout.called(slot.name, layout.start_number(row), row=row)
            yield f"r{i}s{j}start", Series(visible(name), [Part(slot.start.tensor)], whole=True)


def _part_at(layout: Layout, ops: Sequence[Tensor], t: int) -> Part | None:
    """What a layer on all steps made for a column: the last of its ops that has that step."""
    for op in reversed(ops):
        columns = layout.line.columns_of(op)
        if columns is not None and t in columns:
            return Part(op, (0, t - columns.start))
    return None


def _parts(layout: Layout, by_step: dict[int, Source], steps: Sequence[int]) -> list[Part | None]:
    """The part of each step: of a tensor that holds several, or a tensor of its own."""
    taken = (by_step.get(step) for step in steps)
    return [None if s is None else Part(s.tensor, layout.line.part_of(s)) for s in taken]


def _ends(
    layout: Layout, most: int, order: Sequence[Tensor], arrays: Mapping[int, Array]
) -> list[End]:
    """The loss and, where it is a sum over steps, its parts; without a loss the output and its
    steps, as sums over their elements.

    The gradient of one step's part is that of the loss with respect to what the part alone is made
    from, carried on from there.
    """
    made, sources = layout.line.outputs[0]
    one: tuple[Array, ...] = (np.ones(made.shape, made.dtype),)
    if layout.loss is not None:
        name, sources, each = layout.names.get("L", "L"), layout.loss.sources, layout.loss.summed
        whole = End(visible(name), None, (made,), one)
    else:
        name, each = layout.names.get("y", made.name or "y"), len(sources) > 1
        whole = End(visible(f"Σ {name}⟨t⟩" if each else name), None, (made,), one)
    by_step: dict[int, list[Source]] = {}
    for source, step in layout.given(sources) if each else ():
        if step is not None:
            by_step.setdefault(step, []).append(source)
    feet = list({identity(s.tensor): s.tensor for part in by_step.values() for s in part}.values())
    onto = _directly(made, feet, layout, order, arrays)
    ends = [whole]
    steps = sorted(by_step)
    for i in sorted({round(i) for i in np.linspace(0, len(steps) - 1, min(len(steps), most))}):
        seeds: dict[int, tuple[Tensor, Array]] = {}
        for source in by_step[steps[i]]:
            g = onto[identity(source.tensor)]
            at = Part(source.tensor, layout.line.part_of(source)).index
            _, seed = seeds.setdefault(identity(source.tensor), (source.tensor, np.zeros_like(g)))
            seed[at] = g[at]
        number = layout.columns.number[steps[i]]
        ys, gs = zip(*seeds.values(), strict=True)
        ends.append(End(visible(f"{name}⟨{layout.output_number(number)}⟩"), number, ys, gs))
    return ends


def _directly(
    made: Tensor,
    feet: Sequence[Tensor],
    layout: Layout,
    order: Sequence[Tensor],
    arrays: Mapping[int, Array],
) -> dict[int, Array]:
    """The gradient of the sum of ``made`` to each of ``feet``, with all of these held fixed: not by
    way of later steps. For this the ops between are recorded once more, from the feet as leaves.
    """
    kept = {identity(op) for box in layout.line.boxes() if box.step is not None for op in box.ops}
    if not feet:
        return {}
    leaves = {identity(t): Tensor(arrays[identity(t)], requires_grad=True) for t in feet}
    again: dict[int, Tensor] = dict(leaves)
    with graph.recorded(True), np.errstate(all="ignore"):
        for tensor in order:
            key, node = identity(tensor), tensor.node
            if key in again:
                continue
            if node is None or key in kept:
                again[key] = Tensor.wrap(arrays[key])
            else:
                assert node.op is not None
                again[key] = node.op(
                    *(again.get(identity(x), x) for x in node.inputs), **node.attrs
                )
        found = grad(again[identity(made)].sum(), list(leaves.values()))
    return {key: g._data for key, g in zip(leaves, found, strict=True)}


# -- how large it is -------------------------------------------------------------------------------


def _apart(
    layout: Layout,
    series: Mapping[str, Series],
    order: Sequence[Tensor],
    arrays: Mapping[int, Array],
) -> list[str]:
    """The layers on all steps at once that compute each step from that step alone, as a linear
    layer does and attention does not: a NaN put into one step comes out in no other.
    """
    step = layout.columns.shown[len(layout.columns.shown) // 2]
    known: dict[int, Array] = {}
    for box in layout.line.boxes():
        for op in box.ops if box.step is not None else ():
            array = arrays[identity(op)]
            known[identity(op)] = array * np.nan if box.step == step else array
    x = dict(zip(layout.columns.shown, series["x"].parts, strict=True)) if "x" in series else {}
    if (given := x.get(step)) is not None and given.tensor.dtype in FLOATS:
        array = known[identity(given.tensor)] = arrays[identity(given.tensor)].copy()
        given.of(array)[...] = np.nan
    spread = replay(order, known)
    found = []
    for key, one in series.items():
        if one.whole or not key.startswith("r") or "_" in key:
            continue
        shown = zip(layout.columns.shown, one.parts, strict=True)
        others = [p.of(spread[identity(p.tensor)]) for t, p in shown if p and t != step]
        if not any(np.isnan(array).any() for array in others if array.dtype in FLOATS):
            found.append(key)
    return found


def _measures(series: Series, arrays: dict[int, Array]) -> list[Measures]:
    """Each statistic at every step; nothing where nothing is known of any."""
    found: list[Measures] = [[] for _ in STATISTICS]
    for part in series.parts:
        array = None if part is None else arrays.get(identity(part.tensor))
        taken = None if part is None or array is None else part.of(array)
        for listed, statistic in zip(found, STATISTICS, strict=True):
            listed.append(None if taken is None or not taken.size else _number(statistic(taken)))
    return found if any(n is not None for n in found[0]) else []


def _number(value: Any) -> float | str:
    """Three digits are enough to read; JSON has no word for what is not finite."""
    value = float(value)
    return float(f"{value:.3g}") if np.isfinite(value) else str(value)
