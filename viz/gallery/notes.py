"""Every figure of the lecture notes, and where the gallery has it."""

from __future__ import annotations

NOTES: dict[str, tuple[str, ...]] = {
    "Words as one-hot vectors": ("one_hot",),
    "RNN architecture, unrolled, with W_ax, W_aa and W_ya": ("unrolled", "rolled", "rnn_cell"),
    "Simplified RNN notation: W_a and [a, x]": ("stacked_weights",),
    "Forward propagation and the loss of each step": ("forward_pass",),
    "Back-propagation through time": ("backward_pass",),
    "RNN types: one to one": ("one_to_one",),
    "RNN types: one to many, music generation": ("one_to_many",),
    "RNN types: many to one, sentiment analysis": ("many_to_one",),
    "RNN types: many to many of equal length, named entities": ("many_to_many",),
    "RNN types: many to many of different length, machine translation": ("encoder_decoder",),
    "Encoder and decoder": ("encoder_decoder",),
    "RNN language model in training": ("training",),
    "Sampling novel sequences": ("sampling",),
    "Character-level language model": ("words_or_characters",),
    "Vanishing and exploding gradients": ("vanishing",),
    "GRU unit, simplified": ("gru_simplified",),
    "Full GRU unit": ("gru",),
    "Gates that open and shut": ("gates_at_work",),
    "LSTM unit, and several of them in a row": ("lstm_cell", "lstm", "lstm_ops"),
    "Peephole connections": ("peephole",),
    "Bidirectional RNN": ("bidirectional",),
    "Deep RNN": ("deep", "deep_dense"),
    "Deep bidirectional RNN": ("deep_bidirectional",),
    "Echo state networks": ("echo_state",),
}
