"""Matrix products: a register tile written in LLVM's own vectors, and the loops around it.

A product out = a w is computed tile by tile: a few rows of ``a`` times one *panel* of ``w``, the
columns that fill two vector registers, lying together in memory (`pack`). The tile's sums stay in
registers for the whole inner loop: k times, two loads of ``w`` meet a number from each row of
``a``. Nothing else is fast: of a product as small as a recurrent step's, (32, 128) (128, 512), the
tile reaches the same share of the processor's peak as a BLAS does of a large one, on one core.

The number of rows that fit depends on the registers: 14 with 32 of them (AVX-512, NEON), 6 with 16
(AVX2, SSE). Goto and van de Geijn, 2008, "Anatomy of high-performance matrix multiplication".
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba.core.config
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from tinyseq.kernels.jit import EXACT, jit
from tinyseq.kernels.memory import aligned
from tinyseq.kernels.threads import begin, cuts, end, get_num_threads, shared
from tinyseq.locks import new_lock

_PLAIN = bool(numba.core.config.DISABLE_JIT)  # no compiler: NumPy stands in for the tile


def _processor() -> tuple[int, int, bool]:
    """(bytes of a vector register, how many there are, fused multiply-add) of this processor."""
    features = dict(llvmlite.binding.get_host_cpu_features())
    if numba.core.config.CPU_NAME == "generic":
        return 16, 16, False
    if features.get("avx512f"):
        return 64, 32, True
    if features.get("avx2") and features.get("fma"):
        return 32, 16, True
    if features.get("neon"):
        return 16, 32, True
    return 16, 16, False


_BYTES, _REGISTERS, _FMA = _processor()
ROWS = 14 if _REGISTERS == 32 else 6  # of a tile: 2 sums each, two more for w and one for a
#: Panels that a tile takes at once: with few rows there are registers left, and sums to wait for.
_AT_ONCE = {1: 4, 2: 4, 3: 2} if _REGISTERS == 32 else {1: 4, 2: 2}
DEPTH = 512  # of a block: a panel of it stays in the second-level cache, or closer
_SPARE = 64  # numbers behind the tiles of `outers`: its copies are as wide as a register
_TALL = 512  # rows of a sum of outer products that are laid out anew at a time
_MANY = 1 << 15  # numbers from which laying them out, or adding them, is shared out
_WORTH_SHARING = 2e7  # operations below which waking a second thread costs more than it brings


def width(dtype: Any) -> int:
    """Columns of a panel: two vectors of this dtype."""
    return int(2 * _BYTES // np.dtype(dtype).itemsize)


def panels_shape(K: int, N: int, dtype: Any) -> tuple[int, int, int]:
    """(P, K, width): the shape of (K, N) in panels."""
    columns = width(dtype)
    return math.ceil(N / columns), K, columns


_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_BYTE = ir.IntType(8).as_pointer()


def _tile(rows: int, panels: int, double: bool) -> Callable[..., None]:
    """out[rows, panels · width] (+)= a[rows, k] w[k, panels · width], in registers; ``panels=0``:
    the first half of a panel, for the last few columns.

    Arguments are addresses and distances in elements. ``columns`` of the result exist; those of
    the last panel behind them are not touched. ``add``: 1 to add to what is there, 0 to write over
    it.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(typingctx, a, a_row, a_col, w, w_panel, out, out_row, k, columns, add):  # type: ignore[no-untyped-def]
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _write_tile(rows, panels, double, context, builder, args)

        return types.void(*[types.intp] * 10), write

    return tile  # type: ignore[no-any-return]


