"""Every op: forward as in NumPy, gradients of order 1 and 2 as finite differences say."""

import inspect
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import COMPOSED, OPS, values

import tinyseq as ts
from tinyseq import numpy_functions
from tinyseq.errors import DtypeError, GraphError, ShapeError
from tinyseq.graph import recording
from tinyseq.nn import recompute  # noqa: F401  # its op is registered with it
from tinyseq.op import REGISTRY

try:
    import torch
except ModuleNotFoundError:  # in the extra `bench`
    torch = None

ALL = OPS | COMPOSED
CONSTANT = {"any", "all", "isnan", "logical_and", "logical_or", "logical_not"}
CONSTANT |= {name for name in OPS if REGISTRY[name].vjp is None}
DIFFERENTIABLE = sorted(set(ALL) - CONSTANT)


def leaves(case):
    return [ts.tensor(a, requires_grad=True) for a in case.arrays]


def test_every_op_has_a_strategy():
    of_the_compiler = {"scan", "piece", "joined", "detach"}  # there once it was used
    assert set(REGISTRY) - of_the_compiler == set(OPS)


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


@pytest.mark.parametrize("name", sorted(name for name in OPS if REGISTRY[name].into is not None))
@given(data=st.data())
def test_the_form_in_place_writes_the_same(name, data):
    case, calls = data.draw(OPS[name]), []
    recording.tape = lambda *call: calls.append(call)
    try:
        case.fn(*[ts.tensor(a) for a in case.arrays])
    finally:
        recording.tape = None
    for op, inputs, attrs, y in calls:
        out = np.full(y.shape, 7, y.dtype)
        write = op.writing(out, [x.numpy() for x in inputs], attrs)
        for _ in range(2 if write is not None else 0):
            write()
            np.testing.assert_allclose(out, y.numpy(), rtol=1e-14)
    assert any(op.name == name for op, *_ in calls)


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


def test_logsumexp_of_nothing_but_impossibilities():
    x = ts.tensor([[-np.inf, -np.inf], [-np.inf, 0.0]], requires_grad=True)
    y = ts.logsumexp(x, 1)
    assert y.tolist() == [-np.inf, 0.0]
    g = ts.grad(y.sum(), x, create_graph=True)
    assert g.tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert ts.grad((g * g).sum(), x).tolist() == [[0.0, 0.0]] * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logsumexp_of_infinities(dtype):
    """Like the largest of them: those that are ∞ share the gradient."""
    rows = [[np.inf, 0.0, 1e4], [np.inf, -np.inf, np.inf], [0.0, 0.0, -np.inf], [-np.inf] * 3]
    x = ts.tensor(np.array(rows, dtype), requires_grad=True)
    for keepdims in (False, True):
        y = ts.logsumexp(x, 1, keepdims)
        np.testing.assert_allclose(y.numpy().ravel(), [np.inf, np.inf, np.log(2), -np.inf])
        g = ts.grad(y, x, np.ones(y.shape, dtype), create_graph=True)
        shares = [[1, 0, 0], [0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0, 0]]
        np.testing.assert_allclose(g.numpy(), shares)
        assert g.dtype == dtype
        second = ts.grad((g * [3.0, 1.0, 2.0]).sum(), x).numpy()
        np.testing.assert_allclose(second[2], [0.5, -0.5, 0], atol=1e-6)
        assert not second[[0, 1, 3]].any()
    assert ts.logsumexp([np.inf, 0.0]).item() == np.inf


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


INDICES = [
    (slice(None), (1, 1)),
    ((0, 0),),
    (slice(None), range(2)),
    range(2),
    [ts.tensor(1), ts.tensor(1)],
    ((1, 1), (2, 2)),
    (..., [[1, 1], [0, 1]]),
    np.array(1),
    ts.tensor(1),
    (slice(None), ts.tensor(-1)),
    (np.array(0), [1, 1]),
    np.array(True),
    [],
    (slice(None), ()),
    [[]],
    np.zeros((3, 0), int),
    ts.tensor([[1, 1], [0, 0]]),
    (np.array([1, 1], np.uint64), 0),
    np.array([True, False, True]),
    slice(ts.tensor(1), np.array(3)),
]


@pytest.mark.parametrize("index", INDICES)
def test_an_index_is_read_as_numpy_reads_it(index):
    a = np.arange(9.0).reshape(3, 3)
    x = ts.tensor(a, requires_grad=True)
    y = x[index]
    np.testing.assert_array_equal(y.numpy(), a[index])
    expected = np.zeros(9)
    np.add.at(expected, np.arange(9).reshape(3, 3)[index], 1.0)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy().ravel(), expected)


def test_an_empty_mask_is_a_mask():
    x = ts.tensor(np.ones((0, 3)), requires_grad=True)
    y = x[np.ones((0, 3), bool)]
    assert y.shape == (0,)
    y.sum().backward()
    assert x.grad.shape == (0, 3)
    assert x[..., None, np.ones((0, 3), bool)].shape == (1, 0)
    assert x[:, np.ones(3, bool)].shape == (0, 3)
    with pytest.raises(IndexError, match=r"a mask of shape \(0,\) does not fit the axes \(5,\)"):
        ts.tensor(np.ones(5))[np.zeros(0, bool)]
    with pytest.raises(IndexError, match=r"\(0,\) does not fit the axes \(3,\) from axis 1"):
        x[..., np.zeros(0, bool)]
    with pytest.raises(DtypeError, match="index of dtype float64"):
        ts.tensor(np.ones(5))[np.zeros(0)]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32])
def test_small_index_dtypes_have_room_for_every_row(dtype):
    index = np.array([1, 127, 127], dtype)
    for n in (200, 256, 70_000):
        x = ts.tensor(np.ones((n, 1)), requires_grad=True)
        x[index].sum().backward()
        assert x.grad.numpy()[[1, 127], 0].tolist() == [1.0, 2.0]
        assert x.grad.numpy().sum() == 3.0
        x.grad = None
        ts.gather(x, 0, index[:, None]).sum().backward()
        assert x.grad.numpy()[[1, 127], 0].tolist() == [1.0, 2.0]


def test_an_index_array_may_be_written_to_afterwards():
    for pick, expected in [
        (lambda x, i: x[i], [1.0, 0.0]),
        (lambda x, i: x[i:1], [1.0, 0.0]),
        (lambda x, i: x[np.broadcast_to(i, 2)], [2.0, 0.0]),
        (lambda x, i: x[i.reshape(1)], [1.0, 0.0]),
        (lambda x, i: x[i.reshape(1), ...], [1.0, 0.0]),
    ]:
        x, index = ts.tensor([1.0, 2.0], requires_grad=True), np.array(0)
        y = pick(x, index)
        index[...] = 1
        y.sum().backward()
        assert x.grad.tolist() == expected


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


def test_a_python_number_keeps_its_digits():
    x = np.array([0.3, 0.7])
    assert (ts.tensor(x) * 0.1).tolist() == (x * 0.1).tolist()
    assert (1e-9 + ts.tensor(x)).tolist() == (1e-9 + x).tolist()


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


