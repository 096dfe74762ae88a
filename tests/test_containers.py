"""Layers and parameters are found in containers of any nesting that an attribute holds."""

from collections import OrderedDict, UserDict, UserList, deque, namedtuple
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn, optim, saving
from tinyseq.nn import interop

Pair = namedtuple("Pair", "first second")

LEAVES = st.sampled_from(["layer", "parameter", "number", "text", "tensor"])
NAMES = st.sampled_from(["a", "b", "c d", "1"])
NESTINGS = st.recursive(
    LEAVES,
    lambda inner: (
        st.tuples(
            st.sampled_from([list, tuple, deque, UserList, lambda x: Pair(x, [*x][:1])]),
            st.lists(inner, max_size=3),
        )
        | st.tuples(
            st.sampled_from([dict, OrderedDict, UserDict, MappingProxyType]),
            st.dictionaries(NAMES, inner, max_size=3),
        )
    ),
    max_leaves=8,
)


class Holder(nn.Module):
    def __init__(self, parts):
        self.parts = parts

    def forward(self, x):
        return x


LEAF = {
    "layer": lambda: nn.Linear(2, 1),
    "parameter": lambda: nn.Parameter([1.0, 2.0]),
    "number": lambda: 3,
    "text": lambda: "layer",
    "tensor": lambda: ts.tensor([1.0]),  # in a container, no constant of the module
}


def made(nesting):
    """The nesting with real leaves."""
    if isinstance(nesting, str):
        return LEAF[nesting]()
    kind, content = nesting
    if isinstance(content, dict):
        return kind({k: made(v) for k, v in content.items()})
    return kind([made(v) for v in content])


def walk(value, path, expected):
    """The specification: recursion over what was made."""
    if isinstance(value, nn.Linear):
        found = {f"{path}.weight": value.weight, f"{path}.bias": value.bias}
        expected |= {n: t for n, t in found.items() if id(t) not in map(id, expected.values())}
    elif isinstance(value, nn.Parameter):
        if id(value) not in map(id, expected.values()):
            expected[path] = value
    elif isinstance(value, dict | UserDict | MappingProxyType):
        for key, part in value.items():
            walk(part, f"{path}.{key}", expected)
    elif isinstance(value, list | tuple | deque | UserList):
        for i, part in enumerate(value):
            walk(part, f"{path}.{i}", expected)


@given(st.lists(NESTINGS, max_size=3))
def test_everything_sees_what_any_nesting_holds(tmp_path_factory, nestings):
    parts = [made(nesting) for nesting in nestings]
    expected: dict[str, nn.Parameter] = {}
    walk(parts, "parts", expected)
    m = Holder(parts)

    named = m.named_parameters()
    assert {n: id(p) for n, p in named} == {n: id(p) for n, p in expected.items()}
    assert list(map(id, m.parameters())) == [id(p) for _, p in named]
    assert list(m.state_dict()) == [n for n, _ in named]
    layers = [layer for _, layer in m.named_modules() if isinstance(layer, nn.Linear)]
    assert len({id(p) for layer in layers for p in (layer.weight, layer.bias)}) == 2 * len(layers)
    assert all(not layer.training for layer in (m.eval(), layers)[1])
    assert all(layer.training for layer in (m.train(), layers)[1])
    for path, layer in m.named_modules()[1:]:
        assert layer._scope_name == path
        assert path.rpartition(".")[2] in repr(m)
    for name, p in named:
        assert name.rpartition(".")[2] in str(m)
        p.grad = ts.tensor(np.ones(p.shape, np.float32))
    assert f"{sum(p.size for _, p in named):,d}" in str(m)

    before = m.state_dict()
    if named:
        optim.SGD(m.parameters(), lr=0.5).step()
        for name, p in named:
            np.testing.assert_array_equal(p.numpy(), before[name] - np.float32(0.5))
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    saving.save(path, {"model": before})
    m.load_state_dict(saving.load(path)["model"])
    for name, array in m.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    m.zero_grad()
    assert all(p.grad is None for p in m.parameters())


def test_names_are_dotted_paths_as_in_pytorch():
    blocks = {"left": [[nn.Linear(2, 2)], (nn.Parameter([1.0]),)], "right": nn.Linear(2, 2)}
    assert [n for n, _ in Holder(blocks).named_parameters()] == [
        "parts.left.1.0",  # a module's own come before those of its parts
        "parts.left.0.0.weight",
        "parts.left.0.0.bias",
        "parts.right.weight",
        "parts.right.bias",
    ]


