"""A full training step of a character model, tinyseq and PyTorch side by side in one run.

    pip install -e '.[bench]' && python tests/benchmarks/training.py

Embedding, 2×128 LSTM, head, cross-entropy, backward, clipping, Adam: the same sizes, the same
number of threads. The two take turns, a few steps each, and what counts is the median over the
turns of the ratio of their speeds: machines drift, and a drift hits both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable


def tinyseq_step(V: int, H: int, layers: int, T: int, B: int) -> Callable[[], None]:
    import numpy as np

    import tinyseq as ts
    from tinyseq import nn, optim

    embedding, lstm, head = nn.Embedding(V, H), nn.LSTM(H, H, layers), nn.Linear(H, V)
    params = [p for module in (embedding, lstm, head) for p in module.parameters()]
    adam = optim.Adam(params, lr=2e-3)
    rng = np.random.default_rng(0)

    def step() -> None:
        inputs, targets = rng.integers(0, V, (2, T, B))
        y, _ = lstm(embedding(inputs))
        loss = ts.functional.cross_entropy(head(y), targets)
        adam.zero_grad()
        loss.backward()
        optim.clip_grad_norm(params, 5.0)
        adam.step()

    return step


def torch_step(V: int, H: int, layers: int, T: int, B: int) -> Callable[[], None]:
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    embedding, lstm = torch.nn.Embedding(V, H), torch.nn.LSTM(H, H, layers)
    head = torch.nn.Linear(H, V)
    params = [p for module in (embedding, lstm, head) for p in module.parameters()]
    adam = torch.optim.Adam(params, lr=2e-3)

    def step() -> None:
        inputs, targets = torch.randint(0, V, (2, T, B))
        y, _ = lstm(embedding(inputs))
        loss = torch.nn.functional.cross_entropy(head(y).reshape(-1, V), targets.reshape(-1))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 5.0)
        adam.step()

    return step


def compare(args: argparse.Namespace) -> None:
    sizes = (args.vocabulary, args.hidden, args.layers, args.seq_len, args.batch_size)
    steps = {"tinyseq": tinyseq_step(*sizes), "PyTorch": torch_step(*sizes)}
    for step in steps.values():
        step()
        step()
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    symbols = args.seq_len * args.batch_size * args.steps
    for _ in range(args.turns):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(args.steps):
                step()
            speeds[name].append(symbols / (time.perf_counter() - start))
    pairs = zip(speeds["tinyseq"], speeds["PyTorch"], strict=True)
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    ours, theirs = (sorted(s)[args.turns // 2] for s in speeds.values())
    n = os.environ["OMP_NUM_THREADS"]
    print(
        f"{n} thread{'s' if n != '1' else ' '}  tinyseq {ours:9,.0f} chars/s   PyTorch "
        f"{theirs:9,.0f} "
        f"chars/s   ratio {ratios[args.turns // 2]:.2f}  (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--seq-len", type=int, default=50)
    parser.add_argument("--vocabulary", type=int, default=65)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        compare(args)
        return
    print(
        f"{args.layers}×{args.hidden} LSTM, B={args.batch_size}, T={args.seq_len}, unrolled, "
        f"median of {args.turns} turns of {args.steps} steps"
    )
    for n in args.threads:  # thread pools are sized when the libraries load: a process each
        env = os.environ | {f"{lib}_NUM_THREADS": str(n) for lib in ("OMP", "OPENBLAS", "MKL")}
        subprocess.run([sys.executable, __file__, "--child", *sys.argv[1:]], env=env, check=True)


if __name__ == "__main__":
    main()