NUMPY_CALLS = [
    lambda x: np.tanh(x),
    lambda x: np.square(x),
    lambda x: np.float32(2) * x,
    lambda x: np.ones(3) * x,
    lambda x: np.ones(2) @ x,
    lambda x: np.where(x > 1, x, 0.0),
    lambda x: np.sum(x, 1),
    lambda x: np.sum(x, 0, None, None, True),
    lambda x: np.mean(x, axis=0, keepdims=True, dtype=None, out=None, where=True),
    lambda x: np.var(x, 1, ddof=1),
    lambda x: np.std(a=x, axis=(0, 1)),
    lambda x: np.prod(x, axis=-1),
    lambda x: np.max(x, 0),
    lambda x: np.max(x, 0, None, True),
    lambda x: np.transpose(x, axes=(1, 0)),
    lambda x: np.transpose(x, axes=None),
    lambda x: np.reshape(x, shape=(3, 2)),
    lambda x: np.concatenate([x, x], axis=None),
    lambda x: np.concatenate([x, x[0]], axis=None),
    lambda x: np.split(x, np.array(2))[0],
    lambda x: np.split(x, np.array([1]), 1)[0],
    lambda x: np.cumsum(x),
    lambda x: np.sort(x, axis=None, kind="stable"),
    lambda x: np.clip(x, 1.0, 2.0),
    lambda x: np.clip(x, a_min=None, a_max=2.0),
    lambda x: np.clip(x, min=1.0),
    lambda x: np.einsum("ij->j", x, optimize=True),
    lambda x: np.reshape(x, (3, -1)),
    lambda x: np.ravel(x),
    lambda x: np.transpose(x),
    lambda x: np.transpose(x, (1, 0)),
    lambda x: np.swapaxes(x, 0, 1),
    lambda x: np.expand_dims(x, (0, 2)),
    lambda x: np.squeeze(np.expand_dims(x, 0), 0),
    lambda x: np.broadcast_to(x, (2, 2, 3)),
    lambda x: np.flip(x, 0),
    lambda x: np.pad(x, ((1, 0), (0, 2)), "constant", constant_values=3.0),
    lambda x: np.pad(x, {-1: (1, 2), 0: 1}),
    lambda x: np.concatenate([x, x], 1),
    lambda x: np.stack([x, x], axis=-1),
    lambda x: np.split(x, 2)[1],
    lambda x: np.split(x, [1, 2], axis=1)[1],
    lambda x: np.take_along_axis(x, np.array([[0], [2]]), 1),
    lambda x: np.tan(x),
    lambda x: np.log2(x + 2),
    lambda x: np.log10(x + 2),
    lambda x: np.floor(x),
    lambda x: np.rint(x),
    lambda x: np.round(x / 7, 1),
    lambda x: np.around(x / 7, decimals=2),
    lambda x: x % 0.7 + 5 % (x + 2),
    lambda x: x // 0.7 + 5 // (x + 2),
    lambda x: np.mod(np.ones(3), x),
    lambda x: np.floor_divide(x, np.ones(3)),
    lambda x: np.take(x, [[2, 0]], axis=1),
    lambda x: np.repeat(x, 2),
    lambda x: np.repeat(x, [0, 1, 2], axis=1),
    lambda x: np.roll(x, 1),
    lambda x: np.roll(x, (1, 2), axis=(0, 1)),
    lambda x: np.tile(x, (2, 1)),
    lambda x: np.dot(x, x.T),
    lambda x: np.dot(np.ones(2), x),
    lambda x: np.outer(x, x),
    lambda x: np.tensordot(x, np.ones((3, 2)), axes=1),
    lambda x: np.tensordot(x, x, axes=([0, 1], [0, 1])),
    lambda x: np.hstack([x, np.ones((2, 1))]),
    lambda x: np.vstack([x, x[0]]),
    lambda x: np.vstack(x),
    lambda x: np.tril(x),
    lambda x: np.triu(x, k=1),
    lambda x: np.cumprod(x, axis=1),
    lambda x: np.cumprod(x),
    lambda x: np.linalg.norm(x),
    lambda x: np.linalg.norm(x, 1, axis=0),
    lambda x: np.linalg.norm(x, ord=np.inf, axis=1, keepdims=True),
]


@pytest.mark.parametrize("call", NUMPY_CALLS)
def test_numpy_functions_are_our_ops(call):
    a = np.array([[1.0, 3.0, 2.0], [0.5, -1.0, 4.0]])
    y = call(ts.tensor(a, requires_grad=True))
    assert isinstance(y, ts.Tensor)
    assert y.requires_grad
    np.testing.assert_allclose(y.numpy(), call(a), rtol=1e-12)


NUMPY_CONSTANTS = [
    lambda x: np.argmax(x, 1),
    lambda x: np.argmin(x, axis=0, keepdims=True),
    lambda x: np.argmax(x, keepdims=True),
    lambda x: np.argsort(x, axis=0),
    lambda x: np.any(x > 3, axis=1),
    lambda x: np.all(x > -2),
    lambda x: np.logical_and(x > 0, x < 3),
    lambda x: ~(x > 0) | (x > 3) & (x < 9),
    lambda x: True & (x > 0),
    lambda x: False | (x > 0),
    lambda x: np.invert(x > 0),
    lambda x: np.shape(x),
    lambda x: np.ndim(x),
    lambda x: np.size(x),
    lambda x: np.isnan(x),
    lambda x: np.linalg.norm(x, 0, axis=1) * 1,
]


@pytest.mark.parametrize("call", NUMPY_CONSTANTS)
def test_numpy_functions_without_a_gradient(call):
    a = np.array([[1.0, 3.0, 2.0], [0.5, -1.0, 4.0]])
    y, expected = call(ts.tensor(a, requires_grad=True)), call(a)
    if isinstance(y, ts.Tensor):
        assert not y.requires_grad
        assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y, expected)


ON_THE_CONTENTS = [
    lambda x: np.allclose(x, np.ones((2, 3))),
    lambda x: np.array_equal(x, x),
    lambda x: np.isclose(x, [1.0, 3.0, 2.0]),
    lambda x: np.median(x, axis=1),
    lambda x: np.linalg.det(np.asarray(x)[:, :2]),
    lambda x: np.dstack([x, x]),
    lambda x: np.full_like(x, 2),
    lambda x: np.add.reduce(x, 1),
    lambda x: np.sum(x, 1, out=np.zeros(2)),
    lambda x: np.add(x, x, out=np.ones((2, 3)), where=np.eye(2, 3, dtype=bool)),
    lambda x: np.zeros_like(x),
    lambda x: np.ones_like(x, dtype=np.int64),
]


@pytest.mark.parametrize("call", ON_THE_CONTENTS)
def test_numpy_functions_where_no_gradient_is_lost(call):
    a = np.array([[1.0, 3.0, 2.0], [0.5, -1.0, 4.0]])
    y, expected = call(ts.tensor(a)), call(a)
    assert type(y) is type(expected)
    np.testing.assert_array_equal(y, expected)


