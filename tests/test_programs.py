"""Random programs against an oracle that knows nothing but scalars.

Hypothesis draws programs: ops on whatever was made before (reuse), views, detach, no_grad, repeated
and partial backward passes, graphs kept and freed. Each tensor has a twin, an object array of
scalars that remember their parents and partial derivatives; the gradients of the two must be equal
at every step.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule

import tinyseq as ts
from tinyseq.errors import GraphError


class Scalar:
    """A number, its parents and the partial derivatives towards them; nothing is clever."""

    def __init__(self, value, parents=()):
        self.value = value
        self.parents = parents

    def __add__(self, other):
        return Scalar(self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __sub__(self, other):
        return Scalar(self.value - other.value, ((self, 1.0), (other, -1.0)))

    def __mul__(self, other):
        return Scalar(self.value * other.value, ((self, other.value), (other, self.value)))

    def tanh(self):
        y = math.tanh(self.value)
        return Scalar(y, ((self, 1 - y * y),))

    def sin(self):
        return Scalar(math.sin(self.value), ((self, math.cos(self.value)),))

    def relu(self):
        return Scalar(max(self.value, 0.0), ((self, float(self.value > 0)),))

    def sigmoid(self):
        y = 1 / (1 + math.exp(-self.value))
        return Scalar(y, ((self, y * (1 - y)),))

    def gradients(self):
        """∂self / ∂s of every scalar s below, by its id: the chain rule, in topological order."""
        order, seen = [], set()

        def visit(s):
            if id(s) not in seen:
                seen.add(id(s))
                for parent, _ in s.parents:
                    visit(parent)
                order.append(s)

        visit(self)
        found = {id(self): 1.0}
        for s in reversed(order):
            for parent, partial in s.parents:
                found[id(parent)] = found.get(id(parent), 0.0) + partial * found.get(id(s), 0.0)
        return found


def values(twin):
    return np.vectorize(lambda s: s.value, otypes=[float])(twin)


class Pair:
    """A tensor and its twin."""

    def __init__(self, tensor, twin):
        self.tensor, self.twin = tensor, np.asarray(twin, dtype=object)
        np.testing.assert_allclose(tensor.numpy(), values(self.twin), rtol=1e-10, atol=1e-12)

    def __repr__(self):
        return f"Pair{self.tensor.shape}"


def passed_on(twin):
    """The same numbers as scalars of their own: a view is another tensor than what it looks at."""
    return np.vectorize(lambda s: Scalar(s.value, ((s, 1.0),)), otypes=[object])(twin)


def cut(twin):
    return np.vectorize(lambda s: Scalar(s.value), otypes=[object])(twin)


UNARY = {
    "tanh": (ts.tanh, np.vectorize(Scalar.tanh, otypes=[object])),
    "relu": (ts.relu, np.vectorize(Scalar.relu, otypes=[object])),
    "sigmoid": (ts.sigmoid, np.vectorize(Scalar.sigmoid, otypes=[object])),
}
BINARY = {
    "add": (ts.add, np.add),
    "sub": (ts.sub, np.subtract),
    "mul": (ts.mul, np.multiply),
}
VIEWS = {
    "reshape": lambda x: x.reshape(-1),
    "transpose": lambda x: x.T,
    "first": lambda x: x[:1],
    "backwards": lambda x: x[::-1],
    "twice": lambda x: x[np.array([0, -1, 0])],
    "new axis": lambda x: x[None],
}


class Programs(RuleBasedStateMachine):
    made = Bundle("made")

    def __init__(self):
        super().__init__()
        self.leaves = []  # (pair, the gradient that .grad should hold)
        self.scale = 0

    @rule(
        target=made,
        shape=st.sampled_from([(), (2,), (3,), (2, 3), (1, 3), (3, 2)]),
        requires_grad=st.sampled_from([True, True, False]),
        seed=st.integers(0, 99),
    )
    def leaf(self, shape, requires_grad, seed):
        array = np.random.default_rng(seed).uniform(-1.5, 1.5, shape)
        tensor = ts.tensor(array, requires_grad=requires_grad)
        pair = Pair(tensor, np.vectorize(Scalar, otypes=[object])(array))
        if requires_grad:
            self.leaves.append((pair, np.zeros(shape)))
        return pair

    @rule(target=made, a=made, name=st.sampled_from(sorted(UNARY)))
    def unary(self, a, name):
        ours, theirs = UNARY[name]
        return Pair(ours(a.tensor), theirs(a.twin))

    @rule(target=made, a=made, b=made, name=st.sampled_from(sorted(BINARY)), quiet=st.booleans())
    def binary(self, a, b, name, quiet):
        try:
            shape = np.broadcast_shapes(a.tensor.shape, b.tensor.shape)
        except ValueError:
            return multiple()
        if math.prod(shape) > 12 or np.abs(values(a.twin)).max() > 1e3:
            return multiple()
        ours, theirs = BINARY[name]
        if quiet and not (a.tensor.requires_grad or b.tensor.requires_grad):
            quiet = False
        if quiet:  # under no_grad the result is a constant
            with ts.no_grad():
                return Pair(ours(a.tensor, b.tensor), cut(theirs(a.twin, b.twin)))
        return Pair(ours(a.tensor, b.tensor), theirs(a.twin, b.twin))

    @rule(target=made, a=made, b=made)
    def matmul(self, a, b):
        if a.tensor.ndim != 2 or b.tensor.ndim != 2 or a.tensor.shape[1] != b.tensor.shape[0]:
            return multiple()
        return Pair(a.tensor @ b.tensor, passed_on(a.twin @ b.twin))

    @rule(target=made, a=made, name=st.sampled_from(sorted(VIEWS)))
    def view(self, a, name):
        if a.tensor.ndim == 0 or a.tensor.ndim > 2 or a.tensor.shape[0] == 0:
            return multiple()
        return Pair(VIEWS[name](a.tensor), passed_on(VIEWS[name](a.twin)))

    @rule(target=made, a=made, b=made)
    def concat(self, a, b):
        if a.tensor.ndim != 1 or b.tensor.ndim != 1 or a.tensor.size + b.tensor.size > 12:
            return multiple()
        twin = passed_on(np.concatenate([a.twin, b.twin]))
        return Pair(ts.concat([a.tensor, b.tensor]), twin)

    @rule(target=made, a=made, axis=st.sampled_from([None, 0]))
    def sum(self, a, axis):
        if a.tensor.ndim == 0:
            return multiple()
        return Pair(a.tensor.sum(axis), passed_on(a.twin.sum(axis)))

    @rule(target=made, a=made)
    def detach(self, a):
        return Pair(a.tensor.detach(), cut(a.twin))

    @rule(a=made, times=st.integers(1, 2))
    def backward_over_a_kept_graph(self, a, times):
        y, twin = a.tensor.sum(), a.twin.sum()
        if not y.requires_grad:
            with pytest.raises(GraphError):
                y.backward()
            return
        for _ in range(times):
            y.backward(retain_graph=True)
        found = twin.gradients()
        for pair, expected in self.leaves:
            expected += times * np.vectorize(lambda s: found.get(id(s), 0.0), otypes=[float])(
                pair.twin
            )
        self.check()

    @rule(a=consumes(made))
    def backward_over_a_copy_that_is_freed(self, a):
        """A program of its own, freed: its own nodes are gone, everything else goes on."""
        if not a.tensor.requires_grad:
            return
        start = a.tensor.detach()
        start.requires_grad = True
        y = (ts.tanh(start) * start).sum()
        y.backward()
        t = np.tanh(start.numpy())
        np.testing.assert_allclose(start.grad.numpy(), t + start.numpy() * (1 - t * t), atol=1e-10)
        with pytest.raises(GraphError, match="freed"):
            y.backward()

    @rule(a=made, b=made)
    def partial_gradient(self, a, b):
        """Towards any tensor, also one in the middle."""
        y = a.tensor.sum()
        if not (y.requires_grad and b.tensor.requires_grad):
            return
        (g,) = ts.grad(y, [b.tensor], retain_graph=True)
        found = a.twin.sum().gradients()
        expected = np.vectorize(lambda s: found.get(id(s), 0.0), otypes=[float])(b.twin)
        np.testing.assert_allclose(g.numpy(), expected, rtol=1e-8, atol=1e-10)

    def check(self):
        for pair, expected in self.leaves:
            g = pair.tensor.grad
            ours = np.zeros(pair.tensor.shape) if g is None else g.numpy()
            np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-10)


TestPrograms = Programs.TestCase
TestPrograms.settings = settings(max_examples=4 * settings().max_examples, stateful_step_count=25)
