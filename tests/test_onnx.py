"""ONNX Runtime runs what `nn.onnx.export` wrote, with the same numbers."""

import sys
from functools import partial

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn, text
from tinyseq.errors import ShapeError
from tinyseq.nn.onnx import export

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

D, H, T, B = 3, 4, 6, 4
LENGTHS = np.array([4, 6, 1, 0])


def scrambled(layers):
    """Nothing at 0: a bias or a peephole left out must not go unnoticed."""
    rng = np.random.default_rng(0)
    for layer in layers:
        for p in layer.parameters():
            p._data[...] = rng.uniform(-0.9, 0.9, p.shape)
        layer.eval()
    return layers


def flat(state):
    return [state] if isinstance(state, ts.Tensor) else [t for part in state for t in flat(part)]


def ours(layers, x, states, lengths):
    """The layers one after the other; ``states`` holds one for each cell, or is None."""
    after = []
    for layer in layers:
        if isinstance(layer, nn.Recurrent | nn.Bidirectional | nn.Stacked):
            start = None if states is None else layer.initial_state(B)
            if start is not None:
                given = iter(states)
                start = refilled(start, given)
                states = list(given)
            x, last = layer(x, start, lengths)
            after += flat(last)
        else:
            x = layer(x)
    return [x.numpy(), *(s.numpy() for s in after)]


def refilled(state, tensors):
    if isinstance(state, ts.Tensor):
        return next(tensors)
    return tuple(refilled(part, tensors) for part in state)


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


LAYERS = {
    "rnn": lambda: [nn.RNN(D, H, 2)],
    "relu": lambda: [nn.RNN(D, H, nonlinearity="relu")],
    "sigmoid": lambda: [nn.RNN(D, H, 2, nonlinearity="sigmoid")],
    "softplus": lambda: [nn.RNN(D, H, nonlinearity="softplus", bidirectional=True)],
    **{
        name: lambda name=name: [nn.RNN(D, H, 2, nonlinearity=name, bidirectional=True)]
        for name in ("elu", "leaky_relu", "softsign")
    },
    "coupled": lambda: [nn.LSTM(D, H, 2, coupled=True)],
    "coupled_both_without_bias": lambda: [
        nn.LSTM(D, H, coupled=True, bidirectional=True, bias=False)
    ],
    **{
        f"{name} clipped": lambda make=make: [make(clip=0.3)]
        for name, make in {
            "rnn": partial(nn.RNN, D, H, 2, nonlinearity="elu"),
            "gru_reset_after": partial(nn.GRU, D, H, 2, bidirectional=True),
            "gru_reset_before": partial(nn.GRU, D, H, 2, variant="reset_before", bias=False),
            "gru_simplified": partial(nn.GRU, D, H, 2, variant="simplified"),
            "lstm": partial(nn.LSTM, D, H, 2),
            "coupled": partial(nn.LSTM, D, H, 2, coupled=True, bidirectional=True),
            "peephole": partial(nn.LSTM, D, H, 2, peephole="new"),
        }.items()
    },
    **{
        f"{kind.__name__} without bias": lambda kind=kind: [kind(D, H, 2, bias=False)]
        for kind in (nn.RNN, nn.GRU, nn.LSTM)
    },
    "gru_simplified_without_bias": lambda: [nn.GRU(D, H, variant="simplified", bias=False)],
    "gru_reset_after": lambda: [nn.GRU(D, H, 3)],
    "gru_reset_before": lambda: [nn.GRU(D, H, 2, variant="reset_before")],
    "gru_simplified": lambda: [nn.GRU(D, H, variant="simplified")],
    "lstm": lambda: [nn.LSTM(D, H, 3)],
    "peephole": lambda: [nn.LSTM(D, H, 2, peephole="new")],
    "rnn_both": lambda: [nn.RNN(D, H, bidirectional=True)],
    "gru_both": lambda: [nn.GRU(D, H, 2, bidirectional=True, variant="reset_before")],
    "lstm_both": lambda: [nn.LSTM(D, H, 2, bidirectional=True, dropout=0.5)],
    "peephole_both": lambda: [nn.LSTM(D, H, bidirectional=True, peephole="new")],
    "reverse": lambda: [nn.Recurrent(nn.LSTMCell(D, H), reverse=True)],
    "two_cells": lambda: [nn.Bidirectional(nn.GRUCell(D, H), nn.LSTMCell(D, 2))],
    "stack_in_reverse": lambda: [nn.Bidirectional(nn.LSTM(D, H, 2), nn.GRU(D, 2, 2))],
    "learned": lambda: [nn.Stacked(nn.LearnedState(nn.LSTMCell(D, H)), nn.RNNCell(H, 2))],
    "variational": lambda: [
        nn.Recurrent(nn.VariationalDropout(nn.LearnedState(nn.GRUCell(D, H)), 0.5, 0.5))
    ],
    "dense": lambda: [
        nn.Dropout(0.5), nn.Linear(D, 5), nn.LayerNorm(5), nn.LSTM(5, H), nn.Dropout(0.5),
        nn.Linear(H, 2, bias=False), nn.LayerNorm(2, bias=False, eps=0.1), nn.GRU(2, H),
    ],
}  # fmt: skip


