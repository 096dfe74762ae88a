"""ONNX export: a stack of layers as one file that ONNX Runtime runs with the same numbers.

Each cell becomes one RNN, GRU or LSTM node, which runs it over the whole sequence. What differs:
ONNX's weights are the transposes of ours, with an axis in front for the direction; its gates lie in
another order (LSTM i, o, f, c for our u, f, o, c̃; GRU z, r, h for our u, r, c̃); the GRU's z is
1 − u, so the entries of u change their sign; and it adds two biases where we mostly have one.
``clip`` is the cell's. A runtime that also clips the c' that an LSTM lets out has other numbers;
ONNX Runtime does not, and onnx's ReferenceEvaluator does not clip at all. Needs the package
``onnx``: ``pip install 'tinyseq[onnx]'``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

import tinyseq
from tinyseq import errors
from tinyseq.arguments import checked
from tinyseq.nn.cells import (
    Cell,
    CoupledLSTMCell,
    GRUCell,
    LSTMCell,
    PeepholeLSTMCell,
    RNNCell,
    State,
)
from tinyseq.nn.layers import Dropout, Embedding, LayerNorm, Linear
from tinyseq.nn.module import Module
from tinyseq.nn.recurrent import Bidirectional, Recurrent, Reversed, Stacked
from tinyseq.nn.wrappers import LearnedState, VariationalDropout
from tinyseq.saving import write_atomically
from tinyseq.tensor import Tensor

_OPSET, _IR = 17, 8  # of 2022: the first with LayerNormalization, and old enough for any runtime
_OPEN = 100.0  # σ(100) = 1: the relevance gate that a simplified GRU does not have


@checked
def export(
    layers: Module | Sequence[Module],
    path: str | os.PathLike[str],
    *,
    lengths: bool = False,
    state: bool = False,
) -> None:
    """Write layers, applied one after the other, to an ONNX file, as they are in evaluation mode.

    ``layers``: one or several of `Embedding` (only as the first), `Linear`, `LayerNorm`, `Dropout`
    (nothing is left of it), and recurrent layers of any depth and direction over `RNNCell`,
    `GRUCell` of every variant, `LSTMCell`, `CoupledLSTMCell` and `PeepholeLSTMCell` with
    ``output_sees="new"``, also inside of `LearnedState` and `VariationalDropout`. A model of your
    own is given by its layers: ``export([model.embedding, model.recurrent, model.head],
    "model.onnx")``.

    The file's inputs and outputs, all float32 unless said otherwise, with T and B free:

    - ``x`` (T, B, D), or ``indices`` (T, B) int64 where an Embedding is first; for layers that are
      ``batch_first``, B comes before T
    - with ``lengths``, ``lengths`` (B) int32: how many steps each sequence has
    - with ``state``, the initial state: ``h_0``, for an LSTM ``c_0``, each (B, H), for each cell,
      counted from 0, forward before backward. Without it, it is the one that the layers start from
    - out come ``y`` (T, B, H) and the last state: ``h_0_last``, ``c_0_last``, … (B, H)

    The file is written whole or not at all. Raises `TypeError` that names a layer or cell which
    ONNX has no counterpart of, `ShapeError` when a layer does not fit on the one before it,
    `ValueError` for no layers and for an Embedding that is not first, `ImportError` without the
    package ``onnx``, and `OSError` when the file cannot be written.
    """
    stack = [layers] if isinstance(layers, Module) else list(layers)
    stack = [layer for layer in stack if not isinstance(layer, Dropout)]
    if not stack:
        raise ValueError("export: there are no layers to write. Give at least one.")
    for layer in stack:
        for _, module in layer.named_modules():
            if isinstance(module, Recurrent):
                _as_node(_inside(module)[0])  # refused before anything else is looked at
    write_atomically(path, _Graph(stack, lengths, state).model().SerializeToString())


class _Graph:
    """The file's nodes and constants, written while the layers are walked."""

    def __init__(self, layers: Sequence[Module], lengths: bool, state: bool) -> None:
        self.onnx = errors.needed("onnx", "the export", "onnx")
        self.with_state = state
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.last_states: list[Any] = []
        self.cells = 0
        self.width = 0  # of the last axis, as far as the layers were walked

        turned = [m.batch_first for m in layers if isinstance(m, Stacked)] or [False]
        if isinstance(layers[0], Embedding):
            x = self.value(self.inputs, "indices", _axes(turned[0]), np.int64)
        else:
            self.width = _size_in(layers[0])
            x = self.value(self.inputs, "x", [*_axes(turned[0]), self.width])
        self.lengths = self.value(self.inputs, "lengths", ["B"], np.int32) if lengths else ""
        for i, layer in enumerate(layers):
            x = self.layer(layer, x, f"{i}." if len(layers) > 1 else "")
        self.node("Identity", [x], "y")
        self.outputs: list[Any] = []
        self.value(self.outputs, "y", [*_axes(turned[-1]), self.width])
        self.outputs += self.last_states

    def model(self) -> Any:
        helper = self.onnx.helper
        constants = list(self.constants.values())
        model = helper.make_model(
            helper.make_graph(self.nodes, "tinyseq", self.inputs, self.outputs, constants),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR,
            producer_name="tinyseq",
            producer_version=tinyseq.__version__,
        )
        self.onnx.checker.check_model(model, full_check=True)
        return model

    # -- writing; each returns the name of what it wrote -------------------------------------------

    def value(self, where: list[Any], name: str, shape: list[Any], dtype: Any = np.float32) -> str:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        where.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        array = np.ascontiguousarray(value, dtype)
        self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def node(self, op: str, inputs: Sequence[str], name: str, *more: str, **attrs: Any) -> str:
        make_node = self.onnx.helper.make_node
        self.nodes.append(make_node(op, list(inputs), [name, *more], name, **attrs))
        return name

    def axis(self, i: int) -> str:
        return self.constant(f"axis_{i}", [i], np.int64)

    # -- layers ------------------------------------------------------------------------------------

    def layer(self, layer: Module, x: str, at: str) -> str:
        """The nodes of ``layer`` on the value ``x``; ``at`` is its path with a dot behind it."""
        write: dict[type, Callable[[Any, str, str], str]] = {
            Embedding: self.embedding,
            Linear: self.linear,
            LayerNorm: self.layer_norm,
            Stacked: self.stacked,
            Bidirectional: self.bidirectional,
            Reversed: self.reversed,
            Recurrent: self.recurrent,
        }
        if type(layer) not in write:
            raise _refused(layer)
        if isinstance(layer, Embedding) and x != "indices":
            raise ValueError(
                "export: an Embedding takes whole numbers, so it has to be the first layer."
            )
        if self.width != _size_in(layer):
            raise errors.ShapeError(
                f"export: {at}{type(layer).__name__} takes D={_size_in(layer)} features, but the "
                f"layer before it gives {self.width}. Give the layers in the order in which they "
                "are applied."
            )
        return write[type(layer)](layer, x, at)

    def embedding(self, layer: Embedding, x: str, at: str) -> str:
        self.width = layer.embedding_dim
        return self.node(
            "Gather", [self.constant(f"{at}weight", layer.weight._data), x], f"{at}rows"
        )

    def linear(self, layer: Linear, x: str, at: str) -> str:
        self.width = layer.out_features
        xw = self.node("MatMul", [x, self.constant(f"{at}weight", layer.weight._data)], f"{at}xw")
        if layer.bias is None:
            return xw
        return self.node("Add", [xw, self.constant(f"{at}bias", layer.bias._data)], f"{at}xw_b")

    def layer_norm(self, layer: LayerNorm, x: str, at: str) -> str:
        inputs = [x, self.constant(f"{at}weight", layer.weight._data)]
        if layer.bias is not None:
            inputs.append(self.constant(f"{at}bias", layer.bias._data))
        return self.node("LayerNormalization", inputs, f"{at}norm", axis=-1, epsilon=layer.eps)

    def stacked(self, stack: Stacked, x: str, at: str) -> str:
        if stack.batch_first:
            x = self.node("Transpose", [x], f"{at}time_first", perm=[1, 0, 2])
        for i, layer in enumerate(stack.layers):
            x = self.layer(layer, x, f"{at}layers.{i}.")
        if stack.batch_first:
            x = self.node("Transpose", [x], f"{at}batch_first", perm=[1, 0, 2])
        return x

    def bidirectional(self, layer: Bidirectional, x: str, at: str) -> str:
        before = self.width
        ahead = self.layer(layer.forward_layer, x, f"{at}forward_layer.")
        width, self.width = self.width, before
        back = self.layer(layer.backward_layer, x, f"{at}backward_layer.")
        self.width += width
        return self.node("Concat", [ahead, back], f"{at}both", axis=-1)

    def reversed(self, layer: Reversed, x: str, at: str) -> str:
        y = self.layer(layer.layer, self.turned(x, f"{at}turned"), f"{at}layer.")
        return self.turned(y, f"{at}turned_back")

    def turned(self, x: str, at: str) -> str:
        """Each sequence from its end to its start, the padding where it is."""
        if self.lengths:
            n = self.node("Cast", [self.lengths], f"{at}.lengths", to=self.onnx.TensorProto.INT64)
            return self.node("ReverseSequence", [x, n], at, time_axis=0, batch_axis=1)
        start, axis = self.constant("minus_1", [-1], np.int64), self.axis(0)
        end = self.constant("before_0", [np.iinfo(np.int64).min], np.int64)
        return self.node("Slice", [x, start, end, axis, start], at)

    def recurrent(self, layer: Recurrent, x: str, at: str) -> str:
        """One node runs the cell over the sequence: y is (T, 1, B, H), a state (1, B, H)."""
        cell, start = _inside(layer)
        op, attrs, weights = _as_node(cell)
        H, names, at = cell.hidden_size, cell.state_names, f"{at}cell."
        w, r, b, *p = (self.constant(f"{at}{n}", a[None]) for n, a in weights.items())
        initial = [
            self.initial(name, x, H, None if start is None else start[i], at)
            for i, name in enumerate(names)
        ]
        y = self.node(
            op,
            [x, w, r, b, self.lengths, *initial, *p],
            f"{at}all_y",
            *(f"{at}{name}_last" for name in names),
            hidden_size=H,
            direction="reverse" if layer.reverse else "forward",
            **attrs,
        )
        for name, first in zip(names, initial, strict=True):
            out = self.value(self.last_states, f"{name}_{self.cells}_last", ["B", H])
            last = f"{at}{name}_last"
            if self.lengths and first:  # of a sequence without a step, ONNX Runtime says 0
                last = self.node("Where", [self.empty(at), first, last], f"{last}_or_first")
            self.node("Squeeze", [last, self.axis(0)], out)
        self.cells += 1
        self.width = H
        return self.node("Squeeze", [y, self.axis(1)], f"{at}y")

    def empty(self, at: str) -> str:
        """Whether each sequence has no step: (1, B, 1)."""
        if f"{at}empty" not in self.constants:
            zero = self.constant(f"{at}empty", 0, np.int32)
            where = self.node("Equal", [self.lengths, zero], f"{at}is_empty")
            axes = self.constant("axes_0_2", [0, 2], np.int64)
            self.node("Unsqueeze", [where, axes], f"{at}empty_rows")
        return f"{at}empty_rows"

    def initial(self, name: str, x: str, H: int, start: Tensor | None, at: str) -> str:
        """The state (1, B, H) that the node starts from; left out, it is zeros."""
        if self.with_state:
            given = self.value(self.inputs, f"{name}_{self.cells}", ["B", H])
            return self.node("Unsqueeze", [given, self.axis(0)], f"{at}{name}_first")
        if start is None:
            return ""
        row = self.constant(f"{at}{name}0", start._data[None])
        B = self.node("Shape", [x], f"{at}{name}_B", start=1, end=2)
        rows = self.node("Concat", [B, self.axis(1)], f"{at}{name}_rows", axis=0)
        return self.node("Expand", [row, rows], f"{at}{name}_first")


