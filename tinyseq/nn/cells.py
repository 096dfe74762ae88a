"""Recurrent cells: one step of a recurrence, written as its equations.

``cell(x, state) -> state``: x (B, D); a state is a tuple of tensors (B, H), and ``state[0]`` is the
output. ``cell(x)`` starts from ``initial_state``, and a state of one tensor may be given without
its tuple. Row vectors throughout: with the notation of the lecture notes W_ax = w_x.T and W_aa =
w_h.T, and Γ_u, Γ_r, Γ_f, Γ_o are the update, relevance (reset), forget and output gates, σ their
sigmoid. `nn.notes` maps every symbol of theirs, and gives and takes a cell's weights as they write
them.

The k gates of a cell lie side by side in ``w_x`` (D, k·H), ``w_h`` (H, k·H) and ``b`` (k·H). The
input product and the recurrent product are kept apart, never ``concat(x, h) @ w``: only the second
one has to wait for the step before. Defaults: w_x Glorot, w_h orthogonal, one bias, 0.

All cells take ``bias=False``, which leaves ``b`` (and a GRU's ``b_h``) out: it is `None`; and
``init``, which draws each gate's block of w_x and of w_h as ``init(shape, rng=rng)``: a function of
`nn.init` for both, or a pair, such as ``(nn.init.he_normal, nn.init.orthogonal)``; and ``clip``,
which keeps the sum that goes into the activation of each gate and candidate in [−clip, clip]. The
tanh of an LSTM's c' is none of them, in ONNX Runtime neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from tinyseq import errors, graph, op, ops
from tinyseq.arguments import (
    Count,
    Finite,
    FloatDtype,
    Positive,
    Size,
    checked,
    no_class,
    one_of,
)
from tinyseq.nn.init import glorot_uniform, he_normal, orthogonal, zeros
from tinyseq.nn.layers import LayerNorm
from tinyseq.nn.module import Module, Parameter
from tinyseq.tensor import FLOATS, Tensor

__all__ = [
    "Cell", "CoupledLSTMCell", "GRUCell", "LSTMCell", "LayerNormGRUCell", "LayerNormLSTMCell",
    "PeepholeLSTMCell", "RNNCell",
]  # fmt: skip

State = tuple[Tensor, ...]
#: Ops by their names; those of ONNX are these without underscores: ``LeakyRelu``.
NONLINEARITIES = ("tanh", "relu", "sigmoid", "softplus", "elu", "leaky_relu", "softsign")
Nonlinearity = Annotated[str, one_of(*NONLINEARITIES)]
Variant = Annotated[str, one_of("reset_after", "reset_before", "simplified")]
Memory = Annotated[str, one_of("new", "previous")]
Draw = Annotated[Callable[..., np.ndarray], no_class]
Init = Draw | tuple[Draw, Draw]


def seen_of(seen: Tensor, h: Tensor) -> Tensor:
    """``seen``, in place of h; `ShapeError` unless it has its shape."""
    if seen.shape != h.shape:
        raise errors.ShapeError(
            f"{graph.located('the cell')}: seen has shape {errors.describe(seen.shape)}, expected "
            f"that of the state h, {errors.describe(h.shape)}."
        )
    return seen


def dtype_for(cell: Module, x: Tensor) -> np.dtype[Any]:
    """That of x, or of the cell's parameters for whole numbers."""
    if x.dtype in FLOATS:
        return x.dtype
    return next((p.dtype for p in cell.parameters()), FLOATS[0])


def _biased(x: Tensor, b: Tensor | None) -> Tensor:
    """x + b, or x for a cell without a bias."""
    return x if b is None else x + b


def _clipped(x: Tensor, bound: float | None) -> Tensor:
    """x kept in [−bound, bound], or x for a cell that does not clip."""
    return x if bound is None else ops.clip(x, -bound, bound)


def _gates(x: Tensor, k: int) -> list[Tensor]:
    """The k gates (B, H) that lie side by side in (B, k·H)."""
    return ops.split(x, k, axis=-1)


