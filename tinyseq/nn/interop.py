"""To and from PyTorch: the same numbers under PyTorch's names, in its layout and with its signs.

What differs: PyTorch's weights are the transposes of ours; its gates lie in another order (LSTM i,
f, g, o for our u, f, o, c̃; GRU r, z, n for our u, r, c̃); the GRU's z is 1 − u, so the entries of u
change their sign, for σ(−a) = 1 − σ(a); and it adds two biases, b_ih + b_hh, where one is enough
(only the GRU's candidate has use for both: our b and b_h). Nothing here needs PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from tinyseq import errors, states
from tinyseq.arguments import checked
from tinyseq.nn.cells import Cell, GRUCell, LSTMCell, RNNCell
from tinyseq.nn.layers import Embedding, LayerNorm, Linear
from tinyseq.nn.module import Module
from tinyseq.nn.recurrent import Bidirectional, Recurrent, Reversed, Stacked
from tinyseq.nn.wrappers import Wrapper
from tinyseq.tensor import Tensor, plain_array

Arrays = dict[str, np.ndarray]

# PyTorch's gates in its order: which of ours each is, and its sign.
_GATES: dict[type, list[tuple[int, int]]] = {
    RNNCell: [(0, 1)],
    GRUCell: [(1, 1), (0, -1), (2, 1)],
    LSTMCell: [(0, 1), (1, 1), (3, 1), (2, 1)],
}


@checked
def to_torch(layer: Module) -> Arrays:
    """The state dict of the PyTorch module that computes the same as ``layer``, as NumPy arrays.

    For `nn.RNN`, `nn.GRU` (reset after) and `nn.LSTM` of any depth and in both directions, their
    cells, `Linear`, `Embedding`, `LayerNorm`, and modules made of these, whose entries carry the
    attributes' names as in PyTorch. The arrays are copies in the layer's dtype; ``bias_hh`` is 0
    but for the GRU's candidate. PyTorch takes them as ``twin.load_state_dict({name:
    torch.from_numpy(a) for name, a in to_torch(layer).items()})``.

    Raises `TypeError` for a layer that PyTorch has no counterpart of.
    """
    return {
        f"{prefix}{name}{suffix}": array
        for prefix, module, suffix in _parts(layer)
        for name, array in _to_torch(module).items()
    }


@checked
def load_torch(
    layer: Module, state_dict: Mapping[str, Any] | str | os.PathLike[str], prefix: str = ""
) -> None:
    """Take over the parameters of a PyTorch module: from then on ``layer`` computes the same.

    ``layer``: as for `to_torch`, of PyTorch's sizes (and its nonlinearity, which a state dict does
    not tell). ``state_dict``: what a PyTorch module's ``state_dict()`` gave, with torch tensors or
    arrays, or the path of a ``.safetensors`` file. ``prefix`` picks one submodule of it, e.g.
    ``"encoder."``. Numbers are rounded to the dtype that the layer has.

    Raises `ValueError` that lists every missing, unknown and misshapen entry, `DtypeError` for
    entries that are not floats, `TypeError` for a layer that PyTorch has no counterpart of, and
    `FileNotFoundError` for a path without a file. Nothing is changed then.
    """
    expected = to_torch(layer)
    given = _read(state_dict, prefix)
    if wrong := errors.misfits(expected, given, prefix):
        raise ValueError(
            f"this PyTorch state does not fit {type(layer).__name__}: {'; '.join(wrong)}. Build "
            "the layer with the sizes, depth, directions and biases of PyTorch's; prefix= picks "
            "the entries of one submodule."
        )
    written: list[tuple[Tensor, np.ndarray]] = []
    for before, module, suffix in _parts(layer):
        theirs = {name: given[f"{before}{name}{suffix}"] for name in _to_torch(module)}
        written += module._restored(_from_torch(module, theirs))
    states.write(written)


# -- one layer or cell -----------------------------------------------------------------------------


def _to_torch(module: Module) -> Arrays:
    ours = module.state_dict()
    if isinstance(module, Linear):
        return ours | {"weight": np.ascontiguousarray(ours["weight"].T)}
    if not isinstance(module, Cell):
        return ours
    theirs = {"weight_ih": ours["w_x"], "weight_hh": ours["w_h"]}
    if "b" in ours:
        theirs |= {"bias_ih": ours["b"], "bias_hh": np.zeros_like(ours["b"])}
    if "b_h" in ours:
        theirs["bias_hh"][-module.hidden_size :] = ours["b_h"]
    theirs = {name: _gates_to_torch(type(module), array) for name, array in theirs.items()}
    return theirs | ({"weight_hr": ours["w_p"].T.copy()} if "w_p" in ours else {})


def _from_torch(module: Module, theirs: Arrays) -> Arrays:
    if isinstance(module, Linear):
        return theirs | {"weight": theirs["weight"].T}
    if not isinstance(module, Cell):
        return theirs
    projection = {"w_p": theirs["weight_hr"].T} if "weight_hr" in theirs else {}
    ours = {
        name: _gates_from_torch(type(module), array)
        for name, array in theirs.items()
        if name != "weight_hr"
    }
    out = {"w_x": ours["weight_ih"], "w_h": ours["weight_hh"]} | projection
    if "bias_ih" not in ours:
        return out
    b, b_h = ours["bias_ih"], ours["bias_hh"]
    if isinstance(module, GRUCell):  # r·(h w_h + b_h) keeps the second bias of the candidate apart
        out["b_h"] = b_h[-module.hidden_size :].copy()
        b_h[-module.hidden_size :] = 0
    return out | {"b": b + b_h}


def _gates_to_torch(kind: type, a: np.ndarray) -> np.ndarray:
    """(…, k·H) with our gates → (k·H, …) with PyTorch's."""
    ours = np.split(a, len(_GATES[kind]), axis=-1)
    theirs = np.concatenate([sign * ours[i] for i, sign in _GATES[kind]], axis=-1)
    return np.ascontiguousarray(theirs.T)


