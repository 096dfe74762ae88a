"""`Picture`: DOT text, and its rendering by whichever Graphviz there is."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from tinyseq.arguments import Within, checked
from tinyseq.saving import write_atomically

FORMATS = ("dot", "gv", "svg", "png", "pdf")
DAY = 86_400.0
Seconds = Annotated[float, Within(lambda s: 0 < s <= DAY, "above 0 and at most 86400, a day")]
SECONDS = 60.0  # for one picture, unless the environment's TINYSEQ_RENDER_SECONDS says otherwise
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

    @checked
    def svg(self, seconds: Seconds | None = None) -> str:
        """The picture as SVG text. Raises `RenderError` when there is no renderer, or it takes
        longer than ``seconds``: by default the environment's TINYSEQ_RENDER_SECONDS, or 60.
        """
        return render(self.dot, "svg", seconds).decode("utf-8")

    @checked
    def png(self, seconds: Seconds | None = None) -> bytes:
        """The picture as a PNG file's bytes; otherwise as `svg`."""
        return render(self.dot, "png", seconds)

    @checked
    def save(self, path: str | os.PathLike[str], seconds: Seconds | None = None) -> Path:
        """Write the picture; the suffix says how: .dot or .gv, .svg, .png, or .pdf (the system's
        Graphviz only).

        The file appears whole or not at all. ``seconds``: as in `svg`. Raises `ValueError` for
        another suffix, `RenderError` when the renderer is missing, fails or takes too long,
        `OSError` when the folder cannot be written to.
        """
        path = Path(path)
        kind = kind_of(path, FORMATS)
        content = self.dot.encode() if kind in ("dot", "gv") else render(self.dot, kind, seconds)
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
            f"path: cannot tell from {path.name!r} what to write. "
            f"Let the name end in one of {', '.join('.' + f for f in formats)}."
        )
    return kind


def render(dot: str, kind: str, seconds: float | None = None) -> bytes:
    """DOT text in, the bytes of an ``svg``, ``png`` or ``pdf`` (or another format Graphviz has)
    out.

    A ``dot`` that is broken is replaced by graphviz-pure, with a warning. Raises `RenderError` when
    there is no renderer, or it fails, or takes more than ``seconds``: by default those of the
    environment's TINYSEQ_RENDER_SECONDS, or 60.
    """
    limit = time_limit(seconds)
    renderer = find_renderer()
    if renderer is None:
        raise RenderError(NO_RENDERER)
    if kind == "png":
        dot = dot.replace("{", f"{{\n  graph [dpi={PNG_DPI}];", 1)
    rendered = renderer(dot.encode("utf-8"), kind, limit)
    return _centred(rendered.decode("utf-8")).encode("utf-8") if kind == "svg" else rendered


def time_limit(seconds: float | None) -> float:
    """What was asked for, else the environment's, else the default. Raises `ValueError` where the
    environment has no number above 0.
    """
    if seconds is not None:
        return float(seconds)
    name = "TINYSEQ_RENDER_SECONDS"
    value = os.environ.get(name) or SECONDS
    try:
        limit = float(value)
    except ValueError:
        limit = 0.0
    if not 0 < limit <= DAY:
        raise ValueError(f"{name}={value!r} must be a number of seconds above 0, such as 60.")
    return limit


Renderer = Callable[[bytes, str, float], bytes]


def find_renderer() -> Renderer | None:
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


def _system_graphviz(dot: bytes, kind: str, seconds: float = SECONDS) -> bytes:
    program = shutil.which("dot") or "dot"
    try:
        if reason := _broken(program):
            raise RenderError(f"Graphviz could not make a {kind} file: {reason}")
        return _run("Graphviz", program, dot, kind, seconds)
    except RenderError as error:
        if isinstance(error, TookTooLong) or kind == "pdf" or _pure_executable() is None:
            raise
        _warn_of(program, str(error))
        return _graphviz_pure(dot, kind, seconds)


def _graphviz_pure(dot: bytes, kind: str, seconds: float = SECONDS) -> bytes:
    if kind == "pdf":
        raise RenderError(
            "graphviz-pure writes no .pdf. Save as .svg or .png, or install the system's Graphviz: "
            "apt install graphviz, brew install graphviz, https://graphviz.org/download/"
        )
    program = _pure_executable()
    assert program is not None
    if kind == "png":  # whose fonts lack ⟨ and ⟩, and would show boxes
        dot = dot.decode().translate(_ANGLES).encode()
    return _run("graphviz-pure", program, dot, kind, seconds)


_ANGLES = str.maketrans("⟨⟩", "‹›")


# -- a program that neither hangs nor stays behind -------------------------------------------------


class TookTooLong(RenderError):
    """The renderer was stopped at its time limit."""


_PROBE = 5.0  # seconds for a program to say which version it is


@cache
def _broken(program: str) -> str:
    """Why the ``dot`` on PATH does not even say its version; nothing if it does."""
    try:
        done = subprocess.run(
            [program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE
        )
    except subprocess.TimeoutExpired:
        return f"{program} -V did not end within {_PROBE:g} s"
    except OSError as error:
        return f"{program} cannot be run: {error}"
    return f"{program} -V ended with status {done.returncode}" if done.returncode else ""


@cache
def _warn_of(program: str, reason: str) -> None:
    """Once for each program and reason."""
    warnings.warn(
        f"{reason}. graphviz-pure draws instead of {program}, which seems broken: repair it, or "
        "take it off PATH.",
        stacklevel=2,
    )


# The renderer dies with the process that asked for it, also when that is killed: Linux is told to
# do so by the renderer's own process, before it becomes the renderer.
_DIES_WITH_ITS_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


def _run(name: str, program: str, dot: bytes, kind: str, seconds: float) -> bytes:
    """What a program makes of DOT text, within so many seconds."""
    command = [program, f"-T{kind}"]
    if sys.platform == "linux" and sys.executable:
        guard = [sys.executable, "-I", "-S", "-c", _DIES_WITH_ITS_PARENT, str(os.getpid())]
        command = [*guard, *command]
    began = time.monotonic()
    try:
        done = subprocess.run(command, input=dot, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as cause:  # it was killed
        took, boxes = time.monotonic() - began, len(_BOXES.findall(dot))
        raise TookTooLong(
            f"{name} ({program}) was stopped after {took:.0f} s at a picture of about "
            f"{boxes} boxes and {dot.count(b'->')} arrows as {kind}. Draw less: fewer steps, "
            "level='layer' or columns=(2, 1) in draw_unrolled, a smaller max_nodes or depth in "
            "draw; or give it longer: save(path, seconds=600), or the environment's "
            "TINYSEQ_RENDER_SECONDS."
        ) from cause
    except OSError as cause:
        raise RenderError(f"{name} could not make a {kind} file: {cause}") from cause
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
        raise RenderError(f"{name} could not make a {kind} file: {reason}")
    return done.stdout


_BOXES = re.compile(rb'^\s*"[^"\n]*" \[', re.MULTILINE)


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
