"""Right calls of modules: ``nn.Linear`` is the constructor, ``nn.Linear()`` the call."""

from pathlib import Path

import numpy as np

import tinyseq as ts
from calls.training import Alone
from tinyseq import functional, nested, nn, optim
from tinyseq.nn.reservoir import EchoCell, EchoState

T, B, D, H, V = 2, 3, 2, 2, 5
SIZES = {"input_size": D, "hidden_size": H}
INITS = (nn.init.he_normal, nn.init.orthogonal)
OPTIONS = {"bias": True, "init": INITS, "rng": None, "clip": 0.7}
ECHO = {"spectral_radius": 0.9, "leak": 0.5, "sparsity": 0.0, "input_scaling": 1.0}
ECHO |= {"bias_scaling": 0.5}
WEIGHT = {"shape": (D, H), "rng": None}


def tensor(*shape):
    return ts.tensor(np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape))


def row():
    return tensor(B, D)


def steps():
    return tensor(T, B, D)


def symbols():
    return np.arange(T * B).reshape(T, B) % V


def rng():
    return np.random.default_rng(0)


def lstm(num_layers=1, **options):
    return nn.LSTM(D, H, num_layers, mode="unroll", **options)


def states(count):
    return tuple(tensor(B, H) for _ in range(count))


def echo():
    return EchoState(D, H, D, sparsity=0.0)


def translator(attention="additive"):
    decoder = nn.GRU(2 * D if attention == "additive" else D, H, mode="unroll")
    encoder = nn.GRU(D, H, mode="unroll")
    return nn.EncoderDecoder(encoder, decoder, V, V, bos=0, eos=1, attention=attention)


SOURCE = {"source": symbols(), "source_lengths": [1, 2, 2]}
TARGET = {"target": symbols(), "teacher_forcing": 0.5, "rng": None}
READ = {"memory": tensor(3, B, D), "mask": np.ones((3, B), bool), "keys": None}


def loss(x, y):
    return functional.mse_loss(x * 2, y)


def training_step():
    return {"loss": loss, "optimizer": optim.SGD(nn.Linear(2, 2).parameters(), 0.1)}


def evaluate(model):
    with nn.evaluation(model):
        pass


def stacked(layers, **options):
    return nn.Stacked(layers, **options)


def chunks(layer, stream, k, state):
    return list(nn.tbptt(layer, stream, k, state))


def doubled(state):
    return nested.mapped(lambda s: s * 2, state)


def checkpointed(fn, inputs):
    return nn.checkpoint(fn, inputs)


def cell(make, count=1, **more):
    """A step of a cell."""
    return lambda: (make(), {"x": row(), "state": states(count), **more})


def layer(make, state, **more):
    """A layer over a sequence."""
    return lambda: (make(), {"x": steps(), "state": state, "lengths": [1, 2, 2], **more})


