"""From the measured speeds to a table, a plot and a JSON file.

A ratio is the median over the turns of the ratio of two speeds in the same turn, and the best peer
is the one against which tinyseq's ratio is least.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import task
from sections import LSTM, SGEMM, Row

NAMES = {"tinyseq": "tinyseq", "torch": "PyTorch", "jax": "JAX", "numpy": "NumPy"}
COLOURS = {"rnn": "#4e79a7", "gru": "#59a14f", "lstm": "#e15759"}
TITLES = task.CELLS | task.CUSTOM_CELLS


def ratio(row: Row, peer: str) -> float:
    """How many times as fast as the peer tinyseq was."""
    pairs = zip(row.speeds["tinyseq"], row.speeds[peer], strict=True)
    return median(ours / theirs for ours, theirs in pairs)


def peers(row: Row) -> list[str]:
    """Who is compared with tinyseq in this row."""
    return [p for p in row.speeds if p not in ("tinyseq", LSTM) and not p.startswith(SGEMM)]


def best(row: Row) -> str | None:
    """The peer that is hardest to beat, or `None` where tinyseq ran alone."""
    return min(peers(row), key=lambda peer: ratio(row, peer), default=None)


def share(row: Row) -> float | None:
    """Of the machine's sgemm in the same turns, the best of those measured."""
    products = [speeds for name, speeds in row.speeds.items() if name.startswith(SGEMM)]
    if not products:
        return None
    work = task.flops(row.point) / (row.point.T * row.point.B)
    turns = zip(row.speeds["tinyseq"], *products, strict=True)
    return median(work * ours / max(others) for ours, *others in turns)


def per_flop(row: Row) -> float:
    """tinyseq's speed a flop, relative to its LSTM's."""
    lstm = row.point._replace(cell="lstm")
    work = task.flops(row.point) / task.flops(lstm)
    pairs = zip(row.speeds["tinyseq"], row.speeds[LSTM], strict=True)
    return work * median(own / reference for own, reference in pairs)


def speed(values: list[float] | None) -> str:
    """Thousands a second."""
    return "–" if values is None else f"{median(values) / 1e3:.3g}"


def _mean(values: Iterable[float]) -> str:
    found = list(values)
    return f"**{geometric_mean(found):.2f}**" if found else "–"


