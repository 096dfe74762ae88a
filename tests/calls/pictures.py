"""Right calls of pictures."""

import functools

import numpy as np

import tinyseq as ts
from tinyseq import nn, text, viz

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SENTENCE = "to be or not to be that is the question " * 11
STEPS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 2, 2)


def layer():
    return nn.RNN(2, 2, mode="unroll")


def model():
    return text.LanguageModel(len(LETTERS) + 1, 2, 1, "rnn", mode="unroll")


def vocabulary():
    return text.Vocabulary(LETTERS + " ")


@functools.cache
def recorded():
    return viz.record(layer(), STEPS)


@functools.cache
def coloured():
    return viz.colour_text(model(), vocabulary(), "to", 0)


def loss():
    rnn = layer()
    return {"what": (rnn(ts.tensor(STEPS))[0][-1] ** 2).sum(), "params": rnn}


def training(runs):
    return viz.training(runs)


def picture():
    return viz.Picture("digraph {}")


CALLS = {
    "viz.draw": lambda: (
        viz.draw,
        {
            "tensor": loss()["what"],
            "params": {"x": ts.tensor([1.0])},
            "rankdir": "LR",
            "depth": 1,
            "max_nodes": 100,
        },
    ),
    "viz.draw_unrolled": lambda: (
        viz.draw_unrolled,
        {
            "what": nn.RNNCell(2, 2),
            "steps": 2,
            "level": "cell",
            "columns": (1, 1),
            "x": STEPS,
            "state": None,
            "names": {"h": "a"},
        },
    ),
    "viz.draw_unrolled (a loss)": lambda: (
        viz.draw_unrolled,
        {**loss(), "flow": "gradient", "scale": (1e-6, 1.0), "columns": [0, 1]},
    ),
    "viz.page": lambda: (
        viz.page,
        {
            "what": nn.RNNCell(2, 2),
            "path": "page.html",
            "steps": 2,
            "x": STEPS,
            "state": None,
            "params": None,
            "names": {"h": "a"},
            "columns": range(2),
            "title": "An RNN",
        },
    ),
    "viz.Picture.svg": lambda: (picture().svg, {"seconds": 60.0}),
    "viz.Picture.png": lambda: (picture().png, {"seconds": 60.0}),
    "viz.Picture.save": lambda: (picture().save, {"path": "p.dot", "seconds": None}),
    "viz.record": lambda: (
        viz.record,
        {
            "module": layer(),
            "x": STEPS,
            "state": ((ts.tensor(STEPS[0]),),),
            "lengths": np.array([2, 1]),
            "local": True,
        },
    ),
    "viz.Record.name": lambda: (recorded().name, {"layer": -1}),
    "viz.Record[]": lambda: (recorded().__getitem__, {"layer": -1}),
    "viz.heatmap": lambda: (
        viz.heatmap,
        {
            "values": recorded(),
            "names": "h",
            "layer": 0,
            "sequence": 1,
            "units": [1, 0],
            "symbols": "to",
            "signed": True,
            "title": "h",
        },
    ),
    "viz.colour_text": lambda: (
        viz.colour_text,
        {
            "model": model(),
            "vocabulary": vocabulary(),
            "text": "to be",
            "unit": 0,
            "layer": -1,
            "name": "h",
            "likely": 2,
        },
    ),
    "viz.ColouredText.save": lambda: (coloured().save, {"path": "text.html"}),
    "viz.ColouredText.terminal": lambda: (coloured().terminal, {"colour": True, "likely": True}),
    "viz.find_units": lambda: (
        viz.find_units,
        {
            "model": model(),
            "vocabulary": vocabulary(),
            "text": SENTENCE,
            "property": "white_space",
            "top": 1,
            "alpha": 0.05,
        },
    ),
    "viz.gradient_flow": lambda: (
        viz.gradient_flow,
        {
            "modules": {"RNN": layer()},
            "x": STEPS,
            "loss": lambda y: y.sum(),
            "name": "h",
            "title": "t",
        },
    ),
    "viz.training": lambda: (
        functools.partial(viz.training, [2.0, 1.5]),
        {"title": "t", "unit": "nats"},
    ),
    "viz.training (a run)": lambda: (training, {"runs": [2.0, 1.5]}),
}

LEFT_OUT = {
    "viz.Picture": "made by draw and draw_unrolled",
    "viz.ColouredText": "made by colour_text",
    "viz.Record": "made by record",
    "viz.Unit": "a NamedTuple that the library fills",
    "viz.Units": "made by find_units",
    "viz.RenderError": "an error",
}
