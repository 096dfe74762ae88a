"""Right calls of tensors, ops, losses and gradients: what makes (call, arguments), by name."""

import numpy as np

import tinyseq as ts
from tinyseq import functional, primitives, random
from tinyseq.op import TensorLike
from tinyseq.ops.shaping import Sizes

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
INDEX = np.array([[0, 1, 1], [1, 0, 1]])
CLASSES = np.array([0, 2])


def x():
    return ts.tensor(X, requires_grad=True)


def one():
    """A leaf, whose recording no backward pass frees."""
    return ts.tensor(1.0, requires_grad=True)


def square(x):
    return (x * x).sum()


def log_probs():
    return functional.log_softmax(ts.tensor(np.zeros((4, 2, 3), np.float32)))


# Called as ``ts.name(x, …)`` and, where Tensor has it, as ``x.name(…)``.
OPS = {
    "all": {"axis": 1, "keepdims": True},
    "any": {"axis": 1, "keepdims": True},
    "argmax": {"axis": 1, "keepdims": True},
    "argmin": {"axis": 1, "keepdims": True},
    "argsort": {"axis": 1},
    "astype": {"dtype": np.float64},
    "broadcast_to": {"shape": (4, 2, 3)},
    "chunk": {"chunks": 2, "axis": 0},
    "clip": {"min": -0.5, "max": 0.5},
    "cumprod": {"axis": 1},
    "cumsum": {"axis": 1},
    "elu": {"alpha": 0.5},
    "expand_dims": {"axis": 0},
    "flip": {"axis": 1},
    "gather": {"axis": 1, "index": INDEX},
    "gelu": {"approximate": "tanh"},
    "isnan": {},
    "leaky_relu": {"negative_slope": 0.1},
    "log10": {},
    "log2": {},
    "logsumexp": {"axis": 1, "keepdims": True},
    "masked_fill": {"mask": X > 0, "value": 0.5},
    "max": {"axis": 1, "keepdims": True},
    "mean": {"axis": 1, "keepdims": True},
    "min": {"axis": 1, "keepdims": True},
    "norm": {"ord": 3.0, "axis": 1, "keepdims": True},
    "pad": {"pad_width": 1, "mode": "constant", "constant_values": 0.5},
    "prod": {"axis": 1, "keepdims": True},
    "ravel": {},
    "repeat": {"repeats": 2, "axis": 1},
    "roll": {"shift": 1, "axis": 1},
    "round": {"decimals": 1},
    "silu": {},
    "softsign": {},
    "sort": {"axis": 1},
    "split": {"indices_or_sections": 2, "axis": 0},
    "squeeze": {"axis": None},
    "std": {"axis": 1, "keepdims": True, "ddof": 1},
    "sum": {"axis": 1, "keepdims": True},
    "swapaxes": {"axis1": 0, "axis2": 1},
    "take": {"indices": INDEX, "axis": 1},
    "take_along_axis": {"indices": INDEX, "axis": 1},
    "tan": {},
    "tile": {"reps": (2, 1)},
    "topk": {"k": 2, "axis": 1, "largest": True},
    "tril": {"k": 1},
    "triu": {"k": 1},
    "unsqueeze": {"axis": 0},
    "var": {"axis": 1, "keepdims": True, "ddof": 1},
}
TWO = ("add", "div", "floor_divide", "maximum", "minimum", "mul", "outer", "remainder", "sub")


# What a call takes one by one, as in ``x.reshape(3, 2)``, is here one argument.
def expand(shape: Sizes):
    return ts.expand(x(), shape)


def permute(axes: Sizes):
    return ts.permute(x(), axes)


def reshape(shape: Sizes):
    return ts.reshape(x(), shape)


def view(shape: Sizes):
    return x().view(shape)


def transpose(axes: Sizes):
    return ts.transpose(x(), axes)


def einsum(subscripts: str, operands: TensorLike):
    return ts.einsum(subscripts, operands, X)


SPREAD = {
    "expand": (expand, {"shape": (4, 2, 3)}),
    "permute": (permute, {"axes": (1, 0)}),
    "reshape": (reshape, {"shape": (3, 2)}),
    "view": (view, {"shape": (3, 2)}),
    "transpose": (transpose, {"axes": (1, 0)}),
    "einsum": (einsum, {"subscripts": "ij,ij->i", "operands": x()}),
}


