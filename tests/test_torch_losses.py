"""Losses, optimisers and schedules agree with PyTorch in float64, to 1e-10.

PyTorch is in the extra `bench`; without it these tests are skipped.
"""

import itertools
import warnings

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import functional as F
from tinyseq import nn

torch = pytest.importorskip("torch")
TF = torch.nn.functional

REDUCTIONS = ["mean", "sum", "none"]


def agree(ours, theirs, *arrays):
    """The same value, and the same gradient of each array."""
    xs = [ts.tensor(a, requires_grad=True) for a in arrays]
    ys = [torch.tensor(a, requires_grad=True) for a in arrays]
    a, b = ours(*xs), theirs(*ys)
    np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=0, atol=1e-10)
    weight = np.random.default_rng(1).uniform(0.5, 1.5, a.shape)
    (a * ts.tensor(weight)).sum().backward()
    (b * torch.from_numpy(np.asarray(weight))).sum().backward()
    for x, y in zip(xs, ys, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=0, atol=1e-10)


def classes_second(t):
    """(..., V) → (N, V, ...), where PyTorch wants the classes."""
    return torch.movedim(t, -1, 1)


# -- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["classes", "ignored", "probabilities"])
def test_cross_entropy_agrees(kind, reduction, weighted, smoothing, scale):
    rng = np.random.default_rng(0)
    T, B, V = 4, 3, 5
    logits = rng.standard_normal((T, B, V)) * scale
    weight = rng.uniform(0.2, 2, V) if weighted else None
    t_weight = torch.from_numpy(weight) if weighted else None
    options = {"reduction": reduction, "label_smoothing": smoothing}
    if kind == "probabilities":
        p = rng.dirichlet(np.ones(V), (T, B))
        agree(
            lambda x, p: F.cross_entropy(x, p, weight=weight, **options),
            lambda x, p: TF.cross_entropy(
                classes_second(x), classes_second(p), t_weight, **options
            ),
            logits, p,
        )  # fmt: skip
        return
    targets = rng.integers(0, V, (T, B))
    if kind == "ignored":
        targets[0] = options["ignore_index"] = -7
    agree(
        lambda x: F.cross_entropy(x, targets, weight=weight, **options),
        lambda x: TF.cross_entropy(
            classes_second(x), torch.from_numpy(targets), t_weight, **options
        ),
        logits,
    )  # fmt: skip


def test_what_is_ignored_by_default_is_pytorchs():
    logits = np.random.default_rng(0).standard_normal((3, 4))
    agree(
        lambda x: F.cross_entropy(x, [1, -100, 2]),
        lambda x: TF.cross_entropy(x, torch.tensor([1, -100, 2])),
        logits,
    )


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll_agrees(reduction, weighted, ignore):
    rng = np.random.default_rng(0)
    logits, targets, w = rng.standard_normal((6, 4)), rng.integers(0, 4, 6), rng.uniform(0.2, 2, 4)
    options = {"reduction": reduction, "ignore_index": int(targets[0]) if ignore else -100}
    agree(
        lambda x: F.nll_loss(
            F.log_softmax(x), targets, weight=w if weighted else None, **options
        ),
        lambda x: TF.nll_loss(
            x.log_softmax(-1), torch.from_numpy(targets),
            torch.from_numpy(w) if weighted else None, **options,
        ),
        logits,
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy_agrees(reduction, weighted, positive, scale):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 3)) * scale, rng.uniform(0, 1, (4, 3))
    options = {}
    if weighted:
        options["weight"] = rng.uniform(0, 2, (4, 1))
    if positive:
        options["pos_weight"] = rng.uniform(0, 2, 3)
    t_options = {name: torch.from_numpy(w) for name, w in options.items()}
    agree(
        lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction, **options),
        lambda x, y: TF.binary_cross_entropy_with_logits(x, y, reduction=reduction, **t_options),
        x, y,
    )  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy_of_probabilities_agrees(reduction, weighted):
    rng = np.random.default_rng(0)
    p, y = rng.uniform(0.01, 0.99, (2, 4, 3))
    weight = rng.uniform(0, 2, (4, 1)) if weighted else None
    t_weight = torch.from_numpy(weight) if weighted else None
    agree(
        lambda p, y: F.binary_cross_entropy(p, y, reduction, weight=weight),
        lambda p, y: TF.binary_cross_entropy(p, y, t_weight, reduction=reduction),
        p, y,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_and_wrong_costs_100_and_has_pytorchs_slope(dtype):
    p, y = np.array([0, 1, 0, 1, 1e-20], dtype), np.array([1, 0, 0, 1, 1], dtype)
    a, b = ts.tensor(p, requires_grad=True), torch.tensor(p, requires_grad=True)
    ours = F.binary_cross_entropy(a, y, "none")
    theirs = TF.binary_cross_entropy(b, torch.from_numpy(y), reduction="none")
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-6)
    ours.sum().backward()
    theirs.sum().backward()
    wrong = [0, 1, 4]  # of what is right PyTorch's slope is 0, and not ±1
    np.testing.assert_allclose(a.grad.numpy()[wrong], b.grad.numpy()[wrong], rtol=1e-6)
    assert a.grad.tolist()[2:4] == [1.0, -1.0]


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # PyTorch's, of "mean"
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div_agrees(reduction, log_target):
    rng = np.random.default_rng(0)
    q, p = rng.dirichlet(np.ones(5), (2, 4, 3))
    options = {"reduction": reduction, "log_target": log_target}
    agree(
        lambda q, p: F.kl_div(q, p, **options),
        lambda q, p: TF.kl_div(q, p, **options),
        np.log(q), np.log(p) if log_target else p,
    )  # fmt: skip


