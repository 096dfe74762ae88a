"""What values hold, compared: a recording rests on what was there when it was made."""

from __future__ import annotations

import array
import copy
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinyseq.errors import CompileError
from tinyseq.tensor import Tensor

if TYPE_CHECKING:
    from tinyseq.nn.module import Module

PLAIN = (bool, int, float, complex, str, bytes, type(None))
_BYTES = (bytearray, memoryview, array.array)
SEQUENCES = (list, tuple, deque)
CHANGING = (
    np.ndarray, list, dict, set, deque, MappingProxyType, *_BYTES,
    np.random.Generator, np.random.RandomState,
)  # fmt: skip
DRAWS = (
    "the step draws random numbers, and would draw the same ones at every step. Draw them before "
    "the first step: give the cell noise(x, state), as nn.Zoneout has it."
)


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
    if isinstance(value, np.random.Generator):
        return content(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return content(value.get_state(legacy=False))
    if kind.__eq__ is object.__eq__:  # most objects, the sooner said
        return _Same(value)
    if isinstance(value, Tensor):
        return _Same(value), value.shape, value.dtype, value.requires_grad
    if isinstance(value, np.ndarray):
        plain, more = value.view(np.ndarray), getattr(value, "__dict__", None)
        objects = value.dtype.hasobject
        held = tuple(map(content, plain.flat)) if objects else zlib.crc32(plain.tobytes())
        return value.shape, value.dtype, held, more and content(more)  # a mask is among those
    if isinstance(value, SEQUENCES):
        return kind, tuple(map(content, value))
    if isinstance(value, set):
        return set, frozenset(value)
    if isinstance(value, dict | MappingProxyType):
        return dict, tuple((k, content(v)) for k, v in value.items())
    if isinstance(value, _BYTES):
        return kind, memoryview(value).tobytes()
    if isinstance(value, (*PLAIN, np.generic)):
        return kind, repr(value)  # which tells −0.0 from 0.0, and knows NaN again
    return _Same(value)


def kind_of(value: Any) -> Any:
    """As `content`, of a Tensor that is held, in half of the time."""
    if isinstance(value, Tensor):
        return id(value), value._data.shape, value._data.dtype, value.requires_grad
    return content(value)


def changes(value: Any) -> bool:
    """Whether it can change in place, or holds what can."""
    return isinstance(value, CHANGING) or (isinstance(value, tuple) and any(map(changes, value)))


# -- while a cell is traced -----------------------------------------------------------------------


@contextmanager
def kept(cell: Module, reads: Sequence[Read]) -> Iterator[None]:
    """What a step does to its cell's attributes is undone, and is a `CompileError`."""
    modules = list(cell.named_modules())
    before = [dict(vars(m)) for _, m in modules]
    plain = (list, dict, np.ndarray)
    copies = [{k: copy.copy(v) for k, v in d.items() if isinstance(v, plain)} for d in before]
    drawing = (r.value for r in reads if isinstance(r.value, np.random.Generator))
    streams = [(g, g.bit_generator.state) for g in drawing]
    try:
        yield
        if any(g.bit_generator.state != state for g, state in streams):
            raise CompileError(DRAWS)
        if (name := changed(reads)) is not None:
            for (path, module), attributes in zip(modules, before, strict=True):
                for new in vars(module).keys() - attributes.keys():
                    name = f"{path}.{new}" if path else new
            raise CompileError(
                f"a step changes {name}; in a compiled loop nothing is done but to compute y and "
                "the state. Make it a part of the state, or do it outside of the cell."
            )
    finally:
        for g, state in streams:
            g.bit_generator.state = state
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
