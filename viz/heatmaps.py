"""`heatmap`: units over time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinyseq.arguments import checked

from .checks import refuse_empty
from .plots import new_plot
from .symbols import visible
from .values import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIGNED, GATE = "RdBu_r", "viridis"  # neither asks a reader to tell red from green
NOTHING = "#D9D9D9"  # where there is no value
GATES = ("update", "forget", "output", "reset")
SYMBOLS, ROWS = 200, 9  # on the axes: more cannot be read


@checked
def heatmap(
    values: Record | npt.ArrayLike,
    names: str | Sequence[str] | Mapping[str, str] | None = None,
    *,
    layer: str | int = -1,
    sequence: int = 0,
    units: Sequence[int] | None = None,
    symbols: Iterable[str] | None = None,
    signed: bool | None = None,
    title: str | None = None,
) -> Any:
    """Units × time in colour, one panel a value, as a matplotlib Figure (`Plot`).

    Signed values are drawn from blue through white, which is 0, to red, alike to both sides; gates,
    0 … 1, from dark to bright. Where a few units are far larger than all others, the colours end
    before them, and the colour bar in arrows. ``data`` holds the panels' arrays (units, T);
    ``save(path)`` writes them as a picture.

    Args:
        values: what `record` gave, or an array (T, H) or (T, B, H).
        names: which values of a `Record`, one below the other, its state when left out, and in a
            dictionary what to call each, ``{"forget": "Γ_f"}``; of an array, what it is called.
        layer: of a `Record`, by name or by place.
        sequence: which one of the batch.
        units: which units, in that order; all when left out.
        symbols: what the steps read, for the time axis: a text of T characters, or T words.
        signed: whether 0 is the middle; when left out, gates and what lies in 0 … 1 are not.
        title: above it all.

    Raises:
        ValueError: an array that is neither (T, H) nor (T, B, H), an empty list of names or units,
            or symbols of another number.
        KeyError, IndexError: a layer, name, sequence or unit that is not there.
        RenderError: matplotlib is not installed.
    """
    refuse_empty(units, "units", "[0, 5]")
    refuse_empty(names, "names", "['h', 'forget']")
    if isinstance(values, Record):
        layer = values.name(layer)
        states = values[layer]
        chosen = states.state if names is None else [names] if isinstance(names, str) else names
        called = names if isinstance(names, Mapping) else {}
        arrays = {called.get(name, name): states[name] for name in chosen}
        title = layer if title is None else title
    else:
        arrays = {names if isinstance(names, str) else "value": np.asarray(values)}
    panels = {name: _panel(name, array, sequence, units) for name, array in arrays.items()}
    T = max(panel.shape[1] for panel in panels.values())
    written = None if symbols is None else [visible(symbol) for symbol in symbols]
    if written is not None and len(written) != T:
        raise ValueError(f"there are {len(written)} symbols for T={T} steps. Give one for each.")

    rows = map(len, panels.values())
    heights = [min(4.0, max(1.0, min(0.2 * n, 0.2 * ROWS), 0.13 * n)) for n in rows]
    figure = new_plot(min(15.0, max(6.0, 1.8 + 0.13 * T)), 0.9 + sum(heights) + 0.35 * len(heights))
    every = figure.subplots(
        len(panels), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, (name, panel) in zip(every, panels.items(), strict=True):
        _draw(axes, name, panel, units, signed)
        axes.tick_params(axis="x", length=0)
    _time_axis(every[-1], T, written)
    if title:
        figure.suptitle(title, parse_math=False)
    figure.data = panels
    return figure


def _panel(name: str, array: np.ndarray, sequence: int, units: Sequence[int] | None) -> np.ndarray:
    """(units, T) of one sequence."""
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(
            f"values: {name} has shape {array.shape}; a heat map shows (T, H), or one sequence of "
            "(T, B, H)."
        )
    if array.ndim == 3:
        B = array.shape[1]
        if not -B <= sequence < B:
            raise IndexError(f"sequence={sequence} is not there: {name} has B={B} of them.")
        array = array[:, sequence]
    if units is not None:
        H = array.shape[1]
        for unit in units:
            check_unit(unit, H, name)
        array = array[:, list(units)]
    return np.asarray(array.T, np.float64)


def check_unit(unit: int, H: int, name: str) -> None:
    """Raise `IndexError` for a unit that is not one of H."""
    if not 0 <= unit < H:
        raise IndexError(f"unit {unit} is not there: {name} has H={H} units, 0 … {H - 1}.")


def is_signed(name: str, array: np.ndarray) -> bool:
    """Whether 0 is in the middle of what a value may be: not of a gate."""
    if name in GATES:
        return False
    known = array[np.isfinite(array)]
    return bool(name in ("h", "c", "candidate") or (known < 0).any())


def limit_of(array: np.ndarray, signed: bool) -> float:
    """Where the colours end: the largest distance from 0; 1 for gates and for nothing but zeros."""
    most = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    return most or 1.0 if signed else max(1.0, most)


def _draw(
    axes: Axes, name: str, panel: np.ndarray, units: Sequence[int] | None, signed: bool | None
) -> None:
    signed = is_signed(name, panel) if signed is None else signed
    most = limit = limit_of(panel, signed)
    usual = float(np.nanquantile(np.abs(panel), 0.98)) if np.isfinite(panel).any() else limit
    if 0 < usual < most / 2:
        limit = usual
    axes.set_facecolor(NOTHING)
    image = axes.imshow(
        panel,
        cmap=SIGNED if signed else GATE,
        vmin=-limit if signed else 0.0,
        vmax=limit,
        aspect="auto",
        interpolation="nearest",
    )
    n = len(panel)
    rows = range(0, n, _apart(n))
    axes.set_yticks(rows, [str(row if units is None else units[row]) for row in rows])
    axes.set_ylabel("unit")
    axes.set_title(name, loc="left", fontsize="medium", parse_math=False)
    cut = "neither" if limit == most else "both" if signed else "max"
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, aspect=12, extend=cut)
    bar.set_label("signed activation" if signed else "activation", fontsize="small")


def _apart(n: int) -> int:
    """Of so many rows, how far those are apart that are numbered: 1, 2, 5, 10, 20, 50, …"""
    steps = (k * int(10**power) for power in itertools.count() for k in (1, 2, 5))
    return next(step for step in steps if n <= ROWS * step)


def _time_axis(axes: Axes, T: int, written: list[str] | None) -> None:
    if written is None or len(written) > SYMBOLS:
        axes.tick_params(axis="x", length=3)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("step t")
        return
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans Mono"))
    drawn = ["".join(c if font.get_char_index(ord(c)) else "□" for c in s) for s in written]
    size = 9.0 if T < 110 else 9.0 * 110 / T
    words = max(map(len, drawn)) > 1
    axes.set_xticks(
        range(T), drawn, family="DejaVu Sans Mono", fontsize=size, parse_math=False,
        rotation=90 if words else 0,
    )  # fmt: skip
    axes.set_xlabel("symbol read, one a step t")