@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_the_same_numbers(name, with_lengths, given_state, tmp_path):
    layers = scrambled(LAYERS[name]())
    export(layers, tmp_path / "model.onnx", lengths=with_lengths, state=given_state)
    x = random(T, B, D)
    inputs, states = {"x": x}, None
    if with_lengths:
        inputs["lengths"] = LENGTHS.astype(np.int32)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    if given_state:
        names = [i for i in session.get_inputs() if i.name not in inputs]
        states = [ts.tensor(random(B, i.shape[1], seed=n)) for n, i in enumerate(names)]
        inputs |= {i.name: s.numpy() for i, s in zip(names, states, strict=True)}
    expected = ours(layers, ts.tensor(x), states, LENGTHS if with_lengths else None)
    for a, b in zip(session.run(None, inputs), expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", ["rnn", "gru_reset_before", "gru_simplified", "lstm", "peephole",
                                  "coupled"])  # fmt: skip
def test_the_same_numbers_by_the_specification(name, tmp_path):
    """By onnx's own evaluator, which knows neither lengths, clip, nor input_forget: a coupled cell
    is right there as well, since its forget gate is written out.
    """
    layers = scrambled(LAYERS[name]())
    export(layers, tmp_path / "model.onnx")
    x = random(T, B, D)
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator(
        str(tmp_path / "model.onnx")
    )
    for a, b in zip(
        evaluator.run(None, {"x": x}), ours(layers, ts.tensor(x), None, None), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)


def test_attributes_are_written_where_the_cell_has_them(tmp_path):
    found = []
    for layer in (nn.LSTM(D, H), nn.LSTM(D, H, coupled=True, clip=1), nn.RNN(D, H, clip=2.5)):
        export(layer, tmp_path / "model.onnx")
        (node,) = [n for n in onnx.load(tmp_path / "model.onnx").graph.node if n.output[1:]]
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        found.append({n: attrs[n] for n in ("clip", "input_forget", "activations") if n in attrs})
    assert found == [
        {}, {"clip": 1.0, "input_forget": 1}, {"clip": 2.5, "activations": [b"Tanh"]}
    ]  # fmt: skip


