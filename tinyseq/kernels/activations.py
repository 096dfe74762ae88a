"""The scalar functions that a compiled loop calls on one element after the other.

Each takes one floating-point number (some take two) and returns one of the same dtype, with NumPy's
meaning of NaN, ±∞ and ±0. They are meant for a loop that the compiler turns into vector code::

    for i in range(n):
        y[i] = tanh(x[i])

so there is no branch in `exp`, `expm1`, `log`, `log1p`, `tanh`, `sigmoid` and `softplus`: both
sides are computed and one is selected. Against the true value they are off by at most 4 ulp in
float32 and 1e−15 (relative) in float64, over the whole range, denormal results included. `sin`,
`cos`, `erf`, `power`, `remainder` and `floor_divide` are C's, one element at a time.

In compiled code these names stand for the typed functions that `_family` makes; called from Python
(or under ``NUMBA_DISABLE_JIT=1``) they are the NumPy expressions that they are defined as.

How the exponential goes (Cody and Waite, *Software Manual for the Elementary Functions*, 1980):
with n = x/ln 2 rounded and r = x − n ln 2, eˣ = 2ⁿ eʳ, and |r| ≤ ln 2 / 2 is small enough for a
polynomial. To round, a number is added that is so large that the last digit of the sum is 1; n is
then in the lowest bits of the sum, from where one shift brings it to the bits of an exponent.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from tinyseq.kernels.jit import EXACT, jit
from tinyseq.kernels.threads import over

Scalar = Any  # float32 or float64; a result has the dtype of the argument

# -- what they are ------------------------------------------------------------------------------

_silent = np.errstate(all="ignore")  # compiled code says nothing about overflow either


exp = _silent(np.exp)  # eˣ
expm1 = _silent(np.expm1)  # eˣ − 1, exact where x is small
log = _silent(np.log)  # ln x
log1p = _silent(np.log1p)  # ln(1 + x), exact where x is small
tanh = _silent(np.tanh)
sign = _silent(np.sign)  # −1, 0 or 1; NaN of NaN
sqrt = _silent(np.sqrt)  # √x
sin = _silent(np.sin)  # of x in radians
cos = _silent(np.cos)
maximum = _silent(np.maximum)  # the larger one; NaN if either is
minimum = _silent(np.minimum)  # the smaller one; NaN if either is
power = _silent(np.power)  # aᵖ
floor = _silent(np.floor)  # the next whole number below
rint = _silent(np.rint)  # the nearest whole number, of two the even one
floor_divide = _silent(np.floor_divide)  # ⌊a / b⌋
remainder = _silent(np.remainder)  # a − b·⌊a / b⌋


@_silent
def sigmoid(x: Scalar) -> Scalar:
    """σ(x) = 1 / (1 + e⁻ˣ); far to the left it is eˣ, not 0."""
    e = np.exp(-np.abs(x))
    return (1 if x >= 0 else e) / (1 + e)


@_silent
def softplus(x: Scalar) -> Scalar:
    """ln(1 + eˣ) = max(x, 0) + ln(1 + e^−|x|), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@_silent
def relu(x: Scalar) -> Scalar:
    """max(x, 0)."""
    return np.maximum(x, 0)


def erf(x: Scalar) -> Scalar:
    """2/√π ∫₀ˣ e^(−t²) dt."""
    return np.asarray(x).dtype.type(math.erf(x))


# -- the bits of a number -----------------------------------------------------------------------

_LAYOUT = {types.float32: (32, 23), types.float64: (64, 52)}  # bits in all, of them in the fraction
_ONE_AND_A_HALF = {32: 0x4B400000, 64: 0x4338000000000000}  # 1.5 · 2^(bits of the fraction)
_ROOT_HALF = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}  # √½
_ONE = {32: 0x3F800000, 64: 0x3FF0000000000000}