CALLS = {
    "nn.Linear": lambda: (
        nn.Linear,
        {"in_features": 4, "out_features": 2, "bias": True, "rng": None},
    ),
    "nn.Linear()": lambda: (nn.Linear(D, 2), {"x": steps()}),
    "nn.Embedding": lambda: (
        nn.Embedding,
        {"num_embeddings": 4, "embedding_dim": 2, "rng": None, "padding_idx": 1},
    ),
    "nn.Embedding()": lambda: (nn.Embedding(V, 2), {"indices": symbols(), "zeros": False}),
    "nn.LayerNorm": lambda: (nn.LayerNorm, {"features": 4, "eps": 1e-5, "bias": True}),
    "nn.LayerNorm()": lambda: (nn.LayerNorm(D), {"x": steps()}),
    "nn.Dropout": lambda: (nn.Dropout, {"p": 0.5, "rng": rng()}),
    "nn.Dropout()": lambda: (nn.Dropout(0.5), {"x": steps()}),
    "nn.Cell": lambda: (nn.Cell, SIZES),
    "nn.Cell.initial_state": lambda: (
        nn.RNNCell(D, H).initial_state,
        {"batch_size": 2, "dtype": np.float64},
    ),
    "nn.RNNCell": lambda: (nn.RNNCell, {**SIZES, "nonlinearity": "relu", **OPTIONS}),
    "nn.RNNCell()": cell(lambda: nn.RNNCell(D, H)),
    "nn.GRUCell": lambda: (
        nn.GRUCell,
        {**SIZES, "variant": "simplified", "update_bias": -1.0, **OPTIONS},
    ),
    "nn.GRUCell()": cell(lambda: nn.GRUCell(D, H), seen=tensor(B, H)),
    "nn.LSTMCell": lambda: (nn.LSTMCell, {**SIZES, "forget_bias": 1.0, "proj_size": 1, **OPTIONS}),
    "nn.LSTMCell()": cell(lambda: nn.LSTMCell(D, H), 2),
    "nn.CoupledLSTMCell": lambda: (
        nn.CoupledLSTMCell,
        {**SIZES, "forget_bias": 1.0, "proj_size": 1, **OPTIONS},
    ),
    "nn.CoupledLSTMCell()": cell(lambda: nn.CoupledLSTMCell(D, H, clip=0.7), 2),
    "nn.PeepholeLSTMCell": lambda: (
        nn.PeepholeLSTMCell,
        {**SIZES, "output_sees": "new", "forget_bias": 1.0, "proj_size": 1, **OPTIONS},
    ),
    "nn.PeepholeLSTMCell()": cell(lambda: nn.PeepholeLSTMCell(D, H), 2),
    "nn.LayerNormLSTMCell": lambda: (
        nn.LayerNormLSTMCell,
        {**SIZES, "forget_bias": 1.0, "proj_size": 1, **OPTIONS},
    ),
    "nn.LayerNormLSTMCell()": cell(lambda: nn.LayerNormLSTMCell(D, H), 2),
    "nn.LayerNormGRUCell": lambda: (
        nn.LayerNormGRUCell,
        {**SIZES, "update_bias": -1.0, **OPTIONS},
    ),
    "nn.LayerNormGRUCell()": cell(lambda: nn.LayerNormGRUCell(D, H)),
}

LAYERS = {"num_layers": 1, "bidirectional": True, "dropout": 0.0, "batch_first": False}
LAYERS |= {**SIZES, "mode": "unroll", **OPTIONS}
CALLS |= {
    "nn.RNN": lambda: (nn.RNN, {**LAYERS, "nonlinearity": "tanh"}),
    "nn.GRU": lambda: (
        nn.GRU,
        {**LAYERS, "variant": "reset_after", "update_bias": 0.0, "layer_norm": False},
    ),
    "nn.LSTM": lambda: (
        nn.LSTM,
        {**LAYERS, "forget_bias": 1.0, "peephole": None, "layer_norm": False, "proj_size": 1}
        | {"coupled": False},
    ),
    "nn.Recurrent": lambda: (
        nn.Recurrent,
        {"cell": nn.RNNCell(D, H), "reverse": False, "mode": "auto"},
    ),
    "nn.Recurrent()": layer(lambda: nn.Recurrent(nn.LSTMCell(D, H), mode="unroll"), states(2)),
    "nn.Recurrent.program": lambda: (nn.Recurrent(nn.RNNCell(D, H)).program, {"dtype": np.float32}),
    "nn.Recurrent.source": lambda: (nn.Recurrent(nn.RNNCell(D, H)).source, {"dtype": np.float32}),
    "nn.Bidirectional": lambda: (
        nn.Bidirectional,
        {"forward_layer": nn.RNNCell(D, H), "backward_layer": nn.GRU(D, H)},
    ),
    "nn.Bidirectional()": layer(
        lambda: nn.Bidirectional(nn.RNNCell(D, H), nn.RNNCell(D, H)), (states(1), states(1))
    ),
    "nn.Reversed": lambda: (nn.Reversed, {"layer": lstm()}),
    "nn.Reversed()": layer(lambda: nn.Reversed(lstm()), (states(2),)),
    "nn.Stacked": lambda: (
        stacked,
        {"layers": nn.RNNCell(D, H), "dropout": 0.5, "batch_first": False, "rng": None},
    ),
    "nn.Stacked()": layer(lambda: lstm(2, dropout=0.5), (states(2), states(2))),
    "nn.Wrapper": lambda: (nn.Wrapper, {"cell": nn.RNNCell(D, H)}),
    "nn.Wrapper()": cell(lambda: nn.Wrapper(nn.LSTMCell(D, H)), 2, noise=None, seen=tensor(B, H)),
    "nn.LearnedState": lambda: (
        nn.LearnedState,
        {"cell": nn.LSTMCell(D, H), "state": [np.zeros(H), np.ones(H)]},
    ),
    "nn.LearnedState.initial_state": lambda: (
        nn.LearnedState(nn.LSTMCell(D, H)).initial_state,
        {"batch_size": 2, "dtype": np.float64},
    ),
    "nn.VariationalDropout": lambda: (
        nn.VariationalDropout,
        {"cell": nn.GRUCell(D, H), "p_x": 0.1, "p_h": 0.2, "rng": None},
    ),
    "nn.VariationalDropout()": cell(lambda: nn.VariationalDropout(nn.GRUCell(D, H))),
    "nn.Zoneout": lambda: (nn.Zoneout, {"cell": nn.LSTMCell(D, H), "p": (0.1, 0.2), "rng": None}),
    "nn.Zoneout()": cell(lambda: nn.Zoneout(nn.LSTMCell(D, H), (0.1, 0.2)), 2),
    "nn.unroll": lambda: (
        nn.unroll,
        {"cell": nn.RNNCell(D, H), "x": steps(), "state": states(1), "reverse": True}
        | {"running": ts.tensor(np.ones((T, B, 1), bool)), "noise": None, "first": 0},
    ),
}

