"""The third pass: a plan as Python that a person can read and numba can compile.

Each list of equations becomes loops over the rows of a batch, one short loop an array that is
written: LLVM vectorises those, and gives up on long ones over many arrays. Cheap equations are
written into the loops that read them; others get a row of scratch memory, which stays in the
cache. Products are calls of the kernel on all rows of a thread at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tinyseq.compiler.program import BATCH, Equation, Value, leading_to, users
from tinyseq.compiler.split import DEAR, VIEWS, Plan, base, columns, kind, listed, stages

_MOST = 12  # operations in one loop …
_ARRAYS = 6  # … and arrays that it reads: beyond, LLVM does not vectorise
_ATOM = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789.")


class Argument(NamedTuple):
    """An array that an emitted function takes.

    ``role``: ``"steps"`` (T, B, W), ``"state"`` (T + 1, B, W), ``"carried"`` (2, B, W), ``"rows"``
    (B, W), ``"scratch"`` and ``"sums"`` (parts, W), ``"flat"`` (as it is), ``"panels"`` (packed).
    """

    name: str
    role: str
    value: Value


@dataclass
class Function:
    """An emitted function: its text, and what it takes behind (part, parts, first, last, …)."""

    name: str
    source: str
    arguments: list[Argument] = field(default_factory=list)


@dataclass
class Source:
    """All functions of a plan. ``before`` and ``after`` mirror the plan's stages: a product stays
    an equation, a list of equations becomes a function.
    """

    before: list[Equation | Function]
    forward: Function
    backward: Function | None
    after: list[Equation | Function]
    text: str


def emit(plan: Plan) -> Source:
    """The source of a plan; its docstring is the program."""
    program = plan.program
    assert program.y is not None
    known: dict[Value, str] = {program.x: "steps"}
    known |= {v: "steps" for v in program.noise}
    known |= {v: "state" for v in program.before}

    before: list[Equation | Function] = []
    for n, stage in enumerate(plan.before):
        later = [e for s in plan.before[n + 1 :] for e in listed(s)] + plan.forward + plan.backward
        before.append(_stage(plan, f"before_{n}", stage, [], known, later))
    stored = {v: "steps" for v in plan.saved}
    targets = [_Target(v, "state", i) for i, v in enumerate(program.states)]
    if program.y not in program.states:
        targets.append(_Target(program.y, "steps", "y"))
    forward = _Writer(plan, "forward", plan.forward, known | stored, targets).loop()
    backward, after = None, []
    if plan.wanted:
        known |= stored | {v: "state" for v in program.states}
        known[program.seeds[0]] = "steps"
        known |= {v: "carried" for v in program.seeds[1:]}
        targets = [
            _Target(program.gradients.get(v), "carried", i) for i, v in enumerate(program.before)
        ]
        targets += [_Target(e.output, "sums", "") for e in plan.collected]
        steps = {v: "steps" for o in plan.outer for v in (o.left, o.right) if v not in known}
        made = {e.output for e in plan.backward + plan.again}
        late = [x for stage in plan.after for e in listed(stage) for x in e.inputs]
        steps |= {base(v): "steps" for v in late if base(v) in made}
        equations = plan.again + plan.backward + plan.collected
        writer = _Writer(plan, "backward", equations, known | steps, targets)
        backward = writer.loop(back=True)
        known |= steps
        for n, stage in enumerate(plan.after):
            later = [e for s in plan.after[n + 1 :] for e in listed(s)]
            after.append(_stage(plan, f"after_{n}", stage, plan.again, known, later))
    functions = [f for f in [*before, forward, backward, *after] if isinstance(f, Function)]
    head = (
        f'"""{program}\n"""\n\n'
        "from numpy import float32, float64, inf, isfinite, nan\n\n"
        "from tinyseq.kernels.activations import *\n"
        "from tinyseq.kernels.gemm import matmul\n"
    )
    text = head + "".join(f"\n\n{f.source}" for f in functions)
    return Source(before, forward, backward, after, text)


def _stage(
    plan: Plan,
    name: str,
    stage: Equation | list[Equation],
    again: list[Equation],
    known: dict[Value, str],
    later: list[Equation],
) -> Equation | Function:
    """A stage for all rows at once; what others read of it is known from then on."""
    program = plan.program
    if isinstance(stage, Equation):
        known[stage.output] = "steps"
        return stage
    read = {base(x) for e in later for x in e.inputs}
    read |= {base(x) for o in plan.outer for x in (o.left, o.right)}
    read |= {base(x) for e in plan.collected for x in e.inputs}
    ends = {v for v in program.gradients.values() if v is not None}
    steps = {e.output: "steps" for e in stage if e.output in read or e.output in ends}
    steps = {v: role for v, role in steps.items() if kind(v.made) != "collect"}  # type: ignore[arg-type]
    sums = [_Target(e.output, "sums", "") for e in stage if kind(e) == "collect"]
    function = _Writer(plan, name, again + stage, known | steps, sums).rows()
    known |= steps
    return function


class _Target(NamedTuple):
    """A place that a value has to end up in, whether it is made there or copied."""

    value: Value | None  # None: zeros
    role: str
    place: Any  # which state, or which name


class _Index(NamedTuple):
    """Column ``step · j + start`` of a row."""

    start: int = 0
    step: int = 1
    variable: str = "j"

    def of(self, start: int, step: int) -> _Index:
        return _Index(start + step * self.start, step * self.step, self.variable)

    def __str__(self) -> str:
        if not self.step or not self.variable:
            return str(self.start)
        text = self.variable if self.step == 1 else f"{self.step} * {self.variable}"
        return f"{self.start} + {text}" if self.start else text


_ZERO = _Index(0, 0, "")
_J = _Index()


class _Writer:
    """One function: where each value is, and the loops that put it there."""

    def __init__(
        self,
        plan: Plan,
        name: str,
        equations: list[Equation],
        known: dict[Value, str],
        targets: list[_Target],
    ) -> None:
        self.plan, self.name, self.targets = plan, name, targets
        self.program = plan.program
        self.number = str(self.program.dtype)
        self.arguments: dict[tuple[str, str], Argument] = {}
        self.before = {v: i for i, v in enumerate(self.program.before)}
        self.carried = {v: i for i, v in enumerate(self.program.seeds[1:])}
        self.after: dict[Value, int] = {}
        made = {e.output for e in equations}
        stored = {v for v, role in known.items() if role == "steps" and v in made}
        ends = [t.value for t in targets if t.value is not None]
        needed = leading_to([*stored, *ends])
        self.equations = [e for e in equations if e.output in needed]
        self.where: dict[Value, str] = {v: r for v, r in known.items() if v not in made}
        self.stored = stored
        self.segments = stages([e for e in self.equations if kind(e) != "collect"])
        self.collected = [e for e in self.equations if kind(e) == "collect"]
        self.segment = {
            e.output: n for n, stage in enumerate(self.segments) for e in listed(stage)
        }
        self.users = users(self.equations)
        self.weight: dict[Value, int] = {}
        self.arrays: dict[Value, set[Value]] = {}
        self._place()

    # -- where each value is ----------------------------------------------------------------------

    def _place(self) -> None:
        forward = self.name == "forward"
        for target in self.targets:
            value = target.value
            own = value in self.segment and value not in self.where
            if own and kind(value.made) != "view" and value not in self.after:  # type: ignore[union-attr, arg-type]
                if target.role == "state" and forward:
                    assert value is not None
                    self.after[value] = target.place
                    self.where[value] = "after"
                elif target.role == "carried" and not self._stored(value):
                    assert value is not None
                    self.after[value] = target.place
                    self.where[value] = "following"
        if not forward:
            for i, v in enumerate(self.program.states):
                if v not in self.segment:
                    self.after[v] = i
                    self.where.setdefault(v, "after")
                    if self.where[v] == "state":
                        self.where[v] = "after"
        operands = {
            self._operand(e.inputs[0]) for e in self.equations if kind(e) == "product"
        }
        for stage in self.segments:
            for e in listed(stage):
                v = e.output
                if v in self.where:
                    pass
                elif v in self.stored:
                    self.where[v] = "steps"
                elif kind(e) == "product" or v in operands:
                    self.where[v] = "rows"
                elif kind(e) == "view":
                    self.where[v] = "inline"
                elif self._leaves(v):
                    self.where[v] = "rows"
                elif v.width == 1 and kind(e) != "assemble":
                    self.where[v] = "local"
                elif kind(e) == "elementwise" and self._inline(e):
                    self.where[v] = "inline"
                else:
                    self.where[v] = "scratch"
                self._measure(e)

    def _stored(self, value: Value | None) -> bool:
        return value in self.stored

    def _operand(self, v: Value) -> Value:
        """What has to be in memory for a product to read v: v itself, or what it is a slice of."""
        while v.made is not None and v in self.segment and kind(v.made) == "view":
            if v.made.op.name != "getitem":
                break
            cols = columns(v.made.inputs[0], v.made.attrs["index"], v.made)
            if len(cols) > 1 and cols[1] - cols[0] != 1:
                break
            v = v.made.inputs[0]
        return v

    def _readers(self, v: Value) -> list[Equation]:
        """The equations that read v, itself or through views."""
        out: list[Equation] = []
        for e in self.users.get(v, []):
            if kind(e) == "view" and self.where.get(e.output, "inline") == "inline":
                out += self._readers(e.output)
            else:
                out.append(e)
        return out

    def _leaves(self, v: Value) -> bool:
        """Whether a later stage of this function reads v."""
        here = self.segment[v]
        return any(
            self.segment.get(e.output, len(self.segments)) != here
            for e in self._readers(v)
            if kind(e) != "collect"
        )

    def _inline(self, e: Equation) -> bool:
        readers = self._readers(e.output) + [
            e for t in self.targets if t.value is e.output and t.role != "sums"
        ]
        weight = 1 + sum(self.weight.get(x, 0) for x in e.inputs)
        arrays = set[Value]().union(*(self._reads(x) for x in e.inputs))
        if any(r.op.name in ("max", "min", "logsumexp") for r in readers):
            return False  # they read their input twice
        if len(readers) > 1 and (e.op.name in DEAR or weight > 3 or len(readers) > 2):
            return False
        return weight <= _MOST and len(arrays) <= _ARRAYS

    def _measure(self, e: Equation) -> None:
        v = e.output
        if self.where[v] == "inline":
            own = 0 if kind(e) == "view" else 4 if e.op.name in DEAR and e.op.name != "div" else 1
            self.weight[v] = own + sum(self.weight.get(x, 0) for x in e.inputs)
            self.arrays[v] = set[Value]().union(*(self._reads(x) for x in e.inputs))
        else:
            self.weight[v], self.arrays[v] = 0, {v}

    def _reads(self, x: Value) -> set[Value]:
        if x.number or x.kind == "constant":
            return set()
        return self.arrays.get(x, {x})

    # -- expressions ------------------------------------------------------------------------------

    def array(self, value: Value, role: str, name: str | None = None) -> str:
        name = name or value.name
        key = (name, role)
        if key not in self.arguments:
            self.arguments[key] = Argument(name, role, value)
        return name

    def element(self, v: Value, j: _Index) -> str:
        """The text of one number of v: in column j of the row at hand."""
        if v.kind == "constant" and (v.number or (v.row and v.data is not None)):
            return self.literal(v)
        if not v.row:
            return self.flat(v, j)
        if v.width == 1:
            j = _ZERO
        where = self.where.get(v)
        if where == "inline":
            return self.inline(v, j)
        if where == "local":
            return v.name
        front = self.front(v, "i")
        return f"{front}, {j}]"

    def front(self, v: Value, rows: str) -> str:
        """The text of v's memory up to the column: ``h[before, i``."""
        where = self.where[v]
        if where == "state":
            return f"{self.array(v, 'state')}[before, {rows}"
        if where == "after":
            return f"{self.array(self.program.before[self.after[v]], 'state')}[after, {rows}"
        if where == "carried":
            return f"{self.array(v, 'carried')}[now, {rows}"
        if where == "following":
            return f"{self.array(self.program.seeds[1 + self.after[v]], 'carried')}[following, {rows}"
        if where == "steps":
            return f"{self.array(v, 'steps')}[t, {rows}"
        if where == "rows":
            return f"{self.array(v, 'rows')}[{rows}"
        assert where == "scratch", (v, where)
        return f"{self.array(v, 'scratch')}[part"

    def literal(self, v: Value) -> str:
        assert v.data is not None
        value = v.data.item() if v.data.size == 1 else 0.0
        if isinstance(value, bool):
            return str(value)
        return f"{self.number}({float(value)!r})"

    def flat(self, v: Value, j: _Index) -> str:
        name = self.array(v, "flat")
        if v.shape == ():
            return f"{name}[()]"
        last = "0" if v.shape[-1] == 1 else str(j)
        return f"{name}[{'0, ' * (len(v.shape) - 1)}{last}]"

    def inline(self, v: Value, j: _Index) -> str:
        e = v.made
        assert e is not None
        if kind(e) == "view":
            x = e.inputs[0]
            if e.op.name == "getitem":
                cols = columns(x, e.attrs["index"], e)
                step = int(cols[1] - cols[0]) if len(cols) > 1 else 0
                j = j.of(int(cols[0]), step) if step else _Index(int(cols[0]), 0, "")
            return self.element(x, j)
        return self.formula(e, j)

    def formula(self, e: Equation, j: _Index) -> str:
        """The right side of an element-wise equation."""
        texts = [self.element(x, j) for x in e.inputs]
        if e.op.name == "astype":
            return f"{e.output.dtype if e.output.dtype != bool else 'bool'}({texts[0]})"
        if e.output.dtype != bool and e.op.name != "where":
            texts = [
                f"{self.number}({text})" if x.dtype == bool else text
                for x, text in zip(e.inputs, texts, strict=True)
            ]
        assert e.op.emit is not None
        return grouped(e.op.emit.format(*texts))

    # -- statements -------------------------------------------------------------------------------

    def statements(self, e: Equation) -> list[str]:
        """What puts the result of a row equation where it belongs, for one row."""
        v, what = e.output, kind(e)
        if self.where[v] == "inline":
            return []
        if what == "reduce":
            return self.reduction(e)
        if what == "assemble":
            return self.assembly(e)
        put = self.inline if what == "view" else lambda v, j: self.formula(e, j)
        if self.where[v] == "local":
            return [f"{v.name} = {bare(put(v, _ZERO))}"]
        if v.width == 1:
            return [f"{self.element(v, _ZERO)} = {bare(put(v, _ZERO))}"]
        return loop(v.width, f"{self.element(v, _J)} = {bare(put(v, _J))}")

    def reduction(self, e: Equation) -> list[str]:
        x, v = e.inputs[0], e.output
        total = v.name if self.where[v] == "local" else "total"
        zero = f"{self.number}(0.0)"
        term = bare(self.element(x, _J))
        if e.op.name in ("sum", "sum_to"):
            lines = [f"{total} = {zero}", *loop(x.width, f"{total} += {term}")]
        elif e.op.name in ("max", "min"):
            which = "maximum" if e.op.name == "max" else "minimum"
            first = bare(self.element(x, _ZERO))
            lines = [f"{total} = {first}"]
            lines += loop(x.width, f"{total} = {which}({total}, {term})")
        else:
            first = bare(self.element(x, _ZERO))
            lines = [f"largest = {first}"]
            lines += loop(x.width, f"largest = maximum(largest, {term})")
            lines += [f"largest = largest if isfinite(largest) else {zero}", f"{total} = {zero}"]
            lines += loop(x.width, f"{total} += exp({self.element(x, _J)} - largest)")
            lines += [f"{total} = log({total}) + largest"]
        if self.where[v] != "local":
            lines.append(f"{self.element(v, _ZERO)} = {total}")
        return lines

    def assembly(self, e: Equation) -> list[str]:
        """concat and scatter_add: each part in its own columns."""
        v = e.output
        if e.op.name == "concat":
            ends = np.cumsum([0, *(x.width for x in e.inputs)]).tolist()
            places = [np.arange(a, b) for a, b in zip(ends, ends[1:], strict=False)]
        else:
            places = [columns(v, index, e) for index in e.attrs["indices"]]
        covered = np.concatenate(places) if places else np.zeros(0, int)
        once = len(np.unique(covered)) == len(covered)
        lines = []
        if not once or len(covered) < v.width:
            lines += loop(v.width, f"{self.element(v, _J)} = {self.number}(0.0)")
        for x, cols in zip(e.inputs, places, strict=True):
            step = int(cols[1] - cols[0]) if len(cols) > 1 else 1
            into = f"{self.front(v, 'i')}, {_Index(int(cols[0]), step)}]"
            sign = "=" if once else "+="
            lines += loop(len(cols), f"{into} {sign} {bare(self.element(x, _J))}")
        return lines

    def collection(self, e: Equation) -> list[str]:
        """A sum over steps and sequences, a part of it for each thread."""
        x, v = e.inputs[0], e.output
        name = self.array(v, "sums")
        term = bare(self.element(x, _J))
        if v.width == 1 and x.width > 1:
            return [
                f"total = {self.number}(0.0)",
                *loop(x.width, f"total += {term}"),
                f"{name}[part, 0] += total",
            ]
        if v.width == 1:
            return [f"{name}[part, 0] += {bare(self.element(x, _ZERO))}"]
        return loop(v.width, f"{name}[part, j] += {term}")

    def product(self, e: Equation) -> str:
        left, right = e.inputs
        out = f"{self.front(e.output, 'first:last')}]"
        panels = self.array(right, "panels", f"{right.name}_panels")
        return f"matmul({self.matrix(left)}, {panels}, {out}, 0)"

    def matrix(self, v: Value) -> str:
        held = self._operand(v)
        text = self.front(held, "first:last")
        if v is held:
            return f"{text}]"
        start, width = 0, v.width
        while v is not held:
            assert v.made is not None
            start += int(columns(v.made.inputs[0], v.made.attrs["index"], v.made)[0])
            v = v.made.inputs[0]
        return f"{text}, {start}:{start + width}]"

    # -- functions --------------------------------------------------------------------------------

    def body(self) -> list[str]:
        """All statements of one step, for the rows of one thread."""
        lines: list[str] = []
        last = len(self.segments) - 1
        pending = self.copies()
        sums: dict[int, list[str]] = {}  # each as soon as what it adds up is there
        for e in self.collected:
            n = self.segment.get(e.inputs[0], 0)
            while n <= last and isinstance(self.segments[n], Equation):
                n += 1
            sums.setdefault(n, []).extend(self.collection(e))
        for n, stage in enumerate(self.segments):
            if isinstance(stage, Equation):
                lines.append(self.product(stage))
                continue
            rows = [s for e in stage for s in self.statements(e)]
            rows += sums.pop(n, [])
            if n == last:
                rows += pending
                pending = []
            if rows:
                lines += ["for i in range(first, last):", *indented(rows)]
        pending = [s for part in sums.values() for s in part] + pending
        if pending:
            lines += ["for i in range(first, last):", *indented(pending)]
        return lines

    def copies(self) -> list[str]:
        """What has to end up in a place where it was not made."""
        lines = []
        for target in self.targets:
            v = target.value
            if target.role == "sums":
                continue
            if target.role == "state":
                if v in self.after and self.after[v] == target.place and v in self.segment:
                    continue
                held = self.program.before[target.place]
                into = f"{self.array(held, 'state')}[after, i, "
            elif target.role == "carried":
                if v is not None and self.where.get(v) == "following":
                    if self.after[v] == target.place:
                        continue
                held = self.program.seeds[1 + target.place]
                into = f"{self.array(held, 'carried')}[following, i, "
            else:
                assert v is not None
                held = v
                into = f"{self.array(v, 'steps', target.place)}[t, i, "
            width = held.width
            text = f"{self.number}(0.0)" if v is None else bare(self.element(v, _J))
            if v is not None and v.width == 1:
                lines.append(f"{into}0] = {text}")
            else:
                lines += loop(width, f"{into}j] = {text}")
        return lines

    def loop(self, back: bool = False) -> Function:
        """Step by step, from the first to the last or back."""
        body = self.body()
        head = ["t = T - 1 - s if reverse else s"]
        head += ["before, after = t + reverse, t + 1 - reverse"]
        if back:
            head += ["now = (T - 1 - s) % 2", "following = 1 - now"]
        steps = "range(T - 1, -1, -1)" if back else "range(T)"
        return self.function([f"for s in {steps}:", *indented(head + body)])

    def rows(self) -> Function:
        """For all steps, in any order."""
        body = self.body()
        assert not any(isinstance(stage, Equation) for stage in self.segments)
        return self.function(["for t in range(T):", *indented(body)])

    def function(self, body: list[str]) -> Function:
        arguments = list(self.arguments.values())
        names = ", ".join(["part", "first", "last", "T", "reverse", *(a.name for a in arguments)])
        shapes = "\n".join(f"    {a.name} {shape_of(a)}" for a in arguments)
        doc = f'    """For the sequences first … last − 1, with\n\n{shapes}\n    """'
        text = "\n".join([f"def {self.name}({names}):", doc, *indented(body), ""])
        return Function(self.name, text, arguments)


