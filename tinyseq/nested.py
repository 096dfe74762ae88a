"""Nested tuples, as states are: what is in them, and the same nesting with something else in it.

Lists count as tuples, and become such. `None`, a state that is not there, stays `None`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def leaves(nested: Any) -> Iterator[Any]:
    """What is in nested tuples, in order, but for `None`."""
    if isinstance(nested, tuple | list):
        for part in nested:
            yield from leaves(part)
    elif nested is not None:
        yield nested


def mapped(fn: Callable[..., Any], nested: Any, *others: Any) -> Any:
    """The same nested tuples with fn(leaf) in place of each leaf, or, with others that are nested
    alike, fn(leaf, *their leaves there).
    """
    if isinstance(nested, tuple | list):
        return tuple(mapped(fn, *parts) for parts in zip(nested, *others, strict=True))
    return None if nested is None else fn(nested, *others)
