"""What every peer computes: the sizes, the cells, the weights, and the work in it.

A character model, embedding (V, H) → recurrent layers → head (H, V) → cross-entropy, trained with
clipping and Adam. Parameters go by one set of names and layouts, tinyseq's: ``embedding``,
``0.w_x``, ``0.w_h``, …, ``head.weight``, ``head.bias``; gates lie side by side in the order of
`tinyseq.nn.cells`. NumPy is imported inside: thread pools are sized when it is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

V = 65
CLIP = 5.0
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8
LN_EPS = 1e-5
TEMPERATURE = 0.8
CHARACTERS = 1000  # a call of a generation
SGEMM = 2048  # n of the n×n products that the machine is measured by


class Point(NamedTuple):
    cell: str
    H: int
    layers: int
    T: int
    B: int

    def __str__(self) -> str:
        return f"{self.cell} H={self.H} layers={self.layers} B={self.B} T={self.T}"


GRID = [(64, 1, 1, 32), (128, 1, 32, 64), (128, 2, 50, 50), (256, 2, 64, 64), (512, 2, 64, 64)]
CUSTOM_GRID = [(128, 1, 32, 64), (256, 2, 64, 64)]  # H, layers, B, T
CELLS = {"rnn": "RNN", "gru": "GRU, reset after", "lstm": "LSTM"}
CUSTOM_CELLS = {
    "gru_before": "GRU, reset before",
    "peephole": "LSTM, peephole",
    "layernorm": "LSTM, layer-normed",
    "own": "user's own (MGU that decays)",
}
GATES = {"rnn": 1, "gru": 3, "lstm": 4, "gru_before": 3, "peephole": 4, "layernorm": 4, "own": 2}
FURTHER = {  # parameters beside w_x, w_h and b: their widths in H
    "gru": {"b_h": 1},
    "peephole": {"p_u": 1, "p_f": 1, "p_o": 1},
    "layernorm": {"norm_x.weight": 4, "norm_h.weight": 4, "norm_c.weight": 1, "norm_c.bias": 1},
    "own": {"decay": 1},
}


def weights(point: Point) -> dict[str, np.ndarray]:
    """float32 parameters, the same for every peer; none is zero, so that a check sees them all."""
    import numpy as np

    rng = np.random.default_rng(0)
    H, k = point.H, GATES[point.cell]

    def normal(scale: float, *shape: int) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    found = {"embedding": normal(1, V, H)}
    for i in range(point.layers):
        found[f"{i}.w_x"] = normal(H**-0.5, H, k * H)
        found[f"{i}.w_h"] = normal(H**-0.5, H, k * H)
        found[f"{i}.b"] = normal(0.1, k * H)
        for name, width in FURTHER.get(point.cell, {}).items():
            found[f"{i}.{name}"] = normal(0.1, width * H)
            if name.endswith("weight"):
                found[f"{i}.{name}"] += 1
    return found | {"head.weight": normal(H**-0.5, H, V), "head.bias": normal(0.1, V)}


def layer(parameters: dict, i: int) -> dict:
    """The parameters of layer i, without its number in the names."""
    prefix = f"{i}."
    return {n[len(prefix) :]: p for n, p in parameters.items() if n.startswith(prefix)}


def draw(rng: np.random.Generator, point: Point) -> tuple[np.ndarray, np.ndarray]:
    """Fresh inputs and targets, whole numbers (T, B)."""
    inputs, targets = rng.integers(0, V, (2, point.T, point.B), dtype="int32")
    return inputs, targets


def flops(point: Point) -> float:
    """Of the matrix products in one training step: forward, and twice that backward."""
    per_symbol = point.layers * 2 * point.H * GATES[point.cell] * point.H + point.H * V
    return 3.0 * 2.0 * point.T * point.B * per_symbol
