"""`colour_text`: a text, each symbol in the colour of one unit's activation after reading it.

Karpathy, Johnson and Fei-Fei, 2015, "Visualizing and understanding recurrent networks".
"""

from __future__ import annotations

import html
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from tinyseq import nn
from tinyseq.arguments import Count, checked
from tinyseq.saving import write_atomically
from tinyseq.text import Vocabulary

from .heatmaps import check_unit, is_signed, limit_of
from .symbols import visible
from .values import record

if TYPE_CHECKING:
    from .units import Unit

# Okabe and Ito (2008): vermilion above 0, blue below, bluish green for probabilities.
ABOVE, BELOW, LIKELY = (213, 94, 0), (0, 114, 178), (0, 158, 115)
STRONGEST = 0.8  # of a colour: the symbol on it stays readable, by night too
BARS = " ▁▂▃▄▅▆▇█"
COLUMNS = 100  # of what is no terminal

_PAGE = (
    "html{color-scheme:light dark}body{margin:0}"
    "@media(prefers-color-scheme:dark){body{background:#15171a}}"
)
_STYLE = """
.ts-text{color-scheme:light dark;--ink:#1a1a1a;--faint:#767676;--page:#fff;color:var(--ink);
  background:var(--page);font:15px/1.25 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;
  padding:1em}
@media(prefers-color-scheme:dark){.ts-text{--ink:#ececec;--faint:#9a9a9a;--page:#15171a}}
.ts-text p{margin:0 0 .6em;font:14px/1.4 system-ui,sans-serif}
.ts-text .line{display:flex;flex-wrap:wrap;row-gap:.5em;margin-bottom:.5em}
.ts-text .step{display:flex;flex-direction:column;text-align:center;white-space:pre}
.ts-text .step>b{font-weight:normal;padding:.1em .12em;min-width:1.05ch}
.ts-text .step>i{font-style:normal;font-size:11px;line-height:1.3;padding:0 .1em;user-select:none}
.ts-text .sign{color:var(--faint)}
.ts-text .a{background:rgba(213,94,0,var(--s))}
.ts-text .b{background:rgba(0,114,178,var(--s))}
.ts-text .p{background:rgba(0,158,115,var(--s))}
.ts-text .next{text-decoration:underline;text-underline-offset:2px}
.ts-text:has(input:not(:checked)) .line i{display:none}
.ts-text .scale{display:inline-block;width:9em;height:.8em;vertical-align:baseline;margin:0 .4em}
"""