def bound(name, given):
    """The call of an op, or of the method of that name."""
    return lambda: (getattr(ts, name), {"x": x(), **given})


def method(name, given):
    return lambda: (getattr(x(), name), given)


def one_gradient():
    y = one()
    kept = {"create_graph": False, "retain_graph": True}
    return ts.grad, {"y": y, "xs": y, "grad_outputs": 1.0, **kept}


def several_gradients():
    ys = [x(), one()]
    kept = {"create_graph": False, "retain_graph": True}
    return ts.grad, {"y": ys, "xs": ys[:1], "grad_outputs": [ts.tensor(X), None], **kept}


CALLS = {
    **{f"ts.{name}": bound(name, given) for name, given in OPS.items() if hasattr(ts, name)},
    **{
        f"ts.Tensor.{name}": method(name, given)
        for name, given in OPS.items()
        if hasattr(ts.Tensor, name)
    },
    **{f"ts.{name}": bound(name, {}) for name in primitives.__all__},
    **{f"ts.{name}": lambda name=name: (getattr(ts, name), {"a": x(), "b": x()}) for name in TWO},
    **{f"ts.{name}": lambda call=call: call for name, call in SPREAD.items()},
    **{f"ts.Tensor.{n}": lambda call=call: call for n, call in SPREAD.items() if n != "einsum"},
    "ts.pow": lambda: (ts.pow, {"a": x(), "p": 2.0}),
    "ts.where": lambda: (ts.where, {"condition": X > 0, "a": x(), "b": 0.0}),
    "ts.logical_and": lambda: (ts.logical_and, {"a": X > 0, "b": X < 1}),
    "ts.logical_or": lambda: (ts.logical_or, {"a": X > 0, "b": X < 1}),
    "ts.logical_not": lambda: (ts.logical_not, {"x": X > 0}),
    "ts.dot": lambda: (ts.dot, {"a": x(), "b": X.T}),
    "ts.Tensor.dot": lambda: (x().dot, {"b": X.T}),
    "ts.Tensor.outer": lambda: (x().outer, {"b": X}),
    "ts.tensordot": lambda: (ts.tensordot, {"a": x(), "b": X, "axes": (1, 1)}),
    "ts.matmul": lambda: (ts.matmul, {"a": x(), "b": X.T}),
    "ts.concat": lambda: (ts.concat, {"xs": [x(), X], "axis": 1}),
    "ts.stack": lambda: (ts.stack, {"xs": [x(), X], "axis": 1}),
    "ts.hstack": lambda: (ts.hstack, {"xs": [x(), X]}),
    "ts.vstack": lambda: (ts.vstack, {"xs": [x(), X]}),
    # -- what is made of a shape
    "ts.arange": lambda: (
        ts.arange,
        {"start": 0, "stop": 5, "step": 2, "dtype": np.float64, "requires_grad": True},
    ),
    "ts.full": lambda: (
        ts.full,
        {"shape": (2, 3), "fill_value": 0.5, "dtype": np.float64, "requires_grad": True},
    ),
    "ts.ones": lambda: (ts.ones, {"shape": (2, 3), "dtype": np.float64, "requires_grad": True}),
    "ts.zeros": lambda: (ts.zeros, {"shape": 3, "dtype": np.float64, "requires_grad": True}),
    # -- tensors and gradients
    "ts.Tensor": lambda: (
        ts.Tensor,
        {"data": X, "dtype": np.float64, "requires_grad": True, "name": "x"},
    ),
    "ts.tensor": lambda: (
        ts.tensor,
        {"data": X, "dtype": np.float64, "requires_grad": True, "name": "x"},
    ),
    "ts.Tensor.backward": lambda: (
        one().backward,
        {"gradient": 1.0, "retain_graph": True, "create_graph": False},
    ),
    "ts.Tensor.register_hook": lambda: (x().register_hook, {"hook": lambda g: None}),
    "ts.backward": lambda: (
        ts.backward,
        {"y": one(), "gradient": 1.0, "retain_graph": True, "create_graph": False},
    ),
    "ts.grad": one_gradient,
    "ts.grad(several)": several_gradients,
    "ts.gradcheck": lambda: (
        ts.gradcheck,
        {
            "fn": square,
            "inputs": ts.tensor(1.0, np.float64, requires_grad=True),
            "order": 1,
            "step": 1e-4,
            "rtol": 1e-5,
            "atol": 1e-7,
            "seed": 0,
        },
    ),
    "ts.hvp": lambda: (ts.hvp, {"fn": square, "xs": one(), "vs": one(), "create_graph": False}),
    "ts.jacobian": lambda: (
        ts.jacobian,
        {"fn": square, "x": one(), "create_graph": False},
    ),
    "ts.detect_anomaly": lambda: (ts.detect_anomaly, {}),
    "ts.no_grad": lambda: (ts.no_grad, {}),
    "ts.seed": lambda: (ts.seed, {"n": 0}),
    "ts.get_num_threads": lambda: (ts.get_num_threads, {}),
    "ts.set_num_threads": lambda: (ts.set_num_threads, {"n": ts.get_num_threads()}),
    "random.generator": lambda: (random.generator, {"rng": np.random.default_rng(0)}),
    "random.get_state": lambda: (random.get_state, {}),
    "random.set_state": lambda: (random.set_state, {"state": random.get_state()}),
    "random.spawn": lambda: (random.spawn, {"n": 1}),
    # -- losses
    "functional.binary_cross_entropy": lambda: (
        functional.binary_cross_entropy,
        {"probabilities": (X + 1) / 2, "targets": X > 0, "reduction": "mean", "weight": X + 1},
    ),
    "functional.binary_cross_entropy_with_logits": lambda: (
        functional.binary_cross_entropy_with_logits,
        {"logits": x(), "targets": X > 0, "reduction": "mean", "weight": X + 1, "pos_weight": 2.0},
    ),
    "functional.cross_entropy": lambda: (
        functional.cross_entropy,
        {
            "logits": x(),
            "targets": CLASSES,
            "reduction": "mean",
            "weight": [1.0, 2.0, 3.0],
            "ignore_index": -100,
            "label_smoothing": 0.1,
        },
    ),
    "functional.ctc_loss": lambda: (
        functional.ctc_loss,
        {
            "log_probs": log_probs(),
            "targets": [[1, 2], [2, 1]],
            "input_lengths": [4, 3],
            "target_lengths": [2, 1],
            "blank": 0,
            "reduction": "mean",
            "zero_infinity": True,
        },
    ),
    "functional.huber_loss": lambda: (
        functional.huber_loss,
        {"prediction": x(), "target": X, "reduction": "mean", "delta": 0.5},
    ),
    "functional.kl_div": lambda: (
        functional.kl_div,
        {
            "log_probs": functional.log_softmax(x()),
            "targets": X - 1,
            "reduction": "batchmean",
            "log_target": True,
        },
    ),
    "functional.l1_loss": lambda: (
        functional.l1_loss,
        {"prediction": x(), "target": X, "reduction": "mean"},
    ),
    "functional.log_sigmoid": lambda: (functional.log_sigmoid, {"x": x()}),
    "functional.log_softmax": lambda: (functional.log_softmax, {"x": x(), "axis": 1}),
    "functional.mse_loss": lambda: (
        functional.mse_loss,
        {"prediction": x(), "target": X, "reduction": "mean"},
    ),
    "functional.nll_loss": lambda: (
        functional.nll_loss,
        {
            "log_probs": functional.log_softmax(x()),
            "targets": CLASSES,
            "reduction": "mean",
            "weight": [1.0, 2.0, 3.0],
            "ignore_index": -100,
        },
    ),
    "functional.one_hot": lambda: (
        functional.one_hot,
        {"indices": CLASSES, "size": 3, "dtype": np.float64},
    ),
    "functional.sequence_loss": lambda: (
        functional.sequence_loss,
        {"losses": X, "lengths": [2, 1, 0], "mask": None, "reduction": "mean"},
    ),
    "functional.sequence_loss(mask)": lambda: (
        functional.sequence_loss,
        {"losses": X, "mask": X > 0, "reduction": "mean"},
    ),
    "functional.softmax": lambda: (functional.softmax, {"x": x(), "axis": 1}),
}

# What is no call of a user's, with the reason.
LEFT_OUT = {
    "ts.GradcheckError": "an error",
    "ts.Tensor.replace": "what modules do when they change their dtype: users write .data",
}
