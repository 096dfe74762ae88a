"""Optimisers and schedules against their rules written out, clipping, state, errors."""

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn, optim


def sgd(p, g, s, t):
    return p - 0.1 * g


def momentum(p, g, s, t):
    s["v"] = 0.9 * s.get("v", 0) + g
    return p - 0.1 * s["v"]


def nesterov(p, g, s, t):
    s["v"] = 0.9 * s.get("v", 0) + g
    return p - 0.1 * (g + 0.9 * s["v"])


def decay(p, g, s, t):
    return p - 0.1 * (g + 0.5 * p)


def rmsprop(p, g, s, t):
    s["s"] = 0.99 * s.get("s", 0) + 0.01 * g**2
    return p - 0.1 * g / (np.sqrt(s["s"]) + 1e-8)


def centered(p, g, s, t):
    s["s"] = 0.99 * s.get("s", 0) + 0.01 * g**2
    s["m"] = 0.99 * s.get("m", 0) + 0.01 * g
    s["v"] = 0.5 * s.get("v", 0) + g / (np.sqrt(s["s"] - s["m"] ** 2) + 1e-8)
    return p - 0.1 * s["v"]


def adagrad(p, g, s, t):
    s["s"] = s.get("s", 0) + g**2
    return p - 0.1 * g / (np.sqrt(s["s"]) + 1e-10)


def adam(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["s"] = 0.999 * s.get("s", 0) + 0.001 * g**2
    return p - 0.1 * (s["m"] / (1 - 0.9**t)) / (np.sqrt(s["s"] / (1 - 0.999**t)) + 1e-8)


def adamw(p, g, s, t):
    return adam(p, g, s, t) - 0.1 * 0.5 * p


def amsgrad(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["s"] = 0.5 * s.get("s", 0) + 0.5 * g**2
    s["l"] = np.maximum(s.get("l", 0), s["s"])
    return p - 0.1 * (s["m"] / (1 - 0.9**t)) / (np.sqrt(s["l"] / (1 - 0.5**t)) + 1e-8)


def nadam(p, g, s, t):
    adam(p, g, s, t)
    now, following = (0.9 * (1 - 0.5 * 0.96 ** (n * 0.1)) for n in (t, t + 1))
    s["Π"] = s.get("Π", 1) * now
    step = following * s["m"] / (1 - s["Π"] * following) + (1 - now) * g / (1 - s["Π"])
    return p - 0.1 * step / (np.sqrt(s["s"] / (1 - 0.999**t)) + 1e-8)


RULES = [
    (lambda ps: optim.SGD(ps, lr=0.1), sgd),
    (lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9), momentum),
    (lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True), nesterov),
    (lambda ps: optim.SGD(ps, lr=0.1, weight_decay=0.5), decay),
    (lambda ps: optim.RMSprop(ps, lr=0.1), rmsprop),
    (lambda ps: optim.RMSprop(ps, lr=0.1, momentum=0.5, centered=True), centered),
    (lambda ps: optim.Adagrad(ps, lr=0.1), adagrad),
    (lambda ps: optim.Adam(ps, lr=0.1), adam),
    (lambda ps: optim.AdamW(ps, lr=0.1, weight_decay=0.5), adamw),
    (lambda ps: optim.Adam(ps, lr=0.1, betas=(0.9, 0.5), amsgrad=True), amsgrad),
    (lambda ps: optim.NAdam(ps, lr=0.1, momentum_decay=0.1), nadam),
]


def loss_of(p):
    return (p * p).sum() + ts.tanh(p).sum()


@pytest.mark.parametrize(("make", "rule"), RULES)
def test_twenty_steps_are_the_rule(make, rule):
    p = nn.Parameter(np.array([1.0, -2.0, 0.5]))
    q, scratch = p.numpy(), {}
    optimizer = make([p])
    for t in range(1, 21):
        loss_of(p).backward()
        optimizer.step()
        optimizer.zero_grad()
        q = rule(q, 2 * q + 1 - np.tanh(q) ** 2, scratch, t)
        np.testing.assert_allclose(p.numpy(), q, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("make", "rule"), RULES)