@dataclass(frozen=True)
class ColouredText:
    """A text and, for each of its N symbols, an activation and the likeliest next symbols.

    A notebook shows it as HTML; ``print`` writes it in colour where that can be seen, and `save`
    makes it a page of its own.

    Attributes:
        symbols: what was read.
        activations: (N,), of the unit after it has read each.
        likely: for each, the likeliest next symbols, the first one first.
        probabilities: (N, k), theirs.
        title: which unit this is.
        signed: whether activations are drawn to both sides of 0, else from 0 on.
        separator: what stands between symbols: a space between words, nothing between others.
    """

    symbols: tuple[str, ...]
    activations: np.ndarray
    likely: tuple[tuple[str, ...], ...]
    probabilities: np.ndarray
    title: str
    signed: bool
    separator: str = ""

    def __str__(self) -> str:
        """As `terminal`, in colour if standard output is a terminal that wants it."""
        return self.terminal()

    def __repr__(self) -> str:
        return f"<ColouredText: {len(self.symbols)} symbols, {self.title}; print(), .save(path)>"

    @property
    def limit(self) -> float:
        """The activation that has the strongest colour."""
        return limit_of(self.activations, self.signed)

    # -- HTML ------------------------------------------------------------------------------------

    def html(self) -> str:
        """A page that needs nothing else: light or dark as its reader's screen is."""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
            f"<title>{_escaped(self.title)}</title>\n<style>{_PAGE}{_STYLE}</style>\n</head>\n"
            f"<body>\n{self._body()}\n</body>\n</html>\n"
        )

    @checked
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page; the file appears whole or not at all.

        Raises `ValueError` for a name that does not end in .html, `OSError` where it cannot be
        written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise ValueError(
                f"path: a coloured text is saved as a page: let {path.name!r} end in .html."
            )
        write_atomically(path, self.html().encode("utf-8"))
        return path

    def _repr_html_(self) -> str:
        return f"<style>{_STYLE}</style>{self._body()}"

    def _body(self) -> str:
        lines: list[list[str]] = [[]]
        for i, symbol in enumerate(self.symbols):
            lines[-1].append(self._step(i))
            if symbol.endswith("\n"):
                lines.append([])
        opening = f'<div class="line" style="column-gap:{len(self.separator) / 2}em">'
        rows = "\n".join(f"{opening}{''.join(line)}</div>" for line in lines if line)
        k = self.probabilities.shape[1]
        choice = (
            f'<p><label><input type="checkbox" checked="checked"/> the {k} likeliest next symbols '
            'below each: <span class="p" style="--s:.6">the greener the likelier</span>, '
            '<span class="next">underlined</span> the one that comes</label></p>\n'
        )
        return (
            f'<div class="ts-text">\n<p><strong>{_escaped(self.title)}</strong> {self._scale()}</p>'
            f"\n{choice if k else ''}{rows}\n</div>"
        )

    def _step(self, i: int) -> str:
        """One symbol, and below it those that may come next."""
        value = float(self.activations[i])
        after = self.symbols[i + 1] if i + 1 < len(self.symbols) else None
        likely = list(zip(self.likely[i], self.probabilities[i], strict=True))
        told = ", ".join(f"{visible(s)} {p:.0%}" for s, p in likely)
        tip = f"{visible(self.symbols[i])} {value:.3f}" + (f"; next: {told}" if told else "")
        below = "".join(
            f'<i class="p{" next" if s == after else ""}" style="--s:{STRONGEST * p:.2f}">'
            f"{_shown(s)}</i>"
            for s, p in likely
        )
        side, strength = "b" if value < 0 else "a", STRONGEST * abs(value) / self.limit
        return (
            f'<span class="step" title="{_escaped(tip)}"><b class="{side}" '
            f'style="--s:{strength:.2f}">{_shown(self.symbols[i])}</b>{below}</span>'
        )

    def _scale(self) -> str:
        """What the colours mean."""
        middle = f"rgba{(*BELOW, STRONGEST)},transparent" if self.signed else "transparent"
        colours = f"{middle},rgba{(*ABOVE, STRONGEST)}"
        return (
            f'{f"−{self.limit:.2g}" if self.signed else 0}<span class="scale" '
            f'style="background:linear-gradient(to right,{colours})"></span>{self.limit:.2g}'
        )

    # -- terminal --------------------------------------------------------------------------------

    @checked
    def terminal(self, colour: bool | None = None, likely: bool = True) -> str:
        """For a terminal, 24 bits a colour: the text, and the likeliest next symbols below it.

        ``colour=None``: where standard output is a terminal, and neither ``NO_COLOR`` nor
        ``TERM=dumb`` is set. Without colour bars stand below the symbols, as high as the activation
        is between the two ends of the scale. ``likely=False`` leaves the next symbols out; what
        remains in colour is the text itself. Characters that would control the terminal are shown
        as signs.
        """
        colour = wants_colour(sys.stdout) if colour is None else colour
        likely = likely and self.probabilities.shape[1] > 0
        if colour and not likely:
            printed = (_printable(symbol) for symbol in self.symbols)
            return self.separator.join(
                _on(self._ground(i), s.rstrip("\n")) + "\n" * s.endswith("\n")
                for i, s in enumerate(printed)
            )
        blocks = [self._block(line, colour, likely) for line in self._lines(likely)]
        return ("\n\n" if likely else "\n").join(blocks)

    def _cells(self, i: int, likely: bool) -> list[str]:
        return [visible(s) for s in (self.symbols[i], *(self.likely[i] if likely else ()))]

    def _lines(self, likely: bool) -> Iterator[list[int]]:
        """The steps of each line: up to a line's end, and no wider than the terminal."""
        columns = shutil.get_terminal_size((COLUMNS, 24)).columns
        line: list[int] = []
        used = 0
        for i, symbol in enumerate(self.symbols):
            wide = max(map(_columns, self._cells(i, likely)))
            if line and used + wide > columns:
                yield line
                line, used = [], 0
            line.append(i)
            used += wide + len(self.separator)
            if symbol.endswith("\n"):
                yield line
                line, used = [], 0
        if line:
            yield line

    def _block(self, line: list[int], colour: bool, likely: bool) -> str:
        """A line of the text, what is below it, each symbol in a column of its own."""
        rows: list[list[str]] = []
        for i in line:
            cells = self._cells(i, likely)
            wide = max(map(_columns, cells))
            padded = [cell + " " * (wide - _columns(cell)) for cell in cells]
            if colour:
                grounds = [self._ground(i), *(_mixed(LIKELY, p) for p in self.probabilities[i])]
                padded = [_on(ground, cell) for ground, cell in zip(grounds, padded, strict=True)]
            else:
                low = -self.limit if self.signed else 0.0
                height = (float(self.activations[i]) - low) / (self.limit - low)
                padded.insert(1, BARS[round(8 * min(1.0, max(0.0, height)))] * wide)
            rows.append(padded)
        return "\n".join(self.separator.join(row).rstrip() for row in zip(*rows, strict=True))

    def _ground(self, i: int) -> tuple[int, int, int]:
        value = float(self.activations[i])
        return _mixed(ABOVE if value >= 0 else BELOW, abs(value) / self.limit)


