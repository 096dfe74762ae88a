"""What a step could see besides tensors' contents: when any of it changes, it is traced anew.

These are the plain attributes of the cell and of the modules in it, and what the code of its
methods, and of the functions they call, reads from its module and from the functions around it.
"""

from __future__ import annotations

import copy
import functools
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from tinyseq.errors import CompileError
from tinyseq.nn.module import Module
from tinyseq.tensor import Tensor

_MOST = 8  # programs of a cell whose attributes keep changing; each one is compiled
_NUMBERS = (int, float, complex, str, bytes, bool, type(None), np.generic)


class Part(NamedTuple):
    """One thing that a step could see."""

    module: str
    name: str
    value: Any


class _Same:
    """Equal to itself alone, and held: its identity is not given to another one."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def fingerprint(cell: Module) -> Iterator[Part]:
    """Equal for two calls of a cell that may use the same program."""
    for path, module in cell.named_modules():
        kind = type(module)
        yield Part(path, "type", (kind, kind.forward, kind.__call__, module.training))
        functions = list(_methods(kind))  # type: ignore[arg-type]
        for name, value in list(vars(module).items()):
            if not name.startswith("_scope") and name != "training":  # which is said already
                yield Part(path, name, content(value))
            if isinstance(value, FunctionType):
                functions.append(value)
        yield from _surroundings(functions)


def content(value: Any) -> Any:
    """What of a value would make another program of a step."""
    if isinstance(value, Tensor):
        return _Same(value), value.shape, value.dtype, value.requires_grad
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return _Same(value)
        return value.shape, value.dtype, zlib.crc32(value.tobytes())
    if isinstance(value, Module | np.random.Generator):
        return _Same(value)
    if isinstance(value, list | tuple):
        return type(value), tuple(map(content, value))
    if isinstance(value, set):
        return set, frozenset(value)
    if isinstance(value, dict):
        return dict, tuple((k, content(v)) for k, v in value.items())
    if isinstance(value, _NUMBERS):
        return type(value), value if value == value else "nan"
    return _Same(value)


def _ours(function: Any) -> bool:
    return str(getattr(function, "__module__", "")).split(".")[0] == "tinyseq"


@functools.cache
def _methods(kind: type) -> tuple[FunctionType, ...]:
    """The methods of a class that are somebody else's than the library's."""
    found = []
    for owner in kind.__mro__:
        for value in vars(owner).values():
            value = getattr(value, "fget", value)  # of a property
            value = getattr(value, "__wrapped__", value)
            if isinstance(value, FunctionType) and not _ours(value):
                found.append(value)
    return tuple(found)


@functools.cache
def _names(code: CodeType) -> frozenset[str]:
    inner = (_names(c) for c in code.co_consts if isinstance(c, CodeType))
    return frozenset(code.co_names).union(*inner)


def _surroundings(functions: Iterable[FunctionType]) -> Iterator[Part]:
    """What functions read that is neither theirs nor an attribute, and what the functions do that
    they call.
    """
    left, seen = list(functions), set[int]()
    while left:
        f = left.pop()
        if id(f) in seen or _ours(f):
            continue
        seen.add(id(f))
        found = [(n, f.__globals__[n]) for n in _names(f.__code__) if n in f.__globals__]
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            try:
                found.append((name, cell.cell_contents))
            except ValueError:  # not assigned yet
                continue
        for name, value in sorted(found, key=lambda pair: pair[0]):
            if isinstance(value, FunctionType):
                left.append(value)
            if isinstance(value, Tensor):  # no attribute: its contents are part of the program
                yield Part(f.__qualname__, name, (content(value), content(value._data)))
            elif not isinstance(value, ModuleType | type):
                yield Part(f.__qualname__, name, content(value))


def changing(key: tuple[Any, ...], known: Iterable[tuple[Any, ...]]) -> None:
    """Raise `CompileError` when the cell would be compiled again and again."""
    alike = [k for k in known if k[0] == key[0]]
    if len(alike) >= _MOST:
        before = set(alike[-1])
        part = next((p for p in key[1:] if p not in before), None)
        what = "what it sees" if part is None else f"{part.module}.{part.name}".strip(".")
        raise CompileError(
            f"{what} was another one in each of {len(alike)} calls, and every time the step would "
            "be compiled anew. Make it a Tensor that is an attribute of the cell, and change its "
            "contents: self.rate = ts.tensor(0.5); self.rate.data = …"
        )


@contextmanager
def kept(cell: Module) -> Iterator[None]:
    """What a step does to its cell's attributes is undone, and is a `CompileError`."""
    modules = list(cell.named_modules())
    before = [dict(vars(m)) for _, m in modules]
    plain = (list, dict, np.ndarray)
    copies = [{k: copy.copy(v) for k, v in d.items() if isinstance(v, plain)} for d in before]
    first = tuple(fingerprint(cell))
    try:
        yield
        if (after := tuple(fingerprint(cell))) != first:
            known = set(first)
            part = next((p for p in after if p not in known), None) or first[-1]
            raise CompileError(
                f"a step changes {f'{part.module}.{part.name}'.strip('.')}; in a compiled loop "
                "nothing is done but to compute y and the state. Make it a part of the state, or "
                "do it outside of the cell."
            )
    finally:
        for (_, module), attributes, contents in zip(modules, before, copies, strict=True):
            own = vars(module)  # which other threads read, and they may change the mode
            for name in own.keys() - attributes.keys() - {"training"}:
                del own[name]
            own.update({k: v for k, v in attributes.items() if k != "training"})
            for name, value in contents.items():
                held: Any = attributes[name]
                if isinstance(held, np.ndarray):
                    if held.flags.writeable and not held.dtype.hasobject:
                        held[...] = value
                elif isinstance(held, list):
                    held[:] = value
                else:
                    held.clear()
                    held.update(value)