def _table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    lines = [head, ["---"] * left + ["--:"] * (len(head) - left), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def training_table(rows: list[Row], custom: bool = False) -> str:
    """Thousand symbols a second, ratios, the share of sgemm; geometric means at the end."""
    them = [peer for peer in NAMES if any(peer in row.speeds for row in rows)]
    last = ["speed a flop / LSTM's"] if custom else []
    head = [
        "H, layers, B, T",
        "cell",
        *(NAMES[p] for p in them),
        *(f"÷ {NAMES[p]}" for p in them[1:]),
    ]
    head += ["÷ best", "share of sgemm", *last]
    lines = []
    for row in rows:
        p = row.point
        line = [f"{p.H}, {p.layers}, {p.B}, {p.T}", TITLES[p.cell]]
        line += [speed(row.speeds.get(peer)) for peer in them]
        line += [f"{ratio(row, q):.2f}" if q in row.speeds else "–" for q in them[1:]]
        hardest, part = best(row), share(row)
        line.append("–" if hardest is None else f"**{ratio(row, hardest):.2f}** {NAMES[hardest]}")
        line.append("–" if part is None else f"{part:.0%}")
        lines.append(line + ([f"{per_flop(row):.2f}"] if custom else []))
    for cell in [*dict.fromkeys(row.point.cell for row in rows), None]:
        some = [row for row in rows if cell in (None, row.point.cell)]
        line = ["geometric mean", TITLES[cell] if cell else "all", *("" for _ in them)]
        line += [_mean(ratio(r, q) for r in some if q in r.speeds) for q in them[1:]]
        line += [_mean(ratio(r, b) for r in some if (b := best(r)) is not None), ""]
        lines.append(line + ([_mean(per_flop(r) for r in some)] if custom else []))
    return _table(head, lines, left=2)


def generation_table(rows: list[Row]) -> str:
    (row,) = rows
    lines = []
    for name, values in row.speeds.items():
        times = "" if name == "tinyseq" else f"{ratio(row, name):.2f}"
        peer, *detail = name.split(", ")
        lines.append([", ".join([NAMES[peer], *detail]), speed(values), times])
    return _table([row.title, "thousand characters / s", "tinyseq ÷"], lines)


def growth_table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        for name, values in row.speeds.items():
            relative = median(
                v / w for v, w in zip(values, next(iter(row.speeds.values())), strict=True)
            )
            fixed = "B=32" if row.title == "T" else "T=64"
            lines.append([f"{name}, {fixed}", f"{1e6 / median(values):.2f}", f"{1 / relative:.2f}"])
    return _table(["tinyseq's LSTM, H=128", "µs a symbol", "relative to the first"], lines)


def start_table(found: dict[str, Any]) -> str:
    lines = [[f"import {m}", "", f"{median(s):.2f}"] for m, s in found["imports"].items()]
    for way, runs in found["first step"].items():
        name, *detail = way.split(", ")
        seconds = [f"{median(r[k] for r in runs):.2f}" for k in ("step", "all")]
        lines.append([f"first step, {', '.join([NAMES[name], *detail])}", *seconds])
    point = task.Point(*found["point"])
    return _table([str(point), "s, by itself", "s, from the process's start"], lines)


def memory_table(rows: list[dict[str, Any]]) -> str:
    return _table(
        ["peak resident memory", "", "MB more than at rest", "MB in all"],
        [
            [str(task.Point(*r["point"])), NAMES[peer], f"{m['more']:.0f}", f"{m['peak']:.0f}"]
            for r in rows
            for peer, m in r["peers"].items()
        ],
        left=2,
    )


TABLES = {
    "training": ("Training", training_table),
    "custom": ("Cells that no framework ships fused", lambda rows: training_table(rows, True)),
    "generation": ("Generation", generation_table),
    "growth": ("Growth with T and B", growth_table),
    "start": ("Start", start_table),
    "memory": ("Memory", memory_table),
}


def markdown(about: dict[str, Any], results: dict[str, Any]) -> str:
    """All tables, under what they were measured on."""
    rows = [row for name in ("training", "custom") for row in results.get(name, [])]
    products = [v for row in rows for n, v in row.speeds.items() if n.startswith(SGEMM)]
    lines = [
        f"{', '.join(about['versions'].values())}; {about['threads']} threads on "
        f"{about['machine']}, load {about['load']:.1f} before. Medians of {about['turns']} turns, "
        f"ratios turn by turn; speeds in thousand symbols a second."
    ]
    if products:
        top = max(median(p) for p in products) / 1e9
        lines[0] += f" sgemm {task.SGEMM}³: {top:.0f} GFLOP/s in the best row."
    for name, (title, table) in TABLES.items():
        if results.get(name):
            lines += [f"## {title}", table(results[name])]
    return "\n\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    """A bar for each row: tinyseq against its best peer, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    bars = [(row, hardest) for row in rows if (hardest := best(row)) is not None]
    if not bars:
        return
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.27 * len(bars)), layout="constrained")
    values = [ratio(row, hardest) for row, hardest in bars]
    for y, ((row, hardest), value) in enumerate(zip(bars, values, strict=True)):
        axes.barh(y, value - 1, left=1, height=0.72, color=COLOURS.get(row.point.cell, "#b07aa1"))
        side = {"x": value / 1.04, "ha": "right"} if value < 1 else {"x": value * 1.04}
        axes.text(y=y, s=f"{value:.2f}× {NAMES[hardest]}", va="center", fontsize=8, **side)
    labels = [
        f"{TITLES[row.point.cell]}  {row.point.H}, {row.point.layers}, {row.point.B}, {row.point.T}"
        for row, _ in bars
    ]
    axes.set_yticks(range(len(bars)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    low, high = min(1 / 2, *values) / 2.5, max(2, *values) * 2.5  # with room for the labels
    ticks = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    axes.set_xticks([2.0**k for k in ticks], [f"1/{2**-k}" if k < 0 else f"{2**k}" for k in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("tinyseq's speed ÷ that of the best peer (cell  H, layers, B, T)", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write(folder: Path, about: dict[str, Any], results: dict[str, Any]) -> str:
    """benchmarks.md, .json and .png; the text of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(about, results)
    (folder / "benchmarks.md").write_text(text, encoding="utf-8")
    plain = about | {
        name: [asdict(r) if isinstance(r, Row) else r for r in found]
        if isinstance(found, list)
        else found
        for name, found in results.items()
    }
    (folder / "benchmarks.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")
    rows = [row for name in ("training", "custom") for row in results.get(name, [])]
    plot(rows, folder / "benchmarks.png")
    return text