def _write_tile(rows: int, panels: int, double: bool, context: Any, builder: Any, args: Any) -> Any:
    """The tile in LLVM's language: entry → loop over k → stores, of the sums or added to memory."""
    a, a_row, a_col, w, w_panel, out, out_row, k, columns, add = args
    number, size = (ir.DoubleType(), 8) if double else (ir.FloatType(), 4)
    lanes = _BYTES // size
    vector = ir.VectorType(number, lanes)
    kind = f"v{lanes}f{8 * size}"
    undefined = ir.Constant(vector, ir.Undefined)
    mask_type = ir.VectorType(ir.IntType(1), lanes)
    offsets = [(p, v) for p in range(panels) for v in range(2)] or [(0, 0)]  # of a row's vectors

    def function(name: str, result: Any, inputs: list[Any]) -> Any:
        return cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(result, inputs), f"llvm.{name}"
        )

    def at(address: Any, pointee: Any) -> Any:
        return builder.inttoptr(address, pointee.as_pointer())

    def place(i: int, j: int) -> Any:
        inner = builder.add(out, builder.mul(out_row_bytes, _I64(i)))
        return at(builder.add(inner, _I64(j * lanes * size)), vector)

    def mask(j: int) -> Any:
        lane = ir.Constant(ir.VectorType(_I64, lanes), [j * lanes + n for n in range(lanes)])
        limit = builder.insert_element(
            ir.Constant(ir.VectorType(_I64, lanes), ir.Undefined), columns, _I32(0)
        )
        limit = builder.shuffle_vector(limit, limit, ir.Constant(ir.VectorType(_I32, lanes), None))
        return builder.icmp_signed("<", lane, limit)

    cells = [(i, j) for i in range(rows) for j in range(len(offsets))]
    a_row_bytes, a_col_bytes = (builder.mul(x, _I64(size)) for x in (a_row, a_col))
    out_row_bytes = builder.mul(out_row, _I64(size))
    whole = builder.icmp_signed(">=", columns, _I64(len(offsets) * lanes))

    # What is to be written is asked for now: it comes from afar while the sums are taken
    blocks = {
        name: builder.append_basic_block(name)
        for name in ("loop", "end", "add", "add_whole", "add_part", "set", "whole", "part", "done")
    }
    prefetch = function("prefetch.p0", ir.VoidType(), [_BYTE, _I32, _I32, _I32])
    for i, j in cells:
        there = builder.bitcast(place(i, j), _BYTE)
        builder.call(prefetch, [there, _I32(1), _I32(3), _I32(1)])
    entry = builder.block
    three = builder.mul(a_row_bytes, _I64(3))  # x86 adds 0, 1 or 2 distances to an address for free
    bases = [a]
    for _ in range(3, rows, 3):
        bases.append(builder.add(bases[-1], three))
    builder.branch(blocks["loop"])

    # k times: one row of the panels, one column of a
    builder.position_at_end(blocks["loop"])
    step, from_w = builder.phi(_I64), builder.phi(_I64)
    from_a = [builder.phi(_I64) for _ in bases]
    sums = [builder.phi(vector) for _ in cells]
    step.add_incoming(_I64(0), entry)
    from_w.add_incoming(w, entry)
    for phi, base in zip(from_a, bases, strict=True):
        phi.add_incoming(base, entry)
    for phi in sums:
        phi.add_incoming(ir.Constant(vector, None), entry)
    row_of_w = []
    for p, v in offsets:
        address = builder.add(from_w, _I64(v * lanes * size))
        if p:
            address = builder.add(address, builder.mul(w_panel, _I64(p * size)))
        row_of_w.append(builder.load(at(address, vector)))
        row_of_w[-1].align = size
    fma = function(f"fma.{kind}", vector, [vector] * 3)
    new = []
    for i in range(rows):
        address = from_a[i // 3]
        for _ in range(i % 3):
            address = builder.add(address, a_row_bytes)
        one = builder.insert_element(undefined, builder.load(at(address, number)), _I32(0))
        one = builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, lanes), None))
        for j in range(len(offsets)):
            total = sums[len(new)]
            if _FMA:
                new.append(builder.call(fma, [one, row_of_w[j], total]))
            else:
                new.append(builder.fadd(builder.fmul(one, row_of_w[j]), total))
    following = builder.add(step, _I64(1))
    step.add_incoming(following, blocks["loop"])
    from_w.add_incoming(builder.add(from_w, _I64(2 * lanes * size)), blocks["loop"])
    for phi in from_a:
        phi.add_incoming(builder.add(phi, a_col_bytes), blocks["loop"])
    for phi, value in zip(sums, new, strict=True):
        phi.add_incoming(value, blocks["loop"])
    builder.cbranch(builder.icmp_signed("<", following, k), blocks["loop"], blocks["end"])

    # The sums, or what was there with them added, into whole vectors or as far as there are columns
    masked_load = function(
        f"masked.load.{kind}.p0", vector, [vector.as_pointer(), _I32, mask_type, vector]
    )
    masked_store = function(
        f"masked.store.{kind}.p0", ir.VoidType(), [vector, vector.as_pointer(), _I32, mask_type]
    )

    def store_whole(values: list[Any]) -> None:
        for (i, j), value in zip(cells, values, strict=True):
            builder.store(value, place(i, j)).align = size
        builder.branch(blocks["done"])

    def store_part(values: list[Any]) -> None:
        for (i, j), value in zip(cells, values, strict=True):
            builder.call(masked_store, [value, place(i, j), _I32(size), mask(j)])
        builder.branch(blocks["done"])

    builder.position_at_end(blocks["end"])
    builder.cbranch(builder.icmp_signed("!=", add, _I64(0)), blocks["add"], blocks["set"])
    builder.position_at_end(blocks["set"])
    builder.cbranch(whole, blocks["whole"], blocks["part"])
    builder.position_at_end(blocks["whole"])
    store_whole(new)
    builder.position_at_end(blocks["part"])
    store_part(new)
    builder.position_at_end(blocks["add"])
    builder.cbranch(whole, blocks["add_whole"], blocks["add_part"])
    builder.position_at_end(blocks["add_whole"])
    for n, (i, j) in enumerate(cells):
        there = builder.load(place(i, j))
        there.align = size
        builder.store(builder.fadd(there, new[n]), place(i, j)).align = size
    builder.branch(blocks["done"])
    builder.position_at_end(blocks["add_part"])
    zeros, part = ir.Constant(vector, None), []
    for n, (i, j) in enumerate(cells):
        there = builder.call(masked_load, [place(i, j), _I32(size), mask(j), zeros])
        part.append(builder.fadd(there, new[n]))
    store_part(part)
    builder.position_at_end(blocks["done"])
    return context.get_dummy_value()


