"""What the demos share: their arguments, the folder of a run, and how a run ends.

A demo is a function of a `Run`, and `run_demo` is its main program::

    import common  # before NumPy, whose threads it sets

    def demo(run: common.Run) -> None:
        for step in run.steps(1000, "training"):
            ...
        run.write_numbers({"loss": loss})

    def main(arguments: list[str] | None = None) -> int:
        return common.run_demo(demo, __doc__, arguments)

    if __name__ == "__main__":
        sys.exit(main())
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

# One thread for NumPy's products, unless the user says otherwise; set before NumPy is loaded.
# Compiled code has threads of its own, and two teams would fight for the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import tinyseq as ts
from tinyseq import saving

try:
    from matplotlib.figure import Figure
    from tqdm import tqdm
    from tqdm.contrib import DummyTqdmFile
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: pip install 'tinyseq[demo]'")


class Run:
    """One run of a demo: its seed, its folder, and how far it may go."""

    def __init__(self, seed: int, out: Path, most: int | None) -> None:
        self.seed, self.out, self.most = seed, out, most
        self.rng = np.random.default_rng(seed)
        self.terminal = sys.stderr
        self.start = time.perf_counter()

    def steps(self, n: int, label: str) -> tqdm[int]:
        """0, 1, … n − 1 behind a progress bar, or as many as --steps allows, if that is less."""
        return tqdm(
            range(n if self.most is None else min(n, self.most)),
            desc=label,
            file=self.terminal,
            disable=None,  # None: a bar on a terminal, none in a file or a pipe
            leave=False,
            dynamic_ncols=True,
        )

    def say(self, line: str = "") -> None:
        """Print a line, at once even into a file, and above the progress bar if there is one."""
        try:
            tqdm.write(line)
            sys.stdout.flush()
        except BrokenPipeError:  # its reader has gone, as in `… | head`: go on in silence
            discard(sys.stdout)

    def write_numbers(self, numbers: Mapping[str, Any]) -> None:
        """What was measured, as numbers.json, with the seed and the time that it took."""
        seconds = round(time.perf_counter() - self.start, 1)
        every = {"seed": self.seed, "steps": self.most, "seconds": seconds, **numbers}
        written = json.dumps(every, indent=1, ensure_ascii=False, default=lambda x: x.tolist())
        saving.write_atomically(self.out / "numbers.json", written.encode())

    def write_figure(self, figure: Figure, name: str = "figure.png") -> None:
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=150)
        saving.write_atomically(self.out / name, png.getvalue())


def run_demo(demo: Callable[[Run], None], doc: str | None, arguments: list[str] | None) -> int:
    """The main program of a demo; its exit code: 0 done, 1 an error, 130 interrupted (Ctrl-C).

    Wrong arguments end it with 2.
    """
    name = Path(inspect.getfile(demo)).stem
    parser = argparse.ArgumentParser(
        prog=f"{name}.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seed", type=whole(0), default=0, help="of all random numbers [%(default)s]")
    add("--out", type=Path, default=Path("runs", name), help="the run's folder [%(default)s]")
    add("--steps", type=whole(1), help="at most so many steps in each training, to try it out")
    args = parser.parse_args(arguments)
    try:
        with folder(args.out):
            ts.seed(args.seed)
            run = Run(args.seed, args.out, args.steps)
            # What others write to standard error (that something is compiled, say) stands above
            # the bar, which is written to the stream itself.
            with contextlib.redirect_stderr(DummyTqdmFile(run.terminal)):
                demo(run)
        run.say(f"\n{time.perf_counter() - run.start:.0f} s; numbers and figures in {args.out}")
        if args.steps is not None:
            run.say(
                f"Cut short by --steps {args.steps}: the numbers are not what the demo reaches."
            )
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def whole(minimum: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number."""

    def parse(value: str) -> int:
        if not value.isdecimal() or int(value) < minimum:
            raise argparse.ArgumentTypeError(f"{value!r} is not a whole number, at least {minimum}")
        return int(value)

    return parse


@contextlib.contextmanager
def folder(out: Path) -> Iterator[None]:
    """The run's folder. That no file can be made in it is said now, not minutes later; what fails
    leaves no empty folder behind.
    """
    missing: list[Path] = []
    try:
        try:
            missing += [path for path in (out, *out.parents) if not path.exists()]
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out):
                pass
        except OSError as error:
            raise OSError(
                f"cannot write to the folder {out}: {error.strerror or error}. Choose another --out"
            ) from error
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def discard(stream: TextIO) -> None:
    """Send what goes to a stream nowhere, also what is left in its buffer and would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