@pytest.mark.parametrize("log_target", [False, True])
def test_what_is_impossible_costs_nothing(log_target):
    """Also where the logarithm of its probability is −∞: PyTorch gives NaN."""
    q = ts.tensor(np.array([[0.0, -np.inf, -np.inf]]), requires_grad=True)
    p = ts.tensor([[0.0, -np.inf, -np.inf]] if log_target else [[1.0, 0.0, 0.0]], np.float64, True)
    loss = F.kl_div(q, p, "sum", log_target=log_target)
    assert loss.item() == 0.0
    loss.backward()
    assert q.grad.tolist() == [[-1.0, 0.0, 0.0]]
    assert p.grad.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_errors_of_numbers_agree(reduction):
    a, b = np.random.default_rng(0).standard_normal((2, 4, 3))
    a[0] = b[0]  # where |x| has a kink, and the error is 0
    a[1, 0] = b[1, 0] + 0.75
    for name, options in (("mse", {}), ("l1", {}), ("huber", {}), ("huber", {"delta": 0.75})):
        ours, theirs = (getattr(f, f"{name}_loss") for f in (F, TF))
        agree(
            lambda a, b, ours=ours, options=options: ours(a, b, reduction, **options),
            lambda a, b, theirs=theirs, options=options: theirs(
                a, b, reduction=reduction, **options
            ),
            a, b,
        )  # fmt: skip


def test_losses_are_smooth_where_they_should_be():
    """Order 2: the curvature of the Huber loss at 0 is 1, and that of the others is what finite
    differences say.
    """
    e = ts.tensor(np.array([0.0, 0.5, 3.0]), requires_grad=True)
    g = ts.grad(F.huber_loss(e, np.zeros(3), "sum"), e, create_graph=True)
    assert ts.grad(g.sum(), e).tolist() == [1.0, 1.0, 0.0]
    p, y = (ts.tensor(a, np.float64, True) for a in ([0.2, 0.3, 0.5], [0.6, 0.15, 0.25]))
    for loss in (
        lambda p, y: F.binary_cross_entropy(p, y),
        lambda p, y: F.kl_div(ts.log(p), y, "none"),
        lambda p, y: F.kl_div(ts.log(p), ts.log(y), log_target=True),
        lambda p, y: F.huber_loss(p * 9, y, delta=0.5) + F.l1_loss(p, y) * F.mse_loss(p, y),
    ):
        assert ts.gradcheck(loss, [p, y])
        assert ts.gradcheck(loss, [p, y], order=2)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_log_sigmoid_and_softmax_agree(scale):
    x = np.random.default_rng(0).standard_normal((4, 3)) * scale
    agree(F.log_sigmoid, TF.logsigmoid, x)
    agree(F.softmax, lambda x: x.softmax(-1), x)
    agree(lambda x: F.log_softmax(x, 0), lambda x: x.log_softmax(0), x)


CTC = list(itertools.product(REDUCTIONS, [False, True], [0, 4]))