def test_saved_and_loaded_goes_on_the_same(make, rule):
    def run(p, optimizer, n):
        for _ in range(n):
            loss_of(p).backward()
            optimizer.step()
            optimizer.zero_grad()

    p = nn.Parameter(np.array([0.3, -0.2]))
    optimizer = make([p])
    run(p, optimizer, 3)
    optimizer.lr = 0.05
    copy = nn.Parameter(p.numpy())
    other = make([copy])
    other.load_state_dict(optimizer.state_dict())
    run(p, optimizer, 3)
    run(copy, other, 3)
    np.testing.assert_array_equal(p.numpy(), copy.numpy())


@pytest.mark.parametrize(("make", "rule"), RULES)
def test_a_single_number_is_a_parameter_too(make, rule):
    p = nn.Parameter(np.array(1.0))
    optimizer = make([p])
    loss_of(p).backward()
    optimizer.step()
    assert p.shape == ()
    np.testing.assert_allclose(p.numpy(), rule(np.array(1.0), 3 - np.tanh(1.0) ** 2, {}, 1))


@pytest.mark.parametrize(("make", "rule"), RULES)
def test_float32_stays_float32(make, rule):
    p = nn.Parameter([1.0, -2.0])
    optimizer = make([p])
    loss_of(p).backward()
    optimizer.step()
    assert p.dtype == np.float32
    assert {a.dtype for a in optimizer.state_dict().values() if np.ndim(a)} <= {
        np.dtype(np.float32), np.dtype(np.int64),
    }  # fmt: skip


def test_parameters_without_a_gradient_stay():
    p, q = nn.Parameter([1.0]), nn.Parameter([1.0])
    p.grad = ts.tensor([1.0])
    optim.SGD([p, q], lr=0.5).step()
    assert (p.tolist(), q.tolist()) == ([0.5], [1.0])


def test_a_parameter_that_joins_later_counts_its_own_steps():
    """Adam's start at zero is undone by the number of updates that this parameter has had."""
    p, q = nn.Parameter([1.0]), nn.Parameter([1.0])
    optimizer = optim.Adam([p, q], lr=0.1)
    p.grad = ts.tensor([1.0])
    optimizer.step()
    optimizer.step()
    q.grad = ts.tensor([1.0])
    optimizer.step()
    assert q.item() == pytest.approx(0.9)
    assert optimizer.state_dict()["steps"].tolist() == [3, 1]


def test_centred_rmsprop_of_a_gradient_that_never_changes():
    """Its spread is 0, and rounding must not make it less."""
    p = nn.Parameter(np.zeros(20, np.float32))
    optimizer = optim.RMSprop([p], centered=True, alpha=0.8)
    p.grad = ts.tensor(np.linspace(0.1, 2.0, 20, dtype=np.float32))
    for _ in range(300):
        optimizer.step()
    assert np.isfinite(p.numpy()).all()


def test_a_state_from_before_there_was_amsgrad():
    """It fits the optimiser that it was of, and says what amsgrad has beside it."""
    p = nn.Parameter([1.0])
    entries = {"steps": [2], "lr": 0.1, "mean.0": [0.1], "square.0": [0.2]}
    for kind in (optim.Adam, optim.AdamW, optim.NAdam):
        optimizer = kind([p])
        optimizer.load_state_dict(entries)
        assert optimizer.state_dict().keys() == entries.keys()
    with pytest.raises(ValueError, match=r"largest.0"):
        optim.Adam([p], amsgrad=True).load_state_dict(entries)
    with pytest.raises(ValueError, match=r"amsgrad=True needs a buffer.*Make a new one with"):
        optimizer.amsgrad = True
    negative = {**entries, "largest.0": [-1.0]}
    with pytest.raises(ValueError, match=r"largest.0 holds -1.0, but a mean of squares is never"):
        optim.Adam([p], amsgrad=True).load_state_dict(negative)


