"""Options that every cell has: without a bias, and how its weights and gates start."""

import numpy as np
import pytest
from compiler_cells import BUILT_IN, assert_scan_is_unroll

import tinyseq as ts
from tinyseq import functional, nn, optim, viz
from tinyseq.errors import ShapeError

T, B, D, H = 5, 2, 3, 4
FACTORIES = [nn.RNN, nn.GRU, nn.LSTM]


@pytest.mark.parametrize("name", BUILT_IN)
def test_without_a_bias_is_with_one_of_zeros(name):
    ts.seed(0)
    biased, plain = BUILT_IN[name](D, H), BUILT_IN[name](D, H, bias=False)
    biased.b._data[...] = 0
    state = biased.state_dict()
    plain.load_state_dict({n: a for n, a in state.items() if n not in ("b", "b_h")})
    assert plain.b is None
    x = np.random.default_rng(0).standard_normal((T, B, D)).astype(np.float32)
    found, expected = nn.Recurrent(plain)(x)[0], nn.Recurrent(biased)(x)[0]
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_compiled_without_a_bias():
    assert_scan_is_unroll(nn.GRU(D, H, bias=False, bidirectional=True), T, B, lengths=[5, 2])


@pytest.mark.parametrize("factory", FACTORIES)
def test_factories_pass_the_options_on(factory):
    ones = lambda shape, rng: np.ones(shape)  # noqa: E731
    layer = factory(D, H, 2, bidirectional=True, bias=False, init=(ones, nn.init.zeros))
    for name, p in layer.named_parameters():
        assert name.endswith((".w_x", ".w_h"))
        assert (p.numpy() == name.endswith("w_x")).all()
    assert len(layer.parameters()) == 8


CLIPS = [
    lambda clip: nn.RNN(D, H, 2, nonlinearity="softsign", clip=clip),
    lambda clip: nn.GRU(D, H, 2, variant="reset_before", clip=clip),
    lambda clip: nn.GRU(D, H, layer_norm=True, clip=clip),
    lambda clip: nn.LSTM(D, H, coupled=True, bidirectional=True, clip=clip),
    lambda clip: nn.LSTM(D, H, peephole="previous", proj_size=2, clip=clip),
    lambda clip: nn.LSTM(D, H, layer_norm=True, clip=clip),
]


@pytest.mark.parametrize("make", CLIPS)
def test_a_clip_is_seen_where_it_binds_and_can_be_set(make):
    x = np.random.default_rng(0).standard_normal((T, B, D)).astype(np.float32)
    ts.seed(0)
    layer = make(1e9)
    loose = layer(x)[0].numpy()
    cells = [m for _, m in layer.named_modules() if isinstance(m, nn.Cell)]
    assert {cell.clip for cell in cells} == {1e9}
    assert "clip=1e+09" in repr(layer)
    state = layer.state_dict()
    plain, tight = make(None), make(0.1)
    for one in (plain, tight):
        one.load_state_dict(state)
    np.testing.assert_array_equal(plain(x)[0].numpy(), loose)
    for cell in cells:
        cell.clip = np.float32(0.1).item()
    clipped = layer(x)[0].numpy()
    assert np.abs(clipped - loose).max() > 0.01
    np.testing.assert_allclose(tight(x)[0].numpy(), clipped, rtol=1e-6)


def test_compiled_with_a_clip_that_is_set_anew():
    """What was compiled before does not outlive it."""
    cell = nn.GRUCell(D, H, "simplified", clip=0.3)
    for cell.clip in (0.3, 0.05):
        assert_scan_is_unroll(nn.Recurrent(cell), T, B, np.float32, lengths=[5, 2])


def test_trained_with_a_clip_in_one_recorded_step():
    """As by hand."""
    found = []
    for mode in ("unroll", "compiled"):
        ts.seed(0)
        layer = nn.LSTM(D, H, coupled=True, clip=0.3)
        x = np.random.default_rng(0).standard_normal((T, B, D)).astype(np.float32)
        step = nn.TrainingStep(
            lambda x, layer=layer: (layer(x)[0] ** 2).sum(),
            optim.SGD(layer.parameters(), 0.1), mode=mode,
        )  # fmt: skip
        found.append([step(x).item() for _ in range(4)])
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert found[0][-1] < found[0][0]


def test_pictures_show_a_clip_only_where_there_is_one():
    drawn = [viz.draw_unrolled(nn.RNN(D, H, clip=c), 1, level="op").dot for c in (None, 2.0)]
    assert ["where" in dot for dot in drawn] == [False, True]


@pytest.mark.parametrize("make", [
    lambda: nn.LSTMCell(D, H, forget_bias=2.0, bias=False),
    lambda: nn.CoupledLSTMCell(D, H, forget_bias=2.0, bias=False),
    lambda: nn.GRUCell(D, H, update_bias=-3.0, bias=False),
])  # fmt: skip
def test_a_gate_that_starts_open_needs_a_bias(make):
    with pytest.raises(ValueError, match=r"_bias=-?\d.0 is where a bias starts, and bias=False"):
        make()


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_gate_is_drawn_by_itself(name):
    cell = BUILT_IN[name](50, 80, init=nn.init.he_normal, bias=False)
    for w in (cell.w_x, cell.w_h):
        fan_in = len(w)
        gates = w.numpy().reshape(fan_in, -1, 80).swapaxes(0, 1)
        np.testing.assert_allclose(gates.std(axis=(1, 2)), np.sqrt(2 / fan_in), rtol=0.07)
        assert len({gate.tobytes() for gate in gates}) == len(gates)


def test_a_draw_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"init gave \(4, 3\) for the shape \(3, 4\)"):
        nn.RNNCell(D, H, init=lambda shape, rng: np.ones(shape[::-1]))


@pytest.mark.parametrize("nonlinearity", ["relu", "leaky_relu"])
def test_relu_starts_as_he_does(nonlinearity):
    cell = nn.RNNCell(50, 80, nonlinearity)
    for w, fan_in in ((cell.w_x, 50), (cell.w_h, 80)):
        assert w.numpy().std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.07)


def test_the_update_gate_starts_where_it_is_told():
    for cell in (nn.GRUCell(D, H, update_bias=-3), nn.LayerNormGRUCell(D, H, update_bias=-3)):
        assert cell.b.numpy().reshape(-1, H)[:, 0].tolist() == [-3, 0, 0]


def recalled(update_bias):
    """How often a GRU names the first of 51 symbols, after 250 steps of training to do so."""
    ts.seed(0)
    rng, one_hot = np.random.default_rng(0), np.eye(4, dtype=np.float32)
    gru = nn.GRU(4, 16, variant="reset_before", update_bias=update_bias)
    head = nn.Linear(16, 4)
    adam = optim.Adam([*gru.parameters(), *head.parameters()], lr=0.02)
    for _ in range(250):
        symbols = rng.integers(0, 4, (51, 32))
        y, _ = gru(one_hot[symbols])
        adam.zero_grad()
        functional.cross_entropy(head(y[-1]), symbols[0]).backward()
        optim.clip_grad_norm(adam.params, 1.0)
        adam.step()
    symbols = rng.integers(0, 4, (51, 500))
    y, _ = gru(one_hot[symbols])
    return np.mean(head(y[-1]).numpy().argmax(axis=-1) == symbols[0])


def test_a_closed_update_gate_remembers_the_first_of_51_symbols():
    assert recalled(update_bias=-3.0) > 0.99
    assert recalled(update_bias=0.0) < 0.5
