"""How far back a recurrent network can remember: vanishing and exploding gradients, measured.

    python demos/memory.py

Two problems with a known lag, both from the literature, stand for all that a sequence may ask for:

adding    numbers between 0 and 1 go by, and two of them are marked, one in each half: what is their
          sum? Saying 1 whatever comes has a mean squared error of 1/6 = 0.167. (Hochreiter and
          Schmidhuber, 1997, as Le, Jaitly and Hinton put it in 2015)
copying   five symbols, drawn out of eight, then as many blanks as the lag says, then a signal five
          times: repeat the symbols. Guessing has 1 in 8 right. (Hochreiter and Schmidhuber, 1997)

An RNN, a GRU and an LSTM of about the same number of parameters learn each problem at each lag, in
the same number of steps; an echo state network, which learns nothing but its read-out, by least
squares, stands beside them. The picture also shows how much of a gradient arrives k steps back, and
what clipping does for a network whose gradients explode.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import common  # before NumPy, whose threads it sets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import tinyseq as ts
from tinyseq import functional, nn, optim

LAGS = (10, 20, 50, 100, 200)
STEPS, BATCH = 2000, 32
TESTED = 1000  # fresh sequences that a trained network is measured on
FAR = 200  # how far back gradients are followed
TRAINED_LAG = 100  # of the adding problem, for the gradients after training

# About 10,000 parameters each. The learning rates of Adam: what did well in a few trials.
CELLS: dict[str, tuple[Callable[[int], nn.Module], float]] = {
    "RNN": (lambda D: nn.RNNCell(D, 97), 0.002),
    "GRU": (lambda D: nn.GRUCell(D, 56), 0.01),
    "LSTM": (lambda D: nn.LSTMCell(D, 48), 0.01),
}
ECHO, ECHO_FITTED = "echo state", 2000  # sequences that the read-out is fitted to

CLIPPED_LAG, CLIPPED_STEPS = 20, 500
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)  # of SGD, in the comparison of clipping
MAX_NORM = 1.0

Draw = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]


class Problem(NamedTuple):
    """Sequences x (T, B, D), and what the last K outputs should be, (K, B, O)."""

    name: str
    inputs: int  # D
    outputs: int  # O
    read: int  # K
    draw: Draw  # from a generator, the lag and B
    loss: Callable[[ts.Tensor, ts.Tensor], ts.Tensor]
    score: Callable[[np.ndarray, np.ndarray], float]
    score_name: str
    chance: float  # the score of a network that remembers nothing


# -- the two problems -----------------------------------------------------------------------------


def draw_adding(rng: np.random.Generator, lag: int, B: int) -> tuple[np.ndarray, np.ndarray]:
    """Each step is (number, mark); as many steps as the lag, the first mark in the first half."""
    numbers, marks = rng.random((lag, B)), np.zeros((lag, B))
    marks[rng.integers(0, lag // 2, B), np.arange(B)] = 1
    marks[rng.integers(lag // 2, lag, B), np.arange(B)] = 1
    x = np.stack([numbers, marks], axis=-1).astype(np.float32)
    return x, (numbers * marks).sum(axis=0).astype(np.float32)[None, :, None]


def draw_copying(rng: np.random.Generator, lag: int, B: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols 0 … 7, then 8, the blank, then 9, the signal to repeat them; all one-hot."""
    symbols = rng.integers(0, 8, (5, B))
    x = np.concatenate([symbols, np.full((lag, B), 8), np.full((5, B), 9)])
    return functional.one_hot(x, 10).numpy(), functional.one_hot(symbols, 8).numpy()


def squared_error(y: np.ndarray, targets: np.ndarray) -> float:
    return float(np.mean((y - targets) ** 2))


def share_right(y: np.ndarray, targets: np.ndarray) -> float:
    return float(np.mean(y.argmax(axis=-1) == targets.argmax(axis=-1)))


ADDING = Problem(
    "adding", 2, 1, 1, draw_adding, functional.mse_loss,
    squared_error, "mean squared error", 1 / 6,
)  # fmt: skip
COPYING = Problem(
    "copying", 10, 8, 5, draw_copying, functional.cross_entropy,
    share_right, "share of symbols right", 1 / 8,
)  # fmt: skip


# -- networks that learn by gradient --------------------------------------------------------------


class Network(nn.Module):
    """A recurrent layer, and a linear one that reads its last outputs."""

    def __init__(self, cell: nn.Module, outputs: int) -> None:
        self.recurrent = nn.Recurrent(cell)
        self.head = nn.Linear(self.recurrent.hidden_size, outputs)

    def forward(self, x: ts.Tensor | np.ndarray, read: int) -> ts.Tensor:
        h, _ = self.recurrent(x)
        y: ts.Tensor = self.head(h[-read:])
        return y


