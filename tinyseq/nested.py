"""Nested tuples, as states are: what is in them, and the same nesting with something else in it.
And containers of any kind, as a module's attributes may be: what is in them, and where.

Of a state, lists count as tuples, and become such. `None`, a state that is not there, stays `None`.
"""

from __future__ import annotations

from collections import UserDict, UserList, deque
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

_MAPPINGS = (dict, MappingProxyType, UserDict)
CONTAINERS = (list, tuple, *_MAPPINGS, deque, UserList, set, frozenset)


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


def named(name: str, container: Any, kinds: tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    """What of these kinds is in containers within containers, in order, by its dotted path:
    ``blocks.0.gate``. A container that is met again, as in a circle, is not walked again.

    Raises `TypeError` for a set that holds one: it has no order.
    """
    wanted = (*kinds, *CONTAINERS)
    seen: set[int] = set()
    left = [(name, container)]
    while left:
        name, value = left.pop()
        if isinstance(value, kinds):
            yield name, value
        elif id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, _MAPPINGS) else enumerate(value)
            # a copy, for another thread may add one meanwhile
            parts = [(key, part) for key, part in list(items) if isinstance(part, wanted)]
            if isinstance(value, set | frozenset) and any(isinstance(p, kinds) for _, p in parts):
                raise TypeError(
                    f"{name} is a set, whose parts have no order and so no names. Use a list."
                )
            left += [(f"{name}.{key}", part) for key, part in reversed(parts)]
