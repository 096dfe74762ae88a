"""Modules, cells and combinators: equations, gradients, lengths, states, errors."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn
from tinyseq.errors import DtypeError, ShapeError

CELLS = {
    "rnn": lambda D, H: nn.RNNCell(D, H),
    "rnn_relu": lambda D, H: nn.RNNCell(D, H, nonlinearity="relu"),
    "gru_simplified": lambda D, H: nn.GRUCell(D, H, variant="simplified"),
    "gru_reset_before": lambda D, H: nn.GRUCell(D, H, variant="reset_before"),
    "gru_reset_after": lambda D, H: nn.GRUCell(D, H, variant="reset_after"),
    "lstm": lambda D, H: nn.LSTMCell(D, H),
}


def random(*shape, seed=0, requires_grad=False):
    rng = np.random.default_rng([seed, *shape])
    return ts.tensor(rng.standard_normal(shape), requires_grad=requires_grad)


def double(module, seed=1):
    """float64, with biases that are not 0: a bias that is left out must not go unnoticed."""
    rng = np.random.default_rng(seed)
    module.double()
    for p in module.parameters():
        p._data += rng.uniform(-0.3, 0.3, p.shape)
    return module


def state_of(cell, B, seed=5, requires_grad=True):
    H, n = cell.hidden_size, len(cell.state_names)
    return tuple(random(B, H, seed=seed + i, requires_grad=requires_grad) for i in range(n))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


# -- the equations, once more in NumPy -------------------------------------------------------------


def numpy_step(name, cell, x, h, c=None):
    w_x, w_h, b = cell.w_x.numpy(), cell.w_h.numpy(), cell.b.numpy()
    H = cell.hidden_size

    def gate(i, left=None):
        part = slice(i * H, (i + 1) * H)
        return x @ w_x[:, part] + (h if left is None else left) @ w_h[:, part] + b[part]

    if name.startswith("rnn"):
        g = np.tanh if name == "rnn" else lambda a: np.maximum(a, 0)
        return (g(gate(0)),)
    update = sigmoid(gate(0))
    if name == "gru_simplified":
        candidate = np.tanh(gate(1))
    elif name == "gru_reset_before":
        candidate = np.tanh(gate(2, sigmoid(gate(1)) * h))
    elif name == "gru_reset_after":
        last = slice(2 * H, 3 * H)
        from_h = h @ w_h[:, last] + cell.b_h.numpy()
        candidate = np.tanh(x @ w_x[:, last] + b[last] + sigmoid(gate(1)) * from_h)
    else:
        forget, output, candidate = sigmoid(gate(1)), sigmoid(gate(2)), np.tanh(gate(3))
        c = update * candidate + forget * c
        return output * np.tanh(c), c
    return (update * candidate + (1 - update) * h,)


@pytest.mark.parametrize("name", CELLS)
@given(B=st.integers(1, 3), D=st.integers(1, 4), H=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_cell_is_its_equations(name, B, D, H, seed):
    cell = double(CELLS[name](D, H), seed)
    x, state = random(B, D, seed=seed), state_of(cell, B, seed)
    ours = cell(x, state)
    theirs = numpy_step(name, cell, x.numpy(), *(s.numpy() for s in state))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_through_five_unrolled_steps(name, order):
    """The differences are compiled ones, once there were steps enough."""
    D, H, B = (2, 3, 2) if order == 1 else (1, 2, 1)
    cell = double(CELLS[name](D, H))
    x, state = random(5, B, D, requires_grad=True), state_of(cell, B)
    n = len(state)

    def run(x, *state_and_parameters):
        y, last = nn.Recurrent(cell)(x, state_and_parameters[:n])
        return (y, *last)

    assert ts.gradcheck(run, [x, *state, *cell.parameters()], order=order)


class OwnCell(nn.Module):
    """As a user would write one: a Module with __call__, and nothing else."""

    def __init__(self, D, H):
        self.w = nn.Parameter(random(D + H, H, seed=3))

    def __call__(self, x, state):
        (h,) = state
        return (ts.tanh(ts.concat([x, h], axis=1) @ self.w),)


@pytest.mark.parametrize("order", [1, 2])
def test_a_cell_of_your_own(order):
    cell = OwnCell(2, 3)
    h, x = random(2, 3, requires_grad=True), random(4, 2, 2, requires_grad=True)
    assert ts.gradcheck(lambda x, h, w: nn.Recurrent(cell)(x, (h,))[0], [x, h, cell.w], order=order)
    with pytest.raises(ValueError, match=r"OwnCell does not say how its state starts. Pass state="):
        nn.Recurrent(cell)(x)


# -- over time and in depth ---------------------------------------------------------------------


def both_modes(layer_of, x, **kwargs):
    """Outputs, states and gradients with and without products computed ahead."""
    results = []
    for mode in ("unroll", None):
        layer = double(layer_of(mode))
        leaf = ts.tensor(x.numpy(), requires_grad=True)
        y, _ = layer(leaf, **kwargs)
        (y * y).sum().backward()
        results.append(
            [y.numpy(), leaf.grad.numpy(), *(p.grad.numpy() for p in layer.parameters())]
        )
    return results


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("factory", [nn.RNN, nn.GRU, nn.LSTM])
def test_products_computed_ahead_change_nothing(factory, bidirectional):
    def layer(mode):
        rng = np.random.default_rng(0)
        return factory(3, 4, 2, bidirectional=bidirectional, mode=mode, rng=rng)

    for a, b in zip(*both_modes(layer, random(5, 2, 3)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


class Slices(nn.Module):
    """A cell that multiplies x by parts of its weight: under no_grad each is a new leaf."""

    hidden_size = 3

    def __init__(self):
        self.w = nn.Parameter(random(2, 9, seed=4))
        self.u = nn.Parameter(random(3, 3, seed=5))

    def __call__(self, x, state):
        (h,) = state
        first, second, third = (x @ self.w[:, 3 * i : 3 * i + 3] for i in range(3))
        return (ts.tanh(first * ts.sigmoid(second) + third + h @ self.u),)


def test_weights_that_are_made_anew_at_every_step_when_nothing_is_recorded():
    cell, x, h = Slices(), random(20, 2, 2), random(2, 3)
    step_by_step, _ = nn.Recurrent(cell, mode="unroll")(x, (h,))
    for context in (ts.no_grad, contextlib.nullcontext):
        with context():
            y, _ = nn.Recurrent(cell)(x, (h,))
        np.testing.assert_allclose(y.numpy(), step_by_step.numpy(), atol=1e-12)


@pytest.mark.unrolled("about the graph of single steps")
def test_the_gradient_of_a_single_step_can_be_had():
    kept = []

    class Keeps(OwnCell):
        def __call__(self, x, state):
            kept.append(x)
            return (ts.tanh(x @ self.w + state[0]),)

    cell = Keeps(2, 3)
    cell.w = nn.Parameter(random(2, 3, seed=3))
    x, h = random(3, 1, 2, requires_grad=True), random(1, 3)
    for mode in ("auto", "unroll"):
        y, _ = nn.Recurrent(cell, mode=mode)(x, (h,))
        kept[1].register_hook(lambda g: 2 * g)
        whole, step = ts.grad(y.sum(), [x, kept[1]])
        assert step.numpy().any()
        np.testing.assert_array_equal(whole.numpy()[1], step.numpy())
        kept.clear()


def test_a_cell_that_returns_no_tuple_is_told_so():
    class Bare(nn.Module):
        def __call__(self, x, state):
            return ts.tanh(x + state[0])

    with pytest.raises(TypeError, match=r"Bare.*a tuple of as many tensors.*got a Tensor.*\(h,\)"):
        nn.Recurrent(Bare())(random(2, 1, 3), (random(1, 3),))


def test_a_layer_in_reverse_already_is_the_backward_one_as_it_is():
    ahead, back = nn.RNNCell(2, 3).double(), nn.RNNCell(2, 3).double()
    x = random(4, 1, 2)
    a, _ = nn.Bidirectional(ahead, back)(x)
    b, _ = nn.Bidirectional(nn.Recurrent(ahead), nn.Recurrent(back, reverse=True))(x)
    np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_what_lies_behind_an_end_is_never_read():
    layer = nn.LSTM(2, 3, bidirectional=True).double()
    array = random(4, 2, 2).numpy()
    array[2:, 0] = np.nan
    x = ts.tensor(array, requires_grad=True)
    y, _ = layer(x, lengths=[2, 4])
    y.sum().backward()
    assert np.isfinite(y.numpy()).all()
    assert not x.grad.numpy()[2:, 0].any()
    assert all(np.isfinite(p.grad.numpy()).all() for p in layer.parameters())


def test_modules_and_parameters_in_lists_and_dictionaries_count():
    class Holder(nn.Module):
        def __init__(self):
            self.many = [nn.Parameter([1.0]), nn.Linear(1, 1)]
            self.named = {"a": nn.Linear(1, 1, bias=False), "b": nn.Parameter([2.0])}
            self.state = (ts.tensor([3.0]), None)  # carried along, and no part of the module

    names = [name for name, _ in Holder().named_parameters()]
    assert names == ["many.0", "named.b", "many.1.weight", "many.1.bias", "named.a.weight"]


def flat(state):
    return [state] if isinstance(state, ts.Tensor) else [t for part in state for t in flat(part)]


@given(cut=st.integers(1, 5), factory=st.sampled_from([nn.RNN, nn.GRU, nn.LSTM]))
def test_a_sequence_cut_in_chunks_is_the_whole(cut, factory):
    layer = double(factory(2, 3, 2))
    x = random(6, 2, 2)
    whole, last = layer(x)
    first, state = layer(x[:cut])
    second, end = layer(x[cut:], state)
    np.testing.assert_allclose(ts.concat([first, second]).numpy(), whole.numpy(), atol=1e-12)
    for a, b in zip(flat(end), flat(last), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-12)


DEEP = {
    "forward": lambda: nn.LSTM(2, 3, 2),
    "bidirectional": lambda: nn.GRU(2, 3, 2, bidirectional=True),
    "two cells": lambda: nn.Stacked(nn.Bidirectional(nn.RNNCell(2, 3), nn.LSTMCell(2, 4))),
    "stack in reverse": lambda: nn.Bidirectional(nn.LSTM(2, 3, 2), nn.GRU(2, 2, 2)),
}


@pytest.mark.parametrize("kind", DEEP)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_padding_changes_nothing(kind, lengths, seed):
    """Outputs, final states and gradients are those of each sequence by itself, in any order of
    lengths.
    """
    layer = double(DEEP[kind]())
    T, B = 5, len(lengths)
    x = random(T, B, 2, seed=seed, requires_grad=True)

    def total(y, state):
        return sum(((t * t).sum() for t in [y, *flat(state)]), start=ts.tensor(0.0))

    y, state = layer(x, lengths=lengths)
    for b, n in enumerate(lengths):
        assert not y.numpy()[n:, b].any()
    loss = total(y, state)
    loss.backward()
    together = [x.grad.numpy(), *(p.grad.numpy() for p in layer.parameters())]
    alone = [np.zeros_like(g) for g in together]
    layer.zero_grad()
    value = 0.0
    for b, n in enumerate(lengths):
        one = ts.tensor(x.numpy()[:n, b : b + 1], requires_grad=True)
        y_one, state_one = layer(one)
        np.testing.assert_allclose(y.numpy()[:n, b], y_one.numpy()[:, 0], atol=1e-12)
        for s, s_one in zip(flat(state), flat(state_one), strict=True):
            np.testing.assert_allclose(s.numpy()[b], s_one.numpy()[0], atol=1e-12)
        part = total(y_one, state_one)
        value += part.item()
        part.backward()
        alone[0][:n, b] = one.grad.numpy()[:, 0]
    alone[1:] = [p.grad.numpy() for p in layer.parameters()]
    assert loss.item() == pytest.approx(value)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_shapes_and_states():
    layer = nn.LSTM(3, 5, num_layers=2)
    y, state = layer(ts.tensor(np.ones((7, 2, 3), np.float32)))
    assert y.shape == (7, 2, 5)
    assert [[s.shape for s in layer_state] for layer_state in state] == [[(2, 5)] * 2] * 2
    assert (layer.input_size, layer.hidden_size) == (3, 5)
    both = nn.GRU(3, 5, bidirectional=True)
    assert both(ts.tensor(np.ones((7, 2, 3), np.float32)))[0].shape == (7, 2, 10)
    assert both.hidden_size == 10
    turned = nn.RNN(3, 5, batch_first=True)
    assert turned(ts.tensor(np.ones((2, 7, 3), np.float32)))[0].shape == (2, 7, 5)
    y, state = nn.Recurrent(nn.RNNCell(3, 5), reverse=True)(
        ts.tensor(np.ones((7, 2, 3), np.float32))
    )
    np.testing.assert_array_equal(y.numpy()[0], state[0].numpy())


def test_dropout_between_layers_only_in_training():
    layer = nn.RNN(2, 8, 2, dropout=0.5, rng=np.random.default_rng(0))
    x = ts.tensor(np.ones((3, 2, 2), np.float32))
    assert not np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())


def test_dropout_keeps_the_mean_and_its_share():
    x = ts.tensor(np.ones(100_000, np.float32))
    y = nn.Dropout(0.3, rng=np.random.default_rng(0))(x).numpy()
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert y.mean() == pytest.approx(1, abs=0.01)
    assert nn.Dropout(0.0)(x) is x


def test_linear_and_embedding():
    rng = np.random.default_rng(0)
    linear = double(nn.Linear(3, 2, rng=rng))
    x = random(4, 5, 3, requires_grad=True)
    expected = x.numpy() @ linear.weight.numpy() + linear.bias.numpy()
    np.testing.assert_allclose(linear(x).numpy(), expected)
    assert ts.gradcheck(lambda *_: linear(x), [x, *linear.parameters()])
    assert nn.Linear(3, 2, bias=False).bias is None
    table = nn.Embedding(5, 3).double()
    indices = np.array([[0, 4], [4, 4]])
    np.testing.assert_array_equal(table(indices).numpy(), table.weight.numpy()[indices])
    one_hot = ts.functional.one_hot(indices, 5, np.float64)
    np.testing.assert_allclose((one_hot @ table.weight).numpy(), table(indices).numpy())
    assert ts.gradcheck(lambda w: table(indices) * table(indices), table.weight)


# -- Module -------------------------------------------------------------------------------------


def test_padding_is_not_trained():
    """Unrolled and played back: the vector of padding_idx stays zeros, and −1 stays the zero."""
    embedding = nn.Embedding(5, 3, padding_idx=1)
    adam = ts.optim.Adam(embedding.parameters(), lr=0.1)
    step = nn.TrainingStep(
        lambda i: ((embedding(i, zeros=True) - 1.0) ** 2).sum(), adam, mode="compiled"
    )
    losses = [step(np.array([[1, 2], [1, -1]])).item() for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] > 9
    assert not embedding.weight.numpy()[1].any()
    assert embedding.weight.numpy()[2].any()


def test_names_of_parameters():
    names = [name for name, _ in nn.LSTM(2, 3, 2).named_parameters()]
    assert names == [f"layers.{i}.cell.{p}" for i in range(2) for p in ("w_x", "w_h", "b")]


def test_a_shared_parameter_counts_once():
    class Tied(nn.Module):
        def __init__(self):
            self.a = nn.Linear(2, 2)
            self.b = nn.Linear(2, 2)
            self.b.weight = self.a.weight

    assert [n for n, _ in Tied().named_parameters()] == ["a.weight", "a.bias", "b.bias"]


def test_state_dict_there_and_back():
    a, b = nn.GRU(2, 3), nn.GRU(2, 3)
    assert not np.array_equal(a.layers[0].cell.w_x.numpy(), b.layers[0].cell.w_x.numpy())
    state = a.state_dict()
    b.load_state_dict(state)
    for name, p in b.named_parameters():
        np.testing.assert_array_equal(p.numpy(), state[name])
    state["layers.0.cell.b"][0] = 5  # a copy: the module does not see it
    assert a.layers[0].cell.b.numpy()[0] == 0


def test_a_state_that_does_not_fit_is_refused_whole():
    layer = nn.RNN(2, 3)
    before = layer.state_dict()
    wrong = {
        "layers.0.cell.w_x": np.ones((2, 3)),
        "layers.0.cell.b": np.ones(4),
        "other": np.ones(1),
    }
    with pytest.raises(
        ValueError,
        match=r"missing layers.0.cell.w_h \(3, 3\); unknown other; .*b has shape \(4,\), exp",
    ):
        layer.load_state_dict(wrong)
    np.testing.assert_array_equal(
        layer.state_dict()["layers.0.cell.w_x"], before["layers.0.cell.w_x"]
    )


def test_dtypes_of_modules():
    layer = nn.RNN(2, 3).double()
    assert {p.dtype for p in layer.parameters()} == {np.dtype(np.float64)}
    assert layer(random(2, 1, 2))[0].dtype == np.float64
    assert {p.dtype for p in layer.float().parameters()} == {np.dtype(np.float32)}
    with pytest.raises(DtypeError, match=r"dtype=<int> must be .* float32 or float64"):
        layer.astype(int)


def test_constants_are_saved_but_not_trained():
    class Fixed(nn.Module):
        def __init__(self):
            self.w = ts.tensor([1.0, 2.0])

    module = Fixed()
    assert list(module.parameters()) == []
    assert list(module.state_dict()) == ["w"]


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="give it a forward"):
        nn.Module()()


def test_repr_shows_the_structure():
    text = repr(nn.LSTM(2, 3, 2, dropout=0.5))
    assert "layers.1: Recurrent(" in text
    assert "cell: LSTMCell(3, 3)" in text


def test_the_same_seed_gives_the_same_bits():
    ts.seed(3)
    a = nn.LSTM(2, 3).state_dict()
    state = ts.random.get_state()
    drawn = ts.random.generator().random()
    ts.seed(3)
    b = nn.LSTM(2, 3).state_dict()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    ts.random.set_state(state)
    assert ts.random.generator().random() == drawn


def test_how_parameters_start():
    rng = np.random.default_rng(0)
    cell = nn.LSTMCell(20, 30, rng=rng)
    assert cell.b.numpy().reshape(4, 30).mean(axis=1).tolist() == [0, 1, 0, 0]  # the forget gate's
    w_h = cell.w_h.numpy().reshape(30, 4, 30)
    for k in range(4):
        np.testing.assert_allclose(w_h[:, k] @ w_h[:, k].T, np.eye(30), atol=1e-5)
    bound = np.sqrt(6 / 50)
    assert 0.9 * bound < np.abs(cell.w_x.numpy()).max() <= bound


# -- errors -------------------------------------------------------------------------------------

X = ts.tensor(np.ones((4, 2, 3), np.float32))

ERRORS = [
    (
        lambda: nn.LSTM(5, 4)(X),
        ShapeError,
        r"LSTMCell in .*t=0/cell: x has shape \(B=2, D=3\).*D=5",
    ),
    (lambda: nn.LSTM(3, 4)(X[0, 0]), ShapeError, r"expected \(T, B, D\)"),
    (lambda: nn.LSTM(2, 4)(X[0]), ShapeError, r"\(2, 3\).*expected .* \(T, D=2\) for one seq"),
    (lambda: nn.LSTM(3, 4)(np.ones((2, 3), int)), ShapeError, r"dtype int64.*Symbols become"),
    (lambda: nn.LSTM(3, 4)(X[0], lengths=[1, 2]), ShapeError, r"lengths must be B=1 whole numb"),
    (lambda: nn.LSTM(3, 4)(X[:0]), ShapeError, r"T=0 steps"),
    (lambda: nn.Recurrent(nn.RNNCell(3, 4))(X[0, 0]), ShapeError, r"Recurrent: x has shape \(3,\)"),
    (
        lambda: nn.LSTM(3, 4)(X, ()),
        ShapeError,
        r"Stacked: the state must be a tuple of 1, one a layer",
    ),
    (
        lambda: nn.LSTM(3, 4)(X, (X[0],)),
        ShapeError,
        r"the state must be a tuple \(h, c,\), got 1 tensors",
    ),
    (lambda: nn.RNN(3, 4)(X, ((X[0],),)), ShapeError, r"state h has shape \(B=2, H=3\).*H=4"),
    (lambda: nn.RNN(3, 4)(X, lengths=[1]), ShapeError, r"lengths must be B=2 whole numbers"),
    (lambda: nn.RNN(3, 4)(X, lengths=[1.0, 2.0]), ShapeError, r"got float64"),
    (lambda: nn.RNN(3, 4)(X, lengths=[0, 9]), ValueError, r"lengths: 9 is outside of 0 … 4"),
    (lambda: nn.RNN(3, 4, 0), ValueError, r"num_layers=0"),
    (lambda: nn.RNN(3, 0), ValueError, r"hidden_size=0 must be a whole number, at least 1"),
    (lambda: nn.RNN(3, 4, nonlinearity="cos"), ValueError, r"'cos' must be 'tanh' or 'relu'"),
    (lambda: nn.GRU(3, 4, variant="v3"), ValueError, r"'v3' must be 'reset_after' or"),
    (
        lambda: nn.Recurrent(nn.RNNCell(3, 4), mode="fast"),
        ValueError,
        r"mode='fast' must be 'auto'",
    ),
    (lambda: nn.Stacked(), ValueError, r"at least one layer"),
    (lambda: nn.Dropout(1.0), ValueError, r"p=1.0 must be .* at least 0 and less than 1"),
    (lambda: nn.Linear(5, 2)(X), ShapeError, r"D=3 features.*in_features=5"),
    (lambda: nn.Linear(5, 2)(ts.tensor(1.0)), ShapeError, r"no features"),
    (lambda: nn.Embedding(5, 2)(np.array([5])), IndexError, r"index 5 is outside of 0 … 4 \(V=5\)"),
    (lambda: nn.Embedding(5, 2, padding_idx=5), ValueError, r"padding_idx=5 is no symbol, 0 … 4"),
    (lambda: nn.LayerNorm(()), ValueError, r"features=\(\) leaves nothing to norm"),
    (lambda: nn.LayerNorm((2, 4))(X), ShapeError, r"\(4, 2, 3\).*features=\(2, 4\)"),
    (lambda: nn.Embedding(5, 2)(X), DtypeError, r"whole numbers, not float32"),
]


@pytest.mark.parametrize("given", [{}, {"mode": None}, {"mode": "auto"}])
def test_the_mode_is_auto_unless_told_otherwise(given):
    layer = nn.LSTM(3, 4, 2, bidirectional=True, **given)
    assert {m.mode for _, m in layer.named_modules() if isinstance(m, nn.Recurrent)} == {"auto"}
    adam = ts.optim.Adam(layer.parameters())
    assert nn.TrainingStep(lambda: None, adam, **given).mode == "auto"


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


OF_ANY_NUMBERS = {
    "linear": lambda: nn.Linear(3, 4),
    "layer_norm": lambda: nn.LayerNorm(3),
    "dropout": lambda: nn.Dropout(0.5),
    "rnn": lambda: nn.RNN(3, 4),
    "stacked": lambda: nn.GRU(3, 4, 2, dropout=0.5, bidirectional=True),
    "learned_state": lambda: nn.Recurrent(nn.LearnedState(nn.RNNCell(3, 4), [np.full(4, 0.5)])),
    "variational": lambda: nn.Recurrent(nn.VariationalDropout(nn.GRUCell(3, 4))),
    "zoneout": lambda: nn.Recurrent(nn.Zoneout(nn.LSTMCell(3, 4))),
    "echo": lambda: nn.EchoState(3, 4, 1, sparsity=0.0),
    "zoneout, a step": lambda: one_step(nn.Zoneout(nn.LSTMCell(3, 4)), 2),
    "variational, a step": lambda: one_step(nn.VariationalDropout(nn.GRUCell(3, 4)), 1),
}


def one_step(cell, count):
    return lambda x: cell(x[0], [np.full((2, 4), 0.5, np.float32)] * count)


@pytest.mark.parametrize("name", OF_ANY_NUMBERS)
def test_arrays_and_whole_numbers_are_worth_what_floats_are(name):
    ts.seed(1)
    layer = OF_ANY_NUMBERS[name]()
    whole = np.arange(12).reshape(2, 2, 3) % 5

    def outcome(x):
        ts.seed(2)
        out = layer(x)
        return (out[0] if isinstance(out, tuple) else out).numpy()

    expected = outcome(ts.tensor(whole.astype(np.float32)))
    assert np.isfinite(expected).all()
    for x in (whole.astype(np.float32), whole, ts.tensor(whole)):
        np.testing.assert_allclose(outcome(x), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 3, 4, 3), r"Stacked.*\(2, 3, 4, 3\), expected \(B, T, D\)"),
        ((2, 0, 3), r"Stacked.*\(2, 0, 3\) has T=0 steps"),
    ],
)
def test_errors_of_a_layer_that_takes_the_batch_first_speak_of_what_it_was_given(shape, said):
    with pytest.raises(ShapeError, match=said):
        nn.GRU(3, 4, batch_first=True)(np.zeros(shape, np.float32))
