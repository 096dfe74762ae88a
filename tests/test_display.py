"""What a terminal and a notebook show of modules, tensors and pictures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyseq as ts
from tinyseq import nn, text, viz
from tinyseq.display import ENDS
from tinyseq.viz import render


class Tied(nn.Module):
    """Has one of everything: a list, a dictionary, what is shared, constant and frozen, a cycle."""

    def __init__(self) -> None:
        self.scale = ts.tensor([1.0, 2.0])
        self.embedding = nn.Embedding(10, 4)
        self.cell = nn.PeepholeLSTMCell(4, 4)
        self.again = self.cell
        self.blocks = [nn.LayerNorm(4), nn.Dropout(0.1)]
        self.by = {"a<b": nn.Linear(4, 4)}
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.embedding.weight.requires_grad = False
        self.whole = self


class Unfinished(nn.Cell):
    """Does not call Cell.__init__, so that it has no sizes."""

    def __init__(self) -> None:
        self.w = nn.Parameter(np.ones(3))


MODULES = {
    "language model": lambda: text.LanguageModel(70, 16),
    "encoder-decoder": lambda: nn.EncoderDecoder(
        nn.GRU(4, 3, bidirectional=True), nn.GRU(4, 6), 9, 8, bos=1, eos=0, attention="dot"
    ),
    "echo state": lambda: nn.EchoState(3, 20, 2),
    "nothing": nn.Module,
    "tied": Tied,
    "unfinished": Unfinished,
}


@pytest.fixture(params=MODULES)
def module(request):
    return MODULES[request.param]()


# -- print(module) ---------------------------------------------------------------------------------


def test_the_table_of_a_language_model():
    assert str(text.LanguageModel(70, 128, 2, "gru")) == (
        """\
layer                          tensor  shape       parameters
-------------------------------------------------------------
LanguageModel
  embedding: Embedding         weight  (70, 128)        8,960
  recurrent: Stacked
    layers.0: Recurrent
      cell: GRUCell(128, 128)  w_x     (128, 384)      49,152
                               w_h     (128, 384)      49,152
                               b       (384,)             384
                               b_h     (128,)             128
    layers.1: Recurrent
      cell: GRUCell(128, 128)  w_x     (128, 384)      49,152
                               w_h     (128, 384)      49,152
                               b       (384,)             384
                               b_h     (128,)             128
    dropout: Dropout(p=0.0)
  dropout: Dropout(p=0.0)
  head: Linear                 weight  (128, 70)        8,960
                               bias    (70,)               70
