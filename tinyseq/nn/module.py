"""`Module`: something with parameters that can be called. `Parameter`: a tensor that is trained."""

from __future__ import annotations

import functools
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from tinyseq import arguments, errors, graph, nested, states
from tinyseq.arguments import FloatDtype, checked
from tinyseq.tensor import FLOATS, Tensor

T = TypeVar("T")


class Parameter(Tensor):
    """A leaf Tensor that requires a gradient and that a `Module` counts among its parameters."""

    __slots__ = ()

    @checked
    def __init__(self, data: npt.ArrayLike | Tensor, dtype: npt.DTypeLike | None = None) -> None:
        super().__init__(data, dtype, requires_grad=True)


def _scoped(call: Callable[..., Any]) -> Callable[..., Any]:
    """What a module's call records carries the module's name in its path."""

    @functools.wraps(call)
    def scoped_call(self: Module, *args: Any, **kwargs: Any) -> Any:
        if graph.recording.tape is not None:
            graph.note_call(self)
        with graph.scope(self._scope_name or type(self).__name__, self):
            try:
                return call(self, *args, **kwargs)
            except errors.ShapeError:
                raise
            except (TypeError, AttributeError, LookupError, ValueError):
                step = type(self).forward if call.__qualname__ == "Module.__call__" else call
                arguments.explain(step, (self, *args), kwargs)
                raise

    return scoped_call


class Listed(list[T]):
    """A list, so that a loop leaves it whole; and as from a generator, ``next`` takes the first out
    of it: ``next(module.parameters())``, as in PyTorch.
    """

    def __next__(self) -> T:
        if not self:
            raise StopIteration
        return self.pop(0)


