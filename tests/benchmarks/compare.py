"""tinyseq, PyTorch, JAX and a plain NumPy loop side by side, in turns, in one run.

    pip install -e '.[bench]' && python tests/benchmarks/compare.py

Full training steps over a grid of sizes, cells that no framework ships fused, generation, start,
memory, growth with T and B; with --check, whether all compute the same. Each peer has a process of
its own and one of them works at a time; what counts is the median over the turns of the ratio of
two speeds. Tables go to the screen, and with a plot and all raw figures to --out. Peers that are
not installed are left out. The whole run takes some fifteen minutes, and wants an idle machine:
whoever has threads that wait for each other loses most to other programs.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import sys
from functools import partial
from pathlib import Path
from typing import Any

import report
import seats
import task
from sections import Bench

SECTIONS = ("training", "custom", "generation", "growth", "start", "memory")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    p.add_argument(
        "--grid", nargs="+", type=_sizes, metavar="H,layers,B,T",
        help="instead of the usual points, of training and of custom cells alike",
    )  # fmt: skip
    p.add_argument(
        "--cells", nargs="+", choices=[*task.CELLS, *task.CUSTOM_CELLS], default=list(task.GATES)
    )
    p.add_argument("--peers", nargs="*", choices=["torch", "jax", "numpy"])
    p.add_argument("--turns", type=_at_least_one, default=7)
    p.add_argument(
        "--steps", type=_at_least_one, help="a turn; by default as many as --seconds need"
    )
    p.add_argument("--seconds", type=float, default=0.4, help="a turn, at least")
    p.add_argument("--threads", type=_at_least_one, default=2)
    p.add_argument("--quick", action="store_true", help="small points, few turns: a smoke test")
    p.add_argument("--one-process", action="store_true", help="all peers in this one, no pauses")
    p.add_argument("--check", action="store_true", help="compare loss and gradients, not speed")
    p.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    return p


def _at_least_one(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, at least 1")
    return int(text)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        H, layers, B, T = (_at_least_one(n) for n in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not four whole numbers H,layers,B,T"
        ) from None
    return H, layers, B, T


def take_seats(args: argparse.Namespace) -> dict[str, Any]:
    """tinyseq and the peers that are installed."""
    asked = ["torch", "jax", "numpy"] if args.peers is None else args.peers
    there = [peer for peer in asked if importlib.util.find_spec(peer)]
    for peer in sorted(set(asked) - set(there)):
        print(f"{report.NAMES[peer]} is not installed and left out.", file=sys.stderr)
    seat = seats.Seat if args.one_process else seats.Child
    return {peer: seat(peer, args.threads) for peer in ["tinyseq", *there]}


def check(seated: dict[str, Any], cells: list[str]) -> float:
    """Print how far each peer's loss and gradients lie from tinyseq's, and give the largest."""
    import numpy as np

    worst = 0.0
    for cell in cells:
        point = task.Point(cell, 64, 2, 20, 5)
        weights = task.weights(point)
        call = (point, weights, *task.draw(np.random.default_rng(0), point))
        loss, ours = seated["tinyseq"].gradients(*call)
        for peer, seat in seated.items():
            if peer == "tinyseq" or cell not in seat.cells():
                continue
            other, theirs = seat.gradients(*call)
            far = {n: np.abs(theirs[n] - g).max() / np.abs(g).max() for n, g in ours.items()}
            far["loss"] = abs(other - loss) / abs(loss)
            name = max(far, key=far.__getitem__)
            print(f"{report.TITLES[cell]:30} {report.NAMES[peer]:8} {far[name]:.1e} ({name})")
            worst = max(worst, float(far[name]))
    return worst


def machine() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.exists() else []
    name = next((n.split(":")[1].strip() for n in names if n.startswith("model name")), "")
    return f"{os.cpu_count()} × {name or platform.processor() or platform.machine()}"


def main() -> None:
    args = parser().parse_args()
    seats.limit_threads(args.threads)
    from tqdm import tqdm

    if args.quick:
        args.turns, args.seconds = min(args.turns, 2), min(args.seconds, 0.02)
    if args.one_process:
        seats.PAUSE = 0.0
    seated = take_seats(args)
    if args.check:
        worst = check(seated, args.cells)
        sys.exit(f"{worst:.1e} is too far: they do not compute the same." if worst > 1e-4 else 0)

    bench = Bench(
        seated,
        {peer: seat.cells() for peer, seat in seated.items()},
        args.turns,
        args.seconds,
        args.steps,
        partial(tqdm, leave=False, disable=None),
    )
    some = slice(2) if args.quick else slice(None)
    grid, custom_grid = args.grid or task.GRID, args.grid or task.CUSTOM_GRID
    if args.quick:
        grid = custom_grid = grid[:1]
    memory_points = [task.Point("lstm", H, 2, T, B) for H, B, T in [(128, 50, 50), (512, 64, 64)]]
    lengths, batches = [16, 32, 64, 128, 256, 512][some], [8, 16, 32, 64, 128, 256][some]
    work = {
        "training": lambda: bench.training([c for c in task.CELLS if c in args.cells], grid),
        "custom": lambda: bench.custom(
            [c for c in task.CUSTOM_CELLS if c in args.cells], custom_grid
        ),
        "generation": bench.generation,
        "growth": lambda: bench.growth(lengths, batches),
        "start": lambda: bench.start(task.Point("lstm", 128, 2, 50, 50), 1 if args.quick else 3),
        "memory": lambda: bench.memory(memory_points[:1] if args.quick else memory_points),
    }
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    if load > 0.5:
        print(f"Other programs use the machine (load {load:.1f}): no fair race.", file=sys.stderr)
    about = {
        "machine": machine(),
        "load": load,
        "threads": args.threads,
        "turns": args.turns,
        "versions": {peer: seat.version() for peer, seat in seated.items()},
    }
    results: dict[str, Any] = {}
    text = ""
    for name in SECTIONS:
        if name not in args.only:
            continue
        found = work[name]()
        results[name] = found if isinstance(found, dict | list) else []
        try:
            if results[name] is not found:
                results[name].extend(found)  # row by row: each takes a while
        finally:  # a run that is stopped keeps what it has measured
            text = report.write(args.out, about, results)
    print(text)
    print(f"{args.out}/benchmarks.md, .json and .png", file=sys.stderr)


if __name__ == "__main__":
    main()
