"""tinyseq, as a user writes it: modules, a `nn.TrainingStep` with `Adam`, `text.sample`."""

from __future__ import annotations

import numpy as np
import task

import tinyseq as ts
from tinyseq import nn, optim, text

CELLS = tuple(task.GATES)


class DecayingMGU(nn.Cell):
    """A cell of a user's own: a minimal gated unit (Zhou et al., 2016) whose memory also fades.

    f = σ(x w_x + h w_h + b), c̃ = tanh(x w_x + (f·h) w_h + b), h' = σ(decay)·(1 − f)·h + f·c̃.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self._make_gates(2, None)
        self.decay = nn.Parameter(np.full(hidden_size, 3, np.float32))

    def forward(self, x: ts.Tensor, state: tuple[ts.Tensor, ...]) -> tuple[ts.Tensor, ...]:
        (h,) = state
        H = self.hidden_size
        from_x = x @ self.w_x + self.b
        forget = ts.sigmoid(from_x[:, :H] + h @ self.w_h[:, :H])
        candidate = ts.tanh(from_x[:, H:] + (forget * h) @ self.w_h[:, H:])
        return (ts.sigmoid(self.decay) * (1 - forget) * h + forget * candidate,)


def _mode() -> str:
    """Compiled where there is a compiler: a cell that silently ran unrolled would be an error."""
    try:
        nn.Recurrent(nn.RNNCell(1, 1), mode="compiled")
    except (NotImplementedError, ValueError):
        return "auto"
    return "compiled"


def recurrent(cell: str, H: int, layers: int, mode: str = "auto") -> nn.Stacked:
    if cell == "own":
        return nn.Stacked(*(nn.Recurrent(DecayingMGU(H, H), mode=mode) for _ in range(layers)))
    factory, options = {
        "rnn": (nn.RNN, {}),
        "gru": (nn.GRU, {}),
        "gru_before": (nn.GRU, {"variant": "reset_before"}),
        "lstm": (nn.LSTM, {}),
        "peephole": (nn.LSTM, {"peephole": "new"}),
        "layernorm": (nn.LSTM, {"layer_norm": True}),
    }[cell]
    return factory(H, H, layers, mode=mode, **options)


class Training:
    """Full training steps, with fresh inputs in each; dtype: that of the weights."""

    def __init__(self, point: task.Point, weights: dict[str, np.ndarray] | None = None) -> None:
        weights = task.weights(point) if weights is None else weights
        self.point, self.rng = point, np.random.default_rng(1)
        self.embedding = nn.Embedding(task.V, point.H)
        self.layers = recurrent(point.cell, point.H, point.layers, _mode())
        self.head = nn.Linear(point.H, task.V)
        self.named = {"embedding": self.embedding.weight}
        for i, layer in enumerate(self.layers.layers):
            self.named |= {f"{i}.{name}": p for name, p in layer.cell.named_parameters()}
        self.named |= {"head.weight": self.head.weight, "head.bias": self.head.bias}
        if weights["embedding"].dtype == np.float64:
            for module in (self.embedding, self.layers, self.head):
                module.double()
        for name, p in self.named.items():
            p.data[...] = weights[name]
        self.params = list(self.named.values())
        self.adam = optim.Adam(self.params, task.LR, (task.BETA1, task.BETA2), task.EPS)
        self.step = nn.TrainingStep(self.loss, self.adam, task.CLIP, mode=_mode())

    def loss(self, inputs: np.ndarray, targets: np.ndarray) -> ts.Tensor:
        y, _ = self.layers(self.embedding(inputs))
        return ts.functional.cross_entropy(self.head(y), targets)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step(*task.draw(self.rng, self.point))

    def gradients(
        self, inputs: np.ndarray, targets: np.ndarray
    ) -> tuple[float, dict[str, np.ndarray]]:
        self.adam.zero_grad()
        loss = self.loss(inputs, targets)
        loss.backward()
        return loss.item(), {name: p.grad.numpy() for name, p in self.named.items()}


class Generation:
    """`task.CHARACTERS` that a language model writes at batch 1."""

    def __init__(self, point: task.Point) -> None:
        symbols = [chr(ord("0") + i) for i in range(task.V)]
        self.vocabulary = text.Vocabulary(symbols)
        self.model = text.LanguageModel(task.V, point.H, point.layers, point.cell)
        self.rng = np.random.default_rng(1)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            text.sample(
                self.model,
                self.vocabulary,
                self.vocabulary.symbols[0],
                task.CHARACTERS,
                task.TEMPERATURE,
                self.rng,
            )


def version() -> str:
    return f"tinyseq {ts.__version__}, {_mode()}"
