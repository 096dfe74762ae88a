"""A run of demos/shakespeare.py: its limit, its progress and speed, its folder, how it resumes."""

from __future__ import annotations

import contextlib
import math
import reprlib
import statistics
import time
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
import options
from console import apart_from_the_bar
from matplotlib.figure import Figure
from options import option, positive, whole
from tqdm import tqdm

import tinyseq as ts
from tinyseq import saving

T = typing.TypeVar("T")

PROGRAM = "demos/shakespeare.py"
BEST, LAST = "best.safetensors", "last.safetensors"
HELD_OUT = 0.1  # share of the text, at its end, for validation
DEFAULT_MINUTES = 4.5
MOST_STEPS = 1 << 53  # which a float still counts
MOST_NATS = 1e9  # of a loss that can be drawn, and that is none of a damaged file


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0
    loss: float = 0.0  # of training, smoothed
    best: float | None = None  # of validation
    validation_seconds: float = 0.0
    chars_per_second: float = 0.0  # in training: of the median chunk since the program was started
    losses: list[tuple[int, float]] = field(default_factory=list)  # (step, nats), smoothed
    validations: list[tuple[int, float]] = field(default_factory=list)  # (step, nats)

    def __post_init__(self) -> None:
        if not 0 <= self.step <= MOST_STEPS:
            raise ValueError(f"progress.step is {self.step}, but steps are counted from 0")
        for name in ("seconds", "validation_seconds", "chars_per_second"):
            if not 0 <= float(getattr(self, name)) < math.inf:
                raise ValueError(f"progress.{name} is {getattr(self, name)}, no span or speed")
        points = [*self.losses, *self.validations, (self.step, self.loss)]
        if not all(0 <= step <= MOST_STEPS and abs(nats) < MOST_NATS for step, nats in points):
            raise ValueError("progress has points of its curves that are no steps and losses")
        best = min((nats for _, nats in self.validations), default=None)
        if self.best != best:
            raise ValueError(f"progress.best is {self.best}, but the best validation gave {best}")

    def draw(self, title: str, characters: int) -> Figure:
        """The loss over the characters read, so many a step."""
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for label, points, colour, marker in (
            ("training, smoothed", self.losses, "C0", ""),
            ("validation", self.validations[1:], "C1", "o"),  # without the untrained model
        ):
            if points:
                steps, nats = np.array(points).T
                label = f"{label}: {nats[-1]:.3f}"
                axes.plot(steps * characters / 1e6, nats, color=colour, marker=marker, label=label)
        axes.set_title(title)
        axes.set_xlabel("characters read in training, millions")
        axes.set_ylabel("nats per character")
        axes.grid(alpha=0.3)
        if axes.lines:  # none yet in a run that was interrupted at once
            axes.legend()
        return figure


@dataclass(frozen=True)
class Limit:
    """When a run ends: after so many steps or so many minutes, whichever comes first."""

    steps: int | None = option(None, "end after so many chunks", type=whole(1))
    minutes: float | None = option(
        None, f"end after so much time [{DEFAULT_MINUTES}, unless --steps]", type=positive
    )

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.minutes) if value is not None]
        if not given or not all(0 < value < math.inf for value in given):
            raise ValueError(f"a run needs a limit above 0, not {self}")
        options.check(self)

    def share(self, progress: Progress, ahead: int = 0) -> float:
        """How much of the run is done, 0 … 1, at this point or some steps ahead."""
        shares = [0.0]
        if self.steps is not None:
            shares.append((progress.step + ahead) / self.steps)
        if self.minutes is not None:  # the last validation is to end within them, too
            seconds = 60 * self.minutes - progress.validation_seconds
            shares.append(progress.seconds / max(seconds, 1e-3))
        return min(1.0, max(shares))


# -- how fast -------------------------------------------------------------------------------------


class Meter:
    """The time and the loss of each step, as they come; what share of the run is done."""

    def __init__(self, progress: Progress, limit: Limit, characters: int, bar: tqdm) -> None:
        self.progress, self.limit, self.characters, self.bar = progress, limit, characters, bar
        self.share = self.share_before = limit.share(progress)
        self.start = time.perf_counter()
        self.earlier = progress.seconds  # spent before the program was started this time
        self.step_seconds: list[float] = []

    @property
    def rate(self) -> str:
        return f"{self.characters / statistics.fmean(self.step_seconds[-100:]):,.0f} chars/s"

    def step(self, train_step: Callable[[float], float], lr: float) -> None:
        """One step of training, timed and counted."""
        before, progress = time.perf_counter(), self.progress
        loss = train_step(lr)
        now = time.perf_counter()
        self.step_seconds.append(now - before)
        progress.seconds = self.earlier + now - self.start
        progress.loss = smooth(progress.loss, loss, progress.step)
        self.share_before, self.share = self.share, max(self.share, self.limit.share(progress))
        self.bar.set_description_str(f"loss {progress.loss:.3f}, {self.rate}", refresh=False)
        self.bar.update(self.share - self.share_before)

    def passed(self, marks: int) -> bool:
        """Whether the last step passed one of so many marks, evenly spread over the run."""
        return math.floor(self.share * marks) > math.floor(self.share_before * marks)