def test_circles_of_containers_and_of_modules_end():
    layer = nn.Linear(2, 2)
    around: list = [layer]
    around.append({"again": around, "and": [around, (around,)]})
    m = Holder(around)
    layer.owner = [[m]]
    assert [n for n, _ in m.named_parameters()] == ["parts.0.weight", "parts.0.bias"]
    assert [n for n, _ in m.named_modules()] == ["", "parts.0"]
    assert "Linear" in repr(m)
    assert "total" in str(m)
    deep: list = [nn.Linear(1, 1)]
    for _ in range(5000):
        deep = [deep, deep]
    assert len(Holder(deep).parameters()) == 2


def test_one_tensor_in_several_containers_counts_once():
    p = nn.Parameter([1.0])
    assert [n for n, _ in Holder([[p], {"x": p}, p]).named_parameters()] == ["parts.0.0"]


def test_a_compiled_cell_trains_what_its_containers_hold():
    class Deep(nn.Cell):
        def __init__(self):
            super().__init__(2, 3)
            self.blocks = [[nn.Linear(2, 3)], {"again": [nn.Linear(3, 3, bias=False)]}]

        def forward(self, x, state):
            (into,), again = self.blocks
            return (ts.tanh(into(x) + again["again"][0](state[0])),)

    x = np.random.default_rng(0).normal(size=(4, 2, 2)).astype(np.float32)
    cell, gradients = Deep(), {}
    for mode in ("unroll", "compiled"):
        cell.zero_grad()
        y, _ = nn.Recurrent(cell, mode=mode)(x)
        (y * y).sum().backward()
        gradients[mode] = {n: p.grad.numpy() for n, p in cell.named_parameters()}
    assert len(gradients["unroll"]) == 3
    for name, g in gradients["unroll"].items():
        np.testing.assert_allclose(g, gradients["compiled"][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "parts",
    [
        {1: nn.Linear(1, 1), "1": nn.Linear(1, 1)},
        {"a.b": nn.Parameter([1.0]), "a": {"b": nn.Parameter([2.0])}},
    ],
)
def test_two_of_one_name_are_not_saved_as_one(parts):
    m = Holder(parts)
    assert len(m.parameters()) in (2, 4)
    for work in (m.state_dict, lambda: m.load_state_dict({})):
        with pytest.raises(ValueError, match=r"two tensors of the same name: parts\.(1|a)"):
            work()


def test_what_would_never_be_trained_is_refused():
    for parts in ({nn.Linear(1, 1)}, [{"a": frozenset([nn.Parameter([1.0])])}]):
        with pytest.raises(TypeError, match=r"parts.* is a set, whose parts have no order"):
            Holder(parts)
    Holder({"a", "b"})
    with pytest.raises(TypeError, match=r"Shared: layers.0 belongs to the class.*__init__"):
        type("Shared", (nn.Module,), {"layers": [nn.Linear(1, 1)]})
    with pytest.raises(TypeError, match="Slotted: it has __slots__"):
        type("Slotted", (nn.Module,), {"__slots__": ("layer",)})


def test_to_torch_names_nested_layers_and_refuses_loose_parameters():
    assert list(interop.to_torch(Holder([[nn.Linear(1, 2)]]))) == [
        "parts.0.0.weight",
        "parts.0.0.bias",
    ]
    with pytest.raises(TypeError, match="no counterpart of Holder"):
        interop.to_torch(Holder([[nn.Parameter([1.0])]]))


def test_what_parameters_gives_is_read_as_often_as_you_like_and_next_works():
    m = nn.Linear(2, 3)
    ps = m.parameters()
    assert list(map(id, ps)) == list(map(id, ps)) == [id(m.weight), id(m.bias)]
    assert next(m.parameters()) is m.weight
    assert next(iter(m.parameters())) is m.weight
    assert next(ps) is m.weight  # out of it, as out of a generator
    assert [id(p) for p in ps] == [id(m.bias)]
    assert next(ps) is m.bias
    with pytest.raises(StopIteration):
        next(ps)
    named, modules, tensors = m.named_parameters(), m.named_modules(), m.named_tensors()
    for listed in (named, modules, tensors):
        assert dict(listed) == dict(listed) != {}
