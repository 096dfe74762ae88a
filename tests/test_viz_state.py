"""What a network's state does: recordings, heat maps, coloured texts, units that follow something,
gradients by lag, and the curves of training.
"""

from __future__ import annotations

import cProfile
import io
import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import functional, nn, ops, saving, text, viz
from tinyseq.viz import units as units_module
from tinyseq.viz.colour import wants_colour
from tinyseq.viz.symbols import visible

T, B, D, H = 5, 3, 2, 4
RNG = np.random.default_rng(0)
X = RNG.standard_normal((T, B, D))
PNG = b"\x89PNG"


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def arrays(module):
    """Its parameters by name, as arrays; of a kind that no initialiser gives."""
    for _, p in module.named_tensors():
        p.data = RNG.standard_normal(p.shape) * 0.7
    return {name: t.numpy() for name, t in module.named_tensors()}


# -- cells by hand ---------------------------------------------------------------------------------


def by_hand(cell, x, w):
    """Every value of the cell, step by step in NumPy: a dictionary of arrays (T, B, H)."""
    h, c = np.zeros((B, H)), np.zeros((B, H))
    out = []
    for row in x:
        made = HANDS[cell](row, h, c, w)
        h, c = made["h"], made.get("c", c)
        out.append(made)
    return {name: np.stack([made[name] for made in out]) for name in out[0]}


def rnn(x, h, c, w):
    return {"h": np.tanh(x @ w["w_x"] + h @ w["w_h"] + w["b"])}


def gru_after(x, h, c, w):
    from_x, from_h = x @ w["w_x"] + w["b"], h @ w["w_h"]
    update = sigmoid(from_x[:, :H] + from_h[:, :H])
    reset = sigmoid(from_x[:, H : 2 * H] + from_h[:, H : 2 * H])
    candidate = np.tanh(from_x[:, 2 * H :] + reset * (from_h[:, 2 * H :] + w["b_h"]))
    h = update * candidate + (1 - update) * h
    return {"update": update, "reset": reset, "candidate": candidate, "h": h, "from_x": from_x}


def gru_before(x, h, c, w):
    from_x = x @ w["w_x"] + w["b"]
    update = sigmoid(from_x[:, :H] + h @ w["w_h"][:, :H])
    reset = sigmoid(from_x[:, H : 2 * H] + h @ w["w_h"][:, H : 2 * H])
    candidate = np.tanh(from_x[:, 2 * H :] + (reset * h) @ w["w_h"][:, 2 * H :])
    h = update * candidate + (1 - update) * h
    return {"update": update, "reset": reset, "candidate": candidate, "h": h}


def gru_simplified(x, h, c, w):
    a = x @ w["w_x"] + h @ w["w_h"] + w["b"]
    update, candidate = sigmoid(a[:, :H]), np.tanh(a[:, H:])
    return {
        "update": update,
        "candidate": candidate,
        "h": update * candidate + (1 - update) * h,
    }


def lstm(x, h, c, w, norm_x=lambda a: a, norm_h=lambda a: a, norm_c=lambda a: a):
    gates = norm_x(x @ w["w_x"]) + norm_h(h @ w["w_h"]) + w["b"]
    update, forget, output = np.split(sigmoid(gates[:, : 3 * H]), 3, axis=1)
    candidate = np.tanh(gates[:, 3 * H :])
    c = update * candidate + forget * c
    return {
        "gates": gates, "update": update, "forget": forget, "output": output,
        "candidate": candidate, "c": c, "h": output * np.tanh(norm_c(c)),
    }  # fmt: skip


def layer_norm(weight, bias=0.0):
    def norm(a):
        centred = a - a.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred / scale * weight + bias

    return norm


def lstm_normed(x, h, c, w):
    norms = (
        layer_norm(w["norm_x.weight"]),
        layer_norm(w["norm_h.weight"]),
        layer_norm(w["norm_c.weight"], w["norm_c.bias"]),
    )
    return lstm(x, h, c, w, *norms)


def gru_normed(x, h, c, w):
    norm_x, norm_h = layer_norm(w["norm_x.weight"]), layer_norm(w["norm_h.weight"])
    from_x, from_h = norm_x(x @ w["w_x"]) + w["b"], norm_h(h @ w["w_h"])
    update = sigmoid(from_x[:, :H] + from_h[:, :H])
    reset = sigmoid(from_x[:, H : 2 * H] + from_h[:, H : 2 * H])
    candidate = np.tanh(from_x[:, 2 * H :] + reset * (from_h[:, 2 * H :] + w["b_h"]))
    h = update * candidate + (1 - update) * h
    return {"update": update, "reset": reset, "candidate": candidate, "h": h}


def peephole(sees):
    def step(x, h, c, w):
        parts = np.split(x @ w["w_x"] + h @ w["w_h"] + w["b"], 4, axis=1)
        update = sigmoid(parts[0] + w["p_u"] * c)
        forget = sigmoid(parts[1] + w["p_f"] * c)
        new = update * np.tanh(parts[3]) + forget * c
        output = sigmoid(parts[2] + w["p_o"] * (new if sees == "new" else c))
        return {
            "update": update,
            "forget": forget,
            "output": output,
            "c": new,
            "h": output * np.tanh(new),
        }

    return step