@checked
def colour_text(
    model: nn.Module,
    vocabulary: Vocabulary,
    text: str | Sequence[str],
    unit: int | Unit,
    *,
    layer: str | int = -1,
    name: str | None = None,
    likely: Count = 5,
) -> ColouredText:
    """A text, each symbol coloured by what one unit is after reading it; the likeliest next ones.

    The text is read once, from the model's start. Strong colours are far from 0, vermilion above
    it and blue below it.

    Args:
        model: called as ``logits, state = model(symbols (T, B))``, with recurrent layers inside; a
            `text.LanguageModel`, say.
        text: characters, or words for a vocabulary of them.
        unit: which unit, or one that `find_units` found, which knows its layer and name.
        layer: by its name or place, as in `record`; the last one when left out.
        name: which of its values; when left out its memory c, or its output where there is no c.
        likely: how many of the next symbols to show.

    Raises:
        ValueError: no text, symbols that the vocabulary lacks, a negative ``likely``, or a model
            that does not give one logit for each symbol of the vocabulary.
        KeyError, IndexError: a layer, name or unit that is not there.
    """
    if isinstance(unit, tuple):
        layer, name, unit = unit.layer, unit.name, unit.unit
    if not len(text):
        raise ValueError("the text is empty: there is nothing to colour.")
    recorded = record(model, vocabulary.encode(text), local=name not in (None, "h", "c"))
    states = recorded[layer]
    name = states.state[0] if name is None else name
    values = states[name][:, 0]
    check_unit(unit, values.shape[-1], f"{name} of {recorded.name(layer)}")
    logits = recorded.output
    if logits.shape != (len(text), 1, len(vocabulary)):
        raise ValueError(
            f"the model gives an output of shape {logits.shape} for {len(text)} symbols, not "
            f"logits (T={len(text)}, 1, V={len(vocabulary)}). Give it with the vocabulary that it "
            "was trained with."
        )
    probabilities = _softmax(logits[:, 0])
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :likely]
    return ColouredText(
        symbols=tuple(text),
        activations=values[:, unit].astype(np.float64),
        likely=tuple(tuple(vocabulary.symbols[i] for i in row) for row in best),
        probabilities=np.take_along_axis(probabilities, best, axis=1),
        title=f"{name} of unit {unit}, {recorded.name(layer)}",
        signed=is_signed(name, values),
        separator=vocabulary.separator,
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    scaled = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = scaled / scaled.sum(axis=1, keepdims=True)
    return probabilities


def _escaped(line: str) -> str:
    return html.escape(line, quote=True)


def _shown(symbol: str) -> str:
    """A symbol in HTML; what is only a sign for it is faint."""
    sign = visible(symbol)
    return _escaped(sign) if sign == symbol else f'<span class="sign">{_escaped(sign)}</span>'


# -- terminals -------------------------------------------------------------------------------------


def wants_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal whose user has nothing against colours (no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not refused and stream.isatty()


def _printable(symbol: str) -> str:
    """Itself, but for what would move the cursor or worse; tabs and line ends are as they are."""
    return "".join(c if c in " \n\t" else visible(c) for c in symbol)


def _mixed(colour: tuple[int, int, int], strength: float) -> tuple[int, int, int]:
    """The colour on white paper, whatever ground the terminal has."""
    share = STRONGEST * min(1.0, strength)
    r, g, b = (round(255 + share * (part - 255)) for part in colour)
    return r, g, b


def _on(ground: tuple[int, int, int], cell: str) -> str:
    """Black on that ground."""
    r, g, b = ground
    return f"\x1b[38;2;0;0;0;48;2;{r};{g};{b}m{cell}\x1b[0m" if cell else ""


def _columns(cell: str) -> int:
    """How many columns of a terminal it takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in cell)
    return len(cell) + wide - sum(unicodedata.combining(c) > 0 for c in cell)
