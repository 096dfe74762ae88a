"""The gallery's page: every figure with its title, what it shows, its code and its picture."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from tinyseq import random
from tinyseq.saving import write_atomically

from .. import RenderError
from . import gated, language, recurrent  # noqa: F401  (each adds its figures)
from .figures import FIGURES, PREAMBLE, Figure, all_figures, as_html
from .notes import NOTES

DEFAULT_OUT = Path("runs/gallery")


def page(pictures: Mapping[str, Mapping[str, bytes]]) -> str:
    """One self-contained HTML file of some figures; of each, by its key, the files it drew."""
    figures = [FIGURES[key] for key in pictures]
    contents, sections = "", ""
    for name, group in groupby(figures, key=lambda figure: figure.section):
        members = list(group)
        links = ", ".join(f'<a href="#{f.key}">{escape(f.title)}</a>' for f in members)
        contents += f"<li><b>{escape(name)}:</b> {links}</li>"
        sections += f"<h2>{escape(name)}</h2>"
        sections += "".join(_figure(figure, pictures[figure.key]) for figure in members)
    style = files(__package__).joinpath("gallery.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>tinyseq: the gallery</title><style>{style}</style></head><body>"
        "<h1>The gallery</h1>"
        "<p>The figures of a course on sequence models, drawn by tinyseq from running code: what "
        "a network recorded as it computed is what is drawn. Below each figure stands the code "
        "that made it, which begins with</p>"
        f"<pre>{escape(PREAMBLE)}</pre>"
        f'<nav aria-label="figures"><ul>{contents}</ul></nav><main>{sections}</main>'
        f"<h2>The notes' figures</h2><table><tbody>{_notes(pictures)}</tbody></table>"
        "</body></html>\n"
    )


def _figure(figure: Figure, pictures: Mapping[str, bytes]) -> str:
    shown = "".join(
        f'<div class="picture">{as_html(name, content, figure.title)}</div>'
        for name, content in pictures.items()
    )
    return (
        f'<figure id="{figure.key}"><h3>{escape(figure.title)}</h3>'
        f"<figcaption>{escape(figure.says)}</figcaption>{shown}"
        f"<details open><summary>The code</summary><pre>{escape(figure.code)}</pre></details>"
        "</figure>"
    )


def _notes(drawn: Collection[str]) -> str:
    rows = ""
    for what, keys in NOTES.items():
        links = ", ".join(
            f'<a href="#{key}">{escape(FIGURES[key].title)}</a>' for key in keys if key in drawn
        )
        rows += f"<tr><td>{escape(what)}</td><td>{links}</td></tr>" if links else ""
    return rows


def make(out: str | os.PathLike[str], keys: Sequence[str] = ()) -> Path:
    """Draw the figures (some, or all) into a folder, each picture by itself and all of them with
    their code in ``index.html``; the path of that.

    Each file appears whole or not at all. Raises `KeyError` for a figure that is not there,
    `RenderError` when there is no renderer, `OSError` when the folder cannot be written to.
    """
    unknown = [key for key in keys if key not in FIGURES]
    if unknown:
        raise KeyError(
            f"no figure {', '.join(unknown)}; there are {', '.join(f.key for f in all_figures())}"
        )
    figures = [figure for figure in all_figures() if not keys or figure.key in keys]
    pictures = {}
    before = random.get_state()
    try:
        for figure in figures:
            random.seed(0)  # whichever are drawn, each is the same
            pictures[figure.key] = figure.files()
    finally:
        random.set_state(before)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for files_of in pictures.values():
        for name, content in files_of.items():
            write_atomically(folder / name, content)
    write_atomically(folder / "index.html", page(pictures).encode())
    return folder / "index.html"


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Draw the figures of the lecture notes into one page."
    )
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="FOLDER", help=f"(default {DEFAULT_OUT})"
    )
    parser.add_argument(
        "--only", nargs="+", default=(), choices=FIGURES, metavar="FIGURE",
        help=f"some of the figures: {', '.join(FIGURES)}",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        print(make(options.out, options.only))
    except RenderError as problem:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        reason = problem.strerror or problem
        print(
            f"{parser.prog}: cannot write to {options.out}: {reason}. Choose another --out.",
            file=sys.stderr,
        )
        return 1
    return 0