class Cell(Module):
    """What the cells of this library share: sizes, parameters, and a state that starts as zeros.

    A cell of your own may derive from this class or from `Module`; ``initial_state`` is asked for
    only when a sequence is started without a state.
    """

    state_names: tuple[str, ...] = ("h",)
    carries_output: bool = False  # whether h is also carried on element by element, as in a GRU
    input_size: Size
    hidden_size: Size
    w_x: Tensor
    w_h: Tensor
    b: Tensor | None

    @checked
    def __init__(self, input_size: Size, hidden_size: Size) -> None:
        self.input_size = int(input_size)
        self.hidden_size = int(hidden_size)

    @property
    def _width(self) -> int:
        """Of the output ``state[0]``; all else in the state is H wide."""
        return self.hidden_size

    def _make_gates(
        self,
        k: int,
        rng: np.random.Generator | None,
        bias: bool = True,
        init: Init | None = None,
    ) -> None:
        D, H = self.input_size, self.hidden_size
        init = (glorot_uniform, orthogonal) if init is None else init
        draw_x, draw_h = init if isinstance(init, tuple | list) else (init, init)
        self.w_x = Parameter(self._drawn(draw_x, (D, H), k, rng))
        self.w_h = Parameter(self._drawn(draw_h, (self._width, H), k, rng))
        self.b = Parameter(zeros((k * H,))) if bias else None

    def _drawn(
        self, draw: Draw, shape: tuple[int, int], k: int, rng: np.random.Generator | None
    ) -> np.ndarray:
        """k blocks of this shape, side by side, each drawn by itself."""
        blocks = [np.asarray(draw(shape, rng=rng), np.float32) for _ in range(k)]
        if wrong := [b.shape for b in blocks if b.shape != shape]:
            raise errors.ShapeError(
                f"{type(self).__name__}: init gave {errors.describe(wrong[0])} for the shape "
                f"{errors.describe(shape)}. It is called as init(shape, rng=rng)."
            )
        return np.concatenate(blocks, axis=1)

    def _start_bias(self, gate: int, name: str, value: float, unless: float, sign: int = 1) -> None:
        """The bias of one gate starts at ± ``value``, by default at ± ``unless``."""
        if self.b is not None:
            self.b._data[gate * self.hidden_size : (gate + 1) * self.hidden_size] = sign * value
        elif value != unless:
            raise ValueError(
                f"{type(self).__name__}: {name}={value} is where a bias starts, and bias=False "
                f"leaves it out. Leave out one of the two."
            )

    @checked
    def initial_state(self, batch_size: Count, dtype: FloatDtype = np.float32) -> State:
        """Zeros (B, H), one for each of ``state_names``."""
        widths = (self._width, *[self.hidden_size] * (len(self.state_names) - 1))
        return tuple(
            Tensor(np.zeros((batch_size, width), dtype), name=f"{name}0")
            for name, width in zip(self.state_names, widths, strict=True)
        )

    def check(self, x: Tensor, state: State | Tensor | None) -> State:
        """The state as a tuple: the initial one for `None`, and (h,) for h alone.

        Raises `ShapeError` unless x is (B, D) and the state is (B, H) for each of its names.
        """
        kind = type(self).__name__
        if x.ndim != 2 or x.shape[1] != self.input_size:
            letters = "BD" if x.ndim == 2 else ""
            raise errors.ShapeError(
                f"{graph.located(kind)}: x has shape {errors.describe(x.shape, letters)}, "
                f"expected (B, D={self.input_size}). Give the cell inputs of its input_size."
            )
        if state is None:
            return self.initial_state(len(x), dtype_for(self, x))
        if isinstance(state, Tensor | np.ndarray) and len(self.state_names) == 1:
            state = (op.as_tensor(state),)
        names = ", ".join(self.state_names)
        if not isinstance(state, tuple | list) or len(state) != len(self.state_names):
            n = f"{len(state)} tensors" if isinstance(state, tuple | list) else type(state).__name__
            raise errors.ShapeError(f"{kind}: the state must be a tuple ({names},), got {n}.")
        width = self._width
        for name, s in zip(self.state_names, state, strict=True):
            if s.shape != (x.shape[0], width):
                letters = "BH" if width == self.hidden_size else "BP"
                raise errors.ShapeError(
                    f"{graph.located(kind)}: the state {name} has shape "
                    f"{errors.describe(s.shape, letters if s.ndim == 2 else '')}, expected "
                    f"(B={x.shape[0]}, {letters[1]}={width}). Start from "
                    f"initial_state({x.shape[0]})."
                )
            width = self.hidden_size
        return tuple(state)

    def _describe(self) -> str:
        clip = getattr(self, "clip", None)
        return f"{self.input_size}, {self.hidden_size}" + (f", clip={clip:g}" if clip else "")


