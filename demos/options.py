"""The demos' command lines: options that are the fields of a dataclass, and what an option holds.

@dataclass(frozen=True)
class Settings:
    hidden: int = option(256, "units in a layer", type=whole(1))

parser = options.parser("demo", __doc__)
options.add(parser, Settings)
Settings(**options.given(options.parse(parser, arguments), Settings))
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=name,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def parse(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The arguments; a wrong one ends the program with 2, even where nothing can be printed."""
    try:
        return parser.parse_args(arguments)
    except OSError:  # of what argparse printed: early versions of Python 3.11 let it pass
        raise SystemExit(2) from None


def option(default: Any, description: str, **how: Any) -> Any:
    """A field that an option sets: its default, its help, and how argparse reads it."""
    shown = description if default is None else f"{description} [{default}]"
    return field(default=default, metadata={"help": shown, **how})


def add(parser: argparse.ArgumentParser, group: type[Any]) -> None:
    """An option for each field of a dataclass: ``seq_len`` is ``--seq-len``."""
    for setting in fields(group):
        parser.add_argument(f"--{setting.name.replace('_', '-')}", **setting.metadata)


def check(group: Any) -> None:
    """Hold the fields of a dataclass, wherever they come from, to what their options may be."""
    for setting in fields(group):
        value, parse = getattr(group, setting.name), setting.metadata.get("type")
        if value is not None and parse is not None:
            try:
                parse(str(value))
            except (argparse.ArgumentTypeError, ValueError) as error:
                raise ValueError(f"{setting.name}: {error}") from error


def given(args: argparse.Namespace, group: type[Any]) -> dict[str, Any]:
    """Those fields of a dataclass whose options were given."""
    values = {setting.name: getattr(args, setting.name) for setting in fields(group)}
    return {name: value for name, value in values.items() if value is not None}


# -- what an option holds -------------------------------------------------------------------------


def whole(minimum: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isdecimal() or int(value) < minimum:
            raise argparse.ArgumentTypeError(f"{value!r} is not a whole number, at least {minimum}")
        if int(value) >= 1 << 63:
            raise argparse.ArgumentTypeError(f"a number of {len(value)} digits is too large")
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
share = number(lambda x: 0 <= x < 1, "a number from 0 to below 1")
