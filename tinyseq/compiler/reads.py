"""What recorded code reads from around it, globals, closures and attributes: a change makes it
re-record.

Code is looked through, not run: from a function the walk goes to its globals and closure, from
there to the functions among them and to the attributes, of any object, that some code names. Of a
Module it takes all attributes. What is installed, and not somebody's own, is taken to stay as it
is. What keeps its numbers where no walk can go, a clock, a file, an iterator or an object written
in C, is refused: the step then runs as it is written. A compiled cell and a training step are
watched in the same way.
"""

from __future__ import annotations

import argparse
import datetime
import enum
import functools
import re
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from decimal import Decimal
from threading import Lock, RLock
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyseq.compiler.content import CHANGING, PLAIN, SEQUENCES, Read, changes, content, kind_of
from tinyseq.compiler.names import ANY_NAME, named_by
from tinyseq.tensor import Tensor

if TYPE_CHECKING:
    from tinyseq.nn.module import Module

_LIBRARIES = {"tinyseq", "numpy", *sys.stdlib_module_names} - {"__main__", "test"}
#: Libraries whose functions give the same for the same arguments, or nothing
_STEADY = {
    *("tinyseq", "numpy", "abc", "bisect", "builtins", "cmath", "collections", "contextlib"),
    *("copy", "dataclasses", "enum", "fractions", "functools", "heapq", "inspect", "itertools"),
    *("json", "keyword", "logging", "math", "numbers", "operator", "pprint", "re", "string"),
    *("statistics", "textwrap", "traceback", "types", "typing", "warnings", "weakref"),
}
#: Builtin functions that bring in what no walk can see
_UNSEEN = frozenset(("open", "input", "eval", "exec", "globals", "locals", "__import__"))
#: Objects of no state, or of one that never changes
_FIXED = (
    np.dtype, np.ufunc, range, slice, type(...), CodeType, CellType, re.Pattern, type(Lock()),
    type(RLock()), datetime.date, datetime.time, datetime.timedelta, Decimal,
)  # fmt: skip
_CACHED = type(functools.cache(len))
_BAGS = (SimpleNamespace, argparse.Namespace)  # whose attributes only their users name
_OWN = ("training", "_scope_name", "_steps")  # attributes that the library gives modules
_ELSEWHERE = ("__init__", "__repr__", "__str__", "__getstate__", "__setstate__")  # not in a step
_CALLED = ("forward", "step", "initial_state")  # of a Module, by the library
_WORD = tuple.__itemsize__  # bytes of a pointer
_MANY = 100_000  # values that a walk goes to


class Watched(NamedTuple):
    """What is read, and, if some of it cannot be watched, what that is, as a sentence."""

    reads: list[Read]
    hidden: str | None


def watch(functions: Sequence[Any], modules: Sequence[Module] = (), baked: bool = False) -> Watched:
    """What functions read, and all that the modules do and have.

    ``baked``: for a compiled cell, which has numbers in its code that a training step looks up: the
    contents of Tensors that are no attributes of the modules.
    """
    names: frozenset[str] = frozenset()
    while True:  # an attribute may be named by code that is found later
        walk = _Walk(names, modules, baked, [*functions, *modules])
        walk.go(functions)
        if walk.names == names:
            return Watched(walk.reads, walk.hidden)
        names = walk.names


