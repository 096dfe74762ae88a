"""The plain NumPy loop: forward and backward of each cell written by hand, as one would without
a library, and with care: input projection and weight gradients are one matrix product each, buffers
are made once, the parameters lie in one array for clipping and Adam.

Formulas and the order of gates are those of `tinyseq.nn.cells`; a sigmoid is taken as ½ + ½·tanh of
the half, for NumPy's tanh is vectorised.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import task

CELLS = ("rnn", "gru", "lstm", "gru_before")
Arrays = dict[str, np.ndarray]


class Layer:
    """One recurrent layer: `forward` fills its buffers, `backward` reads them."""

    def __init__(self, p: Arrays, g: Arrays, T: int, B: int) -> None:
        self.p, self.g = p, g  # parameters; their gradients, which `backward` fills
        D, kH = p["w_x"].shape
        H = len(p["w_h"])
        self.H, dtype = H, p["w_x"].dtype

        def buffer(*shape: int) -> np.ndarray:
            return np.zeros(shape, dtype)

        self.a = buffer(T, B, kH)  # x w_x + b, then the activated gates
        self.da = buffer(T, B, kH)
        self.h = buffer(T + 1, B, H)
        self.product = buffer(B, kH)  # h w_h
        self.dh, self.dh_next, self.s1, self.s2 = (buffer(B, H) for _ in range(4))
        self.dx = buffer(T, B, D)
        self.more(buffer, T, B, H)

    def more(self, buffer: Any, T: int, B: int, H: int) -> None:
        """Further buffers of a cell."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        np.matmul(_rows(x), self.p["w_x"], out=_rows(self.a))
        self.a += self.p["b"]
        for t in range(len(x)):
            self.step(t, self.a[t], self.h[t], self.h[t + 1])
        return self.h[1:]

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.dh_next[...] = 0
        self.start()
        for t in reversed(range(len(dy))):
            np.add(dy[t], self.dh_next, out=self.dh)
            self.back(t, self.a[t], self.da[t], self.h[t], self.dh)
        np.matmul(_rows(self.x).T, _rows(self.da), out=self.g["w_x"])
        np.sum(_rows(self.da), axis=0, out=self.g["b"])
        self.recurrent_gradients(_rows(self.h[:-1]))
        return np.matmul(_rows(self.da), self.p["w_x"].T, out=_rows(self.dx)).reshape(self.x.shape)

    def recurrent_gradients(self, h: np.ndarray) -> None:
        np.matmul(h.T, _rows(self.da), out=self.g["w_h"])

    def start(self) -> None:
        """Before the last step is walked back."""

    def step(self, t: int, a: np.ndarray, h: np.ndarray, new_h: np.ndarray) -> None:
        raise NotImplementedError

    def back(self, t: int, a: np.ndarray, da: np.ndarray, h: np.ndarray, dh: np.ndarray) -> None:
        raise NotImplementedError


class RNN(Layer):
    def step(self, t: int, a: np.ndarray, h: np.ndarray, new_h: np.ndarray) -> None:
        np.matmul(h, self.p["w_h"], out=self.product)
        a += self.product
        np.tanh(a, out=new_h)

    def back(self, t: int, a: np.ndarray, da: np.ndarray, h: np.ndarray, dh: np.ndarray) -> None:
        new_h = self.h[t + 1]
        _through_tanh(dh, new_h, da)
        np.matmul(da, self.p["w_h"].T, out=self.dh_next)


