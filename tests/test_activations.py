"""The scalar functions of compiled loops: how far off they are, and where they must be exact."""

import math
import os
import subprocess
import sys

import numba
import numpy as np
import pytest

import tinyseq as ts
from tinyseq.kernels import activations, load, threads
from tinyseq.kernels.jit import EXACT, SUMS
from tinyseq.op import REGISTRY

ONE_INPUT = ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "relu", "sign", "sqrt"]
ONE_INPUT += ["sin", "cos", "erf", "floor", "rint"]
TWO_INPUTS = ["maximum", "minimum", "power", "floor_divide", "remainder"]
DTYPES = [np.float32, np.float64]
compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


def loop(name, fastmath=EXACT):
    """The function over an array, in a loop such as a cell is compiled to."""
    function = getattr(activations, name)
    if name in TWO_INPUTS:

        @numba.njit(error_model="numpy", fastmath=set(fastmath))
        def run(a, b, y):
            for i in range(y.size):
                y[i] = function(a[i], b[i])
    else:

        @numba.njit(error_model="numpy", fastmath=set(fastmath))
        def run(x, y):
            for i in range(y.size):
                y[i] = function(x[i])

    return run


LOOPS = {name: loop(name) for name in ONE_INPUT + TWO_INPUTS}


def apply(name, *arrays):
    y = np.empty_like(arrays[0])
    LOOPS[name](*arrays, y)
    return y


def truth(name, *xs, wide=np.float64):
    """In a wider dtype than the one looked at."""
    with np.errstate(all="ignore"):  # among the inputs are NaNs that signal
        xs = [x.astype(wide) for x in xs]
        if name == "sigmoid":
            e = np.exp(-abs(xs[0]))
            return np.where(xs[0] >= 0, 1, e) / (1 + e)
        if name == "softplus":
            return np.maximum(xs[0], 0) + np.log1p(np.exp(-abs(xs[0])))
        if name == "relu":
            return np.maximum(xs[0], 0)
        if name == "erf":
            return np.array([math.erf(v) for v in xs[0].tolist()])
        return getattr(np, name)(*xs)


def ulps(y, true):
    """How many numbers of y's dtype y is off, near `true`; ∞ where the one is NaN or ∞ alone."""
    with np.errstate(all="ignore"):
        nearest = true.astype(y.dtype)
        off = np.abs(y.astype(true.dtype) - true) / np.spacing(np.abs(nearest)).astype(true.dtype)
    same = (y == nearest) | (np.isnan(y) & np.isnan(nearest))
    off = np.where(same, np.where(np.isfinite(nearest), off, 0), off)
    return np.where(np.isnan(off), np.inf, off)


def every(step):
    """Float32 numbers of all magnitudes, both signs, denormals, ±∞ and NaNs."""
    return np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


# -- float32 ------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("name", ONE_INPUT)
def test_float32_is_within_4_ulp_over_the_whole_range(name):
    x = every(100_003 if name == "erf" else 4001)
    off = ulps(apply(name, x), truth(name, x))
    assert off.max() <= 4, (x[off.argmax()], off.max())


@compiled
@pytest.mark.parametrize("name", ["exp", "sigmoid", "softplus"])
def test_denormal_results_are_right(name):
    x = np.linspace(-104.5, -87, 40_001).astype(np.float32)
    y = apply(name, x)
    assert ((y > 0) & (y < np.finfo(np.float32).smallest_normal)).sum() > 10_000
    assert ulps(y, truth(name, x)).max() <= 1