-------------------------------------------------------------
total, 862.5 kB of float32                            215,622"""
    )


def test_what_is_shared_constant_or_frozen_is_marked_and_counted_once():
    lines = str(Tied()).splitlines()
    assert re.fullmatch(r"Tied +scale +\(2,\) +constant", lines[2])
    assert re.fullmatch(r"  embedding: Embedding +weight +\(10, 4\) +40  frozen", lines[3])
    found = "\n".join(lines)
    assert re.search(r"^  again: PeepholeLSTMCell\(4, 4\) +shared: cell$", found, re.M)
    assert re.search(
        r"^  head: Linear +weight +\(10, 4\) +shared: embedding.weight, frozen$", found, re.M
    )
    assert re.search(r"^  whole: Tied +shared: the whole$", found, re.M)
    assert re.fullmatch(r"total, 896 B of float32 +224", lines[-2])
    assert re.fullmatch(r"without what is frozen +184", lines[-1])


def test_dtypes_are_told_apart_where_there_are_several():
    model = Tied()
    assert str(model).count("float32") == 1
    model.by["a<b"].double()
    lines = str(model).splitlines()
    assert sum(line.endswith("float64") for line in lines[2:-2]) == 2
    assert lines[-2].startswith("total, 976 B of float32 and float64")


def test_rows_are_the_parameters_and_add_up(module):
    lines = str(module).splitlines()
    start = lines[0].index("tensor")
    rows = [line[start:].split("  ") for line in lines[2:]]
    counts = [
        int(cell.replace(",", ""))
        for row in rows
        for cell in row
        if re.fullmatch(r" *[\d,]+", cell)
    ]
    totals = 1 + lines[-1].startswith("without")
    sizes = [p.size for p in module.parameters()]
    assert sorted(counts[:-totals]) == sorted(sizes)
    assert counts[-totals] == sum(sizes)
    rules = [line for line in lines if set(line) == {"-"}]
    assert len(set(rules)) == 1
    assert len(rules) == 2
    assert all(line == line.rstrip() for line in lines)


def test_repr_stays_short(module):
    shown = repr(module)
    assert shown.startswith(type(module).__name__)
    assert "total" not in shown
    if isinstance(module, Tied):
        assert "whole: ..." in shown


# -- notebooks -------------------------------------------------------------------------------------


def parsed(html: str) -> ET.Element:
    return ET.fromstring(f"<body>{html}</body>")


def cells(html: str, table: int = 0) -> list[list[str]]:
    tables = list(parsed(html).iter("table"))
    return [["".join(cell.itertext()) for cell in row] for row in tables[table].iter("tr")]


def headlines(html: str) -> list[str]:
    return [div.text for div in parsed(html).iter("div") if div.text]


def test_a_notebook_shows_a_module_as_the_same_table(module):
    shown = cells(module._repr_html_())
    assert shown[0][:4] == ["layer", "tensor", "shape", "parameters"]
    assert len({len(row) for row in shown}) == 1
    words = [cell for row in shown for cell in row if cell]
    assert " ".join(words).split() == re.sub(r"^-+$", "", str(module), flags=re.M).split()


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12),
    )
)
def test_a_notebook_shows_values_at_their_places(array):
    shown = ts.tensor(array)._repr_html_()
    assert headlines(shown)[0].startswith(f"Tensor {array.shape}, {array.dtype}")
    if array.size == 0:
        assert "<table>" not in shown
        return
    if array.ndim > 2:
        assert headlines(shown)[1] == f"[{'0, ' * (array.ndim - 2)}:, :]"
    grid = cells(shown)
    last = np.atleast_2d(array[(0,) * (array.ndim - 2)])
    if array.ndim == 0:
        assert len(grid) == len(grid[0]) == 1
        grid = [["", "0"], ["0", *grid[0]]]
    elif array.ndim == 1:
        grid = [["", *grid[0]], ["0", *grid[1]]]
    for axis, names in ((1, grid[0][1:]), (0, [row[0] for row in grid[1:]])):
        n = last.shape[axis]
        few = [str(i) for i in range(n)]
        assert names == (few if n <= 2 * ENDS + 1 else [*few[:ENDS], "…", *few[-ENDS:]])
    scale = max((abs(float(v)) for v in last.ravel() if np.isfinite(v)), default=0)
    for row in grid[1:]:
        for name, cell in zip(grid[0][1:], row[1:], strict=True):
            if "…" in (name, row[0]):
                assert cell == "…"
                continue
            value = last[int(row[0]), int(name)]
            if array.dtype.kind == "f":
                np.testing.assert_allclose(float(cell), value, rtol=1e-4, atol=1e-3 * scale + 1e-4)
            else:
                assert cell == str(value)


def test_a_notebook_says_where_a_tensor_comes_from_and_shows_its_gradient():
    layer = nn.Linear(3, 2)
    y = layer(np.ones((4, 3), np.float32))
    y.name = "<y>"
    assert headlines(y._repr_html_()) == ["<y>: Tensor (4, 2), float32, made by add in Linear"]
    loss = y.sum()
    loss.backward()
    assert headlines(loss._repr_html_()) == ["Tensor (), float32, freed"]
    shown = layer.bias._repr_html_()
    assert headlines(shown) == [
        "bias: Parameter (2,), float32, requires a gradient",
        "gradient, norm 5.657",
    ]
    assert cells(shown, 0) == [["0", "1"], ["0.", "0."]]
    assert cells(shown, 1) == [["0", "1"], ["4.", "4."]]
    assert headlines(ts.tensor(1.0)._repr_html_()) == ["Tensor (), float32"]


def test_a_notebook_shows_what_is_not_a_number():
    x = ts.tensor([np.nan, np.inf, -1e30], requires_grad=True)
    x.grad = ts.tensor([np.nan, 1e30, 0.0])
    shown = x._repr_html_()
    assert cells(shown)[1][:2] == ["nan", "inf"]
    assert headlines(shown)[1] == "gradient, norm nan"


@pytest.fixture(scope="module")
def notebook():
    return pytest.importorskip("IPython.core.formatters").DisplayFormatter()


def test_ipython_shows_all_of_them(notebook, module):
    x = ts.tensor(np.ones((2, 3)), requires_grad=True)
    for shown in (module, x, (x * x).sum(), *module.parameters()):
        formats, _ = notebook.format(shown)
        assert formats["text/plain"] == repr(shown)
        assert formats["text/html"] == shown._repr_html_()


def test_ipython_shows_a_picture(notebook, monkeypatch):
    picture = viz.draw(ts.tensor(2.0, requires_grad=True) * 3)
    if render.find_renderer() is not None:
        formats, _ = notebook.format(picture)
        assert formats["image/svg+xml"] == picture.svg()
        broken = viz.Picture("digraph {")
        assert notebook.format(broken)[0] == {"text/plain": broken.dot}
    monkeypatch.setattr(render, "find_renderer", lambda: None)
    assert notebook.format(picture)[0] == {"text/plain": picture.dot}
