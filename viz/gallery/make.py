"""Draws the pictures of this folder anew: ``python viz/gallery/make.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tinyseq.viz import Picture, draw, draw_unrolled  # type: ignore[import-not-found]

import tinyseq as ts
from tinyseq import nn


class LanguageModel(nn.Module):
    """Tokens (T, B) → scores (T, B, V)."""

    def __init__(self, V: int, D: int, H: int) -> None:
        self.embedding = nn.Embedding(V, D)
        self.lstm = nn.LSTM(D, H, num_layers=2, dropout=0.2)
        self.head = nn.Linear(H, V)

    def forward(self, tokens: ts.Tensor) -> tuple[ts.Tensor, object]:
        y, state = self.lstm(self.embedding(tokens))
        return self.head(y), state


def expression() -> ts.Tensor:
    """One neuron and its loss: a graph small enough to be followed by hand."""
    x, w, b = (
        ts.tensor(value, requires_grad=True, name=name)
        for name, value in (("x", 2.0), ("w", -3.0), ("b", 6.9))
    )
    y = ts.tanh(x * w + b)
    loss = (y - 1) ** 2
    loss.backward(retain_graph=True)
    return loss


def pictures() -> dict[str, Picture]:
    """Every picture of the gallery by its file name."""
    tokens = np.array([[0], [1], [2]])
    return {
        "rnn": draw_unrolled(nn.RNN(3, 4)),
        "lstm": draw_unrolled(nn.LSTM(3, 4, num_layers=2)),
        "bidirectional": draw_unrolled(nn.GRU(3, 4, bidirectional=True)),
        "language_model": draw_unrolled(LanguageModel(65, 3, 4), x=tokens),
        "gru_ops": draw_unrolled(nn.GRU(3, 4, variant="reset_before"), 2, level="op"),
        "lstm_ops": draw_unrolled(nn.LSTM(3, 4), 2, level="op"),
        "expression": draw(expression()),
    }


if __name__ == "__main__":
    here = Path(__file__).parent
    for name, picture in pictures().items():
        picture.save(here / f"{name}.svg")
