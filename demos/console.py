"""What the demos print, and how they end: messages beside the progress bar, errors, Ctrl-C.

A main program is a function that `exit_code` runs::

    def main(arguments: list[str] | None = None) -> int:
        return console.exit_code(lambda: command(arguments))
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile

from tinyseq.errors import CompileError


class WrongArgument(Exception):
    """An argument that cannot be used, as is found only when it is: ends the program with 2."""


def say(line: str = "") -> None:
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


@contextlib.contextmanager
def apart_from_the_bar() -> Iterator[TextIO]:
    """What others write to standard error inside (that something is compiled, say) stands above the
    bar, which is written to the stream itself.
    """
    stderr = sys.stderr
    with contextlib.redirect_stderr(DummyTqdmFile(stderr)):
        yield stderr


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


def exit_code(
    program: Callable[[], int],
    interrupted: str = "interrupted",
    less_memory: str = "",
    who: str = "",
) -> int:
    """Run a main program. Its exit code: what it returns, 1 an error, 2 a wrong argument, 130
    interrupted (Ctrl-C).

    An error is one line. ``interrupted`` is what to say after Ctrl-C, ``less_memory`` what to do
    when the memory is full, ``who`` what stands before it: which of several processes it is.
    """
    try:
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # from here on it is an exception
            signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare_output()
        try:
            return program()
        finally:
            complain("", end="")  # what argparse has printed, errors and --help, has to be out, too
            with printing():
                pass
    except KeyboardInterrupt:
        complain(f"{who}{interrupted}")
        return 130
    except MemoryError as error:
        complain(f"{who}error: out of memory ({error}). {less_memory}".rstrip())
    except WrongArgument as error:
        complain(f"{who}error: {error}")
        return 2
    except (CompileError, ImportError, OSError, ValueError) as error:
        complain(f"{who}error: {error}")
    return 1


def prepare_output() -> None:
    """Both streams can be written to, whatever they are."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as with `2>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):  # what lacks a character gets a "?"
            stream.reconfigure(errors="replace")
