"""What flowed along the arrows: the norm of each value and of the loss's gradient with respect to
it, and how that looks: dark and wide is much, pale and thin is little, on a scale of powers of ten.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tinyseq.backprop import grad, no_grad
from tinyseq.errors import GraphError
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from . import style
from .labels import counted
from .timeline import Source, Timeline

KINDS = ("gradient", "value")
Carried = Source | Sequence[Source]  # what an arrow carries, or at each step, where it is rolled up
DECADES = 8  # of the scale at most; what is smaller looks like its lower end
WIDTHS = (0.5, 4.0)
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


class Flow:
    """Norms by the value that flows: ``‖v‖`` and ``‖∂L/∂v‖``, over the batch and all units."""

    def __init__(
        self,
        kind: str,
        root: Tensor,
        order: Sequence[Tensor],
        line: Timeline,
        scale: tuple[float, float] | None = None,
    ) -> None:
        if kind == "gradient" and root.size != 1:
            raise ValueError(
                f"flow='gradient' needs one number to start from, such as a loss, not a tensor of "
                f"shape {root.shape}. Sum what you mean, or use flow='value'."
            )
        self.kind = kind
        self.line = line
        self.drawn: set[str] = set()  # what looks different from any norm, and was drawn
        wanted = {identity(t): t for t in _flowing(line)}
        self.values = _values(order, wanted.keys())
        self.gradients = _gradients(root, wanted.values()) if root.size == 1 else {}
        chosen = self.gradients if kind == "gradient" else self.values
        norms = [n for t in wanted.values() for n in self._norms(chosen, t) if n > 0]
        high = max((n for n in norms if math.isfinite(n)), default=1.0)
        low = max(min(norms, default=1.0), high / 10.0**DECADES)
        low, high = scale or (low, high)
        self.high = math.ceil(math.log10(high))
        self.low = min(math.floor(math.log10(low)), self.high - 1)

    def _norms(self, found: dict[int, np.ndarray], tensor: Tensor) -> list[float]:
        array = found.get(identity(tensor))
        return [] if array is None else [float(np.linalg.norm(array))]

    def norm(self, source: Source, kind: str) -> float | None:
        """Of one value; `None` where it is not known, of a constant's gradient, say."""
        tensor = source.tensor
        array = (self.gradients if kind == "gradient" else self.values).get(identity(tensor))
        if array is None:
            return None
        if (part := self.line.part_of(source)) is not None:
            axis, index = part
            array = array.take(index, axis)
        return float(np.linalg.norm(array))

    def told(self, carried: Carried) -> dict[str, float]:
        """Everything that is known of a value, by kind; of several the mean of their norms."""
        found = {kind: self._known(carried, kind) for kind in KINDS}
        return {kind: sum(norms) / len(norms) for kind, norms in found.items() if norms}

    def _known(self, carried: Carried, kind: str) -> list[float]:
        sources = [carried] if isinstance(carried, Source) else carried
        norms = (self.norm(source, kind) for source in sources)
        return [norm for norm in norms if norm is not None]

    def look(self, carried: Carried) -> style.Look:
        """How the arrow looks that carries it."""
        norm = self.told(carried).get(self.kind)
        if norm is None:
            self.drawn.add("grey")
            return {"color": style.UNKNOWN, "penwidth": WIDTHS[0]}
        if not norm > 0:  # nothing at all, or no number
            self.drawn.add("dotted")
            return {"color": style.UNKNOWN, "penwidth": WIDTHS[0], "style": "dotted"}
        return self._at(math.log10(norm) if math.isfinite(norm) else self.high)

    def _at(self, power: float) -> style.Look:
        part = (power - self.low) / (self.high - self.low)
        part = min(max(part, 0.0), 1.0)
        colour = style.between(style.FLOWS[self.kind], part)
        return {"color": colour, "penwidth": WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * part}

    def words(self, carried: Carried) -> list[str]:
        """The same for a tooltip."""
        signs = {"gradient": "‖∂L/∂v‖", "value": "‖v‖"}
        found = []
        for kind, norm in self.told(carried).items():
            steps = len(self._known(carried, kind))
            mean = f", the mean over {counted(steps, 'step')}" if steps > 1 else ""
            found.append(f"{signs[kind]} = {norm:.3g}{mean}")
        return found

    def scale(self) -> list[tuple[str, style.Look]]:
        """A power of ten and its look, smallest first."""
        powers = range(self.low, self.high + 1)
        return [(f"10{str(p).translate(_RAISED)}", self._at(p)) for p in powers]


def _flowing(line: Timeline) -> Iterable[Tensor]:
    """Every value of the boxes that were read, and what goes into them, as it was recorded."""
    for row in line.rows:
        for box in (row.read or row.boxes).values():
            yield from box.ops
            yield from (source.tensor for _, source in line.inputs(box))


def _values(order: Sequence[Tensor], wanted: Iterable[int]) -> dict[int, np.ndarray]:
    """The contents of values. A recording keeps only what gradients need: the rest is computed
    again.
    """
    nodes = (t.node for t in order if t.node is not None)
    found = replay(order, {id(n): n.output._data for n in nodes if n.output is not None})
    return {key: found[key] for key in wanted if key in found}


def replay(
    order: Sequence[Tensor], known: Mapping[int, np.ndarray] | None = None
) -> dict[int, np.ndarray]:
    """What each op made, computed again from the leaves and what is ``known``; by id of the
    value.
    """
    arrays = dict(known or {})
    with no_grad(), np.errstate(all="ignore"):
        for tensor in order:
            key, node = identity(tensor), tensor.node
            if key in arrays:
                continue
            if node is None:
                arrays[key] = tensor._data
            else:
                assert node.op is not None
                inputs = [Tensor.wrap(arrays.get(identity(x), x._data)) for x in node.inputs]
                arrays[key] = node.op(*inputs, **node.attrs)._data
    return arrays


def _gradients(root: Tensor, wanted: Iterable[Tensor]) -> dict[int, np.ndarray]:
    """Of the loss, with respect to each; no ``.grad`` is touched and the recording is kept."""
    asked = [t for t in wanted if t.requires_grad]
    if not asked:
        raise GraphError("nothing that is drawn requires a gradient, so none flowed back.")
    found = grad(root, asked, retain_graph=True)
    return {identity(t): g._data for t, g in zip(asked, found, strict=True)}