CALLS |= {
    "nn.AdditiveAttention": lambda: (
        nn.AdditiveAttention,
        {"query_size": D, "memory_size": D, "attention_size": 3, "rng": None},
    ),
    "nn.AdditiveAttention()": lambda: (nn.AdditiveAttention(D, D), {"query": steps(), **READ}),
    "nn.AdditiveAttention.keys": lambda: (nn.AdditiveAttention(D, D).keys, {"memory": steps()}),
    "nn.Attention": lambda: (nn.Attention, {"query_size": D, "memory_size": D}),
    "nn.Attention.keys": lambda: (nn.Attention(D, D).keys, {"memory": steps()}),
    "nn.DotAttention": lambda: (
        nn.DotAttention,
        {"query_size": D, "memory_size": D, "general": True, "scale": True, "rng": None},
    ),
    "nn.DotAttention()": lambda: (nn.DotAttention(D, D), {"query": row(), **READ}),
    "nn.DotAttention.keys": lambda: (nn.DotAttention(D, D).keys, {"memory": steps()}),
    "nn.EncoderDecoder": lambda: (
        nn.EncoderDecoder,
        {"encoder": nn.RNN(D, H), "decoder": nn.RNN(2 * D, H), "source_size": V, "target_size": V}
        | {"bos": 0, "eos": 1, "attention": "additive", "dropout": 0.1, "rng": None},
    ),
    "nn.EncoderDecoder()": lambda: (translator(), {**SOURCE, **TARGET}),
    "nn.EncoderDecoder.loss": lambda: (
        translator().loss,
        {**SOURCE, **TARGET, "target_lengths": [2, 1, 2]},
    ),
    "nn.EncoderDecoder.alignment": lambda: (
        translator().alignment,
        {**SOURCE, "target": symbols()},
    ),
    "nn.EncoderDecoder.encode": lambda: (translator().encode, SOURCE),
    "nn.EncoderDecoder.greedy": lambda: (translator().greedy, {**SOURCE, "max_steps": 2}),
    "nn.EncoderDecoder.beam_search": lambda: (
        translator(None).beam_search,
        {**SOURCE, "width": 2, "max_steps": 2, "length_penalty": 0.5},
    ),
    "nn.EchoCell": lambda: (EchoCell, {**SIZES, **ECHO, "rng": rng()}),
    "nn.EchoCell()": cell(lambda: EchoCell(D, H, sparsity=0.0)),
    "nn.EchoState": lambda: (EchoState, {**SIZES, **ECHO, "output_size": 1, "rng": rng()}),
    "nn.EchoState()": layer(echo, states(1)),
    "nn.EchoState.fit": lambda: (
        echo().fit,
        {"x": steps(), "targets": steps(), "washout": 0, "ridge": 0.1, "state": None}
        | {"lengths": [1, 2, 2]},
    ),
    "nn.EchoState.generate": lambda: (
        echo().generate,
        {"x": row(), "steps": 2, "state": states(1)},
    ),
}

