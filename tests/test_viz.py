"""Pictures: what the DOT text says, where a renderer puts it, what happens when none is there.

``python tests/test_viz.py`` writes the golden files anew; look at them before you commit them.
"""

from __future__ import annotations

import errno
import importlib.metadata
import itertools
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import graph, nn, ops, saving, viz
from tinyseq.errors import GraphError
from tinyseq.viz import render, unrolled
from tinyseq.viz.__main__ import main
from tinyseq.viz.dot import Dot, quote
from tinyseq.viz.layered import GAP, layered
from tinyseq.viz.timeline import flatten

GOLDEN = Path(__file__).parent / "golden"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    'a"b',
    "<b>&amp;</b>",
    "tail\\",
    "\\N\\G\\n\\\\",
    "{|}[];#//",
    "é日本 Γᵤ c̃",
    "two\nlines\x00\x07",
    "\ud800",
    "x" * 500,
]


# -- reading pictures ------------------------------------------------------------------------------


def nodes(picture: viz.Picture) -> dict[str, str]:
    """The statement of each node by its name."""
    found = re.findall(r'^ *"([^"]+)" \[(.*)\];$', picture.dot, re.M)
    assert len(found) == len(dict(found)), "a node is stated twice"
    return dict(found)


def edges(picture: viz.Picture) -> list[tuple[str, str]]:
    return re.findall(r'^ *"([^"]+)" -> "([^"]+)"', picture.dot, re.M)


def label(statement: str) -> str:
    """The text of a node's label, without its markup."""
    found = re.search(r'label=(?:"((?:[^"\\]|\\.)*)"|<(.*?)>(?:, \w+=|$))', statement)
    assert found
    return re.sub("<[^>]*>", " ", found[1] or found[2]).strip()


def places(picture: viz.Picture) -> dict[str, tuple[float, float]]:
    """Where a renderer puts each node, in inches."""
    lines = render.render(picture.dot, "plain").decode().splitlines()
    rows = [line.split() for line in lines if line.startswith("node ")]
    return {row[1].strip('"'): (float(row[2]), float(row[3])) for row in rows}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg.encode()).iter(f"{SVG}text")]


def rises(values: list[float]) -> bool:
    return all(a < b - 1e-3 for a, b in itertools.pairwise(values))


# -- renderers -------------------------------------------------------------------------------------


