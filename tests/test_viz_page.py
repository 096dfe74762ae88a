"""The page: what is in the file, whether its numbers are right, and how it behaves in a browser.

``python tests/test_viz_page.py`` writes the golden file anew; look at it before you commit it. With
``TINYSEQ_SCREENSHOTS=folder`` the browser's screenshots are kept there.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import functional as F
from tinyseq import nn, ops, viz
from tinyseq.errors import GraphError
from tinyseq.viz import render

GOLDEN = Path(__file__).parent / "golden" / "viz_page.json"
HOSTILE = [
    'a"b',
    "</script><script>throw 1</script>",
    "<!-- <template>",
    "{{data}} {{style}}",
    "<b>&amp;</b> ⟨3⟩",
    "tail\\",
    "two\nlines\x00",
    "\ud800",
    "--",
]


class Model(nn.Module):
    """A language model's shape: every step has a prediction, and a part in the loss."""

    def __init__(self) -> None:
        self.rnn = nn.RNN(5, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def trained(steps=12):
    """A model, its input and its loss, recorded."""
    model = Model()
    given = np.random.default_rng(0).standard_normal((steps, 2, 5)).astype(np.float32)
    x = ts.tensor(given, requires_grad=True)
    targets = np.arange(2 * steps).reshape(steps, 2) % 5
    return model, x, F.cross_entropy(model(x), targets)


class Reader(HTMLParser):
    """What a browser would make of the file: elements with their attributes, scripts, text."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.texts = [], [], []
        self.feed(path.read_text("utf-8"))
        self.data = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts and self.get_starttag_text() is not None:
            self.scripts[-1] += data
        self.texts.append(data)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "net.html"


def structure(page):
    """The page without its numbers."""
    found = {key: value for key, value in page.data.items() if key != "series"}
    found["series"] = {
        key: {k: one[k] for k in ("name", "shape", "whole")} | {"steps": len(one["value"][0])}
        for key, one in page.data["series"].items()
    }
    pictures = []
    for tag, attributes in page.elements:
        marks = {key[5:]: value for key, value in attributes.items() if key.startswith("data-")}
        if tag == "template":
            pictures.append({**marks, "parts": {}})
        elif tag == "g" and marks:
            pictures[-1]["parts"][attributes["id"]] = " ".join(f"{k}={v}" for k, v in marks.items())
    return found | {"pictures": pictures}


def golden_page(path):
    ts.seed(0)
    model, _, loss = trained()
    return structure(Reader(viz.page(loss, path, params=model)))


def test_structure_is_as_it_was(file):
    assert golden_page(file) == json.loads(GOLDEN.read_text("utf-8"))


# -- numbers ---------------------------------------------------------------------------------------


def number(page, key, kind, step, end=None, statistic=0):
    series = page.data["series"][key]
    if kind == "value":
        return series["value"][statistic][step]
    ends = [e["name"] for e in page.data["ends"]]
    return series["gradient"][ends.index(end)][statistic][step]


def test_values_and_gradients_are_those_of_the_loss_and_of_its_parts(file):
    states = []

    def cell(x, state):
        states.append(ops.tanh(x * 0.9 + state[0] * 0.5))
        return (states[-1],)

    rng = np.random.default_rng(1)
    x = ts.tensor(rng.standard_normal((9, 2, 3)), requires_grad=True)
    h = (ts.tensor(np.zeros((2, 3)), requires_grad=True),)
    for t in range(9):
        with ts.graph.scope("f"), ts.graph.scope(f"t={t}"):
            h = cell(x[t], h)
    y = ops.concat([s.reshape((1, 2, 3)) for s in states])
    loss = F.mse_loss(y, np.ones((9, 2, 3)))
    page = Reader(viz.page(loss, file))
    (key,) = {row["key"] for row in page.data["rows"]}
    parts = [((s - 1.0) ** 2).sum() / 54 for s in states]
    for end, root in [("L", loss), *((f"L⟨{t + 1}⟩", part) for t, part in enumerate(parts))]:
        gx, *gh = ts.grad(root, [x, *states], retain_graph=True)
        for t in range(9):
            for i, of in enumerate((np.linalg.norm, np.min, np.mean, np.max)):
                found = [number(page, k, "gradient", t, end, i) for k in ("x", key)]
                wanted = [of(gx.numpy()[t]), of(gh[t].numpy())]
                np.testing.assert_allclose(found, wanted, rtol=6e-3, atol=1e-12)
                seen = [number(page, k, "value", t, statistic=i) for k in ("x", key)]
                wanted = [of(x.numpy()[t]), of(states[t].numpy())]
                np.testing.assert_allclose(seen, wanted, rtol=6e-3, atol=1e-12)


def test_compiled_layers_have_the_same_numbers(file, monkeypatch):
    """Also of a sequence of which only the last steps are told of."""
    monkeypatch.setattr(sys.modules["tinyseq.viz.page"], "MOST_STEPS", 6)
    model, x, _ = trained(10)
    pages = []
    for mode in ("unroll", "compiled"):
        for _, module in model.named_modules():
            if isinstance(module, nn.Recurrent):
                module.mode = mode
        loss = (model(x) ** 2).sum()
        with pytest.warns(UserWarning, match="tells of 6 steps: of 10 steps, the last"):
            pages.append(Reader(viz.page(loss, file, params=model)))
    one, other = (p.data["series"] for p in pages)
    assert one.keys() == other.keys()
    assert pages[0].data["first"] == 5
    for key in one:
        kinds = ([series[key]["value"], *series[key]["gradient"]] for series in (one, other))
        for a, b in zip(*kinds, strict=True):
            if a is None:
                assert b is None
                continue
            a, b = np.array(a), np.array(b)
            np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-5 * np.abs(a).max())


def test_a_layer_alone_is_run_on_random_numbers_and_stays_as_it_was(file):
    gru = nn.GRU(3, 4, batch_first=True, dropout=0.5, num_layers=2)
    before = [p.numpy() for p in gru.parameters()]
    state = str(ts.random.get_state())
    page = Reader(viz.page(gru, file, steps=5, title="My <GRU>"))
    assert state == str(ts.random.get_state())
    for p, b in zip(gru.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), b)
        assert p.grad is None
    assert page.data["ends"][0]["name"] == "Σ y⟨t⟩"
    assert page.data["series"]["x"]["shape"] == "(B, 3)"
    assert "My <GRU>" in page.texts
    assert (number(page, "x", "gradient", 4, "y⟨1⟩"), page.data["steps"]) == (0, 5)


def test_the_recording_is_kept_and_no_gradient_is_left_behind(file):
    model, x, loss = trained()
    viz.page(loss, file, params=model)
    assert all(t.grad is None for t in (x, *model.parameters()))
    loss.backward()
    kept = x.grad.numpy()
    again = ts.grad(F.cross_entropy(model(x), np.arange(24).reshape(12, 2) % 5), x)
    np.testing.assert_array_equal(kept, again.numpy())


def test_what_mixes_steps_is_told_from_what_does_not(file):
    class Attending(Model):
        def forward(self, x):
            y = ops.transpose(self.rnn(x)[0], (1, 0, 2))
            weights = F.softmax(y @ ops.transpose(y, (0, 2, 1)))
            return self.head(ops.transpose(weights @ y, (1, 0, 2)))

    for kind, apart in ((Model, True), (Attending, False)):
        page = Reader(viz.page(kind(), file, x=np.ones((4, 2, 5))))
        linear = next(i for i, row in enumerate(page.data["rows"]) if row["title"] == "Linear")
        assert (f"r{linear}" in page.data["apart"]) is apart


def test_what_is_not_finite_is_said(file):
    x = ts.tensor(np.full((3, 1, 2), 1e30, np.float32), requires_grad=True)
    rnn = nn.RNN(2, 2, nonlinearity="relu", mode="unroll")
    for parameter in rnn.parameters():
        parameter.data[:] = 1
    with np.errstate(all="ignore"):
        y = rnn(x)[0]
        page = Reader(viz.page((y * y).sum(), file, params=rnn))
    assert number(page, "loss", "value", 0) == "inf"


# -- the file --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_show_as_they_are(file, name):
    cell = nn.RNNCell(3, 4)
    parameter = cell.w_h
    del cell.w_h
    setattr(cell, name, parameter)
    cell.forward = lambda x, state: (ops.tanh(x @ cell.w_x + state[0] @ parameter + cell.b),)
    page = Reader(viz.page(cell, file, steps=3, title=name, names={"x": name}))
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert len(page.scripts) == 2
    assert page.texts.count(shown) >= 2  # title and heading
    names = {one["name"] for one in page.data["series"].values()}
    assert shown.rpartition(".")[2] in names
    page_of_plain_names = Reader(viz.page(nn.RNNCell(3, 4), file, steps=3))
    tags = [[tag for tag, _ in p.elements] for p in (page, page_of_plain_names)]
    assert tags[0] == tags[1]


def test_the_file_needs_no_network(file):
    model, _, loss = trained()
    page = Reader(viz.page(loss, file, params=model))
    text = file.read_text("utf-8")
    addresses = set(re.findall(r"\w+://[\w./]+", text))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not [a for _, a in page.elements if "src" in a]
    assert [a["href"] for _, a in page.elements if "href" in a] == ["data:,"]
    (policy,) = [a["content"] for _, a in page.elements if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_a_long_sequence_makes_no_long_page(file):
    sizes = []
    for steps in (20, 40):
        viz.page(nn.LSTM(3, 4), file, steps=steps)
        sizes.append(
            sum(len(s) for s in re.findall("(?s)<template.*?</template>", file.read_text()))
        )
    assert sizes[1] < 1.02 * sizes[0]


def test_every_colour_of_a_picture_has_one_for_dark_mode(file):
    css = (Path(viz.__file__).parent / "page.css").read_text()
    colours = set()
    for layer in (nn.GRU(3, 4, bidirectional=True, dropout=0.1), Model(), nn.LSTM(3, 4)):
        page = Reader(
            viz.page(layer, file, 12, x=np.ones((12, 2, 5 if layer.__class__ is Model else 3)))
        )
        colours |= {a.get(k) for _, a in page.elements for k in ("fill", "stroke")}
    model, _, loss = trained()
    page = Reader(viz.page(loss, file, params=model))
    colours |= {a.get(k) for _, a in page.elements for k in ("fill", "stroke")}
    left = {c for c in colours if c not in (None, "none", "transparent") and f'"{c}"' not in css}
    assert not left


def test_both_renderers_make_the_same_page(file, monkeypatch):
    found = []
    for renderer in (render._graphviz_pure, render._system_graphviz):
        if renderer is render._system_graphviz and not shutil.which("dot"):
            pytest.skip("there is no system Graphviz to compare with (apt install graphviz)")
        monkeypatch.setattr(render, "find_renderer", lambda chosen=renderer: chosen)
        found.append(structure(Reader(viz.page(nn.LSTM(3, 4), file, steps=10))))
    assert found[0] == found[1]


# -- errors ----------------------------------------------------------------------------------------


def freed():
    _, _, loss = trained()
    loss.backward()
    return loss


def changed():
    model, _, loss = trained()
    model.head.weight.data[:] = 0
    return loss


@pytest.mark.parametrize(
    ("what", "error", "remedy"),
    [
        (lambda: ts.tensor([1.0, 2.0]), GraphError, "requires_grad=True"),
        (freed, GraphError, "retain_graph=True"),
        (changed, GraphError, "changed|in place"),
        (lambda: (ts.tensor([2.0], requires_grad=True) * 2).sum(), GraphError, "nothing to unroll"),
        (lambda: Model(), ValueError, r"x=\.\.\. of shape"),
    ],
)
def test_what_cannot_be_a_page_says_why(file, what, error, remedy):
    with pytest.raises(error, match=remedy):
        viz.page(what(), file)
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_that_cannot_be(file, steps):
    wrong = (TypeError, ValueError)
    with pytest.raises(wrong, match=r"steps=.* must be a whole number, at least 1"):
        viz.page(nn.RNN(3, 4), file, steps=steps)


def test_a_page_is_html(tmp_path):
    with pytest.raises(ValueError, match=r"'net.svg' end in .html"):
        viz.page(nn.RNN(3, 4), tmp_path / "net.svg")


def test_without_a_renderer_the_error_says_what_to_install(file, monkeypatch):
    monkeypatch.setattr(sys.modules["tinyseq.viz.page"], "find_renderer", lambda: None)
    with pytest.raises(viz.RenderError, match="pip install graphviz-pure"):
        viz.page(nn.RNN(3, 4), file)


def test_a_file_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="Choose a folder that exists"):
        viz.page(nn.RNN(3, 4), tmp_path / "nowhere" / "net.html")
    old = tmp_path / "net.html"
    old.write_text("as it was")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="has room"):
        viz.page(nn.RNN(3, 4), old)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["as it was"]


# -- in a browser ----------------------------------------------------------------------------------


@pytest.fixture
def browser():
    """Chromium without a window; `None` of its preferences are those of this machine's user."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="needs selenium: pip install selenium"
    )
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("needs a browser and its driver: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:  # in a container
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield found
    found.quit()


class Visitor:
    """Hands and eyes of a reader."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder

    def open(self, path, width=1280, height=800, scheme="light"):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        self.driver.get(path.as_uri())

    def see(self, selector):
        return self.driver.find_element("css selector", selector)

    def ask(self, script, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def point(self, selector):
        self._act().move_to_element(self.see(selector)).perform()
        return self.see("#tip").text

    def press(self, *keys):
        self._act().send_keys(*keys).perform()

    def drag(self, selector, dx, dy):
        self._act().move_to_element(self.see(selector)).click_and_hold().move_by_offset(
            dx, dy
        ).release().perform()

    def choose(self, selector, text):
        script = """
            const select = document.querySelector(arguments[0]);
            select.value = [...select.options].find((o) => o.text === arguments[1]).value;
            select.dispatchEvent(new Event("change"));
        """
        self.driver.execute_script(script, selector, text)

    def level(self):
        return self.see('nav [aria-current="true"]').text

    def texts(self):
        return self.ask("[...document.querySelectorAll('#stage text')].map((t) => t.textContent)")

    def on_path(self):
        return set(self.ask("[...document.querySelectorAll('.edge.on')].map((g) => g.id)"))

    def look(self, name):
        """A screenshot as numbers; kept where somebody wants to see it."""
        image = pytest.importorskip("matplotlib.image", reason="needs matplotlib")
        folder = Path(os.environ.get("TINYSEQ_SCREENSHOTS", self.folder))
        folder.mkdir(exist_ok=True)
        assert self.driver.save_screenshot(str(folder / f"{name}.png"))
        return image.imread(folder / f"{name}.png")[..., :3]

    def _act(self):
        from selenium.webdriver import ActionChains

        return ActionChains(self.driver, duration=20)


# How far the middle of each label is from that of its box.
OFF_CENTRE = """[...document.querySelectorAll(".op")].flatMap((g) => {
    const middle = (part) => { const { x, width } = part.getBBox(); return x + width / 2; };
    const box = g.querySelector("path, polygon");
    return [...g.querySelectorAll("text")].map((text) => Math.abs(middle(text) - middle(box)));
})"""


def test_in_a_browser(browser, tmp_path):
    """One visit, for a browser is slow to start: look, point, click, slide, press keys."""
    from selenium.webdriver.common.keys import Keys

    model, _, loss = trained()
    file = viz.page(loss, tmp_path / "net.html", params=model)
    data = Reader(file).data
    visitor = Visitor(browser, tmp_path)
    visitor.open(file)
    assert visitor.level() == "Steps"

    # The path from the last step's loss to the first input: along the state, and nowhere else.
    path = visitor.on_path()
    assert {"x1--r0t1", "r0t1--r0t2", "r0gap5--r0t12", "r0t12--r1", "y0t12--loss12"} <= path
    assert not {"x2--r0t2", "r0t1--r1", "p0--r0t1", "loss12--loss"} & path
    style = "parseFloat(getComputedStyle(document.getElementById(arguments[0])"
    style += ".querySelector('path')).strokeWidth)"
    arrows = ("r0t1--r0t2", "r0t3--r0t4", "r0gap5--r0t12", "r0t12--r1")
    widths = [visitor.ask(style, arrow) for arrow in arrows]
    assert widths == sorted(widths)
    assert widths[-1] > 1.5 * widths[0] > 1.5  # it vanishes on its way back

    # A thing that is pointed at tells its numbers.
    key = data["rows"][0]["key"]
    norm = data["series"][key]["value"][0][2]
    told = visitor.point("#r0t3")
    assert "h⟨3⟩" in told
    assert f"{norm}" in told
    light = visitor.look("steps")

    # A click opens the step, another on its frame closes it; so do keys.
    visitor.see("#r0t3").click()
    assert (visitor.level(), visitor.see("#number").text) == ("Operations", "3 of 12")
    assert {"h⟨3⟩", "… 2 steps …", "… 9 steps …"} <= set(visitor.texts())
    off = visitor.ask(OFF_CENTRE)
    assert len(off) > 4
    assert max(off) < 0.5
    visitor.look("operations")
    visitor.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert {"h⟨5⟩", "h⟨4⟩", "h⟨0⟩", "… 4 steps …", "… 7 steps …"} <= set(visitor.texts())
    visitor.press(Keys.ESCAPE)
    assert visitor.level() == "Steps"
    assert visitor.ask("document.activeElement.getAttribute('aria-label')").startswith("RNNCell")
    visitor.press(Keys.BACKSPACE)
    assert visitor.level() == "Layers"
    visitor.see(".cell").click()
    assert visitor.level() == "Steps"
    visitor.press(Keys.ENTER)
    assert visitor.level() == "Operations"
    visitor.see("nav button:nth-child(2)").click()

    # The slider, by hand: its middle is step 6 or 7, and the columns are numbered anew.
    slider = visitor.see("#step")
    slider.click()
    step = int(slider.get_attribute("value"))
    assert step in (6, 7)
    assert {f"x⟨{t}⟩" for t in (1, step - 1, step, step + 1, 12)} <= set(visitor.texts())
    assert f"… {step - 3} steps …" in visitor.texts()
    h = data["series"][key]["value"][0][step - 1]
    assert f"{h}" in visitor.point(".looked")
    visitor.press(Keys.ARROW_LEFT)
    assert int(slider.get_attribute("value")) == step - 1
    visitor.press(Keys.END)
    assert visitor.see("#number").text == "12 of 12"

    # Another loss and another input.
    visitor.choose("#from", "L")
    visitor.choose("#to", "w_h")
    assert {"p1--r0t12", "r0t12--r1", "loss12--loss"} <= visitor.on_path()
    assert "x1--r0t1" not in visitor.on_path()
    gradient = data["series"]["p1"]["gradient"][0][0][0]
    assert f"‖∂L/∂w_h‖ = {gradient}" == visitor.see("#status").text
    visitor.choose("#from", "L⟨1⟩")
    visitor.choose("#to", "x⟨12⟩")
    assert not visitor.on_path()
    assert "does not depend" in visitor.see("#status").text
    visitor.choose("#to", "everything")
    assert "x1--r0t1" in visitor.on_path()

    # Zoom and pan.
    box = "document.querySelector('#stage > svg').getAttribute('viewBox').split(' ').map(Number)"
    visitor.press("0")
    whole = visitor.ask(box)
    visitor.press("+")
    nearer = visitor.ask(box)
    assert nearer[2] == pytest.approx(whole[2] / 1.25)
    visitor.drag("#stage", 40, 25)
    moved = visitor.ask(box)
    assert moved[0] < nearer[0]
    assert moved[1] < nearer[1]
    assert visitor.level() == "Steps"  # a drag is no click
    visitor.press("0")
    assert visitor.ask(box) == whole

    # By keyboard alone: what has the focus tells about itself.
    visitor.ask("document.getElementById('stage').focus()")
    visitor.press(Keys.TAB)
    assert not visitor.see("#tip").get_attribute("hidden")
    assert visitor.see("#tip").text

    # In the dark and on a phone.
    visitor.open(file, 390, 780, "dark")
    dark = visitor.look("phone")
    assert dark.shape[:2] == (780, 390)
    assert light.mean() > 0.8 > 0.3 > dark.mean()
    assert visitor.ask("document.documentElement.scrollWidth") <= 390
    assert browser.get_log("browser") == []


def test_tokens_in_a_browser(browser, tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.recurrent = nn.Embedding(5, 3), nn.RNN(3, 3)

        def forward(self, x):
            return self.recurrent(self.embedding(x))[0]

    model = Model()
    loss = (model(np.arange(8).reshape(4, 2) % 5) ** 2).sum()
    visitor = Visitor(browser, tmp_path)
    visitor.open(viz.page(loss, path=tmp_path / "tokens.html", params=model), height=900)
    assert "No gradient" not in visitor.see("#status").text
    assert visitor.ask("to.selectedOptions[0].text") == "weight"
    assert visitor.see("#chart text").text.startswith("‖∂L⟨4⟩/∂h⟨t⟩‖")
    visitor.choose("#to", "everything")
    assert not [name for name in visitor.on_path() if name.startswith("x")]  # whole numbers
    stage, buttons = (visitor.see(part).rect for part in ("#stage", ".zoom"))
    assert stage["y"] + stage["height"] <= buttons["y"]  # nothing lies under them


class Both(nn.Module):
    """Reads from both ends; ``read`` says what the head is given of it."""

    def __init__(self, read):
        self.rnn, self.head, self.read = nn.RNN(5, 4, bidirectional=True), nn.Linear(8, 3), read

    def forward(self, x):
        return self.head(self.read(self.rnn(x)[0]))


def test_encoder_and_decoder_in_a_browser(browser, tmp_path):
    model = nn.EncoderDecoder(nn.GRU(5, 4), nn.GRU(5, 4), 9, 8, bos=0, eos=1)
    rng = np.random.default_rng(0)
    source, target = (rng.integers(2, 8, (n, 2)) for n in (4, 3))
    visitor = Visitor(browser, tmp_path)
    visitor.open(viz.page(model.loss(source, target), tmp_path / "net.html", params=model))
    offered = visitor.ask("[...to.options].map((option) => option.text)")
    assert "h⟨0⟩ of row 2" in offered
    assert "encoder.layers.0.cell.w_x" in offered
    assert len(offered) == len(set(offered))
    visitor.ask("to.value = 'r3s0start'")
    visitor.ask("goTo('layer', 1)")
    assert any(re.fullmatch(r"r3t\d--r4", arrow) for arrow in visitor.on_path())
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("last", [True, False])
def test_a_sequence_of_one_step_in_a_browser(browser, tmp_path, last):
    model = Model()
    scores = model(ts.tensor(np.ones((1, 2, 5), np.float32), requires_grad=True))
    loss = F.cross_entropy(scores[-1], [0, 1]) if last else F.cross_entropy(scores, [[0, 1]])
    visitor = Visitor(browser, tmp_path)
    visitor.open(viz.page(loss, tmp_path / "net.html", params=model))
    assert {"x1--r0t1", "r0t1--r1", "y0t1--loss"} <= visitor.on_path()
    for level in ("layer", "op"):
        visitor.ask("goTo(arguments[0], 1)", level)
        assert visitor.on_path()
    assert browser.get_log("browser") == []


def test_a_path_goes_through_both_directions_in_a_browser(browser, tmp_path):
    visitor = Visitor(browser, tmp_path)

    def visit(read):
        model = Both(read)
        given = np.random.default_rng(0).standard_normal((5, 2, 5)).astype(np.float32)
        scores = model(ts.tensor(given, requires_grad=True))
        loss = F.cross_entropy(scores, np.zeros(scores.shape[:-1], int))
        visitor.open(viz.page(loss, tmp_path / "both.html", params=model))

    forwards = {f"r0t{t}--r0t{t + 1}" for t in range(1, 5)}
    backwards = {f"r1t{t + 1}--r1t{t}" for t in range(1, 5)}

    # A class for each step: what comes before it and what comes after it.
    visit(lambda y: y)
    visitor.choose("#from", "L⟨3⟩")
    for x, way, other in (
        ("x⟨1⟩", {"x1--r0t1", "r0t1--r0t2", "r0t2--r0t3", "r0t3--r2"}, backwards),
        ("x⟨5⟩", {"x5--r1t5", "r1t5--r1t4", "r1t4--r1t3", "r1t3--r2"}, forwards),
    ):
        visitor.choose("#to", x)
        assert way | {"r2--r3--3", "r3--y0t3", "y0t3--loss3"} <= visitor.on_path()
        assert not (other | {"r2--r3", "y0t1--loss1"}) & visitor.on_path()

    # One class, read from all steps: both ways.
    visit(lambda y: ops.mean(y, axis=0))
    visitor.choose("#to", "x⟨3⟩")
    path = visitor.on_path()
    assert {"x3--r0t3", "x3--r1t3", "r0t5--r2", "r1t1--r2", "r2--r3", "r3--r4", "r4--y0"} <= path
    assert {"r0t3--r0t4", "r1t3--r1t2"} <= path
    assert not {"r0t2--r0t3", "r1t4--r1t3", "x2--r0t2"} & path

    # One class, read from the last step: of what runs from the end that has seen x⟨5⟩ alone.
    visit(lambda y: y[-1])
    visitor.choose("#to", "x⟨1⟩")
    assert forwards | {"r0t5--r2", "r2--r3", "r3--y0"} <= visitor.on_path()
    assert not backwards & visitor.on_path()
    visitor.choose("#to", "x⟨5⟩")
    assert {"r0t5--r2", "r1t5--r2", "r2--r3", "r3--y0", "y0--loss"} <= visitor.on_path()
    visitor.see("nav button:nth-child(1)").click()
    assert {"x2--r0t2", "x2--r1t2", "r0t2--r2", "r1t2--r2", "r2--r3"} <= visitor.on_path()
    assert browser.get_log("browser") == []


def test_hostile_names_and_long_sequences_in_a_browser(browser, tmp_path):
    model, x, _ = trained(120)
    visitor = Visitor(browser, tmp_path)
    with pytest.warns(UserWarning, match="100 steps"):
        long = viz.page(
            (model(x) ** 2).sum(), tmp_path / "long.html", params=model, title=HOSTILE[1]
        )
    visitor.open(long, scheme="dark")
    assert visitor.see("h1").text == HOSTILE[1]
    assert "… 20 steps …" in visitor.texts()
    for step in (60, 119, 120):
        visitor.ask("goTo('cell', arguments[0])", step)
        assert {f"x⟨{t}⟩" for t in (21, step, 120)} <= set(visitor.texts())
        visitor.ask("goTo('op', arguments[0])", step)
        assert f"h⟨{step}⟩" in visitor.texts()
    visitor.look("long")
    assert "steps 21 to 120 of 120 steps" in visitor.see("#note").text

    # A part of it that was chosen: nothing is warned of, and the steps behind it are a gap.
    part = viz.page(
        (model(x) ** 2).sum(), tmp_path / "part.html", params=model, columns=range(9, 60)
    )
    visitor.open(part)
    assert "steps 10 to 60 of 120 steps" in visitor.see("#note").text
    assert visitor.see("#number").text == "10 of 120"
    assert "… 9 steps …" in visitor.texts()
    for step in (10, 35, 60):
        visitor.ask("goTo('cell', arguments[0])", step)
        assert {f"x⟨{t}⟩" for t in (10, step, 60)} <= set(visitor.texts())
        assert "… 60 steps …" in visitor.texts()
        visitor.ask("goTo('op', arguments[0])", step)
        assert {f"h⟨{step}⟩", f"… {120 - step} steps …"} <= set(visitor.texts())
    visitor.choose("#from", "L")
    visitor.choose("#to", "h⟨0⟩")
    assert {"r0s0start--r0gap0", "r0gap0--r0t10"} & visitor.on_path()
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(
    "columns", [range(0), range(101), range(0, 8, 2), range(-3, 2), range(5, 121)]
)
def test_columns_that_cannot_be(file, columns):
    steps = 120 if columns != range(101) else 130
    remedy = rf"columns=.* at most 100 steps in a row.* {steps} steps .*range\(0, 100\)"
    with pytest.raises(ValueError, match=remedy):
        viz.page(nn.RNN(3, 4), file, steps, columns=columns)
    with pytest.raises(TypeError, match=r"columns=.* must be a range"):
        viz.page(nn.RNN(3, 4), file, steps, columns=list(columns))


def test_a_page_of_all_steps_has_no_note(file):
    assert 'id="note"' not in viz.page(nn.RNN(3, 4), file, 4).read_text("utf-8")
    viz.page(nn.RNN(3, 4), file, 150, columns=range(100))
    assert "steps 1 to 100 of 150 steps" in file.read_text("utf-8")
    data = Reader(file).data
    assert (data["first"], data["last"], data["steps"]) == (1, 100, 150)
    assert len(data["series"]["x"]["value"][0]) == 100


if __name__ == "__main__":
    GOLDEN.write_text(
        json.dumps(golden_page(Path(tempfile.mkdtemp()) / "net.html"), indent=1, ensure_ascii=False)
        + "\n",
        "utf-8",
    )