def _gates_from_torch(kind: type, a: np.ndarray) -> np.ndarray:
    theirs = np.split(a.T, len(_GATES[kind]), axis=-1)
    pairs = zip(_GATES[kind], theirs, strict=True)
    ours = {i: sign * gate for (i, sign), gate in pairs}
    return np.concatenate([ours[i] for i in range(len(ours))], axis=-1)


# -- what a layer is made of -----------------------------------------------------------------------


def _parts(module: Module, prefix: str = "") -> Iterator[tuple[str, Module, str]]:
    """Each layer or cell between what PyTorch writes before and behind the names of its entries."""
    if isinstance(module, Recurrent | Bidirectional | Stacked):
        for suffix, cell in _cells(module):
            yield prefix, cell, suffix
    elif type(module) in (Linear, Embedding, LayerNorm):
        yield prefix, module, ""
    elif isinstance(module, Cell | Wrapper | Reversed):
        if getattr(module, "proj_size", 0):
            raise TypeError(
                "PyTorch has no LSTMCell with a proj_size, only the layer: convert nn.LSTM(…, "
                "proj_size=…)."
            )
        yield prefix, _cell(module), ""
    else:
        if any(isinstance(part, Tensor) for _, part in module._own()):
            raise _no_counterpart(module)
        for name, child in module._children():
            yield from _parts(child, f"{prefix}{name}.")