def ctc_case(seed=0, scale=1.0, repeats=False):
    rng = np.random.default_rng(seed)
    T, B, V, S = 12, 5, 5, 4
    logits = rng.standard_normal((T, B, V)) * scale
    targets = rng.integers(1, 2 if repeats else V - 1, (B, S))  # neither 0 nor 4: both are blanks
    return logits, targets, rng.integers(8, T + 1, B), np.array([4, 3, 0, 1, 4])


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize(("reduction", "one_after_the_other", "blank"), CTC)
def test_ctc_agrees(reduction, one_after_the_other, blank, repeats):
    logits, targets, steps, lengths = ctc_case(repeats=repeats)
    if one_after_the_other:
        targets = np.concatenate([row[:n] for row, n in zip(targets, lengths, strict=True)])
    agree(
        lambda x: F.ctc_loss(F.log_softmax(x), targets, steps, lengths, blank, reduction),
        lambda x: TF.ctc_loss(
            x.log_softmax(-1), torch.from_numpy(targets), torch.from_numpy(steps),
            torch.from_numpy(lengths), blank, reduction,
        ),
        logits,
    )  # fmt: skip


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_ctc_far_out_agrees(scale):
    logits, targets, steps, lengths = ctc_case(scale=scale)
    agree(
        lambda x: F.ctc_loss(F.log_softmax(x), targets, steps, lengths, reduction="none"),
        lambda x: TF.ctc_loss(
            x.log_softmax(-1), torch.from_numpy(targets), torch.from_numpy(steps),
            torch.from_numpy(lengths), reduction="none",
        ),
        logits,
    )  # fmt: skip


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ctc_of_targets_that_do_not_fit_agrees(reduction):
    """One target is too long, one too long by the blank between its equal symbols, one fits."""
    logits = np.random.default_rng(0).standard_normal((6, 3, 4))
    targets, steps, lengths = np.array([[1, 2, 3], [2, 2, 1], [1, 3, 0]]), [2, 3, 6], [3, 3, 2]

    def ours(x, zero_infinity=True, reduction=reduction):
        return F.ctc_loss(
            F.log_softmax(x), targets, steps, lengths,
            reduction=reduction, zero_infinity=zero_infinity,
        )  # fmt: skip

    def theirs(x, zero_infinity=True, reduction=reduction):
        return TF.ctc_loss(
            x.log_softmax(-1), torch.from_numpy(targets), torch.tensor(steps),
            torch.tensor(lengths), reduction=reduction, zero_infinity=zero_infinity,
        )  # fmt: skip

    agree(ours, theirs, logits)
    # Without zero_infinity both say ∞; the gradient is NaN there in PyTorch and 0 here.
    x, y = ts.tensor(logits, requires_grad=True), torch.tensor(logits, requires_grad=True)
    a, b = ours(x, False, "none"), theirs(y, False, "none")
    np.testing.assert_allclose(a.numpy(), b.detach().numpy(), atol=1e-10)
    assert np.isinf(a.numpy()).tolist() == [True, True, False]
    g = ts.grad(a.sum(), x).numpy()
    b.sum().backward()
    assert np.all(g[:, :2] == 0)
    np.testing.assert_allclose(g[:, 2], y.grad.numpy()[:, 2], atol=1e-10)


# -- optimisers -----------------------------------------------------------------------------------

OPTIMISERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.1, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9}),
    ("RMSprop", {"lr": 0.01, "centered": True}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.6), "weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.1, "betas": (0.5, 0.6), "weight_decay": 0.1, "amsgrad": True}),
    ("NAdam", {}),
    ("NAdam", {"lr": 0.1, "betas": (0.0, 0.95), "eps": 1e-6, "weight_decay": 0.1}),
    ("NAdam", {"betas": (0.3, 0.9), "momentum_decay": 0.5}),
    ("NAdam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True}),
]


def twins(name, options):
    starts = [np.array([1.0, -2.0, 0.5]), np.array([[0.3], [-0.1]])]
    ps, qs = [nn.Parameter(a) for a in starts], [torch.tensor(a).requires_grad_() for a in starts]
    return ps, qs, getattr(ts.optim, name)(ps, **options), getattr(torch.optim, name)(qs, **options)


