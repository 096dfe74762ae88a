"""Echo state networks: a recurrence that is drawn and never trained, and a linear read-out that is.

The notes' remedy against vanishing gradients that avoids them: none flow through time at all.
"""

from __future__ import annotations

import math

import numpy as np

from tinyseq import errors, op, ops
from tinyseq.arguments import (
    Count,
    Finite,
    Fraction,
    NotNegative,
    Positive,
    Share,
    Size,
    checked,
)
from tinyseq.nn.cells import Cell, State
from tinyseq.nn.layers import Linear
from tinyseq.nn.recurrent import Recurrent, _Around, _running, or_one
from tinyseq.nn.training import evaluation
from tinyseq.random import generator
from tinyseq.tensor import Tensor


class EchoCell(Cell):
    """A leaky recurrence with constant weights: h' = (1 − a)·h + a·tanh(x w_x + h w_h + b).

    ``w_x`` (D, H), ``w_h`` (H, H) and ``b`` (H) are drawn once and are no Parameters: saved and
    loaded with the module, but not trained. Gradients flow through them to x and the state.

    Args:
        spectral_radius: ρ, the largest |eigenvalue| of w_h. Below 1 the influence of the start
            dies out for most inputs (the echo state property), the slower the closer to 1.
        leak: a, above 0, at most 1: how much of the state is new at each step; a small one is slow.
        sparsity: share of the weights in w_h that are 0.
        input_scaling: w_x is drawn from U(−s, s).
        bias_scaling: b is drawn from U(−s, s).

    State (h,). Raises `ValueError` for arguments out of range, and for a w_h that came out without
    a cycle, whose eigenvalues are all 0 and cannot be scaled to any radius. Jaeger, 2001; Jaeger
    et al., 2007 (leak).
    """

    spectral_radius: Positive
    leak: Share
    sparsity: Fraction

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        *,
        spectral_radius: Positive = 0.9,
        leak: Share = 1.0,
        sparsity: Fraction = 0.9,
        input_scaling: Finite = 1.0,
        bias_scaling: Finite = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size)
        self.spectral_radius = float(spectral_radius)
        self.leak = float(leak)
        self.sparsity = float(sparsity)
        rng = generator(rng)
        D, H = self.input_size, self.hidden_size
        drawn = rng.uniform(-1, 1, (H, H)) * (rng.random((H, H)) >= sparsity)
        if not _has_cycle(drawn != 0):
            raise ValueError(
                f"a reservoir of H={H} units with sparsity={sparsity} came out without a cycle, so "
                "that it remembers nothing. Use more units or less sparsity."
            )
        radius = np.abs(np.linalg.eigvals(drawn)).max()
        w_h = drawn * (spectral_radius / radius)
        w_x = rng.uniform(-1, 1, (D, H)) * input_scaling
        b = rng.uniform(-1, 1, H) * bias_scaling
        # Tensors where other cells have Parameters: that is what makes them constants.
        self.w_h = Tensor(w_h, np.float32)
        self.w_x = Tensor(w_x, np.float32)
        self.b = Tensor(b, np.float32)

    def forward(self, x: Tensor, state: State | Tensor | None = None) -> State:
        (h,) = self.check(x, state)
        new = ops.tanh(x @ self.w_x + h @ self.w_h + self.b)
        return (new if self.leak == 1 else (1 - self.leak) * h + self.leak * new,)

    def _describe(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, spectral_radius={self.spectral_radius:g}, "
            f"leak={self.leak:g}, sparsity={self.sparsity:g}"
        )


