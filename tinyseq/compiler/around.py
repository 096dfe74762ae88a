"""What a training step reads from around it, so that it is recorded anew when that has changed.

Code is looked through, not run: from a function the walk goes to the variables that it names, from
there to the functions among them and to the attributes, of any object, that some code names. What
is installed, and not somebody's own, is taken to stay as it is.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyseq.compiler.reads import content
from tinyseq.tensor import Tensor

if TYPE_CHECKING:
    from tinyseq.nn.module import Module

_PLAIN = (int, float, complex, str, bytes, type(None))
_CHANGING = (np.ndarray, list, dict, set)
_LIBRARIES = {"tinyseq", "numpy", *sys.stdlib_module_names} - {"__main__", "test"}


class Read(NamedTuple):
    """Something that is read: how, what was there, and, where it may change in place, what that
    held.
    """

    look: Callable[[], Any]
    value: Any
    held: Any = None


def unchanged(reads: Iterable[Read]) -> bool:
    """Whether everything is still as it was."""
    for look, value, held in reads:
        now = look()
        if now is not value and not _alike(now, value):
            return False
        if held is not None and content(now) != held:
            return False
    return True


def _alike(now: Any, value: Any) -> bool:
    return type(now) is type(value) and isinstance(now, _PLAIN) and repr(now) == repr(value)


def watched(function: Any, modules: Iterable[Module] = ()) -> list[Read]:
    """What a function reads, and what the modules do that it calls."""
    names: frozenset[str] = frozenset()
    while True:  # an attribute may be named by code that is found later
        walk = _Walk(names)
        walk.go((part for m in modules for _, part in m.named_modules()), baked=True)
        walk.go([function], baked=False)
        if walk.names == names:
            return walk.reads
        names = walk.names


class _Walk:
    """One walk over everything that can be reached by these names of attributes."""

    def __init__(self, names: frozenset[str]) -> None:
        self.attributes = sorted(names)
        self.names = names  # those, and what was found on the way
        self.reads: list[Read] = []
        self._left: list[Any] = []
        self._known: dict[int, Any] = {}  # held, for an identity is one's own as long as one lives
        self._baked = False  # a compiled cell has the contents of Tensors around it in its code

    def go(self, start: Iterable[Any], baked: bool) -> None:
        self._left, self._baked = list(start), baked
        while self._left:
            value = self._left.pop()
            if id(value) not in self._known and not isinstance(value, _PLAIN):
                self._known[id(value)] = value
                self._into(value)

    def _found(self, look: Callable[[], Any], value: Any) -> None:
        if not isinstance(value, ModuleType | type):
            self.reads.append(Read(look, value, content(value) if _changes(value) else None))
        self._left.append(value)

    def _into(self, value: Any) -> None:
        if isinstance(value, functools.partial):
            self._given((value.func, *value.args, *value.keywords.values()))
        elif isinstance(value, MethodType):
            self._left += [value.__func__, value.__self__]
        elif isinstance(value, FunctionType):
            if not _installed(value):
                self._function(value)
        elif isinstance(value, Tensor):
            self.reads.append(Read(functools.partial(getattr, value, "_data"), value._data))
        elif isinstance(value, dict):
            self._left += value.values()
        elif isinstance(value, list | tuple | set):
            self._left += value
        elif isinstance(value, ModuleType | type):
            if not _installed(value):
                self._own(vars(value))
                self._left += getattr(value, "__mro__", ())
        elif not isinstance(value, np.ndarray | np.generic):
            self._object(value)

    def _variable(self, look: Callable[[], Any]) -> None:
        value = look()
        self._found(look, value)
        if self._baked and isinstance(value, Tensor) and not value.requires_grad:
            contents = functools.partial(getattr, value, "_data")
            self.reads.append(Read(contents, value._data, content(value._data)))

    def _given(self, values: Iterable[Any]) -> None:
        for value in values:
            self._variable(functools.partial(_itself, value))

    def _function(self, f: FunctionType) -> None:
        variables, attributes = _names(f.__code__)
        self.names |= attributes
        for name in variables:
            if name in f.__globals__:
                self._variable(functools.partial(f.__globals__.get, name))
        for cell in f.__closure__ or ():
            self._variable(functools.partial(_contents, cell))
        self._given((*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()))
        self._left.append(getattr(f, "__wrapped__", None))

    def _own(self, around: Any) -> None:
        """The attributes among these that some code names."""
        for name in self.attributes:
            if name in around:
                value = around[name]
                self._found(functools.partial(around.get, name), value)
                self._left += _functions(value)

    def _object(self, value: Any) -> None:
        kind = type(value)
        if not _installed(kind):
            self._left.append(kind)
            for owner in kind.__mro__:
                self._left += _functions(owner.__dict__.get("forward"))
                self._left += _functions(owner.__dict__.get("__call__"))
        own = getattr(value, "__dict__", None)
        if own is not None:
            self._own(own)
            self._left.append(own.get("__wrapped__"))
        for name in self.attributes:
            if isinstance(getattr(kind, name, None), MemberDescriptorType):  # a slot
                look = functools.partial(getattr, value, name, None)
                self._found(look, look())
            elif own is not None and name not in own and hasattr(kind, name):  # it may hide that
                self.reads.append(Read(functools.partial(own.get, name), None))


def _itself(value: Any) -> Any:
    return value


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _changes(value: Any) -> bool:
    """Whether it can change in place, or holds what can."""
    return isinstance(value, _CHANGING) or (isinstance(value, tuple) and any(map(_changes, value)))


def _functions(value: Any) -> Iterator[Any]:
    """The functions that an attribute of a class stands for."""
    if isinstance(value, property):
        yield from (value.fget,)
    elif isinstance(value, staticmethod | classmethod):
        yield value.__func__
    elif isinstance(value, FunctionType):
        yield value
        yield getattr(value, "__wrapped__", None)


def _installed(value: Any) -> bool:
    """Whether a function, class or module is the library's, NumPy's, Python's, or somebody's whom
    pip installed.
    """
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
    root = str(name).partition(".")[0]
    if root in _LIBRARIES:
        return True
    file = getattr(sys.modules.get(str(name)), "__file__", None)
    return file is not None and "-packages" in file


@functools.cache
def _names(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The global variables and the attributes that code names; also as strings, for `getattr`."""
    variables, attributes = set[str](), set[str]()
    for i in dis.get_instructions(code):
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(i.argval)
        elif i.argval in code.co_names:
            attributes.add(i.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            more, further = _names(constant)
            variables |= more
            attributes |= further
        elif isinstance(constant, str) and constant.isidentifier():
            attributes.add(constant)
    return frozenset(variables), frozenset(attributes)