def _copy(vectors: int) -> Callable[[int, int], None]:
    """As many vectors as that, from the address ``source`` to the address ``to``."""

    @intrinsic  # type: ignore[untyped-decorator]
    def copy(typingctx, to, source):  # type: ignore[no-untyped-def]
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = ir.VectorType(ir.IntType(8), _BYTES)
            for v in range(vectors):
                here, there = (
                    builder.inttoptr(builder.add(x, _I64(v * _BYTES)), vector.as_pointer())
                    for x in args
                )
                loaded = builder.load(there)
                loaded.align = 1
                builder.store(loaded, here).align = 1
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), write

    return copy  # type: ignore[return-value]


_copy_1, _copy_2, _copy_4 = _copy(1), _copy(2), _copy(4)


def _turn(size: int) -> Callable[[int, int, int, int], None]:
    """A square as wide as a register, transposed in registers: rows at ``source``, ``apart`` bytes
    from each other, to rows at ``to``, ``between`` bytes apart; numbers of ``size`` bytes.
    """
    lanes = _BYTES // size

    @intrinsic  # type: ignore[untyped-decorator]
    def turn(typingctx, to, between, source, apart):  # type: ignore[no-untyped-def]
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            to, between, source, apart = args
            vector = ir.VectorType(ir.IntType(8 * size), lanes)

            def place(start: Any, distance: Any, i: int) -> Any:
                address = builder.add(start, builder.mul(distance, _I64(i)))
                return builder.inttoptr(address, vector.as_pointer())

            rows = []
            for i in range(lanes):
                rows.append(builder.load(place(source, apart, i)))
                rows[-1].align = size
            half = lanes // 2
            low = [n // 2 + lanes * (n % 2) for n in range(lanes)]
            for _ in range(lanes.bit_length() - 1):  # rows i and i + half, number by number in turn
                zipped = []
                for i in range(half):
                    for first in (0, half):
                        which = ir.Constant(ir.VectorType(_I32, lanes), [n + first for n in low])
                        zipped.append(builder.shuffle_vector(rows[i], rows[i + half], which))
                rows = zipped
            for i, row in enumerate(rows):
                builder.store(row, place(to, between, i)).align = size
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), write

    return turn  # type: ignore[return-value]


_turn_4, _turn_8 = _turn(4), _turn(8)
_ARGUMENTS = "rows, panels, a, a_row, a_col, w, w_panel, out, out_row, k, columns, add"
_ready: set[str] = set()
_getting_ready = new_lock(sys.modules[__name__], "_getting_ready")


