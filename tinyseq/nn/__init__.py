"""Modules: layers, recurrent cells, and the combinators that run them over time and stack them."""

from tinyseq.nn import init, interop, onnx
from tinyseq.nn.cells import (
    Cell,
    GRUCell,
    LayerNormGRUCell,
    LayerNormLSTMCell,
    LSTMCell,
    PeepholeLSTMCell,
    RNNCell,
)
from tinyseq.nn.layers import Dropout, Embedding, LayerNorm, Linear
from tinyseq.nn.module import Module, Parameter
from tinyseq.nn.recurrent import GRU, LSTM, RNN, Bidirectional, Recurrent, Reversed, Stacked, unroll
from tinyseq.nn.wrappers import LearnedState, VariationalDropout, Wrapper, Zoneout

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "Cell",
    "Dropout",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "LayerNorm",
    "LayerNormGRUCell",
    "LayerNormLSTMCell",
    "LearnedState",
    "Linear",
    "Module",
    "Parameter",
    "PeepholeLSTMCell",
    "RNNCell",
    "Recurrent",
    "Reversed",
    "Stacked",
    "VariationalDropout",
    "Wrapper",
    "Zoneout",
    "init",
    "interop",
    "onnx",
    "unroll",
]
