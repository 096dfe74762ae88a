"""What a test may not depend on: how fast the machine is, and what its caches hold."""

import sys
from collections.abc import Callable
from typing import Any

#: Seconds until a program counts as hanging: the machine may be slow, and busy with other work.
PATIENCE = 1200


def but_for_compiling(errors: str) -> str:
    """What a program wrote to stderr, without the lines that say that compiling takes a while."""
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("tinyseq: compiling "))


def work(function: Callable[..., object], *args: Any, **kwargs: Any) -> int:
    """Lines of Python that a call runs: its time in a unit that is the same on every machine."""
    lines = 0

    def count(frame: object, event: str, arg: object) -> object:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        function(*args, **kwargs)
    finally:
        sys.settrace(before)
    return lines
