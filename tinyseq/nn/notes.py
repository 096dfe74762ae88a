"""The notation of the lecture notes, and what each of its symbols is here.

The notes write columns, W x; this library rows, x w, one a sequence: their matrices are the
transposes of ours. `weights` gives them as the notes have them, and `load` takes them back. The
same map with an example: docs/notation.md.

==========================  ======================================================================
the notes                   here
==========================  ======================================================================
x⟨t⟩, x^{(i)⟨t⟩}            ``x[t − 1, i]``, a row of x (T, B, D)
T_x, T_y                    T, ``len(x)`` and ``len(y)``; T_x^{(i)}: ``lengths[i]``
a⟨t⟩                        ``state[0]`` of a cell, called h; ``y[t − 1]`` of a layer
a⟨0⟩ = 0                    ``initial_state(B)``, where no state is given
W_ax, W_aa                  ``w_x.T`` (H, D), ``w_h.T`` (H, H) of `RNNCell`
b_a                         ``b`` (H)
W_a = [W_aa | W_ax]         ``np.hstack``: W_a [a⟨t−1⟩, x⟨t⟩] = W_aa a⟨t−1⟩ + W_ax x⟨t⟩
g₁                          ``nonlinearity``: tanh, relu and others
ŷ⟨t⟩ = g₂(W_ya a⟨t⟩ + b_y)  `Linear`: W_ya, also W_y, is ``weight.T`` (V, H), b_y ``bias`` (V); g₂
                            is `functional.softmax` or `sigmoid`, which the losses contain
Γ_u, Γ_r, Γ_f, Γ_o          the gates ``update``, ``reset`` (relevance), ``forget``, ``output``
c̃⟨t⟩                        ``candidate``
c⟨t⟩                        of a GRU h, which is a⟨t⟩; of an LSTM ``state[1]``
W_u, W_r, W_f, W_o, W_c     (H, H + D), for [a⟨t−1⟩, x⟨t⟩]: one gate's columns of ``w_h`` above
                            those of ``w_x``, transposed; b_u, …, b_c: its part of ``b``
peepholes                   p_u, p_f, p_o: Γ = σ(W [a⟨t−1⟩, x⟨t⟩] + p * c⟨t−1⟩ + b)
→a⟨t⟩, ←a⟨t⟩                of `Bidirectional`: y = [→a, ←a], of its forward and backward layer
a^{[l]⟨t⟩}                  the output of ``layers[l − 1]`` of `Stacked`
==========================  ======================================================================

The notes' full GRU is ``GRUCell(D, H, variant="reset_before")``, their peephole LSTM
``PeepholeLSTMCell(D, H, output_sees="previous")``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tinyseq import errors, states
from tinyseq.arguments import checked
from tinyseq.nn.cells import GRUCell, LSTMCell, PeepholeLSTMCell, RNNCell
from tinyseq.nn.layers import Linear
from tinyseq.nn.module import Module
from tinyseq.tensor import Tensor, plain_array


@checked
def weights(part: Module) -> dict[str, np.ndarray]:
    """Copies of the parameters of a cell as the notes' matrices and columns, by the notes' names.

    `RNNCell`: W_aa (H, H), W_ax (H, D), b_a (H, 1). `GRUCell` and `LSTMCell`, for each gate and the
    candidate: W_u (H, H + D), b_u (H, 1), …; `PeepholeLSTMCell` p_u, p_f, p_o (H, 1), too.
    `Linear`: W_ya (V, H), b_y (V, 1). Without a bias, there is no b.

    Raises `TypeError` for what the notes do not have, such as a GRU that resets after the product.
    """
    ours = part.state_dict()
    return {
        name: np.concatenate([np.atleast_2d(ours[n])[:, columns] for n, columns in places]).T.copy()
        for name, places in _places(part, ours).items()
    }


@checked
def load(part: Module, weights: Mapping[str, npt.ArrayLike | Tensor]) -> None:
    """Take over the notes' matrices, as `weights` gives them: from then on, ``part`` computes with
    them.

    Raises `ValueError` that lists missing, unknown and misshapen entries, and those that the dtype
    of the parameters cannot hold; nothing is changed then. Raises `TypeError` as `weights` does.
    """
    ours = part.state_dict()
    places = _places(part, ours)
    expected = _weights(part)
    given = {n: a._data if isinstance(a, Tensor) else plain_array(a) for n, a in weights.items()}
    if wrong := errors.misfits(expected, given):
        raise ValueError(
            f"these weights do not fit {type(part).__name__}: {'; '.join(wrong)}. Give them the "
            "names and shapes that nn.notes.weights gives."
        )
    ours = {n: a.astype(np.result_type(a, *given.values())) for n, a in ours.items()}
    for name, parts in places.items():
        rows = given[name].T
        for n, columns in parts:
            whole = np.atleast_2d(ours[n])
            whole[:, columns], rows = rows[: len(whole)], rows[len(whole) :]
    states.write(part._restored(ours))


_weights = weights  # `load` has an argument of that name


def _places(part: Module, ours: Mapping[str, np.ndarray]) -> dict[str, list[tuple[str, slice]]]:
    """By the notes' names, the parameters of ours that stand on top of each other in the transpose,
    and which columns of them.
    """
    every = slice(None)
    if (clip := getattr(part, "clip", None)) is not None:
        raise TypeError(
            f"the notes have no {type(part).__name__} that clips, and this one has clip={clip:g}. "
            "Set its clip to None first: what it computes then changes."
        )
    if type(part) is Linear:
        places = {"W_ya": [("weight", every)], "b_y": [("bias", every)]}
    elif type(part) is RNNCell:
        places = {"W_aa": [("w_h", every)], "W_ax": [("w_x", every)], "b_a": [("b", every)]}
    else:
        places = {name: [(name, every)] for name in ("p_u", "p_f", "p_o")}
        for i, gate in enumerate(_gates(part)):
            columns = slice(i * part.hidden_size, (i + 1) * part.hidden_size)  # type: ignore[attr-defined]
            places |= {f"W_{gate}": [("w_h", columns), ("w_x", columns)]}
            places |= {f"b_{gate}": [("b", columns)]}
    return {name: parts for name, parts in places.items() if parts[0][0] in ours}


def _gates(part: Module) -> str:
    """The gates and the candidate, in the order in which they lie in our parameters."""
    if type(part) is GRUCell and part.variant != "reset_after":
        return "urc" if part.variant == "reset_before" else "uc"
    what = type(part).__name__
    if type(part) in (LSTMCell, PeepholeLSTMCell):
        if not part.proj_size:  # type: ignore[attr-defined]
            return "ufoc"
        what = f"{what} with proj_size"
    if type(part) is GRUCell:
        what = "GRUCell with variant='reset_after'"
    raise TypeError(
        f"the notes have no {what}. They have RNNCell, GRUCell with variant='reset_before' or "
        "'simplified', LSTMCell, PeepholeLSTMCell and Linear; of a layer, give the cell: "
        "layer.layers[0].cell."
    )