class RNNCell(Cell):
    """The simple recurrence: h' = g(x w_x + h w_h + b), g = tanh by default. Elman, 1990.

    ``nonlinearity`` g: ``"tanh"``, ``"relu"``, ``"sigmoid"``, ``"softplus"``, ``"softsign"``,
    ``"elu"`` with alpha 1 or ``"leaky_relu"`` with slope 0.01: the op of that name.
    In the notes a⟨t⟩ = g(W_aa a⟨t−1⟩ + W_ax x⟨t⟩ + b_a): see `nn.notes`.

    With relu or leaky_relu, w_x and w_h start as `init.he_normal` draws them unless ``init`` is
    given. Where H is small, the state may then grow over hundreds of steps; from the identity it
    does not: ``init=(nn.init.he_normal, lambda shape, rng: np.eye(*shape))`` (Le, Jaitly and
    Hinton, 2015).

    State (h,). Raises `ShapeError` when x is not (B, D) or the state not ((B, H),).
    """

    nonlinearity: Nonlinearity
    clip: Positive | None

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        nonlinearity: Nonlinearity = "tanh",
        rng: np.random.Generator | None = None,
        *,
        bias: bool = True,
        init: Init | None = None,
        clip: Positive | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.nonlinearity = nonlinearity
        self.clip = clip
        init = he_normal if init is None and nonlinearity in ("relu", "leaky_relu") else init
        self._make_gates(1, rng, bias, init)

    def forward(self, x: Tensor, state: State | Tensor | None = None) -> State:
        (h,) = self.check(x, state)
        g = getattr(ops, self.nonlinearity)
        return (g(_clipped(_biased(x @ self.w_x + h @ self.w_h, self.b), self.clip)),)


