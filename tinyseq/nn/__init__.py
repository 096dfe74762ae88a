"""Modules: layers, recurrent cells, and the combinators that run them over time and stack them."""

from tinyseq.nn import init
from tinyseq.nn.attention import AdditiveAttention, Attention, DotAttention
from tinyseq.nn.cells import Cell, GRUCell, LSTMCell, RNNCell
from tinyseq.nn.layers import Dropout, Embedding, Linear
from tinyseq.nn.module import Module, Parameter
from tinyseq.nn.recurrent import GRU, LSTM, RNN, Bidirectional, Recurrent, Reversed, Stacked, unroll
from tinyseq.nn.reservoir import EchoCell, EchoState
from tinyseq.nn.seq2seq import Bridge, EncoderDecoder, Hypothesis
from tinyseq.nn.training import detach, evaluation, tbptt

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
    "Linear",
    "Module",
    "Parameter",
    "RNNCell",
    "Recurrent",
    "Reversed",
    "Stacked",
    "detach",
    "evaluation",
    "init",
    "tbptt",
    "unroll",
]
