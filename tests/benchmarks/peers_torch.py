"""PyTorch: its fused layers where it has them, else the eager loop that its users write.

In both the strongest spelling: the input projection of a loop is one product over all steps, the
product of a step is one `addmm`, and Adam is the fused one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import task
import torch
from torch import Tensor
from torch.nn import functional as F

CELLS = tuple(task.GATES)
Parameters = dict[str, Tensor]

# PyTorch's gates in its order: which of ours each is, and its sign (its z is our 1 − u).
ORDER = {
    "rnn": [(0, 1)],
    "gru": [(1, 1), (0, -1), (2, 1)],
    "lstm": [(0, 1), (1, 1), (3, 1), (2, 1)],
}


class Fused(torch.nn.Module):
    """`torch.nn.RNN`, `GRU` or `LSTM`, given our weights and giving gradients in our layout."""

    def __init__(self, point: task.Point, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.cell, self.H = point.cell, point.H
        self.layers = getattr(torch.nn, point.cell.upper())(point.H, point.H, point.layers)
        for i in range(point.layers):
            w = task.layer(weights, i)
            own = {"weight_ih": self.rows(w["w_x"]), "weight_hh": self.rows(w["w_h"])}
            own |= {"bias_ih": self.rows(w["b"]), "bias_hh": np.zeros_like(w["b"])}
            if "b_h" in w:
                own["bias_hh"][2 * self.H :] = w["b_h"]
            for name, array in own.items():
                getattr(self.layers, f"{name}_l{i}").data = torch.from_numpy(array)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[0]

    def rows(self, ours: np.ndarray) -> np.ndarray:
        """(…, k·H), our gates → (k·H, …), PyTorch's."""
        blocks = np.split(ours, len(ORDER[self.cell]), axis=-1)
        return np.concatenate([s * blocks[i] for i, s in ORDER[self.cell]], axis=-1).T.copy()

    def columns(self, theirs: np.ndarray) -> np.ndarray:
        """(k·H, …), PyTorch's gates → (…, k·H), ours."""
        blocks = np.split(theirs, len(ORDER[self.cell]))
        placed = {i: s * block for (i, s), block in zip(ORDER[self.cell], blocks, strict=True)}
        return np.concatenate([placed[i] for i in range(len(blocks))]).T.copy()

    def gradients(self) -> dict[str, np.ndarray]:
        found = {}
        for i in range(self.layers.num_layers):
            grads = {
                name: getattr(self.layers, f"{name}_l{i}").grad.numpy()
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            found[f"{i}.w_x"] = self.columns(grads["weight_ih"])
            found[f"{i}.w_h"] = self.columns(grads["weight_hh"])
            found[f"{i}.b"] = self.columns(grads["bias_ih"])
            if self.cell == "gru":
                found[f"{i}.b_h"] = grads["bias_hh"][2 * self.H :].copy()
        return found


def _project(p: Parameters, x: Tensor) -> Tensor:
    return x @ p["w_x"] + p["b"]


def _gru_before(p: Parameters, from_x: Tensor) -> list[Tensor]:
    H = len(p["w_h"])
    h, ys = from_x.new_zeros(from_x.shape[1], H), []
    w_gates, w_candidate = p["w_h"].split([2 * H, H], 1)
    gates_x, candidate_x = from_x.split([2 * H, H], 2)
    for gates, candidate in zip(gates_x.unbind(), candidate_x.unbind(), strict=True):
        update, reset = torch.addmm(gates, h, w_gates).sigmoid().chunk(2, 1)
        new = torch.addmm(candidate, reset * h, w_candidate).tanh()
        h = torch.lerp(h, new, update)
        ys.append(h)
    return ys


def _peephole(p: Parameters, from_x: Tensor) -> list[Tensor]:
    H = len(p["w_h"])
    h = c = from_x.new_zeros(from_x.shape[1], H)
    ys = []
    for a in from_x.unbind():
        u, f, o, candidate = torch.addmm(a, h, p["w_h"]).chunk(4, 1)
        update = torch.addcmul(u, p["p_u"], c).sigmoid()
        forget = torch.addcmul(f, p["p_f"], c).sigmoid()
        c = update * candidate.tanh() + forget * c
        h = torch.addcmul(o, p["p_o"], c).sigmoid() * c.tanh()
        ys.append(h)
    return ys


def _layernorm(p: Parameters, from_x: Tensor) -> list[Tensor]:
    H = len(p["w_h"])
    h = c = from_x.new_zeros(from_x.shape[1], H)
    ys = []
    for a in from_x.unbind():
        a = a + F.layer_norm(h @ p["w_h"], (4 * H,), p["norm_h.weight"], None, task.LN_EPS)
        gates, candidate = a.split([3 * H, H], 1)
        update, forget, output = gates.sigmoid().chunk(3, 1)
        c = update * candidate.tanh() + forget * c
        normed = F.layer_norm(c, (H,), p["norm_c.weight"], p["norm_c.bias"], task.LN_EPS)
        h = output * normed.tanh()
        ys.append(h)
    return ys


def _project_normed(p: Parameters, x: Tensor) -> Tensor:
    from_x = x @ p["w_x"]
    return F.layer_norm(from_x, from_x.shape[-1:], p["norm_x.weight"], None, task.LN_EPS) + p["b"]


def _own(p: Parameters, from_x: Tensor) -> list[Tensor]:
    H = len(p["w_h"])
    h, ys = from_x.new_zeros(from_x.shape[1], H), []
    decay = p["decay"].sigmoid()
    w_forget, w_candidate = p["w_h"].chunk(2, 1)
    forget_x, candidate_x = from_x.chunk(2, 2)
    for a, b in zip(forget_x.unbind(), candidate_x.unbind(), strict=True):
        forget = torch.addmm(a, h, w_forget).sigmoid()
        candidate = torch.addmm(b, forget * h, w_candidate).tanh()
        h = decay * (1 - forget) * h + forget * candidate
        ys.append(h)
    return ys


LOOPS: dict[str, Callable[[Parameters, Tensor], list[Tensor]]] = {
    "gru_before": _gru_before,
    "peephole": _peephole,
    "layernorm": _layernorm,
    "own": _own,
}


class Eager(torch.nn.Module):
    """A cell that PyTorch has no layer for, as a loop over the steps."""

    def __init__(self, point: task.Point, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.cell = point.cell
        self.layers = [
            {n: torch.from_numpy(w.copy()) for n, w in task.layer(weights, i).items()}
            for i in range(point.layers)
        ]
        for i, p in enumerate(self.layers):
            for name in p:
                p[name] = torch.nn.Parameter(p[name])
                self.register_parameter(f"{i}_{name.replace('.', '_')}", p[name])

    def forward(self, x: Tensor) -> Tensor:
        project = _project_normed if self.cell == "layernorm" else _project
        for p in self.layers:
            x = torch.stack(LOOPS[self.cell](p, project(p, x)))
        return x

    def gradients(self) -> dict[str, np.ndarray]:
        return {
            f"{i}.{name}": parameter.grad.numpy().copy()
            for i, p in enumerate(self.layers)
            for name, parameter in p.items()
        }


class Training:
    """Full training steps, with fresh inputs in each."""

    def __init__(self, point: task.Point, weights: dict[str, np.ndarray] | None = None) -> None:
        weights = task.weights(point) if weights is None else weights
        self.point, self.rng = point, np.random.default_rng(1)
        self.embedding = torch.nn.Embedding.from_pretrained(
            torch.from_numpy(weights["embedding"].copy()), freeze=False
        )
        self.layers = (Fused if point.cell in ORDER else Eager)(point, weights)
        self.head = torch.nn.Linear(point.H, task.V)
        self.head.weight.data = torch.from_numpy(weights["head.weight"].T.copy())
        self.head.bias.data = torch.from_numpy(weights["head.bias"].copy())
        parts = (self.embedding, self.layers, self.head)
        self.params = [p for part in parts for p in part.parameters()]
        betas = (task.BETA1, task.BETA2)
        self.adam = torch.optim.Adam(self.params, task.LR, betas, task.EPS, fused=True)

    def loss(self, inputs: np.ndarray, targets: np.ndarray) -> Tensor:
        logits = self.head(self.layers(self.embedding(torch.from_numpy(inputs))))
        aim = torch.from_numpy(targets).long()
        return F.cross_entropy(logits.view(-1, task.V), aim.view(-1))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            loss = self.loss(*task.draw(self.rng, self.point))
            self.adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.params, task.CLIP)
            self.adam.step()

    def gradients(
        self, inputs: np.ndarray, targets: np.ndarray
    ) -> tuple[float, dict[str, np.ndarray]]:
        self.adam.zero_grad()
        loss = self.loss(inputs, targets)
        loss.backward()
        return loss.item(), {
            "embedding": self.embedding.weight.grad.numpy(),
            **self.layers.gradients(),
            "head.weight": self.head.weight.grad.numpy().T,
            "head.bias": self.head.bias.grad.numpy(),
        }


class Generation:
    """`task.CHARACTERS` from `LSTMCell`s, step by step in eager mode, without gradients."""

    def __init__(self, point: task.Point) -> None:
        torch.set_num_threads(1)  # no product here is worth waking a second one
        torch.manual_seed(1)
        self.embedding = torch.nn.Embedding(task.V, point.H)
        self.cells = [torch.nn.LSTMCell(point.H, point.H) for _ in range(point.layers)]
        self.head = torch.nn.Linear(point.H, task.V)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.write()

    @torch.inference_mode()
    def write(self) -> list[int]:
        symbol = torch.zeros(1, dtype=torch.long)
        states = [None] * len(self.cells)
        written = []
        for _ in range(task.CHARACTERS):
            y = self.embedding(symbol)
            for i, cell in enumerate(self.cells):
                states[i] = cell(y, states[i])
                y = states[i][0]
            probabilities = torch.softmax(self.head(y) / task.TEMPERATURE, -1)
            symbol = torch.multinomial(probabilities, 1)[0]
            written.append(symbol)
        return torch.cat(written).tolist()


class Sgemm:
    """Square float32 products: what the machine can do."""

    def __init__(self, point: task.Point | None) -> None:
        self.a, self.b, self.out = (torch.randn(task.SGEMM, task.SGEMM) for _ in range(3))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            torch.mm(self.a, self.b, out=self.out)


def set_threads(n: int) -> None:
    torch.set_num_threads(n)


def version() -> str:
    return f"PyTorch {torch.__version__}"
