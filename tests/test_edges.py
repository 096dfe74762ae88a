"""Where functions have no plain value or slope: values and gradients are PyTorch's, or said to be
others; nothing empty loses the graph; arrays that mean something else are no Tensors.
"""

import itertools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import OPS

import tinyseq as ts
from tinyseq import functional, nn, text
from tinyseq.errors import ShapeError
from tinyseq.op import REGISTRY

torch = pytest.importorskip("torch")  # in the extra `bench`

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of 1/0 and the like

EDGES = [
    0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 88.0, -746.0,
    np.inf, -np.inf, 1e-40, -1e-40, 1e300, -1e300, 1e-300,
]  # fmt: skip
ONE = {
    "abs": torch.abs, "cos": torch.cos, "erf": torch.erf, "exp": torch.exp, "expm1": torch.expm1,
    "floor": torch.floor, "log": torch.log, "log1p": torch.log1p, "neg": torch.neg,
    "relu": torch.relu, "rint": torch.round, "sigmoid": torch.sigmoid, "sign": torch.sign,
    "sin": torch.sin, "sqrt": torch.sqrt, "tanh": torch.tanh,
    "softplus": lambda x: torch.nn.functional.softplus(x, threshold=1e9),
}  # fmt: skip
TWO = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow,
    "maximum": torch.maximum, "minimum": torch.minimum, "remainder": torch.remainder,
    "floor_divide": lambda a, b: torch.div(a, b, rounding_mode="floor"),
}  # fmt: skip


def both(ours, theirs, arrays, dtype=np.float64):
    """Value and gradients of a weighted sum, ours and PyTorch's; no gradient is one of zeros."""
    out = []
    for fn, make in ((ours, lambda a: ts.tensor(a, requires_grad=True)),
                     (theirs, lambda a: torch.tensor(a, requires_grad=True))):  # fmt: skip
        xs = [make(np.array(a, dtype)) for a in arrays]
        y = fn(*xs)
        weights = np.arange(1.0, np.prod(y.shape) + 1).reshape(y.shape).astype(dtype)
        if y.requires_grad:
            (y * (weights if fn is ours else torch.tensor(weights))).sum().backward()
        grads = [np.zeros_like(a) if x.grad is None else x.grad.numpy()
                 for x, a in zip(xs, arrays, strict=True)]  # fmt: skip
        out.append([y.detach().numpy(), *grads])
    return out


def equal(ours, theirs, what):
    for a, b in zip(ours, theirs, strict=True):
        rtol = 1e-5 if a.dtype == np.float32 else 1e-7
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12, equal_nan=True, err_msg=str(what))


def test_every_op_of_numbers_is_looked_at():
    elementwise = {name for name, op in REGISTRY.items() if name in OPS and op.vjp and op.emit}
    others = {"share", "matmul", "where"}  # of logsumexp and softmax; no edges of their own
    assert elementwise - others == ONE.keys() | TWO.keys()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", sorted(ONE))
def test_functions_of_one_number(name, dtype):
    for x in EDGES:
        equal(*both(getattr(ts, name), ONE[name], [[x]], dtype), (name, x))


@pytest.mark.parametrize("name", sorted(TWO))
def test_functions_of_two_numbers(name):
    for a, b in itertools.product(EDGES, repeat=2):
        equal(*both(getattr(ts, name), TWO[name], [[a], [b]]), (name, a, b))


def test_the_slope_of_a_power_of_zero():
    for p, slope in ((-1.0, -np.inf), (-0.5, -np.inf), (0.0, 0.0), (2.0, 0.0)):
        x = ts.tensor(p, requires_grad=True)
        (0.0**x).backward()
        assert x.grad.item() == slope
    a, p = (ts.tensor(np.array([v]), requires_grad=True) for v in (0.0, 2.0))
    da, dp = ts.grad((a**p).sum(), [a, p], create_graph=True)
    assert [g.item() for g in ts.grad(da.sum() + dp.sum(), [a, p])] == [2.0, 0.0]


