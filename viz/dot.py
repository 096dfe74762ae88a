"""DOT text, written without any dependency: statements in, one string out, the same every time.

The language: https://graphviz.org/doc/info/lang.html. What may stand in a label is escaped here and
nowhere else.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager

Value = str | int | float

BACKSLASH = "\\"


class Html(str):
    """A label in Graphviz's HTML-like language; build it with `html_text`."""

    __slots__ = ()


class Dot:
    """A directed graph in the making. Attributes are passed as keywords and kept in that order."""

    def __init__(self, **attributes: Value) -> None:
        self._lines: list[str] = []
        self._indent = "  "
        self.default("graph", **attributes)

    def default(self, kind: str, **attributes: Value) -> None:
        """Attributes of every ``"node"`` or ``"edge"`` that follows, or of the ``"graph"``."""
        if attributes:
            self._add(kind, attributes)

    def node(self, name: str, **attributes: Value) -> None:
        self._add(quote(name), attributes)

    def edge(self, tail: str, head: str, **attributes: Value) -> None:
        self._add(f"{quote(tail)} -> {quote(head)}", attributes)

    @contextmanager
    def cluster(self, name: str, **attributes: Value) -> Iterator[None]:
        """What is added inside is drawn inside a frame."""
        outer = self._indent
        self._lines.append(f"{outer}subgraph {quote('cluster_' + name)} {{")
        self._indent = outer + "  "
        self.default("graph", **attributes)
        yield
        self._indent = outer
        self._lines.append(f"{outer}}}")

    def text(self) -> str:
        return "\n".join(["digraph {", *self._lines, "}", ""])

    def _add(self, what: str, attributes: dict[str, Value]) -> None:
        listed = ", ".join(_attribute(key, value) for key, value in attributes.items())
        self._lines.append(
            f"{self._indent}{what} [{listed}];" if listed else f"{self._indent}{what};"
        )


def _attribute(key: str, value: Value) -> str:
    if isinstance(value, Html):
        return f"{key}=<{value}>"
    if isinstance(value, str):
        if key == "tooltip":  # Graphviz reads its escapes twice
            value = value.replace(BACKSLASH, BACKSLASH * 2)
        return f"{key}={quote(value)}"
    number = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
    return f"{key}={number}"


def quote(text: str) -> str:
    """A DOT string that shows ``text`` as it is.

    Graphviz reads escapes (``\\n``, ``\\N``) and HTML entities (``&lt;``) in labels: backslashes
    and ampersands are spelled so that neither happens to a name that contains them.
    """
    text = visible(text).replace(BACKSLASH, BACKSLASH * 2).replace("&", "&amp;")
    return '"' + text.replace('"', '\\"') + '"'


def html_text(text: str) -> Html:
    """``text`` as the contents of an HTML-like label."""
    return Html(html.escape(visible(text).replace(BACKSLASH, BACKSLASH * 2), quote=True))


def visible(text: str) -> str:
    """What has no shape (control characters, line breaks, lone surrogates) is spelled out."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
