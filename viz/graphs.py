"""`draw`: any recorded graph as it was recorded, ops and leaves, framed by the modules and steps
they ran in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from tinyseq import nn
from tinyseq.arguments import Size, checked, one_of
from tinyseq.errors import GraphError
from tinyseq.graph import identity
from tinyseq.tensor import Tensor

from . import style
from .calls import Calls, Frames, scopes
from .dot import Dot, Html, html_text
from .expanded import expanded
from .indices import numbers, walked
from .labels import (
    check_recorded,
    constant_text,
    number_text,
    shape_text,
    short,
    sign,
)
from .render import Picture

MANY = 60  # boxes, from which on the renderer is told not to look for the best place of each
_ORDER_MATTERS = ("sub", "div", "pow", "matmul", "where", "concat", "less", "greater")


@checked
def draw(
    tensor: Tensor | Sequence[Tensor],
    params: nn.Module | Mapping[str, Tensor] | None = None,
    *,
    rankdir: Annotated[str, one_of("LR", "RL", "TB", "BT")] = "LR",
    depth: Size | None = None,
    max_nodes: Size = 100,
) -> Picture:
    """The graph that a tensor (or several) was made from: each op and each leaf once, inputs first.

    Leaves have sharp corners, parameters are tinted and called by their name in ``params``, a
    module or a dictionary (without it, by their own ``name``); numbers on their own are written
    into the op that uses them. Frames are the modules and steps (``t=0`` is the first) that the ops
    ran in; those of a layer that ran compiled are recorded again for the picture. ``rankdir``:
    Graphviz's word for the direction, one of LR, RL, TB, BT. ``depth``: what lies in more than so
    many frames is folded into one box a frame; by default as deep as ``max_nodes`` boxes allow.

    Draw before ``backward()`` or keep the graph with ``backward(retain_graph=True)``. Raises
    `GraphError` when nothing was recorded or the recording was freed, `ValueError` when the graph
    is too large even when folded.
    """
    roots = [tensor] if isinstance(tensor, Tensor) else list(tensor)
    check_recorded(walked(*roots))
    if all(t.node is None for t in roots):
        raise GraphError(
            "nothing was recorded for this tensor: nothing it was made from requires a gradient, "
            "or it was made under no_grad(). Give a leaf requires_grad=True before it is used."
        )
    named = dict(params.named_tensors() if isinstance(params, nn.Module) else params or {})
    shown = expanded([*roots, *named.values()])
    roots, order = shown[: len(roots)], walked(*shown[: len(roots)])
    names = {identity(t): name for name, t in zip(named, shown[len(roots) :], strict=True)}
    for t in order:  # the recording may keep a value in several places, named in one of them
        for x in () if t.node is None else (t, *numbers(t.node)):
            if x.name:
                names.setdefault(identity(x), x.name)
    calls = Calls(order)
    folded = _fold(order, calls, depth, max_nodes)
    return Picture(_write(order, roots, names, calls, folded, rankdir))


@dataclass
class _Frame:
    """A module or step: what is drawn in it, and the frames within."""

    nodes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    frames: dict[tuple[str, int], _Frame] = field(default_factory=dict)

    def within(self, scope: Frames) -> _Frame:
        frame = self
        for part in scope:
            frame = frame.frames.setdefault(part, _Frame())
        return frame


def _fold(order: Sequence[Tensor], calls: Calls, depth: int | None, most: int) -> int:
    """How many frames deep ops are drawn one by one; deeper ones share a box."""
    leaves = sum(t.node is None and not _is_number(t) for t in order)
    known = {id(scope): calls.frames(scope) for scope in scopes(order)}
    paths = [known[id(t.node.scope)] for t in order if t.node is not None]
    deepest = max(map(len, paths))
    count = 0
    for level in [depth] if depth is not None else range(deepest + 1, 0, -1):
        single = sum(len(path) < level for path in paths)
        count = leaves + single + len({path[:level] for path in paths if len(path) >= level})
        if count <= most:
            return level
    depths = ", folded as far as its modules allow" if depth is None else ""
    raise ValueError(
        f"the graph has {count} boxes{depths}; more than max_nodes={most} make no readable "
        "picture. Draw a part of it (an earlier tensor, fewer steps), or raise max_nodes."
    )


def _is_number(tensor: Tensor) -> bool:
    """A number on its own, such as the 1 of 1 − u: written into the op that uses it."""
    return tensor.node is None and tensor.size == 1 and not tensor.requires_grad and not tensor.name


def _write(
    order: Sequence[Tensor],
    roots: Sequence[Tensor],
    names: Mapping[int, str],
    calls: Calls,
    level: int,
    rankdir: str,
) -> str:
    ids: dict[int, str] = {}
    boxes: dict[Frames, tuple[str, list[Tensor]]] = {}
    top = _Frame()
    edges: dict[tuple[str, str], dict[str, Any]] = {}
    ends = {identity(root) for root in roots}
    for tensor in order:
        key = identity(tensor)
        if _is_number(tensor):
            continue
        node = tensor.node
        if node is None or len(node.scope) < level:
            ids[key] = f"n{len(ids)}"
            looks = _leaf(tensor, names) if node is None else _op(tensor, names)
            if key in ends:
                looks |= {"penwidth": 2.2}
                if tensor.size == 1 and node is not None:
                    looks["label"] = Html(f"{looks['label']}{_small('= ' + number_text(tensor))}")
            top.within(calls.frames(node.scope) if node else ()).nodes.append((ids[key], looks))
        else:
            scope = calls.frames(node.scope[:level])
            name, inside = boxes.setdefault(scope, (f"box{len(boxes)}", []))
            inside.append(tensor)
            ids[key] = name
        for i, x in enumerate(numbers(node) if node else ()):
            tail = ids.get(identity(x))
            if tail is not None and tail != ids[key]:
                flowing = sum(not _is_number(other) for other in numbers(node)) if node else 0
                tells = ids[key][0] == "n" and flowing > 1 and node.op.name in _ORDER_MATTERS  # type: ignore[union-attr]
                look = edges.setdefault((tail, ids[key]), {})
                if tells:
                    look["headlabel"] = f"{look['headlabel']}, {i + 1}" if look else str(i + 1)
    for scope, (name, inside) in boxes.items():
        label = f"{html_text(scope[-1][0])}{_small(f'{len(inside)} ops')}"
        looks = {"label": Html(label), "tooltip": _path(scope), **style.CELL}
        top.within(scope[:-1]).nodes.append((name, looks))

    # A parameter that every step uses has arrows across all ranks. Without a limit a renderer
    # spends minutes on straightening them: 300 s for a chain of 201 boxes, 1.2 s with it.
    limit = {"nslimit": 1} if len(set(ids.values())) > MANY else {}
    dot = Dot(
        rankdir=rankdir, bgcolor="white", pad=0.1, nodesep=0.15, ranksep=0.3,
        fontname=style.FONT, fontcolor=style.FAINT, fontsize=10, **limit,
    )  # fmt: skip
    dot.default(
        "node", shape="box", style="filled", fillcolor="white", color=style.LINE,
        margin="0.08,0.04", width=0.3, height=0.3,
        fontname=style.FONT, fontcolor=style.INK, fontsize=12,
    )  # fmt: skip
    dot.default(
        "edge", color=style.LINE, arrowsize=0.6,
        fontname=style.FONT, labelfontsize=8, labelfontcolor=style.FAINT,
        labeldistance=1.5, labelangle=-38,
    )  # fmt: skip
    _write_frame(dot, top, ())
    for (tail, head), looks in edges.items():
        dot.edge(tail, head, **looks)
    return dot.text()


def _write_frame(dot: Dot, frame: _Frame, scope: Frames) -> None:
    for name, looks in frame.nodes:
        dot.node(name, **looks)
    seen: Counter[str] = Counter()
    for part, inner in frame.frames.items():
        seen[part[0]] += 1
        name = part[0] if seen[part[0]] == 1 else f"{part[0]} (call {seen[part[0]]})"
        path = (*scope, (name, 0))
        with dot.cluster(_path(path), label=name, **style.SCOPE):
            _write_frame(dot, inner, path)


def _path(scope: Frames) -> str:
    return "/".join(part for part, _ in scope)


def _op(tensor: Tensor, names: Mapping[int, str]) -> dict[str, Any]:
    node = tensor.node
    assert node is not None
    assert node.op is not None
    single = {i: constant_text(x) for i, x in enumerate(numbers(node)) if _is_number(x)}
    text = sign(tensor, single)
    name = names.get(identity(tensor), "")
    small = " ".join(
        part for part in (short(name), shape_text(tensor.shape)) if part and part != "()"
    )
    look: dict[str, Any] = {"label": Html(html_text(text) + (_small(small) if small else ""))}
    look["tooltip"] = f"{node.op.name} in {'/'.join(node.scope) or 'no module'}"
    look["style"] = "rounded,filled"
    return look if node.op.name in style.ARITHMETIC_OPS + style.MOVE_OPS else look | style.FUNCTION


def _leaf(tensor: Tensor, names: Mapping[int, str]) -> dict[str, Any]:
    name = names.get(identity(tensor), "")
    trained = isinstance(tensor, nn.Parameter)
    plain = "leaf" if tensor.requires_grad else "constant"
    text = html_text(short(name or plain))
    small = f"= {number_text(tensor)}" if tensor.size == 1 else shape_text(tensor.shape)
    text = Html(text + _small(small))
    if tensor.grad is not None and tensor.size == 1:
        text = Html(text + _small(f"grad {number_text(tensor.grad)}"))
    look: dict[str, Any] = {"label": text, "tooltip": name or plain}
    return look | (style.WITH_PARAMETER if trained else {"color": "#888888"})


def _small(text: str) -> str:
    return f'<BR/><FONT POINT-SIZE="9" COLOR="{style.FAINT}">{html_text(text)}</FONT>'