def _parts(attributes: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Attributes by their names; of containers, however nested, the Modules and Parameters."""
    for name, value in attributes:
        if isinstance(value, nested.CONTAINERS) and not isinstance(value, Module):
            yield from nested.named(name, value, (Module, Parameter))
        else:
            yield name, value


class Module:
    """Base of every layer and cell, and of a user's own.

    Write ``forward`` (as in PyTorch) or ``__call__``; assign `Parameter`, `Module`, and lists,
    tuples and dictionaries of them, nested as you like, as attributes of the object, in the order
    in which they should be listed. A plain `Tensor` attribute (not in a list) is a constant that
    belongs to the state (saved and loaded) but is not trained.

    Raises `TypeError` for what would never be trained: layers and parameters in a set, which has no
    order, as attributes of a class, or in ``__slots__``.
    """

    training: bool = True
    _scope_name: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = dict(cls.__dict__)
        shared = [n for n, part in _parts(own.items()) if isinstance(part, Module | Parameter)]
        if shared or own.get("__slots__"):
            what = f"{shared[0]} belongs to the class" if shared else "it has __slots__"
            raise TypeError(
                f"{cls.__name__}: {what}, but layers and parameters are found among the attributes "
                "of an object. Assign them in __init__, as self.name = …"
            )
        if "__call__" in own:
            cls.__call__ = _scoped(own["__call__"])  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: Any) -> None:
        value = arguments.assigned(self, name, value)
        parts = reversed([*_parts([(name, value)])])  # what is there twice keeps its first path
        for path, part in {id(part): (path, part) for path, part in parts}.values():
            if isinstance(part, Module):
                part.__dict__["_scope_name"] = path
            elif isinstance(part, Tensor) and part.name is None:
                part.name = path
        graph.unrepeated(f"{type(self).__name__}.{name} = …")
        super().__setattr__(name, value)
        if not name.startswith("_"):
            graph.module_changes[0] = object()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            f"{type(self).__name__} computes nothing yet: give it a forward() or a __call__()."
        )

    @_scoped
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # -- what it is made of ---------------------------------------------------------------------

    def _own(self) -> Iterator[tuple[str, Any]]:
        """Its attributes; in place of containers, what is in them."""
        return _parts(list(vars(self).items()))  # another thread may add one meanwhile

    def _children(self) -> list[tuple[str, Module]]:
        return [(path, part) for path, part in self._own() if isinstance(part, Module)]

    @checked
    def named_modules(self, prefix: str = "") -> Listed[tuple[str, Module]]:
        """This module and all below it, each once, with dotted names (its own is the prefix)."""
        found: Listed[tuple[str, Module]] = Listed()
        seen: set[int] = set()
        left: list[tuple[str, Module]] = [(prefix, self)]
        while left:
            path, module = left.pop()
            if id(module) not in seen:
                seen.add(id(module))
                found.append((path, module))
                children = reversed(module._children())
                left += [(_dotted(path, name), child) for name, child in children]
        return found

    def named_tensors(self) -> Listed[tuple[str, Tensor]]:
        """Parameters and constants, each once, with dotted names such as ``layers.0.cell.w_x``."""
        found: dict[int, tuple[str, Tensor]] = {}
        for path, module in self.named_modules():
            for name, part in module._own():
                if isinstance(part, Tensor):
                    found.setdefault(id(part), (_dotted(path, name), part))
        return Listed(found.values())

    def named_parameters(self) -> Listed[tuple[str, Parameter]]:
        """The tensors that are trained, each once (shared ones too), with dotted names."""
        return Listed((n, t) for n, t in self.named_tensors() if isinstance(t, Parameter))

    def parameters(self) -> Listed[Parameter]:
        """The tensors that are trained, each once: a list, to be read as often as you like.

        ``next`` takes the first out of it, so ``next(module.parameters())`` works as in PyTorch.
        """
        return Listed(p for _, p in self.named_parameters())

    # -- state ----------------------------------------------------------------------------------

    def _state(self) -> dict[str, Tensor]:
        """Parameters and constants by their names. `ValueError` when two have the same one."""
        tensors = self.named_tensors()
        state = dict(tensors)
        if len(state) < len(tensors):
            names = Counter(name for name, _ in tensors)
            twice = ", ".join(name for name, n in names.items() if n > 1)
            raise ValueError(
                f"{type(self).__name__} has two tensors of the same name: {twice}. Rename an "
                "attribute, or a dictionary's key: 1 and '1' are written alike, and so are a.b "
                "and what is called b within a."
            )
        return state

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and constants under their dotted names.

        Raises `ValueError` when two of them have the same one.
        """
        return {name: t.numpy() for name, t in self._state().items()}

    @checked
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over contents that `state_dict` gave; each keeps the dtype it has here.

        Raises `ValueError` that lists missing, unknown and misshapen entries, and those that the
        dtype here cannot hold, before anything is written.
        """
        states.write(self._restored(state))

    def _restored(
        self, state: Mapping[str, npt.ArrayLike | Tensor]
    ) -> list[tuple[Tensor, np.ndarray]]:
        """What `load_state_dict` writes, and into what."""
        mine = self._state()
        arrays = states.read(
            {name: t._data for name, t in mine.items()},
            state,
            type(self).__name__,
            "Build the module with the sizes and options it was saved with.",
        )
        return [(t, arrays[name]) for name, t in mine.items()]

    @checked
    def astype(self, dtype: FloatDtype) -> Self:
        """Parameters and constants in float32 or float64, in place; returns the module."""
        wanted = np.dtype(dtype)
        for _, t in self.named_tensors():
            if t.dtype in FLOATS:
                t.replace(t._data.astype(wanted))
                t.grad = None
        return self

    def double(self) -> Self:
        """float64 throughout, for checks; as in PyTorch."""
        return self.astype(np.float64)

    def float(self) -> Self:
        """float32 throughout; as in PyTorch."""
        return self.astype(np.float32)

    @checked
    def train(self, mode: bool = True) -> Self:
        """Training mode on (dropout drops) or off, here and below; returns the module.

        The mode belongs to the module: all threads that call it see the same.
        """
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Training mode off; returns the module."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients collected so far."""
        for p in self.parameters():
            p.grad = None

    # -- how it is shown ------------------------------------------------------------------------

    def __str__(self) -> str:
        """A table: each layer, its tensors, their shapes, how many parameters, and the total."""
        return _Table(self).text()

    def _repr_html_(self) -> str:
        """The same table where a notebook shows the module."""
        return _Table(self).html()

    @reprlib.recursive_repr("...")
    def __repr__(self) -> str:
        children = [
            f"  {name}: {child!r}".replace("\n", "\n  ") for name, child in self._children()
        ]
        head = f"{type(self).__name__}({self._sizes()}"
        return head + ("\n" + "\n".join(children) + "\n)" if children else ")")

    def _title(self) -> str:
        """Its kind, with what it says of itself beyond the tensors that the table lists."""
        own = type(self)._describe is not Module._describe
        sizes = self._sizes() if own else ""
        return f"{type(self).__name__}({sizes})" if sizes else type(self).__name__

    def _sizes(self) -> str:
        try:
            return self._describe()
        except AttributeError:  # an __init__ that did not call its base class's: shown all the same
            return "..."

    def _describe(self) -> str:
        """The sizes to show in ``repr``."""
        shapes = [
            f"{n} {errors.describe(t.shape)}"
            for n, t in vars(self).items()
            if isinstance(t, Tensor)
        ]
        return ", ".join(shapes)


# -- `print(module)`: its layers and their tensors as a table, with shapes and counts ------------


class _Row(NamedTuple):
    """One tensor, or a layer without any; the layer is named in its first row only."""

    layer: str
    tensor: str = ""
    shape: str = ""
    parameters: str = ""
    note: str = ""
    depth: int = 0


_HEADINGS = _Row("layer", "tensor", "shape", "parameters")


class _Table:
    """What a module is made of. A tensor or a layer that several places share counts once."""

    def __init__(self, module: Module) -> None:
        self.parameters = module.parameters()
        self._paths: dict[int, str] = {}  # of the tensors and modules seen so far, by id
        self.rows = list(self._below(module, "", "", 0))

    def _below(self, module: Module, name: str, path: str, depth: int) -> Iterator[_Row]:
        layer = f"{name}: {module._title()}" if name else module._title()
        if id(module) in self._paths:
            yield _Row(layer, note=f"shared: {self._paths[id(module)]}", depth=depth)
            return
        self._paths[id(module)] = path or "the whole"
        for part_name, part in module._own():
            if isinstance(part, Tensor):
                yield self._tensor(layer, part_name, part, path, depth)
                layer = ""
        if layer:
            yield _Row(layer, depth=depth)
        for part_name, child in module._children():
            yield from self._below(child, part_name, _dotted(path, part_name), depth + 1)

    def _tensor(self, layer: str, name: str, tensor: Tensor, path: str, depth: int) -> _Row:
        count, notes = "", []
        if id(tensor) in self._paths:
            notes.append(f"shared: {self._paths[id(tensor)]}")
        elif isinstance(tensor, Parameter):
            count = f"{tensor.size:,d}"
        else:
            notes.append("constant")
        if isinstance(tensor, Parameter) and not tensor.requires_grad:
            notes.append("frozen")
        if len({p.dtype for p in self.parameters}) > 1:
            notes.append(str(tensor.dtype))
        self._paths.setdefault(id(tensor), _dotted(path, name))
        return _Row(layer, name, errors.describe(tensor.shape), count, ", ".join(notes), depth)

    def totals(self) -> list[_Row]:
        """The rows below the line."""
        sizes: Counter[str] = Counter()
        for p in self.parameters:
            sizes[str(p.dtype)] += p.size
        memory = sum(p.size * p.dtype.itemsize for p in self.parameters)
        what = f"total, {_memory(memory)} of {' and '.join(sizes)}" if sizes else "total"
        rows = [_Row(what, parameters=f"{sizes.total():,d}")]
        trained = sum(p.size for p in self.parameters if p.requires_grad)
        if trained != sizes.total():
            rows.append(_Row("without what is frozen", parameters=f"{trained:,d}"))
        return rows

    def text(self) -> str:
        """Aligned columns, for a terminal."""
        n = len(totals := self.totals())
        rows = [
            (f"{'  ' * row.depth}{row.layer}" if row.layer else "", *row[1:5])
            for row in (_HEADINGS, *self.rows, *totals)
        ]
        layer, tensor, shape, count = (max(len(str(row[i])) for row in rows) for i in range(4))
        lines = [
            f"{a:{layer}}  {b:{tensor}}  {c:{shape}}  {d:>{count}}  {note}".rstrip()
            for a, b, c, d, note in rows
        ]
        rule = "-" * (layer + tensor + shape + count + 3 * 2)
        return "\n".join([lines[0], rule, *lines[1:-n], rule, *lines[-n:]])

    def html(self) -> str:
        """The same for a notebook."""
        notes = any(row.note for row in self.rows)
        head = "".join(f"<th{_style(i)}>{heading}</th>" for i, heading in enumerate(_HEADINGS[:4]))
        lines = [_html_line(row, notes) for row in self.rows]
        totals = [_html_line(row, notes) for row in self.totals()]
        return (
            f"<table><thead><tr>{head}{'<th></th>' * notes}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody><tfoot>{''.join(totals)}</tfoot></table>"
        )


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _html_line(row: _Row, notes: bool) -> str:
    from html import escape  # for notebooks alone: `import tinyseq` stays quick

    cells = [
        f"<td{_style(i, row.depth)}>{escape(str(cell))}</td>"
        for i, cell in enumerate(row[: 5 if notes else 4])
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _style(column: int, depth: int = 0) -> str:
    indent = f";padding-left:{0.5 + 1.5 * depth}em" if column == 0 and depth else ""
    return f' style="text-align:{"right" if column == 3 else "left"}{indent}"'


def _memory(size: int) -> str:
    """So many bytes, as they are spoken of: 999 B, 2.1 kB, 1.1 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