def test_numpy_functions_of_the_shape_alone():
    x = ts.tensor([1.0, 2.0], requires_grad=True)
    assert np.zeros_like(x).tolist() == [0.0, 0.0]
    assert np.ones_like(x * 2).dtype == np.float32
    assert np.empty_like(x).shape == (2,)


def test_writing_into_an_array_and_into_a_tensor():
    x = ts.tensor([1.0, 2.0])
    a = np.zeros(2)
    a += x
    np.add.at(a, ts.tensor([0, 0]), 1.0)
    assert a.tolist() == [3.0, 2.0]
    with pytest.raises(TypeError, match="no argument out="):
        np.add(a, a, out=x)
    with pytest.raises(ValueError, match="read-only"):
        np.copyto(x, a)
    assert x.tolist() == [1.0, 2.0]


def test_the_table_of_numpy_functions_fits_numpy():
    """A ufunc takes as many inputs as our op; an argument that both have has one default."""
    for theirs, ours in numpy_functions.SAME.items():
        assert theirs.__name__ not in numpy_functions._INSTEAD
        if isinstance(theirs, np.ufunc):
            takes_masks = ours in (ts.logical_and, ts.logical_or, ts.logical_not)
            x = ts.tensor([True] if takes_masks else [1.0])
            assert isinstance(ours(*[x] * theirs.nin), ts.Tensor)
            continue
        defaults = {n: p.default for n, p in inspect.signature(theirs).parameters.items()}
        for name, parameter in inspect.signature(ours).parameters.items():
            if isinstance(defaults.get(name, inspect), int | str | None):
                assert parameter.default == defaults[name], (theirs, name)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            np.cbrt,
            r"numpy.cbrt has no tinyseq op of the same meaning.*Use tinyseq's \*\* \(1 / 3\)",
        ),
        (np.dstack, r"dstack.*Use tinyseq's concat, or apply it to x.detach\(\).numpy\(\)"),
        (np.ceil, r"numpy.ceil.*Use tinyseq's -floor\(-x\)"),
        (lambda x: np.allclose(x, 1.0), r"numpy.allclose.*apply it to x.detach\(\).numpy\(\)"),
        (lambda x: np.full_like(np.ones(1), x), r"numpy.copyto.*would cut the gradient off"),
        (lambda x: np.dstack([np.ones(1), x]), r"numpy.dstack.*would cut the gradient off"),
        (lambda x: np.take(x, [0], mode="clip"), r"numpy.take of a Tensor.* no argument mode="),
        (np.median, r"numpy.median.*Compose it from tinyseq's ops, or"),
        (np.add.reduce, r"numpy.add.reduce has no"),
        (np.where, r"numpy.where of a Tensor: give both values"),
        (lambda x: np.add(x, x, out=np.zeros(1)), r"numpy.add of a Tensor.* no argument out="),
        (lambda x: np.add(np.ones(1), 1.0, out=x), r"numpy.add of a Tensor.* no argument out="),
        (lambda x: np.exp(x, where=np.array([True])), r"no argument where="),
        (lambda x: np.exp(x, dtype=np.float64), r"no argument dtype=.*astype"),
        (lambda x: np.sum(x, 0, np.float64), r"numpy.sum of a Tensor.* no argument dtype="),
        (lambda x: np.max(x, initial=3), r"no argument initial="),
        (lambda x: np.reshape(x, (1, 1), order="F"), r"no argument order="),
    ],
)
def test_what_numpy_has_and_we_do_not_says_so(call, message):
    with pytest.raises(TypeError, match=message):
        call(ts.tensor([1.0], requires_grad=True))


def test_writing_into_an_array_from_a_tensor_is_refused():
    a = np.zeros(1)
    with pytest.raises(TypeError, match=r"no argument out=.*write a = a \+ x instead of a \+= x"):
        a += ts.tensor([1.0], requires_grad=True)
    assert a.tolist() == [0.0]


def test_a_numpy_that_does_not_tell_its_signatures(monkeypatch):
    """Before 2.4 functions written in C do not."""

    def silent(function):
        if function in (np.concatenate, np.where):
            raise ValueError("no signature found")
        return inspect.signature(function)

    monkeypatch.setattr(numpy_functions, "_signature", silent)
    x = ts.tensor([1.0, 2.0], requires_grad=True)
    assert np.concatenate([x, x], axis=0).tolist() == [1.0, 2.0, 1.0, 2.0]
    assert np.where(x > 1, x, 0.0).tolist() == [0.0, 2.0]
    with pytest.raises(TypeError, match=r"numpy.concatenate of a Tensor.* no argument dtype="):
        np.concatenate([x, x], dtype=np.float64)


# -- methods ------------------------------------------------------------------------------------

METHODS = {
    "abs": np.abs,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": lambda a: np.log(a),
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "floor": np.floor,
    "round": np.round,
    "isnan": np.isnan,
    "cumprod": np.cumprod,
    "norm": np.linalg.norm,
    "ravel": np.ravel,
    "tril": np.tril,
    "triu": np.triu,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: np.maximum(a, 0),
    "clip": lambda a: a,
    "sum": np.sum,
    "mean": np.mean,
    "var": np.var,
    "std": np.std,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "logsumexp": lambda a: np.log(np.exp(a).sum()),
    "any": np.any,
    "all": np.all,
    "cumsum": np.cumsum,
    "argmax": np.argmax,
    "argmin": np.argmin,
    "argsort": np.argsort,
    "flatten": np.ravel,
    "transpose": np.transpose,
    "squeeze": np.squeeze,
    "flip": np.flip,
}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_are_the_ops(name):
    a = np.array([[0.5, 1.5, 2.5], [3.0, 2.0, 1.0]])
    y = getattr(ts.tensor(a), name)()
    np.testing.assert_allclose(y.numpy(), METHODS[name](a), rtol=1e-12)


