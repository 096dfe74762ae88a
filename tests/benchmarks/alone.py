"""One peer alone in a fresh process: how long until its first training step, or how much memory.

    python tests/benchmarks/alone.py start tinyseq lstm 128 2 50 50
    python tests/benchmarks/alone.py memory tinyseq lstm 128 2 50 50

Prints JSON. start: seconds of the import and of the first step, and the time at its end. memory:
the peak in MB (Linux only), and how far it lies above what the process holds after a tiny training:
the packages, and whatever they load when they are first used, are not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import task

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def start(peer: str, point: task.Point) -> dict[str, float]:
    begin = time.perf_counter()
    module = __import__(f"peers_{peer}")
    imported = time.perf_counter()
    training = module.Training(point)
    made = time.perf_counter()
    training.run(1)
    step = time.perf_counter() - made
    return {"import": imported - begin, "step": step, "end": time.time()}


def memory(peer: str, point: task.Point) -> dict[str, float]:
    module = __import__(f"peers_{peer}")
    module.Training(task.Point(point.cell, 8, point.layers, 2, 2)).run(3)
    RESET.write_text("5")  # the peak is counted from here
    rest = _megabytes("VmRSS")
    module.Training(point).run(5)
    return {"peak": _megabytes("VmHWM"), "more": _megabytes("VmHWM") - rest}


def _megabytes(name: str) -> float:
    """VmRSS: what the process holds; VmHWM: the most that it has held."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def main(what: str, peer: str, cell: str, *sizes: str) -> None:
    measure = {"start": start, "memory": memory}[what]
    print(json.dumps(measure(peer, task.Point(cell, *map(int, sizes)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