def train(run: common.Run, problem: Problem, name: str, lag: int) -> tuple[Network, float]:
    """A network trained on one problem at one lag, and its score on sequences it has not seen."""
    make_cell, lr = CELLS[name]
    ts.seed(run.seed)
    rng = np.random.default_rng([run.seed, lag])
    network = Network(make_cell(problem.inputs), problem.outputs)
    adam = optim.Adam(network.parameters(), lr=lr)

    def loss(x: ts.Tensor, targets: ts.Tensor) -> ts.Tensor:
        return problem.loss(network(x, problem.read), targets)

    train_on = nn.TrainingStep(loss, adam, MAX_NORM)
    for step in run.steps(STEPS, f"{problem.name}, lag {lag}, {name}"):
        adam.lr = lr * (1 + math.cos(math.pi * step / STEPS)) / 2
        train_on(*problem.draw(rng, lag, BATCH))
    x, targets = problem.draw(rng, lag, TESTED)
    with nn.evaluation(network):
        return network, problem.score(network(x, problem.read).numpy(), targets)


# -- an echo state network ------------------------------------------------------------------------


def echo_state(inputs: int, outputs: int, seed: int) -> nn.EchoState:
    """A reservoir that forgets slowly: its spectral radius is 1, and its inputs are so small that
    tanh is all but linear. What is linear remembers longest, but it cannot multiply.
    """
    return nn.EchoState(
        inputs, 500, outputs, spectral_radius=1.0, input_scaling=0.03,
        rng=np.random.default_rng(seed),
    )  # fmt: skip


def fit(run: common.Run, problem: Problem, lag: int) -> float:
    """The score of an echo state network whose read-out is fitted to the last K steps."""
    rng = np.random.default_rng([run.seed, lag])
    network = echo_state(problem.inputs, problem.outputs, run.seed)

    def echoes(x: np.ndarray) -> nn.State:
        """The state before those steps, of some sequences at a time: there are T·B·H numbers."""
        states = []
        with nn.evaluation(network):
            for b in range(0, x.shape[1], 100):
                _, (h,) = network.reservoir(x[: -problem.read, b : b + 100])
                states.append(h.numpy())
        return (ts.tensor(np.concatenate(states)),)

    x, targets = problem.draw(rng, lag, ECHO_FITTED)
    network.fit(x[-problem.read :], targets, washout=0, state=echoes(x))
    x, targets = problem.draw(rng, lag, TESTED)
    with nn.evaluation(network):
        y, _ = network(x[-problem.read :], echoes(x))
    return problem.score(y.numpy(), targets)


# -- gradients ------------------------------------------------------------------------------------


def gradient_by_lag(layer: nn.Recurrent, rng: np.random.Generator) -> np.ndarray:
    """‖∂(r·h⟨T⟩) / ∂x⟨T−k⟩‖ for k = 0, 1, … FAR, in random directions r of length 1: the mean
    over sequences of the adding problem, relative to k = 0.
    """
    x = ts.tensor(draw_adding(rng, FAR + 1, BATCH)[0], requires_grad=True)
    h, _ = layer(x)
    r = rng.standard_normal(h[-1].shape).astype(np.float32)
    r /= np.linalg.norm(r, axis=-1, keepdims=True)
    (gradient,) = ts.grad((h[-1] * r).sum(), [x])
    norms = np.linalg.norm(gradient.numpy(), axis=-1).mean(axis=-1)[::-1]
    return np.asarray(norms / norms[0], float)


def train_by_sgd(run: common.Run, lr: float, max_norm: float) -> float:
    """The last tenth's mean loss of an RNN with ReLU that starts from w_h = 1 (Le et al., 2015), on
    the adding problem; infinite when it diverges. Nothing in it holds a gradient back.
    """
    ts.seed(run.seed)
    rng = np.random.default_rng(run.seed)
    cell = nn.RNNCell(2, 97, "relu", init=(nn.init.glorot_uniform, nn.init.orthogonal))
    cell.w_h.data = np.eye(97, dtype=np.float32)
    network = Network(cell, 1)
    sgd = optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    losses = []
    clipping = "with clipping" if math.isfinite(max_norm) else "without clipping"
    for _ in run.steps(CLIPPED_STEPS, f"{clipping}, learning rate {lr:g}"):
        x, targets = draw_adding(rng, CLIPPED_LAG, BATCH)
        sgd.zero_grad()
        with np.errstate(over="ignore", invalid="ignore"):
            loss = functional.mse_loss(network(x, 1), targets)
            losses.append(loss.item())
            if not losses[-1] < 1e6:
                return math.inf
            loss.backward()
            if math.isfinite(max_norm):
                optim.clip_grad_norm(network.parameters(), max_norm)
            sgd.step()
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


# -- the demo -------------------------------------------------------------------------------------


