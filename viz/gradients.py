"""`gradient_flow`: how much of a loss's gradient is left so many steps before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import tinyseq as ts
from tinyseq import graph, nn
from tinyseq.arguments import checked
from tinyseq.tensor import FLOATS, Tensor

from .checks import as_sequence, calling, running
from .plots import DASHES, LINES, new_plot
from .taps import as_module, in_the_order_of_x, tapped

MARKED = 20  # of fewer steps every one has a point


@checked
def gradient_flow(
    modules: nn.Module | Mapping[str, nn.Module],
    x: Any,
    loss: Callable[[Tensor], Tensor] | None = None,
    *,
    name: str = "h",
    title: str = "How far back the gradient of the last step reaches",
) -> Any:
    """‖∂loss/∂h⟨t⟩‖ by lag, T − t, a line a layer, on a logarithmic axis: a `Plot`.

    The norm is over the units of a sequence, and its mean is over the batch. The last step of x has
    lag 0, also in a layer that runs from the end. A gradient that vanishes falls in a straight
    line, as an RNN's does; that which an LSTM's memory carries falls less. It runs in
    `nn.evaluation`, and no ``.grad`` is touched. ``data`` holds the norms by label, (T,), the first
    one that of lag 0; one that is exactly 0 is not drawn.

    Args:
        modules: a layer or a Module with recurrent layers inside, or several to compare, by label.
        x: what they take, (T, B, D), or whole numbers (T, B).
        loss: a function of what the module gives (of a tuple, the first part): a single number,
            Σ y⟨T⟩ when left out, the sum of the last outputs.
        name: which part of the state, of each layer that has it.

    Raises:
        ValueError: no module; one without recurrent layers, or without a state of that name; x of a
            shape that does not go into it; a loss that is no single number; a gradient that is not
            finite.
        TypeError: x of a dtype that does not go into it.
        RenderError: matplotlib is not installed.
    """
    several = modules if isinstance(modules, Mapping) else {"": modules}
    if not several:
        raise ValueError("there is no module to compare. Name at least one: {'RNN': layer}.")
    norms: dict[str, np.ndarray] = {}
    groups: list[tuple[int, int]] = []  # which module, which of its layers
    for i, (label, module) in enumerate(several.items()):
        found = _norms(module, x, loss, name)
        for j, (path, values) in enumerate(found.items()):
            # A module that has a single layer needs no name but its own.
            shown = f"{label}, {path}" if label and len(found) > 1 else label or path
            norms[shown] = values
            groups.append((i, j))

    figure = new_plot(7.0, 4.2)
    axes = figure.add_subplot()
    for (i, j), (label, values) in zip(groups, norms.items(), strict=True):
        kind, variant = (i, j) if isinstance(modules, Mapping) else (j, 0)
        drawn = np.where(values > 0, values, np.nan)
        axes.plot(
            np.arange(len(values)),
            drawn,
            color=LINES[kind % len(LINES)],
            linestyle=DASHES[(variant + kind // len(LINES)) % len(DASHES)],
            label=label,
            marker="o",
            markevery=slice(None) if len(values) < MARKED else _alone(drawn),
            markersize=3,
        )
    axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("lag T − t, steps before the last one")
    axes.set_ylabel(f"‖∂loss/∂{name}⟨t⟩‖, mean over the batch")
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    # Handed over, so that a label that begins with "_" is not left out.
    for written in axes.legend(axes.lines, list(norms)).get_texts():
        written.set_parse_math(False)
    figure.data = norms
    return figure


def _alone(drawn: np.ndarray) -> list[int]:
    """Where a number has none beside it: a line would not show it."""
    there = np.pad(np.isfinite(drawn), 1)
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:]).tolist()


def _norms(
    module: nn.Module, x: Any, loss: Callable[[Tensor], Tensor] | None, name: str
) -> dict[str, np.ndarray]:
    """(T,) of each layer, from the last step of x back to the first."""
    module = as_module(module)
    x = as_sequence(x)
    if not isinstance(x, Tensor):
        x = Tensor(x)
    # Whatever was frozen: a gradient is asked for, and flows only through what needs one.
    x = Tensor(x.detach().numpy(), None, x.dtype in FLOATS)
    frozen = [p for p in module.parameters() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad = True
    try:
        with nn.evaluation(module), tapped(module) as taps, graph.recorded(True):
            with running(module, x):
                result = module(x)
            y = result[0] if isinstance(result, tuple | list) else result
            last = y[:, -1] if getattr(module, "batch_first", False) else y[-1]
            if loss is None:
                value = last.sum()
            else:
                with calling(loss, "loss"):
                    value = loss(y)
            states = {p: s for p, tap in taps.items() if (s := tap.running(name))}
            if not states:
                there = sorted({n for tap in taps.values() for n in tap.called or ()})
                raise ValueError(
                    f"name={name!r}: {type(module).__name__} has no layer with such a state; there "
                    f"are {', '.join(there)}."
                )
            if not isinstance(value, Tensor) or value.size != 1:
                raise ValueError(
                    f"the loss is {value!r}, not a Tensor of a single number. Sum it, or take its "
                    "mean."
                )
            gradients = iter(ts.grad(value, [h for steps in states.values() for h in steps]))
    finally:
        for parameter in frozen:
            parameter.requires_grad = False
    out = {}
    for path, steps in states.items():
        each = [next(gradients).numpy().astype(np.float64) for _ in steps]
        lengths = np.stack([np.sqrt((g.reshape(len(g), -1) ** 2).sum(axis=1)) for g in each])
        # Those of a layer that runs from the end as well: by the step that they read, not made.
        by_step = in_the_order_of_x(lengths[taps[path].order()], module, path)
        out[path] = by_step.mean(axis=1)[::-1]
        if not np.isfinite(out[path]).all():
            raise ValueError(
                f"the gradient of {name} in {path} is not finite: it explodes, or the loss does."
            )
    return out
