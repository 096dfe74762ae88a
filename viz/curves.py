"""`training`: the losses of training runs, from what they left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from tinyseq import saving
from tinyseq.arguments import checked

from .plots import DASHES, LINES, new_plot

# Where a run's folder may keep its log, the best source first.
FILES = ("numbers.json", "log.jsonl", "log.json", "last.safetensors", "best.safetensors")
# What demos call their curves, and how one reads it; any other list of numbers is a curve as well.
CALLED = {"losses": "training", "validations": "validation"}
MARKED = 30  # a curve of fewer points shows them

Log = str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any] | np.ndarray


@checked
def training(*runs: Log, title: str = "Training", unit: str = "nats") -> Any:
    """The loss curves of one or several runs in one chart: a `Plot`.

    A run is one colour; its validation, and what else it has besides its training loss, differs in
    dashes. A validation before the first step, which would squeeze all others, is left out of the
    picture, not of ``data``: arrays (points, 2) of step and loss, by label.

    Args:
        runs: each one of

            - the folder of a run, as demos/shakespeare.py leaves it (a checkpoint), or one that
              holds numbers.json, log.json or log.jsonl;
            - such a file;
            - losses in memory: one a step, or a dictionary of curves by name, each one number a
              step or pairs (step, loss).

            In a JSON file curves are the lists of numbers, or of pairs, that its objects hold by
            name (``losses``, ``validations``, …); in a .jsonl file each line is an object with
            numbers and maybe a ``step``.
        title, unit: above the chart, and of the losses.

    Raises:
        FileNotFoundError, OSError: there is no such file or folder, or it cannot be read.
        ValueError: no run is given, it holds no curve, or is damaged.
        RenderError: matplotlib is not installed.
    """
    if not runs:
        raise ValueError("runs: there is no run to draw. Give its folder, its log, or its losses.")
    figure = new_plot(7.5, 4.4)
    axes = figure.add_subplot()
    figure.data = {}
    labels = _labels(runs)
    for run, label, colour in zip(runs, labels, cycle(LINES), strict=False):
        for i, (name, points) in enumerate(_curves(run).items()):
            called = ": ".join(part for part in (label, CALLED.get(name, name)) if part)
            figure.data[called] = points
            drawn = points[points[:, 0] > 0] if name == "validations" else points
            axes.plot(
                *drawn.T,
                color=colour,
                linestyle=DASHES[i % len(DASHES)],
                marker="o" if len(drawn) < MARKED else "",
                markersize=4,
                label=f"{called}, at last {points[-1, 1]:.3f}",
            )
    axes.set_title(title, parse_math=False)
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss, {unit}" if unit else "loss")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.grid(alpha=0.3)
    # Handed over, so that a run whose name begins with "_" is not left out.
    legend = axes.legend(axes.lines, [line.get_label() for line in axes.lines])
    for line in legend.get_texts():
        line.set_parse_math(False)
    return figure


def _labels(runs: Sequence[Log]) -> list[str]:
    """By the folder, where there are several runs; else nothing."""
    if len(runs) == 1:
        return [""]
    names = []
    for i, run in enumerate(runs):
        if isinstance(run, str | os.PathLike):
            path = Path(run)
            names.append(path.parent.name if path.name in FILES else path.stem)
        else:
            names.append(f"run {i + 1}")
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _curves(run: Log) -> dict[str, np.ndarray]:
    source = "one of the runs"
    tree: Any = run
    if isinstance(run, str | os.PathLike):
        path = _file(Path(run))
        source, tree = str(path), _read(path)
    elif not isinstance(run, Mapping):
        tree = {"loss": run}
    curves = dict(_found(tree))
    if not curves:
        raise ValueError(
            f"{source} holds no curve: no list of two or more numbers, or of pairs (step, loss)."
        )
    for name, points in curves.items():
        if not np.isfinite(points).any(axis=0).all():
            raise ValueError(f"{source}: {name} has no finite number.")
    return curves


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).exists():
            return path / name
    raise FileNotFoundError(f"there is no log in {path}: none of {', '.join(FILES)}.")


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        tree = saving.load(path)
        return tree.get("progress", tree)
    try:
        written = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no log {path}. Give the folder of a run, or a file that one left there."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise OSError(f"cannot read {path}: {error}") from error
    try:
        if path.suffix != ".jsonl":
            return json.loads(written)
        lines = [json.loads(line) for line in written.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    curves: dict[str, list[tuple[float, float]]] = {}
    for i, line in enumerate(lines):
        if not isinstance(line, dict):
            raise ValueError(f"{path}: line {i + 1} is no JSON object.")
        step = line.get("step", i + 1)
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                curves.setdefault(name, []).append((step, value))
    return curves


def _found(tree: Any) -> Any:
    """Every list of numbers or of pairs that a dictionary holds, as (points, 2)."""
    if not isinstance(tree, Mapping):
        return
    for name, value in tree.items():
        if not isinstance(value, list | tuple | np.ndarray) or len(value) < 2:
            continue
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):  # strings, or lists of other lists
            continue
        if array.ndim == 1:
            yield str(name), np.column_stack([np.arange(1, len(array) + 1), array])
        elif array.ndim == 2 and array.shape[1] == 2:
            yield str(name), array