def test_the_state_is_a_copy():
    p = nn.Parameter([1.0])
    optimizer = optim.Adam([p])
    state = optimizer.state_dict()
    p.grad = ts.tensor([1.0])
    optimizer.step()
    assert (state["steps"].tolist(), state["mean.0"].tolist()) == ([0], [0.0])


# -- clipping -------------------------------------------------------------------------------------


def two_gradients(a=(3.0, 0.0), b=(4.0,)):
    ps = [nn.Parameter(np.zeros(len(a))), nn.Parameter(np.zeros(len(b))), nn.Parameter([0.0])]
    ps[0].grad, ps[1].grad = ts.tensor(a), ts.tensor(b)
    return ps  # the last one has no gradient


def test_clipping_by_the_global_norm():
    a, b, _ = ps = two_gradients()
    assert optim.clip_grad_norm(iter(ps), 10.0) == pytest.approx(5.0)
    assert a.grad.tolist() == [3.0, 0.0]
    assert optim.clip_grad_norm(iter(ps), 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose([*a.grad.tolist(), *b.grad.tolist()], [0.6, 0.0, 0.8], rtol=1e-6)


def test_clipping_each_by_its_own_norm():
    a, b, _ = ps = two_gradients((3e25, 4e25), (0.5,))
    assert optim.clip_grad_norm_each(iter(ps), 1.0) == [pytest.approx(5e25), 0.5]
    np.testing.assert_allclose([*a.grad.tolist(), *b.grad.tolist()], [0.6, 0.8, 0.5], rtol=1e-6)


def test_clipping_what_has_exploded():
    """The squares of these are not finite in float32, the gradients themselves are."""
    a, b, _ = ps = two_gradients((3e25, 0.0), (4e25,))
    assert optim.clip_grad_norm(ps, 1.0) == pytest.approx(5e25)
    np.testing.assert_allclose([*a.grad.tolist(), *b.grad.tolist()], [0.6, 0.0, 0.8], rtol=1e-6)


def test_clipping_by_other_norms():
    a, b, _ = ps = two_gradients()
    assert optim.clip_grad_norm(ps, np.inf, np.inf) == 4.0
    assert optim.clip_grad_norm(ps, np.inf, 1) == pytest.approx(7.0)
    assert optim.clip_grad_norm(ps, 2.0, norm_type=np.inf) == 4.0
    assert (a.grad.tolist(), b.grad.tolist()) == ([1.5, 0.0], [2.0])
    a, b, _ = ps = two_gradients((3e30, 0.0), (0.0,))
    assert optim.clip_grad_norm(ps, 1.0, 3) == pytest.approx(3e30)  # its cube is no float32
    a.grad = b.grad = None
    assert optim.clip_grad_norm(ps, 1.0, 3) == 0.0
    with pytest.raises(ValueError, match="norm_type=0 must be a real number, above 0"):
        optim.clip_grad_norm(ps, 1.0, 0)


def test_clipping_by_value():
    a, b, _ = ps = two_gradients((3.0, -0.5), (-4.0,))
    optim.clip_grad_value(iter(ps), 1.0)
    assert (a.grad.tolist(), b.grad.tolist()) == ([1.0, -0.5], [-1.0])
    b.grad = ts.tensor([-np.inf])
    optim.clip_grad_value(ps, 1.0)
    assert b.grad.tolist() == [-1.0]


@pytest.mark.parametrize(
    "clip", [optim.clip_grad_norm, optim.clip_grad_norm_each, optim.clip_grad_value]
)
def test_clipping_nan_is_refused_and_changes_nothing(clip):
    a, b, _ = ps = two_gradients((3.0, 0.0), (np.nan,))
    with pytest.raises(ValueError, match=r"gradients? .*is nan: the gradient of a parameter holds"):
        clip(ps, 1.0)
    assert a.grad.tolist() == [3.0, 0.0]
    assert np.isnan(b.grad.item())


@pytest.mark.parametrize(
    "clip", [optim.clip_grad_norm, optim.clip_grad_norm_each, optim.clip_grad_value]
)
def test_a_recorded_gradient_is_clipped_by_an_op(clip):
    """Not in place: what was computed from it before keeps its own value and gradient."""
    p = nn.Parameter([3.0])
    (p * p).sum().backward(create_graph=True)
    before = p.grad
    y = (p.grad * p.grad).sum()
    clip([p], 1.0)
    assert (before.item(), p.grad.item()) == (6.0, pytest.approx(1.0))
    assert ts.grad(y, p, retain_graph=True).item() == 24.0  # y = (2p)², and not of the clipped one


# -- schedules ------------------------------------------------------------------------------------


def optimizer_at(lr=0.8):
    return optim.SGD([nn.Parameter([1.0])], lr=lr)


def rates(schedule, n):
    out = [schedule.optimizer.lr]
    for _ in range(n):
        schedule.step()
        out.append(schedule.optimizer.lr)
    return out


def test_step_schedule():
    schedule = optim.StepLR(optimizer_at(), step_size=2, gamma=0.5)
    assert rates(schedule, 5) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]


