"""`nn.interop` without PyTorch: there and back, files, and what is refused.

Agreement with PyTorch itself is in test_torch_interop.py.
"""

import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import tinyseq as ts
from tinyseq import nn
from tinyseq.errors import DtypeError
from tinyseq.nn.interop import load_torch, to_torch

D, H = 2, 3


def scrambled(module, seed=0):
    rng = np.random.default_rng(seed)
    for p in module.parameters():
        p._data[...] = rng.uniform(-0.7, 0.7, p.shape)
    return module


class Model(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(5, D)
        self.layer = nn.GRU(D, H, 2, bidirectional=True, dropout=0.1)
        self.norm = nn.LayerNorm(2 * H)
        self.head = nn.Linear(2 * H, 5)


LAYERS = {
    "rnn": lambda: nn.RNN(D, H, 2),
    "relu": lambda: nn.RNN(D, H, nonlinearity="relu", batch_first=True),
    "gru": lambda: nn.GRU(D, H, 3, bidirectional=True),
    "lstm": lambda: nn.LSTM(D, H, 2, bidirectional=True),
    "recurrent": lambda: nn.Recurrent(nn.LSTMCell(D, H)),
    "bidirectional": lambda: nn.Bidirectional(nn.GRUCell(D, H), nn.GRUCell(D, H)),
    "cell": lambda: nn.GRUCell(D, H),
    "linear": lambda: nn.Linear(D, H),
    "no_bias": lambda: nn.Linear(D, H, bias=False),
    "embedding": lambda: nn.Embedding(D, H),
    "norm": lambda: nn.LayerNorm(D),
    "model": Model,
}


@pytest.mark.parametrize("name", LAYERS)
def test_there_and_back(name, tmp_path):
    layer = scrambled(LAYERS[name]())
    theirs = to_torch(layer)
    assert all(a.flags.c_contiguous and a.dtype == np.float32 for a in theirs.values())
    copy = scrambled(LAYERS[name](), seed=1)
    load_torch(copy, theirs)
    path = tmp_path / "twin.safetensors"
    safetensors.numpy.save_file(theirs, path)
    from_file = scrambled(LAYERS[name](), seed=2)
    load_torch(from_file, path)
    for a, b, c in zip(*(m.parameters() for m in (layer, copy, from_file)), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        np.testing.assert_array_equal(a.numpy(), c.numpy())
    for a in theirs.values():
        a[...] = 99  # copies: the layer does not see it
    assert all(np.abs(p.numpy()).max() < 1 for p in layer.parameters())


def test_names_and_shapes_are_those_of_pytorch():
    shapes = {name: a.shape for name, a in to_torch(nn.LSTM(D, H, 2, bidirectional=True)).items()}
    assert shapes == {
        f"{kind}_l{layer}{way}": shape
        for layer, width in ((0, D), (1, 2 * H))
        for way in ("", "_reverse")
        for kind, shape in (
            ("weight_ih", (4 * H, width)),
            ("weight_hh", (4 * H, H)),
            ("bias_ih", (4 * H,)),
            ("bias_hh", (4 * H,)),
        )
    }
    assert list(to_torch(nn.GRUCell(D, H))) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    assert "layer.weight_ih_l1_reverse" in to_torch(Model())
    assert to_torch(nn.Linear(D, H))["weight"].shape == (H, D)


def test_the_second_bias_is_0_but_for_the_candidate_of_the_gru():
    for layer in (nn.RNN(D, H), nn.LSTM(D, H)):
        assert not to_torch(scrambled(layer))["bias_hh_l0"].any()
    gru = scrambled(nn.GRU(D, H))
    b_hh = to_torch(gru)["bias_hh_l0"]
    assert not b_hh[: 2 * H].any()
    np.testing.assert_array_equal(b_hh[2 * H :], gru.layers[0].cell.b_h.numpy())


def test_a_file_is_read_without_pytorch(tmp_path):
    path = tmp_path / "twin.safetensors"
    safetensors.numpy.save_file(to_torch(nn.LSTM(D, H)), path)
    script = (
        "import sys; sys.modules['torch'] = None; from tinyseq import nn; "
        f"layer = nn.LSTM({D}, {H}); nn.interop.load_torch(layer, sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", script, path], check=True)


def test_numbers_are_rounded_to_the_dtype_of_the_layer():
    layer = nn.Linear(1, 1, bias=False)
    load_torch(layer, {"weight": np.array([[0.1]])})
    assert layer.weight.dtype == np.float32
    load_torch(layer.double(), {"weight": ts.tensor(np.array([[0.1]]))})
    assert layer.weight.numpy()[0, 0] == 0.1


def test_a_state_that_does_not_fit_is_refused_whole():
    layer = scrambled(nn.LSTM(D, H))
    before = layer.state_dict()
    theirs = to_torch(nn.LSTM(D, H))
    theirs["bias_ih_l0"] = np.ones(5)
    theirs["weight_hr_l0"] = np.ones(5)
    del theirs["bias_hh_l0"]
    with pytest.raises(
        ValueError,
        match=r"does not fit Stacked: missing bias_hh_l0 \(12,\); unknown weight_hr_l0; bias_ih_l0 "
        r"has shape \(5,\), expected \(12,\). Build the layer with the sizes",
    ):
        load_torch(layer, theirs)
    for name, a in layer.state_dict().items():
        np.testing.assert_array_equal(a, before[name])
    with pytest.raises(ValueError, match=r"missing rnn.weight_ih_l0 \(12, 2\)"):
        load_torch(layer, theirs, prefix="rnn.")


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_torch(nn.Linear(D, H), tmp_path / "none.safetensors")
    (tmp_path / "other").write_text("no tensors in here")
    with pytest.raises(ValueError, match=r"other is not a safetensors file \(.*save_file"):
        load_torch(nn.Linear(D, H), tmp_path / "other")
    with pytest.raises(TypeError, match=r"state_dict=Linear\(.* must be a dictionary or"):
        load_torch(nn.Linear(D, H), nn.Linear(D, H))


@pytest.mark.parametrize("values", [np.ones((H, D), np.int64), np.ones((H, D), bool)])
def test_entries_that_are_no_floats(values, tmp_path):
    theirs = to_torch(nn.Linear(D, H)) | {"weight": values}
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(theirs, path)
    for source in (theirs, path):
        with pytest.raises(DtypeError, match="weight does not hold floats"):
            load_torch(nn.Linear(D, H), source)


def own():
    class Own(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(np.ones(2))

    return Own()


REFUSED = [
    (lambda: nn.LSTM(D, H, peephole="new"), r"no counterpart of PeepholeLSTMCell. RNN, GRU"),
    (lambda: nn.GRU(D, H, layer_norm=True), r"no counterpart of LayerNormGRUCell"),
    (lambda: nn.LayerNormLSTMCell(D, H), r"no counterpart of LayerNormLSTMCell"),
    (lambda: nn.GRU(D, H, variant="simplified"), r"no GRU of variant 'simplified'. Use"),
    (lambda: nn.LSTM(D, H, coupled=True), r"no counterpart of CoupledLSTMCell"),
    (lambda: nn.GRU(D, H, clip=0.5), r"no GRUCell that clips, and this one has clip=0.5"),
    (lambda: nn.RNN(D, H, nonlinearity="elu"), r"no RNN with nonlinearity='elu'. It has"),
    (lambda: nn.RNN(D, H, nonlinearity="sigmoid"), r"no RNN with nonlinearity='sigmoid'. It has"),
    (lambda: nn.Recurrent(nn.Zoneout(nn.LSTMCell(D, H))), r"no counterpart of Zoneout"),
    (lambda: nn.Zoneout(nn.LSTMCell(D, H)), r"no counterpart of Zoneout"),
    (lambda: nn.Recurrent(own()), r"no counterpart of Own"),
    (own, r"no counterpart of Own"),
    (lambda: nn.Recurrent(nn.RNNCell(D, H), reverse=True), r"of this Recurrent: it stacks layers"),
    (lambda: nn.Stacked(nn.RNN(D, H), nn.RNN(H, H)), r"of this Stacked: it stacks layers"),
    (lambda: nn.Bidirectional(nn.RNN(D, H), nn.RNN(D, H)), r"of this Bidirectional: it stacks"),
    (
        lambda: nn.Bidirectional(nn.RNNCell(D, H), nn.RNNCell(D, 4)),
        r"the same cell, size and directions.*\('RNNCell', 3, 'tanh'\), \('RNNCell', 4, 'tanh'\)",
    ),
    (lambda: nn.Stacked(nn.RNNCell(D, H), nn.GRUCell(H, H)), r"the same cell, size and"),
    (
        lambda: nn.Stacked(nn.RNNCell(D, H), nn.RNNCell(H, H, "relu")),
        r"'relu'\), \('RNNCell', 3, 'tanh'\)",
    ),
    (
        lambda: nn.Stacked(nn.RNNCell(D, H), nn.Bidirectional(nn.RNNCell(H, H), nn.RNNCell(H, H))),
        r"in layers of 1, 2 directions",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_pytorch_has_not(make, message):
    with pytest.raises(TypeError, match=message):
        to_torch(make())
    with pytest.raises(TypeError, match=message):
        load_torch(make(), {})