# -- reductions -----------------------------------------------------------------------------------

ALONG = {
    "sum": torch.sum, "prod": torch.prod, "max": torch.amax, "min": torch.amin,
    "mean": torch.mean, "cumsum": torch.cumsum, "cumprod": torch.cumprod, "softmax": torch.softmax,
    "log_softmax": torch.log_softmax, "logsumexp": torch.logsumexp,
    "var": lambda x, dim: torch.var(x, dim, correction=0),
    "std": lambda x, dim: torch.std(x, dim, correction=0),
    "sort": lambda x, dim: torch.sort(x, dim=dim, stable=True).values,
}  # fmt: skip


def along(name):
    return lambda x, axis=0: (getattr(ts, name, None) or getattr(functional, name))(x, axis)


@pytest.mark.parametrize("name", sorted(ALONG))
@given(row=st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0, 2.0, -np.inf, np.inf]), min_size=1,
                    max_size=4))  # fmt: skip
def test_along_an_axis_with_ties_zeros_and_infinities(name, row):
    infinite = np.isinf(row)
    if infinite.any() and name in ("prod", "cumprod", "var", "std"):
        return  # PyTorch's gradient of a product is y/x, and ∞/∞ is NaN; a spread of ∞ is none
    if name == "std" and len(set(row)) == 1:
        x = ts.tensor(np.array(row), requires_grad=True)
        ts.std(x).backward()
        assert not x.grad.numpy().any()  # said to be 0, where PyTorch gives NaN
        return
    ours, theirs = both(along(name), lambda x: ALONG[name](x, dim=0), [row])
    if name == "logsumexp" and (np.inf in row or infinite.all()):  # said to be shares, and zeros
        n = row.count(np.inf)
        assert ours[0] == theirs[0]
        assert ours[1].tolist() == [1 / n if n and x == np.inf else 0.0 for x in row]
        return
    equal(ours, theirs, (name, row))


EMPTY = [((0,), 0), ((2, 0), 1), ((0, 3), 0), ((0, 3), 1), ((2, 0, 3), 1), ((2, 0, 3), (1, 2))]
REDUCTIONS = ["sum", "prod", "max", "min", "mean", "var", "std", "logsumexp"]


