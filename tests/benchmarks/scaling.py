"""How long a step of training takes on many ranks: measured here, predicted for networks.

    python tests/benchmarks/scaling.py            # prints the tables of docs/scaling.md; minutes
    python tests/benchmarks/scaling.py --quick    # fewer rounds, the main job's network alone

Needs mpi4py and mpiexec. A step on N ranks takes what a rank computes, with its share of the batch,
and an Allreduce of the gradients::

    step(N) = compute(B / N) · max(1, N / cores) + allreduce(N, bytes)
    compute(b) = fixed + each · b, for b sequences, on one thread beside busy ones
    allreduce(N, n) = 2 ⌈log₂ N⌉ · latency + 2 (N − 1) / N · n / bandwidth

which is that of recursive halving and doubling, or of a ring (Thakur, Rabenseifner and Gropp,
2005). Processes are started anew, in turns. What is given is the fastest step of a round, which
other programs on the machine disturb least, and of all rounds the median.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

V, T = 65, 64


class Net(NamedTuple):
    """An LSTM character model, and the sequences in its batch on one rank."""

    H: int
    layers: int
    B: int

    @property
    def bytes(self) -> int:
        """Of its gradients."""
        inputs = [self.H] * self.layers
        cells = sum(4 * self.H * (D + self.H + 1) for D in inputs)
        return 4 * (V * self.H + cells + self.H * V + V)

    def __str__(self) -> str:
        return f"{self.layers}×{self.H} LSTM"


NETS = [Net(256, 1, 16), Net(512, 2, 16)]  # the main job's, and a large one
NETWORKS = {  # bandwidth in bits/s, and the latency of a message in seconds, as is usual for each
    "1 Gb/s": (1e9, 50e-6),
    "10 Gb/s": (10e9, 20e-6),
    "100 Gb/s": (100e9, 2e-6),
}
RANKS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]


def allreduce(ranks: int, n: int, bandwidth: float, latency: float) -> float:
    """Seconds for n bytes over a network of so many bits/s."""
    if ranks == 1:
        return 0.0
    return 2 * math.ceil(math.log2(ranks)) * latency + 16 * (ranks - 1) / ranks * n / bandwidth


# -- on each rank ---------------------------------------------------------------------------------


def on_a_rank(net: Net, batches: list[int], threads: int, steps: int) -> None:
    """Seconds of steps by itself with batches of these sizes, of one with all others, with the last
    of them, and of an Allreduce; rank 0 prints them.
    """
    import numpy as np
    from mpi4py import MPI

    import tinyseq as ts
    from tinyseq import functional, nn, optim, text

    comm = MPI.COMM_WORLD
    ts.set_num_threads(threads)
    rng = np.random.default_rng(comm.Get_rank())

    def step_of(b: int, among: Any) -> Callable[[], object]:
        model = text.LanguageModel(V, net.H, net.layers, "lstm", mode="compiled")

        def loss(x: ts.Tensor, y: ts.Tensor, state: Any) -> Any:
            logits, state = model(x, state)
            return functional.cross_entropy(logits, y), state

        step = nn.TrainingStep(loss, optim.Adam(model.parameters()), max_norm=1.0, comm=among)
        state = [model.initial_state(b)]
        x, y = rng.integers(0, V, (2, T, b))

        def once() -> None:
            state[0] = step(x, y, state[0], weight=y.size)[1]

        for _ in range(4):
            once()
        return once

    alone = {b: step_of(b, MPI.COMM_SELF) for b in batches}
    together = step_of(batches[-1], comm)
    sent = np.zeros(net.bytes // 4, np.float32)
    received = np.zeros_like(sent)
    reduce = {
        "allreduce": lambda: comm.Allreduce(sent, received),
        "latency": lambda: comm.Allreduce(sent[:2], received[:2]),
    }
    jobs: dict[str, Callable[[], object]] = {f"{b}": once for b, once in alone.items()}
    jobs |= {"together": together, **reduce}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(steps):
        for name, job in jobs.items():
            comm.Barrier()
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    every = comm.gather({name: min(s) for name, s in seconds.items()})
    if comm.Get_rank() == 0:
        print(json.dumps({name: max(e[name] for e in every) for name in jobs}))


# -- all of it ------------------------------------------------------------------------------------


def started(ranks: int, *arguments: Any) -> dict[str, float]:
    beside = Path(sys.executable).parent
    mpiexec = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")
    if mpiexec is None:
        raise SystemExit("error: no mpiexec: pip install mpi4py mpich")
    command = [mpiexec, "-n", str(ranks), sys.executable, __file__, "rank", json.dumps(arguments)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def measured(net: Net, rounds: int, steps: int, cores: int) -> dict[str, dict[str, float]]:
    """Medians over rounds of a rank on each core by itself, of one process with all cores, and of
    2 and 4 ranks.
    """
    shares = [max(1, net.B // n) for n in (8, 4, 2, 1)]
    programs = {
        "one": (cores, net, shares, 1, steps),
        "threads": (1, net, [net.B], cores, steps),
        **{f"{n} ranks": (n, net, [net.B // n], 1, steps) for n in (2, 4)},
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            found[name].append(started(*program))
    return {
        name: {key: statistics.median(f[key] for f in each) for key in each[0]}
        for name, each in found.items()
    }


def fitted(seconds: dict[str, float]) -> tuple[float, float]:
    """(fixed, each) of compute(b): the least squares of relative errors."""
    sizes = [float(b) for b in seconds if b.isdecimal()]
    times = [seconds[b] for b in seconds if b.isdecimal()]
    w = [1 / t**2 for t in times]
    mean_b = sum(map(lambda w, b: w * b, w, sizes)) / sum(w)
    mean_t = sum(map(lambda w, t: w * t, w, times)) / sum(w)
    slope = sum(w * (b - mean_b) * (t - mean_t) for w, b, t in zip(w, sizes, times, strict=True))
    slope /= sum(w * (b - mean_b) ** 2 for w, b in zip(w, sizes, strict=True))
    return mean_t - slope * mean_b, slope


def tables(net: Net, found: dict[str, dict[str, float]], cores: int) -> Iterator[str]:
    fixed, each = fitted(found["one"])
    ms = 1e3
    yield f"\n### {net}, {net.bytes / 1e6:.2f} MB of gradients, T {T}\n"
    yield f"compute(b) = {fixed * ms:.2f} ms + b · {each * ms:.3f} ms, on each of {cores} cores\n"
    yield "| here | step, ms | predicted | difference | Allreduce, ms | of 8 bytes, µs |"
    yield "| --- | --- | --- | --- | --- | --- |"
    whole = found["threads"]
    yield f"| one process, {cores} threads | {whole['together'] * ms:.2f} | | | | |"
    for n in (2, 4):
        there = found[f"{n} ranks"]
        step, reduce = there["together"], there["allreduce"]
        predicted = (fixed + each * net.B / n) * max(1, n / cores) + reduce
        yield (
            f"| {n} ranks, one thread | {step * ms:.2f} | {predicted * ms:.2f} "
            f"| {predicted / step - 1:+.0%} | {reduce * ms:.2f} | {there['latency'] * 1e6:.0f} |"
        )
    ratio = found["2 ranks"]["together"] / whole["together"]
    yield f"\n2 ranks take {ratio:.2f} times as long as one process with {cores} threads."
    for title, share in (
        (f"{net.B} sequences a rank: the batch grows", lambda n: net.B),
        (f"{net.B} sequences in all, shared out", lambda n: net.B / n),
    ):
        yield f"\n| {title} | " + " | ".join(f"{name}, ms | gain" for name in NETWORKS) + " |"
        yield "| --- |" + " --- | --- |" * len(NETWORKS)
        for n in RANKS:
            if share(n) < 1:
                break
            cells = []
            for bandwidth, latency in NETWORKS.values():
                step = fixed + each * share(n) + allreduce(n, net.bytes, bandwidth, latency)
                gain = n * share(n) / step / (net.B / (fixed + each * net.B))
                cells.append(f"{step * ms:.1f} | {gain:.3g}×")
            yield f"| {n:,d} | " + " | ".join(cells) + " |"


def main() -> None:
    if sys.argv[1:2] == ["rank"]:
        net, *rest = json.loads(sys.argv[2])
        on_a_rank(Net(*net), *rest)
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, the small network")
    quick = parser.parse_args().quick
    rounds, steps = (3, 20) if quick else (7, 40)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"load {os.getloadavg()[0]:.1f} on {cores} cores, {rounds} rounds of {steps} steps")
    for net in NETS[: 1 if quick else None]:
        for line in tables(net, measured(net, rounds, steps, cores or 1), cores or 1):
            print(line, flush=True)


if __name__ == "__main__":
    main()
