"""One graph at three levels, long sequences, computations that were recorded, and what flowed."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest
from any_machine import work
from hypothesis import given, settings
from hypothesis import strategies as st
from test_viz import SVG, edges, label, nodes, places, rises

import tinyseq as ts
from tinyseq import functional, graph, nn, ops, viz
from tinyseq.errors import GraphError
from tinyseq.functional import losses
from tinyseq.viz import render
from tinyseq.viz.columns import ALL_UP_TO, choose, fewer, filled, shortened
from tinyseq.viz.labels import constant_text, width

MODES = ("unroll", None, "compiled")


class Model(nn.Module):
    """x (T, B, 3) → scores (T, B, 2), or (B, 2) of the last step alone."""

    def __init__(self, make=nn.RNN, last=False, **options):
        self.rnn = make(3, 4, **options)
        self.head = nn.Linear(4, 2)
        self.last = last

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.head(y[-1] if self.last else y)


def loss_of(model, steps=20, needs=True):
    rng = np.random.default_rng(0)
    x = ts.tensor(rng.normal(size=(steps, 2, 3)), np.float32, requires_grad=needs)
    scores = model(x)
    return losses.mse_loss(scores, np.ones(scores.shape)), x


def attributes(picture, pattern):
    """The arrows whose id matches, each with its attributes."""
    found = re.findall(r'^ *"[^"]+" -> "[^"]+" \[(.*)\];$', picture.dot, re.M)
    arrows = (dict(re.findall(r'(\w+)="?([^",]*)"?', line)) for line in found)
    return {a["id"]: a for a in arrows if re.fullmatch(pattern, a["id"])}


def courses(picture, pattern):
    """Where the arrows go whose id matches: of each the places from left to right."""
    found = re.findall(r'-> "[^"]+" \[pos="([^"]*)".*? id="([^"]*)"', picture.dot)
    return [
        [float(x) for x in re.findall(r"([\d.]+),[\d.]+", pos)]
        for pos, name in found
        if re.fullmatch(pattern, name)
    ]


# -- levels ----------------------------------------------------------------------------------------


def test_a_rolled_layer_is_one_box_with_its_state_going_round():
    drawn = viz.draw_unrolled(nn.LSTM(3, 4, 2, bidirectional=True), 50, level="layer")
    boxes = [n for n in nodes(drawn) if re.fullmatch(r"r\d+t\d+", n)]
    assert len(boxes) == 4
    for box in boxes:
        assert edges(drawn).count((box, box)) == 2
    text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
    assert [text[f"r0s{n}"] for n in (0, 1)] == ["→h[1]⟨t⟩", "→c[1]⟨t⟩"]
    assert (text["r0times"], text["r1times"]) == ("× T", "× T, from the end")
    assert "x⟨t⟩" in text.values()
    assert "y⟨t⟩" in text.values()
    assert "←h[2]⟨t⟩ (B, 4), 50 steps" in drawn.dot


def test_values_can_be_called_as_in_the_notes():
    drawn = viz.draw_unrolled(nn.RNN(3, 4), 2, names={"h": "a", "y": "ŷ"})
    text = {label(s) for s in nodes(drawn).values() if "label" in s}
    assert {"a⟨0⟩", "a⟨2⟩", "x⟨1⟩", "ŷ⟨1⟩"} <= text
    assert not any(name.startswith("h⟨") for name in text)


def test_parameters_and_the_codes_values_can_be_renamed():
    model = Model(nn.LSTM)
    loss, _ = loss_of(model)
    names = {"w_h": "W_aa", "head.weight": "W_ya", "forget": "Γ_f", "candidate": "c̃", "h": "a"}
    drawn = viz.draw_unrolled(loss, params=model, names=names, level="op")
    text = {label(s) for s in nodes(drawn).values() if "label" in s}
    assert {"W_aa  (4, 16)", "W_ya  (4, 2)", "@ W_aa", "Γ_f", "tanh   c̃", "a⟨0⟩"} <= text
    assert not {t for t in text if "w_h" in t or "forget" in t}
    assert "w_x  (3, 16)" in text  # and what has no other name keeps its own


@pytest.mark.parametrize("name", ["forgotten", "W_ax", "head.weight.", "L"])
def test_a_name_that_nothing_has_is_refused(name, tmp_path):
    names, refusal = {"h": "a", name: "q"}, f"^names: nothing is called '{name}'. .*h, c, .*w_x"
    with pytest.raises(ValueError, match=refusal):
        viz.draw_unrolled(nn.LSTM(3, 4), names=names)
    if render.find_renderer() is not None:
        with pytest.raises(ValueError, match=refusal):
            viz.page(nn.LSTM(3, 4), tmp_path / "p.html", names=names)


class Stacked(nn.Module):
    """Two layers one above the other, by hand."""

    def __init__(self):
        self.below, self.above = nn.GRU(3, 4, bidirectional=True), nn.GRU(8, 4)

    def forward(self, x):
        return self.above(self.below(x)[0])[0]


def states_of(drawn):
    """What is written at the ends of states and beside their arrows, without the step."""
    found = re.findall(r'"(r\d+)s\d+(?:start|end)?" \[.*?label="([^"⟨]*)⟨', drawn.dot)
    return {(row, name) for row, name in found}


@pytest.mark.parametrize("level", ["layer", "cell", "op"])
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_states_say_their_direction_and_layer(level, steps):
    x = ts.tensor(np.ones((steps, 2, 3)), np.float32)
    for drawn in (
        viz.draw_unrolled(Stacked(), x=x, level=level),
        viz.draw_unrolled(nn.Stacked(nn.GRU(3, 4, bidirectional=True), nn.GRU(8, 4)), steps,
                          level=level),
    ):  # fmt: skip
        if steps > 1 or level != "layer":
            assert {name for _, name in states_of(drawn)} == {"→h[1]", "←h[1]", "h[2]"}
        assert "[→h[1]⟨t⟩, ←h[1]⟨t⟩]" in drawn.dot
    alone = viz.draw_unrolled(nn.GRU(3, 4), steps, level=level)
    assert {name for _, name in states_of(alone)} == {"h"}


def test_the_layers_of_an_encoder_and_a_decoder_are_counted_apart():
    """The decoder begins with the encoder's state, and is told it at each step, but lies on no
    layer.
    """
    for attention, read in (("dot", 0), (None, 8)):
        model = nn.EncoderDecoder(
            nn.GRU(5, 4, 2, bidirectional=True), nn.GRU(5 + read, 8, 2), 9, 8,
            bos=0, eos=1, attention=attention,
        )  # fmt: skip
        drawn = viz.draw_unrolled(model.loss(np.full((4, 2), 3), np.full((3, 2), 4)), params=model)
        names = Counter(name for _, name in states_of(drawn))
        assert set(names) == {"→h[1]", "←h[1]", "→h[2]", "←h[2]", "h[1]", "h[2]"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("needs", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_a_single_recorded_step_keeps_its_initial_state(mode, needs, known):
    layer = nn.LSTM(3, 4, bidirectional=True, mode=mode)
    y, _ = layer(ts.tensor(np.ones((1, 2, 3)), np.float32, requires_grad=needs))
    for level in ("cell", "op"):
        drawn = viz.draw_unrolled(y.sum(), params=layer if known else None, level=level)
        found = {label(s) for s in nodes(drawn).values() if "label" in s}
        assert {"→h⟨0⟩", "→c⟨0⟩", "←h⟨2⟩", "←c⟨2⟩", "x⟨1⟩"} <= found
        assert {edge for edge in edges(drawn) if edge[0].endswith("start")} >= (
            {(f"r{row}s{n}start", f"r{row}t1") for row in (0, 1) for n in (0, 1)}
            if level == "cell" else set()
        )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_both_directions_read_the_same_x(mode):
    layer = nn.GRU(3, 4, bidirectional=True, mode=mode)
    y, _ = layer(ts.tensor(np.ones((4, 2, 3)), np.float32))  # all steps alike
    drawn = viz.draw_unrolled(y.sum(), params=layer)
    assert "x′" not in drawn.dot
    for t in range(1, 5):
        assert {(f"x{t}", f"r0t{t}"), (f"x{t}", f"r1t{t}")} <= set(edges(drawn))
    other = layer(ts.tensor(np.ones((4, 2, 3)), np.float32))[0]  # alike, and yet another one
    assert "x′" in viz.draw_unrolled(y.sum() + other.sum(), params=layer).dot


class InOneLoop(nn.Module):
    """An encoder and a decoder that goes on counting, in the same loop."""

    def __init__(self):
        self.encoder, self.decoder = nn.RNNCell(3, 4), nn.RNNCell(3, 4)

    def forward(self, x, reads):
        state, written = self.encoder.initial_state(x.shape[1]), []
        for t in range(len(x)):
            with graph.scope(f"t={t}"):
                state = (self.encoder if t < reads else self.decoder)(x[t], state)
            written.append(state[0])
        return written


@pytest.mark.parametrize("needs", [False, True])
@pytest.mark.parametrize(("reads", "T"), [(2, 5), (4, 12)])
def test_a_decoder_behind_its_encoder_counts_from_1(reads, T, needs):
    model = InOneLoop()
    x = ts.tensor(np.ones((T, 2, 3)), np.float32, requires_grad=needs)
    written = model(x, reads)
    y = ops.stack(written[reads:])
    for what, name in ((y, "y"), ((y**2).sum(), "ŷ")):
        drawn = viz.draw_unrolled(what, params=model, names={"x": "word"})
        text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
        assert text["x1"] == "word⟨1⟩"
        assert text[f"y0t{T}"] == f"{name}⟨{T - reads}⟩"
        assert text[f"in1t{T}"] == f"y⟨{T - reads - 1}⟩"
        assert places(drawn)["x1"][1] == places(drawn)[f"in1t{T}"][1]
    assert text[f"loss{T}"] == f"L⟨{T - reads}⟩"
    both = viz.draw_unrolled(ops.stack(written), params=model).dot  # then it is no decoder
    assert f"y⟨{T}⟩" in both
    assert f"x⟨{T}⟩" in both


def test_slices_that_part_a_product_are_passed_by_and_those_that_a_value_is_called_after_are_not():
    class Cell(nn.RNNCell):
        def forward(self, x, state):
            (h,) = state
            both = x @ self.w_x + h @ self.w_h
            first = both[:, :2]
            return (ops.concat([ops.tanh(first), ops.tanh(both[:, 2:])], axis=-1),)

    drawn = viz.draw_unrolled(Cell(3, 4), 2, level="op")
    text = {n: label(s) for n, s in nodes(drawn).items() if n.startswith("r0t2_")}
    assert "first" in text.values()
    assert not [t for t in text.values() if "[:" in t]
    (plus,) = (n for n, t in text.items() if t.split()[0] == "+")
    heads = sorted(text[head].split()[0] for tail, head in edges(drawn) if tail == plus)
    assert heads == ["first", "tanh"]


@pytest.mark.parametrize("level", ["layer", "cell", "op"])
def test_every_box_and_arrow_has_an_id_of_its_own(level):
    if render.find_renderer() is None:
        pytest.skip("no renderer here")
    loss, _ = loss_of(Model(nn.LSTM, num_layers=2))
    root = ET.fromstring(viz.draw_unrolled(loss, level=level).svg().encode())
    groups = [g for g in root.iter(f"{SVG}g") if g.get("class")]
    ids = Counter(g.get("id") for g in groups)
    assert max(ids.values()) == 1
    kinds = {kind for g in groups for kind in g.get("class").split()[1:]}
    assert {"cell", "parameter", "value", "loss", "s0", "s1", "up", "use"} <= kinds
    assert ("op" in kinds) == ("inside" in kinds) == (level == "op")


GATES = {
    nn.LSTMCell: {
        "output": "output", "forget": "forget ×", "update": "update ×", "candidate": "tanh",
    },
    nn.GRUCell: {"update": "update 1 × ×", "reset": "reset ×", "candidate": "+ + tanh"},
    nn.PeepholeLSTMCell: {
        "output": "× + σ", "forget": "× + σ ×", "update": "× + σ ×", "candidate": "tanh",
    },
    nn.RNNCell: {},
}  # fmt: skip


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("recorded", [False, True])
def test_ops_are_grouped_by_gate(cell, recorded):
    """Those that serve one gate alone, or come from it alone, and the products it makes."""
    layer = nn.Recurrent(cell(3, 4))
    model = Model(lambda *_: layer)
    what = loss_of(model)[0] if recorded else layer
    drawn = viz.draw_unrolled(what, level="op", params=model if recorded else None)
    found: dict[str, list[str]] = {}
    for n, s in nodes(drawn).items():
        if n.startswith("r0t2_") and (gate := re.search(r'class="op (\w+)"', s)):
            found.setdefault(gate[1], []).append(label(s).split()[0])
    assert {gate: sorted(ops) for gate, ops in found.items()} == {
        gate: sorted(ops.split()) for gate, ops in GATES[cell].items()
    }


# -- columns ---------------------------------------------------------------------------------------


def test_the_middle_of_a_long_sequence_is_one_box():
    drawn = viz.draw_unrolled(nn.LSTM(3, 4), 50)
    boxes = [n for n in nodes(drawn) if re.fullmatch(r"r0t\d+", n)]
    assert boxes == ["r0t1", "r0t2", "r0t3", "r0t49", "r0t50"]
    assert label(nodes(drawn)["r0gap3"]) == "… 45 steps …"
    for pair in (("r0t3", "r0gap3"), ("r0gap3", "r0t49")):
        assert edges(drawn).count(pair) == 2
    text = {label(s) for s in nodes(drawn).values() if "label" in s}
    assert {"x⟨50⟩", "y⟨49⟩", "h⟨50⟩", "c⟨50⟩"} <= text
    assert 'label="h⟨48⟩"' in drawn.dot


def test_a_reversed_row_passes_its_gap_the_other_way():
    drawn = viz.draw_unrolled(nn.Recurrent(nn.RNNCell(3, 4), reverse=True), 50)
    assert {("r0t49", "r0gap3"), ("r0gap3", "r0t3")} <= set(edges(drawn))
    assert label(nodes(drawn)["r0s0start"]) == "h⟨51⟩"
    assert label(nodes(drawn)["r0s0end"]) == "h⟨1⟩"


@pytest.mark.parametrize(
    ("columns", "shown", "gaps"),
    [
        ((1, 1), [1, 20], ["r0gap1"]),
        ((0, 2), [19, 20], ["r0gap0"]),
        ((2, 0), [1, 2], ["r0gap2"]),
        ((10, 9), list(range(1, 21)), []),
        (range(4, 6), [5, 6], ["r0gap0", "r0gap2"]),
        ([-1, 0, 9], [1, 10, 20], ["r0gap1", "r0gap2"]),
    ],
)
@pytest.mark.parametrize("recorded", [False, True])
def test_columns_say_which_steps_are_shown(columns, shown, gaps, recorded):
    what = loss_of(Model())[0] if recorded else nn.RNN(3, 4)
    drawn = viz.draw_unrolled(what, 20, columns=columns)
    found = nodes(drawn)
    assert [n for n in found if re.fullmatch(r"r0t\d+", n)] == [f"r0t{t}" for t in shown]
    assert [n for n in found if re.fullmatch(r"r0gap\d+", n)] == gaps
    row = re.compile(r"r0(t\d+|gap\d+)$")
    states = [(a, b) for a, b in edges(drawn) if row.match(a) and row.match(b)]
    assert len(states) == len(shown) + len(gaps) - 1


@given(st.integers(1, 40), st.data())
def test_columns_and_gaps_make_up_the_sequence(steps, data):
    pairs = st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any)
    some = st.lists(st.integers(-steps, steps - 1), min_size=1)
    found = choose(steps, data.draw(st.none() | pairs | some), "cell")
    for columns in (found, fewer(found, data.draw(pairs))):
        assert len(columns.shown) + sum(columns.gaps) == steps
        numbers = [columns.number[t] for t in columns.shown]
        first = 0
        for number, gap in zip(numbers, columns.gaps, strict=False):
            assert number == first + gap + 1
            first = number
        run, short = shortened(columns)
        assert list(short.number.values()) == numbers
        assert run == len(numbers) + sum(gap > 0 for gap in columns.gaps)
        assert max(short.shown, default=0) < run
    whole = filled(found)
    assert set(found.shown) == set(whole.shown) - whole.slim
    assert len(whole.slim) == steps - len(found.shown)  # so few that each has a column


@pytest.mark.parametrize("columns", [(1,), (0, 0), (-1, 2), (1, 2, 3)])
def test_bad_ends(columns):
    with pytest.raises(ValueError, match=r"columns=.*\(3, 2\)"):
        viz.draw_unrolled(nn.RNN(3, 4), 20, columns=columns)


def test_bad_columns():
    with pytest.raises(ValueError, match="the indices of some of 20 steps"):
        viz.draw_unrolled(nn.RNN(3, 4), 20, columns=[20])
    for columns in (["a"], 3, 1.5, (1.5, 1)):
        with pytest.raises((TypeError, ValueError), match=r"columns=.* or a list of whole numbers"):
            viz.draw_unrolled(nn.RNN(3, 4), 20, columns=columns)
    with pytest.raises(ValueError, match="columns is empty"):
        viz.draw_unrolled(nn.RNN(3, 4), 20, columns=[])


def test_a_long_layer_costs_no_more_than_a_short_one():
    long, short = (work(viz.draw_unrolled, nn.LSTM(3, 4, 2), T) for T in (10_000, 100))
    assert long < 1.1 * short
    drawn = viz.draw_unrolled(nn.LSTM(3, 4, 2), 10_000)
    assert label(nodes(drawn)["r1gap3"]) == "… 9 995 steps …"
    assert "y0t10000" in nodes(drawn)


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_a_long_recording_is_drawn_in_no_time(mode):
    costs = []
    for T in (500, 2000):
        loss, _ = loss_of(Model(mode=mode), T)
        costs.append(work(viz.draw_unrolled, loss))
    assert costs[1] < 2000 * 1500  # lines
    assert costs[1] < 4.4 * costs[0]
    loss, _ = loss_of(Model(mode=mode), 10_000)
    drawn = viz.draw_unrolled(loss)
    assert {"r0t1", "r0gap3", "r0t9999", "r0t10000", "loss10000"} <= set(nodes(drawn))


@pytest.mark.parametrize("level", ["layer", "op"])
def test_a_long_recording_is_rolled_up_in_no_time(level):
    costs = []
    for T in (250, 1000):
        y, _ = nn.LSTM(3, 4, mode="unroll")(ts.tensor(np.ones((T, 1, 3)), np.float32))
        loss = (y**2).sum()
        costs.append(work(viz.draw_unrolled, loss, level=level))
    assert costs[1] < 1000 * 4000  # lines
    assert costs[1] < 4.4 * costs[0]  # what grows with the square has 16 times the work
    assert len(nodes(viz.draw_unrolled(loss, level=level))) < 200


# -- computations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["layer", "cell", "op"])
@pytest.mark.parametrize("make", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("needs", [False, True], ids=["x constant", "x needs a gradient"])
def test_a_computation_looks_the_same_however_it_ran(level, make, needs):
    """Unrolled, with the products of all steps computed at once, and compiled."""
    ts.seed(0)
    models = [Model(make, mode=mode) for mode in MODES]
    found = []
    for model in models:
        model.load_state_dict(models[0].state_dict())
        loss, _ = loss_of(model, needs=needs)
        drawn = viz.draw_unrolled(loss, level=level, params=model)
        found.append(
            (set(edges(drawn)), {n: label(s) for n, s in nodes(drawn).items() if "label" in s})
        )
    for pairs, text in found[1:]:
        assert pairs == found[0][0]
        text.pop("lossvalue"), found[0][1].pop("lossvalue", "")
        assert text == found[0][1]


def test_the_loss_of_each_step_and_their_sum():
    loss, _ = loss_of(Model())
    drawn = viz.draw_unrolled(loss)
    text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
    assert (text["y0t1"], text["loss1"], text["loss"]) == ("ŷ⟨1⟩", "L⟨1⟩", "L = Σ L⟨t⟩")
    assert text["lossvalue"] == f"= {loss.item():.4g}"
    assert [pair for pair in edges(drawn) if pair[1] == "loss"] == [
        (f"loss{t}", "loss") for t in (1, 2, 3, 19, 20)
    ]


SUMS = {
    "squares": (lambda y: (y * y).sum(), True),
    "mean": (lambda y: (y**2).mean() * 3, True),
    "classes": (lambda y: losses.cross_entropy(y, np.zeros(y.shape[:2], int)), True),
    "a loop": (lambda y: sum((y[t] ** 2).sum() for t in range(y.shape[0])), True),
    "largest": (lambda y: ts.max(y), False),
    "square of a sum": (lambda y: y.sum() ** 2, False),
    "neighbours": (lambda y: (ts.cumsum(y, 0) ** 2).sum(), False),
    "product": (lambda y: y[0].sum() * y[1].sum(), False),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_loss_is_called_a_sum_over_steps_when_it_is_one(name):
    function, is_sum = SUMS[name]
    y, _ = nn.RNN(3, 4)(np.ones((4, 2, 3), np.float32))
    drawn = viz.draw_unrolled(function(y))
    assert label(nodes(drawn)["loss"]) == ("L = Σ L⟨t⟩" if is_sum else "L")
    assert ("loss1" in nodes(drawn)) == is_sum


def test_a_loss_of_one_step_has_no_sum():
    drawn = viz.draw_unrolled(loss_of(Model(last=True))[0])
    assert label(nodes(drawn)["loss"]) == "L"
    assert [pair for pair in edges(drawn) if pair[1] == "loss"] == [("y0", "loss")]


@pytest.mark.parametrize("level", ["layer", "cell", "op"])
@pytest.mark.parametrize("last", [True, False])
def test_the_loss_of_a_sequence_of_one_step(last, level):
    loss, _ = loss_of(Model(last=last), 1)
    drawn = viz.draw_unrolled(loss, level=level, flow="gradient")
    ET.fromstring(drawn.svg())  # every node has a place
    assert ("y0t1", "loss") in edges(drawn)
    assert set(nodes(drawn)).isdisjoint({"y0", "loss1"})


def test_what_a_model_does_itself_lies_where_it_does_it():
    """Below its own layer and above it: not one row, from which lines go both ways."""
    layer, head = nn.GRU(3, 4), nn.Linear(4, 2)
    y, _ = layer(ts.tensor(np.ones((4, 2, 3)), np.float32))
    drawn = viz.draw_unrolled(losses.cross_entropy(head(ops.mean(y, axis=0)), [0, 1]))
    text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
    assert [text[n] for n in ("r1", "r2", "loss")] == ["Σ axis 0, ÷", "Linear", "L"]
    assert [e for e in edges(drawn) if e[0] in ("r1", "r2", "y0")] == [
        ("r1", "r2"), ("r2", "y0"), ("y0", "loss"),
    ]  # fmt: skip


def test_rows_of_attention_lie_one_above_another():
    model = nn.EncoderDecoder(nn.GRU(5, 4), nn.GRU(5, 4), 9, 8, bos=0, eos=1, attention="dot")
    drawn = viz.draw_unrolled(model.loss(np.full((4, 2), 3), np.full((3, 2), 4)), params=model)
    between = [(a, b) for a, b in edges(drawn) if re.fullmatch(r"r\d r\d", f"{a} {b}")]
    assert len(between) >= 4
    assert all(int(a[1:]) + 1 == int(b[1:]) for a, b in between)


def test_a_loop_without_steps_of_its_own_has_no_end_of_rows():
    first, x = nn.Linear(3, 3), ts.tensor(np.ones((2, 3), np.float32))
    with graph.scope("t=0"):
        x = x * ts.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    for _ in range(500):
        x = ops.tanh(first(x))
    loss = x.sum()
    assert work(viz.draw_unrolled, loss) < 500 * 5000  # lines
    drawn = viz.draw_unrolled(loss)
    assert len([n for n in nodes(drawn) if re.fullmatch(r"r\d+", n)]) <= 17


def test_what_is_made_of_the_last_step_stays_in_its_column():
    """Also above a second layer: dropout between the state and the scores."""
    layer, drop, head = nn.GRU(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)
    y, _ = layer(ts.tensor(np.ones((5, 2, 3)), np.float32))
    drawn = viz.draw_unrolled(losses.cross_entropy(head(drop(y[-1])), [0, 1]))
    at = places(drawn)
    assert {at[n][0] for n in ("r0t5", "y0", "loss")} == {at["r0t5"][0]}
    (course,) = courses(drawn, "r1--r2")
    # Compared in the DOT text: a renderer may move the whole picture by a tenth of a point.
    assert set(course) == {float(re.search(r'pos="([\d.]+),', nodes(drawn)["r0t5"])[1])}


def test_what_a_layer_does_with_lengths_is_not_called_like_its_cell():
    layer = nn.LSTM(3, 4)
    x = ts.tensor(np.ones((4, 2, 3)), np.float32, requires_grad=True)
    y, _ = layer(x, lengths=[4, 2])
    drawn = viz.draw_unrolled(y.sum(), params=layer)
    assert label(nodes(drawn)["r0"]) == "where"
    assert label(nodes(drawn)["r1t1"]) == "LSTMCell"


def test_tokens_are_x_where_an_embedding_looks_them_up():
    embedding, rnn = nn.Embedding(9, 3), nn.RNN(3, 4)
    tokens = np.arange(8).reshape(8, 1)
    y, _ = rnn(embedding(tokens))
    drawn = viz.draw_unrolled(y, params={"embedding": embedding, "rnn": rnn})
    assert [t for t, h in edges(drawn) if h == "r0" and t[0] == "x"] == [
        "x1",
        "x2",
        "x3",
        "x7",
        "x8",
    ]
    chips = [label(s) for n, s in nodes(drawn).items() if re.fullmatch(r"p\d+", n)]
    assert chips == ["weight  (9, 3)", "w_x  (3, 4)", "w_h  (4, 4)", "b  (4,)"]
    homes = [label(s) for n, s in nodes(drawn).items() if n.startswith("home")]
    assert homes == ["embedding", "rnn.layers.0.cell"]


@pytest.mark.parametrize("level", ["cell", "op"])
@pytest.mark.parametrize(
    "cell", [nn.LSTMCell, nn.GRUCell, nn.PeepholeLSTMCell, nn.LayerNormLSTMCell]
)
def test_ranks_are_aligned_in_a_computation(level, cell):
    if render.find_renderer() is None:
        pytest.skip("no renderer here")

    def make(*sizes):
        return nn.Recurrent(cell(*sizes))

    at = places(viz.draw_unrolled(loss_of(Model(make, last=True))[0], level=level))
    steps = sorted({int(m[1]) for n in at if (m := re.match(r"r0t(\d+)", n))})
    heights = []
    for t in steps:
        found = {
            n.partition("_")[2]: p for n, p in at.items() if re.fullmatch(rf"r0t{t}(_\d+)?", n)
        }
        heights.append({n: y for n, (_, y) in found.items()})
    assert all(h == pytest.approx(heights[0]) for h in heights)
    assert rises([at[f"x{t}"][0] for t in steps])


def test_an_encoder_hands_its_last_state_to_a_decoder_of_another_length():
    model = nn.EncoderDecoder(nn.GRU(5, 4), nn.GRU(5, 4), 9, 8, bos=0, eos=1)
    scores = model(np.full((4, 2), 3), np.full((3, 2), 4))
    drawn = viz.draw_unrolled(losses.cross_entropy(scores, np.full((3, 2), 4)), params=model)
    text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
    home = next(n for n in text if text[n] == "decoder.layers.0.cell").removeprefix("home")
    coder = next(n for n in text if text[n] == "encoder.layers.0.cell").removeprefix("home")
    assert (f"r{coder}t4", f"r{home}s0start") in edges(drawn)
    assert {(f"r{home}t1", f"r{home}t2"), (f"r{home}t2", f"r{home}t3")} <= set(edges(drawn))
    assert [n for n in text if re.fullmatch(r"loss\d", n)] == ["loss1", "loss2", "loss3"]


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("flow", [None, "gradient"])
@pytest.mark.parametrize("steps", [(4, 3), (3, 3), (2, 4), (30, 4)])
@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_a_rolled_encoder_hands_its_last_state_to_the_decoder(steps, flow, cell, mode):
    rng = np.random.default_rng(0)
    source, target = (rng.integers(2, 8, (n, 2)) for n in steps)
    model = nn.EncoderDecoder(cell(5, 4, mode=mode), cell(5, 4, mode=mode), 9, 8, bos=0, eos=1)
    drawn = viz.draw_unrolled(model.loss(source, target), params=model, level="layer", flow=flow)
    encoder, decoder = [n for n in nodes(drawn) if re.fullmatch(r"r\dt\d", n)]
    assert edges(drawn).count((encoder, decoder)) == 1
    assert f"{encoder}--{decoder}" in drawn.data or flow is None


def fed_back(between=False, steps=5):
    """A cell whose next input a layer of its own scope makes from its state."""
    cell, head = nn.GRUCell(3, 4), nn.Linear(4, 3)
    x, state, ys = ts.tensor(np.ones((2, 3), np.float32)), cell.initial_state(2), []
    for t in range(steps):
        with graph.scope("Cell"), graph.scope(f"t={t}"):
            state = cell(x, state)
        h = ops.tanh(state[0]) if between else state[0]
        with graph.scope("Head"), graph.scope(f"t={t}"):
            x = head(h)
        ys.append(x)
    return ops.stack(ys).sum()


def top_level_layers(steps=4):
    """Two layers outside of any step, and only what lies between in one."""
    first, second = nn.Linear(3, 4), nn.Linear(4, 3)
    x = ts.tensor(np.ones((2, 3), np.float32))
    for t in range(steps):
        x = second(ops.tanh(first(x)))
        with graph.scope(f"t={t}"):
            x = x * 2.0
    return x.sum()


def steps_that_differ(lengths=(1, 3, 2, 3, 5)):
    w, h = ts.tensor(np.eye(4, dtype=np.float32), requires_grad=True), ts.tensor(np.ones((2, 4)))
    for t, times in enumerate(lengths):
        with graph.scope(f"t={t}"):
            for _ in range(times):
                h = ops.tanh(h.astype(np.float32) @ w)
    return h.sum()


@pytest.mark.parametrize("level", ["layer", "cell", "op"])
@pytest.mark.parametrize(
    "make", [fed_back, lambda: fed_back(between=True), top_level_layers, steps_that_differ]
)
def test_rows_that_feed_each_other_and_steps_that_differ_are_drawn(make, level):
    drawn = viz.draw_unrolled(make(), level=level)
    ET.fromstring(drawn.svg())
    assert {end for edge in edges(drawn) for end in edge} <= set(nodes(drawn))


def test_what_is_fed_back_goes_to_the_step_after():
    drawn = viz.draw_unrolled(fed_back())
    for t in range(1, 5):
        assert {(f"r0t{t}", f"r1t{t}"), (f"r1t{t}", f"r0t{t + 1}")} <= set(edges(drawn))


def test_the_state_runs_through_steps_that_differ():
    drawn = viz.draw_unrolled(steps_that_differ())
    chain = ["r0s0start", *(f"r0t{t}" for t in range(1, 6)), "y0"]
    assert set(itertools.pairwise(chain[:-1])) <= set(edges(drawn))


def test_a_model_with_a_decoder_is_drawn_down_to_its_ops():
    model = nn.EncoderDecoder(nn.GRU(5, 4), nn.GRU(5, 4), 9, 8, bos=0, eos=1)
    drawn = viz.draw_unrolled(model.loss(np.full((2, 2), 3), np.full((3, 2), 4)), level="op")
    ET.fromstring(drawn.svg())
    assert any(head.endswith("s0start") for _, head in edges(drawn))


@pytest.mark.parametrize("steps", [(4, 3), (3, 3), (2, 4)])
def test_a_decoder_reads_the_symbols_before_and_stands_above_the_encoder(steps):
    rng = np.random.default_rng(0)
    source, target = (rng.integers(2, 8, (n, 2)) for n in steps)
    model = nn.EncoderDecoder(nn.LSTM(5, 4), nn.LSTM(6, 4), 9, 8, bos=0, eos=1)
    drawn = viz.draw_unrolled(model.loss(source, target), params=model)
    text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
    read = [text[f"x{t}"] for t in range(1, steps[0] + 1)]
    assert read == [f"x⟨{t}⟩" for t in range(1, steps[0] + 1)]
    told = [text[f"in1t{t}"] for t in range(1, steps[1] + 1)]
    assert told == [f"y⟨{t}⟩" for t in range(steps[1])]
    assert f"in1t{steps[1] + 1}" not in text
    assert {text[n] for n in text if re.fullmatch(r"(x|in1t)\dshape", n)} == {"(2,)"}
    rows = [text[f"home{i}"] for i in range(5)]
    assert rows == [
        "source_embedding", "encoder.layers.0.cell", "target_embedding", "decoder.layers.0.cell",
        "head",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_a_decoder_that_is_shorter_shows_what_it_reads(mode):
    class Pair(nn.Module):
        def __init__(self):
            self.encoder, self.decoder = nn.GRU(3, 4, mode=mode), nn.GRU(2, 4, mode=mode)

        def forward(self, x, told):
            return self.decoder(told, self.encoder(x)[1])[0]

    pair = Pair()
    x = ts.tensor(np.ones((4, 2, 3), np.float32), requires_grad=True)
    y = pair(x, ts.tensor(np.ones((3, 2, 2), np.float32)))
    drawn = viz.draw_unrolled((y**2).sum(), params=pair)
    text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
    assert [text[f"in1t{t}"] for t in (1, 2, 3)] == ["y⟨0⟩", "y⟨1⟩", "y⟨2⟩"]
    assert {(f"in1t{t}", f"r1t{t}") for t in (1, 2, 3)} <= set(edges(drawn))
    assert {(f"x{t}", f"r0t{t}") for t in (1, 2, 3, 4)} <= set(edges(drawn))


def test_a_bridge_lies_between_encoder_and_decoder():
    encoder = nn.GRU(5, 4, bidirectional=True)
    model = nn.EncoderDecoder(encoder, nn.GRU(5, 4), 9, 8, bos=0, eos=1)
    drawn = viz.draw_unrolled(model.loss(np.full((3, 2), 3), np.full((3, 2), 4)), params=model)
    height = {
        label(s): places(drawn)[n][1] for n, s in nodes(drawn).items() if n.startswith("home")
    }
    assert height["bridge.linear"] < height["decoder.layers.0.cell"] < height["head"]


def decoder_in_its_own_scope(steps):
    """An encoder of so many steps, and a decoder of as many that reads its own last word."""
    encoder, cell, head = nn.GRU(3, 4), nn.GRUCell(4, 4), nn.Linear(4, 4)
    y, _ = encoder(ts.tensor(np.ones((steps, 2, 3), np.float32), requires_grad=True))
    state, word, words = (y[-1],), y[-1], []
    for t in range(steps):
        with graph.scope("Decoder"), graph.scope(f"t={t}"):
            state = cell(word, state)
        with graph.scope("Head"), graph.scope(f"t={t}"):
            word = functional.softmax(head(state[0]))
        words.append(word)
    return losses.mse_loss(ops.stack(words), np.zeros((steps, 2, 4)))


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_a_decoder_that_reads_its_own_words_runs_forwards(steps):
    drawn = viz.draw_unrolled(decoder_in_its_own_scope(steps))
    arrows = set(edges(drawn))
    for t in range(1, steps):
        assert {(f"r1t{t}", f"r1t{t + 1}"), (f"r2t{t}", f"r1t{t + 1}")} <= arrows
    assert {("r1s0start", "r1t1"), (f"r0t{steps}", "r1s0start")} <= arrows
    x = {head for tail, head in arrows if re.fullmatch(r"(x|in\dt)\d", tail)}
    assert x == {f"r0t{t}" for t in range(1, steps + 1)}  # nothing else is given


@pytest.mark.parametrize("kind", ["mask", "softmax"])
def test_a_constant_in_a_step_is_no_input(kind):
    cell, x = nn.RNNCell(3, 4), np.ones((5, 2, 3), np.float32)
    (h,), ys = cell.initial_state(2), []
    for t in range(5):
        with graph.scope("Cell"), graph.scope(f"t={t}"):
            (h,) = cell(ts.tensor(x[t]), (h,))
            h = h * ts.tensor(np.ones((2, 4), np.float32)) if kind == "mask" else h
            h = functional.softmax(h) if kind == "softmax" else h
        ys.append(h)
    drawn = viz.draw_unrolled(ops.stack(ys).sum())
    text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
    assert [text[f"x{t}shape"] for t in range(1, 6)] == ["(2, 3)"] * 5
    assert not any(n.startswith("in") for n in text)
    assert Counter(tail for tail, _ in edges(drawn) if tail[0] == "x") == dict.fromkeys(
        [f"x{t}" for t in range(1, 6)], 1
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_of_dropout_is_no_input(mode):
    x = ts.tensor(np.ones((4, 2, 3), np.float32), requires_grad=True)
    first, layer = nn.Dropout(0.5), nn.RNN(3, 4, num_layers=2, dropout=0.5, mode=mode)
    loss = (layer(first(x))[0] * np.ones((4, 2, 1), np.float32)).sum()  # as of lengths
    for level in ("layer", "cell", "op"):
        drawn = viz.draw_unrolled(loss, params=layer, level=level)
        text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
        assert not [n for n in text if n.startswith("in")]
        assert not [t for t in text.values() if "x′" in t]
        titles = [t for t in text.values() if "Dropout" in t]
        assert titles == ["Dropout", "Dropout(p=0.5)"]  # the first is no part of the layer
        assert ("x2", "r0") in edges(drawn)


@pytest.mark.parametrize(
    ("cell", "signs"),
    [
        (nn.VariationalDropout(nn.RNNCell(3, 4), 0.5, 0.5), {"× mask x": 3, "× mask seen": 3}),
        (nn.Zoneout(nn.RNNCell(3, 4), 0.5), {"where(mask, ·, ·)": 3}),
    ],
    ids=["dropout", "zoneout"],
)
def test_the_masks_of_a_cell_are_called_so(cell, signs):
    layer = nn.Recurrent(cell, mode="unroll")
    y, _ = layer(
        ts.tensor(np.ones((3, 2, 3), np.float32), requires_grad=True),
        (ts.tensor(np.ones((2, 4), np.float32), requires_grad=True),),
    )
    drawn = viz.draw_unrolled(y.sum(), params=layer, level="op")
    found = Counter(
        re.sub(r" +h⟨.*", "", re.sub(r" {2,}", " ", label(s)))
        for s in nodes(drawn).values()
        if "mask" in s
    )
    assert found == signs
    assert not [n for n in nodes(drawn) if n.startswith("in")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch_first", [True, False])
def test_as_many_sequences_as_steps_are_read_along_time(batch_first, mode):
    x = ts.tensor(np.ones((4, 4, 3), np.float32), requires_grad=True)
    y, _ = nn.GRU(3, 5, batch_first=batch_first, mode=mode)(x)
    drawn = viz.draw_unrolled(y.sum(), flow="gradient")
    assert sorted(edge for edge in edges(drawn) if edge[0][0] == "x") == [
        (f"x{t}", f"r0t{t}") for t in range(1, 5)
    ]
    norm = np.linalg.norm(ts.grad(y.sum(), [x])[0].numpy(), axis=(0, 2) if batch_first else (1, 2))
    told = [drawn.data[f"x{t}--r0t{t}"]["gradient"] for t in range(1, 5)]
    np.testing.assert_allclose(told, norm, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("begin", [0, 2])
def test_a_part_of_a_longer_sequence_is_x(begin, mode):
    x = ts.tensor(np.ones((10, 2, 3), np.float32), requires_grad=True)
    y, _ = nn.GRU(3, 5, mode=mode)(x[begin : begin + 3])
    drawn = viz.draw_unrolled(y.sum())
    text = {n: label(s) for n, s in nodes(drawn).items() if "label" in s}
    assert [text[f"x{t}shape"] for t in range(1, 4)] == ["(2, 3)"] * 3
    assert not any("leaf" in told for told in text.values())


@pytest.mark.parametrize(("steps", "left_out"), [(9, "… 6 steps …"), (3, None)])
def test_a_short_decoder_leaves_out_its_own_steps(steps, left_out):
    model = nn.EncoderDecoder(nn.GRU(5, 4), nn.GRU(5, 4), 9, 8, bos=0, eos=1)
    drawn = viz.draw_unrolled(model.loss(np.full((12, 2), 3), np.full((steps, 2), 4)))
    gaps = {n: label(s) for n, s in nodes(drawn).items() if re.fullmatch(r"r\dgap\d", n)}
    assert gaps == {"r1gap3": "… 7 steps …"} | ({"r3gap3": left_out} if left_out else {})


@pytest.mark.parametrize("one", [True, False])
def test_parameters_are_called_the_same_at_every_step_when_they_are(one):
    first, second = nn.RNNCell(3, 4), nn.RNNCell(3, 4)
    x = ts.tensor(np.ones((4, 2, 3), np.float32), requires_grad=True)
    state = first.initial_state(2)
    for t in range(4):
        with graph.scope(f"t={t}"):
            state = (first if one or t < 2 else second)(x[t], state)
    drawn = viz.draw_unrolled(state[0].sum())
    assert ("the same at every step" in drawn.dot) == one


def test_no_arrow_crosses_the_title_of_an_opened_cell():
    class CellWithAVeryLongNameIndeed(nn.RNNCell):
        pass

    drawn = viz.draw_unrolled(CellWithAVeryLongNameIndeed(3, 4), level="op")
    found = re.findall(r'bb="([\d.,]+)", label="([^"]+)", lp="([\d.]+),', drawn.dot)
    assert len(found) == 3
    for t, (corners, title, middle) in enumerate(found, 1):
        left, _, right, _ = map(float, corners.split(","))
        out = re.search(rf'"r0t{t}_\d+" -> "y0t{t}" \[pos="\S+ ([\d.]+),', drawn.dot)
        x = float(out[1])
        half = width(title, 10) / 2
        assert left < float(middle) - half
        assert float(middle) + half < right
        assert abs(x - float(middle)) > half


def test_nothing_of_a_computation_changes():
    loss, x = loss_of(Model(nn.LSTM, mode="compiled"))
    before = list(map(graph.identity, graph.topological(loss)))
    for options in ({}, {"level": "op"}, {"flow": "gradient"}, {"flow": "value"}):
        viz.draw_unrolled(loss, **options)
    assert list(map(graph.identity, graph.topological(loss))) == before
    assert x.grad is None
    loss.backward()
    assert x.grad is not None
    with pytest.raises(GraphError, match="freed by a backward pass"):
        viz.draw_unrolled(loss)


def test_what_was_not_computed_cannot_be_drawn():
    with pytest.raises(GraphError, match="nothing was recorded"):
        viz.draw_unrolled(ts.tensor(1.0))
    with pytest.raises(GraphError, match="nothing was recorded"):
        viz.draw_unrolled([])
    with pytest.raises(GraphError, match="no step in time"):
        viz.draw_unrolled(nn.Linear(3, 2)(np.ones((4, 3))).sum())


# -- what flowed -----------------------------------------------------------------------------------


@settings(max_examples=10)
@given(steps=st.integers(2, 12), mode=st.sampled_from(MODES), last=st.booleans())
def test_the_norms_are_those_of_values_and_gradients(steps, mode, last):
    """Compared with the gradients of a loop written out, with respect to every h and x."""
    model = Model(last=last, mode=mode)
    loss, x = loss_of(model, steps)
    data = viz.draw_unrolled(loss, flow="gradient", columns=(steps, 0)).data
    cell = model.rnn.layers[0].cell
    xs = [ts.tensor(x.numpy()[t], requires_grad=True) for t in range(steps)]
    h = ts.tensor(np.zeros((2, 4), np.float32), requires_grad=True)
    hs, ys = [], []
    for row in xs:
        (h,) = cell(row, (h,))
        hs.append(h)
        ys.append(model.head(h))
    scores = ys[-1] if last else ts.stack(ys)
    again = losses.mse_loss(scores, np.ones(scores.shape))
    wanted = [*hs, *xs]
    for value, g in zip(wanted, ts.grad(again, wanted), strict=True):
        value.grad = g
    for t in range(1, steps):
        found = data[f"r0t{t}--r0t{t + 1}"]
        assert found["value"] == pytest.approx(np.linalg.norm(hs[t - 1].numpy()), rel=1e-3)
        expected = np.linalg.norm(hs[t - 1].grad.numpy())
        assert found["gradient"] == pytest.approx(expected, rel=1e-3, abs=1e-7)
    for t in range(1, steps + 1):
        expected = np.linalg.norm(xs[t - 1].grad.numpy())
        assert data[f"x{t}--r0t{t}"]["gradient"] == pytest.approx(expected, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell])
def test_the_line_of_an_initial_state_begins_behind_its_name(cell):
    drawn = viz.draw_unrolled(cell(3, 4), steps=1, level="op")
    name = nodes(drawn)["r0s0start"]
    middle = float(re.search(r'pos="([\d.]+),', name)[1])
    end = middle + float(re.search(r"width=([\d.]+)", name)[1]) * 72 / 2
    lines = courses(drawn, r"r0s0start--.*")
    assert lines
    assert min(map(min, lines)) > end


def test_an_initial_state_with_a_long_shape_is_clear_of_the_parameters():
    y, _ = nn.RNN(3, 4)(ts.tensor(np.zeros((2, 12345, 3), np.float32)))
    drawn = viz.draw_unrolled(y)
    shape = nodes(drawn)["r0s0startshape"]
    middle = float(re.search(r'pos="([\d.]+),', shape)[1])
    begins = middle - float(re.search(r"width=([\d.]+)", shape)[1]) * 72 / 2
    (trunk,) = {Counter(xs).most_common(1)[0][0] for xs in courses(drawn, r"p[0-2]--r0t1")}
    assert begins > trunk


def test_parameters_of_several_modules_in_one_loop_say_whose_they_are():
    class Two(nn.Module):
        def __init__(self):
            self.first, self.second = nn.RNNCell(3, 4), nn.RNNCell(4, 4)

        def forward(self, x):
            h, ys = self.first.initial_state(2), []
            for t in range(3):
                with graph.scope(f"t={t}"):
                    h = self.second(self.first(x[t], h)[0], h)
                ys.append(h[0])
            return ops.stack(ys)

    two = Two()
    y = two(ts.tensor(np.ones((3, 2, 3), np.float32), requires_grad=True))
    drawn = viz.draw_unrolled(y, params=two)
    chips = [label(s) for n, s in nodes(drawn).items() if re.fullmatch(r"p\d+", n)]
    assert {"first.w_x  (3, 4)", "second.w_x  (4, 4)", "first.b  (4,)"} <= set(chips)


def test_parameters_come_to_the_steps_that_use_them_by_a_line_of_their_own():
    first, second = nn.RNNCell(3, 4), nn.RNNCell(3, 4)
    x = ts.tensor(np.ones((4, 2, 3), np.float32), requires_grad=True)
    state = first.initial_state(2)
    for t in range(4):
        with graph.scope(f"t={t}"):
            state = (first if t < 2 else second)(x[t], state)
    drawn = viz.draw_unrolled(state[0].sum(), params={"first": first, "second": second})
    chips = {n: label(s) for n, s in nodes(drawn).items() if re.fullmatch(r"p\d+", n)}
    lines: dict[str, set[float]] = {"first": set(), "second": set()}
    for n, text in chips.items():
        for pos in re.findall(rf'"{n}" -> "r0t\d" \[pos="([^"]*)"', drawn.dot):
            heights = re.findall(r"[\d.]+,([\d.-]+)", pos)
            lines[text.partition(".")[0]].add(Counter(heights).most_common(1)[0][0])
    assert [len(heights) for heights in lines.values()] == [1, 1]
    assert lines["first"].isdisjoint(lines["second"])


def test_the_directions_are_told_apart_by_name():
    model = nn.Stacked(nn.RNN(3, 4, bidirectional=True))
    drawn = viz.draw_unrolled(model)
    homes = [label(s) for n, s in nodes(drawn).items() if n.startswith("home")]
    assert ["forward" in home for home in homes] == [True, False]
    assert ["backward" in home for home in homes] == [False, True]


def test_a_vanishing_gradient_is_seen_fading():
    ts.seed(0)
    loss, _ = loss_of(Model(last=True), 30)
    drawn = viz.draw_unrolled(loss, flow="gradient")
    arrows = attributes(drawn, r"r0t\d+--r0t\d+")
    assert len(arrows) == 29
    widths = [float(arrows[f"r0t{t}--r0t{t + 1}"]["penwidth"]) for t in range(1, 30)]
    assert widths[-1] > 3
    assert widths[0] < 1
    assert sum(a < b for a, b in itertools.pairwise(widths)) > 20
    norms = [drawn.data[f"r0t{t}--r0t{t + 1}"]["gradient"] for t in range(1, 30)]
    assert norms[0] < 1e-3 * norms[-1]
    assert f"‖∂L/∂v‖ = {norms[-1]:.3g}" in arrows["r0t29--r0t30"]["tooltip"] + drawn.dot
    slim = [n for n, s in nodes(drawn).items() if 'class="cell slim"' in s]
    assert slim == [f"r0t{t}" for t in range(4, 29)]
    assert "… 25 steps …" in drawn.dot


def test_two_pictures_can_have_one_scale():
    looks = []
    for make in (nn.RNN, nn.LSTM):
        loss, _ = loss_of(Model(make))
        drawn = viz.draw_unrolled(loss, flow="gradient", scale=(1e-6, 1.0))
        looks.append(
            [s for n, s in nodes(drawn).items() if n.startswith("legend") and n != "legend"]
        )
        text = [label(s) for n, s in nodes(drawn).items() if re.fullmatch(r"legend\d+text", n)]
        assert text == ["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "10⁰"]
    assert looks[0] == looks[1]


def test_of_very_many_steps_some_are_drawn():
    loss, _ = loss_of(Model(last=True, mode="compiled"), 400)
    drawn = viz.draw_unrolled(loss, flow="value")
    slim = [n for n, s in nodes(drawn).items() if 'class="cell slim"' in s]
    assert 50 < len(slim) <= 60
    assert "… 395 steps, one in 7 drawn …" in drawn.dot
    assert set(drawn.data) >= {"r0t4--r0t11", "x11--r0t11"}


@pytest.mark.parametrize("flow", ["gradient", "value"])
def test_a_rolled_layer_shows_the_mean_over_its_steps(flow):
    steps = 5
    model = Model(nn.LSTM, bidirectional=True)
    model.head = nn.Linear(8, 2)
    loss, _ = loss_of(model, steps)
    each = viz.draw_unrolled(loss, flow=flow, columns=(steps, 0)).data
    drawn = viz.draw_unrolled(loss, flow=flow, level="layer")
    between, every = range(1, steps), range(1, steps + 1)
    parts = {
        "r0t2--r0t2": [f"r0t{t}--r0t{t + 1}" for t in between],
        "r0t2--r0t2--2": [f"r0t{t}--r0t{t + 1}--2" for t in between],
        "r1t2--r1t2": [f"r1t{t + 1}--r1t{t}" for t in between],
        "x2--r0t2": [f"x{t}--r0t{t}" for t in every],
        "r1t2--r2": [f"r1t{t}--r2" for t in every],
        "y0t2--loss2": [f"y0t{t}--loss{t}" for t in every],
    }
    for arrow, unrolled in parts.items():
        for kind in ("value", "gradient"):
            mean = np.mean([each[one][kind] for one in unrolled])
            assert drawn.data[arrow][kind] == pytest.approx(mean, rel=1e-4), (arrow, kind)
    looks = attributes(drawn, "|".join(parts))
    assert {a["color"] for a in looks.values()}.isdisjoint({"#0072B2", "#D55E00", "#444444"})
    assert "mean over the steps" in drawn.dot
    assert ", the mean over 4 steps" in drawn.dot  # h goes on from all but the last


def test_a_rolled_layer_of_which_one_step_is_read_shows_what_that_one_gives():
    loss, _ = loss_of(Model(last=True), 6)
    last = viz.draw_unrolled(loss, flow="gradient").data["r0t6--r1"]
    assert viz.draw_unrolled(loss, flow="gradient", level="layer").data["r0t2--r1"] == last


def test_a_picture_that_had_to_be_rolled_up_tells_of_every_step():
    loss, _ = loss_of(Model(num_layers=160), 4)
    with pytest.warns(UserWarning, match="level='layer'"):
        drawn = viz.draw_unrolled(loss, flow="value")
    assert drawn.data == viz.draw_unrolled(loss, flow="value", level="layer").data
    assert ", the mean over 4 steps" in drawn.dot


def test_what_is_constant_or_nothing_looks_different():
    loss, _ = loss_of(Model(last=True), 8, needs=False)
    drawn = viz.draw_unrolled(loss, flow="gradient")
    assert set(drawn.data["x1--r0t1"]) == {"value"}
    assert attributes(drawn, "x1--r0t1")["x1--r0t1"]["color"] == "#BBBBBB"
    shown = attributes(viz.draw_unrolled(loss, flow="value"), "r0s0start--r0t1")
    assert shown["r0s0start--r0t1"]["style"] == "dotted"  # h⟨0⟩ is 0
    assert "; grey: none was recorded" in drawn.dot
    assert "; dotted: 0" in viz.draw_unrolled(loss, flow="value").dot
    assert "dotted" not in label(nodes(drawn)["legend"])


def test_bad_flows():
    loss, _ = loss_of(Model())
    with pytest.raises(ValueError, match="flow='up'"):
        viz.draw_unrolled(loss, flow="up")
    with pytest.raises(ValueError, match=r"a layer alone.*draw_unrolled\(loss"):
        viz.draw_unrolled(nn.RNN(3, 4), flow="gradient")
    y, _ = nn.RNN(3, 4)(np.ones((4, 2, 3), np.float32))
    with pytest.raises(ValueError, match=r"needs one number.*\(4, 2, 4\)"):
        viz.draw_unrolled(y, flow="gradient")
    assert viz.draw_unrolled(y, flow="value").data
    for scale in ((1, 0.1), (0, 1), (1,), (1, np.inf)):
        with pytest.raises((TypeError, ValueError), match="scale="):
            viz.draw_unrolled(loss, flow="gradient", scale=scale)


def test_few_steps_are_all_shown():
    assert choose(ALL_UP_TO, None, "cell").gaps == (0,) * (ALL_UP_TO + 1)
    assert sum(choose(ALL_UP_TO + 1, None, "cell").gaps) == 2


def test_a_loss_on_the_last_step_hangs_together_when_rolled_up():
    layer, head = nn.GRU(3, 4, num_layers=2), nn.Linear(4, 2)
    y, _ = layer(ts.tensor(np.ones((6, 2, 3)), np.float32))
    dot = viz.draw_unrolled((head(y[-1]) ** 2).sum(), level="layer").dot
    for arrow in ('"r0t2" -> "r1t2"', '"r1t2" -> "r2"', '"r2" -> "y0"', '"y0" -> "loss"'):
        assert arrow in dot


@pytest.mark.parametrize(
    ("c", "op", "said"),
    [
        (np.eye(2, 3), lambda x, c: x * c, "mask"),
        (np.eye(2, 3), lambda x, c: x + c, "const"),
        (np.array([0.0, 1.0, 2.0]), lambda x, c: x * c, "const"),  # repeated: it scales
        (np.array(2.5), lambda x, c: x * c, "2.5"),
        (np.eye(2, 3) > 0, lambda x, c: ts.where(c, x, 0.0), "mask"),
        (np.eye(2, 3), lambda x, c: ts.where(x > 0, x, c), "const"),
    ],
)
def test_a_constant_is_called_by_what_is_done_with_it(c, op, said):
    x, c = ts.tensor(np.ones((2, 3)), requires_grad=True), ts.tensor(c)
    assert constant_text(c, op(x, c)) == said