def test_names_and_free_sizes(tmp_path):
    layer = nn.LSTM(D, H, 2, bidirectional=True)
    export(layer, tmp_path / "model.onnx", lengths=True, state=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    states = [(f"{name}_{i}", ["B", H]) for i in range(4) for name in "hc"]
    assert [(i.name, i.shape) for i in session.get_inputs()] == [
        ("x", ["T", "B", D]), ("lengths", ["B"]), *states
    ]  # fmt: skip
    assert [(o.name, o.shape) for o in session.get_outputs()] == [
        ("y", ["T", "B", 2 * H]), *((f"{name}_last", shape) for name, shape in states)
    ]  # fmt: skip
    model = onnx.load(tmp_path / "model.onnx")
    assert model.producer_name == "tinyseq"
    names = {constant.name for constant in model.graph.initializer}
    assert "layers.1.backward_layer.cell.W" in names


def test_one_file_for_any_number_of_steps_and_sequences(tmp_path):
    layers = scrambled([nn.LSTM(D, H, bidirectional=True), nn.Linear(2 * H, 2)])
    export(layers, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for steps, batch in ((1, 1), (9, 2)):
        x = random(steps, batch, D)
        (expected, *_) = ours(layers, ts.tensor(x), None, None)
        (y, *_) = session.run(None, {"x": x})
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=2e-6)


def test_what_comes_out_goes_back_in(tmp_path):
    (layer,) = scrambled([nn.LSTM(D, H, 2)])
    export(layer, tmp_path / "model.onnx", state=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    x = random(8, B, D)
    whole, *_ = ours([layer], ts.tensor(x), None, None)
    state = {i.name: np.zeros((B, H), np.float32) for i in session.get_inputs()[1:]}
    for chunk in (x[:3], x[3:]):
        y, *last = session.run(None, {"x": chunk, **state})
        state = dict(zip(state, last, strict=True))
    np.testing.assert_allclose(y, whole[3:], rtol=1e-4, atol=2e-6)


def test_batch_first(tmp_path):
    layers = scrambled([nn.GRU(D, H, 2, batch_first=True), nn.Linear(H, 2)])
    export(layers, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape == ["B", "T", D]
    assert session.get_outputs()[0].shape == ["B", "T", 2]
    x = random(B, T, D)
    y, _ = layers[0](ts.tensor(x))
    expected = layers[1](y).numpy()
    np.testing.assert_allclose(session.run(["y"], {"x": x})[0], expected, rtol=1e-4, atol=2e-6)


def test_a_language_model_by_its_layers(tmp_path):
    model = text.LanguageModel(7, hidden_size=5, num_layers=2, cell="gru", dropout=0.3).eval()
    layers = [model.embedding, model.recurrent, model.dropout, model.head]
    export(layers, tmp_path / "model.onnx", state=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    indices = np.random.default_rng(0).integers(0, 7, (T, B))
    logits, state = model(indices)
    zeros = {i.name: np.zeros((B, 5), np.float32) for i in session.get_inputs()[1:]}
    got = session.run(None, {"indices": indices, **zeros})
    for a, b in zip(got, [logits, *flat(state)], strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=2e-6)


def test_a_model_in_float64_is_written_in_float32(tmp_path):
    (layer,) = scrambled([nn.LSTM(D, H)])
    export(layer, tmp_path / "single.onnx")
    export(layer.double(), tmp_path / "double.onnx")
    single, double = ((tmp_path / f"{n}.onnx").read_bytes() for n in ("single", "double"))
    assert single == double


def test_a_single_layer(tmp_path):
    for layer, x in (
        (nn.Linear(D, H), random(T, B, D)),
        (nn.LayerNorm(D), random(T, B, D)),
        (nn.Embedding(5, D), np.array([[1, 4], [0, 0]])),
    ):
        export(scrambled([layer])[0], tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        (y,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_allclose(y, layer(ts.tensor(x)).numpy(), rtol=1e-5, atol=1e-6)


# -- errors --------------------------------------------------------------------------------------


class OwnCell(nn.Module):
    def __call__(self, x, state):
        return state


class OwnModel(nn.Module):
    def __init__(self):
        self.layer = nn.LSTM(D, H)


REFUSED = [
    (lambda: nn.LSTM(D, H, layer_norm=True), TypeError, r"no counterpart of LayerNormLSTMCell. Tr"),
    (lambda: nn.GRU(D, H, layer_norm=True), TypeError, r"no counterpart of LayerNormGRUCell"),
    (
        lambda: nn.Recurrent(OwnCell()),
        TypeError,
        r"no counterpart of OwnCell. Train the model with",
    ),
    (lambda: nn.Recurrent(nn.Zoneout(nn.LSTMCell(D, H))), TypeError, r"counterpart of Zoneout"),
    (
        lambda: nn.LSTM(D, H, peephole="previous"),
        TypeError,
        r"PeepholeLSTMCell with output_sees='previous'. Train .* peephole='new'",
    ),
    (lambda: [nn.LayerNorm((2, D)), nn.RNN(D, H)], TypeError, r"LayerNorm over \(2, 3\) goes over"),
    (OwnModel, TypeError, r"what OwnModel computes cannot be told from outside. Give the layers"),
    (lambda: [nn.Linear(D, H), OwnModel()], TypeError, r"what OwnModel computes"),
    (list, ValueError, r"there are no layers"),
    (lambda: [nn.Dropout()], ValueError, r"there are no layers"),
    (lambda: [nn.Linear(D, H), nn.Embedding(4, 2)], ValueError, r"has to be the first layer"),
    (
        lambda: [nn.LSTM(D, H, bidirectional=True), nn.Linear(H, 2)],
        ShapeError,
        r"1.Linear takes D=4 features, but the layer before it gives 8. Give the layers in",
    ),
    (lambda: [nn.Embedding(5, 2), nn.LSTM(D, H)], ShapeError, r"takes D=3 .* gives 2"),
    (
        lambda: nn.Stacked(nn.RNNCell(D, H), nn.RNNCell(D, H)),
        ShapeError,
        r"layers.1.Recurrent takes D=3 features, but the layer before it gives 4",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED)
def test_what_cannot_be_exported(make, kind, message, tmp_path):
    (tmp_path / "model.onnx").write_text("the one from before")
    with pytest.raises(kind, match=message):
        export(make(), tmp_path / "model.onnx")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["the one from before"]


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*Choose a folder that exists"):
        export(nn.RNN(D, H), tmp_path / "none" / "model.onnx")


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r"needs the package onnx. .*pip install 'tinyseq\[onnx\]'"
    ):
        export(nn.RNN(D, H), tmp_path / "model.onnx")