class _Walk:
    """One walk over everything that can be reached by these names of attributes.

    It goes to values by name, and remembers whether code names them: what is only there, as any
    attribute of a Module is, may be whatever it likes.
    """

    def __init__(
        self, names: frozenset[str], modules: Sequence[Module], baked: bool, roots: Sequence[Any]
    ) -> None:
        self.attributes = names
        self.any = not ANY_NAME.isdisjoint(names)  # some code reads attributes by other names
        self.names = names  # those, and what was found on the way
        self.baked = baked
        self.reads: list[Read] = []
        self.hidden: str | None = None
        self._modules = {id(m): (path, m) for top in modules for path, m in top.named_modules()}
        self._inputs = {id(t) for top in modules for _, t in top.named_tensors()}
        self._left: list[tuple[str, Any, bool]] = []
        self._known: dict[tuple[int, bool], Any] = {}  # held: identities are theirs while they live
        own = (getattr(root, "__func__", getattr(root, "func", root)) for root in roots)
        self._mine = {_package(root) for root in own} - _LIBRARIES  # installed or not

    def go(self, functions: Iterable[Any]) -> None:
        self._left = [*(("", f, True) for f in functions)]
        self._left += [(name, module, True) for name, module in self._modules.values()]
        while self._left:
            name, value, named = self._left.pop()
            known = any((id(value), n) in self._known for n in (True, named))
            if not known and type(value) not in PLAIN:
                self._known[id(value), named] = value
                self._into(name, value, named)
            if len(self._known) > _MANY:
                self._hide(name, "leads to too many values to look at in each call", True)
                return

    def _hide(self, name: str, why: str, named: bool) -> None:
        if named and self.hidden is None:
            self.hidden = (
                f"{name} {why}: a change of what it gives could not be seen. Pass its values as "
                "arguments, or keep them in attributes, lists or arrays."
            )

    def _found(
        self,
        name: str,
        look: Callable[[], Any],
        value: Any,
        counted: bool = False,
        named: bool = True,
    ) -> None:
        of, changing = None, changes(value)
        if changing or (self.baked and isinstance(value, Tensor)):
            of = content if changing else kind_of
        if not isinstance(value, ModuleType):
            held = None if of is None else of(value)
            self.reads.append(Read(name, look, value, of, held, counted and not changing))
        self._left.append((name, value, named))

    def _into(self, name: str, value: Any, named: bool) -> None:
        if isinstance(value, functools.partial):
            self._given(name, (value.func, *value.args, *value.keywords.values()), named)
        elif isinstance(value, MethodType):
            self._given(name, (value.__func__, value.__self__), named)
        elif isinstance(value, FunctionType | BuiltinFunctionType | type) and _unsteady(value):
            self._hide(name, f"is {value.__module__}.{value.__qualname__}", named)
        elif isinstance(value, FunctionType):
            if not self._installed(value):
                self._function(value)
        elif isinstance(value, BuiltinFunctionType):  # of an object, perhaps
            self._given(name, (value.__self__,), named)
        elif isinstance(value, Tensor):
            self._tensor(name, value)
        elif isinstance(value, ModuleType):
            self._library(name, value)
        elif isinstance(value, type):
            if not self._installed(value):
                self._own(name, vars(value), named)
                above = (*value.__mro__, type(value))
                self._left += [(name, owner, named) for owner in above if owner is not type]
        elif id(value) in self._modules:
            self._module(name, value)
        elif not isinstance(value, np.generic):
            if isinstance(value, dict | MappingProxyType):
                self._left += [(name, part, named) for part in value.values()]
            elif isinstance(value, (*SEQUENCES, set, frozenset)):
                self._left += [(name, part, named) for part in value]
            elif isinstance(value, np.ndarray) and value.dtype.hasobject:
                self._left += [(name, part, named) for part in value.flat]
            self._object(name, value, named)

    def _given(self, name: str, values: Iterable[Any], named: bool = True) -> None:
        for value in values:
            self._found(name, functools.partial(_itself, value), value, named=named)

    def _tensor(self, name: str, t: Tensor) -> None:
        look = functools.partial(getattr, t, "_data")
        if id(t) in self._inputs:  # looked at by whoever reads them
            return
        if not self.baked:
            self.reads.append(Read(name, look, t._data))
        elif not t.requires_grad:
            self.reads.append(Read(name, look, None, content, content(t._data)))

    def _function(self, f: FunctionType) -> None:
        variables, attributes, imports, chains = named_by(f.__code__)
        self.names |= attributes
        found = [(n, functools.partial(f.__globals__.get, n)) for n in sorted(variables)]
        found = [(n, look) for n, look in found if n in f.__globals__]
        cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
        found += [(n, functools.partial(_contents, cell)) for n, cell in cells]
        for n, look in found:
            value = look()
            if isinstance(value, ModuleType) and _package(value) in _LIBRARIES:
                self._chains(f.__qualname__, value, [c for c in chains if c[0] == n])
            else:
                self._found(f"{f.__qualname__}.{n}", look, value)
        for n in sorted(_UNSEEN & variables - f.__globals__.keys()):
            self._hide(f"{f.__qualname__}.{n}", "is a builtin function", True)
        package = f.__globals__.get("__package__")
        modules = [m for n in imports for m in (n, f"{package}.{n}") if m in sys.modules]
        self._left += [(m, sys.modules[m], True) for m in modules]
        looks = [functools.partial(getattr, f, n) for n in ("__code__", "__defaults__")]
        self.reads += [Read(f.__qualname__, look, look()) for look in looks]
        self._given(f.__qualname__, f.__defaults__ or ())
        if f.__kwdefaults__:
            look = functools.partial(getattr, f, "__kwdefaults__")
            self._found(f.__qualname__, look, look())
        self._own(f.__qualname__, vars(f), True)
        self._left.append((f.__qualname__, getattr(f, "__wrapped__", None), True))

    def _chains(self, name: str, module: ModuleType, chains: Iterable[tuple[str, ...]]) -> None:
        """What code takes of a library, as os.environ or np.random.rand."""
        for chain in chains:
            value: Any = module
            for n in chain[1:]:
                if not isinstance(value, ModuleType):
                    break
                look = functools.partial(getattr, value, n, None)
                value = look()
            else:
                if isinstance(value, ModuleType):  # by another name
                    self._library(name, value)
                    continue
            if not (isinstance(value, ModuleType) or _steady(value)):
                self._found(f"{name}.{'.'.join(chain)}", look, value)

    def _library(self, name: str, module: ModuleType) -> None:
        """A module of any kind, of which code may take all that it names."""
        if not self._installed(module):
            around = vars(module)
            self._own(name, around, True)
            self._left += [(name, around.get(n), True) for n in ("__getattr__",)]
        elif module is np and "random" in self.attributes:
            self._left.append((f"{name}.random", np.random, True))
        elif module is np.random or _package(module) not in _STEADY:
            around = {n: v for n, v in vars(module).items() if not isinstance(v, ModuleType)}
            self._own(name, {n: v for n, v in around.items() if not _steady(v)}, True)

    def _own(self, name: str, around: Mapping[str, Any], named: bool, whole: bool = False) -> None:
        """The attributes among these that some code names; or all of them."""
        for n, value in sorted(around.items()):
            mine = n in self.attributes
            if mine or whole or (self.any and not n.startswith("__")):
                look = functools.partial(around.get, n)
                of = named and (mine or whole)
                self._found(_dotted(name, n), look, value, named=of)
                self._left += [(_dotted(name, n), f, of) for f in _functions(value)]

    def _module(self, name: str, module: Module) -> None:
        own, kind = vars(module), type(module)
        for n, value in list(own.items()):
            named, public = n in self.attributes, not n.startswith("_")
            if n not in _OWN and (named or public or self.baked or self.any):
                look = functools.partial(own.get, n)
                if isinstance(value, np.random.Generator):  # which draws for each call
                    self.reads.append(Read(_dotted(name, n), look, value))
                else:
                    counted = public and not named
                    self._found(_dotted(name, n), look, value, counted, named)
        name = name or kind.__name__
        training = functools.partial(own.get, "training", kind.training)
        count = functools.partial(_count, own)  # of a new one nothing is known
        self.reads += [Read(name, look, look(), counted=True) for look in (training, count)]
        if self.baked or not self._installed(kind):
            self.reads.append(Read(name, weakref.ref(module), None, type, kind))
            looks = [functools.partial(getattr, kind, n) for n in ("forward", "__call__")]
            self.reads += [Read(name, look, look()) for look in looks]
        self._class(name, kind, True)

    def _object(self, name: str, value: Any, named: bool) -> None:
        kind, own = type(value), getattr(value, "__dict__", None)
        if isinstance(value, weakref.ref | ContextVar):
            look = value if isinstance(value, weakref.ref) else functools.partial(value.get, None)
            self._found(name, look, look(), named=named)
            return
        if isinstance(value, _CACHED):  # an answer may be older than what it was made from
            look = functools.partial(_answers, value)
            self.reads.append(Read(name, look, look()))
        elif _keeps_to_itself(value):
            self._hide(name, f"is a {kind.__module__}.{kind.__qualname__}", named)
        installed = self._installed(kind)
        if not installed:
            self._class(name, kind, named)
            if own is not None:  # a new one may hide one of the class
                self.reads.append(Read(name, functools.partial(len, own), len(own)))
        theirs = installed and kind.__module__.partition(".")[0] != "tinyseq"
        whole = isinstance(value, enum.Enum) or (theirs and not isinstance(value, _BAGS))
        if own is not None:
            self._own(name, own, named, whole)
            self._left.append((name, own.get("__wrapped__"), named))
        for owner in kind.__mro__:
            for n, slot in vars(owner).items():
                mine = n in self.attributes
                if isinstance(slot, MemberDescriptorType) and (mine or whole or self.any):
                    look = functools.partial(getattr, value, n, None)
                    self._found(_dotted(name, n), look, look(), named=named and (mine or whole))

    def _class(self, name: str, kind: type, named: bool) -> None:
        """The class of an object, with what is called without being named."""
        self._left.append((name, kind, named))
        above = [owner for owner in kind.__mro__ if self._installed(owner)]
        for owner in kind.__mro__:
            for n, value in vars(owner).items():
                special = n in _CALLED or n.startswith("__") or any(n in vars(o) for o in above)
                if special and n not in _ELSEWHERE and not (self.baked and n == "initial_state"):
                    self._left += [(_dotted(name, n), f, named) for f in _functions(value)]

    def _installed(self, value: Any) -> bool:
        """Whether a function, class or module is the library's, NumPy's, Python's, or somebody's
        whom pip installed; of what is baked in every function counts that is nobody's of these.
        """
        package = _package(value)
        if package in _LIBRARIES:
            return True
        if (self.baked and isinstance(value, FunctionType)) or package in self._mine:
            return False
        file = getattr(sys.modules.get(_home(value)), "__file__", None)
        return file is not None and "-packages" in file


