"""What each box and arrow of a picture stands for, said in the SVG: values, and a step."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping

from .dot import visible
from .layout import Layout
from .render import Picture
from .timeline import Row, recorded

_GROUP = re.compile(r'<g id="([^"]*)" class="(node|edge|cluster)( [^"]*)?">')
_BOX = re.compile(
    r"r(?P<row>\d+)(?:t(?P<step>\d+)(?:_(?P<op>\d+))?|gap(?P<gap>\d+)"
    r"|s(?P<slot>\d+)(?P<side>start|end))?"
    r"|(?P<value>x|y\d+t|loss)(?P<at>\d+)|y\d+|p\d+|loss"
)
Marks = dict[str, str | int]


def marked_svg(
    picture: Picture, layout: Layout, columns: Mapping[str, int], keys: Collection[str]
) -> str:
    """The picture as SVG for a page. Every box and arrow that stands for something says so:

    ``data-keys``: the values it holds or carries, by their key in ``keys``; ``data-column``: the
    step, as written; ``data-row``: the row; ``data-title``: what it is; ``data-after`` and
    ``data-before``: of steps left out, the columns next to them. ``columns``: the step of an arrow,
    which its ends do not say where both are layers on all steps at once. Comments, and the titles
    that a browser would show by itself, are left out.
    """
    svg = picture.svg()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r'<!--.*?-->\n?|<title>.*?</title>\n?|(?<=<a) xlink:title="[^"]*"', "", svg, flags=re.DOTALL
    )
    rows = {i: row for row, i in layout.row_number.items()}

    def mark(found: re.Match[str]) -> str:
        name, kind = html.unescape(found[1]), found[3] or ""
        if found[2] == "edge":
            tail, head, *_ = name.split("--")
            told = _arrow(tail, head, kind, layout, rows)
            if "keys" in told and "column" not in told and name in columns:
                told["column"] = columns[name]
            marks = {"tail": tail, "head": head, **told}
        else:
            box = _BOX.fullmatch(name)
            marks = _box(box, layout, rows) if box else {}
        if "keys" in marks:
            marks["keys"] = " ".join(key for key in str(marks["keys"]).split() if key in keys)
        data = "".join(f' data-{key}="{html.escape(str(value))}"' for key, value in marks.items())
        return found[0][:-1] + data + ">"

    return _GROUP.sub(mark, svg)


def slot_key(row: int, slot: int, rows: dict[int, Row]) -> str:
    """The key of a part of the state."""
    return f"r{row}_{rows[row].slots[slot].position}"


def _box(found: re.Match[str], layout: Layout, rows: dict[int, Row]) -> Marks:
    name = found[0]
    if found["value"]:  # of one step: x3, y0t3, loss3
        return {"keys": name.removesuffix(found["at"]).removesuffix("t"), "column": found["at"]}
    if found["row"] is None:
        return {"keys": name}
    i = int(found["row"])
    row = rows[i]
    box = next(iter(row.boxes.values()))
    where = "/".join(row.scope)
    title = visible(layout.places[box].title + (f", {where}" if where else ""))
    if found["op"]:
        column = int(found["step"])
        step = next(step for step, n in layout.columns.number.items() if n == column)
        op = recorded(row.boxes[step].ops[int(found["op"])]).op
        assert op is not None
        return {"keys": f"r{i}_{found['op']}", "column": column, "row": i, "title": op.name}
    if found["step"]:
        keys = " ".join(slot_key(i, n, rows) for n in range(len(row.slots)))
        return {"keys": keys, "column": found["step"], "row": i, "title": title}
    if found["gap"]:
        columns = [0, *layout.columns.number.values(), layout.columns.steps + 1]
        n = int(found["gap"])
        return {"after": columns[n], "before": columns[n + 1], "row": i}
    if found["side"] == "start":
        return {"keys": name, "row": i}
    if found["side"] == "end":
        return {
            "keys": slot_key(i, int(found["slot"]), rows),
            "column": layout.end_number(row),
            "row": i,
        }
    return {"keys": name, "row": i, "title": title}


def _arrow(tail: str, head: str, kind: str, layout: Layout, rows: dict[int, Row]) -> Marks:
    """An arrow carries what its tail holds."""
    start, end = _BOX.fullmatch(tail), _BOX.fullmatch(head)
    if start is None or end is None or "cut" in kind.split():  # no gradient comes along a cut
        return {}
    marks = _box(start, layout, rows)
    marks.pop("title", None)
    column = marks.get("column")
    if state := re.search(r"\bs(\d+)\b", kind):
        if start["side"]:
            return marks
        i = int(start["row"])
        marks = {"keys": slot_key(i, int(state[1]), rows), "row": i}
        if column is None and end["gap"]:  # from steps left out to others
            return {}
        if column is None:  # it comes out of the steps left out
            is_last = end["side"] is not None
            column = layout.end_number(rows[i]) if is_last else int(end["step"]) - rows[i].way
    elif start["step"] and not start["op"]:  # upwards, out of a closed cell
        i = int(start["row"])
        exits = sorted(k for row, _, k in layout.exits if row is rows[i])
        marks["keys"] = f"r{i}_{exits[0]}" if exits else slot_key(i, 0, rows)
    if column is None and "gap" in tail:
        return {}
    if column is None:  # out of a layer that works on all steps at once
        column = end["step"] or end["at"]
    return marks | ({"column": column} if column is not None else {})