@contextlib.contextmanager
def metered(progress: Progress, limit: Limit, characters: int, quiet: bool) -> Iterator[Meter]:
    """A meter of steps that read so many characters, behind a progress bar unless it is quiet."""
    with (
        apart_from_the_bar() as stderr,
        tqdm(
            total=1.0,
            file=stderr,
            initial=limit.share(progress),
            disable=True if quiet else None,  # None: a bar on a terminal, none in a file or a pipe
            leave=False,
            delay=0.1,  # there is nothing to show before the first step
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {desc}, {remaining} left",
        ) as bar,
    ):
        meter = Meter(progress, limit, characters, bar)
        yield meter
    progress.seconds = meter.earlier + time.perf_counter() - meter.start
    if meter.step_seconds:  # the median: other programs that slow some steps down hardly matter
        progress.chars_per_second = characters / statistics.median(meter.step_seconds)


def smooth(average: float, loss: float, step: int) -> float:
    """A running average over some 50 steps: the loss of one chunk jumps too much to be read."""
    return average + (loss - average) * max(1 / step, 0.02)


# -- its folder and its checkpoints ---------------------------------------------------------------


def find_folder(default: Path, out: Path | None, resume: bool) -> Path:
    """The folder to use. A new run never writes over an old one."""
    if out is not None:
        if not resume and (out / LAST).exists():
            raise ValueError(
                f"there is a run in {out} already. Go on (--resume), or choose another --out"
            )
        return out
    folder, following = default, 2
    latest = None
    while (folder / LAST).exists():
        latest = folder
        folder = default.with_name(f"{default.name}-{following}")
        following += 1
    if resume and latest is None:
        raise FileNotFoundError(f"there is no run in {default} to go on with. Give its --out")
    return latest if resume and latest else folder


def check_unchanged(settings: Any, asked: dict[str, Any], out: Path) -> None:
    """Whoever goes on with a run may give its settings again, but no others; except the text, whose
    file may have been moved.
    """
    for name, value in asked.items():
        if name != "text" and value != getattr(settings, name):
            raise ValueError(
                f"--{name.replace('_', '-')} {value} differs from the {getattr(settings, name)} of "
                f"the run in {out}. Leave it out to go on, or start a new run in another --out"
            )


def load_checkpoint(path: Path, kind: type[T]) -> T:
    """What a run saved, as a dataclass; each field has the type that it is annotated with."""
    saved = saving.load(path)
    if saved.get("program") != PROGRAM:
        raise saving.CheckpointError(f"{path} is a checkpoint, but not one of {PROGRAM}")
    with contents_of(path):
        wrong: list[str] = []
        result = read_as(kind, saved, "", wrong)
        if wrong:
            raise ValueError(
                f"{'; '.join(wrong)}. Another version of {PROGRAM} wrote it: "
                "use that one, or train anew"
            )
    assert isinstance(result, kind)
    return result


@contextlib.contextmanager
def contents_of(path: Path) -> Iterator[None]:
    """Whatever goes wrong with values that a file holds is an error that names the file."""
    try:
        yield
    except LookupError as error:
        raise saving.CheckpointError(f"{path} lacks {error}") from error
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        raise saving.CheckpointError(f"{path}: {error}") from error


def read_as(kind: Any, value: Any, name: str, wrong: list[str]) -> Any:
    """A value of a checkpoint as a type; whatever does not fit goes onto a list, by its name."""
    if not is_dataclass(kind):
        if not fits(kind, value):
            expected = kind.__name__ if isinstance(kind, type) else kind
            wrong.append(f"{name} is {reprlib.repr(value)}, not {expected}")
        return value
    if not isinstance(value, dict):
        wrong.append(f"{name} is {reprlib.repr(value)}, not a dictionary")
        return None
    kinds = typing.get_type_hints(kind)
    prefix = f"{name}." if name else ""
    wrong += [f"{prefix}{key} is missing" for key in kinds if key not in value]
    wrong += [f"{prefix}{key} is unknown" for key in value if key not in kinds]
    parts = {
        key: read_as(kinds[key], part, prefix + key, wrong)
        for key, part in value.items()
        if key in kinds
    }
    return None if wrong else typing.cast(Any, kind)(**parts)


def fits(kind: Any, value: Any) -> bool:
    """Whether a value is of an annotated type. A file has lists for tuples, and maybe 1 for 1.0."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin is UnionType:
        return any(fits(option, value) for option in inner)
    if origin is list:
        return isinstance(value, list) and all(fits(inner[0], part) for part in value)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(inner) and all(map(fits, inner, value))
    if origin is dict:
        return isinstance(value, dict) and all(fits(inner[1], part) for part in value.values())
    return type(value) is kind or (kind is float and type(value) is int)


def as_state(saved: Any, like: Any) -> Any:
    """The arrays that a file holds as a state like another: nested tuples of Tensors."""
    if isinstance(like, tuple) and isinstance(saved, list) and len(saved) == len(like):
        return tuple(map(as_state, saved, like))
    of_arrays = isinstance(like, ts.Tensor) and isinstance(saved, np.ndarray)
    if of_arrays and (saved.shape, saved.dtype) == (like.shape, like.dtype):
        return ts.Tensor(saved)
    raise ValueError("state is not one of this network: it has other layers, shapes or dtypes")