def _home(value: Any) -> str:
    """The name of the module that a module is, or a function, class or object comes from."""
    if isinstance(value, ModuleType):
        return value.__name__
    kind = value if isinstance(value, FunctionType | BuiltinFunctionType | type) else type(value)
    return str(getattr(kind, "__module__", None) or "builtins")


def _package(value: Any) -> str:
    """The package of that; those that Python writes in C have the names of what they are for."""
    package = _home(value).partition(".")[0]
    public = package.lstrip("_")
    return public if package != "__main__" and public in sys.stdlib_module_names else package


def _steady(value: Any) -> bool:
    """Whether what a library has by a name gives the same for the same arguments, as np.sin does,
    and np.random.rand does not, which is a method of an object.
    """
    of = getattr(value, "__self__", None)
    return _package(value) in _STEADY and (of is None or isinstance(of, ModuleType | type))


def _unsteady(value: Any) -> bool:
    """Whether it is of Python's library, and no such thing."""
    package = _package(value)
    return package in _LIBRARIES and package not in _STEADY


def _keeps_to_itself(value: Any) -> bool:
    """Whether an object has more than attributes and items: something that only C code can see."""
    kind = type(value)
    if isinstance(value, (*PLAIN, *CHANGING, *_FIXED, tuple, frozenset, np.random.BitGenerator)):
        return False
    if hasattr(kind, "__get__"):  # a descriptor, of a class
        return False
    slots = [v for o in kind.__mro__ for v in vars(o).values()]
    words = sum(isinstance(v, MemberDescriptorType) for v in slots)
    words += (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return kind.__basicsize__ > object.__basicsize__ + words * _WORD


def _answers(cached: Any) -> tuple[int, int]:
    info = cached.cache_info()
    return info.misses, info.currsize


def _itself(value: Any) -> Any:
    return value


def _dotted(name: str, attribute: str) -> str:
    return f"{name}.{attribute}" if name else attribute


def _count(own: dict[str, Any]) -> int:
    """How many attributes a module has, but for those that the library may give it."""
    return len(own) - ("training" in own) - ("_scope_name" in own)


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _functions(value: Any) -> Iterator[Any]:
    """The functions that an attribute of a class stands for."""
    value = getattr(value, "fget", value)  # of a property
    value = getattr(value, "__func__", value)  # of a static method, or one of the class
    value = getattr(value, "func", value) if isinstance(value, functools.cached_property) else value
    if isinstance(value, FunctionType):
        yield value
