"""Modules: layers, recurrent cells, and the combinators that run them over time and stack them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinyseq.nn import cells, init, layers, recurrent, training
from tinyseq.nn.cells import *
from tinyseq.nn.layers import *
from tinyseq.nn.module import Module, Parameter
from tinyseq.nn.recurrent import *
from tinyseq.nn.training import *
from tinyseq.nn.unroll import unroll

if TYPE_CHECKING:
    from tinyseq.nn import interop, notes, onnx
    from tinyseq.nn.attention import AdditiveAttention, Attention, DotAttention
    from tinyseq.nn.beam import Hypothesis
    from tinyseq.nn.recompute import checkpoint
    from tinyseq.nn.reservoir import EchoCell, EchoState
    from tinyseq.nn.seq2seq import Bridge, EncoderDecoder
    from tinyseq.nn.training_step import TrainingStep
    from tinyseq.nn.wrappers import LearnedState, VariationalDropout, Wrapper, Zoneout

# What few programs need is imported when it is first asked for: `import tinyseq` stays quick.
_LATER = {
    "attention": ("AdditiveAttention", "Attention", "DotAttention"),
    "beam": ("Hypothesis",),
    "recompute": ("checkpoint",),
    "reservoir": ("EchoCell", "EchoState"),
    "seq2seq": ("Bridge", "EncoderDecoder"),
    "training_step": ("TrainingStep",),
    "wrappers": ("LearnedState", "VariationalDropout", "Wrapper", "Zoneout"),
}


def __getattr__(name: str) -> Any:
    if name in ("attention", "interop", "notes", "onnx", "reservoir", "seq2seq"):
        return importlib.import_module(f"tinyseq.nn.{name}")
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"tinyseq.nn.{module}"), name)
    raise AttributeError(f"module 'tinyseq.nn' has no attribute {name!r}")


__all__ = [
    "AdditiveAttention", "Attention", "Bridge", "DotAttention", "EchoCell", "EchoState",
    "EncoderDecoder", "Hypothesis", "LearnedState", "Module", "Parameter", "TrainingStep",
    "VariationalDropout", "Wrapper", "Zoneout", "checkpoint", "init", "interop", "notes", "onnx",
    "unroll",
]  # fmt: skip
__all__ += [*cells.__all__, *layers.__all__, *recurrent.__all__, *training.__all__]