class GRUCell(Cell):
    """The gated recurrent unit: h' = u·c̃ + (1 − u)·h with an update gate u and a candidate c̃.

    ``variant``:

    - ``"reset_after"`` (default; PyTorch, cuDNN): u, r = σ(x w_x + h w_h + b),
      c̃ = tanh(x w_x + b + r·(h w_h + b_h))
    - ``"reset_before"`` (the notes; Cho et al., 2014): the same gates, c̃ = tanh(x w_x + (r·h) w_h
    + b)
    - ``"simplified"`` (the notes): no relevance gate, c̃ = tanh(x w_x + h w_h + b)

    Gates lie in the order u, r, c̃. Mind the sign: PyTorch's z is 1 − u. The update gate's bias
    starts at ``update_bias``. Below 0 memory is kept until the cell learns to update it: at −3 for
    about 1/σ(−3) ≈ 20 steps.

    State (h,), both c⟨t⟩ and a⟨t⟩ of the notes (`nn.notes`). ``seen`` (B, H): what gates and
    candidate see in place of h where the two differ, as under `VariationalDropout`; h itself is
    carried on. Raises `ShapeError` when x is not (B, D) or the state not ((B, H),), and
    `ValueError` for an ``update_bias`` with ``bias=False``.
    """

    carries_output = True
    variant: Variant
    clip: Positive | None
    b_h: Tensor | None

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        variant: Variant = "reset_after",
        rng: np.random.Generator | None = None,
        *,
        update_bias: Finite = 0.0,
        bias: bool = True,
        init: Init | None = None,
        clip: Positive | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.variant = variant
        self.clip = clip
        self._make_gates(2 if variant == "simplified" else 3, rng, bias, init)
        self._start_bias(0, "update_bias", update_bias, unless=0.0)
        if variant == "reset_after":
            self.b_h = Parameter(zeros((hidden_size,))) if bias else None

    def forward(
        self, x: Tensor, state: State | Tensor | None = None, seen: Tensor | None = None
    ) -> State:
        (h,) = self.check(x, state)
        seen = h if seen is None else seen_of(seen, h)
        if self.variant == "reset_after":
            return self._reset_after(x, h, seen)
        if self.variant == "reset_before":
            return self._reset_before(x, h, seen)
        return self._simplified(x, h, seen)

    def _reset_after(self, x: Tensor, h: Tensor, seen: Tensor) -> State:
        H = self.hidden_size
        from_x, from_h = _biased(x @ self.w_x, self.b), seen @ self.w_h
        update, reset = _gates(
            ops.sigmoid(_clipped(from_x[:, : 2 * H] + from_h[:, : 2 * H], self.clip)), 2
        )
        candidate = ops.tanh(
            _clipped(from_x[:, 2 * H :] + reset * _biased(from_h[:, 2 * H :], self.b_h), self.clip)
        )
        return (update * candidate + (1 - update) * h,)

    def _reset_before(self, x: Tensor, h: Tensor, seen: Tensor) -> State:
        H = self.hidden_size
        from_x = _biased(x @ self.w_x, self.b)
        update, reset = _gates(
            ops.sigmoid(_clipped(from_x[:, : 2 * H] + seen @ self.w_h[:, : 2 * H], self.clip)), 2
        )
        candidate = ops.tanh(
            _clipped(from_x[:, 2 * H :] + (reset * seen) @ self.w_h[:, 2 * H :], self.clip)
        )
        return (update * candidate + (1 - update) * h,)

    def _simplified(self, x: Tensor, h: Tensor, seen: Tensor) -> State:
        update, candidate = _gates(
            _clipped(_biased(x @ self.w_x + seen @ self.w_h, self.b), self.clip), 2
        )
        update, candidate = ops.sigmoid(update), ops.tanh(candidate)
        return (update * candidate + (1 - update) * h,)


class LSTMCell(Cell):
    """Long short-term memory: c' = u·c̃ + f·c, h' = o·tanh(c').

    u, f, o = σ(x w_x + h w_h + b), c̃ = tanh(x w_x + h w_h + b), lying in the order u, f, o, c̃
    (PyTorch calls u the input gate i and c̃ g, in the order i, f, g, o; the notes' Γ_u, Γ_f, Γ_o and
    W_u, …: `nn.notes`). The forget gate's bias
    starts at ``forget_bias`` = 1, so that memory is kept until the cell learns to drop it (Gers et
    al., 2000; Jozefowicz et al., 2015).

    ``proj_size`` P, where it is not 0, makes the output narrower than the memory: h' =
    (o·tanh(c')) w_p with ``w_p`` (H, P), drawn as w_x, and ``w_h`` (P, 4·H). Sak, Senior and
    Beaufays, 2014.

    State (h, c), each (B, H), or h (B, P). Raises `ShapeError` when x is not (B, D) or the state
    does not fit,
    and `ValueError` for another ``forget_bias`` with ``bias=False``. Hochreiter and Schmidhuber,
    1997.
    """

    state_names = ("h", "c")
    _blocks = 4  # side by side in w_x, w_h and b
    _forget = 1, 1  # the one that opens the forget gate, and with which sign
    clip: Positive | None
    proj_size: Count
    w_p: Tensor

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        forget_bias: Finite = 1.0,
        rng: np.random.Generator | None = None,
        *,
        bias: bool = True,
        init: Init | None = None,
        proj_size: Count = 0,
        clip: Positive | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.clip = clip
        self.proj_size = int(proj_size)
        self._make_gates(self._blocks, rng, bias, init)
        if proj_size:
            draw = init[0] if isinstance(init, tuple | list) else init or glorot_uniform
            self.w_p = Parameter(self._drawn(draw, (self.hidden_size, self.proj_size), 1, rng))
        gate, sign = self._forget
        self._start_bias(gate, "forget_bias", forget_bias, unless=1.0, sign=sign)

    def forward(self, x: Tensor, state: State | None = None) -> State:
        h, c = self.check(x, state)
        H = self.hidden_size
        gates = _clipped(_biased(x @ self.w_x + h @ self.w_h, self.b), self.clip)
        update, forget, output = _gates(ops.sigmoid(gates[:, : 3 * H]), 3)
        candidate = ops.tanh(gates[:, 3 * H :])
        c = update * candidate + forget * c
        return self._projected(output * ops.tanh(c)), c

    @property
    def _width(self) -> int:
        return self.proj_size or self.hidden_size

    def _projected(self, wide: Tensor) -> Tensor:
        """What is let out times w_p, or as it is for a cell without a projection."""
        return wide @ self.w_p if self.proj_size else wide

    def _describe(self) -> str:
        projected = f", proj_size={self.proj_size}" if self.proj_size else ""
        return f"{super()._describe()}{projected}"