class Leaky(nn.Module):
    """A user's own: a ``__call__``, a state that only the code names, and an unnamed result."""

    def __init__(self):
        self.w = nn.Parameter(np.zeros((D, H)))
        self.u = nn.Parameter(np.zeros((H, H)))
        self.input_size = D

    def initial_state(self, batch_size, dtype=np.float64):
        return (ts.tensor(np.zeros((batch_size, H), dtype)),)

    def squashed(self, a):
        inner = a * 0.5
        return ops.tanh(inner)

    def __call__(self, x, state):
        (memory,) = state
        leak = ops.sigmoid(x @ self.w)
        fresh = self.squashed(x @ self.w + memory @ self.u)
        for _ in range(2):
            self.squashed(memory)
        return ((1 - leak) * memory + leak * fresh,)


def leaky(x, h, c, w):
    leak = sigmoid(x @ w["w"])
    inner = (x @ w["w"] + h @ w["u"]) * 0.5
    fresh = np.tanh(inner)
    new = (1 - leak) * h + leak * fresh
    return {
        "leak": leak, "inner": inner, "inner_2": h * 0.5, "inner_3": h * 0.5, "fresh": fresh,
        "memory": new, "h": new,
    }  # fmt: skip


HANDS = {
    "rnn": rnn, "gru_after": gru_after, "gru_before": gru_before, "gru_simplified": gru_simplified,
    "gru_normed": gru_normed, "lstm": lstm, "lstm_normed": lstm_normed,
    "peephole_new": peephole("new"), "peephole_previous": peephole("previous"), "leaky": leaky,
}  # fmt: skip
CELLS = {
    "rnn": lambda: nn.RNNCell(D, H),
    "gru_after": lambda: nn.GRUCell(D, H),
    "gru_before": lambda: nn.GRUCell(D, H, "reset_before"),
    "gru_simplified": lambda: nn.GRUCell(D, H, "simplified"),
    "gru_normed": lambda: nn.LayerNormGRUCell(D, H),
    "lstm": lambda: nn.LSTMCell(D, H),
    "lstm_normed": lambda: nn.LayerNormLSTMCell(D, H),
    "peephole_new": lambda: nn.PeepholeLSTMCell(D, H, "new"),
    "peephole_previous": lambda: nn.PeepholeLSTMCell(D, H, "previous"),
    "leaky": Leaky,
}


@pytest.mark.parametrize("kind", CELLS)
def test_a_recording_is_the_cell_unrolled_by_hand(kind):
    cell = CELLS[kind]().double()
    wanted = by_hand(kind, X, arrays(cell))
    recorded = viz.record(cell, X)[0]
    if kind == "leaky":
        del wanted["h"]  # the code calls it memory
    for name, values in wanted.items():
        np.testing.assert_allclose(recorded[name], values, atol=1e-12, rtol=0, err_msg=name)
    assert list(recorded)[-1] == ("memory" if kind == "leaky" else "h")
    assert list(viz.record(cell, X, local=False)[0]) == list(recorded.state)


@pytest.mark.unrolled("records unroll: equal to the bit to what unrolls, too")
def test_every_layer_is_recorded_in_the_order_of_x():
    layer = nn.LSTM(D, H, 2, bidirectional=True).double()
    recorded = viz.record(layer, X, lengths=[5, 2, 3])
    assert list(recorded) == [
        f"layers.{i}.{way}_layer" for i in (0, 1) for way in ("forward", "backward")
    ]
    y = layer(X, lengths=[5, 2, 3])[0].numpy()
    both = np.concatenate([recorded[2]["h"], recorded[-1]["h"]], axis=2)
    behind = np.arange(T)[:, None] >= np.array([5, 2, 3])
    np.testing.assert_array_equal(np.isnan(both).all(axis=2), behind)
    np.testing.assert_array_equal(np.nan_to_num(both), y)
    np.testing.assert_array_equal(recorded.output, y)


@pytest.mark.unrolled("records unroll: equal to the bit to what unrolls, too")
@pytest.mark.parametrize("lengths", [None, [5, 2, 3]])
def test_a_layer_that_is_turned_around_is_turned_back(lengths):
    inner = nn.LSTM(D, H).double()
    both = nn.Bidirectional(nn.GRUCell(D, H).double(), inner)
    y = both(X, lengths=lengths)[0].numpy()[..., H:]
    recorded = viz.record(both, X, lengths=lengths)["backward_layer.layer.layers.0"]["h"]
    np.testing.assert_array_equal(np.nan_to_num(recorded), y)