def test_methods_with_arguments():
    a = np.arange(6.0).reshape(2, 3)
    x = ts.tensor(a)
    for ours, theirs in [
        (x.astype(np.float32), a.astype(np.float32)),
        (x.clip(1, 4), a.clip(1, 4)),
        (x.var(0, True, ddof=1), a.var(0, keepdims=True, ddof=1)),
        (x.std(1, ddof=1), a.std(1, ddof=1)),
        (x.permute(1, 0), a.T),
        (x.swapaxes(0, -1), a.T),
        (x.unsqueeze(-1), a[..., None]),
        (x.expand(4, -1, -1), np.broadcast_to(a, (4, 2, 3))),
        (x.flip(1), a[:, ::-1]),
        (x.chunk(2, axis=1)[1], a[:, 2:]),
        (x.gather(1, [[2], [0]]), [[2.0], [3.0]]),
        (x.argsort(0), a.argsort(0)),
        (x.argmax(1, keepdims=True), a.argmax(1, keepdims=True)),
        (x.T, a.T),
        (x.view(3, -1), a.reshape(3, 2)),
        (x.round(1), a.round(1)),
        (x.masked_fill(a > 3, -1.0), np.where(a > 3, -1.0, a)),
        (x.norm(1, axis=1, keepdims=True), np.abs(a).sum(1, keepdims=True)),
        (x.topk(2).values, a[:, :0:-1]),
        (x.topk(1, axis=0, largest=False).indices, [[0, 0, 0]]),
        (x.take([2, 0], 1), a.take([2, 0], 1)),
        (x.repeat(2), a.repeat(2)),
        (x.roll(1, axis=1), np.roll(a, 1, 1)),
        (x.tile((1, 2)), np.tile(a, (1, 2))),
        (x.dot(a.T), a.dot(a.T)),
        (x.outer(a[0]), np.outer(a, a[0])),
        (x % -2.5, a % -2.5),
        (x // -2.5, a // -2.5),
        (7 % (x + 1), 7 % (a + 1)),
        (7 // (x + 1), 7 // (a + 1)),
    ]:
        assert ours.shape == np.shape(theirs)
        np.testing.assert_allclose(ours.numpy(), theirs)


# -- one by one -----------------------------------------------------------------------------------


def test_clip_passes_the_gradient_at_its_bounds_and_keeps_nan():
    x = ts.tensor([0.0, 1.0, 2.0, 3.0, 4.0], requires_grad=True)
    ts.clip(x, 1, 3).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]
    low, high = (ts.tensor(v, requires_grad=True) for v in (1.0, 3.0))
    ts.clip(x, low, high).sum().backward()
    assert (low.grad.item(), high.grad.item()) == (1.0, 1.0)
    assert np.isnan(ts.clip(ts.tensor([np.nan]), 0, 1).item())
    assert np.isnan(ts.clip(ts.tensor([0.5]), np.nan, 1).item())
    assert ts.clip(x, 3, 1).tolist() == [1.0] * 5
    assert ts.clip(x) is x


def test_std_of_equal_elements_has_gradient_0():
    x = ts.tensor([2.0, 2.0], requires_grad=True)
    x.std().backward()
    assert x.grad.tolist() == [0.0, 0.0]


def test_prod_over_nothing_and_of_whole_numbers():
    assert ts.prod(ts.tensor(np.ones((2, 0))), axis=1).tolist() == [1.0, 1.0]
    assert ts.prod(ts.tensor(np.ones((2, 0))), keepdims=True).tolist() == [[1.0]]
    assert ts.prod(ts.tensor([2, 3, 4])).item() == 24
    assert ts.prod(ts.tensor([True, True])).dtype == np.int64


def test_whole_numbers_add_up_to_whole_numbers():
    assert ts.cumsum(ts.tensor([True, False, True])).tolist() == [1, 1, 2]
    assert ts.sum(ts.tensor([True, True])).dtype == np.int64
    assert ts.mean(ts.tensor([1, 2])).dtype == np.float32
    assert ts.var(ts.tensor([1, 3])).item() == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_a_remainder_has_numpys_sign_and_its_digits(dtype):
    a, b = (np.array(v, dtype) for v in np.meshgrid([7, -7, 3, 0, 1, -6], [3, -3, 2, -2]))
    if dtype is not np.int64:
        a, b = a / 10, b / 10  # 0.6 // 0.2 is 2, and 0.6 % 0.2 nearly 0.2: no division says so
    for op, theirs in ((ts.remainder, np.remainder), (ts.floor_divide, np.floor_divide)):
        y = op(ts.tensor(a), ts.tensor(b))
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.numpy(), theirs(a, b))
    assert (ts.tensor([True]) % ts.tensor([True])).dtype == np.int64


def test_whole_numbers_stay_whole_when_they_are_rounded():
    x = ts.tensor([15, -25, 35])
    assert ts.floor(x).tolist() == ts.rint(x).tolist() == ts.round(x, 2).tolist() == x.tolist()
    assert ts.round(x, -1).tolist() == np.round(x.numpy(), -1).tolist() == [20, -20, 40]
    assert ts.round(x, -1).dtype == ts.floor(x).dtype == np.int64
    assert ts.cumprod(ts.tensor([True, True, False])).tolist() == [1, 1, 0]
    assert ts.norm([3, 4]).item() == 5.0
    assert ts.tril(ts.tensor([[True, True]])).tolist() == [[True, False]]


@pytest.mark.parametrize("ord", [None, 0.5, 1, 2, 3, np.inf, -np.inf])
def test_a_norm_of_zeros_has_gradient_0(ord):
    x = ts.tensor([[0.0, 0.0], [0.0, 2.0]], requires_grad=True)
    y = ts.norm(x, ord, axis=1)
    g = ts.grad(y.sum(), x, create_graph=True)
    assert g.tolist()[0] == [0.0, 0.0]
    assert not np.isnan(ts.grad((g * g).sum(), x).numpy()).any() if g.requires_grad else True
    assert ts.norm([0.0, 3.0], 0).item() == 1.0


def test_topk_takes_the_first_of_equal_ones_and_nan_for_the_largest():
    x = ts.tensor([1.0, 3.0, np.nan, 3.0, 0.0], requires_grad=True)
    values, places = ts.topk(x, 3)
    assert places.tolist() == [2, 1, 3]
    assert ts.topk(x, 2, largest=False).indices.tolist() == [4, 0]
    values[1:].sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]


def test_tensors_of_a_shape():
    for made, array in [
        (ts.zeros((2, 3)), np.zeros((2, 3), np.float32)),
        (ts.zeros(2, bool), np.zeros(2, bool)),
        (ts.ones([], np.int64), np.ones((), np.int64)),
        (ts.full((2, 2), 0.1), np.full((2, 2), 0.1, np.float32)),
        (ts.full((2, 2), 3), np.full((2, 2), 3)),
        (ts.full((2, 2), [0.1, 7], np.float64), np.full((2, 2), [0.1, 7])),
        (ts.full(2, ts.tensor(np.array(0.1))), np.full(2, 0.1)),
        (ts.arange(5), np.arange(5)),
        (ts.arange(np.int64(2), 9, 3), np.arange(2, 9, 3)),
        (ts.arange(9, 2, -3), np.arange(9, 2, -3)),
        (ts.arange(0, 1, 0.1), np.arange(0, 1, 0.1).astype(np.float32)),
        (ts.arange(3, dtype=np.float64), np.arange(3.0)),
    ]:
        assert made.dtype == array.dtype
        assert made.shape == array.shape
        assert made.tolist() == array.tolist()
        made.data[...] = 0  # memory of its own
    w = ts.zeros((2, 3), requires_grad=True)
    (w * 2).sum().backward()
    assert w.grad.tolist() == [[2.0] * 3] * 2
    for make in (ts.zeros, ts.ones):
        with pytest.raises(DtypeError, match="cannot require a gradient"):
            make(2, int, requires_grad=True)
    with pytest.raises(GraphError, match="cut it off silently"):
        ts.full(2, ts.tensor(1.0, requires_grad=True))