class GRU(Layer):
    """Reset after: c̃ = tanh(x w_x + b + r·(h w_h + b_h))."""

    def more(self, buffer: Any, T: int, B: int, H: int) -> None:
        self.from_h = buffer(T, B, 3 * H)
        self.dfrom_h = buffer(T, B, 3 * H)

    def step(self, t: int, a: np.ndarray, h: np.ndarray, new_h: np.ndarray) -> None:
        H, from_h = self.H, self.from_h[t]
        np.matmul(h, self.p["w_h"], out=from_h)
        from_h[:, 2 * H :] += self.p["b_h"]
        gates, candidate = a[:, : 2 * H], a[:, 2 * H :]
        gates += from_h[:, : 2 * H]
        _sigmoid(gates)
        np.multiply(gates[:, H:], from_h[:, 2 * H :], out=self.s1)
        candidate += self.s1
        np.tanh(candidate, out=candidate)
        _mix(gates[:, :H], candidate, h, new_h)

    def back(self, t: int, a: np.ndarray, da: np.ndarray, h: np.ndarray, dh: np.ndarray) -> None:
        H, from_h, dfrom_h = self.H, self.from_h[t], self.dfrom_h[t]
        gates, update, reset, candidate = a[:, : 2 * H], a[:, :H], a[:, H : 2 * H], a[:, 2 * H :]
        np.subtract(candidate, h, out=da[:, :H])
        da[:, :H] *= dh
        np.multiply(dh, update, out=self.s1)
        _through_tanh(self.s1, candidate, da[:, 2 * H :])
        np.multiply(da[:, 2 * H :], from_h[:, 2 * H :], out=da[:, H : 2 * H])
        _through_sigmoid(da[:, : 2 * H], gates)
        dfrom_h[:, : 2 * H] = da[:, : 2 * H]
        np.multiply(da[:, 2 * H :], reset, out=dfrom_h[:, 2 * H :])
        np.matmul(dfrom_h, self.p["w_h"].T, out=self.dh_next)
        dh -= self.s1  # (1 − u)·dh
        self.dh_next += dh

    def recurrent_gradients(self, h: np.ndarray) -> None:
        np.matmul(h.T, _rows(self.dfrom_h), out=self.g["w_h"])
        np.sum(_rows(self.dfrom_h)[:, 2 * self.H :], axis=0, out=self.g["b_h"])


class GRUBefore(Layer):
    """Reset before: c̃ = tanh(x w_x + b + (r·h) w_h)."""

    def more(self, buffer: Any, T: int, B: int, H: int) -> None:
        self.kept = buffer(T, B, H)  # r·h
        self.gates_product, self.candidate_product = buffer(B, 2 * H), buffer(B, H)

    def step(self, t: int, a: np.ndarray, h: np.ndarray, new_h: np.ndarray) -> None:
        H = self.H
        gates, candidate = a[:, : 2 * H], a[:, 2 * H :]
        gates += np.matmul(h, self.p["w_h"][:, : 2 * H], out=self.gates_product)
        _sigmoid(gates)
        np.multiply(gates[:, H:], h, out=self.kept[t])
        candidate += np.matmul(self.kept[t], self.p["w_h"][:, 2 * H :], out=self.candidate_product)
        np.tanh(candidate, out=candidate)
        _mix(gates[:, :H], candidate, h, new_h)

    def back(self, t: int, a: np.ndarray, da: np.ndarray, h: np.ndarray, dh: np.ndarray) -> None:
        H, w_h = self.H, self.p["w_h"]
        gates, update, reset, candidate = a[:, : 2 * H], a[:, :H], a[:, H : 2 * H], a[:, 2 * H :]
        np.subtract(candidate, h, out=da[:, :H])
        da[:, :H] *= dh
        np.multiply(dh, update, out=self.s1)
        dh -= self.s1
        _through_tanh(self.s1, candidate, da[:, 2 * H :])
        dkept = np.matmul(da[:, 2 * H :], w_h[:, 2 * H :].T, out=self.s2)
        np.multiply(dkept, h, out=da[:, H : 2 * H])
        _through_sigmoid(da[:, : 2 * H], gates)
        np.matmul(da[:, : 2 * H], w_h[:, : 2 * H].T, out=self.dh_next)
        dkept *= reset
        self.dh_next += dkept
        self.dh_next += dh

    def recurrent_gradients(self, h: np.ndarray) -> None:
        H, da = self.H, _rows(self.da)
        np.matmul(h.T, da[:, : 2 * H], out=self.g["w_h"][:, : 2 * H])
        np.matmul(_rows(self.kept).T, da[:, 2 * H :], out=self.g["w_h"][:, 2 * H :])


