"""What the demos share: the folder of a run, its files, and the main program of a small demo.

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
from typing import Any

# One thread for NumPy's products, unless the user says otherwise; set before NumPy is loaded.
# Compiled code has threads of its own, and two teams would fight for the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

try:
    from matplotlib.figure import Figure
    from tqdm import tqdm
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: pip install 'tinyseq[demo]'")

import console
import numpy as np
import options

import tinyseq as ts
from tinyseq import saving


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
        console.say(line)

    def write_numbers(self, numbers: Mapping[str, Any]) -> None:
        """What was measured, as numbers.json, with the seed and the time that it took."""
        seconds = round(time.perf_counter() - self.start, 1)
        every = {"seed": self.seed, "steps": self.most, "seconds": seconds, **numbers}
        write_json(self.out / "numbers.json", every)

    def write_figure(self, figure: Figure, name: str = "figure.png") -> None:
        write_figure(self.out / name, figure)


def run_demo(demo: Callable[[Run], None], doc: str | None, arguments: list[str] | None) -> int:
    """The main program of a demo; its exit code: 0 done, 1 an error, 130 interrupted (Ctrl-C).

    Wrong arguments end it with 2.
    """

    def program() -> int:
        name = Path(inspect.getfile(demo)).stem
        parser = options.parser(f"{name}.py", doc)
        add, whole = parser.add_argument, options.whole
        add("--seed", type=whole(0), default=0, help="of all random numbers [%(default)s]")
        add("--out", type=Path, default=Path("runs", name), help="the run's folder [%(default)s]")
        add("--steps", type=whole(1), help="at most so many steps in each training, to try it out")
        args = options.parse(parser, arguments)
        with folder(args.out):
            ts.seed(args.seed)
            run = Run(args.seed, args.out, args.steps)
            with console.apart_from_the_bar():
                demo(run)
        run.say(f"\n{time.perf_counter() - run.start:.0f} s; numbers and figures in {args.out}")
        if args.steps is not None:
            run.say(
                f"Cut short by --steps {args.steps}: the numbers are not what the demo reaches."
            )
        return 0

    return console.exit_code(program)


# -- the folder of a run, and its files -----------------------------------------------------------


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


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    written = json.dumps(values, indent=1, ensure_ascii=False, default=lambda x: x.tolist())
    saving.write_atomically(path, written.encode())


def write_figure(path: Path, figure: Figure, dpi: int = 150) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi)
    saving.write_atomically(path, png.getvalue())