DIMS = [
    (lambda x: x.sum(dim=1), "sum: there is no argument dim. Write axis=1."),
    (lambda x: ts.sum(x, dim=(0, 1)), "sum: there is no argument dim. Write axis=(0, 1)."),
    (lambda x: x.mean(1, keepdim=True), "mean: there is no argument keepdim. Write keepdims=True."),
    (lambda x: ts.concat([x, x], dim=1), "concat: there is no argument dim. Write axis=1."),
    (lambda x: x.unsqueeze(dim=0), "unsqueeze: there is no argument dim. Write axis=0."),
    (lambda x: ts.flip(x, dims=(0,)), "flip: there is no argument dims. Write axis=(0,)."),
    (lambda x: x.topk(1, dim=0), "topk: there is no argument dim. Write axis=0."),
    (lambda x: ts.norm(x, dim=-1), "norm: there is no argument dim. Write axis=-1."),
    (
        lambda x: ts.functional.softmax(x, dim=-1),
        "softmax: there is no argument dim. Write axis=-1.",
    ),
]


@pytest.mark.parametrize(("call", "message"), DIMS)
def test_dim_is_axis_here(call, message):
    with pytest.raises(TypeError) as error:
        call(ts.tensor([[1.0, 2.0]]))
    assert str(error.value) == message


def test_whatever_takes_an_axis_says_so():
    seen = 0
    for space in (ts, ts.functional, ts.Tensor):
        for name in getattr(space, "__all__", dir(space)):
            function = getattr(space, name)
            if inspect.isfunction(function) and "axis" in inspect.signature(function).parameters:
                with pytest.raises(TypeError, match=f"{name}: there is no argument dim. Write ax"):
                    function(dim=3)
                seen += 1
    assert seen > 50


def test_any_and_all_of_nothing():
    nothing = ts.tensor(np.ones((0, 2)))
    assert ts.any(nothing, axis=0).tolist() == [False, False]
    assert ts.all(nothing, axis=0).tolist() == [True, True]


def test_equal_elements_keep_their_order():
    x = ts.tensor([1.0, 0.0, 1.0, 0.0], requires_grad=True)
    assert ts.argsort(x).tolist() == [1, 3, 0, 2]
    assert (ts.argmax(x).item(), ts.argmin(x).item()) == (0, 1)
    (ts.sort(x) * np.arange(4.0)).sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 3.0, 1.0]


def test_places_are_whole_numbers_and_constants():
    x = ts.tensor(np.ones((2, 3)), requires_grad=True)
    for y in (ts.argmax(x, 1), ts.argmin(x), ts.argsort(x)):
        assert y.dtype == np.int64
        assert not y.requires_grad
    assert ts.take_along_axis(x, ts.argmax(x, 1, keepdims=True), 1).requires_grad


def test_an_ndarray_sorts_in_place_and_a_tensor_never_does():
    with pytest.raises(AttributeError):
        ts.tensor([1.0]).sort()


def test_gelu_and_erf_far_out():
    x = ts.tensor(np.array([-1e4, -40.0, 0.0, 40.0, 1e4]), requires_grad=True)
    for approximate in ("none", "tanh"):
        y = ts.gelu(x, approximate)
        np.testing.assert_array_equal(y.numpy(), [0, 0, 0, 40, 1e4])
        x.grad = None
        y.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), [0, 0, 0.5, 1, 1])


def test_small_arguments_keep_their_digits():
    x = ts.tensor(np.array([1e-18]), requires_grad=True)
    assert ts.expm1(x).item() == 1e-18
    assert ts.log1p(x).item() == 1e-18


def test_a_long_einsum_is_one_matrix_product():
    x = ts.tensor(np.ones((5, 2, 3)), requires_grad=True)
    w = ts.tensor(np.ones((3, 4)), requires_grad=True)
    y = ts.einsum("tbd,dh->tbh", x, w)
    names = [t.node.op.name for t in ts.graph.topological(y) if t.node]
    assert names.count("matmul") == 1
    assert "sum" not in names
    assert y.shape == (5, 2, 4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda x: ts.gelu(x), lambda x: torch.nn.functional.gelu(x)),
        (lambda x: ts.gelu(x, "tanh"), lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
        (lambda x: ts.erf(x), lambda x: torch.erf(x)),
        (lambda x: ts.silu(x), lambda x: torch.nn.functional.silu(x)),
        (lambda x: ts.softsign(x), lambda x: torch.nn.functional.softsign(x)),
        (lambda x: ts.softsign(x * 0), lambda x: torch.nn.functional.softsign(x * 0)),
        (lambda x: ts.elu(x, 0.7), lambda x: torch.nn.functional.elu(x, 0.7)),
        (lambda x: ts.leaky_relu(x), lambda x: torch.nn.functional.leaky_relu(x)),
        (lambda x: ts.leaky_relu(x * 0, 0.2), lambda x: torch.nn.functional.leaky_relu(x * 0, 0.2)),
        (lambda x: ts.elu(x * 0, 0.7), lambda x: torch.nn.functional.elu(x * 0, 0.7)),
        (lambda x: x.masked_fill(x.detach() > 0, -3.0), lambda x: x.masked_fill(x > 0, -3.0)),
        (lambda x: x.topk(2, 0).values, lambda x: x.topk(2, 0).values),
        (lambda x: x.topk(2, 1, False).values, lambda x: x.topk(2, 1, False).values),
        (lambda x: x.topk(3, 0).indices * x[:3], lambda x: x.topk(3, 0).indices * x[:3]),
        (lambda x: x % x[0], lambda x: x % x[0]),
        (lambda x: x.tan(), lambda x: x.tan()),
        (lambda x: x.cumprod(0), lambda x: x.cumprod(0)),
        (lambda x: (x - x[1]).cumprod(0), lambda x: (x - x[1]).cumprod(0)),  # zeros in row 1
        (lambda x: x.norm(3, 0), lambda x: torch.linalg.vector_norm(x, 3, 0)),
        (lambda x: x.norm(np.inf, 1), lambda x: torch.linalg.vector_norm(x, np.inf, 1)),
        (lambda x: x.roll((1, 2), (0, 1)), lambda x: x.roll((1, 2), (0, 1))),
        (lambda x: x.tile((2, 1)), lambda x: x.repeat(2, 1)),
        (lambda x: x.repeat(2, 0), lambda x: x.repeat_interleave(2, 0)),
        (lambda x: ts.tensordot(x, x, ([0], [0])), lambda x: torch.tensordot(x, x, ([0], [0]))),
        (lambda x: x.clip(-0.5, 0.5), lambda x: torch.clamp(x, -0.5, 0.5)),
        (lambda x: x.clip(x[0], x[1]), lambda x: torch.clamp(x, x[0], x[1])),
        (lambda x: x.var(1, ddof=1), lambda x: torch.var(x, 1)),
        (lambda x: x.std(0, ddof=1), lambda x: torch.std(x, 0)),
        (lambda x: x.prod(0), lambda x: torch.prod(x, 0)),
        (lambda x: x.cumsum(1), lambda x: torch.cumsum(x, 1)),
        (lambda x: ts.sort(x, 0), lambda x: torch.sort(x, 0).values),
        (lambda x: x.gather(0, [[1, 0], [3, 3]]),
         lambda x: torch.gather(x, 0, torch.tensor([[1, 0], [3, 3]]))),
        (lambda x: ts.concat(x.chunk(3)[::-1]), lambda x: torch.cat(torch.chunk(x, 3)[::-1])),
        (lambda x: x.expand(2, -1, -1), lambda x: x.expand(2, -1, -1)),
        (lambda x: x.flip((0, 1)), lambda x: x.flip((0, 1))),
        (lambda x: ts.einsum("...ij,jk,ki->...i", x[:3, :2], x[:2], x[:3, :3].T[:, :3]),
         lambda x: torch.einsum("...ij,jk,ki->...i", x[:3, :2], x[:2], x[:3, :3].T[:, :3])),
    ],
)  # fmt: skip
def test_ops_agree_with_pytorch(ours, theirs):
    if torch is None:
        pytest.skip("needs torch")
    a = np.random.default_rng(0).standard_normal((5, 3))
    weight = np.random.default_rng(1)
    x, t = ts.tensor(a, requires_grad=True), torch.from_numpy(a).requires_grad_()
    y, u = ours(x), theirs(t)
    np.testing.assert_allclose(y.numpy(), u.detach().numpy(), atol=1e-10)
    w = weight.standard_normal(y.shape)
    (y * ts.tensor(w)).sum().backward()
    (u * torch.from_numpy(w)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), atol=1e-10)