def _symbol(dtype: Any) -> str:
    return f"tinyseq_tiles_{dtype}"


def ready(dtype: Any) -> None:
    """Compile the tiles for this dtype, or load them, before anything that calls them.

    They are one function over the number of rows, whose branches are tiles. Compiled code finds it
    by its name, so that it is compiled once and not again in every program that multiplies.
    """
    dtype = np.dtype(dtype)
    if _PLAIN or dtype.name in _ready:
        return
    with _getting_ready:
        if dtype.name in _ready:
            return
        names: dict[str, Any] = {"__name__": __name__}
        lines = [f"def tiles_{dtype}({_ARGUMENTS}):"]
        for rows in range(ROWS, 0, -1):
            for panels in sorted({_AT_ONCE.get(rows, 1), 1, 0}):
                tile = f"tile_{rows}_{panels}"
                names[tile] = _tile(rows, panels, dtype == np.float64)
                given = _ARGUMENTS.removeprefix("rows, panels, ")
                lines.append(f"    if rows == {rows} and panels == {panels}:")
                lines.append(f"        {tile}({given})")
        exec(compile("\n".join(lines), __file__, "exec"), names)
        compiled: Any = jit(EXACT)(names[f"tiles_{dtype}"])
        result = compiled.get_compile_result(types.void(*[types.intp] * 12))
        address = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
        llvmlite.binding.add_symbol(_symbol(dtype), address)
        _held_code.append(compiled)  # as long as the process: code has its address
        _ready.add(dtype.name)


_held_code: list[Any] = []


def _tiles(like, rows, panels, a, a_row, a_col, w, w_panel, out, out_row, k, columns, add):  # type: ignore[no-untyped-def]
    """The tiles for the dtype of the array ``like``."""
    raise NotImplementedError("this function is there in compiled code only")


@overload(_tiles)
def _tiles_of(like, rows, panels, a, a_row, a_col, w, w_panel, out, out_row, k, columns, add):  # type: ignore[no-untyped-def]
    tiles = types.ExternalFunction(_symbol(like.dtype.name), types.void(*[types.intp] * 12))

    def call(like, rows, panels, a, a_row, a_col, w, w_panel, out, out_row, k, columns, add):  # type: ignore[no-untyped-def]
        tiles(rows, panels, a, a_row, a_col, w, w_panel, out, out_row, k, columns, add)

    return call


