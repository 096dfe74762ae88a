"""Layers over time and in depth: `Recurrent`, compiled or unrolled, `Bidirectional` and `Stacked`.

All are called ``y, state = layer(x, state=None, lengths=None)`` with x (T, B, D) and y (T, B, H); a
state is nested tuples, and what comes out goes back in. They take any cell, also one of your own.
A single sequence x (T, D) gives y (T, H) and a state without B; its length is a number.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinyseq import errors, graph, op, ops
from tinyseq.arguments import Count, Finite, FloatDtype, Fraction, Positive, Size, checked
from tinyseq.functional.targets import as_lengths
from tinyseq.kernels import load
from tinyseq.nested import mapped
from tinyseq.nn.cells import (
    Cell,
    CoupledLSTMCell,
    GRUCell,
    Init,
    LayerNormGRUCell,
    LayerNormLSTMCell,
    LSTMCell,
    Memory,
    Nonlinearity,
    PeepholeLSTMCell,
    RNNCell,
    State,
    Variant,
    dtype_for,
)
from tinyseq.nn.layers import Dropout
from tinyseq.nn.modes import Mode
from tinyseq.nn.module import Module
from tinyseq.nn.unroll import noise_of, start_of, state_of, unroll
from tinyseq.tensor import FLOATS, Tensor

__all__ = ["GRU", "LSTM", "RNN", "Bidirectional", "Recurrent", "Reversed", "Stacked"]

if TYPE_CHECKING:  # numba is imported with the compiler, when a layer is first compiled
    from tinyseq.compiler.program import Program


COMPILED_FROM = 2000  # steps of a sequence that a layer runs unrolled, before it is compiled

Call = Callable[..., tuple[Tensor, Any]]


def or_one(forward: Call) -> Call:
    """A layer's ``forward``, which takes a single sequence x (T, D) as well: a batch of one."""

    @functools.wraps(forward)
    def of_either(
        self: Any, x: op.TensorLike, state: Any = None, lengths: op.TensorLike | None = None
    ) -> tuple[Tensor, Any]:
        x = op.as_tensor(x)
        if x.ndim != 2:
            return forward(self, x, state, lengths)
        D = getattr(self, "input_size", x.shape[1])
        if x.shape[1] != D or x.dtype not in FLOATS:
            raise errors.ShapeError(
                f"{graph.located(type(self).__name__)}: x has shape {errors.describe(x.shape)} and "
                f"dtype {x.dtype}, expected (T, B, D={D}), or floats (T, D={D}) for one sequence. "
                "Symbols become vectors in an nn.Embedding, or by functional.one_hot."
            )
        axis = 0 if getattr(self, "batch_first", False) else 1
        if lengths is not None:
            lengths = op.as_tensor(lengths)
            lengths = lengths[None] if lengths.ndim == 0 else lengths
        state = mapped(lambda s: op.as_tensor(s)[None], state)
        y, state = forward(self, ops.expand_dims(x, axis), state, lengths)
        return ops.squeeze(y, axis), mapped(lambda s: s[0], state)

    return of_either


class _Around(Module):
    """What is around one cell or layer, and has its sizes and its first state."""

    cell: Module

    def _inside(self) -> Any:
        return self.cell

    @property
    def input_size(self) -> int:
        return int(self._inside().input_size)

    @property
    def hidden_size(self) -> int:
        """The width of y: a cell's H, or P where it projects its output."""
        inside = self._inside()
        return int(inside._width if isinstance(inside, Cell) else inside.hidden_size)

    @checked
    def initial_state(self, batch_size: Count, dtype: FloatDtype = np.float32) -> Any:
        """The state a sequence starts from when none is given, as what is inside defines it."""
        return start_of(self._inside(), batch_size, dtype)