class CoupledLSTMCell(LSTMCell):
    """The LSTM that forgets as much as it takes in: f = 1 − u, so c' = u·c̃ + (1 − u)·c.

    h' = o·tanh(c'), with u, o = σ(x w_x + h w_h + b) and c̃ = tanh(x w_x + h w_h + b), lying in the
    order u, o, c̃. The update gate's bias starts at −``forget_bias``, so that f starts as that of
    `LSTMCell`, whose other options, state and errors it shares. ONNX calls it ``input_forget``.
    Greff et al., LSTM: A Search Space Odyssey, 2017, where it is CIFG.
    """

    _blocks = 3
    _forget = 0, -1  # f = 1 − σ(a) = σ(−a)

    def forward(self, x: Tensor, state: State | None = None) -> State:
        h, c = self.check(x, state)
        H = self.hidden_size
        gates = _clipped(_biased(x @ self.w_x + h @ self.w_h, self.b), self.clip)
        update, output = _gates(ops.sigmoid(gates[:, : 2 * H]), 2)
        candidate = ops.tanh(gates[:, 2 * H :])
        c = update * candidate + (1 - update) * c
        return self._projected(output * ops.tanh(c)), c


class PeepholeLSTMCell(LSTMCell):
    """The LSTM whose gates also see the memory: Γ = σ(x w_x + h w_h + b + p·c), element by element.

    u and f see c. What o sees is a matter of convention: ``output_sees="new"`` the memory c' that
    it is about to let out (Gers, Schraudolph and Schmidhuber, 2002; ONNX), ``"previous"`` c, as u
    and f (the notes). ``p_u``, ``p_f`` and ``p_o`` (H) start at 0, so that the cell starts as a
    plain `LSTMCell`, whose other parameters, state and errors it shares.
    """

    output_sees: Memory
    p_u: Tensor
    p_f: Tensor
    p_o: Tensor

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        output_sees: Memory = "new",
        forget_bias: Finite = 1.0,
        rng: np.random.Generator | None = None,
        *,
        bias: bool = True,
        init: Init | None = None,
        proj_size: Count = 0,
        clip: Positive | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, forget_bias, rng,
            bias=bias, init=init, proj_size=proj_size, clip=clip,
        )  # fmt: skip
        self.output_sees = output_sees
        self.p_u = Parameter(zeros((hidden_size,)))
        self.p_f = Parameter(zeros((hidden_size,)))
        self.p_o = Parameter(zeros((hidden_size,)))

    def forward(self, x: Tensor, state: State | None = None) -> State:
        h, c = self.check(x, state)
        from_u, from_f, from_o, from_c = _gates(_biased(x @ self.w_x + h @ self.w_h, self.b), 4)
        update = ops.sigmoid(_clipped(from_u + self.p_u * c, self.clip))
        forget = ops.sigmoid(_clipped(from_f + self.p_f * c, self.clip))
        candidate = ops.tanh(_clipped(from_c, self.clip))
        new_c = update * candidate + forget * c
        output = ops.sigmoid(
            _clipped(from_o + self.p_o * (new_c if self.output_sees == "new" else c), self.clip)
        )
        return self._projected(output * ops.tanh(new_c)), new_c