# -- errors ---------------------------------------------------------------------------------------

BROADCAST = [
    "add",
    "sub",
    "mul",
    "div",
    "pow",
    "maximum",
    "minimum",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "equal",
    "not_equal",
]


@pytest.mark.parametrize("name", BROADCAST)
def test_shapes_that_do_not_broadcast_are_named_with_the_remedy(name):
    said = rf"{name}: a \(2, 3\) and \w \(2,\).*reshape one of the operands"
    with pytest.raises(ShapeError, match=said):
        getattr(ts.ops, name)(np.ones((2, 3)), np.ones(2))


SHAPE_ERRORS = [
    (lambda a: a @ a, r"matmul: a \(2, 3\) and b \(2, 3\).*row vectors go on the left"),
    (lambda a: a @ 2.0, r"a tensor without axes cannot be multiplied.*Use \*"),
    (lambda a: a.reshape(4, 2), r"reshape: x \(2, 3\).*number of elements must stay"),
    (lambda a: a.sum(axis=2), r"sum: axis 2 does not exist in a tensor x with 2 axes. Use -2 to 1"),
    (lambda a: a.sum(axis=(0, -2)), r"names an axis twice"),
    (lambda a: a.sum().sum(axis=0), r"in a tensor x without axes"),
    (lambda a: ts.concat([a, ts.tensor([[1.0]])]), r"concat: xs \(2, 3\) and \(1, 1\)"),
    (lambda a: ts.concat([]), r"concat: xs holds nothing"),
    (lambda a: ts.stack([a, a[0]]), r"stack: all shapes of xs must be equal, got \(2, 3\), \(3,\)"),
    (lambda a: ts.split(a, 2, axis=1), r"axis 1 of x of shape \(2, 3\) is 3 long.*2 equal parts"),
    (lambda a: a[:0].mean(axis=0), r"mean: no elements along axis 0"),
    (lambda a: a[:0].max(), r"max: x \(0, 3\).*empty axis"),
    (lambda a: ts.broadcast_to(a, (3, 2)), r"broadcast_to: x \(2, 3\)"),
    (lambda a: ts.transpose(a, 0, 0), r"transpose: x \(2, 3\).*every axis once"),
    (lambda a: ts.transpose(a, 0, 3), r"transpose: axis 3 \(axes\) does not exist"),
    (lambda a: ts.permute(a, 1), r"transpose: x \(2, 3\).*every axis once"),
    (lambda a: ts.swapaxes(a, 0, 2), r"swapaxes: axis 2 \(axis2\) does not exist"),
    (
        lambda a: a.transpose(0, 5),
        r"transpose: axis 5 \(axes\) does not exist in a tensor x with 2 axes",
    ),
    (lambda a: ts.ops.sum_to(a, (3, 2)), r"sum_to: \(3, 2\) does not"),
    (lambda a: ts.ops.sum_to(a, (2,)), r"sum_to: \(2,\) does not broadcast to \(2, 3\)"),
    (lambda a: ts.ops.sum_to(a, (1, 2, 3)), r"sum_to: \(1, 2, 3\) does not broadcast to \(2, 3\)"),
    (lambda a: ts.split(a, -2), r"cannot be cut in -2 equal parts"),
    (lambda a: ts.split(a, 0), r"cannot be cut in 0 equal parts.*or use chunk"),
    (lambda a: ts.chunk(a, 0), r"chunk: chunks=0"),
    (lambda a: ts.squeeze(a, 1), r"squeeze: axis 1 of x of shape \(2, 3\) is 3 long.*reduce it"),
    (lambda a: ts.expand_dims(a, 3), r"expand_dims: axis 3 does not exist"),
    (lambda a: ts.expand(a, -1, 2, 3), r"expand: x \(2, 3\) to shape \(-1, 2, 3\).*Give the size"),
    (lambda a: ts.expand(a, 3), r"broadcast_to: x \(2, 3\)"),
    (lambda a: ts.flip(a, 2), r"flip: axis 2"),
    (lambda a: ts.pad(a, ((1, 1), (1, 1), (1, 1))), r"pad: pad_width=.*tensor with 2 axes"),
    (lambda a: ts.pad(a, ((1, 1), (1,))), r"pad: pad_width=.*does not fit"),
    (lambda a: ts.pad(a, -1), r"pad: pad_width=-1 is negative. Use a slice"),
    (lambda a: ts.pad(a, {2: 1}), r"pad: axis 2 \(pad_width\) does not exist"),
    (lambda a: a.var(0, ddof=2), r"var: 2 elements along axis 0.*ddof=2"),
    (lambda a: a[:0].std(0), r"std: 0 elements along axis 0"),
    (lambda a: a[:0].argmax(0), r"argmax: x \(0, 3\).*empty axis has no largest"),
    (lambda a: a[:0].argmin(0), r"argmin: x \(0, 3\).*empty axis has no smallest"),
    (lambda a: ts.cumsum(a, 2), r"cumsum: axis 2"),
    (lambda a: ts.sort(a.sum()), r"sort: axis -1 does not exist in a tensor x without axes"),
    (lambda a: ts.take_along_axis(a, [0], 1), r"take_along_axis: indices \(1,\) must have as many"),
    (lambda a: ts.take_along_axis(a, np.zeros((2, 2), int), 0), r"differ along axis 1"),
    (lambda a: ts.gather(a, 0, [0]), r"gather: index \(1,\) must have as many axes"),
    (lambda a: ts.gather(a, 0, np.zeros((1, 4), int)), r"gather: index \(1, 4\) is longer"),
    (lambda a: ts.clip(a, np.zeros(2)), r"min of shape \(2,\) does not broadcast with x"),
    (
        lambda a: ts.einsum("ij,jk", a, a),
        r"einsum: subscripts='ij,jk': 'j' is 3 and 2 long in operands \(2, 3\)",
    ),
    (lambda a: ts.einsum("ii", a), r"'i' is 2 and 3 long"),
    (lambda a: ts.einsum("...,...", a, a.T), r"an axis under '...' is 2 and 3 long"),
    (lambda a: ts.norm(a, axis=2), r"norm: axis 2 does not exist"),
    (lambda a: ts.cumprod(a, 2), r"cumprod: axis 2"),
    (lambda a: ts.take(a, [0], 2), r"take: axis 2"),
    (
        lambda a: a.repeat([1, 2], 1),
        r"repeat: repeats=\[1, 2\] must be.*3 elements along axis 1 of x",
    ),
    (lambda a: a.repeat(-1), r"repeat: repeats=-1 must be one number, at least 0"),
    (
        lambda a: a.roll((1, 2), (0, 1, 0)),
        r"roll: shift=\(1, 2\) must be one number, or one for each",
    ),
    (lambda a: a.roll(1, 2), r"roll: axis 2"),
    (lambda a: a.tile((2, -1)), r"tile: reps=\(2, -1\) must be at least 0"),
    (lambda a: a[0].tril(), r"tril: x of shape \(3,\) is no matrix. Give it two axes"),
    (lambda a: a.topk(4), r"topk: k=4 of the 3 elements along axis 1 of x of shape \(2, 3\)"),
    (lambda a: a.dot(a), r"dot: axes \[1\] of a \(2, 3\) and \[0\] of b \(2, 3\) cannot be summed"),
    (lambda a: ts.tensordot(a, a, 1), r"tensordot: axes \[1\] of a \(2, 3\) and \[0\] of b"),
    (lambda a: ts.tensordot(a, a, ([0, 0], [0, 0])), r"Name as many of each, each once"),
    (
        lambda a: ts.tensordot(a, a, [0]),
        r"tensordot: axes=\[0\] must be a number of axes, or a pair",
    ),
    (lambda a: ts.tensordot(a, a, 3), r"tensordot: axis -3 \(axes\) does not exist in a tensor a"),
    (lambda a: ts.hstack([a, a[0]]), r"concat: xs \(2, 3\) and \(3,\)"),
    (lambda a: ts.vstack([a, a[:, :2]]), r"concat: xs \(2, 3\) and \(2, 2\)"),
    (lambda a: a.masked_fill([True] * 2, 0.0), r"masked_fill: a mask of shape \(2,\) does not"),
    (lambda a: a.masked_fill(a > 0, a), r"masked_fill: value must be one number.*use where"),
    (lambda a: ts.zeros((2, -1)), r"zeros: shape=\(2, -1\) cannot be filled.*Sizes are at least 0"),
    (
        lambda a: ts.full((2, 2), [1, 2, 3]),
        r"full: shape=\(2, 2\) cannot.*fill_value of shape \(3,\)",
    ),
    (lambda a: ts.einsum("i", a), r"'i' does not fit one of operands with 2 axes"),
    (lambda a: ts.einsum("ijk...", a), r"does not fit one of operands with 2 axes"),
]


