"""Pictures against the recording: every arrow between two boxes is a dependency that was recorded,
and every dependency between two boxes has its arrow.

What depends on what is found here from the ops alone: elements are followed through the ops that
only move them. From the picture only its boxes are taken, with the ops that each says to hold.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import functional, graph, nn, ops, viz
from tinyseq.errors import GraphError
from tinyseq.graph import identity
from tinyseq.tensor import Tensor
from tinyseq.viz import drawing as drawing_module
from tinyseq.viz import render
from tinyseq.viz import unrolled as unrolled_module
from tinyseq.viz.indices import numbers, walked
from tinyseq.viz.paths import Path

page_module = sys.modules["tinyseq.viz.page"]
LEVELS = ["layer", "cell", "op"]
MOVES = {"getitem", "lookup", "reshape", "transpose", "concat", "broadcast_to"}


# -- what was recorded -----------------------------------------------------------------------------


class Recorded:
    """Dependencies between the boxes of a layout, by name; `steps`: between their rows."""

    def __init__(self, layout):
        self.line, self.layout = layout.line, layout
        self.boxes = self.line.box  # by the id of what was recorded
        self.made, self.labels = [], {}
        order = walked(*(t for t, _ in self.line.outputs))
        self.hidden = {}
        names = {row.lane: row for row in {box.row for box in self.boxes.values()}}
        for tensor in order:
            node, key = tensor.node, identity(tensor)
            if key in self.line.skipped:
                self.hidden[key] = names.get(self.line.skipped[key])
            if node is None or key in self.hidden or key in self.boxes:
                self.number(tensor)
            else:
                assert node.op.name in MOVES, f"{node.op.name} is in no box"
                labels = [self.labels[identity(x)] for x in numbers(node)]
                indices = [x._data for x in node.inputs[len(labels) :]]
                moved = node.op.forward(*labels, *indices, **node.attrs)
                self.labels[key] = np.asarray(moved)
        self.order = order

    def number(self, tensor):
        self.labels[identity(tensor)] = np.full(tensor.shape, len(self.made))
        self.made.append(identity(tensor))

    def sources(self, labels):
        for i in np.unique(labels):
            yield self.made[i]

    def pairs(self):
        """(maker, taker) of every value that an op takes, by their ids; a leaf makes itself."""
        for tensor in self.order:
            node, key = tensor.node, identity(tensor)
            if node is None or (key not in self.boxes and key not in self.hidden):
                continue
            for x in numbers(node):
                for source in self.sources(self.labels[identity(x)]):
                    yield source, key

    def place(self, key, rolled):
        """The node that stands for the box of an op; nothing for steps that are not shown."""
        box = self.boxes.get(key)
        row = self.hidden.get(key) if box is None else box.row
        loss = self.layout.loss
        if loss is not None and row is loss.box.row:
            return "loss"
        if row is None:
            return None
        if rolled and row in self.layout.row_number:
            (shown,) = row.boxes.values()
            return self.layout.places[shown].name
        shown = box is not None and row.boxes.get(box.step) is box
        return self.layout.places[box].name if shown else None

    def edges(self, rolled):
        found = set()
        for source, taker in self.pairs():
            ends = self.place(source, rolled), self.place(taker, rolled)
            if None not in ends and (ends[0] != ends[1] or self.another_step(source, taker)):
                found.add(ends)
        return found

    def another_step(self, source, taker):
        a, b = self.boxes.get(source), self.boxes.get(taker)
        return a is not None and b is not None and a is not b and a.row is b.row


# -- what was drawn --------------------------------------------------------------------------------


def drawn_edges(dot, names):
    """Arrows from box to box, through what is written between them; and those that are cut."""
    follow, cut = defaultdict(set), set()
    for tail, head, look in re.findall(r'^ *"([^"]+)" -> "([^"]+)" \[(.*)\];$', dot, re.M):
        kind = re.search(r'class="([^"]*)"', look)[1].split()
        if "use" in kind or "inside" in kind:
            continue
        a, b = (box_name(n, names) for n in (tail, head))
        (cut.add if "cut" in kind else follow[a].add)((a, b) if "cut" in kind else b)
    found = set()
    for name in names:
        left, seen = list(follow[name]), set()
        while left:
            head = left.pop()
            if head in names:
                found.add((name, head))
            elif head not in seen and "gap" not in head:
                seen.add(head)
                left += follow[head]
    return found, cut


def box_name(node, names):
    inner = re.fullmatch(r"(r\d+t\d+)_\d+", node)
    return inner[1] if inner and inner[1] in names else node


def checked(call):
    """Check each picture that a call draws, when it is drawn; returns their layouts."""
    found, real = [], unrolled_module.draw_layout

    def seen(layout, *rest):
        pen = real(layout, *rest)
        check(layout, pen.text())
        found.append(layout)
        return pen

    with (
        mock.patch.object(unrolled_module, "draw_layout", seen),
        mock.patch.object(page_module, "draw_layout", seen),
        mock.patch.object(Tensor, "__eq__", refused),
    ):
        call()
    return found


def refused(self, other, equal=Tensor.__eq__):
    who = sys._getframe(1).f_globals["__name__"]
    assert not who.startswith("tinyseq.viz"), "tensors are compared where identity is meant"
    return equal(self, other)


def check(layout, dot):
    names = {place.name for place in layout.places.values()} | {"loss"}
    drawn, cut = drawn_edges(dot, names)
    recorded = Recorded(layout).edges(layout.rolled)
    assert drawn - recorded == set(), "arrows that are no dependency"
    assert recorded - drawn == set(), "dependencies without an arrow"
    if not layout.rolled:
        acyclic(drawn | {(a, b) for a, b in cut if a in names and b in names})
        one_call_a_box(layout)
    return cut


def acyclic(edges):
    after = defaultdict(set)
    for a, b in edges:
        after[a].add(b)
    state = {}

    def visit(name):
        assert state.get(name) != "open", f"a circle through {name}"
        if name not in state:
            state[name] = "open"
            for head in after[name]:
                visit(head)
            state[name] = "done"

    for name in list(after):
        visit(name)


class Counted(nn.Module):
    """A cell that knows which of its calls an op was recorded in."""

    def __init__(self, cell):
        self.cell = cell
        self.input_size, self.hidden_size = cell.input_size, cell.hidden_size
        self.initial_state = cell.initial_state
        self.calls = 0

    def forward(self, x, state):
        self.__dict__["calls"] += 1
        with graph.scope(f"call{id(self)}-{self.calls}"):
            return self.cell(x, state)


def one_call_a_box(layout):
    for box in layout.line.boxes():
        for op in box.ops if box.step is not None else ():
            calls = {p for p in op.node.scope if p.startswith("call")}
            others = {p for o in box.ops for p in o.node.scope if p.startswith("call")}
            assert calls == others, "a box holds several calls of a cell"


# -- models ----------------------------------------------------------------------------------------

CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
FACTORIES = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def layer_of(kind, layers, directions, counted, mode):
    def one(D):
        cell = CELLS[kind](D, 4)
        return nn.Recurrent(Counted(cell) if counted else cell, mode=mode)

    made, D = [], 3
    for _ in range(layers):
        made.append(nn.Bidirectional(one(D), one(D)) if directions == 2 else one(D))
        D = 4 * directions
    return nn.Stacked(*made)


def loss_of(layer, lengths, links, head, end, needs, width):
    """The layer called once for each length; how each call begins; what the loss is made from."""
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(sum(lengths), 2, 3)).astype(np.float32)
    x = ts.tensor(whole, requires_grad=needs)
    linear, at, state, ys = nn.Linear(width, 2), 0, None, []
    for T, link in zip(lengths, links, strict=True):
        begin = {"carry": state, "detach": nn.detach(state), "fresh": None}[link]
        y, state = layer(x[at : at + T], begin)
        at += T
        ys.append(linear(y) if head else y)
    if end == "last":
        return sum(((y[-1] ** 2).sum() for y in ys[1:]), (ys[0][-1] ** 2).sum())
    if end == "final":
        return (ys[-1][-1] ** 2).sum()
    if end == "all":
        return sum(((y**2).sum() for y in ys[1:]), (ys[0] ** 2).sum())
    return ops.concat(ys).mean()


links = st.sampled_from(["carry", "detach", "fresh"])


@st.composite
def drawn_losses(draw, modes=("unroll", None)):
    kind, mode = draw(st.sampled_from(sorted(CELLS))), draw(st.sampled_from(modes))
    layers, directions = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    n = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))
    how = ["fresh", *draw(st.lists(links, min_size=n - 1, max_size=n - 1))]
    layer = layer_of(kind, layers, directions, mode != "compiled", mode)
    if mode is None:  # the products of all steps are computed at once, but not for a wrapped cell
        layer = FACTORIES[kind](3, 4, layers, bidirectional=directions == 2)
    end = draw(st.sampled_from(["last", "final", "all", "mean"]))
    loss = loss_of(
        layer, lengths, how, draw(st.booleans()), end, draw(st.booleans()), 4 * directions
    )
    return loss, layer, lengths, how


@pytest.mark.parametrize("level", LEVELS)
@given(made=drawn_losses())
@pytest.mark.filterwarnings("ignore:.* boxes are more than can be read")
def test_a_picture_shows_what_was_recorded(level, made):
    loss, layer, _, _ = made
    assert checked(lambda: viz.draw_unrolled(loss, level=level, params=layer))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("link", ["carry", "detach", "fresh"])
def test_a_compiled_layer_is_drawn_as_truly(level, directions, link):
    layer = nn.LSTM(3, 4, 3 - directions, bidirectional=directions == 2, mode="compiled")
    loss = loss_of(layer, [9, 11], ["fresh", link], True, "all", False, 4 * directions)
    for layout in checked(lambda: viz.draw_unrolled(loss, level=level, params=layer)):
        rows = sum(row.recurrent for row in layout.line.rows)
        assert rows == (4 if link == "fresh" else 2)


@pytest.mark.parametrize("attention", [None, "dot", "additive"])
@pytest.mark.parametrize("steps", [(4, 3), (3, 4), (3, 3), (1, 3), (3, 1)])
@pytest.mark.parametrize("level", LEVELS)
def test_an_encoder_and_a_decoder_are_drawn_as_recorded(attention, steps, level):
    loss, model = translated(attention, *steps)
    assert checked(lambda: viz.draw_unrolled(loss, level=level, params=model))


def translated(attention, S, T, last=False):
    rng = np.random.default_rng(0)
    read = 4 if attention else 0
    model = nn.EncoderDecoder(
        nn.GRU(5, 4), nn.GRU(5 + (0 if attention else read), 4), 9, 8,
        bos=0, eos=1, attention=attention,
    )  # fmt: skip
    source, target = (rng.integers(2, 8, (n, 2)) for n in (S, T))
    if not last:
        return model.loss(source, target), model
    return functional.cross_entropy(model(source, target)[-1], target[-1]), model


# -- what calls look like --------------------------------------------------------------------------


def pictured(link, level="cell", lengths=(3, 3), **options):
    layer = nn.LSTM(3, 4, **options)
    width = 8 if options.get("bidirectional") else 4
    end = "final" if link == "carry" else "all"
    loss = loss_of(layer, list(lengths), ["fresh", link], False, end, False, width)
    return viz.draw_unrolled(loss, level=level, params=layer)


def columns(picture, row=0):
    return sorted(int(t) for t in set(re.findall(rf'id="r{row}t(\d+)"', picture.dot)))


@pytest.mark.parametrize("mode", ["unroll", None, "compiled"])
@pytest.mark.parametrize("link", ["carry", "detach"])
def test_a_call_that_goes_on_has_the_columns_behind(mode, link):
    drawn = pictured(link, mode=mode)
    assert columns(drawn) == [1, 2, 3, 4, 5, 6]
    arrows = re.findall(r'"(r0t\d)" -> "(r0t\d)" \[.*? class="(state s\d(?: cut)?)"', drawn.dot)
    assert sorted((a, b) for a, b, _ in arrows) == sorted(
        (f"r0t{t}", f"r0t{t + 1}") for t in range(1, 6) for _ in "hc"
    )
    cut = {(a, b) for a, b, kind in arrows if "cut" in kind}
    assert cut == ({("r0t3", "r0t4")} if link == "detach" else set())
    assert "call 2" in drawn.dot
    assert ("gradient stops here" in drawn.dot) == (link == "detach")
    assert {f"x⟨{t}⟩" for t in range(1, 7)} <= set(re.findall(r'label="(x[^"]*)"', drawn.dot))


@pytest.mark.parametrize("mode", ["unroll", None, "compiled"])
def test_a_siamese_net_has_two_rows(mode):
    drawn = pictured("fresh", mode=mode)
    rows = [columns(drawn, row) for row in range(6)]
    assert [row for row in rows if row] == [[1, 2, 3]] * 2
    assert "seam" not in drawn.dot


def test_a_rolled_layer_says_how_often_it_was_called_and_where_gradients_stop():
    assert "× T, 2 calls, the gradient stops between" in pictured("detach", "layer").dot
    assert "× T, 2 calls" in (text := pictured("carry", "layer").dot)
    assert "stops" not in text


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_seam_in_steps_left_out_is_told(mode, bidirectional):
    drawn = pictured("detach", lengths=(20, 20), mode=mode, bidirectional=bidirectional)
    assert columns(drawn) == [1, 2, 3, 39, 40]
    assert '"call 2, gradient stops here' in drawn.dot
    assert ('"gradient stops here"' in drawn.dot) == bidirectional  # over the boxes, to step 40
    assert re.search(r'-> "r0t39" \[.*style="dashed".*class="state s0 cut"|'
                     r'-> "r0t39" \[.*class="state s0 cut".*style="dashed"', drawn.dot)  # fmt: skip


def test_two_layers_of_the_same_name_are_two_rows():
    x = ts.tensor(np.ones((3, 2, 3), np.float32))
    encoder, decoder = nn.GRU(3, 4), nn.GRU(3, 4)
    _, state = encoder(x)
    y, _ = decoder(x, state)
    drawn = viz.draw_unrolled((y**2).sum())
    assert columns(drawn) == columns(drawn, 1) == [1, 2, 3]


def test_a_loop_that_is_run_again_goes_on():
    cell = nn.RNNCell(3, 4)
    x = ts.tensor(np.ones((6, 2, 3), np.float32))
    state = cell.initial_state(2)
    for chunk in range(2):
        for t in range(3):
            with graph.scope(f"t={t}"):
                state = cell(x[3 * chunk + t], state)
    assert columns(viz.draw_unrolled(state[0].sum())) == [1, 2, 3, 4, 5, 6]


def test_a_layer_called_with_its_state_and_put_together_is_drawn():
    layer = nn.GRU(3, 4)
    x = ts.tensor(np.ones((6, 2, 3), np.float32), requires_grad=True)
    y, state = layer(x[:3])
    z, _ = layer(x[3:], state)
    for level in LEVELS:
        assert checked(lambda level=level: viz.draw_unrolled(ops.concat([y, z]).sum(), level=level))


def test_draw_keeps_the_frames_of_calls_apart():
    layer = nn.GRU(3, 4)
    x = ts.tensor(np.ones((4, 2, 3), np.float32), requires_grad=True)
    _, state = layer(x[:2])
    z, _ = layer(x[2:], state)
    dot = viz.draw(z.sum(), layer, depth=3).dot
    assert dot.count("t=0") >= 2
    edges = re.findall(r'^ *"(box\d+)" -> "(box\d+)"', dot, re.M)
    acyclic(edges)


@pytest.mark.parametrize("what", ["forgotten", "made up"])
def test_what_cannot_be_drawn_truthfully_is_an_error(what, monkeypatch):
    real = drawing_module.draw_between_rows

    def draw(pen, layout, starts):
        if what == "made up":
            real(pen, layout, starts)
            pen.edge("r0t1", "r1t3", "up", Path((0, 0)).straight((9, 9)))

    monkeypatch.setattr(drawing_module, "draw_between_rows", draw)
    says = "has no arrow" if what == "forgotten" else "is no dependency and has an arrow"
    with pytest.raises(GraphError, match=f"truthfully: from Stacked/layers.0 at step 1.*{says}"):
        viz.draw_unrolled(nn.GRU(3, 4, 2))


# -- pages -----------------------------------------------------------------------------------------


def page_of(loss, path, **options):
    viz.page(loss, path, **options)
    text = path.read_text("utf-8")
    data = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.S)
    return json.loads(data[1])


@pytest.fixture
def renders():
    if render.find_renderer() is None:
        pytest.skip("no renderer here")


@pytest.mark.parametrize("attention", ["dot", "additive"])
@pytest.mark.parametrize("steps", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("last", [False, True])
def test_a_page_tells_the_norms_that_the_picture_tells(attention, steps, last, tmp_path, renders):
    loss, model = translated(attention, *steps, last=last)
    told = page_of(loss, tmp_path / "p.html", params=model)["series"]
    flowed = viz.draw_unrolled(loss, params=model, flow="gradient").data
    compared = 0
    for arrow, norms in flowed.items():
        if (found := re.fullmatch(r"r\d+(?:t\d+)?--(y\d)(?:t(\d+))?", arrow)) and norms:
            step = steps[1] - 1 if found[2] is None else int(found[2]) - 1
            for kind in ("value", "gradient"):
                shown = told[found[1]][kind]
                shown = (shown[0] if kind == "gradient" else shown)[0][step]
                assert shown == pytest.approx(norms[kind], rel=6e-3), (arrow, kind)
                compared += 1
    assert compared


@given(made=drawn_losses())
@settings(max_examples=1 + settings().max_examples // 3)
def test_a_page_shows_what_was_recorded(made, tmp_path_factory):
    if render.find_renderer() is None:
        pytest.skip("no renderer here")
    loss, layer, _, _ = made
    path = tmp_path_factory.mktemp("page") / "p.html"
    assert checked(lambda: viz.page(loss, path, params=layer))