def _axes(batch_first: bool) -> list[Any]:
    return ["B", "T"] if batch_first else ["T", "B"]


def _size_in(layer: Module) -> int:
    """How wide a layer's input is; 0 for indices."""
    if isinstance(layer, Embedding):
        return 0
    if isinstance(layer, LayerNorm) and isinstance(layer.features, tuple):
        raise TypeError(
            f"export: LayerNorm over {layer.features} goes over axes that are T or B here, and "
            "free. Use LayerNorm(D)."
        )
    for name in ("in_features", "features", "input_size"):
        if hasattr(layer, name):
            return int(getattr(layer, name))
    raise _refused(layer)


def _inside(layer: Recurrent) -> tuple[Cell, State | None]:
    """The cell without its wrappers, and the state it starts from if one was learned."""
    cell, start = layer.cell, None
    while isinstance(cell, LearnedState | VariationalDropout):  # nothing is dropped in evaluation
        if start is None and isinstance(cell, LearnedState):
            start = cell.initial_state(1)
        cell = cell.cell
    return cast(Cell, cell), start


def _as_node(cell: Module) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """ONNX's operator for a cell, its attributes, and its weights W, R, B and, if any, P."""
    if type(cell) is PeepholeLSTMCell and cell.output_sees != "new":
        raise TypeError(
            "ONNX has no counterpart of PeepholeLSTMCell with output_sees='previous'. Train the "
            "model with output_sees='new': nn.LSTM(…, peephole='new')."
        )
    if isinstance(cell, LSTMCell) and cell.proj_size:
        raise TypeError(
            f"ONNX's LSTM has no projection, and this {type(cell).__name__} has "
            f"proj_size={cell.proj_size}. Train the model without it, or run it with tinyseq."
        )
    clip = getattr(cell, "clip", None)
    attrs: dict[str, Any] = {} if clip is None else {"clip": float(clip)}
    if type(cell) is RNNCell:
        attrs["activations"] = [cell.nonlinearity.title().replace("_", "")]
        return "RNN", attrs, _weights(cell, [0])
    if type(cell) is GRUCell:
        attrs["linear_before_reset"] = int(cell.variant == "reset_after")
        return "GRU", attrs, _weights(cell, [0, 1, 2])
    if type(cell) is CoupledLSTMCell:
        return "LSTM", attrs | {"input_forget": 1}, _weights(cell, [0, 2, 1, 3])
    if type(cell) is LSTMCell or type(cell) is PeepholeLSTMCell:
        weights = _weights(cell, [0, 2, 1, 3])
        if isinstance(cell, PeepholeLSTMCell):
            weights["P"] = np.concatenate([cell.p_u._data, cell.p_o._data, cell.p_f._data])
        return "LSTM", attrs, weights
    raise TypeError(
        f"ONNX has no counterpart of {type(cell).__name__}. Train the model with RNNCell, GRUCell, "
        "LSTMCell, CoupledLSTMCell or PeepholeLSTMCell (LearnedState and VariationalDropout may be "
        "around it), or run it with tinyseq."
    )