class Recurrent(_Around):
    """A cell run over a whole sequence: x (T, B, D) → y (T, B, H), and the last state.

    ``cell``: any Module with ``cell(x, state) -> state``, a tuple of tensors with the output first.
    ``reverse=True`` runs from the last step to the first; y stays in the order of x. ``lengths``
    (B) of whole numbers from 0 to T: how many steps each sequence has, in any order; behind its end
    its state stands still and y is 0. One sequence is x (T, D), with y (T, H) and a state without
    B; a state of one tensor may be given without its tuple.

    ``mode``: ``"unroll"`` goes step by step through the recorded graph; ``"compiled"`` runs the
    whole sequence as one op, a numba loop made from the recording of one step, and raises
    `CompileError`, with the reason, for a cell that has none. ``"auto"``, or `None`, compiles once
    T·B, summed over calls, reaches ``COMPILED_FROM``, and unrolls a cell that cannot be compiled,
    saying once why; a call with a single step always runs unrolled, and so does every call inside
    `detect_anomaly`, which names the step. Values and gradients, also of gradients, are the same in
    all modes, but for rounding.
    Gradients flow to x, the parameters and the initial state. Raises `ShapeError` for an x that is
    not (T, B, D), an empty sequence, or lengths that do not fit, and `TypeError` for a layer in
    place of a cell.
    """

    reverse: bool
    mode: Mode

    @checked
    def __init__(self, cell: Module, reverse: bool = False, mode: Mode | None = "auto") -> None:
        refuse_layer("Recurrent", cell)
        self.cell = cell
        self.reverse = bool(reverse)
        self.mode = mode or "auto"
        self._steps = 0  # of sequences, run so far

    @or_one
    def forward(
        self, x: op.TensorLike, state: State | None = None, lengths: op.TensorLike | None = None
    ) -> tuple[Tensor, State]:
        x = op.as_tensor(x)
        _check_sequence(x, "Recurrent")
        state = state_of(self.cell, x, 1, state)
        running = _running(lengths, x)
        noise = noise_of(self.cell, x, state) if hasattr(self.cell, "noise") else None
        call = (self.cell, x, state, self.reverse, running, noise)
        if not self._compiles(x):
            return unroll(*call)
        from tinyseq.compiler.scan import scan

        try:
            return scan(unroll, *call)
        except errors.CompileError as reason:
            out = unroll(*call)  # where it fails, its own error tells more
            if self.mode == "compiled":
                raise
            errors.warn_unrolled(reason)
            return out

    @checked
    def program(self, dtype: FloatDtype | None = None) -> Program:
        """The equations of one step and of its gradient, as the recording of the cell has them.

        Printed, one a line, with shapes. For whole sequences without noise or lengths, in the dtype
        of the cell's parameters unless another is given. Raises `CompileError` for a cell that
        cannot be compiled.
        """
        return self._looked_up(dtype)[0]

    @checked
    def source(self, dtype: FloatDtype | None = None) -> str:
        """The Python that numba compiles for training this layer, and its program as docstring.

        Under ``NUMBA_DISABLE_JIT=1`` it is this text that runs, step by step in any debugger.
        Raises as `program` does.
        """
        return self._looked_up(dtype)[1]

    def _looked_up(self, dtype: npt.DTypeLike | None) -> tuple[Program, str]:
        from tinyseq.compiler.scan import describe

        if dtype is None:
            dtype = dtype_for(self.cell, Tensor(0))
        x = Tensor(np.zeros((1, 1, self.input_size), dtype))
        return describe(self.cell, x, self.initial_state(1, dtype))

    def _compiles(self, x: Tensor) -> bool:
        """Whether this call is to run compiled: as it did before, where it is computed again."""
        recording = graph.recording
        choice = self._is_worth_it(x) if recording.chosen is None else next(recording.chosen, False)
        if recording.choices is not None:
            recording.choices.append(choice)
        return choice

    def _is_worth_it(self, x: Tensor) -> bool:
        """Whether there was enough work for compiling to pay."""
        vars(self)["_steps"] += x.shape[0] * x.shape[1]  # no change of what it computes
        recording = graph.recording
        decided = graph.layers_compile()
        if self.mode == "unroll" or decided is False:
            return False  # in a cell's own step there is no loop to have
        if x.shape[1] == 0:  # no sequence, no work
            return False
        if recording.anomaly:  # which names the step and the op
            return False
        few = self._steps < COMPILED_FROM and not decided
        if self.mode != "compiled" and (few or x.shape[0] == 1):
            return False  # a single step has no loop to gain from
        load.load_kernels()
        return self.mode == "compiled" or load.kernels is not None

    def _describe(self) -> str:
        return "reverse" if self.reverse else ""