def shape_of(a: Argument) -> str:
    width = a.value.width
    flat = ", ".join(map(str, a.value.shape))
    return {
        "steps": f"(T, B, {width})",
        "state": f"(T + 1, B, {width}): before and after each step",
        "carried": f"(2, B, {width}): now and at the following step back",
        "rows": f"(B, {width})",
        "scratch": f"(parts, {width}), a row of scratch memory",
        "sums": f"(parts, {width}), added up over steps and sequences",
        "flat": f"({flat}{',' if len(a.value.shape) == 1 else ''})",
        "panels": f"({flat}), packed",
    }[a.role]


def loop(width: int, statement: str) -> list[str]:
    return [f"for j in range({width}):", f"    {statement}"]


def indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def grouped(text: str) -> str:
    """In parentheses, unless it is a name, a number, a call or in some already."""
    if set(text) <= _ATOM or _closed(text):
        return text
    head = text.split("(", 1)[0]
    if head and set(head) <= _ATOM and _closed(text[len(head) :]):
        return text
    return f"({text})"


def bare(text: str) -> str:
    """Without parentheses around the whole."""
    return text[1:-1] if _closed(text) else text


def _closed(text: str) -> bool:
    """Whether the first parenthesis is closed by the last character."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    depth = 0
    for n, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return n == len(text) - 1
    return False


Bind = Callable[[Argument], np.ndarray]
__all__ = ["BATCH", "VIEWS", "Argument", "Function", "Source", "emit"]
