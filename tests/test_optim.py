"""Optimisers against their update rules written out, clipping, state, errors."""

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


def adam(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["s"] = 0.999 * s.get("s", 0) + 0.001 * g**2
    return p - 0.1 * (s["m"] / (1 - 0.9**t)) / (np.sqrt(s["s"] / (1 - 0.999**t)) + 1e-8)


RULES = [
    (lambda ps: optim.SGD(ps, lr=0.1), sgd),
    (lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9), momentum),
    (lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True), nesterov),
    (lambda ps: optim.SGD(ps, lr=0.1, weight_decay=0.5), decay),
    (lambda ps: optim.RMSprop(ps, lr=0.1), rmsprop),
    (lambda ps: optim.Adam(ps, lr=0.1), adam),
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
    copy = nn.Parameter(p.numpy())
    other = make([copy])
    other.load_state_dict(optimizer.state_dict())
    run(p, optimizer, 3)
    run(copy, other, 3)
    np.testing.assert_array_equal(p.numpy(), copy.numpy())


def test_parameters_without_a_gradient_stay():
    p, q = nn.Parameter([1.0]), nn.Parameter([1.0])
    p.grad = ts.tensor([1.0])
    optim.SGD([p, q], lr=0.5).step()
    assert (p.tolist(), q.tolist()) == ([0.5], [1.0])


def test_clipping_by_the_global_norm():
    a, b = nn.Parameter([0.0, 0.0]), nn.Parameter([0.0])
    a.grad, b.grad = ts.tensor([3.0, 0.0]), ts.tensor([4.0])
    assert optim.clip_grad_norm([a, b], 10.0) == pytest.approx(5.0)
    assert a.grad.tolist() == [3.0, 0.0]
    assert optim.clip_grad_norm([a, b], 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose([*a.grad.tolist(), *b.grad.tolist()], [0.6, 0.0, 0.8], rtol=1e-6)


def test_errors_teach():
    p = nn.Parameter([1.0])
    with pytest.raises(ValueError, match="no parameters were given"):
        optim.Adam([])
    with pytest.raises(ValueError, match="lr=-1 must not be negative"):
        optim.SGD([p], lr=-1)
    with pytest.raises(ValueError, match="nesterov needs a momentum above 0"):
        optim.SGD([p], nesterov=True)
    with pytest.raises(ValueError, match=r"does not fit SGD over 1 parameters: mean.0, square.0"):
        optim.SGD([p]).load_state_dict(optim.Adam([p]).state_dict())
    with pytest.raises(ValueError, match=r"mean.0 has shape \(1,\), expected \(2,\)"):
        optim.Adam([nn.Parameter([1.0, 2.0])]).load_state_dict(optim.Adam([p]).state_dict())
    p.grad = ts.tensor([1.0])
    with pytest.raises(NotImplementedError, match="no update rule"):
        optim.Optimizer([p], 0.1).step()
    p.grad = ts.tensor([float("nan")])
    with pytest.raises(ValueError, match="norm of the gradients is nan"):
        optim.clip_grad_norm([p], 1.0)