class _Several(Module):
    """Layers of layers: a tuple of their states; their programs and sources one after another."""

    _each: str  # what there is one state of

    def _inner(self) -> Sequence[Any]:
        raise NotImplementedError

    @property
    def input_size(self) -> int:
        return int(self._inner()[0].input_size)

    @checked
    def initial_state(self, batch_size: Count, dtype: FloatDtype = np.float32) -> tuple[Any, ...]:
        """A tuple, one state for each layer inside."""
        return tuple(layer.initial_state(batch_size, dtype) for layer in self._inner())

    def _states(self, state: Sequence[Any] | None) -> Sequence[Any]:
        """The state of each layer inside, where one is given."""
        n = len(self._inner())
        if state is None:
            return [None] * n
        if not isinstance(state, tuple | list) or len(state) != n:
            got = len(state) if isinstance(state, tuple | list) else type(state).__name__
            raise errors.ShapeError(
                f"{type(self).__name__}: the state must be a tuple of {n}, one a {self._each}, got "
                f"{got}. Pass what the layer returned, or initial_state(batch_size)."
            )
        return state

    @checked
    def program(self, dtype: FloatDtype | None = None) -> str:
        """`Recurrent.program` of each layer inside, as text."""
        return "\n\n".join(str(layer.program(dtype)) for layer in self._inner())

    @checked
    def source(self, dtype: FloatDtype | None = None) -> str:
        """`Recurrent.source` of each layer inside; layers of the same kind and size share one."""
        return "\n\n".join(dict.fromkeys(layer.source(dtype) for layer in self._inner()))


class Bidirectional(_Several):
    """Two layers over the same sequence, one from each end: y⟨t⟩ = [→a⟨t⟩, ←a⟨t⟩], (T, B, H₁ + H₂).

    ``forward_layer`` and ``backward_layer`` are cells or layers of any two kinds; cells are made
    `Recurrent`, the second one in reverse. The state is a tuple (of the forward layer, of the
    backward layer). Schuster and Paliwal, 1997.
    """

    _each = "direction"
    forward_layer: Module
    backward_layer: Module

    @checked
    def __init__(self, forward_layer: Module, backward_layer: Module) -> None:
        self.forward_layer = _as_layer(forward_layer)
        self.backward_layer = _as_layer(backward_layer, reverse=True)

    @property
    def hidden_size(self) -> int:
        """Of both directions together: the width of y."""
        return int(self.forward_layer.hidden_size + self.backward_layer.hidden_size)  # type: ignore[attr-defined]

    def _inner(self) -> Sequence[Any]:
        return (self.forward_layer, self.backward_layer)

    @or_one
    def forward(
        self,
        x: op.TensorLike,
        state: tuple[Any, Any] | None = None,
        lengths: op.TensorLike | None = None,
    ) -> tuple[Tensor, tuple[Any, Any]]:
        ahead, back = self._states(state)
        y_ahead, ahead = self.forward_layer(x, ahead, lengths)
        y_back, back = self.backward_layer(x, back, lengths)
        return ops.concat([y_ahead, y_back], axis=-1), (ahead, back)