@pytest.mark.unrolled("records unroll: equal to the bit to what unrolls, too")
def test_wrapped_cells_and_layers_called_again():
    cell = nn.Zoneout(nn.VariationalDropout(nn.LSTMCell(D, H), 0.5, 0.5), 0.2).double()
    layer = nn.Recurrent(cell)
    recorded = viz.record(layer, X)[0]
    y = layer.eval()(X)[0].numpy()
    np.testing.assert_array_equal(recorded["h"], y)
    # What the LSTM wanted its memory to be, and what zoneout left of it.
    held = np.concatenate([np.zeros((1, B, H)), recorded["c"][:-1]])
    np.testing.assert_allclose(recorded["c"], 0.2 * held + 0.8 * recorded["cell.cell.c"])

    class Twice(nn.Module):
        def __init__(self):
            self.layer = nn.Recurrent(nn.RNNCell(D, H).double(), reverse=True)

        def forward(self, x):
            first, state = self.layer(x)
            return self.layer(x, state)[0], first

    twice = Twice()
    y, first = twice(X)
    h = viz.record(twice, X)["layer"]["h"]
    np.testing.assert_array_equal(h, np.concatenate([first.numpy(), y.numpy()]))


def test_a_recording_leaves_the_module_as_it_was_and_sees_what_ran_compiled():
    model = text.LanguageModel(7, H, 1, "rnn", dropout=0.5, mode="compiled")
    indices = RNG.integers(7, size=(T, B))
    modules = dict(model.named_modules())
    before = repr(ts.random.get_state()), [(n, m._scope_name) for n, m in modules.items()]
    recorded = viz.record(model, indices)
    assert dict(model.named_modules()) == modules
    assert before == (
        repr(ts.random.get_state()),
        [(n, m._scope_name) for n, m in modules.items()],
    )
    assert model.training
    assert {m.mode for m in modules.values() if isinstance(m, nn.Recurrent)} == {"compiled"}
    with nn.evaluation(model):
        logits, state = model(indices)
    np.testing.assert_allclose(recorded.output, logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(recorded[-1]["h"][-1], state[0][0].numpy(), atol=1e-5)
    one = viz.record(model, list(indices[:, 0]))  # a single text
    np.testing.assert_allclose(one[0]["h"][:, 0], recorded[0]["h"][:, 0], atol=1e-5)


def test_a_step_that_makes_something_else_leaves_nan():
    class Alternating(nn.RNNCell):
        def forward(self, x, state):
            self.t = getattr(self, "t", -1) + 1
            if self.t % 2:
                seldom = x * 1.0
                return super().forward(seldom, state)
            return super().forward(x, state)

    seldom = viz.record(Alternating(D, H).double(), X)[0]["seldom"]
    np.testing.assert_array_equal(seldom[1::2], X[1::2])
    assert np.isnan(seldom[::2]).all()


def test_a_profiler_goes_on():
    profiler = cProfile.Profile()
    profiler.enable()
    viz.record(nn.RNNCell(D, H).double(), X)
    assert sys.getprofile() is profiler
    profiler.disable()
    calls = []
    sys.setprofile(lambda *event: calls.append(event))
    try:
        viz.record(nn.RNNCell(D, H).double(), X)
        assert sys.getprofile() is not None
    finally:
        sys.setprofile(None)
    assert calls


def test_what_cannot_be_recorded():
    with pytest.raises(TypeError, match="module=3 must be a Module"):
        viz.record(3, X)
    with pytest.raises(ValueError, match=r"Linear has no recurrent layer.*nn\.Recurrent\(cell\)"):
        viz.record(nn.Linear(D, H), X)

    class Idle(nn.Module):
        def __init__(self):
            self.layer = nn.RNN(D, H)

        def forward(self, x):
            return ts.tensor(x)

    with pytest.raises(ValueError, match=r"calls none of layer\.layers\.0"):
        viz.record(Idle(), X)
    recorded = viz.record(nn.LSTM(D, H).double(), X)
    with pytest.raises(
        KeyError, match=r"the name 'reset' is not among the recorded names: gates, update"
    ):
        recorded[0]["reset"]
    with pytest.raises(KeyError, match=r"no layer 'top'; there are layers\.0"):
        recorded["top"]
    with pytest.raises(IndexError, match=r"no layer 1; there are 1: layers\.0"):
        recorded[1]
    assert "forget (5, 3, 4)" in repr(recorded)
    assert len(recorded) == 1

    class Wrong(nn.RNNCell):
        def forward(self, x, state):
            return super().forward(x, state)[0]

    with pytest.raises(TypeError, match="Wrong in Recurrent/t=0: a cell returns its new state"):
        viz.record(Wrong(D, H).double(), X)


# -- heat maps -------------------------------------------------------------------------------------


def test_a_heat_map_shows_what_was_recorded(tmp_path):
    recorded = viz.record(nn.LSTM(D, H).double(), X)
    figure = viz.heatmap(
        recorded, ["forget", "c"], sequence=1, units=[3, 0], symbols=["a", " ", "$x$", "日", "\n"]
    )
    np.testing.assert_array_equal(figure.data["forget"], recorded[0]["forget"][:, 1, [3, 0]].T)
    forget, c = figure.axes[:2]
    assert forget.images[0].get_clim() == (0, 1)
    low, high = c.images[0].get_clim()
    assert low == -high == -np.abs(figure.data["c"]).max()
    assert [label.get_text() for label in c.get_yticklabels()] == ["3", "0"]
    assert [label.get_text() for label in c.get_xticklabels()] == ["a", "␣", "$x$", "□", "↵"]
    assert (forget.get_ylabel(), c.get_xlabel()) == ("unit", "symbol read, one a step t")
    assert figure._repr_png_().startswith(PNG)
    assert figure.save(tmp_path / "h.svg").read_bytes().startswith(b"<?xml")
    assert list(viz.heatmap(recorded).data) == ["c", "h"]


def test_a_step_is_a_whole_number():
    (axes, _) = viz.heatmap(np.zeros((20, 4))).axes
    assert all(tick == round(tick) for tick in axes.get_xticks())
    for steps in (3, 7, 20):
        lags = viz.gradient_flow(nn.RNN(D, H), np.ones((steps, 2, D), np.float32)).axes[0]
        assert all(tick == round(tick) for tick in lags.get_xticks())


@pytest.mark.parametrize(
    ("units", "numbered"),
    [
        (1, [0]),
        (9, range(9)),
        (10, range(0, 10, 2)),
        (32, range(0, 32, 5)),
        (100, range(0, 100, 20)),
    ],
)
def test_numbers_of_units_are_evenly_apart(units, numbered):
    (axes, _) = viz.heatmap(np.zeros((3, units))).axes
    assert list(axes.get_yticks()) == list(numbered)
    figure = axes.figure
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(a.y0 >= b.y1 - 1 for a, b in itertools.pairwise(boxes))


def test_a_heat_map_of_an_array_and_its_colours():
    spread = np.linspace(-1, 1, 400).reshape(100, 4)
    spread[0, 0] = 50  # one that is far larger than all others
    axes = viz.heatmap(spread, "mine", symbols="x" * 100).axes[0]
    assert axes.images[0].get_clim()[1] < 1.1
    assert axes.get_title(loc="left") == "mine"
    assert viz.heatmap(np.full((3, 2), 4.0)).axes[0].images[0].get_clim() == (0, 4)
    assert viz.heatmap(np.zeros((3, 2)), signed=True).axes[0].images[0].get_clim() == (-1, 1)
    assert viz.heatmap(np.full((3, 2), np.nan)).axes[0].images[0].get_clim() == (0, 1)
    assert viz.heatmap(np.zeros((300, 2)), symbols="x" * 300).axes[0].get_xlabel() == "step t"


def test_what_is_no_heat_map(tmp_path):
    with pytest.raises(ValueError, match=r"value has shape \(3,\)"):
        viz.heatmap(np.zeros(3))
    with pytest.raises(ValueError, match="2 symbols for T=3"):
        viz.heatmap(np.zeros((3, 2)), symbols="ab")
    with pytest.raises(IndexError, match="unit 2 is not there: value has H=2"):
        viz.heatmap(np.zeros((3, 2)), units=[2])
    with pytest.raises(IndexError, match="sequence=4"):
        viz.heatmap(np.zeros((3, 2, 2)), sequence=4)
    figure = viz.heatmap(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"'a\.txt'"):
        figure.save("a.txt")
    with pytest.raises(OSError, match="cannot write"):
        figure.save(tmp_path / "missing" / "a.png")


def test_matplotlib_comes_when_it_is_needed_and_is_asked_for_when_it_is_missing():
    code = """
import sys
from tinyseq import viz
assert "matplotlib" not in sys.modules
sys.modules["matplotlib.figure"] = None
try:
    viz.heatmap([[0.0]])
except viz.RenderError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'tinyseq[viz]'" in done.stdout, done.stderr


# -- coloured texts --------------------------------------------------------------------------------

HOSTILE = "<b>&amp;\"'</b> \t\x1b[31mé日\n\n\x00\ud800 $x$"


def model_of(source, seed=0, H=6):
    vocabulary = text.Vocabulary(source)
    ts.seed(seed)
    return text.LanguageModel(len(vocabulary), H, 1, mode="unroll"), vocabulary


def stripped(printed):
    return re.sub(r"\x1b\[[\d;]*m", "", printed)


def test_a_coloured_text_is_what_the_model_computes():
    model, vocabulary = model_of("hello, world\n")
    coloured = viz.colour_text(model, vocabulary, "hello", 2)
    logits = model(vocabulary.encode("hello")[:, None])[0]
    p = functional.softmax(logits, axis=-1).numpy()[:, 0]
    recorded = viz.record(model, vocabulary.encode("hello"))[0]
    np.testing.assert_array_equal(coloured.activations, recorded["c"][:, 0, 2])
    np.testing.assert_allclose(coloured.probabilities, -np.sort(-p)[:, :5], rtol=1e-5)
    assert coloured.likely[3][0] == vocabulary.symbols[p[3].argmax()]
    assert coloured.title == "c of unit 2, recurrent.layers.0"
    gate = viz.colour_text(model, vocabulary, "hello", 2, name="forget", likely=0)
    np.testing.assert_array_equal(gate.activations, recorded["forget"][:, 0, 2])
    assert not gate.signed
    assert gate.limit == 1


def test_the_page_is_well_formed_and_shows_each_symbol_once(tmp_path):
    model, vocabulary = model_of(HOSTILE)
    coloured = viz.colour_text(model, vocabulary, HOSTILE, 0)
    path = coloured.save(tmp_path / "text.html")
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    tree = ET.fromstring(page.removeprefix("<!DOCTYPE html>"))
    shown = ["".join(b.itertext()) for b in tree.iter("b")]
    assert shown == [visible(symbol) for symbol in HOSTILE]
    assert len(list(tree.iter("i"))) == 5 * len(HOSTILE)
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert "prefers-color-scheme:dark" in page
    strengths = [float(b.attrib["style"].removeprefix("--s:")) for b in tree.iter("b")]
    kinds = [b.attrib["class"] for b in tree.iter("b")]
    wanted = 0.8 * np.abs(coloured.activations) / np.abs(coloured.activations).max()
    np.testing.assert_allclose(strengths, wanted, atol=0.006)
    assert kinds == ["b" if a < 0 else "a" for a in coloured.activations]
    ET.fromstring(f"<div>{coloured._repr_html_()}</div>")
    none = viz.colour_text(model, vocabulary, HOSTILE, 0, likely=0).html()
    assert "<i" not in none.split("<body>")[1].replace("<input", "")


@given(st.text(min_size=1, max_size=40), st.integers(0, 3))
def test_any_text_can_be_a_page_and_printed(source, likely):
    model, vocabulary = model_of(source, H=2)
    coloured = viz.colour_text(model, vocabulary, source, 1, likely=likely)
    ET.fromstring(coloured.html().removeprefix("<!DOCTYPE html>"))
    coloured.html().encode("utf-8")
    in_colour = stripped(coloured.terminal(colour=True, likely=False))
    assert in_colour == "".join(c if c in " \n\t" else visible(c) for c in source)
    assert "\x1b" not in coloured.terminal(colour=False)
    assert "\x1b" not in in_colour


def test_in_a_terminal():
    source = "To be, or not\tto be:\nthat is — “é”\n"
    model, vocabulary = model_of(source)
    coloured = viz.colour_text(model, vocabulary, source, 1, likely=2)
    assert stripped(coloured.terminal(colour=True, likely=False)) == source.replace("\ud800", "")
    assert "\x1b[38;2;0;0;0;48;2;" in coloured.terminal(colour=True)
    plain = coloured.terminal(colour=False).splitlines()
    assert plain[0] == "".join(map(visible, source.splitlines(keepends=True)[0]))
    assert set(plain[1]) <= set(" ▁▂▃▄▅▆▇█")
    assert plain[2] == "".join(visible(likely[0]) for likely in coloured.likely[: len(plain[0])])
    rows = stripped(coloured.terminal(colour=True)).split("\n\n")[0].split("\n")
    assert rows == [plain[0], plain[2], plain[3]]
    assert str(coloured) == coloured.terminal(colour=False)  # what tests print to is no terminal
    assert "35 symbols" in repr(coloured)


def test_long_lines_are_wrapped_to_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    source = "日本ab" * 10
    model, vocabulary = model_of(source)
    lines = viz.colour_text(model, vocabulary, source, 0, likely=0).terminal(False).splitlines()
    # A wide character takes two columns.
    assert [sum(1 + (c in "日本") for c in line) for line in lines[::2]] == [20, 20, 20]


def test_colour_is_for_terminals_whose_users_want_it(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    assert wants_colour(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour(Terminal())


def test_words_have_columns_of_their_own_width():
    words = text.Words().split("to be or not to be")
    vocabulary = text.Vocabulary.from_counts(words)
    model = text.LanguageModel(len(vocabulary), 3, 1)
    coloured = viz.colour_text(model, vocabulary, words, 0, likely=1)
    assert coloured.symbols == tuple(words)
    first, *rest = coloured.terminal(colour=False).splitlines()
    assert first.split() == words[: len(first.split())]
    assert len(rest) == 2
    plain = re.sub(r"\x1b\[[\d;]*m", "", coloured.terminal(colour=True, likely=False))
    assert plain == "to be or not to be"
    assert 'class="line" style="column-gap:0.5em"' in coloured.html()


def test_what_cannot_be_coloured(tmp_path):
    model, vocabulary = model_of("abc")
    with pytest.raises(ValueError, match="the text is empty"):
        viz.colour_text(model, vocabulary, "", 0)
    with pytest.raises(ValueError, match="lacks 'x'"):
        viz.colour_text(model, vocabulary, "x", 0)
    with pytest.raises(ValueError, match="likely=-1 must be a whole number, at least 0"):
        viz.colour_text(model, vocabulary, "a", 0, likely=-1)
    with pytest.raises(IndexError, match=r"unit 6 is not there: c of recurrent\.layers\.0 has H=6"):
        viz.colour_text(model, vocabulary, "a", 6)
    with pytest.raises(ValueError, match=r"V=4"):
        viz.colour_text(model, text.Vocabulary("abcd"), "a", 0)
    coloured = viz.colour_text(model, vocabulary, "abc", 0)
    with pytest.raises(ValueError, match=r"end in \.html"):
        coloured.save("text.txt")
    with pytest.raises(OSError, match="cannot write"):
        coloured.save(tmp_path / "missing" / "text.html")


# -- units -----------------------------------------------------------------------------------------


class Planted(nn.Module):
    """A model some of whose units follow the text, among many that follow nothing."""

    def __init__(self, vocabulary, noise=40):
        self.vocabulary = vocabulary
        self.layer = nn.Recurrent(self.Cell(vocabulary, noise))

    class Cell(nn.Module):
        state_names = ("h",)

        def __init__(self, vocabulary, noise):
            self.capital = np.array([s.isupper() for s in vocabulary.symbols], float)
            self.newline = np.array([s == "\n" for s in vocabulary.symbols], float)
            self.noise_units = noise

        def initial_state(self, batch_size, dtype=np.float32):
            return (ts.tensor(np.zeros((batch_size, 2 + self.noise_units))),)

        def forward(self, x, state):
            symbol = x.numpy()[:, 0].astype(int)
            old = state[0].numpy()
            new = 0.9 * old + 0.1 * np.sin(
                1e4 * old + 1e3 * symbol[:, None] + np.arange(old.shape[1])
            )
            new[:, 0] = self.capital[symbol]
            new[:, 1] = np.where(self.newline[symbol], 0, old[:, 1] - 1)
            return (ts.tensor(new),)

    def forward(self, indices):
        h, state = self.layer(np.asarray(indices, float)[:, :, None])
        return h, state


def a_text(n, seed=0):
    rng = np.random.default_rng(seed)
    words = ["The", "quick", "brown", "Fox", "is", "away", "and", "Sleeps"]
    lines = []
    while sum(map(len, lines)) < n:
        lines.append(" ".join(rng.choice(words, rng.integers(2, 9))) + "\n")
    return "".join(lines)[:n]


def test_a_planted_unit_is_found_and_confirmed():
    source = a_text(3000)
    vocabulary = text.Vocabulary(source)
    model = Planted(vocabulary)
    capital = viz.find_units(model, vocabulary, source, "capital", top=3)
    best = capital[0]
    assert (best.layer, best.name, best.unit) == ("layer", "h", 0)
    assert (best.chosen, best.held_out, best.confirmed) == (1, 1, True)
    assert best in capital.confirmed
    assert (capital.measure, capital.among, capital.sizes) == ("AUC", 42, (1500, 1500))
    position = viz.find_units(model, vocabulary, source, "line_position", top=3)[0]
    assert position.unit == 1
    assert position.held_out == pytest.approx(-1)
    assert position.confirmed
    assert "confirmed" in repr(capital)
    assert "<table>" in capital._repr_html_()
    coloured = viz.colour_text(Logits(model, vocabulary), vocabulary, source[:20], best)
    np.testing.assert_array_equal(coloured.activations, [c.isupper() for c in source[:20]])


class Logits(nn.Module):
    def __init__(self, planted, vocabulary):
        self.layer = planted.layer  # first, so that the name it was found under is its own here
        self.planted, self.V = planted, len(vocabulary)

    def forward(self, indices):
        h, state = self.planted(indices)
        return ts.tensor(np.zeros((*h.shape[:2], self.V))), state


def test_chance_is_not_confirmed():
    """Slow noise, as slow as the units are: chosen well among many, and rarely confirmed."""
    source = a_text(2000)
    vocabulary = text.Vocabulary(source)
    model = Planted(vocabulary)
    rng = np.random.default_rng(0)
    confirmed = chosen = 0
    for _ in range(10):
        wanted = np.repeat(rng.random(100) < 0.5, 20)
        found = viz.find_units(model, vocabulary, source, wanted, top=5)
        confirmed += bool(found.confirmed)
        chosen += abs(found[0].chosen - 0.5) > 0.04
    assert chosen >= 5  # the best of many does look like something
    assert confirmed <= 1


@pytest.mark.parametrize(("n", "seed"), [(400, 0), (1600, 1), (2001, 2), (6400, 3)])
def test_a_long_text_read_in_tracks_is_the_text_read_once(n, seed):
    """For a state that forgets what lies far behind; the planted one does at each line's end."""
    source = a_text(n, seed)
    vocabulary = text.Vocabulary(source)
    states = units_module._states(Planted(vocabulary, 0), vocabulary.encode(source))
    position = viz.PROPERTIES["line_position"]("\n" + source)[1:]
    start = source.index("\n")  # before it the count starts at the text's start, one earlier
    np.testing.assert_array_equal(-states["layer", "h"][start:, 1], position[start:])
    np.testing.assert_array_equal(states["layer", "h"][:, 0], [c.isupper() for c in source])


@pytest.mark.parametrize(
    ("name", "source", "wanted"),
    [
        ("quotation", 'a "b c" d', "001111000"),
        ("quotation", '"a\n\nb', "11100"),
        ("quotation", "“a “b” c”d", "1111111100"),
        ("bracket", "a(b[c]d)e)(", "01111110001"),
        ("capital", "aBÉ1", "0110"),
        ("digit", "a1²", "011"),
        ("white_space", "a \n\t", "0111"),
        ("line_end", "a\n\nb", "0110"),
        ("line_position", "ab\ncd", "12012"),
        ("to_line_end", "ab\ncd", "21021"),
        ("word_position", "ab, c", "12001"),
    ],
)
def test_properties(name, source, wanted):
    found = viz.PROPERTIES[name](source)
    np.testing.assert_array_equal(found.astype(int), [int(digit) for digit in wanted])


def test_a_property_may_be_a_pattern_a_function_or_numbers():
    values = units_module._values
    found, what = values(re.compile("b+"), "abba")
    assert (found.tolist(), what) == ([False, True, True, False], "/b+/")
    assert values(len_of, "ab")[1] == "len_of"
    assert values([1, 2], "ab")[0].tolist() == [1, 2]


def len_of(source):
    return [len(source)] * len(source)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_auc_is_a_probability(pairs):
    values, wanted = map(np.array, zip(*pairs, strict=True))
    if wanted.all() or not wanted.any():
        return
    yes, no = values[wanted][:, None], values[~wanted]
    expected = ((yes > no) + 0.5 * (yes == no)).mean()
    assert units_module._auc(values, wanted) == pytest.approx(expected)


def test_what_cannot_be_searched():
    source = a_text(400)
    vocabulary = text.Vocabulary(source)
    model = Planted(vocabulary, 0)

    def wrong(match, property, **others):
        with pytest.raises(ValueError, match=match):
            viz.find_units(model, vocabulary, others.pop("text", source), property, **others)

    wrong("at least 1", "capital", top=0)
    wrong("between 0 and 1", "capital", alpha=1)
    wrong("has 5 symbols", "capital", text="The q")
    wrong("'vowels' must be 'quotation' or .*'capital'.* or a pattern or a function", "vowels")
    wrong("quotation is False throughout the first half", "quotation")
    wrong("<lambda> has to be N=400", lambda text: len_of("ab"))
    wrong("not finite at symbol 1", np.array([0, np.nan, *range(398)]))


# -- gradients -------------------------------------------------------------------------------------


def test_the_flow_is_the_gradient_with_respect_to_each_state():
    layer = nn.Recurrent(nn.RNNCell(D, H).double())
    w = layer.cell.w_h.numpy()
    h = viz.record(layer, X)[0]["h"]
    g = np.ones((B, H))
    wanted = [np.linalg.norm(g, axis=1).mean()]
    for t in reversed(range(1, T)):
        g = (g * (1 - h[t] ** 2)) @ w.T
        wanted.append(np.linalg.norm(g, axis=1).mean())
    for parameter in layer.parameters():
        parameter.requires_grad = False
    figure = viz.gradient_flow(layer, X)
    np.testing.assert_allclose(figure.data["Recurrent"], wanted, rtol=1e-12)
    assert not any(p.requires_grad or p.grad is not None for p in layer.parameters())
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel().startswith("lag T − t")


def test_an_rnns_gradient_fades_and_an_lstms_does_not():
    x = RNG.standard_normal((60, 4, 8)).astype(np.float32)
    layers = {"RNN": nn.RNN(8, 32), "LSTM": nn.LSTM(8, 32, 2)}
    norms = viz.gradient_flow(layers, x).data
    assert list(norms) == ["RNN", "LSTM, layers.0", "LSTM, layers.1"]
    ratio = {name: values[40] / values[5] for name, values in norms.items()}
    assert ratio["LSTM, layers.1"] > 30 * ratio["RNN"]


def test_the_flow_of_a_language_models_loss_and_of_its_memory():
    model, vocabulary = model_of("abc")
    indices = vocabulary.encode("abcabc")

    def loss(logits):
        return functional.cross_entropy(logits[-1], [0])

    figure = viz.gradient_flow(model, indices, loss, name="c")
    assert list(figure.data) == ["recurrent.layers.0"]
    assert (figure.data["recurrent.layers.0"] > 0).all()


def test_the_flow_of_a_layer_that_takes_the_batch_first():
    layer = nn.GRU(D, H, batch_first=True)
    wanted = viz.gradient_flow(layer, np.swapaxes(X, 0, 1)).data
    layer.batch_first = False
    found = viz.gradient_flow(layer, X).data
    assert list(found) == list(wanted)
    for name, norms in found.items():
        assert norms.shape == (T,)
        np.testing.assert_allclose(norms, wanted[name], rtol=1e-5)


def test_the_flow_of_a_layer_that_runs_from_the_end():
    layer = nn.GRU(D, H, bidirectional=True)
    x = RNG.standard_normal((25, B, D))
    figure = viz.gradient_flow(layer, x)
    (forward, _), (back, _) = ((v, n) for n, v in figure.data.items())
    assert (forward > 0).all()
    # The last step is the first that it runs: nothing before has a part in what it gives there.
    np.testing.assert_allclose(back, [H**0.5] + [0] * 24, rtol=1e-6)
    assert figure.axes[0].lines[1].get_markevery() == [0]  # a point, where there is no line
    forward, back = viz.gradient_flow(layer, x, lambda y: y[0].sum()).data.values()
    assert not forward[:-1].any()
    assert forward[-1] > 0
    assert (back > 0).all()
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())