@pytest.mark.parametrize(("call", "message"), SHAPE_ERRORS)
def test_shapes_that_do_not_fit(call, message):
    with pytest.raises(ShapeError, match=message):
        call(ts.tensor(np.ones((2, 3))))


FRACTIONS = [
    (
        lambda a: a.reshape(2.7, 3.9),
        r"reshape: a size of shape must be a whole number, not 2.7. Divide with",
    ),
    (lambda a: a.reshape((6 / 2, 2)), r"reshape: a size of shape must be a whole number, not 3.0"),
    (lambda a: a.reshape(None), r"reshape: a size of shape must be a whole number, not None"),
    (lambda a: a.expand(2.5, 3), r"expand: a size .*not 2.5"),
    (lambda a: ts.broadcast_to(a, (2.5, 3)), r"broadcast_to: a size .*not 2.5"),
    (lambda a: ts.ops.sum_to(a, (1.5, 3)), r"sum_to: a size .*not 1.5"),
    (lambda a: a.transpose(1.5, 0), r"transpose: one of axes .*not 1.5"),
    (lambda a: a.permute(1.5, 0), r"permute: one of axes .*not 1.5"),
    (lambda a: ts.split(a, 2.0), r"split: indices_or_sections .*not 2.0"),
    (lambda a: ts.split(a, [0.5]), r"split: one of indices_or_sections .*not 0.5"),
    (lambda a: ts.chunk(a, 1.5), r"chunk: chunks .*not 1.5"),
    (lambda a: a.sum(0.0), r"sum: axis .*not 0.0"),
    (lambda a: a.sum("a"), r"sum: axis .*not 'a'"),
    (lambda a: a.swapaxes(0, 1.0), r"swapaxes: axis2 .*not 1.0"),
    (lambda a: ts.expand_dims(a, 0.5), r"expand_dims: axis .*not 0.5"),
    (lambda a: ts.stack([a, a], None), r"stack: axis .*not None"),
]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda a: a.norm(3), ValueError, r"norm: ord=3 over 2 axes of x of shape \(2, 3\)"),
        (lambda a: a.norm("fro"), TypeError, r"norm: ord='fro' must be a real number or None"),
        (lambda a: a.round(31), ValueError, r"round: decimals=31 must be a whole number, from -30"),
        (lambda a: a.take([0.5]), DtypeError, r"take: indices must hold whole numbers"),
        (lambda a: a.take([6]), IndexError, r"take: indices: index 6 is outside of axis 0"),
        (lambda a: a.repeat(1.5), DtypeError, r"repeat: repeats must hold whole numbers"),
        (lambda a: a.masked_fill(a, 0.0), DtypeError, r"masked_fill: mask must hold booleans"),
        (lambda a: ts.arange(0, 5, 0), ValueError, r"arange: start=0, stop=5 and step=0 are no"),
        (lambda a: ts.arange(np.inf), ValueError, r"arange: start=0, stop=inf and step=1 are no"),
        (lambda a: ts.arange(0, 10**30, 10**29), ValueError, r"int64 does not hold them"),
        (lambda a: ts.zeros(2, np.int8), DtypeError, r"zeros: .*dtype int8 is not supported"),
        (lambda a: ts.arange(0, 1, 0.5, int), TypeError, r"int64 would cut off the fractions"),
    ],
)
def test_values_that_are_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call(ts.tensor(np.ones((2, 3))))


@pytest.mark.parametrize(("call", "message"), FRACTIONS)
def test_sizes_and_axes_are_whole_numbers(call, message):
    with pytest.raises(TypeError, match=message):
        call(ts.tensor(np.ones((2, 3))))


def test_booleans_count_as_0_and_1():
    b = ts.tensor([True, False])
    for op in (ts.sigmoid, ts.softplus, ts.logsumexp, ts.sign, ts.relu, ts.exp, ts.mean, ts.var):
        y, expected = op(b), op(ts.tensor([1, 0]))
        assert y.dtype == expected.dtype
        np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-6)
    y = b**b
    assert (y.dtype, y.tolist()) == (np.int64, [1, 1])


