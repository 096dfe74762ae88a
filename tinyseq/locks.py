"""Locks that are renewed in a forked child, where the thread that held one does not exist."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

_held: WeakKeyDictionary[Any, tuple[str, Callable[[], Any]]] = WeakKeyDictionary()


def new_lock(owner: Any, name: str, kind: Callable[[], Any] = threading.Lock) -> Any:
    """A lock for the attribute ``name`` of ``owner``, an object or a module, which every forked
    child sets to a new one.

    Use it as ``with owner.name:``. That also holds in a child which is forked inside the block: the
    block then releases the lock it took, and the next one takes the new lock.
    """
    _held[owner] = name, kind
    return kind()


def _renew() -> None:
    for owner, (name, kind) in list(_held.items()):
        setattr(owner, name, kind())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
