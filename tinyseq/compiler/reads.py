"""What recorded code reads from around it, globals, closures and attributes: a change makes it
re-record.

Code is looked through, not run: from a function the walk goes to its globals and closure, from
there to the functions among them and to the attributes, of any object, that some code names. Of a
Module it takes all attributes. What is installed, and not somebody's own, is taken to stay as it
is. A compiled cell and a training step are watched in the same way.
"""

from __future__ import annotations

import copy
import dis
import functools
import sys
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyseq.errors import CompileError
from tinyseq.tensor import Tensor

if TYPE_CHECKING:
    from tinyseq.nn.module import Module

_PLAIN = (int, float, complex, str, bytes, type(None))
_CHANGING = (np.ndarray, list, dict, set)
_LIBRARIES = {"tinyseq", "numpy", *sys.stdlib_module_names} - {"__main__", "test"}
_OWN = ("training", "_scope_name", "_steps")  # attributes that the library gives modules
_ELSEWHERE = ("__init__", "__repr__", "__str__", "__getstate__", "__setstate__")  # not in a step


class Read(NamedTuple):
    """Something that is read: its name, how, what was there, and, of what may change in place,
    what counts and what that was.

    ``counted``: it changes only where an attribute of a Module is set; see `graph.module_changes`.
    """

    name: str
    look: Callable[[], Any]
    value: Any
    of: Callable[[Any], Any] | None = None
    held: Any = None
    counted: bool = False


def changed(reads: Iterable[Read]) -> str | None:
    """The name of the first that is not as it was; `None` when all are."""
    for name, look, value, of, held, _ in reads:
        now = look()
        if of is not None:
            if of(now) != held:
                return name
        elif now is not value and content(now) != content(value):
            return name
    return None