def test_whole_numbers_have_no_negative_powers():
    x = ts.tensor([2, 4])
    for call in (lambda: x**-1, lambda: x ** ts.tensor([1, -1]), lambda: 2 ** ts.tensor([-1])):
        with pytest.raises(DtypeError, match=r"pow: whole numbers to the power of -1.*x \*\* -1.0"):
            call()
    assert (x**-1.0).tolist() == [0.5, 0.25]
    assert (x**2).tolist() == [4, 16]


EINSUM_ERRORS = [
    ("ij->ik", r"einsum: subscripts='ij->ik': the output's 'k' is in no operand"),
    ("ij->ii", r"the output names a letter twice"),
    ("ij,jk->ik", r"names 2 operands, got 1"),
    ("i1", r"'i1' is not made of letters"),
    ("i......", r"with at most one '...' among them"),
    ("...j->j", r"the output needs '...'"),
    ("ij->i->j", r"is not made of letters"),
]


@pytest.mark.parametrize(("subscripts", "message"), EINSUM_ERRORS)
def test_subscripts_that_mean_nothing(subscripts, message):
    with pytest.raises(ValueError, match=message):
        ts.einsum(subscripts, ts.tensor(np.ones((2, 2))))


@pytest.mark.parametrize("name", ts.primitives.__all__)
def test_an_op_takes_its_inputs_by_place_or_by_name(name):
    op = REGISTRY[name]
    for kinds in ((np.float32, np.float64), (np.float64, np.float32)):
        xs = [ts.tensor(np.full(3, 0.5), kind) for kind in kinds] + [ts.tensor([1.0, 2.0, 3.0])]
        named = dict(zip(inspect.signature(op).parameters, xs, strict=False))
        expected = op(*named.values())
        for n in range(len(named)):
            rest = dict(list(named.items())[n:])
            y = op(*list(named.values())[:n], **rest)
            assert y.dtype == expected.dtype
            np.testing.assert_array_equal(y.numpy(), expected.numpy())
    with pytest.raises(
        TypeError, match=rf"{name}: missing a required argument: '{next(iter(named))}'"
    ):
        op()
    with pytest.raises(TypeError, match=rf"{name}: got an unexpected keyword argument 'y'"):
        op(*named.values(), y=1)


@given(st.lists(st.sampled_from(["number", "whole", "list", "array", "tensor"]), min_size=2))
def test_operands_of_any_kind_give_what_numpy_gives(kinds):
    """A number may come first, too: ``ts.pow(3, 2.0)``."""
    make = {
        "number": lambda: 2.0,
        "whole": lambda: 3,
        "list": lambda: [1.0, 2.0],
        "array": lambda: np.array([2.0, 3.0], np.float32),
        "tensor": lambda: ts.tensor([3.0, 2.0]),
    }
    for a, b in itertools.pairwise(make[kind]() for kind in kinds):
        for op, numpy in ((ts.pow, np.power), (ts.sub, np.subtract), (ts.maximum, np.maximum)):
            of = [x.numpy() if isinstance(x, ts.Tensor) else np.asarray(x) for x in (a, b)]
            np.testing.assert_allclose(op(a, b).numpy(), numpy(*of), rtol=1e-6)


def test_the_parts_of_an_index_are_named():
    x = ts.tensor(np.ones((2, 3)))
    for wrong in ("a", 1.5, [0]):
        for index in (slice(wrong, None), slice(None, wrong), (0, slice(None, None, wrong))):
            with pytest.raises(
                TypeError, match="getitem: a bound of a slice must be a whole number"
            ):
                x[index]
    with pytest.raises(DtypeError, match="getitem: an index of dtype float64"):
        x[np.ones(2)]


def test_other_arguments_that_mean_nothing():
    x = ts.tensor(np.ones((2, 2)), requires_grad=True)
    with pytest.raises(TypeError, match="subscripts as a string"):
        ts.einsum(x, [0, 1], [1, 0])
    with pytest.raises(ValueError, match="names 1 operands, got 0"):
        ts.einsum("ij")
    with pytest.raises(DtypeError, match="einsum: operands of booleans"):
        ts.einsum("ij->i", x > 0)
    with pytest.raises(ValueError, match="gelu: approximate='sigmoid' is unknown"):
        ts.gelu(x, "sigmoid")
    with pytest.raises(ValueError, match=r"pad: mode='reflect' is not offered"):
        ts.pad(x, 1, "reflect")
    with pytest.raises(DtypeError, match="pad: pad_width must be whole numbers, not float64"):
        ts.pad(x, 0.5)
    with pytest.raises(ShapeError, match=r"pad: constant_values=\[1, 2, 3\] do not fit x of shape"):
        ts.pad(x, 1, constant_values=[1, 2, 3])
    assert ts.pad(5.0, 1, constant_values=1.0).item() == 5.0
    for call in (ts.neg, lambda a: ts.sub(a, a)):
        with pytest.raises(DtypeError, match="bool"):
            call(x > 0)
    with pytest.raises(DtypeError, match="cut off the fractions"):
        ts.pad(ts.tensor([1, 2]), 1, constant_values=0.5)
    with pytest.raises(GraphError, match="cut it off silently"):
        ts.pad(x, 1, constant_values=x.sum())
    for call in (ts.logical_not, lambda a: a & (a > 0), lambda a: (a > 0) | a):
        with pytest.raises(DtypeError, match=r"must hold booleans, not float64. Compare first"):
            call(x)
    with pytest.raises(DtypeError, match="float16 is not supported"):
        ts.gelu(np.ones(2, np.float16))
    with pytest.raises(DtypeError, match="float16 is not supported"):
        x + np.ones(2, np.float16)
    with pytest.raises(DtypeError, match="float16 is not supported"):
        ts.astype(x, np.float16)


@pytest.mark.parametrize("op", [lambda x, i: ts.gather(x, 1, i), ts.take_along_axis])
def test_bad_places(op):
    x = ts.tensor(np.ones((2, 3)))
    with pytest.raises(
        IndexError, match=r"index 3 is outside of axis 1 of x of shape \(2, 3\). Use -3"
    ):
        op(x, [[0, 3], [0, 0]])
    with pytest.raises(DtypeError, match="must hold whole numbers, not float32"):
        op(x, [[0.0]])


def test_bad_indices():
    x = ts.tensor(np.ones((2, 3)))
    with pytest.raises(IndexError, match=r"getitem: x \(2, 3\).*out of bounds"):
        x[2]
    with pytest.raises(DtypeError, match="index of dtype float64"):
        x[np.array([0.5])]
    with pytest.raises(IndexError):
        x["a"]
    with pytest.raises(
        DtypeError, match=r"no rectangular index can be made of \[\[0\], \[0, 1\]\]"
    ):
        x[[[0], [0, 1]]]
    with pytest.raises(DtypeError, match="index of dtype object"):
        x[[slice(1), 0]]


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