def step_both(ps, qs, ours, theirs, skip=False):
    """One step on the same loss; ``skip``: the second parameter has no part in it."""
    ours.zero_grad()
    theirs.zero_grad()
    used = 1 if skip else 2
    sum(((p * p).sum() + ts.sigmoid(p).sum() for p in ps[:used]), start=ts.tensor(0.0)).backward()
    sum((q * q).sum() + torch.sigmoid(q).sum() for q in qs[:used]).backward()
    ours.step()
    theirs.step()
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
def test_optimisers_agree(name, options):
    torch.set_default_dtype(torch.float64)  # in which NAdam keeps the product of its momenta
    try:
        both = twins(name, options)
        for t in range(60 if name == "NAdam" else 20):  # 0.3⁵⁰ is no part of 1 any more
            step_both(*both, skip=t % 3 == 0)
    finally:
        torch.set_default_dtype(torch.float32)


def test_clipping_agrees():
    rng = np.random.default_rng(0)
    for by in (2.0, 1.0, 3.5, np.inf, "value"):
        arrays = [rng.standard_normal(3) * 5, rng.standard_normal((2, 2))]
        ps, qs = [nn.Parameter(a) for a in arrays], [torch.tensor(a) for a in arrays]
        for p, q, a in zip(ps, qs, arrays, strict=True):
            p.grad, q.grad = ts.tensor(a), torch.tensor(a)
        if by != "value":
            ours = ts.optim.clip_grad_norm(ps, 1.5, by)
            theirs = torch.nn.utils.clip_grad_norm_(qs, 1.5, by).item()
            assert ours == pytest.approx(theirs, rel=1e-12)
        else:
            ts.optim.clip_grad_value(ps, 1.5)
            torch.nn.utils.clip_grad_value_(qs, 1.5)
        for p, q in zip(ps, qs, strict=True):  # PyTorch divides by the norm plus 1e-6
            np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)


# -- schedules ------------------------------------------------------------------------------------


def cosine(optimizer, total, warmup, low):
    lr = torch.optim.lr_scheduler
    fall = lr.CosineAnnealingLR(optimizer, total - warmup, low)
    if not warmup:
        return fall
    rise = lr.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    return lr.SequentialLR(optimizer, [rise, fall], milestones=[warmup])


SCHEDULES = [
    (lambda o: ts.optim.StepLR(o, 4), lambda o: torch.optim.lr_scheduler.StepLR(o, 4)),
    (
        lambda o: ts.optim.StepLR(o, 3, 0.7),
        lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.7),
    ),
    (lambda o: ts.optim.CosineLR(o, 20), lambda o: cosine(o, 20, 0, 0.0)),
    (lambda o: ts.optim.CosineLR(o, 20, 5, 0.01), lambda o: cosine(o, 20, 5, 0.01)),
]
PLATEAUS = [
    {"patience": 1},
    {"patience": 0, "factor": 0.5, "cooldown": 2, "min_lr": 0.02},
    {"mode": "max", "patience": 2, "factor": 0.5, "threshold": 0.05},
    {"patience": 2, "factor": 0.5, "threshold": 0.3, "threshold_mode": "abs"},
    {"mode": "max", "patience": 1, "factor": 0.7, "threshold": 0.3, "threshold_mode": "abs"},
]
SCHEDULES += [
    (
        lambda o, options=options: ts.optim.ReduceLROnPlateau(o, **options),
        lambda o, options=options: torch.optim.lr_scheduler.ReduceLROnPlateau(o, **options),
    )
    for options in PLATEAUS
]


@pytest.mark.parametrize(
    ("name", "options"), [("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {})]
)
@pytest.mark.parametrize(("make", "make_theirs"), SCHEDULES)
def test_schedules_agree(make, make_theirs, name, options):
    both = twins(name, options | {"lr": 0.1})
    _, _, ours, theirs = both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's schedules call each other in deprecated ways
        schedule, their_schedule = make(ours), make_theirs(theirs)
        metrics = np.random.default_rng(0).integers(1, 6, 20) / 2
        rates = []
        for metric in metrics:
            assert ours.lr == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-12)
            rates.append(ours.lr)
            step_both(*both)
            arguments = [metric] if isinstance(schedule, ts.optim.ReduceLROnPlateau) else []
            schedule.step(*arguments)
            their_schedule.step(*arguments)
    assert len(set(rates)) > 1