def _weights(cell: RNNCell | GRUCell | LSTMCell, order: list[int]) -> dict[str, np.ndarray]:
    """W, R and B; in this order our gates are ONNX's."""

    def gates(a: np.ndarray, open_gate: float = 0.0) -> np.ndarray:
        ours = np.split(a, a.shape[-1] // cell.hidden_size, axis=-1)
        if type(cell) is CoupledLSTMCell:
            ours.insert(1, -ours[0])  # 1 − u, for runtimes that do not know input_forget
        if isinstance(cell, GRUCell):
            ours[0] = -ours[0]  # z = 1 − u, and 1 − σ(a) = σ(−a)
            if cell.variant == "simplified":
                ours.insert(1, np.full_like(ours[0], open_gate))
        return np.concatenate([ours[i] for i in order], axis=-1).T

    bias = np.zeros(cell.w_h.shape[1], cell.w_h.dtype) if cell.b is None else cell.b._data
    b, r = gates(bias, _OPEN), gates(cell.w_h._data)
    if isinstance(cell, GRUCell) and cell.variant == "simplified" and cell.clip is not None:
        r[-cell.hidden_size :] *= 1 + np.exp(-min(cell.clip, _OPEN))  # σ(clip) < 1 is all it opens
    b_h = np.zeros_like(b)
    if isinstance(cell, GRUCell) and cell.variant == "reset_after" and cell.b_h is not None:
        b_h[-cell.hidden_size :] = cell.b_h._data
    return {"W": gates(cell.w_x._data), "R": r, "B": np.concatenate([b, b_h])}


def _refused(layer: Module) -> TypeError:
    return TypeError(
        f"export: what {type(layer).__name__} computes cannot be told from outside. Give the "
        "layers it applies as a list, in their order: Embedding, Linear, LayerNorm, Dropout, "
        "Recurrent, Bidirectional, Stacked (nn.RNN, nn.GRU, nn.LSTM)."
    )
