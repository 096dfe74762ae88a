"""Echo state networks: a constant reservoir, a read-out in closed form and by gradient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn, optim
from tinyseq.errors import ShapeError


def signal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).uniform(-1, 1, shape)


def network(D=2, H=12, out=2, seed=0, **options):
    rng = np.random.default_rng(seed)
    options = {"sparsity": 0.5, "bias_scaling": 0.3} | options
    return nn.EchoState(D, H, out, rng=rng, **options).double()


def features(esn, x, state=None):
    echoes, _ = esn.reservoir(ts.tensor(x), state)
    return np.concatenate([x, echoes.numpy()], axis=-1)


# -- the reservoir --------------------------------------------------------------------------------


@given(leak=st.floats(0.05, 1), seed=st.integers(0, 99))
def test_the_cell_is_its_equation(leak, seed):
    cell = nn.EchoCell(2, 5, leak=leak, sparsity=0.2, bias_scaling=0.5).double()
    x, h = signal(3, 2, seed=seed), signal(3, 5, seed=seed)
    (ours,) = cell(ts.tensor(x), (ts.tensor(h),))
    new = np.tanh(x @ cell.w_x.numpy() + h @ cell.w_h.numpy() + cell.b.numpy())
    np.testing.assert_allclose(ours.numpy(), (1 - leak) * h + leak * new, rtol=1e-12)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("radius", [0.3, 0.95, 1.4])
def test_the_reservoir_is_drawn_as_asked(radius, sparsity):
    options = {"spectral_radius": radius, "sparsity": sparsity, "input_scaling": 0.2}
    rng = np.random.default_rng(1)
    cell = nn.EchoCell(3, 80, bias_scaling=0.4, rng=rng, **options)
    w_h, w_x, b = (t.numpy() for t in (cell.w_h, cell.w_x, cell.b))
    assert np.abs(np.linalg.eigvals(w_h)).max() == pytest.approx(radius, rel=1e-4)
    assert (w_h == 0).mean() == pytest.approx(sparsity, abs=0.02)
    assert 0.19 < np.abs(w_x).max() <= 0.2
    assert 0.36 < np.abs(b).max() <= 0.4
    again = nn.EchoCell(3, 80, bias_scaling=0.4, rng=np.random.default_rng(1), **options)
    np.testing.assert_array_equal(again.w_h.numpy(), w_h)
    assert not nn.EchoCell(3, 5, sparsity=0).b.numpy().any()  # bias_scaling is 0 by default


def distance_after(T, **options):
    """Between two runs on the same input from different states."""
    cell = nn.Recurrent(nn.EchoCell(1, 60, rng=np.random.default_rng(0), **options).double())
    x = ts.tensor(0.1 * signal(T, 1, 1))
    ends = [cell(x, (ts.tensor(signal(1, 60, seed=s)),))[1][0].numpy() for s in (1, 2)]
    return np.abs(ends[0] - ends[1]).max()


def test_the_start_is_forgotten_below_a_radius_of_one_and_not_far_above():
    short, long = (distance_after(300, spectral_radius=r) for r in (0.5, 0.9))
    assert short < 1e-12
    assert distance_after(20, spectral_radius=0.5) < distance_after(20, spectral_radius=0.9)
    assert long < 1e-9
    assert distance_after(300, spectral_radius=3.0) > 0.1
    assert distance_after(20, spectral_radius=0.9, leak=0.1) > distance_after(20)  # slower


def test_the_reservoir_is_constant_and_saved():
    esn = network()
    assert [n for n, _ in esn.named_parameters()] == ["readout.weight", "readout.bias"]
    state = esn.state_dict()
    assert sorted(state)[2:] == [f"reservoir.cell.{n}" for n in ("b", "w_h", "w_x")]
    other = network(seed=5)
    other.load_state_dict(state)
    x = ts.tensor(signal(6, 2, 2))
    np.testing.assert_array_equal(other(x)[0].numpy(), esn(x)[0].numpy())


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_it_runs_as_every_recurrent_layer_does(lengths):
    esn = network(leak=0.6)
    x = signal(5, len(lengths), 2)
    y, (h,) = esn(x, lengths=lengths)
    assert y.shape == (5, len(lengths), 2)
    for b, n in enumerate(lengths):
        one, (h_one,) = esn(x[:n, b : b + 1])
        np.testing.assert_allclose(y.numpy()[:n, b], one.numpy()[:, 0], atol=1e-12)
        np.testing.assert_allclose(h.numpy()[b], h_one.numpy()[0], atol=1e-12)
        assert not y.numpy()[n:, b].any()
    whole, _ = esn(x)
    parts = [y.numpy() for y in nn.tbptt(esn, x, 2)]
    np.testing.assert_allclose(np.concatenate(parts), whole.numpy(), atol=1e-12)
    expected = features(esn, x) @ esn.readout.weight.numpy() + esn.readout.bias.numpy()
    np.testing.assert_allclose(whole.numpy(), expected, atol=1e-12)
    assert (esn.input_size, esn.hidden_size, esn.reservoir.hidden_size) == (2, 2, 12)
    assert esn.initial_state(3)[0].shape == (3, 12)


@pytest.mark.parametrize("order", [1, 2])
def test_gradients_flow_through_the_constants(order):
    esn = network(D=2, H=3, out=1, leak=0.7)
    x = ts.tensor(signal(3, 2, 2), requires_grad=True)
    h = ts.tensor(signal(2, 3), requires_grad=True)

    def run(x, h, *_):
        y, (end,) = esn(x, (h,))
        return y * y, end

    assert ts.gradcheck(run, [x, h, *esn.parameters()], order)


# -- the read-out in closed form ------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [1e-4, 1.0, 50.0])
def test_the_read_out_solves_the_ridge_problem(ridge):
    esn = network()
    x, targets = signal(60, 2, 2), signal(60, 2, 2, seed=1)
    esn.fit(x, targets, washout=10, ridge=ridge)
    w, b = esn.readout.weight.numpy(), esn.readout.bias.numpy()
    F, Y = features(esn, x)[10:].reshape(100, -1), targets[10:].reshape(100, -1)
    residual = F @ w + b - Y
    np.testing.assert_allclose(F.T @ residual + ridge * w, 0, atol=1e-10)  # where the slope is 0
    np.testing.assert_allclose(residual.sum(axis=0), 0, atol=1e-10)
    larger = network()
    larger.fit(x, targets, washout=10, ridge=ridge * 2)
    assert np.linalg.norm(larger.readout.weight.numpy()) < np.linalg.norm(w)


def test_without_ridge_an_exact_read_out_is_found():
    esn, x = network(), signal(80, 1, 2)
    w, b = signal(14, 2, seed=3), signal(2, seed=4)
    esn.fit(x, features(esn, x) @ w + b, washout=0, ridge=0.0)
    np.testing.assert_allclose(esn.readout.weight.numpy(), w, atol=1e-8)
    np.testing.assert_allclose(esn.readout.bias.numpy(), b, atol=1e-8)
    esn.fit(x[:3], signal(3, 1, 2), washout=0, ridge=0.0)  # more weights than equations
    assert np.isfinite(esn.readout.weight.numpy()).all()


def test_washout_lengths_and_state():
    """What is not counted has no influence; the state that comes back goes on."""
    x, targets = signal(40, 2, 2), signal(40, 2, 2, seed=1)
    a, b, c = network(), network(), network()
    state = a.fit(x, targets, washout=15, lengths=[30, 40])
    other = targets.copy()
    other[:15] = 7
    other[30:, 0] = 7
    b.fit(x, other, washout=15, lengths=[30, 40])
    np.testing.assert_array_equal(a.readout.weight.numpy(), b.readout.weight.numpy())
    c.fit(x, other, washout=15)
    assert not np.allclose(a.readout.weight.numpy(), c.readout.weight.numpy())
    _, (h,) = a(x, lengths=[30, 40])
    np.testing.assert_array_equal(state[0].numpy(), h.numpy())
    first = b.fit(x[:20], targets[:20], washout=0)
    b.fit(x[20:], targets[20:], washout=0, state=first)
    c.fit(x, targets, washout=20)
    np.testing.assert_allclose(b.readout.weight.numpy(), c.readout.weight.numpy(), atol=1e-10)


# -- and by gradient ------------------------------------------------------------------------------


def test_a_read_out_trained_by_gradient_comes_to_the_same():
    x = signal(60, 3, 2)
    targets = np.stack([np.roll(x[..., 0], 1, axis=0), x[..., 0] * x[..., 1]], axis=-1)
    solved, trained = network(H=6, bias_scaling=1.0), network(H=6, bias_scaling=1.0)
    solved.fit(x, targets, washout=20, ridge=0.0)
    before = trained.state_dict()

    def loss(esn):
        y, _ = esn(x)
        error = y[20:] - ts.tensor(targets[20:])
        return (error * error).mean()

    start = loss(trained).item()
    optimizer = optim.Adam(trained.parameters(), lr=0.05)
    for step in range(300):
        optimizer.lr = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        value = loss(trained)
        value.backward()
        optimizer.step()
    best = loss(solved).item()
    assert best < 0.2 * start
    assert best <= value.item() < 1.05 * best
    for name, value in trained.state_dict().items():
        assert np.array_equal(value, before[name]) == name.startswith("reservoir"), name


# -- on a real signal -----------------------------------------------------------------------------


def mackey_glass(n, tau=17.0, dt=0.1):
    """dx/dt = 0.2 x(t−τ) / (1 + x(t−τ)¹⁰) − 0.1 x, by Runge-Kutta, one value a unit of time."""
    delay, every = round(tau / dt), round(1 / dt)
    x = np.full(delay + 1 + n * every, 1.2)

    def slope(now, then):
        return 0.2 * then / (1 + then**10) - 0.1 * now

    for i in range(delay, len(x) - 1):
        then, later = x[i - delay], x[i - delay + 1]
        middle = (then + later) / 2
        a = slope(x[i], then)
        b = slope(x[i] + dt / 2 * a, middle)
        c = slope(x[i] + dt / 2 * b, middle)
        x[i + 1] = x[i] + dt / 6 * (a + 2 * b + 2 * c + slope(x[i] + dt * c, later))
    return np.tanh(x[delay + 1 :: every] - 1)[:, None, None].astype(np.float32)


def test_it_foretells_mackey_glass():
    """Normalised root mean square errors: 3e-4 one step ahead and 6e-3 84 steps ahead, run freely;
    the last value, repeated, has 0.15 and 1.6.
    """
    x = mackey_glass(2600)
    esn = nn.EchoState(
        1, 200, 1, spectral_radius=0.95, leak=0.7, bias_scaling=0.2, rng=np.random.default_rng(0)
    )
    state = esn.fit(x[:1500], x[1:1501], washout=200, ridge=1e-7)

    def nrmse(guess, truth):
        return np.sqrt(np.mean((guess - truth) ** 2)) / x.std()

    y, _ = esn(x[1500:2500], state)
    assert nrmse(y.numpy(), x[1501:2501]) < 1e-3
    errors = []
    for start in range(0, 1000, 100):
        y, here = esn(x[1500 : 1501 + start], state)
        run, _ = esn.generate(y[-1], 83, here)  # y is the first step ahead
        errors.append([run.numpy()[-1, 0, 0], x[1501 + start + 83, 0, 0]])
    guess, truth = np.array(errors).T
    assert nrmse(guess, truth) < 0.03
    assert nrmse(x[1500:2500], x[1501:2501]) > 0.1


def test_generate_is_the_step_again_and_again():
    esn = network(D=2, out=2, leak=0.8)
    x, state = ts.tensor(signal(3, 2), requires_grad=True), None
    run, (h,) = esn.generate(x, 4)
    assert run.shape == (4, 3, 2)
    assert not run.requires_grad
    for t in range(4):
        y, state = esn(x[None], state)
        x = y[0]
        np.testing.assert_array_equal(run.numpy()[t], x.numpy())
    np.testing.assert_array_equal(h.numpy(), state[0].numpy())


# -- errors ---------------------------------------------------------------------------------------

X = signal(20, 2, 2)
NAN = np.where(np.arange(20)[:, None, None] == 9, np.nan, X)


def fit(x=X, targets=X, **options):
    return network().fit(x, targets, **{"washout": 5} | options)


ERRORS = [
    (
        lambda: nn.EchoCell(1, 9, spectral_radius=0),
        ValueError,
        r"spectral_radius=0 must be .* above 0",
    ),
    (lambda: nn.EchoCell(1, 9, spectral_radius=np.inf), ValueError, r"spectral_radius=inf must"),
    (lambda: nn.EchoCell(1, 9, leak=0), ValueError, r"leak=0 must be .*, above 0, at most 1"),
    (lambda: nn.EchoCell(1, 9, leak=1.5), ValueError, r"leak=1.5 must be .* at most 1"),
    (lambda: nn.EchoCell(1, 9, sparsity=1.0), ValueError, r"sparsity=1.0 must be"),
    (
        lambda: nn.EchoCell(1, 6, sparsity=0.95, rng=np.random.default_rng(4)),
        ValueError,
        r"H=6 units with sparsity=0.95 came out without a cycle",
    ),
    (lambda: fit(ridge=-1.0), ValueError, r"ridge=-1.0 must be .*, at least 0 and finite"),
    (lambda: fit(washout=-1), ValueError, r"washout=-1 must be a whole number"),
    (lambda: fit(washout=20), ValueError, r"washout=20 leaves none of the T=20 steps"),
    (lambda: fit(washout=9, lengths=[9, 4]), ValueError, r"washout=9 leaves none"),
    (
        lambda: fit(targets=X[:, :, 0]),
        ShapeError,
        r"targets have shape \(20, 2\), expected \(T=20, B=2, O=2\)",
    ),
    (lambda: fit(targets=X[1:]), ShapeError, r"one for each step of x \(T=20, B=2, D=2\)"),
    (lambda: fit(x=X[:, :, :1]), ShapeError, r"EchoCell .*x has shape \(B=2, D=1\).*D=2"),
    (lambda: fit(targets=NAN), ValueError, r"must be finite; NaN or Inf is in them"),
    (lambda: fit(x=NAN), ValueError, r"must be finite"),
    (lambda: network(out=1).generate(X[0], 3), ValueError, r"O=1 and D=2 differ"),
    (lambda: network().generate(X[0], 0), ValueError, r"steps=0 must be"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("wrong", [{"x": NAN}, {"targets": NAN}, {"washout": 20}])
def test_a_fit_that_fails_changes_nothing(wrong):
    esn = network()
    before = esn.state_dict()
    with pytest.raises(ValueError):  # noqa: PT011 - which is tested above
        esn.fit(**{"x": X, "targets": X, "washout": 5} | wrong)
    for name, value in esn.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