CALLS |= {
    "nn.Module.named_modules": lambda: (nn.Linear(2, 2).named_modules, {"prefix": "model"}),
    "nn.Module.load_state_dict": lambda: (
        nn.Linear(2, 2).load_state_dict,
        {"state": nn.Linear(2, 2).state_dict()},
    ),
    "nn.Module.astype": lambda: (nn.Linear(2, 2).astype, {"dtype": np.float64}),
    "nn.Module.train": lambda: (nn.Linear(2, 2).train, {"mode": True}),
    "nn.Parameter": lambda: (nn.Parameter, {"data": [[1.0, 2.0]], "dtype": np.float32}),
    "nn.detach": lambda: (nn.detach, {"state": states(2)}),
    "nn.evaluation": lambda: (evaluate, {"model": lstm()}),
    "nn.tbptt": lambda: (
        chunks,
        {"layer": lstm(), "stream": (steps(), symbols()), "k": 1, "state": (states(2),)},
    ),
    "nn.TrainingStep": lambda: (
        nn.TrainingStep,
        {**training_step(), "max_norm": 1.0, "mode": "unroll", "norm_type": 3.0, "comm": Alone()},
    ),
    "nn.checkpoint": lambda: (checkpointed, {"fn": doubled, "inputs": states(2)}),
    "interop.to_torch": lambda: (nn.interop.to_torch, {"layer": lstm()}),
    "interop.load_torch": lambda: (
        nn.interop.load_torch,
        {"layer": lstm(), "state_dict": nn.interop.to_torch(lstm()), "prefix": ""},
    ),
    "notes.weights": lambda: (nn.notes.weights, {"part": nn.LSTMCell(D, H)}),
    "notes.load": lambda: (
        nn.notes.load,
        {"part": nn.RNNCell(D, H), "weights": nn.notes.weights(nn.RNNCell(D, H))},
    ),
    "onnx.export": lambda: (
        nn.onnx.export,
        {"layers": [nn.Linear(2, 2)], "path": Path("a.onnx"), "lengths": False, "state": False},
    ),
    "init.zeros": lambda: (nn.init.zeros, {"shape": (2, 3), "rng": None}),
    "init.uniform": lambda: (nn.init.uniform, {"shape": (2,), "bound": 0.1, "rng": rng()}),
    "init.normal": lambda: (nn.init.normal, {"shape": (2,), "std": 0.1, "rng": rng()}),
    "init.glorot_uniform": lambda: (nn.init.glorot_uniform, {**WEIGHT, "fan_out": 2}),
    "init.glorot_normal": lambda: (nn.init.glorot_normal, {**WEIGHT, "fan_out": 2}),
    "init.he_uniform": lambda: (nn.init.he_uniform, WEIGHT),
    "init.he_normal": lambda: (nn.init.he_normal, WEIGHT),
    "init.orthogonal": lambda: (nn.init.orthogonal, WEIGHT),
    "init.forget_bias": lambda: (nn.init.forget_bias, {"hidden_size": 2, "value": 1.0}),
}

# What is no call of a user's, with the reason.
OVERRIDDEN = "what a subclass computes, called by forward()"
LEFT_OUT: dict[str, str] = {
    "nn.Module": "abstract",
    "nn.Module()": "abstract",
    "nn.Attention()": "abstract: has no scores()",
    "nn.Attention.scores": "abstract",
    "nn.AdditiveAttention.scores": OVERRIDDEN,
    "nn.DotAttention.scores": OVERRIDDEN,
    "nn.Bridge": "EncoderDecoder makes and calls it",
    "nn.Bridge()": "EncoderDecoder makes and calls it",
    "nn.Cell.check": OVERRIDDEN,
    "nn.Hypothesis": "a result: nobody makes one",
    "nn.Wrapper.noise": OVERRIDDEN,
    "nn.Wrapper.draw": OVERRIDDEN,
    "nn.Wrapper.step": OVERRIDDEN,
    "nn.Wrapper.step_inside": OVERRIDDEN,
    "nn.VariationalDropout.draw": OVERRIDDEN,
    "nn.VariationalDropout.step": OVERRIDDEN,
    "nn.Zoneout.draw": OVERRIDDEN,
    "nn.Zoneout.step": OVERRIDDEN,
}