def _on_bits(build: Callable[..., Any]) -> Any:
    """A function of one number that ``build(builder, bits, constant, size, fraction)`` computes
    on its bits.
    """

    def typed(context: Any, x: Any) -> Any:
        size, fraction = _LAYOUT[x]
        integer = ir.IntType(size)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def constant(value: int) -> Any:
                return ir.Constant(integer, value)

            bits = builder.bitcast(args[0], integer)
            return builder.bitcast(build(builder, bits, constant, size, fraction), args[0].type)

        return x(x), generate

    return intrinsic(typed)


@_on_bits
def _power_of_two(builder: Any, shifted: Any, constant: Any, size: int, fraction: int) -> Any:
    """2ⁿ, given SHIFT + n: the lowest bits of that are the exponent's, in the wrong place."""
    return builder.shl(shifted, constant(fraction))


@_on_bits
def _exponent(builder: Any, x: Any, constant: Any, size: int, fraction: int) -> Any:
    """SHIFT + n, where x = m · 2ⁿ and √½ ≤ m < √2, for a positive normal x."""
    above = builder.add(x, constant(_ONE[size] - _ROOT_HALF[size]))
    return builder.add(builder.lshr(above, constant(fraction)), constant(_ONE_AND_A_HALF[size]))


@_on_bits
def _mantissa(builder: Any, x: Any, constant: Any, size: int, fraction: int) -> Any:
    """That m."""
    above = builder.add(x, constant(_ONE[size] - _ROOT_HALF[size]))
    digits = builder.and_(above, constant((1 << fraction) - 1))
    return builder.add(digits, constant(_ROOT_HALF[size]))


# -- how they are computed ----------------------------------------------------------------------


def _polynomial(coefficients: tuple[Scalar, ...]) -> Callable[[Scalar], Scalar]:
    """c₀ + c₁x + c₂x² + …, by Horner's rule; LLVM unrolls the loop."""
    last, rest = coefficients[-1], coefficients[-2::-1]

    @jit(EXACT, inline=True)
    def polynomial(x: Scalar) -> Scalar:
        y = last
        for c in rest:
            y = y * x + c
        return y

    return polynomial


