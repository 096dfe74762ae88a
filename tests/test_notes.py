"""`nn.notes`: the notes' equations, with columns, on the matrices that it gives."""

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn
from tinyseq.nn import notes

T, B, D, H = 4, 3, 2, 5
CELLS = {
    "rnn": lambda **o: nn.RNNCell(D, H, **o),
    "gru_simplified": lambda **o: nn.GRUCell(D, H, "simplified", **o),
    "gru": lambda **o: nn.GRUCell(D, H, "reset_before", **o),
    "lstm": lambda **o: nn.LSTMCell(D, H, **o),
    "peephole": lambda **o: nn.PeepholeLSTMCell(D, H, "previous", **o),
}


def scrambled(module, seed=0):
    rng = np.random.default_rng(seed)
    for p in module.parameters():
        p._data[...] = rng.uniform(-0.7, 0.7, p.shape)
    return module


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def step(name, W, x, a, c):
    """One step as the notes write it: columns x (D, B), a and c (H, B)."""

    def gate(g, seen, p=0.0):
        return sigmoid(W[f"W_{g}"] @ np.concatenate([seen, x]) + p + W[f"b_{g}"])

    if name == "rnn":
        W_a = np.hstack([W["W_aa"], W["W_ax"]])
        a = np.tanh(W_a @ np.concatenate([a, x]) + W["b_a"])
        return a, a
    if name.startswith("gru"):
        Γ_u = gate("u", c)
        Γ_r = gate("r", c) if name == "gru" else 1.0
        c_tilde = np.tanh(W["W_c"] @ np.concatenate([Γ_r * c, x]) + W["b_c"])
        c = Γ_u * c_tilde + (1 - Γ_u) * c
        return c, c
    seen = {g: W[f"p_{g}"] * c if name == "peephole" else 0.0 for g in "ufo"}
    c_tilde = np.tanh(W["W_c"] @ np.concatenate([a, x]) + W["b_c"])
    Γ_u, Γ_f, Γ_o = (gate(g, a, seen[g]) for g in "ufo")
    c = Γ_u * c_tilde + Γ_f * c
    return Γ_o * np.tanh(c), c


@pytest.mark.parametrize("name", CELLS)
def test_the_equations_of_the_notes(name):
    cell, head = scrambled(CELLS[name]()).double(), scrambled(nn.Linear(H, 7)).double()
    W = notes.weights(cell) | notes.weights(head)
    x = np.random.default_rng(1).standard_normal((T, B, D))
    y, state = nn.Recurrent(cell)(ts.tensor(x))
    a = c = np.zeros((H, B))
    for t in range(T):
        a, c = step(name, W, x[t].T, a, c)
        np.testing.assert_allclose(y[t].numpy(), a.T, atol=1e-14)
        y_hat = W["W_ya"] @ a + W["b_y"]
        np.testing.assert_allclose(head(y[t]).numpy(), y_hat.T, atol=1e-14)
    np.testing.assert_allclose(state[-1].numpy(), c.T, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", [*CELLS, "linear"])
def test_there_and_back_to_the_bit(name, bias, dtype):
    make = CELLS.get(name, lambda **options: nn.Linear(H, 7, **options))
    before, after = (scrambled(make(bias=bias), seed).astype(dtype) for seed in (0, 1))
    W = notes.weights(before)
    assert all(a.dtype == dtype and a.ndim == 2 for a in W.values())
    assert bias == any(n.startswith("b_") for n in W)
    notes.load(after, W)
    for n, a in before.state_dict().items():
        np.testing.assert_array_equal(after.state_dict()[n], a)


def test_what_does_not_fit_is_refused_whole():
    cell = scrambled(nn.LSTMCell(D, H))
    before, W = cell.state_dict(), notes.weights(cell)
    wrong = {n: a for n, a in W.items() if n != "b_u"} | {"W_u": W["W_u"].T, "W_r": W["W_u"]}
    with pytest.raises(ValueError, match=r"missing b_u .* unknown W_r; W_u has shape \(7, 5\)"):
        notes.load(cell, wrong)
    with pytest.raises(ValueError, match=r"b holds 1e\+300, which float32 cannot"):
        notes.load(cell, W | {"b_u": np.full((H, 1), 1e300)})
    for name, a in before.items():
        np.testing.assert_array_equal(cell.state_dict()[name], a)


@pytest.mark.parametrize("make", [
    lambda: nn.GRUCell(D, H), lambda: nn.LayerNormLSTMCell(D, H), lambda: nn.GRU(D, H),
    lambda: nn.CoupledLSTMCell(D, H),
])  # fmt: skip
def test_what_the_notes_have_not(make):
    with pytest.raises(TypeError, match=r"the notes have no .*GRUCell with variant='reset_before'"):
        notes.weights(make())


@pytest.mark.parametrize("use", [notes.weights, lambda cell: notes.load(cell, {})])
def test_the_notes_do_not_clip(use):
    with pytest.raises(TypeError, match=r"the notes have no RNNCell that clips.*clip=0.5"):
        use(nn.RNNCell(D, H, clip=0.5))