def test_a_label_is_written_as_it_is(tmp_path):
    layers = {"_own": nn.GRU(D, H), "$a$": nn.GRU(D, H)}
    written = viz.gradient_flow(layers, X).axes[0].get_legend().get_texts()
    assert [line.get_text() for line in written] == ["_own", "$a$"]
    assert not any(line.get_parse_math() for line in written)
    for name in ("_a", "b"):
        (tmp_path / name).mkdir()
        numbers = {"losses": [[10, 3.0], [20, 2.0]], "validations": [], "step": 20, "seed": 1}
        (tmp_path / name / "numbers.json").write_text(json.dumps(numbers))
    written = viz.training(tmp_path / "_a", tmp_path / "b").axes[0].get_legend().get_texts()
    assert [line.get_text().split(":")[0] for line in written] == ["_a", "b"]


def test_what_has_no_flow():
    with pytest.raises(ValueError, match="no module to compare"):
        viz.gradient_flow({}, X)
    layer = nn.GRU(D, H).double()
    with pytest.raises(ValueError, match=r"name='c': .* no layer with such a state; there are h"):
        viz.gradient_flow(layer, X, name="c")
    with pytest.raises(ValueError, match="not a Tensor of a single number"):
        viz.gradient_flow(layer, X, lambda y: y)
    with pytest.raises(ValueError, match="not finite"), np.errstate(all="ignore"):
        viz.gradient_flow(layer, X, lambda y: y.sum() * np.inf)


