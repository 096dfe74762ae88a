"""Every op: forward as in NumPy, gradients of order 1 and 2 as finite differences say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import COMPOSED, OPS, values

import tinyseq as ts
from tinyseq.errors import DtypeError, ShapeError
from tinyseq.op import REGISTRY

ALL = OPS | COMPOSED
CONSTANT = {"any", "all", "logical_and", "logical_or", "logical_not"}
CONSTANT |= {name for name in OPS if REGISTRY[name].vjp is None}
DIFFERENTIABLE = sorted(set(ALL) - CONSTANT)


def leaves(case):
    return [ts.tensor(a, requires_grad=True) for a in case.arrays]


def test_every_op_has_a_strategy():
    assert set(REGISTRY) == set(OPS)


@pytest.mark.parametrize("name", sorted(ALL))
@given(data=st.data())
def test_forward_is_numpys(name, data):
    case = data.draw(ALL[name])
    ours = case.fn(*[ts.tensor(a) for a in case.arrays])
    theirs = np.asarray(case.numpy(*case.arrays))
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@given(data=st.data())
def test_gradient_is_that_of_finite_differences(name, data):
    case = data.draw(ALL[name])
    assert ts.gradcheck(case.fn, leaves(case))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@given(data=st.data())
def test_gradient_of_the_gradient_is_that_of_finite_differences(name, data):
    case = data.draw(ALL[name])
    # squared, so that ops that are linear themselves have a second derivative to get wrong
    assert ts.gradcheck(lambda *xs: case.fn(*xs) * case.fn(*xs), leaves(case), order=2)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@given(data=st.data())
def test_float32_stays_float32(name, data):
    case = data.draw(ALL[name])
    xs = [ts.tensor(a.astype(np.float32), requires_grad=True) for a in case.arrays]
    y = case.fn(*xs)
    if name != "astype":
        assert y.dtype == np.float32
    y.sum().backward()
    assert all(x.grad is None or x.grad.dtype == np.float32 for x in xs)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@given(data=st.data())
def test_a_rule_records_registered_ops_only(name, data):
    """The set is closed: the gradient of a gradient needs nothing that is not in the registry."""
    case = data.draw(ALL[name])
    xs = leaves(case)
    y = case.fn(*xs)
    if not y.requires_grad:
        return
    gs = ts.grad(y.sum(), xs, create_graph=True)
    for t in ts.graph.topological(*gs):
        assert t.node is None or REGISTRY[t.node.op.name] is t.node.op


# -- what the properties do not reach -----------------------------------------------------------


def test_comparisons_are_constants():
    x = ts.tensor([1.0, 2.0], requires_grad=True)
    assert not (x > 1.5).requires_grad
    assert (x > 1.5).tolist() == [False, True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_and_softplus_far_out(dtype):
    x = ts.tensor(np.array([-1e4, -100.0, 0.0, 100.0, 1e4], dtype))
    assert ts.sigmoid(x).numpy()[[0, 2, 4]].tolist() == [0.0, 0.5, 1.0]
    assert np.isfinite(ts.sigmoid(x).numpy()).all()
    assert ts.softplus(x).numpy()[[0, 4]].tolist() == [0.0, 1e4]


def test_logsumexp_far_out():
    x = ts.tensor(np.array([[1e4, 1e4], [-1e4, -1e4]]), requires_grad=True)
    y = ts.logsumexp(x, 1)
    np.testing.assert_allclose(y.numpy(), [1e4 + np.log(2), -1e4 + np.log(2)])
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 0.5)


def test_ties_share_the_gradient():
    x = ts.tensor([3.0, 3.0, 1.0], requires_grad=True)
    x.max().backward()
    assert x.grad.tolist() == [0.5, 0.5, 0.0]
    a, b = ts.tensor([1.0], requires_grad=True), ts.tensor([1.0], requires_grad=True)
    ts.maximum(a, b).sum().backward()
    assert (a.grad.tolist(), b.grad.tolist()) == ([0.5], [0.5])


def test_powers_at_zero():
    x = ts.tensor([0.0, 2.0], requires_grad=True)
    (x**0).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0]
    x.grad = None
    (x**2).sum().backward()
    assert x.grad.tolist() == [0.0, 4.0]
    p = ts.tensor([2.0], requires_grad=True)
    (ts.tensor([0.0]) ** p).sum().backward()
    assert p.grad.tolist() == [0.0]


def test_an_index_that_names_a_place_twice_adds_up():
    x = ts.tensor(np.arange(3.0), requires_grad=True)
    x[[0, 0, 2]].sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 1.0]
    m = ts.tensor(np.zeros((2, 2)), requires_grad=True)
    m[np.array([0, 0]), np.array([1, 1])].sum().backward()
    assert m.grad.tolist() == [[0.0, 2.0], [0.0, 0.0]]


def test_an_index_array_may_be_written_to_afterwards():
    x, index = ts.tensor([1.0, 2.0], requires_grad=True), np.array([0, 0])
    y = x[index]
    index[:] = 1
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 0.0]


def test_dtypes_that_meet():
    f32, f64, i64 = ts.tensor([1.0]), ts.tensor(np.array([1.0])), ts.tensor([1])
    assert (f32 + 1).dtype == np.float32
    assert (f32 * np.float64(2)).dtype == np.float32
    assert (f32 + i64).dtype == np.float32
    assert (f64 + i64).dtype == np.float64
    assert (f32 + f64).dtype == np.float64
    assert (i64 + 1).dtype == np.int64
    assert (i64 + 0.5).dtype == np.float32
    assert (i64 / 2).dtype == np.float32
    assert ts.exp(i64).dtype == np.float32
    assert (2 - f64).dtype == np.float64
    assert (f32 > 0).dtype == bool
    assert (f32 * (f32 > 0)).dtype == np.float32
    assert ts.exp(f32 > 0).dtype == np.float32
    assert ts.add(f32, [0.5]).dtype == np.float32
    assert ts.add(f64, [0.5]).dtype == np.float64


def test_python_numbers_meet_float64_in_full():
    x = ts.tensor(np.array([1.0]))
    assert (x * 0.1).item() == 0.1
    assert (0.1 - 0 * x).item() == 0.1
    assert (x * [0.1]).item() == 0.1
    assert ts.where(True, x * 0 + 0.1, 0).item() == 0.1


def test_gradients_come_back_in_the_dtype_of_their_input():
    a = ts.tensor(np.ones(2, np.float32), requires_grad=True)
    b = ts.tensor(np.ones(2), requires_grad=True)
    (a * b).sum().backward()
    assert a.grad.dtype == np.float32
    assert b.grad.dtype == np.float64
    a.grad = None
    ts.astype(a, np.float64).sum().backward()
    assert a.grad.dtype == np.float32
    assert ts.astype(a, np.float32) is a
    assert not ts.astype(a, np.int64).requires_grad


def test_numpy_functions_are_our_ops():
    x = ts.tensor([[1.0, 2.0]], requires_grad=True)
    for y in (np.tanh(x), np.sum(x, axis=1), np.concatenate([x, x]), np.ones(2) @ x.T,
              np.ones(2) * x, np.where(x > 1, x, 0.0), np.float32(2) * x, np.mean(x), x.mT,
              np.stack([x, x]), np.reshape(x, (2, 1))):  # fmt: skip
        assert isinstance(y, ts.Tensor)
        assert y.requires_grad


@pytest.mark.parametrize("call", [np.cbrt, np.linalg.norm, np.median, np.add.reduce])
def test_other_numpy_functions_say_so(call):
    with pytest.raises(TypeError, match=r"no tinyseq op of the same meaning.*detach"):
        call(ts.tensor([1.0], requires_grad=True))


SHAPE_ERRORS = [
    (lambda a: a + ts.tensor([1.0, 2.0]), r"add: \(2, 3\) and \(2,\).*reshape one of the operands"),
    (lambda a: a @ a, r"matmul: \(2, 3\) and \(2, 3\).*row vectors go on the left"),
    (lambda a: a @ 2.0, r"a tensor without axes cannot be multiplied.*Use \*"),
    (lambda a: a.reshape(4, 2), r"reshape: \(2, 3\).*number of elements must stay"),
    (lambda a: a.sum(axis=2), r"sum: axis 2 does not exist in a tensor with 2 axes. Use -2 to 1"),
    (lambda a: a.sum(axis=(0, -2)), r"names an axis twice"),
    (lambda a: a.sum().sum(axis=0), r"the tensor has no axes"),
    (lambda a: ts.concat([a, ts.tensor([[1.0]])]), r"concat: \(2, 3\) and \(1, 1\)"),
    (lambda a: ts.concat([]), r"concat: needs at least one tensor"),
    (lambda a: ts.stack([a, a[0]]), r"stack: all shapes must be equal, got \(2, 3\), \(3,\)"),
    (lambda a: ts.split(a, 2, axis=1), r"axis 1 of shape \(2, 3\) is 3 long.*2 equal parts"),
    (lambda a: a[:0].mean(axis=0), r"mean: no elements along axis 0"),
    (lambda a: a[:0].max(), r"max: \(0, 3\).*empty axis"),
    (lambda a: ts.broadcast_to(a, (3, 2)), r"broadcast_to: \(2, 3\)"),
    (lambda a: ts.transpose(a, 0, 0), r"transpose: \(2, 3\).*every axis once"),
]


@pytest.mark.parametrize(("call", "message"), SHAPE_ERRORS)
def test_shapes_that_do_not_fit(call, message):
    with pytest.raises(ShapeError, match=message):
        call(ts.tensor(np.ones((2, 3))))


def test_bad_indices():
    x = ts.tensor(np.ones((2, 3)))
    with pytest.raises(IndexError, match=r"getitem: \(2, 3\).*out of bounds"):
        x[2]
    with pytest.raises(DtypeError, match="index of dtype float64"):
        x[np.array([0.5])]
    with pytest.raises(IndexError):
        x["a"]


@given(data=st.data())
def test_a_sequence_read_step_by_step_gets_its_whole_gradient(data):
    """The joint rule of getitem: many uses, overlapping or not."""
    x = ts.tensor(data.draw(values((4, 2))), requires_grad=True)
    picks = data.draw(st.lists(st.integers(-4, 3), min_size=1, max_size=6))
    (g,) = ts.grad(ts.sum(ts.stack([x[i] * (n + 1) for n, i in enumerate(picks)])), [x])
    expected = np.zeros((4, 2))
    for n, i in enumerate(picks):
        expected[i] += n + 1
    np.testing.assert_allclose(g.numpy(), expected)