@pytest.mark.parametrize("name", [*REDUCTIONS, "cumsum", "sort"])
@pytest.mark.parametrize(("shape", "axis"), EMPTY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_no_elements_there_is_numpys_value_and_an_empty_gradient_or_an_error(
    name, shape, axis, dtype
):
    x = ts.tensor(np.zeros(shape, dtype), requires_grad=True)
    if name in ("cumsum", "sort") and isinstance(axis, tuple):
        return
    sized = x.shape[axis] if isinstance(axis, int) else 0
    if sized == 0 and name in ("max", "min", "mean", "var", "std", "logsumexp"):
        with pytest.raises(ShapeError, match=rf"^{name}: "):
            getattr(ts, name)(x, axis)
        return
    kept = ({"keepdims": k} for k in (False, True)) if name in REDUCTIONS else [{}]
    for options in kept:
        x.grad = None
        y = getattr(ts, name)(x, axis, **options)
        if name != "logsumexp":
            expected = getattr(np, name)(x.detach().numpy(), axis, **options)
            np.testing.assert_array_equal(y.numpy(), expected)
            assert y.dtype == dtype
        y.sum().backward()
        assert (x.grad.shape, x.grad.dtype) == (shape, dtype)


def test_products_of_no_elements_among_whole_numbers():
    for dtype in (np.int64, bool):
        assert ts.prod(np.zeros((2, 0), dtype), 1).tolist() == [1, 1]
        assert ts.prod(np.zeros((2, 0), dtype), 1).dtype == np.int64


# -- arrays that mean something else --------------------------------------------------------------

MASKED = np.ma.masked_array([1.0, 2.0, 0.0], [False, True, False])
PLACES = np.ma.masked_array([1, 2, 0], [False, True, False])
X = ts.tensor(np.ones(3), requires_grad=True)
FIXED = ts.tensor(np.ones(3))

#: Every way in: an array becomes a Tensor, or indices, lengths, targets, a state.
DOORS = {
    "tensor": ts.tensor,
    "Parameter": nn.Parameter,
    "data": lambda a: setattr(ts.tensor(np.ones(3)), "data", a),
    "within a list": lambda a: ts.tensor([a, a]),
    "within lists": lambda a: ts.tensor([[[1.0]], [a[:1]]]),
    "an op": ts.sum,
    "an op of two": lambda a: ts.maximum(X, a),
    "concat": lambda a: ts.concat([X, a]),
    "where": lambda a: ts.where(a, X, X),
    "index": lambda a: X[a],
    "gather": lambda a: X.gather(0, a),
    "pad": lambda a: ts.pad(X, a[:2]),
    "gradient": lambda a: (X * 1).backward(a),
    "grad_outputs": lambda a: ts.grad(X * 1, X, a),
    "layer": lambda a: nn.Linear(3, 2)(a),
    "embedding": lambda a: nn.Embedding(3, 2)(a),
    "lengths": lambda a: nn.GRU(1, 2)(np.zeros((3, 3, 1), np.float32), lengths=a),
    "targets": lambda a: functional.cross_entropy(np.zeros((3, 3), np.float32), a),
    "weight": lambda a: functional.cross_entropy(np.zeros((2, 3), np.float32), [0, 1], weight=a),
    "one_hot": lambda a: functional.one_hot(a, 3),
    "load_state_dict": lambda a: nn.LayerNorm(3).load_state_dict({"weight": a, "bias": a}),
    "Partition": lambda a: text.Partition(a, 1, 1),
    "NGram": lambda a: text.NGram(1, 3).fit(a),
    "decode": lambda a: text.Vocabulary("abc").decode(a),
    "padded": lambda a: text.padded([a]),
    "Buckets": lambda a: text.Buckets(a, 1),
}
WHOLE = {"index", "gather", "pad", "embedding", "lengths", "targets", "one_hot", "Partition",
         "NGram", "decode", "padded", "Buckets"}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_a_masked_array_gets_in_nowhere(door):
    with pytest.raises((TypeError, ValueError), match=r"masked array .*x\.filled\(0\.0\)"):
        DOORS[door](PLACES if door in WHOLE else MASKED)


NO_NUMBERS = "is not supported|must be a Tensor or an array of real numbers"


@pytest.mark.parametrize("door", ["tensor", "Parameter", "an op", "within a list", "layer"])
def test_what_is_no_array_of_numbers_gets_in_nowhere(door):
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1.0, 2.0]])
    for array, words in (
        (matrix, r"numpy\.matrix of shape \(1, 2\) multiplies by other rules .* np\.asarray"),
        (np.rec.array([(1.0, 2)], dtype=[("a", float), ("b", int)]), NO_NUMBERS),
        (np.zeros(2, [("a", float)]), NO_NUMBERS),
        (np.array([1.0, None], object), NO_NUMBERS),
        (np.array(["2020"], "datetime64[s]"), NO_NUMBERS),
    ):
        with pytest.raises(TypeError, match=words):
            DOORS[door](array)


def test_a_masked_array_on_the_left_does_not_cut_the_gradient_off():
    ops = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.lt,
           operator.matmul, operator.iadd, np.ma.add, np.ma.multiply, np.add]  # fmt: skip
    for op, x in itertools.product(ops, (X, FIXED)):
        for a, b in ((MASKED.copy(), x), (x, MASKED.copy())):
            with pytest.raises(TypeError, match=r"masked array .*filled\(0\.0\)"):
                op(a, b)


def test_arrays_that_are_only_stored_elsewhere_are_arrays(tmp_path):
    stored = np.memmap(tmp_path / "a", np.float32, "w+", shape=(3,))
    stored[:] = [1, 2, 3]
    assert ts.sum(stored).item() == 6
    with pytest.raises(TypeError, match="generator, which can be read only once"):
        ts.tensor(x for x in [1.0])