def _family(
    dtype: type[np.floating[Any]],
    ln2_parts: tuple[float, float],
    ends: tuple[float, float],
    saturated: float,
    expm1_series: tuple[float, ...],
    log1p_series: tuple[float, ...],
) -> dict[str, Callable[[Scalar], Scalar]]:
    """The functions for one dtype.

    ``ln2_parts`` add up to ln 2, the first with so few digits that n times it is exact; eˣ is 0 and
    ∞ beyond ``ends``; tanh is 1 beyond ``saturated``. The polynomials, with the least maximum
    relative error (Remez): (eʳ − 1 − r) / r² = P(r) for |r| ≤ ln 2 / 2, and, less its leading 1,
    ln((1 + d/2) / (1 − d/2)) / d = 1 + d² P(d²) for 0 ≤ d ≤ 2/3.

    Every constant has the dtype: a Python float would make the result float64.
    """
    info = np.finfo(dtype)
    zero, half, one, two = dtype(0), dtype(0.5), dtype(1), dtype(2)
    infinity, nan, smallest = dtype(math.inf), dtype(math.nan), info.smallest_normal
    ln2, per_ln2 = dtype(math.log(2)), dtype(1 / math.log(2))
    ln2_high, ln2_low = map(dtype, ln2_parts)
    low, high = map(dtype, ends)
    end, tiny = dtype(-2 * saturated), info.eps
    shift = dtype(1.5 * 2**info.nmant + 1 - info.minexp)  # the last term: an exponent's bias
    lift = dtype((1 - info.minexp) // 2)
    unlift = dtype(2) ** -lift
    expm1_tail = _polynomial(tuple(map(dtype, expm1_series)))
    log1p_tail = _polynomial(tuple(map(dtype, log1p_series)))

    @jit(EXACT, inline=True)
    def reduced(x: Scalar, n: Scalar) -> Scalar:
        return x - n * ln2_high - n * ln2_low

    @jit(EXACT, inline=True)
    def near_zero(r: Scalar) -> Scalar:
        """eʳ − 1 for |r| ≤ ln 2 / 2."""
        return r * r * expm1_tail(r) + r

    @jit(EXACT, inline=True)
    def scaled_exp(x: Scalar, lifted_shift: Scalar) -> Scalar:
        """eˣ · 2^lift, as 2ⁿ by itself may be too small or large for a number, where eˣ is not."""
        shifted = x * per_ln2 + lifted_shift
        n = shifted - lifted_shift
        return (one + near_zero(reduced(x, n))) * _power_of_two(shifted)

    @jit(EXACT, inline=True)
    def falling_exp(x: Scalar) -> Scalar:
        """eˣ for x ≤ 0."""
        x = low if x < low else x  # a NaN stays: comparisons with it are false
        return scaled_exp(x, shift + lift) * unlift

    @jit(EXACT, inline=True)
    def log1p_within(e: Scalar) -> Scalar:
        """ln(1 + e) for √½ ≤ 1 + e ≤ 2."""
        d = e / (half * e + one)
        v = d * d
        return d * v * log1p_tail(v) + d

    def exp(x: Scalar) -> Scalar:
        x = high if x > high else x
        x = low if x < low else x
        small = x < zero
        y = scaled_exp(x, shift + lift if small else shift - lift)
        return y * (unlift if small else one / unlift)

    def expm1(x: Scalar) -> Scalar:
        z = high if x > high else x
        z = end if z < end else z
        n = (z * per_ln2 + shift) - shift
        r = near_zero(reduced(z, n))
        s = _power_of_two(n + (shift - one))  # half of 2ⁿ, which may be just too large
        y = r if n == zero else (s * r + (s - half)) * two
        return math.copysign(y, x)  # of −0 it is −0

    def log(x: Scalar) -> Scalar:
        denormal = x < smallest
        u = x / unlift if denormal else x
        n = _exponent(u) - shift
        k = n - lift if denormal else n
        y = k * ln2_high + (k * ln2_low + log1p_within(_mantissa(u) - one))
        y = y if x < infinity else x
        return y if x > zero else (-infinity if x == zero else nan)

    def log1p(x: Scalar) -> Scalar:
        u = one + x
        lost = x - (u - one)
        n = _exponent(u) - shift
        # by 2⁻ⁿ in two factors, as 2ⁿ⁻¹ is the largest power of two that has a reciprocal
        f = (_mantissa(u) - one) + half * lost * _power_of_two((shift + one) - n)
        y = n * ln2_high + (n * ln2_low + log1p_within(f))
        y = y if x < infinity else x
        y = y if u > zero else (-infinity if u == zero else nan)
        return y if abs(x) > tiny else x  # NaN too

    def tanh(x: Scalar) -> Scalar:
        # with e = e^(−2|x|) − 1, which is exact where x is small: tanh |x| = −e / (e + 2)
        z = -two * abs(x)
        z = end if z < end else z
        shifted = z * per_ln2 + shift
        s = _power_of_two(shifted)
        # one part of ln 2 is enough: where n is large, e is close to −1
        e = s * near_zero(z - (shifted - shift) * ln2) + (s - one)
        return math.copysign(e / (e + two), x)

    def sigmoid(x: Scalar) -> Scalar:
        e = falling_exp(-abs(x))
        return (one if x >= zero else e) / (one + e)

    def softplus(x: Scalar) -> Scalar:
        return (x if x > zero else zero) + log1p_within(falling_exp(-abs(x)))

    def relu(x: Scalar) -> Scalar:
        return zero if x <= zero else x

    def sign(x: Scalar) -> Scalar:
        y = one if x > zero else zero
        y = -one if x < zero else y
        return y if x == x else x

    def floor_divide(a: Scalar, b: Scalar) -> Scalar:
        r = np.fmod(a, b)
        q = (a - r) / b
        q = q - one if (r != zero) & ((r < zero) != (b < zero)) else q
        y = np.floor(q)
        y = y + one if q - y > half else y
        return a / b if b == zero else y

    functions = (exp, expm1, log, log1p, tanh, sigmoid, softplus, relu, sign, floor_divide)
    return {function.__name__: function for function in functions}


_TYPED = {
    types.float32: _family(
        np.float32,
        ln2_parts=(0.693359375, -2.1219444005469057e-4),
        ends=(-104, 89),
        saturated=10,
        expm1_series=(
            *(0.4999999701976776, 0.16666541993618011, 0.04166720435023308),
            *(0.00836664717644453, 0.0013882501516491175),
        ),
        log1p_series=(
            *(0.08333289623260498, 0.012507784180343151, 0.0021844219882041216),
            *(0.0005503580905497074,),
        ),
    ),
    types.float64: _family(
        np.float64,
        ln2_parts=(0.6931471803691238, 1.9082149292705877e-10),
        ends=(-746, 710),
        saturated=20,
        expm1_series=(
            *(0.5000000000000006, 0.16666666666666588, 0.04166666666657539),
            *(0.00833333333339043, 0.0013888888932051416, 0.00019841269717565762),
            *(2.4801504650693865e-05, 2.7557408253807963e-06, 2.762629868754184e-07),
            *(2.505376908671953e-08,),
        ),
        log1p_series=(
            *(0.08333333333333266, 0.012500000000059476, 0.002232142855072312),
            *(0.00043402781468270587, 8.877802630937525e-05, 1.8782513974761122e-05),
            *(4.058869189722052e-06, 9.240912462437135e-07, 1.5860909336181564e-07),
            *(8.134872151491995e-08,),
        ),
    ),
}


# The rounding in `_family` must stay as it is written, in whichever loop it ends up.
_OPTIONS: Any = {"fastmath": set(EXACT), "error_model": "numpy", "forceinline": True}
_compiled = functools.partial(overload, jit_options=_OPTIONS, strict=False)


def _typed(name: str) -> Callable[[Any], Callable[[Scalar], Scalar] | None]:
    return lambda x: _TYPED[x][name] if x in _TYPED else None


for _function in (exp, expm1, log, log1p, tanh, sigmoid, softplus, relu, sign):
    _compiled(_function)(_typed(_function.__name__))
_compiled(sqrt)(lambda x: lambda x: math.sqrt(x))
_compiled(sin)(lambda x: lambda x: math.sin(x))
_compiled(cos)(lambda x: lambda x: math.cos(x))
_compiled(erf)(lambda x: lambda x: math.erf(x))
_compiled(maximum)(lambda a, b: lambda a, b: a if (a >= b) | (a != a) else b)
_compiled(minimum)(lambda a, b: lambda a, b: a if (a <= b) | (a != a) else b)
_compiled(power)(lambda a, p: lambda a, p: a**p)
_compiled(floor)(lambda x: lambda x: np.floor(x))
_compiled(rint)(lambda x: lambda x: np.rint(x))
_compiled(floor_divide)(lambda a, b: _typed("floor_divide")(a))
_compiled(remainder)(lambda a, b: lambda a, b: np.remainder(a, b))


# -- over whole arrays --------------------------------------------------------------------------

_SHARED = 1 << 20  # elements; fewer take less than it costs to wake another thread up


def _apply(function: Any) -> Callable[[np.ndarray, np.ndarray], None]:
    """out = function(x): contiguous arrays of one shape, float32 or float64; they may be the
    same.
    """

    @jit(EXACT)
    def loop(x: np.ndarray, out: np.ndarray) -> None:
        for i in range(x.size):
            out[i] = function(x[i])

    return lambda x, out: over(loop, (x, out), _SHARED)


apply_tanh, apply_sigmoid, apply_softplus, apply_exp = map(_apply, (tanh, sigmoid, softplus, exp))