def test_cosine_schedule_warms_up_falls_and_stays():
    schedule = optim.CosineLR(optimizer_at(), total_steps=8, warmup_steps=4, min_lr=0.2)
    wave = [0.2 + 0.3 * (1 + np.cos(np.pi * k / 4)) for k in range(5)]
    expected = [0.2, 0.4, 0.6, 0.8, *wave, 0.2, 0.2]
    np.testing.assert_allclose(rates(schedule, 10), expected, rtol=1e-12)


@pytest.mark.parametrize(("N", "W"), [(N, W) for N in range(1, 5) for W in range(N)])
def test_cosine_schedules_of_few_steps(N, W):
    up = [0.8 * (n + 1) / W for n in range(W)]
    down = [0.4 * (1 + np.cos(np.pi * n / (N - W))) for n in range(N - W + 1)]
    found = rates(optim.CosineLR(optimizer_at(), total_steps=N, warmup_steps=W), N)
    np.testing.assert_allclose(found, [*up, *down], rtol=1e-12, atol=1e-15)


def test_plateau_schedule_waits_falls_and_cools_down():
    schedule = optim.ReduceLROnPlateau(
        optimizer_at(), factor=0.5, patience=1, cooldown=2, min_lr=0.3
    )
    metrics = [5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    seen = []
    for metric in metrics:
        schedule.step(ts.tensor(metric))
        seen.append(schedule.optimizer.lr)
    # two bad ones in a row; two that cool down; two bad ones again, and the floor
    assert seen == [0.8] * 3 + [0.4] * 4 + [0.3] * 9


@pytest.mark.parametrize(
    ("options", "metrics", "falls"),
    [
        ({"mode": "min", "threshold": 0.1}, [10.0, 9.1], True),
        ({"mode": "min", "threshold": 0.1}, [10.0, 8.9], False),
        ({"mode": "max", "threshold": 0.1}, [10.0, 10.9], True),
        ({"mode": "max", "threshold": 0.1}, [10.0, 11.1], False),
        ({"mode": "min", "threshold": 0.1, "threshold_mode": "abs"}, [10.0, 9.95], True),
        ({"mode": "min", "threshold": 0.1, "threshold_mode": "abs"}, [10.0, 9.8], False),
        ({"mode": "max", "threshold": 0.1, "threshold_mode": "abs"}, [10.0, 10.05], True),
        ({"mode": "max", "threshold": 0.1, "threshold_mode": "abs"}, [10.0, 10.2], False),
    ],
)
def test_plateau_schedule_knows_what_is_better(options, metrics, falls):
    schedule = optim.ReduceLROnPlateau(optimizer_at(), patience=0, factor=0.5, **options)
    for metric in metrics:
        schedule.step(metric)
    assert schedule.optimizer.lr == (0.4 if falls else 0.8)


def test_plateau_schedule_never_raises_the_rate():
    schedule = optim.ReduceLROnPlateau(optimizer_at(0.1), patience=0, min_lr=0.2)
    for _ in range(3):
        schedule.step(1.0)
    assert schedule.optimizer.lr == 0.1


SCHEDULES = [
    lambda o: optim.StepLR(o, 2, 0.5),
    lambda o: optim.CosineLR(o, 9, 3, 0.1),
    lambda o: optim.ReduceLROnPlateau(o, patience=1, factor=0.5, cooldown=1),
]


@pytest.mark.parametrize("make", SCHEDULES)
def test_a_saved_schedule_goes_on_the_same(make):
    def run(schedule, n):
        out = []
        for _ in range(n):
            schedule.step(*[1.0] * isinstance(schedule, optim.ReduceLROnPlateau))
            out.append(schedule.optimizer.lr)
        return out

    schedule, other = make(optimizer_at()), make(optimizer_at(0.7))
    run(schedule, 4)
    other.load_state_dict(schedule.state_dict())
    assert other.optimizer.lr == schedule.optimizer.lr
    after = run(schedule, 6)
    assert run(other, 6) == after
    assert len(set(after)) > 1


# -- errors ---------------------------------------------------------------------------------------

P = nn.Parameter([1.0])

ERRORS = [
    (lambda: optim.Adam([]), ValueError, r"params holds no parameters. Pass module"),
    (
        lambda: optim.Adam(P),
        TypeError,
        r"params=<Parameter of shape .* must be a series of Tensors",
    ),
    (lambda: optim.Adam([P, 1.0]), TypeError, r"params=\[.*, 1.0\] must be a series of Tensors"),
    (lambda: optim.Adam([P * 2]), ValueError, r"parameter 0 of shape \(1,\) was computed"),
    (lambda: optim.Adam([P, P]), ValueError, r"given twice"),
    (lambda: optim.SGD([P], lr=-1), ValueError, r"SGD: lr=-1 must be a real number, at least 0 "),
    (lambda: optim.SGD([P], lr=np.nan), ValueError, r"SGD: lr=nan must be a real number, at least"),
    (lambda: optim.SGD([P], weight_decay=-1), ValueError, r"weight_decay=-1 must be .* at least 0"),
    (lambda: optim.SGD([P], momentum=-1), ValueError, r"momentum=-1 must be .* at least 0"),
    (lambda: optim.SGD([P], nesterov=True), ValueError, r"nesterov needs a momentum above 0"),
    (
        lambda: optim.RMSprop([P], alpha=1),
        ValueError,
        r"alpha=1 must be .* at least 0 and less than 1",
    ),
    (lambda: optim.RMSprop([P], eps=-1), ValueError, r"RMSprop: eps=-1 must be"),
    (lambda: optim.RMSprop([P], momentum=-1), ValueError, r"RMSprop: momentum=-1 must be"),
    (lambda: optim.Adagrad([P], eps=-1), ValueError, r"Adagrad: eps=-1 must be"),
    (
        lambda: optim.Adam([P], betas=(1, 0)),
        ValueError,
        r"betas=.* must be 2 real numbers, at",
    ),
    (lambda: optim.AdamW([P], betas=(0, 1)), ValueError, r"AdamW: betas=.* must be 2"),
    (lambda: optim.Adam([P], eps=np.inf), ValueError, r"Adam: eps=inf must be"),
    (lambda: optim.clip_grad_norm([P], -1), ValueError, r"clip_grad_norm: max_norm=-1 must be"),
    (
        lambda: optim.clip_grad_value([P], np.nan),
        ValueError,
        r"max_value=nan must be .* at least 0",
    ),
    (lambda: optim.Schedule(optimizer_at()), NotImplementedError, r"Schedule does not say its"),
    (lambda: optim.StepLR(optimizer_at(), 0), ValueError, r"step_size=0 must be a whole number"),
    (lambda: optim.StepLR(optimizer_at(), 1, 0), ValueError, r"gamma=0 must be .* above 0"),
    (lambda: optim.CosineLR(optimizer_at(), 1.5), ValueError, r"total_steps=1.5 must be a whole"),
    (lambda: optim.CosineLR(optimizer_at(), 3, -1), ValueError, r"warmup_steps=-1 must be"),
    (lambda: optim.CosineLR(optimizer_at(), 3, 3), ValueError, r"3 leave nothing of total_steps=3"),
    (
        lambda: optim.CosineLR(optimizer_at(), 3, 0, 1.0).step(),
        ValueError,
        r"min_lr=1.0 must be at most the base, the lr=0.8",
    ),
]
PLATEAU_ERRORS = [
    ({"mode": "least"}, r" mode='least' must be 'min' or 'max'"),
    ({"threshold_mode": "both"}, r"threshold_mode='both' must be 'rel' or 'abs'"),
    ({"factor": 1}, r"factor=1 must be .* above 0 and below 1"),
    ({"threshold": -1}, r"threshold=-1 must be .* at least 0"),
    ({"threshold": 1}, r"threshold=1.0 must be below 1 when relative"),
    ({"min_lr": -1}, r"min_lr=-1 must be .* at least 0"),
    ({"patience": -1}, r"patience=-1 must be a whole number, at least 0"),
    ({"cooldown": 0.5}, r"cooldown=0.5 must be a whole number, at least 0"),
]
ERRORS += [
    (lambda o=options: optim.ReduceLROnPlateau(optimizer_at(), **o), ValueError, message)
    for options, message in PLATEAU_ERRORS
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_an_optimiser_without_a_rule_says_so():
    p = nn.Parameter([1.0])
    p.grad = ts.tensor([1.0])
    with pytest.raises(NotImplementedError, match="no update rule"):
        optim.Optimizer([p], 0.1).step()


def test_states_that_do_not_fit():
    p = nn.Parameter([1.0])
    with pytest.raises(
        ValueError, match=r"does not fit SGD over 1 parameters: unknown mean.0; unknown sq"
    ):
        optim.SGD([p]).load_state_dict(optim.Adam([p]).state_dict())
    with pytest.raises(ValueError, match=r"mean.0 has shape \(1,\), expected \(2,\)"):
        optim.Adam([nn.Parameter([1.0, 2.0])]).load_state_dict(optim.Adam([p]).state_dict())
    schedule = optim.StepLR(optimizer_at(), 1)
    with pytest.raises(ValueError, match=r"does not fit StepLR: missing steps"):
        schedule.load_state_dict(optim.ReduceLROnPlateau(optimizer_at()).state_dict())


def test_plateau_schedule_refuses_nan():
    schedule = optim.ReduceLROnPlateau(optimizer_at(), patience=0)
    with pytest.raises(ValueError, match="metric is nan"):
        schedule.step(float("nan"))


LAYOUTS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "every second": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1].copy()[::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "make",
    [
        lambda ps: optim.SGD(ps, 0.1, weight_decay=0.1),
        lambda ps: optim.SGD(ps, 0.1, momentum=0.9),
        lambda ps: optim.SGD(ps, 0.1, momentum=0.9, nesterov=True),
        lambda ps: optim.RMSprop(ps, 0.1),
        lambda ps: optim.Adagrad(ps, 0.1),
        lambda ps: optim.Adam(ps, 0.1),
        lambda ps: optim.AdamW(ps, 0.1, weight_decay=0.1),
        lambda ps: optim.NAdam(ps, 0.1),
    ],
)
@pytest.mark.parametrize("of", ["parameter", "gradient", "both"])
def test_parameters_and_gradients_of_any_layout(make, layout, of):
    from tinyseq.kernels import load

    load.load_kernels()  # else NumPy updates all of them
    found = []
    for lay in (LAYOUTS["rows"], LAYOUTS[layout]):
        rng = np.random.default_rng(0)
        p = nn.Parameter(np.zeros((4, 6), np.float32))
        p._data = rng.standard_normal((4, 6)).astype(np.float32)
        if of != "gradient":
            p._data = lay(p._data)
        optimizer = make([p])
        for _ in range(3):
            g = rng.standard_normal((4, 6)).astype(np.float32)
            p.grad = ts.Tensor.wrap(g if of == "parameter" else lay(g))
            optim.clip_grad_norm([p], 2.0)
            optimizer.step()
        found.append(p.numpy().copy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