class Stacked(_Several):
    """Layers on top of each other: the output of each is the input of the next, a^{[l]⟨t⟩} from
    a^{[l−1]⟨t⟩}.

    ``layers`` are `Recurrent`, `Bidirectional`, `Stacked` or cells. ``dropout`` drops parts of the
    output of every layer but the last, in training. ``batch_first=True`` takes and gives (B, T, …).
    The state is a tuple, one state a layer.
    """

    _each = "layer"
    layers: list[Module]
    dropout: Dropout
    batch_first: bool

    @checked
    def __init__(
        self,
        *layers: Module,
        dropout: Fraction = 0.0,
        batch_first: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        if not layers:
            raise ValueError("Stacked needs at least one layer.")
        self.layers = [_as_layer(layer) for layer in layers]
        self.dropout = Dropout(dropout, rng)
        self.batch_first = bool(batch_first)

    @property
    def hidden_size(self) -> int:
        """Of the last layer: the width of y."""
        return int(self.layers[-1].hidden_size)  # type: ignore[attr-defined]

    def _inner(self) -> Sequence[Any]:
        return self.layers

    @or_one
    def forward(
        self,
        x: op.TensorLike,
        state: Sequence[Any] | None = None,
        lengths: op.TensorLike | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        x = op.as_tensor(x)
        _check_sequence(x, "Stacked", self.batch_first)
        y = ops.swapaxes(x, 0, 1) if self.batch_first else x
        out = []
        for i, (layer, before) in enumerate(zip(self.layers, self._states(state), strict=True)):
            y, after = layer(y if i == 0 else self.dropout(y), before, lengths)
            out.append(after)
        return (ops.swapaxes(y, 0, 1) if self.batch_first else y), tuple(out)

    def _describe(self) -> str:
        return f"dropout={self.dropout.p}" if self.dropout.p else ""


def refuse_layer(name: str, cell: Module) -> None:
    """`TypeError` for a layer in place of a cell."""
    if isinstance(cell, Recurrent | Bidirectional | Stacked | Reversed):
        raise TypeError(
            f"{name} takes a cell, got the layer {type(cell).__name__}. Give it a cell, such as "
            f"nn.GRUCell(…), and make layers of it: nn.Stacked({name}(cell), …)."
        )


def _check_sequence(x: Tensor, name: str, batch_first: bool = False) -> None:
    if x.ndim != 3:
        raise errors.ShapeError(
            f"{graph.located(name)}: x has shape {errors.describe(x.shape)}, expected "
            f"{'(B, T, D)' if batch_first else '(T, B, D)'}: steps, batch, features. "
            "Add the missing axis, e.g. x[:, None] for a batch of one."
        )
    if x.shape[1 if batch_first else 0] == 0:
        raise errors.ShapeError(
            f"{graph.located(name)}: x of shape {errors.describe(x.shape)} has T=0 steps. "
            "A sequence needs at least one."
        )


def _running(lengths: op.TensorLike | None, x: Tensor, name: str = "lengths") -> Tensor | None:
    """(T, B, 1): does sequence b have a step t? `None` when all have all."""
    if lengths is None:
        return None
    T, B = x.shape[:2]
    n = as_lengths(name, lengths, B, T)
    return ops.less(np.arange(T)[:, None, None], ops.reshape(n, B, 1))


def _as_layer(module: Module, reverse: bool = False) -> Module:
    """Layers stay as they are, in the direction asked for; a cell is made one."""
    if isinstance(module, Recurrent | Bidirectional | Stacked):
        if not reverse:
            return module
        if isinstance(module, Recurrent):
            return module if module.reverse else Recurrent(module.cell, True, module.mode)
        return Reversed(module)
    return Recurrent(module, reverse)


class Reversed(_Around):
    """A layer run from the other end: x and y are turned around, each sequence within its
    length.
    """

    @checked
    def __init__(self, layer: Module) -> None:
        self.layer = layer

    def _inside(self) -> Any:
        return self.layer

    @or_one
    def forward(
        self, x: op.TensorLike, state: Any = None, lengths: op.TensorLike | None = None
    ) -> tuple[Tensor, Any]:
        x = op.as_tensor(x)
        _check_sequence(x, "Reversed")
        index = _turned(lengths, x)
        y, state = self.layer(x[index], state, lengths)
        return y[index], state


def _turned(lengths: op.TensorLike | None, x: Tensor) -> Any:
    """The index that turns each sequence around and leaves the padding behind its end
    where it is.
    """
    if lengths is None:
        return slice(None, None, -1)
    T, B = x.shape[:2]
    n = as_lengths("lengths", lengths, B, T)
    t = np.arange(T)[:, None]
    return ops.where(ops.less(t, n), n - 1 - t, t), np.arange(B)[None, :]


def _layers(
    make_cell: Callable[[int, int], Module],
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool,
    mode: Mode | None,
) -> list[Module]:
    layers: list[Module] = []
    for _ in range(num_layers):
        cells = [make_cell(input_size, hidden_size) for _ in range(2 if bidirectional else 1)]
        row = [Recurrent(cell, mode=mode) for cell in cells]
        layers.append(Bidirectional(*row) if bidirectional else row[0])
        input_size = layers[-1].hidden_size  # type: ignore[attr-defined]
    return layers


@checked
def RNN(
    input_size: Size,
    hidden_size: Size,
    num_layers: Size = 1,
    *,
    nonlinearity: Nonlinearity = "tanh",
    bias: bool = True,
    init: Init | None = None,
    clip: Positive | None = None,
    bidirectional: bool = False,
    dropout: Fraction = 0.0,
    batch_first: bool = False,
    mode: Mode | None = "auto",
    rng: np.random.Generator | None = None,
) -> Stacked:
    """``num_layers`` layers of `RNNCell`: x (T, B, D) → y (T, B, H), bidirectional (T, B, 2H).

    ``nonlinearity``, ``bias``, ``init`` and ``clip`` are those of the cell.
    """
    layers = _layers(
        lambda D, H: RNNCell(D, H, nonlinearity, rng, bias=bias, init=init, clip=clip),
        input_size, hidden_size, num_layers, bidirectional, mode,
    )  # fmt: skip
    return Stacked(*layers, dropout=dropout, batch_first=batch_first, rng=rng)


@checked
def GRU(
    input_size: Size,
    hidden_size: Size,
    num_layers: Size = 1,
    *,
    variant: Variant = "reset_after",
    update_bias: Finite = 0.0,
    layer_norm: bool = False,
    bias: bool = True,
    init: Init | None = None,
    clip: Positive | None = None,
    bidirectional: bool = False,
    dropout: Fraction = 0.0,
    batch_first: bool = False,
    mode: Mode | None = "auto",
    rng: np.random.Generator | None = None,
) -> Stacked:
    """``num_layers`` layers of `GRUCell`: x (T, B, D) → y (T, B, H), bidirectional (T, B, 2H).

    ``layer_norm=True`` makes them of `LayerNormGRUCell`, which has the variant reset_after alone.
    ``variant``, ``update_bias``, ``bias``, ``init`` and ``clip`` are those of the cell.
    """
    if layer_norm and variant != "reset_after":
        raise ValueError(
            f"GRU: layer_norm=True has no variant={variant!r}. Use variant='reset_after'."
        )
    options: dict[str, Any] = {"update_bias": update_bias, "bias": bias, "init": init, "clip": clip}

    def make_cell(D: int, H: int) -> Module:
        if layer_norm:
            return LayerNormGRUCell(D, H, rng, **options)
        return GRUCell(D, H, variant, rng, **options)

    layers = _layers(make_cell, input_size, hidden_size, num_layers, bidirectional, mode)
    return Stacked(*layers, dropout=dropout, batch_first=batch_first, rng=rng)


@checked
def LSTM(
    input_size: Size,
    hidden_size: Size,
    num_layers: Size = 1,
    *,
    forget_bias: Finite = 1.0,
    peephole: Memory | None = None,
    layer_norm: bool = False,
    coupled: bool = False,
    bias: bool = True,
    init: Init | None = None,
    proj_size: Count = 0,
    clip: Positive | None = None,
    bidirectional: bool = False,
    dropout: Fraction = 0.0,
    batch_first: bool = False,
    mode: Mode | None = "auto",
    rng: np.random.Generator | None = None,
) -> Stacked:
    """``num_layers`` layers of `LSTMCell`: x (T, B, D) → y (T, B, H), bidirectional (T, B, 2H).

    ``peephole``: ``"new"`` or ``"previous"`` makes them of `PeepholeLSTMCell`, whose output gate
    sees that memory. ``layer_norm=True`` makes them of `LayerNormLSTMCell`, ``coupled=True`` of
    `CoupledLSTMCell`, whose forget gate is 1 − u; each without the other two.
    ``forget_bias``, ``bias``, ``init``, ``proj_size`` and ``clip`` are those of the cell; with a
    ``proj_size`` P, y is (T, B, P), which is then ``hidden_size`` of the layers.
    """
    kinds = {"layer_norm": layer_norm, "peephole": peephole is not None, "coupled": coupled}
    if len(asked := [name for name, is_asked in kinds.items() if is_asked]) > 1:
        raise ValueError(
            f"LSTM: there is no cell with both {' and '.join(asked)}. Choose one, or write the "
            "cell you want: a Module with forward(x, state)."
        )

    options: dict[str, Any] = {"bias": bias, "init": init, "proj_size": proj_size, "clip": clip}

    def make_cell(D: int, H: int) -> Module:
        if layer_norm:
            return LayerNormLSTMCell(D, H, forget_bias, rng, **options)
        if peephole is not None:
            return PeepholeLSTMCell(D, H, peephole, forget_bias, rng, **options)
        kind = CoupledLSTMCell if coupled else LSTMCell
        return kind(D, H, forget_bias, rng, **options)

    layers = _layers(make_cell, input_size, hidden_size, num_layers, bidirectional, mode)
    return Stacked(*layers, dropout=dropout, batch_first=batch_first, rng=rng)