class LSTM(Layer):
    def more(self, buffer: Any, T: int, B: int, H: int) -> None:
        self.c, self.tanh_c = buffer(T + 1, B, H), buffer(T, B, H)
        self.dc = buffer(B, H)

    def step(self, t: int, a: np.ndarray, h: np.ndarray, new_h: np.ndarray) -> None:
        H, c, new_c = self.H, self.c[t], self.c[t + 1]
        np.matmul(h, self.p["w_h"], out=self.product)
        a += self.product
        gates, candidate = a[:, : 3 * H], a[:, 3 * H :]
        _sigmoid(gates)
        np.tanh(candidate, out=candidate)
        np.multiply(gates[:, :H], candidate, out=new_c)
        np.multiply(gates[:, H : 2 * H], c, out=self.s1)
        new_c += self.s1
        np.tanh(new_c, out=self.tanh_c[t])
        np.multiply(gates[:, 2 * H :], self.tanh_c[t], out=new_h)

    def start(self) -> None:
        self.dc[...] = 0

    def back(self, t: int, a: np.ndarray, da: np.ndarray, h: np.ndarray, dh: np.ndarray) -> None:
        H, dc = self.H, self.dc
        update, forget, output, candidate = (a[:, i * H : (i + 1) * H] for i in range(4))
        np.multiply(dh, output, out=self.s1)
        _through_tanh(self.s1, self.tanh_c[t], self.s2)
        dc += self.s2
        np.multiply(dc, candidate, out=da[:, :H])
        np.multiply(dc, self.c[t], out=da[:, H : 2 * H])
        np.multiply(dh, self.tanh_c[t], out=da[:, 2 * H : 3 * H])
        _through_sigmoid(da[:, : 3 * H], a[:, : 3 * H])
        np.multiply(dc, update, out=self.s1)
        _through_tanh(self.s1, candidate, da[:, 3 * H :])
        np.matmul(da, self.p["w_h"].T, out=self.dh_next)
        dc *= forget


LAYERS = {"rnn": RNN, "gru": GRU, "gru_before": GRUBefore, "lstm": LSTM}


def _rows(a: np.ndarray) -> np.ndarray:
    """(T, B, F) → (T·B, F), a view."""
    return a.reshape(-1, a.shape[-1])


def _sigmoid(a: np.ndarray) -> None:
    a *= 0.5
    np.tanh(a, out=a)
    a *= 0.5
    a += 0.5


