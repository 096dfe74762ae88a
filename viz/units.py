"""`find_units`: units that follow a property of the text, and whether they do so by chance.

The best of a thousand units follows anything a little. So units are chosen on the first half of the
text, and on the second half they have to do it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Annotated, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from tinyseq import nn
from tinyseq.arguments import Size, Within, checked, one_of
from tinyseq.text import Vocabulary

from .checks import calling
from .values import record

TRACKS, CONTEXT = 32, 200  # a long text is read in parallel, each track read in before
SHORTEST = 400  # symbols: with fewer, nothing could be told from chance

Property = re.Pattern[str] | Callable[[Any], npt.ArrayLike] | npt.ArrayLike


class Unit(NamedTuple):
    """One unit, and how well it follows the property.

    Attributes:
        layer, name, unit: the ``unit``-th number of ``record(…)[layer][name]``.
        chosen: the measure on the first half of the text, on which the unit was chosen.
        held_out: on the second half.
        p: how often the best of the units chosen does as well, up or down, where the property is
            moved along the text.
        confirmed: p is small, and it is the same direction in both halves.
    """

    layer: str
    name: str
    unit: int
    chosen: float
    held_out: float
    p: float
    confirmed: bool


class Units(Sequence[Unit]):
    """What `find_units` found, the best on the first half of the text first.

    ``measure`` is "AUC" or "Spearman's ρ"; ``among`` is how many units there were to choose from,
    ``sizes`` the symbols of both halves, ``confirmed`` those units that are.
    """

    def __init__(
        self, units: Sequence[Unit], measure: str, what: str, among: int, sizes: tuple[int, int]
    ) -> None:
        self._units = tuple(units)
        self.measure, self.what, self.among, self.sizes = measure, what, among, sizes

    @property
    def confirmed(self) -> list[Unit]:
        return [unit for unit in self if unit.confirmed]

    @overload
    def __getitem__(self, i: int) -> Unit: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Unit]: ...
    def __getitem__(self, i: int | slice) -> Unit | Sequence[Unit]:
        return self._units[i]

    def __len__(self) -> int:
        return len(self._units)

    def _head(self) -> str:
        a, b = self.sizes
        return (
            f"{self.what}: the best of {self.among:,} units by {self.measure}, chosen on {a:,} "
            f"symbols, held against {b:,} others"
        )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        yield "layer", "unit", "chosen", "held out", "p", ""
        for unit in self:
            yield (
                unit.layer, f"{unit.name} {unit.unit}", f"{unit.chosen:.3f}",
                f"{unit.held_out:.3f}", f"{unit.p:.4f}", "confirmed" if unit.confirmed else "",
            )  # fmt: skip

    def __repr__(self) -> str:
        rows = list(self._rows())
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, wide, strict=True)) for row in rows]
        return "\n".join([self._head(), *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        head, *rows = (
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        head = head.replace("td>", "th>")
        return f"<table><caption>{escape(self._head())}</caption>{head}{''.join(rows)}</table>"


@checked
def find_units(
    model: nn.Module,
    vocabulary: Vocabulary,
    text: str | Sequence[str],
    property: Annotated[str, one_of(*PROPERTIES)] | Property,
    *,
    top: Size = 10,
    alpha: Annotated[float, Within(lambda p: 0 < p < 1, "between 0 and 1")] = 0.01,
) -> Units:
    """The units of a model's state that follow a property of the text most closely.

    ``property``: one of ``viz.PROPERTIES`` by its name ("quotation", "capital", "line_position",
    …); a regular expression, `re.compile`, true within its matches; a function of the text; or an
    array. The last two give N booleans or numbers, one for each symbol: what holds after reading
    it.

    Measured is, for booleans, AUC: the probability that the unit is larger at a symbol that has the
    property than at one that has not (0.5: it knows nothing; near 0: it is smaller). For numbers,
    Spearman's rank correlation.

    The ``top`` best are chosen on the first half of the text, from the states (h, c) of all layers,
    and measured on the second half. p compares that with the same property moved along that half by
    every distance but the smallest, by the best of the ``top`` units each time: both keep their
    runs and rhythms, so that what is slow alone does not look related, and the number of candidates
    is accounted for. ``confirmed`` are those with p ≤ ``alpha`` and the same direction in both
    halves. Give a text that the model was not trained on.

    Args:
        model: called as ``model(symbols (T, B))``, with recurrent layers inside.
        text: characters, or words for a vocabulary of them.

    Raises:
        ValueError: a text of less than 400 symbols or with symbols that the vocabulary lacks, an
            unknown property, one that is not N finite numbers or that is the same throughout one
            half of the text, or arguments out of range.
    """
    N = len(text)
    if N < SHORTEST:
        raise ValueError(
            f"the text has {N} symbols; units are told from chance on at least {SHORTEST}, better "
            "thousands."
        )
    wanted, what = _values(property, text)
    boolean = wanted.dtype == bool
    half = N // 2
    parts = (slice(None, half), slice(half, None))
    for part, which in zip(parts, ("first", "second"), strict=True):
        if (wanted[part] == wanted[part][0]).all():
            raise ValueError(
                f"{what} is {wanted[part][0]} throughout the {which} half of the text, so nothing "
                "can follow it. Give a longer text, or one that has both."
            )
    target = [_standard(wanted[p].astype(float) if boolean else _ranks(wanted[p])) for p in parts]

    states = _states(model, vocabulary.encode(text))
    places = [(layer, name, i) for (layer, name), a in states.items() for i in range(a.shape[1])]
    columns = [a[:, i] for a in states.values() for i in range(a.shape[1])]
    chosen = np.array([_standard(_ranks(u[parts[0]])) @ target[0] for u in columns])
    best = np.argsort(-np.abs(chosen), kind="stable")[:top]

    again = [_standard(_ranks(columns[i][parts[1]])) for i in best]
    held_out = np.array([u @ target[1] for u in again])
    n = N - half
    moved = np.fft.rfft(target[1]).conj()
    # By every distance at once: a circular correlation.
    by_distance = np.abs([np.fft.irfft(np.fft.rfft(u) * moved, n) for u in again])
    nearest = n // 20
    chance = by_distance[:, nearest : n - nearest + 1].max(axis=0)

    measure, measured = ("AUC", _auc) if boolean else ("Spearman's ρ", _spearman)
    units = []
    for i, r in zip(best, held_out, strict=True):
        p = float((1 + (chance >= abs(r)).sum()) / (1 + len(chance)))
        layer, name, unit = places[i]
        first, second = (measured(columns[i][part], wanted[part]) for part in parts)
        confirmed = bool(p <= alpha and r * chosen[i] > 0)
        units.append(Unit(layer, name, unit, first, second, p, confirmed))
    return Units(units, measure, what, len(columns), (half, n))


def _states(model: nn.Module, indices: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """(N, H) of each layer and part of its state, after reading each of N symbols.

    Long texts are read as `text.score` does: in tracks, each but the first read in before.
    """
    N = len(indices)
    tracks = max(1, min(TRACKS, N // (4 * CONTEXT)))
    length = -(-N // tracks)
    starts = np.maximum(np.arange(tracks) * length - CONTEXT, 0)
    at = np.minimum(starts + np.arange(length + CONTEXT if tracks > 1 else N)[:, None], N - 1)
    recorded = record(model, indices[at], local=False)
    out = {}
    for layer, states in recorded.items():
        for name, array in states.items():
            whole = np.empty((N, array.shape[2]), array.dtype)
            for track, start in enumerate(starts):
                first, last = track * length, min((track + 1) * length, N)
                whole[first:last] = array[first - start : last - start, track]
            out[layer, name] = whole
    return out


# -- how closely one thing follows another ---------------------------------------------------------


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest; equal ones share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks


def _standard(values: np.ndarray) -> np.ndarray:
    """Mean 0 and length 1, so that a product of two is their correlation; zeros for a constant."""
    centred = values - values.mean()
    length = np.linalg.norm(centred)
    return centred / length if length > 1e-9 * len(values) else np.zeros(len(values))


def _spearman(values: np.ndarray, wanted: np.ndarray) -> float:
    return float(_standard(_ranks(values)) @ _standard(_ranks(wanted)))


def _auc(values: np.ndarray, wanted: np.ndarray) -> float:
    """P(value at a true one > value at a false one), equal ones counted half."""
    yes = int(wanted.sum())
    mean_rank = _ranks(values)[wanted].mean()
    return float((mean_rank - (yes + 1) / 2) / (len(wanted) - yes))


# -- properties ------------------------------------------------------------------------------------


def _values(property: str | Property, text: Any) -> tuple[np.ndarray, str]:
    """The property at each symbol, booleans or numbers, and what to call it."""
    what = "the property"
    found: Any = property
    if isinstance(property, str):
        what, property = property, PROPERTIES[property]
    elif isinstance(property, re.Pattern):
        what, property = f"/{property.pattern}/", _within(property)
    if callable(property):
        what = getattr(property, "__name__", what) if what == "the property" else what
        with calling(property, "property"):
            found = property(text)
    array = np.asarray(found)
    if array.shape != (len(text),) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{what} has to be N={len(text)} booleans or numbers, one for each symbol, not "
            f"{array.dtype} of shape {array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{what} is not finite at symbol {int(np.argmin(np.isfinite(array)))}.")
    return array, what


def _within(pattern: re.Pattern[str]) -> Callable[[str], np.ndarray]:
    def within(text: str) -> np.ndarray:
        out = np.zeros(len(text), bool)
        for match in pattern.finditer("".join(text)):
            out[match.start() : match.end()] = True
        return out

    return within


def _of_each(test: Callable[[str], bool]) -> Callable[[Sequence[str]], np.ndarray]:
    return lambda text: np.array([test(symbol) for symbol in text], bool)


def _since(ends: Callable[[str], bool]) -> Callable[[Sequence[str]], np.ndarray]:
    """How many symbols were read since the last one of a kind; 0 at one."""

    def since(text: Sequence[str]) -> np.ndarray:
        out = np.empty(len(text), np.int64)
        count = 0
        for i, symbol in enumerate(text):
            count = 0 if ends(symbol) else count + 1
            out[i] = count
        return out

    return since


def _inside(opening: str, closing: str) -> Callable[[Sequence[str]], np.ndarray]:
    """After an opening mark and before its closing one. An empty line closes what is open."""

    def inside(text: Sequence[str]) -> np.ndarray:
        out = np.empty(len(text), bool)
        depth, before = 0, ""
        for i, symbol in enumerate(text):
            if symbol in opening and not (symbol in closing and depth):
                depth += 1
            elif symbol in closing:
                depth = max(0, depth - 1)
            elif symbol == before == "\n":
                depth = 0
            out[i] = depth > 0
            before = symbol
        return out

    return inside


def _line_end(symbol: str) -> bool:
    return symbol == "\n"


def _to_line_end(text: Sequence[str]) -> np.ndarray:
    return _since(_line_end)(text[::-1])[::-1]


PROPERTIES: dict[str, Callable[[Any], np.ndarray]] = {
    "quotation": _inside('"“«', '"”»'),
    "bracket": _inside("([{", ")]}"),
    "capital": _of_each(str.isupper),
    "digit": _of_each(str.isdigit),
    "white_space": _of_each(str.isspace),
    "line_end": _of_each(_line_end),
    "line_position": _since(_line_end),
    "to_line_end": _to_line_end,
    "word_position": _since(lambda symbol: not symbol.isalnum()),
}