if not _PLAIN:
    _ONE, _TWO, _THREE = (_AT_ONCE.get(n, 1) for n in (1, 2, 3))

    @jit(EXACT)
    def _multiply(a, w, out, steps, rows, a_step, a_row, a_col, out_step, out_row, K, N):  # type: ignore[no-untyped-def]
        """out[t] = a[t] w for t < steps, ``rows`` rows each: every panel of w passes once."""
        panels, _, columns = w.shape
        size = out.itemsize
        count = (rows + ROWS - 1) // ROWS  # tiles of nearly the same number of rows
        low, more = rows // count, rows % count
        together = _ONE if rows == 1 else _TWO if rows == 2 else _THREE if rows == 3 else 1
        few = 2 * (N - (panels - 1) * columns) <= columns  # in the last panel: half of it will do
        for k0 in range(0, K, DEPTH):
            depth = min(DEPTH, K - k0)
            p = 0
            while p < panels:
                here = together if panels - p >= together else 1
                for t in range(steps):
                    m = 0
                    for i in range(count):
                        n = low + (1 if i < more else 0)
                        _tiles(
                            out,
                            n,
                            0 if few and p == panels - 1 else here,
                            a.ctypes.data + (t * a_step + m * a_row + k0 * a_col) * size,
                            a_row,
                            a_col,
                            w.ctypes.data + (p * K + k0) * columns * size,
                            K * columns,
                            out.ctypes.data + (t * out_step + m * out_row + p * columns) * size,
                            out_row,
                            depth,
                            N - p * columns,
                            1 if k0 > 0 else 0,
                        )
                        m += n
                p += here

    @jit(EXACT)
    def matmul(a, w, out):  # type: ignore[no-untyped-def]
        """out = a w on this thread: a (M, K) of any strides, w in panels, out (M, N) in rows."""
        M, K = a.shape
        a_row, a_col = a.strides[0] // a.itemsize, a.strides[1] // a.itemsize
        if M > 0:
            out_row = out.strides[0] // out.itemsize
            _multiply(a, w, out, 1, M, 0, a_row, a_col, 0, out_row, K, out.shape[1])

    @jit(EXACT)
    def matmuls(a, w, out):  # type: ignore[no-untyped-def]
        """out[t] = a[t] w for all t on this thread: a (T, M, K), w in panels, out (T, M, N)."""
        T, M, K = a.shape
        N, size = out.shape[2], out.itemsize
        if T == 0 or M == 0:
            return
        if a.strides[0] == M * a.strides[1] and out.strides[0] == M * out.strides[1]:
            T, M = 1, T * M  # one matrix, in fact
        a_step, a_row, a_col = a.strides[0] // size, a.strides[1] // size, a.strides[2] // size
        out_step, out_row = out.strides[0] // size, out.strides[1] // size
        _multiply(a, w, out, T, M, a_step, a_row, a_col, out_step, out_row, K, N)

    @jit(EXACT)
    def in_panels(g, packed):  # type: ignore[no-untyped-def]
        """g (T, R, N), as T · R rows one below the other, in panels in the flat ``packed``."""
        T, R, N = g.shape
        K = T * R
        columns = 2 * _BYTES // g.itemsize
        size = g.itemsize
        whole = N // columns
        start, source = packed.ctypes.data, g.ctypes.data
        for t in range(T):
            for r0 in range(0, R, 8):  # a few rows at a time: each is read in a stream of its own
                r1 = min(R, r0 + 8)
                for p in range(whole):
                    for r in range(r0, r1):
                        at = start + (p * K + t * R + r) * columns * size
                        _copy_2(at, source + t * g.strides[0] + r * g.strides[1] + 2 * p * _BYTES)
                if whole * columns < N:
                    for r in range(r0, r1):
                        at_ = (whole * K + t * R + r) * columns
                        for j in range(columns):
                            n = whole * columns + j
                            packed[at_ + j] = g[t, r, n] if n < N else 0

    @jit(EXACT)
    def outers(a, packed, out, tiles, add):  # type: ignore[no-untyped-def]
        """out = Σₜ a[t]ᵀ g[t] on this thread, or out += that, if ``add``: a (T, R, M), g in panels
        (`in_panels`), out (M, N).

        ``a`` is laid out in tiles first, in the flat array ``tiles`` (T · R · M numbers and some):
        read where it is, each number would cost a line of the cache.
        """
        T, R, M = a.shape
        N = out.shape[1]
        K = T * R
        if K == 0:
            if not add:
                out[:] = 0
            return
        size = out.itemsize
        columns = 2 * _BYTES // size
        panels = (N + columns - 1) // columns
        out_row = out.strides[0] // size
        few = 2 * (N - (panels - 1) * columns) <= columns
        count = (M + ROWS - 1) // ROWS
        low, more = M // count, M % count
        reach = _BYTES * ((ROWS * size + _BYTES - 1) // _BYTES) // size  # numbers that a copy takes
        m = 0
        for i in range(count):
            n = low + (1 if i < more else 0)
            at = m * K
            for t in range(T):
                for r in range(R):
                    if m + reach <= M:  # more than n: what is too much is written over by the next
                        to, source = tiles.ctypes.data + at * size, a.ctypes.data
                        source += t * a.strides[0] + r * a.strides[1] + m * size
                        if reach * size == _BYTES:
                            _copy_1(to, source)
                        elif reach * size == 2 * _BYTES:
                            _copy_2(to, source)
                        else:
                            _copy_4(to, source)
                    else:
                        for j in range(n):
                            tiles[at + j] = a[t, r, m + j]
                    at += n
            m += n
        for p in range(panels):
            m = 0
            for i in range(count):
                n = low + (1 if i < more else 0)
                _tiles(
                    out,
                    n,
                    0 if few and p == panels - 1 else 1,
                    tiles.ctypes.data + m * K * size,
                    1,
                    n,
                    packed.ctypes.data + p * K * columns * size,
                    K * columns,
                    out.ctypes.data + (m * out_row + p * columns) * size,
                    out_row,
                    K,
                    N - p * columns,
                    1 if add else 0,
                )
                m += n

    @jit(EXACT)
    def pack(w: np.ndarray, panels: np.ndarray) -> None:
        """w (K, N), of any strides, into panels (`panels_shape`), with zeros at their end."""
        K, N = w.shape
        columns, size = panels.shape[2], w.itemsize
        lanes = columns // 2
        down = w.strides[0] < w.strides[1]  # w is a transpose: read along its columns
        squares = K // lanes if w.strides[0] == size else 0
        together = w.strides[1] == size
        for p in range(panels.shape[0]):
            n0 = p * columns
            n1 = min(N, n0 + columns)
            if n1 - n0 < columns:
                panels[p] = 0
            if down:
                for n in range(n0, n1, lanes):
                    whole = squares if n + lanes <= n1 else 0
                    for i in range(whole):
                        to = panels.ctypes.data + ((p * K + i * lanes) * columns + n - n0) * size
                        source = w.ctypes.data + n * w.strides[1] + i * lanes * size
                        if size == 4:
                            _turn_4(to, columns * size, source, w.strides[1])
                        else:
                            _turn_8(to, columns * size, source, w.strides[1])
                    for m in range(n, min(n1, n + lanes)):
                        for k in range(whole * lanes, K):
                            panels[p, k, m - n0] = w[k, m]
            elif together and n1 - n0 == columns:
                for k in range(K):
                    to = panels.ctypes.data + (p * K + k) * 2 * _BYTES
                    _copy_2(to, w.ctypes.data + k * w.strides[0] + n0 * w.itemsize)
            else:
                for k in range(K):
                    for n in range(n0, n1):
                        panels[p, k, n - n0] = w[k, n]

else:

    def _whole(w: np.ndarray, N: int) -> np.ndarray:
        return w.transpose(1, 0, 2).reshape(w.shape[1], -1)[:, :N]

    def matmul(a: np.ndarray, w: np.ndarray, out: np.ndarray) -> None:
        out[...] = a @ _whole(w, out.shape[-1])

    matmuls = matmul

    def _panels(packed: np.ndarray, K: int, N: int) -> np.ndarray:
        shape = panels_shape(K, N, packed.dtype)
        return packed[: math.prod(shape)].reshape(shape)

    def in_panels(g: np.ndarray, packed: np.ndarray) -> None:
        rows = g.reshape(-1, g.shape[-1])
        pack(rows, _panels(packed, *rows.shape))

    def outers(
        a: np.ndarray, packed: np.ndarray, out: np.ndarray, tiles: np.ndarray, add: bool
    ) -> None:
        rows, N = a.reshape(-1, a.shape[-1]), out.shape[1]
        made = rows.T @ _whole(_panels(packed, len(rows), N), N)
        out[...] = out + made if add else made

    def pack(w: np.ndarray, panels: np.ndarray) -> None:
        K, N = w.shape
        padded = np.zeros((K, panels.shape[0] * panels.shape[2]), w.dtype)
        padded[:, :N] = w
        panels[...] = padded.reshape(K, panels.shape[0], -1).transpose(1, 0, 2)


def tiles_size(K: int, M: int) -> int:
    """How many numbers `outers` lays out anew of (K, M)."""
    return K * M + _SPARE


_scratch = threading.local()  # panels of a product's own, kept: fresh memory costs page faults


def _held(name: str, size: int, dtype: Any) -> np.ndarray:
    held = getattr(_scratch, f"{name}_{dtype}", None)
    if held is None or held.size < size:
        held = aligned((size,), dtype)
        setattr(_scratch, f"{name}_{dtype}", held)
    return held[:size]  # type: ignore[no-any-return]


@jit(EXACT)
def _weight_part(team, part, a, b, out, panels):  # type: ignore[no-untyped-def]
    """out = a b, b packed as a whole."""
    begin(team, part)
    pack(b, panels)
    matmul(a, panels, out)
    end(team, part)


@jit(EXACT)
def _outer_part(team, part, a, g, out, packed, tiles, depth):  # type: ignore[no-untyped-def]
    """out = aᵀ g for a (1, K, M) and g (1, K, N), blocked over K."""
    begin(team, part)
    for k0 in range(0, a.shape[1], depth):
        k1 = min(a.shape[1], k0 + depth)
        in_panels(g[:, k0:k1], packed)
        outers(a[:, k0:k1], packed, out, tiles, k0 > 0)
    end(team, part)


@jit(EXACT)
def _pack_part(team, part, w, panels):  # type: ignore[no-untyped-def]
    begin(team, part)
    pack(w, panels)
    end(team, part)


@jit(EXACT)
def _add_part(team, part, a, b, out):  # type: ignore[no-untyped-def]
    begin(team, part)
    for i in range(out.size):
        out[i] = a[i] + b[i]
    end(team, part)


def pack_shared(w: np.ndarray, panels: np.ndarray) -> None:
    """`pack`, on all threads where that is worth it."""
    threads = get_num_threads() if w.size >= _MANY else 1
    if threads == 1:
        pack(w, panels)
        return
    parts, columns = cuts(len(panels), threads), panels.shape[2]

    def part(i: int, team: np.ndarray) -> None:
        cut = parts[i]
        _pack_part(team, i, w[:, cut.start * columns : cut.stop * columns], panels[cut])

    shared(part, threads)


def add_shared(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a + b, all in rows and of one shape, on all threads where that is worth it."""
    threads = get_num_threads() if out.size >= _MANY else 1
    if threads == 1:
        np.add(a, b, out=out)
        return
    flat, parts = [x.reshape(-1) for x in (a, b, out)], cuts(out.size, threads)
    shared(lambda i, team: _add_part(team, i, *(x[parts[i]] for x in flat)), threads)


def _in_rows(x: np.ndarray) -> bool:
    """Whether the numbers of each row lie one behind the other, as `in_panels` and `outers` need
    them: a row may be copied as a whole.
    """
    return x.shape[1] == 1 or x.strides[1] == x.itemsize


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """a b for a (M, K) and b (K, N), float32 or float64 alike, of any strides, on all threads;
    into ``out``, if it is given.
    """
    ready(a.dtype)
    (M, K), N = a.shape, b.shape[1]
    if M == 0 or N == 0 or K == 0:
        out = np.empty((M, N), a.dtype) if out is None else out
        out[...] = 0
        return out
    threads = get_num_threads() if 2.0 * M * K * N > _WORTH_SHARING else 1
    tall = K > M and K > N and a.strides[0] < a.strides[1]
    if tall and _in_rows(a.T) and _in_rows(b):  # a sum over many rows
        return _sum_over_rows(a.T, b, min(threads, K), out)
    out = np.empty((M, N), a.dtype) if out is None else out
    count, _, columns = panels_shape(K, N, a.dtype)
    whole = slice(None)
    if M >= N:
        parts = [(rows, whole) for rows in cuts(M, threads)]
    else:
        groups = cuts(count, threads)
        parts = [(whole, slice(g.start * columns, min(N, g.stop * columns))) for g in groups]
    panels = []
    for i, (_, cut) in enumerate(parts):
        shape = panels_shape(K, len(range(N)[cut]), a.dtype)
        panels.append(_held(f"panels_{i}", math.prod(shape), a.dtype).reshape(shape))
    shared(
        lambda i, team: _weight_part(
            team, i, a[parts[i][0]], b[:, parts[i][1]], out[parts[i]], panels[i]
        ),
        threads,
    )
    return out


def _sum_over_rows(
    a: np.ndarray, g: np.ndarray, threads: int, out: np.ndarray | None
) -> np.ndarray:
    """aᵀ g for tall a (K, M) and g (K, N): each thread takes some of the rows."""
    (K, M), N = a.shape, g.shape[1]
    columns = width(a.dtype)
    turned = -N % columns > -M % columns  # fewer columns of zeros the other way around
    if turned:
        a, g, M, N = g, a, N, M
    parts, depth = cuts(K, threads), min(K, _TALL)
    sums = [np.empty((M, N), a.dtype) for _ in parts]
    size = math.prod(panels_shape(depth, N, a.dtype))
    packed = [_held(f"packed_{i}", size, a.dtype) for i in range(threads)]
    tiles = [_held(f"tiles_{i}", tiles_size(depth, M), a.dtype) for i in range(threads)]
    shared(
        lambda i, team: _outer_part(
            team, i, a[None, parts[i]], g[None, parts[i]], sums[i], packed[i], tiles[i], depth
        ),
        threads,
    )
    for other in sums[1:]:
        sums[0] += other
    whole = sums[0].T if turned else sums[0]
    if out is None:
        return whole
    out[...] = whole
    return out
