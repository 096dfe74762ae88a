"""JAX: one jitted function a training step, `lax.scan` over time, Adam and clipping inside.

The input projection is one product over all steps, outside of the scan, and the parameters are
donated, so that they are updated in place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import task

CELLS = tuple(task.GATES)
Parameters = dict[str, jax.Array]
State = tuple[jax.Array, ...]


def _rnn(p: Parameters, a: jax.Array, state: State) -> State:
    return (jnp.tanh(a + state[0] @ p["w_h"]),)


def _gru(p: Parameters, a: jax.Array, state: State) -> State:
    (h,) = state
    H = h.shape[-1]
    from_h = h @ p["w_h"]
    update, reset = jnp.split(jax.nn.sigmoid(a[:, : 2 * H] + from_h[:, : 2 * H]), 2, 1)
    candidate = jnp.tanh(a[:, 2 * H :] + reset * (from_h[:, 2 * H :] + p["b_h"]))
    return (update * candidate + (1 - update) * h,)


def _gru_before(p: Parameters, a: jax.Array, state: State) -> State:
    (h,) = state
    H = h.shape[-1]
    update, reset = jnp.split(jax.nn.sigmoid(a[:, : 2 * H] + h @ p["w_h"][:, : 2 * H]), 2, 1)
    candidate = jnp.tanh(a[:, 2 * H :] + (reset * h) @ p["w_h"][:, 2 * H :])
    return (update * candidate + (1 - update) * h,)


def _lstm(p: Parameters, a: jax.Array, state: State) -> State:
    h, c = state
    H = h.shape[-1]
    gates = a + h @ p["w_h"]
    update, forget, output = jnp.split(jax.nn.sigmoid(gates[:, : 3 * H]), 3, 1)
    c = update * jnp.tanh(gates[:, 3 * H :]) + forget * c
    return output * jnp.tanh(c), c


def _peephole(p: Parameters, a: jax.Array, state: State) -> State:
    h, c = state
    u, f, o, candidate = jnp.split(a + h @ p["w_h"], 4, 1)
    update = jax.nn.sigmoid(u + p["p_u"] * c)
    forget = jax.nn.sigmoid(f + p["p_f"] * c)
    c = update * jnp.tanh(candidate) + forget * c
    return jax.nn.sigmoid(o + p["p_o"] * c) * jnp.tanh(c), c


def _layernorm(p: Parameters, a: jax.Array, state: State) -> State:
    h, c = state
    H = h.shape[-1]
    gates = a + _norm(h @ p["w_h"]) * p["norm_h.weight"]
    update, forget, output = jnp.split(jax.nn.sigmoid(gates[:, : 3 * H]), 3, 1)
    c = update * jnp.tanh(gates[:, 3 * H :]) + forget * c
    return output * jnp.tanh(_norm(c) * p["norm_c.weight"] + p["norm_c.bias"]), c


def _own(p: Parameters, a: jax.Array, state: State) -> State:
    (h,) = state
    H = h.shape[-1]
    forget = jax.nn.sigmoid(a[:, :H] + h @ p["w_h"][:, :H])
    candidate = jnp.tanh(a[:, H:] + (forget * h) @ p["w_h"][:, H:])
    return (jax.nn.sigmoid(p["decay"]) * (1 - forget) * h + forget * candidate,)


def _norm(x: jax.Array) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + task.LN_EPS)


STEPS: dict[str, Callable[[Parameters, jax.Array, State], State]] = {
    "rnn": _rnn,
    "gru": _gru,
    "gru_before": _gru_before,
    "lstm": _lstm,
    "peephole": _peephole,
    "layernorm": _layernorm,
    "own": _own,
}
PARTS = {"lstm": 2, "peephole": 2, "layernorm": 2}  # of the state


def _start(cell: str, B: int, H: int) -> State:
    return (jnp.zeros((B, H)),) * PARTS.get(cell, 1)


def _loss(params: Parameters, inputs: Any, targets: Any, point: task.Point) -> jax.Array:
    y = params["embedding"][inputs]
    for i in range(point.layers):
        p = task.layer(params, i)
        a = y @ p["w_x"]
        if point.cell == "layernorm":
            a = _norm(a) * p["norm_x.weight"]

        def step(state: State, a: jax.Array, p: Parameters = p) -> tuple[State, jax.Array]:
            state = STEPS[point.cell](p, a, state)
            return state, state[0]

        _, y = jax.lax.scan(step, _start(point.cell, point.B, point.H), a + p["b"])
    logits = y @ params["head.weight"] + params["head.bias"]
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
    return -picked.mean()


@partial(jax.jit, static_argnames="point", donate_argnums=(0, 1, 2))
def _train(
    params: Parameters,
    mean: Parameters,
    square: Parameters,
    t: float,
    inputs: Any,
    targets: Any,
    point: task.Point,
) -> tuple[Parameters, Parameters, Parameters, jax.Array]:
    loss, grads = jax.value_and_grad(_loss)(params, inputs, targets, point)
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in grads.values()))
    scale = jnp.minimum(1, task.CLIP / norm)
    grads = {n: g * scale for n, g in grads.items()}
    mean = {n: task.BETA1 * mean[n] + (1 - task.BETA1) * g for n, g in grads.items()}
    square = {n: task.BETA2 * square[n] + (1 - task.BETA2) * g * g for n, g in grads.items()}
    lr, root = task.LR / (1 - task.BETA1**t), jnp.sqrt(1 - task.BETA2**t)
    params = {
        n: p - lr * mean[n] / (jnp.sqrt(square[n]) / root + task.EPS) for n, p in params.items()
    }
    return params, mean, square, loss


class Training:
    """Full training steps, with fresh inputs in each."""

    def __init__(self, point: task.Point, weights: dict[str, np.ndarray] | None = None) -> None:
        weights = task.weights(point) if weights is None else weights
        self.point, self.rng, self.t = point, np.random.default_rng(1), 0
        self.params = {n: jnp.array(w) for n, w in weights.items()}
        self.mean, self.square = (
            {n: jnp.zeros_like(p) for n, p in self.params.items()} for _ in range(2)
        )

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.t += 1
            self.params, self.mean, self.square, loss = _train(
                self.params, self.mean, self.square, float(self.t),
                *task.draw(self.rng, self.point), point=self.point,
            )  # fmt: skip
        jax.block_until_ready((self.params, loss))

    def gradients(
        self, inputs: np.ndarray, targets: np.ndarray
    ) -> tuple[float, dict[str, np.ndarray]]:
        loss, grads = jax.jit(jax.value_and_grad(_loss), static_argnums=3)(
            self.params, inputs, targets, self.point
        )
        return float(loss), {n: np.asarray(g) for n, g in grads.items()}


def _next(params: Parameters, carry: Any, noise: jax.Array, point: task.Point) -> Any:
    """One character further: the argmax of logits plus Gumbel noise is a draw."""
    symbol, states = carry
    y, new = params["embedding"][symbol][None], []
    for i, state in enumerate(states):
        p = task.layer(params, i)
        new.append(STEPS[point.cell](p, y @ p["w_x"] + p["b"], state))
        y = new[-1][0]
    logits = (y @ params["head.weight"] + params["head.bias"])[0] / task.TEMPERATURE
    symbol = jnp.argmax(logits + noise).astype(jnp.int32)
    return (symbol, tuple(new)), symbol


def _begin(point: task.Point) -> Any:
    """Arrays of their own, each: what is donated may not be given twice."""
    H, parts = point.H, PARTS.get(point.cell, 1)
    states = (tuple(jnp.zeros((1, H)) for _ in range(parts)) for _ in range(point.layers))
    return jnp.int32(0), tuple(states)


@partial(jax.jit, static_argnames="point")
def _write(params: Parameters, key: jax.Array, point: task.Point) -> jax.Array:
    noise = jax.random.gumbel(key, (task.CHARACTERS, task.V))
    return jax.lax.scan(lambda c, n: _next(params, c, n, point), _begin(point), noise)[1]


@partial(jax.jit, static_argnames="point", donate_argnums=(1, 2))
def _write_one(params: Parameters, carry: Any, key: jax.Array, point: task.Point) -> Any:
    key, one = jax.random.split(key)
    return *_next(params, carry, jax.random.gumbel(one, (task.V,)), point), key


class Generation:
    """`task.CHARACTERS` in one jitted scan, the draws inside."""

    def __init__(self, point: task.Point) -> None:
        self.point, self.key = point, jax.random.key(1)
        self.params = {n: jnp.array(w) for n, w in task.weights(point).items()}

    def run(self, steps: int) -> None:
        for _ in range(steps):
            assert len(self.write()) == task.CHARACTERS

    def write(self) -> list[int]:
        self.key, key = jax.random.split(self.key)
        return np.asarray(_write(self.params, key, point=self.point)).tolist()


class GenerationByCalls(Generation):
    """A call of a jitted step for each character, so that it can be shown as it is written."""

    def write(self) -> list[int]:
        carry, written = _begin(self.point), []
        for _ in range(task.CHARACTERS):
            carry, symbol, self.key = _write_one(self.params, carry, self.key, point=self.point)
            written.append(int(symbol))
        return written


def version() -> str:
    return f"JAX {jax.__version__}"
