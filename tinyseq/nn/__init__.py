"""Modules: layers, recurrent cells, and the combinators that run them over time and stack them."""

from tinyseq.nn import init, interop, onnx
from tinyseq.nn.attention import AdditiveAttention, Attention, DotAttention
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
from tinyseq.nn.reservoir import EchoCell, EchoState
from tinyseq.nn.seq2seq import Bridge, EncoderDecoder, Hypothesis
from tinyseq.nn.training import detach, evaluation, tbptt
from tinyseq.nn.wrappers import LearnedState, VariationalDropout, Wrapper, Zoneout
from tinyseq.recompute import checkpoint

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdditiveAttention",
    "Attention",
    "Bidirectional",
    "Bridge",
    "Cell",
    "DotAttention",
    "Dropout",
    "EchoCell",
    "EchoState",
    "Embedding",
    "EncoderDecoder",
    "GRUCell",
    "Hypothesis",
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
    "checkpoint",
    "detach",
    "evaluation",
    "init",
    "interop",
    "onnx",
    "tbptt",
    "unroll",
]
