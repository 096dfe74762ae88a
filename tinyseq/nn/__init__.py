"""Modules: layers, recurrent cells, and the combinators that run them over time and stack them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinyseq.nn import init
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
from tinyseq.nn.recompute import checkpoint
from tinyseq.nn.recurrent import GRU, LSTM, RNN, Bidirectional, Recurrent, Reversed, Stacked
from tinyseq.nn.training import detach, evaluation, tbptt
from tinyseq.nn.unroll import unroll
from tinyseq.nn.wrappers import LearnedState, VariationalDropout, Wrapper, Zoneout

if TYPE_CHECKING:
    from tinyseq.nn import interop, onnx
    from tinyseq.nn.attention import AdditiveAttention, Attention, DotAttention
    from tinyseq.nn.beam import Hypothesis
    from tinyseq.nn.reservoir import EchoCell, EchoState
    from tinyseq.nn.seq2seq import Bridge, EncoderDecoder
    from tinyseq.nn.training_step import TrainingStep

# What few programs need is imported when it is first asked for: `import tinyseq` stays quick.
_LATER = {
    "AdditiveAttention": "attention",
    "Attention": "attention",
    "DotAttention": "attention",
    "Bridge": "seq2seq",
    "EncoderDecoder": "seq2seq",
    "Hypothesis": "beam",
    "EchoCell": "reservoir",
    "EchoState": "reservoir",
    "TrainingStep": "training_step",
}


def __getattr__(name: str) -> Any:
    if name in ("attention", "interop", "onnx", "reservoir", "seq2seq"):
        return importlib.import_module(f"tinyseq.nn.{name}")
    if name in _LATER:
        return getattr(importlib.import_module(f"tinyseq.nn.{_LATER[name]}"), name)
    raise AttributeError(f"module 'tinyseq.nn' has no attribute {name!r}")


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
    "TrainingStep",
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