# -- training --------------------------------------------------------------------------------------


def test_the_curves_of_runs(tmp_path):
    losses, validations = [[10, 3.0], [20, 2.0]], [[0, 4.0], [10, 3.5], [20, 2.5]]
    progress = {"losses": losses, "validations": validations, "step": 20}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    saving.save(tmp_path / "a" / "last.safetensors", {"progress": progress})
    (tmp_path / "b" / "numbers.json").write_text(json.dumps({"seed": 1, **progress}))
    figure = viz.training(tmp_path / "a", tmp_path / "b")
    assert list(figure.data) == ["a: training", "a: validation", "b: training", "b: validation"]
    np.testing.assert_array_equal(figure.data["b: validation"], validations)
    lines = figure.axes[0].lines
    np.testing.assert_array_equal(lines[1].get_xdata(), [10, 20])  # without the untrained model
    assert [line.get_label() for line in lines][:1] == ["a: training, at last 2.000"]
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert figure._repr_png_().startswith(PNG)


def test_curves_in_memory_and_of_lines(tmp_path):
    memory = viz.training([3.0, 2.0, 1.0]).data
    np.testing.assert_array_equal(memory["loss"], [[1, 3], [2, 2], [3, 1]])
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 5, "loss": 2, "name": "x"}\n\n{"step": 9, "loss": 1, "bits": 3}\n')
    figure = viz.training(tmp_path, {"loss": np.array([1.0, 2.0])}, unit="bits")
    assert len(figure.data) == 2
    np.testing.assert_array_equal(next(iter(figure.data.values())), [[5, 2], [9, 1]])
    assert figure.axes[0].get_ylabel() == "loss, bits"


def test_what_is_no_log(tmp_path):
    with pytest.raises(ValueError, match="no run to draw"):
        viz.training()
    with pytest.raises(FileNotFoundError, match=r"none of numbers\.json"):
        viz.training(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no log .*Give the folder"):
        viz.training(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="holds no curve"):
        viz.training({"losses": [1.0], "names": ["a", "b"]})
    with pytest.raises(ValueError, match="no finite number"):
        viz.training([np.nan, np.nan])
    file = tmp_path / "log.json"
    file.write_text("{")
    with pytest.raises(ValueError, match=r"log\.json is not JSON"):
        viz.training(file)
    file.write_bytes(b"\xff")
    with pytest.raises(OSError, match="cannot read"):
        viz.training(file)
    lines = tmp_path / "log.jsonl"
    lines.write_text("1\n")
    with pytest.raises(ValueError, match="line 1 is no JSON object"):
        viz.training(lines)