class LayerNormLSTMCell(LSTMCell):
    """The LSTM with layer norm on x w_x, on h w_h and on the c' that it lets out.

    u, f, o = σ(LN(x w_x) + LN(h w_h) + b), c̃ = tanh(LN(x w_x) + LN(h w_h) + b), c' = u·c̃ + f·c,
    h' = o·tanh(LN(c')); c' is carried on as it is. ``norm_x`` and ``norm_h`` run over all 4H gates
    and leave the shift to b, ``norm_c`` has its own. Gates, state and errors are those of
    `LSTMCell`. Ba, Kiros and Hinton, 2016.
    """

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        forget_bias: Finite = 1.0,
        rng: np.random.Generator | None = None,
        *,
        bias: bool = True,
        init: Init | None = None,
        proj_size: Count = 0,
        clip: Positive | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, forget_bias, rng,
            bias=bias, init=init, proj_size=proj_size, clip=clip,
        )  # fmt: skip
        self.norm_x = LayerNorm(4 * hidden_size, bias=False)
        self.norm_h = LayerNorm(4 * hidden_size, bias=False)
        self.norm_c = LayerNorm(hidden_size)

    def forward(self, x: Tensor, state: State | None = None) -> State:
        h, c = self.check(x, state)
        H = self.hidden_size
        gates = _clipped(
            _biased(self.norm_x(x @ self.w_x) + self.norm_h(h @ self.w_h), self.b), self.clip
        )
        update, forget, output = _gates(ops.sigmoid(gates[:, : 3 * H]), 3)
        candidate = ops.tanh(gates[:, 3 * H :])
        c = update * candidate + forget * c
        return self._projected(output * ops.tanh(self.norm_c(c))), c


class LayerNormGRUCell(GRUCell):
    """The GRU, reset after, with layer norm on x w_x and on h w_h.

    u, r = σ(LN(x w_x) + LN(h w_h) + b), c̃ = tanh(LN(x w_x) + b + r·(LN(h w_h) + b_h)),
    h' = u·c̃ + (1 − u)·h. ``norm_x`` and ``norm_h`` run over all 3H gates and leave the shift to b
    and b_h. Gates, state and errors are those of `GRUCell`. After Ba, Kiros and Hinton, 2016, who
    norm the gates and the candidate apart.
    """

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        rng: np.random.Generator | None = None,
        *,
        update_bias: Finite = 0.0,
        bias: bool = True,
        init: Init | None = None,
        clip: Positive | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, "reset_after", rng,
            update_bias=update_bias, bias=bias, init=init, clip=clip,
        )  # fmt: skip
        self.norm_x = LayerNorm(3 * hidden_size, bias=False)
        self.norm_h = LayerNorm(3 * hidden_size, bias=False)

    def _reset_after(self, x: Tensor, h: Tensor, seen: Tensor) -> State:
        H = self.hidden_size
        from_x, from_h = _biased(self.norm_x(x @ self.w_x), self.b), self.norm_h(seen @ self.w_h)
        update, reset = _gates(
            ops.sigmoid(_clipped(from_x[:, : 2 * H] + from_h[:, : 2 * H], self.clip)), 2
        )
        candidate = ops.tanh(
            _clipped(from_x[:, 2 * H :] + reset * _biased(from_h[:, 2 * H :], self.b_h), self.clip)
        )
        return (update * candidate + (1 - update) * h,)
