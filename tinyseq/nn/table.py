"""`print(module)`: its layers and their tensors as a table, with shapes and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from tinyseq import errors
from tinyseq.nn.module import Module, Parameter, _parts
from tinyseq.tensor import Tensor


class Row(NamedTuple):
    """One tensor, or a layer without any; the layer is named in its first row only."""

    layer: str
    tensor: str = ""
    shape: str = ""
    parameters: str = ""
    note: str = ""
    depth: int = 0


HEADINGS = Row("layer", "tensor", "shape", "parameters")


class Table:
    """What a module is made of. A tensor or a layer that several places share counts once."""

    def __init__(self, module: Module) -> None:
        self.parameters = list(module.parameters())
        self._paths: dict[int, str] = {}  # of the tensors and modules seen so far, by id
        self.rows = list(self._below(module, "", "", 0))

    def _below(self, module: Module, name: str, path: str, depth: int) -> Iterator[Row]:
        layer = f"{name}: {module._title()}" if name else module._title()
        if id(module) in self._paths:
            yield Row(layer, note=f"shared: {self._paths[id(module)]}", depth=depth)
            return
        self._paths[id(module)] = path or "the whole"
        for attribute, value in vars(module).items():
            for part_name, part in _parts(attribute, value):
                if isinstance(part, Tensor):
                    yield self._tensor(layer, part_name, part, path, depth)
                    layer = ""
        if layer:
            yield Row(layer, depth=depth)
        for part_name, child in module._children():
            yield from self._below(child, part_name, _joined(path, part_name), depth + 1)

    def _tensor(self, layer: str, name: str, tensor: Tensor, path: str, depth: int) -> Row:
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
        self._paths.setdefault(id(tensor), _joined(path, name))
        return Row(layer, name, errors.describe(tensor.shape), count, ", ".join(notes), depth)

    def totals(self) -> list[Row]:
        """The rows below the line."""
        sizes: Counter[str] = Counter()
        for p in self.parameters:
            sizes[str(p.dtype)] += p.size
        memory = sum(p.size * p.dtype.itemsize for p in self.parameters)
        what = f"total, {_memory(memory)} of {' and '.join(sizes)}" if sizes else "total"
        rows = [Row(what, parameters=f"{sizes.total():,d}")]
        trained = sum(p.size for p in self.parameters if p.requires_grad)
        if trained != sizes.total():
            rows.append(Row("without what is frozen", parameters=f"{trained:,d}"))
        return rows

    def text(self) -> str:
        """Aligned columns, for a terminal."""
        body = [_indented(row) for row in self.rows]
        totals = self.totals()
        lines = [HEADINGS, *body, *totals]
        widths = [max(len(str(line[i])) for line in lines) for i in range(4)]
        rule = "-" * (sum(widths) + 3 * 2)
        shown = [_line(line, widths) for line in lines]
        ends = len(shown) - len(totals)
        return "\n".join([shown[0], rule, *shown[1:ends], rule, *shown[ends:]])

    def html(self) -> str:
        """The same for a notebook."""
        notes = any(row.note for row in self.rows)
        head = "".join(f"<th{_style(i)}>{heading}</th>" for i, heading in enumerate(HEADINGS[:4]))
        lines = [_html_line(row, notes) for row in self.rows]
        totals = [_html_line(row, notes) for row in self.totals()]
        return (
            f"<table><thead><tr>{head}{'<th></th>' * notes}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody><tfoot>{''.join(totals)}</tfoot></table>"
        )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _indented(row: Row) -> Row:
    return row._replace(layer=f"{'  ' * row.depth}{row.layer}") if row.layer else row


def _line(row: Row, widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False)]
    return "  ".join([*cells, row.parameters.rjust(widths[3]), row.note]).rstrip()


def _html_line(row: Row, notes: bool) -> str:
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
