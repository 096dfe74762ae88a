"""What is measured: training, cells of one's own, generation, start, memory, growth with T and B.

All that is compared takes turns, in an order that rotates, so that the drift of a machine hits
everyone; a row keeps what each contestant did in each turn.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import importing
import seats
import task

HERE = Path(__file__).parent
SGEMM = "sgemm, "  # the beginning of the names that it is measured under
LSTM = "tinyseq's LSTM"
PRODUCTS = {"numpy": "NumPy", "torch": "PyTorch"}  # whose sgemm


@dataclass
class Row:
    """Units a second in every turn: symbols; for sgemm floating-point operations."""

    title: str
    point: task.Point
    speeds: dict[str, list[float]]


class Contestant(NamedTuple):
    name: str
    seat: Any
    kind: str
    point: task.Point
    units: float  # a step


@dataclass
class Bench:
    """The peers in their seats, and how long they are measured."""

    seats: dict[str, Any]
    cells: dict[str, tuple[str, ...]]  # which each peer has
    turns: int
    seconds: float  # a turn, at least
    steps: int | None  # a turn, when given
    progress: Callable[..., Any]

    def measure(self, title: str, contestants: list[Contestant], bar: Any) -> Row:
        bar.set_postfix_str(f"{title}, warming up")
        steps = {}
        for i, c in enumerate(contestants):
            once = c.seat.build(str(i), c.kind, c.point)
            steps[c.name] = self.steps or max(1, math.ceil(self.seconds / once))
        speeds: dict[str, list[float]] = {c.name: [] for c in contestants}
        order = list(enumerate(contestants))
        for turn in range(self.turns):
            bar.set_postfix_str(f"{title}, turn {turn + 1}/{self.turns}")
            for i, c in order:
                time.sleep(seats.PAUSE)
                seconds = c.seat.turn(str(i), steps[c.name])
                speeds[c.name].append(steps[c.name] * c.units / seconds)
            order = order[1:] + order[:1]
        for i, c in enumerate(contestants):
            c.seat.drop(str(i))
        bar.update()
        return Row(title, contestants[0].point, speeds)

    def everyone(self, point: task.Point) -> list[Contestant]:
        return [
            Contestant(peer, self.seats[peer], "Training", point, point.T * point.B)
            for peer in self.seats
            if point.cell in self.cells[peer]
        ]

    def sgemm(self, point: task.Point) -> list[Contestant]:
        return [
            Contestant(SGEMM + PRODUCTS[peer], self.seats[peer], "Sgemm", point, 2 * task.SGEMM**3)
            for peer in self.seats
            if peer in PRODUCTS
        ]

    def training(self, cells: list[str], grid: list[tuple[int, ...]]) -> Iterator[Row]:
        points = [_point(cell, sizes) for sizes in grid for cell in cells]
        with self.progress(total=len(points), desc="training") as bar:
            for point in points:
                yield self.measure(str(point), self.everyone(point) + self.sgemm(point), bar)

    def custom(self, cells: list[str], grid: list[tuple[int, ...]]) -> Iterator[Row]:
        """Cells that no framework ships fused; beside them tinyseq's LSTM, for its speed a flop."""
        points = [_point(cell, sizes) for sizes in grid for cell in cells]
        with self.progress(total=len(points), desc="custom") as bar:
            for point in points:
                lstm = self.everyone(point._replace(cell="lstm"))[0]._replace(name=LSTM)
                contestants = [*self.everyone(point), lstm, *self.sgemm(point)]
                yield self.measure(str(point), contestants, bar)

    def generation(self, H: int = 128) -> Iterator[Row]:
        point = task.Point("lstm", H, 1, 1, 1)
        kinds = [(peer, "Generation", peer) for peer in self.seats]
        if "jax" in self.seats:
            kinds.append(("jax, a call a character", "GenerationByCalls", "jax"))
        contestants = [
            Contestant(name, self.seats[peer], kind, point, task.CHARACTERS)
            for name, kind, peer in kinds
        ]
        with self.progress(total=1, desc="generation") as bar:
            yield self.measure(f"LSTM H={H}, batch 1", contestants, bar)

    def growth(self, lengths: list[int], batches: list[int]) -> Iterator[Row]:
        """tinyseq's LSTM with H=128: symbols a second as T and as B grow."""
        series = {
            "T": [task.Point("lstm", 128, 1, T, 32) for T in lengths],
            "B": [task.Point("lstm", 128, 1, 64, B) for B in batches],
        }
        with self.progress(total=len(series), desc="growth") as bar:
            for letter, points in series.items():
                contestants = [
                    Contestant(
                        f"{letter}={getattr(point, letter)}",
                        self.seats["tinyseq"], "Training", point, point.T * point.B,
                    )
                    for point in points
                ]  # fmt: skip
                yield self.measure(letter, contestants, bar)

    def start(self, point: task.Point, times: int) -> dict[str, Any]:
        """Fresh processes: imports, and the time until the first training step has been done.

        cold: an empty cache of compiled code; warm: the same cache, one process later.
        """
        found: dict[str, Any] = {"point": list(point), "imports": {}, "first step": {}}
        others = [peer for peer in self.seats if peer != "tinyseq"]
        modules = ["numpy", "tinyseq", *(peer for peer in others if peer != "numpy")]
        with (
            self.progress(total=times * (len(modules) + len(others) + 2), desc="start") as bar,
            tempfile.TemporaryDirectory() as folder,
        ):
            for turn in range(times):
                for module in modules:
                    found["imports"].setdefault(module, []).append(importing.seconds(module))
                    bar.update()
                for way, peer in [
                    ("tinyseq, cold", "tinyseq"),
                    ("tinyseq, warm", "tinyseq"),
                    *((peer, peer) for peer in others),
                ]:
                    cache = {"TINYSEQ_CACHE_DIR": str(Path(folder) / str(turn))}
                    began = time.time()
                    run = _alone("start", peer, point, cache)
                    found["first step"].setdefault(way, []).append(
                        {"import": run["import"], "step": run["step"], "all": run["end"] - began}
                    )
                    bar.update()
        return found

    def memory(self, points: list[task.Point]) -> list[dict[str, Any]]:
        """The peak of the resident memory while training, each in a fresh process."""
        peers = list(self.seats)
        rows = []
        with self.progress(total=len(points) * len(peers), desc="memory") as bar:
            for point in points:
                rows.append({"point": list(point), "peers": {}})
                for peer in peers:
                    rows[-1]["peers"][peer] = _alone("memory", peer, point)
                    bar.update()
        return rows


def _point(cell: str, sizes: tuple[int, ...]) -> task.Point:
    H, layers, B, T = sizes
    return task.Point(cell, H, layers, T, B)


def _alone(
    what: str, peer: str, point: task.Point, env: dict[str, str] | None = None
) -> dict[str, float]:
    command = [sys.executable, str(HERE / "alone.py"), what, peer, *map(str, point)]
    run = subprocess.run(
        command, env=os.environ | (env or {}), capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr}")
    return dict(json.loads(run.stdout))
