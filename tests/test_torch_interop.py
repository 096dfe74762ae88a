"""`nn.interop` against PyTorch in float64, to 1e-10: outputs, final states and all gradients.

PyTorch is in the extra `bench`; without it these tests are skipped.
"""

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn

torch = pytest.importorskip("torch")

D, H, T, B = 3, 4, 6, 2


def to_tensors(arrays):
    return {name: torch.from_numpy(a) for name, a in arrays.items()}


def scrambled(module, seed=0):
    """No parameter at 0: a bias in the wrong place must not go unnoticed."""
    rng = np.random.default_rng(seed)
    for p in module.parameters():
        p._data[...] = rng.uniform(-0.7, 0.7, p.shape)
    return module


def assert_equal(ours, theirs, **kwargs):
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-10, atol=1e-10, **kwargs)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"proj_size": 2}])
@pytest.mark.parametrize("direction", ["load", "give"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_layers(kind, num_layers, bidirectional, direction, options):
    if "proj_size" in options and kind != "LSTM":
        pytest.skip("an option of the LSTM")
    options = {"bidirectional": bidirectional, **options}
    layer = getattr(nn, kind)(D, H, num_layers, **options).double()
    twin = getattr(torch.nn, kind)(D, H, num_layers, **options).double()
    if direction == "load":
        nn.interop.load_torch(layer, twin.state_dict())
    else:
        twin.load_state_dict(to_tensors(nn.interop.to_torch(scrambled(layer))))
    rng = np.random.default_rng(1)
    x = ts.tensor(rng.standard_normal((T, B, D)), requires_grad=True)
    tx = torch.from_numpy(x.numpy()).requires_grad_()
    y, state = layer(x)
    ty, t_state = twin(tx)
    assert_equal(y, ty)
    ends = [end for one in state for end in (one if bidirectional else [one])]
    t_parts = t_state if kind == "LSTM" else (t_state,)
    for k, t_part in enumerate(t_parts):
        for end, t_end in zip(ends, t_part, strict=True):
            assert_equal(end[k], t_end)

    weight = rng.standard_normal(y.shape)
    total = (y * weight).sum()
    t_total = (ty * torch.from_numpy(weight)).sum()
    for end in ends:
        total = total + sum(((s * s).sum() for s in end), start=ts.tensor(0.0))
    t_total = t_total + sum((part**2).sum() for part in t_parts)
    total.backward()
    t_total.backward()
    assert_equal(x.grad, tx.grad)
    assert_gradients_agree(layer, twin)


def assert_gradients_agree(layer, twin):
    """Our gradients, by PyTorch's names: both of its biases have the gradient of our one."""
    for p in layer.parameters():
        p._data = p.grad.numpy()  # so that to_torch gives the gradients
    for name, g in nn.interop.to_torch(layer).items():
        theirs = getattr_path(twin, name).grad.numpy()
        if "bias_hh" in name:
            g, theirs = (g[2 * H :], theirs[2 * H :]) if isinstance(twin, torch.nn.GRU) else (0, 0)
        np.testing.assert_allclose(g, theirs, rtol=1e-10, atol=1e-10, err_msg=name)


def getattr_path(module, path):
    for part in path.split("."):
        module = getattr(module, part)
    return module


@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_layer_norm(bias):
    rng = np.random.default_rng(0)
    pairs = [
        (nn.Linear(D, H, bias), torch.nn.Linear(D, H, bias)),
        (nn.LayerNorm(D, bias=bias), torch.nn.LayerNorm(D, bias=bias)),
        (nn.LayerNorm(D, eps=0.1, bias=bias), torch.nn.LayerNorm(D, eps=0.1, bias=bias)),
    ]
    for layer, twin in pairs:
        layer, twin = layer.double(), twin.double()
        twin.load_state_dict(to_tensors(nn.interop.to_torch(scrambled(layer))))
        copy = scrambled(type(layer)(D, H, bias) if len(layer.weight.shape) == 2 else
                         nn.LayerNorm(D, layer.eps, bias), seed=9).double()  # fmt: skip
        nn.interop.load_torch(copy, twin.state_dict())
        x = ts.tensor(rng.standard_normal((T, B, D)), requires_grad=True)
        tx = torch.from_numpy(x.numpy()).requires_grad_()
        y, ty = layer(x), twin(tx)
        assert_equal(y, ty)
        assert_equal(copy(x), ty)
        (y * y).sum().backward()
        (ty * ty).sum().backward()
        assert_equal(x.grad, tx.grad)
        assert_gradients_agree(layer, twin)


@pytest.mark.parametrize("padding_idx", [2, -1])
def test_an_embedding_with_padding(padding_idx):
    twin = torch.nn.Embedding(7, 3, padding_idx=padding_idx).double()
    layer = nn.Embedding(7, 3, padding_idx=padding_idx).double()
    assert layer.padding_idx == twin.padding_idx
    assert not layer.weight.numpy()[padding_idx].any()
    indices = np.array([[1, 6, 2], [2, 6, 0]])
    for row in (0.0, 0.5):  # zeros, until one is loaded
        twin.weight.data[padding_idx] = row
        nn.interop.load_torch(layer, twin.state_dict())
        layer.zero_grad()
        twin.zero_grad()
        y, ty = layer(indices), twin(torch.from_numpy(indices))
        assert_equal(y, ty)
        (y * y).sum().backward()
        (ty * ty).sum().backward()
        assert_equal(layer.weight.grad, twin.weight.grad)


def test_layer_norm_over_several_axes():
    layer = scrambled(nn.LayerNorm((B, D), eps=0.1)).double()
    twin = torch.nn.LayerNorm((B, D), eps=0.1).double()
    twin.load_state_dict(to_tensors(nn.interop.to_torch(layer)))
    x = ts.tensor(np.random.default_rng(0).standard_normal((T, B, D)), requires_grad=True)
    tx = torch.from_numpy(x.numpy()).requires_grad_()
    y, ty = layer(x), twin(tx)
    assert_equal(y, ty)
    (y**3).sum().backward()
    (ty**3).sum().backward()
    assert_equal(x.grad, tx.grad)
    assert_gradients_agree(layer, twin)


def test_embedding():
    twin = torch.nn.Embedding(7, 3)
    layer = nn.Embedding(7, 3).double()
    nn.interop.load_torch(layer, twin.state_dict())
    indices = np.array([[1, 6], [0, 1]])
    y, ty = layer(indices), twin(torch.from_numpy(indices))
    assert_equal(y, ty)
    (y * y).sum().backward()
    (ty * ty).sum().backward()
    np.testing.assert_allclose(layer.weight.grad.numpy(), twin.weight.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
def test_cells(kind, bias):
    cell = getattr(nn, kind)(D, H, bias=bias).double()
    twin = getattr(torch.nn, kind)(D, H, bias=bias).double()
    nn.interop.load_torch(cell, twin.state_dict())
    rng = np.random.default_rng(0)
    x, h, c = (rng.standard_normal(s) for s in ((B, D), (B, H), (B, H)))
    state = (h, c) if kind == "LSTMCell" else (h,)
    ours = cell(ts.tensor(x), tuple(map(ts.tensor, state)))
    t_state = tuple(map(torch.from_numpy, state))
    theirs = twin(torch.from_numpy(x), t_state if kind == "LSTMCell" else t_state[0])
    for a, b in zip(ours, theirs if kind == "LSTMCell" else (theirs,), strict=True):
        assert_equal(a, b)


class OurModel(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(7, D)
        self.lstm = nn.LSTM(D, H, 2, bidirectional=True, dropout=0.5)
        self.dropout = nn.Dropout(0.5)
        self.heads = [nn.Linear(2 * H, 5), nn.Linear(5, 2)]

    def forward(self, indices):
        y, _ = self.lstm(self.embedding(indices))
        for head in self.heads:
            y = head(self.dropout(y))
        return y


class TheirModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(7, D)
        self.lstm = torch.nn.LSTM(D, H, 2, bidirectional=True, dropout=0.5)
        self.heads = torch.nn.ModuleList([torch.nn.Linear(2 * H, 5), torch.nn.Linear(5, 2)])

    def forward(self, indices):
        y, _ = self.lstm(self.embedding(indices))
        for head in self.heads:
            y = head(y)
        return y


def test_a_whole_model_and_a_part_of_one():
    ours, theirs = OurModel().double().eval(), TheirModel().double().eval()
    nn.interop.load_torch(ours, theirs.state_dict())
    indices = np.array([[1, 6], [0, 1], [3, 3]])
    assert_equal(ours(indices), theirs(torch.from_numpy(indices)))
    part = nn.LSTM(D, H, 2, bidirectional=True).double()
    nn.interop.load_torch(part, theirs.state_dict(), prefix="lstm.")
    x = np.random.default_rng(0).standard_normal((T, B, D))
    assert_equal(part(ts.tensor(x))[0], theirs.lstm(torch.from_numpy(x))[0])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_safetensors_file_that_pytorch_wrote(tmp_path, dtype):
    from safetensors.torch import save_file

    twin = torch.nn.GRU(D, H, 2).to(getattr(torch, dtype))
    path = tmp_path / "gru.safetensors"
    save_file(twin.state_dict(), path)
    from_file, from_memory = nn.GRU(D, H, 2).double(), nn.GRU(D, H, 2).double()
    nn.interop.load_torch(from_file, str(path))
    nn.interop.load_torch(from_memory, twin.state_dict())
    x = np.random.default_rng(0).standard_normal((T, B, D))
    y, _ = from_file(ts.tensor(x))
    assert_equal(y, twin.double()(torch.from_numpy(x))[0])
    for a, b in zip(from_file.parameters(), from_memory.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
