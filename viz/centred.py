"""Labels in the middle of their boxes, whatever font the reader has.

Graphviz sets each line of an HTML-like label where the line would begin in a font as wide as its
own. A browser, whose Helvetica is another font, lets it end somewhere else. Anchored in the middle
of its box a line stands there in every font, as labels without HTML do.
"""

from __future__ import annotations

import re

_NODE = re.compile(r'<g id="[^"]*" class="node[ "].*?</g>', re.DOTALL)
_SHAPE = re.compile(r'<(?:path|polygon)\b[^>]*? (?:d|points)="([^"]*)"')
_POINT = re.compile(r"(-?[\d.]+),-?[\d.]+")
_LINE = re.compile(r'text-anchor="start" x="[^"]*"')


def centred(svg: str) -> str:
    """The same SVG with each line of a box's label, one piece of text, anchored in its middle."""
    return _NODE.sub(_centre, svg)


def _centre(node: re.Match[str]) -> str:
    shape = _SHAPE.search(node[0])
    if shape is None:
        return node[0]
    xs = [float(x) for x in _POINT.findall(shape[1])]
    middle = f'text-anchor="middle" x="{(min(xs) + max(xs)) / 2:.2f}"'
    return _LINE.sub(middle, node[0])
