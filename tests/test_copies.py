"""pickle, copy.copy and copy.deepcopy: the same thing again, or one error that says what to do."""

import copy
import pickle

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn, optim, text
from tinyseq.errors import GraphError
from tinyseq.nested import leaves
from tinyseq.nn.reservoir import EchoState

WAYS = {
    **{f"pickle {n}": lambda v, n=n: pickle.loads(pickle.dumps(v, n)) for n in range(6)},
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
X = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)


def trained(layer, mode=None):
    if mode is not None:
        for _, m in layer.named_modules():
            if isinstance(m, nn.Recurrent):
                m.mode = mode
    y = layer(X)
    y = y[0] if isinstance(y, tuple) else y
    (y * y).sum().backward()
    return layer


LAYERS = {
    "linear": lambda: trained(nn.Linear(3, 2)),
    "frozen": lambda: nn.Linear(3, 2).eval(),
    "unrolled": lambda: trained(nn.LSTM(3, 4), "unroll"),
    "compiled": lambda: trained(nn.LSTM(3, 4), "compiled"),
    "both directions": lambda: trained(nn.GRU(3, 4, 2, bidirectional=True, dropout=0.2)),
    "wrapped": lambda: trained(nn.Recurrent(nn.LearnedState(nn.Zoneout(nn.GRUCell(3, 4))))),
    "echo": lambda: EchoState(3, 20, 2),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_that_was_used_comes_back_whole(kind, way):
    layer = LAYERS[kind]()
    twin = WAYS[way](layer)
    mine, its = layer.named_tensors(), twin.named_tensors()
    assert [n for n, _ in mine] == [n for n, _ in its]
    for (_, a), (_, b) in zip(mine, its, strict=True):
        assert (type(a), a.name, a.requires_grad, a.dtype) == (
            type(b),
            b.name,
            b.requires_grad,
            b.dtype,
        )
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or a.grad.tolist() == b.grad.tolist()
        assert (a is b) == (way == "copy")
    assert layer.training == twin.training
    for module in (layer, twin):
        module.zero_grad()
        trained(module.eval())
    assert [p.grad.tolist() for p in layer.parameters()] == [
        p.grad.tolist() for p in twin.parameters()
    ]


def recorded_tensor():
    p = nn.Parameter([1.0, 2.0])
    return p * p


def long_chain():
    y = ts.tensor(1.0, requires_grad=True)
    for _ in range(1000):
        y = y * 1.001
    return y


def recorded_gradient():
    p = nn.Parameter([1.0, 2.0])
    (p * p).sum().backward(create_graph=True)
    return p


def after_backward():
    y = recorded_tensor()
    y.sum().backward()
    return y


def module_that_keeps_one():
    layer = nn.Linear(2, 2)
    layer.last = layer(np.ones((1, 2), np.float32))
    return layer


def state_of_a_layer():
    return {"states": [nn.LSTM(3, 4)(X)[1]]}


RECORDED = [recorded_tensor, long_chain, recorded_gradient, after_backward, module_that_keeps_one,
            state_of_a_layer]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", RECORDED)
def test_a_recorded_tensor_says_to_detach_it(make, way):
    value = make()
    if way == "copy" and not isinstance(value, ts.Tensor):
        value = next(leaves(value["states"])) if isinstance(value, dict) else value.last
    with pytest.raises(
        GraphError, match=r"computed \(op=\w+\) cannot be copied or pickled: .*detach\(\) it"
    ):
        WAYS[way](value)


@pytest.mark.parametrize("way", WAYS)
def test_after_detach_it_is_a_leaf_like_any_other(way):
    y = recorded_tensor().detach()
    twin = WAYS[way](y)
    assert (twin.tolist(), twin.node, twin.requires_grad, twin.cut_from) == (
        [1.0, 4.0],
        None,
        False,
        None,
    )
    leaf = ts.tensor(np.array([1.0]), requires_grad=True, name="x")
    leaf.grad = ts.tensor(np.array([2.0]))
    twin = WAYS[way](leaf)
    assert (twin.tolist(), twin.dtype, twin.name, twin.grad.tolist()) == (
        [1.0],
        np.float64,
        "x",
        [2.0],
    )
    (twin * 3).sum().backward()
    assert twin.grad.tolist() == [5.0]
    assert leaf.grad.tolist() == [2.0]


def double(g):
    return g * 2


@pytest.mark.parametrize("make", [lambda: ts.tensor([1.0], requires_grad=True),
                                  lambda: recorded_tensor().detach()])  # fmt: skip
def test_hooks_come_along_where_they_can(make):
    for way in ("pickle 5", "deepcopy"):
        leaf = make()
        leaf.requires_grad = True
        leaf.register_hook(double)
        twin = WAYS[way](leaf)
        twin.sum().backward()
        assert set(twin.grad.tolist()) == {2.0}
        assert leaf.grad is None
    leaf.register_hook(lambda g: g * 3)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(leaf)


@pytest.mark.parametrize("way", ["pickle 5", "deepcopy"])
def test_what_belongs_together_stays_together(way):
    """A model, its optimiser and schedule: the twins train alike, to the bit, and apart."""
    model = nn.Linear(3, 2)
    adam = optim.Adam(model.parameters(), lr=0.1)
    schedule = optim.CosineLR(adam, 9, 2)
    parts = [model, adam, schedule]

    def train(model, adam, schedule):
        for _ in range(3):
            (model(X) ** 2).mean().backward()
            adam.step()
            adam.zero_grad()
            schedule.step()
        return [*model.state_dict().values(), np.array(adam.lr)]

    train(*parts)
    twins = WAYS[way](parts)
    assert all(map(lambda a, b: a is b, twins[1].params, twins[0].parameters()))
    assert twins[2].optimizer is twins[1]
    before = model.state_dict()
    theirs = train(*twins)
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(a, before[name])
    for a, b in zip(train(*parts), theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_array_that_was_pickled_is_an_array_like_any_other():
    """Its dtype is another object, and what is told by identity must not notice."""
    for dtype in (np.float32, np.float64, np.int64, bool):
        array = pickle.loads(pickle.dumps(np.ones(3, dtype)))
        for t in (ts.tensor(array), ts.tensor([1, 0, 1], dtype)):
            twin = pickle.loads(pickle.dumps(t))
            assert t._data.dtype is twin._data.dtype is np.dtype(dtype)


@pytest.mark.parametrize("way", WAYS)
def test_texts_and_generators(way):
    for value, look in (
        (text.Vocabulary("abc"), lambda v: (v.symbols, v.encode("cab").tolist())),
        (text.Vocabulary.from_counts(["a", "b"], pad="<P>"), lambda v: (v.symbols, v.pad, v.unk)),
        (text.NGram(2, 3).fit([0, 1, 2, 1]), lambda v: v.score([1, 0, 2])),
        (text.Partition(np.arange(20), 2, 3), lambda v: [a.tolist() for pair in v for a in pair]),
        (text.Buckets([3, 1, 2], 2, seed=0), lambda v: [b.tolist() for b in v]),
        (text.Words(), lambda v: v.split("a b")),
        (ts.random.spawn(1)[0], lambda v: copy.deepcopy(v).random()),
    ):
        assert look(WAYS[way](value)) == look(copy.deepcopy(value))
