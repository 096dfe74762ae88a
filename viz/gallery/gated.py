"""Gated cells, with their gates, and what they are for."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyseq import functional, nn, viz

from .figures import figure

gates = {
    "h": "a", "y": "a", "update": "Γ_u", "forget": "Γ_f", "output": "Γ_o", "candidate": "c̃",
}  # fmt: skip
SECTION = "Gated cells"


@figure(SECTION, "The GRU, simplified")
def gru_simplified() -> Any:
    """c⟨t⟩ = Γ_u·c̃⟨t⟩ + (1 − Γ_u)·c⟨t−1⟩: the update gate chooses between the candidate and what
    was there. Where it is shut, the state passes as it is.
    """
    cell = nn.GRUCell(3, 4, variant="simplified")
    names = {"h": "c", "y": "a", "update": "Γ_u", "candidate": "c̃"}
    return viz.draw_unrolled(cell, steps=1, level="op", names=names)


@figure(SECTION, "The full GRU")
def gru() -> Any:
    """A relevance gate Γ_r besides: how much of the state the candidate looks at."""
    cell = nn.GRUCell(3, 4, variant="reset_before")
    names = {"h": "c", "y": "a", "update": "Γ_u", "reset": "Γ_r", "candidate": "c̃"}
    return viz.draw_unrolled(cell, steps=1, level="op", names=names)


@figure(SECTION, "The LSTM's cell")
def lstm_cell() -> Any:
    """Three gates and two states: c⟨t⟩ = Γ_u·c̃⟨t⟩ + Γ_f·c⟨t−1⟩ is kept, a⟨t⟩ = Γ_o·tanh(c⟨t⟩) is
    let out.
    """
    return viz.draw_unrolled(nn.LSTMCell(3, 4), steps=1, level="op", names=gates)


@figure(SECTION, "The LSTM over time, operation by operation")
def lstm_ops() -> Any:
    """The conveyor belt: c runs along all steps, and nothing but a gate stands in its way."""
    return viz.draw_unrolled(nn.LSTM(3, 4), steps=2, level="op", names=gates)


@figure(SECTION, "Gates at work")
def gates_at_work() -> Any:
    """An LSTM of one unit, with weights written by hand, that keeps which of a and b came last: at
    either the update gate Γ_u opens and the forget gate Γ_f shuts, and c holds what it was told.
    """
    cell = nn.LSTMCell(3, 1)
    cell.w_h.data = np.zeros((1, 4))
    cell.w_x.data = [  # update, forget, output, candidate
        [8, -8, 0, 3],  # a
        [8, -8, 0, -3],  # b
        [0, 0, 0, 0],  # anything else
    ]
    cell.b = nn.Parameter([-4.0, 4.0, 4.0, 0.0])
    letters = "··a·····b···a··a···b··"
    x = functional.one_hot(["ab·".index(letter) for letter in letters], 3)
    recorded = viz.record(nn.Recurrent(cell), x.numpy()[:, None])  # (T, B, D)
    shown = {"update": "Γ_u", "forget": "Γ_f", "candidate": "c̃", "c": "c"}
    return viz.heatmap(recorded, shown, symbols=letters, title="a memory of one bit")


@figure(SECTION, "LSTM cells in a row, on two layers")
def lstm() -> Any:
    """c and h, which the notes call a, go on from step to step, h also to the layer above."""
    return viz.draw_unrolled(nn.LSTM(3, 4, num_layers=2), steps=3)


@figure(SECTION, "Peepholes")
def peephole() -> Any:
    """The gates also see the memory c⟨t−1⟩, element by element."""
    cell = nn.PeepholeLSTMCell(3, 4, output_sees="previous")
    return viz.draw_unrolled(cell, steps=1, level="op", names=gates)


@figure(SECTION, "An echo state network")
def echo_state() -> Any:
    """The recurrence is drawn once and not trained; only the read-out of its echoes is."""
    return viz.draw_unrolled(nn.EchoState(1, 20, 1), steps=3)