def demo(run: common.Run) -> None:
    gradients: dict[str, np.ndarray] = {}
    for name, (make_cell, _) in CELLS.items():
        ts.seed(run.seed)
        gradients[name] = gradient_by_lag(nn.Recurrent(make_cell(2)), run.rng)
    gradients[ECHO] = gradient_by_lag(echo_state(2, 1, run.seed).reservoir, run.rng)

    scores: dict[str, dict[str, list[float]]] = {}
    for problem in (ADDING, COPYING):
        run.say(f"{problem.name}: {problem.score_name} (chance: {problem.chance:.3f})")
        run.say("       lag " + "".join(f"{lag:8d}" for lag in LAGS))
        of_problem = scores[problem.name] = {}
        for name in CELLS:
            of_problem[name] = []
            for lag in LAGS:
                network, score = train(run, problem, name, lag)
                of_problem[name].append(score)
                if problem is ADDING and lag == TRAINED_LAG:
                    gradients[f"{name}, trained"] = gradient_by_lag(network.recurrent, run.rng)
            run.say(f"{name:>10} " + "".join(f"{score:8.3f}" for score in of_problem[name]))
        of_problem[ECHO] = [fit(run, problem, lag) for lag in LAGS]
        run.say(f"{ECHO:>10} " + "".join(f"{score:8.3f}" for score in of_problem[ECHO]) + "\n")

    run.say(f"gradient that arrives k steps back, relative to k = 0 (trained: at {TRAINED_LAG})")
    shown = [k for k in (10, 50, 100, 200) if k <= FAR]
    run.say(" " * 14 + "k " + "".join(f"{k:10d}" for k in shown))
    for name, norms in gradients.items():
        run.say(f"{name:>15} " + "".join(f"{norms[k]:10.1e}" for k in shown))

    clipping = {
        f"clipped to {MAX_NORM:g}": [train_by_sgd(run, lr, MAX_NORM) for lr in RATES],
        "not clipped": [train_by_sgd(run, lr, math.inf) for lr in RATES],
    }
    run.say(f"\nRNN with ReLU, adding at lag {CLIPPED_LAG}: mean squared error by learning rate")
    run.say(" " * 16 + "".join(f"{lr:8g}" for lr in RATES))
    for name, losses in clipping.items():
        run.say(f"{name:>15} " + "".join(f"{loss:8.3f}" for loss in losses))

    run.write_numbers(
        {
            "lags": LAGS,
            "scores": scores,
            "chance": {problem.name: problem.chance for problem in (ADDING, COPYING)},
            "gradient_by_lag": gradients,
            "learning_rates": RATES,
            "clipping": {  # null: diverged, for JSON has no number for it
                name: [loss if math.isfinite(loss) else None for loss in losses]
                for name, losses in clipping.items()
            },
        }
    )
    run.write_figure(draw(gradients, scores, clipping))


def draw(
    gradients: dict[str, np.ndarray],
    scores: dict[str, dict[str, list[float]]],
    clipping: dict[str, list[float]],
) -> Figure:
    """All of it on one sheet."""
    colours = {name: f"C{i}" for i, name in enumerate([*CELLS, ECHO])}
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    ((by_lag, adding), (clipped, copying)) = figure.subplots(2, 2)

    for name, norms in gradients.items():
        cell, *trained = name.split(", ")
        style = "--" if trained else "-"
        by_lag.semilogy(np.maximum(norms, 1e-12), style, color=colours[cell], label=name)
    by_lag.set_ylim(1e-10, None)
    label(by_lag, "Gradient that arrives k steps back", "k", "relative to k = 0")

    for axes, problem in ((adding, ADDING), (copying, COPYING)):
        for name, values in scores[problem.name].items():
            axes.plot(LAGS, values, "o-", color=colours[name], label=name)
        axes.axhline(problem.chance, color="grey", linestyle=":", label="chance")
        axes.set_xscale("log")
        axes.set_xticks(LAGS, [str(lag) for lag in LAGS])
        axes.minorticks_off()
        label(axes, f"The {problem.name} problem", "lag", problem.score_name)
    adding.set_ylim(0, None)
    copying.set_ylim(0, 1.05)

    top = 2.5 * ADDING.chance
    for (name, losses), marker in zip(clipping.items(), "os", strict=True):
        clipped.semilogx(RATES, np.minimum(losses, top), f"{marker}-", label=name, clip_on=False)
    clipped.axhline(ADDING.chance, color="grey", linestyle=":", label="chance")
    clipped.set_ylim(0, top)
    title = f"Clipping: an RNN with ReLU, adding at lag {CLIPPED_LAG}"
    label(clipped, title, "learning rate of SGD", "mean squared error (at the top: more)")
    return figure


def label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def main(arguments: list[str] | None = None) -> int:
    return common.run_demo(demo, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