@compiled
@pytest.mark.parametrize("name", ["tanh", "expm1", "log1p"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_that_are_x_near_zero_are_exactly_that_for_denormals(name, dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    x = smallest * np.array([0, 1, 2, 3, 12_345, 8_388_607], dtype)
    x = np.concatenate([x, -x])
    y = apply(name, x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(np.signbit(y), np.signbit(x))


@compiled
def test_sigmoid_far_to_the_left_is_the_exponential():
    y = apply("sigmoid", np.array([-80, -20], np.float32))
    np.testing.assert_allclose(y, [1.8048513878454153e-35, 2.0611536181902037e-09], rtol=3e-7)


# -- both dtypes --------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("name", ONE_INPUT)
def test_float64_is_within_1e_15(name):
    if name == "erf" or np.finfo(np.longdouble).nmant <= 52:
        wide, allowed = np.float64, 2e-15  # the comparison is itself off by that much
    else:
        wide, allowed = np.longdouble, 1e-15
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.integers(0, 2**64, 20_000, np.uint64).view(np.float64),  # all magnitudes
            *[rng.normal(0, scale, 10_000) for scale in (1e-3, 0.3, 3, 300)],
            np.arange(-40, 40) * math.log(2) / 2,  # where one polynomial meets the next
        ]
    )
    y, true = apply(name, x), truth(name, x, wide=wide)
    with np.errstate(all="ignore"):
        relative = np.abs(y.astype(wide) - true) / np.abs(true)
    normal = np.abs(true) >= np.finfo(np.float64).smallest_normal
    finite = np.abs(true) <= np.finfo(np.float64).max
    assert relative[normal & finite].max() <= allowed
    assert ulps(y, true).max() <= 8  # denormal and infinite results, and NaN


@compiled
@pytest.mark.parametrize("name", ONE_INPUT)
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_are_numpys(name, dtype):
    info = np.finfo(dtype)
    values = [0, 1, np.inf, np.nan, info.max, info.smallest_normal, info.eps]
    x = np.array([*values, *[-v for v in values]], dtype)
    y = apply(name, x)
    with np.errstate(all="ignore"):
        expected = np.array([getattr(activations, name)(v) for v in x])
    np.testing.assert_allclose(y, expected, rtol=4 * info.eps, atol=0)


@compiled
@pytest.mark.parametrize("name", TWO_INPUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_two_numbers_are_numpys(name, dtype):
    values = [0, -0.0, 1, -1, 2, -3, 0.5, 7.25, np.inf, -np.inf, np.nan]
    a, b = np.array([(a, b) for a in values for b in values], dtype).T.copy()
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(a, b)
    np.testing.assert_allclose(apply(name, a, b), expected, rtol=4 * np.finfo(dtype).eps, atol=0)


@compiled
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_result_has_the_dtype_of_the_argument(dtype):
    calls = [f"{name}(x)" for name in ONE_INPUT] + [f"{name}(x, x)" for name in TWO_INPUTS]
    together = eval(f"lambda x: ({', '.join(calls)})", vars(activations).copy())
    kind = numba.from_dtype(np.dtype(dtype))
    [signature] = numba.njit((kind,))(together).nopython_signatures
    assert list(signature.return_type) == [kind] * len(calls)


@compiled
@pytest.mark.parametrize("name", ["exp", "log1p", "tanh"])
def test_a_caller_that_may_reorder_its_sums_does_not_reorder_theirs(name):
    x = every(1_000_003)
    y = np.empty_like(x)
    loop(name, SUMS)(x, y)
    assert ulps(y, truth(name, x)).max() <= 4


@compiled
@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loop_is_vectorised(name, dtype):
    array = numba.from_dtype(np.dtype(dtype))[::1]
    LOOPS[name].compile((array, array))
    ir = LOOPS[name].inspect_llvm((array, array))
    kind = "float" if dtype is np.float32 else "double"
    products = [line for line in ir.splitlines() if "fmul" in line or "llvm.fma" in line]
    assert any(f"x {kind}>" in line for line in products)


# -- what the emitter prints --------------------------------------------------------------------


def elementwise():
    return [op for op in REGISTRY.values() if op.emit is not None and op.name != "matmul"]


@pytest.mark.parametrize("op", elementwise(), ids=lambda op: op.name)
def test_what_is_emitted_means_the_op(op):
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.1, 2, 50) for _ in range(op.emit.count("{"))]
    if op.name == "where":
        arrays[0] = arrays[0] > 1
    attrs = {"axis": ()} if op.name == "share" else {}
    # as an operand of a power and a product, nothing may come apart
    names = ["a", "b", "c"][: len(arrays)]
    source = f"2.0 * {op.emit.format(*names)} ** 2.0"
    emitted = eval(f"lambda {', '.join(names)}: {source}", vars(activations).copy())
    expected = 2 * op.forward(*arrays, **attrs).astype(np.float64) ** 2
    got = [emitted(*values) for values in zip(*arrays, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_every_elementwise_op_of_one_dtype_can_be_emitted():
    without = {name for name, op in REGISTRY.items() if op.emit is None}
    assert without.isdisjoint({*ONE_INPUT, *TWO_INPUTS, "neg", "abs", "add", "where", "less"})


# -- whole arrays, and eager ops ----------------------------------------------------------------


@compiled
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "softplus"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (700, 1501)])
def test_over_arrays_of_any_size(name, shape, monkeypatch):
    monkeypatch.setattr(threads, "_threads", 2)
    x = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    kept = x.copy()
    out = np.full(shape, np.nan, np.float32)
    getattr(activations, f"apply_{name}")(x, out)
    np.testing.assert_array_equal(x, kept)
    if x.size:
        assert ulps(out, truth(name, x)).max() <= 4
    getattr(activations, f"apply_{name}")(x, x)
    np.testing.assert_array_equal(x, out)


@pytest.fixture
def asleep(monkeypatch):
    monkeypatch.setattr(load, "kernels", None)
    monkeypatch.setattr(load, "_failed", False)


@compiled
@pytest.mark.parametrize("name", ["sigmoid", "softplus"])
def test_eager_ops_use_the_kernels_once_awake(name, asleep, monkeypatch):
    x = np.random.default_rng(0).normal(0, 5, (64, 100)).astype(np.float32)
    op = REGISTRY[name]
    before = op(ts.tensor(x))
    load.load_kernels()
    calls = []
    kernel = getattr(activations, f"apply_{name}")
    monkeypatch.setattr(
        load.kernels.activations,
        f"apply_{name}",
        lambda x, out: (calls.append(x.shape), kernel(x, out)),
    )
    after = op(ts.tensor(x))
    assert calls == [(64, 100)]
    assert ulps(after.numpy(), before.numpy().astype(np.float64)).max() <= 4
    assert ulps(after.numpy(), truth(name, x)).max() <= 4
    for other in (x.astype(np.float64), x[:10], x.T):  # as before: exact, small, not in order
        assert not load.worth(other)
        np.testing.assert_array_equal(op(ts.tensor(other)).numpy(), op.forward(other))
    assert len(calls) == 1


def test_without_numba_one_warning_and_numpy(asleep, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.warns(RuntimeWarning, match="runs on NumPy alone"):
        load.load_kernels()
    load.load_kernels()  # no second warning: that would be an error here
    assert load.kernels is None
    assert not load.worth(np.zeros(10_000, np.float32))


def run(code, **environment):
    environment = os.environ | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_numba_is_not_imported_before_it_is_needed():
    assert run("import sys, tinyseq; print('numba' in sys.modules)").strip() == "False"


def test_as_plain_python():
    code = """
import numpy as np
from tinyseq.kernels import load
from tinyseq.kernels import activations
for dtype in (np.float32, np.float64):
    for name in "exp tanh sigmoid softplus relu erf log1p".split():
        y = getattr(activations, name)(dtype(-0.75))
        assert type(y) is dtype, name
        print(float(y))
    assert np.isnan(activations.maximum(dtype(1), dtype(np.nan)))
    assert activations.exp(dtype(1e4)) == np.inf
x = np.array([-0.75, 0.0])
activations.apply_sigmoid(x, x)
print(*x.tolist(), sep="\\n")
load.load_kernels()
assert load.kernels is None
"""
    got = [float(line) for line in run(code, NUMBA_DISABLE_JIT="1").split()]
    x = -0.75
    sigmoid = 1 / (1 + math.exp(-x))
    once = [math.exp(x), math.tanh(x), sigmoid, math.log1p(math.exp(x)), 0, math.erf(x)]
    once.append(math.log1p(x))
    np.testing.assert_allclose(got[:7], once, rtol=1e-6)
    np.testing.assert_allclose(got[7:], [*once, sigmoid, 0.5], rtol=1e-15)
