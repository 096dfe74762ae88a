"""`Picture`: DOT text, and its rendering by whichever Graphviz there is."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyseq.saving import write_atomically

FORMATS = ("dot", "gv", "svg", "png", "pdf")
PNG_DPI = 144  # one and a half times a screen's: small print stays readable

NO_RENDERER = (
    "no Graphviz renderer was found, so only DOT text can be had (.dot). Either\n"
    "  pip install graphviz-pure    and nothing else, or\n"
    "  pip install graphviz         together with the system's Graphviz, its `dot` on PATH\n"
    "                               (apt install graphviz, brew install graphviz, or "
    "https://graphviz.org/download/)."
)


class RenderError(RuntimeError):
    """There is no renderer, or the one there is cannot do what was asked."""


@dataclass(frozen=True)
class Picture:
    """A graph as DOT text, rendered when asked. A notebook shows it as SVG by itself.

    ``dot``: the DOT text; it needs no renderer. ``note``: what was left out, where the whole would
    have been too large to be read. ``data``: where a picture shows what flowed, what is known of
    each arrow by its id in the SVG: the norm of the ``value`` and of the ``gradient``.
    """

    dot: str
    note: str = ""
    data: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def svg(self) -> str:
        """The picture as SVG text. Raises `RenderError` when there is no renderer."""
        return render(self.dot, "svg").decode("utf-8")

    def png(self) -> bytes:
        """The picture as a PNG file's bytes. Raises `RenderError` when there is no renderer."""
        return render(self.dot, "png")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture; the suffix says how: .dot or .gv, .svg, .png, or .pdf (the system's
        Graphviz only).

        The file appears whole or not at all. Raises `ValueError` for another suffix, `RenderError`
        when the renderer is missing or fails, `OSError` when the folder cannot be written to.
        """
        path = Path(path)
        kind = kind_of(path, FORMATS)
        content = self.dot.encode() if kind in ("dot", "gv") else render(self.dot, kind)
        write_atomically(path, content)
        return path

    def _repr_svg_(self) -> str | None:
        try:
            return self.svg()
        except (RenderError, OSError):  # a notebook then shows the DOT text, not a traceback
            return None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        svg = self._repr_svg_()
        return {"text/plain": self.dot} if svg is None else {"image/svg+xml": svg}

    def __repr__(self) -> str:
        return f"<Picture: {len(self.dot.splitlines())} lines of DOT; .svg(), .save(path)>"


def kind_of(path: Path, formats: Sequence[str]) -> str:
    """What to write, by the name's suffix. Raises `ValueError` for any but these."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in formats:
        raise ValueError(
            f"cannot tell from {path.name!r} what to write. "
            f"Let the name end in one of {', '.join('.' + f for f in formats)}."
        )
    return kind


def render(dot: str, kind: str) -> bytes:
    """DOT text in, the bytes of an ``svg``, ``png`` or ``pdf`` (or another format Graphviz has)
    out.
    """
    renderer = find_renderer()
    if renderer is None:
        raise RenderError(NO_RENDERER)
    if kind == "png":
        dot = dot.replace("{", f"{{\n  graph [dpi={PNG_DPI}];", 1)
    rendered = renderer(dot.encode("utf-8"), kind)
    return _centred(rendered.decode("utf-8")).encode("utf-8") if kind == "svg" else rendered


def find_renderer() -> Callable[[bytes, str], bytes] | None:
    """The system's ``dot`` through the graphviz package, else graphviz-pure, else `None`."""
    if shutil.which("dot") and _installed("graphviz"):
        return _system_graphviz
    return _graphviz_pure if _pure_executable() else None


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _system_graphviz(dot: bytes, kind: str) -> bytes:
    import graphviz

    try:
        return bytes(graphviz.pipe("dot", kind, dot, quiet=True))
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError) as cause:
        raise RenderError(f"Graphviz could not make a {kind} file: {cause}") from cause


def _graphviz_pure(dot: bytes, kind: str) -> bytes:
    if kind == "pdf":
        raise RenderError(
            "graphviz-pure writes no .pdf. Save as .svg or .png, or install the system's Graphviz: "
            "apt install graphviz, brew install graphviz, https://graphviz.org/download/"
        )
    program = _pure_executable()
    assert program is not None
    done = subprocess.run([program, f"-T{kind}"], input=dot, capture_output=True)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise RenderError(f"graphviz-pure could not make a {kind} file: {reason}")
    return done.stdout


def _pure_executable() -> str | None:
    """Where pip put the program: a virtual environment that is not activated is not on PATH."""
    try:
        files = importlib.metadata.files("graphviz-pure") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        place = Path(file.locate())
        if place.stem == "graphviz-pure" and place.is_file():
            return str(place)
    return shutil.which("graphviz-pure")


# -- labels in the middle of their boxes -----------------------------------------------------------

_NODE = re.compile(r'<g id="[^"]*" class="node[ "].*?</g>', re.DOTALL)
_SHAPE = re.compile(r'<(?:path|polygon)\b[^>]*? (?:d|points)="([^"]*)"')
_POINT = re.compile(r"(-?[\d.]+),-?[\d.]+")
_LINE = re.compile(r'text-anchor="start" x="[^"]*"')


def _centred(svg: str) -> str:
    """The same SVG with each line of a box's label, one piece of text, anchored in its middle.

    Graphviz sets each line of an HTML-like label where the line would begin in a font as wide as
    its own. A browser's Helvetica is another font, and lets it end somewhere else. Anchored in the
    middle of its box a line stands there in every font, as labels without HTML do.
    """
    return _NODE.sub(_centre, svg)


def _centre(node: re.Match[str]) -> str:
    shape = _SHAPE.search(node[0])
    if shape is None:
        return node[0]
    xs = [float(x) for x in _POINT.findall(shape[1])]
    middle = f'text-anchor="middle" x="{(min(xs) + max(xs)) / 2:.2f}"'
    return _LINE.sub(middle, node[0])