def _cells(layer: Recurrent | Bidirectional | Stacked) -> Iterator[tuple[str, Module]]:
    """The cells of what is a torch.nn.RNN, GRU or LSTM, each with the suffix of its entries."""
    layers = layer.layers if isinstance(layer, Stacked) else [layer]
    rows = [
        [one.forward_layer, one.backward_layer] if isinstance(one, Bidirectional) else [one]
        for one in layers
    ]
    found = []
    for i, row in enumerate(rows):
        for one, suffix in zip(row, ("", "_reverse"), strict=False):
            if not isinstance(one, Recurrent) or one.reverse != (suffix == "_reverse"):
                raise TypeError(
                    f"PyTorch has no counterpart of this {type(layer).__name__}: it stacks layers "
                    "that go forward, or in both directions, over one cell each. Convert the cells "
                    "one by one."
                )
            found.append((f"_l{i}{suffix}", _cell(one.cell)))
    kinds = {_options(cell) for _, cell in found}
    if len(kinds) > 1 or len({len(row) for row in rows}) > 1:
        raise TypeError(
            f"PyTorch has no counterpart of this {type(layer).__name__}: there all layers have the "
            "same cell, size and directions, here they are "
            f"{', '.join(sorted(map(str, kinds)))} in layers of "
            f"{', '.join(str(len(row)) for row in rows)} directions. Convert them one by one."
        )
    yield from found


def _options(cell: Module) -> tuple[Any, ...]:
    relu = getattr(cell, "nonlinearity", "")
    biased = [] if cell.b is not None else ["bias=False"]  # type: ignore[attr-defined]
    projected = [f"proj_size={P}"] if (P := getattr(cell, "proj_size", 0)) else []
    sizes = type(cell).__name__, cell.hidden_size  # type: ignore[attr-defined]
    return *sizes, *([relu] if relu else []), *biased, *projected


def _cell(module: Module) -> Module:
    """``module`` itself when it is a cell that PyTorch has, too."""
    if type(module) not in _GATES:
        raise _no_counterpart(module)
    if isinstance(module, GRUCell) and module.variant != "reset_after":
        raise TypeError(
            f"PyTorch has no GRU of variant {module.variant!r}. Use variant='reset_after'."
        )
    if isinstance(module, RNNCell) and module.nonlinearity not in ("tanh", "relu"):
        raise TypeError(
            f"PyTorch has no RNN with nonlinearity={module.nonlinearity!r}. It has 'tanh', 'relu'."
        )
    if (clip := getattr(module, "clip", None)) is not None:
        raise TypeError(
            f"PyTorch has no {type(module).__name__} that clips, and this one has clip={clip:g}. "
            "Set its clip to None first: what it computes then changes."
        )
    return module


def _no_counterpart(module: Module) -> TypeError:
    return TypeError(
        f"PyTorch has no counterpart of {type(module).__name__}. RNN, GRU (reset after), LSTM, "
        "Linear, Embedding and LayerNorm can be converted, and modules made of these; save the "
        "rest with state_dict()."
    )


# -- reading ---------------------------------------------------------------------------------------


def _read(state_dict: Mapping[str, Any] | str | os.PathLike[str], prefix: str) -> Arrays:
    """The entries that start with the prefix, without it, in float64."""
    if isinstance(state_dict, str | os.PathLike):
        path = Path(state_dict)
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            entries = dict(safetensors.deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"{path} is not a safetensors file ({error}). In PyTorch, save it with "
                "safetensors.torch.save_file(module.state_dict(), path)."
            ) from error
    else:
        entries = dict(state_dict)
    return {
        name.removeprefix(prefix): _as_array(name, value)
        for name, value in entries.items()
        if name.startswith(prefix)
    }


def _as_array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value._data
    elif isinstance(value, dict):  # an entry of a safetensors file
        try:
            value = _decoded(**value)
        except (OverflowError, ValueError) as error:  # 0 elements, but too many by other axes
            raise ValueError(f"{name} has a shape that no array can have: {error}") from error
    elif hasattr(value, "detach") and value.is_floating_point():  # torch's, bfloat16 among them
        value = value.detach().cpu().double()
    array = plain_array(value)
    if array.dtype.kind != "f":
        raise errors.DtypeError(
            f"state_dict: {name} does not hold floats, as parameters do. Is it an entry of "
            "another module? prefix= picks those of one."
        )
    return array.astype(np.float64)


def _decoded(dtype: str, data: bytes, shape: list[int]) -> np.ndarray:
    if dtype == "BF16":  # NumPy has none: it is the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    floats = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
    return np.frombuffer(data, floats.get(dtype, "V1")).reshape(shape if dtype in floats else -1)