class _Same:
    """Equal to itself alone, and held: its identity is not given to another one."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def content(value: Any) -> Any:
    """What of a value would make another recording."""
    kind: Any = type(value)
    if kind.__eq__ is object.__eq__:  # most objects, the sooner said
        return _Same(value)
    if isinstance(value, Tensor):
        return _Same(value), value.shape, value.dtype, value.requires_grad
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return _Same(value)
        return value.shape, value.dtype, zlib.crc32(value.tobytes())
    if isinstance(value, list | tuple):
        return kind, tuple(map(content, value))
    if isinstance(value, set):
        return set, frozenset(value)
    if isinstance(value, dict):
        return dict, tuple((k, content(v)) for k, v in value.items())
    if isinstance(value, (*_PLAIN, np.generic)):
        return kind, repr(value)  # which tells −0.0 from 0.0, and knows NaN again
    return _Same(value)


def _kind(value: Any) -> Any:
    """As `content`, of a Tensor that is held, in half of the time."""
    if isinstance(value, Tensor):
        return id(value), value._data.shape, value._data.dtype, value.requires_grad
    return content(value)


def _changes(value: Any) -> bool:
    """Whether it can change in place, or holds what can."""
    return isinstance(value, _CHANGING) or (isinstance(value, tuple) and any(map(_changes, value)))


def watch(
    functions: Sequence[Any], modules: Sequence[Module] = (), baked: bool = False
) -> list[Read]:
    """What functions read, and all that the modules do and have.

    ``baked``: for a compiled cell, which has numbers in its code that a training step looks up: the
    contents of Tensors that are no attributes of the modules.
    """
    names: frozenset[str] = frozenset()
    while True:  # an attribute may be named by code that is found later
        walk = _Walk(names, modules, baked)
        walk.go(functions)
        if walk.names == names:
            return walk.reads
        names = walk.names


class _Walk:
    """One walk over everything that can be reached by these names of attributes."""

    def __init__(self, names: frozenset[str], modules: Sequence[Module], baked: bool) -> None:
        self.attributes = names
        self.names = names  # those, and what was found on the way
        self.baked = baked
        self.reads: list[Read] = []
        self._modules = {id(m): (path, m) for top in modules for path, m in top.named_modules()}
        self._inputs = {id(t) for top in modules for _, t in top.named_tensors()}
        self._left: list[tuple[str, Any]] = []
        self._known: dict[int, Any] = {}  # held, for an identity is one's own as long as one lives

    def go(self, functions: Iterable[Any]) -> None:
        self._left = [*(("", f) for f in functions), *self._modules.values()]
        while self._left:
            name, value = self._left.pop()
            if id(value) not in self._known and not isinstance(value, _PLAIN):
                self._known[id(value)] = value
                self._into(name, value)

    def _found(self, name: str, look: Callable[[], Any], value: Any, counted: bool = False) -> None:
        of, changes = None, _changes(value)
        if changes or (self.baked and isinstance(value, Tensor)):
            of = content if changes else _kind
        if not isinstance(value, ModuleType):
            held = None if of is None else of(value)
            self.reads.append(Read(name, look, value, of, held, counted and not changes))
        self._left.append((name, value))

    def _into(self, name: str, value: Any) -> None:
        if isinstance(value, functools.partial):
            self._given(name, (value.func, *value.args, *value.keywords.values()))
        elif isinstance(value, MethodType):
            self._left += [(name, value.__func__), (name, value.__self__)]
        elif isinstance(value, FunctionType):
            if not self._installed(value):
                self._function(value)
        elif isinstance(value, Tensor):
            self._tensor(name, value)
        elif isinstance(value, dict):
            self._left += [(name, part) for part in value.values()]
        elif isinstance(value, list | tuple | set):
            self._left += [(name, part) for part in value]
        elif isinstance(value, ModuleType | type):
            if not self._installed(value):
                self._own(name, vars(value))
                self._left += [(name, owner) for owner in getattr(value, "__mro__", ())]
        elif id(value) in self._modules:
            self._module(name, value)
        elif not isinstance(value, np.ndarray | np.generic):
            self._object(name, value)

    def _given(self, name: str, values: Iterable[Any]) -> None:
        for value in values:
            self._found(name, functools.partial(_itself, value), value)

    def _tensor(self, name: str, t: Tensor) -> None:
        look = functools.partial(getattr, t, "_data")
        if id(t) in self._inputs:  # looked at by whoever reads them
            return
        if not self.baked:
            self.reads.append(Read(name, look, t._data))
        elif not t.requires_grad:
            self.reads.append(Read(name, look, None, content, content(t._data)))

    def _function(self, f: FunctionType) -> None:
        variables, attributes, imports = _names(f.__code__)
        self.names |= attributes
        found = [(n, functools.partial(f.__globals__.get, n)) for n in sorted(variables)]
        found = [(n, look) for n, look in found if n in f.__globals__]
        cells = zip(f.__code__.co_freevars, f.__closure__ or (), strict=True)
        found += [(n, functools.partial(_contents, cell)) for n, cell in cells]
        for n, look in found:
            self._found(f"{f.__qualname__}.{n}", look, look())
        package = f.__globals__.get("__package__")
        modules = [m for n in imports for m in (n, f"{package}.{n}") if m in sys.modules]
        self._left += [(m, sys.modules[m]) for m in modules]
        self._given(f.__qualname__, (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()))
        self._left.append((f.__qualname__, getattr(f, "__wrapped__", None)))

    def _own(self, name: str, around: Mapping[str, Any]) -> None:
        """The attributes among these that some code names."""
        for n in sorted(self.attributes.intersection(around)):
            self._found(_dotted(name, n), functools.partial(around.get, n), around[n])
            self._left += [(_dotted(name, n), f) for f in _functions(around[n])]

    def _module(self, name: str, module: Module) -> None:
        own, kind = vars(module), type(module)
        for n, value in own.items():
            named, public = n in self.attributes, not n.startswith("_")
            if n not in _OWN and (named or public or self.baked):
                look = functools.partial(own.get, n)
                self._found(_dotted(name, n), look, value, counted=public and not named)
        name = name or kind.__name__
        training = functools.partial(own.get, "training", kind.training)
        count = functools.partial(_count, own)  # of a new one nothing is known
        self.reads += [Read(name, look, look(), counted=True) for look in (training, count)]
        if self.baked or not self._installed(kind):
            self.reads.append(Read(name, weakref.ref(module), None, type, kind))
            looks = [functools.partial(getattr, kind, n) for n in ("forward", "__call__")]
            self.reads += [Read(name, look, look()) for look in looks]
        self._class(name, kind, whole=self.baked)

    def _object(self, name: str, value: Any) -> None:
        kind, own = type(value), getattr(value, "__dict__", None)
        if not self._installed(kind):
            self._class(name, kind)
            if own is not None:  # a new one may hide one of the class
                self.reads.append(Read(name, functools.partial(len, own), len(own)))
        if own is not None:
            self._own(name, own)
            self._left.append((name, own.get("__wrapped__")))
        for owner in kind.__mro__:
            for n in self.attributes.intersection(vars(owner)):
                if isinstance(vars(owner)[n], MemberDescriptorType):  # a slot
                    look = functools.partial(getattr, value, n, None)
                    self._found(_dotted(name, n), look, look())

    def _class(self, name: str, kind: type, whole: bool = False) -> None:
        """The class of an object, with what is called without being named; or with all of it."""
        self._left.append((name, kind))
        for owner in kind.__mro__:
            for n, value in vars(owner).items():
                special = n == "forward" or n.startswith("__")
                if n not in _ELSEWHERE and (whole or special):
                    self._left += [(name, f) for f in _functions(value)]

    def _installed(self, value: Any) -> bool:
        """Whether a function, class or module is the library's, NumPy's, Python's, or somebody's
        whom pip installed; of what is baked in every function counts that is nobody's of these.
        """
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        if str(name).partition(".")[0] in _LIBRARIES:
            return True
        if self.baked and isinstance(value, FunctionType):
            return False
        file = getattr(sys.modules.get(str(name)), "__file__", None)
        return file is not None and "-packages" in file


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


@functools.cache
def _names(code: CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """What code names: global variables, attributes (also as strings, for `getattr`), modules."""
    variables, attributes, imports = set[str](), set[str](), set[str]()
    for i in dis.get_instructions(code):
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(i.argval)
        elif i.opname == "IMPORT_NAME":
            imports.add(i.argval)
        elif i.argval in code.co_names:
            attributes.add(i.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            for names, more in zip((variables, attributes, imports), _names(constant), strict=True):
                names |= more
        elif isinstance(constant, str) and constant.isidentifier():
            attributes.add(constant)
    return frozenset(variables), frozenset(attributes), frozenset(imports)


# -- while a cell is traced -----------------------------------------------------------------------


@contextmanager
def kept(cell: Module, reads: Iterable[Read]) -> Iterator[None]:
    """What a step does to its cell's attributes is undone, and is a `CompileError`."""
    modules = list(cell.named_modules())
    before = [dict(vars(m)) for _, m in modules]
    plain = (list, dict, np.ndarray)
    copies = [{k: copy.copy(v) for k, v in d.items() if isinstance(v, plain)} for d in before]
    try:
        yield
        if (name := changed(reads)) is not None:
            for (path, module), attributes in zip(modules, before, strict=True):
                for new in vars(module).keys() - attributes.keys():
                    name = _dotted(path, new)
            raise CompileError(
                f"a step changes {name}; in a compiled loop nothing is done but to compute y and "
                "the state. Make it a part of the state, or do it outside of the cell."
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