class EchoState(_Around):
    """An echo state network: a reservoir, and a linear read-out of what it echoes.

    h⟨t⟩ from an `EchoCell` run by `Recurrent`; y⟨t⟩ = [x⟨t⟩, h⟨t⟩] w + b. Called as every recurrent
    layer: ``y, state = esn(x, state=None, lengths=None)``, x (T, B, D) → y (T, B, O). It starts
    from zeros (B, H), a reservoir at rest.

    Only the read-out (``readout.weight``, ``readout.bias``) is a parameter. `fit` solves for it in
    closed form; or train it by gradient as any module, with the loss of your choice. Jaeger, 2001;
    practice: Lukoševičius, 2012.

    Args:
        input_size, hidden_size, output_size: D, H, O.
        spectral_radius, leak, sparsity, input_scaling, bias_scaling: as for `EchoCell`.
    """

    @checked
    def __init__(
        self,
        input_size: Size,
        hidden_size: Size,
        output_size: Size,
        *,
        spectral_radius: Positive = 0.9,
        leak: Share = 1.0,
        sparsity: Fraction = 0.9,
        input_scaling: Finite = 1.0,
        bias_scaling: Finite = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.reservoir = Recurrent(
            EchoCell(
                input_size,
                hidden_size,
                spectral_radius=spectral_radius,
                leak=leak,
                sparsity=sparsity,
                input_scaling=input_scaling,
                bias_scaling=bias_scaling,
                rng=rng,
            )
        )
        self.readout = Linear(input_size + hidden_size, output_size, rng=rng)

    def _inside(self) -> Recurrent:
        return self.reservoir

    @property
    def hidden_size(self) -> int:
        """Of y, as for every layer: O. The reservoir's is ``reservoir.hidden_size``."""
        return self.readout.out_features

    @or_one
    def forward(
        self,
        x: op.TensorLike,
        state: State | None = None,
        lengths: op.TensorLike | None = None,
    ) -> tuple[Tensor, State]:
        features, state = self._features(x, state, lengths)
        y = self.readout(features)
        running = _running(lengths, y)
        return y if running is None else ops.where(running, y, 0.0), state

    def _features(
        self, x: op.TensorLike, state: State | None, lengths: op.TensorLike | None
    ) -> tuple[Tensor, State]:
        x = op.as_tensor(x)
        echoes, state = self.reservoir(x, state, lengths)
        return ops.concat([x, echoes], axis=-1), state

    @checked
    def fit(
        self,
        x: op.TensorLike,
        targets: op.TensorLike,
        *,
        washout: Count = 100,
        ridge: NotNegative = 1e-6,
        state: State | None = None,
        lengths: op.TensorLike | None = None,
    ) -> State:
        """Set the read-out to the least squares solution by ridge regression; the state to go on
        from.

        min over w, b of Σ ‖[x, h] w + b − target‖² + ridge · ‖w‖², over all sequences and the steps
        after the first ``washout``, which still know how the reservoir started. Solved in float64
        by orthogonal decomposition of [F; √ridge·1], F the centred features: no normal equations,
        whose condition is the square. b is not penalised. ``ridge=0`` gives the solution of least
        norm.

        x (T, B, D), targets (T, B, O); with ``lengths`` (B), steps behind the end do not count.
        Raises `ShapeError` or `ValueError`, with the read-out as it was, for sizes that do not fit,
        a washout that leaves nothing, a negative ridge, and numbers that are not finite.
        """
        x, targets = op.as_tensor(x), op.as_tensor(targets)
        with evaluation(self):
            features, state = self._features(x, state, lengths)
        expected = (*x.shape[:2], self.readout.out_features)
        if targets.shape != expected:
            raise errors.ShapeError(
                f"EchoState.fit: targets have shape {errors.describe(targets.shape)}, expected "
                f"(T={expected[0]}, B={expected[1]}, O={expected[2]}): one for each step of x "
                f"{errors.describe(x.shape, 'TBD')}."
            )
        counted = np.ones(x.shape[:2], bool)
        if (running := _running(lengths, x)) is not None:
            counted = running._data[:, :, 0]
        counted[:washout] = False
        if not counted.any():
            raise ValueError(
                f"washout={washout} leaves none of the T={x.shape[0]} steps to fit. Use longer "
                "sequences or a shorter washout."
            )
        F = features._data[counted].astype(np.float64)
        Y = targets._data[counted].astype(np.float64)
        if not (np.isfinite(F).all() and np.isfinite(Y).all()):
            raise ValueError("EchoState.fit: x and targets must be finite; NaN or Inf is in them.")
        mean_F, mean_Y = F.mean(axis=0), Y.mean(axis=0)
        penalty = math.sqrt(ridge) * np.eye(F.shape[1])
        A = np.concatenate([F - mean_F, penalty])
        right = np.concatenate([Y - mean_Y, np.zeros((F.shape[1], Y.shape[1]))])
        w = np.linalg.lstsq(A, right, rcond=None)[0]
        self.readout.weight.data = w.astype(self.readout.weight.dtype)
        assert self.readout.bias is not None
        self.readout.bias.data = (mean_Y - mean_F @ w).astype(self.readout.bias.dtype)
        return state

    @checked
    def generate(
        self, x: op.TensorLike, steps: Size, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Run freely: each output is the next input. x (B, D) first → (steps, B, O), last state.

        Needs O = D (`ValueError` otherwise). In evaluation mode, without a trace in training.
        """
        if self.input_size != self.readout.out_features:
            raise ValueError(
                f"EchoState.generate feeds outputs back as inputs, but O="
                f"{self.readout.out_features} and D={self.input_size} differ."
            )
        y = op.as_tensor(x)[None]
        out = []
        with evaluation(self):
            for _ in range(steps):
                y, state = self(y, state)
                out.append(y)
            assert state is not None
            return ops.concat(out), state


def _has_cycle(edges: np.ndarray) -> bool:
    """Is there a walk of at least H steps among H units? Computed eigenvalues cannot tell: those of
    a matrix without cycles are 0, but come out as large as the H-th root of the rounding.
    """
    walks = edges
    for _ in range(len(edges).bit_length()):
        walks = (walks.astype(np.float32) @ walks.astype(np.float32)) > 0
    return bool(walks.any())