def _through_tanh(dy: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """out ← dy·(1 − y²)."""
    np.multiply(y, y, out=out)
    np.subtract(1, out, out=out)
    out *= dy


def _through_sigmoid(d: np.ndarray, y: np.ndarray) -> None:
    """d ← d·y·(1 − y)."""
    d *= y
    d *= 1 - y


def _mix(update: np.ndarray, candidate: np.ndarray, h: np.ndarray, out: np.ndarray) -> None:
    """out ← u·c̃ + (1 − u)·h."""
    np.subtract(candidate, h, out=out)
    out *= update
    out += h


class Training:
    """Full training steps, with fresh inputs in each; dtype: that of the weights."""

    def __init__(self, point: task.Point, weights: Arrays | None = None) -> None:
        weights = task.weights(point) if weights is None else weights
        self.point, self.rng = point, np.random.default_rng(1)
        self.flat = np.concatenate([w.ravel() for w in weights.values()])
        self.gradient, self.mean, self.square, self.scratch = (
            np.zeros_like(self.flat) for _ in range(4)
        )
        self.p, self.g = _named(self.flat, weights), _named(self.gradient, weights)
        self.layers = [
            LAYERS[point.cell](task.layer(self.p, i), task.layer(self.g, i), point.T, point.B)
            for i in range(point.layers)
        ]
        n = point.T * point.B
        self.logits = np.zeros((n, task.V), self.flat.dtype)
        self.one_hot = np.zeros((n, task.V), self.flat.dtype)
        self.x = np.zeros((point.T, point.B, point.H), self.flat.dtype)
        self.dy = np.zeros_like(self.x)
        self.steps = 0

    def loss(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """The cross-entropy, with all gradients written into ``g``."""
        p, g, n, at = self.p, self.g, inputs.size, np.arange(inputs.size)
        y = np.take(p["embedding"], inputs, axis=0, out=self.x)
        for layer in self.layers:
            y = layer.forward(y)
        logits = np.matmul(_rows(y), p["head.weight"], out=self.logits)
        logits += p["head.bias"]
        logits -= logits.max(axis=1, keepdims=True)
        picked = logits[at, targets.ravel()].copy()
        np.exp(logits, out=logits)
        total = logits.sum(axis=1, keepdims=True)
        loss = float((np.log(total[:, 0]) - picked).mean())

        logits /= total
        logits[at, targets.ravel()] -= 1
        logits /= n
        np.matmul(_rows(y).T, logits, out=g["head.weight"])
        np.sum(logits, axis=0, out=g["head.bias"])
        np.matmul(logits, p["head.weight"].T, out=_rows(self.dy))
        dy = self.dy
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        self.one_hot[...] = 0
        self.one_hot[at, inputs.ravel()] = 1
        np.matmul(self.one_hot.T, _rows(dy), out=g["embedding"])
        return loss

    def adam(self) -> None:
        self.steps += 1
        g, s = self.gradient, self.scratch
        norm = math.sqrt(float(g @ g))
        if norm > task.CLIP:
            g *= task.CLIP / norm
        self.mean *= task.BETA1
        self.mean += np.multiply(g, 1 - task.BETA1, out=s)
        self.square *= task.BETA2
        np.multiply(g, g, out=s)
        s *= 1 - task.BETA2
        self.square += s
        np.sqrt(self.square, out=s)
        s /= math.sqrt(1 - task.BETA2**self.steps)
        s += task.EPS
        np.divide(self.mean, s, out=s)
        s *= task.LR / (1 - task.BETA1**self.steps)
        self.flat -= s

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.loss(*task.draw(self.rng, self.point))
            self.adam()

    def gradients(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[float, Arrays]:
        loss = self.loss(inputs, targets)
        return loss, {name: g.copy() for name, g in self.g.items()}


def _named(flat: np.ndarray, like: Arrays) -> Arrays:
    views, start = {}, 0
    for name, w in like.items():
        views[name] = flat[start : start + w.size].reshape(w.shape)
        start += w.size
    return views


class Generation:
    """`task.CHARACTERS` drawn one by one from an LSTM at batch 1."""

    def __init__(self, point: task.Point) -> None:
        self.p, self.rng = task.weights(point), np.random.default_rng(1)
        self.layers = [
            LSTM(task.layer(self.p, i), {}, task.CHARACTERS, 1) for i in range(point.layers)
        ]

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.write()

    def write(self) -> list[int]:
        p, symbol, written = self.p, 0, []
        for t, draw in enumerate(self.rng.random(task.CHARACTERS)):
            y = p["embedding"][symbol : symbol + 1]
            for layer in self.layers:
                np.matmul(y, layer.p["w_x"], out=layer.a[t])
                layer.a[t] += layer.p["b"]
                layer.step(t, layer.a[t], layer.h[t], layer.h[t + 1])
                y = layer.h[t + 1]
            logits = (y @ p["head.weight"])[0] + p["head.bias"]
            logits /= task.TEMPERATURE
            cumulative = np.cumsum(np.exp(logits - logits.max()))
            symbol = int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))
            written.append(symbol)
        return written


class Sgemm:
    """Square float32 products: what the machine can do."""

    def __init__(self, point: task.Point | None) -> None:
        rng = np.random.default_rng(0)
        self.a, self.b = rng.standard_normal((2, task.SGEMM, task.SGEMM), dtype=np.float32)
        self.out = np.empty_like(self.a)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            np.matmul(self.a, self.b, out=self.out)


def version() -> str:
    return f"NumPy {np.__version__}"