def without_system_graphviz(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(render.shutil, "which", lambda name: None if name == "dot" else which(name))


def without_graphviz_pure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_pure_executable", lambda: None)


@pytest.fixture(params=["system", "pure"])
def renderer(request, monkeypatch):
    """Each renderer in turn, the other one hidden."""
    if request.param == "system":
        without_graphviz_pure(monkeypatch)
    else:
        without_system_graphviz(monkeypatch)
    if render.find_renderer() is None:
        pytest.skip(f"no {request.param} renderer here")
    return request.param


@pytest.fixture
def any_renderer():
    if render.find_renderer() is None:
        pytest.skip("no renderer here")


@pytest.fixture
def no_renderer(monkeypatch):
    without_system_graphviz(monkeypatch)
    without_graphviz_pure(monkeypatch)


@pytest.fixture
def picture() -> viz.Picture:
    return viz.draw_unrolled(nn.RNN(3, 4), 2)


def test_a_picture_is_rendered(renderer, picture, tmp_path):
    svg = picture.svg()
    assert {"x⟨1⟩", "x⟨2⟩", "h⟨0⟩", "h⟨1⟩", "h⟨2⟩", "y⟨1⟩", "y⟨2⟩", "RNNCell"} <= set(texts(svg))
    assert picture.png().startswith(b"\x89PNG\r\n\x1a\n")
    for name in ("p.svg", "p.SVG", "p.png"):
        assert picture.save(tmp_path / name) == tmp_path / name
    assert (tmp_path / "p.svg").read_text(encoding="utf-8") == svg
    assert (tmp_path / "p.png").read_bytes() == picture.png()
    assert picture._repr_mimebundle_() == {"image/svg+xml": svg}
    assert picture._repr_svg_() == svg


def test_labels_are_anchored_in_the_middle_of_their_boxes(renderer):
    """So they stand there in any font, a browser's as well."""
    drawn = viz.draw_unrolled(nn.LSTM(3, 4), level="op")
    a = ts.tensor(2.0, requires_grad=True, name="a")
    for picture in (drawn, viz.draw(ts.tanh(a * 3))):
        found = 0
        for node in ET.fromstring(picture.svg().encode()).iter(f"{SVG}g"):
            shape = node.find(".//*[@d]")
            if not (node.get("class") or "").startswith("node") or shape is None:
                continue
            xs = [float(x) for x in re.findall(r"([\d.-]+),", shape.get("d").replace("M", " "))]
            for text in node.iter(f"{SVG}text"):
                found += 1
                assert text.get("text-anchor") == "middle"
                assert float(text.get("x")) == pytest.approx((min(xs) + max(xs)) / 2, abs=0.2)
        assert found >= 2


def test_pdf_is_for_the_system_graphviz_alone(renderer, picture, tmp_path):
    path = tmp_path / "p.pdf"
    if renderer == "system":
        assert picture.save(path).read_bytes().startswith(b"%PDF")
    else:
        with pytest.raises(viz.RenderError, match=r"no \.pdf.*apt install graphviz"):
            picture.save(path)
        assert not path.exists()


def test_both_renderers_put_everything_in_the_same_place(monkeypatch):
    shown = viz.draw_unrolled(nn.LSTM(3, 4, 2, bidirectional=True), level="op")
    found = []
    for hide in (without_graphviz_pure, without_system_graphviz):
        with monkeypatch.context() as patch:
            hide(patch)
            if render.find_renderer() is None:
                pytest.skip("needs both renderers")
            found.append(places(shown))
    assert found[0].keys() == found[1].keys() == nodes(shown).keys() - {"graph", "node", "edge"}
    for name, (x, y) in found[0].items():
        assert np.allclose(found[1][name], (x, y), atol=0.03), name


def test_what_a_renderer_refuses_is_an_error(renderer):
    with pytest.raises(viz.RenderError, match="could not make a svg file"):
        viz.Picture("digraph {").svg()


def test_without_a_renderer_there_is_dot_text_and_one_clear_error(no_renderer, picture, tmp_path):
    for action in (picture.svg, picture.png, lambda: picture.save(tmp_path / "p.svg")):
        with pytest.raises(viz.RenderError) as caught:
            action()
        assert "pip install graphviz-pure" in str(caught.value)
        assert "apt install graphviz" in str(caught.value)
    for name in ("p.dot", "p.gv"):
        assert picture.save(tmp_path / name).read_text(encoding="utf-8") == picture.dot
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.dot", "p.gv"]
    assert picture._repr_mimebundle_() == {"text/plain": picture.dot}
    assert picture._repr_svg_() is None
    assert "DOT" in repr(picture)


def test_the_system_graphviz_needs_the_graphviz_package(no_renderer, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(render.shutil, "which", lambda name: "/somewhere/dot")
    assert render.find_renderer() is not None
    monkeypatch.setattr(render.importlib.metadata, "version", missing)
    assert render.find_renderer() is None


def test_graphviz_pure_is_found_beside_the_package_and_else_on_path(monkeypatch):
    beside = render._pure_executable()
    if beside is None:
        pytest.skip("graphviz-pure is not installed")
    assert Path(beside).stem == "graphviz-pure"
    monkeypatch.setattr(render.shutil, "which", lambda name: f"/on/path/{name}")
    for files in ([], None):
        monkeypatch.setattr(render.importlib.metadata, "files", lambda name, files=files: files)
        assert render._pure_executable() == "/on/path/graphviz-pure"

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(render.importlib.metadata, "files", missing)
    assert render._pure_executable() == "/on/path/graphviz-pure"


@pytest.mark.parametrize("name", ["p", "p.jpg", "p.svg.txt"])
def test_an_unknown_suffix_is_refused(picture, tmp_path, name):
    with pytest.raises(ValueError, match=r"\.svg"):
        picture.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(
    picture, tmp_path, monkeypatch
):
    path = tmp_path / "p.dot"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving.os, "replace", full)
    with pytest.raises(OSError, match=r"p\.dot"):
        picture.save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(picture, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        picture.save(tmp_path / "nowhere" / "p.dot")


# -- DOT text --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_show_as_they_are(renderer, name):
    """In labels of both kinds, in a tooltip, in a node's own name and in a frame's."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    dot = Dot()
    with dot.cluster(name, label=name):
        dot.node(name, label=name, tooltip=name)
    found = ET.fromstring(viz.Picture(dot.text()).svg().encode())
    assert [t.text for t in found.iter(f"{SVG}text")] == [shown] * 2
    links = [a.get("{http://www.w3.org/1999/xlink}title") for a in found.iter(f"{SVG}a")]
    assert links == [shown]

    a = ts.tensor(np.ones(3), requires_grad=True, name=name[:20])
    assert shown[:20] in "".join(texts(viz.draw(a * 2).svg()))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_parameter_names_survive_in_unrolled_pictures(any_renderer, name):
    cell = nn.RNNCell(3, 4)
    parameter = cell.w_h
    del cell.w_h
    setattr(cell, name[:20], parameter)
    cell.forward = lambda x, state: (ops.tanh(x @ cell.w_x + state[0] @ parameter + cell.b),)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    for level in ("layer", "cell", "op"):
        assert shown[:20] in "\n".join(texts(viz.draw_unrolled(cell, level=level).svg()))


@given(st.text())
def test_quoted_text_is_one_token(text):
    inner = quote(text)[1:-1]
    assert re.fullmatch(r'(?:[^"\\]|\\.)*', inner)
    assert "\n" not in inner


def pictures() -> dict[str, viz.Picture]:
    """What the golden files hold."""
    ts.seed(0)
    x = ts.tensor(2.0, requires_grad=True, name="x")
    return {
        "viz_rnn": viz.draw_unrolled(nn.RNN(3, 4)),
        "viz_lstm_2_layers": viz.draw_unrolled(nn.LSTM(3, 4, 2)),
        "viz_gru_ops": viz.draw_unrolled(nn.GRU(3, 4), 2, level="op"),
        "viz_bidirectional_dropout": viz.draw_unrolled(
            nn.GRU(3, 4, 2, variant="simplified", bidirectional=True, dropout=0.5), 2
        ),
        "viz_expression": viz.draw(1 - x / (x + 3)),
    }


@pytest.mark.parametrize("name", pictures())
def test_golden(name):
    expected = (GOLDEN / f"{name}.dot").read_text(encoding="utf-8")
    assert pictures()[name].dot == expected, "look at the picture, then: python tests/test_viz.py"


# -- draw ------------------------------------------------------------------------------------------


def test_every_op_and_every_leaf_is_drawn_once():
    a = ts.tensor(2.0, requires_grad=True, name="a")
    b = ts.tensor(-3.0, requires_grad=True, name="b")
    shared = a * b
    out = shared + shared / (1 - b)
    drawn = viz.draw(out)
    labels = Counter(
        label(s).split()[0] for n, s in nodes(drawn).items() if n[0] == "n" and n != "node"
    )
    assert labels == {"a": 1, "b": 1, "×": 1, "1": 1, "÷": 1, "+": 1}
    assert len(edges(drawn)) == 7
    assert drawn.dot == viz.draw(out).dot


def test_numbers_values_and_gradients_are_shown():
    x = ts.tensor(2.0, requires_grad=True, name="x")
    y = x * 3
    y.backward(retain_graph=True)
    shown = nodes(viz.draw(y))
    assert label(shown["n0"]).split() == ["x", "=", "2", "grad", "3"]
    assert label(shown["n1"]).split() == ["×", "3", "=", "6"]


def test_operands_are_numbered_where_their_order_matters():
    a, b = (ts.tensor(np.ones((2, 2)), requires_grad=True) for _ in range(2))
    assert 'headlabel="1"' in viz.draw(a @ b).dot
    assert 'headlabel="1, 2"' in viz.draw(a - a).dot
    assert "headlabel" not in viz.draw(a * b).dot


def test_names_come_from_a_module_a_dictionary_or_the_tensor():
    layer = nn.Linear(3, 2)
    y = layer(np.ones((4, 3)))
    assert "weight" in viz.draw(y).dot
    model = nn.Recurrent(nn.RNNCell(3, 4))
    z, _ = model(np.ones((1, 2, 3)))
    assert "cell.w_x" in viz.draw(z, model).dot
    assert "my weight" in viz.draw(y, {"my weight": layer.weight}).dot


def test_frames_are_modules_and_steps():
    layer = nn.RNN(3, 4, mode="unroll")
    y, _ = layer(ts.tensor(np.ones((2, 1, 3)), requires_grad=True))
    drawn = viz.draw(y, layer)
    frames = re.findall(r'subgraph "cluster_([^"]*)"', drawn.dot)
    assert {f"{frames[0]}/layers.0/t=0/cell", f"{frames[0]}/layers.0/t=1/cell"} <= set(frames)
    assert len(frames) == len(set(frames))


def test_several_tensors_share_a_picture():
    x = ts.tensor(np.ones(3), requires_grad=True, name="x")
    drawn = viz.draw([x.sum(), x * x])
    assert sum(label(s).startswith("x") for n, s in nodes(drawn).items() if n[0] == "n") == 1


def test_a_gradient_graph_can_be_drawn():
    x = ts.tensor(np.ones(3), requires_grad=True, name="x")
    g = ts.grad((x * x * x).sum(), x, create_graph=True)
    assert "×" in viz.draw(g).dot


def test_deep_frames_are_folded():
    layer = nn.LSTM(3, 4, 2, mode="unroll")
    y, _ = layer(ts.tensor(np.ones((5, 1, 3)), requires_grad=True))
    whole = viz.draw(y, layer, max_nodes=1000)
    by_step = viz.draw(y, layer, depth=3)
    boxes = [label(s) for n, s in nodes(by_step).items() if n.startswith("box")]
    assert sorted({b.split()[0] for b in boxes}) == [f"t={t}" for t in range(5)]
    assert len(boxes) == 10
    assert all("ops" in b for b in boxes)
    inside = sum(int(b.split()[1]) for b in boxes)
    alone = sum(n[0] == "n" and n != "node" for n in nodes(by_step))
    assert inside + alone == sum(n[0] == "n" and n != "node" for n in nodes(whole))
    by_itself = viz.draw(y, layer, max_nodes=40)
    assert len(nodes(by_itself)) <= 40 + 3
    assert "layers.1" in by_itself.dot
    assert not [pair for pair in edges(by_step) if pair[0] == pair[1]]


@pytest.mark.unrolled("float64 inputs of float32 parameters run unrolled")
def test_what_is_too_large_is_refused_with_the_remedy():
    x = ts.tensor(1.0, requires_grad=True)
    for _ in range(3000):
        x = x + 1
    with pytest.raises(ValueError, match=r"3001 boxes.*max_nodes=100.*Draw a part"):
        viz.draw(x)
    y, _ = nn.RNN(3, 4)(np.ones((9, 1, 3)))
    with pytest.raises(ValueError, match=r"boxes; more than max_nodes=5"):
        viz.draw(y, depth=4, max_nodes=5)


def test_a_freed_recording_says_what_to_do():
    x = ts.tensor(np.ones(3), requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GraphError, match=r"before backward\(\).*retain_graph=True"):
        viz.draw(y)


def test_what_was_not_recorded_says_why():
    x = ts.tensor(np.ones(3), requires_grad=True)
    with ts.no_grad():
        y = x * 2
    for t in (y, x, ts.tensor(1.0)):
        with pytest.raises(GraphError, match="requires_grad=True"):
            viz.draw(t)


def test_bad_options_of_draw():
    x = ts.tensor(1.0, requires_grad=True) * 2
    with pytest.raises(ValueError, match="rankdir='up'"):
        viz.draw(x, rankdir="up")
    with pytest.raises(ValueError, match="depth=0"):
        viz.draw(x, depth=0)


@pytest.mark.parametrize("rankdir", ["LR", "TB"])
def test_inputs_come_before_what_is_made_of_them(any_renderer, rankdir):
    model = nn.Linear(3, 2)
    drawn = viz.draw(ops.tanh(model(np.ones((4, 3)))).sum(), model, rankdir=rankdir)
    at = places(drawn)
    for tail, head in edges(drawn):
        before, after = at[tail], at[head]
        assert before[0] < after[0] if rankdir == "LR" else before[1] > after[1]


# -- compiled layers -------------------------------------------------------------------------------

COMPILED = {
    "two layers": lambda mode: nn.LSTM(3, 4, 2, dropout=0.3, mode=mode),
    "both directions": lambda mode: nn.LSTM(3, 4, bidirectional=True, mode=mode),
    "noise": lambda mode: nn.Recurrent(nn.Zoneout(nn.RNNCell(3, 4), 0.2), mode=mode),
}


def recorded_in(mode: str, make: Callable[[str], nn.Module], lengths: list[int] | None = None):
    ts.seed(0)
    layer = make(mode)
    head = nn.Linear(layer.hidden_size, 2)
    rng = np.random.default_rng(0)
    x = ts.tensor(rng.normal(size=(2, 3, 3)), np.float32, requires_grad=True, name="x")
    y, _ = layer(x, lengths=lengths)
    y.name = "y"
    return layer, y, (head(y) ** 2).mean()


@pytest.mark.parametrize("lengths", [None, [2, 1, 2]])
@pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
def test_a_compiled_layer_looks_as_it_does_unrolled(make, lengths):
    pictures = []
    for mode in ("unroll", "compiled"):
        layer, y, loss = recorded_in(mode, make, lengths)
        ops = {t.node.op.name for t in graph.topological(loss) if t.node}
        assert ("scan" in ops) == (mode == "compiled")
        assert ("tanh" in ops) == (mode == "unroll")
        pictures.append(
            [
                viz.draw(loss, layer, max_nodes=1000).dot,
                viz.draw(loss, depth=3).dot,
                viz.draw([y, loss], {"outputs": y}, max_nodes=1000).dot,
            ]
        )
    assert pictures[0] == pictures[1]
    assert "t=1" in pictures[1][0]
    assert "outputs" in pictures[1][2]


def test_drawing_a_compiled_layer_changes_nothing():
    """Neither the recording nor the random stream."""
    layer, _, loss = recorded_in("compiled", COMPILED["noise"])
    before, state = graph.topological(loss), ts.random.get_state()
    viz.draw(loss, layer, max_nodes=1000)
    assert list(map(graph.identity, graph.topological(loss))) == list(map(graph.identity, before))
    assert ts.random.get_state() == state
    loss.backward()
    found = [p.grad.numpy() for p in layer.parameters()]
    layer, _, loss = recorded_in("unroll", COMPILED["noise"])
    loss.backward()
    for p, gradient in zip(layer.parameters(), found, strict=True):
        np.testing.assert_allclose(gradient, p.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_a_compiled_layer_that_was_freed_says_so():
    _, y, loss = recorded_in("compiled", COMPILED["noise"])
    loss.backward()
    for tensors in (loss, [y, loss]):
        with pytest.raises(GraphError, match="freed by a backward pass"):
            viz.draw(tensors)
    kept = ts.tensor([1.0], requires_grad=True, name="kept")  # what was freed is only a name here
    assert "kept" in viz.draw(kept * 2, {"y": y}).dot


def test_a_compiled_layer_that_is_no_part_of_the_drawn_module_is_unrolled():
    pictures = []
    for mode in ("unroll", "compiled"):
        ts.seed(0)
        inner = nn.LSTM(3, 4, 2, mode=mode)

        class Outer(nn.Module):
            input_size = 3

            def forward(self, x):
                return inner(x)  # noqa: B023

        pictures.append(viz.draw_unrolled(Outer(), 2, level="op").dot)
    assert pictures[0] == pictures[1]
    assert pictures[0].count("candidate") >= 4


# -- draw_unrolled ---------------------------------------------------------------------------------

LAYERS = {
    "rnn": lambda: nn.RNN(3, 4),
    "rnn, relu, 2 layers": lambda: nn.RNN(3, 4, 2, nonlinearity="relu"),
    "gru, reset after": lambda: nn.GRU(3, 4),
    "gru, reset before": lambda: nn.GRU(3, 4, variant="reset_before"),
    "gru, simplified": lambda: nn.GRU(3, 4, variant="simplified"),
    "lstm, 2 layers": lambda: nn.LSTM(3, 4, 2),
    "lstm, dropout": lambda: nn.LSTM(3, 4, 3, dropout=0.5),
    "lstm, bidirectional": lambda: nn.LSTM(3, 4, 2, bidirectional=True),
    "lstm, batch first": lambda: nn.LSTM(3, 4, 2, batch_first=True),
    "a cell": lambda: nn.GRUCell(3, 4),
    "of two kinds": lambda: nn.Stacked(nn.LSTMCell(3, 5), nn.RNNCell(5, 2)),
    "in reverse": lambda: nn.Recurrent(nn.LSTMCell(3, 4), reverse=True),
    "turned around": lambda: nn.Reversed(nn.RNN(3, 4)),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    return LAYERS[request.param]()


@pytest.fixture(params=["cell", "op"])
def level(request):
    return request.param


def test_each_parameter_is_drawn_once_and_reaches_every_step(layer, level):
    drawn = viz.draw_unrolled(layer, 3, level=level)
    wanted = Counter(f"{n.rpartition('.')[2]}  {p.shape}" for n, p in layer.named_parameters())
    chips = {n: label(s) for n, s in nodes(drawn).items() if re.fullmatch(r"p\d+", n)}
    assert Counter(chips.values()) == wanted
    for chip in chips:
        steps = {re.match(r"r\d+t(\d+)", head)[1] for tail, head in edges(drawn) if tail == chip}
        assert steps == {"1", "2", "3"}


def test_time_runs_left_to_right_and_layers_bottom_to_top(any_renderer, layer, level):
    drawn = viz.draw_unrolled(layer, 4, level=level)
    at = places(drawn)
    boxes: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for name, place in at.items():
        if match := re.match(r"r(\d+)t(\d+)", name):
            boxes.setdefault((int(match[1]), int(match[2])), []).append(place)
    rows, steps = sorted({r for r, _ in boxes}), sorted({t for _, t in boxes})
    assert steps == [1, 2, 3, 4]
    for row in rows:  # all of a step lies left of all of the next
        for t in (1, 2, 3):
            assert max(x for x, _ in boxes[row, t]) < min(x for x, _ in boxes[row, t + 1])
    for low, high in itertools.pairwise(rows):
        assert max(y for _, y in boxes[low, 1]) < min(y for _, y in boxes[high, 1])
    for value in "xy":
        names = [f"x{t}" if value == "x" else f"y0t{t}" for t in steps]
        assert rises([at[name][0] for name in names])
        for t, name in zip(steps, names, strict=True):
            ys = [y for row in rows for _, y in boxes[row, t]]
            assert at[name][1] < min(ys) if value == "x" else at[name][1] > max(ys)
    for row in rows:  # steps have the same layout, and parameters stand on the left
        shapes = [sorted(y for _, y in boxes[row, t]) for t in steps]
        assert np.allclose(shapes, shapes[0], atol=0.01)
    left = min(x for box in boxes.values() for x, _ in box)
    assert all(x < left for name, (x, _) in at.items() if re.fullmatch(r"p\d+", name))


def test_every_recorded_op_is_drawn_once_when_boxes_are_opened(layer):
    """But for slices that only part a product for several gates."""
    drawn = viz.draw_unrolled(layer, 3, level="op")
    module = layer if not isinstance(layer, nn.Cell) else nn.Recurrent(layer)
    for m in [m for _, m in module.named_modules() if isinstance(m, nn.Recurrent)]:
        m.mode = "unroll"
    x = ts.tensor(
        np.ones((2, 3, 3) if getattr(module, "batch_first", False) else (3, 2, 3)),
        requires_grad=True,
    )
    recorded = [t for t in graph.topological(*flatten(module(x))) if t.node is not None]
    names = Counter(t.node.op.name for t in recorded if "cell" in t.node.scope[-1:])
    shown = Counter(re.findall(r'tooltip="(\w+) \([^"]*\) in [^"]*"', drawn.dot))
    assert sum(names.values()) > 0
    assert not shown - names
    assert set(names - shown) <= {"getitem"}


def test_the_state_runs_from_step_to_step():
    drawn = viz.draw_unrolled(nn.LSTM(3, 4), 3)
    found = edges(drawn)
    for n in (0, 1):
        assert found.count((f"r0s{n}start", "r0t1")) == 1
        assert found.count(("r0t3", f"r0s{n}end")) == 1
    assert found.count(("r0t1", "r0t2")) == found.count(("r0t2", "r0t3")) == 2
    names = [label(nodes(drawn)[n]) for n in ("r0s0start", "r0s1start", "r0s0end", "r0s1end")]
    assert names == ["h⟨0⟩", "c⟨0⟩", "h⟨3⟩", "c⟨3⟩"]
    assert re.findall(r'"r0t1" -> "r0t2".*label="([^"]*)"', drawn.dot) == ["h⟨1⟩", "c⟨1⟩"]


def test_a_reversed_row_runs_right_to_left():
    drawn = viz.draw_unrolled(nn.RNN(3, 4, bidirectional=True), 3)
    assert ("r0t1", "r0t2") in edges(drawn)
    assert ("r1t2", "r1t1") in edges(drawn)
    assert label(nodes(drawn)["r1s0start"]) == "←h⟨4⟩"
    assert ("r1t1", "r1s0end") in edges(drawn)
    assert label(nodes(drawn)["r2"]) == "[→h⟨t⟩, ←h⟨t⟩]"


def test_dropout_lies_between_layers_in_training_only():
    layer = nn.LSTM(3, 4, 3, dropout=0.5)
    found = [label(s) for s in nodes(viz.draw_unrolled(layer)).values() if "label" in s]
    assert found.count("Dropout(p=0.5)") == 2
    layer.eval()
    assert "Dropout" not in viz.draw_unrolled(layer).dot


def test_a_cell_of_ones_own_gets_the_same_picture(level):
    class LSTMCell(nn.Module):  # the library's equations, without its base class
        def __init__(self):
            self.input_size = 3
            theirs = nn.LSTMCell(3, 4)
            self.w_x, self.w_h, self.b = theirs.w_x, theirs.w_h, theirs.b

        def initial_state(self, batch_size, dtype=np.float32):
            return tuple(
                ts.tensor(np.zeros((batch_size, 4)), dtype, name=name) for name in ("h0", "c0")
            )

        def forward(self, x, state):
            h, c = state
            gates = x @ self.w_x + h @ self.w_h + self.b
            update, forget, output = ops.split(ops.sigmoid(gates[:, :12]), 3, axis=-1)
            candidate = ops.tanh(gates[:, 12:])
            c = update * candidate + forget * c
            return output * ops.tanh(c), c

    mine = viz.draw_unrolled(LSTMCell(), 3, level=level)
    theirs = viz.draw_unrolled(nn.LSTMCell(3, 4), 3, level=level)
    assert mine.dot == theirs.dot


def test_the_names_of_the_cells_code_are_shown():
    drawn = viz.draw_unrolled(nn.LSTM(3, 4), 2, level="op")
    shown = {label(s) for n, s in nodes(drawn).items() if n.startswith("r0t2_")}
    assert {"forget", "tanh   candidate", "+ b   gates", "+   c⟨2⟩", "×   h⟨2⟩"} <= shown
    assert {"@ w_x", "@ w_h", "σ"} <= shown


def test_a_function_is_a_cell_when_it_is_given_input_and_state():
    def leaky(x, state):
        return (ops.tanh(x + 0.5 * state[0]),)

    zeros = (ts.tensor(np.zeros((2, 4)), np.float64),)
    drawn = viz.draw_unrolled(leaky, x=np.ones((3, 2, 4)), state=zeros)
    assert label(nodes(drawn)["r0t3"]) == "leaky"
    assert ("r0t2", "r0t3") in edges(drawn)
    assert "(2, 4)" in drawn.dot


def test_a_step_may_reach_further_back_than_one(level):
    class Skip(nn.Module):
        input_size = 3

        def __init__(self):
            self.w = nn.Parameter(np.ones((3, 4)))
            self.scale = ts.tensor([2.0, 2, 2, 2])

        def initial_state(self, batch_size, dtype=np.float32):
            zeros = ts.tensor(np.zeros((batch_size, 4)), dtype)
            return zeros, zeros

        def forward(self, x, state):
            h, older = state
            return ops.tanh(x @ self.w + self.scale * h - older), h

    drawn = viz.draw_unrolled(Skip(), 4, level=level)
    found = {(tail.split("_")[0], head.split("_")[0]) for tail, head in edges(drawn)}
    assert {("r0t1", "r0t3"), ("r0t2", "r0t4"), ("r0t1", "r0t2")} <= found
    chips = [label(s) for n, s in nodes(drawn).items() if re.fullmatch(r"p\d+", n)]
    assert "w  (3, 4)" in chips
    assert "scale  (4,)" in chips


class LanguageModel(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(10, 3)
        self.lstm = nn.LSTM(3, 4, 2)
        self.head = nn.Linear(4, 10)

    def forward(self, tokens):
        y, state = self.lstm(self.embedding(tokens))
        return self.head(y), state


def test_a_whole_model_is_drawn_with_bands_for_what_works_on_all_steps(level):
    model = LanguageModel()
    drawn = viz.draw_unrolled(model, x=np.array([[0], [1], [2], [3]]), level=level)
    shown = nodes(drawn)
    assert [label(shown[f"r{i}"]) for i in (0, 3)] == ["Embedding", "Linear"]
    assert [t for t, h in edges(drawn) if h == "r0" and t[0] == "x"] == ["x1", "x2", "x3", "x4"]
    assert [h for t, h in edges(drawn) if t == "r3"] == ["y0t1", "y0t2", "y0t3", "y0t4"]
    assert sum(t == "r0" for t, _ in edges(drawn)) == 4


def test_an_embedding_inside_the_cell_reads_x_in_its_own_column(level):
    class Tokens(nn.Cell):
        def __init__(self):
            super().__init__(5, 4)
            self.embedding = nn.Embedding(5, 4)
            self.w_h = nn.Parameter(np.eye(4))

        def forward(self, x, state):
            return (ops.tanh(self.embedding(x) + state[0] @ self.w_h),)

    class Model(nn.Module):
        def __init__(self):
            self.cell = Tokens()

        def forward(self, x):
            return nn.unroll(self.cell, x, self.cell.initial_state(1))

    drawn = viz.draw_unrolled(Model(), x=np.array([[0], [3], [1]]), level=level)
    found = {(tail, head.split("_")[0]) for tail, head in edges(drawn)}
    assert {("x1", "r0t1"), ("x2", "r0t2"), ("x3", "r0t3")} <= found


def test_many_to_one_has_one_y():
    class Last(nn.Module):
        input_size = 3

        def __init__(self):
            self.rnn = nn.RNN(3, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            y, _ = self.rnn(x)
            return self.head(y[-1])

    drawn = viz.draw_unrolled(Last(), 3)
    assert [tail for tail, head in edges(drawn) if head == "r1" and tail[0] == "r"] == ["r0t3"]
    assert [tail for tail, head in edges(drawn) if head[0] == "y"] == ["r1"]
    assert label(nodes(drawn)["y0"]) == "y"


def test_a_learned_initial_state_is_drawn_once():
    class Learned(nn.Module):
        input_size = 3

        def __init__(self):
            self.cell = nn.RNNCell(3, 4)
            self.h0 = nn.Parameter(np.zeros(4))

        def forward(self, x):
            start = ops.broadcast_to(self.h0, (x.shape[1], 4))
            return nn.unroll(self.cell, x, (start,))

    drawn = viz.draw_unrolled(Learned())
    assert label(nodes(drawn)["r0s0start"]) == "h⟨0⟩"
    assert ("r0s0start", "r0t1") in edges(drawn)
    assert not [s for n, s in nodes(drawn).items() if n[0] == "p" and "h0" in label(s)]


def test_one_step_has_its_state_too(level):
    drawn = viz.draw_unrolled(nn.LSTM(3, 4), 1, level=level)
    names = [n for n in nodes(drawn) if re.fullmatch(r"r0s\d(start|end)", n)]
    assert sorted(names) == ["r0s0end", "r0s0start", "r0s1end", "r0s1start"]


def test_b_stands_for_the_batch_and_for_nothing_else():
    for hidden in (1, 4, 7, 11):
        drawn = viz.draw_unrolled(nn.LSTM(7, hidden))
        shapes = [label(s) for n, s in nodes(drawn).items() if n.endswith("shape")]
        assert set(shapes) == {"(B, 7)", f"(B, {hidden})"}


def test_the_layer_is_left_as_it_was(level):
    layer = nn.LSTM(3, 4, 2, dropout=0.5, rng=np.random.default_rng(1))
    layer.layers[0].cell.w_x.requires_grad = False
    before = [p.numpy() for p in layer.parameters()]
    own, library = layer.dropout.rng.bit_generator.state, ts.random.get_state()
    modes = [layer.mode for layer in layer.layers]
    profile = sys.getprofile()
    with ts.no_grad():
        drawn = viz.draw_unrolled(layer, level=level)
    assert "w_x" in drawn.dot
    assert all(
        np.array_equal(a, p.numpy()) for a, p in zip(before, layer.parameters(), strict=True)
    )
    assert (layer.dropout.rng.bit_generator.state, ts.random.get_state()) == (own, library)
    assert [layer.mode for layer in layer.layers] == modes
    assert [p.requires_grad for p in layer.parameters()].count(False) == 1
    assert layer.training
    assert sys.getprofile() is profile
    cell = layer.layers[0].cell
    viz.draw_unrolled(cell, level=level)
    assert cell._scope_name == "cell"


def test_the_layer_is_left_as_it_was_after_an_error():
    layer = nn.LSTM(3, 4)
    modes = [layer.mode for layer in layer.layers]
    profile = sys.getprofile()
    with pytest.raises(ValueError, match="D"):
        viz.draw_unrolled(layer, x=np.ones((2, 2, 9)))
    assert [layer.mode for layer in layer.layers] == modes
    assert sys.getprofile() is profile


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3", True, None])
def test_bad_steps(steps):
    with pytest.raises((TypeError, ValueError), match=r"steps=.* must be a whole number, at least"):
        viz.draw_unrolled(nn.RNN(3, 4), steps)


def test_bad_level():
    with pytest.raises(ValueError, match="level='all'"):
        viz.draw_unrolled(nn.RNN(3, 4), level="all")


def test_more_boxes_than_can_be_read_make_a_smaller_picture_and_a_warning():
    layer = nn.LSTM(3, 4, num_layers=10)
    with pytest.warns(UserWarning, match=r"boxes are more than can be read.*level='cell'") as said:
        drawn = viz.draw_unrolled(layer, 50, level="op")
    assert drawn.note == str(said[0].message)
    assert label(nodes(drawn)["note"]) == drawn.note
    cells = [n for n in nodes(drawn) if re.fullmatch(r"r\d+t\d+", n)]
    assert len(cells) <= unrolled.MAX_BOXES
    with pytest.warns(UserWarning, match=r"5 columns of 60"):
        drawn = viz.draw_unrolled(nn.RNN(3, 4, num_layers=6), 100, columns=range(60))
    assert {"r0t1", "r0t3", "r0t59", "r0t60"} <= set(nodes(drawn))
    assert viz.draw_unrolled(nn.LSTM(3, 4), 50).note == ""


def test_an_unknown_input_size_asks_for_x():
    class Cell(nn.Module):
        def initial_state(self, batch_size, dtype=np.float32):
            return (ts.tensor(np.zeros((batch_size, 4)), dtype),)

        def forward(self, x, state):
            return (ops.tanh(x + state[0]),)

    with pytest.raises(ValueError, match=r"Cell does not say.*x=\.\.\."):
        viz.draw_unrolled(Cell())
    assert "Cell" in viz.draw_unrolled(Cell(), x=np.ones((2, 1, 4))).dot
    with pytest.raises(ValueError, match=r"x of shape \(3,\)"):
        viz.draw_unrolled(Cell(), x=np.ones(3))


def test_a_cell_without_an_initial_state_asks_for_one():
    with pytest.raises(ValueError, match="state="):
        viz.draw_unrolled(lambda x, state: (x + state[0],), x=np.ones((2, 1, 4)))


def test_what_has_no_steps_cannot_be_unrolled():
    with pytest.raises(GraphError, match="no step in time"):
        viz.draw_unrolled(nn.Linear(3, 4), x=np.ones((2, 1, 3)))


# -- the placement of ops --------------------------------------------------------------------------


@given(st.data())
def test_layers_rise_and_nothing_overlaps(data):
    n = data.draw(st.integers(1, 12))
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] < p[1])
    links = data.draw(st.lists(pairs, max_size=20)) if n > 1 else []
    sizes = {i: (data.draw(st.floats(5, 60)), data.draw(st.floats(5, 30))) for i in range(n)}
    layout = layered(sizes, links, left=data.draw(st.sets(st.sampled_from(range(n)))))
    for tail, head in links:
        assert layout.at[tail][1] + sizes[tail][1] / 2 <= layout.at[head][1] - sizes[head][1] / 2
    for row in layout.layers:
        for a, b in itertools.pairwise(row):
            room = layout.at[b][0] - layout.at[a][0] - (sizes[a][0] + sizes[b][0]) / 2
            assert room >= GAP - 1e-6
    for key, (x, y) in layout.at.items():
        w, h = sizes[key]
        assert x - w / 2 >= -1e-6
        assert x + w / 2 <= layout.width + 1e-6
        assert y - h / 2 >= -1e-6
        assert y + h / 2 <= layout.height + 1e-6
    assert sorted(k for row in layout.layers for k in row) == list(range(n))


def test_a_chain_is_straight_and_a_diamond_does_not_cross():
    size = (20.0, 20.0)
    chain = layered(dict.fromkeys("abcd", size), ["ab", "bc", "cd"])
    assert len({round(x, 3) for x, _ in chain.at.values()}) == 1
    cross = layered(
        dict.fromkeys("abcd", size), [("a", "d"), ("b", "c")], bottom=("a", "b"), top=("c", "d")
    )
    assert (cross.at["a"] < cross.at["b"]) == (cross.at["d"] < cross.at["c"])


# -- the command line ------------------------------------------------------------------------------


def test_the_command_writes_a_picture(any_renderer, tmp_path, capsys):
    out = tmp_path / "lstm.svg"
    assert main(["lstm", "--steps", "3", "--layers", "2", "-o", str(out)]) == 0
    assert texts(out.read_text(encoding="utf-8")).count("LSTMCell") == 6
    assert capsys.readouterr().out == ""


def test_the_command_prints_dot(capsys, tmp_path):
    assert main(["gru", "--variant", "simplified", "--level", "op", "--steps", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed == viz.draw_unrolled(nn.GRU(3, 4, variant="simplified"), 1, level="op").dot
    assert main(["rnn", "--nonlinearity", "elu", "--dot", "-o", str(tmp_path / "a.dot")]) == 0
    assert capsys.readouterr().out == (tmp_path / "a.dot").read_text(encoding="utf-8")


def test_the_command_knows_sizes_directions_and_dropout(capsys):
    options = "--input 5 --hidden 6 --layers 2 --bidirectional --dropout 0.25"
    assert main(["lstm", *options.split()]) == 0
    layer = nn.LSTM(5, 6, 2, bidirectional=True, dropout=0.25)
    assert capsys.readouterr().out == viz.draw_unrolled(layer).dot


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "elman",
        "lstm --steps 0",
        "lstm --steps three",
        "lstm --layers -1",
        "lstm --variant simplified",
        "gru --nonlinearity relu",
        "gru --variant other",
    ],
)
def test_bad_options_of_the_command(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("lstm --dropout 1.5", "1.5"),
        ("lstm -o {}/picture.jpg", ".svg"),
        ("lstm -o {}/nowhere/picture.dot", "nowhere"),
    ],
)
def test_problems_of_the_command_are_one_clear_message(arguments, message, tmp_path, capsys):
    assert main(arguments.format(tmp_path).split()) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert not list(tmp_path.iterdir())


def test_the_command_without_a_renderer(no_renderer, tmp_path, capsys):
    assert main(["rnn", "-o", str(tmp_path / "rnn.svg")]) == 1
    assert "graphviz-pure" in capsys.readouterr().err


def test_the_command_runs_as_a_module():
    run = subprocess.run(
        [sys.executable, "-m", "tinyseq.viz", "rnn", "--steps", "2"],
        capture_output=True, text=True, encoding="utf-8", check=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert run.stdout == viz.draw_unrolled(nn.RNN(3, 4), 2).dot


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for golden_name, golden_picture in pictures().items():
        (GOLDEN / f"{golden_name}.dot").write_text(golden_picture.dot, encoding="utf-8")
