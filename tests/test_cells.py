"""Peepholes, layer norm, and the wrappers around any cell: equations, gradients, lengths, errors.

Two cells are written here as a user would write them and go through everything that the built-in
ones do.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_nn import double, random, sigmoid

import tinyseq as ts
from tinyseq import nn
from tinyseq.errors import ShapeError


def flat(state):
    return [state] if isinstance(state, ts.Tensor) else [t for part in state for t in flat(part)]


# -- two cells of a user's own -------------------------------------------------------------------


class OwnPeepholeLSTM(nn.Module):
    def __init__(self, D, H):
        self.H = H
        self.w = [nn.Linear(D + H, H) for _ in range(4)]
        self.p_u = nn.Parameter(np.full(H, 0.2))
        self.p_f = nn.Parameter(np.full(H, -0.1))
        self.p_o = nn.Parameter(np.full(H, 0.3))

    def initial_state(self, batch_size, dtype=np.float32):
        return tuple(ts.tensor(np.zeros((batch_size, self.H)), dtype) for _ in range(2))

    def __call__(self, x, state):
        h, c = state
        both = ts.concat([x, h], axis=-1)
        u = ts.sigmoid(self.w[0](both) + self.p_u * c)
        f = ts.sigmoid(self.w[1](both) + self.p_f * c)
        c = u * ts.tanh(self.w[2](both)) + f * c
        o = ts.sigmoid(self.w[3](both) + self.p_o * c)
        return o * ts.tanh(c), c


class OwnLayerNormGRU(nn.Module):
    def __init__(self, D, H):
        self.H = H
        self.w_x = nn.Parameter(random(D, 3 * H, seed=7).numpy() * 0.5)
        self.w_h = nn.Parameter(random(H, 3 * H, seed=8).numpy() * 0.5)
        self.norm_x = nn.LayerNorm(3 * H)
        self.norm_h = nn.LayerNorm(3 * H)

    def initial_state(self, batch_size, dtype=np.float32):
        return (ts.tensor(np.zeros((batch_size, self.H)), dtype),)

    def __call__(self, x, state):
        (h,) = state
        x_u, x_r, x_c = ts.split(self.norm_x(x @ self.w_x), 3, axis=-1)
        h_u, h_r, h_c = ts.split(self.norm_h(h @ self.w_h), 3, axis=-1)
        u = ts.sigmoid(x_u + h_u)
        candidate = ts.tanh(x_c + ts.sigmoid(x_r + h_r) * h_c)
        return (u * candidate + (1 - u) * h,)


# -- the equations, once more in NumPy -----------------------------------------------------------


def norm(a, layer):
    y = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + layer.eps)
    return y * layer.weight.numpy() + (0 if layer.bias is None else layer.bias.numpy())


def clipped(cell, a):
    return a if cell.clip is None else np.minimum(np.maximum(a, -cell.clip), cell.clip)


def sums(cell, x, h, k):
    """What goes into each of the k activations."""
    a = x @ cell.w_x.numpy() + h @ cell.w_h.numpy() + cell.b.numpy()
    return np.split(a, k, axis=1)


def numpy_rnn(g):
    return lambda cell, x, h: (g(clipped(cell, *sums(cell, x, h, 1))),)


def numpy_gru(cell, x, h):
    k = 2 if cell.variant == "simplified" else 3
    H, w_h, b = cell.hidden_size, cell.w_h.numpy(), cell.b.numpy()
    u = sigmoid(clipped(cell, sums(cell, x, h, k)[0]))
    a = x @ cell.w_x.numpy()[:, -H:] + b[-H:]
    if cell.variant == "simplified":
        a += h @ w_h[:, -H:]
    else:
        r = sigmoid(clipped(cell, sums(cell, x, h, k)[1]))
        after = cell.variant == "reset_after"
        a += r * (h @ w_h[:, -H:] + cell.b_h.numpy()) if after else (r * h) @ w_h[:, -H:]
    return (u * np.tanh(clipped(cell, a)) + (1 - u) * h,)


def numpy_lstm(cell, x, h, c):
    u, f, o, g = (clipped(cell, a) for a in sums(cell, x, h, 4))
    c = sigmoid(u) * np.tanh(g) + sigmoid(f) * c
    return sigmoid(o) * np.tanh(c), c


def numpy_coupled(cell, x, h, c):
    u, o, g = (clipped(cell, a) for a in sums(cell, x, h, 3))
    c = sigmoid(u) * np.tanh(g) + sigmoid(-u) * c
    return sigmoid(o) * np.tanh(c), c


def numpy_peephole(cell, x, h, c):
    u, f, o, g = sums(cell, x, h, 4)
    u, f = (clipped(cell, a + p.numpy() * c) for a, p in ((u, cell.p_u), (f, cell.p_f)))
    new = sigmoid(u) * np.tanh(clipped(cell, g)) + sigmoid(f) * c
    o = clipped(cell, o + cell.p_o.numpy() * (new if cell.output_sees == "new" else c))
    return sigmoid(o) * np.tanh(new), new


def numpy_layer_norm_lstm(cell, x, h, c):
    gates = norm(x @ cell.w_x.numpy(), cell.norm_x) + norm(h @ cell.w_h.numpy(), cell.norm_h)
    u, f, o, g = np.split(clipped(cell, gates + cell.b.numpy()), 4, axis=1)
    c = sigmoid(u) * np.tanh(g) + sigmoid(f) * c
    return sigmoid(o) * np.tanh(norm(c, cell.norm_c)), c


def numpy_layer_norm_gru(cell, x, h):
    from_x = norm(x @ cell.w_x.numpy(), cell.norm_x) + cell.b.numpy()
    x_u, x_r, x_c = np.split(from_x, 3, axis=1)
    h_u, h_r, h_c = np.split(norm(h @ cell.w_h.numpy(), cell.norm_h), 3, axis=1)
    u, r = sigmoid(clipped(cell, x_u + h_u)), sigmoid(clipped(cell, x_r + h_r))
    return (u * np.tanh(clipped(cell, x_c + r * (h_c + cell.b_h.numpy()))) + (1 - u) * h,)


def numpy_own_peephole(cell, x, h, c):
    both = np.concatenate([x, h], axis=1)
    u, f, g, o = (both @ w.weight.numpy() + w.bias.numpy() for w in cell.w)
    new = sigmoid(u + cell.p_u.numpy() * c) * np.tanh(g) + sigmoid(f + cell.p_f.numpy() * c) * c
    return sigmoid(o + cell.p_o.numpy() * new) * np.tanh(new), new


def numpy_own_gru(cell, x, h):
    x_u, x_r, x_c = np.split(norm(x @ cell.w_x.numpy(), cell.norm_x), 3, axis=1)
    h_u, h_r, h_c = np.split(norm(h @ cell.w_h.numpy(), cell.norm_h), 3, axis=1)
    u = sigmoid(x_u + h_u)
    return (u * np.tanh(x_c + sigmoid(x_r + h_r) * h_c) + (1 - u) * h,)


def numpy_zoneout(cell, x, h, c):
    """In evaluation: the expectation, part by part."""
    H = cell.hidden_size
    w = cell.cell
    gates = x @ w.w_x.numpy() + h @ w.w_h.numpy() + w.b.numpy()
    u, f, o = np.split(sigmoid(gates[:, : 3 * H]), 3, axis=1)
    new = u * np.tanh(gates[:, 3 * H :]) + f * c
    p_h, p_c = cell.p
    return p_h * h + (1 - p_h) * o * np.tanh(new), p_c * c + (1 - p_c) * new


CELLS = {
    "peephole_new": (lambda D, H: nn.PeepholeLSTMCell(D, H), numpy_peephole),
    "peephole_previous": (lambda D, H: nn.PeepholeLSTMCell(D, H, "previous"), numpy_peephole),
    "layer_norm_lstm": (nn.LayerNormLSTMCell, numpy_layer_norm_lstm),
    "layer_norm_gru": (nn.LayerNormGRUCell, numpy_layer_norm_gru),
    "own_peephole": (OwnPeepholeLSTM, numpy_own_peephole),
    "own_layer_norm_gru": (OwnLayerNormGRU, numpy_own_gru),
    "zoneout": (lambda D, H: nn.Zoneout(nn.LSTMCell(D, H), (0.2, 0.4)).eval(), numpy_zoneout),
    "coupled": (nn.CoupledLSTMCell, numpy_coupled),
}
ACTIVATIONS = {
    "elu": lambda a: np.where(a > 0, a, np.expm1(a)),
    "leaky_relu": lambda a: np.maximum(a, 0.01 * a),
    "softsign": lambda a: a / (1 + np.abs(a)),
    "sigmoid": sigmoid,
    "softplus": lambda a: np.log1p(np.exp(a)),
}
CELLS |= {g: (lambda D, H, g=g: nn.RNNCell(D, H, g), numpy_rnn(f)) for g, f in ACTIVATIONS.items()}
VARIANTS = ("reset_after", "reset_before", "simplified")
CLIPPED = {
    "rnn": (lambda D, H: nn.RNNCell(D, H, clip=0.4), numpy_rnn(np.tanh)),
    "elu": (lambda D, H: nn.RNNCell(D, H, "elu", clip=0.4), numpy_rnn(ACTIVATIONS["elu"])),
    **{v: (lambda D, H, v=v: nn.GRUCell(D, H, v, clip=0.4), numpy_gru) for v in VARIANTS},
    "lstm": (lambda D, H: nn.LSTMCell(D, H, clip=0.4), numpy_lstm),
    "coupled": (lambda D, H: nn.CoupledLSTMCell(D, H, clip=0.4), numpy_coupled),
    "peephole_new": (lambda D, H: nn.PeepholeLSTMCell(D, H, clip=0.4), numpy_peephole),
    "peephole_previous": (
        lambda D, H: nn.PeepholeLSTMCell(D, H, "previous", clip=0.4),
        numpy_peephole,
    ),
    "layer_norm_lstm": (lambda D, H: nn.LayerNormLSTMCell(D, H, clip=0.4), numpy_layer_norm_lstm),
    "layer_norm_gru": (lambda D, H: nn.LayerNormGRUCell(D, H, clip=0.4), numpy_layer_norm_gru),
}
CELLS |= {f"{name}_clipped": CLIPPED[name] for name in ("elu", "reset_before", "coupled")}


def state_of(cell, B, H, seed=5):
    n = len(cell.initial_state(1))
    return tuple(random(B, H, seed=seed + i, requires_grad=True) for i in range(n))


@pytest.mark.parametrize(("make", "reference"), [*CELLS.values(), *CLIPPED.values()])
@given(B=st.integers(1, 3), D=st.integers(1, 4), H=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_cell_is_its_equations(make, reference, B, D, H, seed):
    cell = double(make(D, H), seed)
    x, state = random(B, D, seed=seed), state_of(cell, B, H, seed)
    ours, theirs = cell(x, state), reference(cell, x.numpy(), *(s.numpy() for s in state))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_through_five_unrolled_steps(name, order):
    """The differences are compiled ones, once there were steps enough."""
    H = 3 if order == 1 else 2
    cell = double(CELLS[name][0](1, H))
    x, state = random(5, 1, 1, requires_grad=True), state_of(cell, 1, H)
    n = len(state)

    def run(x, *rest):
        y, last = nn.Recurrent(cell)(x, rest[:n])
        return (y, *last)

    assert ts.gradcheck(run, [x, *state, *cell.parameters()], order=order)


# -- over time, in depth, with lengths -----------------------------------------------------------

WRAPPED = {
    "learned_state": lambda D, H: nn.LearnedState(nn.GRUCell(D, H)),
    "variational": lambda D, H: nn.VariationalDropout(nn.GRUCell(D, H), 0.4, 0.4),
    "all": lambda D, H: nn.LearnedState(
        nn.VariationalDropout(nn.Zoneout(nn.PeepholeLSTMCell(D, H), (0.1, 0.3)), 0.3, 0.3)
    ),
    "own_wrapped": lambda D, H: nn.Zoneout(nn.VariationalDropout(OwnLayerNormGRU(D, H)), 0.2),
}
EVERY = {name: make for name, (make, _) in CELLS.items()} | WRAPPED


def total(y, state):
    return sum(((t * t).sum() for t in [y, *flat(state)]), start=ts.tensor(0.0))


def results(layer, x, **kwargs):
    """Outputs, states and all gradients."""
    leaf = ts.tensor(x.numpy(), requires_grad=True)
    y, state = layer(leaf, **kwargs)
    layer.zero_grad()
    total(y, state).backward()
    gradients = [p.grad.numpy() for p in layer.parameters()]
    return [y.numpy(), *(s.numpy() for s in flat(state)), leaf.grad.numpy(), *gradients]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_products_computed_ahead_change_nothing(name, training):
    both = []
    for mode in ("unroll", None):
        ts.seed(0)
        layer = double(nn.Recurrent(EVERY[name](3, 4), mode=mode)).train(training)
        both.append(results(layer, random(5, 2, 3)))
    for a, b in zip(*both, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("lengths", [[3, 5, 1], [4, 4]])
def test_padding_changes_nothing(name, lengths):
    """Both directions, stacked: as if each sequence had been alone, in any order of lengths."""
    make = EVERY[name]

    def both(D, H):
        return nn.Bidirectional(make(D, H), make(D, H))

    layer = double(nn.Stacked(both(2, 3), both(6, 3))).eval()
    x = random(5, len(lengths), 2)
    y, state, dx, *gradients = packed(layer, x, lengths)
    added = [np.zeros_like(g) for g in gradients]
    for b, n in enumerate(lengths):
        assert not y[n:, b].any()
        assert not dx[n:, b].any()
        y_one, state_one, dx_one, *gradients_one = packed(layer, x[:n, b : b + 1], None)
        np.testing.assert_allclose(y[:n, b], y_one[:, 0], atol=1e-11)
        np.testing.assert_allclose(dx[:n, b], dx_one[:, 0], rtol=1e-9, atol=1e-11)
        for s, s_one in zip(state, state_one, strict=True):
            np.testing.assert_allclose(s[b], s_one[0], atol=1e-11)
        for g, g_one in zip(added, gradients_one, strict=True):
            g += g_one
    for a, b in zip(gradients, added, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def packed(layer, x, lengths):
    leaf = ts.tensor(x.numpy(), requires_grad=True)
    y, state = layer(leaf, lengths=lengths)
    layer.zero_grad()
    total(y, state).backward()
    gradients = [p.grad.numpy() for p in layer.parameters()]
    return y.numpy(), [s.numpy() for s in flat(state)], leaf.grad.numpy(), *gradients


@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_behind_the_end_is_not_seen_in_training_either(name):
    layer = double(nn.Bidirectional(EVERY[name](2, 3), EVERY[name](2, 3)))
    x = random(5, 2, 2)
    other = ts.tensor(x.numpy())
    other.data[3:, 1] = 99
    outcomes = []
    for one in (x, other):
        ts.seed(0)
        outcomes.append(results(layer, one, lengths=[5, 3]))
    for a, b in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("cut", [1, 4])
def test_a_sequence_cut_in_chunks_is_the_whole(name, cut):
    layer = double(nn.Stacked(EVERY[name](2, 3), EVERY[name](3, 2))).eval()
    x = random(6, 2, 2)
    whole, last = layer(x)
    first, state = layer(x[:cut])
    second, end = layer(x[cut:], state)
    np.testing.assert_allclose(ts.concat([first, second]).numpy(), whole.numpy(), atol=1e-12)
    for a, b in zip(flat(end), flat(last), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", WRAPPED)
def test_gradients_through_wrappers_in_training(name, order):
    layer = double(nn.Recurrent(WRAPPED[name](1, 3)))
    x = random(5, 2, 1, requires_grad=True)
    parameters = [p for p in layer.parameters() if order == 1 or p.size <= 3]

    def run(x, *_):
        ts.seed(0)  # the same masks in every evaluation
        y, last = layer(x, lengths=[5, 3])
        return (y, *last)

    assert ts.gradcheck(run, [x, *parameters], order=order)


# -- layer norm ----------------------------------------------------------------------------------


def test_layer_norm():
    layer = double(nn.LayerNorm(4))
    x = random(3, 2, 4, requires_grad=True)
    np.testing.assert_allclose(layer(x).numpy(), norm(x.numpy(), layer), rtol=1e-12)
    for order in (1, 2):
        assert ts.gradcheck(lambda *_: layer(x), [x, *layer.parameters()], order=order)
    plain = nn.LayerNorm(4, bias=False).double()
    y = plain(x).numpy()
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(-1), 1, rtol=1e-3)
    assert [name for name, _ in plain.named_parameters()] == ["weight"]
    np.testing.assert_array_equal(plain(ts.tensor(np.full((1, 4), 7.0))).numpy(), np.zeros((1, 4)))
    assert repr(plain) == "LayerNorm(4, eps=1e-05)"


# -- the wrappers --------------------------------------------------------------------------------


def test_new_cells_start_as_the_plain_ones():
    """Peepholes start at 0; the bias of the forget gate at 1."""
    peephole, plain = nn.PeepholeLSTMCell(2, 3), nn.LSTMCell(2, 3)
    plain.load_state_dict({n: peephole.state_dict()[n] for n in plain.state_dict()})
    x, state = random(2, 2), (random(2, 3), random(2, 3, seed=1))
    for a, b in zip(peephole(x, state), plain(x, state), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
    normed = nn.LayerNormLSTMCell(2, 3, forget_bias=2.0)
    assert normed.b.numpy().reshape(4, 3).mean(axis=1).tolist() == [0, 2, 0, 0]
    coupled = nn.CoupledLSTMCell(2, 3, forget_bias=2.0)  # f = 1 − u = σ(2)
    assert coupled.b.numpy().reshape(3, 3).mean(axis=1).tolist() == [-2, 0, 0]


def test_a_coupled_cell_is_an_lstm_whose_forget_gate_mirrors_the_update_gate():
    coupled, plain = double(nn.CoupledLSTMCell(2, 3)), nn.LSTMCell(2, 3).double()
    for name, p in coupled.named_parameters():
        u, rest = p.numpy()[..., :3], p.numpy()[..., 3:]
        getattr(plain, name).data[...] = np.concatenate([u, -u, rest], axis=-1)
    x = random(5, 2, 2)
    y, same = nn.Recurrent(coupled)(x)[0], nn.Recurrent(plain)(x)[0]
    np.testing.assert_allclose(y.numpy(), same.numpy(), rtol=1e-12)


def test_factories():
    def cells(layer):
        return [m for _, m in layer.named_modules() if isinstance(m, nn.Cell)]

    for output_sees in ("new", "previous"):
        lstm = nn.LSTM(2, 3, 2, peephole=output_sees, bidirectional=True)
        assert [type(c) for c in cells(lstm)] == [nn.PeepholeLSTMCell] * 4
        assert {c.output_sees for c in cells(lstm)} == {output_sees}
    assert [type(c) for c in cells(nn.LSTM(2, 3, 2, layer_norm=True))] == [nn.LayerNormLSTMCell] * 2
    assert [type(c) for c in cells(nn.GRU(2, 3, 2, layer_norm=True))] == [nn.LayerNormGRUCell] * 2
    assert [type(c) for c in cells(nn.LSTM(2, 3, 2, coupled=True))] == [nn.CoupledLSTMCell] * 2
    y, _ = nn.GRU(2, 3, layer_norm=True)(ts.tensor(np.ones((4, 2, 2), np.float32)))
    assert y.dtype == np.float32


def test_a_learned_state_is_where_sequences_start():
    cell = nn.LearnedState(nn.LSTMCell(2, 3))
    assert [n for n, _ in cell.named_parameters()][:2] == ["h0", "c0"]
    layer = nn.Recurrent(double(cell))
    x = random(4, 2, 2)
    given = tuple(ts.tensor(np.tile(p.numpy(), (2, 1))) for p in (cell.h0, cell.c0))
    y, _ = layer(x)
    np.testing.assert_array_equal(y.numpy(), layer(x, given)[0].numpy())
    y.sum().backward()
    assert cell.h0.grad.numpy().any()
    assert cell.c0.grad.numpy().any()
    single = nn.LearnedState(nn.LSTMCell(2, 3)).initial_state(5, np.float64)
    assert [(s.shape, s.dtype) for s in single] == [((5, 3), np.float64)] * 2


def test_a_learned_state_around_a_cell_that_has_none():
    class Plain(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(np.full((3, 3), 0.1))

        def __call__(self, x, state):
            return (ts.tanh(x + state[0] @ self.w),)

    cell = nn.LearnedState(Plain(), state=[[1.0, 2.0, 3.0]]).double()
    assert [n for n, _ in cell.named_parameters()] == ["state0", "cell.w"]
    np.testing.assert_array_equal(cell.initial_state(2)[0].numpy(), [[1, 2, 3]] * 2)
    y, _ = nn.Recurrent(cell)(random(4, 2, 3))
    assert y.shape == (4, 2, 3)
    with pytest.raises(ValueError, match="Plain does not say how its state starts"):
        nn.LearnedState(Plain())
    with pytest.raises(ShapeError, match=r"1 tensors for the state \(h, c\) of LSTMCell"):
        nn.LearnedState(nn.LSTMCell(2, 3), state=[np.zeros(3)])


class Recorder(nn.Module):
    """A cell that keeps what it is given."""

    def __init__(self):
        self.calls = []

    def initial_state(self, batch_size, dtype=np.float32):
        return (ts.tensor(np.ones((batch_size, 50)), dtype),)

    def __call__(self, x, state):
        self.calls.append((x.numpy(), state[0].numpy()))
        return (ts.tensor(np.ones_like(state[0].numpy())),)


@pytest.mark.unrolled("its cell notes what it is called with")
def test_variational_dropout_drops_the_same_units_at_every_step():
    cell = Recorder()
    layer = nn.Recurrent(nn.VariationalDropout(cell, 0.25, 0.5, rng=np.random.default_rng(0)))
    ones = ts.tensor(np.ones((6, 40, 50), np.float32))
    layer(ones)
    first, cell.calls = cell.calls, []
    for i, p in ((0, 0.25), (1, 0.5)):
        masks = np.stack([call[i] for call in first])
        assert np.all(masks == masks[0])
        assert set(np.unique(masks)) == {0, np.float32(1) / np.float32(1 - p)}
        assert (masks[0] == 0).mean() == pytest.approx(p, abs=0.03)
        assert not np.all(masks[0, 0] == masks[0, 1])  # each sequence has its own
    layer(ones)
    assert not np.array_equal(first[0][0], cell.calls[0][0])  # and each call
    layer.eval()
    cell.calls = []
    layer(ones)
    assert all(np.all(x == 1) and np.all(h == 1) for x, h in cell.calls)


def test_a_gru_under_dropout_carries_its_whole_state():
    """Only what the weights see is dropped: with a shut update gate nothing is lost, nor grows."""
    for cell in (*(nn.GRUCell(2, 8, v) for v in VARIANTS), nn.LayerNormGRUCell(2, 8)):
        cell.b.data[:8] = -200  # u = 0: h' = h
        h = random(3, 8).astype(np.float32)
        for wrapped in (
            nn.VariationalDropout(cell, 0.5, 0.5),
            nn.VariationalDropout(nn.Zoneout(cell, 0.5), 0.5, 0.5),
            nn.VariationalDropout(nn.LearnedState(cell), 0.5, 0.5),
            nn.VariationalDropout(nn.VariationalDropout(cell), 0.5, 0.5),
        ):
            _, (last,) = nn.Recurrent(wrapped)(ts.tensor(np.ones((9, 3, 2), np.float32)), (h,))
            np.testing.assert_array_equal(last.numpy(), h.numpy())


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_gru_sees_reaches_every_product_with_its_weights(variant):
    cell = double(nn.GRUCell(2, 3, variant))
    x, h, seen = random(2, 2), random(2, 3), random(2, 3, seed=1)
    (usual,) = cell(x, (seen,))
    (ours,) = cell(x, (h,), seen=seen)
    u = sigmoid(
        x.numpy() @ cell.w_x.numpy()[:, :3]
        + seen.numpy() @ cell.w_h.numpy()[:, :3]
        + cell.b.numpy()[:3]
    )
    expected = usual.numpy() + (1 - u) * (h.numpy() - seen.numpy())
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12, atol=1e-14)


def test_zoneout_keeps_units_for_a_step():
    inner = nn.LSTMCell(4, 50)
    cell = nn.Zoneout(inner, (0.1, 0.6), rng=np.random.default_rng(0))
    x, state = random(40, 4), (random(40, 50), random(40, 50, seed=1))
    fresh = inner(x, state)
    for p, before, new, after in zip(cell.p, state, fresh, cell(x, state), strict=True):
        kept = after.numpy() == before.numpy()
        np.testing.assert_array_equal(after.numpy()[~kept], new.numpy()[~kept])
        assert kept.mean() == pytest.approx(p, abs=0.03)
    cell.eval()
    for p, before, new, after in zip(cell.p, state, fresh, cell(x, state), strict=True):
        np.testing.assert_allclose(after.numpy(), p * before.numpy() + (1 - p) * new.numpy())


def test_zoneout_under_dropout_keeps_the_whole_state():
    cell = nn.VariationalDropout(nn.Zoneout(nn.LSTMCell(4, 50), 0.9), 0.5, 0.5)
    state = (random(40, 50), random(40, 50, seed=1))
    for before, after in zip(state, cell(random(40, 4), state), strict=True):
        assert (after.numpy() == before.numpy()).mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.unrolled("its cell notes what it is called with")
def test_zoneout_draws_anew_at_every_step():
    cell = Recorder()
    layer = nn.Recurrent(nn.Zoneout(cell, 0.5, rng=np.random.default_rng(0)))
    start = ts.tensor(np.zeros((3, 50), np.float32))
    y, _ = layer(ts.tensor(np.ones((20, 3, 1), np.float32)), (start,))
    assert np.diff(y.numpy(), axis=0).min() == 0  # the cell says 1: what has changed stays
    assert 0.3 < y.numpy()[0].mean() < 0.7
    assert y.numpy()[1].mean() > y.numpy()[0].mean()
    assert y.numpy()[-1].all()


@pytest.mark.parametrize("name", WRAPPED)
def test_the_same_seed_gives_the_same_bits(name):
    layer = nn.Recurrent(double(WRAPPED[name](2, 3)))
    x = random(4, 2, 2)

    def run():
        ts.seed(7)
        return results(layer, x)

    for a, b in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(a, b)
    layer.eval()
    before = ts.random.get_state()
    layer(x)
    assert ts.random.get_state() == before  # evaluation draws nothing


@pytest.mark.unrolled("float64 inputs of float32 parameters run unrolled")
def test_an_rng_of_its_own():
    def run():
        rng = np.random.default_rng(5)
        ts.seed(0)
        cell = nn.VariationalDropout(nn.Zoneout(nn.LSTMCell(2, 3), 0.3, rng), 0.3, 0.3, rng)
        before = ts.random.get_state()
        y, _ = nn.Recurrent(cell)(random(4, 2, 2))
        assert ts.random.get_state() == before
        return y.numpy()

    np.testing.assert_array_equal(run(), run())


def test_a_cell_of_your_own_may_draw():
    class Noisy(nn.Module):
        def noise(self, x, state):
            return np.arange(len(x))[:, None, None] + np.zeros((1, *state[0].shape))

        def __call__(self, x, state, noise=None):
            return (state[0] + noise,)

    start = (ts.tensor(np.zeros((2, 3))),)
    for cell in (Noisy(), nn.Zoneout(Noisy(), 0.0), nn.VariationalDropout(Noisy(), 0.5, 0.0)):
        y, _ = nn.Recurrent(cell, reverse=True)(random(4, 2, 3), start)
        np.testing.assert_array_equal(y.numpy()[:, 0, 0], [6, 6, 5, 3])


@pytest.mark.unrolled("about the paths of single steps")
def test_paths_and_names_show_the_wrappers():
    layer = nn.Stacked(nn.Zoneout(nn.LSTMCell(2, 3), 0.5))
    names = [n for n, _ in layer.named_parameters()]
    assert names == ["layers.0.cell.cell.w_x", "layers.0.cell.cell.w_h", "layers.0.cell.cell.b"]
    y, _ = layer(random(2, 1, 2))
    paths = {t.node.scope for t in ts.graph.topological(y) if t.node is not None}
    assert ("Stacked", "layers.0", "t=1", "cell", "cell") in paths
    assert "Zoneout(p=0.5" in repr(layer)
    assert "p_x=0.1, p_h=0.2" in repr(nn.VariationalDropout(nn.RNNCell(2, 3), 0.1, 0.2))
    assert (layer.input_size, layer.hidden_size) == (2, 3)


# -- errors --------------------------------------------------------------------------------------

X = ts.tensor(np.ones((4, 2, 3), np.float32))

ERRORS = [
    (lambda: nn.LSTM(3, 4, peephole="old"), ValueError, r"peephole='old' must be 'new'"),
    (lambda: nn.LSTM(3, 4, peephole="new", layer_norm=True), ValueError, r"both layer_norm and"),
    (lambda: nn.LSTM(3, 4, peephole="new", coupled=True), ValueError, r"both peephole and coupled"),
    (lambda: nn.RNN(3, 4, clip=0.0), ValueError, r"clip=0.0 must be .*, above 0"),
    (
        lambda: nn.GRU(3, 4, variant="simplified", layer_norm=True),
        ValueError,
        r"layer_norm=True has no variant='simplified'. Use variant='reset_after'",
    ),
    (lambda: nn.LayerNorm(0), ValueError, r"features=0 must be a whole number"),
    (lambda: nn.LayerNorm(3, eps=0), ValueError, r"eps=0 must be .*, above 0"),
    (lambda: nn.LayerNorm(4)(X), ShapeError, r"LayerNorm in LayerNorm: x has .*\(4, 2, 3\).*=4"),
    (lambda: nn.LayerNorm(4)(ts.tensor(1.0)), ShapeError, r"features=4"),
    (
        lambda: nn.Zoneout(nn.LSTM(3, 4)),
        TypeError,
        r"Zoneout takes a cell, got the layer Stacked. .*nn.Stacked\(Zoneout\(cell\)",
    ),
    (lambda: nn.Zoneout(nn.LSTMCell(3, 4), 1.0), ValueError, r"p=1.0 must be .*, at least 0"),
    (
        lambda: nn.Zoneout(nn.LSTMCell(3, 4), (0.1, -1)),
        ValueError,
        r"p=\(0.1, -1\) must .*, at least 0",
    ),
    (lambda: nn.VariationalDropout(nn.RNNCell(3, 4), 1.0), ValueError, r"p_x=1.0 must be"),
    (lambda: nn.VariationalDropout(nn.RNNCell(3, 4), 0, 2), ValueError, r"p_h=2 must be"),
    (
        lambda: nn.Recurrent(nn.Zoneout(nn.LSTMCell(3, 4), (0.1,)))(X),
        ShapeError,
        r"p=\(0.1,\) has 1 entries for a state of 2 tensors",
    ),
    (
        lambda: nn.Recurrent(nn.Zoneout(nn.LSTMCell(3, 4), (0.1,)).eval())(X),
        ShapeError,
        r"p=\(0.1,\) has 1 entries for a state of 2 tensors",
    ),
    (
        lambda: nn.Recurrent(nn.Zoneout(nn.RNNCell(3, 4)))(X, 5),
        ShapeError,
        r"Zoneout in .*: the state must be a tuple of tensors, got 5",
    ),
    (
        lambda: nn.Recurrent(nn.VariationalDropout(nn.RNNCell(3, 4)))(X, (X[0],)),
        ShapeError,
        r"state h has shape \(B=2, H=3\)",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
