"""What cannot be given to the functions of viz: each says which argument, and what to give."""

from __future__ import annotations

import numpy as np
import pytest

from tinyseq import nn, text, viz
from tinyseq.errors import DtypeError, ShapeError

TOKENS = np.arange(6).reshape(3, 2)
VECTORS = np.ones((3, 2, 3), np.float32)


def layer():
    return nn.RNN(3, 4)


def model():
    return text.LanguageModel(6, 4, 1, "rnn")


@pytest.fixture(params=["draw_unrolled", "record", "gradient_flow", "page"])
def look(request, tmp_path):
    """Each function that runs a module on x."""
    return {
        "draw_unrolled": lambda module, x: viz.draw_unrolled(module, x=x),
        "record": viz.record,
        "gradient_flow": viz.gradient_flow,
        "page": lambda module, x: viz.page(module, tmp_path / "page.html", x=x),
    }[request.param]


def test_vectors_where_a_model_takes_symbols(look):
    found = r"^x of shape \(3, 2, 3\) and dtype float32 does not go into LanguageModel: .*"
    with pytest.raises(DtypeError, match=found + r"whole numbers.*astype\(int\)"):
        look(model(), VECTORS)


def test_symbols_where_a_layer_takes_vectors(look):
    found = r"^x of shape \(3, 2\) and dtype int64 does not go into Stacked: .*"
    with pytest.raises(ShapeError, match=found + r"functional\.one_hot\(x, D\).*nn\.Embedding"):
        look(layer(), TOKENS)


def test_vectors_of_another_width_are_no_symbols(look):
    with pytest.raises(ShapeError, match=r"^x of shape \(3, 2, 5\).*D=3") as caught:
        look(layer(), np.ones((3, 2, 5), np.float32))
    assert "whole numbers" not in str(caught.value)


def test_what_is_no_number(look):
    with pytest.raises(DtypeError, match=r"^x holds no numbers.*vocabulary\.encode"):
        look(model(), "to be")
    with pytest.raises(ValueError, match=r"^x is no array.*text\.padded"):
        look(model(), [[1, 2], [3]])


def test_what_is_right_is_taken(look):
    assert look(model(), TOKENS) is not None
    assert look(layer(), VECTORS) is not None
    assert look(layer(), VECTORS.astype(int)) is not None  # numbers are numbers


class Symbols(nn.Module):
    """Says how wide its input is, and takes symbols all the same."""

    def __init__(self):
        self.input_size, self.embedding, self.rnn = 3, nn.Embedding(6, 3), nn.RNN(3, 4)

    def forward(self, x):
        return self.rnn(self.embedding(x))


def test_an_input_that_was_made_up_and_does_not_fit():
    with pytest.raises(DtypeError, match=r"^a made-up x .* Symbols: .*Pass what it takes as x="):
        viz.draw_unrolled(Symbols())


@pytest.mark.parametrize("names", [[], ["a"], "a", {"h": 3}])
def test_names_that_are_none(names, tmp_path):
    for ask in (
        lambda: viz.draw_unrolled(layer(), names=names),
        lambda: viz.page(layer(), tmp_path / "page.html", names=names),
    ):
        with pytest.raises(TypeError, match=r"names=.* must be a dictionary of strings"):
            ask()


@pytest.mark.parametrize("names", [[], ()])
def test_a_heat_map_of_nothing(names):
    recorded = viz.record(layer(), VECTORS)
    with pytest.raises(ValueError, match=r"^names=.* at least one, such as \['h', 'forget'\]"):
        viz.heatmap(recorded, names)


@pytest.mark.parametrize("units", [[], np.array([], int)])
def test_units_that_are_none(units):
    with pytest.raises(ValueError, match=r"^units=.* at least one, such as \[0, 5\]"):
        viz.heatmap(np.ones((3, 4)), units=units)


@pytest.mark.parametrize("units", [["a"], [1.5], [True], 3])
def test_units_that_are_no_whole_numbers(units):
    with pytest.raises((TypeError, ValueError), match=r"units=.* must be a list of whole numbers"):
        viz.heatmap(np.ones((3, 4)), units=units)
